"""A standing platform: TLS, the host's name, a proxy's headers, readiness, and its folder."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from platform_process import PlatformProcess, ok, refused
from serve_process import ServeProcess, make_certificate

from truststram_lab import TrustStramClient
from truststram_lab.exceptions import PlatformUnavailableError

PUBLIC = "https://platform.example.org"


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[ServeProcess]:
    made = ServeProcess(tmp_path / "home")
    yield made
    made.end()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    made = ServeProcess(tmp_path_factory.mktemp("plain") / "home").start()
    yield made
    made.end()


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    made = ServeProcess(tmp_path_factory.mktemp("proxied") / "home")
    made.start("--behind-proxy", "--public-url", PUBLIC)
    yield made
    made.end()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def secure(
    tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]
) -> Iterator[ServeProcess]:
    made = ServeProcess(tmp_path_factory.mktemp("secure") / "home")
    made.start("--tls-cert", str(certificate[0]), "--tls-key", str(certificate[1]))
    yield made
    made.end()


# TLS ---------------------------------------------------------------------------------


def test_the_client_works_over_tls_with_the_key_of_the_setup(
    secure: ServeProcess, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"https://127.0.0.1:{secure.port}"
    assert f" is at {url};" in secure.said
    trusting = ssl.create_default_context(cafile=certificate[0])
    key = secure.set_up(base_url=url, verify=trusting)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with (
        TrustStramClient(api_key=key, base_url=url) as distrusting,
        pytest.raises(PlatformUnavailableError, match="set SSL_CERT_FILE to the PEM file"),
    ):
        distrusting.accounts.whoami()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    for base_url in (url, f"https://localhost:{secure.port}/api/v1"):
        with TrustStramClient(api_key=key, base_url=base_url) as client:
            identity = client.accounts.whoami()
            assert (identity.role, identity.environment) == ("owner", "production")
            assert client.models.create("over-tls-" + str(len(base_url))).name


def test_plain_http_gets_nothing_from_a_tls_port(secure: ServeProcess) -> None:
    with pytest.raises(httpx.TransportError):
        secure.client().get("/health")


def test_old_tls_is_refused(secure: ServeProcess) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert ok(secure.client(base_url=f"https://127.0.0.1:{secure.port}", verify=old).get("/health"))
    before = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    before.check_hostname, before.verify_mode = False, ssl.CERT_NONE
    before.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        before.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(httpx.TransportError):
        secure.client(base_url=f"https://127.0.0.1:{secure.port}", verify=before).get("/health")


def test_a_certificate_that_cannot_be_used_is_one_sentence(
    serving: ServeProcess, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    _, wrong_key = make_certificate(other)
    sealed = tmp_path / "sealed"
    sealed.mkdir()
    sealed_cert, sealed_key = make_certificate(sealed, password=b"secret")
    for cert, key, fact in (
        (certificate[0], wrong_key, "cannot be used"),
        (tmp_path / "none.pem", certificate[1], "No such file"),
        (sealed_cert, sealed_key, "is encrypted"),
    ):
        serving.terminal.unlink(missing_ok=True)
        assert fact in serving.refusal("--tls-cert", str(cert), "--tls-key", str(key))


# What it refuses to be -----------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_without_tls_it_listens_on_loopback_only(serving: ServeProcess, host: str) -> None:
    said = serving.refusal("--host", host)
    assert "--tls-cert" in said
    assert "--behind-proxy" in said
    assert not serving.home.exists()


@pytest.mark.parametrize(
    ("options", "way_out"),
    [
        (("--tls-cert", "a.pem"), "--tls-key"),
        (("--behind-proxy",), "--public-url"),
        (("--trusted-proxy", "10.0.0.1"), "--behind-proxy"),
        (("--behind-proxy", "--public-url", "http://platform.example.org"), "https://"),
        (("--behind-proxy", "--public-url", f"{PUBLIC}/lab"), "without a path"),
        (("--behind-proxy", "--public-url", "https://user:secret@h"), "without a path"),
        (("--public-url", PUBLIC), "--tls-cert"),
        (("--behind-proxy", "--public-url", PUBLIC, "--trusted-proxy", "proxy"), "10.0.0.0/8"),
        (("--host", "no.such.name.invalid"), "127.0.0.1"),
    ],
)
def test_settings_that_contradict_are_one_sentence(
    serving: ServeProcess, options: tuple[str, ...], way_out: str
) -> None:
    assert way_out in serving.refusal(*options)


def test_a_sandbox_and_a_standing_platform_never_share_a_folder(tmp_path: Path) -> None:
    sandbox = PlatformProcess(tmp_path / "sandbox").start()
    sandbox.end()
    assert "sandbox's folder" in ServeProcess(sandbox.home).refusal()
    standing = ServeProcess(tmp_path / "team").start()
    key = standing.set_up()
    standing.end()
    process = PlatformProcess(standing.home).spawn()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"truststram-lab serve" in errors
    standing.start()
    assert ok(standing.client(key).get("/api/v1/whoami"))["role"] == "owner"
    standing.end()


# Names -------------------------------------------------------------------------------


def test_other_names_for_the_host_are_refused(plain: ServeProcess) -> None:
    for host in ("platform.example.org", f"evil.example:{plain.port}", "127.0.0.1", ""):
        for path in ("/health", "/ready", "/api/v1/whoami"):
            answer = plain.client(headers={"Host": host}).get(path)
            refused(answer, 403, "forbidden")
    for name in ("127.0.0.1", "localhost", "LOCALHOST"):
        client = plain.client(headers={"Host": f"{name}:{plain.port}"})
        assert ok(client.get("/health"))["status"] == "ok"


def test_pages_of_other_sites_are_refused(plain: ServeProcess, proxied: ServeProcess) -> None:
    refused(plain.client(headers={"Origin": PUBLIC}).get("/health"), 403, "forbidden")
    public = {"Host": "platform.example.org"}
    assert ok(proxied.client(headers={**public, "Origin": PUBLIC}).get("/health"))
    for origin in ("http://platform.example.org", "https://evil.example", "null"):
        client = proxied.client(headers={**public, "Origin": origin})
        refused(client.get("/health"), 403, "forbidden")


def test_without_a_proxy_its_headers_mean_nothing(plain: ServeProcess) -> None:
    ours = f"127.0.0.1:{plain.port}"
    forged = {"Host": "evil.example", "X-Forwarded-Host": ours}
    refused(plain.client(headers=forged).get("/health"), 403, "forbidden")
    ignored = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "ftp"}
    assert ok(plain.client(headers=ignored).get("/health"))


def test_behind_a_proxy_the_public_name_is_the_only_one(proxied: ServeProcess) -> None:
    assert f" is at {PUBLIC};" in proxied.said
    assert f"truststram-lab setup --url {PUBLIC}" in proxied.said
    for headers in (
        {"Host": "platform.example.org"},
        {"Host": "platform.example.org:443"},
        {"X-Forwarded-Host": "platform.example.org", "X-Forwarded-Proto": "https"},
        {"X-Forwarded-Host": "inner.example, Platform.Example.org"},
    ):
        assert ok(proxied.client(headers=headers).get("/health"))
    for headers in ({}, {"X-Forwarded-Host": "evil.example"}, {"Host": "localhost"}):
        refused(proxied.client(headers=headers).get("/health"), 403, "forbidden")


def test_what_reached_the_proxy_in_the_clear_is_refused(proxied: ServeProcess) -> None:
    headers = {"Host": "platform.example.org", "X-Forwarded-Proto": "http"}
    problem = refused(proxied.client(headers=headers).get("/health"), 403, "forbidden")
    assert "unencrypted" in problem["detail"]


def test_nobody_but_the_owner_shuts_it_down(serving: ServeProcess) -> None:
    serving.start()
    key = serving.set_up()
    refused(serving.client(key).post("/api/v1/sandbox/shutdown"), 403, "forbidden")
    assert serving.end(signal.SIGTERM) == 0


# Readiness ---------------------------------------------------------------------------


def _wait_for(client: httpx.Client, status: int) -> httpx.Response:
    deadline = time.monotonic() + 20
    while (answer := client.get("/ready")).status_code != status:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.1)
    return answer


def test_it_says_that_it_lives_and_that_it_is_ready(plain: ServeProcess) -> None:
    health = ok(plain.client().get("/health"))
    assert health["instance"] == plain.state()["instance"]
    assert ok(plain.client().get("/ready")) == {
        "status": "ready",
        "database": "ok",
        "migrations": "ok",
        "files": "ok",
    }


def test_it_is_not_ready_without_its_files_or_its_revision(serving: ServeProcess) -> None:
    serving.start()
    client = serving.client()
    assert ok(client.get("/ready"))
    moved = serving.home / "elsewhere"
    (serving.home / "blobs").rename(moved)
    problem = refused(_wait_for(client, 503), 503, "unavailable")
    assert problem["detail"].startswith("The file store cannot be written")
    assert str(serving.home) not in str(problem)
    assert ok(client.get("/health"))  # it lives all the same
    moved.rename(serving.home / "blobs")
    _wait_for(client, 200)
    with closing(sqlite3.connect(serving.home / "platform.db", timeout=20)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '0000'")
    problem = refused(_wait_for(client, 503), 503, "unavailable")
    assert "revision" in problem["detail"]
    with closing(sqlite3.connect(serving.home / "platform.db", timeout=20)) as database, database:
        database.execute("DROP TABLE alembic_version")
    time.sleep(1.1)
    assert "does not answer" in client.get("/ready").json()["detail"]


# The folder --------------------------------------------------------------------------


def test_no_key_lies_in_the_folder_and_it_is_the_users_alone(plain: ServeProcess) -> None:
    assert plain.home.stat().st_mode & 0o777 == 0o700
    for name in ("serve.json", "platform.db", "platform.log"):
        assert (plain.home / name).stat().st_mode & 0o077 == 0, name
    fields = {"url", "pid", "instance", "version", "protocol", "started_at"}
    assert plain.state().keys() == fields
    assert not (plain.home / "sandbox.json").exists()


def test_the_command_runs_the_same_platform(tmp_path: Path) -> None:
    serving = ServeProcess(tmp_path / "home")
    with serving.terminal.open("wb") as output:
        serving.process = subprocess.Popen(
            [sys.executable, "-m", "truststram_lab.cli", "serve", "--home", str(serving.home),
             "--port", str(serving.port)],
            stdout=output, stderr=subprocess.STDOUT, env={**os.environ, "TRUSTSTRAM_IDLE_S": "1"},
        )  # fmt: skip
    deadline = time.monotonic() + 60
    while " is at " not in serving.said:
        assert serving.process.poll() is None, serving.said
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # exec: the process that was started is the platform itself, and it never idles out
    assert serving.state()["pid"] == serving.process.pid
    time.sleep(2.5)
    assert ok(serving.client().get("/ready"))
    assert serving.end() == 0
    shutil.rmtree(serving.home)
