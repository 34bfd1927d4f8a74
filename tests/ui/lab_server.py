"""A JupyterLab process of its own: settings, data and runtime files in one folder."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat.sign import NotebookNotary

import truststram_lab

TOKEN = "tok"
#: our front-end extension's name
OURS = "truststram-lab"
_PACKAGE = Path(truststram_lab.__file__).parent
_START_S = 90.0
_PYTHON = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


class LabServer:
    """JupyterLab on the loopback address, started from this environment.

    Args:
        folder: everything that the process reads and writes is below it.
        disabled: front-end extensions that are switched off.
        extension: whether it has our own, from this checkout; else it is switched off.
    """

    #: the module that is started, its name among the options, and where a notebook opens
    MODULE, APPLICATION, PLACE = "jupyterlab", "LabApp", "lab/tree"

    def __init__(
        self, folder: Path, *, disabled: Sequence[str] = (), extension: bool = True
    ) -> None:
        self.folder = folder
        self.root = folder / "notebooks"
        self.root.mkdir(parents=True)
        self.log = folder / "lab.log"
        self.port = _free_port()
        self._extension = extension
        self._disabled = tuple(disabled) if extension else (*disabled, OURS)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def start(self) -> LabServer:
        self._write_settings()
        options = (
            "--allow-root",
            "--no-browser",
            "--ip=127.0.0.1",
            f"--port={self.port}",
            "--ServerApp.port_retries=0",
            f"--ServerApp.root_dir={self.root}",
            f"--IdentityProvider.token={TOKEN}",
            f"--{self.APPLICATION}.expose_app_in_browser=True",
        )
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.MODULE, *options],
                env=self._environment(),
                cwd=self.root,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._wait_until_it_answers()
        return self

    def stop(self) -> None:
        process = self._process
        if process is None:
            return
        # Once, and patiently: it shuts its kernels down before it exits.
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def address(self, path: str) -> str:
        """Where a notebook opens by itself, in a fresh workspace."""
        return f"http://127.0.0.1:{self.port}/{self.PLACE}/{path}?token={TOKEN}&reset"

    def add_notebook(self, name: str, cells: Sequence[str] = ()) -> str:
        """A notebook of code cells; its kernel is named, or JupyterLab asks for one."""
        book = nbformat.v4.new_notebook(metadata={"kernelspec": _PYTHON})
        book.cells = [nbformat.v4.new_code_cell(source) for source in cells]
        nbformat.write(book, self.root / name)
        return name

    def add_saved(self, name: str, source: Path, *, trusted: bool) -> str:
        """A copy of a saved notebook, signed by this server's key.

        Args:
            trusted: else it is edited after the signature, as when it came by mail.
        """
        book = nbformat.read(source, as_version=4)
        notary = NotebookNotary(data_dir=str(self.data))
        notary.sign(book)
        notary.store.close()
        if not trusted:
            book.cells[-1].source += "\n"
        nbformat.write(book, self.root / name)
        return name

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "HOME": str(self.folder),
            "IPYTHONDIR": str(self.folder / "ipython"),
            "JUPYTER_CONFIG_DIR": str(self.folder / "config"),
            "JUPYTER_DATA_DIR": str(self.data),
            "JUPYTER_RUNTIME_DIR": str(self.folder / "runtime"),
            "JUPYTERLAB_SETTINGS_DIR": str(self.folder / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(self.folder / "workspaces"),
        }

    def _write_settings(self) -> None:
        self.data.mkdir()
        quiet = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}
        self._write(
            "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings", quiet
        )
        # Cells out of sight would not be in the page.
        whole = {"windowingMode": "none"}
        self._write("settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings", whole)
        off = {"disabledExtensions": dict.fromkeys(self._disabled, True)}
        self._write("config/labconfig/page_config.json", off)
        if self._extension:
            self._add_ours()

    def _add_ours(self) -> None:
        """What an installed wheel brings into Jupyter's folders."""
        (self.data / "labextensions").mkdir()
        (self.data / "labextensions" / OURS).symlink_to(_PACKAGE / "labextension")
        for source in (_PACKAGE / "_jupyter" / "server-config").glob("*.json"):
            name = f"config/jupyter_server_config.d/{source.name}"
            self._write(name, json.loads(source.read_text()))

    def _write(self, name: str, content: object) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api", timeout=5):
                    return
            except (urllib.error.URLError, TimeoutError, ConnectionError):
                time.sleep(0.2)
        self.stop()
        raise AssertionError(f"JupyterLab did not start:\n{self.log.read_text()[-3000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
