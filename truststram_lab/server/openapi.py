"""The OpenAPI document: what the signatures say, and what they cannot.

Raw routes (predictions, files, the event stream) and problems are described here; a test
fails when a route of the application is missing.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from truststram_lab.schemas.base import Event
from truststram_lab.schemas.serving import PredictRequest, PredictResponse

from .security import OPEN_DOORS, STANDING_DOORS

__all__ = ["document"]

_REF = "#/components/schemas/{model}"
_NAMED = re.compile(r'"#/components/schemas/([^"]+)"')
_SCHEME = "bearer"

_OCTETS = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}

#: bodies that are streamed and therefore no parameter of their function
_UPLOADS = (
    "/api/v1/uploads/{sha256}",
    "/api/v1/blobs/{sha256}",
    "/api/v1/training/rounds/{round_id}/update",
    "/api/v1/training/personalized/{name}",
)

#: answers that are a file
_DOWNLOADS = (
    "/api/v1/blobs/{sha256}",
    "/api/v1/models/{ref}/versions/{which}/download",
    "/api/v1/training/rounds/{round_id}/model",
    "/api/v1/training/personalized/{name}",
)

_STORED_BLOB = {
    "type": "object",
    "title": "StoredBlob",
    "description": "A stored file: its content's SHA-256 in hexadecimal, and its size.",
    "required": ["sha256", "size_bytes"],
    "properties": {"sha256": {"type": "string"}, "size_bytes": {"type": "integer"}},
}

_PROBLEM = {
    "type": "object",
    "title": "Problem",
    "description": "Why not (RFC 9457): ``detail`` is one sentence with the way out; the class of "
    "the error adds attributes, such as ``field`` or ``choices``.",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
    },
    "additionalProperties": True,
}


def document(seen: dict[str, Any]) -> dict[str, Any]:
    """The whole document.

    Args:
        seen: what the framework reads from the routes' signatures; it is changed and returned.
    """
    schemas: dict[str, Any] = seen["components"]["schemas"]
    schemas |= _schemas()
    paths: dict[str, Any] = seen["paths"]
    paths["/api/v1/endpoints/{ref}/predict"] = {"post": _predict()}
    paths["/api/v1/openapi.json"] = {"get": _itself()}
    _describe_files(paths)
    _describe_events(paths["/api/v1/events"]["get"])
    for path, operations in paths.items():
        for method, operation in operations.items():
            _describe_problems(operation)
            if (method.upper(), path) in OPEN_DOORS | STANDING_DOORS:
                operation["security"] = []
    _drop_unused(seen)
    seen["components"]["securitySchemes"] = {_SCHEME: {"type": "http", "scheme": "bearer"}}
    seen["security"] = [{_SCHEME: []}]
    return seen


def _drop_unused(seen: dict[str, Any]) -> None:
    """Leave out what no route speaks of: the framework's own problems, and the parts of types
    that travel as text."""
    schemas: dict[str, Any] = seen["components"]["schemas"]
    while True:
        named = set(_NAMED.findall(json.dumps(seen)))
        unused = schemas.keys() - named
        if not unused:
            return
        for name in unused:
            del schemas[name]


def _schemas() -> dict[str, Any]:
    """The schemas of the routes that the framework does not look into."""
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (PredictRequest, "validation"),
        (PredictResponse, "serialization"),
        (Event, "serialization"),
    ]
    _, found = models_json_schema(models, ref_template=_REF)
    return {**found["$defs"], "Problem": _PROBLEM, "StoredBlob": _STORED_BLOB}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REF.format(model=name)}


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": _ref(name)}}


def _predict() -> dict[str, Any]:
    return {
        "tags": ["serving"],
        "summary": "Predict",
        "description": "One prediction a row; ``ref`` is an endpoint's name, ``name:version`` or "
        "``name@alias``.",
        "operationId": "predict",
        "parameters": [
            {
                "name": "ref",
                "in": "path",
                "required": True,
                "schema": {"type": "string", "title": "Ref"},
            }
        ],
        "requestBody": {"required": True, "content": _json("PredictRequest")},
        "responses": {
            "200": {"description": "Successful Response", "content": _json("PredictResponse")}
        },
    }


def _itself() -> dict[str, Any]:
    return {
        "tags": ["health"],
        "summary": "Openapi",
        "description": "This document.",
        "operationId": "openapi",
        "responses": {
            "200": {
                "description": "Successful Response",
                "content": {"application/json": {"schema": {"type": "object"}}},
            }
        },
    }


def _describe_files(paths: dict[str, Any]) -> None:
    for path in _UPLOADS:
        paths[path]["put"]["requestBody"] = {"required": True, "content": _OCTETS}
    for path in _DOWNLOADS:
        paths[path]["get"]["responses"]["200"]["content"] = _OCTETS
    answers = paths["/api/v1/blobs/{sha256}"]["put"]["responses"]
    answers["201"] = {"description": "Stored", "content": _json("StoredBlob")}
    answers["200"] = {"description": "It was stored before", "content": _json("StoredBlob")}


def _describe_events(operation: dict[str, Any]) -> None:
    operation["responses"]["200"] = {
        "description": "Server-sent events without end: ``id`` is the event's sequence, ``event`` "
        "its type, and ``data`` the JSON described here.",
        "content": {"text/event-stream": {"schema": _ref("Event")}},
    }


def _describe_problems(operation: dict[str, Any]) -> None:
    operation["responses"].pop("422", None)
    operation["responses"]["default"] = {
        "description": "Refused, or failed",
        "content": {"application/problem+json": {"schema": _ref("Problem")}},
    }
