"""The drivers over real sockets."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import socket
import ssl
import threading
import time
import traceback

import pytest

from truststram_lab.exceptions import (
    ModelNotFoundError,
    PlatformUnavailableError,
    RequestTimeoutError,
)
from truststram_lab.schemas.base import PROTOCOL, Health
from truststram_lab.transport import Call, Target
from truststram_lab.transport.drivers import AsyncHttpDriver, HttpDriver
from truststram_lab.transport.engine import RetryPolicy

SECRET = "tsk-51be09d3a7c24f68"
QUICK = RetryPolicy(attempts=2, base_s=0.001)
HEALTH: Call[Health] = Call("GET", "/health", Health)
RAW: Call[bytes] = Call("GET", "/raw", bytes)
ALIVE = {"status": "ok", "version": "1", "protocol": PROTOCOL, "instance": "i"}


def at(server, protocol=PROTOCOL):
    return Target(server.url, SECRET, protocol)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


async def asend_all(target, calls, driver_kind=AsyncHttpDriver):
    driver = driver_kind(target, policy=QUICK)
    try:
        return driver, await asyncio.gather(*map(driver.asend, calls))
    finally:
        await driver.aclose()


def send_all(target, calls):
    driver = HttpDriver(target, policy=QUICK)
    try:
        return driver, [driver.send(call) for call in calls]
    finally:
        driver.close()


def send_async(target, calls):
    return asyncio.run(asend_all(target, calls))


both = pytest.mark.parametrize("send", [send_all, send_async], ids=["sync", "async"])


@both
def test_a_call_carries_the_credential_and_brings_its_value(serve, send):
    server = serve(lambda asked, wire: wire.answer_json(ALIVE))
    _, [health] = send(at(server), [HEALTH])
    assert health.instance == "i"
    assert server.asked[0].headers["authorization"] == f"Bearer {SECRET}"
    assert server.asked[0].headers["user-agent"].startswith("truststram-lab/")


@both
def test_the_platforms_problem_is_our_error_again(serve, send):
    problem = ModelNotFoundError("No model 'a'.", model_id="a", choices=["b"]).to_problem()
    server = serve(lambda asked, wire: wire.answer_json(problem, 404))
    with pytest.raises(ModelNotFoundError, match="No model") as caught:
        send(at(server), [RAW])
    assert (caught.value.model_id, caught.value.choices) == ("a", ["b"])


@both
def test_every_byte_is_counted_as_the_other_end_counts_it(serve, send):
    server = serve(lambda asked, wire: wire.answer(b"x" * 70_000, kind="text/plain"))
    push: Call[bytes] = Call("PUT", "/up", bytes, content=b"y" * 123_456)
    driver, _ = send(at(server), [RAW, push, RAW])
    server.close()
    assert driver.traffic.sent_bytes == server.received > 123_456
    assert driver.traffic.received_bytes == server.sent > 210_000


@both
def test_retries_and_the_handshake_with_an_unknown_platform_are_counted_too(serve, send):
    def answer(asked, wire):
        if asked.path == "/health":
            return wire.answer_json(ALIVE)
        return wire.answer(status=503) if len(server.asked) < 3 else wire.answer(b"late")

    server = serve(answer)
    driver, [body] = send(at(server, None), [RAW])
    server.close()
    assert body == b"late"
    assert [asked.path for asked in server.asked] == ["/health", "/raw", "/raw"]
    assert driver.traffic.sent_bytes == server.received
    assert driver.traffic.received_bytes == server.sent


@pytest.fixture
def certificate(tmp_path, monkeypatch):
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, secret = tmp_path / "cert.pem", tmp_path / "key.pem"
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, secret)
    monkeypatch.setenv("SSL_CERT_FILE", str(chain))
    return context


@both
def test_with_tls_the_records_are_counted_not_the_text(serve, send, certificate):
    server = serve(lambda asked, wire: wire.answer(b"x" * 50_000, kind="t/t"), certificate)
    driver, bodies = send(at(server), [RAW, RAW])
    server.close()
    assert [len(body) for body in bodies] == [50_000, 50_000]
    assert driver.traffic.sent_bytes == server.received
    assert driver.traffic.received_bytes == server.sent > 100_000


@both
def test_a_certificate_nobody_vouches_for_is_refused_before_anything_is_sent(
    serve, send, certificate, monkeypatch
):
    server = serve(lambda asked, wire: wire.answer(), certificate)
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(PlatformUnavailableError, match=r"self-signed.*SSL_CERT_FILE"):
        send(at(server), [RAW])
    assert server.asked == []


@both
def test_nobody_there_names_the_address(send):
    port = free_port()
    with pytest.raises(PlatformUnavailableError, match=f"127.0.0.1:{port}"):
        send(Target(f"http://127.0.0.1:{port}", SECRET, PROTOCOL), [RAW])


@both
def test_a_platform_that_moved_is_followed(serve, send):
    server = serve(lambda asked, wire: wire.answer(b"here"))
    asked: list[bool] = []

    def provider(*, failed: bool = False) -> Target:
        asked.append(failed)
        url = server.url if failed else f"http://127.0.0.1:{free_port()}"
        return Target(url, SECRET, PROTOCOL)

    _, bodies = send(provider, [RAW] * 5)
    assert bodies == [b"here"] * 5
    assert asked == [False, True]


@both
def test_an_answer_that_takes_too_long_is_a_timeout(serve, send):
    release = threading.Event()
    server = serve(lambda asked, wire: release.wait(5) and False)
    slow: Call[bytes] = Call("POST", "/x", bytes, timeout_s=0.05, idempotency_key="")
    try:
        with pytest.raises(RequestTimeoutError, match=r"0\.05 s"):
            send(at(server), [slow])
    finally:
        release.set()


@both
def test_a_connection_cut_in_the_middle_is_retried_on_another(serve, send):
    def answer(asked, wire):
        if len(server.asked) == 1:
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            return False
        return wire.answer(b"whole")

    server = serve(answer)
    assert send(at(server), [RAW])[1] == [b"whole"]
    assert server.connections == 2


@both
def test_an_unsafe_change_is_not_repeated_after_a_cut(serve, send):
    server = serve(lambda asked, wire: False)
    unsafe: Call[bytes] = Call("POST", "/x", bytes, content=b"1", idempotency_key="")
    with pytest.raises(PlatformUnavailableError, match="broke"):
        send(at(server), [unsafe])
    assert len(server.asked) == 1


def test_the_environments_proxy_is_not_used_for_this_computer(serve, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    server = serve(lambda asked, wire: wire.answer(b"direct"))
    assert send_all(at(server), [RAW])[1] == [b"direct"]


def test_a_proxy_of_the_environment_is_used_for_other_computers(serve, monkeypatch):
    server = serve(lambda asked, wire: wire.answer(status=502) or False)
    monkeypatch.setenv("https_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(PlatformUnavailableError):
        send_all(Target("https://platform.example.org", SECRET, PROTOCOL), [RAW])
    assert server.asked[0].method == "CONNECT"
    assert SECRET not in str(server.asked)


def test_connections_are_kept_and_shared_by_threads(serve):
    server = serve(lambda asked, wire: wire.answer(asked.body))
    driver = HttpDriver(at(server))
    wrong: list[bytes] = []

    def work(number: int) -> None:
        for turn in range(25):
            body = f"{number}/{turn}".encode()
            echo: Call[bytes] = Call("PUT", "/echo", bytes, content=body)
            if driver.send(echo) != body:
                wrong.append(body)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    driver.close()
    assert not wrong
    assert len(server.asked) == 200
    assert server.connections <= 8


def test_closing_ends_a_call_that_waits_in_another_thread(serve):
    asked, release = threading.Event(), threading.Event()

    def answer(_asked, _wire):
        asked.set()
        release.wait(10)
        return False

    driver = HttpDriver(at(serve(answer)))
    outcome: list[BaseException] = []

    def wait() -> None:
        try:
            driver.send(RAW)
        except PlatformUnavailableError as error:
            outcome.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        assert asked.wait(5)
        driver.close()
        thread.join(5)
        assert not thread.is_alive()
    finally:
        release.set()
    assert "closed" in str(outcome[0])
    with pytest.raises(PlatformUnavailableError, match="closed"):
        driver.send(RAW)


def test_closing_ends_a_pause_between_attempts(serve):
    server = serve(lambda asked, wire: wire.answer(status=503, Retry_After="50"))
    driver = HttpDriver(at(server))

    def wait() -> None:
        with pytest.raises(PlatformUnavailableError, match="closed"):
            driver.send(RAW)

    thread = threading.Thread(target=wait)
    thread.start()
    while not server.asked:
        time.sleep(0.005)
    driver.close()
    thread.join(5)
    assert not thread.is_alive()


def test_a_cancelled_task_leaves_the_driver_usable(serve):
    release = threading.Event()

    def answer(asked, wire):
        return wire.answer(b"ok") if asked.path == "/raw" else release.wait(10) and False

    server = serve(answer)

    async def scenario() -> bytes:
        driver = AsyncHttpDriver(at(server))
        slow = asyncio.create_task(driver.asend(Call("GET", "/slow", bytes)))
        while not server.asked:
            await asyncio.sleep(0.005)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        try:
            return await driver.asend(RAW)
        finally:
            release.set()
            await driver.aclose()

    assert asyncio.run(scenario()) == b"ok"


def test_a_hundred_calls_at_once_share_the_connections(serve):
    server = serve(lambda asked, wire: wire.answer(asked.body))
    calls = [Call("PUT", "/e", bytes, content=str(n).encode()) for n in range(100)]
    assert send_async(at(server), calls)[1] == [str(n).encode() for n in range(100)]
    assert server.connections <= 32


@both
def test_the_credential_is_not_in_a_verbose_traceback_of_our_frames(serve, send):
    server = serve(lambda asked, wire: False)
    with pytest.raises(PlatformUnavailableError) as caught:
        send(at(server), [RAW])
    # Everything chained to it, with the variables of every frame but this file's.
    whole = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    pending, text = [whole], ["".join(traceback.format_exception(caught.value))]
    while pending:
        part = pending.pop()
        text += [
            value
            for frame in part.stack
            if frame.filename != __file__
            for value in (frame.locals or {}).values()
        ]
        pending += [link for link in (part.__cause__, part.__context__) if link]
    assert SECRET not in "\n".join(text)


def test_a_driver_nobody_closed_gives_its_socket_back(serve):
    server = serve(lambda asked, wire: wire.answer(b"ok"))
    driver = HttpDriver(at(server))
    driver.send(RAW)
    del driver  # an unclosed socket would be a ResourceWarning, and warnings are errors
