"""An explainer of one's own: both helpers work, and a None says so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression
from torch import nn
from truststram.explainability import BaseExplainer


class CustomExplainer(BaseExplainer):
    """As the documents write it."""

    def __init__(self, model, feature_names):
        super().__init__(model, feature_names)

    def explain(self, data, method="gradient"):
        if method == "gradient":
            return self._gradient_explanation(data)
        if method == "permutation":
            return self._permutation_explanation(data)
        raise ValueError(f"Unknown method: {method}")


class Silent(CustomExplainer):
    def _gradient_explanation(self, data):
        pass


ROWS = np.random.default_rng(0).normal(size=(12, 3))


def test_the_documents_class_explains_by_both_methods():
    model = LinearRegression().fit(ROWS, ROWS @ [1.0, 2.0, 0.0])
    explainer = CustomExplainer(model, ["a", "b", "c"])
    found = explainer.explain(ROWS)
    np.testing.assert_allclose(found.values, ROWS * [1.0, 2.0, 0.0], atol=1e-9)
    assert found.feature_names == ("a", "b", "c")
    found = explainer.explain(ROWS, method="permutation")
    expected = (ROWS - ROWS.mean(axis=0)) * [1.0, 2.0, 0.0]
    np.testing.assert_allclose(found.values, expected, atol=4 * found.standard_error.max() + 1e-9)
    assert np.abs(found.residual).max() <= 1e-9
    with pytest.raises(ValueError, match="Unknown method: other"):
        explainer.explain(ROWS, method="other")
    with pytest.raises(ValueError, match="Unknown method: other; use 'gradient' or 'permutation'"):
        BaseExplainer(model).explain(ROWS, method="other")


def test_nothing_returned_is_said():
    found = Silent(LinearRegression().fit(ROWS, ROWS[:, 0]), None).explain(ROWS)
    assert "no explanation returned" in repr(found)
    assert "no explanation returned: Silent.explain gave None." in found._repr_html_()
    assert not found


def test_integrated_gradients_close_the_gap_with_the_steps():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    explainer = BaseExplainer(net)
    gaps = [
        np.abs(explainer.integrated_gradients(ROWS, steps=steps).residual).max()
        for steps in (2, 8, 64)
    ]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] <= 1e-10
    from_row = explainer.integrated_gradients(ROWS, baseline=ROWS[0])
    np.testing.assert_array_equal(from_row.values[0], 0.0)


def test_the_gap_of_trees_shows():
    model = RandomForestRegressor(5, random_state=0).fit(ROWS, ROWS[:, 0])
    found = BaseExplainer(model).integrated_gradients(ROWS)
    assert np.abs(found.residual).max() > 0.01
    assert "not attributed by the method" in found[int(np.abs(found.residual).argmax())].card().text


def test_one_row_alone_has_nothing_to_be_compared_with():
    explainer = BaseExplainer(LinearRegression().fit(ROWS, ROWS[:, 0]))
    with pytest.raises(ValueError, match="pass background="):
        explainer.explain(ROWS[:1], method="permutation")
    found = explainer.permutation_values(ROWS[:1], background=ROWS)
    assert found.values.shape == (1, 3)
