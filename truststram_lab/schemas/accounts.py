"""Who is asking."""

from __future__ import annotations

from typing import Annotated, Literal

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


class IssueBootstrap(Request):
    """Ask for the one-time token with which a device gets tokens of its own.

    Args:
        name: of the site that the device acts as, such as ``icu/north`` for an invited one; a
            new name makes a new site.
        expires_in_seconds: how long the token waits to be used.
    """

    name: str = Field(min_length=1, max_length=200, pattern=r"^\S(?:[^\x00-\x1f\x7f]*\S)?$")
    expires_in_seconds: int = Field(default=86_400, ge=60, le=30 * 86_400)


class BootstrapToken(Schema):
    """A device's one-time token; it is shown this once, the platform keeps only its SHA-256."""

    name: str
    principal_id: str
    bootstrap_token: str = Field(repr=False)
    expires_at: str


class DeviceBootstrap(Request):
    """Exchange a bootstrap token, given as the Bearer, for a device's first tokens."""

    org_id: str = Field(default="default", max_length=200)
    device_identifier: str = Field(min_length=1, max_length=200)
    scopes: list[Annotated[str, Field(max_length=64)]] = Field(
        default=["devices:write"], min_length=1, max_length=50
    )
    access_ttl_seconds: int = 900
    device_id: str | None = Field(default=None, max_length=200)


class DeviceRefresh(Request):
    """Exchange a refresh token for the next pair.

    Args:
        nonce: random; whoever sends the same token with the same nonce again gets the same
            answer, as long as nobody has used the refresh token in it.
    """

    refresh_token: str = Field(min_length=1, max_length=200, repr=False)
    nonce: str | None = Field(default=None, min_length=16, max_length=128, repr=False)


class DeviceRevoke(Request):
    """End a device's tokens, all of its family."""

    refresh_token: str = Field(min_length=1, max_length=200, repr=False)
    reason: str = Field(default="sdk_revoke", max_length=100)


class DeviceTokens(Schema):
    """What a device signs in with; ``expires_at`` is the access token's end."""

    access_token: str = Field(repr=False)
    refresh_token: str = Field(repr=False)
    token_type: str = "Bearer"  # noqa: S105 - what stands in front of a token
    expires_in: int
    expires_at: str
    org_id: str
    device_identifier: str
    scopes: list[str]
