"""Pictures made of characters: they survive every front end that shows text."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["NEGATIVE", "POSITIVE", "bar", "sparkline"]

#: Both have at least 3:1 contrast on white and on near-black (WCAG 2.2, 1.4.11).
POSITIVE = "#0f7ec2"
NEGATIVE = "#b8651b"

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"


def bar(share: float, cells: int) -> str:
    """A horizontal bar, ``share`` in [0, 1] of ``cells`` characters, to an eighth of one.

    Anything above zero shows at least an eighth.
    """
    if not math.isfinite(share) or share <= 0:
        return ""
    eighths = max(1, round(min(share, 1.0) * cells * 8))
    full, rest = divmod(eighths, 8)
    return "█" * full + (_EIGHTHS[rest] if rest else "")


def sparkline(values: Sequence[float], most: int = 30) -> str:
    """One character a value between the lowest and the highest; evenly thinned to ``most``.

    The last value is always among those that are shown.
    """
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return ""
    if len(known) > most:
        step = (len(known) - 1) / (most - 1)
        known = [known[round(index * step)] for index in range(most)]
    low, high = min(known), max(known)
    span = high - low
    if span <= 0:
        return _LEVELS[3] * len(known)
    top = len(_LEVELS) - 1
    return "".join(_LEVELS[round((value - low) / span * top)] for value in known)
