"""Runs of named arrays: every strategy, packed updates, and the platform killed in between."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from array_runs import ArrayRun, body_of, change_of, packed, start_state
from platform_process import PlatformProcess, ok, refused

from truststram_lab.learning import weights
from truststram_lab.learning.encodings import decode
from truststram_lab.learning.strategies import aggregate
from truststram_lab.learning.strategies.scaffold import expected_upload
from truststram_lab.schemas.filters import parse_filters
from truststram_lab.schemas.strategies import as_strategy

STRATEGIES = [
    "fedavg",
    "fedprox:mu=0.5",
    "fedavgm",
    "fedadam",
    "fedyogi",
    "scaffold",
    "median",
    "trimmed_mean:fraction=0.25",
    "krum",
    "multi_krum:keep=3",
]
SITES = 5


def _expected(strategy: str, rounds: int) -> dict[str, np.ndarray]:
    """The same run in memory, by the strategies themselves."""
    rule, state, memory = as_strategy(strategy), start_state(), {}
    like = expected_upload(state) if strategy == "scaffold" else state
    for number in range(1, rounds + 1):
        changes = [change_of(site, number, like) for site in range(SITES)]
        made = aggregate(rule, state, changes, [10.0 + site for site in range(SITES)], memory)
        state, memory = made.state, made.server_state
    return state


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_gives_the_bits_of_its_own_arithmetic(
    platform: PlatformProcess, strategy: str
) -> None:
    name = strategy.partition(":")[0].replace("_", "-")
    run = ArrayRun(platform, name, SITES, strategy=strategy, rounds=3).create()
    for number in (1, 2, 3):
        for site in np.random.default_rng(number).permutation(SITES):
            run.play(int(site), number)
    done = run.wait("completed")
    assert (done["round"], done["model_version"], done["deployed"]) == (3, None, False)
    assert done["plan"]["strategy"] == strategy
    found, _ = weights.decode(run.result())
    for name, array in _expected(strategy, 3).items():
        np.testing.assert_array_equal(found[name], array)


def test_scaffold_sends_its_control_variate_with_the_model(platform: PlatformProcess) -> None:
    run = ArrayRun(platform, "controls", 2, strategy="scaffold").create()
    first = run.assignment(0)
    path = "/api/v1/training/rounds/{}/model"
    model, _ = weights.decode(run.clients[0].get(path.format(first["round_id"])).content)
    assert set(model) == set(run.start)
    for site in (0, 1):
        run.play(site, 1)
    second = run.assignment(0)
    model, _ = weights.decode(run.clients[0].get(path.format(second["round_id"])).content)
    assert set(model) == set(expected_upload(run.start))
    changes = [change_of(site, 1, expected_upload(run.start)) for site in (0, 1)]
    for name in run.start:
        mean = (10 * changes[0][f"c/{name}"] + 11 * changes[1][f"c/{name}"]) / 21
        np.testing.assert_allclose(model[f"c/{name}"], mean, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("strategy", ["fedadam", "median"])
def test_packed_updates_are_summed_as_what_they_decode_to(
    platform: PlatformProcess, strategy: str
) -> None:
    chosen = [{"type": "sparsification", "top_k": 0.3}, {"type": "quantization", "bits": 8}]
    run = ArrayRun(
        platform, f"packed-{strategy}", 3, strategy=strategy, filters=chosen, rounds=1
    ).create()
    bodies = [packed(change_of(site, 1, run.start), parse_filters(chosen)) for site in range(3)]
    for site in (2, 0, 1):
        assignment = run.assignment(site)
        assert [one["type"] for one in assignment["filters"]] == ["sparsification", "quantization"]
        # one site sends plain arrays, as it may
        plain = body_of(decode(bodies[2], run.start)[0])
        ok(run.push(site, assignment["round_id"], plain if site == 2 else bodies[site]))
    run.wait("completed")
    changes = [decode(body, run.start)[0] for body in bodies]
    made = aggregate(as_strategy(strategy), run.start, changes, [10.0] * 3)
    found, _ = weights.decode(run.result())
    for name, array in made.state.items():
        np.testing.assert_array_equal(found[name], array)
    sent = ok(run.owner.get(f"/api/v1/runs/{run.name}/updates"))["items"]
    assert [one["site"] for one in sent] == run.names
    assert [len(one["steps"]) for one in sent] == [2, 2, 0]
    assert sent[0]["steps"][0]["kept"] < sent[0]["steps"][0]["coordinates"]
    assert [one["size_bytes"] for one in sent] == [len(bodies[0]), len(bodies[1]), len(plain)]


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "scaffold", "krum"])
def test_a_platform_killed_in_a_round_goes_on_to_the_same_bits(
    unstarted: PlatformProcess, strategy: str
) -> None:
    unstarted.start()
    run = ArrayRun(unstarted, "killed", SITES, strategy=strategy, rounds=2).create()
    for site in (3, 0, 4):
        run.play(site, 1)
    unstarted.end(signal.SIGKILL)
    unstarted.start()
    run.reconnect()
    # what was taken before is not asked for again
    assert run.ask(3) == []
    for site in (2, 1):
        run.play(site, 1)
    unstarted.end(signal.SIGKILL)
    unstarted.start()
    run.reconnect()
    for site in (1, 4, 2, 0, 3):
        run.play(site, 2)
    run.wait("completed")
    found, _ = weights.decode(run.result())
    for name, array in _expected(strategy, 2).items():
        np.testing.assert_array_equal(found[name], array)


def test_an_update_over_the_norm_limit_is_refused_and_said_on_the_stream(
    platform: PlatformProcess,
) -> None:
    limit = [{"type": "norm_validation", "max_norm": 1.0}]
    run = ArrayRun(platform, "norm", 2, filters=limit).create()
    round_id = run.assignment(0)["round_id"]
    large = {name: np.ones_like(array) for name, array in run.start.items()}
    problem = refused(run.push(0, round_id, body_of(large)), 422, "update_rejected")
    assert "at most 1" in problem["detail"]
    [event] = run.events("update.refused")
    assert event == {"site": "site 1", "number": 1, "reason": problem["detail"]}
    small = {name: array / 10 for name, array in large.items()}
    ok(run.push(0, round_id, body_of(small)))


def test_the_first_site_is_asked_for_the_parameters_to_begin_with(
    platform: PlatformProcess,
) -> None:
    run = ArrayRun(platform, "begin", 2, initial_weights_sha256=None, rounds=1).create()
    asked = run.assignment(0)
    assert (asked["kind"], asked["number"], asked["model_sha256"]) == ("initial", 0, None)
    assert run.ask(1) == []
    refused(run.push(0, asked["round_id"], body_of({})), 422, "update_rejected")
    ok(run.push(0, asked["round_id"], body_of(run.start, 1)))
    for site in (0, 1):
        run.play(site, 1)
    run.wait("completed")
    changes = [change_of(site, 1, run.start) for site in (0, 1)]
    made = aggregate(as_strategy("fedavg"), run.start, changes, [10.0, 11.0])
    found, _ = weights.decode(run.result())
    for name, array in made.state.items():
        np.testing.assert_array_equal(found[name], array)


def test_a_round_can_be_computed_again_from_what_is_stored(platform: PlatformProcess) -> None:
    run = ArrayRun(platform, "replay", 3, strategy="fedyogi").create()
    for number in (1, 2):
        for site in range(3):
            run.play(site, number)
    run.wait("completed")
    rounds = ok(run.owner.get(f"/api/v1/runs/{run.name}/rounds"))["items"]
    assert [one["number"] for one in rounds] == [1, 2]

    def stored(sha256: str) -> dict[str, np.ndarray]:
        return weights.decode(run.owner.get(f"/api/v1/blobs/{sha256}").content)[0]

    for one in rounds:
        former = one["former_state_sha256"]
        made = aggregate(
            as_strategy("fedyogi"),
            stored(one["model_sha256"]),
            [stored(sha256) for sha256 in one["updates"]],
            one["weights"],
            stored(former) if former else None,
        )
        assert weights.sha256_hex(weights.encode(made.state)) == one["result_sha256"]
    assert rounds[1]["result_sha256"] == run.get()["result_sha256"]


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"strategy": "krum:hostile=2"}, "strategy", "needs 7"),
        ({"strategy": "fedavgg"}, "strategy", "fedavg"),
        ({"sites": []}, "sites", "names no site"),
        ({"open_roster": True}, "open_roster", "simulated"),
        ({"quorum": {"min_fit": 3}}, "quorum.min_fit", "2 sites"),
        ({"quorum": {"min_updates": 1}}, "quorum", "deadline_s"),
        ({"filters": [{"type": "quantisation"}]}, "type", "quantization"),
        ({"signature": None, "architecture": {"inputs": 1, "layers": []}}, "architecture", ""),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(
    platform: PlatformProcess, change: dict[str, object], field: str, says: str
) -> None:
    run = ArrayRun(platform, "contradiction", 2)
    answer = run.owner.post("/api/v1/runs", json={**run.plan, **change})
    problem = refused(answer, 422, "invalid_input")
    assert problem["field"].startswith(field)
    assert says in problem["detail"]
