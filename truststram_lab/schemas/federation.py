"""Federations, runs, rounds, and what a participant is asked to do."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PlainSerializer, WithJsonSchema

from .base import Request, Schema
from .filters import Filter, FilterStep
from .participation import ConfigValue, Quorum
from .privacy import Budget, ClientPlan, PrivacyPlan, PrivacyStatement, Trust, Unit
from .registry import Architecture, Name, Sha256
from .run_privacy import RunPrivacy
from .simulation import ClientsReport, Hosted
from .splits import Split
from .strategies import AnyStrategy, FedAvg, Strategy, strategy_text
from .tables import Signature, Statistics

RunStatus = Literal["statistics", "training", "stopped", "completed", "failed"]
RoundKind = Literal["statistics", "initial", "training", "evaluation"]
RoundStatus = Literal["open", "aggregating", "closed"]


#: Written as the text that ``parse_strategy`` reads, such as ``fedyogi:tau=0.01``.
#: An object with ``name`` is understood, too.
WrittenStrategy = Annotated[
    Strategy,
    PlainSerializer(strategy_text, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["fedavg", "fedyogi:tau=0.01"]}),
]


class CreateFederation(Request):
    name: Name
    description: str = Field(default="", max_length=1_000)


class Federation(Schema):
    """Who trains together; a closed one takes no new run and no new participant."""

    id: str
    name: str
    participants: list[str]
    created_at: str
    description: str = ""
    status: Literal["open", "closed"] = "open"


class SetBudget(Budget, Request):
    """The most that the federation's data may ever spend, in this unit."""

    unit: Unit = "record"


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

    kind: Literal["demo", "dataframe", "arrays"]
    name: str
    rows: int
    sha256: str


class CreateRun(Request):
    """The whole plan of a run; the platform can finish the arithmetic from it alone.

    Attributes:
        sites: by name, in the order of every sum. With ``open_roster`` there may be none:
            every participant of the federation that asks is in.
        architecture, signature: None for a run of named arrays only, whose result is no
            model version but the file ``Run.result_sha256``.
        initial_weights_sha256: an uploaded file; None asks the first site for its parameters.
        filters: what every site does to its update, in order, after its own floor.
        config: for every site's own training function.
        evaluation: whether the sites evaluate, after the last or after every training round.
        simulated: the sites are one owner's, so all of them count as present.
        deploy: False leaves the result registered only, also where results are deployed by
            themselves.
        hosted: of a simulation in which one participant trains many virtual clients. Then
            ``strategy`` is what the platform does with its one update, and the clients' own
            strategy stands there.
    """

    model: Name
    federation: Name
    sites: list[str] = Field(default_factory=list, max_length=10_000)
    rounds: int = Field(ge=1, le=100_000)
    strategy: WrittenStrategy = Field(default_factory=FedAvg)
    local: LocalTraining = LocalTraining()
    seed: int = Field(default=0, ge=0, lt=2**63)
    architecture: Architecture | None = None
    signature: Signature | None = None
    initial_weights_sha256: Sha256 | None = None
    min_site_rows: int = Field(default=5, ge=1)
    simulated: bool = True
    source: DataSource | None = None
    split: Split | None = None
    hosted: Hosted | None = None
    filters: list[Filter] = Field(default_factory=list, max_length=20)
    privacy: PrivacyPlan | None = None
    quorum: Quorum = Quorum()
    config: dict[Name, ConfigValue] = Field(default_factory=dict, max_length=100)
    evaluation: Literal["none", "final", "every"] = "none"
    open_roster: bool = False
    deploy: bool = True

    @property
    def sites_strategy(self) -> AnyStrategy:
        """What becomes of the sites' updates, whoever does it: the platform, or a host."""
        return self.strategy if self.hosted is None else self.hosted.strategy

    @property
    def central_privacy(self) -> ClientPlan | None:
        """The client-level plan whose cohort and noise are the platform's to draw; a host draws
        them itself."""
        if self.hosted is None and isinstance(self.privacy, ClientPlan):
            return self.privacy
        return None

    @property
    def trust(self) -> Trust | None:
        """Who sees what of the updates that privacy is about; None without."""
        if self.privacy is None:
            return None
        hosted = self.hosted is not None and isinstance(self.privacy, ClientPlan)
        return "host sees every update" if hosted else self.privacy.trust


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
    """The global model after a round, on the held-out rows.

    Where the sites evaluate it, every number is their mean weighted by ``rows``, and
    ``accuracy`` is None if no site reported one.
    """

    number: int
    accuracy: float | None
    loss: float
    rows: int | None = None
    sites: int | None = None
    metrics: dict[str, float] = Field(default_factory=dict)


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
    privacy: RunPrivacy | None = None
    clients: ClientsReport | None = None


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
    result_sha256: str | None = Field(default=None, description="the last global model, a file")
    statement: PrivacyStatement | None = Field(
        default=None, description="what the rounds so far guarantee"
    )


class RoundPlan(Schema):
    """What is the same in every round of a run, so that an assignment names it by its digest."""

    model: str | None = None
    local: LocalTraining = LocalTraining()
    config: dict[str, ConfigValue] = Field(default_factory=dict)
    strategy: WrittenStrategy = Field(default_factory=FedAvg)
    filters: list[Filter] = Field(default_factory=list)
    privacy: PrivacyPlan | None = None
    signature: Signature | None = None
    architecture: Architecture | None = None
    statistics: Statistics | None = None


class Assignment(Schema):
    """What a participant is to do now.

    ``model_sha256`` is the safetensors file to start from (None for statistics and initial
    parameters). ``plan_sha256`` is of the run's ``RoundPlan``: to a site that says it knows
    it, its parts are not repeated here and are None, but for ``local``.
    ``deadline_s`` seconds are left; None is no deadline.
    """

    round_id: str
    run_id: str
    run: str
    kind: RoundKind
    number: int
    rounds: int
    status: RoundStatus
    model_sha256: str | None
    statistics: Statistics | None = None
    signature: Signature | None = None
    architecture: Architecture | None = None
    local: LocalTraining
    seed: int
    min_site_rows: int
    plan_sha256: str | None = None
    deadline_s: float | None = None
    model: str | None = None
    config: dict[str, ConfigValue] | None = None
    strategy: WrittenStrategy | None = None
    filters: list[Filter] | None = None
    privacy: PrivacyPlan | None = None


class UpdateReceipt(Schema):
    """The platform took the update; ``duplicate`` says it had it already."""

    status: Literal["accepted"] = "accepted"
    round_id: str
    sha256: str
    duplicate: bool = False


class RunUpdate(Schema):
    """What one site sent in one round; ``steps`` are its filters, before and after each."""

    round: int
    kind: RoundKind
    site: str | None = Field(description="None where the cohort of a round is a secret")
    sha256: str
    size_bytes: int
    samples: int
    metrics: dict[str, float] = Field(default_factory=dict)
    steps: list[FilterStep] = Field(default_factory=list)
    created_at: str


class RunRound(Schema):
    """What went into a round and what came out, by digest: enough to compute it again.

    ``updates`` are in the order of the sum, with the weight of each. ``noised_sha256`` is the
    round's noised mean, which is kept because its noise cannot be drawn again.
    """

    id: str
    number: int
    kind: RoundKind
    status: RoundStatus
    model_sha256: str | None
    result_sha256: str | None
    former_state_sha256: str | None = None
    server_state_sha256: str | None = None
    noised_sha256: str | None = None
    updates: list[str] = Field(default_factory=list)
    weights: list[int] = Field(default_factory=list)
    participation: float = 1.0
    created_at: str
    closed_at: str | None = None
