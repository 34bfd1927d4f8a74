"""The terms of FedProx and SCAFFOLD in the house's own SGD."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from truststram_lab.learning.terms import local_terms
from truststram_lab.learning.training import (
    GradientTerms,
    build_module,
    initial_state,
    loss_of,
    steps_of,
    train,
)
from truststram_lab.learning.weights import State, delta
from truststram_lab.schemas.federation import LocalTraining
from truststram_lab.schemas.registry import Architecture, DenseLayer

NETWORK = Architecture(
    inputs=4, layers=[DenseLayer(units=5, activation="tanh"), DenseLayer(units=3)]
)
ROWS = 24
#: One batch an epoch, so that the order of the rows changes sums in their last digits only.
LOCAL = LocalTraining(epochs=4, batch_size=ROWS, learning_rate=0.2, dtype="float64")


def _rows(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(ROWS, 4)), rng.integers(0, 3, ROWS)


def _train(local: LocalTraining = LOCAL, terms: GradientTerms | None = None) -> State:
    x, y = _rows()
    state = initial_state(NETWORK, 0, local.dtype)
    return train(NETWORK, state, x, y, local, 1, "cpu", lambda: False, terms=terms)[0]


def _by_hook(local: LocalTraining, **terms: object) -> State:
    """The same training by torch.optim.SGD, with the terms added by the hook before each step."""
    x, y = (torch.tensor(part) for part in _rows())
    start = initial_state(NETWORK, 0, local.dtype)
    module = build_module(NETWORK).double()
    module.load_state_dict({name: torch.tensor(array) for name, array in start.items()})
    optimizer = torch.optim.SGD(
        module.parameters(),
        lr=local.learning_rate,
        momentum=local.momentum,
        weight_decay=local.weight_decay,
    )
    with local_terms(start, module=module, **terms):
        for _ in range(local.epochs):
            optimizer.zero_grad()
            loss_of(module(x), y).backward()
            optimizer.step()
    return {name: weight.detach().numpy() for name, weight in module.state_dict().items()}


def _correction(seed: int = 3) -> State:
    rng = np.random.default_rng(seed)
    shapes = initial_state(NETWORK, 0, "float64")
    return {name: rng.normal(0, 0.1, array.shape) for name, array in shapes.items()}


def _close(one: State, two: State, atol: float = 1e-12) -> None:
    for name, array in one.items():
        np.testing.assert_allclose(array, two[name], rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("terms", [None, GradientTerms(), GradientTerms(pull=0.0, correction={})])
def test_no_terms_change_no_bit(terms):
    plain = _train()
    for name, array in _train(terms=terms).items():
        np.testing.assert_array_equal(array, plain[name])


@pytest.mark.parametrize(
    "local",
    [LOCAL, LOCAL.model_copy(update={"momentum": 0.5, "weight_decay": 0.01})],
    ids=["plain", "momentum and decay"],
)
def test_a_pull_is_the_same_as_the_term_in_somebody_elses_optimizer(local):
    _close(_train(local, GradientTerms(pull=0.7)), _by_hook(local, pull=0.7))


def test_a_correction_is_the_same_as_the_one_in_somebody_elses_optimizer():
    correction = _correction()
    _close(
        _train(terms=GradientTerms(correction=correction)), _by_hook(LOCAL, correction=correction)
    )


def test_a_stronger_pull_stays_closer_to_the_start():
    start = initial_state(NETWORK, 0, "float64")

    def distance(pull: float) -> float:
        moved = delta(start, _train(terms=GradientTerms(pull=pull)))
        return float(sum(np.square(array).sum() for array in moved.values()))

    assert distance(2.0) < distance(0.5) < distance(0.0)


def test_a_correction_by_the_negative_gradient_stands_still():
    one = LOCAL.model_copy(update={"epochs": 1})
    start = initial_state(NETWORK, 0, "float64")
    gradient = {name: -a / one.learning_rate for name, a in delta(start, _train(one)).items()}
    against = {name: -array for name, array in gradient.items()}
    _close(_train(one, GradientTerms(correction=against)), start)


def test_steps_count_the_last_small_batch():
    assert steps_of(24, LOCAL) == 4
    assert steps_of(25, LOCAL) == 8
    assert steps_of(25, LOCAL.model_copy(update={"batch_size": 10})) == 12
