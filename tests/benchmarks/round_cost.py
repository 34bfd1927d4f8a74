"""What a round costs beyond moving, hashing and summing its bytes.

Five participants, one million float32 parameters, no training: each pulls the global model and
pushes an update of the same size. Ours is the real platform process and the real participant
clients; bare is httpx against a raw ASGI application under the same server program, which
hashes and sums the same bytes and does nothing else (no durability, no checks, no accounts).
Both are measured in this run, round by round in turn, as CPU seconds of all processes. Flower
moves the same payload after that, if it is installed (see ``flower_round``).
"""

from __future__ import annotations

import contextlib
import hashlib
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from truststram_lab.client import ParticipantClient, TrustStramClient
from truststram_lab.learning import weights
from truststram_lab.learning.network import expected_shapes
from truststram_lab.learning.statistics import local_moments
from truststram_lab.schemas.federation import CreateRun
from truststram_lab.schemas.registry import Architecture, DenseLayer
from truststram_lab.schemas.tables import Column, Signature
from truststram_lab.transport import Target

from .flower_round import run as flower
from .pairs import in_turn, ratio

TITLE = "A round beyond moving, hashing and summing its bytes"

PARTICIPANTS = 5
SITES = [f"site {place + 1}" for place in range(PARTICIPANTS)]
ROUNDS = 40
WARM_UP = 3
GOAL = 1.3

SIGNATURE = Signature(
    columns=[Column(name=f"x{place}", kind="numeric") for place in range(8)],
    target="y",
    classes=["no", "yes"],
    positive_class="yes",
)
ARCHITECTURE = Architecture(
    inputs=8,
    layers=[
        DenseLayer(units=996, activation="relu"),
        DenseLayer(units=996, activation="relu"),
        DenseLayer(units=1),
    ],
)

_BARE = """
    import hashlib, sys
    import numpy as np
    import uvicorn

    model = open(sys.argv[1], "rb").read()
    held = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        global model
        status, body = 200, b""
        if scope["method"] == "GET":
            body = model
        else:
            parts, more = [], True
            while more:
                message = await receive()
                parts.append(message.get("body", b""))
                more = message.get("more_body", False)
            update = b"".join(parts)
            body = hashlib.sha256(update).hexdigest().encode()
            held.append(update)
            if len(held) == 5:
                total = np.zeros(len(update) // 4)
                for one in held:
                    total += 0.2 * np.frombuffer(one, np.float32)
                held.clear()
                model = (np.frombuffer(model, np.float32) + total.astype(np.float32)).tobytes()
                hashlib.sha256(model).digest()
        await send({"type": "http.response.start", "status": status,
                    "headers": [(b"content-length", str(len(body)).encode())]})
        await send({"type": "http.response.body", "body": body})

    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error",
                access_log=False)
"""


def cpu_seconds(pid: int) -> float:
    """User and system time of a process's threads, to the nanosecond; ended threads are left out.

    The platform's and the bare server's threads live as long as the rounds go on.
    """
    spent = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it ended meanwhile
            spent += int((thread / "schedstat").read_text().split()[0])
    return spent / 1e9


@contextmanager
def bare_server(folder: Path, parameters: int) -> Iterator[tuple[str, int]]:
    """The raw application on a free port; its address and process id."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    model = folder / "model.bin"
    model.write_bytes(np.zeros(parameters, np.float32).tobytes())
    script = folder / "bare.py"
    script.write_text(textwrap.dedent(_BARE))
    process = subprocess.Popen([sys.executable, str(script), str(model), str(port)])
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(500):
            try:
                httpx.get(url, timeout=5, trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.02)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(30)


class Bare:
    """The same traffic without a platform: one connection a participant."""

    def __init__(self, url: str, pid: int, updates: list[bytes], stack: ExitStack) -> None:
        self.pid = pid
        self._updates = updates
        self._clients = [
            stack.enter_context(httpx.Client(base_url=url, trust_env=False)) for _ in SITES
        ]

    def round(self) -> None:
        for client in self._clients:
            hashlib.sha256(client.get("/model").content).digest()
        for client, update in zip(self._clients, self._updates, strict=True):
            expected = hashlib.sha256(update).hexdigest()
            if client.put("/update", content=update).text != expected:
                raise RuntimeError("the bare server received other bytes")


class Ours:
    """A real run on a real platform; every round is one of its rounds."""

    def __init__(self, home: Path, updates: list[bytes], stack: ExitStack) -> None:
        from tests.server.platform_process import PlatformProcess

        platform = PlatformProcess(home).start()
        stack.callback(platform.end)
        assert platform.process is not None
        self.pid = platform.process.pid
        state = platform.state()
        target = Target(state["url"], state["api_key"], state["protocol"])
        owner = stack.enter_context(
            TrustStramClient(base_url=state["url"], api_key=state["api_key"])
        )
        owner.federations.create("bench")
        shapes = expected_shapes(ARCHITECTURE)
        start = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        plan = CreateRun(
            model="bench",
            federation="bench",
            sites=SITES,
            rounds=ROUNDS + WARM_UP + 1,
            architecture=ARCHITECTURE,
            signature=SIGNATURE,
            initial_weights_sha256=owner.blobs.put(weights.encode(start)),
        )
        self._updates = updates
        self._known: str | None = None
        self._sites: list[ParticipantClient] = []
        for invitation in owner.federations.invite("bench", SITES):
            site = ParticipantClient(lambda *, failed=False: target, invitation.token)
            self._sites.append(stack.enter_context(site))
        owner.runs.create(plan)
        rng = np.random.default_rng(0)
        table = {column.name: list(rng.normal(size=10)) for column in SIGNATURE.columns}
        for site in self._sites:
            assignment = self._assignment(site)
            body = weights.encode(local_moments(table, SIGNATURE), {"sample_count": "10"})
            site.push(assignment, body)

    def round(self) -> None:
        rounds = [self._assignment(site) for site in self._sites]
        for site, place in zip(self._sites, rounds, strict=True):
            site.model(place)
        for site, place, update in zip(self._sites, rounds, self._updates, strict=True):
            site.push(place, update)

    def _assignment(self, site: ParticipantClient) -> str:
        # As a participant's worker asks: it knows the plan from the first round on.
        while not (found := site.assignments(wait_s=10, known=self._known)):
            pass
        self._known = found[0].plan_sha256
        return found[0].round_id


def run(*, quick: bool = False) -> dict[str, Any]:
    """CPU seconds a round of both, and their ratio by rounds in turn.

    Returns:
        ``cpu_s``: name -> one number a round; ``ratio``: ours to bare, mean and the ends of its
        95 % interval; ``flower``: what ``flower_round.run`` finds.
    """
    measured = 3 if quick else ROUNDS
    shapes = expected_shapes(ARCHITECTURE)
    parameters = sum(int(np.prod(shape)) for shape in shapes.values())
    updates = []
    for place in range(PARTICIPANTS):
        rng = np.random.default_rng(place)
        state = {n: (1e-3 * rng.normal(size=s)).astype(np.float32) for n, s in shapes.items()}
        updates.append(weights.encode(state, {"sample_count": "10"}))
    plain = [np.zeros(parameters, np.float32).tobytes() for _ in SITES]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        url, pid = stack.enter_context(bare_server(Path(folder), parameters))
        sides = {
            "bare": Bare(url, pid, plain, stack),
            "ours": Ours(Path(folder) / "home", updates, stack),
        }
        spent: dict[str, list[float]] = {name: [] for name in sides}
        for number, ours in enumerate(in_turn(WARM_UP + measured)):
            name = "ours" if ours else "bare"
            before = time.process_time() + cpu_seconds(sides[name].pid)
            sides[name].round()
            # the sum of the last update's round belongs to it
            time.sleep(0.1)
            if number >= 2 * WARM_UP:
                after = time.process_time() + cpu_seconds(sides[name].pid)
                spent[name].append(after - before)
    return {
        "participants": PARTICIPANTS,
        "parameters": parameters,
        "cpu_s": spent,
        "ratio": ratio(spent["ours"], spent["bare"]),
        "goal": GOAL,
        "flower": flower([list(shape) for shape in shapes.values()], 4 if quick else 12),
    }


def report(found: dict[str, Any]) -> str:
    """The medians, the ratio with its interval, and Flower beside it."""
    bare = statistics.median(found["cpu_s"]["bare"])
    medians = {"bare httpx and raw ASGI": bare, "ours": statistics.median(found["cpu_s"]["ours"])}
    peer = found["flower"]
    if "cpu_s" in peer:
        medians[f"Flower {peer['version']}"] = statistics.median(peer["cpu_s"])
    lines = ["| Round | CPU ms of all processes | to bare |", "|---|---:|---:|"]
    lines += [f"| {n} | {1e3 * cpu:.0f} | {cpu / bare:.2f} |" for n, cpu in medians.items()]
    if "missing" in peer:
        lines.append(f"| Flower | not measured: {peer['missing']} | |")
    mean, low, high = found["ratio"]
    return (
        f"{found['participants']} participants, {found['parameters']:,} float32 parameters, no "
        f"training; medians of {len(found['cpu_s']['ours'])} rounds in turn.\n\n"
        + "\n".join(lines)
        + f"\n\nOurs takes {mean:.2f} times the CPU time of the bare exchange (geometric mean of "
        f"the pairs, 95 % interval {low:.2f} to {high:.2f}); the goal is {found['goal']:g}. Ours "
        "has the checks, the durable files, the accounts and the events, and opens the next round."
    )


if __name__ == "__main__":
    import json

    print(json.dumps(run(), indent=1))
