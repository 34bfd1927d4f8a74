"""A site's own model beside the federation's: which kind, and how it is spelt."""

from __future__ import annotations

import math
from typing import Annotated, TypeAlias

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from ..exceptions import InvalidInputError, nearest
from .base import Schema

__all__ = [
    "AnyPersonal",
    "Ditto",
    "FedPer",
    "WrittenPersonal",
    "parse_personal",
    "personal_text",
]

_PARAMETER = {"ditto": "lambda", "fedper": "head"}
_EXAMPLE = {"ditto": "ditto:lambda=0.1", "fedper": "fedper:head=layers.2"}


class Ditto(Schema):
    """A second model, trained on the site's rows and pulled to the federation's.

    ``strength`` is the paper's lambda, 0 or more: 0 is a model of the site alone, and the
    larger it is, the nearer the personal model stays to the federation's.

    Li et al. 2021, "Ditto", algorithm 1. https://arxiv.org/abs/2012.04221
    """

    strength: float = Field(default=0.1, ge=0, allow_inf_nan=False)

    def __str__(self) -> str:
        return f"ditto:lambda={self.strength:g}"


class FedPer(Schema):
    """The layers named ``head`` are the site's own; it shares the others.

    Arivazhagan et al. 2019, "Federated Learning with Personalization Layers", section 3.
    https://arxiv.org/abs/1912.00818
    """

    head: list[str] = Field(min_length=1)

    def __str__(self) -> str:
        return f"fedper:head={','.join(self.head)}"


AnyPersonal: TypeAlias = Ditto | FedPer


def parse_personal(text: str | AnyPersonal) -> AnyPersonal:
    """What ``ditto``, ``ditto:lambda=0.5`` or ``fedper:head=layers.2,layers.4`` means.

    Raises:
        InvalidInputError: an unknown kind or parameter, or a lambda out of its range.
    """
    if isinstance(text, Ditto | FedPer):
        return text
    written, _, rest = text.partition(":")
    kind = written.strip().casefold()
    if kind not in _PARAMETER:
        near = nearest(kind, _PARAMETER, most=1)
        hint = f"did you mean {near[0]!r}?" if near else "it is ditto or fedper."
        raise InvalidInputError(
            f"There is no personal model of kind {written.strip()!r}; {hint}",
            field="personal",
            choices=near or [*_PARAMETER],
        )
    key, equals, value = (piece.strip() for piece in rest.partition("="))
    if rest.strip() and not (equals and value and key == _PARAMETER[kind]):
        raise InvalidInputError(
            f"{rest.strip()!r} of the personal model {text!r} is not {_PARAMETER[kind]}=VALUE; "
            f"write for example {_EXAMPLE[kind]}.",
            field="personal",
        )
    if kind == "ditto":
        return Ditto() if not value else Ditto(strength=_strength(value))
    names = [name.strip() for name in value.split(",") if name.strip()]
    if not names:
        raise InvalidInputError(
            f"Which layers does the site keep? Name them: {_EXAMPLE[kind]}.", field="personal"
        )
    return FedPer(head=names)


def _strength(value: str) -> float:
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not (math.isfinite(found) and found >= 0):
        raise InvalidInputError(
            f"lambda={value} is no strength of the pull to the federation's model; it is 0 or "
            f"more, for example {_EXAMPLE['ditto']}.",
            field="personal",
        )
    return found


def personal_text(personal: AnyPersonal) -> str:
    """The text that ``parse_personal`` reads back, to the last bit."""
    if isinstance(personal, Ditto):
        return f"ditto:lambda={personal.strength!r}"
    return str(personal)


#: Written as the text that ``parse_personal`` reads.
WrittenPersonal = Annotated[
    AnyPersonal,
    BeforeValidator(lambda given: parse_personal(given) if isinstance(given, str) else given),
    PlainSerializer(personal_text, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["ditto:lambda=0.1", "fedper:head=layers.1"]}),
]
