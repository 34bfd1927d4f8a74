"""Predictions, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..schemas.serving import Explanation, Prediction
from .card import Card, make_card, plain_data
from .document import Block, Cell, Column, Fold, Line, Strong, Table
from .explanations import adds_up, explanation_blocks
from .numbers import clip, count, latency, percent, plural, short_list, signed

__all__ = ["adds_up", "prediction_card"]

_CLASSES_SHOWN = 12
_CLASSES_FOLDED = 100
_CLASS_COLUMNS = 4
_PREDICTIONS_SHOWN = 40


def prediction_card(
    predictions: Prediction | Sequence[Prediction], *, truth: Sequence[str] = ()
) -> Card:
    """One prediction with all its probabilities and its explanation, or a table of many.

    Args:
        truth: the true label of each row, where it is known; empty where it is not.
    """
    found = [predictions] if isinstance(predictions, Prediction) else list(predictions)
    if len(found) == 1:
        document = _one(found[0], truth[0] if truth else None)
    elif found:
        document = _many(found, truth)
    else:
        document = [Line.of("No predictions: there was no row.")]
    data = {"predictions": [plain_data(entry) for entry in found], "truth": list(truth)}
    return make_card("prediction", document, data)


# One row -------------------------------------------------------------------------------


def _one(prediction: Prediction, truth: str | None) -> list[Block]:
    ordered = _by_probability(prediction)
    label, rest = ordered[0], ordered[1:_CLASSES_SHOWN]
    others = "".join(f", {_likely(prediction, name)}" for name in rest)
    left = len(ordered) - 1 - len(rest)
    more = f" and {plural(left, 'label')} below" if left else ""
    document: list[Block] = [
        Line.of(Strong(_likely(prediction, label)), f"{others}{more}", aside=_served(prediction))
    ]
    if truth is not None:
        right = truth == prediction.label
        document.append(Line.of(f"Truth: {clip(truth)} {'✓ right' if right else '✗ wrong'}"))
    if left:
        document.append(_all_labels(prediction, ordered))
    if prediction.explanation is not None:
        document += explanation_blocks(prediction.explanation)
    return document


def _by_probability(prediction: Prediction) -> list[str]:
    """All labels: the predicted one, then by probability."""
    probabilities = prediction.probabilities
    labels = sorted(probabilities, key=lambda name: -probabilities[name])
    return [prediction.label, *(name for name in labels if name != prediction.label)]


def _likely(prediction: Prediction, label: str) -> str:
    if prediction.value is not None:
        return f"{prediction.value:,.6g}"
    known = label in prediction.probabilities
    return f"{clip(label)} {percent(prediction.probabilities[label])}" if known else clip(label)


def _served(prediction: Prediction) -> str:
    took = f", {latency(prediction.latency_ms)}" if prediction.latency_ms > 0 else ""
    return f"by {clip(prediction.model)}:{prediction.version}{took}"


def _all_labels(prediction: Prediction, ordered: list[str]) -> Fold:
    shown = ordered[:_CLASSES_FOLDED]
    rows = tuple((clip(name), percent(prediction.probabilities.get(name, 0.0))) for name in shown)
    left = [prediction.probabilities[name] for name in ordered[_CLASSES_FOLDED:]]
    rest = f"and {plural(len(left), 'more label')}, together {percent(sum(left))}" if left else ""
    table = Table(
        "Probability of every label",
        (Column("Label"), Column("Probability", "right")),
        rows,
        rest,
        newspaper=True,
    )
    return Fold("All labels", (table,))


# Many rows -----------------------------------------------------------------------------


def _many(predictions: list[Prediction], truth: Sequence[str]) -> list[Block]:
    summary = _summary(predictions)
    models = {f"{clip(entry.model)}:{entry.version}" for entry in predictions}
    document: list[Block] = [
        Line.of(
            Strong(plural(len(predictions), "prediction")),
            f": {summary}",
            aside=f"by {short_list(sorted(models))}",
        )
    ]
    if truth:
        known = list(zip(predictions, truth, strict=False))
        right = sum(1 for entry, label in known if entry.label == label)
        document.append(
            Line.of(f"Right: {count(right)} of {count(len(known))}, {percent(right / len(known))}")
        )
    document.append(_prediction_table(predictions, truth))
    return document


def _summary(predictions: list[Prediction]) -> str:
    values = [entry.value for entry in predictions if entry.value is not None]
    if values:
        mean = sum(values) / len(values)
        return f"{min(values):,.6g} to {max(values):,.6g}, mean {mean:,.6g}"
    tally = Counter(entry.label for entry in predictions).most_common()
    summary = ", ".join(f"{count(n)} {clip(label, 40)}" for label, n in tally[:_CLASSES_SHOWN])
    if len(tally) > _CLASSES_SHOWN:
        summary += f" and {plural(len(tally) - _CLASSES_SHOWN, 'label')} more"
    return summary


def _prediction_table(predictions: list[Prediction], truth: Sequence[str]) -> Table:
    shown = predictions[:_PREDICTIONS_SHOWN]
    labels = list(dict.fromkeys(name for entry in shown for name in entry.probabilities))
    own_columns = labels if len(labels) <= _CLASS_COLUMNS else []
    columns = [Column("Row", "right"), Column("Predicted")]
    columns += [Column(clip(name, 24), "right") for name in own_columns]
    measured = any(entry.value is not None for entry in shown)
    if not own_columns and not measured:
        columns.append(Column("Probability"))
    if truth:
        columns.append(Column("Truth"))
    explained = any(entry.explanation is not None for entry in shown)
    if explained:
        columns.append(Column("Mostly because of"))
    rows = []
    for index, entry in enumerate(shown):
        cells: list[Cell] = [count(index + 1), _predicted(entry)]
        cells += [percent(entry.probabilities.get(name, 0.0)) for name in own_columns]
        if not own_columns and not measured:
            cells.append(", ".join(_likely(entry, name) for name in _by_probability(entry)[:3]))
        if truth:
            cells.append(_truth_cell(entry, truth[index]) if index < len(truth) else "")
        if explained:
            cells.append("" if entry.explanation is None else _main_reason(entry.explanation))
        rows.append(tuple(cells))
    left = len(predictions) - len(shown)
    rest = f"and {plural(left, 'more row')}: all are in the result, .to_frame()" if left else ""
    return Table("Predictions, in the order of the rows", tuple(columns), tuple(rows), rest)


def _predicted(entry: Prediction) -> str:
    return clip(entry.label, 40) if entry.value is None else f"{entry.value:,.6g}"


def _truth_cell(entry: Prediction, label: str) -> str:
    return f"{clip(label, 40)} {'✓' if label == entry.label else '✗'}"


def _main_reason(explanation: Explanation) -> str:
    if not explanation.contributions:
        return ""
    main = max(explanation.contributions, key=lambda part: abs(part.contribution))
    return f"{clip(main.feature, 40)} {signed(main.contribution)}"
