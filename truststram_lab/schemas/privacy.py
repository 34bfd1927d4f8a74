"""What a run does for privacy, what that is worth, and what a data set has left to spend."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from .base import Schema
from .registry import Sha256

#: Who is hidden: one row of a site, or a whole site.
Unit = Literal["record", "client"]
#: Which two data sets are told apart: one has a unit more, or one unit is another.
Adjacency = Literal["add-or-remove", "replace"]
#: How an epsilon was computed, see ``learning.privacy.accountant``.
Accountant = Literal["analytic Gaussian", "RDP", "PRV"]
Trust = Literal[
    "platform sees every update",
    "platform sees noised updates only",
    "host sees every update",
]
EntryState = Literal["reserved", "released", "returned"]
#: What left under noise: means and variances, a round's update, or explanations of predictions.
EntryKind = Literal["statistics", "training", "attributions"]

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Rate = Annotated[float, Field(gt=0, le=1)]
_Delta = Annotated[float, Field(gt=0, lt=1)]
#: JSON knows no infinity: None stands for it, and for a number that no float holds.
SpentEpsilon = Annotated[
    _NotNegative | None,
    BeforeValidator(lambda value: None if value == float("inf") else value),
]


class GaussianUse(Schema):
    """Gaussian noise, drawn ``steps`` times.

    ``noise_multiplier`` is the noise's standard deviation divided by the L2 sensitivity under
    the statement's adjacency; 0 is no noise. ``sample_rate`` is the chance with which each
    unit takes part in a step, by itself and in secret; 1 is full participation.
    """

    noise_multiplier: _NotNegative
    sample_rate: _Rate = 1.0
    steps: int = Field(default=1, ge=1)


class RecordPlan(Schema):
    """Record-level DP-SGD: each site clips every row's gradient and adds noise to each step.

    ``sample_rate`` is of one row in one step, ``noise_multiplier`` times ``clip`` the standard
    deviation of the noise on a step's sum of gradients. ``batch_size`` is by what the noised sum
    is divided: a constant of the plan. Were it taken from the rows, one row more would show in
    the size of the noise.
    """

    mechanism: Literal["dp-sgd"] = "dp-sgd"
    clip: _Positive = 1.0
    noise_multiplier: _NotNegative
    sample_rate: _Rate
    batch_size: _Positive
    steps_per_round: int = Field(ge=1)
    rounds: int = Field(ge=1)
    delta: _Delta

    @property
    def unit(self) -> Unit:
        return "record"

    @property
    def adjacency(self) -> Adjacency:
        return "add-or-remove"

    @property
    def trust(self) -> Trust:
        return "platform sees noised updates only"

    def use(self, rounds: int = 1) -> GaussianUse:
        """What ``rounds`` rounds spend of one site's data."""
        return GaussianUse(
            noise_multiplier=self.noise_multiplier,
            sample_rate=self.sample_rate,
            steps=self.steps_per_round * rounds,
        )


class ClientPlan(Schema):
    """Client-level DP-FedAvg: the platform clips every site's update and noises their sum.

    ``cohort_rate`` is the chance of each of the ``sites`` to be in a round's cohort, 1 for all;
    the sum is divided by ``cohort_rate * sites``, whoever came. ``noise_multiplier`` times
    ``clip`` is the standard deviation of the noise on the sum.
    """

    mechanism: Literal["dp-fedavg"] = "dp-fedavg"
    clip: _Positive = 1.0
    noise_multiplier: _NotNegative
    cohort_rate: _Rate = 1.0
    sites: int = Field(ge=1)
    rounds: int = Field(ge=1)
    delta: _Delta

    @property
    def unit(self) -> Unit:
        return "client"

    @property
    def adjacency(self) -> Adjacency:
        return "add-or-remove"

    @property
    def trust(self) -> Trust:
        return "platform sees every update"

    @property
    def denominator(self) -> float:
        """The expected number of sites in a round, by which the noised sum is divided."""
        return self.cohort_rate * self.sites

    def use(self, rounds: int = 1) -> GaussianUse:
        """What ``rounds`` rounds spend of every site's budget."""
        return GaussianUse(
            noise_multiplier=self.noise_multiplier, sample_rate=self.cohort_rate, steps=rounds
        )


class LocalPlan(Schema):
    """Local DP: a site clips its own update and adds noise before it leaves.

    Two updates within ``clip`` lie up to ``2 * clip`` apart, which is the sensitivity; ``sigma``
    is the standard deviation of the noise, in parameter units.
    """

    mechanism: Literal["local-dp"] = "local-dp"
    clip: _Positive = 1.0
    sigma: _NotNegative
    rounds: int = Field(ge=1)
    delta: _Delta

    @property
    def unit(self) -> Unit:
        return "client"

    @property
    def adjacency(self) -> Adjacency:
        return "replace"

    @property
    def trust(self) -> Trust:
        return "platform sees noised updates only"

    def use(self, rounds: int = 1) -> GaussianUse:
        """What ``rounds`` rounds spend of the site's budget."""
        return GaussianUse(noise_multiplier=self.sigma / (2 * self.clip), steps=rounds)


PrivacyPlan: TypeAlias = Annotated[
    RecordPlan | ClientPlan | LocalPlan, Field(discriminator="mechanism")
]


class PrivacyStatement(Schema):
    """One claim of privacy with everything it depends on; ``text`` is for a card.

    ``epsilon`` is None where nothing is guaranteed; ``text`` then says why.
    """

    unit: Unit
    adjacency: Adjacency
    epsilon: SpentEpsilon
    delta: float
    mechanism: str
    sampling: str
    accountant: Accountant | None
    trust: Trust
    text: str
    outside: str = Field(description="what the number does not cover, one sentence")

    @model_validator(mode="after")
    def _a_number_names_its_accountant(self) -> PrivacyStatement:
        if self.epsilon is not None and self.accountant is None:
            raise ValueError("An epsilon needs the accountant that computed it.")
        return self


class ExpectedNoise(Schema):
    """What the planned noise does to training, before any data was seen.

    ``step_noise`` is the expected L2 norm of the noise in one aggregated step and
    ``step_signal`` the largest norm that clipping leaves to the signal; the units are those of
    the parameters (client), or of the gradient (record). ``noise_to_signal`` is their ratio
    over all steps together: noise grows with their square root, aligned signal with their
    number, so this is the least ratio that can be had, and real training has more.
    """

    step_noise: float
    step_signal: float
    noise_to_signal: float
    text: str


class ExpectedAccuracy(Schema):
    """Held-out accuracy of the plan, simulated on given tables ``repeats`` times.

    ``without_noise`` is one run with the same clipping and no noise. On tables that need
    protection the simulation is itself a release, and no budget was charged for it.
    """

    mean: float
    low: float
    high: float
    without_noise: float
    repeats: int
    text: str


class PlannedPrivacy(Schema):
    """A plan that meets a budget, what it spends, and what to expect of it."""

    plan: PrivacyPlan
    statement: PrivacyStatement
    noise: ExpectedNoise


class BudgetKey(Schema):
    """Whose budget: an owner's data set, and the units it is counted in."""

    dataset_sha256: Sha256
    unit: Unit
    adjacency: Adjacency = "add-or-remove"


class Budget(Schema):
    """The most that may ever be spent under a key."""

    epsilon: _Positive
    delta: _Delta


class BudgetEntry(Schema):
    """One line of the ledger: a round, a statistics round, an explanation.

    ``kind`` is None where it was not noted.
    """

    id: str
    kind: EntryKind | None = None
    purpose: str
    uses: list[GaussianUse] = Field(min_length=1)
    state: EntryState = "reserved"


class Spending(Schema):
    """What is spent under a key: composed, and as a plain sum of the entries' epsilons.

    Plain addition is what basic composition allows (at the sum of the deltas); the composed
    number is the one that counts.
    """

    epsilon: SpentEpsilon
    epsilon_added_up: SpentEpsilon
    delta: float
    entries: int
    accountant: Accountant | None


class PrivacyBudget(Schema):
    """What ``get_privacy_budget`` answers; ``epsilon`` is what is spent.

    ``budget_remaining`` is the epsilon between what is spent and the budget: because epsilons
    do not add up, a round that asks for as much alone may still fit. None stands for infinity.
    """

    federation_id: str
    epsilon: SpentEpsilon
    delta: float
    rounds_consumed: int
    budget_remaining: SpentEpsilon
    epsilon_spent: SpentEpsilon
    epsilon_budget: SpentEpsilon
    mechanism: str | None = None
    history: list[BudgetEntry] = Field(default_factory=list)
