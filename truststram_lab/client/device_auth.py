"""A device's own tokens: bootstrapped once, refreshed by whoever needs one, ended by one call.

A refresh token serves once, and a second use ends them all. So one refresh at a time is made:
threads of this process queue at a lock, other processes at a file, and whoever comes next finds
what the first one got. A nonce is kept before a refresh is asked for: if its answer is lost, the
same question has the same answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any, TypeVar

from truststram_lab import config
from truststram_lab.auth import TokenStore
from truststram_lab.config import apply_log_level, setting
from truststram_lab.exceptions import (
    AuthenticationError,
    InvalidInputError,
    PlatformUnavailableError,
    RequestTimeoutError,
)
from truststram_lab.schemas.accounts import (
    DeviceBootstrap,
    DeviceRefresh,
    DeviceRevoke,
    DeviceTokens,
)
from truststram_lab.transport import Call, Target, TargetProvider
from truststram_lab.transport.drivers import HttpDriver

from .places import device_place

__all__ = ["DeviceAuthClient"]

T = TypeVar("T")

log = logging.getLogger(__name__)

_PATH = "/api/v1/device-auth"
#: An access token is replaced so many seconds before its end.
_MARGIN_S = 30


class DeviceAuthClient:
    """Signs a device in with tokens of its own, and keeps them fresh.

    Safe from any thread, and for several processes of one user: where the system's keyring keeps
    the tokens (``TRUSTSTRAM_TOKEN_STORAGE``), they share one family; in memory each process has
    its own. ``get_access_token_sync`` needs no event loop and works beside a running one.

    Args:
        base_url: of the platform; the documents' own stands for the configured one.
        org_id: the organisation; ``TRUSTSTRAM_ORG_ID`` when left out.
        device_identifier: this device, always the same; ``TRUSTSTRAM_DEVICE_ID`` when left out.

    Raises:
        ConfigurationError: the address cannot be used, or ``keyring`` was asked for and fails.
        InvalidInputError: there is no device identifier.
    """

    def __init__(
        self,
        base_url: str | None = None,
        org_id: str | None = None,
        device_identifier: str | None = None,
    ) -> None:
        apply_log_level()
        device = setting("DEVICE_ID", device_identifier).value
        if not device:
            raise InvalidInputError(
                "A device needs an identifier that stays the same; pass device_identifier= or set "
                "TRUSTSTRAM_DEVICE_ID.",
                field="device_identifier",
            )
        self.device_identifier = str(device)
        self.org_id = str(setting("ORG_ID", org_id, "default").value)
        self._target, self.place = device_place(base_url)
        self._store = TokenStore()
        self._name = f"{self.place} device {self.org_id}:{self.device_identifier}"
        self._lock = threading.Lock()

    async def bootstrap(
        self,
        bootstrap_bearer_token: str,
        scopes: list[str] | None = None,
        access_ttl_seconds: int | None = None,
    ) -> DeviceTokens:
        """Exchange the one-time token that an owner issued for this device's first tokens.

        Args:
            scopes: what the tokens may do; all that a site may when left out.
            access_ttl_seconds: life of an access token, 1 to 3600; 900 when left out.

        Raises:
            AuthenticationError: the token is none, or was used, or has expired.
            InvalidInputError: a scope is unknown, or the life too long.
        """
        return await asyncio.to_thread(
            self.bootstrap_sync, bootstrap_bearer_token, scopes, access_ttl_seconds
        )

    def bootstrap_sync(
        self,
        bootstrap_bearer_token: str,
        scopes: list[str] | None = None,
        access_ttl_seconds: int | None = None,
    ) -> DeviceTokens:
        """See :meth:`bootstrap`."""
        given = {"scopes": scopes, "access_ttl_seconds": access_ttl_seconds}
        body = DeviceBootstrap(
            org_id=self.org_id,
            device_identifier=self.device_identifier,
            **{name: value for name, value in given.items() if value is not None},
        )
        with self._alone():
            # It serves once: a repetition by the transport would find it spent.
            call: Call[DeviceTokens] = Call("POST", f"{_PATH}/bootstrap", DeviceTokens, json=body)
            tokens = self._sent(call, bootstrap_bearer_token)
            self._keep(tokens)
        return tokens

    async def get_access_token(self, refresh_if_expiring_within_seconds: float = _MARGIN_S) -> str:
        """See :meth:`get_access_token_sync`."""
        return await asyncio.to_thread(
            self.get_access_token_sync, refresh_if_expiring_within_seconds
        )

    def get_access_token_sync(self, refresh_if_expiring_within_seconds: float = _MARGIN_S) -> str:
        """The access token of now; one that ends soon is replaced first.

        If the platform cannot be reached, the old one is returned as long as it has not ended.

        Raises:
            AuthenticationError: the device was not bootstrapped, its 30 days are over, or it
                was revoked.
            PlatformUnavailableError: there is no token any more, and nobody answers.
        """
        state = self._state()
        if state is not None and _left_s(state) > refresh_if_expiring_within_seconds:
            return str(state["access_token"])
        with self._alone():
            state = self._state()  # perhaps somebody else was here
            if state is None:
                raise AuthenticationError(
                    f"The device {self.device_identifier!r} has no tokens for {self.place}; call "
                    "bootstrap() with a token that an owner issued."
                )
            if _left_s(state) > refresh_if_expiring_within_seconds:
                return str(state["access_token"])
            return self._refreshed(state)

    async def revoke(self, reason: str = "sdk_revoke") -> None:
        """See :meth:`revoke_sync`."""
        await asyncio.to_thread(self.revoke_sync, reason)

    def revoke_sync(self, reason: str = "sdk_revoke") -> None:
        """End all tokens of this device; without any it does nothing.

        If the platform does not answer, the tokens stay, so that it can be tried again.
        """
        with self._alone():
            state = self._state()
            if state is None:
                return
            body = DeviceRevoke(refresh_token=state["refresh_token"], reason=reason)
            self._sent(Call("POST", f"{_PATH}/revoke", None, json=body, repeatable=True))
            self._store.delete(self._name)

    def _refreshed(self, state: dict[str, Any]) -> str:
        if not state.get("nonce"):
            state["nonce"] = secrets.token_urlsafe(24)
            self._store.set(self._name, json.dumps(state))
        body = DeviceRefresh(refresh_token=state["refresh_token"], nonce=state["nonce"])
        call: Call[DeviceTokens] = Call(
            "POST", f"{_PATH}/refresh", DeviceTokens, json=body, repeatable=True
        )
        try:
            tokens = self._sent(call)
        except (PlatformUnavailableError, RequestTimeoutError):
            if _left_s(state) > 0:
                return str(state["access_token"])
            raise
        except AuthenticationError:
            self._store.delete(self._name)
            raise
        self._keep(tokens)
        return tokens.access_token

    def _sent(self, call: Call[T], token: str | None = None) -> T:
        driver = HttpDriver(_WithToken(self._target, token))
        try:
            return driver.send(call)
        finally:
            driver.close()

    def _keep(self, tokens: DeviceTokens) -> None:
        notice = self._store.set(self._name, tokens.model_dump_json())
        if notice is not None:
            log.warning("%s", notice)

    def _state(self) -> dict[str, Any] | None:
        found = self._store.get(self._name)
        if found is None:
            return None
        try:
            state = json.loads(found)
            datetime.fromisoformat(state["expires_at"])
            str(state["access_token"] + state["refresh_token"])
        except (ValueError, TypeError, KeyError):
            log.warning("what was kept of the device's tokens is damaged and is not used")
            return None
        return dict(state)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else of this user changes this device's tokens meanwhile."""
        folder = config.home() / "devices"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = hashlib.sha256(self._name.encode()).hexdigest()[:32]
        with self._lock:
            handle = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield
            finally:
                os.close(handle)

    def __repr__(self) -> str:
        return f"DeviceAuthClient({self.device_identifier!r}, {self.place})"


class _WithToken:
    """The same platform with another credential, or none."""

    def __init__(self, target: TargetProvider, token: str | None) -> None:
        self._target = target
        self._token = token

    def __call__(self, *, failed: bool = False) -> Target:
        found = self._target(failed=failed)
        return Target(found.base_url, self._token, found.protocol)


def _left_s(state: dict[str, Any]) -> float:
    return datetime.fromisoformat(state["expires_at"]).timestamp() - time.time()
