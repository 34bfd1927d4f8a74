"""The sandbox's process, with the real platform."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import truststram_lab
from truststram_lab import sandbox
from truststram_lab.client import TrustStramClient
from truststram_lab.exceptions import (
    ConfigurationError,
    InvalidInputError,
    PlatformUnavailableError,
    RequestTimeoutError,
)
from truststram_lab.sandbox.process import is_alive
from truststram_lab.schemas.base import PROTOCOL

ROOT = Path(truststram_lab.__file__).parent.parent


def run_python(code: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_until_dead(pid: int) -> None:
    while is_alive(pid):
        time.sleep(0.02)


def test_it_is_started_once_and_found_again(home):
    first = sandbox.ensure()
    again = sandbox.ensure()
    assert (first.started, again.started) == (True, False)
    assert (first.pid, first.instance, first.url) == (again.pid, again.instance, again.url)
    assert sandbox.status() == again
    assert first.protocol == PROTOCOL
    assert first.url.startswith("http://127.0.0.1:")
    assert os.getsid(first.pid) == first.pid != os.getsid(0)


def test_its_key_is_private_and_not_shown(home):
    state = sandbox.ensure()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    for name in ("sandbox.json", "platform.log", "sandbox.lock"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600
    assert state.api_key not in repr(state)
    assert state.api_key not in (home / "platform.log").read_text()


def test_six_processes_that_race_end_with_one_server(home):
    code = "from truststram_lab import sandbox; s = sandbox.ensure(); print(s.pid, s.started)"
    racers = [run_python(code) for _ in range(6)]
    told = [racer.communicate(timeout=120)[0].split() for racer in racers]
    assert len({pid for pid, _ in told}) == 1
    assert sorted(started for _, started in told) == ["False"] * 5 + ["True"]


def test_threads_that_race_end_with_one_server(home):
    found = []
    threads = [threading.Thread(target=lambda: found.append(sandbox.ensure())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({state.pid for state in found}) == 1
    assert len(found) == 6


def test_after_kill_9_the_next_call_continues_with_the_same_state(home):
    with TrustStramClient(environment="sandbox") as client:
        made = client.models.create("kept")
        before = sandbox.ensure()
        os.kill(before.pid, signal.SIGKILL)
        wait_until_dead(before.pid)
        assert client.models.get("kept") == made
        after = sandbox.ensure()
    assert after.pid != before.pid
    assert after.api_key == before.api_key


def test_an_idle_sandbox_leaves_and_comes_back(home, monkeypatch):
    monkeypatch.setenv("TRUSTSTRAM_IDLE_S", "0.3")
    with TrustStramClient(environment="sandbox") as client:
        assert client.accounts.whoami().role == "owner"
        wait_until_dead(sandbox.ensure().pid)
        assert sandbox.status() is None
        monkeypatch.setenv("TRUSTSTRAM_IDLE_S", "600")
        assert client.accounts.whoami().role == "owner"


def test_stopping_keeps_the_state_and_says_whether_there_was_one(home):
    assert sandbox.stop() is False
    pid = sandbox.ensure().pid
    assert sandbox.stop() is True
    assert not is_alive(pid)
    assert sandbox.status() is None
    assert sandbox.stop() is False
    assert (home / "platform.db").exists()


def test_looking_never_starts_or_makes_anything(home):
    assert sandbox.status() is None
    assert sandbox.stop() is False
    assert not home.exists()


def test_a_reset_wants_to_be_confirmed_and_deletes_what_is_its_own(home):
    with TrustStramClient(environment="sandbox") as client:
        client.models.create("gone")
        digest = client.blobs.put(b"blob")
        (home / "thesis.txt").write_text("not the sandbox's")
        with pytest.raises(InvalidInputError, match="confirm=True"):
            sandbox.reset()
        assert client.models.get("gone").name == "gone"
        sandbox.reset(confirm=True)
        assert {path.name for path in home.iterdir()} <= {
            "thesis.txt",
            "sandbox.lock",
            "platform.lock",
        }
        # The client finds the new one, with its new key, by itself.
        assert client.models.list().items == []
        assert digest not in {path.name for path in home.rglob("*")}


@pytest.mark.parametrize("left", ["file", "dangling link"])
def test_a_reset_does_not_touch_a_standing_platforms_folder(tmp_path, left):
    folder = tmp_path / "team"
    (folder / "blobs" / "incoming").mkdir(parents=True)
    for name in ("platform.db", "platform.db-wal", "platform.log", "blobs/weights"):
        (folder / name).write_text("the team's")
    if left == "file":
        (folder / "serve.json").write_text('{"url": "https://platform.example.org"}')
    else:
        (folder / "serve.json").symlink_to(tmp_path / "none")
    before = {path: path.lstat() for path in folder.rglob("*")}
    with pytest.raises(ConfigurationError) as caught:
        sandbox.reset(folder, confirm=True)
    assert caught.value.message == (
        f"{folder} is a standing platform's folder, whose models and runs are a team's, so it is "
        "not reset; set TRUSTSTRAM_HOME to the sandbox's folder."
    )
    assert {path: path.lstat() for path in folder.rglob("*")} == before


def test_a_reset_leaves_a_platform_that_serves_a_team_alone(home):
    command = [sys.executable, "-m", "truststram_lab.server", "serve", "--home", str(home)]
    serving = subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert serving.stdout is not None
        assert " is at " in serving.stdout.readline()
        with pytest.raises(ConfigurationError, match="not reset"):
            sandbox.reset(confirm=True)
        assert serving.poll() is None
        assert not (home / "sandbox.lock").exists()
    finally:
        serving.terminate()
        serving.communicate(timeout=30)
    with pytest.raises(ConfigurationError, match="not reset"):  # nor while it does not run
        sandbox.reset(confirm=True)
    assert (home / "platform.db").exists()


class Impostor:
    """Something else that listens on this computer."""

    def __init__(self, body: bytes, status: int = 200) -> None:
        self.headers: list[str] = []
        impostor = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                impostor.headers += [*map(str.lower, self.headers.keys())]
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def leave_state(home: Path, **changes: object) -> None:
    home.mkdir(mode=0o700, exist_ok=True)
    state = {
        "url": "http://127.0.0.1:1",
        "api_key": "tsk_left_behind",
        "pid": 2**22 + 1,
        "instance": "former",
        "version": "1.0.0",
        "protocol": PROTOCOL,
        "started_at": "2026-01-01T00:00:00+00:00",
    }
    (home / "sandbox.json").write_text(json.dumps({**state, **changes}))


def health(**changes: object) -> bytes:
    body = {"status": "ok", "version": "1.0.0", "protocol": PROTOCOL, "instance": "former"}
    return json.dumps({**body, **changes}).encode()


@pytest.mark.parametrize(
    ("body", "status"),
    [(health(instance="another"), 200), (b"<html>", 200), (b"", 404), (b"", 500)],
)
def test_a_foreign_process_on_the_port_is_not_the_sandbox(home, body, status):
    impostor = Impostor(body, status)
    try:
        leave_state(home, url=impostor.url, pid=os.getpid())
        assert sandbox.status() is None
    finally:
        impostor.close()


def test_a_foreign_process_on_the_port_is_replaced_and_never_sees_the_key(home):
    impostor = Impostor(health(instance="another"))
    try:
        leave_state(home, url=impostor.url, pid=os.getpid())
        state = sandbox.ensure()
        assert state.started
        assert state.url != impostor.url
        assert impostor.headers
        assert "authorization" not in impostor.headers
    finally:
        impostor.close()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"url": 5}', "\x00"])
def test_a_damaged_state_file_says_nothing(home, content):
    home.mkdir(mode=0o700)
    (home / "sandbox.json").write_text(content)
    assert sandbox.status() is None


def test_a_damaged_state_file_is_replaced(home):
    home.mkdir(mode=0o700)
    (home / "sandbox.json").write_text("{")
    assert sandbox.ensure().started


def test_a_state_file_that_points_elsewhere_is_not_believed(home):
    leave_state(home, url="http://attacker.example.org")
    assert sandbox.status() is None


def test_a_dead_process_is_replaced(home):
    leave_state(home)
    assert sandbox.ensure().started


def test_another_protocol_is_refused_with_the_way_out(home):
    other = Impostor(health(protocol=PROTOCOL + 1))
    try:
        leave_state(home, url=other.url, protocol=PROTOCOL + 1, pid=os.getpid())
        with pytest.raises(ConfigurationError, match="TRUSTSTRAM_HOME") as caught:
            sandbox.ensure()
        assert f"protocol {PROTOCOL + 1}" in str(caught.value)
    finally:
        other.close()


def test_stop_signals_nobody_who_only_has_the_number(home):
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        leave_state(home, pid=bystander.pid)
        assert sandbox.stop() is False
        impostor = Impostor(health(instance="another"))
        leave_state(home, url=impostor.url, pid=bystander.pid)
        assert sandbox.stop() is False
        impostor.close()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_failed_start_shows_the_last_words_and_the_log(home):
    home.mkdir(mode=0o700)
    (home / "platform.db").write_bytes(b"this is no database, " * 100)
    with pytest.raises(PlatformUnavailableError, match="did not start") as caught:
        sandbox.ensure()
    assert str(home / "platform.log") in str(caught.value)
    assert "database" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_busy_sandbox_is_waited_for_and_not_doubled(home, monkeypatch):
    monkeypatch.setattr("truststram_lab.sandbox.process._HEALTH_S", 0.2)
    state = sandbox.ensure()
    os.kill(state.pid, signal.SIGSTOP)
    try:
        with pytest.raises(RequestTimeoutError, match="does not answer"):
            sandbox.ensure(deadline_s=0.1)
    finally:
        os.kill(state.pid, signal.SIGCONT)
    assert sandbox.ensure().pid == state.pid


def test_a_lock_that_is_never_released_is_an_error(home):
    import fcntl

    home.mkdir(mode=0o700)
    with (home / "sandbox.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RequestTimeoutError, match="Another process"):
            sandbox.ensure(deadline_s=0.1)


def test_a_folder_that_cannot_be_used_says_what_to_set(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("TRUSTSTRAM_HOME", str(blocked / "home"))
    with pytest.raises(ConfigurationError, match="TRUSTSTRAM_HOME"):
        sandbox.ensure()


def test_a_folder_open_to_others_is_closed(home):
    home.mkdir(mode=0o755)
    sandbox.ensure()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_the_client_side_loads_neither_the_platform_nor_anything_heavy(home):
    code = (
        "import sys\n"
        "from truststram_lab import sandbox\n"
        "from truststram_lab.client import TrustStramClient\n"
        "with TrustStramClient() as client: client.accounts.whoami()\n"
        "names = ['truststram_lab.server', 'torch', 'pandas', 'numpy', 'sklearn', 'fastapi',"
        " 'uvicorn', 'sqlalchemy', 'IPython', 'keyring']\n"
        "print([name for name in names if name in sys.modules])\n"
    )
    assert run_python(code).communicate(timeout=120)[0].strip() == "[]"


def test_a_module_beside_the_notebook_does_not_replace_the_platforms(home, tmp_path, monkeypatch):
    (tmp_path / "uvicorn.py").write_text("raise SystemExit('the wrong uvicorn')")
    (tmp_path / "truststram_lab").mkdir()
    monkeypatch.chdir(tmp_path)
    assert sandbox.ensure().started


def test_a_key_to_another_platform_does_not_reach_the_process(home, monkeypatch):
    monkeypatch.setenv("TRUSTSTRAM_API_KEY", "tsk_production")
    environ = Path(f"/proc/{sandbox.ensure().pid}/environ")
    if not environ.exists():
        pytest.skip("needs /proc")
    assert b"tsk_production" not in environ.read_bytes()


@pytest.mark.parametrize(("version", "replaced"), [("4.3.9", True), ("99.0.0", False)])
def test_an_older_version_is_replaced_with_its_state_and_a_newer_one_is_used(
    home, version, replaced
):
    first = sandbox.ensure()
    path = home / "sandbox.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": version}))
    second = sandbox.ensure()
    assert (second.pid != first.pid) is replaced
    assert second.api_key == first.api_key
    assert is_alive(first.pid) is not replaced
