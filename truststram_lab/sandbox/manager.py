"""Find the sandbox or start it; look at it, stop it, empty it."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from truststram_lab import __version__, config
from truststram_lab.exceptions import (
    ConfigurationError,
    InvalidInputError,
    PlatformUnavailableError,
    RequestTimeoutError,
    TrustStramException,
)
from truststram_lab.schemas.base import PROTOCOL
from truststram_lab.transport import Call, Target, TargetProvider
from truststram_lab.transport.drivers import HttpDriver
from truststram_lab.transport.engine import RetryPolicy

from .process import ask, is_alive, last_words, spawn
from .state import LOCK, LOG, STANDING, STATE, SandboxState, open_home, read_state

__all__ = ["ensure", "reset", "status", "stop", "target"]

_START_S = 60.0
_STOP_S = 10.0
_TICK_S = 0.02

#: What a reset deletes. Named one by one: TRUSTSTRAM_HOME may hold other things.
_OWN_FILES = (STATE, LOG, f"{LOG}.1")
_OWN_PATTERNS = ("*.db", "*.db-wal", "*.db-shm", "*.db-journal", ".sandbox-*")
_OWN_FOLDERS = ("blobs", "predictions")


def ensure(home: Path | None = None, *, deadline_s: float = _START_S) -> SandboxState:
    """The running sandbox; started when there is none.

    Processes that call at the same time end up with the same one. A warm call costs one
    small request on a kept connection. One of an older version than this package's is
    replaced and its state migrated; a newer one understands this package.

    Args:
        home: folder of its state; ``config.home()`` by default.
        deadline_s: seconds to wait for a start, this one or another process's.

    Raises:
        ConfigurationError: the one that runs speaks another protocol.
        PlatformUnavailableError: it did not start; the sentence has its last words.
        RequestTimeoutError: it did not get ready in time.
    """
    folder = open_home(home or config.home())
    found = _running(folder, time.monotonic() + deadline_s)
    if found is not None and not _is_older(found):
        return found
    deadline = time.monotonic() + deadline_s
    with _locked(folder, deadline):
        found = _running(folder, deadline)
        if found is not None and _is_older(found):
            # It may not know what this package asks for; the new one takes over its state.
            _end(found, time.monotonic() + _STOP_S)
            found = None
        return found or _start(folder, deadline)


def status(home: Path | None = None) -> SandboxState | None:
    """The sandbox if it runs, else None; never starts one."""
    state = read_state(home or config.home())
    return state if state is not None and ask(state) == "ours" else None


def stop(home: Path | None = None) -> bool:
    """Stop the sandbox and wait until it is gone; False when none was running.

    Its state stays; the next ``ensure`` continues with it.

    Raises:
        RequestTimeoutError: it is still there after 10 s.
    """
    folder = home or config.home()
    if not folder.is_dir():
        return False
    deadline = time.monotonic() + _STOP_S
    with _locked(folder, deadline + _START_S):
        state = status(folder)
        if state is None:
            return False
        _end(state, time.monotonic() + _STOP_S)
        return True


def reset(home: Path | None = None, *, confirm: bool = False) -> None:
    """Stop the sandbox and delete everything it holds.

    Raises:
        InvalidInputError: without ``confirm=True``.
        ConfigurationError: the folder is a standing platform's; nothing of it is touched.
    """
    if not confirm:
        raise InvalidInputError(
            "A reset deletes every model, run and deployment of the sandbox; "
            "if that is wanted: reset(confirm=True).",
            field="confirm",
        )
    folder = home or config.home()
    _check_not_standing(folder)
    stop(folder)
    if not folder.is_dir():
        return
    with _locked(folder, time.monotonic() + _START_S):
        _check_not_standing(folder)  # one may have been started in the folder meanwhile
        if status(folder) is not None:
            raise PlatformUnavailableError(
                "Another process started the sandbox again during the reset; reset it once more."
            )
        for name in _OWN_FILES:
            (folder / name).unlink(missing_ok=True)
        for pattern in _OWN_PATTERNS:
            for file in folder.glob(pattern):
                file.unlink(missing_ok=True)
        for name in _OWN_FOLDERS:
            shutil.rmtree(folder / name, ignore_errors=True)


def _check_not_standing(folder: Path) -> None:
    if os.path.lexists(folder / STANDING):
        raise ConfigurationError(
            f"{folder} is a standing platform's folder, whose models and runs are a team's, so it "
            "is not reset; set TRUSTSTRAM_HOME to the sandbox's folder."
        )


def target(home: Path | None = None) -> TargetProvider:
    """The sandbox as an address for a client: found, and started again when it is gone."""
    folder = home or config.home()

    def provide(*, failed: bool = False) -> Target:
        del failed  # ensure() trusts nothing that does not answer now
        state = ensure(folder)
        return Target(state.url, state.api_key, state.protocol)

    return provide


def _running(folder: Path, deadline: float) -> SandboxState | None:
    """The sandbox of the state file if it answers; None when a new one is needed."""
    while True:
        state = read_state(folder)
        if state is None:
            return None
        answer = ask(state)
        if answer == "ours":
            return _compatible(state)
        if answer != "silent" or not is_alive(state.pid):
            return None
        # It has the port and lives, so it is only busy: a second one would be wrong.
        if time.monotonic() > deadline:
            raise RequestTimeoutError(
                f"The sandbox (process {state.pid}) is running but does not answer; "
                f"its log is {folder / LOG}."
            )


def _compatible(state: SandboxState) -> SandboxState:
    if state.protocol != PROTOCOL:
        raise ConfigurationError(
            f"The sandbox that runs here is version {state.version} and speaks protocol "
            f"{state.protocol}, this package speaks {PROTOCOL}; stop it with "
            "%ts_sandbox stop, or set TRUSTSTRAM_HOME to another folder."
        )
    return state


def _start(folder: Path, deadline: float) -> SandboxState:
    log = folder / LOG
    former = read_state(folder)
    process, since = spawn(folder)
    while True:
        state = read_state(folder)
        fresh = state is not None and (former is None or state.instance != former.instance)
        if state is not None and fresh and ask(state) == "ours":
            return dataclasses.replace(_compatible(state), started=True)
        if process.poll() is not None:
            raise PlatformUnavailableError(
                f"The sandbox did not start: {last_words(folder, since=since)} "
                f"(exit code {process.returncode}); its log is {log}."
            )
        if time.monotonic() > deadline:
            _give_up(process)
            raise RequestTimeoutError(
                f"The sandbox was not ready in time: {last_words(folder, since=since)}; "
                f"its log is {log}."
            )
        time.sleep(_TICK_S)


def _give_up(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(2.0)
    except subprocess.TimeoutExpired:
        process.kill()


def _is_older(state: SandboxState) -> bool:
    return _numbers(state.version) < _numbers(__version__)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def _end(state: SandboxState, deadline: float) -> None:
    """Ask it to leave, insist after half the time, and wait until it is gone."""
    halfway = time.monotonic() + (deadline - time.monotonic()) / 2
    _ask_to_leave(state)
    while is_alive(state.pid):
        now = time.monotonic()
        if now > deadline:
            raise RequestTimeoutError(
                f"The sandbox (process {state.pid}) is still at work after {_STOP_S:g} s; "
                "stop it again."
            )
        # The number may belong to another process by now: only who answers as the
        # sandbox is told to go.
        if now > halfway and ask(state) == "ours":
            with contextlib.suppress(ProcessLookupError):
                os.kill(state.pid, signal.SIGTERM)
        time.sleep(_TICK_S)


def _ask_to_leave(state: SandboxState) -> None:
    fixed = Target(state.url, state.api_key, state.protocol)
    driver = HttpDriver(fixed, policy=RetryPolicy(attempts=1))
    try:
        driver.send(Call("POST", "/api/v1/sandbox/shutdown", None, timeout_s=_STOP_S / 2))
    except TrustStramException:
        # It may have left before it answered, or be stuck; the caller waits and then insists.
        return
    finally:
        driver.close()


@contextlib.contextmanager
def _locked(folder: Path, deadline: float) -> Iterator[None]:
    """Hold the folder's lock; it falls with the process that holds it."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RequestTimeoutError(
                        "Another process has been starting or stopping the sandbox for too "
                        f"long; its log is {folder / LOG}."
                    ) from None
                time.sleep(_TICK_S)
        yield
    finally:
        os.close(descriptor)
