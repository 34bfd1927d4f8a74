"""``LIMEExplainer``: a weighted linear model around each row, computed for all rows together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from truststram_lab.exceptions import InvalidInputError, nearest

from .adapter import Adapter, adapt, column_names, held_by, processed
from .explanation_set import ExplanationSet
from .interfaces import Floats
from .lime_fit import SELECTIONS, LocalFit, fit_row, kernel
from .lime_samples import TrainingStatistics
from .rows import Rows, is_frame, read_rows

__all__ = ["LIMEExplainer"]

_MEANING = (
    "Around this row, columns are redrawn from the training data's bins, and a linear model of "
    "which columns stayed in the row's bin is fitted to the {space}, closer perturbations "
    "weighing more. Each number is that model's coefficient: what being in this bin adds, near "
    "this row, as far as the local model fits (LIME)."
)
_SPACES = {"margin": "margin", "probability": "probability", "value": "predicted value"}


class LIMEExplainer:
    """Local linear models; the perturbations and their predictions are shared by all rows.

    Args:
        model: as for ``SHAPExplainer``.
        feature_names, class_names: None: the model's own.
        background_data: training rows that perturbations are drawn from. None: the model's
            ``training_statistics``, if it carries them.
        output: ``probability`` (default where there is one) or ``margin``.
        positive_class: of two classes, the one that numbers point to; None: the second.
        num_samples: perturbations for each row, the row itself among them.
        feature_selection: ``auto`` (one by one up to 6 columns, else by weight),
            ``forward_selection``, ``highest_weights`` or ``none``.
        kernel_width: None: 0.75 times the root of the number of columns.
        categorical_features: names or positions of number columns to take as categories.

    Ribeiro, Singh & Guestrin 2016, "Why Should I Trust You?". https://arxiv.org/abs/1602.04938
    """

    def __init__(
        self,
        model: Any,
        feature_names: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        background_data: Any = None,
        *,
        output: str | None = None,
        positive_class: str | None = None,
        num_samples: int = 5000,
        feature_selection: str = "auto",
        kernel_width: float | None = None,
        categorical_features: Sequence[str | int] = (),
        seed: int = 0,
    ) -> None:
        if feature_selection not in SELECTIONS:
            raise InvalidInputError(
                f"feature_selection={feature_selection!r} is unknown; use one of "
                f"{', '.join(SELECTIONS)}.",
                field="feature_selection",
                choices=nearest(feature_selection, SELECTIONS) or list(SELECTIONS),
            )
        if num_samples < 10:
            raise InvalidInputError(
                f"num_samples={num_samples} is too few for a local model; use 1,000 or more.",
                field="num_samples",
            )
        self.model = model
        held = held_by(model)
        self.background = _read(model, held, background_data, feature_names)
        self.statistics = _statistics(
            model, held, self.background, feature_names, categorical_features
        )
        self.feature_names = self.statistics.names
        self.adapter = _adapted(model, held, output, class_names, positive_class, self)
        self.num_samples, self.feature_selection = num_samples, feature_selection
        self.kernel_width, self.seed = kernel_width, seed

    def explain_instance(self, data_row: Any, num_features: int = 10) -> ExplanationSet:
        """One row, by its ``num_features`` most telling columns."""
        if is_frame(data_row) and len(data_row) != 1:
            raise InvalidInputError(
                f"data_row has {len(data_row)} rows; pass one, or call explain(rows).",
                field="data_row",
            )
        return self.explain(data_row, num_features=num_features)

    def explain(
        self,
        data: Any,
        num_features: int = 10,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> ExplanationSet:
        """Every row; the model predicts the shared perturbations once.

        Args:
            progress: called with rows done and rows in all.

        Raises:
            InvalidInputError: columns do not match, or ``num_features`` is not positive.
        """
        if num_features < 1:
            raise InvalidInputError(
                f"num_features={num_features} leaves nothing to show; use 1 or more.",
                field="num_features",
            )
        rows = self._rows(data)
        bins, points = self.perturbations(rows)
        shared = self.adapter(points)
        return self.explain_samples(
            rows, bins, shared, num_features=num_features, progress=progress
        )

    def perturbations(self, like: Rows) -> tuple[np.ndarray, Rows]:
        """The shared perturbations: their bins (samples - 1, columns), and their rows."""
        rng = np.random.default_rng(self.seed)
        bins, columns = self.statistics.draw(self.num_samples - 1, rng)
        return bins, _assembled(columns, like)

    def explain_samples(
        self,
        rows: Rows,
        bins: np.ndarray,
        shared: Floats,
        *,
        num_features: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> ExplanationSet:
        """Fit rows to perturbations that were drawn and predicted already.

        Args:
            bins: (samples - 1, columns); ``shared``: the model's outputs for them.
        """
        own = self.adapter(rows)
        shown = rows.values_shown()
        places = np.column_stack(
            [
                column.bins([row[j] for row in shown])
                for j, column in enumerate(self.statistics.columns)
            ]
        )
        table = kernel(rows.width, self.kernel_width)
        drawn = np.ascontiguousarray(bins.T.astype(np.int32))
        bits = np.ones((rows.width, len(bins) + 1), dtype=bool)
        fits: list[list[LocalFit]] = []
        for row in range(len(rows)):
            np.equal(drawn, places[row][:, None], out=bits[:, 1:])
            weights = table[rows.width - bits.sum(axis=0)]
            outputs = np.concatenate([own[row : row + 1], shared])
            fits.append(fit_row(bits, outputs, weights, num_features, self.feature_selection))
            if progress is not None:
                progress(row + 1, len(rows))
        return self._set(rows, shown, places, own, fits)

    def _rows(self, data: Any) -> Rows:
        data = processed(self.model, data)
        if self.background is not None:
            return read_rows(data, None, framed=False, what="data", like=self.background)
        framed = self.adapter.framed or (is_frame(data) and not _all_numbers(self.statistics))
        return read_rows(data, self.feature_names, framed=framed, what="data")

    def _set(
        self,
        rows: Rows,
        shown: list[list[Any]],
        places: np.ndarray,
        own: Floats,
        fits: list[list[LocalFit]],
    ) -> ExplanationSet:
        k = self.adapter.width
        shape = (len(rows), k)
        values = np.array([[fit.coefficients for fit in row] for row in fits])
        values = values.reshape(len(rows), k, rows.width).transpose(0, 2, 1)
        start = np.array([[fit.intercept for fit in row] for row in fits]).reshape(shape)
        score = np.array([[fit.score for fit in row] for row in fits]).reshape(shape)
        if k == 1:
            values, start, score, own = values[:, :, 0], start[:, 0], score[:, 0], own[:, 0]
        words = tuple(
            tuple(
                column.words(name, int(places[row, j]), shown[row][j])
                for j, (name, column) in enumerate(
                    zip(rows.names, self.statistics.columns, strict=True)
                )
            )
            for row in range(len(rows))
        )
        known = self.background
        sha256 = None if known is None else known.sha256()
        return ExplanationSet(
            values=values,
            base_values=start,
            outputs=own,
            feature_names=rows.names,
            data=tuple(tuple(row) for row in shown),
            classes=self.adapter.classes,
            output=self.adapter.output,
            method="lime",
            title="LIME, a local linear model",
            meaning=_MEANING.format(space=_SPACES[self.adapter.output]),
            background="the statistics stored with the model"
            if known is None
            else f"bins of {len(known):,} rows, sha256 {(sha256 or '')[:12]}",
            background_sha256=sha256,
            fit=score,
            conditions=words,
        )


def _read(model: Any, held: Any, data: Any, names: Sequence[str] | None) -> Rows | None:
    if data is None:
        return None
    data = processed(model, data)
    framed = getattr(held, "feature_names_in_", None) is not None
    if names is None and not is_frame(data):
        names = column_names(model) or column_names(held)
    rows = read_rows(data, names, framed=framed, what="background_data")
    if len(rows) < 2:
        raise InvalidInputError(
            f"background_data has {len(rows)} rows, from which nothing can be redrawn; pass the "
            "training rows, or 100 typical ones.",
            field="background_data",
        )
    if rows.numbers is not None and not np.isfinite(rows.numbers).all():
        row, column = (int(place[0]) for place in np.nonzero(~np.isfinite(rows.numbers)))
        if np.isinf(rows.numbers).any():
            raise InvalidInputError(
                f"Column {rows.names[column]!r} of background_data is not finite in row {row}; "
                "fill it in.",
                field=rows.names[column],
            )
    return rows


def _statistics(
    model: Any,
    held: Any,
    background: Rows | None,
    names: Sequence[str] | None,
    categorical: Sequence[str | int],
) -> TrainingStatistics:
    if background is not None:
        places = []
        for entry in categorical:
            if isinstance(entry, str) and entry not in background.names:
                raise InvalidInputError(
                    f"{entry!r} is no column; there are {', '.join(background.names[:20])}.",
                    field="categorical_features",
                    choices=nearest(entry, background.names),
                )
            places.append(background.names.index(entry) if isinstance(entry, str) else int(entry))
        return TrainingStatistics.of(background, places)
    for owner in (model, held):
        stored = getattr(owner, "training_statistics", None)
        if isinstance(stored, TrainingStatistics):
            if names is not None and len(names) != len(stored.names):
                raise InvalidInputError(
                    f"feature_names has {len(names)} names and the model {len(stored.names)} "
                    f"columns: {', '.join(stored.names[:20])}.",
                    field="feature_names",
                )
            return TrainingStatistics(tuple(names or stored.names), stored.columns)
    raise InvalidInputError(
        f"LIME redraws columns from training data, and {type(model).__name__} stores no "
        "statistics of its own; pass some rows: "
        "LIMEExplainer(model=model, background_data=X_train).",
        field="background_data",
    )


def _adapted(
    model: Any,
    held: Any,
    output: str | None,
    class_names: Sequence[str] | None,
    positive_class: str | None,
    explainer: LIMEExplainer,
) -> Adapter:
    if output is None and hasattr(held, "predict_proba"):
        output = "probability"
    probe = explainer.background
    if probe is None:
        rng = np.random.default_rng(0)
        _, columns = explainer.statistics.draw(4, rng)
        framed = getattr(held, "feature_names_in_", None) is not None
        probe = _fresh(columns, explainer.statistics, framed)
    return adapt(
        model,
        output=output,
        class_names=class_names,
        positive_class=positive_class,
        probe=probe,
    )


def _all_numbers(statistics: TrainingStatistics) -> bool:
    return all(
        column.numeric or all(isinstance(v, int | float | None) for v in column.values)
        for column in statistics.columns
    )


def _fresh(columns: list[Any], statistics: TrainingStatistics, framed: bool) -> Rows:
    names = statistics.names
    if _all_numbers(statistics) and not framed:
        return Rows(names, np.column_stack([np.asarray(c, dtype=np.float64) for c in columns]))
    import pandas as pd

    frame = pd.DataFrame(dict(zip(names, columns, strict=True))).infer_objects()
    return read_rows(frame, names, framed=True, what="statistics")


def _assembled(columns: list[Any], like: Rows) -> Rows:
    """Drawn columns as rows of the same form and column types."""
    if like.numbers is not None:
        numbers = np.column_stack([np.asarray(c, dtype=np.float64) for c in columns])
        frame = None
        if like.frame is not None:
            import pandas as pd

            frame = pd.DataFrame(numbers, columns=like.frame.columns)
        return Rows(like.names, numbers, frame)
    import pandas as pd

    made = {}
    for place, column in enumerate(columns):
        kind = like.frame.dtypes.iloc[place]
        if isinstance(kind, np.dtype) and kind.kind in "iu" and column.dtype.kind == "f":
            kind = np.dtype(np.float64)  # drawn between whole numbers
        made[place] = pd.Series(column).astype(kind)
    frame = pd.DataFrame(made)
    frame.columns = like.frame.columns
    return Rows(like.names, None, frame)
