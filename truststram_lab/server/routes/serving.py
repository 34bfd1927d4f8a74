"""Deployments, and the fast path of predictions.

``router`` has the deployments, ``PredictDoor`` the predictions.
"""

from __future__ import annotations

import asyncio
import re
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from truststram_lab.exceptions import TrustStramException
from truststram_lab.schemas.base import Page
from truststram_lab.schemas.serving import CreateDeployment, Deployment, PredictionRecord, Traffic
from truststram_lab.server.deps import Caller, Platform, Services, caller, services
from truststram_lab.server.http import PROBLEM_TYPE, name_operation, whole_body
from truststram_lab.server.services.accounts import Principal
from truststram_lab.server.services.serving import ServingService
from truststram_lab.server.serving.interface import Answer

from .paging import Cursor, Limit, Search

__all__ = ["PredictDoor", "router", "routes"]

#: Bodies of up to so many bytes go to a worker whole, longer ones in pieces.
_WHOLE_BYTES = 2**20
_WHOLE_EXPLAINED_BYTES = 2**14

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


@router.delete("/deployments/{name}", status_code=204)
def delete_deployment(
    platform: Platform,
    principal: Caller,
    name: str,
    environment: Annotated[str | None, Query(max_length=100)] = None,
) -> None:
    """Serve it no more; of several environments the named one, or the platform's own."""
    platform.serving.delete_deployment(principal.organisation_id, name, environment)


@router.get("/deployments/{name}/traffic")
def traffic(
    platform: Platform,
    principal: Caller,
    name: str,
    seconds: Annotated[int, Query(ge=60, le=86_400)] = 3600,
) -> Traffic:
    """What the deployment was asked lately."""
    found = platform.serving.get_deployment(principal.organisation_id, name)
    return platform.prediction_log.traffic(principal.organisation_id, found.name, seconds)


@router.get("/predictions")
def list_predictions(
    platform: Platform,
    principal: Caller,
    limit: Limit = 50,
    cursor: Cursor = None,
    name: Annotated[str | None, Query(max_length=300, description="deployment or version")] = None,
) -> Page[PredictionRecord]:
    """The log of predictions, newest first."""
    return platform.prediction_log.page(
        principal.organisation_id, limit=limit, cursor=cursor, name=name
    )


@router.get("/predictions/{id}")
def get_prediction(platform: Platform, principal: Caller, id: str) -> PredictionRecord:
    """One entry of the log."""
    return platform.prediction_log.get(principal.organisation_id, id)


def _reachable(deployment: Deployment, request: Request) -> Deployment:
    """With the whole address, as this caller reaches the platform."""
    base = str(request.base_url).rstrip("/")
    return deployment.model_copy(update={"endpoint_url": f"{base}{deployment.endpoint_url}"})


_PREDICT = re.compile(r"/api/v1/endpoints/([^/]+)/predict")


class PredictDoor:
    """Answers predictions before the framework looks at them, which costs as much as they do.

    A layer under the guard: who comes here was let in.
    """

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._serving = services.serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        asked = scope["type"] == "http" and scope["method"] == "POST"
        found = _PREDICT.fullmatch(scope["path"]) if asked else None
        if found is None:
            await self._app(scope, receive, send)
            return
        name_operation(scope, "predict")
        body = await whole_body(receive)
        answer = await _predicted(self._serving, scope["state"]["principal"], found[1], body)
        kind = b"application/json" if answer.status == 200 else PROBLEM_TYPE.encode()
        headers = [(b"content-length", b"%d" % len(answer.body)), (b"content-type", kind)]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})


async def predict(request: Request) -> Response:
    """One prediction a row; ``ref`` is an endpoint's name, ``name:version`` or ``name@alias``."""
    who, ref = caller(request), request.path_params["ref"]
    answer = await _predicted(services(request).serving, who, ref, await request.body())
    kind = "application/json" if answer.status == 200 else PROBLEM_TYPE
    return Response(answer.body, answer.status, media_type=kind)


async def _predicted(serving: ServingService, who: Principal, ref: str, body: bytes) -> Answer:
    limit = _WHOLE_EXPLAINED_BYTES if b'"explain"' in body else _WHOLE_BYTES
    if len(body) > limit:
        return await run_in_threadpool(serving.answer, who, ref, body)
    if not serving.is_known(who.organisation_id, ref):
        await run_in_threadpool(serving.know, who.organisation_id, ref)
    pending = serving.begin(who, ref, body)
    try:
        answer = await asyncio.wrap_future(pending.future)
    except TrustStramException as error:
        serving.finish(pending, error)
        raise
    serving.finish(pending, answer)
    return answer


#: described for the application; ``PredictDoor`` answers them
routes = [Route("/api/v1/endpoints/{ref}/predict", predict, methods=["POST"], name="predict")]
