"""What is written comes back, small and the same every time."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from truststram_lab.exceptions import InvalidInputError, UpdateRejectedError
from truststram_lab.learning import weights
from truststram_lab.learning.encodings import Compact, Levels, compact, decode, encode, rice
from truststram_lab.learning.filters import run_filters
from truststram_lab.learning.weights import State

NAMES = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=9)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=6)
VALUES = st.just(0.0) | st.floats(-1e4, 1e4, width=16)
FLOATS = hnp.arrays(st.sampled_from(["<f2", "<f4", "<f8"]), SHAPES, elements=VALUES)
WHOLE = hnp.arrays(st.sampled_from(["<i8", "<i4", "|u1"]), SHAPES)
STATES = st.dictionaries(NAMES, FLOATS | WHOLE, max_size=4)
COMPRESSION = st.lists(
    st.builds(
        lambda share: {"type": "sparsification", "top_k": share}, st.sampled_from([0.01, 0.3, 1.0])
    )
    | st.builds(lambda bits: {"type": "quantization", "bits": bits}, st.integers(1, 32)),
    max_size=3,
)


def same(one: State, other: State) -> bool:
    return list(one) == list(other) and all(
        (one[name].dtype, one[name].shape, one[name].tobytes())
        == (other[name].dtype, other[name].shape, other[name].tobytes())
        for name in one
    )


def gaussian(size: int, seed: int = 0) -> State:
    return {"w": np.random.default_rng(seed).standard_normal(size, dtype=np.float32) * 0.01}


@given(STATES, st.dictionaries(NAMES, st.text(st.characters(codec="utf-8")), max_size=2))
def test_decode_undoes_encode(state: State, metadata: dict[str, str]) -> None:
    found, found_metadata = decode(encode(state, metadata).body, state)
    assert same(found, state)
    assert found_metadata == metadata


@given(STATES, COMPRESSION)
def test_what_filters_left_is_what_arrives(state: State, filters: list[dict[str, object]]) -> None:
    filtered = run_filters(state, filters)
    found, _ = decode(encode(filtered.parts).body, state)
    assert same(found, filtered.delta())


@given(STATES, COMPRESSION)
def test_equal_updates_give_equal_bytes(state: State, filters: list[dict[str, object]]) -> None:
    copies = {name: array.copy(order="F") for name, array in state.items()}
    one = encode(run_filters(state, filters).parts, {"b": "2", "a": "1"})
    other = encode(run_filters(copies, filters).parts, {"a": "1", "b": "2"})
    assert one.body == other.body


@given(STATES, COMPRESSION)
def test_the_sizes_add_up_to_the_file(state: State, filters: list[dict[str, object]]) -> None:
    encoded = encode(run_filters(state, filters).parts)
    assert [size.name for size in encoded.sizes] == list(state)
    assert encoded.header_bytes > 0
    assert encoded.header_bytes + sum(size.bytes_after for size in encoded.sizes) == len(
        encoded.body
    )
    for size in encoded.sizes:
        assert size.bytes_before == state[size.name].nbytes
        assert 0 <= size.kept <= size.coordinates == state[size.name].size


def test_a_dense_update_is_the_plain_safetensors_file() -> None:
    state = {"w": np.arange(1.0, 7.0, dtype=np.float32).reshape(2, 3), "n": np.array(3)}
    assert encode(state, {"rows": "5"}).body == weights.encode(state, {"rows": "5"})


def test_a_plain_file_is_read_too() -> None:
    state = gaussian(10)
    assert same(decode(weights.encode(state), state)[0], state)


def test_the_order_is_that_of_the_global_model() -> None:
    update = {"b": np.zeros(9, np.float32), "a": np.ones(2, np.float32), "c": np.zeros(1)}
    like = {name: update[name] for name in "abc"}
    assert list(decode(encode(update).body, like)[0]) == ["a", "b", "c"]


@pytest.mark.parametrize("negative_zero", [False, True])
def test_an_array_of_zeros_takes_a_line_and_no_loss(negative_zero: bool) -> None:
    state = {"frozen": np.zeros((100, 100), np.float32)}
    if negative_zero:
        state["frozen"][3, 4] = -0.0
    encoded = encode(state)
    assert encoded.sizes[0].bytes_after <= 16
    assert same(decode(encoded.body, state)[0], state)


@given(
    hnp.arrays(np.int64, st.integers(0, 200), elements=st.integers(0, 2**40 - 1))
    | hnp.arrays(np.int64, st.integers(0, 200), elements=st.integers(0, 9))
)
def test_rice_codes_read_back_and_are_never_larger_than_packed_bits(numbers: np.ndarray) -> None:
    code = rice.choose(numbers)
    body = rice.write(numbers, code)
    largest = int(numbers.max(initial=0))
    assert len(body) == code.size_bytes <= largest.bit_length() * math.ceil(numbers.size / 8)
    assert rice.read(memoryview(body), code, largest).tolist() == numbers.tolist()


@pytest.mark.parametrize(
    ("share", "excess"), [(0.5, 0.02), (0.1, 0.08), (0.03, 0.13), (0.01, 0.05), (0.001, 0.11)]
)
def test_gaps_of_random_coordinates_take_little_more_than_their_entropy(
    share: float, excess: float
) -> None:
    count = 100_000
    gaps = np.random.default_rng(5).geometric(share, count) - 1
    entropy = -(math.log2(share) + (1 - share) / share * math.log2(1 - share))
    taken = 8 * rice.choose(gaps).size_bytes / count
    # The draw's own entropy may lie a little under that of its distribution.
    assert entropy - 0.02 < taken < entropy + excess


def test_ten_million_parameters_become_less_than_200_kb() -> None:
    delta = gaussian(10_000_000)
    filtered = run_filters(
        delta,
        [
            {"type": "gradient_clip"},
            {"type": "sparsification", "top_k": 0.01},
            {"type": "quantization", "bits": 8},
        ],
    )
    encoded = encode(filtered.parts)
    assert len(encoded.body) <= 200_000
    assert encoded.sizes[0].kept == 100_000
    assert same(decode(encoded.body, delta)[0], filtered.delta())


@pytest.mark.parametrize("bits", range(1, 33))
def test_packed_integers_take_their_bits_at_most(bits: int) -> None:
    state = {"w": np.random.default_rng(2).uniform(-1, 1, 8000)}
    filtered = run_filters(state, [{"type": "quantization", "bits": bits}])
    encoded = encode(filtered.parts)
    assert encoded.sizes[0].bytes_after <= bits * 1000
    assert encoded.sizes[0].form in ("quantised", "sparse quantised")
    assert same(decode(encoded.body, state)[0], filtered.delta())


def test_compact_keeps_an_array_dense_unless_half_of_it_is_zero() -> None:
    assert compact(np.array([0.0, 1.0, 2.0])).indices is None
    indices = compact(np.array([0.0, 1.0, 0.0, 2.0])).indices
    assert indices is not None
    assert indices.tolist() == [1, 3]


def test_big_endian_and_transposed_arrays_keep_their_values() -> None:
    state = {"a": np.array([[1.5, 0, 0], [0, 0, -2.0]], ">f4"), "b": np.eye(5).T[::-1]}
    found, _ = decode(encode(state).body, {n: a.astype(a.dtype.newbyteorder("<")) for n, a in state.items()})  # fmt: skip  # noqa: E501
    for name, array in state.items():
        np.testing.assert_array_equal(found[name], array)


def test_the_file_says_itself_what_is_in_it() -> None:
    state = gaussian(1000)
    body = encode(run_filters(state, [{"type": "sparsification", "top_k": 0.02}]).parts).body
    _, metadata = weights.decode(body)
    (entry,) = json.loads(metadata["truststram.packed"])
    assert (entry["name"], entry["dtype"], entry["shape"], entry["count"]) == (
        "w",
        "F32",
        [1000],
        20,
    )


@pytest.mark.parametrize(
    ("update", "metadata"),
    [({"truststram.packed": np.zeros(3)}, {}), ({"a": np.ones(2)}, {"truststram.packed": ""})],
)
def test_the_formats_own_name_is_refused(update: State, metadata: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError, match="the format's own"):
        encode(update, metadata)


@pytest.mark.parametrize("name", ["__metadata__", "a\n", "a" * 201])
def test_a_name_that_the_file_cannot_carry_is_refused_when_packed_too(name: str) -> None:
    with pytest.raises(InvalidInputError, match="is no name for an array"):
        encode({name: np.zeros(9, np.float32)})


def test_a_value_too_large_for_its_type_is_refused() -> None:
    wide = Compact((2,), np.dtype(np.float16), None, np.array([1.0, 1e6], np.float32))
    with pytest.raises(UpdateRejectedError, match="too large for float16"):
        encode({"a": wide})


def test_levels_are_exact_multiples_with_an_exact_zero() -> None:
    levels = Levels(np.array([-3, 0, 3], np.int32), 0.1, 3)
    assert levels.floats(np.dtype(np.float64)).tolist() == [-3 * 0.1, 0.0, 3 * 0.1]
    assert levels.step == 0.1


def test_reading_loads_neither_torch_nor_the_cipher() -> None:
    code = (
        "import sys; import truststram_lab.learning.encodings as e; import numpy as np; "
        "s = {'a': np.eye(9)}; e.decode(e.encode(s).body, s); "
        "print(sorted({'torch', 'cryptography'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
