"""What the platform does not accept: foreign pages, loose JSON, oversize, wrong doors."""

from __future__ import annotations

import socket

import pytest
from platform_process import PlatformProcess, Run, ok, refused

from truststram_lab.exceptions import InvalidInputError, TrustStramException
from truststram_lab.server import strict_json
from truststram_lab.server.settings import JSON_LIMIT_BYTES

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.evil", ""],
)
@pytest.mark.parametrize("path", ["/health", "/api/v1/whoami", "/nothing"])
def test_another_host_name_is_refused(platform: PlatformProcess, host: str, path: str) -> None:
    port = platform.url.rpartition(":")[2]
    answer = platform.client().get(path, headers={"Host": host.format(port=port)})
    refused(answer, 403, "forbidden")


def test_localhost_is_the_same_platform(platform: PlatformProcess) -> None:
    port = platform.url.rpartition(":")[2]
    owner = platform.client()
    assert ok(owner.get("/api/v1/whoami", headers={"Host": f"localhost:{port}"}))
    origin = {"Origin": platform.url}
    assert ok(owner.get("/api/v1/whoami", headers=origin))


@pytest.mark.parametrize(
    "origin", ["null", "https://evil.example", "http://127.0.0.1:1", "https://127.0.0.1:{port}"]
)
def test_pages_of_another_origin_are_refused(platform: PlatformProcess, origin: str) -> None:
    port = platform.url.rpartition(":")[2]
    headers = {"Origin": origin.format(port=port)}
    refused(platform.client().get("/api/v1/whoami", headers=headers), 403, "forbidden")
    refused(platform.client(None).get("/health", headers=headers), 403, "forbidden")


LOOSE = {
    "a key twice": (b'{"name": "a", "name": "b"}', "twice"),
    "a key twice inside": (b'{"name": {"x": 1, "x": 1}}', "'x'"),
    "NaN": (b'{"name": NaN}', "NaN"),
    "Infinity": (b'{"name": Infinity}', "Infinity"),
    "minus Infinity": (b'{"name": -Infinity}', "-Infinity"),
    "beyond float64": (b'{"name": 1e999}', "1e999"),
    "half a surrogate pair": (b'{"name": "\\ud800"}', "Unicode"),
    "no UTF-8": (b'{"name": "\xff"}', "Unicode"),
    "too many digits": (b'{"name": ' + b"9" * 10_000 + b"}", "digits"),
    "too deep": (b'{"name": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "deep"),
    "no JSON": (b"name=a", "JSON"),
    "cut": (b'{"name": "a"', "JSON"),
}


@pytest.mark.parametrize("kind", LOOSE)
def test_loose_json_is_refused(platform: PlatformProcess, kind: str) -> None:
    body, named = LOOSE[kind]
    owner = platform.client()
    answer = owner.post("/api/v1/models", content=body, headers=JSON)
    assert named in refused(answer, 422, "invalid_input")["detail"]
    assert ok(owner.get("/api/v1/models"))["items"] == []


def test_loose_json_is_refused_in_predictions_too(platform: PlatformProcess) -> None:
    run = Run(platform, "strictly", sites=1, rounds=1)
    run.play(0)
    run.play(1)
    run.wait("completed")
    for body in (b'{"data": {"age": NaN}}', b'{"data": {"age": 1, "age": 2}}'):
        answer = run.owner.post("/api/v1/endpoints/strictly/predict", content=body, headers=JSON)
        refused(answer, 422, "invalid_input")


def test_strict_json_keeps_what_is_json() -> None:
    text = b'{"a": [1, 2.5, -1e-3, true, null, "\\u00e9\\ud83d\\ude00"], "b": {"a": {}}}'
    assert strict_json.loads(text) == {
        "a": [1, 2.5, -1e-3, True, None, "é😀"],
        "b": {"a": {}},
    }
    with pytest.raises(InvalidInputError):
        strict_json.loads(b"")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"name": "UPPER"}', "name"),
        (b'{"name": 7}', "name"),
        (b'{"nmae": "a"}', "name"),
        (b'{"name": "a", "colour": 1}', "colour"),
        (b"[]", None),
        (b"", None),
    ],
)
def test_a_wrong_body_names_the_field_in_one_sentence(
    platform: PlatformProcess, body: bytes, field: str | None
) -> None:
    answer = platform.client().post("/api/v1/models", content=body, headers=JSON)
    problem = refused(answer, 422, "invalid_input")
    assert problem.get("field") == field
    assert "\n" not in problem["detail"]
    error = TrustStramException.from_problem(problem, answer.status_code)
    assert isinstance(error, InvalidInputError)


def test_json_under_another_content_type_is_refused(platform: PlatformProcess) -> None:
    body = b'{"name": "typed"}'
    for headers in ({}, {"Content-Type": "text/plain"}):
        answer = platform.client().post("/api/v1/models", content=body, headers=headers)
        refused(answer, 422, "invalid_input")


def test_an_unknown_address_is_a_problem(platform: PlatformProcess) -> None:
    owner = platform.client()
    problem = refused(owner.get("/api/v1/modles"), 404, "not_found")
    assert "GET /api/v1/modles" in problem["detail"]
    refused(owner.get("/"), 404, "not_found")
    refused(owner.get("/api/v1/models/"), 404, "not_found")
    answer = owner.patch("/api/v1/whoami")
    assert answer.status_code == 405
    assert answer.json()["status"] == 405
    assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "cursor=%00", "cursor=abc"])
def test_a_wrong_query_names_the_parameter(platform: PlatformProcess, query: str) -> None:
    problem = refused(platform.client().get(f"/api/v1/models?{query}"), 422, "invalid_input")
    assert problem["field"] == query.partition("=")[0]


def test_a_body_over_the_limit_is_refused(platform: PlatformProcess) -> None:
    owner = platform.client()
    large = b'{"name": "' + b"a" * JSON_LIMIT_BYTES + b'"}'
    refused(owner.post("/api/v1/models", content=large, headers=JSON), 413, "payload_too_large")

    def undeclared():
        for start in range(0, len(large), 2**20):
            yield large[start : start + 2**20]

    answer = owner.post("/api/v1/models", content=undeclared(), headers=JSON)
    refused(answer, 413, "payload_too_large")
    answer = owner.post("/api/v1/endpoints/x/predict", content=undeclared(), headers=JSON)
    refused(answer, 413, "payload_too_large")
    declared = {**JSON, "Content-Length": str(2**30 + 1), "Authorization": _bearer(platform)}
    head = f"PUT /api/v1/blobs/{'0' * 64} HTTP/1.1\r\nHost: {platform.url[7:]}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in declared.items()) + "\r\n"
    host, port = platform.url[7:].split(":")
    with socket.create_connection((host, int(port)), 30) as raw:
        raw.sendall(head.encode())
        assert b" 413 " in raw.recv(100)


def _bearer(platform: PlatformProcess) -> str:
    return f"Bearer {platform.state()['api_key']}"


def test_a_caller_that_hangs_up_leaves_nothing(platform: PlatformProcess) -> None:
    host, port = platform.url[7:].split(":")
    head = (
        f"PUT /api/v1/blobs/{'0' * 64} HTTP/1.1\r\nHost: {platform.url[7:]}\r\n"
        f"Authorization: {_bearer(platform)}\r\nContent-Length: 5000000\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), 30) as raw:
        raw.sendall(head.encode() + b"x" * 3_000_000)
    owner = platform.client()
    incoming = platform.home / "blobs" / "incoming"
    for _ in range(200):
        ok(owner.get("/api/v1/whoami"))
        if not list(incoming.iterdir()):
            break
    assert list(incoming.iterdir()) == []
    assert owner.get(f"/api/v1/blobs/{'0' * 64}").status_code == 404
    refused(owner.get(f"/api/v1/blobs/{'0' * 63}"), 422, "invalid_input")
