"""Workers of a deployment's own: how many there are, and what becomes of their requests."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace

import pytest
from served_models import BINARY, ask, rows_of, version_of

from truststram_lab.exceptions import InsufficientResourcesError, PlatformError
from truststram_lab.server.serving import pool, resources
from truststram_lab.server.serving.interface import Place
from truststram_lab.server.serving.local import LocalBackend

WAIT_S = 60


@pytest.fixture
def backend():
    made = LocalBackend(most=1)
    yield made
    made.close()


def placed(folder, minimum, maximum, name="rev_1"):
    return replace(version_of(folder), place=Place(name, minimum, maximum))


def pids(backend, place="rev_1"):
    told = [event for event in backend.events() if event.data.get("pool") == place]
    ended = {e.data["pid"] for e in told if e.type in ("worker.died", "worker.ended")}
    return [
        e.data["pid"] for e in told if e.type == "worker.started" and e.data["pid"] not in ended
    ]


def until(condition):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        threading.Event().wait(0.01)


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_place_starts_with_its_minimum_and_each_worker_has_the_version(backend, tmp_path):
    version = placed(tmp_path, 2, 3)
    backend.apply(version)
    assert backend.workers("rev_1") == 2
    assert [e.type for e in backend.events()].count("version.ready") == 2
    first = pids(backend)
    os.kill(first[0], signal.SIGSTOP)
    try:
        # One of the two is enough to answer them, whoever is asked first.
        found = [ask(backend, version, rows_of(BINARY, 1)) for _ in range(4)]
        until(lambda: sum(one.future.done() for one in found) >= 3)
    finally:
        os.kill(first[0], signal.SIGCONT)
    assert all(one.result(WAIT_S) for one in found)


def test_a_killed_worker_is_replaced_before_anybody_asks(backend, tmp_path):
    backend.apply(placed(tmp_path, 2, 2))
    victim = pids(backend)[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in pids(backend) and backend.workers("rev_1") == 2)
    assert is_gone(victim)


def test_what_was_with_a_killed_worker_is_answered_by_another(backend, tmp_path, monkeypatch):
    version = placed(tmp_path, 2, 2)
    backend.apply(version)
    victim = pids(backend)[-1]
    for pid in pids(backend):
        os.kill(pid, signal.SIGSTOP)
    found = [ask(backend, version, rows_of(BINARY, 1, seed)) for seed in range(2)]
    until(lambda: all(one.future.running() for one in found))

    def none_left(channel):
        raise PlatformError("No process can be started.")

    monkeypatch.setattr(backend.nursery("network"), "fork", none_left)
    os.kill(victim, signal.SIGKILL)
    other = next(pid for pid in pids(backend) if pid != victim)
    os.kill(other, signal.SIGCONT)
    assert all(len(one.result(WAIT_S)) == 1 for one in found)
    assert pids(backend) == [other]


def test_a_place_grows_while_requests_wait_and_shrinks_when_none_do(backend, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "SURPLUS_S", 0.3)
    version = placed(tmp_path, 1, 2)
    backend.apply(version)
    (busy,) = pids(backend)
    backend._pools["rev_1"].calm_until_s = 0.0
    os.kill(busy, signal.SIGSTOP)
    held = ask(backend, version, rows_of(BINARY, 1))
    until(held.future.running)
    waiting = [ask(backend, version, rows_of(BINARY, 1))]
    threading.Event().wait(2 * pool.PATIENCE_S)
    waiting += [ask(backend, version, rows_of(BINARY, 1)) for _ in range(3)]
    assert all(one.result(WAIT_S) for one in waiting), "the second worker answered them"
    assert len(pids(backend)) == 2
    os.kill(busy, signal.SIGCONT)
    assert held.result(WAIT_S)
    until(lambda: len(pids(backend)) == 1)
    assert ask(backend, version, rows_of(BINARY, 1)).result(WAIT_S)


@pytest.mark.parametrize("scarce", ["cores", "memory"])
def test_a_minimum_that_does_not_fit_is_refused_and_leaves_nothing(
    backend, tmp_path, monkeypatch, scarce
):
    wanted = 2
    if scarce == "memory":
        monkeypatch.setattr(resources, "RESERVE_BYTES", 2**62)
    else:
        wanted = 1 + int(resources.core_count() * resources.WORKERS_PER_CORE)
    version = placed(tmp_path, wanted, wanted)
    with pytest.raises(InsufficientResourcesError, match=r"outcome:1 needs \d+ more workers"):
        backend.apply(version)
    assert backend.workers("rev_1") == 0
    until(lambda: all(is_gone(e.data["pid"]) for e in backend.events() if "pid" in e.data))


def test_a_released_place_answers_what_it_has_and_ends(backend, tmp_path):
    version = placed(tmp_path, 1, 1)
    backend.apply(version)
    (pid,) = pids(backend)
    os.kill(pid, signal.SIGSTOP)
    found = [ask(backend, version, rows_of(BINARY, 1)) for _ in range(5)]
    backend.release("rev_1")
    late = ask(backend, version, rows_of(BINARY, 1))
    assert late.result(WAIT_S), "shared workers answer it"
    assert not any(one.future.done() for one in found)
    os.kill(pid, signal.SIGCONT)
    assert all(one.result(WAIT_S) for one in found)
    until(lambda: is_gone(pid))


def test_a_worker_whose_template_was_killed_is_replaced_all_the_same(backend, tmp_path):
    version = version_of(tmp_path)
    backend.apply(version)
    nursery = backend.nursery("network")
    os.kill(nursery._process.pid, signal.SIGKILL)
    (pid,) = pids(backend, "network")
    os.kill(pid, signal.SIGKILL)
    until(lambda: pids(backend, "network") not in ([], [pid]))
    assert ask(backend, version, rows_of(BINARY, 1)).result(WAIT_S)
