"""Strategies, filters and privacy as they are asked for, and what is refused before training."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.federated.bounds import checked_bounds, demo_bounds
from truststram_lab.federated.options import Options, filters_of, unit_of
from truststram_lab.federated.participation.terms import STATISTICS_NOISE
from truststram_lab.federated.preparation import prepare
from truststram_lab.federated.record_privacy import private_moments, site_plan
from truststram_lab.learning.privacy.accountant import account
from truststram_lab.learning.statistics import check_moments, merge_moments
from truststram_lab.preprocessing.demo import DEMO_NAMES, load_demo
from truststram_lab.schemas.federation import LocalTraining
from truststram_lab.schemas.filters import GradientClip, Quantization, Sparsification
from truststram_lab.schemas.privacy import ClientPlan, GaussianUse, RecordPlan

BOUNDS = {"age": (0, 120)}


def _prepared(rows: int = 400):
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "age": rng.integers(20, 90, rows).astype(float),
            "sex": rng.choice(["f", "m"], rows),
            "died": rng.choice(["no", "yes"], rows),
        }
    )
    frame.loc[:20, "age"] = np.nan
    return prepare(frame, target="died", source_kind="dataframe", source_name="df", seed=2)


def test_a_filter_is_a_text_a_mapping_or_a_model():
    texts = ["gradient_clip:max_norm=2.0,per_tensor=true", "quantization:bits=4"]
    found = filters_of([*texts, {"type": "sparsification", "top_k_percent": 10}])
    assert found == (
        GradientClip(max_norm=2.0, per_tensor=True),
        Quantization(bits=4),
        Sparsification(top_k=0.1),
    )
    assert filters_of("gradient_clip") == (GradientClip(),)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("gradient_clp:max_norm=1", "gradient_clip"),
        ("gradient_clip:max=1", "max_norm"),
        ("gradient_clip:max_norm", "no key=value"),
        ("gradient_clip:max_norm=1,max_norm=2", "twice"),
        ("quantization:bits=33", "1 to 32"),
        ("quantization:bits=0", "1 to 32"),
        ("sparsification:top_k=0", "over 0"),
        ("gradient_clip:max_norm=wide", "positive number"),
    ],
)
def test_a_filter_that_is_none_says_which_is_near_or_its_range(text, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        filters_of([text])


def test_units_are_two():
    assert unit_of("record") == "record"
    with pytest.raises(InvalidInputError, match="did you mean 'client'"):
        unit_of("clients")


@pytest.mark.parametrize("epsilon", [0.5, 3.0, 8.0])
@pytest.mark.parametrize("rows", [120, 20_000])
def test_all_rounds_and_the_statistics_together_stay_within_the_epsilon_asked_for(epsilon, rows):
    prepared = _prepared(rows)
    options = Options(dp=epsilon, bounds=BOUNDS)
    fields, _ = options.plan_fields(prepared, 7, LocalTraining())
    plan, told = fields["privacy"], fields["config"]
    assert isinstance(plan, RecordPlan)
    uses = [plan.use(7)]
    if STATISTICS_NOISE in told:
        uses.append(GaussianUse(noise_multiplier=told[STATISTICS_NOISE]))
    found = account(uses, plan.delta).epsilon
    assert 0.99 * epsilon < found <= epsilon
    # Noise that would drown a small table's means is not paid for.
    assert (STATISTICS_NOISE in told) == (rows == 20_000)


def test_delta_is_a_tenth_of_one_row_of_the_smallest_site():
    prepared = _prepared()
    fields, _ = Options(dp=3, bounds=BOUNDS).plan_fields(prepared, 5, LocalTraining())
    smallest = min(len(site.codes) for site in prepared.sites)
    assert fields["privacy"].delta == 1 / (10 * smallest)


def test_every_site_spends_the_same_and_divides_by_its_own_sample():
    prepared = _prepared()
    fields, _ = Options(dp=3, bounds=BOUNDS).plan_fields(prepared, 5, LocalTraining())
    plan = fields["privacy"]
    for site in prepared.sites:
        own = site_plan(plan, len(site.codes))
        assert own.use(5) == plan.use(5)
        assert own.batch_size == pytest.approx(plan.sample_rate * len(site.codes))


@pytest.mark.parametrize("noise", [None, 0.5, 50.0])
def test_private_moments_are_possible_ones_of_as_many_rows_as_the_site_has(noise):
    prepared = _prepared()
    bounds = checked_bounds(BOUNDS, prepared.signature)
    moments = [private_moments(s.frame, prepared.signature, bounds, noise) for s in prepared.sites]
    for site, found in zip(prepared.sites, moments, strict=True):
        check_moments(found, prepared.signature, 5)
        assert int(found["rows"][0]) == len(site.codes)
    merged = merge_moments(moments, prepared.signature)
    age = next(column for column in merged.columns if column.name == "age")
    assert age.mean is None or 0 <= age.mean <= 120


def test_moments_of_bounds_alone_are_the_same_whatever_the_rows_hold():
    prepared = _prepared()
    bounds = checked_bounds(BOUNDS, prepared.signature)
    site = prepared.sites[0]
    other = site.frame.assign(age=1.0, sex="f")
    one = private_moments(site.frame, prepared.signature, bounds, None)
    two = private_moments(other, prepared.signature, bounds, None)
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name])


@pytest.mark.parametrize("name", DEMO_NAMES)
def test_the_documented_bounds_of_a_demo_hold_all_its_rows(name):
    demo = load_demo(name)
    prepared = prepare(demo.frame, target=demo.target, source_kind="demo", source_name=demo.name)
    found = checked_bounds(demo_bounds(name, prepared.signature), prepared.signature)
    for column, (low, high) in found.items():
        assert low <= demo.frame[column].min() <= demo.frame[column].max() <= high, column


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (Options(dp=0, bounds=BOUNDS), "--dp 0 is no epsilon"),
        (Options(dp=-3, bounds=BOUNDS), "--dp -3"),
        (Options(dp=float("nan"), bounds=BOUNDS), "--dp nan"),
        (Options(dp=3, delta=0.5, bounds=BOUNDS), "--delta 0.5 allows one of"),
        (Options(dp=3, delta=0, bounds=BOUNDS), "--delta 0"),
        (Options(dp=3, clip=0, bounds=BOUNDS), "--clip 0"),
        (Options(dp=3), "'age' has none: give --bounds VAR"),
        (Options(dp=3, bounds={"agee": (0, 1)}), "did you mean 'age'"),
        (Options(dp=3, bounds={"sex": (0, 1)}), "no numeric column"),
        (Options(dp=3, bounds={"age": (9, 1)}), "least and its greatest"),
        (Options(dp=3, bounds={"age": 9}), "least and its greatest"),
        (Options(dp=3, bounds=[1]), "a dict of column"),
        (Options(delta=1e-5), "--delta belongs to --dp"),
        (Options(bounds=BOUNDS), "--bounds belongs to --dp"),
    ],
)
def test_a_number_out_of_range_says_the_flag_and_what_would_do(options, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        options.plan_fields(_prepared(), 5, LocalTraining())


def test_client_level_plans_need_no_bounds_and_hide_a_site():
    options = Options(dp=8, unit="client", delta=1e-3)
    fields, bounds = options.plan_fields(_prepared(), 5, LocalTraining())
    plan = fields["privacy"]
    assert isinstance(plan, ClientPlan)
    assert bounds is None
    assert plan.sites == 5
    assert account([plan.use(5)], 1e-3).epsilon <= 8


@pytest.mark.parametrize("name", ["dp", "delta", "clip", "dp_limit"])
@pytest.mark.parametrize("value", ["5", True, [3.0]])
def test_a_number_of_privacy_that_is_none_is_named(name, value) -> None:
    with pytest.raises(InvalidInputError, match=f"^{name} is .*, which is no number; write"):
        Options(**{name: value})
