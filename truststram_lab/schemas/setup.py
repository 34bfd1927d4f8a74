"""The first administrator of a standing platform, and whether it is ready."""

from __future__ import annotations

from pydantic import Field

from .accounts import Identity
from .base import Request, Schema

__all__ = ["Administrator", "Readiness", "SetUp"]


class SetUp(Request):
    """Become the first administrator with the token that the platform's terminal shows."""

    token: str = Field(min_length=1, max_length=200, repr=False)
    name: str = Field(min_length=1, max_length=100, pattern=r"^\S(?:[^\x00-\x1f\x7f]*\S)?$")


class Administrator(Schema):
    """The new owner; the key is shown this once, the platform keeps only its SHA-256."""

    identity: Identity
    api_key: str = Field(repr=False)


class Readiness(Schema):
    """What ``GET /ready`` answers when everything that the platform stands on works."""

    status: str
    database: str
    migrations: str
    files: str
