"""A real PostgreSQL server for the tests: a cluster of its own, reached by a socket only."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

START_S = 30.0
_DEBIAN = Path("/usr/lib/postgresql")


def programs() -> Path | None:
    """The folder of PostgreSQL's programs; the newest release of Debian's packages."""
    found = sorted(_DEBIAN.glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("postgres")
    return None if on_path is None else Path(on_path).resolve().parent


class PostgreSQL:
    """A cluster in a folder of its own; no address of a network is listened at.

    PostgreSQL refuses to run as root, so root starts it as the user ``postgres``.
    """

    def __init__(self) -> None:
        found = programs()
        assert found is not None, "look at programs() first"
        self._programs = found
        self._as: dict[str, Any] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="ts-postgresql-"))
        if os.geteuid() == 0:
            self.user = "postgres"
            entry = pwd.getpwnam(self.user)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
            self._as = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        else:
            self.user = pwd.getpwuid(os.geteuid()).pw_name
        self._data = self.folder / "data"
        self._server: subprocess.Popen[bytes] | None = None
        # As most installations have it: texts are not ordered by their bytes.
        order = ("--locale-provider", "icu", "--icu-locale", "en-US", "--locale", "C.UTF-8")
        self._call("initdb", "--pgdata", self._data, "--auth", "trust", "-E", "UTF8", *order)
        self.start()

    def _call(self, program: str, *arguments: object) -> None:
        done = subprocess.run(
            [self._programs / program, *map(str, arguments)],
            capture_output=True,
            cwd=self.folder,
            timeout=120,
            **self._as,
        )
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        log = (self.folder / "log").open("ab")
        self._server = subprocess.Popen(
            [
                self._programs / "postgres",
                *("-D", str(self._data), "-k", str(self.folder)),
                *("-c", "listen_addresses=", "-c", "max_connections=200"),
            ],
            stdout=log,
            stderr=log,
            cwd=self.folder,
            **self._as,
        )
        log.close()
        deadline = time.monotonic() + START_S
        while not self._answers():
            assert self._server.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)

    def _answers(self) -> bool:
        done = subprocess.run(
            [self._programs / "pg_isready", "-q", "-h", self.folder, "-U", self.user],
            capture_output=True,
            timeout=30,
        )
        return done.returncode == 0

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server; SIGINT is its fast way, SIGKILL as if the power went."""
        assert self._server is not None
        # The postmaster's children look for it and end by themselves after a SIGKILL.
        self._server.send_signal(how)
        self._server.wait(30)
        self._server = None

    def url(self, name: str) -> str:
        return f"postgresql://{self.user}@/{name}?host={self.folder}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"ts_{uuid.uuid4().hex}"
        self._call("createdb", "-h", self.folder, "-U", self.user, name)
        return self.url(name)

    def end(self) -> None:
        if self._server is not None:
            self.stop()
        shutil.rmtree(self.folder)
