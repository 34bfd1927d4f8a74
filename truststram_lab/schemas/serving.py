"""Deployments, predictions and their explanations."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from .base import Request, Schema

Scalar = float | int | bool | str | None


class ScalingConfig(Request):
    """Workers of a deployment's own: ``min_instances`` always, up to ``max_instances`` on load.

    ``auto_scaling`` off keeps the minimum.
    """

    min_instances: int = Field(default=1, ge=1, le=1000)
    max_instances: int | None = Field(default=None, ge=1, le=1000)
    auto_scaling: bool = True

    @model_validator(mode="after")
    def _in_order(self) -> ScalingConfig:
        if self.max_instances is not None and self.max_instances < self.min_instances:
            raise ValueError(
                f"max_instances is {self.max_instances} and min_instances {self.min_instances}; "
                "the maximum is at least the minimum"
            )
        return self

    @property
    def most(self) -> int:
        """Workers under load."""
        if not self.auto_scaling:
            return self.min_instances
        return self.max_instances or self.min_instances


class CreateDeployment(Request):
    """Point the endpoint of ``model`` ("name", "name:version" or "name@alias").

    Without an ``environment`` it is the platform's own: ``sandbox`` on this computer's private
    one, ``production`` on a team's. Without a ``scaling_config`` it shares its workers.
    """

    model: str
    environment: str | None = None
    scaling_config: ScalingConfig | None = None


class Scaling(Schema):
    """How a deployment's own workers scale, and how many ``instances`` there are now.

    A deployment that nobody asked since the platform's start has none yet.
    """

    min_instances: int
    max_instances: int
    instances: int


class Deployment(Schema):
    """An endpoint (stable URL) and the version its traffic goes to.

    ``reference`` is how the version was named where that was by an alias, such as
    ``icu@champion``: the alias may move, the deployment stays on ``version``. ``runtime`` is
    what computes it, and ``runtime_reason`` why that one; ``scaling`` is None where it shares its
    workers with others.
    """

    id: str
    name: str
    environment: str
    model: str
    version: int
    reference: str | None = None
    revision: int
    status: Literal["ready", "starting", "failed", "drained"]
    endpoint_url: str
    runtime: str = "network"
    runtime_reason: str = ""
    scaling: Scaling | None = None
    created_at: str
    updated_at: str


class PredictRequest(Request):
    """One row, or up to 10,000 rows; every column of the signature, no other."""

    data: dict[str, Any] | list[dict[str, Any]]
    explain: bool = False
    explain_class: str | None = None


class Contribution(Schema):
    """What one original column adds to ``base_value``, in the output space's unit."""

    feature: str
    value: Scalar
    contribution: float


class Background(Schema):
    """What "absent" means: the point the contributions start from."""

    kind: Literal["federated_means"]
    sha256: str
    rows: int


class Explanation(Schema):
    """Version 1 of the explanation contract.

    ``base_value + sum(contributions) + residual == output_value`` by construction, and
    ``residual`` is what the method failed to attribute (0 up to rounding for exact ones).
    ``output_space`` is ``log_odds`` (natural logarithm, towards ``explained_class``) for
    two classes and ``centred_logit`` (the class's logit minus the mean logit) for more.
    """

    schema_version: int = 1
    method: Literal["exact_shapley", "deeplift"]
    meaning: str
    explained_class: str
    output_space: Literal["log_odds", "centred_logit"]
    base_value: float
    output_value: float
    contributions: list[Contribution]
    residual: float
    standard_error: float | None = None
    background: Background


class Prediction(Schema):
    """The answer for one row.

    ``confidence`` is the probability of the positive class for two classes, else of the
    predicted one; ``confidence_class`` says which, so that nobody can misread it. A regression
    has a ``value`` instead: no probabilities and no confidence, and ``label`` is the value's text.
    """

    prediction_id: str
    model: str
    version: int
    label: str
    probabilities: dict[str, float]
    confidence: float | None = None
    confidence_class: str | None = None
    value: float | None = None
    explanation: Explanation | None = None
    latency_ms: float = 0.0

    @property
    def result(self) -> str | float:
        """The predicted label; of a regression the value."""
        return self.label if self.value is None else self.value


class PredictResponse(Schema):
    predictions: list[Prediction] = Field(min_length=1)


class PredictionRecord(Schema):
    """One answered request, as the log of predictions has it.

    ``name`` is what was asked (a deployment, or a version), ``version`` what answered. ``answers``
    and ``data`` are somebody's data: they are kept only where the deployment says so.
    """

    id: str
    created_at: str
    name: str
    model: str
    version: int
    caller: str
    status: int
    rows: int
    latency_ms: float
    answers: list[dict[str, Any]] | None = None
    data: list[dict[str, Any]] | None = None


class Latency(Schema):
    """Milliseconds that so many in a hundred answers took at most (nearest rank)."""

    p50: float
    p95: float
    p99: float


class Traffic(Schema):
    """What a deployment was asked in the last ``seconds``, as the log of predictions has it.

    ``failed`` are requests that were answered with an error, ``per_minute`` requests of each
    minute, oldest first. ``latency_ms`` is of the newest 10,000; None where there is none.
    """

    name: str
    seconds: int
    requests: int
    failed: int
    rows: int
    latency_ms: Latency | None
    per_minute: list[int]
