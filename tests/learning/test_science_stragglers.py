"""FedProx's synthetic data, and its ordering where most sites are stragglers.

Li et al. 2020, "Federated Optimization in Heterogeneous Networks", section 5.1 (the data),
section 5.2 and figure 1 (90 % stragglers). https://arxiv.org/abs/1812.06127
Sizes and rounds are smaller than the paper's, the ordering is the same.
"""

from __future__ import annotations

import numpy as np
import pytest

from truststram_lab.learning.personal import proximal_pull
from truststram_lab.learning.strategies import aggregate
from truststram_lab.learning.weights import State
from truststram_lab.schemas.strategies import FedAvg, FedProx

pytestmark = pytest.mark.long

FEATURES, CLASSES, DEVICES, CHOSEN, STRAGGLERS = 60, 10, 30, 10, 9
EPOCHS, BATCH, RATE, ROUNDS, SEEDS = 10, 10, 0.01, 10, range(5)
Device = tuple[np.ndarray, np.ndarray]


def synthetic(alpha: float, beta: float, rng: np.random.Generator) -> list[Device]:
    """Section 5.1: alpha is how models differ from site to site, beta how rows do."""
    scale = np.arange(1, FEATURES + 1) ** -0.6
    devices = []
    for size in np.clip(rng.lognormal(4, 2, DEVICES) + 50, 50, 120).astype(int):
        u, b = rng.normal(0, np.sqrt(alpha)), rng.normal(0, np.sqrt(beta))
        x = rng.normal(b, 1, FEATURES) + scale * rng.normal(size=(size // BATCH * BATCH, FEATURES))
        model = rng.normal(u, 1, (FEATURES, CLASSES)), rng.normal(u, 1, CLASSES)
        devices.append((x, (x @ model[0] + model[1]).argmax(axis=1)))
    return devices


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def loss(state: State, devices: list[Device]) -> float:
    x, y = (np.concatenate(part) for part in zip(*devices, strict=True))
    z = x @ state["w"] + state["b"]
    top = z.max(axis=1)
    normal = top + np.log(np.exp(z - top[:, None]).sum(axis=1))
    return float((normal - z[np.arange(len(y)), y]).mean())


def work_of(device: Device, epochs: int, rng: np.random.Generator) -> list[Device]:
    x, y = device
    orders = [rng.permutation(len(y)).reshape(-1, BATCH) for _ in range(epochs)]
    return [(x[rows], y[rows]) for order in orders for rows in order]


def train_together(state: State, works: list[list[Device]], mu: float) -> list[State]:
    """Minibatch SGD of several devices side by side; who is done first stands still."""
    count = len(works)
    anchor = {n: np.repeat(a[None], count, axis=0) for n, a in state.items()}
    at = {n: a.copy() for n, a in anchor.items()}
    for step in range(max(map(len, works))):
        batches = [work[min(step, len(work) - 1)] for work in works]
        x, y = np.stack([b[0] for b in batches]), np.stack([b[1] for b in batches])
        wrong = softmax(x @ at["w"] + at["b"][:, None]) - np.eye(CLASSES)[y]
        gradient = {"w": x.transpose(0, 2, 1) @ wrong / BATCH, "b": wrong.mean(axis=1)}
        pull = proximal_pull(at, anchor, mu)
        moving = RATE * np.array([step < len(work) for work in works])
        for name in at:
            rates = moving.reshape(-1, *[1] * (at[name].ndim - 1))
            at[name] -= rates * (gradient[name] + pull[name])
    return [{n: at[n][i] - state[n] for n in state} for i in range(count)]


def history(devices: list[Device], mu: float | None, seed: int) -> list[float]:
    """Training loss after each round; ``mu`` None is FedAvg, which drops stragglers."""
    state: State = {"w": np.zeros((FEATURES, CLASSES)), "b": np.zeros(CLASSES)}
    losses = []
    for number in range(ROUNDS):
        rng = np.random.default_rng([seed, number])
        chosen = rng.choice(DEVICES, CHOSEN, replace=False)
        epochs = np.full(CHOSEN, EPOCHS)
        epochs[:STRAGGLERS] = rng.integers(1, EPOCHS, STRAGGLERS)
        present = range(STRAGGLERS if mu is None else 0, CHOSEN)
        works = [work_of(devices[chosen[i]], int(epochs[i]), rng) for i in present]
        rows = [len(devices[chosen[i]][1]) for i in present]
        deltas = train_together(state, works, mu or 0.0)
        strategy = FedAvg() if mu is None else FedProx(mu=mu)
        state = aggregate(strategy, state, deltas, rows).state
        losses.append(loss(state, devices))
    return losses


@pytest.fixture(scope="module")
def histories() -> dict[float | None, np.ndarray]:
    runs: dict[float | None, list[list[float]]] = {None: [], 0.0: [], 1.0: []}
    for seed in SEEDS:
        devices = synthetic(1.0, 1.0, np.random.default_rng(seed))
        for mu, found in runs.items():
            found.append(history(devices, mu, seed))
    return {mu: np.array(found) for mu, found in runs.items()}


def test_partial_work_beats_dropping_the_stragglers(
    histories: dict[float | None, np.ndarray],
) -> None:
    ends = {mu: np.median(runs[:, -5:].mean(axis=1)) for mu, runs in histories.items()}
    assert ends[0.0] < 0.8 * ends[None]
    assert ends[1.0] < 0.8 * ends[None]


def test_partial_work_makes_the_way_down_steadier(
    histories: dict[float | None, np.ndarray],
) -> None:
    # Only the rises count: how much of the loss had to be won a second time.
    rises = {
        mu: float(np.median(np.maximum(np.diff(runs, axis=1), 0).sum(axis=1)))
        for mu, runs in histories.items()
    }
    assert rises[None] > 0.1
    assert max(rises[0.0], rises[1.0]) < 0.1 * rises[None]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_stronger_the_pull_the_closer_the_sites_stay_together(seed: int) -> None:
    devices = synthetic(1.0, 1.0, np.random.default_rng(seed))[:CHOSEN]
    works = [work_of(device, EPOCHS, np.random.default_rng(seed)) for device in devices]
    start: State = {"w": np.zeros((FEATURES, CLASSES)), "b": np.zeros(CLASSES)}
    spread = [
        np.stack([update["w"] for update in train_together(start, works, mu)]).var(axis=0).sum()
        for mu in (0.0, 0.1, 1.0, 10.0)
    ]
    assert spread == sorted(spread, reverse=True)


def test_everybody_learns_something(histories: dict[float | None, np.ndarray]) -> None:
    for mu in (0.0, 1.0):
        assert np.median(histories[mu][:, -1]) < np.log(CLASSES)
