from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from served_models import BINARY, MANY, ask, in_process, network_of, rows_of, version_of

from truststram_lab.exceptions import (
    ConflictError,
    InsufficientResourcesError,
    InvalidInputError,
    PlatformError,
    PlatformUnavailableError,
)
from truststram_lab.explainability import explain_rows
from truststram_lab.server.serving import pool, process
from truststram_lab.server.serving.local import LocalBackend

WAIT_S = 120


@pytest.fixture
def backend():
    made = LocalBackend(most=1)
    yield made
    made.close()


def worker_pid(backend):
    return next(e for e in reversed(backend.events()) if e.type == "worker.started").data["pid"]


def alive(pid):
    state = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True)
    return state.stdout.strip()[:1] not in ("", "Z")


def stopped_worker(backend, version):
    """A worker that reads nothing until it is continued or killed."""
    backend.apply(version)
    pid = worker_pid(backend)
    os.kill(pid, signal.SIGSTOP)
    return pid


@pytest.mark.parametrize("signature", [BINARY, MANY], ids=["binary", "many"])
def test_a_worker_answers_as_the_network_in_this_process(backend, tmp_path, signature):
    version, rows = version_of(tmp_path, signature=signature), rows_of(signature, 25)
    answer = ask(backend, version, rows)
    expected = in_process(version, rows)
    np.testing.assert_allclose(answer.probabilities(WAIT_S), expected, atol=1e-12)
    assert all(found.explanation is None for found in answer.result(WAIT_S))


@pytest.mark.parametrize(
    ("signature", "label"), [(BINARY, None), (BINARY, "lived"), (MANY, None), (MANY, "b")]
)
def test_a_worker_explains_as_the_library_in_this_process(backend, tmp_path, signature, label):
    version, rows = version_of(tmp_path, signature=signature), rows_of(signature, 4)
    answer = ask(backend, version, rows, explain=True, explain_class=label).result(WAIT_S)
    network, encoder = network_of(version)
    expected = explain_rows(
        network, encoder, encoder.encode_rows(rows), rows, signature, version.statistics, label
    )
    for one, wanted in zip(answer, expected, strict=True):
        found = one.explanation
        assert found is not None
        assert found.explained_class == wanted.explained_class
        assert found.background == wanted.background
        for a, b in zip(found.contributions, wanted.contributions, strict=True):
            assert (a.feature, a.value) == (b.feature, b.value)
            assert a.contribution == pytest.approx(b.contribution, abs=1e-9)


def test_the_worker_loads_no_heavy_library(backend, tmp_path):
    version, rows = version_of(tmp_path), rows_of(BINARY, 2)
    ask(backend, version, rows, explain=True).result(WAIT_S)
    modules = set(backend.inspect()["modules"])
    assert "numpy" in modules
    heavy = {"torch", "sklearn", "pandas", "scipy", "shap", "IPython", "sqlalchemy", "fastapi"}
    assert not modules & heavy


def test_the_platform_side_needs_no_numpy():
    code = (
        "import sys, truststram_lab.server.serving.local;"
        "print([m for m in ('numpy','torch','pandas','sklearn') if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_what_queues_while_the_worker_is_busy_goes_as_one_batch(backend, tmp_path):
    version, rows = version_of(tmp_path), rows_of(BINARY, 60)
    pid = stopped_worker(backend, version)
    futures = [ask(backend, version, [row]) for row in rows]
    os.kill(pid, signal.SIGCONT)
    found = np.concatenate([f.probabilities(WAIT_S) for f in futures])
    np.testing.assert_allclose(found, in_process(version, rows), atol=1e-12)
    # The first may have gone alone before the others came; the others cannot have.
    assert backend.counts.requests == 60
    assert backend.counts.batches <= 3
    assert backend.counts.largest_batch >= 29


def test_versions_do_not_share_a_batch(backend, tmp_path):
    versions = [version_of(tmp_path, seed=seed) for seed in range(3)]
    rows = rows_of(BINARY, 30)
    pid = stopped_worker(backend, versions[0])
    futures = [ask(backend, versions[i % 3], [row]) for i, row in enumerate(rows)]
    os.kill(pid, signal.SIGCONT)
    for i, future in enumerate(futures):
        expected = in_process(versions[i % 3], [rows[i]])
        np.testing.assert_allclose(future.probabilities(WAIT_S), expected, atol=1e-12)
    assert backend.counts.largest_batch <= 10


def test_a_batch_stays_within_its_bound(backend, tmp_path, monkeypatch):
    (row,) = rows_of(BINARY, 1)
    monkeypatch.setattr(pool, "BATCH_BYTES", 8 * len(str(row)))
    version = version_of(tmp_path)
    pid = stopped_worker(backend, version)
    futures = [ask(backend, version, rows_of(BINARY, 3, seed)) for seed in range(10)]
    os.kill(pid, signal.SIGCONT)
    assert all(len(f.probabilities(WAIT_S)) == 3 for f in futures)
    assert backend.counts.largest_batch <= 2


def test_one_bad_request_spoils_no_other_in_its_batch(backend, tmp_path):
    version, good = version_of(tmp_path), rows_of(BINARY, 3)
    pid = stopped_worker(backend, version)
    first = ask(backend, version, good)
    bad = ask(backend, version, [{**good[0], "ward": "moon"}])
    wrong_class = ask(backend, version, good, explain=True, explain_class="survived")
    last = ask(backend, version, good)
    os.kill(pid, signal.SIGCONT)
    with pytest.raises(InvalidInputError, match="moon"):
        bad.result(WAIT_S)
    with pytest.raises(InvalidInputError, match="'survived' is not a class"):
        wrong_class.result(WAIT_S)
    for future in (first, last):
        assert len(future.probabilities(WAIT_S)) == 3
    assert backend.counts.workers == 1


def test_a_killed_worker_loses_no_request_that_was_with_it(backend, tmp_path):
    version, rows = version_of(tmp_path), rows_of(BINARY, 40)
    pid = stopped_worker(backend, version)
    futures = [ask(backend, version, [row]) for row in rows]
    os.kill(pid, signal.SIGKILL)
    found = np.concatenate([f.probabilities(WAIT_S) for f in futures])
    np.testing.assert_allclose(found, in_process(version, rows), atol=1e-12)
    assert backend.counts.workers == 2
    assert worker_pid(backend) != pid


def test_killing_workers_under_concurrent_requests_loses_none(backend, tmp_path):
    version, rows = version_of(tmp_path), rows_of(BINARY, 16)
    expected = in_process(version, rows)
    backend.apply(version)
    done = threading.Event()
    answered = [0]

    def ask_on(i):
        n = 0
        while not done.is_set():
            found = ask(backend, version, [rows[i]]).probabilities(WAIT_S)
            np.testing.assert_allclose(found[0], expected[i], atol=1e-12)
            n += 1
            answered[0] += 1
        return n

    def kill_thrice():
        try:
            for _ in range(3):
                before = answered[0]
                while answered[0] < before + 50:
                    done.wait(0.001)
                workers = backend.counts.workers
                os.kill(worker_pid(backend), signal.SIGKILL)
                while backend.counts.workers == workers:
                    done.wait(0.001)
        finally:
            done.set()

    with ThreadPoolExecutor(9) as pool:
        killer = pool.submit(kill_thrice)
        counts = list(pool.map(ask_on, range(8)))
        killer.result(WAIT_S)
    assert min(counts) > 0
    assert backend.counts.workers == 4
    assert backend.counts.batches < backend.counts.requests


def test_a_worker_killed_while_idle_is_replaced_before_anybody_asks(backend, tmp_path):
    version = version_of(tmp_path)
    backend.apply(version)
    first = worker_pid(backend)
    os.kill(first, signal.SIGKILL)
    waiting = threading.Event()
    for _ in range(WAIT_S * 100):
        if backend.counts.workers == 2:
            break
        waiting.wait(0.01)
    assert [e.type for e in backend.events()] == [
        "worker.started",
        "version.ready",
        "worker.died",
        "worker.started",
    ]
    # The version is loaded again by the first request.
    assert len(ask(backend, version, rows_of(BINARY, 1)).probabilities(WAIT_S)) == 1


def test_a_request_that_kills_workers_takes_no_other_with_it(backend, tmp_path):
    version, rows = version_of(tmp_path), rows_of(BINARY, 5)
    backend.apply(version)
    poison = rows[2]
    original = process.WorkerProcess.ask

    def deadly(worker, header, bodies=(), *, timeout_s):
        # What a request that exhausts the worker's memory does to it.
        if any(f'"age": {poison["age"]}'.encode() in body for body in bodies):
            worker.kill()
        return original(worker, header, bodies, timeout_s=timeout_s)

    process.WorkerProcess.ask = deadly
    try:
        pid = worker_pid(backend)
        os.kill(pid, signal.SIGSTOP)
        futures = [ask(backend, version, [row]) for row in rows]
        os.kill(pid, signal.SIGCONT)
        for i, future in enumerate(futures):
            if i == 2:
                with pytest.raises(PlatformError, match="ended twice"):
                    future.result(WAIT_S)
            else:
                assert len(future.probabilities(WAIT_S)) == 1
    finally:
        process.WorkerProcess.ask = original


def test_a_worker_that_gives_no_answer_is_replaced(tmp_path):
    backend = LocalBackend(stuck_s=0.5, most=1)
    try:
        version = version_of(tmp_path)
        stopped_worker(backend, version)
        assert ask(backend, version, rows_of(BINARY, 2)).result(WAIT_S)
        assert backend.counts.workers == 2
    finally:
        backend.close()


def test_a_cancelled_request_is_not_computed(backend, tmp_path):
    version, rows = version_of(tmp_path), rows_of(BINARY, 3)
    pid = stopped_worker(backend, version)
    first = ask(backend, version, rows[:1])
    while not first.future.running():
        threading.Event().wait(0.001)
    second, third = ask(backend, version, rows[1:2]), ask(backend, version, rows[2:])
    assert second.future.cancel()
    os.kill(pid, signal.SIGCONT)
    assert third.result(WAIT_S)
    assert second.future.cancelled()


@pytest.mark.parametrize("damage", ["flipped", "missing", "of another network"])
def test_damaged_weights_are_refused_by_name(backend, tmp_path, damage):
    version, other = version_of(tmp_path), version_of(tmp_path, signature=MANY)
    if damage == "flipped":
        body = bytearray(version.weights.read_bytes())
        body[-1] ^= 1
        version.weights.write_bytes(body)
    elif damage == "missing":
        version.weights.unlink()
    else:
        version = type(version)(
            **{
                **version.__dict__,
                "weights": other.weights,
                "weights_sha256": other.weights_sha256,
            }
        )
    with pytest.raises(PlatformError, match="stored weights of outcome:1") as caught:
        backend.apply(version)
    assert str(tmp_path) not in caught.value.message
    assert backend.status(version.id) == "failed"
    with pytest.raises(PlatformError, match="stored weights of outcome:1"):
        ask(backend, version, rows_of(BINARY, 1)).result(WAIT_S)
    # Others are served all the same.
    assert ask(backend, other, rows_of(MANY, 1)).result(WAIT_S)


def test_the_least_recently_used_versions_leave_and_come_back(backend, tmp_path):
    versions = [version_of(tmp_path, seed=seed) for seed in range(35)]
    rows = rows_of(BINARY, 1)
    first = [ask(backend, v, rows).probabilities(WAIT_S) for v in versions]
    kept = backend.inspect()["versions"]
    assert kept == [v.id for v in versions[-32:]]
    again = ask(backend, versions[0], rows).probabilities(WAIT_S)
    np.testing.assert_array_equal(again, first[0])
    assert backend.inspect()["versions"] == [*kept[1:], versions[0].id]


def test_a_drained_version_takes_nothing_until_it_is_applied_again(backend, tmp_path):
    version, rows = version_of(tmp_path), rows_of(BINARY, 1)
    assert backend.status(version.id) == "starting"
    backend.apply(version)
    assert backend.status(version.id) == "ready"
    pid = worker_pid(backend)
    os.kill(pid, signal.SIGSTOP)
    pending = ask(backend, version, rows)
    assert not backend.drain(version.id, timeout_s=0.01)
    with pytest.raises(ConflictError, match="outcome:1 takes no more"):
        ask(backend, version, rows)
    os.kill(pid, signal.SIGCONT)
    assert backend.drain(version.id, timeout_s=WAIT_S)
    assert pending.future.done()
    assert backend.status(version.id) == "drained"
    backend.delete(version.id)
    assert backend.inspect()["versions"] == []
    backend.apply(version)
    assert backend.status(version.id) == "ready"
    assert ask(backend, version, rows).result(WAIT_S)


def test_events_are_numbered_and_can_be_resumed(backend, tmp_path):
    backend.apply(version_of(tmp_path))
    everything = backend.events()
    assert [e.sequence for e in everything] == list(range(1, len(everything) + 1))
    assert backend.events(after=1) == everything[1:]


def test_too_many_waiting_rows_are_told_to_come_again(backend, tmp_path, monkeypatch):
    (row,) = rows_of(BINARY, 1)
    monkeypatch.setattr(pool, "WAITING_BYTES", 10 * len(str(row)))
    version = version_of(tmp_path)
    pid = stopped_worker(backend, version)
    first = ask(backend, version, rows_of(BINARY, 2))
    while not first.future.running():
        threading.Event().wait(0.001)
    futures = [first, ask(backend, version, rows_of(BINARY, 9))]
    with pytest.raises(InsufficientResourcesError, match="1 requests are waiting") as caught:
        ask(backend, version, rows_of(BINARY, 2))
    assert caught.value.retry_after == 1.0
    os.kill(pid, signal.SIGCONT)
    assert [len(f.probabilities(WAIT_S)) for f in futures] == [2, 9]


def test_closing_refuses_what_waits_and_ends_the_worker(tmp_path):
    backend = LocalBackend(most=1)
    version = version_of(tmp_path)
    pid = stopped_worker(backend, version)
    futures = [ask(backend, version, rows_of(BINARY, 1)) for _ in range(3)]
    backend.close()
    for future in futures:
        with pytest.raises(PlatformUnavailableError):
            future.result(WAIT_S)
    assert not alive(pid)
    with pytest.raises(PlatformUnavailableError):
        ask(backend, version, rows_of(BINARY, 1))
    backend.close()


def test_an_unused_backend_has_no_process():
    backend = LocalBackend()
    backend.close()
    assert backend.events() == []
    assert backend.counts.workers == 0


def test_a_killed_platform_leaves_no_worker_behind(tmp_path):
    version = version_of(tmp_path)
    code = f"""
import sys, time
sys.path[:0] = {sys.path!r}
from pathlib import Path
from served_models import version_of
from truststram_lab.server.serving.local import LocalBackend
backend = LocalBackend()
backend.apply(version_of(Path({str(tmp_path)!r})))
print(backend.events()[0].data["pid"], flush=True)
time.sleep(600)
"""
    assert version.weights.exists()
    platform = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert platform.stdout is not None
    pid = int(platform.stdout.readline())
    os.kill(pid, 0)
    platform.kill()
    platform.wait()
    platform.stdout.close()
    for _ in range(WAIT_S * 20):
        if not alive(pid):
            return
        threading.Event().wait(0.05)
    pytest.fail("the worker outlived the platform")
