"""Why: what each column adds, and whether it adds up."""

from __future__ import annotations

import math

from ..schemas.serving import Contribution, Explanation
from .document import Bar, Block, Cell, Column, Fold, Line, Table, facts
from .numbers import clip, count, percent, plural, scalar, signed

__all__ = ["adds_up", "explanation_blocks"]

_SHOWN = 8
_FOLDED = 60
_BAR_CELLS = 8
#: Of the largest number in the sum: room for float32 networks, not for a wrong method.
_TOLERANCE = 1e-4

_METHODS = {"exact_shapley": "Exact Shapley values", "deeplift": "DeepLIFT"}
_BACKGROUNDS = {"federated_means": "federated means, no rows"}


def adds_up(explanation: Explanation) -> bool:
    """Whether the base value and all contributions together are the output value.

    The residual is not counted in: it is what the method failed to attribute.
    """
    parts = [explanation.base_value, *(part.contribution for part in explanation.contributions)]
    largest = max(1.0, abs(explanation.output_value), *(abs(part) for part in parts))
    return abs(math.fsum(parts) - explanation.output_value) <= _TOLERANCE * largest


def explanation_blocks(explanation: Explanation) -> list[Block]:
    """The largest contributions, their sum, the method, and all numbers behind a fold."""
    ordered = sorted(explanation.contributions, key=lambda part: -_magnitude(part.contribution))
    return [
        _contribution_table(explanation, ordered),
        Line.of(
            f"{_METHODS.get(explanation.method, explanation.method)}; background: "
            f"{_BACKGROUNDS.get(explanation.background.kind, explanation.background.kind)}"
        ),
        _all_numbers(explanation, ordered),
    ]


def _magnitude(value: float) -> float:
    return abs(value) if math.isfinite(value) else math.inf


def _contribution_table(explanation: Explanation, ordered: list[Contribution]) -> Table:
    shown, others = ordered[:_SHOWN], ordered[_SHOWN:]
    entries: list[tuple[str, str, float]] = [
        (clip(part.feature), scalar(part.value), part.contribution) for part in shown
    ]
    if others:
        together = math.fsum(part.contribution for part in others)
        entries.append((plural(len(others), "other"), "", together))
    residual = explanation.residual
    if not adds_up(explanation) and residual:
        entries.append(("not attributed by the method", "", residual))
    longest = max((_magnitude(value) for _, _, value in entries), default=0.0) or 1.0
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            value,
            Bar.of(_magnitude(amount) / longest, _BAR_CELLS, negative=amount < 0),
            signed(amount),
            "",
        )
        for name, value, amount in entries
    ]
    start = _plain_signed(explanation.base_value)
    rows.append((f"{start} and all of these", "", "", *_sum_cells(explanation)))
    return Table(
        f"{_space(explanation)}, from {start}",
        (Column(), Column(align="right"), Column(), Column(align="right"), Column()),
        tuple(rows),
    )


def _sum_cells(explanation: Explanation) -> tuple[str, str]:
    output = _plain_signed(explanation.output_value)
    if adds_up(explanation):
        return f"= {output}", f"✓{_as_probability(explanation)}"
    parts = [explanation.base_value, *(part.contribution for part in explanation.contributions)]
    if abs(math.fsum([*parts, explanation.residual]) - explanation.output_value) <= _TOLERANCE:
        return f"= {output}", "with what is not attributed"
    return f"= {_plain_signed(math.fsum(parts))}", f"but the model's output is {output}"


def _as_probability(explanation: Explanation) -> str:
    if explanation.output_space != "log_odds" or not math.isfinite(explanation.output_value):
        return ""
    odds = math.exp(-abs(explanation.output_value))
    likely = (1.0 if explanation.output_value >= 0 else odds) / (1.0 + odds)
    return f" {percent(likely)} {clip(explanation.explained_class, 40)}"


def _space(explanation: Explanation) -> str:
    label = clip(explanation.explained_class)
    if explanation.output_space == "log_odds":
        return f"Log-odds towards {label}"
    return f"Logit of {label} above the mean of all labels"


def _plain_signed(value: float) -> str:
    return signed(value).removeprefix("+")


def _all_numbers(explanation: Explanation, ordered: list[Contribution]) -> Fold:
    others = ordered[_SHOWN:]
    shown = others[:_FOLDED]
    blocks: list[Block] = [Line.of(clip(explanation.meaning, 400))]
    if shown:
        left = len(others) - len(shown)
        rows = tuple(
            (clip(part.feature), scalar(part.value), _precise(part.contribution)) for part in shown
        )
        blocks.append(
            Table(
                f"The {plural(len(others), 'other')}",
                (Column("Column"), Column("Value", "right"), Column("Adds", "right")),
                rows,
                f"and {plural(left, 'more column')}" if left else "",
                newspaper=True,
            )
        )
    blocks.append(_sum_facts(explanation))
    return Fold(
        "What the numbers mean, and all of them" if shown else "What they mean", tuple(blocks)
    )


def _sum_facts(explanation: Explanation) -> Table:
    background, error = explanation.background, explanation.standard_error
    rows = plural(background.rows, "row")
    return facts(
        "The sum",
        (
            ("start (base value)", _precise(explanation.base_value)),
            ("end (output value)", _precise(explanation.output_value)),
            ("residual", f"{explanation.residual:.2g}"),
            ("standard error", "none, nothing was sampled" if error is None else f"{error:.2g}"),
            ("background", f"means over {rows} of all sites, sha256 {background.sha256[:12]}"),
            ("contract", f"version {count(explanation.schema_version)}"),
        ),
    )


def _precise(value: float) -> str:
    return f"{value:+.4f}" if 0.00005 <= abs(value) < 1e9 else f"{value:+.2g}" if value else "0"
