"""Client drift of FedAvg on a two-client quadratic, and its cure by SCAFFOLD.

Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning",
section 3 and figure 2. https://arxiv.org/abs/1910.06378
"""

from __future__ import annotations

import numpy as np
import pytest

from truststram_lab.learning import weights
from truststram_lab.learning.strategies import aggregate
from truststram_lab.learning.strategies.scaffold import (
    correction,
    new_control,
    no_control,
    upload,
)
from truststram_lab.learning.weights import State
from truststram_lab.schemas.strategies import FedAvg, FedProx, Scaffold

# Client i has the loss curvature_i / 2 (x - centre_i)^2.
CURVATURE = np.array([1.0, 10.0])
CENTRE = np.array([4.0, -1.0])
RATE, ROUNDS = 0.05, 150
OPTIMUM = float((CURVATURE * CENTRE).sum() / CURVATURE.sum())


def fixed_point(steps: int) -> float:
    """Where FedAvg ends: a client's K steps take x to b + (1 - rate a)^K (x - b)."""
    moved = 1.0 - (1.0 - RATE * CURVATURE) ** steps
    return float((moved * CENTRE).sum() / moved.sum())


def local(client: int, x: State, steps: int, extra: float = 0.0, mu: float = 0.0) -> State:
    at = x["x"].copy()
    for _ in range(steps):
        gradient = CURVATURE[client] * (at - CENTRE[client])
        at -= RATE * (gradient + extra + mu * (at - x["x"]))
    return {"x": at}


def fed_avg_ends_at(steps: int, mu: float = 0.0) -> float:
    x: State = {"x": np.array([3.0])}
    strategy = FedProx(mu=mu) if mu else FedAvg()
    for _ in range(ROUNDS):
        deltas = [weights.delta(x, local(client, x, steps, mu=mu)) for client in (0, 1)]
        x = aggregate(strategy, x, deltas, [1, 1]).state
    return float(x["x"][0])


def scaffold_ends_at(steps: int, rounds: list[list[int]]) -> float:
    x: State = {"x": np.array([3.0])}
    server, sites = no_control(x), [no_control(x), no_control(x)]
    for present in rounds:
        uploads = []
        for client in present:
            extra = correction(server, sites[client])
            trained = local(client, x, steps, extra=float(extra["x"][0]))
            new = new_control(server, sites[client], x, trained, steps * RATE)
            uploads.append(upload(weights.delta(x, trained), sites[client], new))
            sites[client] = new
        done = aggregate(
            Scaffold(), x, uploads, [1] * len(present), server, participation=len(present) / 2
        )
        x, server = done.state, done.server_state
    return float(x["x"][0])


@pytest.mark.parametrize("steps", [2, 5, 20])
def test_fedavg_drifts_to_the_fixed_point_of_its_closed_form(steps: int) -> None:
    end = fed_avg_ends_at(steps)
    assert end == pytest.approx(fixed_point(steps), abs=1e-10)
    assert abs(end - OPTIMUM) > 0.1


def test_fedavg_with_one_local_step_is_gradient_descent_and_finds_the_optimum() -> None:
    assert fed_avg_ends_at(1) == pytest.approx(OPTIMUM, abs=1e-10)


def test_more_local_steps_mean_more_drift() -> None:
    away = [abs(fed_avg_ends_at(steps) - OPTIMUM) for steps in (1, 2, 5, 20)]
    assert away == sorted(away)


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_scaffold_finds_the_optimum_whatever_the_number_of_local_steps(steps: int) -> None:
    assert scaffold_ends_at(steps, [[0, 1]] * ROUNDS) == pytest.approx(OPTIMUM, abs=1e-8)


def test_scaffold_finds_the_optimum_with_one_client_a_round() -> None:
    # The step that partial work allows is smaller: theorem III has a factor of |S| / N.
    rng = np.random.default_rng(0)
    rounds = [[int(client)] for client in rng.integers(0, 2, 600)]
    assert scaffold_ends_at(2, rounds) == pytest.approx(OPTIMUM, abs=1e-6)


def test_the_proximal_term_lessens_drift_but_does_not_cure_it() -> None:
    free, pulled = fed_avg_ends_at(20), fed_avg_ends_at(20, mu=5.0)
    assert 1e-3 < abs(pulled - OPTIMUM) < abs(free - OPTIMUM)
