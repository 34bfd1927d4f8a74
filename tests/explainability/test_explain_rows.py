from __future__ import annotations

import json

import numpy as np
import pytest
from explained_models import random_net, signature_of, statistics_of, table_of

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.explainability import background_of, explain_rows
from truststram_lab.schemas.serving import Explanation


def explained(columns=4, classes=("benign", "malignant"), positive="malignant", **options):
    rng = np.random.default_rng(columns)
    outputs = 1 if positive else len(classes)
    net = random_net(rng, (columns, 8, outputs), options.pop("activation", "relu"))
    table = table_of(rng, [1] * columns)
    rows = rng.normal(size=(options.pop("rows", 5), columns))
    raw = [{f"c{i}": float(v) for i, v in enumerate(row)} for row in rows]
    answer = explain_rows(
        net,
        table,
        rows,
        raw,
        signature_of(columns, classes, positive),
        statistics_of(columns),
        **options,
    )
    return answer, net, table, rows


@pytest.mark.parametrize("columns", [1, 4, 10, 11, 30])
@pytest.mark.parametrize("positive", ["malignant", None])
def test_base_contributions_and_residual_are_the_output(columns, positive):
    answer, *_ = explained(columns, positive=positive)
    for e in answer:
        total = e.base_value + sum(c.contribution for c in e.contributions)
        assert abs(e.residual) < 1e-9
        assert total + e.residual == pytest.approx(e.output_value, abs=1e-12)


@pytest.mark.parametrize(("columns", "method"), [(10, "exact_shapley"), (11, "deeplift")])
def test_few_columns_are_enumerated_and_many_are_passed_back(columns, method):
    answer, *_ = explained(columns)
    assert {e.method for e in answer} == {method}


@pytest.mark.parametrize("columns", [4, 12])
def test_the_other_class_has_the_opposite_sign(columns):
    positive, net, _, rows = explained(columns)
    same, *_ = explained(columns, class_label="malignant")
    other, *_ = explained(columns, class_label="benign")
    logits = net.logits(rows)[:, 0]
    for p, s, o, logit in zip(positive, same, other, logits, strict=True):
        assert (p.explained_class, o.explained_class) == ("malignant", "benign")
        assert p == s
        assert p.output_value == pytest.approx(logit)
        assert o.output_value == pytest.approx(-logit)
        assert o.base_value == pytest.approx(-p.base_value)
        for a, b in zip(p.contributions, o.contributions, strict=True):
            assert b.contribution == pytest.approx(-a.contribution, abs=1e-12)


def test_the_positive_class_may_be_the_first_of_the_two():
    answer, net, _, rows = explained(positive="benign")
    for e, logit in zip(answer, net.logits(rows)[:, 0], strict=True):
        assert e.explained_class == "benign"
        assert e.output_value == pytest.approx(logit)


@pytest.mark.parametrize("columns", [4, 12])
def test_centred_logits_of_all_classes_cancel(columns):
    classes = ("a", "b", "c")
    predicted, net, _, rows = explained(columns, classes, None)
    logits = net.logits(rows)
    assert [e.explained_class for e in predicted] == [classes[k] for k in logits.argmax(axis=1)]
    each = [explained(columns, classes, None, class_label=c)[0] for c in classes]
    for i in range(len(rows)):
        for k, e in enumerate(by_class[i] for by_class in each):
            assert e.output_space == "centred_logit"
            assert e.output_value == pytest.approx(logits[i, k] - logits[i].mean())
        for j in range(columns):
            assert sum(e[i].contributions[j].contribution for e in each) == pytest.approx(
                0, abs=1e-9
            )


@pytest.mark.parametrize("columns", [4, 12])
def test_the_inputs_of_one_column_are_one_contribution(columns):
    rng = np.random.default_rng(columns)
    widths = [1, 3, 2] + [1] * (columns - 3)
    net = random_net(rng, (sum(widths), 9, 1), "tanh")
    table = table_of(rng, widths)
    rows = rng.normal(size=(3, sum(widths)))
    raw = [{f"c{i}": "x" if i == 1 else None if i == 2 else 1 for i in range(columns)}] * 3
    answer = explain_rows(
        net,
        table,
        rows,
        raw,
        signature_of(columns, ("no", "yes"), "yes"),
        statistics_of(columns),
    )
    for e in answer:
        assert [c.feature for c in e.contributions] == [f"c{i}" for i in range(columns)]
        assert [c.value for c in e.contributions[:4]] == [1, "x", None, 1]
        assert abs(e.residual) < 1e-9


@pytest.mark.parametrize("columns", [3, 15])
def test_a_row_at_the_background_has_nothing_to_explain(columns):
    rng = np.random.default_rng(columns)
    net = random_net(rng, (columns, 5, 1), "relu")
    table = table_of(rng, [1] * columns)
    signature = signature_of(columns, ("0", "1"), "1")
    (e,) = explain_rows(net, table, table.mean[None], [{}], signature, statistics_of(columns))
    assert e.output_value == e.base_value
    assert all(abs(c.contribution) < 1e-12 for c in e.contributions)


def test_a_single_precision_network_is_explained_in_double():
    rng = np.random.default_rng(0)
    net = random_net(rng, (20, 8, 1), "relu")
    for layer in net.layers:
        layer.weight[...] = layer.weight.astype(np.float32)
    single = type(net)(
        [
            type(x)(x.weight.astype(np.float32), x.bias.astype(np.float32), x.activation)
            for x in net.layers
        ]
    )
    table = table_of(rng, [1] * 20)
    rows = rng.normal(size=(4, 20))
    arguments = (table, rows, [{}] * 4, signature_of(20, ("0", "1"), "1"), statistics_of(20))
    for e in explain_rows(single, *arguments):
        assert abs(e.residual) < 1e-9


def test_an_unknown_class_is_answered_with_the_classes():
    with pytest.raises(InvalidInputError, match=r"'malignent'.*benign, malignant") as caught:
        explained(class_label="malignent")
    assert caught.value.choices == ["malignant", "benign"][: len(caught.value.choices)]
    assert caught.value.field == "explain_class"


@pytest.mark.parametrize("columns", [4, 12])
@pytest.mark.parametrize("positive", ["malignant", None])
def test_the_meaning_is_one_sentence_that_names_the_class(columns, positive):
    answer, *_ = explained(columns, positive=positive)
    for e in answer:
        assert e.explained_class in e.meaning
        assert e.meaning.endswith(".")
        assert e.meaning.count(". ") == 0


def test_missing_and_numpy_values_travel_as_json():
    rng = np.random.default_rng(0)
    net = random_net(rng, (3, 4, 1), "relu")
    raw = [{"c0": float("nan"), "c1": np.float64(2.5), "c2": np.bool_(True)}]
    (e,) = explain_rows(
        net,
        table_of(rng, [1] * 3),
        rng.normal(size=(1, 3)),
        raw,
        signature_of(3, ("0", "1"), "1"),
        statistics_of(3),
    )
    assert [c.value for c in e.contributions] == [None, 2.5, True]
    assert Explanation.model_validate(json.loads(e.model_dump_json())) == e


def test_no_rows_have_no_explanations():
    assert explained(rows=0)[0] == []


def test_the_background_is_named_by_the_content_of_the_statistics():
    one, two = statistics_of(4), statistics_of(4, rows=427)
    assert background_of(one) == background_of(type(one).model_validate(one.model_dump()))
    assert background_of(one).sha256 != background_of(two).sha256
    assert (background_of(two).kind, background_of(two).rows) == ("federated_means", 427)
