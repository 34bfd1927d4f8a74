"""The rounds of a run over HTTP: what is summed, what is refused, what a stop leaves."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from platform_process import (
    SIGNATURE,
    PlatformProcess,
    Run,
    delta_of,
    digest,
    initial_state,
    moments_of,
    ok,
    plan_of,
    refused,
    rows_of,
    update_of,
)

from truststram_lab.learning import weights


def test_a_run_gives_the_weighted_mean_of_the_updates(platform: PlatformProcess) -> None:
    run = Run(platform, "mean", sites=2, rounds=2)
    assert run.name == "mean-1"
    first = run.assignment(0)
    assert (first["kind"], first["number"], first["model_sha256"]) == ("statistics", 0, None)
    run.play(0)

    second = run.assignment(0)
    assert (second["kind"], second["number"], second["rounds"]) == ("training", 1, 2)
    merged = {column["name"]: column for column in second["statistics"]["columns"]}
    ages = np.array(rows_of(0)["age"] + rows_of(1)["age"])
    assert merged["age"]["mean"] == pytest.approx(ages.mean(), rel=1e-12)
    assert merged["age"]["variance"] == pytest.approx(ages.var(), rel=1e-12)
    model = run.clients[0].get(f"/api/v1/training/rounds/{second['round_id']}/model")
    assert model.headers["content-digest"] == digest(model.content)["Content-Digest"]
    assert weights.sha256_hex(model.content) == second["model_sha256"]

    samples = [12, 5]
    for number in (1, 2):
        for site in (0, 1):
            body = update_of(site, number, samples[site])
            ok(run.push(site, run.assignment(site)["round_id"], body))
    done = run.wait("completed")

    expected = {name: array.astype(np.float64) for name, array in initial_state().items()}
    for number in (1, 2):
        deltas = [delta_of(site, number) for site in (0, 1)]
        for name in expected:
            mean = sum(s * d[name].astype(np.float64) for s, d in zip(samples, deltas, strict=True))
            expected[name] = (expected[name] + mean / sum(samples)).astype(np.float32)
    found, _ = weights.decode(run.weights())
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-6, atol=1e-6)

    assert (done["model_version"], done["round"], done["deployed"]) == (1, 2, True)
    version = ok(run.owner.get("/api/v1/models/mean/versions/1"))
    assert version["label"] == "1.0.0"
    assert version["lineage"]["run"] == "mean-1"
    assert version["lineage"]["rounds"] == 2
    assert version["statistics"] == second["statistics"]
    assert ok(run.owner.get("/api/v1/models/mean"))["deployed_version"] == 1
    row = {"age": 61.0, "dose": None, "ward": "icu"}
    answer = ok(run.owner.post("/api/v1/endpoints/mean/predict", json={"data": row}))
    assert set(answer["predictions"][0]["probabilities"]) == set(SIGNATURE.classes)


def test_a_second_run_of_a_model_registers_the_next_label(platform: PlatformProcess) -> None:
    for number, label in ((1, "1.0.0"), (2, "1.1.0")):
        run = Run(platform, "again", sites=1, rounds=1)
        assert run.name == f"again-{number}"
        run.play(0)
        run.play(1)
        assert run.wait("completed")["model_version"] == number
        assert ok(run.owner.get("/api/v1/models/again/versions/deployed"))["label"] == label


def test_the_order_of_arrival_never_changes_a_bit(platform: PlatformProcess) -> None:
    found = set()
    for place, order in enumerate(([0, 1, 2], [2, 0, 1], [1, 2, 0])):
        run = Run(platform, f"order{place}", sites=3, rounds=2)
        for number in range(3):
            run.play(number, order)
        run.wait("completed")
        found.add(run.weights())
    assert len(found) == 1


def test_sites_that_push_at_the_same_time_close_the_round_once(platform: PlatformProcess) -> None:
    run = Run(platform, "together", sites=6, rounds=2)

    def take_part(site: int) -> None:
        for number in range(3):
            body = update_of(site, number) if number else moments_of(site)
            ok(run.push(site, run.assignment(site)["round_id"], body))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(take_part, range(6)))
    assert run.wait("completed")["round"] == 2
    alone = Run(platform, "one-by-one", sites=6, rounds=2)
    for number in range(3):
        alone.play(number)
    alone.wait("completed")
    assert run.weights() == alone.weights()


def test_the_same_update_again_is_a_duplicate_even_after_the_round(
    platform: PlatformProcess,
) -> None:
    run = Run(platform, "duplicate")
    round_id = run.play(0)
    before = run.get()
    answer = ok(run.push(0, round_id, moments_of(0)))
    assert answer["duplicate"] is True
    assert run.get() == before


def test_a_second_different_update_is_refused(platform: PlatformProcess) -> None:
    run = Run(platform, "different")
    round_id = run.assignment(0)["round_id"]
    ok(run.push(0, round_id, moments_of(0)))
    before = run.get()
    problem = refused(run.push(0, round_id, moments_of(7)), 409, "conflict")
    assert "the first one counts" in problem["detail"]
    assert run.get() == before


def test_a_closed_round_takes_no_update(platform: PlatformProcess) -> None:
    run = Run(platform, "closed")
    run.play(0)
    round_id = run.play(1)
    before = run.get()
    refused(run.push(0, round_id, update_of(5, 5)), 409, "round_closed")
    assert run.get() == before


def _bad_updates() -> dict[str, tuple[bytes, str]]:
    meta = {"sample_count": "12"}
    good = delta_of(0, 1)
    name = "layers.0.weight"
    missing = {key: array for key, array in good.items() if key != name}
    poisoned = {key: array.copy() for key, array in good.items()}
    poisoned[name][0, 0] = np.nan
    infinite = {key: array.copy() for key, array in good.items()}
    infinite[name][0, 0] = -np.inf
    wide = {key: array.astype(np.float64) for key, array in good.items()}
    return {
        "empty": (b"", "safetensors"),
        "torn": (weights.encode(good, meta)[:-5], "safetensors"),
        "missing": (weights.encode(missing, meta), name),
        "extra": (weights.encode({**good, "layers.9.bias": good[name]}, meta), "layers.9.bias"),
        "shape": (weights.encode({**good, name: good[name][:2]}, meta), "shape"),
        "dtype": (weights.encode(wide, meta), "float64"),
        "nan": (weights.encode(poisoned, meta), "finite"),
        "infinity": (weights.encode(infinite, meta), "finite"),
        "no count": (weights.encode(good), "sample_count"),
        "count 0": (weights.encode(good, {"sample_count": "0"}), "sample_count"),
        "count -3": (weights.encode(good, {"sample_count": "-3"}), "sample_count"),
        "count 1e3": (weights.encode(good, {"sample_count": "1e3"}), "sample_count"),
        "boastful": (weights.encode(good, {"sample_count": "13"}), "12 rows"),
        "metrics": (weights.encode(good, {**meta, "metrics": '{"loss": NaN}'}), "metrics"),
    }


@pytest.fixture(scope="module")
def in_training(platform: PlatformProcess) -> Run:
    run = Run(platform, "training")
    run.play(0)
    run.assignment(0)
    return run


@pytest.mark.parametrize("kind", _bad_updates())
def test_an_unusable_update_is_refused_and_nothing_is_kept(in_training: Run, kind: str) -> None:
    body, named = _bad_updates()[kind]
    round_id = in_training.assignment(0)["round_id"]
    before, files = in_training.get(), _files(in_training.platform)
    problem = refused(in_training.push(0, round_id, body), 422, "update_rejected")
    assert named in problem["detail"]
    after = in_training.get()
    # one event, which says why
    assert after.pop("last_event") == before.pop("last_event") + 1
    assert after == before
    assert _files(in_training.platform) == files
    assert in_training.assignment(0)["round_id"] == round_id


def test_a_body_that_is_not_what_its_digest_says_is_refused(in_training: Run) -> None:
    path = f"/api/v1/training/rounds/{in_training.assignment(0)['round_id']}/update"
    before, files = in_training.get(), _files(in_training.platform)
    site = in_training.clients[0]
    wrong = site.put(path, content=update_of(0, 1), headers=digest(b"another"))
    refused(wrong, 422, "update_rejected")
    none = site.put(path, content=update_of(0, 1))
    assert refused(none, 422, "invalid_input")["field"] == "Content-Digest"
    assert in_training.get() == before
    assert _files(in_training.platform) == files


def test_statistics_of_too_few_rows_are_refused(platform: PlatformProcess) -> None:
    run = Run(platform, "few", min_site_rows=6)
    round_id = run.assignment(0)["round_id"]
    problem = refused(run.push(0, round_id, moments_of(0, rows=5)), 422, "update_rejected")
    assert "5 rows" in problem["detail"]
    assert run.get()["pushed"] == []
    ok(run.push(0, round_id, moments_of(0, rows=6)))
    assert run.get()["pushed"] == ["site 1"]


def test_a_stopped_run_takes_nothing_and_resumes_where_it_was(platform: PlatformProcess) -> None:
    run = Run(platform, "stopped")
    run.play(0)
    round_id = run.assignment(0)["round_id"]
    ok(run.push(0, round_id, update_of(0, 1)))
    stopped = ok(run.owner.post(f"/api/v1/runs/{run.name}/stop"))
    assert (stopped["status"], stopped["pushed"]) == ("stopped", ["site 1"])
    assert ok(run.owner.post(f"/api/v1/runs/{run.name}/stop")) == stopped
    assert ok(run.clients[1].get("/api/v1/training/rounds")) == []
    problem = refused(run.push(1, round_id, update_of(1, 1)), 409, "round_closed")
    assert "stopped" in problem["detail"]
    assert run.get() == stopped

    resumed = ok(run.owner.post(f"/api/v1/runs/{run.name}/resume"))
    assert (resumed["status"], resumed["pushed"]) == ("training", ["site 1"])
    again = refused(run.owner.post(f"/api/v1/runs/{run.name}/resume"), 409, "conflict")
    assert "training" in again["detail"]
    assert ok(run.clients[0].get("/api/v1/training/rounds")) == []
    ok(run.push(1, run.assignment(1)["round_id"], update_of(1, 1)))
    run.play(2)
    run.wait("completed")
    untouched = Run(platform, "unstopped")
    for number in range(3):
        untouched.play(number)
    untouched.wait("completed")
    assert run.weights() == untouched.weights()
    refused(run.owner.post(f"/api/v1/runs/{run.name}/stop"), 409, "conflict")


def test_a_site_that_waits_gets_its_work_when_the_round_opens(platform: PlatformProcess) -> None:
    run = Run(platform, "waiting")
    ok(run.push(0, run.assignment(0)["round_id"], moments_of(0)))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(run.assignment, 0, 30)
        ok(run.push(1, run.assignment(1)["round_id"], moments_of(1)))
        assert waiting.result(60)["number"] == 1


def test_a_site_sees_only_its_own_rounds(platform: PlatformProcess) -> None:
    mine, other = Run(platform, "mine"), Run(platform, "other")
    round_id = other.assignment(0)["round_id"]
    refused(mine.push(0, round_id, moments_of(0)), 404, "not_found")
    refused(mine.clients[0].get(f"/api/v1/training/rounds/{round_id}/model"), 404, "not_found")
    found = ok(mine.clients[0].get("/api/v1/training/rounds"))
    assert [assignment["run"] for assignment in found] == [mine.name]


def test_diverged_weights_fail_the_run_with_a_reason(platform: PlatformProcess) -> None:
    run = Run(platform, "diverged", sites=1, rounds=2)
    run.play(0)
    huge = {name: np.full_like(array, 3e38) for name, array in initial_state().items()}
    body = weights.encode(huge, {"sample_count": "12"})
    ok(run.push(0, run.assignment(0)["round_id"], body))
    body = weights.encode(huge, {"sample_count": "12", "metrics": "{}"})
    ok(run.push(0, run.assignment(0)["round_id"], body))
    failed = run.wait("failed")
    assert "lower learning rate" in failed["reason"]
    assert failed["model_version"] is None
    refused(run.owner.get("/api/v1/models/diverged"), 404, "model_not_found")


def _one_layer(inputs: int, units: int) -> dict[str, object]:
    return {"inputs": inputs, "layers": [{"type": "dense", "units": units}]}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"sites": ["site 1", "site 1"]}, "sites"),
        ({"sites": ["site 1", "sit 2"]}, "sites"),
        ({"initial_weights_sha256": "0" * 64}, "initial_weights_sha256"),
        ({"local": {"dtype": "float64"}}, "initial_weights_sha256"),
        ({"architecture": _one_layer(4, 1)}, "architecture.inputs"),
        ({"architecture": _one_layer(5, 2)}, "architecture"),
        ({"architecture": _one_layer(5, 1)}, "initial_weights_sha256"),
        ({"rounds": 0}, "rounds"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_plan_that_cannot_work_is_refused_before_it_starts(
    in_training: Run, change: dict[str, object], field: str
) -> None:
    plan = plan_of(
        "training", ["site 1", "site 2"], 2, in_training.created["plan"]["initial_weights_sha256"]
    )
    answer = in_training.owner.post("/api/v1/runs", json={**plan, **change})
    assert refused(answer, 422, "invalid_input")["field"] == field


def test_a_report_is_kept_as_it_was_sent(in_training: Run) -> None:
    report = {
        "sites": [{"name": "site 1", "rows": 12, "class_rows": {"died": 3}, "status": "pushed"}],
        "history": [{"number": 1, "accuracy": 0.9, "loss": 0.3}],
        "elapsed_s": 1.5,
    }
    ok(in_training.owner.put(f"/api/v1/runs/{in_training.name}/report", json=report))
    kept = in_training.get()["report"]
    [entry] = kept["history"]
    assert {name: entry[name] for name in ("number", "accuracy", "loss")} == report["history"][0]
    assert kept["sites"][0]["class_rows"] == {"died": 3}
    assert json.loads(json.dumps(kept))["elapsed_s"] == 1.5


def test_an_unknown_run_names_the_nearest(in_training: Run) -> None:
    problem = refused(in_training.owner.get("/api/v1/runs/trainin-1"), 404, "run_not_found")
    assert problem["choices"][0] == "training-1"


def _files(platform: PlatformProcess) -> set[str]:
    return {str(path) for path in (platform.home / "blobs").rglob("*") if path.is_file()}
