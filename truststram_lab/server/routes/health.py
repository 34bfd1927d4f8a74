"""Is a platform here, which one, can it work, and what has it done."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from truststram_lab.schemas.base import PROTOCOL, Health
from truststram_lab.schemas.setup import Readiness
from truststram_lab.server.deps import Platform
from truststram_lab.server.lifecycle import ReadinessProbe
from truststram_lab.server.metrics import CONTENT_TYPE

__all__ = ["readiness", "router"]

router = APIRouter(tags=["health"])

#: mounted on a standing platform only: nobody routes traffic to a sandbox
readiness = APIRouter(tags=["health"])


@router.get("/health")
async def health(platform: Platform) -> Health:
    """Whether the platform answers, and which version and protocol it speaks."""
    return Health(
        status="ok",
        version=platform.settings.version,
        protocol=PROTOCOL,
        instance=platform.settings.instance,
    )


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(platform: Platform) -> Response:
    """What the process has done and holds, in Prometheus' text format; for administrators."""
    return Response(platform.metrics.text(), media_type=CONTENT_TYPE)


@readiness.get("/ready")
async def ready(request: Request) -> Readiness:
    """Whether database, migrations and file store work; 503 says which does not."""
    probe: ReadinessProbe = request.app.state.readiness
    return await run_in_threadpool(probe.check)
