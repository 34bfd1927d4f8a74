"""What all wire types share."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict

T = TypeVar("T")

#: The wire protocol. It grows only by addition; a client refuses another number.
PROTOCOL = 1


class Schema(BaseModel):
    """A reply: immutable; unknown fields of a newer platform are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class Request(BaseModel):
    """A request body: immutable; an unknown field is an error, because it is a typo."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Page(Schema, Generic[T]):
    """One page of a listing; ``next_cursor`` is None on the last."""

    items: list[T]
    next_cursor: str | None = None


class Health(Schema):
    """What ``GET /health`` answers without credentials."""

    status: str
    version: str
    protocol: int
    instance: str


class Event(Schema):
    """One entry of a stream: ``sequence`` starts at 1 and has no gaps."""

    stream: str
    sequence: int
    type: str
    data: dict[str, object]
    created_at: str
