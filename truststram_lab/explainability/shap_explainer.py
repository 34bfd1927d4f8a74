"""``SHAPExplainer``: Shapley values of anything that predicts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from truststram_lab.exceptions import ConflictError, InvalidInputError

from .adapter import Adapter, adapt, column_names, held_by, processed
from .explanation_set import ExplanationSet
from .interfaces import Floats
from .methods import METHODS, Method, MethodOptions, choose
from .rows import Rows, is_frame, read_rows

__all__ = ["SHAPExplainer"]

_SPACES = {"margin": "margin", "probability": "probability", "value": "predicted value"}


class SHAPExplainer:
    """Shapley values; the method is chosen from the model and named in what comes back.

    Args:
        model: a scikit-learn, XGBoost or LightGBM estimator, a pipeline, a torch module, a
            function of rows, or an object that holds one of these as ``estimator``.
        background_data: rows whose values stand for an absent column. Only trees do without.
        feature_names: None: the DataFrame's columns, the model's own names, else f0, f1, ...
        method: ``auto``, or one of ``linear``, ``tree_interventional``, ``tree_path``,
            ``deeplift``, ``expected_gradients``, ``exact``, ``permutation``.
        output: ``margin`` or ``probability``; None: the margin where the model has one.
        class_names: names in the order of the model's outputs; None: the model's own.
        positive_class: of two classes, the one that numbers point to; None: the second.
        samples: of the methods that sample: walks through the columns, or points on the ways.
        seed: of what is sampled; the same seed gives the same numbers.

    Raises:
        InvalidInputError: an argument does not fit the model; one sentence with the way out.

    Lundberg & Lee 2017, "A Unified Approach to Interpreting Model Predictions".
    https://arxiv.org/abs/1705.07874
    """

    def __init__(
        self,
        model: Any,
        background_data: Any = None,
        feature_names: Sequence[str] | None = None,
        *,
        method: str = "auto",
        output: str | None = None,
        class_names: Sequence[str] | None = None,
        positive_class: str | None = None,
        samples: int = 200,
        seed: int = 0,
    ) -> None:
        if samples < 2:
            raise InvalidInputError(
                f"samples={samples} is too few for a standard error; use at least 2.",
                field="samples",
            )
        self.model = model
        self.background = _read_background(model, background_data, feature_names)
        self.adapter: Adapter = adapt(
            model,
            output=output,
            class_names=class_names,
            positive_class=positive_class,
            probe=self.background,
        )
        if self.background is not None:
            _check_finite(self.adapter, self.background, "background_data")
        self._sha256 = None if self.background is None else self.background.sha256()
        self.notes = _notes(self.background)
        self._named = list(feature_names) if feature_names is not None else None
        options = MethodOptions(samples, seed)
        self._method: Method = choose(method, self.adapter, self.background, options)
        self._last: ExplanationSet | None = None

    @property
    def method(self) -> str:
        """The method in use, such as ``linear``."""
        return self._method.name

    def explain(
        self, data: Any, *, progress: Callable[[int, int], None] | None = None
    ) -> ExplanationSet:
        """What every column adds to the model's output for each row.

        Args:
            data: rows as the model takes them: a DataFrame, an array of any numeric type, a
                tensor, or a single row.
            progress: called with rows done and rows in all, after each part.

        Raises:
            InvalidInputError: columns do not match, or a value is missing that the model needs.
        """
        rows = self._rows(data)
        _check_finite(self.adapter, rows, "data")
        values: list[Floats] = []
        errors: list[Floats] = []
        outputs: list[Floats] = []
        base: Floats = np.zeros(self.adapter.width)
        for start in range(0, len(rows), self._method.rows_at_once):
            part = rows.take(slice(start, start + self._method.rows_at_once))
            found = self._method.run(part)
            values.append(found.values)
            outputs.append(self.adapter(part))
            base = found.base
            if found.error is not None:
                errors.append(found.error)
            if progress is not None:
                progress(start + len(part), len(rows))
        explained = self._set(rows, values, base, outputs, errors)
        self._last = explained
        return explained

    def get_feature_importance(self) -> dict[str, float]:
        """Mean magnitude of each column's contributions in the last ``explain``, largest first.

        Raises:
            ConflictError: nothing was explained yet.
        """
        return self._explained("get_feature_importance").importance()

    def plot_summary(
        self,
        explanations: ExplanationSet | None = None,
        save_path: str | Path | None = None,
        **options: Any,
    ) -> Any:
        """A beeswarm of explanations (None: the last ones), as a matplotlib Figure."""
        chosen = self._explained("plot_summary") if explanations is None else explanations
        return chosen.plot_summary(save_path, **options)

    def plot_waterfall(
        self,
        explanation: ExplanationSet | None = None,
        save_path: str | Path | None = None,
        **options: Any,
    ) -> Any:
        """One row step by step (None: the last, if it was one), as a matplotlib Figure."""
        chosen = self._explained("plot_waterfall") if explanation is None else explanation
        return chosen.plot_waterfall(save_path, **options)

    def _explained(self, asked: str) -> ExplanationSet:
        if self._last is None:
            raise ConflictError(
                f"{asked} needs explanations; call explain(X) first, with the rows to explain."
            )
        return self._last

    def _rows(self, data: Any) -> Rows:
        data = processed(self.model, data)
        if self.background is not None:
            return read_rows(data, None, framed=False, what="data", like=self.background)
        names = self._named or column_names(self.adapter.model)
        width = getattr(self.adapter.model, "n_features_in_", None)
        rows = read_rows(data, names, framed=self.adapter.framed, what="data")
        if width is not None and rows.width != width:
            raise InvalidInputError(
                f"data has {rows.width} columns and {self.adapter.name} takes {width}.",
                field="data",
            )
        return rows

    def _set(
        self,
        rows: Rows,
        values: list[Floats],
        base: Floats,
        outputs: list[Floats],
        errors: list[Floats],
    ) -> ExplanationSet:
        k = self.adapter.width
        found = np.concatenate([np.zeros((0, rows.width, k)), *values])
        out = np.concatenate([np.zeros((0, k)), *outputs])
        error = np.concatenate(errors) if errors else None
        start = np.broadcast_to(base, out.shape)
        if k == 1:
            found, out, start = found[:, :, 0], out[:, 0], start[:, 0]
            error = None if error is None else error[:, :, 0]
        title, meaning = METHODS[self.method]
        known = None if self.method == "tree_path" else self.background
        sha256 = "" if known is None else self._sha256 or ""
        return ExplanationSet(
            values=found,
            base_values=start,
            outputs=out,
            feature_names=rows.names,
            data=tuple(tuple(row) for row in rows.values_shown()),
            classes=self.adapter.classes,
            output=self.adapter.output,
            method=self.method,
            title=title,
            meaning=meaning.format(space=_SPACES[self.adapter.output]),
            background="the training rows, as counted in the trees"
            if known is None
            else f"{len(known):,} row{'' if len(known) == 1 else 's'}, sha256 {sha256[:12]}",
            background_sha256=sha256 or None,
            standard_error=error,
            notes=self.notes if known is not None else (),
        )


def _read_background(model: Any, data: Any, names: Sequence[str] | None) -> Rows | None:
    if data is None:
        return None
    data = processed(model, data)
    held = held_by(model)
    framed = getattr(held, "feature_names_in_", None) is not None
    if callable(model) and not hasattr(model, "predict") and is_frame(data):
        framed = type(model).__module__.split(".")[0] != "torch" and not _forward(model)
    if names is None and not is_frame(data):
        names = column_names(model) or column_names(held)
    rows = read_rows(data, names, framed=framed, what="background_data")
    if len(rows) == 0:
        raise InvalidInputError(
            "background_data has no rows; pass at least one, better 100.", field="background_data"
        )
    return rows


def _forward(model: Any) -> bool:
    from .adapter import is_module

    return is_module(model)


def _notes(background: Rows | None) -> tuple[str, ...]:
    """Warnings about a background, also shown on the card."""
    if background is None or background.width == 0:
        return ()
    shown = background.values_shown()
    if any(row != shown[0] for row in shown[1:]):
        return ()
    many = "is one row" if len(shown) == 1 else f"has {len(shown)} rows that are all the same"
    note = (
        f"background_data {many}: every number is a difference from that single point, columns "
        "that equal it get 0, and nothing is averaged. Pass typical rows that differ."
    )
    warnings.warn(note, UserWarning, stacklevel=3)
    return (note,)


def _check_finite(adapter: Adapter, rows: Rows, what: str) -> None:
    """Say where a value is missing or infinite, if the model cannot take it."""
    if rows.numbers is None:
        return
    bad = ~np.isfinite(rows.numbers)
    if not bad.any():
        return
    row, column = (int(place[0]) for place in np.nonzero(bad))
    value = rows.numbers[row, column]
    word = "missing" if np.isnan(value) else "infinite"
    reason: Exception | None = None
    try:
        found = adapter(rows.take(slice(row, row + 1)))
    except Exception as error:  # noqa: BLE001  whatever the model raises, it does not take it
        reason = error
    else:
        if np.isfinite(found).all():
            return
    raise InvalidInputError(
        f"Column {rows.names[column]!r} of {what} is {word} in row {row}, and {adapter.name} takes "
        "no such value; fill it in, or put an imputer before the model.",
        field=rows.names[column],
    ) from reason
