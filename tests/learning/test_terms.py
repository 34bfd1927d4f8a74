from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning.strategies.scaffold import correction, new_control, no_control
from truststram_lab.learning.terms import local_terms
from truststram_lab.learning.weights import State

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.05),
    "momentum": lambda weights: torch.optim.SGD(weights, lr=0.05, momentum=0.9, nesterov=True),
    "decay": lambda weights: torch.optim.SGD(weights, lr=0.05, weight_decay=0.1),
    # A bias before a batch norm has no gradient but rounding, which a small eps magnifies.
    "adam": lambda weights: torch.optim.Adam(weights, lr=0.01, eps=0.1),
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=0.01, eps=0.1, foreach=True),
    "rmsprop": lambda weights: torch.optim.RMSprop(weights, lr=0.01, eps=0.1),
}
Extra = Callable[[Mapping[str, torch.Tensor]], torch.Tensor]


def network() -> torch.nn.Module:
    generator = torch.Generator().manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(4, 5), torch.nn.BatchNorm1d(5), torch.nn.Tanh(), torch.nn.Linear(5, 3)
    ).double()
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    return module


def state_of(module: torch.nn.Module) -> State:
    return {name: value.detach().numpy().copy() for name, value in module.state_dict().items()}


def perturbed(state: State, seed: int) -> State:
    rng = np.random.default_rng(seed)
    return {
        name: array + rng.normal(size=array.shape) if array.dtype.kind == "f" else array
        for name, array in state.items()
    }


START = state_of(network())
OTHER = perturbed(START, 1)
CORRECTION = {name: array - START[name] for name, array in perturbed(START, 2).items()}


def fit(
    state: State,
    build: Callable[[Any], torch.optim.Optimizer] = OPTIMIZERS["sgd"],
    extra: Extra | None = None,
    steps: int = 12,
) -> State:
    """A training function of somebody's own: it knows of no strategy."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(40, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (40,), generator=generator)
    module = network()
    module.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    optimizer = build(module.parameters())
    for step in range(steps):
        rows = slice(8 * (step % 5), 8 * (step % 5) + 8)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(x[rows]), y[rows])
        if extra is not None:
            loss = loss + extra(dict(module.named_parameters()))
        loss.backward()
        optimizer.step()
    return state_of(module)


def pulled(anchor: State, strength: float) -> Extra:
    return lambda named: torch.stack(
        [
            0.5 * strength * (weight - torch.tensor(anchor[name])).square().sum()
            for name, weight in named.items()
        ]
    ).sum()


def corrected(by: State) -> Extra:
    return lambda named: torch.stack(
        [(weight * torch.tensor(by[name])).sum() for name, weight in named.items()]
    ).sum()


def assert_equal(found: State, expected: State) -> None:
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-12)


@pytest.mark.parametrize("build", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_fedprox_by_the_hook_is_fedprox_in_the_loss(
    build: Callable[[Any], torch.optim.Optimizer],
) -> None:
    with local_terms(START, pull=0.7) as terms:
        found = fit(START, build)
    assert terms.steps == 12
    assert_equal(found, fit(START, build, pulled(START, 0.7)))
    assert np.abs(found["0.weight"] - fit(START, build)["0.weight"]).max() > 1e-4


@pytest.mark.parametrize("build", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_ditto_by_the_hook_is_ditto_in_the_loss(
    build: Callable[[Any], torch.optim.Optimizer],
) -> None:
    # The personal model starts from itself and is pulled to the global one.
    with local_terms(START, pull=0.3, anchor=OTHER):
        found = fit(START, build)
    assert_equal(found, fit(START, build, pulled(OTHER, 0.3)))


@pytest.mark.parametrize("build", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_scaffold_by_the_hook_is_scaffold_in_the_loss(
    build: Callable[[Any], torch.optim.Optimizer],
) -> None:
    with local_terms(START, correction=CORRECTION):
        found = fit(START, build)
    assert_equal(found, fit(START, build, corrected(CORRECTION)))


def test_the_path_gives_the_control_variate_of_plain_sgd() -> None:
    zero = no_control(START)
    trained = fit(START)
    with local_terms(START) as terms:
        assert_equal(fit(START), trained)
    assert terms.path == pytest.approx(12 * 0.05, rel=1e-12)
    control = new_control(zero, zero, START, trained, terms.path)
    assert_equal(
        {"w": control["c/3.bias"]}, {"w": (START["3.bias"] - trained["3.bias"]) / (12 * 0.05)}
    )
    extra = correction(control, zero)
    with local_terms(START, correction=extra):
        again = fit(START)
    assert not np.array_equal(again["3.bias"], trained["3.bias"])


def test_a_schedule_of_learning_rates_is_summed() -> None:
    def build(weights: Any) -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD(weights, lr=0.1)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        optimizer.register_step_post_hook(lambda *_: schedule.step())
        return optimizer

    with local_terms(START) as terms:
        fit(START, build, steps=3)
    assert terms.path == pytest.approx(0.1 + 0.05 + 0.025, rel=1e-12)


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_a_path_that_is_not_plain_sgd_is_refused_by_name(name: str) -> None:
    with local_terms(START) as terms:
        fit(START, OPTIMIZERS[name])
    with pytest.raises(InvalidInputError, match=r"needs plain SGD.*steps with (SGD with mom|Adam)"):
        _ = terms.path


def test_groups_with_rates_of_their_own_have_no_path() -> None:
    def build(weights: Any) -> torch.optim.Optimizer:
        first, *others = weights
        return torch.optim.SGD([{"params": [first], "lr": 0.1}, {"params": others}], lr=0.05)

    with local_terms(START) as terms:
        fit(START, build)
    with pytest.raises(InvalidInputError, match="several learning rates"):
        _ = terms.path


def test_a_function_that_never_steps_is_refused() -> None:
    with (
        pytest.raises(InvalidInputError, match="took no step with a torch optimizer"),
        local_terms(START, pull=0.1),
    ):
        fit(START, steps=0)


def test_an_error_of_the_function_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError), local_terms(START, pull=0.1):
        _ = 1 / 0


def test_after_the_block_optimizers_are_as_before() -> None:
    before = fit(START)
    with local_terms(START, pull=5.0):
        fit(START)

    def failing() -> None:
        fit(START)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), local_terms(START, pull=5.0):
        failing()
    assert_equal(fit(START), before)


def test_the_training_of_another_thread_is_left_alone() -> None:
    expected = fit(OTHER)
    found: list[State] = []
    with local_terms(START, pull=5.0) as terms:
        thread = threading.Thread(target=lambda: found.append(fit(OTHER)))
        thread.start()
        thread.join()
        assert terms.steps == 0
        fit(START)
    assert_equal(found[0], expected)


def test_a_second_optimizer_of_the_same_weights_goes_on() -> None:
    module = network()

    def step() -> None:
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        optimizer.zero_grad()
        module(torch.ones(8, 4, dtype=torch.float64)).square().sum().backward()
        optimizer.step()

    with local_terms(START, pull=0.5) as terms:
        step()
        step()
    assert terms.steps == 2


def test_frozen_weights_stay_where_they_are() -> None:
    module = network()
    module[0].requires_grad_(False)
    with local_terms(START, pull=0.5, anchor=OTHER):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        module(torch.ones(8, 4, dtype=torch.float64)).square().sum().backward()
        optimizer.step()
    after = state_of(module)
    np.testing.assert_array_equal(after["0.weight"], START["0.weight"])
    assert not np.array_equal(after["3.weight"], START["3.weight"])


def test_a_weight_that_the_loss_does_not_know_is_pulled_all_the_same() -> None:
    module = torch.nn.ParameterDict({"used": torch.zeros(1), "idle": torch.zeros(1)})
    start, anchor = state_of(module), {"used": np.zeros(1, "f4"), "idle": np.ones(1, "f4")}
    with local_terms(start, pull=1.0, anchor=anchor, module=module):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
        module["used"].square().sum().backward()
        optimizer.step()
    assert module["idle"].item() == 0.5


def test_equal_weights_are_told_apart_by_their_order_or_by_name() -> None:
    start = {"a": np.zeros(2), "b": np.zeros(2)}
    by = {"a": np.ones(2), "b": np.full(2, 2.0)}

    def stepped(order: list[str], named: bool) -> list[float]:
        module = torch.nn.ParameterDict({name: torch.zeros(2).double() for name in start})
        optimizer = torch.optim.SGD([module[name] for name in order], lr=1.0)
        with local_terms(start, correction=by, module=module if named else None):
            sum(weight.sum() for weight in module.values()).backward()
            optimizer.step()
        return [module[name][0].item() for name in start]

    assert stepped(["a", "b"], named=False) == [-2.0, -3.0]
    assert stepped(["b", "a"], named=True) == [-2.0, -3.0]


def test_a_function_that_starts_from_other_weights_is_refused() -> None:
    with (
        pytest.raises(InvalidInputError, match=r"shape \(5, 4\) that has none of the round's"),
        local_terms(START, pull=0.1),
    ):
        fit(OTHER)


def test_a_module_with_a_weight_of_its_own_is_refused_by_name() -> None:
    module = torch.nn.ParameterDict({"mine": torch.zeros(2)})
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    module["mine"].sum().backward()
    with (
        pytest.raises(InvalidInputError, match="trains 'mine', which is not in the round's model"),
        local_terms(START, pull=0.1, module=module),
    ):
        optimizer.step()


def test_a_step_that_computes_its_own_gradients_is_refused() -> None:
    module = network()

    def closure() -> float:
        return 0.0

    with (
        pytest.raises(InvalidInputError, match="LBFGS computes its gradients inside its step"),
        local_terms(START, pull=0.1),
    ):
        torch.optim.LBFGS(module.parameters()).step(closure)


def test_a_step_that_scales_its_own_gradients_is_refused() -> None:
    module = network()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    optimizer.grad_scale = torch.ones(1)
    with (
        pytest.raises(InvalidInputError, match="build it with fused=False"),
        local_terms(START, pull=0.1),
    ):
        optimizer.step()


def test_sparse_gradients_are_refused() -> None:
    module = torch.nn.Embedding(3, 2, sparse=True)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    module(torch.tensor([1])).sum().backward()
    with (
        pytest.raises(InvalidInputError, match="build the embedding with sparse=False"),
        local_terms(state_of(module), pull=0.1),
    ):
        optimizer.step()


@pytest.mark.parametrize("pull", [-0.1, float("nan"), float("inf")])
def test_a_pull_that_is_none_is_refused(pull: float) -> None:
    with pytest.raises(InvalidInputError, match="take 0 or more"), local_terms(START, pull=pull):
        fit(START)


@pytest.mark.parametrize("field", ["anchor", "correction"])
def test_terms_of_another_model_are_refused_before_training(field: str) -> None:
    other = copy.copy(OTHER)
    del other["3.bias"]
    with (
        pytest.raises(InvalidInputError, match=rf"The {field} has none for array '3\.bias'"),
        local_terms(START, pull=0.1, **{field: other}),
    ):
        fit(START)
