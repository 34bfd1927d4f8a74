"""A real Jupyter kernel, driven as a notebook drives it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from jupyter_client import BlockingKernelClient, KernelManager

import truststram_lab

TIMEOUT_S = 120.0


@dataclass
class Cell:
    """What a front end holds of a cell: its outputs as they would be saved, and the reply."""

    code: str
    outputs: list[dict[str, Any]] = field(default_factory=list)
    reply: dict[str, Any] | None = None

    @property
    def error(self) -> dict[str, Any] | None:
        return next((o for o in self.outputs if o["output_type"] == "error"), None)

    @property
    def text(self) -> str:
        """Everything that is shown, as text."""
        parts = []
        for output in self.outputs:
            if output["output_type"] == "stream":
                parts.append(output["text"])
            elif output["output_type"] == "error":
                parts += output["traceback"]
            else:
                parts.append(output["data"].get("text/plain", ""))
        return "\n".join(parts)

    @property
    def html(self) -> str:
        return "\n".join(o["data"].get("text/html", "") for o in self.outputs if "data" in o)


class Notebook:
    """Runs cells in a kernel and keeps their outputs up to date, across cells."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager = manager
        self.client = client
        self.cells: dict[str, Cell] = {}
        #: every message the kernel published, in order
        self.messages: list[dict[str, Any]] = []
        self._by_display_id: dict[str, list[dict[str, Any]]] = {}

    def run(self, code: str, *, fails: bool = False) -> Cell:
        """Execute a cell to its end; an error fails the test unless it is expected."""
        cell = self.finish(self.start(code))
        if not fails:
            assert cell.error is None, cell.text
        return cell

    def start(self, code: str) -> str:
        key: str = self.client.execute(code)
        self.cells[key] = Cell(code)
        return key

    def finish(self, key: str, timeout_s: float = TIMEOUT_S) -> Cell:
        """Wait until a started cell is done."""
        self.until(
            lambda m: (
                m["msg_type"] == "status"
                and m["content"]["execution_state"] == "idle"
                and m["parent_header"].get("msg_id") == key
            ),
            timeout_s,
        )
        cell = self.cells[key]
        while cell.reply is None:
            reply = self.client.get_shell_msg(timeout=timeout_s)
            if reply["parent_header"].get("msg_id") in self.cells:
                self.cells[reply["parent_header"]["msg_id"]].reply = reply["content"]
        return cell

    def until(
        self, wanted: Callable[[dict[str, Any]], bool], timeout_s: float = TIMEOUT_S
    ) -> dict[str, Any]:
        """Take in messages up to the first wanted one."""
        deadline = time.monotonic() + timeout_s
        while True:
            message = self.client.get_iopub_msg(timeout=max(0.01, deadline - time.monotonic()))
            self._take(message)
            if wanted(message):
                return message

    def interrupt(self) -> None:
        self.manager.interrupt_kernel()

    def complete(self, code: str) -> list[str]:
        """What Tab offers at the end of ``code``, with the text before the cursor replaced."""
        self.client.complete(code, len(code))
        while True:
            reply = self.client.get_shell_msg(timeout=TIMEOUT_S)
            if reply["msg_type"] == "complete_reply":
                content = reply["content"]
                return [code[: content["cursor_start"]] + match for match in content["matches"]]

    def saved(self) -> list[dict[str, Any]]:
        """All outputs, as a notebook would save them now."""
        return [output for cell in self.cells.values() for output in cell.outputs]

    def _take(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        kind, content = message["msg_type"], message["content"]
        if kind == "update_display_data":
            for output in self._by_display_id.get(content["transient"]["display_id"], []):
                output.update(data=content["data"], metadata=content["metadata"])
            return
        cell = self.cells.get(message["parent_header"].get("msg_id", ""))
        if cell is None or kind not in ("stream", "error", "display_data", "execute_result"):
            return
        output = {"output_type": kind, **content}
        display_id = output.pop("transient", {}).get("display_id")
        if display_id is not None:
            self._by_display_id.setdefault(display_id, []).append(output)
        cell.outputs.append(output)


@pytest.fixture(scope="module")
def kernel_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A kernel's own home: no state, setting or secret of this user is seen."""
    home = tmp_path_factory.mktemp("kernel")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TRUSTSTRAM_", "EDGEML_"))}
    return {
        **kept,
        "HOME": str(home),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_CONFIG_DIR": str(home / "jupyter"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "TRUSTSTRAM_HOME": str(home / "sandbox"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(truststram_lab.__file__).parents[1]),
    }


@pytest.fixture(scope="module")
def open_notebook(kernel_env: dict[str, str]) -> Iterator[Callable[[], Notebook]]:
    """Opens notebooks, each with a kernel of its own, on one home and one sandbox."""
    opened: list[Notebook] = []

    def open_one() -> Notebook:
        manager = KernelManager(kernel_name="python3")
        manager.start_kernel(env=kernel_env)
        client = manager.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=TIMEOUT_S)
        opened.append(Notebook(manager, client))
        return opened[-1]

    yield open_one
    for notebook in opened:
        notebook.client.stop_channels()
        notebook.manager.shutdown_kernel(now=True)
        notebook.manager.cleanup_resources()
    # Last, because a kernel that still works would start it again.
    stop = "from truststram_lab import sandbox; sandbox.stop()"
    subprocess.run([sys.executable, "-c", stop], env=kernel_env, check=True)


@pytest.fixture(scope="module")
def notebook(open_notebook: Callable[[], Notebook]) -> Notebook:
    return open_notebook()
