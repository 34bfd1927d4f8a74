from __future__ import annotations

import contextlib
import hashlib
import json

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from truststram_lab.exceptions import InvalidInputError, UpdateRejectedError
from truststram_lab.learning import weights
from truststram_lab.learning.weights import State

NAMES = st.text(
    st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=12
).filter(lambda name: name != "__metadata__")
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
FLOATS = hnp.arrays(
    st.sampled_from(["<f4", "<f8"]), SHAPES, elements=st.floats(-1e6, 1e6, width=32)
)
ANY_ARRAYS = hnp.arrays(
    st.sampled_from(["<f8", "<f4", "<f2", "<i8", "<i4", "<i2", "|i1", "|u1"]), SHAPES
)


def an_update() -> State:
    return {
        "layers.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "layers.0.bias": np.zeros(2, np.float32),
    }


def a_file(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@given(
    st.dictionaries(NAMES, ANY_ARRAYS, max_size=5),
    st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"))),
)
def test_decode_undoes_encode(state: State, metadata: dict[str, str]) -> None:
    found, found_metadata = weights.decode(weights.encode(state, metadata))
    assert list(found) == list(state)
    assert found_metadata == metadata
    for name, array in state.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


@given(st.dictionaries(NAMES, ANY_ARRAYS, max_size=5))
def test_the_reference_library_reads_what_we_write(state: State) -> None:
    found = safetensors.numpy.load(weights.encode(state, {"b": "2", "a": "1"}))
    assert set(found) == set(state)
    assert all(found[name].tobytes() == array.tobytes() for name, array in state.items())


@given(st.dictionaries(NAMES, ANY_ARRAYS, max_size=5))
def test_we_read_what_the_reference_library_writes(state: State) -> None:
    found, metadata = weights.decode(safetensors.numpy.save(state, {"key": "value"}))
    assert metadata == {"key": "value"}
    assert set(found) == set(state)
    assert all(found[name].tobytes() == array.tobytes() for name, array in state.items())


def test_equal_weights_give_equal_bytes_however_the_metadata_was_built() -> None:
    one = weights.encode(an_update(), {"sample_count": "88", "metrics": "{}"})
    other = weights.encode(an_update(), {"metrics": "{}", "sample_count": "88"})
    assert one == other


def test_big_endian_arrays_keep_their_values() -> None:
    found, _ = weights.decode(weights.encode({"a": np.array([1.5, -2.0], ">f8")}))
    assert found["a"].tolist() == [1.5, -2.0]


def test_transposed_arrays_keep_their_values() -> None:
    array = np.arange(6.0).reshape(2, 3).T
    found, _ = weights.decode(weights.encode({"a": array}))
    np.testing.assert_array_equal(found["a"], array)


def test_decoded_arrays_are_read_only_views() -> None:
    found, _ = weights.decode(weights.encode(an_update()))
    with pytest.raises(ValueError, match="read-only"):
        found["layers.0.bias"][0] = 1.0


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_rejected(body: bytes) -> None:
    try:
        weights.decode(body)
    except UpdateRejectedError:
        return
    safetensors.numpy.load(body)  # what we accept, the reference accepts


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F64", "I8", "BF16", "", 3]),
        "shape": st.lists(st.integers(-1, 2**70), max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(-1, 40), max_size=3) | JSON,
    }
)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), ENTRIES | JSON) | JSON,
    st.binary(max_size=40),
)
def test_any_header_is_decoded_or_rejected(header: object, data: bytes) -> None:
    body = a_file(header, data)
    try:
        state, _ = weights.decode(body)
    except UpdateRejectedError:
        return
    assert sum(array.nbytes for array in state.values()) == len(data)


@given(st.data())
def test_any_damage_to_a_real_file_is_decoded_or_rejected(data: st.DataObject) -> None:
    body = bytearray(weights.encode(an_update(), {"sample_count": "88"}))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    for damaged in (bytes(body), bytes(body[:cut])):
        with contextlib.suppress(UpdateRejectedError):
            weights.decode(damaged)


F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("body", "fact"),
    [
        (b"", "it has 0 bytes"),
        ((2**63).to_bytes(8, "little") + b"{}", f"claims {2**63} bytes, but 2 follow"),
        (a_file(b"[" * 100_000), "not JSON"),
        (a_file(b"\xff"), "not JSON"),
        (a_file([]), "not a JSON object"),
        (a_file(b'{"a": 1, "a": 2}'), "unique names"),
        (a_file({"a": 1}), "'a' needs exactly dtype, shape and data_offsets"),
        (a_file({"a": {**F32, "more": 1}}, bytes(4)), "needs exactly"),
        (a_file({"a": {**F32, "dtype": "BF16"}}, bytes(4)), "type 'BF16', not one of F64, F32"),
        (a_file({"a": {**F32, "dtype": ["F32"]}}, bytes(4)), "not one of"),
        (a_file({"a": {**F32, "shape": [True]}}, bytes(4)), "lengths as shape"),
        (a_file({"a": {**F32, "shape": [1] * 33}}, bytes(4)), "at most 32 lengths"),
        (a_file({"a": {**F32, "shape": [-1]}}, bytes(4)), "lengths as shape"),
        (a_file({"a": {**F32, "shape": [2]}}, bytes(4)), "does not fill"),
        (a_file({"a": {**F32, "data_offsets": [0]}}, bytes(4)), "no two offsets"),
        (a_file({"a": {**F32, "data_offsets": [4, 0]}}, bytes(4)), "outside the file"),
        (a_file({"a": {**F32, "data_offsets": [0, 8]}}, bytes(4)), "outside the file"),
        (a_file({"a": F32, "b": F32}, bytes(4)), "starts at byte 0 instead of 4"),
        (a_file({"a": F32}, bytes(5)), "1 bytes belong to no array"),
        (a_file({"a\n": F32}, bytes(4)), "printable"),
        (a_file({"a" * 201: F32}, bytes(4)), "200 printable"),
        (a_file({"__metadata__": {"a": 1}}), "not a mapping of texts"),
        (a_file(b'{"__metadata__": {"a": "\\ud800"}}'), "half of a character"),
        (
            a_file({"a": {"dtype": "F32", "shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}}),
            "impossible shape",
        ),
    ],
)
def test_a_malformed_file_is_rejected_with_the_reason(body: bytes, fact: str) -> None:
    with pytest.raises(UpdateRejectedError) as caught:
        weights.decode(body)
    assert fact in caught.value.message
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("state", [{"a": np.array(["x"])}, {"a": np.array([1j])}])
def test_a_type_that_the_file_cannot_carry_is_refused(state: State) -> None:
    with pytest.raises(InvalidInputError, match="'a' has type"):
        weights.encode(state)


@pytest.mark.parametrize("name", ["__metadata__", "a\n", "a" * 201])
def test_a_name_that_the_file_cannot_carry_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match="is no name for an array"):
        weights.encode({name: np.zeros(1)})


def test_sha256_is_the_digest_of_the_bytes() -> None:
    assert weights.sha256_hex(b"abc") == hashlib.sha256(b"abc").hexdigest()


@given(st.data())
def test_applying_the_delta_gives_the_new_weights(data: st.DataObject) -> None:
    base = data.draw(st.dictionaries(NAMES, FLOATS, max_size=4))
    new = {
        name: data.draw(
            hnp.arrays(array.dtype, array.shape, elements=st.floats(-1e6, 1e6, width=32))
        )
        for name, array in base.items()
    }
    found = weights.apply(base, weights.delta(base, new))
    for name, array in new.items():
        assert found[name].dtype == array.dtype
        rounding = 4 * np.finfo(array.dtype).eps * (np.abs(base[name]) + np.abs(array))
        assert (np.abs(found[name] - array) <= rounding).all()


def test_a_zero_delta_changes_no_bit() -> None:
    base = {"a": np.array([0.1, -3e-38, 7.0], np.float32)}
    assert weights.apply(base, weights.delta(base, base))["a"].tobytes() == base["a"].tobytes()


def test_a_good_update_passes() -> None:
    weights.check_update(an_update(), an_update())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"layers.0.bias": None}, "'layers.0.bias' is missing"),
        ({"layers.0.bais": np.zeros(2)}, "'layers.0.bais' .* did you mean 'layers.0.bias'"),
        ({"layers.0.bias": np.zeros(3, np.float32)}, r"shape \(3,\), expected \(2,\)"),
        ({"layers.0.bias": np.zeros(2)}, "type float64, expected float32"),
        ({"layers.0.bias": np.array([np.nan, 1], np.float32)}, "1 values of 2 .* not finite"),
        ({"layers.0.bias": np.array([np.inf, np.nan], np.float32)}, "2 values of 2"),
    ],
)
def test_an_unusable_update_is_rejected_by_name(
    change: dict[str, np.ndarray | None], sentence: str
) -> None:
    update = {k: v for k, v in {**an_update(), **change}.items() if v is not None}
    with pytest.raises(UpdateRejectedError, match=sentence) as caught:
        weights.check_update(update, an_update())
    assert caught.value.field in {*change}
