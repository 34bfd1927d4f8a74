"""``simulate`` where somebody is signed in: its run on the platform, stopped and killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from truststram_lab import sandbox, simulate, verbs
from truststram_lab.exceptions import ConflictError, InvalidInputError, NotSignedInError
from truststram_lab.learning import weights
from truststram_lab.verbs import session as sessions
from truststram_lab.verbs.simulation import SimulationResult

OPTIONS: dict[str, Any] = {"epochs": 2, "stragglers": 0.3, "fraction": 0.8, "seed": 3}


def _pairs(clients: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    w = rng.normal(size=(6, 3))
    drawn = [rng.normal(size=(24 + place, 6)) for place in range(clients)]
    return [(x, (x @ w).argmax(axis=1)) for x in drawn]


class Small(torch.nn.Sequential):
    def __init__(self) -> None:
        super().__init__(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))


class Normed(torch.nn.Sequential):
    """With counters, which are no floats."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 3))


def _client() -> Any:
    return sessions.require("testing").client


def _result_of(name: str) -> weights.State:
    client = _client()
    return weights.decode(client.blobs.get(client.runs.get(name).result_sha256))[0]


@pytest.fixture(scope="module")
def alone() -> dict[str, SimulationResult]:
    """The same simulations without a platform."""
    return {
        "scaffold": simulate(Small, _pairs(8), "scaffold", 6, **OPTIONS),
        "fedadam": simulate(Normed, _pairs(8), "fedadam:server_learning_rate=0.01", 6, **OPTIONS),
    }


@pytest.fixture
def _session(alone: Any, shared_session: Path) -> None:
    """Signed in, after what was simulated without a platform."""


@pytest.mark.usefixtures("_session")
@pytest.mark.parametrize("kind", ["scaffold", "fedadam"])
def test_the_platform_has_the_run_of_one_host_and_the_kernels_model_to_the_bit(
    alone: dict[str, SimulationResult], kind: str
) -> None:
    expected = alone[kind]
    made = Small if kind == "scaffold" else Normed
    found = simulate(made, _pairs(8), expected.record["options"]["strategy"], 6, **OPTIONS)
    assert expected.run is None
    assert found.record["result_sha256"] == expected.record["result_sha256"]
    run = _client().runs.get(found.run)
    assert (run.status, run.round, run.plan.sites) == ("completed", 6, ["simulation host"])
    assert run.plan.hosted.clients == 8
    stored = _result_of(found.run)
    state = found.module.state_dict()
    assert set(stored) == {name for name, value in state.items() if value.is_floating_point()}
    assert all(np.array_equal(array, state[name].numpy()) for name, array in stored.items())
    rounds = [r for r in _client().runs.rounds(found.run).items if r.kind == "training"]
    assert [len(one.updates) for one in rounds] == [1] * 6
    told = [(one.number, one.accuracy, one.loss) for one in run.report.history]
    assert told == [(one["round"], one["accuracy"], one["loss"]) for one in found.history]
    assert run.report.clients.lost == len(found.losing)
    assert verbs.runs(found.run, "replay").equal
    text = " ".join(verbs.runs(found.run).card().text.split())
    assert "8 simulated clients" in text
    assert "held out at the clients" in text
    assert "pooled" not in text
    assert f"%ts_runs {found.run}" in found.card().text
    assert verbs.runs(found.run, "watch").status == "completed"


@pytest.mark.usefixtures("_session")
def test_simulations_are_listed_and_compared_like_other_runs() -> None:
    one = simulate(Small, _pairs(4), rounds=2, name="Sweep A")
    two = simulate(Small, _pairs(4), "fedprox:mu=1", rounds=2, name="Sweep A", optimizer="adam")
    assert (one.run, two.run) == ("sweep-a-1", "sweep-a-2")
    assert {one.run, two.run} <= {run.name for run in verbs.runs()}
    compared = verbs.runs("compare", one.run, two.run)
    table = compared.to_frame().set_index("run")
    assert list(table["sites"]) == [4, 4]
    assert list(table["strategy"]) == ["fedavg", "fedprox:mu=1.0"]
    assert list(table["accuracy"]) == [one.history[-1]["accuracy"], two.history[-1]["accuracy"]]
    assert "adam" in compared.card().text
    sent = verbs.runs(one.run, "sent")
    assert [each.kind for each in sent].count("update") == 2


@pytest.mark.usefixtures("_session")
def test_it_is_left_out_where_that_was_asked_for() -> None:
    before = len(verbs.runs())
    assert simulate(Small, _pairs(4), rounds=1, register=False).run is None
    assert len(verbs.runs()) == before
    with pytest.raises(InvalidInputError, match="no letter or digit"):
        simulate(Small, _pairs(4), rounds=1, name="!!")
    assert len(verbs.runs()) == before


def test_without_a_session_registering_says_how_to_sign_in() -> None:
    if sessions.current() is None:
        with pytest.raises(NotSignedInError, match="registering a simulation"):
            simulate(Small, _pairs(4), rounds=1, register=True)


def _during(run_round: int, act: Callable[[str], None]) -> Callable[[str], None]:
    """A ``progress`` that acts once in that round, from another thread."""
    done = threading.Event()

    def progress(text: str) -> None:
        if text.startswith(f"round {run_round},") and not done.is_set():
            done.set()
            name = verbs.runs()[0].name
            threading.Thread(target=act, args=(name,)).start()

    return progress


@pytest.mark.usefixtures("_session")
def test_a_stop_by_rest_ends_it_at_once_and_nothing_is_pushed_afterwards() -> None:
    asked: list[float] = []

    def stop(name: str) -> None:
        _client().runs.stop(name)
        asked.append(time.monotonic())

    found = simulate(Small, _pairs(8), rounds=5_000, progress=_during(3, stop), name="stopped")
    late = time.monotonic() - asked[0]
    assert found.status == "stopped"
    # The promise is two seconds; a busy machine is given ten.
    assert late < 10
    run = _client().runs.get(found.run)
    assert run.status == "stopped"
    pushed = len(_client().runs.updates(found.run).items)
    time.sleep(0.5)
    assert len(_client().runs.updates(found.run).items) == pushed
    # The kernel has every round that the platform has taken, and none more.
    assert run.round in (len(found.history), len(found.history) + 1)
    again = simulate(Small, _pairs(8), rounds=len(found.history), register=False)
    assert again.record["result_sha256"] == found.record["result_sha256"]
    with pytest.raises(ConflictError, match="call simulate"):
        verbs.runs(found.run, "resume")


@pytest.mark.usefixtures("_session")
def test_an_interrupt_stops_the_platforms_run_too() -> None:
    def progress(text: str) -> None:
        if text.startswith("round 3"):
            signal.raise_signal(signal.SIGINT)

    found = simulate(Small, _pairs(4), rounds=9, progress=progress, name="interrupted")
    assert found.status == "stopped"
    assert len(found.history) == 2
    run = _client().runs.get(found.run)
    assert (run.status, run.round) == ("stopped", 2)
    assert "stopped" in found.card().text


@pytest.mark.long
def test_a_platform_killed_in_mid_run_is_found_again_and_the_bits_are_the_same(
    alone: dict[str, SimulationResult], signed_in: Path
) -> None:
    killed: list[int] = []

    def kill(_: str) -> None:
        pid = sandbox.status().pid
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    found = simulate(Small, _pairs(8), "scaffold", 6, progress=_during(3, kill), **OPTIONS)
    assert killed
    assert sandbox.status().pid != killed[0]
    assert found.status == "completed"
    assert found.record["result_sha256"] == alone["scaffold"].record["result_sha256"]
    run = _client().runs.get(found.run)
    assert (run.status, run.round) == ("completed", 6)
    stored = _result_of(found.run)
    for name, array in stored.items():
        assert np.array_equal(array, found.module.state_dict()[name].numpy())
