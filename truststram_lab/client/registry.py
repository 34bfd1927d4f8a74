"""Models, their versions, and blobs by content."""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import Field

from truststram_lab.exceptions import PlatformError
from truststram_lab.schemas.base import Page, Schema
from truststram_lab.schemas.registry import CreateModel, CreateVersion, Model, ModelVersion
from truststram_lab.transport import Call, Resource, call
from truststram_lab.transport.calls import D

from .refs import ModelRef, model_ref, segment

__all__ = ["Blobs", "Models"]

_TRANSFER_S = 120.0


class Models(Resource[D]):
    """``client.models``"""

    @call
    def list(
        self, *, limit: int | None = None, cursor: str | None = None, search: str | None = None
    ) -> Call[Page[Model]]:
        """One page of models, newest first; ``cursor`` is the former page's ``next_cursor``."""
        query = {"limit": limit, "cursor": cursor, "search": search}
        return Call("GET", "/api/v1/models", Page[Model], query=query)

    @call
    def get(self, model: ModelRef) -> Call[Model]:
        """A model by name or id; raises ModelNotFoundError with the nearest names."""
        return Call("GET", _path(model), Model)

    @call
    def create(
        self, name: str, *, description: str = "", framework: str = "pytorch"
    ) -> Call[Model]:
        """A new line of versions; raises ConflictError if the name is taken."""
        body = CreateModel(name=name, description=description, framework=framework)
        return Call("POST", "/api/v1/models", Model, json=body)

    @call
    def versions(
        self, model: ModelRef, *, limit: int | None = None, cursor: str | None = None
    ) -> Call[Page[ModelVersion]]:
        """The versions of a model, newest first."""
        query = {"limit": limit, "cursor": cursor}
        return Call("GET", f"{_path(model)}/versions", Page[ModelVersion], query=query)

    @call
    def version(
        self, model: ModelRef, version: int | Literal["latest", "deployed"] | str = "latest"
    ) -> Call[ModelVersion]:
        """One version by its number, or ``latest`` or ``deployed``."""
        return Call("GET", _version_path(model, version), ModelVersion)

    @call
    def create_version(self, model: ModelRef, version: CreateVersion) -> Call[ModelVersion]:
        """Register a version whose weights were uploaded with ``client.blobs.put``."""
        return Call("POST", f"{_path(model)}/versions", ModelVersion, json=version)

    @call
    def download(
        self, model: ModelRef, version: int | Literal["latest", "deployed"] | str = "latest"
    ) -> Call[bytes]:
        """The weights of a version, a safetensors file."""
        path = f"{_version_path(model, version)}/download"
        return Call("GET", path, bytes, timeout_s=_TRANSFER_S)


class Blobs(Resource[D]):
    """``client.blobs``: files by the sha256 of their content."""

    @call
    def put(self, content: bytes) -> Call[str]:
        """Upload ``content``; returns its sha256 in hexadecimal."""
        sha256 = hashlib.sha256(content).hexdigest()
        return Call(
            "PUT",
            f"/api/v1/blobs/{sha256}",
            _Stored,
            content=content,
            timeout_s=_TRANSFER_S,
            # The address is the content: a second upload changes nothing.
            idempotency_key="",
            repeatable=True,
            unwrap=lambda stored: str(stored.sha256),
        )

    @call
    def get(self, sha256: str) -> Call[bytes]:
        """The file with that sha256; raises PlatformError if other bytes arrive."""

        def verified(content: bytes) -> bytes:
            if hashlib.sha256(content).hexdigest() != sha256:
                raise PlatformError(
                    f"The platform sent other bytes than those of blob {sha256[:12]}; "
                    "its storage is damaged."
                )
            return content

        path = f"/api/v1/blobs/{segment(sha256, 'a blob')}"
        return Call("GET", path, bytes, timeout_s=_TRANSFER_S, unwrap=verified)


class _Stored(Schema):
    sha256: str
    size_bytes: int = Field(ge=0)


def _path(model: ModelRef) -> str:
    name, _, _ = model_ref(model).partition(":")
    return f"/api/v1/models/{segment(name, 'a model')}"


def _version_path(model: ModelRef, version: int | str) -> str:
    return f"{_path(model)}/versions/{segment(version, 'a version')}"
