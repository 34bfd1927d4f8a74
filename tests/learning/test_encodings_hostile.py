"""Whatever the bytes are, they are refused with a sentence or are a valid update."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from truststram_lab.exceptions import UpdateRejectedError
from truststram_lab.learning import weights
from truststram_lab.learning.encodings import decode, encode
from truststram_lab.learning.filters import run_filters
from truststram_lab.learning.weights import State

LIKE: State = {
    "sparse": np.zeros((20, 10), np.float32),
    "coarse": np.zeros(40, np.float64),
    "both": np.zeros(300, np.float32),
    "dense": np.zeros(3, np.float32),
    "steps": np.zeros((), np.int64),
}


def an_update() -> bytes:
    """A file with an array of each form."""
    rng = np.random.default_rng(1)
    state = {name: rng.standard_normal(a.shape).astype(a.dtype) for name, a in LIKE.items()}
    state["steps"] = np.array(7)
    one = run_filters(state, [{"type": "sparsification", "top_k": 0.1}]).parts
    two = run_filters(state, [{"type": "quantization", "bits": 5}]).parts
    three = run_filters(
        state,
        [{"type": "sparsification", "top_k": 0.1}, {"type": "quantization", "bits": 6}],
    ).parts
    return encode(
        {
            "sparse": one["sparse"],
            "coarse": two["coarse"],
            "both": three["both"],
            "dense": state["dense"],
            "steps": state["steps"],
        },
        {"rows": "88"},
    ).body


UPDATE = an_update()


def accepted(body: bytes, like: State = LIKE) -> bool:
    """Whether the body is taken; if so it must be an update that could be added to ``like``."""
    try:
        found, metadata = decode(body, like)
    except UpdateRejectedError as error:
        refusal = error.message
    else:
        refusal = ""
    assert len(refusal) < 700
    if refusal:
        return False
    assert list(found) == list(like)
    weights.check_update(found, like)
    assert all(isinstance(text, str) for text in metadata.values())
    return True


def taken_apart() -> tuple[State, list[dict[str, Any]], bytes]:
    whole, metadata = weights.decode(UPDATE)
    packed = whole.pop("truststram.packed").tobytes()
    return whole, json.loads(metadata["truststram.packed"]), packed


def put_together(entries: object, packed: bytes, whole: State | None = None) -> bytes:
    plain = taken_apart()[0] if whole is None else whole
    text = entries if isinstance(entries, str) else json.dumps(entries)
    arrays = {**plain, "truststram.packed": np.frombuffer(packed, np.uint8)}
    return weights.encode(arrays, {"truststram.packed": text})


def test_the_honest_update_is_taken() -> None:
    assert accepted(UPDATE)
    whole, entries, packed = taken_apart()
    assert accepted(put_together(entries, packed, whole))


@given(st.binary(max_size=300))
def test_any_bytes_are_decoded_or_rejected(body: bytes) -> None:
    accepted(body)


@settings(max_examples=200)
@given(st.data())
def test_any_damage_to_a_real_file_is_decoded_or_rejected(data: st.DataObject) -> None:
    body = bytearray(UPDATE)
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    accepted(bytes(body))
    accepted(bytes(body[:cut]))


@settings(max_examples=200)
@given(st.data())
def test_any_damage_to_the_packed_bytes_is_decoded_or_rejected(data: st.DataObject) -> None:
    whole, entries, packed = taken_apart()
    damaged = bytearray(packed)
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    accepted(put_together(entries, bytes(damaged), whole))


NUMBERS = st.integers(-2, 70) | st.integers(-(2**70), 2**70) | st.floats()
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=300)
@given(st.data())
def test_any_description_is_decoded_or_rejected(data: st.DataObject) -> None:
    whole, entries, packed = taken_apart()
    for _ in range(data.draw(st.integers(1, 3))):
        entry = data.draw(st.sampled_from(entries))
        key = data.draw(st.sampled_from(sorted(entry)))
        if data.draw(st.booleans()):
            entry[key] = data.draw(NUMBERS | ANYTHING)
        else:
            entry.pop(key)
        if not entry:
            return
    accepted(put_together(entries, packed, whole))


@given(ANYTHING, st.binary(max_size=50))
def test_any_json_as_description_is_decoded_or_rejected(entries: object, packed: bytes) -> None:
    accepted(put_together(entries, packed))


def changed(place: int, **entry: Any) -> bytes:
    _, entries, packed = taken_apart()
    entries[place] |= entry
    return put_together([{k: v for k, v in e.items() if v is not ...} for e in entries], packed)


SPARSE, COARSE, BOTH = 0, 1, 2


@pytest.mark.parametrize(
    ("body", "fact"),
    [
        (changed(SPARSE, name="spares"), "'spares' is not in the global model; did you mean"),
        (changed(SPARSE, name=3), "has no name"),
        (changed(SPARSE, name="coarse"), "type F32, expected float64"),
        (changed(SPARSE, name="dense"), r"shape \[20, 10\], expected \[3\]"),
        (changed(SPARSE, name="both", shape=[300]), "has array 'both' twice"),
        (changed(SPARSE, dtype="BF16"), "type BF16, expected float32"),
        (changed(SPARSE, shape=[10, 20]), "shape"),
        (changed(SPARSE, shape=[True]), "not a list of lengths"),
        (changed(SPARSE, count=201), "count is 201, expected 0 to 200"),
        (changed(SPARSE, count=True), "count is True"),
        (changed(SPARSE, count=-1), "count is -1"),
        (changed(SPARSE, count=...), "too few entries or too many"),
        (changed(SPARSE, more=1), "too few entries or too many"),
        (changed(SPARSE, count=19), "instead of 19"),
        (changed(SPARSE, gap_width=41), "gap_width is 41, expected 0 to 40"),
        (changed(SPARSE, gap_width=9), "numbers of 9 bits where 199 is the largest"),
        (changed(SPARSE, gap_unary=2**61), "claims 23058430092136"),
        (changed(COARSE, bits=0), "bits is 0"),
        (changed(COARSE, bits=33), "bits is 33"),
        (changed(COARSE, bits=3), "over"),
        (changed(COARSE, scale=0.0), "expected a positive float"),
        (changed(COARSE, scale=-1.0), "expected a positive float"),
        (changed(COARSE, scale=float("nan")), "expected a positive float"),
        (changed(COARSE, scale=float("inf")), "expected a positive float"),
        (changed(COARSE, scale=1e308), "leaves float64"),
        (changed(BOTH, scale=1e38), "leaves float32"),
        (changed(BOTH, lowest=32), "lowest is 32, expected 0 to 31"),
        (put_together("{", b""), "not JSON"),
        (put_together("[" * 100_000, b""), "not JSON"),
        (put_together([3], b""), "not a list of objects"),
        (put_together({}, b""), "not a list of objects"),
        (put_together([], b"x"), "1 packed bytes belong to no array"),
        (put_together([], b""), "is missing"),
        (put_together(taken_apart()[1], taken_apart()[2] + b"x"), "1 packed bytes belong"),
        (put_together(taken_apart()[1], taken_apart()[2][:-1]), "of which"),
        (
            put_together(*taken_apart()[1:], {**taken_apart()[0], "both": LIKE["both"]}),
            "has array 'both' twice",
        ),
        (
            put_together(*taken_apart()[1:], {**taken_apart()[0], "more": LIKE["both"]}),
            "'more' is not in the global model",
        ),
        (weights.encode(taken_apart()[0], {"truststram.packed": "[]"}), "but not in both"),
        (weights.encode({"truststram.packed": np.zeros(3, np.uint8)}), "but not in both"),
        (
            weights.encode({"truststram.packed": np.zeros(3)}, {"truststram.packed": "[]"}),
            "not one row of bytes",
        ),
    ],
)
def test_a_malformed_update_is_rejected_with_the_reason(body: bytes, fact: str) -> None:
    with pytest.raises(UpdateRejectedError, match=fact):
        decode(body, LIKE)


ONE: dict[str, Any] = {"name": "w", "dtype": "F32", "shape": [20]}
GAPS = {"count": 2, "gap_width": 5, "gap_unary": 0}
LEVELS = {"bits": 8, "scale": 0.5, "lowest": 0, "level_width": 0, "level_unary": 0}


@pytest.mark.parametrize(
    ("entry", "packed", "fact"),
    [
        # gaps 19 and 19: each fits, together they leave the array
        ({**ONE, **GAPS}, bytes([0xC0, 0xC0, 0, 0, 0xC0]) + bytes(8), "outside the array"),
        ({**ONE, **GAPS}, bytes([0, 0, 0x80, 0, 0x80]) + bytes(8), "over 19"),
        ({**ONE, **GAPS}, bytes([1, 0, 0, 0, 0]) + bytes(8), "bits after the last number"),
        (
            {**ONE, "count": 1, "gap_width": 0, "gap_unary": 2},
            b"\x80\x00" + bytes(4),
            "bytes after the last number",
        ),
        (
            {**ONE, "count": 1, "gap_width": 0, "gap_unary": 0},
            np.float32(np.nan).tobytes(),
            "1 of its 1 values are not finite",
        ),
        ({**ONE, **LEVELS}, b"\x80\x00\x00", "a zero has a sign"),
        ({**ONE, **LEVELS, "bits": 1}, b"\x00\x00\x00", "one bit has no level for 0"),
        ({**ONE, **LEVELS, "lowest": 1}, b"\x00\x00\x01", "bits after the last number"),
    ],
)
def test_a_hostile_stream_is_rejected_with_the_reason(
    entry: dict[str, Any], packed: bytes, fact: str
) -> None:
    with pytest.raises(UpdateRejectedError, match=fact):
        decode(put_together([entry], packed, {}), {"w": np.zeros(20, np.float32)})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_rejected_in_every_form(value: float) -> None:
    for size, filled in ((10, 10), (10, 1)):
        array = np.zeros(size, np.float32)
        array[:filled] = 1.0
        array[0] = value
        assert not accepted(encode({"w": array}).body, {"w": np.zeros(size, np.float32)})


BILLIONS = [
    {**ONE, "shape": [2**40], **GAPS, "count": 2**40, "gap_width": 0},
    {**ONE, **GAPS, "count": 2**40},
    {**ONE, **GAPS, "gap_unary": 2**40},
    {**ONE, **GAPS, "gap_width": 40},
    {**ONE, **LEVELS, "level_unary": 2**40},
    {**ONE, **LEVELS, "level_width": 31, "bits": 32},
    {**ONE, "count": 0, "gap_width": 40, "gap_unary": 2**60},
]


@pytest.mark.parametrize("entry", BILLIONS)
def test_a_claim_of_billions_allocates_next_to_nothing(entry: dict[str, Any]) -> None:
    body = put_together([entry], bytes(64), {})
    like = {"w": np.zeros(20, np.float32)}
    decode_once = accepted(body, like)  # imports and caches are not the claim's
    tracemalloc.start()
    try:
        assert not accepted(body, like)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not decode_once
    assert peak < 200_000


def test_the_densest_file_allocates_in_proportion_to_the_model() -> None:
    like = {"w": np.zeros(1_000_000, np.float32)}
    entry = {"name": "w", "dtype": "F32", "shape": [1_000_000], **LEVELS, "lowest": 1}
    body = put_together([entry], bytes(125_000), {})
    tracemalloc.start()
    try:
        found, _ = decode(body, like)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (found["w"] == 0.5).all()
    assert peak < 10 * like["w"].nbytes
