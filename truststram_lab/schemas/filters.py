"""What is done to an update before it leaves, in the order of a list, and the record of it.

Each filter has one spelling on the wire (``sigma``, ``top_k``); the clients' other spelling
(``stddev``, ``top_k_percent``) is understood. A typo in a privacy pipeline would mean no
privacy, so whatever is not understood is an error with the nearest name, never skipped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from numbers import Integral, Real
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag, TypeAdapter, ValidationError, model_validator

from ..exceptions import InvalidInputError, nearest
from .base import Request, Schema

__all__ = [
    "Filter",
    "FilterNote",
    "FilterStep",
    "GaussianNoise",
    "GradientClip",
    "NormValidation",
    "Quantization",
    "SentField",
    "Sparsification",
    "parse_filters",
]


class _Filter(Request):
    """What all filters share: both spellings, and numbers that are numbers."""

    #: other spelling -> (own spelling, power of ten between them)
    spellings: ClassVar[Mapping[str, tuple[str, int]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _understood(cls, found: Any) -> Any:
        if not isinstance(found, Mapping):
            return found
        kind = cls.model_fields["type"].default
        values: dict[str, Any] = {}
        for key, value in found.items():
            own, shift = cls.spellings.get(key, (key, 0))
            if own not in cls.model_fields:
                raise _unknown_key(kind, str(key), [*cls.model_fields, *cls.spellings])
            value = _plain_number(value)
            if shift and type(value) in (int, float) and math.isfinite(value):
                # In decimals: 0.7 percent is 0.007, which binary division misses.
                value = float(Decimal(repr(value)).scaleb(shift))
            if own in values and values[own] != value:
                other = next(name for name, (to, _) in cls.spellings.items() if to == own)
                raise InvalidInputError(
                    f"Filter {kind!r} has {own!r} and {other!r}, which differ "
                    f"({found[own]!r} and {found[other]!r}); give one of them.",
                    field=own,
                )
            values[own] = value
        return values


class GradientClip(_Filter):
    """Scale the update so that its L2 norm is at most ``max_norm``.

    One norm over all floats, which bounds what one participant can change; ``per_tensor``
    clips every array by itself, which bounds only the norm of each.
    """

    type: Literal["gradient_clip"] = "gradient_clip"
    max_norm: float = Field(
        default=1.0, gt=0, allow_inf_nan=False, strict=True, description="a positive number"
    )
    per_tensor: bool = Field(default=False, strict=True, description="true or false")


class GaussianNoise(_Filter):
    """Add N(0, ``sigma`` squared) to every float, drawn by a cryptographic generator."""

    spellings = {"stddev": ("sigma", 0)}  # noqa: RUF012 - declared as ClassVar by the parent
    type: Literal["gaussian_noise"] = "gaussian_noise"
    sigma: float = Field(
        default=0.01, gt=0, allow_inf_nan=False, strict=True, description="a positive number"
    )


class NormValidation(_Filter):
    """Reject an update whose L2 norm, before noise, is over ``max_norm``, or not finite."""

    type: Literal["norm_validation"] = "norm_validation"
    max_norm: float = Field(
        default=10.0, gt=0, allow_inf_nan=False, strict=True, description="a positive number"
    )


class Sparsification(_Filter):
    """Keep the share ``top_k`` of each array's coordinates, largest first; clear the rest."""

    spellings = {"top_k_percent": ("top_k", -2)}  # noqa: RUF012 - as above
    type: Literal["sparsification"] = "sparsification"
    top_k: float = Field(
        default=0.1,
        gt=0,
        le=1,
        strict=True,
        description="a share over 0 and up to 1; 10 percent is top_k 0.1 or top_k_percent 10",
    )


class Quantization(_Filter):
    """Round each array to the nearest of the levels that ``bits`` can name."""

    type: Literal["quantization"] = "quantization"
    bits: int = Field(default=8, ge=1, le=32, strict=True, description="a whole number, 1 to 32")


_KINDS: dict[str, type[_Filter]] = {
    kind.model_fields["type"].default: kind
    for kind in (GradientClip, GaussianNoise, NormValidation, Sparsification, Quantization)
}


def _kind(found: Any) -> str:
    kind = found.get("type") if isinstance(found, Mapping) else getattr(found, "type", None)
    if isinstance(kind, str) and kind in _KINDS:
        return kind
    if kind is None:
        raise InvalidInputError(
            f"A filter needs a type; it is one of {', '.join(_KINDS)}.",
            field="type",
            choices=list(_KINDS),
        )
    close = nearest(str(kind), _KINDS, most=1)
    hint = f"did you mean {close[0]!r}? It" if close else "it"
    raise InvalidInputError(
        f"{str(kind)[:60]!r} is no filter; {hint} is one of {', '.join(_KINDS)}.",
        field="type",
        choices=close or list(_KINDS),
    )


def _unknown_key(kind: str, key: str, known: list[str]) -> InvalidInputError:
    known = [name for name in known if name != "type"]
    close = nearest(key, known, most=1)
    hint = f"did you mean {close[0]!r}? It" if close else "it"
    return InvalidInputError(
        f"Filter {kind!r} has no {key[:60]!r}; {hint} takes {', '.join(known)}.",
        field=key[:60],
        choices=close or known,
    )


def _plain_number(value: Any) -> Any:
    """numpy's numbers as Python's own; anything else, and booleans, as they are."""
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


Filter: TypeAlias = Annotated[
    Annotated[GradientClip, Tag("gradient_clip")]
    | Annotated[GaussianNoise, Tag("gaussian_noise")]
    | Annotated[NormValidation, Tag("norm_validation")]
    | Annotated[Sparsification, Tag("sparsification")]
    | Annotated[Quantization, Tag("quantization")],
    Discriminator(_kind),
]

_FILTER: TypeAdapter[Filter] = TypeAdapter(Filter)


def parse_filters(filters: Iterable[Filter | Mapping[str, Any]]) -> tuple[Filter, ...]:
    """The filters of a list of models or of mappings such as ``{"type": "gradient_clip"}``.

    Raises:
        InvalidInputError: an unknown type or key, two spellings that differ, or a value out
            of range; ``field`` is its place, such as ``filters[1].sigma``.
    """
    if isinstance(filters, str | bytes | Mapping) or not isinstance(filters, Iterable):
        raise InvalidInputError(
            "filters is no list; write [{'type': 'gradient_clip', 'max_norm': 1.0}, ...].",
            field="filters",
        )
    return tuple(_parse(found, f"filters[{place}]") for place, found in enumerate(filters))


def _parse(found: Any, where: str) -> Filter:
    if isinstance(
        found, GradientClip | GaussianNoise | NormValidation | Sparsification | Quantization
    ):
        return found
    if not isinstance(found, Mapping):
        raise InvalidInputError(
            f"{where} is a {type(found).__name__}, no filter; write a mapping such as "
            "{'type': 'gradient_clip', 'max_norm': 1.0}.",
            field=where,
        )
    try:
        return _FILTER.validate_python(dict(found))
    except InvalidInputError as error:
        raise _placed(error, where) from None
    except ValidationError as error:
        raise _placed(_first(error, found), where) from error


def _placed(error: InvalidInputError, where: str) -> InvalidInputError:
    return InvalidInputError(
        f"{where}: {error.message}", field=f"{where}.{error.field}", choices=error.choices
    )


def _first(error: ValidationError, found: Mapping[str, Any]) -> InvalidInputError:
    first = error.errors(include_url=False)[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InvalidInputError):
        return cause
    kind = _KINDS[found["type"]]
    key = str(first["loc"][-1])
    field = kind.model_fields[key]
    written = next((k for k, (own, _) in kind.spellings.items() if own == key and k in found), key)
    return InvalidInputError(
        f"{written} of {found['type']!r} is {repr(found.get(written))[:60]}; give "
        f"{field.description} (the default is {field.default}).",
        field=written,
    )


class FilterNote(Schema):
    """What the order of the filters means that their names do not say."""

    code: str
    text: str


class FilterStep(Schema):
    """One filter's line in the audit trail: the update before it and after it.

    Norms are L2 over all floats; ``kept`` counts the coordinates that may be other than
    zero; bytes are those of the arrays' own encoding, without the file's header.
    """

    filter: Filter
    norm_before: float
    norm_after: float
    coordinates: int
    kept: int
    bytes_before: int
    bytes_after: int


class SentField(Schema):
    """One array's line in the ledger of what left: ``bytes_before`` is the plain array."""

    name: str
    form: Literal["dense", "sparse", "quantised", "sparse quantised"]
    coordinates: int
    kept: int
    bytes_before: int
    bytes_after: int
