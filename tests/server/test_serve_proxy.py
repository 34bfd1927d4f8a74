"""Which of a proxy's headers are believed, and from whom; which names are answered."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from truststram_lab.exceptions import (
    ConfigurationError,
    PermissionDeniedError,
    PlatformUnavailableError,
)
from truststram_lab.server.lifecycle import Lifecycle, ReadinessProbe
from truststram_lab.server.security import OPEN_DOORS, STANDING_DOORS, Forwarded, scope_for
from truststram_lab.server.settings import Front

PUBLIC = "https://platform.example.org"


def _through(peer: str | None, headers: dict[str, str], *trusted: str) -> dict[str, Any]:
    """What the application sees of a request from ``peer``."""
    front = Front(behind_proxy=True, public_url=PUBLIC, trusted_proxies=trusted)
    seen: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http",
        "scheme": "http",
        "client": None if peer is None else (peer, 4000),
        "headers": raw,
    }
    before = {**scope, "headers": list(raw)}
    asyncio.run(Forwarded(app, front.proxies, front.scheme)(scope, None, None))
    assert scope == before  # the outer layers keep what really came
    headers_seen = {name.decode(): value.decode() for name, value in seen[0]["headers"]}
    return {"scheme": seen[0]["scheme"], "client": seen[0]["client"], **headers_seen}


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_a_proxy_at_loopback_is_believed(peer: str) -> None:
    seen = _through(
        peer,
        {
            "Host": "inner",
            "X-Forwarded-Host": "platform.example.org",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-For": "198.51.100.7",
        },
    )
    assert seen["host"] == "platform.example.org"
    assert seen["scheme"] == "https"
    assert seen["client"] == ("198.51.100.7", 0)


@pytest.mark.parametrize("peer", ["203.0.113.9", "10.1.2.3", "fe80::1", "unix", None])
def test_anybody_else_is_not(peer: str | None) -> None:
    with pytest.raises(PermissionDeniedError, match="--trusted-proxy"):
        _through(peer, {"Host": "platform.example.org", "X-Forwarded-Proto": "https"})


def test_a_named_proxy_is_believed() -> None:
    for trusted in ("203.0.113.9", "203.0.113.0/24"):
        assert _through("203.0.113.9", {"Host": "h"}, trusted)["scheme"] == "https"
    with pytest.raises(PermissionDeniedError):
        _through("203.0.114.9", {"Host": "h"}, "203.0.113.0/24")


def test_a_caller_cannot_forge_what_the_proxy_appends() -> None:
    seen = _through(
        "127.0.0.1",
        {
            "Host": "h",
            "X-Forwarded-For": "6.6.6.6, 198.51.100.7, 127.0.0.1",
            "X-Forwarded-Host": "evil.example, platform.example.org",
        },
    )
    assert seen["client"] == ("198.51.100.7", 0)
    assert seen["host"] == "platform.example.org"
    with pytest.raises(PermissionDeniedError, match="unencrypted"):
        _through("127.0.0.1", {"Host": "h", "X-Forwarded-Proto": "https, http"})


def test_the_names_follow_from_how_it_is_reached() -> None:
    pem = Path("x.pem")
    assert Front().hosts("127.0.0.1", 8443) == ("127.0.0.1:8443", "localhost:8443")
    assert Front(host="::1").hosts("::1", 80)[:2] == ("[::1]", "[::1]:80")
    tls = Front(host="10.0.0.5", tls_cert=pem, tls_key=pem, public_url=f"{PUBLIC}:8443/")
    assert tls.hosts("10.0.0.5", 8443) == ("platform.example.org:8443", "10.0.0.5:8443")
    behind = Front(host="0.0.0.0", behind_proxy=True, public_url=PUBLIC)
    assert behind.hosts("0.0.0.0", 8443) == ("platform.example.org", "platform.example.org:443")


def test_every_address_needs_tls_and_a_name() -> None:
    pem = Path("x.pem")
    for address in ("0.0.0.0", "::", "192.0.2.1", "fe80::1%eth0"):
        with pytest.raises(ConfigurationError, match="--tls-cert"):
            Front(host=address).check_exposure(address)
    with pytest.raises(ConfigurationError, match="--public-url"):
        Front(host="0.0.0.0", tls_cert=pem, tls_key=pem).check_exposure("0.0.0.0")
    Front(host="192.0.2.1", tls_cert=pem, tls_key=pem).check_exposure("192.0.2.1")
    Front(host="0.0.0.0", behind_proxy=True, public_url=PUBLIC).check_exposure("0.0.0.0")
    for address in ("127.0.0.1", "127.9.9.9", "::1"):
        Front(host=address).check_exposure(address)


def test_the_doors_of_a_standing_platform_are_locked_in_a_sandbox() -> None:
    for method, path in STANDING_DOORS:
        assert scope_for(method, path) == "platform:administer"
        assert scope_for(method, path, OPEN_DOORS | STANDING_DOORS) is None
    assert scope_for("GET", "/api/v1/setup", OPEN_DOORS | STANDING_DOORS) == "platform:administer"


def test_a_database_that_does_not_answer_is_not_ready(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'no' / 'such' / 'folder.db'}")
    lifecycle = Lifecycle()
    probe = ReadinessProbe(engine, tmp_path, lifecycle)
    with pytest.raises(PlatformUnavailableError, match="database does not answer"):
        probe.check()
    lifecycle.close()
    with pytest.raises(PlatformUnavailableError, match="ending"):
        probe.check()
    engine.dispose()
