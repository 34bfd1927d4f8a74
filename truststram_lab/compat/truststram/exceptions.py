"""``from truststram.exceptions import TrustStramException``"""

from truststram_lab.exceptions import (
    AuthenticationError,
    InsufficientResourcesError,
    ModelNotFoundError,
    RateLimitExceededError,
    TrustStramException,
)

__all__ = [
    "AuthenticationError",
    "InsufficientResourcesError",
    "ModelNotFoundError",
    "RateLimitExceededError",
    "TrustStramException",
]
