"""The documents' network: Keras' method names on a torch module."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.federated import NetworkModel
from truststram_lab.learning.terms import local_terms

LAYERS = [
    {"type": "dense", "units": 128, "activation": "relu"},
    {"type": "dropout", "rate": 0.2},
    {"type": "dense", "units": 64, "activation": "relu"},
    {"type": "dense", "units": 1, "activation": "sigmoid"},
]
SMALL = [
    {"type": "dense", "units": 4, "activation": "tanh"},
    {"type": "dropout", "rate": 0.5},
    {"type": "dense", "units": 1, "activation": "sigmoid"},
]


def rows(count=200, columns=3, seed=0):
    x = np.random.default_rng(seed).normal(size=(count, columns)).astype(np.float32)
    return x, (x[:, 0] + 0.5 * x[:, 1] > 0).astype(int)


def test_the_documented_layers_train_and_their_shapes_are_found_at_the_first_data():
    model = NetworkModel(LAYERS)
    assert model.inputs is None
    x, y = rows()
    history = model.fit(x, y, epochs=10, batch_size=32, validation_split=0.2)
    assert [array.shape for array in model.get_weights()] == [
        (128, 3), (128,), (64, 128), (64,), (1, 64), (1,),
    ]  # fmt: skip
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert history.history is history
    assert all(len(values) == 10 for values in history.values())
    loss, accuracy = model.evaluate(*rows(seed=1))
    assert accuracy > 0.9
    assert loss < 0.5
    assert model.predict(x).shape == (200, 1)


def test_weights_go_from_one_model_to_another_and_set_its_input_size():
    one, two = NetworkModel(SMALL, seed=1), NetworkModel(SMALL, seed=2)
    x, y = rows()
    one.fit(x, y)
    two.set_weights(one.get_weights())
    assert two.inputs == 3
    assert two.evaluate(x, y) == one.evaluate(x, y)
    two.set_weights([torch.tensor(array) for array in one.get_weights()])
    taken = two.get_weights()
    taken[0][:] = 0
    assert two.get_weights()[0].any()


def test_equal_seeds_give_equal_bits_whatever_the_process_draws():
    x, y = rows()
    found = []
    for junk in (1, 99):
        torch.manual_seed(junk)
        model = NetworkModel(SMALL, seed=5)
        model.fit(x, y, epochs=3, batch_size=16)
        found.append([model.get_weights(), model.evaluate(x, y)])
        torch.rand(junk)
    for one, other in zip(*(pair[0] for pair in found), strict=True):
        assert np.array_equal(one, other)
    assert found[0][1] == found[1][1]
    other = NetworkModel(SMALL, seed=6)
    other.fit(x, y, epochs=3, batch_size=16)
    assert not np.array_equal(other.get_weights()[0], found[0][0][0])


def test_it_leaves_the_randomness_of_the_process_alone():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    NetworkModel(SMALL).fit(*rows())
    assert torch.equal(torch.rand(3), expected)


def test_the_loss_is_the_binary_cross_entropy_of_the_probabilities():
    model = NetworkModel(SMALL)
    x, y = rows()
    model.fit(x, y)
    p = model.predict(x)[:, 0].astype(np.float64)
    expected = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
    loss, accuracy = model.evaluate(x, y)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert accuracy == pytest.approx(np.mean((p > 0.5) == y))


@pytest.mark.parametrize("kind", ["frame", "array", "tensor", "list"])
def test_tables_of_every_kind_are_taken(kind):
    x, y = rows()
    given = {
        "frame": (pd.DataFrame(x, columns=["a", "b", "c"]), pd.Series(y)),
        "array": (x, y),
        "tensor": (torch.tensor(x), torch.tensor(y)),
        "list": (x.tolist(), y.tolist()),
    }[kind]
    model = NetworkModel(SMALL)
    model.fit(*given)
    same = NetworkModel(SMALL)
    same.fit(x, y)
    assert np.array_equal(model.get_weights()[0], same.get_weights()[0])


def test_several_classes_have_a_unit_each():
    layers = [{"type": "dense", "units": 3, "activation": "softmax"}]
    x, _ = rows(600)
    y = np.argmax(x, axis=1)
    model = NetworkModel(layers, learning_rate=0.05)
    model.fit(x, y, epochs=20)
    assert model.evaluate(x, y)[1] > 0.9
    assert model.predict(x).sum(1) == pytest.approx(np.ones(600), abs=1e-5)


def test_the_split_takes_the_last_rows_and_does_not_train_on_them():
    x, y = rows(100)
    spoiled = y.copy()
    spoiled[80:] = 1 - spoiled[80:]
    one, two = NetworkModel(SMALL), NetworkModel(SMALL)
    one.fit(x, y, epochs=2, validation_split=0.2)
    two.fit(x, spoiled, epochs=2, validation_split=0.2)
    assert np.array_equal(one.get_weights()[0], two.get_weights()[0])


def test_a_strategys_term_reaches_its_steps():
    model = NetworkModel(SMALL)
    model.build(3)
    start = dict(zip(model.state_dict(), model.get_weights(), strict=True))
    with local_terms(start, pull=0.1) as terms:
        model.fit(*rows(64), batch_size=16)
    assert terms.steps == 4


X, Y = rows(20)
WRONG = [
    (lambda m: m.get_weights(), "has no weights before"),
    (lambda m: m.fit(X[:, :0], Y), r"shape \(20, 0\)"),
    (lambda m: m.fit(X, Y[:5]), r"20 rows, but the classes have shape \(5,\)"),
    (lambda m: m.fit(X, Y + 1), "whole numbers from 0 to 1"),
    (lambda m: m.fit(X, ["no"] * 20), "such as 'no'"),
    (lambda m: m.fit(X, Y, epochs=0), "epochs is 0"),
    (lambda m: m.fit(X, Y, batch_size=2.5), r"batch_size is 2\.5"),
    (lambda m: m.fit(X, Y, validation_split=1.0), r"validation_split 1\.0"),
    (lambda m: m.fit(pd.DataFrame({"age": [1.0], "ward": ["icu"]}), [0]), "Column 'ward'"),
    (lambda m: m.fit(pd.DataFrame({"age": [1.0, np.nan]}), [0, 1]), "Column 'age' has 1 values"),
    (lambda m: (m.build(5), m.evaluate(X, Y)), "3 columns, but the model was built for 5"),
    (
        lambda m: (m.build(3), m.set_weights([np.zeros((4, 3))])),
        "got 1 arrays, but the model has 4",
    ),
    (lambda m: (m.build(3), m.set_weights([np.zeros((5, 3)), *m.get_weights()[1:]])), "expected"),
]


@pytest.mark.parametrize(("act", "sentence"), WRONG)
def test_wrong_use_is_one_sentence(act, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        act(NetworkModel(SMALL))


END = {"type": "dense", "units": 1, "activation": "sigmoid"}


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        ([], "last layer must be dense"),
        ([{"type": "dense", "units": 1, "activation": "relu"}], "last layer must be dense"),
        ([{"type": "dropout", "rate": 0.2}], "last layer must be dense"),
        ([{"type": "dens", "units": 1}, END], "type 'dens'; did you mean 'dense'"),
        ([{"type": "dense", "units": 2, "activation": "relo"}, END], "did you mean 'relu'"),
        ([{"type": "dense", "units": 2, "activation": "softmax"}, END], "activation 'softmax'"),
        ([{"type": "dense", "unit": 2}, END], r"layers\[0\] has no 'unit'"),
        ([{"type": "dense", "units": 0}, END], "units 0"),
        ([{"type": "dropout", "rate": 1.0}, END], r"rate 1\.0"),
        ([{"type": "dense"}, END], "units"),
    ],
)
def test_wrong_layers_are_one_sentence_that_says_where(layers, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        NetworkModel(layers)


def test_first_weights_come_without_training():
    model = NetworkModel(SMALL, seed=4)
    model.first_weights(lambda: (model.set_weights([]), model.fit(*rows(), epochs=50)))
    fresh = NetworkModel(SMALL, seed=4).build(3)
    for one, other in zip(model.get_weights(), fresh.get_weights(), strict=True):
        assert np.array_equal(one, other)
    with pytest.raises(InvalidInputError, match="fit ended without training"):
        NetworkModel(SMALL).first_weights(lambda: None)


def test_training_that_diverges_says_so():
    layers = [{"type": "dense", "units": 4, "activation": "relu"}, END]
    model = NetworkModel(layers, optimizer="sgd", learning_rate=1e20)
    with pytest.raises(InvalidInputError, match=r"diverged at learning rate 1e\+20"):
        model.fit(X * 1e15, Y, epochs=5)
