"""``DataProcessor``: one transform for training and for every later table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from truststram_lab.exceptions import ConflictError, InvalidInputError
from truststram_lab.preprocessing import ClassCodes, DataProcessor, infer_signature


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    rows = 60
    frame = pd.DataFrame(
        {
            "city": rng.choice(["Rome", "Oslo", "Bern"], rows),
            "age": rng.normal(40, 12, rows),
            "member": rng.random(rows) < 0.4,
            "size": pd.Categorical(rng.choice(["s", "m"], rows)),
            "visits": rng.integers(0, 9, rows),
        }
    )
    frame.loc[[1, 7, 20], "age"] = np.nan
    frame.loc[[2, 30], "city"] = None
    return frame


@pytest.fixture
def target(table) -> pd.Series:
    return pd.Series(np.where(table["visits"] > 4, "yes", "no"), name="target")


def test_the_numbers_are_those_of_a_plain_scikit_learn_transformer(table, target):
    X, _ = DataProcessor().fit_transform(table, target)
    words = table.assign(city=table["city"].astype(object).where(table["city"].notna(), "~"))
    plain = ColumnTransformer(
        [
            ("n", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()),
             ["age", "visits"]),
            ("b", "passthrough", ["member"]),
            ("m", MissingIndicator(features="all"), ["age"]),
            ("c", OneHotEncoder(sparse_output=False), ["city"]),
            ("s", OneHotEncoder(sparse_output=False), ["size"]),
        ]
    )  # fmt: skip
    np.testing.assert_array_equal(np.asarray(X), plain.fit_transform(words).astype(float))
    assert X.feature_names == [
        "age", "visits", "member", "age is missing",
        "city=Bern", "city=Oslo", "city=Rome", "city is missing", "size=m", "size=s",
    ]  # fmt: skip


def test_transform_of_the_training_rows_equals_fit_transform(table, target):
    processor = DataProcessor()
    X, _ = processor.fit_transform(table, target)
    np.testing.assert_array_equal(processor.transform(table), X)
    shuffled = table[["visits", "size", "city", "member", "age"]]
    np.testing.assert_array_equal(processor.transform(shuffled), X)
    np.testing.assert_array_equal(processor.transform(table.to_dict("records")), X)
    np.testing.assert_array_equal(processor.transform(table[5:9]), X[5:9])
    assert list(processor.get_feature_names_out()) == X.feature_names


def test_choosing_rows_keeps_names_and_processor_and_choosing_columns_only_true_names(
    table, target
):
    processor = DataProcessor()
    X, y = processor.fit_transform(table, target)
    mask = np.arange(len(X)) % 2 == 0
    for rows in (X[:10], X[mask], X[[3, 1]], X[2:5, :], X[[1, 2], ...], X[...], X.copy()):
        assert rows.feature_names == X.feature_names
        assert rows.processor is processor
    assert X[:, [1, 0]].feature_names == ["visits", "age"]
    assert X[:3, ::-1].feature_names == X.feature_names[::-1]
    assert X[:, ::-1].processor is None
    for other in (X * 2, X.T, X[0], X[:, 0], X[:, 0] + 1, X.reshape(-1, 2)):
        assert getattr(other, "feature_names", None) is None
    train, test, y_train, y_test = train_test_split(X, y, random_state=0)
    assert train.processor is test.processor is processor
    assert y_train.labels().tolist() == [["no", "yes"][code] for code in y_train]
    assert list(y_test.classes) == ["no", "yes"]


def test_the_classes_keep_their_own_type_and_the_signature_is_the_platforms(table):
    processor = DataProcessor()
    labels = pd.Series(np.where(table["visits"] > 4, 10, 9), name="grade")
    _, y = processor.fit_transform(table, labels)
    assert isinstance(y, ClassCodes)
    assert processor.classes.tolist() == [9, 10]
    np.testing.assert_array_equal(y.labels(), labels)
    assert processor.signature == infer_signature(table.assign(grade=labels), "grade")
    assert processor.statistics.rows == len(table)
    age = next(column for column in processor.statistics.columns if column.name == "age")
    assert age.mean == pytest.approx(table["age"].mean())
    assert age.missing == 3


def test_a_measured_target_stays_as_it_is(table):
    values = np.random.default_rng(0).normal(size=len(table))
    processor = DataProcessor()
    _, y = processor.fit_transform(table, values)
    assert processor.task == "regression"
    assert processor.classes is None
    np.testing.assert_array_equal(y, values)


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        (lambda t: t.assign(city="Romme"), "city", "did you mean 'Rome'?"),
        (lambda t: t.drop(columns="age"), "age", "Column 'age' is missing"),
        (lambda t: t.assign(agee=1), "agee", "did you mean 'age'?"),
        (lambda t: t.assign(visits=np.nan), "visits", "Column 'visits' in row 0 is missing"),
        (lambda t: t.assign(target="no"), "target", "what the model predicts"),
        (lambda t: t.to_numpy(), "X", "takes a DataFrame, not a ndarray"),
        (lambda t: [], "X", "takes a DataFrame, not a list"),
    ],
)
def test_a_later_table_that_does_not_fit_is_one_sentence(table, target, change, field, words):
    processor = DataProcessor()
    processor.fit_transform(table, target)
    with pytest.raises(InvalidInputError, match=r"\A[^\n]+\Z") as refused:
        processor.transform(change(table))
    assert words in str(refused.value)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (pd.date_range("2024-01-01", periods=60), "points in time"),
        ([f"id{k}" for k in range(59)] + [None], None),
        ([None] * 60, "no value in any row"),
        ([1, "a"] * 30, "only numbers"),
        ([1.0, np.inf] * 30, "infinite"),
    ],
)
def test_a_column_that_cannot_be_used_is_named(table, target, column, words):
    processor = DataProcessor()
    if words is None:  # up to 100 labels are categories
        X, _ = processor.fit_transform(table.assign(odd=column), target)
        assert "odd is missing" in X.feature_names
        return
    with pytest.raises(InvalidInputError, match="'odd'") as refused:
        processor.fit_transform(table.assign(odd=column), target)
    assert words in str(refused.value)
    with pytest.raises(ConflictError, match="fit_transform"):
        processor.transform(table)


def test_targets_that_cannot_be_learned_are_refused(table, target):
    with pytest.raises(InvalidInputError, match="60 rows and the target 3"):
        DataProcessor().fit_transform(table, [1, 2, 3])
    with pytest.raises(InvalidInputError, match="missing in 1 of 60"):
        DataProcessor().fit_transform(table, target.where(target.index != 4))
    with pytest.raises(InvalidInputError, match="leave it out"):
        DataProcessor().fit_transform(table.assign(target=target), target)
    with pytest.raises(InvalidInputError, match="'classification'"):
        DataProcessor(task="clasification")
