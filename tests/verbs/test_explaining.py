"""Explaining a table's rows with registered models and with objects, on a real sandbox."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from truststram_lab import verbs
from truststram_lab.exceptions import InvalidInputError, ModelNotFoundError
from truststram_lab.models import MLModel
from truststram_lab.preprocessing import DataProcessor


@pytest.fixture(scope="module")
def tumours(shared_session):
    return verbs.federate("breast-cancer", clients=2, rounds=2, split="iid")


@pytest.fixture(scope="module")
def wards() -> tuple[pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(0)
    n = 160
    frame = pd.DataFrame(
        {
            "age": rng.normal(60, 9, n),
            "dose": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
            "ward": rng.choice(["icu", "north", "south"], n),
        }
    )
    ill = (frame["age"] > 60) ^ (frame["ward"] == "icu")
    return frame, pd.Series(np.where(ill, "yes", "no"), name="ill")


@pytest.fixture(scope="module")
def mixed(shared_session, wards):
    """A model with its own transform, deployed; explained by the columns people know."""
    frame, target = wards
    processor = DataProcessor()
    numbers, coded = processor.fit_transform(frame, target)
    model = MLModel(algorithm="gradient_boosting").fit(numbers, coded)
    verbs.deploy(model, name="illness")
    return model


def test_a_federated_network_is_explained_as_its_predictions_are(tumours):
    found = verbs.explain("breast-cancer", rows="0:7")
    assert found.values.shape == (7, 30)
    assert found.background == "federated means, no rows"
    np.testing.assert_allclose(found.residual, 0, atol=1e-9)
    rows = pd.DataFrame([*found.data], columns=[*found.feature_names])
    served = verbs.predict("breast-cancer", rows, explain=True)
    for row, one in enumerate(served):
        told = {part.feature: part.contribution for part in one.explanation.contributions}
        for name, value in zip(found.feature_names, found.values[row], strict=True):
            assert value == pytest.approx(told[name], abs=1e-9)
        assert found.explained_classes[row] == one.explanation.explained_class


def test_shapley_values_of_a_network_start_from_rows_and_add_up(tumours):
    found = verbs.explain("breast-cancer", rows="3:5", method="shap")
    assert found.method == "permutation"
    assert found.background.startswith("100 rows")
    np.testing.assert_allclose(found.residual, 0, atol=1e-8)
    served = verbs.predict(
        "breast-cancer", pd.DataFrame([*found.data], columns=[*found.feature_names])
    )
    likely = [one.probabilities[found.classes[0]] for one in served]
    np.testing.assert_allclose(1 / (1 + np.exp(-found.outputs)), likely, atol=1e-9)


def test_a_model_with_a_transform_is_explained_by_the_columns_people_know(mixed, wards):
    frame, _ = wards
    found = verbs.explain("illness", frame.assign(extra=1), rows="0:12")
    assert found.feature_names == ("age", "dose", "ward")
    assert found.values.shape == (12, 3)
    np.testing.assert_allclose(found.residual, 0, atol=1e-9)
    served = verbs.predict("illness", frame.iloc[:12])
    np.testing.assert_allclose(
        found.outputs, [one.probabilities[found.classes[0]] for one in served], atol=1e-5
    )


def test_objects_are_explained_without_being_registered(wards):
    frame = wards[0][["age"]].assign(twice=lambda table: -2 * table["age"])
    fitted = LogisticRegression().fit(frame, wards[1])
    found = verbs.explain(fitted, frame, rows="0:5")
    assert found.method == "linear"
    forest = RandomForestClassifier(10, random_state=0).fit(frame, wards[1])
    assert verbs.explain(forest, frame, rows=slice(2, 4)).method == "tree_interventional"
    lime = verbs.explain(forest, frame, rows="0:3", method="lime")
    assert lime.fit is not None
    assert len(lime) == 3


def test_comparing_counts_agreement_and_names_what_differs(wards):
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"a": rng.normal(size=200), "b": rng.normal(size=200), "c": 0.0})
    plain = LogisticRegression().fit(frame, frame["a"] * 3 + frame["b"] > 0)
    found = verbs.explain(plain, frame, compare=True, rows="0:30")
    assert found.agreement.rows == 30
    assert found.agreement.same_top > 0.5
    assert found.agreement.same_sign > 0.8
    shares = {column.name: column for column in found.agreement.columns}
    assert shares["c"].first == 0.0
    assert sum(column.first for column in shares.values()) == pytest.approx(1)
    for said in (found.card().text, found.card().html):
        assert "They answer different questions" in said
        assert "over 30 rows" in said
    assert len(found.card().html) < 50_000


def test_of_several_classes_one_can_be_chosen(wards):
    frame = wards[0][["age"]].assign(more=1.0)
    target = pd.cut(frame["age"], 3, labels=["low", "mid", "high"]).astype(str)
    forest = RandomForestClassifier(5, random_state=0).fit(frame, target)
    everything = verbs.explain(forest, frame, rows="0:4")
    assert everything.values.shape == (4, 2, 3)
    one = verbs.explain(forest, frame, rows="0:4", explain_class="mid")
    np.testing.assert_array_equal(one.values, everything.select("mid").values)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda t: verbs.explain("brest-cancer", t), ModelNotFoundError, "breast-cancer"),
        (lambda t: verbs.explain("breast-cancer", t), InvalidInputError, "lacks 'mean radius'"),
        (lambda t: verbs.explain("breast-cancer", rows="9"), InvalidInputError, "first:end"),
        (lambda t: verbs.explain("breast-cancer", rows="900:"), InvalidInputError, "none of them"),
        (lambda t: verbs.explain("breast-cancer", method="shp"), InvalidInputError, "'shap'"),
        (
            lambda t: verbs.explain("breast-cancer", method="lime", compare=True),
            InvalidInputError,
            "leave method='lime' out",
        ),
        (lambda t: verbs.explain("breast-cancer", [1]), InvalidInputError, "give a DataFrame"),
        (lambda t: verbs.explain(len), InvalidInputError, "Which rows"),
        (
            lambda t: verbs.explain("breast-cancer", explain_class="bad"),
            InvalidInputError,
            "not an explained class",
        ),
    ],
)
def test_what_cannot_be_gets_one_sentence(tumours, wards, call, error, said):
    with pytest.raises(error) as caught:
        call(wards[0])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
