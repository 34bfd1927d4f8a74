"""A filter is understood in both spellings, or refused with the nearest: never skipped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.schemas.filters import (
    Filter,
    GaussianNoise,
    GradientClip,
    NormValidation,
    Quantization,
    Sparsification,
    parse_filters,
)

DOCUMENTED: list[dict[str, Any]] = [
    {"type": "gradient_clip", "max_norm": 1.0},
    {"type": "gaussian_noise", "sigma": 0.01},
    {"type": "norm_validation", "max_norm": 10.0},
    {"type": "sparsification", "top_k": 0.1},
    {"type": "quantization", "bits": 8},
]
MODELS = (
    GradientClip(max_norm=1.0),
    GaussianNoise(sigma=0.01),
    NormValidation(max_norm=10.0),
    Sparsification(top_k=0.1),
    Quantization(bits=8),
)


class Plan(BaseModel):
    filters: list[Filter]


def test_the_documented_list_is_understood() -> None:
    assert parse_filters(DOCUMENTED) == MODELS


def test_the_documented_values_are_the_defaults() -> None:
    assert parse_filters([{"type": filter["type"]} for filter in DOCUMENTED]) == MODELS


def test_models_are_taken_as_they_are() -> None:
    assert parse_filters(iter(MODELS)) == MODELS


def test_a_plan_keeps_its_filters_over_the_wire() -> None:
    plan = Plan(filters=list(MODELS))
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


@given(st.decimals(min_value="0.0001", max_value=100, places=4))
def test_a_percent_is_a_hundredth_in_decimals(percent: Any) -> None:
    (found,) = parse_filters([{"type": "sparsification", "top_k_percent": float(percent)}])
    (expected,) = parse_filters([{"type": "sparsification", "top_k": float(percent / 100)}])
    assert found == expected


@pytest.mark.parametrize(
    ("other", "own"),
    [
        (
            {"type": "gaussian_noise", "stddev": 0.5},
            {"type": "gaussian_noise", "sigma": 0.5},
        ),
        (
            {"type": "sparsification", "top_k_percent": 10},
            {"type": "sparsification", "top_k": 0.1},
        ),
        (
            {"type": "gaussian_noise", "stddev": 0.5, "sigma": 0.5},
            {"type": "gaussian_noise", "sigma": 0.5},
        ),
        (
            {"type": "gaussian_noise", "sigma": np.float32(0.5)},
            {"type": "gaussian_noise", "sigma": 0.5},
        ),
        ({"type": "quantization", "bits": np.int64(4)}, {"type": "quantization", "bits": 4}),
    ],
)
def test_both_spellings_mean_the_same(other: dict[str, Any], own: dict[str, Any]) -> None:
    assert parse_filters([other]) == parse_filters([own])
    assert Plan.model_validate({"filters": [own]}).filters == list(parse_filters([other]))


@pytest.mark.parametrize(
    ("filter", "sentence", "field"),
    [
        ({"type": "gausian_noise"}, "'gausian_noise' is no filter; did you mean 'gaussian_noise'",
         "type"),
        ({"type": "zzz"}, "it is one of gradient_clip, gaussian_noise", "type"),
        ({"type": ["a"]}, "is no filter", "type"),
        ({}, "needs a type; it is one of", "type"),
        ({"type": "gaussian_noise", "sigm": 1}, "no 'sigm'; did you mean 'sigma'", "sigm"),
        ({"type": "gradient_clip", "max_nrom": 1}, "did you mean 'max_norm'", "max_nrom"),
        ({"type": "gradient_clip", "top_k": 1}, "It takes max_norm, per_tensor|it takes", "top_k"),
        ({"type": "gradient_clip", 3: 1}, "no '3'", "3"),
        ({"type": "gaussian_noise", "sigma": 1, "stddev": 2}, "'sigma' and 'stddev', which differ",
         "sigma"),
        ({"type": "sparsification", "top_k": 0.1, "top_k_percent": 0.1}, "which differ", "top_k"),
        ({"type": "gaussian_noise", "sigma": 0}, "sigma of .* is 0; give a positive", "sigma"),
        ({"type": "gaussian_noise", "stddev": -1}, "stddev of .* is -1; give", "stddev"),
        ({"type": "gaussian_noise", "sigma": "1"}, "is '1'; give a positive number", "sigma"),
        ({"type": "gradient_clip", "max_norm": float("nan")}, "is nan; give", "max_norm"),
        ({"type": "gradient_clip", "max_norm": float("inf")}, "is inf; give", "max_norm"),
        ({"type": "gradient_clip", "max_norm": True}, "is True; give", "max_norm"),
        ({"type": "gradient_clip", "per_tensor": 1}, "give true or false", "per_tensor"),
        ({"type": "norm_validation", "max_norm": 0}, "is 0; give", "max_norm"),
        ({"type": "sparsification", "top_k": 0}, "a share over 0 and up to 1", "top_k"),
        ({"type": "sparsification", "top_k": 10}, "10 percent is top_k 0.1", "top_k"),
        ({"type": "sparsification", "top_k_percent": 101}, "is 101; give", "top_k_percent"),
        ({"type": "sparsification", "top_k_percent": float("nan")}, "is nan", "top_k_percent"),
        ({"type": "quantization", "bits": 0}, "is 0; give a whole number, 1 to 32", "bits"),
        ({"type": "quantization", "bits": 33}, "is 33; give a whole number, 1 to 32", "bits"),
        ({"type": "quantization", "bits": 8.5}, "is 8.5; give", "bits"),
        ({"type": "quantization", "bits": None}, "is None; give", "bits"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_by_name(
    filter: dict[Any, Any], sentence: str, field: str
) -> None:
    with pytest.raises(InvalidInputError, match=sentence) as caught:
        parse_filters([{"type": "quantization"}, filter])
    assert caught.value.field == f"filters[1].{field}"
    assert "\n" not in caught.value.message


def test_a_typo_offers_the_nearest_to_choose() -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_filters([{"type": "quantisation"}])
    assert caught.value.choices == ["quantization"]


@pytest.mark.parametrize("filters", ["gradient_clip", {"type": "gradient_clip"}, 3, None])
def test_something_else_than_a_list_is_refused(filters: Any) -> None:
    with pytest.raises(InvalidInputError, match="is no list"):
        parse_filters(filters)


@pytest.mark.parametrize("filter", ["gradient_clip", 3, None])
def test_something_else_than_a_filter_is_refused(filter: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"filters\[0\] is a .*, no filter"):
        parse_filters([filter])


@pytest.mark.parametrize(
    "filter", [{"type": "quantization", "bit": 8}, {"type": "quantization", "bits": 0}]
)
def test_a_plan_refuses_what_the_list_refuses(filter: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Plan.model_validate({"filters": [filter]})
