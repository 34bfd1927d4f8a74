from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning.privacy.accountant import account
from truststram_lab.learning.privacy.gaussian import (
    gaussian_delta,
    gaussian_epsilon,
    gaussian_noise_multiplier,
)
from truststram_lab.learning.privacy.prv import prv_epsilon
from truststram_lab.learning.privacy.rdp import ORDERS, rdp_epsilon, rdp_of, rdp_total
from truststram_lab.learning.privacy.special import log_normal_cdf, mills_ratio, normal_cdf
from truststram_lab.schemas.privacy import GaussianUse

DELTA = 1e-5


def use(noise: float, rate: float = 1.0, steps: int = 1) -> GaussianUse:
    return GaussianUse(noise_multiplier=noise, sample_rate=rate, steps=steps)


@given(st.floats(-1000, 40))
def test_the_normal_distributions_tails_are_scipys(x: float) -> None:
    assert log_normal_cdf(x) == pytest.approx(stats.norm.logcdf(x), rel=1e-9, abs=1e-300)
    assert normal_cdf(np.array([x]))[0] == pytest.approx(stats.norm.cdf(x), rel=1e-9, abs=1e-300)
    if x >= 0:
        expected = math.exp(stats.norm.logsf(x) - stats.norm.logpdf(x))
        assert mills_ratio(x) == pytest.approx(expected, rel=1e-9)


@given(st.floats(0, 20), st.floats(0.01, 10))
def test_the_gaussians_delta_is_the_integral_that_defines_it(epsilon: float, mu: float) -> None:
    # Hockey-stick divergence of N(mu, 1) from N(0, 1): positive right of one crossing.
    crossing = epsilon / mu + mu / 2
    expected = stats.norm.sf(crossing - mu) - math.exp(epsilon) * stats.norm.sf(crossing)
    assert gaussian_delta(epsilon, mu) == pytest.approx(expected, rel=1e-6, abs=1e-13)


@given(st.floats(1e-9, 0.5), st.floats(1e-3, 1e6))
def test_epsilon_and_delta_of_the_gaussian_undo_each_other(delta: float, mu: float) -> None:
    epsilon = gaussian_epsilon(delta, mu)
    if epsilon > 0:
        assert gaussian_delta(epsilon, mu) == pytest.approx(delta, rel=1e-3)
    assert gaussian_delta(epsilon, mu) <= delta


@given(st.floats(0.01, 50), st.floats(1e-9, 0.1))
def test_the_calibrated_noise_is_the_least_that_meets_the_budget(
    epsilon: float, delta: float
) -> None:
    noise = gaussian_noise_multiplier(epsilon, delta)
    assert gaussian_delta(epsilon, 1 / noise) <= delta
    assert gaussian_delta(epsilon, 1.001 / noise) > delta


def test_known_epsilons_of_one_gaussian_release() -> None:
    # Independent: scipy's tails and a bracketing solver on Balle and Wang's theorem 8.
    assert gaussian_epsilon(1e-5, 1.0) == pytest.approx(4.3771780957, rel=1e-9)
    assert gaussian_noise_multiplier(1.0, 1e-5) == pytest.approx(3.7306316348, rel=1e-9)


def test_the_documents_noise_is_worth_thousands_and_no_noise_is_worth_nothing() -> None:
    assert account([use(0.01)], DELTA).epsilon == pytest.approx(5425.5, abs=0.1)
    assert account([use(0.01 / 2)], DELTA).epsilon == pytest.approx(20852.0, abs=0.1)
    assert account([use(1e-6)], DELTA).epsilon == pytest.approx(5e11, rel=1e-4)
    for how in ("live", "tight", "RDP"):
        assert account([use(1.0), use(0.0)], DELTA, how).epsilon == math.inf


@pytest.mark.parametrize("how", ["RDP", "tight"])
@pytest.mark.parametrize("rate", [0.3, 1.0])
@pytest.mark.parametrize("noise", [1e-4, 0.01, 0.1])
def test_every_accountant_stays_finite_and_near_at_very_small_noise(
    noise: float, rate: float, how: str
) -> None:
    found = account([use(noise, rate, 3)], DELTA, how).epsilon
    most = gaussian_epsilon(DELTA, math.sqrt(3) / noise)
    # Sampling saves one or two of the three steps' shares at best, with a chance of at least 2.7 %.
    assert most / 4 <= found <= 1.2 * most


@pytest.mark.parametrize("order", [1.01, 1.5, 2.0, 3.7, 8.0, 12.0])
@pytest.mark.parametrize(("noise", "rate"), [(1.0, 0.1), (0.5, 0.5), (4.0, 0.01), (2.0, 0.9)])
def test_the_rdp_is_the_integral_that_defines_it(noise: float, rate: float, order: float) -> None:
    mu = 1 / noise

    def ratio(t: float) -> float:
        return 1 - rate + rate * math.exp(mu * t - mu * mu / 2)

    # Its mean is 1, so that subtracting leaves a positive integrand without cancellation.
    def gain(t: float) -> float:
        grown = math.exp(order * math.log(ratio(t)) - t * t / 2)
        return grown - math.exp(-t * t / 2) * (1 + order * (ratio(t) - 1))

    humps = [0, order * mu]
    area, _ = integrate.quad(gain, -12, 12 + order * mu, points=humps, limit=500, epsrel=1e-9)
    value = area / math.sqrt(2 * math.pi)
    expected = math.log1p(value) / (order - 1)
    assert rdp_of(noise, rate, np.array([order]))[0] == pytest.approx(expected, rel=1e-6)


@given(st.floats(0.05, 20), st.floats(0.001, 1))
def test_rdp_rises_with_the_order_and_sampling_never_hurts(noise: float, rate: float) -> None:
    curve, full = rdp_of(noise, rate), rdp_of(noise, 1.0)
    assert (np.diff(curve) >= -1e-9 * curve[1:]).all()
    assert (curve <= full * (1 + 1e-12)).all()
    assert (curve >= 0).all()


@given(
    st.sampled_from([0.3, 1.0, 4.0]),
    st.sampled_from([0.01, 0.2, 1.0]),
    st.integers(1, 1000),
    st.sampled_from([1e-9, 1e-5, 1e-2]),
)
def test_epsilon_never_falls_with_more_steps_more_rate_less_noise_or_less_delta(
    noise: float, rate: float, steps: int, delta: float
) -> None:
    base = account([use(noise, rate, steps)], delta).epsilon
    for worse, worse_delta in (
        ([use(noise, rate, steps + 1)], delta),
        ([use(noise, min(1.0, 2 * rate), steps)], delta),
        ([use(noise / 2, rate, steps)], delta),
        ([use(noise, rate, steps), use(9.0, 0.5)], delta),
        ([use(noise, rate, steps)], delta / 2),
    ):
        assert account(worse, worse_delta).epsilon >= base * (1 - 1e-12)


def test_nothing_released_costs_nothing() -> None:
    for how in ("live", "tight", "RDP"):
        assert account([], DELTA, how).epsilon == 0


def test_the_order_of_releases_and_how_they_are_split_do_not_matter() -> None:
    whole = account([use(1, 0.1, 30), use(2, 0.3, 5)], DELTA).epsilon
    split = account([use(2, 0.3, 5), use(1, 0.1, 10), use(1, 0.1, 20)], DELTA).epsilon
    assert split == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "rdp", "prv"),
    # RDP by opacus 1.6.0; PLD by dp-accounting 0.6.0 (value grid 1e-4), both at delta 1e-5.
    [
        (1.0, 0.1, 100, 7.8992550, 7.0466029),
        (1.0, 0.01, 1000, 2.1013653, 1.8282437),
        (0.4, 0.05, 20, 20.6035204, 17.4004058),
    ],
)
def test_epsilons_agree_with_the_numbers_of_two_other_accountants(
    noise: float, rate: float, steps: int, rdp: float, prv: float
) -> None:
    uses = [use(noise, rate, steps)]
    assert account(uses, DELTA, "RDP").epsilon == pytest.approx(rdp, rel=1e-6)
    bounds = prv_epsilon(uses, DELTA)
    assert bounds.low <= prv <= bounds.high
    assert bounds.estimate == pytest.approx(prv, rel=1e-3)


@given(st.floats(0.3, 30), st.integers(1, 500), st.sampled_from([1e-8, 1e-5, 1e-3]))
@settings(max_examples=25)
def test_prv_contains_the_exact_gaussian(noise: float, steps: int, delta: float) -> None:
    exact = gaussian_epsilon(delta, math.sqrt(steps) / noise)
    bounds = prv_epsilon([use(noise, 1.0, steps)], delta)
    assert bounds.low <= exact <= bounds.high
    assert bounds.high - bounds.low <= 0.005 * exact + 1e-5


@given(st.sampled_from([0.5, 1.0, 3.0]), st.sampled_from([0.01, 0.3]), st.integers(1, 300))
@settings(max_examples=15)
def test_prv_is_never_above_rdp_nor_below_one_step(noise: float, rate: float, steps: int) -> None:
    bounds = prv_epsilon([use(noise, rate, steps)], DELTA)
    assert bounds.low <= bounds.estimate <= bounds.high
    assert bounds.low <= rdp_epsilon(rdp_total([use(noise, rate, steps)]), DELTA)[0]
    assert bounds.high >= prv_epsilon([use(noise, rate)], DELTA).low


def test_one_sampled_step_has_the_epsilon_of_its_closed_form() -> None:
    # Remove direction: P = (1-q) N(0) + q N(mu) against N(0); the ratio crosses exp(eps) once.
    noise, rate = 0.7, 0.2
    mu = 1 / noise

    def delta_of(epsilon: float) -> float:
        crossing = math.log((math.exp(epsilon) - 1 + rate) / rate) / mu + mu / 2
        above = stats.norm.sf(crossing)
        return (1 - rate) * above + rate * stats.norm.sf(crossing - mu) - math.exp(epsilon) * above

    bounds = prv_epsilon([use(noise, rate)], DELTA)
    assert delta_of(bounds.low) >= DELTA >= delta_of(bounds.high)


def test_different_sampled_rounds_compose_beside_full_ones() -> None:
    uses = [use(1, 0.1, 50), use(2, 0.3, 50), use(4, 0.5, 10)]
    bounds = prv_epsilon(uses, 1e-6)
    # dp-accounting 0.6.0, PLD, value grid 1e-4.
    assert bounds.low <= 8.7343537 <= bounds.high
    mixed = [use(1, 0.1, 50), use(3, 1.0, 4)]
    assert prv_epsilon(mixed, DELTA).high > prv_epsilon(mixed[:1], DELTA).high


def test_each_number_names_its_accountant() -> None:
    assert account([use(1)], DELTA).accountant == "analytic Gaussian"
    assert account([use(1)], DELTA, "RDP").accountant == "RDP"
    assert account([use(1, 0.1)], DELTA).accountant == "RDP"
    assert account([use(1, 0.1)], DELTA, "tight").accountant == "PRV"
    # Below 1e-10 a Fourier transform has no digits left.
    assert account([use(1, 0.1)], 1e-12, "tight").accountant == "RDP"
    with pytest.raises(ValueError, match="from delta 1e-10 on"):
        prv_epsilon([use(1, 0.1)], 1e-12)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, float("nan")])
def test_a_delta_that_is_no_chance_is_refused(delta: float) -> None:
    with pytest.raises(InvalidInputError, match="no chance between 0 and 1"):
        account([use(1)], delta)


def test_the_conversion_takes_the_best_of_all_orders() -> None:
    curve = rdp_total([use(1, 0.1, 100)])
    epsilon, order = rdp_epsilon(curve, DELTA)
    place = int(np.flatnonzero(order == ORDERS)[0])
    alone = curve[place] + math.log1p(-1 / order) - math.log(DELTA * order) / (order - 1)
    assert epsilon == pytest.approx(alone, rel=1e-12)


def test_accounting_loads_neither_torch_nor_scipy_nor_a_server() -> None:
    code = (
        "import sys; from truststram_lab.learning.privacy import ledger, moments, planner; "
        "planner.plan(3, 1e-5, 2, 5, rows=400); "
        "print([m for m in ('torch', 'scipy', 'sklearn', 'pandas', 'fastapi') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
