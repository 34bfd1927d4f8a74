"""What a site knows of its own part in a federation: nobody else is shown this."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import Schema
from .federation import LocalTraining, RoundKind, Score
from .participation import ParticipationState
from .privacy import Adjacency, SpentEpsilon, Unit
from .registry import Architecture
from .tables import Column

__all__ = [
    "LeavingArrays",
    "SiteEvent",
    "SitePreview",
    "SiteScore",
    "SiteSpent",
    "SiteStatus",
    "SiteView",
]

#: ``waiting`` for a round; ``done``: the run's last round is in.
SiteStatus = Literal["waiting", "working", "done", "stopped", "failed"]


class SiteEvent(Schema):
    """The site reached a state in a round."""

    kind: RoundKind
    number: int
    state: ParticipationState
    detail: str | None = None
    at: float = Field(description="seconds since the epoch")


class SiteScore(Schema):
    """The models of a round on the rows that this site held out: the global one, and its own.

    The personal numbers never leave the site.
    """

    number: int
    loss: float
    score: Score
    personal: Score | None = None
    personal_loss: float | None = None


class SiteSpent(Schema):
    """What a site's data set has spent over all its runs and federations, in one unit.

    ``epsilon`` None stands for infinity; ``limit`` and ``remaining`` are None without a limit.
    """

    unit: Unit
    adjacency: Adjacency
    epsilon: SpentEpsilon
    limit: float | None = None
    remaining: float | None = None
    delta: float
    releases: int
    text: str


class SiteView(Schema):
    """One site's participation as it stands now.

    Attributes:
        rows: rows that are trained on; ``held_out_rows`` are only scored.
        sent_bytes, received_bytes: at the site's own socket.
        policy: the site's floor, one sentence each.
        epsilon: what this run has spent of the site's data, None where nothing is guaranteed;
            ``budget`` is what all its rounds together will have spent.
        spent: of the site's rows over all runs and federations, as its own ledger has it.
        events: the newest states, oldest first.
        progress: of the training that goes on now, in a few words.
        personal: the model of its own that the site keeps, as it is spelt; None without one.
    """

    federation: str
    site: str
    status: SiteStatus
    training: str
    rows: int
    held_out_rows: int
    class_rows: dict[str, int] = Field(default_factory=dict)
    run: str | None = None
    kind: RoundKind | None = None
    number: int = 0
    rounds: int = 0
    updates_sent: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    policy: list[str] = Field(default_factory=list)
    privacy: str | None = None
    epsilon: float | None = None
    budget: float | None = None
    spent: list[SiteSpent] = Field(default_factory=list)
    scores: list[SiteScore] = Field(default_factory=list)
    events: list[SiteEvent] = Field(default_factory=list)
    reason: str | None = None
    progress: str | None = None
    personal: str | None = None
    elapsed_s: float = 0.0


class LeavingArrays(Schema):
    """Named arrays that leave in one round."""

    name: str
    shape: list[int]
    dtype: str
    size_bytes: int


class SitePreview(Schema):
    """What would leave if the site joined; nothing has been sent yet.

    Attributes:
        registration: the four fields of a device's registration.
        columns: as described to the federation, with the categories that they take.
        statistics: of each column, which aggregates leave before the first round.
        statistics_bytes: their size; 0 where the site gives none.
        update: arrays of one round's update, before filters.
        update_bytes: on the wire, after the site's own filters.
        metrics: names of the numbers that go with updates and evaluations.
        personal: the model of its own that the site would keep; it does not leave.
        spent: what these rows have spent before.
        costs: what a run that was named would cost them, one sentence each.
    """

    federation: str
    site: str
    registration: dict[str, str]
    columns: list[Column]
    target: str
    classes: list[str]
    rows: int
    statistics: dict[str, list[str]]
    statistics_bytes: int
    update: list[LeavingArrays]
    update_bytes: int
    filters: list[str] = Field(default_factory=list)
    local: LocalTraining | None = None
    architecture: Architecture
    metrics: list[str] = Field(default_factory=list)
    policy: list[str] = Field(default_factory=list)
    personal: str | None = None
    spent: list[SiteSpent] = Field(default_factory=list)
    costs: list[str] = Field(default_factory=list)
