"""Models, versions and files over HTTP."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from platform_process import (
    ARCHITECTURE,
    SIGNATURE,
    PlatformProcess,
    digest,
    initial_state,
    ok,
    refused,
)

from truststram_lab.learning import weights
from truststram_lab.schemas.tables import ColumnStatistics, Statistics


def _upload(platform: PlatformProcess, body: bytes) -> str:
    sha256 = weights.sha256_hex(body)
    ok(platform.client().put(f"/api/v1/blobs/{sha256}", content=body))
    return sha256


def _version(sha256: str, **more: Any) -> dict[str, Any]:
    columns = [
        ColumnStatistics(name="age", count=9, missing=0, mean=1.0, variance=2.0),
        ColumnStatistics(name="dose", count=8, missing=1, mean=0.5, variance=0.1),
        ColumnStatistics(name="ward", count=9, missing=0, category_counts=[4, 5]),
    ]
    return {
        "weights_sha256": sha256,
        "architecture": ARCHITECTURE.model_dump(),
        "signature": SIGNATURE.model_dump(),
        "statistics": Statistics(rows=9, sites=1, columns=columns).model_dump(),
        "metrics": {"accuracy": 0.1 + 0.2},
        **more,
    }


@pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
def test_a_file_comes_back_as_it_went(platform: PlatformProcess, size: int) -> None:
    body = secrets.token_bytes(size)
    sha256 = weights.sha256_hex(body)
    owner = platform.client()
    first = owner.put(f"/api/v1/blobs/{sha256}", content=body)
    again = owner.put(f"/api/v1/blobs/{sha256}", content=body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json() == {"sha256": sha256, "size_bytes": size}
    found = owner.get(f"/api/v1/blobs/{sha256}")
    assert found.content == body
    assert found.headers["content-digest"] == digest(body)["Content-Digest"]
    assert found.headers["content-length"] == str(size)


def test_a_file_under_a_wrong_name_is_refused(platform: PlatformProcess) -> None:
    owner, name = platform.client(), "a" * 64
    refused(owner.put(f"/api/v1/blobs/{name}", content=b"other"), 422, "invalid_input")
    refused(owner.get(f"/api/v1/blobs/{name}"), 404, "not_found")


def test_versions_count_and_keep_what_they_were_given(platform: PlatformProcess) -> None:
    owner = platform.client()
    model = ok(owner.post("/api/v1/models", json={"name": "scores", "description": "d"}))
    assert (model["version_count"], model["latest_version"], model["framework"]) == (
        0,
        None,
        "pytorch",
    )
    nothing = owner.get("/api/v1/models/scores/versions/latest")
    assert "no version yet" in refused(nothing, 404, "model_not_found")["detail"]
    path = "/api/v1/models/scores/versions"
    for sequence, label in ((1, "1.0.0"), (2, "1.1.0"), (3, "9.9.9"), (4, "1.3.0")):
        body = weights.encode(initial_state(sequence))
        given = _version(_upload(platform, body))
        made = ok(owner.post(path, json=given | ({"label": label} if sequence == 3 else {})))
        assert (made["sequence"], made["label"], made["size_bytes"]) == (sequence, label, len(body))
        assert owner.get(f"{path}/{sequence}/download").content == body
        assert made["metrics"] == {"accuracy": 0.1 + 0.2}
        for field in ("signature", "statistics"):
            assert {**made[field], **given[field]} == made[field]
    assert ok(owner.get(f"{path}/latest"))["sequence"] == 4
    found = refused(owner.get(f"{path}/7"), 404, "model_not_found")
    assert found["detail"] == "Model 'scores' has no version 7; the latest is 4."
    assert found["model_id"] == "scores:7"
    refused(owner.get(f"{path}/deployed"), 404, "model_not_found")
    again = _version(_upload(platform, weights.encode(initial_state(9))), label="9.9.9")
    refused(owner.post(path, json=again), 409, "conflict")
    by_id = ok(owner.get(f"/api/v1/models/{model['id']}"))
    assert (by_id["version_count"], by_id["latest_version"]) == (4, 4)

    pages, cursor = [], None
    while cursor is not None or not pages:
        page = ok(owner.get(path, params={"limit": 3, **({"cursor": cursor} if cursor else {})}))
        pages.append([version["sequence"] for version in page["items"]])
        cursor = page["next_cursor"]
    assert pages == [[4, 3, 2], [1]]


def test_weights_that_do_not_fit_are_refused(platform: PlatformProcess) -> None:
    owner = platform.client()
    ok(owner.post("/api/v1/models", json={"name": "fitting"}))
    state = initial_state()
    bad = {
        "junk": b"not safetensors",
        "missing": weights.encode({k: v for k, v in state.items() if "bias" not in k}),
        "integers": weights.encode({k: v.astype("int64") for k, v in state.items()}),
        "infinite": weights.encode({k: v * float("inf") for k, v in state.items()}),
    }
    for body in bad.values():
        answer = owner.post(
            "/api/v1/models/fitting/versions", json=_version(_upload(platform, body))
        )
        assert refused(answer, 422, "invalid_input")["field"] == "weights_sha256"
    unknown = owner.post("/api/v1/models/fitting/versions", json=_version("0" * 64))
    assert "upload" in refused(unknown, 422, "invalid_input")["detail"]
    assert ok(owner.get("/api/v1/models/fitting"))["version_count"] == 0


def test_a_listing_pages_newest_first_and_searches(platform: PlatformProcess) -> None:
    owner = platform.client()
    for number in range(5):
        ok(owner.post("/api/v1/models", json={"name": f"paged_{number}"}))
    names, cursor = [], None
    while cursor is not None or not names:
        params = {"limit": 2, "search": "PAGED_"} | ({"cursor": cursor} if cursor else {})
        page = ok(owner.get("/api/v1/models", params=params))
        assert len(page["items"]) <= 2
        names += [model["name"] for model in page["items"]]
        cursor = page["next_cursor"]
        # one that comes while the pages are read moves nothing
        ok(owner.post("/api/v1/models", json={"name": f"paged_late{len(names)}"}))
    assert names == [f"paged_{number}" for number in (4, 3, 2, 1, 0)]
    assert ok(owner.get("/api/v1/models", params={"search": "paged%"}))["items"] == []


def test_an_unknown_model_names_the_nearest(platform: PlatformProcess) -> None:
    owner = platform.client()
    ok(owner.post("/api/v1/models", json={"name": "breast-cancer"}))
    problem = refused(owner.get("/api/v1/models/brest-cancer"), 404, "model_not_found")
    assert problem["choices"] == ["breast-cancer"]
    assert problem["model_id"] == "brest-cancer"
    assert "did you mean 'breast-cancer'" in problem["detail"]


def test_a_name_is_taken_once(platform: PlatformProcess) -> None:
    owner = platform.client()
    ok(owner.post("/api/v1/models", json={"name": "taken"}))
    refused(owner.post("/api/v1/models", json={"name": "taken"}), 409, "conflict")
    federation = ok(owner.post("/api/v1/federations", json={"name": "taken"}))
    assert ok(owner.post("/api/v1/federations", json={"name": "taken"})) == federation


@pytest.mark.parametrize("name", ["", " x", "x\n", "x" * 101, "a\u0000b"])
def test_an_unusable_participants_name_is_refused(platform: PlatformProcess, name: str) -> None:
    owner = platform.client()
    ok(owner.post("/api/v1/federations", json={"name": "names"}))
    answer = owner.post("/api/v1/federations/names/invite", json={"participants": ["ok", name]})
    assert refused(answer, 422, "invalid_input")["field"] == "participants"
    assert ok(owner.get("/api/v1/federations"))["items"][0]["participants"] == []
