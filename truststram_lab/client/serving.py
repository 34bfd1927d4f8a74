"""Deployments and predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from truststram_lab.exceptions import PlatformError
from truststram_lab.schemas.base import Page
from truststram_lab.schemas.serving import (
    CreateDeployment,
    Deployment,
    Prediction,
    PredictionRecord,
    PredictRequest,
    PredictResponse,
    ScalingConfig,
    Traffic,
)
from truststram_lab.transport import Call, Resource, call
from truststram_lab.transport.calls import D

from .refs import ModelRef, model_ref, segment

__all__ = ["Deployments", "Inference", "PredictionLog", "deployment_call"]

_PREDICT_S = 60.0
#: an estimator is converted and compared split by split
_DEPLOY_S = 330.0


class Deployments(Resource[D]):
    """``client.deployments``"""

    @call
    def list(
        self, *, limit: int | None = None, cursor: str | None = None
    ) -> Call[Page[Deployment]]:
        """One page of endpoints."""
        query = {"limit": limit, "cursor": cursor}
        return Call("GET", "/api/v1/deployments", Page[Deployment], query=query)

    @call
    def get(self, name: str) -> Call[Deployment]:
        """An endpoint by name."""
        return Call("GET", f"/api/v1/deployments/{segment(name, 'a deployment')}", Deployment)

    @call
    def delete(self, name: str, *, environment: str | None = None) -> Call[None]:
        """Serve it no more; what is asked already is answered.

        Args:
            environment: whose endpoint, where several have the name; None is the platform's own.

        Raises:
            NotFoundError: there is no such deployment.
        """
        path = f"/api/v1/deployments/{segment(name, 'a deployment')}"
        return Call("DELETE", path, None, query={"environment": environment})

    @call
    def traffic(self, name: str, *, seconds: int = 3600) -> Call[Traffic]:
        """What the deployment was asked in the last ``seconds``, 60 to 86,400."""
        path = f"/api/v1/deployments/{segment(name, 'a deployment')}/traffic"
        return Call("GET", path, Traffic, query={"seconds": seconds})

    @call
    def create(
        self,
        model: ModelRef,
        *,
        environment: str | None = None,
        scaling_config: ScalingConfig | Mapping[str, Any] | None = None,
    ) -> Call[Deployment]:
        """Point the endpoint of the model at a version.

        Args:
            model: "icu" is its latest version, "icu:3" that one, and "icu@champion" the one
                that the alias names now; the deployment stays on it when the alias moves.
            environment: None is the platform's own.
            scaling_config: ``min_instances`` workers of its own, up to ``max_instances`` under
                load, unless ``auto_scaling`` is False; None shares the platform's workers.

        Raises:
            ModelNotFoundError: no such model or version.
            InsufficientResourcesError: the minimum does not fit on the platform's computer.
        """
        return deployment_call(model, environment, scaling_config)


class PredictionLog(Resource[D]):
    """``client.predictions``: who asked which version when, and how it was answered."""

    @call
    def list(
        self, name: str | None = None, *, limit: int | None = None, cursor: str | None = None
    ) -> Call[Page[PredictionRecord]]:
        """One page of the log, newest first.

        Args:
            name: a deployment's, or a version's such as "icu:3"; None is all of them.
        """
        query = {"name": name, "limit": limit, "cursor": cursor}
        return Call("GET", "/api/v1/predictions", Page[PredictionRecord], query=query)

    @call
    def get(self, prediction_id: str) -> Call[PredictionRecord]:
        """The entry of one prediction.

        Raises:
            NotFoundError: there is none, or it is older than the platform keeps them.
        """
        path = f"/api/v1/predictions/{segment(prediction_id, 'a prediction')}"
        return Call("GET", path, PredictionRecord)


def deployment_call(
    model: ModelRef,
    environment: str | None,
    scaling_config: ScalingConfig | Mapping[str, Any] | None,
) -> Call[Deployment]:
    """Points the endpoint of the model at a version; see ``Deployments.create``."""
    body = CreateDeployment(
        model=model_ref(model),
        environment=environment,
        scaling_config=None if scaling_config is None else _scaling(scaling_config),
    )
    return Call("POST", "/api/v1/deployments", Deployment, json=body, timeout_s=_DEPLOY_S)


def _scaling(asked: ScalingConfig | Mapping[str, Any]) -> ScalingConfig:
    return asked if isinstance(asked, ScalingConfig) else ScalingConfig.model_validate(dict(asked))


class Inference(Resource[D]):
    """``client.inference``"""

    @call
    def predict(
        self,
        model_id: ModelRef,
        data: Mapping[str, Any],
        *,
        explain: bool = False,
        explain_class: str | None = None,
    ) -> Call[Prediction]:
        """Predict one row.

        Args:
            model_id: "name" follows the endpoint, "name:3" is that version, "name@alias" the
                one that the alias names now.
            data: column name -> value, every column of the model's signature; None where
                a value is missing.
            explain: add what each column contributed.
            explain_class: the class to explain, instead of the signature's choice.

        Raises:
            ModelNotFoundError: nothing is deployed under that name.
            InvalidInputError: a column is missing, unknown, or holds a wrong value.
        """
        body = PredictRequest(data=dict(data), explain=explain, explain_class=explain_class)
        return _predict(model_id, body, _first)

    @call
    def batch_predict(
        self,
        model_id: ModelRef,
        data_batch: Sequence[Mapping[str, Any]],
        *,
        explain: bool = False,
        explain_class: str | None = None,
    ) -> Call[list[Prediction]]:
        """Predict up to 10,000 rows in one request; the answers are in the rows' order."""
        rows = [dict(row) for row in data_batch]
        body = PredictRequest(data=rows, explain=explain, explain_class=explain_class)

        def in_order(answer: PredictResponse) -> list[Prediction]:
            if len(answer.predictions) != len(rows):
                raise PlatformError(
                    f"The platform answered {len(answer.predictions)} predictions for "
                    f"{len(rows)} rows."
                )
            return list(answer.predictions)

        return _predict(model_id, body, in_order)


def _predict(model_id: ModelRef, body: PredictRequest, unwrap: Any) -> Call[Any]:
    return Call(
        "POST",
        f"/api/v1/endpoints/{segment(model_ref(model_id), 'a model')}/predict",
        PredictResponse,
        json=body,
        timeout_s=_PREDICT_S,
        # A prediction changes nothing, so it needs no key to be asked twice.
        idempotency_key="",
        repeatable=True,
        unwrap=unwrap,
    )


def _first(answer: PredictResponse) -> Prediction:
    return answer.predictions[0]
