"""Bodies on the wire: strict JSON out, digests both ways."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any

from pydantic import BaseModel

from truststram_lab.exceptions import InvalidInputError

from .calls import Response

__all__ = ["content_digest", "is_intact", "json_bytes"]


def content_digest(body: bytes) -> str:
    """The ``Content-Digest`` header of a body (RFC 9530, section 2)."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode('ascii')}:"


def is_intact(response: Response) -> bool:
    """Whether the body is what its ``Content-Digest`` says; True without one."""
    for part in response.headers.get("content-digest", "").split(","):
        name, _, value = part.strip().partition("=")
        if name.lower() == "sha-256":
            try:
                expected = base64.b64decode(value.strip(":"), validate=True)
            except binascii.Error:
                return False
            return expected == hashlib.sha256(response.body).digest()
    return True


def json_bytes(model: BaseModel) -> bytes:
    """A request body as strict JSON; numpy scalars become plain numbers.

    Raises:
        InvalidInputError: NaN, Infinity or a value without a JSON form; ``field`` says where.
    """
    plain = model.model_dump()
    try:
        text = json.dumps(plain, allow_nan=False, default=_scalar, ensure_ascii=False)
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInputError("A text in the request is not valid Unicode.") from error
    except (TypeError, ValueError) as error:
        where, value = _culprit(plain, "")
        raise InvalidInputError(
            f"{where}={value} cannot be sent as JSON; use a finite number, a text, "
            "True, False, or None for a missing value.",
            field=where,
        ) from error


def _scalar(value: Any) -> Any:
    # numpy and pandas scalars know their plain twin; anything else has none.
    item = getattr(value, "item", None)
    if callable(item):
        return item()
    raise TypeError(type(value).__name__)


def _culprit(value: Any, where: str) -> tuple[str, str]:
    """The first value that JSON cannot carry, and its place."""
    if isinstance(value, dict):
        items = [(f"{where}.{name}" if where else str(name), v) for name, v in value.items()]
    elif isinstance(value, list | tuple):
        items = [(f"{where}[{index}]", v) for index, v in enumerate(value)]
    else:
        return where, repr(value)[:60]
    for place, inner in items:
        try:
            json.dumps(inner, allow_nan=False, default=_scalar)
        except (TypeError, ValueError):
            return _culprit(inner, place)
    return where, type(value).__name__
