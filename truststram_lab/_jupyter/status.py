"""Where am I: which platform, whether it answers, and who I am there."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import Any, Literal

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado import web

from truststram_lab import sandbox
from truststram_lab.exceptions import PlatformUnavailableError, TrustStramException
from truststram_lab.schemas.accounts import Identity
from truststram_lab.schemas.base import PROTOCOL

from .place import Kind, Place, SandboxStoppedError, find, kind
from .proxy import Upstream

__all__ = ["StartHandler", "Status", "StatusHandler", "look"]

State = Literal["running", "stopped", "unreachable"]

_WHOAMI = "/api/v1/whoami"


@dataclass(frozen=True)
class Status:
    """What a panel shows of the platform.

    Args:
        state: ``stopped`` only of a sandbox; ``unreachable`` comes with a sentence.
        protocol: the wire protocol that Jupyter's truststram-lab speaks.
        identity: who Jupyter's credential stands for, as ``/api/v1/whoami`` says it.
        message: what is wrong and the way out.
    """

    state: State
    kind: Kind
    version: str | None = None
    protocol: int = PROTOCOL
    identity: dict[str, Any] | None = None
    message: str | None = None


async def look(upstream: Upstream) -> Status:
    """The platform as it is now; starts nothing and never waits in the event loop."""
    try:
        place = await asyncio.to_thread(find)
        identity = await _identity(upstream, place)
    except SandboxStoppedError as error:
        return Status("stopped", kind(), message=error.message)
    except TrustStramException as error:
        return Status("unreachable", kind(), message=error.message)
    version = place.version or identity.platform_version
    return Status("running", kind(), version, identity=identity.model_dump(mode="json"))


async def _identity(upstream: Upstream, place: Place) -> Identity:
    answer = await upstream.read(place.target, _WHOAMI)
    try:
        identity = Identity.model_validate_json(answer)
    except ValueError as error:
        raise PlatformUnavailableError(
            f"{place.target.base_url} answers, but not as a platform; check TRUSTSTRAM_BASE_URL."
        ) from error
    if identity.protocol != PROTOCOL:
        raise PlatformUnavailableError(
            f"The platform at {place.target.base_url} speaks protocol {identity.protocol}, "
            f"Jupyter's truststram-lab {PROTOCOL}; upgrade the older of the two."
        )
    return identity


class _Handler(APIHandler):
    auth_resource = "truststram"

    def initialize(self, upstream: Upstream) -> None:
        self.upstream = upstream

    def _tell(self, status: Status) -> None:
        self.set_header("Cache-Control", "no-store")
        self.finish(asdict(status))


class StatusHandler(_Handler):
    """``GET truststram/status``"""

    #: A panel that looks now and then is nobody at work: the server may still be culled.
    _track_activity = False

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Answer with the status."""
        self._tell(await look(self.upstream))


class StartHandler(_Handler):
    """``POST truststram/start``"""

    @web.authenticated
    @authorized
    async def post(self) -> None:
        """Start the sandbox unless it runs, and answer with the status.

        Where the settings name a platform there is nothing to start. Requests at the same
        time share one start; one whose browser leaves goes on.
        """
        try:
            if kind() == "sandbox":
                await asyncio.shield(_starting())
        except TrustStramException as error:
            self.log.warning("The sandbox was not started: %s", error.message)
            now = await look(self.upstream)
            self._tell(Status(now.state, now.kind, now.version, message=error.message))
            return
        self._tell(await look(self.upstream))


_start: asyncio.Task[sandbox.SandboxState] | None = None


def _starting() -> asyncio.Task[sandbox.SandboxState]:
    global _start
    if _start is None or _start.done():
        _start = asyncio.ensure_future(asyncio.to_thread(sandbox.ensure))
    return _start
