"""The platform as Python objects: one client, sync or async, and one file a domain.

``client.models.get("icu")`` is a call; what it sends is declared once for both clients.
"""

from .clients import AsyncTrustStramClient, TrustStramClient
from .participants import ParticipantClient

__all__ = ["AsyncTrustStramClient", "ParticipantClient", "TrustStramClient"]
