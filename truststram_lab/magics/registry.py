"""The models of the organisation, and the aliases of their versions."""

from __future__ import annotations

from . import completers
from .command import Line, VerbCall, command
from .parsing import argument, one_of

__all__ = ["models"]

_ACTIONS = ("alias", "unalias", "watch", "delete")


def _version(text: str) -> int | str:
    """A version's number, or its label, or ``latest`` or ``deployed``."""
    return int(text) if text.isascii() and text.isdigit() else text


@command(
    "ts_models",
    argument(
        "name",
        metavar="NAME",
        nargs="?",
        complete=completers.model_references,
        help="show this model and its versions; also name:version or name@alias",
    ),
    argument(
        "action",
        metavar="alias|unalias|watch|delete",
        nargs="?",
        type=one_of(*_ACTIONS),
        complete=completers.words(*_ACTIONS),
        help="let ALIAS name a version from now on, or take it away; follow the model live; "
        "or remove it",
    ),
    argument(
        "alias",
        metavar="ALIAS",
        nargs="?",
        complete=completers.aliases_of_model,
        help="such as champion; then NAME@champion goes wherever a model does",
    ),
    argument(
        "--version",
        metavar="V",
        type=_version,
        complete=completers.words("latest", "deployed"),
        help="the version to name: a number, a label, latest or deployed; latest when left out",
    ),
    argument("--yes", action="store_true", help="really delete"),
    summary="List models, show or follow one and its versions, or move its aliases.",
    examples=(
        "%ts_models",
        "%ts_models breast-cancer",
        "%ts_models breast-cancer alias champion --version 2",
        "%ts_models breast-cancer unalias champion",
        "%ts_models breast-cancer watch",
        "%ts_models breast-cancer delete --yes",
    ),
)
def models(line: Line) -> VerbCall:
    """``%ts_models``."""
    given = dict(line.given)
    words = tuple(given.pop(word) for word in ("name", "action", "alias") if word in given)
    return VerbCall("models", words, given)
