"""Serve a model, and see what is served, by what, and what it is asked."""

from __future__ import annotations

from typing import Any

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.schemas.serving import ScalingConfig

from . import session as sessions
from .choices import confirmed, not_an_action
from .results import DeploymentDetail, DeploymentList, Notice, PredictionLogPage
from .watching import watched

__all__ = ["DEPLOYMENT_ACTIONS", "deploy", "deployments"]

DEPLOYMENT_ACTIONS = ("log", "watch", "delete")

_ENTRIES = 10
_LOG = 200


def deploy(
    model: Any,
    *,
    name: str | None = None,
    environment: str | None = None,
    min_instances: int | None = None,
    max_instances: int | None = None,
) -> DeploymentDetail:
    """Serve a version of a model at its stable address.

    Args:
        model: ``name`` (its latest version), ``name:version`` or ``name@alias``; or a trained
            ``MLModel`` or scikit-learn estimator, which becomes another version of ``name``.
        name: of the registered model, for a trained one; made of its algorithm and target.
        environment: whose endpoint; the platform's own when left out.
        min_instances: workers of its own that always run; it shares the platform's when neither
            this nor ``max_instances`` is given.
        max_instances: workers under load.

    Raises:
        ModelNotFoundError: no such model or version; the nearest names are in the sentence.
        InvalidInputError: the model cannot be served, or the numbers do not go together.
        InsufficientResourcesError: the minimum of workers does not fit.
    """
    client = sessions.require("deploying").client
    scaling = None
    if min_instances is not None or max_instances is not None:
        least = min_instances or 1
        if max_instances is not None and max_instances < least:
            raise InvalidInputError(
                f"max_instances is {max_instances} and min_instances {least}; the maximum is at "
                "least the minimum.",
                field="max_instances",
            )
        scaling = ScalingConfig(min_instances=least, max_instances=max_instances)
    if isinstance(model, str):
        if name is not None:
            raise InvalidInputError(
                f"{model!r} has a name already; leave name={name!r} out, or give a trained model.",
                field="name",
            )
        made = client.models.deploy(model, environment=environment, scaling_config=scaling)
    else:
        made = client.models.deploy(
            model=model, name=name, environment=environment, scaling_config=scaling
        )
    return DeploymentDetail(made, said=f"{made.model}:{made.version} answers from now on.")


def deployments(
    name: str | None = None,
    action: str | None = None,
    *,
    environment: str | None = None,
    yes: bool = False,
) -> DeploymentList | DeploymentDetail | PredictionLogPage | Notice:
    """All deployments, newest first; with a name, one of them; with an action, act.

    Args:
        action: ``watch`` follows it until Stop, or Kernel > Interrupt: its version, workers and
            requests; ``log`` shows who asked what when, the newest 200; ``delete`` ends it, its
            model stays.
        environment: whose endpoint to delete, where several have the name.
        yes: really delete.

    Raises:
        NotFoundError: nothing is deployed under that name; the nearest are in the sentence.
        InvalidInputError: no such action.
    """
    client = sessions.require("looking at deployments").client
    if name is None:
        return DeploymentList(client.deployments.list().items)
    if action is not None and action not in DEPLOYMENT_ACTIONS:
        raise not_an_action(action, DEPLOYMENT_ACTIONS, "a deployment")
    if action == "delete":
        line = f"%ts_deployments {name} delete"
        confirmed(yes, f"This ends what is served as {name}; its model stays", line)
        client.deployments.delete(name, environment=environment)
        return Notice(f"{name} is not served any more; its model and the log stay.")
    if action == "log":
        found = client.deployments.get(name)
        return PredictionLogPage(client.predictions.list(found.name, limit=_LOG).items, found.name)

    def look() -> DeploymentDetail:
        deployment = client.deployments.get(name)
        return DeploymentDetail(
            deployment,
            client.deployments.traffic(deployment.name),
            client.predictions.list(deployment.name, limit=_ENTRIES).items,
        )

    return watched(client, look) if action == "watch" else look()
