"""What a run has spent of its owner's privacy budget, as the owner's own ledger has it."""

from __future__ import annotations

from pydantic import Field

from .base import Schema
from .privacy import PrivacyStatement

__all__ = ["RunPrivacy"]


class RunPrivacy(Schema):
    """Epsilon live, round by round.

    Attributes:
        statement: of what this run has released so far, its noised statistics included.
        epsilon: of the run so far, None for infinite; 0 before the first release.
        budget: what the run may spend in all; None where noise is a filter of its own.
        before: epsilon that other runs had spent on the same data set.
        together: epsilon of all of them and this run, composed; less than their sum.
        limit: the most that may ever be spent on the data set; None is no limit.
        statistics: one sentence on how the means and variances were made.
    """

    statement: PrivacyStatement | None = None
    epsilon: float | None = Field(default=0.0, ge=0)
    budget: float | None = Field(default=None, gt=0)
    before: float | None = Field(default=0.0, ge=0)
    together: float | None = Field(default=0.0, ge=0)
    limit: float | None = Field(default=None, gt=0)
    statistics: str = Field(default="", max_length=1_000)
