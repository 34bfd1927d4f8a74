"""The one door without a lock: is a platform here, and which one."""

from __future__ import annotations

from fastapi import APIRouter

from truststram_lab.schemas.base import PROTOCOL, Health
from truststram_lab.server.deps import Platform

router = APIRouter(tags=["health"])


@router.get("/health")
async def health(platform: Platform) -> Health:
    """Whether the platform answers, and which version and protocol it speaks."""
    return Health(
        status="ok",
        version=platform.settings.version,
        protocol=PROTOCOL,
        instance=platform.settings.instance,
    )
