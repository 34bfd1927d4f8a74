"""Who am I, the tokens of devices, and the first administrator of a standing platform."""

from __future__ import annotations

import logging
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response, status

from truststram_lab.exceptions import AuthenticationError
from truststram_lab.schemas.accounts import (
    BootstrapToken,
    DeviceBootstrap,
    DeviceRefresh,
    DeviceRevoke,
    DeviceTokens,
    Identity,
    IssueBootstrap,
)
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


@router.post("/device-auth/bootstrap-tokens", status_code=status.HTTP_201_CREATED)
def issue_bootstrap(
    body: IssueBootstrap, response: Response, platform: Platform, caller: Caller
) -> BootstrapToken:
    """A one-time token for a device that is to act as a site."""
    response.headers["Cache-Control"] = "no-store"
    return platform.device_tokens.issue_bootstrap(caller, body)


@router.post("/device-auth/bootstrap")
def bootstrap_device(
    body: DeviceBootstrap,
    response: Response,
    platform: Platform,
    authorization: Annotated[str, Header(max_length=300)] = "",
) -> DeviceTokens:
    """Exchange a bootstrap token, given as the Bearer, for a device's first tokens."""
    kind, _, token = authorization.partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise AuthenticationError(
            "A device starts with Authorization: Bearer <bootstrap token>, which an owner of the "
            "organisation issues."
        )
    response.headers["Cache-Control"] = "no-store"
    return platform.device_tokens.bootstrap(token.strip(), body)


@router.post("/device-auth/refresh")
def refresh_device(body: DeviceRefresh, response: Response, platform: Platform) -> DeviceTokens:
    """Exchange a refresh token for the next pair; it serves once."""
    response.headers["Cache-Control"] = "no-store"
    return platform.device_tokens.refresh(body)


@router.post("/device-auth/revoke", status_code=status.HTTP_204_NO_CONTENT)
def revoke_device(body: DeviceRevoke, platform: Platform) -> None:
    """End a device's tokens; an unknown refresh token changes nothing."""
    platform.device_tokens.revoke(body)


@first_administrator.post("/setup", status_code=status.HTTP_201_CREATED)
def set_up(body: SetUp, request: Request, response: Response) -> Administrator:
    """Become the first administrator, with the one-time token of the platform's terminal."""
    setup: Setup = request.app.state.setup
    made = setup.set_up(body)
    log.info("the first administrator was set up: %s", made.identity.principal_id)
    response.headers["Cache-Control"] = "no-store"
    return made
