"""Attacks on the mechanisms: what canaries betray must stay within the epsilon that is claimed.

Each audit is made twice, with the planned noise and without any: an audit that could not tell
the two apart would prove nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from truststram_lab.learning.privacy.accountant import account
from truststram_lab.learning.privacy.dpsgd import module_loss, private_gradient
from truststram_lab.learning.privacy.mechanisms import noised_mean, noised_sum, noised_update
from truststram_lab.learning.privacy.moments import noised_moments, record_sensitivity
from truststram_lab.learning.privacy.noise import SecureRandom
from truststram_lab.schemas.privacy import ClientPlan, GaussianUse, LocalPlan, RecordPlan
from truststram_lab.schemas.tables import Column, Signature

pytestmark = pytest.mark.long

DELTA = 1e-5
#: The delta of an audit with thousands of canaries, each of which it could give away.
RARE = 1e-9
#: Chance that a sound mechanism fails an audit.
CHANCE = 1e-4


def rng(number: int) -> SecureRandom:
    return SecureRandom(bytes([number]) * 32)


def paired_bound(without: np.ndarray, present: np.ndarray) -> float:
    """A lower bound on epsilon from scores without and with the canary, float (runs,) each.

    The first half of the runs chooses the threshold, the second half tests it: the rates' exact
    intervals are those of Clopper and Pearson 1934; the bound is equation 2 of Jagielski, Ullman
    and Oprea 2020, "Auditing Differentially Private Machine Learning".
    """
    half = len(without) // 2

    def bound(threshold: float, absent: np.ndarray, there: np.ndarray, chance: float) -> float:
        false, true = int((absent > threshold).sum()), int((there > threshold).sum())
        most_false = stats.beta.ppf(1 - chance / 2, false + 1, len(absent) - false)
        least_true = stats.beta.ppf(chance / 2, true, len(there) - true + 1) if true else 0.0
        return math.log(max(least_true - DELTA, 1e-300) / most_false)

    candidates = np.quantile(
        np.concatenate([without[:half], present[:half]]), np.arange(1, 100) / 100
    )
    best = max(candidates, key=lambda t: bound(t, without[:half], present[:half], CHANCE))
    return bound(best, without[half:], present[half:], CHANCE)


def one_run_bound(included: np.ndarray, scores: np.ndarray, low: int, high: int) -> float:
    """A lower bound on epsilon from one run with many canaries, each in by a coin's toss.

    The ``high`` canaries with the highest scores are said to be in, the ``low`` ones with the
    lowest to be out; on the others the attacker is silent. Steinke, Nasr and Jagielski 2023,
    "Privacy Auditing with One (1) Training Run", theorem 5.2 (https://arxiv.org/abs/2305.08846),
    solved for epsilon.
    """
    order = np.argsort(scores)
    right = int((~included[order[:low]]).sum() + included[order[len(order) - high :]].sum())
    canaries, said = len(scores), low + high

    def chance(epsilon: float) -> float:
        hit = 1 / (1 + math.exp(-epsilon))
        beta = stats.binom.sf(right - 1, said, hit)
        steps = np.arange(1, right + 1)
        grown = stats.binom.sf(right - steps - 1, said, hit) - beta
        return float(beta + 2 * canaries * RARE * (grown / steps).max())

    least, most = 0.0, 50.0
    for _ in range(60):
        middle = (least + most) / 2
        least, most = (middle, most) if chance(middle) < CHANCE else (least, middle)
    return least


def audit(
    score: Callable[[bool, float], np.ndarray], use: GaussianUse
) -> tuple[float, float, float]:
    """(claimed epsilon, bound with the noise, bound without): score(canary is in, noise)."""
    claimed = account([use], DELTA, "tight").epsilon
    with_noise, without_noise = (
        paired_bound(score(False, noise), score(True, noise)) for noise in (use.noise_multiplier, 0)
    )
    return claimed, with_noise, without_noise


def check(claimed: float, with_noise: float, without_noise: float, at_least: float) -> None:
    assert with_noise <= claimed
    # The audit is no formality: it finds a good part of what may be found,
    assert with_noise >= at_least
    # and a mechanism that forgot its noise does not pass.
    assert without_noise > claimed


def test_a_sites_update_in_a_noised_mean_stays_within_epsilon() -> None:
    others = [{"w": np.array([0.6, 0.3])}, {"w": np.array([-0.2, 0.4])}]
    canary = {"w": np.array([100.0, 0.0])}
    like = {"w": np.zeros(2)}

    def score(present: bool, noise: float) -> np.ndarray:
        plan = ClientPlan(noise_multiplier=noise, sites=3, rounds=1, delta=DELTA)
        updates = [*others, canary] if present else others
        source = rng(2 + present)
        return np.array([noised_mean(updates, like, plan, rng=source)["w"][0] for _ in range(4000)])

    check(*audit(score, GaussianUse(noise_multiplier=1.0)), at_least=1.0)


def test_a_local_update_exchanged_for_its_opposite_stays_within_epsilon() -> None:
    def score(present: bool, noise: float) -> np.ndarray:
        plan = LocalPlan(clip=1.0, sigma=2 * noise, rounds=1, delta=DELTA)
        update = {"w": np.array([9.0 if present else -9.0])}
        source = rng(4 + present)
        return np.array([noised_update(update, plan, rng=source)["w"][0] for _ in range(4000)])

    check(*audit(score, GaussianUse(noise_multiplier=1.0)), at_least=1.0)


def test_a_row_in_the_noised_statistics_stays_within_epsilon() -> None:
    signature = Signature(
        columns=[Column(name="age", kind="numeric")], target="y", classes=["0", "1"],
        positive_class="1",
    )  # fmt: skip
    use = GaussianUse(noise_multiplier=1.0)

    def score(present: bool, noise: float) -> np.ndarray:
        table = {"age": [50.0] * 40 + [100.0] * present}
        source = rng(6 + present)
        found = [
            noised_moments(table, signature, {"age": (0.0, 100.0)}, noise, rng=source)
            for _ in range(4000)
        ]
        # Rows, count, sum and sum of squares all moved by one: their sum shows it best.
        scaled = [(float(m["mean"][0]) - 50) / 50 for m in found]
        return np.array(
            [
                int(m["rows"][0]) + int(m["count"][0]) * (1 + s + s * s)
                + float(m["m2"][0]) / 2500
                for m, s in zip(found, scaled, strict=True)
            ]
        )  # fmt: skip

    assert record_sensitivity(signature) == 2.0
    check(*audit(score, use), at_least=0.5)


CANARIES = 3000
INCLUDED = np.random.default_rng(0).random(CANARIES) < 0.5


def claimed_in_one_run(noise: float, rate: float = 1.0) -> float:
    use = GaussianUse(noise_multiplier=noise, sample_rate=rate)
    return account([use], RARE, "tight").epsilon


def test_thousands_of_sites_in_one_noised_sum_stay_within_epsilon() -> None:
    like = {"w": np.zeros(CANARIES)}

    def bound(noise: float, guesses: int) -> float:
        # Each far beyond the clip, in a direction of its own.
        updates = ({"w": 7.0 * np.eye(1, CANARIES, k)[0]} for k in np.flatnonzero(INCLUDED))
        total = noised_sum(updates, like, clip=0.3, noise_multiplier=noise, rng=rng(12))
        return one_run_bound(INCLUDED, total["w"], guesses, guesses)

    assert 0.7 < bound(1.0, 150) <= claimed_in_one_run(1.0)
    assert bound(2.0, 1000) <= claimed_in_one_run(2.0) < bound(0.0, 1000)


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_thousands_of_rows_in_one_step_of_dp_sgd_stay_within_epsilon(rate: float) -> None:
    layer = nn.Linear(CANARIES, 1, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
    # The gradient of a row lies in its own direction, far beyond the clip.
    x = 50 * torch.eye(CANARIES)[torch.from_numpy(INCLUDED)]
    y = torch.ones(len(x), 1)
    loss, weights = module_loss(layer, nn.MSELoss()), dict(layer.named_parameters())

    def bound(noise: float, guesses: int) -> float:
        plan = RecordPlan(
            noise_multiplier=noise,
            sample_rate=rate,
            batch_size=100,
            steps_per_round=1,
            rounds=1,
            delta=RARE,
        )
        gradient, _ = private_gradient(loss, weights, (x, y), plan, sampling=rng(8), noise=rng(10))
        # A row that is missing may only not have been drawn, so nobody is said to be out.
        return one_run_bound(INCLUDED, -gradient["weight"][0].numpy(), 0, guesses)

    assert 0.3 < bound(0.7, 150) <= claimed_in_one_run(0.7, rate)
    assert bound(2.5, 700) <= claimed_in_one_run(2.5, rate) < bound(0.0, 700)


def test_noise_that_is_four_times_too_small_is_found_out() -> None:
    # Claimed for noise multiplier 4, added with 1: the difference an off-by-four bug makes.
    claimed = account([GaussianUse(noise_multiplier=4.0)], DELTA).epsilon
    like = {"w": np.zeros(1)}

    def scores(updates: list[dict[str, np.ndarray]], number: int) -> np.ndarray:
        source = rng(number)
        return np.array(
            [
                noised_sum(updates, like, clip=1.0, noise_multiplier=1.0, rng=source)["w"][0]
                for _ in range(4000)
            ]
        )

    assert paired_bound(scores([], 13), scores([{"w": np.ones(1)}], 14)) > claimed
