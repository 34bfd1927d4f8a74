from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from truststram_lab.exceptions import UpdateRejectedError
from truststram_lab.learning import weights
from truststram_lab.learning.strategies import (
    DecodedUpdates,
    HeldUpdates,
    StoredUpdates,
    Updates,
    aggregate,
    fed_avg,
)
from truststram_lab.learning.weights import State
from truststram_lab.schemas.strategies import STRATEGY_NAMES, parse_strategy

IN_MODEL = [name for name in STRATEGY_NAMES if name != "scaffold"]
FLOATS = 1_000_000


def model(seed: int) -> State:
    rng = np.random.default_rng(seed)
    return {
        "b": rng.normal(size=5).astype("f4"),
        "empty": np.zeros((0, 3), "f4"),
        "deep.w": rng.normal(size=(70_000, 5)).astype("f4"),
        "n": np.array(seed, np.int64),
    }


def stored(folder: Path, updates: list[State]) -> list[Path]:
    paths = [folder / str(place) for place in range(len(updates))]
    for path, update in zip(paths, updates, strict=True):
        path.write_bytes(weights.encode(update))
    return paths


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "update"
    rng = np.random.default_rng(0)
    path.write_bytes(weights.encode({"w": rng.normal(size=FLOATS).astype("f4")}))
    return path


def peak_bytes(strategy: str, base: State, updates: Updates) -> int:
    tracemalloc.start()
    try:
        aggregate(parse_strategy(strategy), base, updates, [1.0] * len(updates))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("strategy", IN_MODEL)
def test_wherever_updates_are_read_from_the_bits_are_the_same(
    strategy: str, tmp_path: Path
) -> None:
    sent = [model(seed) for seed in range(5)]
    paths = stored(tmp_path, sent)
    sources: list[Updates] = [
        HeldUpdates(sent),
        StoredUpdates(paths),
        DecodedUpdates([lambda p=path: weights.decode(p.read_bytes())[0] for path in paths]),
    ]
    found = [
        weights.encode(aggregate(parse_strategy(strategy), model(9), source, [1, 2, 3, 4, 5]).state)
        for source in sources
    ]
    assert found[0] == found[1] == found[2]


def test_a_mean_from_files_takes_two_models_beside_the_global_one(large: Path) -> None:
    base = {"w": np.zeros(FLOATS, "f4")}
    few = peak_bytes("fedavg", base, StoredUpdates([large] * 2))
    many = peak_bytes("fedavg", base, StoredUpdates([large] * 12))
    assert many < 2.6 * base["w"].nbytes
    assert many < few + 2**17


def test_a_robust_rule_never_holds_all_updates(large: Path) -> None:
    base, sites = {"w": np.zeros(FLOATS, "f4")}, 40
    for strategy in ("trimmed_mean", "krum:hostile=2"):
        peak = peak_bytes(strategy, base, StoredUpdates([large] * sites))
        assert peak < 0.7 * sites * base["w"].nbytes


def test_a_mean_decodes_every_update_once_and_holds_one() -> None:
    calls: list[int] = []

    def reader(place: int) -> State:
        calls.append(place)
        return model(place)

    source = DecodedUpdates([lambda p=place: reader(p) for place in range(4)])
    found = aggregate(parse_strategy("fedavg"), model(9), source, [1] * 4).state
    assert calls == [0, 1, 2, 3]
    expected = weights.apply(model(9), fed_avg([model(place) for place in range(4)], [1] * 4))
    assert weights.encode(found) == weights.encode(expected)


@pytest.mark.parametrize("strategy", IN_MODEL)
def test_a_value_that_is_not_finite_is_found_in_a_file_and_counted(
    strategy: str, tmp_path: Path
) -> None:
    sent = [model(seed) for seed in range(5)]
    sent[2]["deep.w"][[1, 69_999]] = np.nan
    source = StoredUpdates(stored(tmp_path, sent))
    with pytest.raises(
        UpdateRejectedError, match=r"'deep\.w' has 10 values of 350000 that are not"
    ):
        aggregate(parse_strategy(strategy), model(9), source, [1] * 5)


@pytest.mark.parametrize("body", [b"", b"\x08", b"\xff" * 40, weights.encode(model(1))[:-1]])
def test_a_file_that_is_no_safetensors_is_rejected(body: bytes, tmp_path: Path) -> None:
    (path := tmp_path / "torn").write_bytes(body)
    with pytest.raises(UpdateRejectedError, match="not well-formed safetensors"):
        aggregate(parse_strategy("fedavg"), model(9), StoredUpdates([path]), [1])


def test_a_file_that_shrinks_while_it_is_read_is_rejected(tmp_path: Path) -> None:
    (path,) = stored(tmp_path, [model(1)])
    source = StoredUpdates([path])
    source.layout(0)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UpdateRejectedError, match=r"stored update 1 ends within array 'deep\.w'"):
        source.block(0, "deep.w", slice(0, 350_000))


def test_the_same_header_in_a_longer_file_is_looked_at_again(tmp_path: Path) -> None:
    paths = stored(tmp_path, [model(1), model(2)])
    paths[1].write_bytes(paths[1].read_bytes() + b"more")
    source = StoredUpdates(paths)
    source.layout(0)
    with pytest.raises(UpdateRejectedError, match="4 bytes belong to no array"):
        source.layout(1)
