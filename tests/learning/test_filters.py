"""Each filter keeps its law, in the order of the list, on arrays and on tensors."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from truststram_lab.exceptions import InvalidInputError, UpdateRejectedError
from truststram_lab.learning.filters import apply_filters, run_filters
from truststram_lab.learning.weights import State
from truststram_lab.schemas.filters import FilterStep, GradientClip, Quantization, Sparsification

SHAPES = hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=8)
VALUES = st.just(0.0) | st.floats(-1e4, 1e4, width=16)
FLOATS = hnp.arrays(st.sampled_from([np.float16, np.float32, np.float64]), SHAPES, elements=VALUES)
STATES = st.dictionaries(st.sampled_from(["a", "b.weight", "c"]), FLOATS, max_size=3)
FILTERS = st.lists(
    st.sampled_from(
        [
            {"type": "gradient_clip", "max_norm": 0.7},
            {"type": "gradient_clip", "max_norm": 2, "per_tensor": True},
            {"type": "norm_validation", "max_norm": 1e9},
            {"type": "sparsification", "top_k": 0.3},
            {"type": "quantization", "bits": 4},
            {"type": "quantization", "bits": 1},
        ]
    ),
    max_size=5,
)
DOCUMENTED: list[dict[str, Any]] = [
    {"type": "gradient_clip", "max_norm": 1.0},
    {"type": "gaussian_noise", "sigma": 0.01},
    {"type": "norm_validation", "max_norm": 10.0},
    {"type": "sparsification", "top_k": 0.1},
    {"type": "quantization", "bits": 8},
]


def norm(state: State) -> float:
    return math.sqrt(
        math.fsum(float(np.sum(np.square(a, dtype=np.float64))) for a in state.values())
    )


@given(STATES, FILTERS)
def test_the_input_is_never_changed_nor_shared(state: State, filters: list[Any]) -> None:
    before = copy.deepcopy(state)
    found = apply_filters(delta=state, filters=filters)
    assert list(found) == list(state)
    for name, array in state.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert array.tobytes() == before[name].tobytes()
        assert not np.may_share_memory(found[name], array)


@given(STATES, st.floats(1e-3, 1e3), st.booleans())
def test_a_clipped_update_is_within_its_norm_as_it_is_sent(
    state: State, max_norm: float, per_tensor: bool
) -> None:
    clip = GradientClip(max_norm=max_norm, per_tensor=per_tensor)
    found = apply_filters(state, [clip])
    groups = [{name: array} for name, array in found.items()] if per_tensor else [found]
    assert all(norm(group) <= max_norm for group in groups)
    if norm(state) <= max_norm:
        assert all(found[name].tobytes() == array.tobytes() for name, array in state.items())


def test_clipping_keeps_the_direction_and_is_over_all_arrays() -> None:
    delta = {"a": np.array([30.0, 0.0]), "b": np.array([[40.0]])}
    found = apply_filters(delta, [{"type": "gradient_clip", "max_norm": 5}])
    np.testing.assert_allclose(found["a"], [3, 0], rtol=1e-12)
    np.testing.assert_allclose(found["b"], [[4]], rtol=1e-12)
    each = apply_filters(delta, [{"type": "gradient_clip", "max_norm": 5, "per_tensor": True}])
    np.testing.assert_allclose(each["a"], [5, 0], rtol=1e-12)
    np.testing.assert_allclose(each["b"], [[5]], rtol=1e-12)


def test_values_whose_squares_pass_single_precision_are_clipped_right() -> None:
    found = apply_filters({"a": np.array([3e38, 0], np.float32)}, [{"type": "gradient_clip"}])
    np.testing.assert_allclose(found["a"], [1, 0], rtol=1e-6)


@given(FLOATS, st.integers(1, 32))
def test_quantised_values_are_within_half_a_step(array: np.ndarray, bits: int) -> None:
    found = apply_filters({"w": array}, [Quantization(bits=bits)])["w"]
    exact = array.astype(np.float64)
    top = float(np.abs(exact).max(initial=0.0))
    step = top if bits == 1 else top / max(1, 2 ** (bits - 1) - 1)
    # Half a step, and the rounding of the array's own type, whose smallest numbers are coarse.
    rounding = np.finfo(array.dtype).eps * top + float(np.finfo(array.dtype).smallest_subnormal)
    assert (np.abs(found - exact) <= step / 2 * (1 + 1e-12) + rounding).all()
    assert (found[exact == 0] == 0).all()
    assert (found * np.sign(exact) >= 0).all()
    if bits > 1:
        last_bit = np.finfo(np.float64).eps * top if array.dtype == np.float64 else 0.0
        assert abs(float(np.abs(found).max(initial=0.0)) - top) <= last_bit


@given(hnp.arrays(np.float32, st.integers(1, 200), elements=VALUES), st.integers(1, 16))
def test_a_quantised_array_has_no_more_values_than_levels(array: np.ndarray, bits: int) -> None:
    found = apply_filters({"w": array}, [Quantization(bits=bits)])["w"]
    assert len(np.unique(found[found != 0])) <= 2 * max(1, 2 ** (bits - 1) - 1)
    again = apply_filters({"w": found}, [Quantization(bits=bits)])["w"]
    if bits > 1:
        np.testing.assert_array_equal(again, found)


@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-45, 1e140])
def test_extreme_arrays_are_quantised_too(scale: float) -> None:
    delta = {"w": np.array([0.0, scale, -2 * scale]) if scale < 1 else np.array([0.0, scale])}
    for bits in (1, 2, 8, 32):
        found = apply_filters(delta, [Quantization(bits=bits)])["w"]
        assert np.isfinite(found).all()
        assert found[0] == 0


def test_a_sparse_update_stays_sparse_when_quantised() -> None:
    delta = {"w": np.random.default_rng(0).standard_normal(1000).astype(np.float32)}
    for bits in (1, 2, 8):
        found = apply_filters(delta, [Sparsification(top_k=0.01), Quantization(bits=bits)])["w"]
        assert 0 < np.count_nonzero(found) <= 10


def test_filters_are_applied_in_the_order_of_the_list() -> None:
    delta = {"w": np.array([3.0, 4.0, 0.1])}
    clip, sparse = {"type": "gradient_clip"}, {"type": "sparsification", "top_k": 0.3}
    one = apply_filters(delta, [clip, sparse])["w"]
    other = apply_filters(delta, [sparse, clip])["w"]
    assert one.tolist() == pytest.approx([0, 4 / math.hypot(3, 4, 0.1), 0])
    assert other.tolist() == pytest.approx([0, 1, 0])


@given(STATES, FILTERS)
def test_one_list_is_its_filters_one_after_the_other(state: State, filters: list[Any]) -> None:
    # Within a list an array on one bit stays on its levels; taken anew it has half of them.
    assume(filters.count({"type": "quantization", "bits": 1}) < 2)
    # Quantised values of float16 are rounded once more where the steps are apart.
    state = {name: array.astype(np.float64) for name, array in state.items()}
    apart = state
    for filter in filters:
        apart = apply_filters(apart, [filter])
    together = apply_filters(state, filters)
    for name in state:
        np.testing.assert_allclose(together[name], apart[name], rtol=1e-9, atol=1e-12)


def test_the_noise_has_the_promised_variance_and_no_other_shape() -> None:
    size = 200_000
    zero = {"w": np.zeros(size, np.float32)}
    found = apply_filters(zero, [{"type": "gaussian_noise", "sigma": 0.5}])["w"].astype(float)
    # Five standard errors each: one failure in a million runs.
    assert abs(found.mean()) < 5 * 0.5 / math.sqrt(size)
    assert abs(found.std() / 0.5 - 1) < 5 / math.sqrt(2 * size)
    assert abs(np.mean((found / 0.5) ** 4) - 3) < 5 * math.sqrt(96 / size)


def test_noise_is_never_the_same_and_covers_every_coordinate() -> None:
    delta = {"w": np.ones(1000), "b": np.zeros(3, np.float16)}
    sparse = [{"type": "sparsification", "top_k": 0.01}, {"type": "gaussian_noise", "sigma": 1}]
    one, other = apply_filters(delta, sparse), apply_filters(delta, sparse)
    assert (one["w"] != other["w"]).all()
    assert np.count_nonzero(one["w"]) == 1000


def test_noise_can_be_repeated_in_a_test_alone() -> None:
    found = [
        apply_filters({"w": np.ones(50)}, DOCUMENTED, rng=np.random.default_rng(3))["w"]
        for _ in range(2)
    ]
    np.testing.assert_array_equal(found[0], found[1])


def test_noise_too_small_for_the_values_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"'w': Noise of .* hides nothing"):
        apply_filters({"w": np.array([1e9])}, [{"type": "gaussian_noise", "sigma": 1e-3}])


def test_an_update_over_the_norm_is_rejected_with_both_numbers() -> None:
    with pytest.raises(UpdateRejectedError, match=r"norm is 5, over the limit of 4\.9"):
        apply_filters({"a": np.array([3.0, 4.0])}, [{"type": "norm_validation", "max_norm": 4.9}])
    apply_filters({"a": np.array([3.0, 4.0])}, [{"type": "norm_validation", "max_norm": 5}])


def test_validation_measures_before_the_noise() -> None:
    noise = {"type": "gaussian_noise", "sigma": 1.0}
    limit = {"type": "norm_validation", "max_norm": 10.0}
    delta = {"w": np.full(10_000, 0.01)}  # norm 1; its noise has norm 100
    filtered = run_filters(delta, [noise, limit])
    assert filtered.steps[1].norm_before == pytest.approx(100, rel=0.1)
    with pytest.raises(UpdateRejectedError, match="norm before noise is 20"):
        apply_filters({"w": np.full(10_000, 0.2)}, [noise, limit])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("filters", [[], *([filter] for filter in DOCUMENTED), DOCUMENTED])
def test_a_value_that_is_not_finite_is_rejected_by_every_filter(
    value: float, filters: list[Any]
) -> None:
    delta = {"good": np.ones(3), "bad": np.array([1.0, value], np.float32)}
    with pytest.raises(UpdateRejectedError, match="'bad' has 1 values of 2 that are not finite"):
        apply_filters(delta, filters)


def test_values_too_large_for_a_norm_are_rejected() -> None:
    with pytest.raises(UpdateRejectedError, match="too large to take a norm of"):
        apply_filters({"w": np.array([1e200])}, [])


def test_integers_pass_as_they_are_and_the_notes_say_so() -> None:
    delta = {"w": np.full(5, 9.0), "num_batches_tracked": np.array(7), "mask": np.array([True])}
    filtered = run_filters(delta, DOCUMENTED)
    found = filtered.delta()
    assert found["num_batches_tracked"] == 7
    assert found["num_batches_tracked"].dtype == np.int64
    assert found["mask"].tolist() == [True]
    assert [note.code for note in filtered.notes] == [
        "validation_before_noise",
        "integers_unfiltered",
    ]
    assert "num_batches_tracked, mask" in filtered.notes[-1].text


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ([1.0, 2.0], "is a list; give an array or a tensor"),
        ("secret", "is a str"),
        (None, "is a NoneType"),
        (np.array(["a"]), "has type <U1"),
        (np.array([1j]), "has type complex128"),
        (np.array([object()]), "has type object"),
        (torch.ones(3, dtype=torch.complex64), "has type torch.complex64"),
        (torch.ones(3).to_sparse(), "sparse"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(value: Any, sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        apply_filters({"a": value}, [])


def test_a_mixed_update_is_refused() -> None:
    for delta in ({"a": np.ones(1), "b": torch.ones(1)}, {"a": torch.ones(1), "b": np.ones(1)}):
        with pytest.raises(InvalidInputError, match=r"arrays and tensors .'b'"):
            apply_filters(delta, [])


def test_a_list_instead_of_a_dict_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="delta is a list"):
        apply_filters([np.ones(3)], [])  # what a beginner passes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_come_out_as_tensors_of_their_type_and_device(dtype: torch.dtype) -> None:
    weight = torch.linspace(-3, 3, 12).reshape(3, 4).to(dtype).requires_grad_()
    delta = {"w": weight, "t": weight.T, "n": torch.tensor(4)}
    found = apply_filters(delta, DOCUMENTED)
    for name, tensor in delta.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert found[name].device == tensor.device
        assert found[name].data_ptr() != tensor.data_ptr()
    assert found["n"] == 4
    clipped = apply_filters(delta, [{"type": "gradient_clip"}])
    assert sum(clipped[n].double().square().sum() for n in "wt") <= 1


def test_tensors_and_arrays_are_filtered_alike() -> None:
    array = np.random.default_rng(0).standard_normal((20, 30)).astype(np.float32)
    filters = [filter for filter in DOCUMENTED if filter["type"] != "gaussian_noise"]
    one = apply_filters({"w": array}, filters)["w"]
    other = apply_filters({"w": torch.from_numpy(array)}, filters)["w"]
    np.testing.assert_array_equal(one, other.numpy())


def test_arrays_are_filtered_without_torch() -> None:
    code = (
        "import sys, numpy as np; from truststram_lab.learning.filters import apply_filters; "
        f"apply_filters({{'w': np.ones(9)}}, {DOCUMENTED!r}); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_audit_trail_says_what_each_filter_did() -> None:
    delta = {"w": np.random.default_rng(0).standard_normal(10_000).astype(np.float32)}
    filtered = run_filters(delta, DOCUMENTED)
    assert [step.filter.type for step in filtered.steps] == [f["type"] for f in DOCUMENTED]
    clip, noise, validation, sparse, coarse = filtered.steps
    assert clip.norm_before == pytest.approx(norm(delta), rel=1e-12)
    assert clip.norm_after == pytest.approx(1, rel=1e-5)
    assert noise.norm_after == pytest.approx(math.sqrt(2), rel=0.1)
    assert validation.norm_after == validation.norm_before == noise.norm_after
    assert (validation.kept, sparse.kept) == (10_000, 1000)
    assert sparse.bytes_before == 40_000
    assert coarse.bytes_before == sparse.bytes_after > coarse.bytes_after
    assert coarse.norm_after == pytest.approx(norm(filtered.delta()), rel=1e-6)
    for step in filtered.steps:
        assert FilterStep.model_validate_json(step.model_dump_json()) == step


@pytest.mark.parametrize(
    ("order", "codes"),
    [
        ("clip noise sparse coarse", []),
        ("clip limit sparse coarse", []),
        ("limit clip noise", []),
        ("clip sparse noise", ["sparse_before_noise"]),
        ("noise", ["noise_without_clip"]),
        ("noise clip", ["noise_without_clip", "clip_after_noise"]),
        ("each noise", ["clip_per_tensor"]),
        ("each clip noise", []),
        ("clip noise limit", ["validation_before_noise"]),
        ("clip coarse noise", ["quantized_before_noise"]),
        ("coarse clip noise", []),
        ("sparse clip", []),
    ],
)
def test_an_order_that_means_something_else_is_noted(order: str, codes: list[str]) -> None:
    kinds: dict[str, Any] = {
        "clip": {"type": "gradient_clip"},
        "each": {"type": "gradient_clip", "per_tensor": True},
        "noise": {"type": "gaussian_noise"},
        "limit": {"type": "norm_validation"},
        "sparse": {"type": "sparsification"},
        "coarse": {"type": "quantization"},
    }
    filtered = run_filters({"w": np.ones(20) / 10}, [kinds[word] for word in order.split()])
    assert [note.code for note in filtered.notes] == codes
