"""Estimators are served as they were trained, whoever computes them."""

from __future__ import annotations

import numpy as np
import pytest
from served_estimators import (
    mixed_table,
    native,
    plain_signature,
    rows_of_table,
    served,
    stored,
    trained,
)
from served_models import ask
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.tree import DecisionTreeClassifier

from truststram_lab.exceptions import InvalidInputError, PlatformError
from truststram_lab.preprocessing import DataProcessor
from truststram_lab.preprocessing.table_transform import TableTransform
from truststram_lab.server.serving import conversion
from truststram_lab.server.serving.answers import RowReader
from truststram_lab.server.serving.local import LocalBackend

WAIT_S = 120


@pytest.fixture(scope="module")
def backend():
    made = LocalBackend(most=1)
    made.inspect("sklearn")  # its libraries are loaded once for all
    yield made
    made.close()


def test_the_transform_in_numpy_is_the_processors_own_bit_by_bit():
    frame = mixed_table(200)
    processor = DataProcessor()
    processor.fit_transform(frame, np.arange(200) % 2)
    later = mixed_table(500, seed=3)
    matrix = RowReader(processor.signature)(rows_of_table(later))
    transform = TableTransform.from_document(TableTransform.of(processor).document())
    np.testing.assert_array_equal(transform(matrix), np.asarray(processor.transform(later)))


@pytest.mark.parametrize(
    ("algorithm", "kind", "runtime", "hyperparameters"),
    [
        ("logistic_regression", "two", "onnx", {}),
        ("gradient_boosting", "two", "onnx", {"n_estimators": 30}),
        ("gradient_boosting", "three", "onnx", {"n_estimators": 10}),
        ("random_forest", "three", "onnx", {"n_estimators": 15}),
        ("gradient_boosting", "regression", "onnx", {"n_estimators": 30}),
        ("ridge", "regression", "onnx", {}),
        ("hist_gradient_boosting", "two", "sklearn", {"max_iter": 15}),
    ],
)
def test_a_deployed_model_answers_as_in_the_notebook(
    backend, tmp_path, algorithm, kind, runtime, hyperparameters
):
    model, frame = trained(algorithm, kind, **hyperparameters)
    version, found = served(backend, tmp_path, native(tmp_path, model))
    assert found.runtime == runtime, found.reason
    assert ("converted to ONNX" if runtime == "onnx" else "cannot convert") in found.reason
    predictions = ask(backend, version, rows_of_table(frame)).result(WAIT_S)
    if kind == "regression":
        wanted = model.predict(frame)
        np.testing.assert_allclose([p.value for p in predictions], wanted, rtol=1e-5)
        assert [p.result for p in predictions] == [p.value for p in predictions]
        assert {p.confidence for p in predictions} == {None}
        return
    wanted = model.predict_proba(frame)
    got = [list(p.probabilities.values()) for p in predictions]
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert [list(p.probabilities) for p in predictions] == [model.class_names] * len(frame)
    clear = np.abs(np.sort(wanted, axis=1)[:, -1] - np.sort(wanted, axis=1)[:, -2]) > 1e-4
    labels = np.array([p.label for p in predictions])
    np.testing.assert_array_equal(labels[clear], model.predict(frame)[clear].astype(str))
    if kind == "two":
        assert predictions[0].confidence == predictions[0].probabilities[model.class_names[1]]


def test_the_worker_of_converted_models_loads_no_scikit_learn(backend, tmp_path):
    model, frame = trained("logistic_regression", "two")
    version, _ = served(backend, tmp_path, native(tmp_path, model))
    ask(backend, version, rows_of_table(frame)).result(WAIT_S)
    modules = set(backend.inspect("onnx")["modules"])
    assert "onnxruntime" in modules
    assert not modules & {"sklearn", "scipy", "pandas", "torch", "skl2onnx"}


def test_rows_beside_a_split_reach_it_and_part_there():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 4))
    tree = DecisionTreeClassifier(random_state=0).fit(x, x[:, 0] * x[:, 1] > 0)
    rows = np.concatenate(list(conversion.rows_at_splits(tree, x[:50])))
    inner = tree.tree_.children_left >= 0
    assert len(rows) == 2 * inner.sum()
    reached = tree.decision_path(rows.astype(np.float32)).toarray().astype(bool)
    for node, split in enumerate(np.nonzero(inner)[0]):
        pairs = [k for k in range(0, len(rows), 2) if reached[k, split] and reached[k + 1, split]]
        left, right = tree.tree_.children_left[split], tree.tree_.children_right[split]
        assert any(reached[k, left] and reached[k + 1, right] for k in pairs), node


def test_a_threshold_that_was_rounded_the_wrong_way_is_found(tmp_path, monkeypatch):
    skops_io = pytest.importorskip("skops.io")
    from truststram_lab.server.serving.native import open_model

    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 3)).astype(np.float32)
    forest = GradientBoostingClassifier(n_estimators=3, random_state=0).fit(x, x[:, 0] > 0.1)
    body = skops_io.dumps(forest)
    version = stored(tmp_path, body, plain_signature(3, ["False", "True"]), "sklearn")
    described = {
        "label": "icu:1",
        "weights": str(version.weights),
        "weights_sha256": version.weights_sha256,
        "signature": version.signature.model_dump(mode="json"),
    }
    found = open_model(described)
    content, told = conversion.convert(found)
    assert "on both sides of" in told
    tree = found.estimator.estimators_[0, 0].tree_
    # One unit in the last place of 32 bits: no sample would notice.
    tree.threshold[0] = float(np.nextafter(np.float32(tree.threshold[0]), np.float32(np.inf)))
    monkeypatch.setattr(conversion, "_converted", lambda _: content)
    with pytest.raises(conversion.NotConvertedError, match="beside a split"):
        conversion.convert(found)


def test_an_estimator_of_ones_own_is_served_by_its_columns(backend, tmp_path):
    skops_io = pytest.importorskip("skops.io")
    rng = np.random.default_rng(2)
    x = rng.normal(size=(200, 3))
    labels = np.where(x[:, 1] > 0, "yes", "no")
    forest = GradientBoostingClassifier(n_estimators=5, random_state=0).fit(x, labels)
    body = skops_io.dumps(forest)
    version = stored(tmp_path, body, plain_signature(3, ["no", "yes"]), "sklearn")
    for one in (version, served(backend, tmp_path, version)[0]):
        rows = [dict(zip(("f0", "f1", "f2"), row, strict=True)) for row in x[:20].tolist()]
        got = ask(backend, one, rows).probabilities(WAIT_S)
        np.testing.assert_allclose(got, forest.predict_proba(x[:20]), atol=1e-5)


def test_a_number_that_trees_cannot_take_is_told_by_its_column(backend, tmp_path):
    model, frame = trained("gradient_boosting", "two", n_estimators=5)
    version = native(tmp_path, model)
    for one in (version, served(backend, tmp_path, version)[0]):
        (row,) = rows_of_table(frame.iloc[:1])
        with pytest.raises(InvalidInputError, match=r"'dose' is .*too large to compute with"):
            ask(backend, one, [{**row, "dose": 1e300}]).result(WAIT_S)


def test_an_explanation_needs_an_explainer(backend, tmp_path):
    model, frame = trained("logistic_regression", "two")
    rows = rows_of_table(frame.iloc[:1])
    with pytest.raises(InvalidInputError, match="without an explainer"):
        ask(backend, native(tmp_path, model), rows, explain=True).result(WAIT_S)


def test_a_file_of_unknown_types_is_refused_by_the_type(backend, tmp_path):
    skops_io = pytest.importorskip("skops.io")

    class Hostile:
        def __init__(self):
            self.n_features_in_ = 3

    version = stored(tmp_path, skops_io.dumps(Hostile()), plain_signature(3, []), "sklearn")
    with pytest.raises(PlatformError, match="Hostile"):
        backend.convert(version)
    with pytest.raises(PlatformError, match="Hostile"):
        backend.apply(version)
