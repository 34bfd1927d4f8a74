from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from truststram_lab.exceptions import InvalidInputError, UpdateRejectedError
from truststram_lab.learning.virtual import ClientStates

LIKE = {
    "weight": np.zeros((3, 2), np.float32),
    "count": np.zeros((), np.int64),
    "odd": np.zeros(3, np.float32),
    "exact": np.zeros(2, np.float64),
}


def _state(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: (rng.normal(size=a.shape) * 9).astype(a.dtype) for name, a in LIKE.items()}


def test_each_client_gets_back_what_it_wrote(tmp_path: Path) -> None:
    with ClientStates(50, LIKE, tmp_path) as store:
        for client in range(0, 50, 3):
            store[client] = _state(client)
        for client in range(50):
            expected = _state(client) if client % 3 == 0 else LIKE
            assert (client in store) == (client % 3 == 0)
            for name, array in store[client].items():
                assert array.dtype == LIKE[name].dtype
                np.testing.assert_array_equal(array, expected[name])
    assert list(tmp_path.iterdir()) == []


def test_ten_thousand_clients_take_no_memory_until_written() -> None:
    like = {"weight": np.zeros(100_000, np.float32)}
    with ClientStates(10_000, like) as store:
        assert len(store) * store.row_bytes == 4_000_000_000
        store[9_999] = {"weight": np.ones(100_000, np.float32)}
        assert store[9_999]["weight"].sum() == 100_000
        assert not store[5_000]["weight"].any()


def test_what_does_not_fit_is_refused_and_nothing_written() -> None:
    with ClientStates(3, LIKE) as store:
        store[1] = _state(1)
        for wrong in (
            {**_state(2), "more": np.zeros(1)},
            {**_state(2), "exact": np.zeros(2, np.float32)},
            {**_state(2), "exact": np.zeros(3)},
        ):
            with pytest.raises(UpdateRejectedError, match=r"'more'|'exact'"):
                store[1] = wrong
        np.testing.assert_array_equal(store[1]["weight"], _state(1)["weight"])
        with pytest.raises(InvalidInputError, match="no client 3; the store keeps 0 to 2"):
            store[3]
    with pytest.raises(InvalidInputError, match="closed"):
        store[1]
