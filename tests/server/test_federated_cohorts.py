"""Who is asked in a round, how long it waits, and what happens to those who are late."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from array_runs import ArrayRun, body_of, change_of
from platform_process import PlatformProcess, digest, ok, refused

from truststram_lab.exceptions import ConflictError
from truststram_lab.learning import weights
from truststram_lab.learning.strategies import aggregate
from truststram_lab.schemas.strategies import as_strategy
from truststram_lab.server.services.presence import HOLD_S, PRESENT_S, Presence


def _asked(run: ArrayRun) -> list[int]:
    return [site for site in range(len(run.names)) if run.ask(site)]


def test_the_first_round_opens_when_enough_sites_are_there(platform: PlatformProcess) -> None:
    run = ArrayRun(
        platform, "gate", 3, simulated=False, quorum={"min_available": 2}, rounds=1
    ).create()
    assert run.get()["round"] == 0
    assert run.ask(0) == []
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(run.assignment, 0, 20)
        found = run.assignment(1)
        assert waiting.result(60)["round_id"] == found["round_id"]
    # who comes later is not asked in the round that is open
    assert run.ask(2) == []
    for site in (0, 1):
        run.play(site, 1)
    run.wait("completed")


def test_a_round_asks_the_share_of_the_sites_that_its_seed_draws(
    platform: PlatformProcess,
) -> None:
    cohorts = []
    for name, seed in (("share-a", 7), ("share-b", 7), ("share-c", 8)):
        quorum = {"min_available": 6, "fraction_fit": 0.5, "min_fit": 2}
        run = ArrayRun(
            platform, name, 6, simulated=False, quorum=quorum, rounds=4, seed=seed
        ).create()
        for site in range(6):
            run.ask(site)
        for number in range(1, 5):
            asked = _asked(run)
            assert len(asked) == 3
            for site in asked:
                run.play(site, number)
            cohorts.append(asked)
        run.wait("completed")
    assert cohorts[:4] == cohorts[4:8]
    assert cohorts[4:8] != cohorts[8:]
    assert len({tuple(one) for one in cohorts}) > 1


def test_a_straggler_is_left_out_at_the_deadline_and_told_where_to_go_on(
    platform: PlatformProcess,
) -> None:
    quorum = {"min_available": 3, "min_updates": 2, "deadline_s": 1.5}
    run = ArrayRun(platform, "straggler", 3, simulated=False, quorum=quorum, rounds=2).create()
    for site in (0, 1, 2):
        run.ask(site)
    late = run.assignment(2)
    assert 0 < late["deadline_s"] <= 1.5
    for site in (1, 0):
        run.play(site, 1)
    assert run.assignment(0, 30)["number"] == 2
    problem = refused(run.push(2, late["round_id"], body_of(run.start)), 409, "round_closed")
    assert "Round 1" in problem["detail"]
    assert "ask for the assignments" in problem["detail"]
    for site in (2, 1, 0):
        run.play(site, 2)
    run.wait("completed")
    first = aggregate(
        as_strategy("fedavg"), run.start, [change_of(s, 1, run.start) for s in (0, 1)], [10.0, 11.0]
    ).state
    changes = [change_of(site, 2, run.start) for site in range(3)]
    made = aggregate(as_strategy("fedavg"), first, changes, [10.0, 11.0, 12.0])
    found, _ = weights.decode(run.result())
    for name, array in made.state.items():
        np.testing.assert_array_equal(found[name], array)


def test_too_few_updates_at_the_deadline_stop_the_run_with_the_names_missing(
    platform: PlatformProcess,
) -> None:
    quorum = {"min_available": 3, "min_updates": 2, "deadline_s": 1.0}
    run = ArrayRun(platform, "toofew", 3, simulated=False, quorum=quorum, rounds=1).create()
    for site in (0, 1, 2):
        run.ask(site)
    run.play(1, 1)
    stopped = run.wait("stopped")
    assert stopped["reason"].startswith("insufficient_updates: 1 of 3 came in round 1")
    assert "missing: site 1, site 3" in stopped["reason"]
    assert stopped["pushed"] == ["site 2"]

    resumed = ok(run.owner.post(f"/api/v1/runs/{run.name}/resume"))
    assert (resumed["status"], resumed["reason"]) == ("training", None)
    assert run.ask(1) == []
    run.play(0, 1)
    done = run.wait("completed")
    assert done["round"] == 1


def test_a_deadline_survives_the_end_of_the_platform(unstarted: PlatformProcess) -> None:
    unstarted.start()
    quorum = {"min_available": 2, "min_updates": 1, "deadline_s": 2.0}
    run = ArrayRun(unstarted, "outlives", 2, simulated=False, quorum=quorum, rounds=1).create()
    for site in (0, 1):
        run.ask(site)
    run.play(0, 1)
    unstarted.end(signal.SIGKILL)
    unstarted.start()
    run.reconnect()
    # nobody asks: the platform wakes by itself
    run.wait("completed")


def test_a_run_stops_when_its_sites_never_come(platform: PlatformProcess) -> None:
    quorum = {"min_available": 2, "wait_s": 0.5}
    run = ArrayRun(platform, "nobody", 2, simulated=False, quorum=quorum).create()
    run.ask(0)
    stopped = run.wait("stopped")
    assert "1 of 2 sites were there" in stopped["reason"]
    assert "missing: site 2" in stopped["reason"]


def test_a_site_that_declines_is_not_waited_for(platform: PlatformProcess) -> None:
    run = ArrayRun(platform, "declines", 3, rounds=1).create()
    round_id = run.assignment(2)["round_id"]
    path = f"/api/v1/training/rounds/{round_id}/state"
    told = {"state": "declined_policy", "detail": "This site trains a, b only."}
    assert run.clients[2].post(path, json=told).status_code == 204
    assert run.ask(2) == []
    for site in (0, 1):
        run.play(site, 1)
    run.wait("completed")
    [event] = run.events("participation")
    assert event == {"site": "site 3", "number": 1, **told}


def _decline(run: ArrayRun, site: int, why: str = "No.") -> None:
    round_id = run.assignment(site)["round_id"]
    path = f"/api/v1/training/rounds/{round_id}/state"
    told = {"state": "declined_policy", "detail": why}
    assert run.clients[site].post(path, json=told).status_code == 204


@pytest.mark.parametrize("first", ["declines", "trains"])
def test_a_site_that_declined_and_left_is_not_in_the_next_round(
    platform: PlatformProcess, first: str
) -> None:
    quorum = {"min_available": 2, "min_fit": 2}
    run = ArrayRun(platform, f"left-{first}", 3, rounds=2, simulated=False, quorum=quorum)
    for site in range(3):
        run.ask(site)
    run.create()
    if first == "declines":
        _decline(run, 2)
    for site in (0, 1):
        run.play(site, 1)
    if first == "trains":
        _decline(run, 2)
    for site in (0, 1):
        run.play(site, 2)
    assert run.wait("completed")["round"] == 2


def test_a_site_that_declined_and_stays_is_asked_in_the_next_round(
    platform: PlatformProcess,
) -> None:
    run = ArrayRun(platform, "stays", 2, rounds=2, simulated=False)
    for site in range(2):
        run.ask(site)
    run.create()
    _decline(run, 1)
    assert run.ask(1) == []
    run.play(0, 1)
    for site in range(2):
        run.play(site, 2)
    run.wait("completed")


def test_a_round_whose_quorum_a_decline_breaks_stops_and_says_who_and_why(
    platform: PlatformProcess,
) -> None:
    quorum = {"min_available": 2, "min_fit": 2}
    run = ArrayRun(platform, "broken-quorum", 2, rounds=1, simulated=False, quorum=quorum)
    for site in range(2):
        run.ask(site)
    run.create()
    _decline(run, 1, "This site adds noise of at least 50.")
    run.play(0, 1)
    reason = run.wait("stopped")["reason"]
    assert "1 of 2 came in round 1" in reason
    assert "declined: site 2 (This site adds noise of at least 50)" in reason
    ok(run.owner.post(f"/api/v1/runs/{run.name}/resume"))
    run.play(1, 1)  # its policy was changed
    run.wait("completed")


def test_who_declines_a_client_level_run_counts_as_zero_and_is_not_waited_for(
    platform: PlatformProcess,
) -> None:
    privacy = {
        "mechanism": "dp-fedavg",
        "clip": 1.0,
        "noise_multiplier": 1e-6,
        "sites": 2,
        "rounds": 2,
        "delta": 1e-5,
    }
    run = ArrayRun(platform, "zero", 2, rounds=2, simulated=False, privacy=privacy)
    for site in range(2):
        run.ask(site)
    run.create()
    _decline(run, 1)
    change = {name: np.full_like(array, 0.01) for name, array in run.start.items()}
    for _ in (1, 2):
        ok(run.push(0, run.assignment(0)["round_id"], body_of(change)))
    run.wait("completed")
    found, _ = weights.decode(run.result())
    for name, array in run.start.items():
        np.testing.assert_allclose(found[name] - array, 2 * 0.01 / 2, atol=1e-4)


def test_a_run_that_all_decline_stops_and_says_who(platform: PlatformProcess) -> None:
    run = ArrayRun(platform, "all-decline", 2, rounds=1).create()
    round_id = run.assignment(0)["round_id"]
    for client in run.clients:
        path = f"/api/v1/training/rounds/{round_id}/state"
        ok_ = client.post(path, json={"state": "declined_policy", "detail": "No."})
        assert ok_.status_code == 204
    assert "declined: site 1 (No), site 2 (No)" in run.wait("stopped")["reason"]


def test_an_open_roster_takes_whoever_comes(platform: PlatformProcess) -> None:
    quorum = {"min_available": 2}
    run = ArrayRun(
        platform, "open", 3, simulated=False, sites=[], open_roster=True, quorum=quorum, rounds=2
    ).create()
    run.ask(2)
    run.ask(0)
    for site in (2, 0):
        run.play(site, 1)
    run.ask(1)  # now it is one of them
    for site in _asked(run):
        run.play(site, 2)
    run.wait("completed")
    assert {event["site"] for event in run.events("site.joined")} == set(run.names)


def test_the_sites_evaluate_and_the_history_is_weighted_by_rows(
    platform: PlatformProcess,
) -> None:
    run = ArrayRun(platform, "evaluates", 2, evaluation="every", rounds=2).create()
    for number in (1, 2):
        for site in (0, 1):
            run.play(site, number)
        for site, (rows, accuracy) in enumerate(((30, 0.5), (10, 0.9))):
            asked = run.assignment(site)
            assert (asked["kind"], asked["number"]) == ("evaluation", number)
            body = body_of({}, rows, loss=1.0 / number, accuracy=accuracy, rows=rows)
            refused(run.push(site, asked["round_id"], body_of({}, rows)), 422, "update_rejected")
            ok(run.push(site, asked["round_id"], body))
    done = run.wait("completed")
    history = done["report"]["history"]
    assert [entry["number"] for entry in history] == [1, 2]
    assert [entry["rows"] for entry in history] == [40, 40]
    assert history[0]["accuracy"] == pytest.approx((30 * 0.5 + 10 * 0.9) / 40)
    assert [entry["loss"] for entry in history] == pytest.approx([1.0, 0.5])
    plain = ArrayRun(platform, "plain", 2, rounds=2).create()
    for number in (1, 2):
        for site in (0, 1):
            plain.play(site, number)
    plain.wait("completed")
    assert plain.result() == run.result()


def test_a_plan_that_is_known_is_not_repeated(platform: PlatformProcess) -> None:
    run = ArrayRun(platform, "known", 1, config={"alpha": 0.5}, rounds=1).create()
    whole = run.assignment(0)
    sha256 = whole["plan_sha256"]
    short = run.ask(0, known=sha256)[0]
    assert whole["config"] == {"alpha": 0.5}
    assert (short["config"], short["strategy"], short["plan_sha256"]) == (None, None, sha256)
    answer = run.clients[0].get(f"/api/v1/training/plans/{sha256}")
    assert weights.sha256_hex(answer.content) == sha256
    assert ok(answer)["config"] == {"alpha": 0.5}
    other = ArrayRun(platform, "unknown", 1)
    refused(other.clients[0].get(f"/api/v1/training/plans/{sha256}"), 404, "not_found")


def test_a_second_device_of_one_identity_is_told_who_holds_it(
    platform: PlatformProcess,
) -> None:
    run = ArrayRun(platform, "identity", 1, simulated=False, quorum={"min_available": 1})
    ask = "/api/v1/training/rounds"
    ok(run.clients[0].get(ask, headers={"TrustStram-Device": "ward-3"}))
    answer = run.clients[0].get(ask, headers={"TrustStram-Device": "ward-4"})
    problem = refused(answer, 409, "conflict")
    assert "'ward-3'" in problem["detail"]
    assert "since 20" in problem["detail"]
    ok(run.clients[0].get(ask, headers={"TrustStram-Device": "ward-3"}))
    # a client that does not say what it is stays welcome
    ok(run.clients[0].get(ask))


def test_an_identity_is_free_again_when_its_device_was_silent() -> None:
    now = [100.0]
    presence = Presence(lambda: now[0])
    with presence.asking("sit_1", "icu", "a"):
        now[0] += 10 * HOLD_S  # a long poll holds it all the time
        with pytest.raises(ConflictError), presence.asking("sit_1", "icu", "b"):
            pass
    now[0] += HOLD_S - 0.1
    with pytest.raises(ConflictError), presence.asking("sit_1", "icu", "b"):
        pass
    now[0] += 0.2
    with presence.asking("sit_1", "icu", "b"):
        pass
    with pytest.raises(ConflictError), presence.asking("sit_1", "icu", "a"):
        pass


def test_a_site_is_present_for_a_minute_after_it_asked() -> None:
    now = [0.0]
    presence = Presence(lambda: now[0])
    presence.seen("a")
    assert presence.present(["a", "b"], lately=["b"]) == {"a", "b"}
    now[0] += PRESENT_S
    assert presence.present(["a", "b"], lately=["b"]) == set()
    with presence.asking("b", "b", None):
        now[0] += 10 * PRESENT_S
        assert presence.present(["a", "b"]) == {"b"}


def test_a_personal_model_is_its_sites_alone(platform: PlatformProcess) -> None:
    run = ArrayRun(platform, "personal", 2)
    path = "/api/v1/training/personalized/my-device"
    refused(run.clients[0].get(path), 404, "not_found")
    for number in (1, 2):
        body = body_of(change_of(0, number, run.start), accuracy=0.5)
        answer = run.clients[0].put(path, content=body, headers=digest(body))
        assert answer.status_code == 204, answer.text
        found = run.clients[0].get(path)
        assert found.content == body
        assert found.headers["content-digest"] == digest(body)["Content-Digest"]
    refused(run.clients[1].get(path), 404, "not_found")
    refused(run.owner.get(path), 403, "forbidden")
    bad = {"body.bias": np.full(5, np.nan, np.float32)}
    body = body_of(bad)
    refused(run.clients[0].put(path, content=body, headers=digest(body)), 422, "update_rejected")


def test_no_state_is_told_without_end(platform: PlatformProcess) -> None:
    run = ArrayRun(platform, "flood", 1, rounds=1).create()
    path = f"/api/v1/training/rounds/{run.assignment(0)['round_id']}/state"
    for _ in range(70):
        assert run.clients[0].post(path, json={"state": "local_training"}).status_code == 204
    assert len(run.events("participation")) == 50
