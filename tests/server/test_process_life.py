"""The life of the process: start, end, kill, and what the next one finds."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from platform_process import PlatformProcess, Run, moments_of, ok, refused, update_of

HEAVY = ("torch", "sklearn", "pandas", "IPython", "matplotlib", "alembic")


def test_the_platform_loads_nothing_heavy() -> None:
    code = (
        "import sys, truststram_lab.server.__main__\n"
        f"print([name for name in {(*HEAVY, 'numpy')!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_platform_at_work_loads_nothing_heavy(unstarted: PlatformProcess) -> None:
    run = Run(unstarted.start(), "light", sites=1, rounds=1)
    run.play(0)
    run.play(1)
    run.wait("completed")
    row = {"data": {"age": 1.0, "dose": None, "ward": "icu"}, "explain": True}
    ok(run.owner.post("/api/v1/endpoints/light/predict", json=row))
    maps = Path(f"/proc/{unstarted.state()['pid']}/maps")
    if not maps.exists():
        pytest.skip("needs /proc to look into another process")
    loaded = maps.read_text()
    assert "/numpy/" in loaded
    assert not [name for name in HEAVY if f"/{name}/" in loaded]


@pytest.mark.parametrize("crash_after", ["before", "between", "aggregated"])
def test_a_killed_platform_goes_on_where_it_was(
    unstarted: PlatformProcess, crash_after: str
) -> None:
    run = Run(unstarted.start(), "killed", sites=2, rounds=2)
    run.play(0)
    round_id = run.assignment(0)["round_id"]
    if crash_after != "before":
        ok(run.push(0, round_id, update_of(0, 1)))
    if crash_after == "aggregated":
        ok(run.push(1, round_id, update_of(1, 1)))
    former = unstarted.state()
    assert unstarted.end(signal.SIGKILL) == -signal.SIGKILL

    unstarted.start()
    now = unstarted.state()
    assert (now["url"], now["api_key"]) == (former["url"], former["api_key"])
    assert now["instance"] != former["instance"]
    run.reconnect()
    if crash_after == "between":
        assert run.get()["pushed"] == ["site 1"]
        assert ok(run.push(0, round_id, update_of(0, 1)))["duplicate"] is True
    if crash_after == "before":
        ok(run.push(0, round_id, update_of(0, 1)))
    if crash_after != "aggregated":
        ok(run.push(1, round_id, update_of(1, 1)))
    run.play(2)
    run.wait("completed")
    calm = Run(unstarted, "calm", sites=2, rounds=2)
    for number in range(3):
        calm.play(number)
    calm.wait("completed")
    assert run.weights() == calm.weights()


def test_a_round_that_was_complete_at_the_crash_is_summed_at_the_start(
    unstarted: PlatformProcess,
) -> None:
    run = Run(unstarted.start(), "complete", sites=2, rounds=1)
    ok(run.push(0, run.assignment(0)["round_id"], moments_of(0)))
    round_id = run.assignment(1)["round_id"]
    ok(run.push(1, round_id, moments_of(1)))
    run.assignment(0)
    unstarted.end(signal.SIGKILL)
    # The state in which a crash between the last update and the sum leaves the database.
    unstarted.sql("DELETE FROM rounds WHERE number = 1")
    unstarted.sql("UPDATE rounds SET status = 'aggregating', closed_at = NULL")
    unstarted.sql("UPDATE runs SET status = 'statistics', statistics = NULL")
    unstarted.start()
    run.reconnect()
    assert run.assignment(0)["number"] == 1
    assert run.get()["statistics"]["rows"] == 24


def test_a_terminated_platform_ends_in_spite_of_open_streams(unstarted: PlatformProcess) -> None:
    run = Run(unstarted.start(), "open")
    ok(run.push(0, run.assignment(0)["round_id"], moments_of(0)))
    opened, answers = threading.Event(), []

    def stream() -> None:
        params = {"stream": f"run:{run.id}"}
        with unstarted.client().stream("GET", "/api/v1/events", params=params) as answer:
            for _ in answer.iter_lines():
                opened.set()
        answers.append(answer.status_code)

    def poll() -> None:
        answer = run.clients[0].get("/api/v1/training/rounds", params={"wait_s": 30})
        answers.append(ok(answer))

    threads = [threading.Thread(target=stream), threading.Thread(target=poll)]
    for thread in threads:
        thread.start()
    assert opened.wait(20)
    time.sleep(0.3)  # the poll has no sign of having begun
    assert unstarted.process is not None
    unstarted.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(20)
    assert len(answers) == 2  # both were ended in order, neither was cut
    assert [] in answers
    assert unstarted.end() == 0


def test_an_idle_platform_ends_by_itself(unstarted: PlatformProcess) -> None:
    unstarted.start(idle_s=0.5)
    assert unstarted.process is not None
    assert unstarted.process.wait(30) == 0


def test_an_open_stream_of_a_run_keeps_the_platform_awake(unstarted: PlatformProcess) -> None:
    run = Run(unstarted.start(idle_s=1), "awake")
    assert unstarted.process is not None
    params = {"stream": f"run:{run.id}"}
    with run.owner.stream("GET", "/api/v1/events", params=params) as answer:
        lines = answer.iter_lines()
        next(lines)
        time.sleep(2.5)
        assert unstarted.process.poll() is None
    assert unstarted.process.wait(30) == 0


def test_a_participant_that_waits_for_work_keeps_the_platform_awake(
    unstarted: PlatformProcess,
) -> None:
    run = Run(unstarted.start(idle_s=1), "polling", sites=2)
    ok(run.push(0, run.assignment(0)["round_id"], moments_of(0)))
    waiting = {"wait_s": 3}
    assert ok(run.clients[0].get("/api/v1/training/rounds", params=waiting)) == []
    assert unstarted.process is not None
    assert unstarted.process.poll() is None
    assert unstarted.process.wait(30) == 0


def test_who_only_looks_on_keeps_nothing_awake(unstarted: PlatformProcess) -> None:
    """The organisation's stream is open, and somebody asks ten times a second."""
    unstarted.start(idle_s=1)
    assert unstarted.process is not None
    client, looked, passive = unstarted.client(), 0, {"Truststram-Passive": "1"}
    params = {"stream": "org", "after": "latest"}
    with unstarted.client().stream("GET", "/api/v1/events", params=params) as answer:
        lines = answer.iter_lines()
        next(lines)
        while unstarted.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):  # it may leave any moment
                ok(client.get("/health"))
                ok(client.get("/api/v1/whoami", headers=passive))
                looked += 1
            time.sleep(0.1)
        list(lines)  # was ended in order: a cut would raise
    assert looked
    assert unstarted.end() == 0
    assert "idle for 1 s" in unstarted.log


def test_a_change_that_calls_itself_passive_still_counts(unstarted: PlatformProcess) -> None:
    unstarted.start(idle_s=1)
    client, began = unstarted.client(headers={"Truststram-Passive": "1"}), time.monotonic()
    while time.monotonic() - began < 2.5:
        ok(client.post("/api/v1/federations", json={"name": "icu"}))
        time.sleep(0.1)
    assert unstarted.process is not None
    assert unstarted.process.wait(30) == 0


def test_the_owner_can_end_it_over_http(unstarted: PlatformProcess) -> None:
    run = Run(unstarted.start(), "ending")
    refused(run.clients[0].post("/api/v1/sandbox/shutdown"), 403, "forbidden")
    assert run.owner.post("/api/v1/sandbox/shutdown").status_code == 202
    assert unstarted.process is not None
    assert unstarted.process.wait(30) == 0


def test_port_and_key_stay_the_same(unstarted: PlatformProcess) -> None:
    first = unstarted.start().state()
    unstarted.end()
    second = unstarted.start().state()
    assert (second["url"], second["api_key"]) == (first["url"], first["api_key"])
    assert second["pid"] != first["pid"]
    unstarted.end()
    port = int(first["url"].rpartition(":")[2])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        third = unstarted.start().state()
    assert third["url"] != first["url"]
    assert third["api_key"] == first["api_key"]


def test_a_lost_state_file_gives_a_new_key_and_ends_the_old_one(
    unstarted: PlatformProcess,
) -> None:
    former = unstarted.start().state()["api_key"]
    unstarted.end()
    (unstarted.home / "sandbox.json").unlink()
    fresh = unstarted.start().state()["api_key"]
    assert fresh != former
    refused(unstarted.client(former).get("/api/v1/whoami"), 401, "authentication_failed")
    assert ok(unstarted.client().get("/api/v1/whoami"))["role"] == "owner"


def test_the_state_is_the_users_alone(unstarted: PlatformProcess) -> None:
    unstarted.start()
    assert unstarted.home.stat().st_mode & 0o777 == 0o700
    state = [] if unstarted.database else ["platform.db"]
    for name in (*state, "sandbox.json", "platform.log", "platform.lock"):
        assert (unstarted.home / name).stat().st_mode & 0o077 == 0, name
    fields = {"url", "api_key", "pid", "instance", "version", "protocol", "started_at"}
    assert unstarted.state().keys() == fields
    health = ok(unstarted.client(None).get("/health"))
    assert health["instance"] == unstarted.state()["instance"]


def test_a_second_platform_on_the_same_folder_is_refused(unstarted: PlatformProcess) -> None:
    before = unstarted.start().state()
    second = unstarted.spawn()
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 1
    assert b"already" in errors
    assert errors.count(b"\n") == 1
    assert unstarted.state() == before
    assert ok(unstarted.client().get("/api/v1/whoami"))


def test_a_newer_database_is_refused_with_one_sentence(unstarted: PlatformProcess) -> None:
    unstarted.start()
    unstarted.end()
    unstarted.sql("UPDATE alembic_version SET version_num = '9999'")
    second = unstarted.spawn()
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 1
    assert errors.count(b"\n") == 1
    assert b"9999" in errors
    assert b"upgrade the package" in errors


def test_a_port_that_is_taken_is_refused_with_one_sentence(unstarted: PlatformProcess) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = unstarted.spawn("--port", str(taken.getsockname()[1]))
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.count(b"\n") == 1
    assert b"--port" in errors


def test_the_log_has_every_request_and_no_secret(unstarted: PlatformProcess) -> None:
    run = Run(unstarted.start(), "logged", sites=2, rounds=1)
    run.play(0)
    run.play(1)
    run.wait("completed")
    key = unstarted.state()["api_key"]
    unstarted.client(None).get(f"/api/v1/models/{key}")
    run.owner.get(f"/api/v1/models/{run.tokens[0]}")
    unstarted.end()
    log = unstarted.log
    for secret in (key, *run.tokens):
        assert secret not in log
        assert secret.partition("_")[2] not in log
    lines = unstarted.access_lines()
    for line in lines:
        wanted = {"time", "principal", "method", "path", "status", "bytes_in", "bytes_out", "ms"}
        assert wanted <= line.keys()
    pushes = [line for line in lines if line["method"] == "PUT" and "update" in line["path"]]
    assert {line["principal"] for line in pushes} == {
        "site:logged/site 1",
        "site:logged/site 2",
    }
    sizes = {len(moments_of(0)), len(moments_of(1)), len(update_of(0, 1)), len(update_of(1, 1))}
    assert {line["bytes_in"] for line in pushes} == sizes
    assert json.loads(log.splitlines()[-1])["message"] == "ended"
