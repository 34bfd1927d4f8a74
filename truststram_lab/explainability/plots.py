"""Pictures of explanations: matplotlib Figures, never pyplot, so that threads may draw."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.render.bars import NEGATIVE, POSITIVE
from truststram_lab.render.numbers import clip, scalar, signed

if TYPE_CHECKING:
    from .explanation_set import ExplanationSet

__all__ = ["summary_figure", "waterfall_figure"]


def summary_figure(
    explanations: ExplanationSet,
    save_path: str | Path | None = None,
    *,
    max_display: int = 20,
    class_label: str | None = None,
) -> Any:
    """A point for each row and column: its contribution, coloured by the column's value.

    Args:
        save_path: also write the picture there; its suffix is the format.
        max_display: columns shown, the most important first.
        class_label: of several classes; None: the one predicted most often.
    """
    chosen = _one_class(explanations, class_label)
    if not len(chosen):
        raise InvalidInputError(
            "There is no row to draw; explain at least one.", field="explanations"
        )
    names = list(chosen.importance())[:max_display]
    figure, axes = _figure(7.0, 1.2 + 0.32 * len(names))
    for line, name in enumerate(reversed(names)):
        place = chosen.feature_names.index(name)
        values = chosen.values[:, place]
        shade = _shades([row[place] for row in chosen.data])
        height = line + _spread(values)
        known = ~np.isnan(shade)
        axes.scatter(values[~known], height[~known], s=9, color="#888888", linewidths=0)
        axes.scatter(
            values[known], height[known], s=9, c=shade[known], cmap="viridis", vmin=0, vmax=1,
            linewidths=0,
        )  # fmt: skip
    axes.set_yticks(range(len(names)), [clip(name, 30) for name in reversed(names)])
    axes.axvline(0.0, color="#888888", linewidth=0.8)
    axes.set_xlabel(f"Contribution to the {_space(chosen)}")
    axes.set_title("Each point is a row; yellow: a high value of the column, violet: a low one")
    axes.title.set_fontsize(9)
    return _saved(figure, save_path)


def waterfall_figure(
    explanation: ExplanationSet,
    save_path: str | Path | None = None,
    *,
    max_display: int = 10,
    class_label: str | None = None,
) -> Any:
    """Step by step from the base value to the output of one row.

    Args:
        explanation: of one row, such as ``explanations[0]``.
        save_path: also write the picture there; its suffix is the format.
        max_display: columns shown; the others are one step.
        class_label: of several classes; None: the predicted one.

    Raises:
        InvalidInputError: it is not one row.
    """
    if len(explanation) != 1:
        raise InvalidInputError(
            f"A waterfall shows one row and there are {len(explanation)}; pass one of them, "
            "such as explanations[0].",
            field="explanation",
        )
    chosen = (
        explanation.select(class_label or explanation.explained_classes[0])
        if (explanation.classes)
        else explanation
    )
    values = chosen.values[0] if chosen.values.ndim == 2 else chosen.values[0, :, 0]
    base = float(np.ravel(chosen.base_values)[0])
    output = float(np.ravel(chosen.outputs)[0])
    steps = _steps(chosen, values, output - base - float(values.sum()), max_display)
    figure, axes = _figure(7.0, 1.4 + 0.36 * len(steps))
    at = base
    for line, (_, amount) in enumerate(reversed(steps)):
        colour = POSITIVE if amount >= 0 else NEGATIVE
        axes.barh(line, amount, left=at, color=colour, height=0.7)
        axes.annotate(
            signed(amount), (max(at, at + amount), line), xytext=(4, 0),
            textcoords="offset points", va="center", fontsize=8,
        )  # fmt: skip
        at += amount
    axes.set_yticks(range(len(steps)), [label for label, _ in reversed(steps)])
    axes.axvline(base, color="#888888", linewidth=0.8, linestyle=":")
    axes.margins(x=0.12)
    axes.set_xlabel(_space(chosen))
    axes.set_title(f"From {base:.4g} to {output:.4g}", fontsize=10)
    return _saved(figure, save_path)


def _steps(
    chosen: ExplanationSet, values: Any, residual: float, max_display: int
) -> list[tuple[str, float]]:
    """Largest first; the last is drawn at the top, as it is read."""
    order = np.argsort(-np.abs(values), kind="stable")
    shown, rest = order[:max_display], order[max_display:]
    steps = [
        (
            f"{clip(chosen.feature_names[place], 24)} = {scalar(chosen.data[0][place])}",
            float(values[place]),
        )
        for place in shown
    ]
    if len(rest):
        steps.append((f"{len(rest)} others", float(values[rest].sum())))
    if abs(residual) > 1e-4 * max(1.0, float(np.abs(values).max(initial=0.0))):
        steps.append(("not attributed", residual))
    return steps


def _one_class(explanations: ExplanationSet, class_label: str | None) -> ExplanationSet:
    if explanations.values.ndim == 2:
        return explanations.select(class_label) if class_label is not None else explanations
    if class_label is None:
        counts = np.bincount(explanations.outputs.argmax(axis=1)) if len(explanations) else [1]
        if not explanations.classes:
            raise InvalidInputError(
                "These explanations have several outputs without names; pass class_names= to the "
                "explainer.",
                field="class_label",
            )
        class_label = explanations.classes[int(np.argmax(counts))]
    return explanations.select(class_label)


def _space(chosen: ExplanationSet) -> str:
    label = f" towards {clip(chosen.classes[0], 30)}" if chosen.classes else ""
    return {"value": "predicted value"}.get(chosen.output, chosen.output) + label


def _shades(column: list[Any]) -> Any:
    """Ranks in [0, 1] of a column's values; NaN for text and missing ones."""
    numbers = np.array(
        [float(v) if isinstance(v, int | float) and v is not None else np.nan for v in column]
    )
    known = np.flatnonzero(~np.isnan(numbers))
    if len(known):
        unique, rank = np.unique(numbers[known], return_inverse=True)
        numbers[known] = rank / max(len(unique) - 1, 1)
    return numbers


def _spread(values: Any) -> Any:
    """Heights in [-0.35, 0.35] that keep close points apart."""
    low, high = values.min(), values.max()
    bins = np.zeros(len(values), int)
    if high > low:
        bins = ((values - low) / (high - low) * 60).astype(int)
    height = np.zeros(len(values))
    for number in np.unique(bins):
        inside = np.flatnonzero(bins == number)
        layer = np.arange(len(inside))
        height[inside] = np.where(layer % 2, 1, -1) * ((layer + 1) // 2)
    most = np.abs(height).max()
    return 0.35 * height / most if most > 4 else 0.07 * height


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _saved(figure: Any, save_path: str | Path | None) -> Any:
    if save_path is not None:
        figure.savefig(save_path, dpi=120)
    return figure
