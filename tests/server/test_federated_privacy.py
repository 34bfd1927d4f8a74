"""Budgets, secret cohorts, noise that is released once, and what the sites' tables agree on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_runs import ArrayRun, body_of
from platform_process import PlatformProcess, ok, refused

from truststram_lab.learning import weights
from truststram_lab.learning.privacy.accountant import account
from truststram_lab.schemas.participation import SiteDescription
from truststram_lab.schemas.privacy import ClientPlan, GaussianUse
from truststram_lab.schemas.tables import Column
from truststram_lab.server.services.preflight import compare

PLAN = {
    "mechanism": "dp-fedavg",
    "clip": 1.0,
    "noise_multiplier": 2.0,
    "cohort_rate": 1.0,
    "sites": 3,
    "rounds": 4,
    "delta": 1e-5,
}


def _private(platform: PlatformProcess, name: str, **more: Any) -> ArrayRun:
    privacy = {**PLAN, **more.pop("privacy", {})}
    return ArrayRun(platform, name, 3, privacy=privacy, **{"rounds": 2, **more})


def _play(run: ArrayRun, site: int, value: float = 0.01) -> None:
    change = {name: np.full_like(array, value) for name, array in run.start.items()}
    ok(run.push(site, run.assignment(site)["round_id"], body_of(change, 10 + 90 * site)))


def _budget(run: ArrayRun) -> dict[str, Any]:
    return ok(run.owner.get(f"/api/v1/federations/{run.federation}/privacy"))


def test_every_round_is_charged_once_and_the_statement_is_the_runs_own(
    platform: PlatformProcess,
) -> None:
    run = _private(platform, "charged").create()
    assert [entry["state"] for entry in _budget(run)["history"]] == ["reserved"]
    for _ in (1, 2):
        for site in range(3):
            _play(run, site)
    done = run.wait("completed")
    found = _budget(run)
    assert [entry["state"] for entry in found["history"]] == ["released"] * 2
    assert found["rounds_consumed"] == 2
    expected = account([GaussianUse(noise_multiplier=2.0, steps=2)], 1e-5).epsilon
    assert found["epsilon"] == pytest.approx(expected)
    assert done["statement"]["epsilon"] == pytest.approx(expected)
    assert (done["statement"]["unit"], done["statement"]["trust"]) == (
        "client",
        "platform sees every update",
    )


def test_a_round_is_the_noised_sum_over_the_expected_sites(platform: PlatformProcess) -> None:
    start = {"w": np.zeros(40_000, np.float32)}
    run = _private(
        platform, "noised", start=start, rounds=1, privacy={"noise_multiplier": 0.5, "rounds": 1}
    ).create()
    for site in range(3):
        _play(run, site, 1.0)  # of norm 200, clipped to 1
    run.wait("completed")
    found = weights.decode(run.result())[0]["w"].astype(np.float64)
    # three sites of norm 1 over 40,000 numbers, whatever rows they claim
    assert found.mean() == pytest.approx(1 / 200, abs=5 * (0.5 / 3) / 200)
    assert found.std() == pytest.approx(0.5 / 3, rel=0.03)
    [one] = ok(run.owner.get(f"/api/v1/runs/{run.name}/rounds"))["items"]
    mean = weights.decode(run.owner.get(f"/api/v1/blobs/{one['noised_sha256']}").content)[0]
    np.testing.assert_array_equal(mean["w"], weights.decode(run.result())[0]["w"])


def test_a_budget_stops_the_round_that_would_overspend_it_before_anybody_trains(
    platform: PlatformProcess,
) -> None:
    run = _private(platform, "spent")
    once = account([GaussianUse(noise_multiplier=2.0)], 1e-5).epsilon
    path = "/api/v1/federations/spent/budget"
    limit = {"epsilon": once * 1.1, "delta": 1e-5, "unit": "client"}
    assert ok(run.owner.put(path, json=limit))["budget_remaining"] == pytest.approx(once * 1.1)
    answer = run.owner.post("/api/v1/runs", json={**run.plan, "privacy": None})
    assert refused(answer, 422, "invalid_input")["field"] == "privacy"
    run.create()
    for site in range(3):
        _play(run, site)
    stopped = run.wait("stopped")
    assert "goes over the budget" in stopped["reason"]
    assert stopped["round"] == 1
    assert run.ask(0) == []
    assert len(_budget(run)["history"]) == 1
    # a smaller budget than what is spent is refused, a larger one lets the run go on
    too_small = run.owner.put(path, json={**limit, "epsilon": once / 2})
    assert "has spent" in refused(too_small, 409, "conflict")["detail"]
    ok(run.owner.put(path, json={**limit, "epsilon": once * 10}))
    ok(run.owner.post(f"/api/v1/runs/{run.name}/resume"))
    for site in range(3):
        _play(run, site)
    run.wait("completed")
    assert _budget(run)["rounds_consumed"] == 2


def test_a_secret_cohort_is_told_to_nobody(platform: PlatformProcess) -> None:
    privacy = {"cohort_rate": 0.5, "rounds": 12}
    run = _private(platform, "secret", rounds=12, privacy=privacy).create()
    rounds = 0
    while run.get()["status"] not in ("completed", "failed"):
        for site in range(3):
            for asked in run.ask(site):
                change = {name: np.zeros_like(array) for name, array in run.start.items()}
                ok(run.push(site, asked["round_id"], body_of(change)))
                assert run.get()["pushed"] == []
                rounds += 1
    assert run.wait("completed")["round"] == 12
    assert rounds < 36
    assert all("site" not in event for event in run.events("update.received"))
    sent = ok(run.owner.get(f"/api/v1/runs/{run.name}/updates"))["items"]
    assert {one["site"] for one in sent} == {None}


def test_a_platform_killed_before_it_publishes_releases_the_noise_it_had_drawn(
    unstarted: PlatformProcess,
) -> None:
    unstarted.start()
    run = _private(unstarted, "dies", rounds=1).create()
    for site in (0, 1):
        _play(run, site)
    last = run.assignment(2)["round_id"]
    unstarted.end(signal.SIGKILL)
    # the last update is taken by a platform that dies in the middle of the release
    unstarted.start()
    run.reconnect()
    _stop_the_sum(unstarted, run, last)
    drawn = _noised(unstarted, run)
    unstarted.start()
    run.reconnect()
    run.wait("completed")
    [one] = ok(run.owner.get(f"/api/v1/runs/{run.name}/rounds"))["items"]
    assert one["noised_sha256"] == drawn
    assert [entry["state"] for entry in _budget(run)["history"]] == ["released"]
    assert _budget(run)["rounds_consumed"] == 1


def _stop_the_sum(platform: PlatformProcess, run: ArrayRun, round_id: str) -> None:
    """Leave the round complete and unsummed, and begin its sum in a process that dies in it."""
    ok(run.owner.post(f"/api/v1/runs/{run.name}/stop"))
    run_id = run.id
    platform.end(signal.SIGKILL)
    # Two of three came, and the third never will: its absence counts as zero.
    platform.sql("UPDATE runs SET status = 'training' WHERE id = :id", id=run_id)
    platform.sql("UPDATE rounds SET status = 'aggregating' WHERE id = :id", id=round_id)
    script = Path(__file__).with_name("dying_release.py")
    ended = subprocess.run(
        [sys.executable, str(script), str(platform.home), run_id, platform.database_url],
        timeout=120,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL


def _noised(platform: PlatformProcess, run: ArrayRun) -> str:
    query = "SELECT noised_sha256, status FROM rounds WHERE run_id = :id"
    [(sha256, status)] = platform.sql(query, id=run.id)
    assert status == "aggregating"
    assert sha256
    return str(sha256)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"privacy": {**PLAN, "sites": 4}}, "privacy.sites"),
        ({"privacy": {**PLAN, "rounds": 1}}, "privacy.rounds"),
        ({"strategy": "median"}, "strategy"),
        ({"strategy": "scaffold"}, "strategy"),
        ({"filters": [{"type": "gradient_clip"}]}, "filters"),
    ],
)
def test_a_plan_that_privacy_does_not_cover_is_refused(
    platform: PlatformProcess, change: dict[str, object], field: str
) -> None:
    run = _private(platform, "uncovered")
    answer = run.owner.post("/api/v1/runs", json={**run.plan, **change})
    assert refused(answer, 422, "invalid_input")["field"] == field


def test_a_site_reads_the_budget_of_its_own_federation_only(platform: PlatformProcess) -> None:
    mine, other = _private(platform, "budget-a"), _private(platform, "budget-b")
    found = ok(mine.clients[0].get("/api/v1/federations/budget-a/privacy"))
    assert (found["rounds_consumed"], found["budget_remaining"]) == (0, None)
    refused(mine.clients[0].get("/api/v1/federations/budget-b/privacy"), 404, "not_found")
    limit = {"epsilon": 1.0, "delta": 1e-5}
    refused(other.clients[0].put("/api/v1/federations/budget-b/budget", json=limit), 403,
            "forbidden")  # fmt: skip


def test_a_closed_federation_takes_no_run_and_nobody_new(platform: PlatformProcess) -> None:
    run = ArrayRun(platform, "closing", 1, rounds=1).create()
    closed = ok(run.owner.post("/api/v1/federations/closing/close"))
    assert closed["status"] == "closed"
    refused(run.owner.post("/api/v1/runs", json=run.plan), 409, "conflict")
    invite = "/api/v1/federations/closing/invite"
    refused(run.owner.post(invite, json={"participants": ["new"]}), 409, "conflict")
    # what is going goes on, and so do those who are in
    run.play(0, 1)
    run.wait("completed")
    ok(run.owner.post(invite, json={"participants": ["site 1"]}))
    assert ok(run.owner.post("/api/v1/federations/closing/open"))["status"] == "open"
    ok(run.owner.post("/api/v1/runs", json=run.plan))


def _table(**changes: Any) -> dict[str, Any]:
    columns = [
        {"name": "age", "kind": "numeric", "unit": "years"},
        {"name": "ward", "kind": "categorical", "categories": ["icu", "north"]},
    ]
    return {"columns": columns, "target": "died", "classes": ["no", "yes"], **changes}


def test_the_preflight_says_what_keeps_the_tables_apart(platform: PlatformProcess) -> None:
    run = ArrayRun(platform, "flight", 3)
    describe = "/api/v1/training/description/flight"
    before = ok(run.owner.get("/api/v1/federations/flight/preflight"))
    assert [site["status"] for site in before["sites"]] == ["invited"] * 3
    assert (before["ready"], before["signature"]) == (False, None)
    other = _table(classes=["yes"])
    other["columns"][1]["categories"] = ["south"]
    months = _table()
    months["columns"][0]["unit"] = "months"
    for client, table in zip(run.clients, (_table(), other, months), strict=True):
        assert client.put(describe, json=table).status_code == 204
    found = ok(run.owner.get("/api/v1/federations/flight/preflight"))
    assert not found["ready"]
    problems = {site["name"]: site["problems"] for site in found["sites"]}
    assert [name for name, said in problems.items() if said] == ["site 3"]
    [sentence] = problems["site 3"]
    for word in ("'age'", "'site 1'", "'site 3'", "years", "months"):
        assert word in sentence
    assert run.clients[2].put(describe, json=_table()).status_code == 204
    found = ok(run.owner.get("/api/v1/federations/flight/preflight"))
    assert found["ready"]
    assert found["signature"]["columns"][1]["categories"] == ["icu", "north", "south"]
    assert found["signature"]["classes"] == ["no", "yes"]
    wrong = run.clients[0].put("/api/v1/training/description/fligt", json=_table())
    assert refused(wrong, 404, "not_found")["choices"] == ["flight"]


def test_a_misspelt_column_names_the_one_that_it_may_be() -> None:
    def table(name: str) -> SiteDescription:
        column = Column(name=name, kind="numeric")
        return SiteDescription(columns=[column], target="y", classes=["0", "1"])

    problems, signature = compare([("a", table("glucose")), ("b", table("glucos"))])
    assert signature is None
    [sentence] = problems["b"]
    assert "'glucose' of 'a' is missing at 'b'" in sentence
    assert "'glucos'" in sentence


def test_the_plans_use_is_what_a_round_spends() -> None:
    plan = ClientPlan.model_validate(PLAN)
    assert plan.use() == GaussianUse(noise_multiplier=2.0, sample_rate=1.0, steps=1)
