from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning.device import best_device, memory_facts


def test_the_best_device_is_one_that_works() -> None:
    device = best_device()
    assert torch.ones(2, device=device).sum().item() == 2.0
    if torch.cuda.is_available():
        assert device == "cuda"


def test_the_processor_is_always_there() -> None:
    assert best_device("cpu") == "cpu"


def test_an_unknown_device_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidInputError, match="'cude' is no device") as caught:
        best_device("cude")
    assert caught.value.choices[:1] == ["cuda"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an accelerator here")
def test_a_device_that_is_not_here_is_refused_with_those_that_are() -> None:
    with pytest.raises(InvalidInputError, match="has no cuda that torch can use; choose"):
        best_device("cuda")


def test_memory_is_known_and_plausible() -> None:
    facts = memory_facts("cpu")
    assert facts.peak_bytes is not None
    assert facts.total_bytes is not None
    assert 10 * 2**20 < facts.peak_bytes < facts.total_bytes


def test_a_process_started_from_a_larger_one_has_its_own_peak() -> None:
    large = np.ones(2**26)  # half a gigabyte, resident
    program = "from truststram_lab.learning.device import memory_facts as facts"
    program += "; print(facts('cpu').peak_bytes)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < large.nbytes


def test_the_platform_can_use_the_arithmetic_without_torch() -> None:
    program = (
        "import sys\n"
        "import truststram_lab.learning.weights, truststram_lab.learning.strategies\n"
        "import truststram_lab.learning.statistics, truststram_lab.learning.network\n"
        "import truststram_lab.learning.training, truststram_lab.learning.device\n"
        "import truststram_lab.preprocessing.rows, truststram_lab.preprocessing.encoder\n"
        "from truststram_lab.preprocessing import DEMO_NAMES, TableEncoder, validate_row\n"
        "print(sorted({'torch', 'pandas', 'sklearn'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
