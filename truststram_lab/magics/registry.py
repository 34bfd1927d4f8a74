"""The models of the organisation."""

from __future__ import annotations

from . import completers
from .command import Line, VerbCall, command
from .parsing import argument

__all__ = ["models"]


@command(
    "ts_models",
    argument(
        "name",
        metavar="NAME",
        nargs="?",
        complete=completers.models,
        help="show this model and its versions",
    ),
    summary="List models, or show one and its versions.",
    examples=("%ts_models", "%ts_models breast-cancer"),
)
def models(line: Line) -> VerbCall:
    """``%ts_models``."""
    return VerbCall("models", tuple(line.given.values()))
