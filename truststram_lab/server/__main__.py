"""``python -m truststram_lab.server``: the platform of one computer's user, or of a team.

python -m truststram_lab.server                  a sandbox: loopback, ends when idle
python -m truststram_lab.server serve --home D   a standing platform
python -m truststram_lab.server --openapi        the API's description; starts nothing
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from truststram_lab import __version__, config
from truststram_lab.exceptions import ConfigurationError, TrustStramException

from .app import build_app, build_services, describe
from .deps import Services
from .logs import log_to
from .services.setup import reset_administrator, setup_token
from .settings import Front, Settings
from .state import HOST, listen, listen_at, own, read_state, resolve, write_standing, write_state

__all__ = ["main"]

log = logging.getLogger("truststram_lab.server")

#: seconds for which a closing process waits for answers that are under way
_GRACE_S = 1

_PRODUCTION = "production"

#: what to do about a folder that another platform serves
_OWN = "use it, or choose another folder with --home"
_OWN_AGAIN = "stop it, and start it once with --reset-administrator"


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
            lifecycle.close()  # there may be streams of who only looks on
            return True
        return await super().on_tick(counter)


def serve(settings: Settings) -> None:
    """Run the sandbox until it is told to end, or is idle.

    Raises:
        ConfigurationError: the folder, the port or the database cannot be used.
    """
    os.umask(0o077)
    with own(settings.home):
        if settings.standing_file.exists():
            # A sandbox gives its user a new owner's key, which would end the team's.
            raise ConfigurationError(
                f"{settings.home} is a standing platform's folder; start it with truststram-lab "
                "serve, or set TRUSTSTRAM_HOME to another folder for the sandbox."
            )
        log_to(settings.log, config.log_level() or "INFO")
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


def stand(settings: Settings, front: Front, *, reset: bool = False) -> None:
    """Run a team's platform until it is told to end.

    Args:
        reset: first take the administrator's keys away, and show a setup token as at the
            first start. Nothing is taken away unless the platform can start.

    Raises:
        ConfigurationError: keys would travel in the clear, or the folder, the certificate,
            the port or the database cannot be used.
    """
    os.umask(0o077)
    address = resolve(front.host)
    front.check_exposure(address)
    _check_certificate(front)
    if reset and not settings.standing_file.exists():
        raise ConfigurationError(
            f"{settings.home} holds no standing platform whose administrator could be reset; "
            "check --home."
        )
    with own(settings.home, _OWN_AGAIN if reset else _OWN):
        if settings.state_file.exists():
            raise ConfigurationError(
                f"{settings.home} is a sandbox's folder, whose key lies in a file; choose another "
                "with --home."
            )
        log_to(settings.log, config.log_level() or "INFO")
        with listen_at(address, settings.port) as bound:
            hosts = front.hosts(address, bound.getsockname()[1])
            url = f"{front.scheme}://{hosts[0]}"
            services = build_services(settings)
            # Before the folder's first request: from now on no sandbox starts in it.
            write_standing(settings, url)
            if reset:
                former = reset_administrator(services.engine)
                log.warning("the administrator was reset; keys revoked of %d", len(former))

            def listening() -> None:
                log.info("listening for %s, version %s", url, settings.version)
                _announce(settings, url, setup_token(services.engine), again=reset)

            app = build_app(services, hosts, front)
            server = PlatformServer(_uvicorn_config(app, front), services, listening)
            server.run(sockets=[bound])
            log.info("ended")


def _announce(settings: Settings, url: str, token: str | None, *, again: bool) -> None:
    """Tell the terminal, and nobody else, where the platform is and how to become its owner."""
    lines = [f"TrustStram {settings.version} is at {url}; its log is {settings.log}."]
    if token is not None:
        lines += [
            f"It has no administrator {'any more' if again else 'yet'}. Within 24 hours, once:",
            f"    truststram-lab setup --url {url}",
            f"    setup token: {token}",
        ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _check_certificate(front: Front) -> None:
    """Read the certificate and its key once, so that a fault is a sentence."""
    if front.tls_cert is None:
        return

    def password() -> str:
        raise ConfigurationError(
            f"The key {front.tls_key} is encrypted; give one without a password, which only this "
            "user can read."
        )

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            front.tls_cert, front.tls_key, password
        )
    except OSError as error:  # ssl.SSLError among them
        reason = error.strerror or str(error)
        raise ConfigurationError(
            f"The certificate {front.tls_cert} with the key {front.tls_key} cannot be used "
            f"({reason}); both are PEM files, and the key is the certificate's."
        ) from error


def _uvicorn_config(app: Any, front: Front | None = None) -> uvicorn.Config:
    front = front or Front()
    return uvicorn.Config(
        app,
        loop="uvloop" if find_spec("uvloop") else "asyncio",
        http="httptools" if find_spec("httptools") else "h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # ``security.Forwarded`` is stricter
        ssl_certfile=front.tls_cert,
        ssl_keyfile=front.tls_key,
        timeout_keep_alive=65,
        timeout_graceful_shutdown=_GRACE_S,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and serve; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] == ["serve"]:
            _main_standing(given[1:])
        else:
            _main_sandbox(given)
    except TrustStramException as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    return 0


def _main_sandbox(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m truststram_lab.server",
        description="The platform of one computer's user, at loopback; or, with 'serve', a team's.",
    )
    parser.add_argument("--home", type=Path, help="folder of the state (default: TRUSTSTRAM_HOME)")
    parser.add_argument("--idle-s", type=float, help="end after so many idle seconds; 0: never")
    parser.add_argument("--port", type=int, default=0, help="0: the last one again, or a free one")
    parser.add_argument("--openapi", action="store_true", help="print the API's description only")
    options = parser.parse_args(arguments)
    if options.openapi:
        described = json.dumps(describe(__version__), indent=2, sort_keys=True, ensure_ascii=False)
        sys.stdout.write(f"{described}\n")
        return
    idle_s = options.idle_s
    serve(
        Settings(
            home=(options.home or config.home()).expanduser().absolute(),
            port=options.port,
            idle_s=config.number_setting("IDLE_S", 1800.0) if idle_s is None else idle_s,
            database_url=config.setting("DATABASE_URL").value,
            log_days=config.number_setting("LOG_DAYS", Settings.log_days),
        )
    )


def _main_standing(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="truststram-lab serve",
        description="A standing platform for a team: TLS of its own, or behind a proxy.",
        epilog="At its first start the terminal shows a one-time token for the administrator.",
    )
    parser.add_argument("--home", type=Path, required=True, help="folder of the state; back it up")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8443, help="%(default)s by default; 0: any")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate chain (PEM)")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key (PEM, no password)")
    parser.add_argument("--behind-proxy", action="store_true", help="a reverse proxy speaks TLS")
    parser.add_argument("--public-url", metavar="URL", help="the address that people use")
    parser.add_argument(
        "--trusted-proxy",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="where X-Forwarded-* may come from besides loopback: an address or a network",
    )
    parser.add_argument(
        "--log-days",
        type=float,
        default=config.number_setting("LOG_DAYS", Settings.log_days),
        metavar="DAYS",
        help="for how long predictions stay in the log (%(default)g); 0 keeps all",
    )
    parser.add_argument(
        "--reset-administrator",
        action="store_true",
        help="for a lost key: revoke the administrator's keys and show a setup token; for one "
        "start, by hand, while the platform does not run",
    )
    options = parser.parse_args(arguments)
    front = Front(
        host=options.host,
        tls_cert=_file(options.tls_cert),
        tls_key=_file(options.tls_key),
        behind_proxy=options.behind_proxy,
        public_url=options.public_url,
        trusted_proxies=tuple(options.trusted_proxy),
    )
    settings = Settings(
        home=options.home.expanduser().absolute(),
        port=options.port,
        idle_s=0,
        database_url=config.setting("DATABASE_URL").value,
        environment=_PRODUCTION,
        log_days=options.log_days,
    )
    stand(settings, front, reset=options.reset_administrator)


def _file(path: Path | None) -> Path | None:
    return None if path is None else path.expanduser().absolute()


if __name__ == "__main__":
    sys.exit(main())
