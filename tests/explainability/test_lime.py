"""LIME: the definition with an ordinary ridge regression, text columns, stored statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import GradientBoostingClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.explainability import LIMEExplainer, TrainingStatistics
from truststram_lab.explainability.rows import read_rows


@pytest.fixture(scope="module")
def boosting() -> tuple[Any, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 9))
    x[:, 3] = 1.0  # constant
    x[:, 4] = np.round(x[:, 4])
    y = x[:, 0] * x[:, 1] + x[:, 2] > 0
    return GradientBoostingClassifier(n_estimators=20, random_state=0).fit(x, y), x


def by_definition(
    bits: np.ndarray, outputs: np.ndarray, features: int, forward: bool
) -> tuple[np.ndarray, float, float]:
    """Ribeiro et al. with scikit-learn: coefficients, intercept, R squared."""
    d = bits.shape[1]
    distance = np.sqrt(((bits - bits[0]) ** 2).sum(axis=1))
    weights = np.sqrt(np.exp(-(distance**2) / (0.75 * np.sqrt(d)) ** 2))
    if forward:
        chosen: list[int] = []
        for _ in range(features):
            scores = {}
            for column in set(range(d)) - set(chosen):
                part = bits[:, [*chosen, column]]
                model = LinearRegression().fit(part, outputs, sample_weight=weights)
                scores[column] = model.score(part, outputs, sample_weight=weights)
            chosen.append(max(scores, key=scores.get))
    else:
        ranking = Ridge(0.01).fit(bits, outputs, sample_weight=weights).coef_
        chosen = np.argsort(-np.abs(ranking))[:features].tolist()
    model = Ridge(1.0).fit(bits[:, chosen], outputs, sample_weight=weights)
    found = np.zeros(d)
    found[chosen] = model.coef_
    score = model.score(bits[:, chosen], outputs, sample_weight=weights)
    return found, float(model.intercept_), float(score)


@pytest.mark.parametrize("features", [3, 6, 7, 9])
def test_coefficients_are_those_of_the_definition(boosting, features):
    model, x = boosting
    explainer = LIMEExplainer(model, background_data=x, num_samples=800)
    found = explainer.explain(x[:3], num_features=features)
    rows = read_rows(x[:3], None, framed=False, what="x", like=explainer.background)
    bins, points = explainer.perturbations(rows)
    quartiles = np.percentile(x, [25, 50, 75], axis=0)
    for row in range(3):
        own = [np.searchsorted(np.unique(quartiles[:, j]), x[row, j]) for j in range(9)]
        bits = np.vstack([np.ones(9), (bins == own).astype(float)])
        outputs = model.predict_proba(np.vstack([x[row], points.numbers]))[:, 1]
        expected, intercept, score = by_definition(bits, outputs, features, features <= 6)
        np.testing.assert_allclose(found.values[row], expected, atol=1e-6)
        np.testing.assert_allclose(found.base_values[row], intercept, atol=1e-6)
        np.testing.assert_allclose(found.fit[row], score, atol=1e-6)


def test_perturbations_are_drawn_from_their_bins(boosting):
    model, x = boosting
    explainer = LIMEExplainer(model, background_data=x, num_samples=4001)
    rows = read_rows(x[:1], None, framed=False, what="x", like=explainer.background)
    bins, points = explainer.perturbations(rows)
    assert points.numbers is not None
    for column, found in enumerate(explainer.statistics.columns):
        drawn = points.numbers[:, column]
        assert found.low[0] <= drawn.min()
        assert drawn.max() <= found.high[-1]
        shares = np.bincount(bins[:, column], minlength=len(found.shares)) / 4000
        np.testing.assert_allclose(shares, found.shares, atol=0.04)
    np.testing.assert_array_equal(points.numbers[:, 3], 1.0)


def test_a_row_alone_gets_the_numbers_it_gets_among_others(boosting):
    model, x = boosting
    explainer = LIMEExplainer(model, background_data=x, num_samples=500)
    together = explainer.explain(x[:4], num_features=5)
    alone = explainer.explain_instance(x[2], num_features=5)
    np.testing.assert_allclose(alone.values[0], together.values[2], atol=1e-12)
    assert (alone.values != 0).sum() == 5
    assert 0.0 < alone.fit[0] < 1.0


def test_the_model_is_asked_once_for_all_rows(boosting):
    _, x = boosting
    asked: list[int] = []

    def predict(rows: np.ndarray) -> np.ndarray:
        asked.append(len(rows))
        return rows[:, 0]

    LIMEExplainer(predict, background_data=x, num_samples=500).explain(x[:50])
    assert sum(count == 499 for count in asked) == 1
    assert sum(asked) < 499 + 50 + 100


def test_a_regression_and_several_classes():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4))
    value = LIMEExplainer(
        RandomForestRegressor(5).fit(x, x[:, 0]), background_data=x, num_samples=500
    ).explain(x[:2])
    assert (value.output, value.values.shape) == ("value", (2, 4))
    assert next(iter(value.importance())) == "f0"
    classes = np.digitize(x[:, 1], [-0.5, 0.5])
    model = LogisticRegression().fit(x, classes)
    found = LIMEExplainer(
        model, class_names=["low", "mid", "high"], background_data=x, num_samples=500
    ).explain(x[:2])
    assert found.values.shape == (2, 4, 3)
    assert next(iter(found.select("high").importance())) == "f1"


def test_text_and_missing_values_are_bins_of_their_own():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "ward": rng.choice(["icu", "surgery", None], 200, p=[0.4, 0.4, 0.2]),
            "smoker": rng.choice([True, False], 200),
            "visits": rng.integers(0, 9, 200),
        }
    )
    target = (frame["ward"] == "icu").to_numpy()
    model = make_pipeline(
        OneHotEncoder(handle_unknown="ignore", sparse_output=False), LogisticRegression()
    ).fit(frame[["ward", "smoker"]], target)

    def probability(rows: pd.DataFrame) -> np.ndarray:
        return model.predict_proba(rows[["ward", "smoker"]])

    found = LIMEExplainer(
        probability, class_names=["no", "yes"], background_data=frame, num_samples=600
    ).explain(frame.iloc[:6], num_features=2)
    assert found.output == "probability"
    first = found.as_list(0)[0]
    ward = frame["ward"].iloc[0]
    assert first[0] == f"ward = {'missing' if pd.isna(ward) else ward}"
    assert (first[1] > 0) == (ward == "icu")


def test_missing_numbers_are_drawn_as_such():
    x = np.random.default_rng(0).normal(size=(100, 3))
    x[::4, 1] = np.nan

    def predict(rows: np.ndarray) -> np.ndarray:
        return np.isnan(rows[:, 1]).astype(float)

    found = LIMEExplainer(predict, background_data=x, num_samples=800).explain(x[:2])
    assert found.as_list(0)[0][0] == "f1 = missing"
    assert found.values[0, 1] > 0.5
    assert found.values[1, 1] < 0


def test_the_documents_lines_run(boosting, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from truststram.explainability import LIMEExplainer as Documented

    model, x = boosting
    names = [f"column {j}" for j in range(9)]
    stored = TrainingStatistics.of(read_rows(x, names, framed=False, what="x"))
    monkeypatch.setattr(model, "training_statistics", stored, raising=False)
    lime_explainer = Documented(
        model=model, feature_names=names, class_names=["Not Fraud", "Fraud"]
    )
    explanation = lime_explainer.explain_instance(data_row=x[0], num_features=10)
    explanation.save_to_file("lime_explanation.html")
    page = (tmp_path / "lime_explanation.html").read_text(encoding="utf-8")
    assert "Probability towards Fraud" in page
    assert "of the variance (R²)" in page
    assert len(page) < 50_000
    same = LIMEExplainer(model, names, background_data=x).explain(x[:1], num_features=10)
    np.testing.assert_array_equal(same.values, explanation.values)


def test_without_statistics_the_argument_is_shown(boosting):
    model, _ = boosting
    with pytest.raises(InvalidInputError, match=r"background_data=X_train"):
        LIMEExplainer(model=model, feature_names=["a"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"feature_selection": "forward"}, "use one of auto, forward_selection"),
        ({"num_samples": 3}, "too few"),
        ({"categorical_features": ["nothing"]}, "'nothing' is no column"),
    ],
)
def test_a_wrong_option_is_answered_with_the_choices(boosting, options, said):
    model, x = boosting
    with pytest.raises(InvalidInputError, match=said):
        LIMEExplainer(model, background_data=x, **options)


def test_wrong_rows_are_told(boosting):
    model, x = boosting
    explainer = LIMEExplainer(model, background_data=x)
    with pytest.raises(InvalidInputError, match="data has 8 columns and 9 are expected"):
        explainer.explain_instance(x[0, :8])
    with pytest.raises(InvalidInputError, match="use 1 or more"):
        explainer.explain_instance(x[0], num_features=0)
    with pytest.raises(InvalidInputError, match=r"pass one, or call explain\(rows\)"):
        explainer.explain_instance(pd.DataFrame(x[:2]))
