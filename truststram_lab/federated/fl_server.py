"""The documents' federated server: the platform as a process of its own on an address."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import truststram_lab
from truststram_lab.client.federation import Federations, Runs
from truststram_lab.exceptions import (
    ConfigurationError,
    InvalidInputError,
    PlatformUnavailableError,
    RunStoppedError,
    TrustStramException,
)
from truststram_lab.sandbox.process import ask, last_words
from truststram_lab.sandbox.state import SandboxState, open_home, read_state
from truststram_lab.schemas.federation import CreateRun, Run
from truststram_lab.schemas.strategies import AnyStrategy, as_strategy
from truststram_lab.transport import SyncDriver, Target
from truststram_lab.transport.drivers import HttpDriver

from .addresses import Address, Notice, parse_address, write_notice
from .coordinator import FederatedLearningCoordinator, model_text
from .port_holder import port_holder

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FederatedServer"]

_FEDERATION = "federation"
_START_S = 60.0
_STOP_S = 10.0
_LOOK_EVERY_S = 0.2
_SETTLED = ("completed", "stopped", "failed")


class FederatedServer:
    """Brings clients together for a number of rounds: ``start()`` returns when they are over.

    The platform is a process of its own with a folder of its own
    (``TRUSTSTRAM_HOME/federations/<host>-<port>``); it ends with ``start``. Clients of the same
    user on this computer enter by the folder's state file, in any order of starting.

    Args:
        strategy: such as ``federated_averaging``, ``fedprox:mu=0.1``, ``median``.
        min_clients: present before the first round opens.
        rounds: 1 or more.
        coordinator: its policy and model; without one, the first client's ``get_parameters``
            begins.
        address: ``host:port`` at this computer; by default ``TRUSTSTRAM_FL_ADDRESS``, else
            localhost:8080. Other computers: ``truststram-lab serve`` and invitations.
        port: instead of the address's; 0 takes any free one, see ``address``.
        epochs, batch_size, learning_rate: in every client's ``config``.
        wait_s: seconds to wait for ``min_clients``; None waits until ``stop``.
        round_s: seconds for one round; None waits for every client that was asked.

    Raises:
        InvalidInputError: an unknown strategy, or a number out of its range.
    """

    def __init__(
        self,
        strategy: str | Mapping[str, Any] | AnyStrategy = "federated_averaging",
        min_clients: int = 3,
        rounds: int = 10,
        *,
        coordinator: FederatedLearningCoordinator | None = None,
        address: str | None = None,
        port: int | None = None,
        epochs: int = 1,
        batch_size: int = 32,
        learning_rate: float = 0.1,
        wait_s: float | None = None,
        round_s: float | None = None,
    ) -> None:
        self.coordinator = coordinator or FederatedLearningCoordinator(
            strategy, min_clients=min_clients
        )
        self.strategy = as_strategy(strategy) if coordinator is None else coordinator.strategy
        if isinstance(rounds, bool) or not isinstance(rounds, int) or not 1 <= rounds <= 100_000:
            raise InvalidInputError(
                f"rounds is {rounds!r}, but must be a whole number from 1 to 100000.",
                field="rounds",
            )
        self.rounds = rounds
        given = parse_address(address, any_port=True)
        self._address = given if port is None else Address(given.host, port)
        if not given.local:
            raise ConfigurationError(
                f"{given} is not this computer's own address; for other computers run "
                "truststram-lab serve, and invite the clients."
            )
        self._local = {
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
        }
        self._wait_s, self._round_s = wait_s, round_s
        self._stop = threading.Event()
        self._run: Run | None = None
        self._said = 0

    @property
    def history(self) -> list[dict[str, Any]]:
        """One entry a round so far: number, accuracy, loss, rows, sites, metrics."""
        report = None if self._run is None else self._run.report
        return [] if report is None else [entry.model_dump() for entry in report.history]

    @property
    def address(self) -> str:
        """``host:port`` for the clients; with port 0, known once ``start`` has begun."""
        return str(self._address)

    def start(self) -> list[dict[str, Any]]:
        """Serve until the rounds are over; returns the history, one entry a round.

        Raises:
            ConfigurationError: the port is taken; the sentence says by whom.
            RunStoppedError: ``stop`` was called, or too few clients came in time.
            TrustStramException: the run failed; the sentence says why.
        """
        self._address, self._said = _free_address(self._address), 0
        folder = open_home(self._address.folder)
        with _platform(folder, self._address.port, self._stop) as state:
            driver = HttpDriver(Target(state.url, state.api_key, state.protocol))
            with contextlib.closing(driver):
                return self._serve(folder, driver)

    def stop(self) -> None:
        """End the rounds and the process; ``start`` raises RunStoppedError."""
        self._stop.set()

    def _serve(self, folder: Path, driver: HttpDriver) -> list[dict[str, Any]]:
        federations: Federations[SyncDriver] = Federations(driver)
        runs: Runs[SyncDriver] = Runs(driver)
        federations.create(_FEDERATION)
        run = self._run = runs.create(self._plan())
        notice = Notice(
            federation=_FEDERATION,
            run=run.id,
            min_clients=self.coordinator.quorum.min_available,
            model=self.coordinator.model_config,
            server_pid=os.getpid(),
        )
        write_notice(folder, notice)
        status, reason = "failed", None
        try:
            run = self._follow(runs, run)
            status, reason = run.status, run.reason
        finally:
            ended = {"status": status, "reason": reason}
            write_notice(folder, notice.model_copy(update=ended))
        if status == "completed":
            return self.history
        if status == "stopped":
            raise RunStoppedError(
                f"The federation stopped after {run.round} of {self.rounds} rounds"
                f"{f': {reason}' if reason else ''}; start it again to begin anew.",
                run=run.name,
            )
        raise TrustStramException(f"The federation failed: {reason}")

    def _follow(self, runs: Runs[SyncDriver], run: Run) -> Run:
        while run.status not in _SETTLED:
            if self._stop.wait(_LOOK_EVERY_S):
                return runs.stop(run.id)
            run = self._run = runs.get(run.id)
            self._say()
        return run

    def _say(self) -> None:
        """A line for every round that is new: this may run where nothing else is seen."""
        for entry in self.history[self._said :]:
            accuracy = entry["accuracy"]
            scored = "" if accuracy is None else f"accuracy {accuracy:.3f}, "
            print(  # noqa: T201 - the progress of a program without cards
                f"Round {entry['number']} of {self.rounds}: {scored}loss {entry['loss']:.3f}, "
                f"{entry['sites']} clients, {entry['rows']} rows"
            )
        self._said = len(self.history)

    def _plan(self) -> CreateRun:
        quorum = {**self.coordinator.quorum.model_dump()}
        quorum.update(wait_s=self._wait_s, deadline_s=self._round_s)
        config: dict[str, Any] = {}
        if self.coordinator.model_config is not None:
            config["model_config"] = model_text(self.coordinator.model_config)
        return CreateRun.model_validate(
            {
                "model": _FEDERATION,
                "federation": _FEDERATION,
                "sites": [],
                "open_roster": True,
                "rounds": self.rounds,
                "strategy": self.strategy.model_dump(),
                "quorum": quorum,
                "local": self._local,
                "config": config,
                "evaluation": "every",
                "architecture": None,
                "signature": None,
                "initial_weights_sha256": None,
                "simulated": False,
            }
        )


def _free_address(address: Address) -> Address:
    """The address, with a port that nobody has.

    Raises:
        ConfigurationError: somebody has it.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", address.port))
            return Address(address.host, probe.getsockname()[1])
        except OSError as error:
            holder = port_holder(address.port)
            who = f"{holder} listens there" if holder else str(error.strerror)
            raise ConfigurationError(
                f"Port {address.port} of this computer cannot be used: {who}; stop it, or pass "
                "port=0 for any free port."
            ) from error


@contextlib.contextmanager
def _platform(folder: Path, port: int, stop: threading.Event) -> Iterator[SandboxState]:
    """The platform's process on the port, until the end of the block."""
    former = read_state(folder)
    log = folder / "platform.log"
    package = str(Path(truststram_lab.__file__).parent.parent)
    paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = {k: v for k, v in os.environ.items() if k != "TRUSTSTRAM_API_KEY"}
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    command = [sys.executable, "-P", "-m", "truststram_lab.server", "--home", str(folder)]
    with log.open("ab") as output:
        since = output.tell()
        process = subprocess.Popen(  # noqa: S603 - our own module, our own arguments
            [*command, "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
    try:
        yield _opened(folder, process, former, since, stop.is_set)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _opened(
    folder: Path,
    process: subprocess.Popen[bytes],
    former: SandboxState | None,
    since: int,
    stopped: Callable[[], bool],
) -> SandboxState:
    deadline = time.monotonic() + _START_S
    while not stopped():
        state = read_state(folder)
        fresh = state is not None and (former is None or state.instance != former.instance)
        if state is not None and fresh and ask(state) == "ours":
            return state
        if process.poll() is not None or time.monotonic() > deadline:
            raise PlatformUnavailableError(
                f"The federated server did not start: {last_words(folder, since=since)}; its log "
                f"is {folder / 'platform.log'}."
            )
        time.sleep(0.02)
    raise RunStoppedError("The federated server was stopped before it was open.")
