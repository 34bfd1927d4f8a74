"""Credentials: what they are, and where they are kept."""

from .credentials import ApiKey, StaticToken, credential
from .store import TokenStore

__all__ = ["ApiKey", "StaticToken", "TokenStore", "credential"]
