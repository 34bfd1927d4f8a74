"""What a data set has spent: on disk before the noise, composed, and never charged twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from truststram_lab.exceptions import ConfigurationError, PrivacyBudgetError
from truststram_lab.federated.owner_ledger import OwnerLedger
from truststram_lab.learning.privacy.accountant import account
from truststram_lab.schemas.privacy import Budget, BudgetKey, GaussianUse

KEY = BudgetKey(dataset_sha256="ab" * 32, unit="record")
USE = GaussianUse(noise_multiplier=2.0, sample_rate=0.1, steps=30)
DELTA = 1e-4


@pytest.fixture
def ledger(tmp_path):
    return OwnerLedger(KEY, tmp_path / "ledger")


def test_what_two_runs_spend_is_composed_and_less_than_their_sum(ledger):
    ledger.reserve("run_a/1", "a", [USE], DELTA)
    one = ledger.spent(DELTA)
    ledger.reserve("run_b/1", "b", [USE], DELTA)
    both = ledger.spent(DELTA)
    assert one == account([USE], DELTA).epsilon
    assert one < both < 2 * one
    assert both == account([USE.model_copy(update={"steps": 60})], DELTA).epsilon
    assert ledger.spent(DELTA, but="run_b/") == one


def test_the_same_round_again_is_charged_once(ledger):
    for _ in range(3):
        ledger.reserve("run_a/1", "a", [USE], DELTA)
    assert len(ledger.entries()) == 1
    ledger.release("run_a/1")
    ledger.reserve("run_a/1", "a", [USE], DELTA)
    assert [entry.state for entry in ledger.entries()] == ["released"]


def test_another_unit_of_the_same_data_is_another_ledger(ledger, tmp_path):
    ledger.reserve("run_a/1", "a", [USE], DELTA)
    client = KEY.model_copy(update={"unit": "client"})
    assert OwnerLedger(client, tmp_path / "ledger").entries() == ()


def test_a_round_over_the_limit_is_refused_with_the_numbers_and_changes_nothing(ledger):
    ledger.reserve("run_a/1", "a", [USE], DELTA)
    spent = ledger.spent(DELTA)
    ledger.set_limit(Budget(epsilon=spent * 1.01, delta=DELTA))
    with pytest.raises(PrivacyBudgetError, match="is spent") as refused:
        ledger.reserve("run_b/1", "b", [USE], DELTA)
    assert refused.value.spent == pytest.approx(spent)
    assert [entry.id for entry in ledger.entries()] == ["run_a/1"]


def test_the_file_is_its_owners_alone_and_another_kernel_reads_the_same(ledger, tmp_path):
    ledger.reserve("run_a/1", "a", [USE], DELTA)
    files = list((tmp_path / "ledger").glob("*.json"))
    assert [oct(path.stat().st_mode & 0o777) for path in files] == ["0o600"]
    assert OwnerLedger(KEY, tmp_path / "ledger").entries() == ledger.entries()


def test_a_damaged_ledger_is_an_error_and_not_an_empty_one(ledger, tmp_path):
    ledger.reserve("run_a/1", "a", [USE], DELTA)
    (path,) = (tmp_path / "ledger").glob("*.json")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ConfigurationError, match="damaged"):
        ledger.reserve("run_b/1", "b", [USE], DELTA)


_RESERVING = """
import sys
from pathlib import Path
from truststram_lab.federated.owner_ledger import OwnerLedger
from truststram_lab.schemas.privacy import BudgetKey, GaussianUse
ledger = OwnerLedger(BudgetKey(dataset_sha256="ab" * 32, unit="record"), Path(sys.argv[1]))
use = GaussianUse(noise_multiplier=2.0, sample_rate=0.1, steps=30)
for number in range(int(sys.argv[3])):
    ledger.reserve(f"{sys.argv[2]}/{number}", "x", [use], 1e-4)
    print(number, flush=True)
"""


def _reserving(folder, who: str, number: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _RESERVING, str(folder), who, str(number)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_process_killed_at_any_moment_leaves_every_reservation_it_had_made(tmp_path):
    folder = tmp_path / "ledger"
    process = _reserving(folder, "run_a", 100_000)
    assert process.stdout is not None
    for _ in range(5):
        acknowledged = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    rest = process.communicate()[0].split()
    acknowledged = max([acknowledged, *map(int, rest)])
    ids = {entry.id for entry in OwnerLedger(KEY, folder).entries()}
    assert ids >= {f"run_a/{number}" for number in range(acknowledged + 1)}


def test_two_processes_at_once_lose_no_entry(tmp_path):
    folder = tmp_path / "ledger"
    processes = [_reserving(folder, who, 10) for who in ("run_a", "run_b")]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert len(OwnerLedger(KEY, folder).entries()) == 20
