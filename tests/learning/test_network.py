from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from truststram_lab.exceptions import InvalidInputError, UpdateRejectedError
from truststram_lab.learning.network import Network, expected_shapes, sigmoid, softmax
from truststram_lab.learning.training import build_module, initial_state
from truststram_lab.schemas.registry import Architecture, DenseLayer, DropoutLayer, Layer
from truststram_lab.schemas.tables import Signature

ACTIVATIONS = st.sampled_from(["identity", "relu", "tanh", "sigmoid"])
LAYERS: st.SearchStrategy[Layer] = st.builds(
    DenseLayer, units=st.integers(1, 6), activation=ACTIVATIONS
) | st.builds(DropoutLayer, rate=st.floats(0, 0.9))
ARCHITECTURES = st.builds(
    Architecture,
    inputs=st.integers(1, 6),
    layers=st.lists(LAYERS, max_size=4).flatmap(
        lambda hidden: st.builds(
            lambda last: [*hidden, last], st.builds(DenseLayer, units=st.integers(1, 4))
        )
    ),
)


def a_signature(positive: str | None = "b", classes: tuple[str, ...] = ("a", "b")) -> Signature:
    return Signature(columns=[], target="t", classes=list(classes), positive_class=positive)


@given(ARCHITECTURES, st.integers(0, 2**32))
def test_the_network_is_the_torch_module(architecture: Architecture, seed: int) -> None:
    state = initial_state(architecture, seed, "float64")
    module = build_module(architecture).double().eval()
    assert list(module.state_dict()) == list(state) == list(expected_shapes(architecture))
    module.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    x = np.random.default_rng(seed).normal(0, 3, (7, architecture.inputs))
    expected = module(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(
        Network(architecture, state).logits(x), expected, rtol=1e-12, atol=1e-12
    )


@given(ARCHITECTURES)
def test_shapes_are_those_of_the_torch_module(architecture: Architecture) -> None:
    found = {name: tuple(t.shape) for name, t in build_module(architecture).state_dict().items()}
    assert found == expected_shapes(architecture)


@given(ARCHITECTURES, st.integers(0, 2**32))
def test_probabilities_are_shares_that_add_up_to_one(architecture: Architecture, seed: int) -> None:
    network = Network(architecture, initial_state(architecture, seed))
    x = np.random.default_rng(seed).normal(0, 100, (5, architecture.inputs))
    shares = network.probabilities(x)
    assert shares.shape == (5, max(2, network.outputs))
    assert ((shares >= 0) & (shares <= 1)).all()
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-12)


@given(hnp.arrays(np.float64, 5, elements=st.floats(allow_nan=False, allow_infinity=False)))
def test_sigmoid_and_softmax_stay_finite_for_any_number(x: np.ndarray) -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert np.isfinite(sigmoid(x)).all()
    # Numbers further apart than the largest float are infinitely far apart.
    with np.errstate(over="ignore"):
        assert softmax(x).sum() == pytest.approx(1.0)


def test_a_certain_answer_keeps_the_digits_of_the_unlikely_side() -> None:
    architecture = Architecture(inputs=1, layers=[DenseLayer(units=1)])
    state = {"layers.0.weight": np.ones((1, 1)), "layers.0.bias": np.zeros(1)}
    shares = Network(architecture, state).probabilities(np.array([[50.0]]))
    assert shares[0, 0] == pytest.approx(np.exp(-50.0), rel=1e-12)


@pytest.mark.parametrize(("positive", "place"), [("a", 0), ("b", 1)])
def test_the_single_output_speaks_of_the_positive_class(positive: str, place: int) -> None:
    architecture = Architecture(inputs=1, layers=[DenseLayer(units=1)])
    state = {"layers.0.weight": np.ones((1, 1)), "layers.0.bias": np.zeros(1)}
    network = Network(architecture, state, a_signature(positive))
    assert network.probabilities(np.array([[3.0]]))[0].argmax() == place


def test_float32_weights_are_computed_with_in_float64() -> None:
    architecture = Architecture(inputs=2, layers=[DenseLayer(units=3, activation="tanh")])
    network = Network(architecture, initial_state(architecture, 0, "float32"))
    assert network.logits(np.ones((1, 2), np.float32)).dtype == np.float64


def test_no_rows_give_no_logits() -> None:
    architecture = Architecture(inputs=2, layers=[DenseLayer(units=3)])
    network = Network(architecture, initial_state(architecture, 0))
    assert network.probabilities(np.empty((0, 2))).shape == (0, 3)


@pytest.mark.parametrize("shape", [(3,), (2, 4), (1, 2, 3)])
def test_rows_of_another_width_are_refused(shape: tuple[int, ...]) -> None:
    architecture = Architecture(inputs=3, layers=[DenseLayer(units=1)])
    network = Network(architecture, initial_state(architecture, 0))
    with pytest.raises(InvalidInputError, match=r"the network takes \(n, 3\)"):
        network.logits(np.zeros(shape))


@pytest.mark.parametrize(
    "signature",
    [a_signature(None, ("a", "b", "c")), a_signature(None), a_signature("b", ("a", "b", "c"))],
)
def test_outputs_that_do_not_fit_the_classes_are_refused(signature: Signature) -> None:
    architecture = Architecture(inputs=3, layers=[DenseLayer(units=1)])
    with pytest.raises(InvalidInputError, match=r"outputs|positive class"):
        Network(architecture, initial_state(architecture, 0), signature)


def test_weights_of_another_network_are_rejected() -> None:
    architecture = Architecture(inputs=3, layers=[DenseLayer(units=1)])
    other = Architecture(inputs=4, layers=[DenseLayer(units=1)])
    with pytest.raises(UpdateRejectedError, match=r"shape \(1, 4\), expected \(1, 3\)"):
        Network(architecture, initial_state(other, 0))
    whole = {name: np.ones(s, np.int64) for name, s in expected_shapes(architecture).items()}
    with pytest.raises(UpdateRejectedError, match="type int64, expected float"):
        Network(architecture, whole)
