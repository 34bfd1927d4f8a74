"""Who am I."""

from __future__ import annotations

from truststram_lab.schemas.accounts import BootstrapToken, Identity, IssueBootstrap
from truststram_lab.transport import Call, Resource, call
from truststram_lab.transport.calls import D

__all__ = ["Accounts"]


class Accounts(Resource[D]):
    """``client.accounts``"""

    @call
    def whoami(self) -> Call[Identity]:
        """The principal that the credential stands for, and the platform it speaks to."""
        return Call("GET", "/api/v1/whoami", Identity)

    @call
    def bootstrap_token(
        self, name: str, *, expires_in_seconds: int = 86_400
    ) -> Call[BootstrapToken]:
        """A one-time token with which a device gets tokens of its own (``DeviceAuthClient``).

        Args:
            name: of the site that the device acts as, such as ``icu/north``; a new one is made.
            expires_in_seconds: how long it waits to be used, 60 to 2,592,000.

        Raises:
            PermissionDeniedError: only owners issue them.
            ConflictError: the name is a person's.
        """
        body = IssueBootstrap(name=name, expires_in_seconds=expires_in_seconds)
        return Call("POST", "/api/v1/device-auth/bootstrap-tokens", BootstrapToken, json=body)
