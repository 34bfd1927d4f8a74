"""Other libraries on the same inputs: shap, captum, lime, XGBoost and LightGBM.

shap comes with the environment; the others lie in ``oracles`` below it (``oracles.txt``). All of
it is slow to load, so these are long tests.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from brute_force import interventional
from sklearn.datasets import make_classification
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier
from torch import nn

from truststram_lab.explainability import LIMEExplainer, SHAPExplainer
from truststram_lab.explainability.rows import read_rows

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]


def table(classes: int = 2, columns: int = 5) -> tuple[np.ndarray, np.ndarray]:
    return make_classification(
        300, columns, n_informative=4, n_redundant=0, n_classes=classes, random_state=1
    )


def boosted(library: Any, name: str, classes: int) -> Any:
    if name == "xgboost":
        return library("xgboost").XGBClassifier(n_estimators=15, max_depth=4, n_jobs=1)
    if name == "xgboost regression":
        return library("xgboost").XGBRegressor(n_estimators=15, n_jobs=1)
    if name == "xgboost stopped early":
        return library("xgboost").XGBClassifier(
            n_estimators=200, learning_rate=0.5, early_stopping_rounds=3, n_jobs=1
        )
    if name == "lightgbm":
        return library("lightgbm").LGBMClassifier(n_estimators=15, n_jobs=1, verbose=-1)
    if name == "lightgbm forest":
        return library("lightgbm").LGBMClassifier(
            n_estimators=9, boosting_type="rf", subsample=0.6, subsample_freq=1, verbose=-1
        )
    return library("lightgbm").LGBMRegressor(n_estimators=15, n_jobs=1, verbose=-1)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(
    "name",
    ["xgboost", "xgboost regression", "xgboost stopped early", "lightgbm", "lightgbm forest",
     "lightgbm regression"],
)  # fmt: skip
def test_gradient_boosting_libraries_are_the_definition(library, name, classes, missing):
    x, y = table(classes)
    if missing:
        x[::6, 1] = np.nan
    model = boosted(library, name, classes)
    model.fit(x, y, **({"eval_set": [(x[:90], y[:90])]} if "early" in name else {}))
    explainer = SHAPExplainer(model, x[:9])
    assert explainer.method == "tree_interventional"
    found = explainer.explain(x[30:33])
    option = {"output_margin": True} if name.startswith("xgboost") else {"raw_score": True}
    if name.endswith("regression"):
        option = {}
    expected = interventional(lambda z: model.predict(z, **option), x[30:33], x[:9])
    atol = 2e-6 if name.startswith("xgboost") else 1e-9  # XGBoost adds in float32
    np.testing.assert_allclose(found.values.reshape(expected.shape), expected, atol=atol)
    path = SHAPExplainer(model, method="tree_path").explain(x[30:33])
    assert np.abs(path.residual).max() <= 1e-5


@pytest.mark.parametrize("name", ["sklearn", "histogram", "xgboost", "lightgbm"])
def test_path_values_are_those_of_shap(library, name):
    import shap

    x, y = table()
    own = {"sklearn": GradientBoostingClassifier, "histogram": HistGradientBoostingClassifier}
    model = own[name]() if name in own else boosted(library, name, 2)
    model.fit(x, y)
    found = SHAPExplainer(model, method="tree_path").explain(x[:20])
    theirs = np.asarray(shap.TreeExplainer(model).shap_values(x[:20].astype(np.float32)))
    ours = SHAPExplainer(model, method="tree_path").explain(x[:20].astype(np.float32))
    np.testing.assert_allclose(ours.values, theirs.reshape(found.values.shape), atol=1e-5)


@pytest.mark.parametrize("outputs", [1, 3])
def test_deeplift_is_that_of_shap_and_captum(library, outputs):
    import shap

    attributes = library("captum.attr")
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, outputs)
    ).eval()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 8)).astype(np.float32)
    b = rng.standard_normal((20, 8)).astype(np.float32)
    found = SHAPExplainer(net, b).explain(x).values.reshape(6, 8, outputs)
    theirs = shap.DeepExplainer(net, torch.tensor(b)).shap_values(torch.tensor(x))
    np.testing.assert_allclose(found, np.reshape(theirs, found.shape), atol=1e-5)
    for output in range(outputs):
        captum = attributes.DeepLiftShap(net).attribute(
            torch.tensor(x), torch.tensor(b), target=output
        )
        np.testing.assert_allclose(found[:, :, output], captum.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("features", [5, 10])
def test_coefficients_are_those_of_the_lime_package(library, features):
    base = library("lime.lime_base")
    x, y = table(columns=12)
    model = GradientBoostingClassifier(n_estimators=15).fit(x, y)
    explainer = LIMEExplainer(model, background_data=x, num_samples=2000)
    found = explainer.explain(x[:4], num_features=features)
    bins, points = explainer.perturbations(
        read_rows(x[:4], None, framed=False, what="x", like=explainer.background)
    )
    width = np.sqrt(12) * 0.75
    theirs = base.LimeBase(lambda d: np.sqrt(np.exp(-(d**2) / width**2)), random_state=0)
    for row in range(4):
        own = [np.searchsorted(np.percentile(x[:, j], [25, 50, 75]), x[row, j]) for j in range(12)]
        data = np.vstack([np.ones(12), (bins == own).astype(float)])
        labels = model.predict_proba(np.vstack([x[row], points.numbers]))
        apart = np.sqrt(((data - 1.0) ** 2).sum(axis=1))
        intercept, pairs, score, _ = theirs.explain_instance_with_data(
            data, labels, apart, 1, features
        )
        expected = np.zeros(12)
        for column, weight in pairs:
            expected[column] = weight
        np.testing.assert_allclose(found.values[row], expected, atol=1e-6)
        np.testing.assert_allclose(found.base_values[row], intercept, atol=1e-6)
        np.testing.assert_allclose(found.fit[row], score, atol=1e-6)


def test_shap_itself_is_wrong_where_we_are_right():
    """Why interventional trees are our own; if this fails, shap was put right."""
    import shap

    x, y = table()
    model = HistGradientBoostingClassifier(max_iter=15).fit(x, y)
    ours = SHAPExplainer(model, x[:50]).explain(x[50:60])
    expected = interventional(model.decision_function, x[50:52], x[:50])[:, :, 0]
    np.testing.assert_allclose(ours.values[:2], expected, atol=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = shap.TreeExplainer(model, x[:50]).shap_values(x[50:52], check_additivity=False)
    assert np.abs(np.asarray(theirs) - expected).max() > 1e-3
