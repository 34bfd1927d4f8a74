"""Where the platform is, and who is told to look again when it does not answer there."""

from __future__ import annotations

import ipaddress
import re
import threading
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from truststram_lab.exceptions import ConfigurationError

__all__ = ["Target", "TargetProvider", "Targets", "is_loopback", "normal_url"]

_API = "/api/v1"
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]*:[0-9a-f:.]*")
_PATH = re.compile(r"(/[A-Za-z0-9._~%-]*)*")


def is_loopback(host: str) -> bool:
    """Whether ``host`` can only be this computer."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def normal_url(url: str) -> str:
    """The platform's address without a trailing slash or ``/api/v1``.

    Raises:
        ConfigurationError: not an http(s) address, credentials inside it, or plain http to
            another computer.
    """
    if "@" in url:
        # The address is shown in errors; a password in it would be shown with it.
        raise ConfigurationError(
            "The platform's base URL holds credentials; remove them and use api_key= "
            "or TRUSTSTRAM_API_KEY."
        )
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _not_an_address(url) from None
    if parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise _not_an_address(url)
    if not _HOST.fullmatch(host) or not _PATH.fullmatch(parts.path):
        raise _not_an_address(url)
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigurationError(
            f"{url!r} would send the credential unencrypted to another computer; "
            f"use https://{host}."
        )
    path = parts.path.rstrip("/").removesuffix(_API).rstrip("/")
    shown_host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown_host}{f':{port}' if port else ''}{path}"


def _not_an_address(url: str) -> ConfigurationError:
    return ConfigurationError(
        f"{url!r} is not a platform's base URL; it looks like https://platform.example.org."
    )


@dataclass(frozen=True)
class Target:
    """A platform's address and the credential for it.

    Args:
        base_url: as ``normal_url`` gives it.
        token: bearer credential; None sends none.
        protocol: the wire protocol that whoever found the platform has already read from
            ``/health``; None makes the engine ask before the first call.
    """

    base_url: str
    token: str | None = field(default=None, repr=False)
    protocol: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_url", normal_url(self.base_url))

    def __call__(self, *, failed: bool = False) -> Target:
        """The target as a provider of itself: a fixed address has no other."""
        del failed
        return self


class TargetProvider(Protocol):
    """Finds the platform; ``failed`` says that the last address did not work."""

    def __call__(self, *, failed: bool = False) -> Target: ...


class Targets:
    """The platform's address, kept until it fails; one caller at a time looks for a new one.

    It is a provider itself, so that several drivers can share one search.
    """

    def __init__(self, provider: TargetProvider) -> None:
        self._provider = provider
        self._lock = threading.Lock()
        self._current: Target | None = None

    @property
    def known(self) -> Target | None:
        """The address if it was found already; never looks."""
        return self._current

    def current(self) -> Target:
        """The address, found on first use."""
        with self._lock:
            if self._current is None:
                self._current = self._provider(failed=False)
            return self._current

    def after(self, stale: Target) -> Target:
        """A new address, because ``stale`` did not work.

        Callers that held the same stale address wait for one search and share its result.
        """
        with self._lock:
            if self._current is None or self._current is stale:
                self._current = None
                self._current = self._provider(failed=True)
            return self._current

    def __call__(self, *, failed: bool = False) -> Target:
        known = self._current
        return self.after(known) if failed and known is not None else self.current()
