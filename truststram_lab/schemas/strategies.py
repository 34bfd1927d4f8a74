"""How the sites' updates become one model: the strategies of a run, and how they are spelt."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from ..exceptions import InvalidInputError, nearest
from .base import Request

__all__ = [
    "STRATEGY_NAMES",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedProx",
    "FedYogi",
    "Krum",
    "Median",
    "MultiKrum",
    "Scaffold",
    "Strategy",
    "TrimmedMean",
    "as_strategy",
    "parse_strategy",
    "strategy_text",
]


class _Strategy(Request):
    #: Whether the rule looks at single updates. Such a rule excludes secure aggregation and a
    #: central privacy statement, and ignores how many rows a site has.
    sees_single_updates: ClassVar[bool] = False

    @property
    def least_updates(self) -> int:
        """With fewer updates than this in a round, the rule refuses to aggregate."""
        return 1

    def __str__(self) -> str:
        """The text of ``strategy_text``, for people too."""
        set_to = self.model_dump(exclude_defaults=True, exclude={"name"})
        parts = ",".join(f"{key}={value}" for key, value in set_to.items())
        name: str = self.model_dump(include={"name"})["name"]
        return f"{name}:{parts}" if parts else name


class FedAvg(_Strategy):
    """The mean of the updates, weighted by rows: McMahan et al. 2017, algorithm 1."""

    name: Literal["fedavg"] = "fedavg"


class FedProx(_Strategy):
    """FedAvg of sites that are pulled to the global model: Li et al. 2020, algorithm 2.

    ``mu`` is the strength of the pull, at least 0 (0 is FedAvg). The paper tunes it over
    0.001, 0.01, 0.1 and 1 (section 5.1); the default is of that list.
    """

    name: Literal["fedprox"] = "fedprox"
    mu: float = Field(default=0.1, ge=0, le=1000, allow_inf_nan=False)


class FedAvgM(_Strategy):
    """Momentum on the platform: Hsu et al. 2019, section 4.2, with its momentum of 0.9."""

    name: Literal["fedavgm"] = "fedavgm"
    server_learning_rate: float = Field(default=1.0, gt=0, le=100, allow_inf_nan=False)
    momentum: float = Field(default=0.9, ge=0, lt=1)


class _Adaptive(_Strategy):
    server_learning_rate: float = Field(default=0.01, gt=0, le=100, allow_inf_nan=False)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.99, ge=0, lt=1)
    tau: float = Field(default=1e-3, gt=0, le=1)


class FedAdam(_Adaptive):
    """Adam on the platform, without bias correction: Reddi et al. 2021, algorithm 2.

    The betas and ``tau`` are those of the paper's experiments (section 5). A step moves a
    weight by about ``server_learning_rate`` (in units of the weights), however small the
    updates are; the paper tunes it for each data set, 0.01 is careful.
    """

    name: Literal["fedadam"] = "fedadam"


class FedYogi(_Adaptive):
    """Yogi on the platform, without bias correction: Reddi et al. 2021, algorithm 2.

    Parameters as in ``FedAdam``.
    """

    name: Literal["fedyogi"] = "fedyogi"


class Scaffold(_Strategy):
    """Control variates against client drift: Karimireddy et al. 2020, algorithm 1, option II.

    Every upload is two models long. The paper's experiments use a server rate of 1.
    """

    name: Literal["scaffold"] = "scaffold"
    server_learning_rate: float = Field(default=1.0, gt=0, le=100, allow_inf_nan=False)


class Median(_Strategy):
    """The median of every coordinate: Yin et al. 2018, definition 1. All sites weigh the same."""

    sees_single_updates: ClassVar[bool] = True
    name: Literal["median"] = "median"


class TrimmedMean(_Strategy):
    """The mean of every coordinate without its extremes: Yin et al. 2018, definition 2.

    ``fraction`` of the updates is left out at each end, rounded down to a count. It must be
    at least the share of hostile sites. All sites weigh the same.
    """

    sees_single_updates: ClassVar[bool] = True
    name: Literal["trimmed_mean"] = "trimmed_mean"
    fraction: float = Field(default=0.2, ge=0, lt=0.5)

    def trimmed(self, updates: int) -> int:
        """How many of ``updates`` are left out at each end."""
        # 0.29 * 100 is 28.999999999999996: a share that is meant as a count stays that count.
        return int(self.fraction * updates + 1e-9)

    @property
    def least_updates(self) -> int:
        """Enough that at least one update is trimmed; 1 where nothing shall be."""
        return 1 if self.fraction == 0 else max(3, math.ceil((1 - 1e-9) / self.fraction))


class Krum(_Strategy):
    """The one update with the nearest neighbours: Blanchard et al. 2017, section 4.

    ``hostile`` is the paper's f, how many updates may be anything; 2 f + 3 updates are
    needed. All sites weigh the same.
    """

    sees_single_updates: ClassVar[bool] = True
    name: Literal["krum"] = "krum"
    hostile: int = Field(default=1, ge=0, le=4_998)

    @property
    def least_updates(self) -> int:
        """2 f + 3."""
        return 2 * self.hostile + 3


class MultiKrum(_Strategy):
    """The mean of the ``keep`` updates of the best Krum scores: Blanchard et al. 2017, section 5.

    ``keep`` goes from 1 to n - f of n updates, and is n - f - 2 if it is left open, the most
    of Damaskinos et al. 2019, "AggregaThor". All sites weigh the same.
    """

    sees_single_updates: ClassVar[bool] = True
    name: Literal["multi_krum"] = "multi_krum"
    hostile: int = Field(default=1, ge=0, le=4_998)
    keep: int | None = Field(default=None, ge=1, le=10_000)

    @property
    def least_updates(self) -> int:
        """2 f + 3, and enough to keep ``keep`` besides f."""
        return max(2 * self.hostile + 3, (self.keep or 1) + self.hostile)


_KINDS: dict[str, type[_Strategy]] = {
    kind.model_fields["name"].default: kind
    for kind in (
        FedAvg, FedProx, FedAvgM, FedAdam, FedYogi, Scaffold, Median, TrimmedMean, Krum, MultiKrum
    )
}  # fmt: skip

#: The canonical spellings.
STRATEGY_NAMES: tuple[str, ...] = tuple(_KINDS)

# Other libraries' and papers' names for the same things, without case, blanks, - and _.
_SYNONYMS = {
    "federatedaveraging": "fedavg",
    "federatedaverage": "fedavg",
    "average": "fedavg",
    "mean": "fedavg",
    "federatedproximal": "fedprox",
    "federatedprox": "fedprox",
    "fedavgmomentum": "fedavgm",
    "federatedaveragingmomentum": "fedavgm",
    "fedmedian": "median",
    "coordinatemedian": "median",
    "coordinatewisemedian": "median",
    "fedtrimmedavg": "trimmed_mean",
    "trimmedaverage": "trimmed_mean",
    "coordinatewisetrimmedmean": "trimmed_mean",
}
_FOLDED = {**{name.replace("_", ""): name for name in _KINDS}, **_SYNONYMS}

_PARAMETER_SYNONYMS = {
    "proximalmu": "mu",
    "eta": "server_learning_rate",
    "serverlr": "server_learning_rate",
    "servermomentum": "momentum",
    "beta": "fraction",
    "f": "hostile",
    "numhostile": "hostile",
    "nummaliciousclients": "hostile",
    "m": "keep",
    "numclientstokeep": "keep",
}


def _folded(text: str) -> str:
    return re.sub(r"[\s_-]+", "", text).casefold()


def parse_strategy(text: str) -> AnyStrategy:
    """The strategy that a text such as ``fedavg`` or ``fedyogi:tau=0.01,beta1=0.8`` means.

    Case, blanks, ``-`` and ``_`` make no difference; ``federated_averaging`` is ``fedavg``.

    Raises:
        InvalidInputError: an unknown name or parameter, or a value out of its range.
    """
    name, _, rest = text.partition(":")
    given: dict[str, Any] = {"name": name}
    for part in filter(None, (piece.strip() for piece in rest.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key and equals and value):
            raise InvalidInputError(
                f"{part!r} of the strategy {text!r} is no key=value; write for example "
                "fedyogi:tau=0.01.",
                field="strategy",
            )
        if key in given:
            raise InvalidInputError(
                f"The strategy {text!r} gives {key} twice; give it once.", field="strategy"
            )
        given[key] = value
    return _from_mapping(given)


def as_strategy(value: str | Mapping[str, Any] | AnyStrategy) -> AnyStrategy:
    """A strategy from its text, from a mapping with ``name``, or as it is.

    Raises:
        InvalidInputError: as in ``parse_strategy``.
    """
    if isinstance(value, str):
        return parse_strategy(value)
    if isinstance(value, Mapping):
        return _from_mapping(dict(value))
    return value


def strategy_text(strategy: AnyStrategy) -> str:
    """The text that ``parse_strategy`` reads back: the name, and what is not the default."""
    return str(strategy)


def _from_mapping(given: dict[str, Any]) -> AnyStrategy:
    kind = _kind(str(given.pop("name", "")))
    name = kind.model_fields["name"].default
    allowed = [key for key in kind.model_fields if key != "name"]
    values: dict[str, Any] = {}
    for key, value in given.items():
        known = _parameter(key, allowed)
        if known is None:
            raise _unknown_parameter(key, name, allowed)
        if known in values:
            raise InvalidInputError(
                f"{key!r} gives {known} of {name} a second time; give it once.", field=key
            )
        values[known] = value
    try:
        return _ADAPTER.validate_python({"name": name, **values})
    except ValidationError as error:
        raise _out_of_range(error.errors()[0], kind) from error


def _kind(written: str) -> type[_Strategy]:
    known = _FOLDED.get(_folded(written))
    if known is not None:
        return _KINDS[known]
    found = [_FOLDED[close] for close in nearest(_folded(written), _FOLDED)]
    close = list(dict.fromkeys(found))
    hint = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(_KINDS)}."
    raise InvalidInputError(
        f"There is no strategy {written.strip()!r}; {hint}", field="strategy", choices=close
    )


def _parameter(written: str, allowed: list[str]) -> str | None:
    folded = _folded(written)
    for name in allowed:
        if folded == _folded(name) or _PARAMETER_SYNONYMS.get(folded) == name:
            return name
    return None


def _unknown_parameter(key: str, name: str, allowed: list[str]) -> InvalidInputError:
    close = nearest(key, allowed)
    if not allowed:
        hint = "it takes none."
    elif close:
        hint = f"did you mean {close[0]!r}?"
    else:
        hint = f"it has {', '.join(allowed)}."
    return InvalidInputError(
        f"The strategy {name} has no parameter {key!r}; {hint}", field=key, choices=close
    )


def _out_of_range(error: ErrorDetails, kind: type[_Strategy]) -> InvalidInputError:
    key = str(error["loc"][-1])
    name, field = kind.model_fields["name"].default, kind.model_fields[key]
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    bounds = [
        f"{words[bound]} {getattr(rule, bound)}"
        for rule in field.metadata
        for bound in words
        if hasattr(rule, bound)
    ]
    kind_of_number = "a whole number" if field.annotation in (int, int | None) else "a number"
    usual = "it can be left out" if field.default is None else f"{field.default} is usual"
    return InvalidInputError(
        f"{key} of {name} is {error['input']!r:.40}, but must be {kind_of_number}, "
        f"{' and '.join(bounds)}; {usual}.",
        field=key,
    )


def _spelled_out(value: object) -> object:
    # A plan may name its strategy only, as older plans do.
    return parse_strategy(value) if isinstance(value, str) else value


AnyStrategy: TypeAlias = (
    FedAvg
    | FedProx
    | FedAvgM
    | FedAdam
    | FedYogi
    | Scaffold
    | Median
    | TrimmedMean
    | Krum
    | MultiKrum
)

#: As a field of a schema: an object with ``name``, or the text of ``parse_strategy``.
Strategy = Annotated[AnyStrategy, Field(discriminator="name"), BeforeValidator(_spelled_out)]

_ADAPTER: TypeAdapter[AnyStrategy] = TypeAdapter(Strategy)
