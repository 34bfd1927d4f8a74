"""Contributions as a game: the laws of Shapley's value, a brute force, and sampled orders."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.federated.contribution import Game, Round, contributions
from truststram_lab.learning.strategies import aggregate
from truststram_lab.schemas.contributions import Contributions, ModelScore
from truststram_lab.schemas.federation import CreateRun
from truststram_lab.schemas.strategies import as_strategy

#: Strategies that any set of updates can be put through.
SIMPLE = ["fedavg", "fedprox:mu=0.1", "fedavgm", "fedadam", "fedyogi", "scaffold", "median"]
TARGET = np.array([1.0, -2.0, 0.5])
ROUNDS = 3


def score(state) -> ModelScore:
    """Bounded and not linear in the weights, so that no law holds by accident."""
    loss = float(np.sqrt(((state["w"] - TARGET) ** 2).sum() + 1.0))
    return ModelScore(accuracy=1.0 / (1.0 + loss), loss=loss)


def made(strategy: str, sites: int, seed: int = 0, **changed) -> Game:
    """A game of random updates; ``changed[place]`` replaces a site's update in each round."""
    rng = np.random.default_rng(seed)
    plan = CreateRun(
        model="icu",
        federation="icu",
        sites=[f"site {place}" for place in range(sites)],
        rounds=ROUNDS,
        strategy=as_strategy(strategy),
    )
    rounds = []
    for _ in range(ROUNDS):
        updates = [{"w": TARGET / 3 + rng.normal(size=3) / 2} for _ in range(sites)]
        for place, update in changed.items():
            updates[int(place.removeprefix("site"))] = update(updates)
        if plan.strategy.name == "scaffold":
            updates = [{**one, "c/w": rng.normal(size=3) * 0 - one["w"] / 2} for one in updates]
        shares = tuple(float(20 + 10 * (place % 3)) for place in range(sites))
        rounds.append(Round(tuple(range(sites)), tuple(updates), shares, 1.0))
    return Game(plan, list(plan.sites), rounds, {"w": np.zeros(3)}, score)


def played(game: Game, **options) -> Contributions:
    return contributions(game, rows=100, **options)


def values(found: Contributions, measure: str) -> np.ndarray:
    return np.array([getattr(one, measure).shapley for one in found.sites])


def brute_force(game: Game) -> np.ndarray:
    """The mean over all orders of what each site adds, straight from the definition."""
    n = len(game.sites)
    gains = np.zeros((n, 2))
    for order in itertools.permutations(range(n)):
        last = retrained(game, [])
        for place, site in enumerate(order):
            now = retrained(game, order[: place + 1])
            gains[site] += now - last
            last = now
    return gains / math.factorial(n)


def retrained(game: Game, members: Sequence[int]) -> np.ndarray:
    state, memory = {"w": np.zeros(3)}, None
    for each in game.rounds:
        chosen = sorted(members)
        if not chosen:
            continue
        result = aggregate(
            game.plan.strategy,
            state,
            [each.updates[place] for place in chosen],
            [each.weights[place] for place in chosen],
            memory,
            participation=len(chosen) / len(each.members),
        )
        state, memory = result.state, result.server_state
    found = score(state)
    return np.array([found.accuracy, -found.loss])


@pytest.mark.parametrize("strategy", SIMPLE)
def test_exact_values_are_those_of_the_definition(strategy: str) -> None:
    game = made(strategy, 4)
    found = played(game)
    expected = brute_force(game)
    np.testing.assert_allclose(values(found, "accuracy"), expected[:, 0], atol=1e-12)
    np.testing.assert_allclose(values(found, "loss"), expected[:, 1], atol=1e-12)
    assert (found.method, found.evaluations) == ("exact", 16)


@pytest.mark.parametrize("strategy", SIMPLE)
def test_the_values_sum_up_to_what_the_federation_gained(strategy: str) -> None:
    found = played(made(strategy, 6))
    gained = found.everybody.accuracy - found.nobody.accuracy
    assert values(found, "accuracy").sum() == pytest.approx(gained, abs=1e-9)
    fell = found.nobody.loss - found.everybody.loss
    assert values(found, "loss").sum() == pytest.approx(fell, abs=1e-9)
    assert max(abs(gap) for gap in found.residual.values()) < 1e-9


def test_sites_that_send_the_same_are_worth_the_same() -> None:
    # site 3 has the weight of site 0
    found = played(made("fedavg", 5, site3=lambda updates: updates[0]))
    for measure in ("accuracy", "loss"):
        first, *_, fourth, _ = values(found, measure)
        assert first == pytest.approx(fourth, abs=1e-12)


def test_who_never_changes_anything_is_worth_nothing() -> None:
    game = made("median", 3)
    game.rounds = [  # the third site is in no round
        replace(each, members=(0, 1), updates=each.updates[:2], weights=each.weights[:2])
        for each in game.rounds
    ]
    found = played(game)
    assert found.sites[2].accuracy.shapley == pytest.approx(0.0, abs=1e-15)
    assert found.sites[2].accuracy.leave_one_out == 0.0
    assert found.sites[2].rounds == 0


def test_left_out_means_the_score_of_the_others() -> None:
    game = made("fedavg", 4)
    found = played(game)
    for place, one in enumerate(found.sites):
        others = [other for other in range(4) if other != place]
        gap = retrained(game, range(4)) - retrained(game, others)
        assert one.accuracy.leave_one_out == pytest.approx(gap[0], abs=1e-12)
        assert one.loss.leave_one_out == pytest.approx(gap[1], abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_sampled_orders_come_to_the_exact_values(seed: int, monkeypatch) -> None:
    game = made("fedavg", 7, seed)
    exact = values(played(game), "loss")
    monkeypatch.setattr("truststram_lab.federated.contribution.EXACT_SITES", 2)
    found = played(game, pairs=300, tolerance=0.0, seed=seed)
    errors = np.array([one.loss.error for one in found.sites])
    assert found.method == "permutations"
    assert found.truncated == 0.0
    assert (np.abs(values(found, "loss") - exact) < 4.5 * errors).all()
    # and the errors are no wider than the answer needs
    assert (errors < 0.2 * np.abs(exact).max()).all()
    few = played(game, pairs=75, tolerance=0.0, seed=seed)
    wider = np.mean([one.loss.error for one in few.sites]) / errors.mean()
    assert 1.5 < wider < 2.7  # half as many each time they are four times as many


def test_a_walk_that_stops_early_says_how_much_it_left_out() -> None:
    game = made("fedavg", 12)
    whole = played(game, pairs=10, tolerance=0.0)
    fresh = made("fedavg", 12)
    early = played(fresh, pairs=10, tolerance=0.2)
    assert whole.truncated == 0.0
    assert 0.0 < early.truncated < 1.0
    assert early.evaluations < whole.evaluations
    assert abs(early.residual["loss"]) <= 0.2 * abs(early.everybody.loss - early.nobody.loss)
    assert abs(whole.residual["loss"]) < 1e-9


def test_the_same_seed_gives_the_same_values() -> None:
    one, two = (played(made("fedavg", 12), pairs=5, seed=3) for _ in range(2))
    assert one == two
    assert played(made("fedavg", 12), pairs=5, seed=4) != one


def test_a_rule_that_needs_many_updates_has_leave_one_out_only() -> None:
    game = made("krum:hostile=1", 7)
    found = played(game)
    assert found.method == "leave_one_out"
    assert "5 updates" in found.why
    assert all(one.accuracy.leave_one_out is not None for one in found.sites)
    assert all(one.accuracy.shapley is None for one in found.sites)
    with pytest.raises(InvalidInputError, match="too few"):
        game.without(["site 0", "site 1", "site 2"])
    assert game.without(["site 0", "site 1"]) == {2, 3, 4, 5, 6}


def test_a_site_that_turns_its_updates_round_is_worth_least() -> None:
    game = made("fedavg", 5, site2=lambda updates: {"w": -3 * updates[2]["w"]})
    found = played(game)
    assert values(found, "loss").argmin() == 2
    assert found.sites[2].loss.shapley < 0
    assert found.sites[2].loss.leave_one_out < 0


def test_an_interrupt_keeps_what_was_counted() -> None:
    def after(models: int):
        def tell(_: str) -> None:
            if game.evaluations >= models:
                raise KeyboardInterrupt

        return tell

    game = made("fedavg", 12)
    found = played(game, progress=after(100))
    assert not found.complete
    assert found.method == "permutations"
    assert found.pairs >= 2
    game = made("fedavg", 12)
    found = played(game, progress=after(5))
    assert not found.complete
    assert found.method == "leave_one_out"
    assert "interrupted" in found.why
    assert sum(one.loss.leave_one_out is not None for one in found.sites) == 3


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"pairs": 1}, "pairs"),
        ({"tolerance": 1.0}, "tolerance"),
        ({"tolerance": -0.1}, "tolerance"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(options, field) -> None:
    with pytest.raises(InvalidInputError) as caught:
        played(made("fedavg", 12), **options)
    assert caught.value.field == field


def test_a_site_that_is_not_there_is_named_with_the_nearest() -> None:
    with pytest.raises(InvalidInputError, match="did you mean 'site 2'"):
        made("fedavg", 3).without(["sit 2"])
    with pytest.raises(InvalidInputError, match="too few"):
        made("fedavg", 2).without(["site 0", "site 1"])
