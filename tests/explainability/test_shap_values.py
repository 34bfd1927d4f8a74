"""Every method against the definition, for every class of model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from brute_force import interventional, path_dependent
from sklearn.datasets import make_classification
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.explainability import SHAPExplainer
from truststram_lab.explainability.tree_models import read_trees

COLUMNS = 5


def table(classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    x, y = make_classification(
        160, COLUMNS, n_informative=4, n_redundant=0, n_classes=classes, random_state=1
    )
    x[:, 4] = np.round(x[:, 4])  # ties, and values that equal thresholds' neighbours
    return x, y


TREES = {
    "tree": DecisionTreeClassifier(random_state=0),
    "tree of chance": ExtraTreeClassifier(random_state=0),
    "regression tree": DecisionTreeRegressor(random_state=0),
    "forest": RandomForestClassifier(8, random_state=0),
    "regression forest": RandomForestRegressor(8, random_state=0),
    "extra trees": ExtraTreesClassifier(8, random_state=0),
    "extra regression trees": ExtraTreesRegressor(8, random_state=0),
    "boosting": GradientBoostingClassifier(n_estimators=12, max_depth=4, random_state=0),
    "regression boosting": GradientBoostingRegressor(n_estimators=12, random_state=0),
    "histogram boosting": HistGradientBoostingClassifier(max_iter=8, min_samples_leaf=5),
    "histogram regression": HistGradientBoostingRegressor(max_iter=8, min_samples_leaf=5),
}


def outputs_of(explainer: SHAPExplainer, model: Any) -> Any:
    """The model's own function, found without the package's adapter."""
    space = explainer.explain(np.zeros((1, COLUMNS))).output
    if space == "value":
        return model.predict
    if space == "margin":
        return model.decision_function
    if len(model.classes_) > 2:
        return model.predict_proba
    return lambda x: model.predict_proba(x)[:, 1]


def check(explainer: SHAPExplainer, model: Any, x: np.ndarray, background: np.ndarray) -> None:
    found = explainer.explain(x)
    expected = interventional(outputs_of(explainer, model), x, background)
    shape = (len(x), COLUMNS, -1)
    np.testing.assert_allclose(found.values.reshape(shape), expected, atol=1e-9)
    assert np.abs(found.residual).max() <= 1e-6


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("classes", [2, 3])
def test_interventional_trees_are_the_definition(name, classes):
    x, y = table(classes)
    model = TREES[name].fit(x, y)
    explainer = SHAPExplainer(model, x[:9])
    assert explainer.method == "tree_interventional"
    check(explainer, model, x[30:33], x[:9])


@pytest.mark.parametrize("name", ["forest", "boosting", "histogram boosting"])
def test_rows_on_a_threshold_go_the_way_the_model_sends_them(name):
    x, y = table()
    model = TREES[name].fit(x, y)
    trees = read_trees(model)
    rows = []
    for node in np.flatnonzero(trees.feature >= 0):
        for step in (-1e-9, -1e-17, 0.0, 1e-17, 1e-9):  # within float32's grain, and beyond
            row = x[node % len(x)].copy()
            row[trees.feature[node]] = trees.threshold[node] * (1 + step) + step
            rows.append(row)
    points = np.array(rows)
    if hasattr(model, "decision_function"):
        apart = model.decision_function(points) - trees.outputs(points)[:, 0]
        assert np.ptp(apart) <= 1e-9
    else:
        np.testing.assert_allclose(trees.outputs(points), model.predict_proba(points), atol=1e-9)


def test_deep_leaves_agree_with_tables(monkeypatch):
    from truststram_lab.explainability import trees

    x, y = table(3)
    model = RandomForestClassifier(8, random_state=0).fit(x, y)
    usual = [SHAPExplainer(model, x[:9]).explain(x[30:40])]
    usual.append(SHAPExplainer(model, method="tree_path").explain(x[30:40]))
    monkeypatch.setattr(trees, "_TABLE_PLAYERS", 2)
    deep = [SHAPExplainer(model, x[:9]).explain(x[30:40])]
    deep.append(SHAPExplainer(model, method="tree_path").explain(x[30:40]))
    for one, other in zip(usual, deep, strict=True):
        np.testing.assert_allclose(one.values, other.values, atol=1e-12)
        np.testing.assert_allclose(one.base_values, other.base_values, atol=1e-12)


def test_path_dependent_trees_are_the_definition():
    x, y = table()
    model = GradientBoostingRegressor(n_estimators=6, random_state=0).fit(x, y)
    explainer = SHAPExplainer(model)
    assert explainer.method == "tree_path"
    found = explainer.explain(x[:3])
    trees = [stage[0].tree_ for stage in model.estimators_]
    for row in range(3):
        expected = path_dependent(trees, [model.learning_rate] * len(trees), x[row])
        np.testing.assert_allclose(found.values[row], expected, atol=1e-12)
    assert np.abs(found.residual).max() <= 1e-6


def test_missing_values_go_where_the_trees_send_them():
    x, y = table()
    x[::5, 1] = np.nan
    model = HistGradientBoostingClassifier(max_iter=8, min_samples_leaf=5).fit(x, y)
    check(SHAPExplainer(model, x[:9]), model, x[5:8], x[:9])


@pytest.mark.parametrize(
    "model",
    [LinearRegression(), Ridge(), LogisticRegression(), LinearSVC(), SVC(kernel="linear"),
     make_pipeline(StandardScaler(), LogisticRegression())],
    ids=lambda model: type(model).__name__,
)  # fmt: skip
@pytest.mark.parametrize("classes", [2, 3])
def test_linear_models_in_closed_form_are_the_definition(model, classes):
    x, y = table(classes)
    model.fit(x, y)
    explainer = SHAPExplainer(model, x[:9])
    if not (isinstance(model, SVC) and classes == 3):  # one against one: coefficients of pairs
        assert explainer.method == "linear"
    check(explainer, model, x[30:33], x[:9])


@pytest.mark.parametrize(
    "model",
    [GaussianNB(), KNeighborsClassifier(), SVC(), PoissonRegressor(), DummyClassifier()],
    ids=lambda model: type(model).__name__,
)
def test_anything_else_is_enumerated(model):
    x, y = table()
    model.fit(x, y)
    explainer = SHAPExplainer(model, x[:9])
    assert explainer.method == "exact"
    check(explainer, model, x[30:32], x[:9])


def test_the_probability_of_a_boosting_is_not_taken_for_the_sum_of_its_trees():
    x, y = table()
    model = GradientBoostingClassifier(n_estimators=12).fit(x, y)
    explainer = SHAPExplainer(model, x[:9], output="probability")
    assert explainer.method == "exact"
    check(explainer, model, x[30:32], x[:9])
    with pytest.raises(InvalidInputError, match="not the sum of its trees; use 'auto' or 'exact'"):
        SHAPExplainer(model, x[:9], output="probability", method="tree_interventional")


def test_permutations_come_within_their_standard_errors():
    x, y = table(3)
    model = GaussianNB().fit(x, y)
    exact = SHAPExplainer(model, x[:40], method="exact").explain(x[40:60])
    sampled = SHAPExplainer(model, x[:40], method="permutation", samples=800).explain(x[40:60])
    assert sampled.standard_error.shape == sampled.values.shape
    error = np.abs(sampled.values - exact.values)
    # Columns without any variance are exact; elsewhere a normal error of five deviations.
    assert (error <= 5 * sampled.standard_error + 1e-9).mean() > 0.995
    assert 0.5 < np.sqrt((error**2).mean() / (sampled.standard_error**2).mean()) < 1.3
    assert np.abs(sampled.residual).max() <= 1e-9
    again = SHAPExplainer(model, x[:40], method="permutation", samples=800).explain(x[40:60])
    np.testing.assert_array_equal(again.values, sampled.values)


@pytest.mark.parametrize("method", ["exact", "permutation"])
def test_axioms_of_any_function(method):
    rng = np.random.default_rng(0)
    background, rows = rng.normal(size=(20, 4)), rng.normal(size=(6, 4))
    background[:, 1], rows[:, 1] = background[:, 0], rows[:, 0]

    def values(function: Any) -> np.ndarray:
        return SHAPExplainer(function, background, method=method, seed=3).explain(rows).values

    def one(x: np.ndarray) -> np.ndarray:
        return np.tanh(x[:, 0] + x[:, 1]) * x[:, 2]

    def two(x: np.ndarray) -> np.ndarray:
        return np.exp(x[:, 2] * 0.3) - x[:, 0] * x[:, 1]

    np.testing.assert_allclose(values(one)[:, 3], 0.0, atol=1e-15)  # dummy
    both = values(lambda x: np.column_stack([one(x), two(x), 2 * one(x) - 3 * two(x)]))
    if method == "exact":
        np.testing.assert_allclose(values(one)[:, 0], values(one)[:, 1])  # symmetry
        np.testing.assert_allclose(both[:, :, 2], 2 * both[:, :, 0] - 3 * both[:, :, 1], atol=1e-12)


@pytest.mark.parametrize("name", ["boosting", "forest", "histogram boosting"])
def test_axioms_of_trees(name):
    x, y = table()
    x[:, 3] = 1.5  # constant: never used
    model = TREES[name].fit(x, y)
    for explainer in (SHAPExplainer(model, x[:30]), SHAPExplainer(model, method="tree_path")):
        np.testing.assert_array_equal(explainer.explain(x[:5]).values[:, 3], 0.0)


def test_a_forest_is_the_mean_of_its_trees():
    x, y = table()
    forest = RandomForestClassifier(6, random_state=0).fit(x, y)
    whole = SHAPExplainer(forest, x[:20]).explain(x[:5]).values
    parts = [SHAPExplainer(tree, x[:20]).explain(x[:5]).values for tree in forest.estimators_]
    np.testing.assert_allclose(whole, np.mean(parts, axis=0), atol=1e-12)


def test_several_targets_are_outputs():
    x, _ = table()
    targets = np.column_stack([x[:, 0] * x[:, 1], x[:, 2]])
    for model in (RandomForestRegressor(5), LinearRegression(), DecisionTreeRegressor()):
        model.fit(x, targets)
        explainer = SHAPExplainer(model, x[:9])
        found = explainer.explain(x[:2])
        assert found.values.shape == (2, COLUMNS, 2)
        np.testing.assert_allclose(
            found.values, interventional(model.predict, x[:2], x[:9]), atol=1e-9
        )


@pytest.mark.parametrize("output", ["margin", "probability"])
def test_the_sign_points_to_the_positive_class(output):
    x, y = table()
    words = np.array(["sick", "well"])[y]
    model = LogisticRegression().fit(x, words)
    well = SHAPExplainer(model, x[:9], output=output).explain(x[:3])
    sick = SHAPExplainer(model, x[:9], output=output, positive_class="sick").explain(x[:3])
    assert (well.classes, sick.classes) == (("well",), ("sick",))
    np.testing.assert_allclose(sick.values, -well.values, atol=1e-12)
    shown = well.outputs > (0.0 if output == "margin" else 0.5)
    np.testing.assert_array_equal(shown, model.predict(x[:3]) == "well")
    assert np.abs(sick.residual).max() <= 1e-9


def test_one_row_and_one_column_work():
    x = np.linspace(-1, 1, 50)[:, None]
    for model in (LinearRegression(), DecisionTreeRegressor(max_depth=3)):
        model.fit(x, x[:, 0] ** 2)
        for method in ("auto", "exact", "permutation"):
            found = SHAPExplainer(model, x, method=method).explain(x[3])
            expected = model.predict(x[3:4])[0] - model.predict(x).mean()
            assert found.values.shape == (1, 1)
            np.testing.assert_allclose(found.values[0, 0], expected, atol=1e-12)


@pytest.mark.parametrize("kind", ["float32", "int64", "uint8", "bool", "object"])
def test_any_numeric_type_is_the_same_numbers(kind):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, size=(60, 4))
    model = RandomForestRegressor(5, random_state=0).fit(x, x[:, 0] * x[:, 1] + x[:, 2])
    plain = SHAPExplainer(model, x[:20]).explain(x[:4])
    other = SHAPExplainer(model, x[:20].astype(kind)).explain(x[:4].astype(kind))
    np.testing.assert_array_equal(plain.values, other.values)
