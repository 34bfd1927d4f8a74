"""Who am I, and the first administrator of a standing platform."""

from __future__ import annotations

import logging

from fastapi import APIRouter, Request, Response, status

from truststram_lab.schemas.accounts import Identity
from truststram_lab.schemas.setup import Administrator, SetUp
from truststram_lab.server.deps import Caller, Platform
from truststram_lab.server.services.setup import Setup

__all__ = ["first_administrator", "router"]

log = logging.getLogger(__name__)

router = APIRouter(prefix="/api/v1", tags=["accounts"])

#: mounted on a standing platform only: a sandbox has its owner from the start
first_administrator = APIRouter(prefix="/api/v1", tags=["accounts"])


@router.get("/whoami")
async def whoami(platform: Platform, caller: Caller) -> Identity:
    """The principal that the credential proves."""
    return platform.accounts.identity(caller)


@first_administrator.post("/setup", status_code=status.HTTP_201_CREATED)
def set_up(body: SetUp, request: Request, response: Response) -> Administrator:
    """Become the first administrator, with the one-time token of the platform's terminal."""
    setup: Setup = request.app.state.setup
    made = setup.set_up(body)
    log.info("the first administrator was set up: %s", made.identity.principal_id)
    response.headers["Cache-Control"] = "no-store"
    return made
