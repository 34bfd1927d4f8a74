"""The same laws on the project's own network and encoder, with mixed columns."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from truststram_lab.explainability import explain_rows
from truststram_lab.learning.network import Network, expected_shapes
from truststram_lab.preprocessing import TableEncoder
from truststram_lab.schemas.registry import Architecture, DenseLayer, DropoutLayer
from truststram_lab.schemas.tables import Column, ColumnStatistics, Signature, Statistics

WARDS = ["icu", "north", "south"]
ROWS = [
    {"age": 61.0, "dose": None, "ward": "icu", "smoker": True, "unit": None},
    {"age": 30.5, "dose": 2.0, "ward": "south", "smoker": False, "unit": "mg"},
    {"age": 44.0, "dose": 0.5, "ward": "north", "smoker": True, "unit": "ml"},
]


def mixed_model(extra: int, positive: str | None):
    """Five columns of every kind, and ``extra`` numeric ones."""
    columns = [
        Column(name="age", kind="numeric"),
        Column(name="dose", kind="numeric", nullable=True),
        Column(name="ward", kind="categorical", categories=WARDS),
        Column(name="smoker", kind="boolean"),
        Column(name="unit", kind="categorical", nullable=True, categories=["mg", "ml"]),
        *(Column(name=f"x{i}", kind="numeric") for i in range(extra)),
    ]
    aggregates = [
        ColumnStatistics(name="age", count=100, missing=0, mean=50.0, variance=90.0),
        ColumnStatistics(name="dose", count=80, missing=20, mean=1.0, variance=0.5),
        ColumnStatistics(name="ward", count=100, missing=0, category_counts=[20, 50, 30]),
        ColumnStatistics(name="smoker", count=100, missing=0, mean=0.3, variance=0.21),
        ColumnStatistics(name="unit", count=90, missing=10, category_counts=[60, 30]),
        *(
            ColumnStatistics(name=f"x{i}", count=100, missing=0, mean=0.0, variance=1.0)
            for i in range(extra)
        ),
    ]
    classes = ["bad", "good"] if positive else ["bad", "fair", "good"]
    signature = Signature(columns=columns, target="y", classes=classes, positive_class=positive)
    statistics = Statistics(rows=100, sites=4, columns=aggregates)
    encoder = TableEncoder(signature, statistics)
    architecture = Architecture(
        inputs=encoder.width,
        layers=[
            DenseLayer(units=12, activation="relu"),
            DropoutLayer(rate=0.5),
            DenseLayer(units=6, activation="tanh"),
            DenseLayer(units=1 if positive else 3),
        ],
    )
    rng = np.random.default_rng(extra)
    state = {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in expected_shapes(architecture).items()
    }
    return signature, statistics, encoder, Network(architecture, state, signature)


def explained(extra=0, positive="good", label=None):
    signature, statistics, encoder, network = mixed_model(extra, positive)
    rng = np.random.default_rng(1)
    rows = [{**row, **{f"x{i}": float(rng.normal()) for i in range(extra)}} for row in ROWS]
    encoded = encoder.encode_rows(rows)
    answer = explain_rows(network, encoder, encoded, rows, signature, statistics, label)
    return answer, encoder, network, encoded, rows


@pytest.mark.parametrize("positive", ["good", "bad", None])
def test_columns_of_every_kind_move_as_one_player_each(positive):
    answer, encoder, network, encoded, rows = explained(positive=positive)
    for x, row, e in zip(encoded, rows, answer, strict=True):
        assert e.method == "exact_shapley"
        assert {c.feature: c.value for c in e.contributions} == row

        def value(point, e=e):
            logits = network.logits(point[None])[0]
            if positive:
                return logits[0]
            return logits[["bad", "fair", "good"].index(e.explained_class)] - logits.mean()

        total = dict.fromkeys(row, 0.0)
        orders = list(permutations(encoder.groups))
        for order in orders:
            point = encoder.baseline().copy()
            before = value(point)
            for name, inputs in order:
                point[inputs] = x[inputs]
                after = value(point)
                total[name] += (after - before) / len(orders)
                before = after
        for c in e.contributions:
            assert c.contribution == pytest.approx(total[c.feature], abs=1e-10)
        assert e.base_value == pytest.approx(value(encoder.baseline()))
        assert e.output_value == pytest.approx(value(x))
        assert abs(e.residual) < 1e-9


@pytest.mark.parametrize("extra", [0, 5, 6, 25])
@pytest.mark.parametrize("positive", ["good", None])
def test_contributions_of_mixed_columns_add_up_with_either_method(extra, positive):
    answer, *_ = explained(extra, positive)
    for e in answer:
        assert e.method == ("exact_shapley" if extra <= 5 else "deeplift")
        assert len(e.contributions) == 5 + extra
        assert abs(e.residual) < 1e-9


def test_the_positive_class_goes_up_where_its_probability_does():
    for label, place in (("good", 1), ("bad", 0)):
        answer, encoder, network, encoded, _ = explained(label=label)
        share = network.probabilities(encoded)[:, place]
        base = network.probabilities(encoder.baseline()[None])[0, place]
        for e, p in zip(answer, share, strict=True):
            assert e.output_value == pytest.approx(np.log(p / (1 - p)))
            assert (sum(c.contribution for c in e.contributions) > 0) == (p > base)
