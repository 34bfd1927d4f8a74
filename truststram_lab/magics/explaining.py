"""Explain the rows of a table."""

from __future__ import annotations

from . import completers
from .command import Line, VerbCall, command
from .parsing import argument, one_of

__all__ = ["explain"]

_METHODS = ("auto", "shap", "lime")


@command(
    "ts_explain",
    argument(
        "model",
        metavar="MODEL",
        complete=completers.model_references,
        help="name, for what is deployed, or name:version, or name@alias; or a variable that "
        "holds anything that predicts",
    ),
    argument(
        "--data",
        metavar="DF",
        complete=completers.frames,
        help="a DataFrame; of a model trained on demo data, its held-out rows when left out",
    ),
    argument("--rows", metavar="FIRST:END", help="which of them; 0:100 when left out"),
    argument(
        "--method",
        metavar="|".join(_METHODS),
        type=one_of(*_METHODS),
        complete=completers.words(*_METHODS),
        help="auto fits the model: a federated network is explained from the federated means",
    ),
    argument("--compare", action="store_true", help="by SHAP and by LIME; where they disagree"),
    argument(
        "--background",
        metavar="DF",
        complete=completers.frames,
        help="rows that stand for an absent column; 100 of the data when left out",
    ),
    argument(
        "--class",
        dest="explain_class",
        metavar="LABEL",
        help="of more than two classes the one to explain",
    ),
    summary="Say what every column contributes to a model's answers. No row leaves the kernel.",
    examples=(
        "%ts_explain breast-cancer --rows 0:20",
        "%ts_explain breast-cancer --compare",
        "%ts_explain fitted --data df --method lime -o found",
    ),
)
def explain(line: Line) -> VerbCall:
    """``%ts_explain``."""
    given = dict(line.given)
    model = given.pop("model")
    for name in ("data", "background"):
        if name in given:
            given[name] = line.scope.variable(given[name])
    if model.isidentifier() and line.scope.knows(model):
        held = line.scope.variable(model)
        if not isinstance(held.value, str):
            return VerbCall("explain", (held,), given)
    return VerbCall("explain", (model,), given)
