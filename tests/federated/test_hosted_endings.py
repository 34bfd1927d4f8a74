"""Hosted runs that end otherwise than planned: stopped, their platform or their kernel killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from truststram_lab import sandbox, verbs
from truststram_lab.exceptions import RunStoppedError
from truststram_lab.federated import FederatedRun
from truststram_lab.federated.run_spending import ledger_of
from truststram_lab.verbs import session as sessions

#: Everything that a host keeps between rounds: control variates, residuals, own models.
PLANS: dict[str, dict[str, Any]] = {
    "scaffold": {"strategy": "scaffold", "personal": "ditto:lambda=0.1", "stragglers": 0.3},
    "top-k": {"filters": ["sparsification:top_k=0.05"], "personal": "fedper:head=layers.1",
              "fraction": 0.5},
}  # fmt: skip
COMMON: dict[str, Any] = {"clients": 40, "rounds": 6, "split": "dirichlet:0.3"}


def _client() -> Any:
    return sessions.require("testing").client


def _result(run: FederatedRun) -> str:
    return str(_client().runs.get(run.name).result_sha256)


def _in_round(run: FederatedRun, number: int) -> None:
    deadline = time.monotonic() + 60
    while run.snapshot().round < number:
        assert run.active, run
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _stopped_for_good(run: FederatedRun) -> None:
    pushed = len(_client().runs.updates(run.name).items)
    time.sleep(0.5)
    assert _client().runs.get(run.name).status == "stopped"
    assert len(_client().runs.updates(run.name).items) == pushed


def test_an_interrupt_stops_a_hosted_run(shared_session: Path) -> None:
    def interrupt() -> None:
        while not (found := sessions.require("testing").active_run("interrupted")):
            time.sleep(0.01)
        _in_round(found, 1)
        os.kill(os.getpid(), signal.SIGINT)

    asker = threading.Thread(target=interrupt)
    asker.start()
    with pytest.raises(RunStoppedError, match="resume"):
        verbs.federate("breast-cancer", name="interrupted", clients=40, rounds=2_000)
    asker.join()
    run = sessions.require("testing").runs["interrupted-1"]
    assert not run.active
    _stopped_for_good(run)


def test_a_stop_by_rest_ends_a_hosted_run(shared_session: Path) -> None:
    # The panel's and the card's buttons are this call, by way of the Jupyter server.
    run = verbs.federate(
        "breast-cancer", name="rest", clients=40, rounds=2_000, background=True, personal="ditto"
    )
    _in_round(run, 1)
    _client().runs.stop(run.name)
    with pytest.raises(RunStoppedError):
        # The promise is two seconds; a busy machine is given ten.
        run.wait(timeout_s=10)
    _stopped_for_good(run)


def test_a_stop_while_clients_are_compared_is_gone_on_from(shared_session: Path) -> None:
    run = verbs.federate("breast-cancer", name="late", clients=40, rounds=1, epochs=60,
                         personal="ditto", background=True)  # fmt: skip
    while _client().runs.get(run.name).status != "completed":
        assert run.active
    run.stop()
    if run.snapshot().report.clients is None:
        run.resume().wait()
    assert run.to_frame()["personal_accuracy"].between(0, 1).all()


@pytest.fixture(scope="module")
def whole(shared_session: Path) -> dict[str, FederatedRun]:
    return {
        name: verbs.federate("breast-cancer", name=f"whole-{name}", **COMMON, **plan)
        for name, plan in PLANS.items()
    }


@pytest.mark.long
@pytest.mark.parametrize("name", PLANS)
def test_a_platform_killed_in_mid_run_changes_no_bit(whole: Any, name: str) -> None:
    run = verbs.federate(
        "breast-cancer", name=f"killed-{name}", background=True, **COMMON, **PLANS[name]
    )
    _in_round(run, 2)
    former = sandbox.status().pid
    os.kill(former, signal.SIGKILL)
    run.wait()
    assert sandbox.status().pid != former
    assert run.status == "completed"
    assert _result(run) == _result(whole[name])
    assert run.to_frame().equals(whole[name].to_frame())


_KERNEL = """
import json, sys
from truststram_lab import verbs
verbs.login(sandbox=True)
run = verbs.federate("breast-cancer", name=sys.argv[1], background=True, **json.loads(sys.argv[2]))
print(run.name, flush=True)
run.wait()
"""


def _killed_kernel(name: str, after: int, options: dict[str, Any]) -> str:
    import json

    kernel = subprocess.Popen(
        [sys.executable, "-c", _KERNEL, name, json.dumps(options)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert kernel.stdout is not None
    run = kernel.stdout.readline().strip()
    deadline = time.monotonic() + 90
    while len(_client().runs.updates(run).items) < after:
        assert time.monotonic() < deadline
        assert kernel.poll() is None
    os.kill(kernel.pid, signal.SIGKILL)
    kernel.communicate()
    return run


@pytest.mark.long
@pytest.mark.parametrize("name", PLANS)
def test_a_kernel_killed_in_mid_run_is_gone_on_from_with_the_same_bits(
    whole: Any, name: str
) -> None:
    run = _killed_kernel(f"dead-{name}", 4, {**COMMON, **PLANS[name]})
    again = verbs.runs(run, "resume")
    assert again.status == "completed"
    assert _result(again) == _result(whole[name])
    assert again.to_frame().equals(whole[name].to_frame())


@pytest.mark.long
@pytest.mark.parametrize("unit", ["record", "client"])
def test_a_kernel_killed_under_privacy_is_charged_for_no_round_twice(
    shared_session: Path, unit: str
) -> None:
    options = {"clients": 40, "rounds": 5, "dp": 2.0, "dp_unit": unit, "delta": 1e-4}
    run = _killed_kernel(f"private-{unit}", 3, options)
    again = verbs.runs(run, "resume")
    found = again.snapshot()
    assert found.status == "completed"
    ledger = ledger_of(found.plan)
    assert ledger is not None
    mine = [e for e in ledger.entries() if e.id.startswith(f"{found.id}/") and e.kind == "training"]
    assert len(mine) == 5
    assert found.report.privacy.epsilon == pytest.approx(2.0, rel=2e-3)
    rounds = [r for r in _client().runs.rounds(run).items if r.kind == "training"]
    assert [len(one.updates) for one in rounds] == [1] * 5


@pytest.mark.long
@pytest.mark.timeout(900)
def test_memory_is_flat_over_a_hundred_hosted_rounds(shared_session: Path) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    run = verbs.federate("breast-cancer", name="hundred", clients=100, rounds=100, epochs=1,
                         strategy="scaffold", personal="ditto", background=True)  # fmt: skip
    seen = []
    for number in range(20, 101, 10):
        while run.snapshot().round < number and run.active:
            time.sleep(0.01)
        seen.append(resident())
    run.wait()
    growth = max(seen[1:]) - seen[0]
    assert growth < 16e6, np.diff(seen)
