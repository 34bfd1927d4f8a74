"""A federation in one kernel, on a real platform process."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import numpy as np
import pytest

from truststram_lab import sandbox, verbs
from truststram_lab.exceptions import ConflictError, InvalidInputError, RunStoppedError
from truststram_lab.federated import FederatedRun
from truststram_lab.learning import weights
from truststram_lab.verbs import session as sessions


def _weights_of(run: FederatedRun) -> dict[str, np.ndarray]:
    client = sessions.require("testing").client
    version = client.models.version(run.model, run.snapshot().model_version)
    return weights.decode(client.blobs.get(version.weights_sha256))[0]


def _in_round(run: FederatedRun, number: int, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while run.snapshot().round < number:
        assert run.active, run
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _same(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> bool:
    return list(one) == list(two) and all(np.array_equal(one[key], two[key]) for key in one)


@pytest.fixture(scope="module")
def whole_run(shared_session) -> FederatedRun:
    return verbs.federate("breast-cancer", name="whole", rounds=8)


def test_a_run_ends_with_the_whole_comparison(whole_run):
    run = whole_run.snapshot()
    report = run.report
    assert run.status == "completed"
    assert run.round == 8
    assert run.deployed
    assert run.model_version == 1
    assert [entry.number for entry in report.history] == list(range(1, 9))
    assert len(report.sites) == 5
    assert all(site.alone is not None and site.status == "done" for site in report.sites)
    assert report.federated.accuracy == report.history[-1].accuracy
    assert report.federated.low < report.federated.accuracy < report.federated.high
    assert report.held_out_rows == report.federated.rows == 142
    assert sum(site.rows for site in report.sites) == 569 - 142
    assert report.pooled.accuracy > 0.9


def test_a_card_of_the_same_revision_reads_the_same_but_for_the_time(shared_session):
    run = verbs.federate("breast-cancer", name="revised", rounds=3, clients=2, background=True)
    said: dict[object, set[str]] = {}
    while run.active:
        revision = run.revision()
        words = run.live_card().text.partition("\n")[2]
        if run.revision() == revision:
            said.setdefault(revision, set()).add(words)
        time.sleep(0.01)
    assert {len(words) for words in said.values()} == {1}
    assert len(said) > 3
    settled = run.revision()
    assert run.revision() == settled


def test_the_platform_holds_what_the_kernel_shows(whole_run):
    client = sessions.require("testing").client
    stored = client.runs.get(whole_run.name)
    assert stored.report == whole_run.snapshot().report
    assert stored.statistics.rows == 569 - 142


def test_the_five_sites_are_five_identities_in_the_log(whole_run, shared_session):
    lines = [
        json.loads(line)
        for line in (shared_session / "platform.log").read_text().splitlines()
        if line.startswith("{")
    ]
    pushes = [
        line["principal"]
        for line in lines
        if line.get("method") == "PUT" and line.get("path", "").endswith("/update")
    ]
    sites = {principal for principal in pushes if principal.startswith("site:whole/")}
    assert len(sites) == 5
    # One exchange of statistics and eight rounds, each pushed once by each site.
    assert all(pushes.count(site) == 9 for site in sites)


def test_bytes_are_counted_at_the_socket_and_cover_every_transfer(whole_run):
    state = _weights_of(whole_run)
    model_bytes = sum(array.nbytes for array in state.values())
    for site in whole_run.snapshot().report.sites:
        # Eight pushes and eight pulls of the model at least, headers and statistics on top.
        assert 8 * model_bytes < site.sent_bytes < 8 * model_bytes + 40_000
        assert 8 * model_bytes < site.received_bytes < 8 * model_bytes + 200_000


def test_the_stored_statistics_are_the_moments_of_all_training_rows(whole_run):
    prepared = whole_run._prepared
    statistics = whole_run.snapshot().statistics
    for column in ("mean radius", "worst area"):
        values = np.concatenate([site.frame[column].to_numpy() for site in prepared.sites])
        found = next(entry for entry in statistics.columns if entry.name == column)
        assert found.count == len(values)
        assert found.mean == pytest.approx(values.mean(), rel=1e-12)
        assert found.variance == pytest.approx(values.var(), rel=1e-10)


def test_a_stopped_run_pushes_nothing_and_resumes_to_the_same_bits(whole_run):
    run = verbs.federate("breast-cancer", name="halted", rounds=8, background=True)
    _in_round(run, 3)
    run.stop()
    assert not run.active
    assert run.status == "stopped"
    client = sessions.require("testing").client
    after = client.runs.get(run.name)
    threads = [thread.name for thread in threading.enumerate()]
    assert f"run {run.name}" not in threads
    time.sleep(0.5)
    assert client.runs.get(run.name).last_event == after.last_event
    with pytest.raises(RunStoppedError, match=f"%ts_runs {run.name} resume"):
        run.wait()
    assert verbs.runs(run.name, "resume") is run
    assert run.status == "completed"
    assert _same(_weights_of(run), _weights_of(whole_run))


def test_a_run_goes_on_after_kill_9_of_the_platform_with_the_same_bits(whole_run):
    run = verbs.federate("breast-cancer", name="killed", rounds=8, background=True)
    _in_round(run, 3)
    os.kill(sandbox.status().pid, signal.SIGKILL)
    run.wait(timeout_s=90)
    assert run.status == "completed"
    assert _same(_weights_of(run), _weights_of(whole_run))


def test_a_run_of_a_kernel_that_is_gone_is_resumed_from_its_record(whole_run):
    run = verbs.federate("breast-cancer", name="orphan", rounds=8, background=True)
    _in_round(run, 2)
    run.stop()
    sessions.require("testing").runs.clear()  # what a restart of the kernel does
    again = verbs.runs(run.name, "resume")
    assert again is not run
    assert again.status == "completed"
    assert _same(_weights_of(again), _weights_of(whole_run))
    assert [entry.number for entry in again.snapshot().report.history] == list(range(1, 9))


def test_another_table_cannot_resume_a_run(whole_run, ward_table):
    run = verbs.federate(ward_table, target="died", name="mine", rounds=4, background=True)
    run.stop()
    sessions.require("testing").runs.clear()
    with pytest.raises(InvalidInputError, match="--data df"):
        verbs.runs(run.name, "resume")
    with pytest.raises(InvalidInputError, match="not the one"):
        verbs.runs(run.name, "resume", data=ward_table.iloc[1:])
    assert verbs.runs(run.name, "resume", data=ward_table).status == "completed"


def test_a_completed_run_cannot_be_resumed(whole_run):
    with pytest.raises(ConflictError, match="completed"):
        verbs.runs(whole_run.name, "resume")


def test_running_the_cell_again_replaces_the_run_that_is_going(whole_run):
    first = verbs.federate("breast-cancer", name="again", rounds=50, background=True)
    second = verbs.federate("breast-cancer", name="again", rounds=2)
    assert first.status == "stopped"
    assert second.status == "completed"
    assert second.name != first.name


def test_another_view_follows_the_run_to_its_end(whole_run):
    run = verbs.federate("breast-cancer", name="watched", rounds=6, background=True)
    client = sessions.require("testing").client
    from truststram_lab.federated import WatchedRun

    rounds = []
    watched = WatchedRun(client, client.runs.get(run.name))
    watched.follow(tick=lambda: rounds.append(watched.snapshot().round))
    run.wait()
    assert watched.snapshot().report == run.snapshot().report
    assert sorted(set(rounds)) == sorted(rounds, key=None) or rounds == sorted(rounds)
    assert rounds[-1] == 6


@pytest.fixture
def ward_table():
    import pandas as pd

    rng = np.random.default_rng(5)
    rows = 400
    age = rng.normal(60, 12, rows)
    sex = rng.choice(["f", "m"], rows)
    ward = rng.choice(["east", "north", "west"], rows)
    log_odds = (age - 60) / 6 + np.where(sex == "m", 1.0, -1.0)
    died = np.where(rng.random(rows) < 1 / (1 + np.exp(-log_odds)), "yes", "no")
    frame = pd.DataFrame({"age": age, "sex": sex, "ward": ward, "died": died})
    frame.loc[rng.choice(rows, 40, replace=False), "age"] = np.nan
    frame.loc[rng.choice(rows, 30, replace=False), "sex"] = None
    return frame


def test_strings_and_missing_values_train_and_predict(whole_run, ward_table):
    run = verbs.federate(ward_table, target="died", name="icu", by="ward", rounds=5)
    report = run.snapshot().report
    assert [site.name for site in report.sites] == ["east", "north", "west"]
    assert report.federated.accuracy > report.majority_share + 0.05
    old, young = verbs.predict(
        "icu", [{"age": 90, "sex": "m"}, {"age": None, "sex": None}], explain=True
    )
    assert old.label == "yes"
    assert old.explanation.method == "exact_shapley"
    assert {part.feature for part in young.explanation.contributions} == {"age", "sex"}


def test_a_run_that_diverges_says_so_and_is_left_stopped(whole_run):
    with pytest.raises(InvalidInputError, match="learning rate"):
        verbs.federate("breast-cancer", name="wild", rounds=3, learning_rate=100.0, epochs=50)
