"""Which batch fits: by what a small step takes, and by trying."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from truststram_lab.learning import memory
from truststram_lab.learning.memory import fitting_batch, free_bytes, is_out_of_memory, too_small

WIDTH = 1000


def step_within(limit: int):
    """A step that takes ``WIDTH`` floats a row and fails above ``limit`` rows."""
    asked: list[int] = []

    def step(rows: int) -> None:
        asked.append(rows)
        if rows > limit:
            raise torch.OutOfMemoryError("no memory")
        torch.zeros(rows, WIDTH)

    return step, asked


@pytest.mark.parametrize("limit", [1, 3, 17, 100])
def test_the_batch_that_is_named_fits(limit: int) -> None:
    step, asked = step_within(limit)
    found = fitting_batch(step, 128, "cpu")
    assert found is not None
    assert limit / 2 < found <= limit
    assert asked[-1] == found, "it was tried"


def test_not_even_one_row_is_told() -> None:
    step, _ = step_within(0)
    assert fitting_batch(step, 8, "cpu") is None
    assert "not even one row" in too_small("cpu", 8, None).message


def test_what_is_free_and_what_a_row_takes_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    step, _ = step_within(10_000)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 100 * WIDTH * 4)
    # Nine tenths of a hundred rows.
    assert fitting_batch(step, 1_000, "cpu") == 90


def test_an_error_of_the_step_is_no_lack_of_memory() -> None:
    def step(rows: int) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        fitting_batch(step, 8, "cpu")


def test_the_errors_of_python_numpy_and_torch_are_known() -> None:
    with pytest.raises(MemoryError) as numpys:
        np.empty(2**62, dtype=np.uint8)
    with pytest.raises(RuntimeError) as torchs:
        torch.empty(2**62, dtype=torch.uint8)
    assert is_out_of_memory(numpys.value)
    assert is_out_of_memory(torchs.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("can't allocate memory for a joke"))
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator: can't allocate memory"))


def test_free_memory_is_a_number_of_bytes_where_the_system_tells() -> None:
    free = free_bytes("cpu")
    assert free is None or 0 <= free < 2**50
