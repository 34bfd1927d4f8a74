"""Who takes part in a round, under which terms, and how far each participant is."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import Request, Schema
from .tables import Column, Signature

__all__ = [
    "ConfigValue",
    "ParticipationState",
    "ParticipationUpdate",
    "Preflight",
    "PreflightSite",
    "Quorum",
    "SiteDescription",
]

#: How far a participant is in a round, in the order in which the states are passed.
ParticipationState = Literal[
    "offered",
    "accepted",
    "plan_fetching",
    "plan_ready",
    "local_training",
    "local_eval",
    "update_preparing",
    "clipping",
    "noising",
    "uploading",
    "uploaded",
    "acknowledged",
    "completed",
    "declined_policy",
    "failed_retryable",
    "aborted_policy",
    "rejected_local",
    "upload_deferred",
    "expired_round",
]

#: What a round hands to a site's own training function.
ConfigValue = bool | int | float | Annotated[str, Field(max_length=1_000)]

_Share = Annotated[float, Field(ge=0, le=1)]


class Quorum(Schema):
    """Whom a round asks, how many answers it needs, and how long it waits.

    A round asks ``max(min_fit, floor(fraction_fit * present))`` of the sites that are present
    and closes when all of them have answered, or at the deadline with ``min_updates``. At the
    deadline with fewer the run stops, and says who is missing.

    Attributes:
        min_available: sites that must be present before the first round opens.
        fraction_fit: share of the present sites that train in a round.
        min_fit: the fewest sites that train in a round.
        fraction_evaluate: share of the present sites that evaluate; 0 asks ``min_evaluate``.
        min_evaluate: the fewest sites that evaluate.
        min_updates: answers that suffice at the deadline; None is everybody who was asked.
        deadline_s: seconds from the opening of a round; None waits without end.
        wait_s: seconds to wait for ``min_available`` sites; None waits without end.
    """

    min_available: int = Field(default=1, ge=1, le=10_000)
    fraction_fit: _Share = 1.0
    min_fit: int = Field(default=1, ge=1, le=10_000)
    fraction_evaluate: _Share = 1.0
    min_evaluate: int = Field(default=1, ge=1, le=10_000)
    min_updates: int | None = Field(default=None, ge=1, le=10_000)
    deadline_s: float | None = Field(default=None, gt=0, le=30 * 86_400, allow_inf_nan=False)
    wait_s: float | None = Field(default=None, gt=0, le=30 * 86_400, allow_inf_nan=False)

    @model_validator(mode="after")
    def _enough_are_there(self) -> Quorum:
        if self.min_updates is not None and self.deadline_s is None:
            raise ValueError(
                f"min_updates {self.min_updates} says what suffices at the deadline; set "
                "deadline_s too"
            )
        return self

    def cohort_size(self, present: int, *, evaluate: bool = False) -> int:
        """How many of ``present`` sites a round asks; never more than are there."""
        share = self.fraction_evaluate if evaluate else self.fraction_fit
        least = self.min_evaluate if evaluate else self.min_fit
        return min(present, max(least, int(share * present)))


class SiteDescription(Request):
    """What a site says of its table before the first round: columns and classes, never a value
    of a row. The categories of a column are values of the data; they leave the site with it.
    """

    columns: list[Column] = Field(max_length=10_000)
    target: str
    classes: list[str] = Field(min_length=1, max_length=10_000)


class PreflightSite(Schema):
    """One site's readiness; ``problems`` are sentences, each naming the column and both sides."""

    name: str
    status: Literal["invited", "described", "present"]
    problems: list[str] = Field(default_factory=list)


class Preflight(Schema):
    """Whether the sites' tables fit together; ``signature`` is what they agree on."""

    ready: bool
    sites: list[PreflightSite]
    signature: Signature | None = None


class ParticipationUpdate(Request):
    """A site says how far it is in a round; ``detail`` is one sentence for people."""

    state: ParticipationState
    detail: str | None = Field(default=None, max_length=1_000)
