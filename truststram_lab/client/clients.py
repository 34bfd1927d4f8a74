"""The two clients: the same resources over a sync and an async driver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from truststram_lab import sandbox
from truststram_lab.auth import StaticToken, TokenStore, credential
from truststram_lab.config import apply_log_level, setting
from truststram_lab.exceptions import AuthenticationError, ConfigurationError, nearest
from truststram_lab.transport import AsyncDriver, SyncDriver, Target, Targets, normal_url
from truststram_lab.transport.drivers import AsyncHttpDriver, HttpDriver

from .accounts import Accounts
from .federation import AsyncEvents, Events, Federations, Runs
from .participants import ParticipantClient
from .registry import Blobs, Models
from .serving import Deployments, Inference, PredictionLog

__all__ = ["AsyncTrustStramClient", "TrustStramClient"]

_ENVIRONMENTS = ("production", "sandbox")


@dataclass(frozen=True)
class _Place:
    environment: str
    targets: Targets


class _Client:
    """What both clients know about where they are."""

    def __init__(self, place: _Place) -> None:
        apply_log_level()
        self.environment = place.environment
        #: finds the platform; hand it to whoever opens a connection of their own
        self.target = place.targets

    @property
    def base_url(self) -> str:
        """The platform's address; the first look at a sandbox's starts it."""
        return self.target.current().base_url

    def __repr__(self) -> str:
        known = self.target.known
        where = f", base_url={known.base_url!r}" if known else ""
        return f"{type(self).__name__}(environment={self.environment!r}{where})"


class TrustStramClient(_Client):
    """A platform, from any thread.

    Args:
        api_key: for ``production``; else ``TRUSTSTRAM_API_KEY``, else the key stored at the
            last sign-in. The sandbox knows its user by its state file and is never shown it.
        environment: ``sandbox``, the private platform on this computer, started on the first
            call; or ``production``. Omitted: production if a base URL is configured.
        base_url: of a production platform, with or without ``/api/v1``; else
            ``TRUSTSTRAM_BASE_URL``.

    Raises:
        ConfigurationError: production without a base URL, or settings that contradict.
        AuthenticationError: production without a key.
    """

    def __init__(
        self,
        api_key: str | StaticToken | None = None,
        environment: str | None = None,
        base_url: str | None = None,
    ) -> None:
        super().__init__(_place(api_key, environment, base_url))
        self._driver = HttpDriver(self.target)
        self.accounts: Accounts[SyncDriver] = Accounts(self._driver)
        self.models: Models[SyncDriver] = Models(self._driver)
        self.blobs: Blobs[SyncDriver] = Blobs(self._driver)
        self.deployments: Deployments[SyncDriver] = Deployments(self._driver)
        self.inference: Inference[SyncDriver] = Inference(self._driver)
        self.predictions: PredictionLog[SyncDriver] = PredictionLog(self._driver)
        self.federations: Federations[SyncDriver] = Federations(self._driver)
        self.runs: Runs[SyncDriver] = Runs(self._driver)
        self.events = Events(self._driver)

    def participant(self, token: str) -> ParticipantClient:
        """A connection to the same platform for the site that owns ``token``."""
        return ParticipantClient(self.target, token)

    def close(self) -> None:
        """End every connection; calls that wait in other threads end too."""
        self._driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncTrustStramClient(_Client):
    """The same, awaited: ``await client.models.get("icu")``. See ``TrustStramClient``."""

    def __init__(
        self,
        api_key: str | StaticToken | None = None,
        environment: str | None = None,
        base_url: str | None = None,
    ) -> None:
        super().__init__(_place(api_key, environment, base_url))
        self._driver = AsyncHttpDriver(self.target)
        self.accounts: Accounts[AsyncDriver] = Accounts(self._driver)
        self.models: Models[AsyncDriver] = Models(self._driver)
        self.blobs: Blobs[AsyncDriver] = Blobs(self._driver)
        self.deployments: Deployments[AsyncDriver] = Deployments(self._driver)
        self.inference: Inference[AsyncDriver] = Inference(self._driver)
        self.predictions: PredictionLog[AsyncDriver] = PredictionLog(self._driver)
        self.federations: Federations[AsyncDriver] = Federations(self._driver)
        self.runs: Runs[AsyncDriver] = Runs(self._driver)
        self.events = AsyncEvents(self._driver)

    async def close(self) -> None:
        """End every connection."""
        await self._driver.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _place(
    api_key: str | StaticToken | None, environment: str | None, base_url: str | None
) -> _Place:
    base = setting("BASE_URL", base_url)
    chosen = setting("ENVIRONMENT", environment, "production" if base.value else "sandbox")
    if chosen.value == "sandbox":
        if base_url is not None:
            raise ConfigurationError(
                f"environment='sandbox' and base_url={normal_url(base_url)!r} contradict each "
                "other; leave one of them out."
            )
        return _Place("sandbox", Targets(sandbox.target()))
    if chosen.value != "production":
        near = nearest(str(chosen.value), _ENVIRONMENTS, most=1) or list(_ENVIRONMENTS)
        raise ConfigurationError(
            f"{chosen.value!r} is not an environment; use {' or '.join(map(repr, near))}."
        )
    if base.value is None:
        raise ConfigurationError(
            "environment='production' needs a platform; set TRUSTSTRAM_BASE_URL or pass "
            "base_url=, or use environment='sandbox' for the private one on this computer."
        )
    url = normal_url(base.value)
    return _Place("production", Targets(Target(url, _key(api_key, url).reveal())))


def _key(api_key: str | StaticToken | None, url: str) -> StaticToken:
    found = api_key or setting("API_KEY").value or TokenStore().get(url)
    if found is None:
        raise AuthenticationError(
            f"There is no API key for {url}; pass api_key=, set TRUSTSTRAM_API_KEY, or sign in."
        )
    return credential(found)
