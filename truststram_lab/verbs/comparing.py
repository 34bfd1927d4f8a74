"""Runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.render import Card, compared, comparison_card
from truststram_lab.schemas.federation import Run

from . import session as sessions
from .results import Answer

__all__ = ["RunComparison", "compare"]


@dataclass(frozen=True, repr=False)
class RunComparison(Answer, Sequence[Run]):
    """Runs, in the order in which they were named; ``said`` stands at the card's head."""

    items: list[Run]
    said: str = ""

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def to_frame(self) -> Any:
        """A DataFrame of one line a run: what it did, and what came of it."""
        import pandas as pd

        return pd.DataFrame([vars(compared(run)) for run in self.items])

    def card(self) -> Card:
        return comparison_card(self.items, said=self.said)


def compare(*names: str) -> RunComparison:
    """Runs side by side: accuracy curves, a table, and what differs between their plans.

    Args:
        names: of two runs or more, such as ``digits-1``.

    Raises:
        InvalidInputError: fewer than two different runs.
        RunNotFoundError: nothing has one of the names; the nearest are in the sentence.
    """
    chosen = list(dict.fromkeys(names))
    if len(chosen) < 2:
        raise InvalidInputError(
            f"{len(chosen)} run{'s' * (len(chosen) != 1)} cannot be compared; name two different "
            "ones or more: %ts_runs compare A B.",
            field="names",
        )
    session = sessions.require("comparing runs")
    mine = session.runs
    return RunComparison(
        [
            mine[name].snapshot() if name in mine else session.client.runs.get(name)
            for name in chosen
        ]
    )
