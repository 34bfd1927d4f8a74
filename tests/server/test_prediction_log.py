"""The log of predictions: what was acknowledged is in it, and nobody's data is."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from platform_process import PlatformProcess, ok, refused, small_version

from truststram_lab.exceptions import NotFoundError
from truststram_lab.server.services.prediction_log import Answered, PredictionLog
from truststram_lab.server.stores.ids import new_id
from truststram_lab.server.stores.journal import Journal


def answered(**more: object) -> Answered:
    fields = {
        "id": new_id("pred"),
        "organisation_id": "org_1",
        "name": "icu",
        "model": "icu",
        "version": 1,
        "caller": "owner:ada",
        "status": 200,
        "rows": 1,
        "latency_ms": 1.5,
    }
    return Answered(**{**fields, **more})  # type: ignore[arg-type]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[PredictionLog]:
    made = PredictionLog(tmp_path, keep_days=30)
    yield made
    made.close()


def deployed(owner: httpx.Client, name: str = "icu") -> str:
    ok(owner.post("/api/v1/models", json={"name": name}))
    ok(owner.post(f"/api/v1/models/{name}/versions", json=small_version(owner)))
    ok(owner.post("/api/v1/deployments", json={"model": name}))
    return f"/api/v1/endpoints/{name}/predict"


# --------------------------------------------------------------------------- the journal

_STEPS = st.lists(
    st.one_of(
        st.binary(max_size=30).map(lambda text: ("append", text.replace(b"\n", b""))),
        st.sampled_from([("take", b""), ("forget", b""), ("restart", b""), ("torn", b"")]),
    ),
    max_size=30,
)


@settings(deadline=None, max_examples=60)
@given(steps=_STEPS)
def test_every_line_is_taken_until_it_is_discarded_and_in_order(tmp_path_factory, steps) -> None:
    folder = tmp_path_factory.mktemp("journal")
    journal, there = Journal(folder), []
    for step, text in steps:
        if step == "append":
            journal.append(text)
            there.append(text)
        elif step == "restart":
            journal = Journal(folder)  # the former one was killed: nothing was closed
        elif step == "torn":
            # The process ended within a write: a part of a line, which nobody was told of.
            for path in sorted(folder.glob("*.jsonl"))[-1:]:
                with path.open("ab") as file:
                    file.write(b"half a li")
            journal = Journal(folder)
        else:
            found = list(journal.taken())
            assert [line for _, lines in found for line in lines] == there
            if step == "forget":
                for segment, _ in found:
                    journal.discard(segment)
                there = []
    assert [line for _, lines in journal.taken() for line in lines] == there


FULL = """
import resource, signal, sys
from pathlib import Path
from truststram_lab.exceptions import InsufficientResourcesError
from truststram_lab.server.stores.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
journal, kept = Journal(Path(sys.argv[1])), 0
for _ in range(50):
    try:
        journal.append(b"x" * 29)
        kept += 1
    except InsufficientResourcesError as error:
        assert "free space" in error.message, error.message
assert 0 < kept < 50
print(kept)
"""


def test_a_full_disk_refuses_the_line_and_keeps_those_before_it(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    lines = [line for _, found in Journal(tmp_path).taken() for line in found]
    assert lines == [b"x" * 29] * int(ran.stdout)


# --------------------------------------------------------------------------- the service


def test_a_batch_that_comes_twice_is_kept_once(log: PredictionLog, monkeypatch) -> None:
    noted = [answered() for _ in range(5)]
    for one in noted:
        log.note(one)
    with monkeypatch.context() as undone:
        # As if the process ended between the two.
        undone.setattr(Journal, "discard", staticmethod(lambda segment: None))
        log.take_over()
    assert list(log._journal.taken()), "the segment is still there"
    page = log.page("org_1", limit=50, cursor=None)
    assert [entry.id for entry in page.items] == [one.id for one in reversed(noted)]


def test_a_damaged_line_holds_nothing_up(log: PredictionLog) -> None:
    log.note(answered(name="before"))
    log._journal.append(b'{"id": "pred_')
    log.note(answered(name="after"))
    assert {entry.name for entry in log.page("org_1", limit=9, cursor=None).items} == {
        "before",
        "after",
    }


def test_what_is_older_than_it_is_kept_is_removed_and_nothing_else(tmp_path: Path) -> None:
    now = [datetime.now(UTC)]
    log = PredictionLog(tmp_path, keep_days=7, now=lambda: now[0])
    log.note(answered())
    log.take_over()
    now[0] += timedelta(days=6.99)
    assert log.prune() == 0
    now[0] += timedelta(days=0.02)
    assert log.prune() == 1
    assert log.page("org_1", limit=9, cursor=None).items == []
    log.close()


def test_nothing_is_removed_where_all_is_kept(tmp_path: Path) -> None:
    later = datetime.now(UTC) + timedelta(days=9999)
    log = PredictionLog(tmp_path, keep_days=0, now=lambda: later)
    log.note(answered())
    log.take_over()
    assert log.prune() == 0
    log.close()


def test_an_entry_is_its_organisations_alone(log: PredictionLog) -> None:
    mine, theirs = answered(), answered(organisation_id="org_2", name="other")
    log.note(mine)
    log.note(theirs)
    assert log.get("org_1", f"{mine.id}.3").name == "icu"
    for wrong in (theirs.id, "pred_0", "'; --"):
        with pytest.raises(NotFoundError, match="kept for 30 days"):
            log.get("org_1", wrong)
    assert [entry.id for entry in log.page("org_2", limit=9, cursor=None).items] == [theirs.id]
    assert log.traffic("org_1", "other", 3600).requests == 0


@settings(deadline=None, max_examples=20)
@given(
    asked=st.lists(
        st.tuples(
            st.sampled_from([200, 200, 200, 422, 503]),
            st.integers(0, 50),
            st.floats(0.01, 1e4),
        ),
        max_size=40,
    )
)
def test_traffic_counts_what_was_noted(tmp_path_factory, asked) -> None:
    log = PredictionLog(tmp_path_factory.mktemp("home"), keep_days=30)
    for status, rows, took in asked:
        log.note(answered(status=status, rows=rows, latency_ms=took))
    log.note(answered(name="another"))
    found = log.traffic("org_1", "icu", 600)
    assert found.requests == len(asked) == sum(found.per_minute)
    assert found.failed == sum(status >= 400 for status, _, _ in asked)
    assert found.rows == sum(rows for _, rows, _ in asked)
    good = sorted(round(took, 3) for status, _, took in asked if status < 400)
    assert (found.latency_ms is None) == (not good)
    if found.latency_ms is not None:
        assert good[0] <= found.latency_ms.p50 <= found.latency_ms.p95 <= good[-1]
    log.close()


# --------------------------------------------------------------------------- over HTTP


def test_every_answer_is_in_the_log_with_who_asked_and_no_data(platform: PlatformProcess) -> None:
    owner = platform.client()
    address = deployed(owner)
    marked = 271828.182845
    one = ok(owner.post(address, json={"data": {"dose": marked}}))["predictions"][0]
    many = ok(owner.post(address, json={"data": [{"dose": 1.0}, {"dose": 2.0}]}))["predictions"]
    refused(owner.post(address, json={"data": {"dos": 1}}), 422, "invalid_input")
    exact = ok(owner.post("/api/v1/endpoints/icu:1/predict", json={"data": {"dose": 1.0}}))
    entries = ok(owner.get("/api/v1/predictions", params={"name": "icu"}))["items"]
    assert [(entry["status"], entry["rows"]) for entry in entries] == [(422, 0), (200, 2), (200, 1)]
    assert entries[2]["id"] == one["prediction_id"]
    who = ok(owner.get("/api/v1/whoami"))
    for entry in entries:
        assert (entry["model"], entry["version"]) == ("icu", 1)
        assert entry["caller"] == f"owner:{who['name']}"
        assert (entry["answers"], entry["data"]) == (None, None)
    found = ok(owner.get(f"/api/v1/predictions/{many[1]['prediction_id']}"))
    assert found == entries[1]
    assert (
        ok(owner.get("/api/v1/predictions"))["items"][0]["id"]
        == (exact["predictions"][0]["prediction_id"])
    )
    traffic = ok(owner.get("/api/v1/deployments/icu/traffic"))
    assert (traffic["requests"], traffic["failed"], traffic["rows"]) == (3, 1, 3)
    refused(owner.get("/api/v1/deployments/ice/traffic"), 404, "not_found")
    for path in platform.home.rglob("*"):
        if path.is_file():
            assert str(marked).encode() not in path.read_bytes(), path


def test_what_was_acknowledged_survives_a_kill(unstarted: PlatformProcess) -> None:
    unstarted.start()
    address = deployed(unstarted.client())
    acknowledged: list[str] = []

    def ask() -> None:
        client = unstarted.client()
        try:
            while True:
                answer = client.post(address, json={"data": {"dose": 1.0}})
                acknowledged.append(answer.json()["predictions"][0]["prediction_id"])
        except (httpx.HTTPError, KeyError):
            return  # it was killed

    known = 0
    for _ in range(3):
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(acknowledged) < known + 120:
            assert any(thread.is_alive() for thread in threads)
            threads[0].join(0.01)
        unstarted.process.send_signal(signal.SIGKILL)
        for thread in threads:
            thread.join(30)
        known = len(acknowledged)
        unstarted.end(signal.SIGKILL)
        unstarted.start()
    owner = unstarted.client()
    there, cursor = set(), None
    while True:
        page = ok(owner.get("/api/v1/predictions", params={"limit": 200, "cursor": cursor or ""}))
        there |= {entry["id"] for entry in page["items"]}
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert set(acknowledged) <= there
    assert len(there) <= known + 3 * 4, "at most what was under way"
