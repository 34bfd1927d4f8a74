"""Event streams: complete, in order, without gaps, from any point on."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from platform_process import PlatformProcess, Run, moments_of, ok, refused, small_version


def follow(
    client: httpx.Client,
    stream: str,
    *,
    after: int | str | None = None,
    last_id: int | None = None,
) -> Iterator[dict[str, Any]]:
    """The events of a stream, as an EventSource would read them."""
    params: dict[str, Any] = {"stream": stream}
    if after is not None:
        params["after"] = after
    headers = {} if last_id is None else {"Last-Event-ID": str(last_id)}
    with client.stream("GET", "/api/v1/events", params=params, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            if line.startswith(":"):
                continue
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields.keys() == {"id"}:  # where the stream begins
                fields = {}
            elif fields:
                event = json.loads(fields["data"])
                assert (str(event["sequence"]), event["type"]) == (fields["id"], fields["event"])
                yield event
                fields = {}


def play(run: Run, rounds: int) -> None:
    for number in range(rounds + 1):
        run.play(number)


@pytest.fixture(scope="module")
def finished(platform: PlatformProcess) -> Run:
    run = Run(platform, "finished", sites=2, rounds=2)
    play(run, 2)
    run.wait("completed")
    return run


def test_a_runs_stream_tells_its_whole_story_and_ends(finished: Run) -> None:
    events = list(follow(finished.owner, f"run:{finished.id}"))
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert [event["type"] for event in events] == [
        "run.created",
        "round.opened",
        "update.received",
        "update.received",
        "round.closed",
        "run.status",
        "round.opened",
        "update.received",
        "update.received",
        "round.closed",
        "round.opened",
        "update.received",
        "update.received",
        "round.closed",
        "run.completed",
    ]
    assert events[1]["data"] == {"number": 0, "kind": "statistics"}
    assert events[2]["data"]["site"] == "site 1"
    assert events[5]["data"] == {"status": "training"}
    version = ok(finished.owner.get("/api/v1/models/finished/versions/1"))
    assert events[-2]["data"] == {
        "number": 2,
        "weights_sha256": version["weights_sha256"],
        "kind": "training",
    }
    assert events[-1]["data"] == {"model": "finished", "version": 1}
    assert finished.get()["last_event"] == events[-1]["sequence"]


def test_a_stream_resumes_after_any_event_without_gap(finished: Run) -> None:
    stream = f"run:{finished.id}"
    everything = list(follow(finished.owner, stream))
    for seen in (0, 1, 7, len(everything) - 1, len(everything)):
        assert list(follow(finished.owner, stream, last_id=seen)) == everything[seen:]
        assert list(follow(finished.owner, stream, after=seen)) == everything[seen:]
    # what the browser remembers counts for more than the address
    assert list(follow(finished.owner, stream, after=2, last_id=9)) == everything[9:]


def test_the_name_of_a_run_is_as_good_as_its_id(finished: Run) -> None:
    by_name = list(follow(finished.owner, f"run:{finished.name}"))
    assert by_name == list(follow(finished.owner, f"run:{finished.id}"))


def test_events_arrive_while_they_happen(platform: PlatformProcess) -> None:
    run = Run(platform, "live", sites=2, rounds=1)
    events = follow(platform.client(), f"run:{run.id}")
    assert [next(events)["type"] for _ in range(2)] == ["run.created", "round.opened"]
    round_id = run.assignment(0)["round_id"]
    for site in (0, 1):
        ok(run.push(site, round_id, moments_of(site)))
        event = next(events)
        assert (event["type"], event["data"]["site"]) == ("update.received", run.names[site])
    assert next(events)["type"] == "round.closed"
    events.close()


def test_cut_and_resumed_streams_see_every_event_once(platform: PlatformProcess) -> None:
    run = Run(platform, "cut", sites=3, rounds=3)
    seen: list[dict[str, Any]] = []

    def watch() -> None:
        client, last = platform.client(), 0
        while not seen or seen[-1]["type"] != "run.completed":
            for taken, event in enumerate(follow(client, f"run:{run.id}", last_id=last)):
                seen.append(event)
                last = event["sequence"]
                if taken == 1:  # hang up after every second event
                    break

    watcher = threading.Thread(target=watch)
    watcher.start()
    play(run, 3)
    watcher.join(60)
    assert [event["sequence"] for event in seen] == list(range(1, len(seen) + 1))
    assert seen == list(follow(run.owner, f"run:{run.id}"))


def test_a_stop_does_not_end_the_stream(platform: PlatformProcess) -> None:
    run = Run(platform, "pausing", sites=1, rounds=1)
    events = follow(platform.client(), f"run:{run.id}", after=2)
    ok(run.owner.post(f"/api/v1/runs/{run.name}/stop"))
    assert next(events)["type"] == "run.stopped"
    ok(run.owner.post(f"/api/v1/runs/{run.name}/resume"))
    resumed = next(events)
    assert (resumed["type"], resumed["data"]) == ("run.resumed", {"status": "statistics"})
    play(run, 1)
    assert [event["type"] for event in events][-1] == "run.completed"


def test_a_report_after_the_end_is_told_to_who_comes_back(finished: Run) -> None:
    last = finished.get()["last_event"]
    ok(finished.owner.put(f"/api/v1/runs/{finished.name}/report", json={"elapsed_s": 2}))
    told = list(follow(finished.owner, f"run:{finished.id}", last_id=last))
    assert [event["type"] for event in told] == ["run.reported"]
    # Whoever lists runs follows the organisation alone, once a run has ended.
    org = finished.platform.sql(
        "SELECT type, data FROM events WHERE stream = 'org' ORDER BY sequence DESC LIMIT 1"
    )
    assert org[0][0] == "run.reported"
    assert finished.name in str(org[0][1])


def test_the_organisations_stream_has_no_gap_under_a_crowd(platform: PlatformProcess) -> None:
    def take_part(number: int) -> None:
        run = Run(platform, f"crowd{number}", sites=1, rounds=1)
        play(run, 1)
        run.wait("completed")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(take_part, range(4)))
    events = follow(platform.client(), "org")
    seen = [next(events)]
    finals = 0
    while finals < 4:
        seen.append(next(events))
        data = seen[-1]["data"]
        ended = seen[-1]["type"] == "run.status" and data["status"] == "completed"
        finals += ended and data["run"].startswith("crowd")
    assert [event["sequence"] for event in seen] == list(range(1, len(seen) + 1))
    types = {event["type"] for event in seen}
    assert {"run.created", "run.status", "model.version_created", "deployment.changed"} <= types
    events.close()


def opening(client: httpx.Client, **asked: Any) -> str:
    """The first block of a stream, up to the empty line."""
    with client.stream("GET", "/api/v1/events", **asked) as answer:
        block: list[str] = []
        for line in answer.iter_lines():
            if not line:
                return "\n".join(block)
            block.append(line)
    raise AssertionError("the stream ended before it began")


def test_a_stream_from_now_on_tells_nothing_old_and_everything_new(
    finished: Run, platform: PlatformProcess
) -> None:
    client = platform.client()
    history = follow(client, "org")
    assert next(history)["sequence"] == 1
    params = {"stream": "org", "after": "latest"}
    first, second = opening(client, params=params).split("\n")
    assert (first, second.partition(": ")[0]) == (": open", "id")
    newest = int(second.partition(": ")[2])
    assert newest > 1
    with client.stream("GET", "/api/v1/events", params=params) as answer:
        lines = answer.iter_lines()
        assert next(lines) == ": open"
        assert next(lines) == f"id: {newest}"
        ok(client.post("/api/v1/federations", json={"name": "from-now"}))
        told = next(line for line in lines if line.startswith("data: "))
        assert json.loads(told.removeprefix("data: "))["sequence"] == newest + 1
    # who was cut off before the first event resumes with the number of the opening
    resumed = follow(client, "org", after="latest", last_id=newest)
    assert next(resumed)["data"]["federation"] == "from-now"
    assert opening(client, params=params, headers={"Last-Event-ID": str(newest)}) == ": open"
    history.close()
    resumed.close()


def test_from_now_on_of_a_stream_that_ended_is_its_end(finished: Run) -> None:
    assert list(follow(finished.owner, f"run:{finished.id}", after="latest")) == []


def test_what_changes_without_a_run_is_told_once_and_in_order(unstarted: PlatformProcess) -> None:
    """Also to a listener whose platform is killed and started again in between."""
    client = unstarted.start().client()
    events = follow(client, "org")
    seen = [next(events)]
    expected = [("organisation.created", None)]
    done = 0

    def check(*kinds: tuple[str, str]) -> None:
        expected.extend(kinds)
        seen.extend(next(events) for _ in kinds)
        names = ("federation", "deployment", "model")
        told = [
            (event["type"], next((event["data"][n] for n in names if n in event["data"]), None))
            for event in seen
        ]
        assert told == expected
        assert [event["sequence"] for event in seen] == list(range(1, len(seen) + 1))

    def crash() -> None:
        nonlocal client, events, done
        events.close()
        unstarted.end(signal.SIGKILL)
        client = unstarted.start().client()
        events = follow(client, "org", last_id=seen[-1]["sequence"])
        done += 1

    made = ok(client.post("/api/v1/federations", json={"name": "icu"}))
    check(("federation.created", "icu"))
    assert seen[-1]["data"] == {"federation": "icu", "federation_id": made["id"]}
    ok(client.post("/api/v1/federations", json={"name": "icu"}))  # nothing new
    invite = {"participants": ["site 1", "site 2"]}
    crash()
    ok(client.post("/api/v1/federations/icu/invite", json=invite))
    check(("federation.changed", "icu"))
    ok(client.post("/api/v1/federations/icu/invite", json=invite))  # new keys, same sites
    refused(client.post("/api/v1/federations/icu/invite", json={"participants": [""]}), 422,
            "invalid_input")  # fmt: skip
    ok(client.post("/api/v1/models", json={"name": "icu"}))
    check(("model.created", "icu"))
    refused(client.post("/api/v1/models", json={"name": "icu"}), 409, "conflict")
    crash()
    version = small_version(client)
    ok(client.post("/api/v1/models/icu/versions", json=version))
    check(("model.version_created", "icu"))
    for _ in range(2):  # the second changes nothing
        ok(client.post("/api/v1/deployments", json={"model": "icu"}))
    check(("deployment.changed", "icu"))
    assert (seen[-1]["data"]["revision"], seen[-1]["data"]["environment"]) == (1, "sandbox")
    ok(client.post("/api/v1/models/icu/versions", json=version))
    crash()
    ok(client.post("/api/v1/deployments", json={"model": "icu:2"}))
    check(("model.version_created", "icu"), ("deployment.changed", "icu"))
    assert seen[-1]["data"]["revision"] == 2
    # whoever comes late is told the same
    late = follow(client, "org")
    assert [next(late) for _ in seen] == seen
    assert done == 3
    late.close()
    events.close()


@pytest.mark.parametrize(
    ("params", "headers"),
    [
        ({"stream": "nonsense"}, {}),
        ({"stream": "run:"}, {}),
        ({}, {}),
        ({"stream": "org", "after": -1}, {}),
        ({"stream": "org", "after": 10**18}, {}),
        ({"stream": "org", "after": "newest"}, {}),
        ({"stream": "org", "after": "latest "}, {}),
        ({"stream": "org"}, {"Last-Event-ID": "latest"}),
        ({"stream": "org"}, {"Last-Event-ID": "two"}),
    ],
)
def test_a_stream_that_cannot_be_is_refused(
    platform: PlatformProcess, params: dict[str, Any], headers: dict[str, str]
) -> None:
    answer = platform.client().get("/api/v1/events", params=params, headers=headers)
    refused(answer, 422, "invalid_input")
