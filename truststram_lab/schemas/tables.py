"""What a model takes in and gives out: columns, classes, and the federation's aggregates."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from .base import Schema

ColumnKind = Literal["numeric", "boolean", "categorical"]


class Column(Schema):
    """One input column.

    ``nullable`` says that missing values were seen, so they are legal later too.
    ``categories`` are sorted strings, for ``categorical`` only.
    """

    name: str
    kind: ColumnKind
    nullable: bool = False
    categories: list[str] = Field(default_factory=list)
    unit: str | None = None


class Signature(Schema):
    """Columns in order, the target, and its classes in output order.

    Two classes: the network has one output, the log-odds of ``positive_class``.
    More: one logit a class, in the order of ``classes``; ``positive_class`` is None.
    A regression has no classes: its output is the target's value.
    """

    columns: list[Column]
    target: str
    task: Literal["classification", "regression"] = "classification"
    classes: list[str] = Field(default_factory=list)
    positive_class: str | None = None

    @model_validator(mode="after")
    def _fits_its_task(self) -> Signature:
        if self.task == "regression" and (self.classes or self.positive_class):
            raise ValueError("a regression has no classes; leave classes and positive_class out")
        if self.task == "classification" and len(self.classes) < 2:
            raise ValueError(f"classes names {len(self.classes)} labels; name at least 2")
        return self


class ColumnStatistics(Schema):
    """Aggregates of one column over all sites.

    ``count`` rows had a value, ``missing`` had none. Numeric and boolean columns carry
    ``mean`` and ``variance`` (population, in squared column units); categorical ones
    carry ``category_counts`` in the order of the signature's categories.
    """

    name: str
    count: int
    missing: int
    mean: float | None = None
    variance: float | None = None
    category_counts: list[int] | None = None


class Statistics(Schema):
    """The federation's aggregates: no row, no minimum, no maximum of anybody."""

    rows: int
    sites: int
    columns: list[ColumnStatistics]
