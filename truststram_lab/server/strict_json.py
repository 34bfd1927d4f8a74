"""JSON as RFC 8259 means it: one value a key, and numbers that are numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from truststram_lab.exceptions import InvalidInputError

__all__ = ["loads", "validation_problem"]


def loads(body: bytes) -> Any:
    """The value of a JSON text.

    Raises:
        InvalidInputError: it does not parse, repeats a key, or has NaN, Infinity, a number
            beyond float64, or half of a surrogate pair; ``field`` is the repeated key.
    """
    try:
        value = json.loads(
            body,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
        if b"\\ud" in body.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except InvalidInputError:
        raise
    except RecursionError as error:
        raise InvalidInputError("The body is nested too deeply for a JSON request.") from error
    except UnicodeError as error:
        raise InvalidInputError("The body is not valid Unicode text in UTF-8.") from error
    except json.JSONDecodeError as error:
        raise InvalidInputError(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from error
    except ValueError as error:  # an integer of thousands of digits
        raise InvalidInputError("The body has a number with too many digits.") from error
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise InvalidInputError(
                    f"The body has the key {key!r} twice; send it once.", field=key
                )
            seen.add(key)
    return found


def _no_constant(name: str) -> float:
    raise InvalidInputError(f"{name} is not a JSON number; send null or leave the key out.")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise InvalidInputError(f"{text[:40]} is beyond the largest number a float64 can hold.")
    return number


def validation_problem(errors: Sequence[Any]) -> InvalidInputError:
    """The first of pydantic's complaints as one sentence that names the field."""
    first = errors[0]
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    field = ".".join(place)
    fact = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
    others = f" ({len(errors) - 1} more after this one)" if len(errors) > 1 else ""
    where = f"{field}: " if field else "The request: "
    return InvalidInputError(f"{where}{fact[:1].lower()}{fact[1:]}{others}.", field=field or None)
