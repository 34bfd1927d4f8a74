"""What left a kernel in a run: one entry for every body, with what is inside it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import Schema
from .filters import FilterStep, SentField

__all__ = ["Departure", "SentArray"]


class SentArray(SentField):
    """One array of a body: its shape, what it is as a plain array, and what it took."""

    shape: list[int]


class Departure(Schema):
    """One body that left.

    Attributes:
        site: who sent it; None is the run's owner.
        round: 0 is the statistics round; None belongs to no round.
        body_bytes: all of the body, names and texts included, without HTTP's own headers.
        arrays: field by field.
        texts: what travels beside the arrays, by name: row count, metrics, the filters' record;
            of a body that is no file of arrays, its fields.
        steps: what each filter did, in order.
        sha256: of the body, as the platform names it; None where it is not kept as a file.
        at: when, ISO 8601 in UTC.
    """

    site: str | None
    kind: Literal["plan", "initial weights", "registration", "statistics", "update", "report"]
    round: int | None = None
    body_bytes: int
    arrays: list[SentArray] = Field(default_factory=list)
    texts: dict[str, str] = Field(default_factory=dict)
    steps: list[FilterStep] = Field(default_factory=list)
    sha256: str | None = None
    at: str

    @property
    def before_bytes(self) -> int:
        """The arrays as they were before the filters, plain."""
        return sum(array.bytes_before for array in self.arrays)

    @property
    def array_bytes(self) -> int:
        """The arrays as they left."""
        return sum(array.bytes_after for array in self.arrays)
