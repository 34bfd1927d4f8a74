"""What an explainer found for some rows: numbers that cannot change, and how to look at them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from truststram_lab.exceptions import InvalidInputError, nearest
from truststram_lab.render.attributions import (
    Importance,
    MethodFacts,
    Waterfall,
    importance_card,
    waterfall_card,
)
from truststram_lab.render.card import Card

from .interfaces import Floats

__all__ = ["ExplanationSet"]

_SPACES = {"margin": "Margin", "probability": "Probability", "value": "Predicted value"}
_SPREAD = 21


@dataclass(frozen=True, eq=False)
class ExplanationSet:
    """Contributions of columns to a model's outputs, row by row.

    ``base_values + values.sum(axis=1) + residual == outputs``. With one output (a value, or two
    classes) arrays are (n, columns) and (n,), with more (n, columns, outputs) and (n, outputs).

    Args:
        values: contributions; ``base_values``: what they start from; ``outputs``: the model's.
        feature_names: the columns.
        data: each row's values, as Python scalars.
        classes: what the outputs speak of; empty for a value.
        output: ``margin``, ``probability`` or ``value``.
        method: its identifier; ``title``: its name for people; ``meaning``: what a number says.
        background_sha256: of the rows that stand for an absent column; None where none do.
        background: the same in words.
        standard_error: shaped as ``values``; None where nothing was sampled.
        fit: R squared of each row's local model; None where there is none.
        conditions: for each row, each column's value in the words of the method; None: as it is.
        notes: what changes how the numbers read.
    """

    values: Floats
    base_values: Floats
    outputs: Floats
    feature_names: tuple[str, ...]
    data: tuple[tuple[Any, ...], ...]
    classes: tuple[str, ...]
    output: str
    method: str
    title: str
    meaning: str
    background: str
    background_sha256: str | None = None
    standard_error: Floats | None = None
    fit: Floats | None = None
    conditions: tuple[tuple[str, ...], ...] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part in fields(self):
            value = getattr(self, part.name)
            if isinstance(value, np.ndarray):
                frozen = np.array(value, dtype=np.float64)
                frozen.flags.writeable = False
                object.__setattr__(self, part.name, frozen)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[ExplanationSet]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: Any) -> ExplanationSet:
        """One row, a slice, or the rows of an index array, as a set of the same kind."""
        if isinstance(index, int | np.integer):
            if not -len(self) <= index < len(self):
                raise IndexError(f"There are {len(self)} explanations; {index} is none of them.")
            index = slice(index, index + 1 or None)
        rows = np.arange(len(self))[index]
        return replace(
            self,
            values=self.values[rows],
            base_values=self.base_values[rows],
            outputs=self.outputs[rows],
            data=tuple(self.data[row] for row in rows),
            standard_error=None if self.standard_error is None else self.standard_error[rows],
            fit=None if self.fit is None else self.fit[rows],
            conditions=None
            if self.conditions is None
            else tuple(self.conditions[row] for row in rows),
        )

    @property
    def residual(self) -> Floats:
        """What the contributions do not add up to, shaped as ``outputs``."""
        left: Floats = self.outputs - self.base_values - self.values.sum(axis=1)
        return left

    @property
    def explained_classes(self) -> list[str]:
        """The class that each row's card shows: the only one, or the predicted."""
        if not self.classes:
            return [""] * len(self)
        if self.values.ndim == 2:
            return [self.classes[0]] * len(self)
        return [self.classes[place] for place in self.outputs.argmax(axis=1)]

    def select(self, class_label: str) -> ExplanationSet:
        """One class of several.

        Raises:
            InvalidInputError: it is no class, with those that are.
        """
        if str(class_label) not in self.classes:
            known = ", ".join(self.classes[:10]) or "none, the model predicts a value"
            raise InvalidInputError(
                f"{class_label!r} is not an explained class; there are: {known}.",
                field="class_label",
                choices=nearest(str(class_label), self.classes) or list(self.classes[:3]),
            )
        if self.values.ndim == 2:
            return self
        place = self.classes.index(str(class_label))
        error, fit = self.standard_error, self.fit
        return replace(
            self,
            values=self.values[:, :, place],
            base_values=self.base_values[:, place],
            outputs=self.outputs[:, place],
            classes=(str(class_label),),
            standard_error=None if error is None else error[:, :, place],
            fit=fit if fit is None or fit.ndim == 1 else fit[:, place],
        )

    def importance(self) -> dict[str, float]:
        """Mean magnitude of each column's contributions (over outputs too), largest first."""
        axes = (0, *range(2, self.values.ndim))
        means = np.abs(self.values).mean(axis=axes) if len(self) else np.zeros(self._width)
        order = np.argsort(-means, kind="stable")
        return {self.feature_names[place]: float(means[place]) for place in order}

    def to_frame(self) -> Any:
        """A DataFrame of contributions, one row each; with several classes, (class, column)."""
        import pandas as pd

        if self.values.ndim == 2:
            return pd.DataFrame(self.values.copy(), columns=list(self.feature_names))
        columns = pd.MultiIndex.from_product(
            [self.classes or range(self.values.shape[2]), self.feature_names]
        )
        return pd.DataFrame(self.values.transpose(0, 2, 1).reshape(len(self), -1), columns=columns)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Each row as plain data that json can write, about the class that its card shows."""
        return [self._dict(row, place) for row, place in enumerate(self._shown())]

    def as_list(self, row: int = 0) -> list[tuple[str, float]]:
        """One row's columns, in the method's words, with their contributions, largest first."""
        fall = self._fall(row, self._shown()[row])
        named = self.conditions[row] if self.conditions is not None else self.feature_names
        pairs = [
            (name, part[2]) for name, part in zip(named, fall.parts, strict=True) if part[2] != 0.0
        ]
        return sorted(pairs, key=lambda pair: -abs(pair[1]))

    def card(self) -> Card:
        """One row's contributions with a choice of class, or what matters over all rows."""
        if len(self) == 1:
            count = 1 if self.values.ndim == 2 else self.values.shape[2]
            falls = [self._fall(0, place) for place in range(count)]
            return waterfall_card(falls, self._shown()[0], self._facts())
        worst = float(np.abs(self.residual).max()) if len(self) else 0.0
        return importance_card(self._importances(), len(self), self._facts(), worst)

    def save_to_file(self, path: str | Path) -> Path:
        """Write the card as a page of its own that needs nothing else."""
        target = Path(path)
        page = (
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Explanation'
            '</title></head><body style="font-family:sans-serif;margin:24px">'
            f"{self.card().html}</body></html>\n"
        )
        target.write_text(page, encoding="utf-8")
        return target

    def plot_summary(self, save_path: str | Path | None = None, **options: Any) -> Any:
        """A beeswarm of all rows, as a matplotlib Figure."""
        from .plots import summary_figure

        return summary_figure(self, save_path, **options)

    def plot_waterfall(self, save_path: str | Path | None = None, **options: Any) -> Any:
        """From the base value to one row's output, as a matplotlib Figure."""
        from .plots import waterfall_figure

        return waterfall_figure(self, save_path, **options)

    def __repr__(self) -> str:
        return self.card().text

    def _repr_html_(self) -> str:
        return self.card().html

    def _repr_mimebundle_(self, **_asked: Any) -> dict[str, object]:
        return self.card().bundle()

    @property
    def _width(self) -> int:
        return len(self.feature_names)

    def _shown(self) -> list[int]:
        if self.values.ndim == 2:
            return [0] * len(self)
        return [int(place) for place in self.outputs.argmax(axis=1)]

    def _label(self, place: int) -> str:
        return self.classes[place] if self.classes else ""

    def _fall(self, row: int, place: int) -> Waterfall:
        several = self.values.ndim == 3
        values = self.values[row, :, place] if several else self.values[row]
        error = self.standard_error
        errors: list[float | None] = [None] * self._width
        if error is not None:
            errors = (error[row, :, place] if several else error[row]).tolist()
        shown = self.conditions[row] if self.conditions is not None else self.data[row]
        fit = self.fit
        return Waterfall(
            label=self._label(place),
            base=float(self.base_values[row, place] if several else self.base_values[row]),
            output=float(self.outputs[row, place] if several else self.outputs[row]),
            parts=tuple(zip(self.feature_names, shown, values.tolist(), errors, strict=True)),
            fit=None if fit is None else float(fit[row, place] if fit.ndim == 2 else fit[row]),
        )

    def _importances(self) -> list[Importance]:
        values = self.values if self.values.ndim == 3 else self.values[:, :, None]
        at = np.linspace(0.0, 1.0, _SPREAD)
        found = []
        for place in range(values.shape[2]):
            each = values[:, :, place]
            parts = tuple(
                (
                    name,
                    float(np.abs(each[:, j]).mean()) if len(self) else 0.0,
                    float(each[:, j].mean()) if len(self) else 0.0,
                    tuple(np.quantile(each[:, j], at).tolist()) if len(self) else (),
                )
                for j, name in enumerate(self.feature_names)
            )
            found.append(Importance(self._label(place), parts))
        return found

    def _facts(self) -> MethodFacts:
        error = self.standard_error
        sampled = ""
        if error is not None and error.size:
            sampled = f"{float(np.nanmean(error)):.2g} in the mean, {float(np.nanmax(error)):.2g}"
            sampled += " at most"
        return MethodFacts(
            self.title,
            self.meaning,
            _SPACES.get(self.output, self.output),
            self.background,
            sampled,
            self.notes,
        )

    def _dict(self, row: int, place: int) -> dict[str, Any]:
        fall = self._fall(row, place)
        errors = [part[3] for part in fall.parts if part[3] is not None]
        return {
            "schema_version": 1,
            "method": self.method,
            "meaning": self.meaning,
            "explained_class": fall.label or None,
            "output_space": self.output,
            "base_value": fall.base,
            "output_value": fall.output,
            "contributions": [
                {"feature": name, "value": _scalar(value), "contribution": amount}
                for name, value, amount, _ in fall.parts
            ],
            "residual": fall.residual,
            "standard_error": max(errors) if errors else None,
            "background": {"kind": self.background, "sha256": self.background_sha256},
        }


def _scalar(value: Any) -> Any:
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float) else str(value)
