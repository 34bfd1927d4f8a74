"""Flower's round on the payload of ``round_cost``: its real server and five real clients.

Flower lives in an environment of its own, because it pins other versions of the platform's
libraries. ``TRUSTSTRAM_BENCH_FLOWER`` names that environment's Python, or it is found at
``build/flower/bin/python`` (``python -m venv build/flower && build/flower/bin/pip install
flwr``). Its server and clients are started by ``start_server`` and ``start_client``, the leanest
of its ways that has real processes; its CLI adds three more processes.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

VARIABLE = "TRUSTSTRAM_BENCH_FLOWER"
PLACE = Path(__file__).parents[2] / "build" / "flower" / "bin" / "python"
ROUNDS = 8

_COMMON = """
    import json, sys
    import numpy as np
    import flwr as fl

    address, rounds, shapes = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
"""

_SERVER = """
    class Told(fl.server.strategy.FedAvg):
        def configure_fit(self, server_round, parameters, client_manager):
            print("round", flush=True)
            return super().configure_fit(server_round, parameters, client_manager)

        def aggregate_fit(self, server_round, results, failures):
            if len(results) != 5 or failures:
                sys.exit("a client's update is missing")
            return super().aggregate_fit(server_round, results, failures)

    start = fl.common.ndarrays_to_parameters([np.zeros(s, np.float32) for s in shapes])
    told = Told(fraction_evaluate=0.0, min_fit_clients=5, min_available_clients=5,
                initial_parameters=start)
    print(fl.__version__, flush=True)
    fl.server.start_server(server_address=address, strategy=told,
                           config=fl.server.ServerConfig(num_rounds=rounds))
"""

_CLIENT = """
    rng = np.random.default_rng(rounds)
    update = [(1e-3 * rng.normal(size=s)).astype(np.float32) for s in shapes]

    class Site(fl.client.NumPyClient):
        def fit(self, parameters, config):
            return update, 10, {}

    fl.client.start_client(server_address=address, client=Site().to_client())
"""


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process and all its threads, ended ones too, in whole ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(fields[place]) for place in (11, 12, 13, 14)) / os.sysconf("SC_CLK_TCK")


def python() -> Path | None:
    """The Python that has Flower; None if there is none here."""
    found = Path(os.environ.get(VARIABLE) or PLACE)
    return found if found.exists() else None


def run(shapes: Sequence[Sequence[int]], rounds: int = ROUNDS) -> dict[str, Any]:
    """CPU seconds a round of Flower's six processes.

    Returns:
        ``missing``: how to have it measured, where Flower is not installed; else ``version``,
        ``cpu_s``: one number for each round but the first and the last, waiting for it included.
    """
    interpreter = python()
    if interpreter is None:
        return {"missing": f"set {VARIABLE} to the Python of an environment with flwr"}
    with tempfile.TemporaryDirectory() as folder:
        return _measured(interpreter, Path(folder), shapes, rounds)


def _measured(
    interpreter: Path, folder: Path, shapes: Sequence[Sequence[int]], rounds: int
) -> dict[str, Any]:
    import json

    from .round_cost import PARTICIPANTS

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0", "FLWR_HOME": str(folder)}
    environment.pop("PYTHONPATH", None)

    def start(script: str, number: int) -> subprocess.Popen[str]:
        text = textwrap.dedent(_COMMON) + textwrap.dedent(script)
        return subprocess.Popen(
            [str(interpreter), "-c", text, address, str(number), json.dumps(shapes)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=folder,
            text=True,
        )

    processes = [start(_SERVER, rounds)]
    marks: list[float] = []
    try:
        assert processes[0].stdout is not None
        version = processes[0].stdout.readline().strip()
        processes += [start(_CLIENT, seed) for seed in range(PARTICIPANTS)]
        for line in processes[0].stdout:
            if line.strip() == "round":
                marks.append(sum(_cpu_seconds(process.pid) for process in processes))
        if processes[0].wait(60) or len(marks) != rounds:
            raise RuntimeError(f"Flower's server ended after {len(marks)} of {rounds} rounds")
    finally:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in processes:
            process.communicate(timeout=30)
    spent = [after - before for before, after in itertools.pairwise(marks)]
    return {"version": version, "cpu_s": spent[1:]}
