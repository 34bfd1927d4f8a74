"""``from truststram.async_client import AsyncTrustStramClient``"""

from truststram_lab.client import AsyncTrustStramClient

__all__ = ["AsyncTrustStramClient"]
