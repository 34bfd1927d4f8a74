"""The API's description: complete, the same each time, and made without starting anything."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from platform_process import PlatformProcess, ok

from truststram_lab.server.app import build_api, build_services, describe
from truststram_lab.server.security import OPEN_DOORS, STANDING_DOORS
from truststram_lab.server.settings import Settings

COMMANDS = (
    ("truststram_lab.server", "--openapi"),
    ("truststram_lab.cli", "openapi"),
)


def _printed(home: Path, module: str, option: str, seed: str) -> bytes:
    environment = {**os.environ, "TRUSTSTRAM_HOME": str(home), "PYTHONHASHSEED": seed}
    done = subprocess.run(
        [sys.executable, "-m", module, option],
        capture_output=True,
        env=environment,
        timeout=60,
        check=True,
    )
    assert done.stderr == b""
    return done.stdout


def _walk(router: Any) -> Iterator[tuple[str, str]]:
    for route in router.routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from _walk(included)
        elif not isinstance(route, FastAPI):
            for method in route.methods - {"HEAD"}:
                yield method.lower(), route.path


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return describe("test")


def _operations(described: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method, path): operation
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
    }


@pytest.mark.parametrize("environment", ["sandbox", "production"])
def test_every_route_is_described(
    tmp_path: Path, environment: str, described: dict[str, Any]
) -> None:
    services = build_services(Settings(home=tmp_path, environment=environment))
    api = build_api(services)
    routes = set(_walk(api))
    services.serving.close()
    services.engine.dispose()
    assert len(routes) > 25
    assert routes <= _operations(described).keys()
    if environment == "production":
        assert routes == _operations(described).keys()


def test_it_is_the_same_each_time_and_leaves_no_trace(tmp_path: Path) -> None:
    home = tmp_path / "home"
    printed = {_printed(home, *command, seed) for command in COMMANDS for seed in ("1", "2")}
    assert len(printed) == 1
    text = printed.pop().decode()
    document = json.loads(text)
    assert text == json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert not home.exists()
    assert document["openapi"].startswith("3.1")


def test_every_operation_says_what_goes_in_and_comes_out(described: dict[str, Any]) -> None:
    text = json.dumps(described)
    named = set(re.findall(r"#/components/schemas/(\w+)", text))
    assert named == set(described["components"]["schemas"])
    ids = [operation["operationId"] for operation in _operations(described).values()]
    assert len(ids) == len(set(ids))
    for (method, path), operation in _operations(described).items():
        answers = operation["responses"]
        assert "application/problem+json" in answers.pop("default")["content"], path
        assert answers, path
        for status, answer in answers.items():
            if status == "204":
                assert "content" not in answer, (method, path)
                continue
            assert answer["content"], (method, path)
            assert all(kind["schema"] for kind in answer["content"].values()), (method, path)
        if method == "put":
            assert operation["requestBody"]["content"], path
        free = (method.upper(), path) in OPEN_DOORS | STANDING_DOORS
        assert operation.get("security") == ([] if free else None), path


def test_the_raw_routes_are_described_by_their_schemas() -> None:
    operations = _operations(describe("test"))
    predict = operations["post", "/api/v1/endpoints/{ref}/predict"]
    ref = {"$ref": "#/components/schemas/PredictRequest"}
    assert predict["requestBody"]["content"]["application/json"]["schema"] == ref
    answer = predict["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer == {"$ref": "#/components/schemas/PredictResponse"}
    events = operations["get", "/api/v1/events"]
    content = events["responses"]["200"]["content"]
    assert content == {"text/event-stream": {"schema": {"$ref": "#/components/schemas/Event"}}}
    names = {parameter["name"].lower() for parameter in events["parameters"]}
    assert names == {"stream", "after", "last-event-id"}


def test_a_platform_serves_its_own_description(platform: PlatformProcess) -> None:
    served = ok(platform.client().get("/api/v1/openapi.json"))
    assert "/api/v1/endpoints/{ref}/predict" in served["paths"]
    assert "/api/v1/setup" not in served["paths"]
    described = describe("test")["paths"]
    for path, operations in served["paths"].items():
        assert operations == described[path]
