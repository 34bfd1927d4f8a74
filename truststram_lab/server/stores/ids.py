"""Identifiers and instants, both ordered by time."""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime

__all__ = ["new_id", "timestamp"]

_lock = threading.Lock()
_last_ticks = 0

#: random bytes that were read at once: asking the system costs more than making an id
_random = b""
_READ_BYTES = 4096


def new_id(prefix: str) -> str:
    """A fresh opaque id such as ``run_0198c0de...``; a process's later ids sort after earlier ones.

    The layout is UUID version 7 (RFC 9562, section 5.7) with the sub-millisecond fraction in
    ``rand_a`` (section 6.2, method 3), as 32 hexadecimal digits.
    """
    global _last_ticks, _random
    with _lock:
        if len(_random) < 8:
            _random = os.urandom(_READ_BYTES)
        own, _random = _random[:8], _random[8:]
        # 4096 ticks a millisecond; a clock that stands still or steps back never repeats one
        ticks = max(time.time_ns() * 4096 // 1_000_000, _last_ticks + 1)
        _last_ticks = ticks
    milliseconds, fraction = divmod(ticks, 4096)
    random_bits = int.from_bytes(own, "big") >> 2
    value = (milliseconds << 80) | (7 << 76) | (fraction << 64) | (2 << 62) | random_bits
    return f"{prefix}_{value:032x}"


def timestamp() -> str:
    """Now, in UTC, as ISO 8601 with microseconds: texts sort as the instants do."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _forget_random() -> None:
    global _random
    _random = b""


# A forked process must not give out its parent's next ids.
os.register_at_fork(after_in_child=_forget_random)
