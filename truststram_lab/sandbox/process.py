"""The platform's process from outside: start it, ask its health, see whether it lives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Literal

import truststram_lab
from truststram_lab.config import number_setting
from truststram_lab.exceptions import (
    ConfigurationError,
    PlatformUnavailableError,
    RequestTimeoutError,
    TrustStramException,
)
from truststram_lab.schemas.base import PROTOCOL, Health
from truststram_lab.transport import Call, Target
from truststram_lab.transport.drivers import HttpDriver
from truststram_lab.transport.engine import RetryPolicy

from .state import LOG, SandboxState

__all__ = ["Answer", "ask", "is_alive", "last_words", "spawn"]

_IDLE_S = 1800.0
_HEALTH_S = 2.0

#: ours: the instance of the state file; foreign: something else; silent: too slow to say;
#: gone: nobody listens
Answer = Literal["ours", "foreign", "silent", "gone"]

_probes: dict[str, HttpDriver] = {}
_probes_lock = threading.Lock()


def ask(state: SandboxState) -> Answer:
    """Ask ``/health``; the credential is not shown to whoever listens there."""
    with _probes_lock:
        probe = _probes.get(state.url)
        if probe is None:
            for stale in _probes.values():
                stale.close()
            _probes.clear()
            fixed = Target(state.url, protocol=PROTOCOL)
            probe = _probes[state.url] = HttpDriver(fixed, policy=RetryPolicy(attempts=1))
    question: Call[Health] = Call("GET", "/health", Health, timeout_s=_HEALTH_S)
    try:
        health = probe.send(question)
    except RequestTimeoutError:
        return "silent"
    except PlatformUnavailableError:
        return "gone"
    except TrustStramException:
        return "foreign"
    return "ours" if health.instance == state.instance else "foreign"


def spawn(home: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start the platform on ``home``, detached from this process and its terminal.

    Returns the process and the size of its log before it wrote anything.

    Raises:
        ConfigurationError: there is no Python to start it with.
    """
    if not sys.executable:
        raise ConfigurationError(
            "This Python does not know its own executable, so it cannot start the sandbox; "
            "start it with python -m truststram_lab.server and set TRUSTSTRAM_BASE_URL."
        )
    log = home / LOG
    idle_s = number_setting("IDLE_S", _IDLE_S)
    command = [sys.executable, "-P", "-m", "truststram_lab.server"]
    command += ["--home", str(home), "--idle-s", f"{idle_s:g}"]
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "ab") as output:
        size = output.tell()
        process = subprocess.Popen(  # noqa: S603 - our own module, our own arguments
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=home,
            env=_environment(),
            start_new_session=True,
            close_fds=True,
        )
    # Somebody has to collect it when it exits, or a dead process would look alive.
    threading.Thread(target=process.wait, name="sandbox process", daemon=True).start()
    return process, size


def _environment() -> dict[str, str]:
    # The same package as here, wherever it was imported from, and none of the notebook's folder.
    package = str(Path(truststram_lab.__file__).parent.parent)
    paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    # A key to another platform is none of the sandbox's business.
    inherited = {name: text for name, text in os.environ.items() if name != "TRUSTSTRAM_API_KEY"}
    return {**inherited, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that is dead but not yet collected does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] != "Z"


def last_words(home: Path, *, since: int) -> str:
    """The last line the process wrote to its log after byte ``since``."""
    try:
        with (home / LOG).open("rb") as file:
            file.seek(max(since, file.seek(0, os.SEEK_END) - 65_536))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    # Libraries close an error with bracketed hints; the sentence is above them.
    said = [line.strip() for line in lines if line.strip() and line.strip()[0] not in "([^~"]
    last = said[-1] if said else "it left no word"
    try:
        return str(json.loads(last)["message"])
    except (ValueError, KeyError, TypeError):
        return last
