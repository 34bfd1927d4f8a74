"""Numbers and names as people read them; every card formats them here and nowhere else."""

from __future__ import annotations

import math
import unicodedata
from datetime import UTC, datetime

__all__ = [
    "clean",
    "clip",
    "count",
    "duration",
    "latency",
    "moment",
    "percent",
    "plural",
    "scalar",
    "share",
    "short_list",
    "signed",
    "size",
]

#: Characters that reorder what follows them, so that a name could read as another.
_REORDERING = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
#: Categories of characters that are no text: controls (terminal escapes), halves of pairs,
#: line and paragraph separators.
_NO_TEXT = frozenset({"Cc", "Cs", "Zl", "Zp"})


def clean(text: str) -> str:
    """``text`` on one line, with a visible mark in place of every character that is no text.

    A name must not be able to move the cursor of a terminal or to reorder a sentence.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        " "
        if character in "\n\t"
        else "\ufffd"
        if character in _REORDERING or unicodedata.category(character) in _NO_TEXT
        else character
        for character in text
    )


def clip(text: str, most: int = 60) -> str:
    """``clean(text)`` with at most ``most`` characters, an ellipsis in place of the rest."""
    whole = clean(text)
    return whole if len(whole) <= most else whole[: most - 1].rstrip() + "…"


def count(number: int) -> str:
    """A whole number with its thousands apart: ``12,345``."""
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """``1 site``, ``5 sites``, ``0 sites``."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def _unrounded(value: float, top: float, digits: range) -> str:
    """``value`` with the first number of digits that does not round it to 0 or to ``top``."""
    value += 0.0  # a negative zero is a zero
    for places in digits:
        text = f"{value:.{places}f}"
        if value in (0.0, top) or not 0.0 <= value <= top or 0.0 < float(text) < top:
            return text
    step = 10.0 ** -digits[-1]
    return f"<{step:.{digits[-1]}f}" if value < top / 2 else f">{top - step:.{digits[-1]}f}"


def percent(value: float) -> str:
    """A share in [0, 1] as ``97 %``; ``0 %`` and ``100 %`` only when it is exactly that."""
    if not math.isfinite(value):
        return "unknown"
    return f"{_unrounded(100.0 * value, 100.0, range(3))} %"


def share(value: float, digits: int = 2) -> str:
    """A share in [0, 1] as ``0.94``; 0 and 1 are never the result of rounding."""
    if not math.isfinite(value):
        return "unknown"
    return _unrounded(value, 1.0, range(digits, 5))


def signed(value: float) -> str:
    """A number with its sign and two decimals, ``+2.60``; small ones keep two digits."""
    if not math.isfinite(value):
        return "unknown"
    if value == 0.0:
        return "0.00"
    return f"{value:+,.2f}" if 0.005 <= abs(value) < 1e9 else f"{value:+.2g}"


def size(size_bytes: int) -> str:
    """Bytes in decimal units: ``840 B``, ``1.2 kB``, ``24 kB``, ``3.4 MB``."""
    amount = float(size_bytes)
    if amount < 1000:
        return f"{size_bytes} B"
    for unit in ("kB", "MB", "GB", "TB"):
        amount /= 1000
        if amount < 9.95:
            return f"{amount:.1f} {unit}"
        if amount < 999.5 or unit == "TB":
            break
    return f"{amount:,.0f} {unit}"


def duration(seconds: float) -> str:
    """Time that passed: ``0.4 s``, ``14 s``, ``3 min 05 s``, ``2 h 07 min``, ``3 d 4 h``."""
    if not math.isfinite(seconds):
        return "unknown time"
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(hours, 24)
    return f"{count(days)} d {hours} h"


def latency(milliseconds: float) -> str:
    """A short time: ``0.4 ms``, ``4 ms``, ``250 ms``, then seconds."""
    if milliseconds < 0.95:
        return f"{max(milliseconds, 0.0):.1f} ms"
    return f"{milliseconds:.0f} ms" if milliseconds < 999.5 else duration(milliseconds / 1000)


def scalar(value: object) -> str:
    """A value of a row: at most six digits, ``missing`` for None, text as it is."""
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if abs(value) < 10**15 else f"{value:.6g}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return clip(str(value), 40)


def moment(written: str, zone: str = " UTC", *, seconds: bool = False) -> str:
    """An ISO 8601 time as ``2026-03-01 09:30 UTC``; anything else as it is.

    Args:
        zone: empty where a title says it.
        seconds: to the second, for what follows close upon another.
    """
    try:
        when = datetime.fromisoformat(written)
    except ValueError:
        return clip(written, 40)
    if when.tzinfo is not None:
        when = when.astimezone(UTC)
    clock = f"{when:%H:%M:%S}" if seconds else f"{when:%H:%M}"
    return f"{when:%Y-%m-%d} {clock}{zone}"


def short_list(names: list[str], most: int = 5) -> str:
    """``a, b, c and 7 more``, each name clipped."""
    shown = ", ".join(clip(name, 40) for name in names[:most])
    rest = len(names) - most
    return shown if rest <= 0 else f"{shown} and {count(rest)} more"
