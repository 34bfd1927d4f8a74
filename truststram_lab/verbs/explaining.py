"""Explain the rows of a table: a registered model by its name, or anything that predicts."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from truststram_lab.exceptions import InvalidInputError, nearest
from truststram_lab.explainability import ExplanationSet, LIMEExplainer, SHAPExplainer
from truststram_lab.federated.preparation import prepare_again
from truststram_lab.preprocessing.demo import load_demo
from truststram_lab.render import Card, notice_card
from truststram_lab.render.explanation_comparison import (
    ComparedColumn,
    ExplanationAgreement,
    agreement_card,
)
from truststram_lab.widgets.kernel import in_kernel
from truststram_lab.widgets.live import LiveView

from . import session as sessions
from .opened_models import RegisteredNetwork, open_version
from .results import Answer

if TYPE_CHECKING:
    import pandas as pd

    from truststram_lab.schemas.registry import ModelVersion

__all__ = ["METHODS", "ExplanationComparison", "explain"]

METHODS = ("auto", "shap", "lime")

_BACKGROUND_ROWS = 100
_LIME_ROWS = 5000
#: rows of a network that are explained between two looks at the clock
_PIECE = 64
#: work that is over sooner shows no progress
_PATIENCE_S = 0.7
_TOP = 5

Progress = Callable[[int, int], None]


@dataclass(frozen=True, repr=False)
class ExplanationComparison(Answer):
    """Shapley values and LIME over the same rows, and how far they agree."""

    shap: ExplanationSet
    lime: ExplanationSet
    agreement: ExplanationAgreement

    def card(self) -> Card:
        spaces = (f"{one.output}; background: {one.background}" for one in (self.shap, self.lime))
        first, second = spaces
        return agreement_card(self.agreement, (first, second))


def explain(
    model: Any,
    data: pd.DataFrame | None = None,
    *,
    rows: str | slice = "0:100",
    method: str = "auto",
    compare: bool = False,
    background: pd.DataFrame | None = None,
    explain_class: str | None = None,
) -> ExplanationSet | ExplanationComparison:
    """What every column contributes to the model's answer for each row. No row leaves this kernel.

    Args:
        model: ``name`` (what its endpoint serves), ``name:version`` or ``name@alias``; or an
            estimator, an ``MLModel``, a torch module or a function of rows.
        data: the rows, a DataFrame; of a model that was trained on demo data, its held-out rows
            when left out. Of a registered model, columns that it does not take are left out.
        rows: which of them, as ``first:end``.
        method: ``auto`` (of a federated network what ``predict`` explains: from the federated
            means; else as ``shap``), ``shap`` or ``lime``.
        compare: explain by both, and say where they disagree.
        background: rows that stand for an absent column; 100 of ``data`` when left out.
        explain_class: of more than two classes the one to explain; all of them when left out.

    Raises:
        ModelNotFoundError: no such model or version; the nearest names are in the sentence.
        InvalidInputError: the rows do not fit the model, or the words do not go together.
    """
    if method not in METHODS:
        close = nearest(method, METHODS, most=1)
        hint = f"did you mean {close[0]!r}?" if close else f"use {' or '.join(METHODS)}."
        raise InvalidInputError(
            f"{method!r} is no way to explain; {hint}", field="method", choices=list(METHODS)
        )
    if compare and method != "auto":
        raise InvalidInputError(
            f"compare explains by both ways; leave method={method!r} out.", field="method"
        )
    opened, name, table = _opened(model, data)
    chosen = _chosen(table, rows)
    around = table if background is None else _fitting(opened, background)
    progress = _Progress(name, len(chosen))
    try:
        work = _Work(opened, chosen, around, progress)
        if compare:
            shap, lime = work.shap(explain_class), work.lime(explain_class)
            return ExplanationComparison(shap, lime, _agreement(shap, lime))
        if method == "lime":
            return work.lime(explain_class)
        if method == "auto" and isinstance(opened, RegisteredNetwork) and background is None:
            return work.network(opened, explain_class)
        return work.shap(explain_class)
    finally:
        progress.close()


# ------------------------------------------------------------------ the model and its rows


def _opened(model: Any, data: Any) -> tuple[Any, str, pd.DataFrame]:
    """What predicts, how it is called, and the whole table."""
    if data is not None and not (hasattr(data, "iloc") and hasattr(data, "columns")):
        raise InvalidInputError(
            f"A {type(data).__name__} is no table of named columns; give a DataFrame.",
            field="data",
        )
    if not isinstance(model, str):
        if data is None:
            raise InvalidInputError(
                "Which rows? Give a DataFrame with the columns that the model was trained on: "
                "--data df.",
                field="data",
            )
        return model, type(model).__name__, data
    session = sessions.require("explaining")
    which = None if ":" in model or "@" in model else "deployed"
    version = session.client.models.version(model, which)
    opened, name = open_version(session.client, version), f"{version.model}:{version.sequence}"
    if data is None:
        data = _held_out(session, version)
    wanted = [column.name for column in version.signature.columns]
    missing = [column for column in wanted if column not in data.columns]
    if missing:
        shown = ", ".join(map(repr, missing[:5])) + (", ..." if len(missing) > 5 else "")
        close = nearest(missing[0], [str(column) for column in data.columns], most=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise InvalidInputError(
            f"The table lacks {shown}{hint}, which {name} takes in; it has "
            f"{', '.join(map(str, list(data.columns)[:8]))}.",
            field="data",
            choices=close,
        )
    return opened, name, data[wanted]


def _held_out(session: sessions.Session, version: ModelVersion) -> pd.DataFrame:
    run_name = version.lineage.run
    plan = session.client.runs.get(run_name).plan if run_name else None
    if plan is None or plan.source is None or plan.source.kind != "demo":
        raise InvalidInputError(
            f"{version.model} was not trained on demo data, so there are no rows to take; give "
            f"some: %ts_explain {version.model} --data df.",
            field="data",
        )
    return prepare_again(load_demo(plan.source.name).frame, plan).held_out.frame


def _fitting(opened: Any, background: pd.DataFrame) -> pd.DataFrame:
    names = getattr(opened, "feature_names_in_", None)
    if names is None or not hasattr(background, "columns"):
        return background
    return background[[name for name in names if name in background.columns]]


def _chosen(table: pd.DataFrame, rows: str | slice) -> pd.DataFrame:
    if isinstance(rows, slice):
        found = table.iloc[rows]
    else:
        parts = re.fullmatch(r"\s*(\d*)\s*:\s*(\d*)\s*", str(rows))
        if parts is None:
            raise InvalidInputError(
                f"{rows!r} are no rows; write first:end, such as 0:100 or 20:21.", field="rows"
            )
        first, end = (int(part) if part else None for part in parts.groups())
        found = table.iloc[first:end]
    if len(found) == 0:
        raise InvalidInputError(
            f"The table has {len(table):,} rows, none of them in {rows}; write for example "
            f"0:{min(100, len(table)) or 1}.",
            field="rows",
        )
    return found


# ------------------------------------------------------------------ the work


class _Work:
    """The explainers, on the chosen rows of a table."""

    def __init__(
        self, model: Any, rows: pd.DataFrame, around: pd.DataFrame, progress: Progress
    ) -> None:
        self._model, self._rows, self._around = model, rows, around
        self._progress = progress
        signature = getattr(model, "signature", None)
        self._positive = None if signature is None else signature.positive_class

    def network(self, network: RegisteredNetwork, label: str | None) -> ExplanationSet:
        """In pieces, so that an interrupt is heard."""
        found: list[ExplanationSet] = []
        for start in range(0, len(self._rows), _PIECE):
            found.append(network.explain(self._rows.iloc[start : start + _PIECE]))
            self._progress(min(start + _PIECE, len(self._rows)), len(self._rows))
        return _selected(_joined(found), label)

    def shap(self, label: str | None) -> ExplanationSet:
        """Shapley values by the method that fits the model best."""
        explainer = SHAPExplainer(
            self._model,
            background_data=_sample(self._around, _BACKGROUND_ROWS),
            positive_class=self._positive,
        )
        return _selected(explainer.explain(self._rows, progress=self._progress), label)

    def lime(self, label: str | None) -> ExplanationSet:
        """Local linear models, with every column in them."""
        explainer = LIMEExplainer(
            self._model,
            background_data=_sample(self._around, _LIME_ROWS),
            positive_class=self._positive,
        )
        found = explainer.explain(
            self._rows, num_features=self._rows.shape[1], progress=self._progress
        )
        return _selected(found, label)


def _sample(table: pd.DataFrame, most: int) -> pd.DataFrame:
    return table if len(table) <= most else table.sample(most, random_state=0)


def _selected(found: ExplanationSet, label: str | None) -> ExplanationSet:
    return found if label is None else found.select(label)


def _joined(pieces: list[ExplanationSet]) -> ExplanationSet:
    return replace(
        pieces[0],
        values=np.concatenate([one.values for one in pieces]),
        base_values=np.concatenate([one.base_values for one in pieces]),
        outputs=np.concatenate([one.outputs for one in pieces]),
        data=tuple(row for one in pieces for row in one.data),
    )


class _Progress:
    """One line that says how far it is, once that is worth saying."""

    def __init__(self, name: str, rows: int) -> None:
        self._name, self._rows = name, rows
        self._started_s = time.monotonic()
        self._done = 0
        self._view: LiveView | None = None

    def __call__(self, done: int, rows: int) -> None:
        self._done, self._rows = done, rows
        waited = time.monotonic() - self._started_s > _PATIENCE_S
        if self._view is None and waited and done < rows and in_kernel():
            self._view = LiveView(self._card, hint="Stop: Kernel > Interrupt")
            self._view.show()
        if self._view is not None:
            self._view.refresh()

    def close(self) -> None:
        """The last word."""
        if self._view is not None:
            self._view.close()

    def _card(self) -> Card:
        took = time.monotonic() - self._started_s
        return notice_card(
            f"Explaining {self._name}: {self._done:,} of {self._rows:,} rows, {took:.0f} s."
        )


# ------------------------------------------------------------------ how far they agree


def _agreement(shap: ExplanationSet, lime: ExplanationSet) -> ExplanationAgreement:
    first, second = _shown(shap), _shown(lime)
    shares = [_shares(values) for values in (first, second)]
    tops = [values.argmax(axis=1) for values in shares]
    telling = np.zeros(first.shape, dtype=bool)
    for values in shares:
        order = np.argsort(-values, axis=1, kind="stable")[:, :_TOP]
        np.put_along_axis(telling, order, True, axis=1)
    telling &= (first != 0) & (second != 0)
    same = np.sign(first) == np.sign(second)
    ranks = [_rank_correlation(a, b) for a, b in zip(*shares, strict=True)]
    known = [rank for rank in ranks if rank is not None]
    columns = tuple(
        ComparedColumn(
            name,
            float(shares[0][:, place].mean()),
            float(shares[1][:, place].mean()),
            float(same[telling[:, place], place].mean()) if telling[:, place].any() else None,
        )
        for place, name in enumerate(shap.feature_names)
    )
    return ExplanationAgreement(
        first=shap.title,
        second="LIME",
        rows=len(first),
        rank=float(np.mean(known)) if known else None,
        same_top=float((tops[0] == tops[1]).mean()),
        same_sign=float(same[telling].mean()) if telling.any() else None,
        fit=None if lime.fit is None else float(np.median(lime.fit)),
        columns=columns,
    )


def _shown(found: ExplanationSet) -> np.ndarray:
    """Contributions (rows, columns) to the class that each row's card shows."""
    if found.values.ndim == 2:
        return found.values
    places = found.outputs.argmax(axis=1)
    chosen: np.ndarray = np.take_along_axis(found.values, places[:, None, None], axis=2)[:, :, 0]
    return chosen


def _shares(values: np.ndarray) -> np.ndarray:
    magnitudes = np.abs(values)
    total = magnitudes.sum(axis=1, keepdims=True)
    shares: np.ndarray = np.zeros_like(magnitudes)
    np.divide(magnitudes, total, out=shares, where=total > 0)
    return shares


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Spearman's, with mean ranks of what ties; None where one of them does not vary."""
    from scipy.stats import rankdata

    a, b = rankdata(first), rankdata(second)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])
