"""Mixed tables and pipelines by original column; what bad input gets; the documents' lines."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from brute_force import shapley
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from truststram_lab.exceptions import ConflictError, InvalidInputError
from truststram_lab.explainability import SHAPExplainer


def patients(rows: int = 80) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": rng.normal(60, 10, rows),
            "ward": rng.choice(["surgery", "medicine", "icu"], rows),
            "smoker": rng.choice([True, False], rows),
            "stage": pd.Categorical(rng.choice(["I", "II", "III"], rows)),
            "visits": rng.integers(0, 5, rows),
        }
    )
    frame.loc[::7, "age"] = np.nan
    frame.loc[::9, "ward"] = None
    return frame


def pipeline(model: Any) -> Any:
    text = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="unknown"),
        OneHotEncoder(handle_unknown="ignore"),
    )
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    split = ColumnTransformer(
        [("t", text, ["ward", "stage"]), ("n", numbers, ["age", "visits"])],
        remainder="passthrough",
    )
    return make_pipeline(split, model)


def by_definition(model: Any, output: str, frame: pd.DataFrame, row: int) -> np.ndarray:
    known = frame.iloc[:7]

    def game(coalition: frozenset[int]) -> np.ndarray:
        points = known.copy()
        for column in coalition:
            name = frame.columns[column]
            points[name] = pd.Series([frame[name].iloc[row]] * len(points), dtype=frame[name].dtype)
        if output == "margin":
            return np.atleast_1d(model.decision_function(points).mean())
        return np.atleast_1d(model.predict_proba(points)[:, 1].mean())

    return shapley(game, frame.shape[1])[:, 0]


@pytest.mark.parametrize(
    ("model", "method"),
    [
        (LogisticRegression(), "linear"),
        (GradientBoostingClassifier(n_estimators=5), "tree_interventional"),
        (RandomForestClassifier(4, random_state=0), "tree_interventional"),
        (KNeighborsClassifier(), "exact"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_mixed_columns_are_explained_as_people_know_them(model, method):
    frame = patients()
    target = (frame["ward"].fillna("") == "icu") ^ (frame["visits"] > 2)
    fitted = pipeline(model).fit(frame, target)
    explainer = SHAPExplainer(fitted, frame.iloc[:7])
    assert explainer.method == method
    found = explainer.explain(frame.iloc[20:23])
    assert found.feature_names == tuple(frame.columns)
    for place, row in enumerate(range(20, 23)):
        expected = by_definition(fitted, found.output, frame, row)
        np.testing.assert_allclose(found.values[place], expected, atol=1e-9)
    assert np.abs(found.residual).max() <= 1e-6
    single = explainer.explain(frame.iloc[20])
    np.testing.assert_allclose(single.values[0], found.values[0], atol=1e-12)
    sampled = SHAPExplainer(fitted, frame.iloc[:7], method="permutation", samples=14)
    assert np.abs(sampled.explain(frame.iloc[20:22]).residual).max() <= 1e-9


def test_columns_in_another_order_are_put_right():
    frame = patients().drop(columns=["ward", "stage"]).fillna(60.0)
    model = LogisticRegression(max_iter=1000).fit(frame, frame["visits"] > 2)
    explainer = SHAPExplainer(model, frame)
    plain = explainer.explain(frame.iloc[:4])
    turned = explainer.explain(frame.iloc[:4, ::-1])
    np.testing.assert_array_equal(plain.values, turned.values)


def trained() -> tuple[Any, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3))
    return LogisticRegression().fit(x, x[:, 0] > 0), x


def test_names_come_from_the_frame_the_model_or_are_numbered():
    model, x = trained()
    assert SHAPExplainer(model, x).explain(x[:1]).feature_names == ("f0", "f1", "f2")
    named = SHAPExplainer(model, x, ["a", "b", "c"]).explain(x[:1])
    assert named.feature_names == ("a", "b", "c")
    frame = pd.DataFrame(x, columns=["u", "v", "w"])
    model.fit(frame, x[:, 0] > 0)
    assert SHAPExplainer(model, frame).explain(frame[:1]).feature_names == ("u", "v", "w")
    assert SHAPExplainer(model, x).explain(x[:1]).feature_names == ("u", "v", "w")


def test_columns_that_do_not_match_are_named():
    model, x = trained()
    frame = pd.DataFrame(x, columns=["u", "v", "w"])
    model.fit(frame, x[:, 0] > 0)
    explainer = SHAPExplainer(model, frame)
    with pytest.raises(InvalidInputError, match=r"lacks 'w' and has the unknown 'z'"):
        explainer.explain(frame.rename(columns={"w": "z"}))
    with pytest.raises(InvalidInputError, match=r"data has 2 columns and 3 are expected: u, v, w"):
        explainer.explain(x[:, :2])
    with pytest.raises(InvalidInputError, match="background_data has 3 columns and 2 are expected"):
        SHAPExplainer(model, x, ["a", "b"])


def test_a_missing_value_is_found_by_column_and_row():
    model, x = trained()
    explainer = SHAPExplainer(model, x, ["a", "b", "c"])
    rows = x[:5].copy()
    rows[3, 1] = np.nan
    with pytest.raises(InvalidInputError, match=r"'b' of data is missing in row 3.*imputer"):
        explainer.explain(rows)
    rows[3, 1] = np.inf
    with pytest.raises(InvalidInputError, match=r"'b' of data is infinite in row 3"):
        explainer.explain(rows)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "tree_pathh"}, "did you mean 'tree_path'.*auto, linear"),
        ({"output": "odds"}, "use 'margin' or 'probability'"),
        ({"positive_class": "maybe"}, "'maybe' is not a class.*choose one of False, True"),
        ({"method": "deeplift"}, "does not apply to LogisticRegression.*'auto' or 'linear'"),
        ({"class_names": ["one"]}, "class_names has 1 names and the model 2 classes"),
        ({"samples": 1}, "use at least 2"),
    ],
)
def test_an_unknown_choice_is_answered_with_the_choices(options, said):
    model, x = trained()
    with pytest.raises(InvalidInputError, match=said):
        SHAPExplainer(model, x, **options)


def test_what_needs_a_background_says_so():
    model, _ = trained()
    with pytest.raises(InvalidInputError, match="pass background_data="):
        SHAPExplainer(model)
    with pytest.raises(InvalidInputError, match="does not predict"):
        SHAPExplainer("a model", np.zeros((2, 2)))
    with pytest.raises(InvalidInputError, match="has no rows"):
        SHAPExplainer(model, np.zeros((0, 3)))


def test_plots_and_importance_before_explain_say_what_to_call():
    model, x = trained()
    explainer = SHAPExplainer(model, x)
    for ask in (
        explainer.get_feature_importance,
        explainer.plot_summary,
        explainer.plot_waterfall,
    ):
        with pytest.raises(ConflictError, match=r"call explain\(X\) first"):
            ask()


@pytest.mark.parametrize("rows", [1, 4])
def test_a_constant_background_is_warned_of(rows):
    model, x = trained()
    with pytest.warns(UserWarning, match="difference from that single point"):
        explainer = SHAPExplainer(model, np.repeat(x[:1], rows, axis=0))
    found = explainer.explain(x[:2])
    assert "difference from that single point" in found.card().html
    np.testing.assert_array_equal(explainer.explain(x[:1]).values, 0.0)


def test_a_function_must_return_a_row_for_each():
    with pytest.raises(InvalidInputError, match="returned 1 outputs for 2 rows"):
        SHAPExplainer(lambda x: np.ones(1), np.random.default_rng(0).normal(size=(5, 2)))


def test_a_wrapper_is_explained_by_the_estimator_it_holds():
    model, x = trained()

    class Held:
        estimator = model
        class_names = ("no", "yes")
        positive_class = "no"

        def predict_proba(self, rows: Any) -> Any:
            raise AssertionError("the estimator is asked itself")

    found = SHAPExplainer(Held(), x).explain(x[:2])
    assert found.classes == ("no",)
    np.testing.assert_allclose(found.values, -SHAPExplainer(model, x).explain(x[:2]).values)


def test_progress_is_told_and_an_interrupt_goes_through():
    model, x = trained()
    explainer = SHAPExplainer(model.predict_proba, x, method="permutation", samples=4)
    told: list[tuple[int, int]] = []
    explainer.explain(np.repeat(x, 4, axis=0), progress=lambda *at: told.append(at))
    assert told == [(64, 200), (128, 200), (192, 200), (200, 200)]

    def stop(done: int, whole: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explainer.explain(x, progress=stop)


def test_the_documents_lines_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from truststram.explainability import SHAPExplainer as Documented

    model, x = trained()
    x_train_sample, x_test = x[:20], x[20:]
    explainer = Documented(
        model=model, background_data=x_train_sample, feature_names=["a", "b", "c"]
    )
    explanations = explainer.explain(x_test[:10])
    importance = explainer.get_feature_importance()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explainer.plot_summary(explanations, save_path="shap_summary.png")
        explainer.plot_waterfall(explanations[0], save_path="shap_waterfall.png")
    assert next(iter(importance)) == "a"
    for name in ("shap_summary.png", "shap_waterfall.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
