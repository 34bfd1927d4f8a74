"""A real Jupyter server with the extension, with a home and a platform of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

import truststram_lab
from truststram_lab import sandbox

START_S = 60.0
TOKEN = "jupyter-token-of-the-test"
BASE = "/user/jo/"
SERVER_CONFIG = Path(truststram_lab.__file__).parent / "_jupyter" / "server-config"


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """No state, setting or secret of this user; the extension is enabled by its file."""
    config = folder / "config" / "jupyter_server_config.d"
    shutil.copytree(SERVER_CONFIG, config, dirs_exist_ok=True)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TRUSTSTRAM_", "EDGEML_"))}
    return {
        **kept,
        "HOME": str(folder),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(truststram_lab.__file__).parents[1]),
        "TRUSTSTRAM_HOME": str(folder / "home"),
        "TRUSTSTRAM_TOKEN_STORAGE": "memory",
        **settings,
    }


class Jupyter:
    """A ``jupyter server`` process under a base URL, and what it said."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.root = folder / "root"
        self.root.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log_file = folder / "jupyter.log"
        #: head and body of every answer that a client of this object read
        self.seen: list[bytes] = []
        self._clients: list[httpx.Client] = []
        command = [
            sys.executable, "-m", "jupyter_server", "--allow-root", "--no-browser",
            "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={self.port}",
            "--ServerApp.port_retries=0", f"--ServerApp.base_url={BASE}",
            f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={self.root}",
            "--log-level=DEBUG",
        ]  # fmt: skip
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.root,
                env=environment(folder, **settings),
                stdout=log,
                stderr=log,
            )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{BASE}"

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def wait(self) -> Jupyter:
        """Until it answers."""
        deadline = time.monotonic() + START_S
        with httpx.Client(trust_env=False) as client:
            while True:
                assert self.process.poll() is None, self.log
                assert time.monotonic() < deadline, self.log
                try:
                    if client.get(f"{self.url}api").status_code == 200:
                        return self
                except httpx.TransportError:
                    time.sleep(0.05)

    def client(self, token: str | None = TOKEN, **options: Any) -> httpx.Client:
        """A client under ``truststram/``, signed in to Jupyter with its token."""
        made = httpx.Client(
            base_url=f"{self.url}truststram/",
            headers={"Authorization": f"token {token}"} if token else {},
            timeout=60,
            trust_env=False,
            event_hooks={"response": [self._look]},
            **options,
        )
        self._clients.append(made)
        return made

    def _look(self, answer: httpx.Response) -> None:
        head = b"\n".join(name + b": " + value for name, value in answer.headers.raw)
        self.seen.append(head)
        if "json" in answer.headers.get("content-type", ""):
            answer.read()
            self.seen.append(answer.content)

    def peak_bytes(self) -> int:
        """The most memory that the process has had so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    def end(self) -> None:
        for client in self._clients:
            client.close()
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        sandbox.stop(self.home)
