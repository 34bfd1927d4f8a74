"""The command line as a process, and a standing platform that it started."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

COMMAND = (sys.executable, "-m", "truststram_lab.cli")


class Platform:
    """``truststram-lab serve``, with its terminal in a file."""

    def __init__(self, folder: Path, *options: str) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.terminal = folder / "terminal.txt"
        with self.terminal.open("wb") as output:
            self.process = subprocess.Popen(
                [*COMMAND, "serve", "--home", str(folder / "home"), "--port", str(port), *options],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 60
        while not re.search(r"setup token: \S+\n", self.terminal.read_text()):
            assert self.process.poll() is None, self.terminal.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    @property
    def token(self) -> str:
        return re.findall(r"setup token: (\S+)", self.terminal.read_text())[0]

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def run(*arguments: str, typed: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    """The command, its standard input a pipe, in an environment of its own."""
    bare = {k: v for k, v in os.environ.items() if not k.startswith(("TRUSTSTRAM_", "EDGEML_"))}
    return subprocess.run(
        [*COMMAND, *arguments],
        input=typed,
        capture_output=True,
        text=True,
        timeout=120,
        env={**bare, **settings},
    )
