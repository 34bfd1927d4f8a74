"""Deployments, predictions and their explanations."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from .base import Request, Schema

Scalar = float | int | bool | str | None


class CreateDeployment(Request):
    """Point the endpoint of ``model`` ("name", "name:version" or "name@alias").

    Without an ``environment`` it is the platform's own: ``sandbox`` on this computer's private
    one, ``production`` on a team's.
    """

    model: str
    environment: str | None = None


class Deployment(Schema):
    """An endpoint (stable URL) and the version its traffic goes to.

    ``reference`` is how the version was named where that was by an alias, such as
    ``icu@champion``: the alias may move, the deployment stays on ``version``.
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
    predicted one; ``confidence_class`` says which, so that nobody can misread it.
    """

    prediction_id: str
    model: str
    version: int
    label: str
    probabilities: dict[str, float]
    confidence: float
    confidence_class: str
    explanation: Explanation | None = None
    latency_ms: float = 0.0

    @property
    def result(self) -> str:
        """The predicted label."""
        return self.label


class PredictResponse(Schema):
    predictions: list[Prediction] = Field(min_length=1)
