"""Serving one fitted estimator: the platform beside MLflow's scoring server and BentoML.

All serve the same pickled or converted estimator on 30 columns and answer with probabilities;
what is counted is the CPU time of all processes of a server, over the same requests in turn.
Each peer has an environment of its own with the same scikit-learn: ``TRUSTSTRAM_BENCH_MLFLOW``
and ``TRUSTSTRAM_BENCH_BENTOML`` name their Pythons. MLflow is sent the columns once a request
(``dataframe_split``), which is the leanest of its forms; BentoML batches as it recommends.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from truststram_lab.client import TrustStramClient
from truststram_lab.client.deploying import described, version_of

from .chromium import private_home
from .loads import Load, cpu_seconds, memory_bytes, request, tree
from .pairs import ratio

TITLE = "Serving beside MLflow and BentoML"

PEERS = Path(__file__).parent / "peers"
WIDTH = 30
CONNECTIONS = 16
ESTIMATORS = ("logistic regression", "gradient boosting")
#: ours / theirs in CPU time a row, at most
GOALS = {
    ("logistic regression", "mlflow"): 1 / 4,
    ("logistic regression", "bentoml"): 1 / 6,
    ("gradient boosting", "mlflow"): 1 / 8,
}
#: the same of batches of 1,000 rows, beside MLflow
BATCH_GOAL = 1 / 2


@dataclass(frozen=True)
class Server:
    """A running server of one estimator: its processes, and requests of 1 and of 1,000 rows."""

    name: str
    pid: int
    port: int
    single: list[bytes]
    thousand: list[bytes]
    version: str = ""


def fitted(name: str) -> Any:
    """An estimator, the same each time."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5000, WIDTH))
    y = np.where(x[:, 0] * x[:, 1] + x[:, 2] > 0, "yes", "no")
    made = LogisticRegression(max_iter=500)
    if name == "gradient boosting":
        made = GradientBoostingClassifier(n_estimators=100, max_depth=3, random_state=0)
    return made.fit(x, y)


def bodies(form: Callable[[np.ndarray], Any], rows: int, count: int) -> list[bytes]:
    """Requests of so many random rows each."""
    rng = np.random.default_rng(1)
    return [json.dumps(form(rng.normal(size=(rows, WIDTH)))).encode() for _ in range(count)]


def named(rows: np.ndarray) -> dict[str, Any]:
    """As the platform takes rows."""
    data = [{f"f{k}": value for k, value in enumerate(row)} for row in rows.tolist()]
    return {"data": data[0] if len(data) == 1 else data}


def split(rows: np.ndarray) -> dict[str, Any]:
    """As MLflow takes them leanest."""
    columns = [f"f{place}" for place in range(WIDTH)]
    return {"dataframe_split": {"columns": columns, "data": rows.tolist()}}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(command: list[str], log: Path, port: int, first: bytes) -> Iterator[tuple[int, str]]:
    """A server's process that answers ``first``; its id and what it says of its version."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    if command[0] == sys.executable:
        kept["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
    else:
        kept["PATH"] = f"{Path(command[0]).parent}{os.pathsep}{kept['PATH']}"
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env=kept, start_new_session=True, cwd=log.parent
            if command[0] != sys.executable else None,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                Load(port, [first]).run(1, 1)
                break
            except (OSError, RuntimeError, EOFError):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"no server:\n{log.read_text()[-2000:]}") from None
                time.sleep(0.3)
        said = [line for line in log.read_text().splitlines() if line.startswith("version ")]
        yield process.pid, said[0].removeprefix("version ") if said else ""
    finally:
        for pid in reversed(tree(process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            for pid in reversed(tree(process.pid)):
                os.kill(pid, signal.SIGKILL)
            process.wait()


@contextmanager
def mlflow(python: str, folder: Path, name: str) -> Iterator[Server]:
    port, pickled = free_port(), folder / f"{name}.pkl"
    single = [request(port, "/invocations", body) for body in bodies(split, 1, 20)]
    script = [python, str(PEERS / "mlflow_peer.py"), str(pickled), str(folder / f"{name}-model")]
    with started([*script, str(port)], folder / "mlflow.log", port, single[0]) as (pid, version):
        thousand = [request(port, "/invocations", body) for body in bodies(split, 1000, 3)]
        yield Server("mlflow", pid, port, single, thousand, version)


@contextmanager
def bentoml(python: str, folder: Path, name: str) -> Iterator[Server]:
    port, pickled = free_port(), folder / f"{name}.pkl"

    def rows(values: np.ndarray) -> dict[str, Any]:
        return {"rows": values.tolist()}

    single = [request(port, "/predict", body) for body in bodies(rows, 1, 20)]
    script = [python, str(PEERS / "bentoml_peer.py"), str(pickled), str(port)]
    with started(script, folder / "bentoml.log", port, single[0]) as (pid, version):
        thousand = [request(port, "/predict", body) for body in bodies(rows, 1000, 3)]
        yield Server("bentoml", pid, port, single, thousand, version)


def ours(client: TrustStramClient, home: Path, ref: str, name: str) -> Server:
    state = json.loads((home / "sandbox.json").read_text())
    port = int(state["url"].rpartition(":")[2])
    path = f"/api/v1/endpoints/{ref}/predict"
    single = [request(port, path, body, state["api_key"]) for body in bodies(named, 1, 20)]
    thousand = [request(port, path, body, state["api_key"]) for body in bodies(named, 1000, 3)]
    Load(port, single).run(1, 2)
    del client
    return Server(name, int(state["pid"]), port, single, thousand)


def spent(server: Server, requests: list[bytes], connections: int, each: int) -> float:
    """CPU seconds a request."""
    pids = tree(server.pid)
    before = cpu_seconds(pids)
    Load(server.port, requests).run(connections, each)
    return (cpu_seconds(pids) - before) / (connections * each)


def compared(servers: list[Server], rounds: int, each: int) -> dict[str, Any]:
    """CPU milliseconds a request of each server, in turn, round by round."""
    single: dict[str, list[float]] = {server.name: [] for server in servers}
    thousand: dict[str, list[float]] = {server.name: [] for server in servers}
    for server in servers:
        Load(server.port, server.single).run(CONNECTIONS, 10)
        Load(server.port, server.thousand).run(2, 2)
    for number in range(rounds):
        for server in servers if number % 2 else servers[::-1]:
            single[server.name].append(1e3 * spent(server, server.single, CONNECTIONS, each))
            thousand[server.name].append(1e3 * spent(server, server.thousand, 2, each // 10))
    alone = {s.name: 1e3 * statistics.median(Load(s.port, s.single).run(1, 200)) for s in servers}
    return {"single_ms": single, "thousand_ms": thousand, "lone_p50_ms": alone}


def batching(rounds: int, each: int) -> dict[str, Any]:
    """Throughput of 16 callers and p50 of a lone one, with and without forming batches."""
    from truststram_lab.server.serving import pool
    from truststram_lab.server.serving.interface import Question, ServedVersion
    from truststram_lab.server.serving.local import LocalBackend

    content, signature = described(fitted("gradient boosting"))
    asked = bodies(named, 1, 20)
    usual = pool.BATCH_BYTES
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        path.write_bytes(content)
        from truststram_lab.learning.weights import sha256_hex

        version = ServedVersion(
            "ver", "gb:1", path, sha256_hex(content), None, signature, None, "sklearn"
        )
        backend = LocalBackend(most=1)

        def ask(number: int) -> None:
            question = Question(asked[number % len(asked)], "pred", time.monotonic())
            assert backend.predict(version, question).result().status == 200

        def lone(_: int) -> float:
            started_s = time.perf_counter()
            ask(0)
            return time.perf_counter() - started_s

        def many(_: int) -> None:
            for number in range(each):
                ask(number)

        try:
            backend.apply(version)
            for kind in ("formed", "single"):
                found[kind] = {"per_s": [], "cpu_ms": [], "p50_ms": []}
            for number in range(2 * rounds):
                kind = ("formed", "single")[(number + number // 2) % 2]
                pool.BATCH_BYTES = usual if kind == "formed" else 0
                pid = next(e.data["pid"] for e in backend.events() if "pid" in e.data)
                before, started_s = cpu_seconds([int(pid)]), time.perf_counter()
                with ThreadPoolExecutor(CONNECTIONS) as threads:
                    list(threads.map(many, range(CONNECTIONS)))
                took_s, total = time.perf_counter() - started_s, each * CONNECTIONS
                found[kind]["per_s"].append(total / took_s)
                found[kind]["cpu_ms"].append(1e3 * (cpu_seconds([int(pid)]) - before) / total)
                found[kind]["p50_ms"].append(1e3 * statistics.median(map(lone, range(100))))
        finally:
            pool.BATCH_BYTES = usual
            backend.close()
    return found


@contextmanager
def bare(folder: Path, client: TrustStramClient, home: Path, ref: str) -> Iterator[Server]:
    """The same hop without the platform around it."""
    import sqlite3

    with contextlib.closing(sqlite3.connect(home / "platform.db")) as database:
        [(sha256,)] = database.execute(
            "select converted_sha256 from revisions where converted_sha256 is not null limit 1"
        ).fetchall()
    [weights] = [path for path in (home / "blobs").rglob(f"*{sha256}*") if path.is_file()]
    version = {
        "weights": str(weights),
        "sha256": sha256,
        "runtime": "onnx",
        "signature": client.models.version(ref).signature.model_dump(mode="json"),
    }
    (folder / "version.json").write_text(json.dumps(version))
    port = free_port()
    single = [request(port, "/predict", body) for body in bodies(named, 1, 20)]
    module = f"{__package__}.peers.bare_serving"
    command = [sys.executable, "-m", module, str(folder / "version.json"), str(port)]
    with started(command, folder / "bare.log", port, single[0]) as (pid, _):
        yield Server("bare", pid, port, single, single)


def peers() -> dict[str, str]:
    """Name -> Python of the peers that are there."""
    found = {}
    for name in ("mlflow", "bentoml"):
        python = os.environ.get(f"TRUSTSTRAM_BENCH_{name.upper()}")
        python = python or str(Path(__file__).parents[2] / "build" / name / "bin" / "python")
        if Path(python).exists():
            found[name] = python
    return found


def run(quick: bool = False) -> dict[str, Any]:
    """CPU milliseconds a request, by estimator and server; see ``report``."""
    rounds, each = (2, 20) if quick else (10, 60)
    there = peers()
    ways = {"mlflow": mlflow, "bentoml": bentoml}
    found: dict[str, Any] = {"versions": {}, "estimators": {}, "idle_mb": {}}
    with private_home() as folder, TrustStramClient(environment="sandbox") as client:
        home = Path(os.environ["TRUSTSTRAM_HOME"])
        for name in ESTIMATORS:
            estimator, ref = fitted(name), name.replace(" ", "-")
            (folder / f"{name}.pkl").write_bytes(pickle.dumps(estimator))
            deployed = client.models.deploy(model=estimator, name=ref)
            assert deployed.runtime == "onnx", deployed.runtime_reason
            servers = [ours(client, home, ref, "onnx")]
            if name == ESTIMATORS[0]:
                time.sleep(2)
                found["idle_mb"]["ours"] = memory_bytes(tree(servers[0].pid)) / 2**20
                with bare(folder, client, home, ref) as other:
                    found["overhead"] = compared([servers[0], other], rounds, 4 * each)
            content, signature = described(estimator)
            client.models.create(f"{ref}-native")
            version = version_of(client.blobs.put(content), signature)
            client.models.create_version(f"{ref}-native", version)
            servers.append(ours(client, home, f"{ref}-native:1", "native"))
            with ExitStack() as stack:
                for peer, python in there.items():
                    servers.append(stack.enter_context(ways[peer](python, folder, name)))
                    found["versions"][peer] = servers[-1].version
                    if name == ESTIMATORS[0]:
                        time.sleep(2)
                        idle = memory_bytes(tree(servers[-1].pid)) / 2**20
                        found["idle_mb"][peer] = idle
                found["estimators"][name] = compared(servers, rounds, each)
    found["batching"] = batching(rounds, 20 if quick else 60)
    assert threading.active_count() < 50
    return found


def report(found: dict[str, Any]) -> str:
    """Tables of milliseconds and ratios, with the goals beside them."""
    lines = [
        "CPU milliseconds a request, all processes of the server; 1 row at 16 connections, and "
        "1,000 rows at 2.",
        "",
        "| Estimator | server | 1 row | 1,000 rows | lone caller p50, ms |",
        "|---|---|---:|---:|---:|",
    ]
    for name, measured in found["estimators"].items():
        for server, values in measured["single_ms"].items():
            version = found["versions"].get(server, "")
            lines.append(
                f"| {name} | {server} {version} | {statistics.median(values):.3f} | "
                f"{statistics.median(measured['thousand_ms'][server]):.1f} | "
                f"{measured['lone_p50_ms'][server]:.2f} |"
            )
    lines += [
        "",
        "| Ours / theirs, CPU | 1 row | goal | 1,000 rows | goal |",
        "|---|---|---|---|---|",
    ]
    for name, measured in found["estimators"].items():
        for own in ("native", "onnx"):
            for peer in found["versions"]:
                goal = GOALS.get((name, peer))
                batch = f"{BATCH_GOAL:.2f}" if peer == "mlflow" else ""
                lines.append(
                    f"| {name}, {own} / {peer} | {_ratio(measured['single_ms'], own, peer)} | "
                    f"{f'{goal:.3f}' if goal else ''} | "
                    f"{_ratio(measured['thousand_ms'], own, peer)} | {batch} |"
                )
    overhead = _ratio(found["overhead"]["single_ms"], "onnx", "bare")
    batches = found["batching"]
    gain = ratio(batches["formed"]["per_s"], batches["single"]["per_s"])[0]
    by_cpu = ratio(batches["single"]["cpu_ms"], batches["formed"]["cpu_ms"])[0]
    wait = ratio(batches["formed"]["p50_ms"], batches["single"]["p50_ms"])
    idle = ", ".join(f"{name} {value:.0f} MB" for name, value in found["idle_mb"].items())
    lines += [
        "",
        f"The platform beside a bare Starlette route with the same hop: {overhead} (goal 1.5).",
        f"Batches that form by themselves, gradient boosting in scikit-learn at 16 callers: "
        f"{gain:.1f} times the throughput, {by_cpu:.1f} times less worker CPU (goal 3); a lone "
        f"caller's p50 changes by {100 * (wait[0] - 1):+.1f} % (goal at most +10 %).",
        f"Idle with one model served (PSS of all processes): {idle} (goal half of MLflow's).",
    ]
    return "\n".join(lines)


def _ratio(values: dict[str, list[float]], own: str, peer: str) -> str:
    mean, low, high = ratio(values[own], values[peer])
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"
