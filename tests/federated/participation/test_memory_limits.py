"""Real allocations that fail, in a process whose address space is limited."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HUNGRY = Path(__file__).with_name("hungry_process.py")
#: What is spare there, and what a row of a batch takes: three arrays of 16,384 float32.
SPARE, ROW = 400 * 2**20, 3 * 16_384 * 4

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux refuses memory by RLIMIT_AS"
)


def told(kind: str) -> dict:
    done = subprocess.run(
        [sys.executable, HUNGRY, kind], capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "kind",
    [
        "house",
        pytest.param("fit", marks=pytest.mark.long),
        pytest.param("state", marks=pytest.mark.long),
        pytest.param("module", marks=pytest.mark.long),
        pytest.param("model", marks=pytest.mark.long),
    ],
)
def test_too_little_memory_names_a_batch_that_fits_and_the_kernel_goes_on(kind):
    found = told(kind)
    # Measured, not guessed: most of what is spare is used, and no more.
    assert 0.4 * SPARE / ROW < found["fits"] < SPARE / ROW
    assert "The memory is too small for batches of 8192" in found["said"]
    assert found["attached"] == "None"
