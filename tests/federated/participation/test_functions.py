"""Training functions of both shapes: what they get, what comes back, and what is refused."""

from __future__ import annotations

import gc
import weakref
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from truststram_lab.exceptions import (
    InsufficientResourcesError,
    InvalidInputError,
    UpdateRejectedError,
)
from truststram_lab.federated.participation.forms import ARRAYS, LIST, TENSORS, take_weights
from truststram_lab.federated.participation.functions import adapt, call_evaluation, style_of
from truststram_lab.federated.participation.modules import ModuleTraining, loss_for

CONFIG = {"epochs": 2, "batch_size": 8, "learning_rate": 0.1, "round": 1}


def base() -> dict[str, np.ndarray]:
    return {
        "fc.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fc.bias": np.zeros(2, np.float32),
        "bn.count": np.array(3, np.int64),
    }


@given(
    hnp.arrays(
        np.float32, hnp.array_shapes(max_dims=3, max_side=4), elements=st.floats(-9, 9, width=32)
    )
)
def test_weights_come_back_in_the_kind_they_were_given_in(array):
    for weights in ([array, array + 1], {"a": array}, {"a": torch.tensor(array)}):
        state, form = take_weights(weights)
        back = form.give(state)
        assert type(back) is type(weights)
        kinds = zip(
            back.values() if isinstance(back, dict) else back,
            weights.values() if isinstance(weights, dict) else weights,
            strict=True,
        )
        for one, other in kinds:
            assert type(one) is type(other)
            assert one is not other
            assert np.array_equal(np.asarray(one), np.asarray(other))


def test_tensors_keep_their_own_type():
    weights = {"a": torch.ones(2, dtype=torch.bfloat16), "n": torch.tensor(4)}
    state, form = take_weights(weights)
    assert state["a"].dtype == np.float32
    back = form.give(state)
    assert (back["a"].dtype, back["n"].dtype) == (torch.bfloat16, torch.int64)


@pytest.mark.parametrize(
    ("function", "style"),
    [
        (lambda state: None, "state"),
        (lambda state, rate=0.1: None, "state"),
        (lambda *states: None, "state"),
        (lambda parameters, config: None, "fit"),
        (lambda parameters, config=None: None, "fit"),
        (partial(lambda data, state: None, 1), "state"),
    ],
)
def test_the_shape_of_a_function_is_seen_in_its_signature(function, style):
    assert style_of(function) == style


@pytest.mark.parametrize(
    "function", [lambda: None, lambda a, b, c: None, lambda state, *, device: None, 3]
)
def test_a_function_that_cannot_be_called_is_refused_before_the_round(function):
    with pytest.raises(InvalidInputError, match="The training function"):
        adapt(function)


def test_a_function_of_a_state_gets_tensors_of_its_own():
    given = base()

    def train(state):
        assert all(isinstance(value, torch.Tensor) for value in state.values())
        state["fc.weight"] += 1
        return state, 5, {"loss": torch.tensor(0.5)}

    trained = adapt(train)(given, CONFIG)
    assert np.array_equal(trained.state["fc.weight"], base()["fc.weight"] + 1)
    assert np.array_equal(given["fc.weight"], base()["fc.weight"])
    assert (trained.samples, trained.metrics) == (5, {"loss": 0.5})


def test_a_fit_gets_a_list_and_the_configuration():
    def fit(parameters, config):
        assert config["epochs"] == 2
        return (
            [array * 2 if array.dtype.kind == "f" else array for array in parameters],
            np.int64(7),
            None,
        )

    trained = adapt(fit)(base(), CONFIG)
    assert list(trained.state) == list(base())
    assert np.array_equal(trained.state["fc.weight"], base()["fc.weight"] * 2)
    assert trained.samples == 7


def changed(**more):
    return {**base(), **more}


def without(name):
    return {key: value for key, value in base().items() if key != name}


NAN = np.array([[1, np.nan, 3], [4, np.inf, 6]], np.float32)

WRONG = [
    (None, r"returned nothing, expected the tuple"),
    ([base(), 1, {}], r"returned a list, expected the tuple"),
    ((base(), 1), r"returned a tuple of 2, expected 3"),
    ((base(), 0, {}), r"returned 0 as the number of rows"),
    ((base(), True, {}), r"returned True as the number of rows"),
    ((base(), 10.0, {}), r"returned 10\.0 as the number .* for example 10"),
    ((base(), "10", {}), r"returned a str as the number of rows"),
    ((without("fc.bias"), 1, {}), r"did not return array 'fc\.bias': it is missing"),
    (({**without("fc.bias"), "fc.bia": 1}, 1, {}), r"'fc\.bias': it returned 'fc\.bia' instead"),
    ((changed(**{"fc.weigth": NAN}), 1, {}), r"array 'fc\.weigth'.*did you mean 'fc\.weight'"),
    ((changed(**{"fc.bias": np.zeros(3, np.float32)}), 1, {}), r"shape \(3,\), expected \(2,\)"),
    ((changed(**{"fc.weight": NAN}), 1, {}), r"2 values of 6 that are not finite"),
    ((changed(**{"fc.bias": np.full(2, 1e300)}), 1, {}), r"'fc\.bias' with 2 values of 2"),
    ((changed(**{"fc.bias": np.zeros(2, np.int64)}), 1, {}), r"as int64, expected float32"),
    ((changed(**{"bn.count": np.array(3.5)}), 1, {}), r"'bn\.count' as float64, expected int64"),
    ((changed(**{"fc.bias": np.zeros(2, complex)}), 1, {}), r"'fc\.bias' as complex128"),
    ((changed(**{"fc.bias": [0.0, 0.0]}), 1, {}), r"'fc\.bias' as a list"),
    ((list(base().values())[:2], 1, {}), r"returned 2 arrays, expected 3"),
    ((torch.nn.Linear(3, 2), 1, {}), r"a Linear as weights; return its state_dict\(\)"),
    ((base(), 1, [0.5]), r"a list as metrics"),
    ((base(), 1, {"loss": "low"}), r"a str as metric 'loss'"),
    ((base(), 1, {"loss": float("nan")}), r"nan as metric 'loss'"),
    ((base(), 1, {3: 0.1}), r"a metric named 3"),
]  # fmt: skip


@pytest.mark.parametrize(("returned", "sentence"), WRONG)
def test_every_wrong_answer_is_one_sentence_that_names_it(returned, sentence):
    with pytest.raises(UpdateRejectedError, match=sentence) as caught:
        adapt(lambda state: returned)(base(), CONFIG)
    assert caught.value.message.startswith("The training function ")
    assert caught.value.message.endswith((".", "?"))
    assert "\n" not in caught.value.message


def test_an_evaluation_gives_loss_rows_and_metrics():
    found = call_evaluation(lambda p, c: (0.25, 9, {"accuracy": 0.5}), base(), CONFIG)
    assert (found.samples, found.metrics) == (9, {"loss": 0.25, "accuracy": 0.5})
    with pytest.raises(UpdateRejectedError, match="The evaluation function returned nothing"):
        call_evaluation(lambda p, c: None, base(), CONFIG)


class Held:
    pass


def test_memory_that_does_not_suffice_is_let_go_and_nothing_holds_it():
    alive: list[weakref.ref] = []

    def train(state):
        tensors = Held()
        alive.append(weakref.ref(tensors))
        raise torch.OutOfMemoryError("CUDA out of memory")

    # Its batches are its own business.
    with pytest.raises(InsufficientResourcesError, match="train in smaller batches") as caught:
        adapt(train)(base(), CONFIG)
    gc.collect()
    assert alive[0]() is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2"), ValueError("no")])
def test_another_error_of_a_function_is_left_as_it_is(error):
    def train(state):
        raise error

    with pytest.raises(type(error), match=str(error)):
        adapt(train)(base(), CONFIG)


def module_training(module, rows=40, **more):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 3)).astype(np.float32)
    return ModuleTraining(module, x, (x[:, 0] > 0).astype(np.int64), loss_for(1), **more)


def module_state(module):
    return {name: value.numpy().copy() for name, value in module.state_dict().items()}


def test_a_module_trains_on_its_own_loss_and_is_reproducible():
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 1)
    start = module_state(module)
    config = {**CONFIG, "epochs": 20}
    one = module_training(module)(start, config)
    two = module_training(module)(start, config)
    assert all(np.array_equal(one.state[name], two.state[name]) for name in start)
    assert one.metrics["loss"] < 0.5
    assert one.samples == 40
    other = module_training(module)(start, {**config, "round": 2})
    assert not np.array_equal(one.state["weight"], other.state["weight"])


class Hungry(torch.nn.Linear):
    """Has memory for four rows."""

    def forward(self, x):
        if len(x) > 4:
            raise torch.OutOfMemoryError("no memory")
        return super().forward(x)


def test_a_module_says_the_batch_size_that_was_tried_and_fits():
    module = Hungry(3, 1)
    config = {**CONFIG, "batch_size": 32}
    with pytest.raises(InsufficientResourcesError, match=r"of 32.* batch_size of 4 or less"):
        module_training(module)(module_state(module), config)
    trained = module_training(module)(module_state(module), {**config, "batch_size": 4})
    assert trained.samples == 40


def test_the_documented_kinds_are_told_apart():
    assert (LIST.kind, ARRAYS.kind, TENSORS.kind) == ("list", "arrays", "tensors")
    with pytest.raises(InvalidInputError, match=r"pass its state_dict\(\)"):
        take_weights(torch.nn.Linear(2, 2), "model")
    with pytest.raises(InvalidInputError, match="model is empty"):
        take_weights({}, "model")
