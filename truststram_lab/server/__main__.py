"""``python -m truststram_lab.server``: the platform of one computer's user."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import uvicorn

from truststram_lab import config
from truststram_lab.exceptions import TrustStramException

from .app import build_app, build_services
from .deps import Services
from .logs import log_to
from .settings import Settings
from .state import HOST, listen, own, read_state, write_state

__all__ = ["main"]

log = logging.getLogger("truststram_lab.server")

#: seconds for which a closing process waits for answers that are under way
_GRACE_S = 1


class PlatformServer(uvicorn.Server):
    """uvicorn that tells when it listens, ends when idle, and closes streams when told to end."""

    def __init__(
        self, server_config: uvicorn.Config, services: Services, listening: Callable[[], None]
    ) -> None:
        super().__init__(server_config)
        self._services = services
        self._listening = listening
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and then say so."""
        self._loop = asyncio.get_running_loop()
        self._services.lifecycle.on_stop(self._leave)
        await super().startup(sockets)
        if not self.should_exit:
            self._listening()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """A signal: close in order; a second one does not wait for open answers."""
        # Not recorded as uvicorn does: it would raise the signal again when all is closed.
        self.force_exit = self.should_exit
        self._leave()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._services.lifecycle.close)

    def _leave(self) -> None:
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to end."""
        lifecycle, idle_s = self._services.lifecycle, self._services.settings.idle_s
        if self._services.advancer.busy:
            lifecycle.touch()
        if idle_s and lifecycle.idle_s > idle_s:
            log.info("idle for %g s", idle_s)
            return True
        return await super().on_tick(counter)


def serve(settings: Settings) -> None:
    """Run the platform until it is told to end, or is idle.

    Raises:
        ConfigurationError: the folder, the port or the database cannot be used.
    """
    os.umask(0o077)
    with own(settings.home):
        log_to(settings.log)
        former = read_state(settings.state_file)
        with listen(settings.port, former.port) as bound:
            port = bound.getsockname()[1]
            services = build_services(settings)
            api_key = services.accounts.ensure_owner(former.api_key)
            app = build_app(services, [f"{HOST}:{port}", f"localhost:{port}"])

            def listening() -> None:
                write_state(settings, port, api_key)
                log.info("listening on %s:%d, version %s", HOST, port, settings.version)

            server = PlatformServer(_uvicorn_config(app), services, listening)
            server.run(sockets=[bound])
            log.info("ended")


def _uvicorn_config(app: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]  # any ASGI 3 callable
        loop="uvloop" if find_spec("uvloop") else "asyncio",
        http="httptools" if find_spec("httptools") else "h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=65,
        timeout_graceful_shutdown=_GRACE_S,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and serve; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m truststram_lab.server",
        description="The platform of one computer's user, at loopback.",
    )
    parser.add_argument("--home", type=Path, help="folder of the state (default: TRUSTSTRAM_HOME)")
    parser.add_argument("--idle-s", type=float, help="end after so many idle seconds; 0: never")
    parser.add_argument("--port", type=int, default=0, help="0: the last one again, or a free one")
    options = parser.parse_args(arguments)
    try:
        idle_s = options.idle_s
        serve(
            Settings(
                home=(options.home or config.home()).expanduser().absolute(),
                port=options.port,
                idle_s=config.number_setting("IDLE_S", 1800.0) if idle_s is None else idle_s,
                database_url=config.setting("DATABASE_URL").value,
            )
        )
    except TrustStramException as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
