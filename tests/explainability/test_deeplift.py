from __future__ import annotations

import numpy as np
import pytest
from explained_models import Dense, Net, random_net, table_of

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.explainability.deeplift import deeplift_rescale
from truststram_lab.explainability.shapley import exact_shapley


def ones(rows):
    return np.ones((len(rows), 1))


@pytest.mark.parametrize("activation", ["identity", "relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("sizes", [(30, 1), (30, 16, 1), (30, 64, 32, 1), (12, 8, 8, 8, 1)])
def test_contributions_add_up_to_the_output(activation, sizes):
    rng = np.random.default_rng(len(sizes))
    net = random_net(rng, sizes, activation)
    baseline = rng.normal(size=sizes[0])
    rows = rng.normal(size=(50, sizes[0])) * 2
    phi = deeplift_rescale(net.layers, rows, baseline, ones(rows))
    expected = (net.logits(rows) - net.logits(baseline[None]))[:, 0]
    np.testing.assert_allclose(phi.sum(axis=1), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("step", [0.0, 1e-320, 1e-300, 1e-14, 1e-9, 1e-6, 9.9e-6, 1.1e-5, 1e-3])
def test_a_row_next_to_the_baseline_is_explained_without_noise(activation, step):
    rng = np.random.default_rng(7)
    net = random_net(rng, (12, 10, 6, 1), activation)
    baseline = rng.normal(size=12)
    direction = rng.normal(size=(20, 12))
    rows = baseline + step * direction
    phi = deeplift_rescale(net.layers, rows, baseline, ones(rows))
    assert np.isfinite(phi).all()
    expected = (net.logits(rows) - net.logits(baseline[None]))[:, 0]
    np.testing.assert_allclose(phi.sum(axis=1), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("step", [1e-7, 1e-10])
def test_multipliers_tend_to_the_gradient(step):
    rng = np.random.default_rng(8)
    net = random_net(rng, (3, 6, 1), "tanh")
    baseline = rng.normal(size=3)
    hidden = baseline @ net.layers[0].weight.T + net.layers[0].bias
    gradient = (net.layers[1].weight[0] * (1 - np.tanh(hidden) ** 2)) @ net.layers[0].weight
    rows = (baseline + step)[None]
    phi = deeplift_rescale(net.layers, rows, baseline, ones(rows))
    np.testing.assert_allclose(phi[0] / (rows[0] - baseline), gradient, rtol=1e-6)


def test_a_unit_just_across_the_kink_of_a_relu_keeps_the_sum():
    net = Net([Dense(np.array([[1.0]]), np.array([0.0]), "relu"), Dense(np.eye(1), np.zeros(1))])
    for low, high in ((-1e-6, 2e-6), (-1e-12, 1e-12), (-3e-6, -1e-6)):
        phi = deeplift_rescale(net.layers, np.array([[high]]), np.array([low]), np.ones((1, 1)))
        assert phi[0, 0] == pytest.approx(max(high, 0) - max(low, 0), abs=1e-20)


@pytest.mark.parametrize("players", [1, 4, 10])
def test_it_equals_exact_shapley_on_a_linear_network(players):
    rng = np.random.default_rng(players)
    net = random_net(rng, (players, 6, 1), "identity")
    table = table_of(rng, [1] * players)
    rows = rng.normal(size=(8, players))
    slices = [inputs for _, inputs in table.groups]
    exact = exact_shapley(net.logits, rows, table.mean, slices, ones(rows))
    lifted = deeplift_rescale(net.layers, rows, table.mean, ones(rows))
    np.testing.assert_allclose(lifted, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_it_equals_exact_shapley_where_each_hidden_unit_sees_one_column(activation):
    rng = np.random.default_rng(9)
    net = random_net(rng, (6, 18, 1), activation)
    net.layers[0].weight[...] *= np.repeat(np.eye(6), 3, axis=0)
    table = table_of(rng, [1] * 6)
    rows = rng.normal(size=(8, 6)) * 2
    slices = [inputs for _, inputs in table.groups]
    exact = exact_shapley(net.logits, rows, table.mean, slices, ones(rows))
    lifted = deeplift_rescale(net.layers, rows, table.mean, ones(rows))
    np.testing.assert_allclose(lifted, exact, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("sizes", [(30, 16, 1), (14, 24, 12, 3)])
def test_it_equals_the_reference_implementation_on_relu_networks(sizes):
    import shap
    import torch

    rng = np.random.default_rng(sizes[1])
    net = random_net(rng, sizes, "relu", scale=0.4)
    modules: list[torch.nn.Module] = []
    for layer in net.layers:
        linear = torch.nn.Linear(*layer.weight.T.shape).double()
        linear.weight.data = torch.from_numpy(layer.weight.copy())
        linear.bias.data = torch.from_numpy(layer.bias.copy())
        modules += [linear, torch.nn.ReLU()] if layer.activation == "relu" else [linear]
    baseline, rows = rng.normal(size=sizes[0]), rng.normal(size=(9, sizes[0]))
    explainer = shap.DeepExplainer(torch.nn.Sequential(*modules), torch.from_numpy(baseline[None]))
    reference = explainer.shap_values(torch.from_numpy(rows), check_additivity=False)
    reference = np.asarray(reference).reshape(9, sizes[0], sizes[-1])
    for k in range(sizes[-1]):
        readout = np.tile(np.eye(sizes[-1])[k], (9, 1))
        phi = deeplift_rescale(net.layers, rows, baseline, readout)
        np.testing.assert_allclose(phi, reference[:, :, k], rtol=0, atol=1e-5)


def test_an_activation_without_a_rule_is_refused_by_name():
    net = Net([Dense(np.eye(2), np.zeros(2), "gelu")])
    with pytest.raises(InvalidInputError, match="'gelu'"):
        deeplift_rescale(net.layers, np.ones((1, 2)), np.zeros(2), np.ones((1, 2)))
