"""What is held out, who has which rows, and what is said before anything trains."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.federated.preparation import prepare
from truststram_lab.preprocessing.demo import load_demo


def _table(rows: int = 200, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.integers(20, 90, rows).astype(float),
            "sex": rng.choice(["f", "m"], rows),
            "ward": rng.choice(["east", "north", "west"], rows),
            "died": rng.choice(["no", "yes"], rows, p=[0.7, 0.3]),
        }
    )


def _prepare(frame: pd.DataFrame, **options):
    return prepare(frame, target="died", source_kind="dataframe", source_name="df", **options)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 100.0])
def test_every_row_is_held_out_or_at_exactly_one_site(alpha):
    frame = _table()
    frame["age"] = np.arange(len(frame), dtype=float)
    prepared = _prepare(frame, split=f"dirichlet:{alpha}")
    seen = np.concatenate(
        [site.frame["age"].to_numpy() for site in [*prepared.sites, prepared.held_out]]
    )
    assert sorted(seen) == list(range(len(frame)))


def test_held_out_rows_keep_the_share_of_each_class():
    demo = load_demo("breast-cancer")
    prepared = prepare(demo.frame, target=demo.target, source_kind="demo", source_name=demo.name)
    whole = (demo.frame[demo.target] == "malignant").mean()
    assert abs(prepared.held_out.codes.mean() - whole) < 0.01
    assert len(prepared.held_out.codes) == 142


def test_the_same_seed_deals_the_same_rows():
    one, two, other = (_prepare(_table(), seed=seed) for seed in (3, 3, 4))
    pd.testing.assert_frame_equal(one.sites[2].frame, two.sites[2].frame)
    assert not one.held_out.frame.equals(other.held_out.frame)


def test_a_site_column_is_the_split_and_no_feature():
    prepared = _prepare(_table(), by="ward")
    assert [site.name for site in prepared.sites] == ["east", "north", "west"]
    assert "ward" not in [column.name for column in prepared.signature.columns]


def test_a_small_alpha_makes_sites_differ_more_than_a_large_one():
    def spread(alpha: float) -> float:
        sites = _prepare(_table(2000), split=f"dirichlet:{alpha}").sites
        return float(np.std([site.codes.mean() for site in sites]))

    assert spread(0.3) > 3 * spread(1000)


@pytest.mark.parametrize(
    ("change", "options", "parts"),
    [
        ({}, {"clients": 500}, ["500 sites", "200 rows"]),
        ({}, {"clients": 0}, ["0 sites"]),
        ({}, {"by": "wardd"}, ["'wardd'", "'ward'"]),
        ({}, {"by": "died"}, ["'died' is the target"]),
        ({}, {"split": "dirichlet:-1"}, ["'dirichlet:-1'", "dirichlet:0.5"]),
        ({}, {"split": "shard"}, ["'shard'", "shards"]),
        ({"ward": None}, {"by": "ward"}, ["'ward' is empty", "dropna"]),
    ],
)
def test_what_cannot_be_dealt_is_said_in_one_sentence(change, options, parts):
    frame = _table()
    for column, value in change.items():
        frame.loc[3, column] = value
    with pytest.raises(InvalidInputError) as caught:
        _prepare(frame, **options)
    for part in parts:
        assert part in caught.value.message
    assert "\n" not in caught.value.message


def test_a_site_with_one_class_is_said_before_training_and_can_be_allowed():
    frame = _table()
    frame.loc[frame["ward"] == "east", "died"] = "no"
    with pytest.raises(InvalidInputError, match=r"'east' are 'no'.*--allow-one-class"):
        _prepare(frame, by="ward")
    allowed = _prepare(frame, by="ward", allow_one_class=True)
    assert allowed.sites[0].class_rows(allowed.signature) == {
        "no": len(allowed.sites[0].codes),
        "yes": 0,
    }


def test_a_site_with_too_few_rows_is_named():
    frame = _table()
    frame.loc[:2, "ward"] = "tiny"
    with pytest.raises(InvalidInputError, match="'tiny' has"):
        _prepare(frame, by="ward")


@pytest.mark.parametrize("split", ["dirichlet:0.3", "iid", "shards:1", "quantity:0.5"])
def test_a_thousand_virtual_clients_all_have_rows(split):
    frame = _table(rows=2_000)
    prepared = _prepare(frame, clients=1_000, split=split, hosted=True)
    counts = prepared.class_counts()
    assert counts.shape == (1_000, 2)
    assert counts.sum(axis=1).min() >= 1
    assert counts.sum() == len(prepared.codes) == 1_500
    again = _prepare(frame, clients=1_000, split=split, hosted=True)
    assert (counts == again.class_counts()).all()


def test_more_virtual_clients_than_rows_are_refused_with_a_number_that_works():
    with pytest.raises(InvalidInputError, match="choose --clients 150 or fewer"):
        _prepare(_table(), clients=151, hosted=True)
