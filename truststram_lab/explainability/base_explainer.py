"""``BaseExplainer``: what an explainer of one's own starts from."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.render.attributions import none_card

from .adapter import Adapter, adapt, column_names, held_by, is_module
from .explanation_set import ExplanationSet
from .games import permutations
from .interfaces import Floats
from .rows import Rows, is_frame, read_rows

__all__ = ["BaseExplainer", "NoExplanation"]

_GRADIENT = (
    "Each number is the gradient of the {space} along the straight way from the baseline to this "
    "row, averaged over the way and multiplied by the column's change (integrated gradients). "
    "What the steps miss is the completeness gap, given as the residual."
)
_PERMUTATION = (
    "Each number is how much the column adds to the {space} when it changes from another row's "
    "value to this row's, averaged over antithetic permutations of the columns (sampled Shapley "
    "values; the standard error is given)."
)
_SPACES = {"margin": "margin", "probability": "probability", "value": "predicted value"}


class NoExplanation:
    """In place of the None that an explainer returned: empty, false, and says so."""

    def __init__(self, explainer: str) -> None:
        self._card = none_card(f"{explainer}.explain")

    def __len__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return self._card.text

    def _repr_html_(self) -> str:
        return self._card.html


class BaseExplainer:
    """Subclass it and write ``explain``; both methods of the documents already work here.

    Args:
        model: as for ``SHAPExplainer``.
        feature_names: None: the DataFrame's columns, the model's own names, else f0, f1, ...
    """

    def __init__(self, model: Any, feature_names: Sequence[str] | None = None) -> None:
        self.model = model
        self.feature_names = list(feature_names) if feature_names is not None else None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        written = cls.__dict__.get("explain")
        if written is None:
            return

        @functools.wraps(written)
        def explain(self: Any, *args: Any, **named: Any) -> Any:
            found = written(self, *args, **named)
            return NoExplanation(type(self).__name__) if found is None else found

        # mypy takes an assignment to a method for a slip; here the subclass's own gets its wrapper.
        cls.explain = explain  # type: ignore[method-assign]

    def explain(self, data: Any, method: str = "gradient") -> Any:
        """What each column adds, by ``gradient`` or ``permutation``."""
        if method == "gradient":
            return self._gradient_explanation(data)
        if method == "permutation":
            return self._permutation_explanation(data)
        raise InvalidInputError(
            f"Unknown method: {method}; use 'gradient' or 'permutation'.",
            field="method",
            choices=["gradient", "permutation"],
        )

    def _gradient_explanation(self, data: Any) -> Any:
        return self.integrated_gradients(data)

    def _permutation_explanation(self, data: Any) -> Any:
        return self.permutation_values(data)

    def integrated_gradients(
        self, data: Any, *, baseline: Any = None, steps: int = 64
    ) -> ExplanationSet:
        """Gradients along the way from a baseline; the residual is the completeness gap.

        Exact derivatives of a torch module, central differences of anything else (whose steps,
        such as those of trees, then show as a gap).

        Args:
            baseline: a row; None: all zeros.
            steps: Gauss-Legendre nodes on the way.

        Sundararajan, Taly & Yan 2017, "Axiomatic Attribution for Deep Networks", equation 1.
        https://arxiv.org/abs/1703.01365
        """
        rows, adapter = self._prepared(data)
        x = rows.matrix()
        zero = baseline is None
        if baseline is None:
            start = np.zeros(rows.width)
        else:
            start = read_rows(baseline, rows.names, framed=False, what="baseline").matrix()[0]
        at, weight = np.polynomial.legendre.leggauss(steps)
        total = np.zeros((*x.shape, adapter.width))
        for place, share in zip(0.5 * (at + 1.0), 0.5 * weight, strict=True):
            total += share * self._slopes(adapter, rows, start + place * (x - start))
        values = total * (x - start)[:, :, None]
        base = adapter(_like(rows, start[None]))
        return _explained(
            rows, adapter, values, base, "integrated_gradients", "Integrated gradients", _GRADIENT,
            "all zeros" if zero else "the given row",
        )  # fmt: skip

    def permutation_values(
        self, data: Any, *, background: Any = None, pairs: int = 100, seed: int = 0
    ) -> ExplanationSet:
        """Sampled Shapley values.

        Args:
            background: rows that stand for absent columns; None: ``data`` itself.
            pairs: walks through the columns, there and back, for each row.
        """
        rows, adapter = self._prepared(data)
        known = rows
        if background is not None:
            known = read_rows(background, None, framed=False, what="background", like=rows)
        elif len(rows) < 2:
            raise InvalidInputError(
                "One row alone has nothing to be compared with; pass background=, some typical "
                "rows.",
                field="background",
            )
        rng = np.random.default_rng(seed)
        found = permutations(adapter, rows, known, pairs=max(2, pairs), rng=rng)
        return _explained(
            rows, adapter, found.values, found.base[None], "permutation",
            "Sampled Shapley values", _PERMUTATION, f"{len(known):,} rows", found.error,
        )  # fmt: skip

    def _prepared(self, data: Any) -> tuple[Rows, Adapter]:
        held = held_by(self.model)
        framed = getattr(held, "feature_names_in_", None) is not None
        names = self.feature_names
        if names is None and not is_frame(data):
            names = column_names(held)
        rows = read_rows(data, names, framed=framed, what="data")
        return rows, adapt(self.model, probe=rows)

    def _slopes(self, adapter: Adapter, rows: Rows, points: Floats) -> Floats:
        """Derivatives of the outputs (n, columns, outputs)."""
        if is_module(adapter.model):
            from .torch_modules import gradients

            return gradients(adapter.model, points, adapter.readout)
        reach = 1e-4 * np.maximum(1.0, np.abs(points).max(axis=0, initial=0.0))
        slopes = np.empty((*points.shape, adapter.width))
        for column in range(points.shape[1]):
            step = np.zeros(points.shape[1])
            step[column] = reach[column]
            ahead, behind = _like(rows, points + step), _like(rows, points - step)
            slopes[:, column] = (adapter(ahead) - adapter(behind)) / (2 * reach[column])
        return slopes


def _like(rows: Rows, numbers: Floats) -> Rows:
    if rows.frame is None:
        return Rows(rows.names, numbers)
    import pandas as pd

    return Rows(rows.names, numbers, pd.DataFrame(numbers, columns=rows.frame.columns))


def _explained(
    rows: Rows,
    adapter: Adapter,
    values: Floats,
    base: Floats,
    method: str,
    title: str,
    meaning: str,
    background: str,
    error: Floats | None = None,
) -> ExplanationSet:
    outputs = adapter(rows)
    start = np.broadcast_to(base, outputs.shape)
    if adapter.width == 1:
        values, outputs, start = values[:, :, 0], outputs[:, 0], start[:, 0]
        error = None if error is None else error[:, :, 0]
    return ExplanationSet(
        values=values,
        base_values=start,
        outputs=outputs,
        feature_names=rows.names,
        data=tuple(tuple(row) for row in rows.values_shown()),
        classes=adapter.classes,
        output=adapter.output,
        method=method,
        title=title,
        meaning=meaning.format(space=_SPACES[adapter.output]),
        background=background,
        standard_error=error,
    )
