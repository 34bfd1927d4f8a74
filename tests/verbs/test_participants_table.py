"""A site's table: what is held out, what is told of it, and what does not fit a run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truststram_lab.federated.participation.policy import SitePolicy
from truststram_lab.federated.site_policy import filter_words, policy_words
from truststram_lab.federated.site_preview import preview
from truststram_lab.federated.site_table import read_site_table
from truststram_lab.schemas.tables import Column, Signature


def frame(rows: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "dose": rng.normal(size=rows),
            "ward": np.where(np.arange(rows) % 3 == 0, "icu", "general"),
            "ill": np.where(np.arange(rows) % 4 == 0, "yes", "no"),
        }
    )


def signature(**changes) -> Signature:
    values = {
        "columns": [
            Column(name="dose", kind="numeric"),
            Column(name="ward", kind="categorical", categories=["general", "icu"]),
        ],
        "target": "ill",
        "classes": ["no", "yes"],
        "positive_class": "yes",
        **changes,
    }
    return Signature(**values)


@given(st.integers(min_value=12, max_value=200))
def test_no_row_is_trained_on_and_scored_and_none_is_lost(rows):
    table = read_site_table(frame(rows), "ill")
    assert sorted([*table.trained, *table.held_out]) == list(range(rows))
    assert set(frame(rows)["ill"].iloc[table.held_out]) == {"yes", "no"}


def test_the_same_table_holds_out_the_same_rows_every_time():
    first, again = read_site_table(frame(), "ill"), read_site_table(frame(), "ill")
    assert first.held_out.tolist() == again.held_out.tolist()


def test_a_description_has_no_value_of_a_numeric_column():
    told = read_site_table(frame(), "ill").description().model_dump_json()
    for value in frame()["dose"]:
        assert f"{value:.3f}" not in told
    assert "icu" in told


def test_a_table_that_fits_has_nothing_against_the_run():
    wider = [
        Column(name="ward", kind="categorical", categories=["general", "icu", "ward 9"]),
        Column(name="dose", kind="numeric", nullable=True),
    ]
    table = read_site_table(frame(), "ill")
    assert table.objections(signature()) == []
    assert table.objections(signature(columns=wider)) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"target": "died"}, "join again with --target 'died'"),
        ({"columns": [Column(name="dose", kind="numeric")]}, "'ward'"),
        (
            {"columns": [*signature().columns, Column(name="age", kind="numeric")]},
            "'age' is missing",
        ),
        (
            {
                "columns": [
                    Column(name="dose", kind="boolean"),
                    Column(name="ward", kind="categorical", categories=["general", "icu"]),
                ]
            },
            "'dose' is numeric here, and the run takes it as boolean",
        ),
        (
            {
                "columns": [
                    Column(name="dose", kind="numeric"),
                    Column(name="ward", kind="categorical", categories=["general"]),
                ]
            },
            "'ward' has 'icu' here",
        ),
        ({"classes": ["no", "maybe"], "positive_class": "maybe"}, "none of the classes"),
    ],
)
def test_what_does_not_fit_is_one_sentence_that_names_the_column(changes, says):
    (sentence,) = read_site_table(frame(), "ill").objections(signature(**changes))
    assert says in sentence
    assert sentence.endswith(".")


def test_gaps_that_the_run_does_not_take_are_told():
    gappy = frame()
    gappy.loc[5, "dose"] = None
    (sentence,) = read_site_table(gappy, "ill").objections(signature())
    assert "'dose' has missing values here" in sentence


def test_a_preview_counts_what_the_sites_own_filters_leave():
    table = read_site_table(frame(), "ill")

    def bytes_with(*filters) -> int:
        policy = SitePolicy(own_filters=filters)
        return preview(table, policy, federation="f", site="a").update_bytes

    whole, packed = bytes_with(), bytes_with({"type": "quantization", "bits": 8})
    assert packed < whole


def test_a_floor_is_told_in_words():
    policy = SitePolicy(
        max_clip=1.0,
        min_noise=0.1,
        max_epsilon=3.0,
        models=("icu",),
        strategies=("fedavg",),
        allow_statistics=False,
        max_rounds=5,
        own_filters=({"type": "gradient_clip", "max_norm": 1.0},),
    )
    words = policy_words(policy)
    assert len(words) == 8
    assert filter_words(policy) == ["gradient_clip:max_norm=1.0"]
    assert policy_words(SitePolicy()) == []
