"""A site's own table: what it tells of it, what it holds out, and what training gets of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning.columns import check_columns, label_text
from truststram_lab.learning.metrics import log_loss, score
from truststram_lab.learning.network import Network
from truststram_lab.learning.partition import stratified_holdout
from truststram_lab.learning.weights import State
from truststram_lab.preprocessing import TableEncoder, fingerprint, infer_signature, target_codes
from truststram_lab.schemas.federation import Score
from truststram_lab.schemas.participation import SiteDescription
from truststram_lab.schemas.tables import Signature, Statistics

from .participation.terms import Terms
from .preparation import MIN_SITE_ROWS
from .site_spending import SiteSpending

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["HELD_OUT", "SiteTable", "read_site_table"]

#: The share of a site's rows that is scored and never trained on.
HELD_OUT = 0.25


@dataclass(frozen=True, eq=False)
class SiteTable:
    """One site's rows; they stay in this object.

    Args:
        frame: all rows, target included.
        signature: what this table looks like by itself.
        trained, held_out: places of rows, int (n,).
    """

    frame: pd.DataFrame = field(repr=False)
    signature: Signature
    trained: np.ndarray = field(repr=False)
    held_out: np.ndarray = field(repr=False)

    @property
    def rows(self) -> int:
        """Rows that are trained on."""
        return len(self.trained)

    @property
    def class_rows(self) -> dict[str, int]:
        """Rows that are trained on, by class."""
        codes = target_codes(self.frame, self.signature)[self.trained]
        counts = np.bincount(codes, minlength=len(self.signature.classes))
        return {name: int(n) for name, n in zip(self.signature.classes, counts, strict=True)}

    @property
    def features(self) -> pd.DataFrame:
        """The columns to learn from, of the rows that are trained on."""
        return self._features(self.trained)

    def spending(self, limit: float | None = None) -> SiteSpending:
        """This table's own privacy ledger, the same in every federation; see ``SiteSpending``."""
        return SiteSpending(fingerprint(self.frame), len(self.frame), limit=limit)

    def description(self) -> SiteDescription:
        """What the federation is told of the table before the first round."""
        return SiteDescription(
            columns=self.signature.columns,
            target=self.signature.target,
            classes=self.signature.classes,
        )

    def objections(self, signature: Signature) -> list[str]:
        """What of this table does not fit a run's signature, one sentence each."""
        if signature.target != self.signature.target:
            return [
                f"The run predicts {signature.target!r}, and this site joined with --target "
                f"{self.signature.target!r}; join again with --target {signature.target!r}."
            ]
        try:
            check_columns([c.name for c in self.signature.columns], signature)
            target_codes(self.frame, signature)
        except InvalidInputError as error:
            return [error.message]
        own = {column.name: column for column in self.signature.columns}
        found = []
        for column in signature.columns:
            mine = own[column.name]
            strange = sorted(set(mine.categories) - set(column.categories))
            if mine.kind != column.kind:
                found.append(
                    f"Column {column.name!r} is {mine.kind} here, and the run takes it as "
                    f"{column.kind}; convert it and join again."
                )
            elif strange and column.kind == "categorical":
                found.append(
                    f"Column {column.name!r} has {strange[0]!r} here, which the run does not "
                    "know; describe the table again before the next run is opened."
                )
            elif mine.nullable and not column.nullable:
                found.append(
                    f"Column {column.name!r} has missing values here, and the run takes none; "
                    "fill them in, or describe the table again before the next run is opened."
                )
        return found

    def training_rows(self, terms: Terms) -> tuple[np.ndarray, np.ndarray]:
        """Encoded rows, float64 (n, width), and class places, int64 (n,), as the run wants them.

        Raises:
            InvalidInputError: the table does not fit, or the run tells no aggregates.
        """
        return self._encoded(terms, self.trained)

    def scored(self, state: State, terms: Terms) -> tuple[Score, float]:
        """The model's score on the rows held out, and its log loss in nats a row."""
        assert terms.architecture is not None
        signature, _ = _agreed(terms)
        x, codes = self._encoded(terms, self.held_out)
        probabilities = Network(terms.architecture, state, signature).probabilities(x)
        return score(codes, probabilities, signature.classes), log_loss(codes, probabilities)

    def _encoded(self, terms: Terms, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        signature, statistics = _agreed(terms)
        x = TableEncoder(signature, statistics).encode_frame(self._features(places))
        return x, target_codes(self.frame, signature)[places]

    def _features(self, places: np.ndarray) -> pd.DataFrame:
        table = self.frame.drop(columns=[self.signature.target])
        return table.iloc[places].reset_index(drop=True)


def read_site_table(frame: object, target: str, positive: str | None = None) -> SiteTable:
    """Look at a site's DataFrame and hold out a quarter of its rows, by class.

    The same table holds out the same rows every time: a site that joins again does not train
    on what it has scored.

    Raises:
        InvalidInputError: no DataFrame, no such column, too few rows, one class only, or a
            column that cannot be used.
    """
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise InvalidInputError(
            f"A {type(frame).__name__} is no table; join with a DataFrame.", field="data"
        )
    _check_classes(frame, target)
    signature = infer_signature(frame, target, positive)
    codes = target_codes(frame, signature)
    # Of the table alone: no seed of anybody's decides which rows are held out.
    trained, held_out = stratified_holdout(codes, HELD_OUT, np.random.default_rng(0))
    if len(trained) < MIN_SITE_ROWS or not len(held_out):
        raise InvalidInputError(
            f"This table has {len(frame)} rows, of which {len(trained)} would be trained on; at "
            f"least {MIN_SITE_ROWS} are needed, so that a mean tells nothing about one person: "
            "let a larger site join with these rows.",
            field="data",
        )
    return SiteTable(frame, signature, trained, held_out)


def _check_classes(frame: pd.DataFrame, target: str) -> None:
    if target not in frame.columns or list(frame.columns).count(target) > 1:
        return  # infer_signature says it, with the nearest name
    labels = {label_text(value) for value in frame[target].dropna().unique()}
    if len(labels) == 1:
        raise InvalidInputError(
            f"All {len(frame)} rows of this site are {labels.pop()!r} in {target!r}, so it cannot "
            "tell two classes apart; join with rows of another class, or let a site that has them "
            "join with these rows, too.",
            field="target",
        )


def _agreed(terms: Terms) -> tuple[Signature, Statistics]:
    if terms.signature is None or terms.statistics is None:
        raise InvalidInputError(
            f"Run {terms.run} tells no columns and aggregates to encode a table by; open it with "
            "%ts_federations NAME open."
        )
    return terms.signature, terms.statistics
