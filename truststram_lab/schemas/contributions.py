"""What each site of a run brought to its model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import Schema

__all__ = ["Contributions", "ModelScore", "SiteContribution", "Worth"]


class ModelScore(Schema):
    """How good one model is on the rows that score: accuracy in [0, 1], log loss in nats a row."""

    accuracy: float
    loss: float


class Worth(Schema):
    """What a site is worth by one measure; None where it is not known.

    Attributes:
        leave_one_out: the score with all sites, minus that without this one.
        shapley: the Shapley value; positive is good for accuracy, and so it is for loss, of
            which the *decrease* is shared out.
        error: the standard error of ``shapley``; None where all coalitions were counted.
    """

    leave_one_out: float | None = None
    shapley: float | None = None
    error: float | None = None


class SiteContribution(Schema):
    """One site: in how many training rounds it sent an update, and what it is worth."""

    site: str
    rounds: int
    accuracy: Worth
    loss: Worth


class Contributions(Schema):
    """A run's sites, in the plan's order.

    Attributes:
        method: ``exact`` counts every coalition; ``permutations`` samples; ``leave_one_out``
            has no Shapley values, and ``why`` says for what reason.
        nobody: the score of the initial model; ``everybody`` of the run's own result.
        evaluations: models that were built and scored.
        pairs: orders of the sites that were walked, each there and back.
        truncated: of all steps, the share that was taken to change nothing.
        residual: what the Shapley values do not sum up to of ``everybody - nobody``, by measure.
        complete: False after an interrupt.
        rows: how many rows score.
    """

    method: Literal["exact", "permutations", "leave_one_out"]
    why: str | None = None
    nobody: ModelScore
    everybody: ModelScore
    sites: list[SiteContribution]
    evaluations: int
    pairs: int = 0
    truncated: float = 0.0
    residual: dict[str, float] = Field(default_factory=dict)
    complete: bool = True
    rows: int
    seed: int
