"""Who has what in a simulated federation, before anything trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from truststram_lab.render import Card, dealt_card
from truststram_lab.schemas.splits import split_text

from .results import Answer

if TYPE_CHECKING:
    import pandas as pd

    from truststram_lab.federated.preparation import Prepared

__all__ = ["Dealt"]


@dataclass(frozen=True, repr=False)
class Dealt(Answer):
    """Rows by site and class."""

    prepared: Prepared

    def to_frame(self) -> pd.DataFrame:
        """Whole numbers, a line a site and a column a class."""
        import pandas as pd

        return pd.DataFrame(
            self.prepared.class_counts(),
            index=pd.Index(list(self.prepared.parts), name="site"),
            columns=pd.Index(self.prepared.signature.classes, name=self.prepared.signature.target),
        )

    def card(self) -> Card:
        prepared = self.prepared
        split = prepared.split
        how = f"by {split.column}" if split.kind == "column" else split_text(split)
        return dealt_card(
            list(prepared.parts),
            prepared.signature.classes,
            prepared.class_counts(),
            how=how,
            held_out=len(prepared.held_out.codes),
            moved=split.moved or 0,
        )
