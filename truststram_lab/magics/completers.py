"""What can stand at a place of a command line. Used by declarations and completion."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from .namespace import Scope

__all__ = [
    "Completing",
    "after",
    "aliases_of_model",
    "columns_of_data",
    "data_sets_and_frames",
    "filters",
    "frames",
    "labels_of_target",
    "mappings",
    "model_references",
    "models",
    "rows",
    "runs",
    "runs_or",
    "strategies",
    "words",
]


@dataclass(frozen=True)
class Completing:
    """A line that is being typed: what stands in it, and where more names come from.

    ``names`` answers for ``models``, ``aliases`` (``name@alias``), ``runs`` and ``datasets``,
    quickly or with nothing; ``fragment`` is the word under the cursor.
    """

    given: dict[str, str]
    scope: Scope
    names: Callable[[str], list[str]]
    fragment: str = ""


def words(*choices: str) -> Callable[[Completing], list[str]]:
    """Fixed choices."""
    return lambda _: list(choices)


def models(line: Completing) -> list[str]:
    """Names of models."""
    return line.names("models")


def model_references(line: Completing) -> list[str]:
    """Names of models; after an ``@``, their aliases."""
    return line.names("aliases" if "@" in line.fragment else "models")


def aliases_of_model(line: Completing) -> list[str]:
    """Aliases of the model that the line names."""
    name = re.split("[:@]", line.given.get("name", ""))[0]
    refs = (ref.partition("@") for ref in line.names("aliases"))
    return [alias for model, _, alias in refs if model == name and alias != "latest"]


def runs(line: Completing) -> list[str]:
    """Names of runs."""
    return line.names("runs")


def runs_or(*words: str) -> Callable[[Completing], list[str]]:
    """Names of runs, then the words that can stand in a name's place."""
    return lambda line: [*runs(line), *words]


def after(
    name: str,
    then: Callable[[Completing], list[str]],
    otherwise: Callable[[Completing], list[str]],
) -> Callable[[Completing], list[str]]:
    """What ``then`` offers where the line's name is ``name``, what ``otherwise`` offers else."""
    return lambda line: (then if line.given.get("name") == name else otherwise)(line)


def strategies(line: Completing) -> list[str]:
    """Strategies; after a colon, the parameters of the one that is named."""
    from truststram_lab.schemas.strategies import STRATEGY_NAMES, as_strategy

    name, colon, _ = line.fragment.partition(":")
    if colon and name in STRATEGY_NAMES:
        values = as_strategy(name).model_dump(exclude={"name"}, exclude_none=True)
        return [f"{name}:{key}={value}" for key, value in values.items()]
    return list(STRATEGY_NAMES)


def filters(_: Completing) -> list[str]:
    """Filters, each with the parameter that matters most."""
    from truststram_lab.schemas.filters import parse_filters

    kinds = ("gradient_clip", "norm_validation", "sparsification", "quantization", "gaussian_noise")
    found = parse_filters([{"type": kind} for kind in kinds])
    parameters = [next(iter(each.model_dump(exclude={"type"}).items())) for each in found]
    return [f"{kind}:{key}={value}" for kind, (key, value) in zip(kinds, parameters, strict=True)]


def mappings(line: Completing) -> list[str]:
    """Variables that hold a dict."""
    return line.scope.rows()


def frames(line: Completing) -> list[str]:
    """DataFrame variables."""
    return line.scope.frames()


def rows(line: Completing) -> list[str]:
    """Variables that hold rows."""
    return line.scope.rows()


def data_sets_and_frames(line: Completing) -> list[str]:
    """The user's DataFrames, then the demo data sets."""
    return [*line.scope.frames(), *line.names("datasets")]


def columns_of_data(line: Completing) -> list[str]:
    """Columns of the DataFrame that the line names as its data."""
    return line.scope.columns(line.given.get("data", ""))


def labels_of_target(line: Completing) -> list[str]:
    """Values of the target column that the line names."""
    return line.scope.labels(line.given.get("data", ""), line.given.get("target", ""))
