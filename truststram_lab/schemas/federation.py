"""Federations, runs, rounds, and what a participant is asked to do."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import Request, Schema
from .registry import Architecture, Name, Sha256
from .tables import Signature, Statistics

RunStatus = Literal["statistics", "training", "stopped", "completed", "failed"]
RoundKind = Literal["statistics", "training"]
RoundStatus = Literal["open", "aggregating", "closed"]


class CreateFederation(Request):
    name: Name


class Federation(Schema):
    id: str
    name: str
    participants: list[str]
    created_at: str


class Invite(Request):
    """Names of participants to issue a credential to.

    A former credential stops working, unless ``keep`` says that whoever holds it goes on:
    another kernel of the same owner may be simulating the same sites.
    """

    participants: list[str] = Field(min_length=1, max_length=10_000)
    keep: bool = False


class Invitation(Schema):
    """A participant's own credential: shown once, stored as a hash."""

    participant: str
    token: str = Field(repr=False)


class LocalTraining(Schema):
    """What every site does in a round: minibatch SGD on its own rows."""

    epochs: int = Field(default=2, ge=1, le=10_000)
    batch_size: int = Field(default=16, ge=1, le=1_000_000)
    learning_rate: float = Field(default=0.1, gt=0, le=100, allow_inf_nan=False)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0, le=10)
    dtype: Literal["float32", "float64"] = "float32"


class DataSource(Schema):
    """Which data the owner simulates on; ``sha256`` is of the encoded frame."""

    kind: Literal["demo", "dataframe"]
    name: str
    rows: int
    sha256: str


class Split(Schema):
    """How the rows are dealt to the sites: by label (Dirichlet) or by a column."""

    kind: Literal["dirichlet", "column"]
    alpha: float | None = None
    column: str | None = None
    holdout_fraction: float = Field(default=0.25, gt=0, lt=1)
    allow_one_class: bool = False


class CreateRun(Request):
    """The whole plan of a run; the platform can finish the arithmetic from it alone."""

    model: Name
    federation: Name
    sites: list[str] = Field(min_length=1, max_length=10_000)
    rounds: int = Field(ge=1, le=100_000)
    strategy: Literal["fedavg"] = "fedavg"
    local: LocalTraining = LocalTraining()
    seed: int = Field(default=0, ge=0, lt=2**63)
    architecture: Architecture
    signature: Signature
    initial_weights_sha256: Sha256
    min_site_rows: int = Field(default=5, ge=1)
    simulated: bool = True
    source: DataSource | None = None
    split: Split | None = None


class Score(Schema):
    """Accuracy on held-out rows, a share in [0, 1], with its 95 % Wilson interval.

    ``recall`` is by class label: of the rows of that class, the share that was found.
    """

    accuracy: float
    low: float
    high: float
    rows: int
    recall: dict[str, float] = Field(default_factory=dict)


class SiteReport(Schema):
    """One site's line on the card. Bytes are counted at the site's own socket."""

    name: str
    rows: int
    class_rows: dict[str, int] = Field(default_factory=dict)
    status: Literal["waiting", "training", "pushed", "done", "stopped", "failed"] = "waiting"
    sent_bytes: int = 0
    received_bytes: int = 0
    alone: Score | None = None


class RoundReport(Schema):
    """The global model after a round, on the held-out rows."""

    number: int
    accuracy: float
    loss: float


class RunReport(Request):
    """What the run's owner measured; replaces the former report as a whole."""

    sites: list[SiteReport] = Field(default_factory=list)
    history: list[RoundReport] = Field(default_factory=list)
    federated: Score | None = None
    pooled: Score | None = None
    elapsed_s: float = 0.0
    device: str = "cpu"
    held_out_rows: int = 0
    majority_share: float | None = None


class Run(Schema):
    """A run as everybody may see it; ``last_event`` is where to resume its stream."""

    id: str
    name: str
    status: RunStatus
    plan: CreateRun
    round: int = Field(description="training rounds closed so far")
    pushed: list[str] = Field(default_factory=list, description="sites in, in the open round")
    statistics: Statistics | None = None
    report: RunReport | None = None
    model_version: int | None = None
    deployed: bool = False
    reason: str | None = None
    created_at: str
    updated_at: str
    last_event: int = 0


class Assignment(Schema):
    """What a participant is to do now.

    ``model_sha256`` is the safetensors file to start from (None for statistics).
    """

    round_id: str
    run_id: str
    run: str
    kind: RoundKind
    number: int
    rounds: int
    status: RoundStatus
    model_sha256: str | None
    statistics: Statistics | None
    signature: Signature
    architecture: Architecture
    local: LocalTraining
    seed: int
    min_site_rows: int


class UpdateReceipt(Schema):
    """The platform took the update; ``duplicate`` says it had it already."""

    status: Literal["accepted"] = "accepted"
    round_id: str
    sha256: str
    duplicate: bool = False
