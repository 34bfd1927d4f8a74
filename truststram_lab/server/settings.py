"""What one platform process is started with."""

from __future__ import annotations

import ipaddress
import re
import secrets
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from truststram_lab._version import __version__
from truststram_lab.exceptions import ConfigurationError

__all__ = ["BLOB_LIMIT_BYTES", "JSON_LIMIT_BYTES", "SANDBOX", "Front", "Network", "Settings"]

#: The largest body of a JSON request, in bytes.
JSON_LIMIT_BYTES = 10_000_000

#: The largest file or update, in bytes; these are streamed to disk.
BLOB_LIMIT_BYTES = 2**30

#: The environment of a private platform; any other is a standing one, for a team.
SANDBOX = "sandbox"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Settings:
    """Where the platform keeps its state and how it serves.

    Args:
        home: folder of the state (0700).
        port: port to listen on; 0 takes the last one again if free, else any.
        idle_s: seconds without a request or an open stream after which it exits; 0 never.
            Who only looks on does not count (``http.AccessLog``).
        database_url: SQLAlchemy URL; None is ``platform.db`` in ``home``.
        environment: name of the environment that results are deployed to.
        log_days: age at which the log of predictions forgets an entry, in days; 0 keeps all.
        instance: names this process, anew at each start.
    """

    home: Path
    port: int = 0
    idle_s: float = 1800.0
    database_url: str | None = None
    environment: str = SANDBOX
    log_days: float = 30.0
    version: str = __version__
    instance: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def standing(self) -> bool:
        """Whether it stands for a team, rather than being one user's sandbox."""
        return self.environment != SANDBOX

    @property
    def url(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{self.home / 'platform.db'}"

    @property
    def blobs(self) -> Path:
        """The folder of the files."""
        return self.home / "blobs"

    @property
    def log(self) -> Path:
        """The log file."""
        return self.home / "platform.log"

    @property
    def state_file(self) -> Path:
        """Where a process of the same user finds the sandbox's address and key (0600)."""
        return self.home / "sandbox.json"

    @property
    def standing_file(self) -> Path:
        """Says that the folder is a standing platform's, and where it listens; no key."""
        return self.home / "serve.json"


@dataclass(frozen=True)
class Front:
    """How a standing platform is reached.

    Args:
        host: address or name to listen on.
        tls_cert: certificate chain (PEM); with ``tls_key`` the platform speaks TLS itself.
        behind_proxy: a reverse proxy speaks TLS; its ``X-Forwarded-*`` headers are trusted
            when they come from loopback or from ``trusted_proxies``.
        public_url: what people type; the only ``Host`` that is answered behind a proxy.
        trusted_proxies: addresses or networks (CIDR) besides loopback.

    Raises:
        ConfigurationError: the parts contradict each other, or keys would travel in the clear.
    """

    host: str = "127.0.0.1"
    tls_cert: Path | None = None
    tls_key: Path | None = None
    behind_proxy: bool = False
    public_url: str | None = None
    trusted_proxies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigurationError(
                "TLS needs a certificate and its key; give both --tls-cert and --tls-key."
            )
        if self.behind_proxy and self.public_url is None:
            raise ConfigurationError(
                "--behind-proxy needs the address that people use; add --public-url "
                "https://platform.example.org."
            )
        if self.trusted_proxies and not self.behind_proxy:
            raise ConfigurationError(
                "--trusted-proxy has no meaning without --behind-proxy; add it, or leave it out."
            )
        public = self._public
        if public is not None and not self.behind_proxy and public[0] != self.scheme:
            raise ConfigurationError(
                f"--public-url {self.public_url} is {public[0]}, but the platform itself would "
                f"speak {self.scheme}; add --tls-cert and --tls-key, or --behind-proxy."
            )
        _ = self.proxies

    @property
    def encrypted(self) -> bool:
        """Whether the platform speaks TLS itself."""
        return self.tls_cert is not None

    @property
    def scheme(self) -> str:
        """What callers speak, be it with the platform or with its proxy."""
        if self.behind_proxy and self._public is not None:
            return self._public[0]
        return "https" if self.encrypted else "http"

    @cached_property
    def proxies(self) -> tuple[Network, ...]:
        """Where ``X-Forwarded-*`` may come from; nowhere without a proxy."""
        if not self.behind_proxy:
            return ()
        try:
            others = [ipaddress.ip_network(text) for text in self.trusted_proxies]
        except ValueError as error:
            raise ConfigurationError(
                f"--trusted-proxy is an address or a network such as 10.0.0.0/8: {error}."
            ) from None
        return (*_LOOPBACK, *others)

    def check_exposure(self, address: str) -> None:
        """Refuse to listen where keys would travel in the clear.

        Raises:
            ConfigurationError: ``address`` (what ``host`` resolves to) is not loopback and
                nobody encrypts, or it is every address and nobody said its name.
        """
        found = ipaddress.ip_address(address.partition("%")[0])
        if not (found.is_loopback or self.encrypted or self.behind_proxy):
            raise ConfigurationError(
                f"Listening on {self.host} without TLS would show keys and models to the network; "
                "give --tls-cert and --tls-key, or --behind-proxy with --public-url, or listen on "
                "127.0.0.1."
            )
        if found.is_unspecified and self.public_url is None:
            raise ConfigurationError(
                f"Listening on {self.host} takes any address, so the platform has to know its "
                "name; add --public-url https://platform.example.org."
            )

    def hosts(self, address: str, port: int) -> tuple[str, ...]:
        """The ``Host`` values that are answered, the one to tell people first."""
        known: list[str] = []
        if self._public is not None:
            known += _hosts(*self._public)
        if not self.behind_proxy:
            names = [self.host.strip("[]"), address]
            if ipaddress.ip_address(address.partition("%")[0]).is_loopback:
                names.append("localhost")
            for name in names:
                known += _hosts(self.scheme, name.lower(), port)
        return tuple(dict.fromkeys(known))

    @property
    def _public(self) -> tuple[str, str, int] | None:
        return None if self.public_url is None else _origin(self.public_url)


def _hosts(scheme: str, name: str, port: int) -> list[str]:
    shown = f"[{name}]" if ":" in name else name
    full = f"{shown}:{port}"
    return [shown, full] if port == _PORTS[scheme] else [full]


def _origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a public address."""
    try:
        parts = urlsplit(url.strip())
        name, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        name, port = "", None
    plain = re.fullmatch(r"(?i)https?://[a-z0-9._:\[\]-]+/?", url.strip())
    if not plain or not name:
        raise ConfigurationError(
            f"--public-url {url!r} is not an address without a path such as "
            "https://platform.example.org."
        )
    if parts.scheme == "http" and name != "localhost" and not _is_loopback(name):
        raise ConfigurationError(
            f"--public-url {url} would send keys unencrypted; use https://{name}."
        )
    return parts.scheme, name, port or _PORTS[parts.scheme]


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
