"""Who am I."""

from __future__ import annotations

from truststram_lab.schemas.accounts import Identity
from truststram_lab.transport import Call, Resource, call
from truststram_lab.transport.calls import D

__all__ = ["Accounts"]


class Accounts(Resource[D]):
    """``client.accounts``"""

    @call
    def whoami(self) -> Call[Identity]:
        """The principal that the credential stands for, and the platform it speaks to."""
        return Call("GET", "/api/v1/whoami", Identity)
