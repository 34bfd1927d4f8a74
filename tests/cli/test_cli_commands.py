"""``truststram-lab``: set a platform up, report on this computer, describe the API."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import COMMAND, Platform, run

from truststram_lab import TrustStramClient
from truststram_lab.cli import main
from truststram_lab.exceptions import AuthenticationError


def test_the_key_of_the_setup_works_in_a_client(serving: Platform) -> None:
    wrong = run("setup", "--url", serving.url, typed="tsk_setup_wrong\n")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr.count("\n") == 1
    assert "from its terminal" in wrong.stderr
    assert "tsk_setup_wrong" not in wrong.stderr

    done = run("setup", "--url", f"{serving.url}/", "--name", "Ada", typed=f"{serving.token}\n")
    assert done.returncode == 0, done.stderr
    keys = re.findall(r"tsk_\S+", done.stdout)
    assert len(keys) == 1
    assert serving.token not in done.stdout + done.stderr
    with TrustStramClient(api_key=keys[0], base_url=serving.url) as client:
        identity = client.accounts.whoami()
        assert (identity.name, identity.role) == ("Ada", "owner")

    again = run("admin-key", "--url", serving.url, typed=f"{serving.token}\n")
    assert again.returncode == 1
    assert "has its administrator" in again.stderr


def test_a_lost_key_is_replaced_by_hand_on_the_platforms_machine(
    serving: Platform, tmp_path: Path
) -> None:
    def set_up(platform: Platform) -> str:
        done = run("setup", "--url", platform.url, "--name", "Ada", typed=f"{platform.token}\n")
        assert done.returncode == 0, done.stderr
        return re.findall(r"tsk_\S+", done.stdout)[0]

    lost = set_up(serving)
    running = run("serve", "--home", str(tmp_path / "home"), "--port", "0", "--reset-administrator")
    assert (running.returncode, running.stdout) == (1, "")
    assert "stop it, and start it once with --reset-administrator." in running.stderr
    serving.end()

    again = Platform(tmp_path, "--reset-administrator")
    try:
        key = set_up(again)
        with TrustStramClient(api_key=key, base_url=again.url) as client:
            assert client.accounts.whoami().name == "Ada"
        with (
            TrustStramClient(api_key=lost, base_url=again.url) as client,
            pytest.raises(AuthenticationError),
        ):
            client.accounts.whoami()
        taken = run("setup", "--url", again.url, typed=f"{again.token}\n")
        assert "start the platform once with --reset-administrator" in taken.stderr
    finally:
        again.end()


def test_a_typed_token_is_not_shown(serving: Platform) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "setup", "--url", serving.url],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + 60
    while b"Setup token: " not in shown:
        assert time.monotonic() < deadline
        shown += os.read(ours, 4096)
    os.write(ours, f"{serving.token}\n".encode())
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the terminal's other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert process.wait(30) == 0, shown
    assert b"tsk_" in shown
    assert serving.token.encode() not in shown


@pytest.mark.parametrize(
    ("arguments", "typed", "fact"),
    [
        (("--url", "http://platform.example.org"), "x\n", "unencrypted"),
        (("--url", "http://127.0.0.1:9"), "\n", "No setup token"),
        (("--url", "http://127.0.0.1:9", "--name", "a\nb"), "x\n", "--name"),
        (("--url", "http://127.0.0.1:9", "--name", "ada"), "x" * 300, "well-formed"),
        (("--url", "http://127.0.0.1:9", "--name", "ada"), "secret\n", "Nobody answers"),
    ],
)
def test_a_setup_that_cannot_be_is_one_sentence(
    arguments: tuple[str, ...], typed: str, fact: str
) -> None:
    done = run("setup", *arguments, typed=typed)
    assert (done.returncode, done.stdout) == (1, "")
    assert fact in done.stderr
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr


def test_the_doctors_report_is_safe_to_paste(tmp_path: Path) -> None:
    home = tmp_path / "private-home"
    done = run(
        "doctor",
        TRUSTSTRAM_HOME=str(home),
        TRUSTSTRAM_API_KEY="tsk_very_secret_key",
        TRUSTSTRAM_BASE_URL="http://127.0.0.1:9/",
    )
    assert done.returncode == 0, done.stderr
    for fact in ("truststram-lab", "TRUSTSTRAM_API_KEY", "PlatformUnavailableError", "not running"):
        assert fact in done.stdout
    for secret in ("tsk_very", "private-home", str(tmp_path), "127.0.0.1"):
        assert secret not in done.stdout + done.stderr
    assert not home.exists()  # it looks, and starts nothing


def test_the_doctor_names_a_missing_key(tmp_path: Path) -> None:
    settings = {"TRUSTSTRAM_BASE_URL": "https://h.example", "TRUSTSTRAM_TOKEN_STORAGE": "memory"}
    done = run("doctor", TRUSTSTRAM_HOME=str(tmp_path), **settings)
    assert done.returncode == 0, done.stderr
    assert "no: AuthenticationError" in done.stdout


def test_the_doctor_of_a_notebook_tells_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from truststram_lab import verbs
    from truststram_lab.client.diagnostics import environment_report

    for name in [name for name in os.environ if name.startswith(("TRUSTSTRAM_", "EDGEML_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TRUSTSTRAM_HOME", str(tmp_path))
    report = verbs.doctor().sections
    assert report == environment_report(None)
    assert report["Platform"] == {"signed in": "no"}
    assert report["Settings"] == {"TRUSTSTRAM_HOME": "set"}
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for section, facts in report.items():
        assert section in shown
        for value in facts.values():
            assert value in shown


def test_openapi_prints_the_document() -> None:
    done = run("openapi")
    assert done.returncode == 0, done.stderr
    assert "/api/v1/setup" in json.loads(done.stdout)["paths"]


def test_the_command_line_loads_no_platform() -> None:
    code = (
        "import sys; from truststram_lab.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([n for n in ('truststram_lab.server', 'fastapi', 'torch', 'httpx') "
        "if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for command in ("demo", "lab", "serve", "setup", "openapi", "doctor"):
        assert re.search(rf"^ +{command}\b", done.stdout, re.MULTILINE)


def test_serve_explains_itself() -> None:
    done = run("serve", "--help")
    assert done.returncode == 0
    assert "usage: truststram-lab serve" in done.stdout
    refused = run("serve", "--home", "unused", "--host", "0.0.0.0")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert not Path("unused").exists()
