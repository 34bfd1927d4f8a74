"""Models, versions, and files by content."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Path, Query, Request, Response, status
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from truststram_lab.exceptions import NotFoundError, PayloadTooLargeError
from truststram_lab.schemas.base import Page
from truststram_lab.schemas.registry import (
    CreateModel,
    CreateVersion,
    Model,
    ModelVersion,
    RegisterArtifact,
    SetAlias,
    Upload,
)
from truststram_lab.server.deps import Caller, Platform, Services, receive_into
from truststram_lab.server.http import content_digest
from truststram_lab.server.services.accounts import Principal

from .paging import Cursor, Limit, Search

__all__ = ["router", "send_file"]

router = APIRouter(prefix="/api/v1", tags=["registry"])

OCTETS = "application/octet-stream"

Sha256Path = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]

#: the largest part of a file that comes in parts; it is held in memory
PART_LIMIT_BYTES = 16 * 2**20

#: a larger file is sent in pieces of this size
_PIECE_BYTES = 2**20


@router.put("/blobs/{sha256}", status_code=status.HTTP_201_CREATED)
async def put_blob(
    sha256: Sha256Path, request: Request, platform: Platform, caller: Caller
) -> Response:
    """Store the body under its SHA-256; 200 if it was stored before."""
    with await run_in_threadpool(platform.blobs.writer, caller.organisation_id) as writer:
        await receive_into(writer, request)
        created = await run_in_threadpool(
            platform.registry.keep, caller.organisation_id, writer, sha256
        )
        size_bytes = writer.size_bytes
    return JSONResponse(
        {"sha256": sha256, "size_bytes": size_bytes},
        status.HTTP_201_CREATED if created else status.HTTP_200_OK,
    )


@router.get("/blobs/{sha256}", response_class=Response)
def get_blob(sha256: Sha256Path, platform: Platform, caller: Caller) -> Response:
    """The stored file of that content."""
    return send_file(platform, caller, sha256)


@router.get("/uploads/{sha256}")
def get_upload(
    sha256: Sha256Path, size_bytes: Annotated[int, Query(gt=0)], platform: Platform, caller: Caller
) -> Upload:
    """How much of the file with that content is here."""
    return platform.uploads.state(caller.organisation_id, sha256, size_bytes)


@router.put("/uploads/{sha256}")
async def put_upload(
    sha256: Sha256Path,
    size_bytes: Annotated[int, Query(gt=0)],
    offset: Annotated[int, Query(ge=0)],
    request: Request,
    platform: Platform,
    caller: Caller,
) -> Upload:
    """Append the body at ``offset``; with the last part the file is checked and stored."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > PART_LIMIT_BYTES:
            raise PayloadTooLargeError(
                f"A part of a file may have {PART_LIMIT_BYTES:,} bytes; send it in smaller ones."
            )
    return await run_in_threadpool(
        platform.uploads.append, caller.organisation_id, sha256, size_bytes, offset, bytes(body)
    )


@router.get("/models")
def list_models(
    platform: Platform,
    caller: Caller,
    limit: Limit = 50,
    cursor: Cursor = None,
    search: Search = None,
) -> Page[Model]:
    """The models, newest first."""
    return platform.registry.list_models(
        caller.organisation_id, limit=limit, cursor=cursor, search=search
    )


@router.post("/models", status_code=status.HTTP_201_CREATED)
def create_model(body: CreateModel, platform: Platform, caller: Caller) -> Model:
    """A new line of versions; 409 if the name is taken."""
    return platform.registry.create_model(caller.organisation_id, body)


@router.get("/models/{ref}")
def get_model(ref: str, platform: Platform, caller: Caller) -> Model:
    """The model that ``ref`` names: its name or id, also with a version or an alias."""
    return platform.registry.get_model(caller.organisation_id, ref)


@router.delete("/models/{ref}", status_code=status.HTTP_204_NO_CONTENT)
def delete_model(ref: str, platform: Platform, caller: Caller) -> None:
    """Remove the model with its versions; 409 while it is deployed or trained."""
    platform.registry.delete_model(caller.organisation_id, ref)


@router.get("/models/{ref}/versions")
def list_versions(
    ref: str, platform: Platform, caller: Caller, limit: Limit = 50, cursor: Cursor = None
) -> Page[ModelVersion]:
    """The model's versions, newest first."""
    return platform.registry.list_versions(caller.organisation_id, ref, limit=limit, cursor=cursor)


@router.post("/models/{ref}/versions", status_code=status.HTTP_201_CREATED)
def create_version(
    ref: str, body: CreateVersion, platform: Platform, caller: Caller
) -> ModelVersion:
    """Register uploaded weights as the next version."""
    return platform.registry.create_version(caller.organisation_id, ref, body)


@router.post("/models/{ref}/artifacts", status_code=status.HTTP_201_CREATED)
def register_artifact(
    ref: str, body: RegisterArtifact, platform: Platform, caller: Caller
) -> ModelVersion:
    """Register an uploaded estimator as the next version, kept without code."""
    return platform.artifacts.register(caller.organisation_id, ref, body)


@router.get("/models/{ref}/versions/{which}")
def get_version(ref: str, which: str, platform: Platform, caller: Caller) -> ModelVersion:
    """The version ``which``: a number, a label, ``latest``, ``deployed`` or ``@alias``."""
    return platform.registry.get_version(caller.organisation_id, ref, which)


@router.get("/models/{ref}/versions/{which}/download", response_class=Response)
def download(ref: str, which: str, platform: Platform, caller: Caller) -> Response:
    """The version's weights as safetensors."""
    version = platform.registry.get_version(caller.organisation_id, ref, which)
    return send_file(platform, caller, version.weights_sha256)


@router.put("/models/{ref}/aliases/{name}")
def set_alias(ref: str, name: str, body: SetAlias, platform: Platform, caller: Caller) -> Model:
    """Let ``name`` be an alias of that version; the same again changes nothing."""
    return platform.registry.set_alias(caller, ref, name, body)


@router.delete("/models/{ref}/aliases/{name}")
def delete_alias(ref: str, name: str, platform: Platform, caller: Caller) -> Model:
    """Take the alias away; the version that it named stays."""
    return platform.registry.delete_alias(caller, ref, name)


def send_file(platform: Services, caller: Principal, sha256: str) -> Response:
    """A stored file as an answer, with its digest (RFC 9530)."""
    blob = platform.registry.file(caller.organisation_id, sha256)
    if blob is None:
        raise NotFoundError(
            f"No file with SHA-256 {sha256} is stored; upload it first.", name=sha256
        )
    headers = {"Content-Digest": content_digest(sha256), "ETag": f'"{sha256}"'}
    if blob.size_bytes <= _PIECE_BYTES:
        content = platform.blobs.read(caller.organisation_id, sha256)
        return Response(content, 200, headers, OCTETS)
    headers["Content-Length"] = str(blob.size_bytes)
    file = platform.blobs.open(caller.organisation_id, sha256)
    return StreamingResponse(_pieces(file), 200, headers, OCTETS)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE_BYTES):
            yield piece
