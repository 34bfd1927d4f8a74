"""What a column's values can be, known without looking at the rows.

Under differential privacy the inputs of a network cannot be scaled by the rows' own means, and
noised means of clipped values need something to clip to. Both come from these bounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from truststram_lab.exceptions import InvalidInputError, nearest
from truststram_lab.schemas.tables import Signature

__all__ = ["Bounds", "checked_bounds", "demo_bounds"]

#: numeric column -> (least, greatest value), in column units
Bounds = dict[str, tuple[float, float]]

#: The ranges that the data sets' published descriptions give, rounded outwards. Breast cancer:
#: Street, Wolberg and Mangasarian 1993, summary table of the UCI repository.
_BREAST_CANCER: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "radius": ((6, 30), (0, 3), (7, 40)),
    "texture": ((9, 40), (0, 5), (12, 50)),
    "perimeter": ((40, 190), (0, 22), (50, 260)),
    "area": ((140, 2600), (0, 550), (180, 4300)),
    "smoothness": ((0.05, 0.17), (0, 0.035), (0.07, 0.23)),
    "compactness": ((0, 0.35), (0, 0.14), (0, 1.1)),
    "concavity": ((0, 0.43), (0, 0.4), (0, 1.3)),
    "concave points": ((0, 0.21), (0, 0.06), (0, 0.3)),
    "symmetry": ((0.1, 0.31), (0, 0.08), (0.15, 0.67)),
    "fractal dimension": ((0.04, 0.1), (0, 0.03), (0.05, 0.21)),
}


def demo_bounds(name: str, signature: Signature) -> Bounds:
    """The documented bounds of a demo data set; empty for one that has none."""
    if name == "digits":
        # Counts of set pixels in blocks of 4 x 4.
        return {column.name: (0.0, 16.0) for column in signature.columns}
    if name != "breast-cancer":
        return {}
    found: Bounds = {}
    for measure, (mean, error, worst) in _BREAST_CANCER.items():
        found[f"mean {measure}"] = mean
        found[f"{measure} error"] = error
        found[f"worst {measure}"] = worst
    return {column.name: found[column.name] for column in signature.columns}


def checked_bounds(given: Mapping[str, Any] | None, signature: Signature) -> Bounds:
    """``given`` as bounds of every numeric column of the signature.

    Raises:
        InvalidInputError: a column has none, a name is no numeric column, or a pair is no range.
    """
    numeric = [column.name for column in signature.columns if column.kind == "numeric"]
    if given is not None and not isinstance(given, Mapping):
        raise InvalidInputError(
            f"bounds is a {type(given).__name__}; give a dict of column and range, such as "
            "{'age': (0, 120)}.",
            field="bounds",
        )
    pairs = dict(given or {})
    for name in pairs:
        if name not in numeric:
            close = nearest(str(name), numeric)
            hint = f"did you mean {close[0]!r}?" if close else "only numeric columns have bounds."
            raise InvalidInputError(
                f"bounds has {str(name)[:60]!r}, which is no numeric column; {hint}",
                field="bounds",
                choices=close,
            )
    missing = [name for name in numeric if name not in pairs]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InvalidInputError(
            f"With --dp every numeric column needs the range of values that it can have, because "
            f"the rows' own means would give them away; {missing[0]!r}{more} has none: give "
            f"--bounds VAR with a dict such as {{{missing[0]!r}: (0, 100)}}, from knowledge and "
            "not from the rows.",
            field="bounds",
        )
    return {name: _pair(name, pairs[name]) for name in numeric}


def _pair(name: str, found: Any) -> tuple[float, float]:
    try:
        low, high = (float(value) for value in found)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InvalidInputError(
            f"The bounds of {name!r} are {str(found)[:60]}; give its least and its greatest "
            "possible value, such as (0, 120).",
            field="bounds",
        )
    return low, high
