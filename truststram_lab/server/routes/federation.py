"""Federations: who trains together, whether their tables fit, and what they may spend."""

from __future__ import annotations

from fastapi import APIRouter

from truststram_lab.schemas.accounts import Device, DeviceRegistration
from truststram_lab.schemas.base import Page
from truststram_lab.schemas.federation import (
    CreateFederation,
    Federation,
    Invitation,
    Invite,
    SetBudget,
)
from truststram_lab.schemas.participation import Preflight
from truststram_lab.schemas.privacy import PrivacyBudget
from truststram_lab.server.deps import Caller, Platform

from .paging import Cursor, Limit, Search

router = APIRouter(prefix="/api/v1", tags=["federation"])


@router.get("/federations")
def list_federations(
    platform: Platform,
    caller: Caller,
    limit: Limit = 50,
    cursor: Cursor = None,
    search: Search = None,
) -> Page[Federation]:
    """The federations, newest first."""
    return platform.federation.list_federations(
        caller.organisation_id, limit=limit, cursor=cursor, search=search
    )


@router.post("/federations")
def create_federation(body: CreateFederation, platform: Platform, caller: Caller) -> Federation:
    """The federation of that name, made if there is none."""
    return platform.federation.get_or_create(caller.organisation_id, body)


@router.get("/federations/{name}")
def get_federation(name: str, platform: Platform, caller: Caller) -> Federation:
    """The federation of that name or id."""
    return platform.federation.get(caller.organisation_id, name)


@router.post("/federations/{name}/invite")
def invite(name: str, body: Invite, platform: Platform, caller: Caller) -> list[Invitation]:
    """A credential a participant; a former one of the same participant stops working."""
    return platform.federation.invite(caller.organisation_id, name, body)


@router.post("/federations/{name}/open")
def open_federation(name: str, platform: Platform, caller: Caller) -> Federation:
    """Take new runs and new participants again."""
    return platform.federation.set_open(caller.organisation_id, name, is_open=True)


@router.post("/federations/{name}/close")
def close_federation(name: str, platform: Platform, caller: Caller) -> Federation:
    """Take no new run and no new participant; runs in progress go on."""
    return platform.federation.set_open(caller.organisation_id, name, is_open=False)


@router.get("/federations/{name}/preflight")
def preflight(name: str, platform: Platform, caller: Caller) -> Preflight:
    """Whether the sites' tables fit together, as far as they have described them."""
    return platform.preflight.get(caller.organisation_id, name)


@router.get("/federations/{name}/privacy")
def privacy_budget(name: str, platform: Platform, caller: Caller) -> PrivacyBudget:
    """What the federation's rounds have spent of its privacy budget."""
    if caller.role == "site":
        platform.federation.require_member(caller, name)
    return platform.budgets.get(caller.organisation_id, name)


@router.put("/federations/{name}/budget")
def set_budget(name: str, body: SetBudget, platform: Platform, caller: Caller) -> PrivacyBudget:
    """Set the most that the federation's data may ever spend."""
    return platform.budgets.put(caller.organisation_id, name, body)


@router.post("/devices/register")
def register_device(body: DeviceRegistration, platform: Platform, caller: Caller) -> Device:
    """Register the site's device; the same identifier gives the same device."""
    return platform.federation.register(caller, body)
