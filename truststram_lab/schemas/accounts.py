"""Who is asking."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import Request, Schema

Role = Literal["owner", "member", "site", "observer"]


class Identity(Schema):
    """The signed-in principal and the platform it speaks to."""

    organisation: str
    organisation_id: str
    name: str
    principal_id: str
    role: Role
    environment: str
    platform_version: str
    protocol: int


class DeviceRegistration(Request):
    """The four fields a participant discloses (WIRE 5), and nothing else."""

    device_identifier: str = Field(min_length=1, max_length=200)
    org_id: str = "default"
    platform: str = "python"
    os_version: str = ""


class Device(Schema):
    """A registered participant."""

    id: str
    device_identifier: str
    org_id: str
    platform: str
    status: str
    created_at: str
