"""Simulations: what a host does for many virtual clients, and what was measured of them."""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal

from pydantic import Field, PlainSerializer, WithJsonSchema

from ..exceptions import InvalidInputError, nearest
from .base import Schema
from .personal import WrittenPersonal
from .strategies import FedAvg, Strategy, strategy_text

__all__ = [
    "Attack",
    "ClientsReport",
    "Failures",
    "Hosted",
    "Hostile",
    "Quantiles",
    "hostile_text",
    "parse_hostile",
]

Attack = Literal["label_flip", "sign_flip", "scale"]
_ATTACKS: tuple[Attack, ...] = ("label_flip", "sign_flip", "scale")


class Hostile(Schema):
    """Sites that send something else than honest training; the same ones in all rounds.

    ``label_flip`` trains on labels counted from the other end, ``sign_flip`` sends its update
    times -1 (or minus ``factor``), ``scale`` sends it times ``factor``.
    """

    share: float = Field(ge=0, le=1)
    attack: Attack = "sign_flip"
    factor: float = Field(default=1.0, allow_inf_nan=False)


class Failures(Schema):
    """What goes wrong, by chance that the run's seed decides.

    Attributes:
        drop: chance of each site of a round to send nothing.
        stragglers: chance of each site of a round to do only part of its epochs: from one to
            all but one, each as likely. With one epoch a round it sends nothing in time.
        hostile: which sites attack, and how.
    """

    drop: float = Field(default=0.0, ge=0, lt=1)
    stragglers: float = Field(default=0.0, ge=0, le=1)
    hostile: Hostile | None = None

    @property
    def any(self) -> bool:
        """Whether something goes wrong at all."""
        return bool(self.drop or self.stragglers or self.hostile)


class Hosted(Schema):
    """What one host does for its virtual clients in every round, before it pushes once.

    Attributes:
        strategy: how it makes one update of theirs; the platform takes that as it is.
        fraction: share of the clients that each round asks, drawn by the run's seed.
        personal: the clients' own models beside the federation's; they never leave.
        backend: how they are trained, and ``chunk``, how many at once: part of the record,
            because they decide the last bits.
    """

    clients: int = Field(ge=1, le=100_000)
    strategy: Annotated[
        Strategy,
        PlainSerializer(strategy_text, return_type=str),
        WithJsonSchema({"type": "string", "examples": ["fedavg", "scaffold"]}),
    ] = Field(default_factory=FedAvg)
    fraction: float = Field(default=1.0, gt=0, le=1)
    failures: Failures = Failures()
    personal: WrittenPersonal | None = None
    backend: str = "loop"
    chunk: int = Field(default=1, ge=1)
    why: str = ""


class Quantiles(Schema):
    """The least, the quartiles and the greatest of one number a client."""

    least: float
    low: float
    middle: float
    high: float
    greatest: float
    mean: float


class ClientsReport(Schema):
    """Virtual clients, as few numbers: a card has no room for a thousand lines.

    Attributes:
        rows: of a client; ``classes`` present at a client.
        alone: accuracy on all held-out rows of each client's own model.
        local, federated, personal: accuracy on the held-out rows, weighted to each client's
            own mix of classes: of its model trained alone, of the federation's, and of its own
            beside that one.
        losing: the clients that would do better alone, worst first: name, alone, federated.
        lost: how many they are.
        lost_personal: how many would do better alone than with their own model.
        table_sha256: a file of one line a client: rows, and these accuracies.
    """

    rows: Quantiles | None = None
    classes: Quantiles | None = None
    alone: Quantiles | None = None
    local: Quantiles | None = None
    federated: Quantiles | None = None
    losing: list[tuple[str, float, float]] = Field(default_factory=list)
    lost: int = 0
    personal: Quantiles | None = None
    lost_personal: int | None = None
    table_sha256: str | None = None


def parse_hostile(text: str) -> Hostile:
    """Which sites are hostile, and how: ``0.2:label_flip``, ``0.1:scale=10``, ``0.3``.

    Raises:
        InvalidInputError: no share in [0, 1], or no such attack; the nearest is in the sentence.
    """
    share, _, rest = text.partition(":")
    attack, equals, factor = (part.strip() for part in (rest or "sign_flip").partition("="))
    known = re.sub(r"[\s-]", "_", attack.casefold())
    if known not in _ATTACKS:
        close = nearest(known, _ATTACKS, most=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(_ATTACKS)}."
        raise InvalidInputError(
            f"{attack!r} is no attack; {hint}", field="hostile", choices=list(_ATTACKS)
        )
    portion, times = _number(share), _number(factor) if equals else 1.0
    if known == "scale" and not equals:
        times = 10.0
    if not 0 <= portion <= 1 or not math.isfinite(times) or (known == "label_flip" and equals):
        raise InvalidInputError(
            f"{text!r} says no share of hostile sites; write for example 0.2:sign_flip, "
            "0.2:label_flip or 0.2:scale=10, with a share from 0 to 1.",
            field="hostile",
        )
    found = next(name for name in _ATTACKS if name == known)
    return Hostile(share=portion, attack=found, factor=times)


def hostile_text(hostile: Hostile) -> str:
    """The text that ``parse_hostile`` reads back."""
    usual = 10.0 if hostile.attack == "scale" else 1.0
    factor = "" if hostile.factor == usual else f"={hostile.factor:g}"
    return f"{hostile.share:g}:{hostile.attack}{factor}"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
