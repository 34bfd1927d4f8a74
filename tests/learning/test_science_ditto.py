"""Ditto beats the global model and every site's own on label-skewed digits.

Li et al. 2021, "Ditto: Fair and Robust Federated Learning Through Personalization",
algorithm 1 and table 3. https://arxiv.org/abs/2012.04221
"""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from truststram_lab.learning import weights
from truststram_lab.learning.personal import proximal_pull
from truststram_lab.learning.strategies import fed_avg
from truststram_lab.learning.weights import State

pytestmark = pytest.mark.long

SITES, TRAIN_ROWS, TEST_ROWS, ROUNDS, STEPS, RATE = 10, 40, 100, 20, 5, 0.5
#: The paper tunes lambda for each data set; with 40 rows a site a firm pull is right.
LAMBDA = 0.5
Site = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def skewed_sites(seed: int) -> list[Site]:
    """Each site has digits in its own proportions, in training and in testing alike."""
    x, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    pools = order[:900], order[900:]
    sites = []
    for _ in range(SITES):
        share = rng.dirichlet(np.full(10, 0.3))
        rows = [
            np.array([rng.choice(pool[y[pool] == digit]) for digit in rng.choice(10, n, p=share)])
            for pool, n in zip(pools, (TRAIN_ROWS, TEST_ROWS), strict=True)
        ]
        sites.append((x[rows[0]] / 16, y[rows[0]], x[rows[1]] / 16, y[rows[1]]))
    return sites


def train(state: State, site: Site, anchor: State | None = None, strength: float = 0.0) -> State:
    x, y = site[0], site[1]
    at = {name: array.copy() for name, array in state.items()}
    for _ in range(STEPS):
        z = x @ at["w"] + at["b"]
        e = np.exp(z - z.max(axis=1, keepdims=True))
        wrong = e / e.sum(axis=1, keepdims=True) - np.eye(10)[y]
        gradient = {"w": x.T @ wrong / len(y), "b": wrong.mean(axis=0)}
        if anchor is not None:
            pull = proximal_pull(at, anchor, strength)
            gradient = {name: gradient[name] + pull[name] for name in at}
        for name in at:
            at[name] -= RATE * gradient[name]
    return at


def accuracy(models: list[State], sites: list[Site]) -> float:
    """Mean over the sites, each on its own held-out rows."""
    right = [
        ((x @ model["w"] + model["b"]).argmax(axis=1) == y).mean()
        for model, (_, _, x, y) in zip(models, sites, strict=True)
    ]
    return float(np.mean(right))


@pytest.fixture(scope="module")
def accuracies() -> dict[str, np.ndarray]:
    found: dict[str, list[float]] = {"global": [], "local": [], "ditto": []}
    for seed in range(5):
        sites = skewed_sites(seed)
        start: State = {"w": np.zeros((64, 10)), "b": np.zeros(10)}
        shared, local, ditto = start, [start] * SITES, [start] * SITES
        for _ in range(ROUNDS):
            local = [train(v, site) for v, site in zip(local, sites, strict=True)]
            ditto = [train(v, site, shared, LAMBDA) for v, site in zip(ditto, sites, strict=True)]
            deltas = [weights.delta(shared, train(shared, site)) for site in sites]
            shared = weights.apply(shared, fed_avg(deltas, [TRAIN_ROWS] * SITES))
        models = {"global": [shared] * SITES, "local": local, "ditto": ditto}
        for name, each in models.items():
            found[name].append(accuracy(each, sites))
    return {name: np.array(each) for name, each in found.items()}


@pytest.mark.parametrize("other", ["global", "local"])
def test_ditto_is_better_on_every_split(accuracies: dict[str, np.ndarray], other: str) -> None:
    gain = accuracies["ditto"] - accuracies[other]
    assert (gain > 0).all()
    assert np.median(gain) > 0.01
