"""Deployments, and the fast path of predictions.

``router`` has the deployments; ``routes`` the raw route, which costs half of what a
validated one does.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from truststram_lab.schemas.base import Page
from truststram_lab.schemas.serving import (
    CreateDeployment,
    Deployment,
    PredictRequest,
    PredictResponse,
)
from truststram_lab.server import strict_json
from truststram_lab.server.deps import Caller, Platform, caller, services, validation_problem
from truststram_lab.server.services.serving import ServingService

from .paging import Cursor, Limit, Search

__all__ = ["router", "routes"]

#: A body of up to so many bytes is parsed in the event loop, in well under a millisecond.
_LIGHT_BYTES = 16_384

router = APIRouter(prefix="/api/v1", tags=["serving"])


@router.get("/deployments")
def list_deployments(
    request: Request,
    platform: Platform,
    principal: Caller,
    limit: Limit = 50,
    cursor: Cursor = None,
    search: Search = None,
) -> Page[Deployment]:
    """The endpoints, newest first."""
    page = platform.serving.list_deployments(
        principal.organisation_id, limit=limit, cursor=cursor, search=search
    )
    return page.model_copy(update={"items": [_reachable(one, request) for one in page.items]})


@router.post("/deployments", status_code=201)
def deploy(
    request: Request, platform: Platform, principal: Caller, body: CreateDeployment
) -> Deployment:
    """Point the model's endpoint at a version."""
    return _reachable(platform.serving.deploy(principal.organisation_id, body), request)


@router.get("/deployments/{name}")
def get_deployment(
    request: Request, platform: Platform, principal: Caller, name: str
) -> Deployment:
    """The endpoint of that name."""
    found = platform.serving.get_deployment(principal.organisation_id, name)
    return _reachable(found, request)


def _reachable(deployment: Deployment, request: Request) -> Deployment:
    """With the whole address, as this caller reaches the platform."""
    base = str(request.base_url).rstrip("/")
    return deployment.model_copy(update={"endpoint_url": f"{base}{deployment.endpoint_url}"})


async def predict(request: Request) -> Response:
    """One prediction a row; ``ref`` is an endpoint's name, ``name:version`` or ``name@alias``."""
    serving, organisation_id = services(request).serving, caller(request).organisation_id
    ref, body = request.path_params["ref"], await request.body()
    answer: bytes | None = None
    if len(body) <= _LIGHT_BYTES:
        asked = _parsed(body)
        if serving.is_light(organisation_id, ref, asked):
            pending = serving.begin(organisation_id, ref, asked)
            found = await asyncio.wrap_future(pending.future)
            answer = _written(PredictResponse(predictions=pending.predictions(found)))
    if answer is None:
        answer = await run_in_threadpool(_predicted, serving, organisation_id, ref, body)
    return Response(answer, media_type="application/json")


def _predicted(serving: ServingService, organisation_id: str, ref: str, body: bytes) -> bytes:
    predictions = serving.predict(organisation_id, ref, _parsed(body))
    return _written(PredictResponse(predictions=predictions))


def _parsed(body: bytes) -> PredictRequest:
    value = strict_json.loads(body)
    try:
        return PredictRequest.model_validate(value)
    except ValidationError as error:
        complaints: list[object] = list(error.errors(include_url=False))
        raise validation_problem(complaints) from error


def _written(response: PredictResponse) -> bytes:
    return response.model_dump_json().encode()


#: for the application to mount beside ``router``
routes = [Route("/api/v1/endpoints/{ref}/predict", predict, methods=["POST"], name="predict")]
