"""Torch modules: DeepLIFT against the rule written out, expected gradients against theory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from brute_force import interventional
from torch import nn

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.explainability import SHAPExplainer


def network(outputs: int = 1, act: type[nn.Module] = nn.ReLU, kind: str = "float64") -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Linear(4, 9), act(), nn.Dropout(0.5), nn.Linear(9, 6), act(), nn.Linear(6, outputs)
    )
    return layers.to(getattr(torch, kind))


def numbers() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(5, 4)), rng.normal(size=(6, 4))


def by_rule(net: nn.Sequential, x: np.ndarray, b: np.ndarray, output: int) -> np.ndarray:
    """DeepLIFT (Rescale) of one row against one baseline, unit by unit."""
    layers = [part for part in net if not isinstance(part, nn.Dropout)]
    ups = [torch.tensor(x)]
    downs = [torch.tensor(b)]
    for layer in layers:
        ups.append(layer(ups[-1]).detach())
        downs.append(layer(downs[-1]).detach())
    multiplier = torch.zeros(len(ups[-1]), dtype=torch.float64)
    multiplier[output] = 1.0
    for place in range(len(layers) - 1, -1, -1):
        if isinstance(layers[place], nn.Linear):
            multiplier = multiplier @ layers[place].weight.detach()
        else:
            slope = (ups[place + 1] - downs[place + 1]) / (ups[place] - downs[place])
            multiplier = multiplier * slope
    return (multiplier * (ups[0] - downs[0])).numpy()


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh, nn.SiLU, nn.LeakyReLU])
@pytest.mark.parametrize("outputs", [1, 3])
def test_deeplift_is_the_mean_of_the_rule_over_baselines(act, outputs):
    x, b = numbers()
    net = network(outputs, act)
    explainer = SHAPExplainer(net, b)
    assert explainer.method == "deeplift"
    found = explainer.explain(x)
    values = found.values.reshape(5, 4, outputs)
    for row in range(5):
        for output in range(outputs):
            expected = np.mean([by_rule(net, x[row], one, output) for one in b], axis=0)
            np.testing.assert_allclose(values[row, :, output], expected, atol=1e-10)
    assert np.abs(found.residual).max() <= 1e-6


def test_deeplift_where_nothing_changes_takes_the_derivative():
    net = network(1, nn.Tanh)
    x, _b = numbers()
    with pytest.warns(UserWarning, match="single point"):
        explainer = SHAPExplainer(net, x[:1])
    found = explainer.explain(x[:1])
    np.testing.assert_allclose(found.values, 0.0, atol=1e-15)
    nearly = explainer.explain(x[:1] + 1e-9)
    assert np.isfinite(nearly.values).all()
    assert abs(nearly.residual[0]) <= 1e-12


def test_batch_normalisation_is_a_linear_layer():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 1)).double()
    net.train()
    net(torch.randn(50, 4).double())
    x, b = numbers()
    found = SHAPExplainer(net, b).explain(x)
    assert np.abs(found.residual).max() <= 1e-9
    assert net.training
    assert net[1].training


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_expected_gradients_come_within_their_errors(kind):
    x, b = numbers()
    net = network(2, nn.Tanh, kind)
    found = SHAPExplainer(net, b, method="expected_gradients", samples=3000).explain(x)
    again = SHAPExplainer(net, b, method="expected_gradients", samples=3000, seed=9).explain(x)
    assert (np.abs(found.values - again.values) <= 6 * found.standard_error + 1e-6).all()
    assert np.abs(found.residual).max() <= 6 * found.standard_error.max()


def test_expected_gradients_of_a_product_are_its_shapley_values():
    class Product(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, 0] * x[:, 1] + x[:, 2]

    # For a bilinear function the path method and the Shapley value agree.
    x, b = numbers()
    explainer = SHAPExplainer(Product(), b, samples=6000)
    assert explainer.method == "expected_gradients"
    found = explainer.explain(x)
    expected = interventional(lambda z: z[:, 0] * z[:, 1] + z[:, 2], x, b)[:, :, 0]
    np.testing.assert_allclose(found.values, expected, atol=6 * found.standard_error.max())


def test_probabilities_of_one_logit_and_their_sign():
    x, b = numbers()
    net = network()
    names = ["no", "yes"]
    yes = SHAPExplainer(net, b, output="probability", class_names=names).explain(x)
    no = SHAPExplainer(
        net, b, output="probability", class_names=names, positive_class="no"
    ).explain(x)
    assert yes.method == "deeplift"
    np.testing.assert_allclose(yes.values, -no.values, atol=1e-12)
    np.testing.assert_allclose(yes.outputs + no.outputs, 1.0)
    assert np.abs(no.residual).max() <= 1e-6
    ended = nn.Sequential(*net, nn.Sigmoid())
    same = SHAPExplainer(ended, b, class_names=names).explain(x)
    np.testing.assert_allclose(same.values, yes.values, atol=1e-12)
    with pytest.raises(InvalidInputError, match="ends in a sigmoid"):
        SHAPExplainer(ended, b, output="margin")


def test_a_softmax_has_no_rule():
    _, b = numbers()
    with pytest.raises(InvalidInputError, match="a softmax has no rule; explain the margin"):
        SHAPExplainer(network(3), b, output="probability", method="deeplift")
    assert SHAPExplainer(network(3), b, output="probability").method == "expected_gradients"


def test_a_module_is_exact_when_asked():
    x, b = numbers()
    net = network(2).eval()
    found = SHAPExplainer(net, b, method="exact", class_names=["a", "b"]).explain(x[:2])
    expected = interventional(lambda z: net(torch.tensor(z)).detach().numpy(), x[:2], b)
    np.testing.assert_allclose(found.values, expected, atol=1e-9)
