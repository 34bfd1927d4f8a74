"""Virtual clients at once, against a plain torch loop, Flower's simulation and a vmap in JAX.

``TS_BENCH_FLOWER`` and ``TS_BENCH_JAX`` name the Python of an environment with ``flwr[simulation]``
and torch, or with jax; a peer without one is reported as not measured. Same data, start, batches
and arithmetic everywhere; final weights are compared before a time counts. CPU time of a process
with one thread, but for Flower, whose work is in other processes: wall time of both.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .delta_chain import THREADS

TITLE = "Virtual clients at once"
GOALS = {"mlp 100": 10, "mlp 1000": 10, "embedding 1000": 4, "convolution 1000": 3, "flower": 200}
PEERS = {"flower": "TS_BENCH_FLOWER", "jax": "TS_BENCH_JAX"}
ROWS, BATCH, EPOCHS, RATE = 64, 16, 2, 0.1
ROUNDS = 10


def run(quick: bool = False) -> dict[str, Any]:
    """What ``measure`` finds in a fresh process with one thread.

    Returns:
        ``loop``: case -> CPU milliseconds a client of the plain loop and of ours, one number a
        repeat, and the largest difference of a weight; ``flat``: milliseconds a client by number
        of clients; ``flower``, ``jax``: what they took, or None where there is no environment.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.virtual_clients", *(["--quick"] if quick else [])],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, **THREADS},
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(quick: bool) -> dict[str, Any]:
    """As ``run``, in this process."""
    cases = [("mlp", 100), ("mlp", 1000), ("embedding", 1000), ("convolution", 1000)]
    repeats, share = (1, 10) if quick else (5, 1)
    loop = {
        f"{kind} {count}": against_loop(kind, max(10, count // share), repeats)
        for kind, count in cases
    }
    counts = (100, 1000) if quick else (1000, 10_000)
    return {
        "loop": loop,
        "flat": flat(counts, repeats),
        "flower": _flower(2 if quick else ROUNDS),
        "jax": _jax(100 if quick else 1000, repeats),
        "goals": GOALS,
    }


def _module(kind: str) -> Any:
    import torch
    from torch import nn

    class Words(nn.Module):
        """The mean of the words' vectors, classified."""

        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(1000, 16)
            self.head = nn.Linear(16, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(self.table(x).mean(1))
            return out

    torch.manual_seed(0)
    if kind == "embedding":
        return Words()
    if kind == "convolution":
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(128, 10),
        )  # fmt: skip
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 2))


def _clients(kind: str, count: int) -> list[Any]:
    from truststram_lab.learning.virtual import Client

    rng = np.random.default_rng(0)
    shape: tuple[int, ...] = {"mlp": (20,), "embedding": (12,), "convolution": (1, 8, 8)}[kind]
    classes = 10 if kind == "convolution" else 2
    found = []
    for _ in range(count):
        floats = rng.normal(size=(ROWS, *shape)).astype(np.float32)
        x = rng.integers(0, 1000, (ROWS, *shape)) if kind == "embedding" else floats
        found.append(Client(x, rng.integers(0, classes, ROWS)))
    return found


def plain_loop(kind: str, clients: list[Any], seeds: list[int]) -> list[dict[str, Any]]:
    """What a good engineer writes: one module, an optimizer object a client, tensors made once."""
    import torch
    from torch import nn

    module, loss = _module(kind), nn.CrossEntropyLoss()
    start = {name: value.clone() for name, value in module.state_dict().items()}
    trained = []
    for client, seed in zip(clients, seeds, strict=True):
        generator = torch.Generator().manual_seed(seed)
        module.load_state_dict(start)
        optimizer = torch.optim.SGD(module.parameters(), lr=RATE)
        x, y = torch.from_numpy(client.x), torch.from_numpy(client.y)
        for _ in range(EPOCHS):
            for batch in torch.randperm(len(x), generator=generator).split(BATCH):
                optimizer.zero_grad()
                loss(module(x[batch]), y[batch]).backward()
                optimizer.step()
        trained.append({name: value.numpy().copy() for name, value in module.state_dict().items()})
    return trained


def _trainer(kind: str, clients: list[Any]) -> Any:
    from truststram_lab.learning.virtual import Sgd, Task, choose

    return choose(Task(_module(kind), optimizer=Sgd(RATE), batch_size=BATCH), clients)


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.process_time()
    found = call()
    return time.process_time() - begun, found


def against_loop(kind: str, count: int, repeats: int) -> dict[str, Any]:
    """CPU milliseconds a client, in turn."""
    from truststram_lab.learning.virtual import Work

    clients, seeds = _clients(kind, count), list(range(count))
    trainer = _trainer(kind, clients)
    start = trainer.task.initial_state()
    works = [Work(place, seed=seed, epochs=EPOCHS) for place, seed in enumerate(seeds)]
    took: dict[str, list[float]] = {"plain": [], "ours": []}
    gap = 0.0
    plain_loop(kind, clients[:5], seeds[:5])
    for _ in range(repeats):
        seconds, theirs = _timed(lambda: plain_loop(kind, clients, seeds))
        took["plain"].append(1000 * seconds / count)
        seconds, ours = _timed(lambda: list(trainer.train(start, works)))
        took["ours"].append(1000 * seconds / count)
        for one, other in zip(theirs, ours, strict=True):
            for name, array in one.items():
                gap = max(gap, float(np.abs(array - start[name] - other.delta[name]).max()))
    _same(gap, f"the plain loop on {kind}")
    return {**took, "gap": gap, "why": trainer.why}


def _same(gap: float, whom: str) -> None:
    if not gap < 1e-3:
        raise SystemExit(f"Weights differ from those of {whom} by {gap}: no time counts.")


def flat(counts: tuple[int, ...], repeats: int) -> dict[str, list[float]]:
    """CPU milliseconds a client of ours, for few and for many clients, in turn."""
    from truststram_lab.learning.virtual import Work

    trainers = {count: _trainer("mlp", _clients("mlp", count)) for count in counts}
    found: dict[str, list[float]] = {str(count): [] for count in counts}
    for _ in range(repeats):
        for count, trainer in trainers.items():
            works = [Work(place, seed=place, epochs=EPOCHS) for place in range(count)]
            start = trainer.task.initial_state()
            seconds, _ = _timed(lambda t=trainer, s=start, w=works: sum(1 for _ in t.train(s, w)))
            found[str(count)].append(1000 * seconds / count)
    return found


def _orders(rounds: int, count: int) -> np.ndarray:
    """The rows of every step, (rounds, clients, epochs * rows), as our generators draw them."""
    import torch

    found = np.empty((rounds, count, EPOCHS, ROWS), np.int64)
    for number in range(rounds):
        for place in range(count):
            generator = torch.Generator().manual_seed(1000 * number + place)
            for epoch in range(EPOCHS):
                found[number, place, epoch] = torch.randperm(ROWS, generator=generator).numpy()
    return found.reshape(rounds, count, EPOCHS * ROWS)


def federation(trainer: Any, rounds: int) -> dict[str, np.ndarray]:
    """The global weights after rounds of FedAvg of all clients, who have equally many rows."""
    from truststram_lab.learning.virtual import Work

    state: dict[str, np.ndarray] = trainer.task.initial_state()
    count = len(trainer.clients)
    for number in range(rounds):
        works = [Work(place, seed=1000 * number + place, epochs=EPOCHS) for place in range(count)]
        total = {name: np.zeros(array.shape) for name, array in state.items()}
        for trained in trainer.train(state, works):
            for name, change in trained.delta.items():
                total[name] += change
        state = {name: (a + total[name] / count).astype(a.dtype) for name, a in state.items()}
    return state


def _peer(name: str, count: int, rounds: int, repeats: int) -> dict[str, Any] | None:
    """The peer's report, and its final weights under ``weights``; None where it is missing."""
    python = os.environ.get(PEERS[name])
    if not python:
        print(f"{name}: not measured, {PEERS[name]} names no Python.", file=sys.stderr)
        return None
    clients = _clients("mlp", count)
    with tempfile.TemporaryDirectory() as folder:
        problem, answer = Path(folder, "problem.npz"), Path(folder, "answer.npz")
        np.savez(
            problem,
            x=np.stack([client.x for client in clients]),
            y=np.stack([client.y for client in clients]),
            orders=_orders(rounds, count),
            settings=np.array([BATCH, RATE, repeats]),
            **{
                f"w{i}": a
                for i, a in enumerate(_trainer("mlp", clients).task.initial_state().values())
            },
        )
        script = Path(__file__).parent / "peers" / f"{name}_peer.py"
        done = subprocess.run(
            [python, str(script), str(problem), str(answer)],
            capture_output=True,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": "", "FLWR_TELEMETRY_ENABLED": "0",
                 "RAY_USAGE_STATS_ENABLED": "0", "JAX_PLATFORMS": "cpu",
                 "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"},
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{name} failed:\n{done.stderr[-4000:]}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        with np.load(answer) as arrays:
            found["weights"] = [arrays[f"w{i}"] for i in range(4)]
    return found


def _flower(rounds: int) -> dict[str, Any] | None:
    """Wall seconds of both; ours before and after Flower's, for others use the machine too."""
    if not os.environ.get(PEERS["flower"]):
        return _peer("flower", 10, rounds, 1)
    began = time.perf_counter()
    trainer = _trainer("mlp", _clients("mlp", 10))
    chosen = time.perf_counter() - began
    walls, used = [], []
    ours: dict[str, np.ndarray] = {}

    def measure_ours() -> None:
        nonlocal ours
        for _ in range(10):
            began = time.perf_counter()
            seconds, ours = _timed(lambda: federation(trainer, rounds))
            walls.append(time.perf_counter() - began)
            used.append(seconds)

    measure_ours()
    found = _peer("flower", 10, rounds, 1)
    assert found is not None
    measure_ours()
    gap = _gap(found.pop("weights"), ours)
    _same(gap, "Flower")
    return {
        **found,
        "ours_s": walls,
        "ours_cpu_s": used,
        "ours_choice_s": chosen,
        "gap": gap,
        "rounds": rounds,
    }


def _jax(count: int, repeats: int) -> dict[str, Any] | None:
    found = _peer("jax", count, 1, repeats)
    if found is None:
        return None
    trainer = _trainer("mlp", _clients("mlp", count))
    walls = []
    ours: dict[str, np.ndarray] = {}
    for _ in range(repeats):
        seconds, ours = _timed(lambda: federation(trainer, 1))
        walls.append(seconds)
    gap = _gap(found.pop("weights"), ours)
    _same(gap, "JAX")
    return {**found, "ours_s": walls, "gap": gap, "clients": count}


def _gap(theirs: list[np.ndarray], ours: dict[str, np.ndarray]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(theirs, ours.values(), strict=True))


def report(found: dict[str, Any]) -> str:
    """The section of the page."""
    lines = [
        "CPU time a client and round (two epochs of 64 rows in batches of 16), one thread,",
        "medians; final weights compared.",
        "",
        "| What | plain loop, ms | ours, ms | times as fast | goal | largest difference |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, case in found["loop"].items():
        plain, ours = statistics.median(case["plain"]), statistics.median(case["ours"])
        lines.append(
            f"| {name} clients | {plain:.3f} | {ours:.3f} | {plain / ours:.1f} "
            f"| {found['goals'][name]} | {case['gap']:.1e} |"
        )
    each = {count: statistics.median(took) for count, took in found["flat"].items()}
    costs = ", ".join(f"{took:.3f} ms at {int(count):,} clients" for count, took in each.items())
    lines += ["", f"Cost a client of the small MLP: {costs}.", "", *_peers(found)]
    return "\n".join(lines)


def _peers(found: dict[str, Any]) -> list[str]:
    flower, jax = found["flower"], found["jax"]
    words = []
    if flower is None:
        words.append("Flower: not measured, it has no environment here.")
    else:
        ours = statistics.median(flower["ours_s"])
        words.append(
            f"Flower {flower['version']}, 10 clients, {flower['rounds']} rounds: "
            f"{flower['wall_s']:.1f} s with its scheduler's start, {flower['rounds_s']:.1f} s from "
            f"the first round on; ours {1000 * ours:.0f} ms, the median of 20 (and {flower['ours_choice_s']:.2f} s "
            f"for the trial that chooses the trainer): {flower['wall_s'] / ours:,.0f} and "
            f"{flower['rounds_s'] / ours:,.0f} times as fast "
            f"(goal {found['goals']['flower']}); with our trial "
            f"{flower['wall_s'] / (ours + flower['ours_choice_s']):,.0f} times."
        )
    if jax is None:
        words.append("JAX: not measured, it has no environment here.")
    else:
        theirs, ours = statistics.median(jax["cpu_s"]), statistics.median(jax["ours_s"])
        words.append(
            f"FedJAX's design (jax {jax['version']}, jit of vmap over {jax['clients']:,} "
            f"clients): {1000 * theirs:.0f} ms of CPU a round, {jax['compile_s']:.1f} s to "
            f"compile once; ours "
            f"{1000 * ours:.0f} ms: {theirs / ours:.2f} times as fast."
        )
    return words


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    print(json.dumps(measure("--quick" in sys.argv)))
