"""``MLModel``: scikit-learn's numbers, labels, the processor that travels, and one file."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import Ridge

from truststram_lab.exceptions import (
    ConfigurationError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
)
from truststram_lab.explainability import LIMEExplainer, SHAPExplainer
from truststram_lab.models import ALGORITHMS, MLModel
from truststram_lab.preprocessing import DataProcessor

SMALL = {
    "decision_tree": {"max_depth": 3},
    "extra_trees": {"n_estimators": 5},
    "gradient_boosting": {"n_estimators": 5},
    "hist_gradient_boosting": {"max_iter": 5},
    "mlp": {"hidden_layer_sizes": (4,), "solver": "lbfgs", "max_iter": 2000},
    "random_forest": {"n_estimators": 5},
}
OPTIONAL = ("lightgbm", "xgboost")


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    rows = 120
    frame = pd.DataFrame(
        {
            "age": rng.normal(40, 12, rows),
            "city": rng.choice(["Rome", "Oslo", "Bern"], rows),
            "member": rng.random(rows) < 0.4,
        }
    )
    frame.loc[[1, 7, 20], "age"] = np.nan
    return frame


@pytest.fixture
def labels(table) -> pd.Series:
    right = (table["age"].fillna(40) > 40) | (table["city"] == "Rome")
    return pd.Series(np.where(right, "stays", "goes"), name="target")


@pytest.fixture
def values(table) -> pd.Series:
    rng = np.random.default_rng(6)
    return table["age"].fillna(40) / 10 + rng.normal(size=len(table))


def trained(table, target, algorithm="gradient_boosting"):
    X, y = DataProcessor().fit_transform(table, target)
    return MLModel(algorithm, SMALL.get(algorithm, {})).fit(X, y), X, y


def test_the_documents_pipeline_equals_scikit_learns(table, labels):
    processor = DataProcessor()
    X_processed, y_processed = processor.fit_transform(table, labels)
    given = {"n_estimators": 100, "learning_rate": 0.1, "max_depth": 6}
    model = MLModel(algorithm="gradient_boosting", hyperparameters=given)
    assert model.fit(X_processed, y_processed) is model
    plain = GradientBoostingClassifier(random_state=0, **given)
    plain.fit(np.asarray(X_processed), labels)
    np.testing.assert_array_equal(model.predict_proba(table), plain.predict_proba(X_processed))
    np.testing.assert_array_equal(model.predict(table), plain.predict(X_processed))
    assert model.score(X_processed, y_processed) == plain.score(X_processed, labels)
    assert model.score(table, labels) == model.score(X_processed, y_processed)
    assert list(model.classes_) == list(plain.classes_)
    assert model.processor is processor
    explainer = SHAPExplainer(model=model, background_data=X_processed[:100])
    explained = explainer.explain(X_processed[:3])
    assert list(explained.feature_names) == X_processed.feature_names
    assert explained.classes == ("stays",)
    np.testing.assert_allclose(
        explained.values.sum(axis=1) + explained.base_values,
        plain.decision_function(X_processed[:3]),
        atol=1e-6,
    )


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("algorithm", sorted(set(ALGORITHMS) - set(OPTIONAL)))
def test_every_algorithm_trains_and_comes_back_from_its_file(
    tmp_path, table, labels, values, algorithm, task
):
    target = labels if task == "classification" else values
    if ALGORITHMS[algorithm][1 + (task == "regression")] is None:
        with pytest.raises(InvalidInputError, match=f"does no {task}"):
            trained(table, target, algorithm)
        return
    model, X, y = trained(table, target, algorithm)
    assert model.task == task
    assert model.score(X, y) > (0.7 if task == "classification" else 0.2)
    again = MLModel.load(model.save(tmp_path / "model.skops"))
    np.testing.assert_array_equal(again.predict(table), model.predict(table))
    np.testing.assert_array_equal(again.processor.transform(table), X)
    assert again.feature_names == model.feature_names
    assert again.processor.signature == model.processor.signature
    if task == "classification":
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(table))
        assert again.classes_.tolist() == ["goes", "stays"]
    else:
        with pytest.raises(InvalidInputError, match="no probability"):
            again.predict_proba(X)


def test_lime_draws_from_the_statistics_that_the_file_carries(tmp_path, table, labels):
    model, X, _ = trained(table, labels)
    again = MLModel.load(model.save(tmp_path / "model.skops"))
    found = [LIMEExplainer(one, num_samples=500).explain(X[:2]).values for one in (model, again)]
    np.testing.assert_array_equal(found[0], found[1])
    own = LIMEExplainer(model, background_data=X, num_samples=500, categorical_features=[
        name for name in X.feature_names if name != "age"
    ]).explain(X[:2]).values  # fmt: skip
    np.testing.assert_array_equal(found[0], own)
    assert np.abs(found[0]).max() > 0


def test_explainers_pass_a_raw_table_through_the_models_processor(table, labels):
    model, X, _ = trained(table, labels)
    for explainer, options in ((SHAPExplainer, {}), (LIMEExplainer, {"num_samples": 200})):
        raw = explainer(model, background_data=table[:50], **options).explain(table[:2])
        ready = explainer(model, background_data=X[:50], **options).explain(X[:2])
        np.testing.assert_array_equal(raw.values, ready.values)
        assert raw.feature_names == ready.feature_names
    with pytest.raises(InvalidInputError, match="did you mean 'Rome'"):
        SHAPExplainer(model, X).explain(table.assign(city="Romme"))


def test_a_frame_brings_a_processor_and_an_array_is_taken_as_it_is(table, labels, values):
    model = MLModel("ridge").fit(table, values)
    plain = Ridge(random_state=0).fit(np.asarray(model.processor.transform(table)), values)
    np.testing.assert_array_equal(
        model.predict(table), plain.predict(model.processor.transform(table))
    )
    rows = table[["age"]].fillna(0).to_numpy()
    bare = MLModel("logistic_regression").fit(rows, [label == "stays" for label in labels])
    assert bare.processor is None
    assert bare.classes_.tolist() == [False, True]
    assert bare.predict(rows).dtype == bool
    named = pd.DataFrame(rows, columns=["f0"])
    np.testing.assert_array_equal(bare.predict(named), bare.predict(rows))
    with pytest.raises(InvalidInputError, match="'f0' is missing"):
        bare.predict(table)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: MLModel("gradient_bosting"), "did you mean 'gradient_boosting'?"),
        (lambda: MLModel("ridge", {"alfa": 1}), "did you mean 'alpha'?"),
        (lambda: MLModel("ridge", task="regresion"), "'regression'"),
        (lambda: MLModel("ridge", {"alpha": -1}).fit([[1.0], [2]], [0.5, 1.5]), "alpha"),
        (lambda: MLModel("mlp").fit([[1.0], [np.nan]], [0, 1]), "'f0' is missing in row 1"),
        (lambda: MLModel("mlp").fit([["a"], ["b"]], [0, 1]), "no numbers"),
        (lambda: MLModel("mlp").fit([1.0, 2.0], [0, 1]), "X[:1]"),
        (lambda: MLModel("mlp").fit([[1.0]], [0, 1]), "1 rows and y 2"),
    ],
)
def test_bad_input_is_one_sentence(call, words):
    with pytest.raises(InvalidInputError, match=r"\A[^\n]+\Z") as refused:
        call()
    assert words in str(refused.value)


def test_rows_of_another_table_are_refused_by_name(table, labels):
    model, X, _ = trained(table, labels)
    with pytest.raises(InvalidInputError, match="did you mean 'Rome'"):
        model.predict_proba(table.assign(city="Romme"))
    with pytest.raises(InvalidInputError, match="2 numbers a row and the model takes 6"):
        model.predict(np.zeros((1, 2)))
    with pytest.raises(InvalidInputError, match=r"model\.processor"):
        model.predict(X[:, ::-1])
    with pytest.raises(ConflictError, match="call fit"):
        MLModel("ridge").predict(X)
    with pytest.raises(ConflictError, match="call fit"):
        SHAPExplainer(MLModel("ridge"), X)


@pytest.mark.parametrize("algorithm", OPTIONAL)
def test_an_algorithm_that_is_not_installed_says_what_to_install(algorithm):
    code = (
        f"import sys; sys.modules[{algorithm!r}] = None\n"
        "from truststram_lab.models import MLModel\n"
        f"MLModel({algorithm!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"pip install {algorithm}" in done.stderr


class Bomb:
    def __reduce__(self):
        return print, ("executed",)


def test_a_file_that_is_not_ours_is_refused_and_nothing_runs(tmp_path, capsys, table, labels):
    skops = pytest.importorskip("skops.io")
    path = tmp_path / "model.skops"
    with pytest.raises(NotFoundError, match=r"model\.skops"):
        MLModel.load(path)
    model, _, _ = trained(table, labels)
    whole = model.save(path).read_bytes()
    empty = io.BytesIO()
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("schema.json", "{}")
    for foreign in (pickle.dumps(Bomb()), whole[: len(whole) // 2], b"", empty.getvalue()):
        path.write_bytes(foreign)
        with pytest.raises(InvalidInputError, match="is not a model"):
            MLModel.load(path)
    path.write_bytes(skops.dumps({"format": "truststram-lab model 1", "estimator": Bomb()}))
    with pytest.raises(InvalidInputError, match="Bomb"):
        MLModel.load(path)
    for other in ([1], {"format": "truststram-lab model 1"}):
        path.write_bytes(skops.dumps(other))
        with pytest.raises(InvalidInputError, match="is not a model"):
            MLModel.load(path)
    assert "executed" not in capsys.readouterr().out


def test_what_could_not_be_read_again_is_not_written(tmp_path, table, labels):
    model, _, _ = trained(table, labels)
    model.estimator.note = Bomb()
    with pytest.raises(InvalidInputError, match="Bomb"):
        model.save(tmp_path / "model.skops")
    assert not list(tmp_path.iterdir())
    with pytest.raises(NotFoundError, match="create it first"):
        trained(table, labels)[0].save(tmp_path / "no" / "model.skops")


def test_saving_without_skops_says_what_to_install(monkeypatch, tmp_path, table, labels):
    model, _, _ = trained(table, labels)
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(ConfigurationError, match=r"truststram-lab\[models\]"):
        model.save(tmp_path / "model.skops")
