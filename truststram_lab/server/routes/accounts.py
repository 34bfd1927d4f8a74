"""Who am I."""

from __future__ import annotations

from fastapi import APIRouter

from truststram_lab.schemas.accounts import Identity
from truststram_lab.server.deps import Caller, Platform

router = APIRouter(prefix="/api/v1", tags=["accounts"])


@router.get("/whoami")
async def whoami(platform: Platform, caller: Caller) -> Identity:
    """The principal that the credential proves."""
    return platform.accounts.identity(caller)
