"""A platform whose certificate a private authority signed: refused with the way out, then used."""

from __future__ import annotations

import asyncio

import pytest
from private_authority import Issued, issue

from truststram_lab.exceptions import ConfigurationError, PlatformUnavailableError
from truststram_lab.schemas.base import PROTOCOL
from truststram_lab.transport import Call, Target
from truststram_lab.transport.drivers import AsyncHttpDriver, HttpDriver
from truststram_lab.transport.engine import RetryPolicy

RAW: Call[bytes] = Call("GET", "/raw", bytes)
QUICK = RetryPolicy(attempts=2, base_s=0.001)


@pytest.fixture(params=["sync", "async"])
def fetch(request):
    """A function that makes the one call of a new driver."""

    def sync(url: str) -> bytes:
        driver = HttpDriver(Target(url, "tsk-1", PROTOCOL), policy=QUICK)
        try:
            return driver.send(RAW)
        finally:
            driver.close()

    async def awaited(url: str) -> bytes:
        driver = AsyncHttpDriver(Target(url, "tsk-1", PROTOCOL), policy=QUICK)
        try:
            return await driver.asend(RAW)
        finally:
            await driver.aclose()

    return sync if request.param == "sync" else lambda url: asyncio.run(awaited(url))


@pytest.fixture(autouse=True)
def _no_setting(monkeypatch):
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def private(tmp_path) -> Issued:
    return issue(tmp_path)


def test_an_unknown_authority_is_named_with_the_setting_that_makes_it_known(
    serve, fetch, private, monkeypatch
):
    server = serve(lambda asked, wire: wire.answer(b"in"), private.context())
    with pytest.raises(PlatformUnavailableError) as caught:
        fetch(server.url)
    said = caught.value.message
    assert server.url in said
    assert "unable to get local issuer certificate" in said
    assert "SSL_CERT_FILE" in said
    assert "_ssl.c" not in said
    assert said.count(". ") == 0
    assert server.asked == []
    # and that is what makes it work, in the same process
    monkeypatch.setenv("SSL_CERT_FILE", str(private.authority))
    assert fetch(server.url) == b"in"


def test_another_authoritys_file_does_not_help(serve, fetch, private, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(issue(other).authority))
    server = serve(lambda asked, wire: wire.answer(), private.context())
    with pytest.raises(PlatformUnavailableError, match="SSL_CERT_FILE"):
        fetch(server.url)


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_a_setting_that_cannot_be_used_is_one_sentence(
    serve, fetch, private, tmp_path, monkeypatch, content
):
    file = tmp_path / "typo.pem"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    server = serve(lambda asked, wire: wire.answer(), private.context())
    with pytest.raises(ConfigurationError, match=f"SSL_CERT_FILE={file} cannot be used"):
        fetch(server.url)


@pytest.mark.parametrize(
    ("options", "told", "way_out"),
    [
        ({"address": "127.0.0.2"}, "mismatch", "use the address that the certificate"),
        ({"days": -2}, "expired", "administrator renew it"),
    ],
)
def test_what_no_authority_mends_is_not_sent_to_look_for_one(
    serve, fetch, tmp_path, monkeypatch, options, told, way_out
):
    made = issue(tmp_path, **options)
    server = serve(lambda asked, wire: wire.answer(), made.context())
    monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
    with pytest.raises(PlatformUnavailableError, match=told) as caught:
        fetch(server.url)
    assert way_out in caught.value.message
    assert "SSL_CERT_FILE" not in caught.value.message
