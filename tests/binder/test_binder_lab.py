"""A small machine is enough: memory of the tutorial's kernel, and where JupyterLab opens."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from jupyter_client import KernelManager

import truststram_lab
from truststram_lab import sandbox

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "notebooks" / "01_three_cells.ipynb"
CELL_S = 150
KERNEL_LIMIT_BYTES = 10**9

pytestmark = [pytest.mark.kernel, pytest.mark.long]


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A machine of its own, as ``binder/start`` makes it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TRUSTSTRAM_", "EDGEML_"))}
    yield {
        **kept,
        "HOME": str(tmp_path),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_DATA_DIR": str(tmp_path / "data"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "PYTHONPATH": str(Path(truststram_lab.__file__).parents[1]),
        "TRUSTSTRAM_HOME": str(tmp_path / "home"),
        "TRUSTSTRAM_TOKEN_STORAGE": "memory",
    }
    sandbox.stop(tmp_path / "home")


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_the_three_cells_leave_the_kernel_under_a_gigabyte(environment):
    cells = json.loads(TUTORIAL.read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(sources) == 3
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env=environment)
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        ask = client.execute_interactive(
            "", user_expressions={"pid": "__import__('os').getpid()"}, timeout=60
        )
        pid = int(ask["content"]["user_expressions"]["pid"]["data"]["text/plain"])
        for source in sources:
            reply = client.execute_interactive(
                source, timeout=CELL_S, output_hook=lambda message: None
            )
            assert reply["content"]["status"] == "ok", reply["content"]
        measured = resident_bytes(pid)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
    print(f"kernel after three cells: {measured / 1e6:.0f} MB")
    assert measured < KERNEL_LIMIT_BYTES


def test_jupyterlab_opens_on_the_first_tutorial(environment):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lab = Path(sys.executable).with_name("jupyter-lab")
    process = subprocess.Popen(
        [str(ROOT / "binder" / "start"), str(lab), "--allow-root", "--no-browser",
         "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
         "--IdentityProvider.token=t", "--ServerApp.base_url=/user/jo/"],
        cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        with httpx.Client(trust_env=False) as browser:
            while True:
                assert process.poll() is None
                assert time.monotonic() < deadline
                try:
                    answer = browser.get(f"http://127.0.0.1:{port}/user/jo/?token=t")
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            assert answer.status_code == 302
            place = answer.headers["location"].partition("?")[0]
            assert place == "/user/jo/lab/tree/notebooks/01_three_cells.ipynb"
    finally:
        process.terminate()
        process.wait(20)
