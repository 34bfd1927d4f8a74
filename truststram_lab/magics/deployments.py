"""Serve a model, and see what is served."""

from __future__ import annotations

from . import completers
from .command import Line, VerbCall, command
from .parsing import argument, one_of

__all__ = ["deploy", "deployments"]

_ACTIONS = ("log", "watch", "delete")


@command(
    "ts_deploy",
    argument(
        "model",
        metavar="MODEL",
        complete=completers.model_references,
        help="name (its latest version), name:version, name@alias; or a variable that holds a "
        "trained estimator",
    ),
    argument("--name", metavar="NAME", help="of the registered model, for a trained one"),
    argument("--environment", metavar="NAME", help="whose address; the platform's own otherwise"),
    argument("--min-instances", metavar="N", type=int, help="workers of its own that always run"),
    argument("--max-instances", metavar="N", type=int, help="workers under load"),
    summary="Serve a version of a model at its stable address.",
    examples=(
        "%ts_deploy breast-cancer",
        "%ts_deploy breast-cancer@champion --min-instances 2 --max-instances 4",
        "%ts_deploy fitted --name readmission",
    ),
)
def deploy(line: Line) -> VerbCall:
    """``%ts_deploy``."""
    given = dict(line.given)
    model = given.pop("model")
    if model.isidentifier() and line.scope.knows(model):
        held = line.scope.variable(model)
        if not isinstance(held.value, str):
            return VerbCall("deploy", (held,), given)
    return VerbCall("deploy", (model,), given)


@command(
    "ts_deployments",
    argument(
        "name",
        metavar="NAME",
        nargs="?",
        complete=completers.models,
        help="show this deployment, and what it was asked in the last hour",
    ),
    argument(
        "action",
        metavar="watch|log|delete",
        nargs="?",
        type=one_of(*_ACTIONS),
        complete=completers.words(*_ACTIONS),
        help="follow it live, list who asked what when, or end it",
    ),
    argument("--environment", metavar="NAME", help="whose deployment to delete"),
    argument("--yes", action="store_true", help="really delete"),
    summary="List what is served, show or follow one deployment, or read its log.",
    examples=(
        "%ts_deployments",
        "%ts_deployments breast-cancer",
        "%ts_deployments breast-cancer watch",
        "%ts_deployments breast-cancer log -o entries",
        "%ts_deployments breast-cancer delete --yes",
    ),
)
def deployments(line: Line) -> VerbCall:
    """``%ts_deployments``."""
    given = dict(line.given)
    words = tuple(given.pop(word) for word in ("name", "action") if word in given)
    return VerbCall("deployments", words, given)
