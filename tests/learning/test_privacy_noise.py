from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from truststram_lab.exceptions import InvalidInputError, UpdateRejectedError
from truststram_lab.learning.privacy.mechanisms import (
    clip_to,
    cohort,
    global_norm,
    noised_mean,
    noised_sum,
    noised_update,
)
from truststram_lab.learning.privacy.noise import SecureRandom, add_noise, secure_normal
from truststram_lab.learning.weights import State
from truststram_lab.schemas.privacy import ClientPlan, LocalPlan

KEY = bytes(range(32))


def update(seed: int, scale: float = 1.0) -> State:
    rng = np.random.default_rng(seed)
    return {"w": scale * rng.normal(size=(4, 3)), "b": scale * rng.normal(size=4)}


def test_the_noise_is_normal_as_kolmogorov_and_smirnov_judge() -> None:
    drawn = secure_normal(200_000, 1.0, rng=SecureRandom(KEY), dtype=np.float64)
    assert stats.kstest(drawn, "norm").pvalue > 1e-3
    # The two halves of a pair share a radius; neither they nor their squares may correlate.
    first, second = drawn[:32768], drawn[32768:65536]
    for one, other in ((first, second), (first**2, second**2)):
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(len(one))


@pytest.mark.parametrize("scale", [0.01, 1.0, 250.0])
def test_the_variance_of_the_noise_is_what_was_asked(scale: float) -> None:
    n = 1_000_000
    drawn = secure_normal((1000, 1000), scale, rng=SecureRandom(KEY))
    # The variance of n normals has the relative standard deviation sqrt(2 / n).
    assert abs(drawn.var(dtype=np.float64) / scale**2 - 1) < 5 * np.sqrt(2 / n)
    assert abs(drawn.mean(dtype=np.float64)) < 5 * scale / np.sqrt(n)
    assert drawn.dtype == np.float32


def test_uniforms_fill_the_unit_interval_evenly() -> None:
    drawn = SecureRandom(KEY).random(100_000)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert stats.kstest(drawn, "uniform").pvalue > 1e-3


def test_nobody_draws_the_same_noise_twice() -> None:
    assert not np.array_equal(secure_normal(8, 1.0), secure_normal(8, 1.0))
    source = SecureRandom(KEY)
    assert not np.array_equal(source.standard_normal(8), source.standard_normal(8))


def test_a_key_given_in_a_test_repeats_its_noise() -> None:
    one, other = (SecureRandom(KEY).standard_normal(70_001) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_a_forked_child_draws_other_noise_than_its_parent() -> None:
    source = SecureRandom()
    source.random(1)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, source.random(4).tobytes())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = np.frombuffer(os.read(reader, 32))
    assert not np.array_equal(theirs, source.random(4))


def test_threads_that_share_a_source_get_different_noise() -> None:
    source = SecureRandom()
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda _: source.random(1000), range(64)))
    assert len(np.unique(np.concatenate(parts))) == 64_000


def test_a_source_is_never_written_down() -> None:
    with pytest.raises(TypeError, match="not copied or stored"):
        pickle.dumps(SecureRandom())
    assert repr(SecureRandom(KEY)) == "SecureRandom()"


@pytest.mark.parametrize("scale", [-1.0, float("nan"), float("inf")])
def test_a_scale_that_is_none_is_refused(scale: float) -> None:
    with pytest.raises(InvalidInputError, match="no standard deviation"):
        secure_normal(3, scale)


@given(st.integers(0, 2**32), st.floats(1e-3, 1e3))
def test_the_possible_results_do_not_depend_on_the_values(seed: int, scale: float) -> None:
    values = np.random.default_rng(seed).normal(size=50) * scale * 100
    noised = add_noise(values, scale)
    grid = 2.0 ** (np.frexp(scale)[1] - 30)
    np.testing.assert_array_equal(np.rint(noised / grid) * grid, noised)


def test_added_noise_is_the_noise_that_was_asked_up_to_the_lattice() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    plain = secure_normal(1000, 0.5, rng=SecureRandom(KEY), dtype=np.float64)
    found = add_noise(values, 0.5, rng=SecureRandom(KEY))
    np.testing.assert_allclose(found, values + plain, rtol=0, atol=2.0**-29)


def test_noise_too_small_for_its_values_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="hides nothing"):
        add_noise(np.array([1.0]), 1e-7)


@given(st.integers(0, 2**32), st.floats(1e-6, 1e6), st.floats(1e-3, 1e3))
def test_a_clipped_update_is_within_the_norm_and_keeps_its_direction(
    seed: int, scale: float, clip: float
) -> None:
    given_update = update(seed, scale)
    clipped = clip_to(given_update, clip)
    norm = global_norm(given_update)
    assert global_norm(clipped) <= clip * (1 + 1e-12)
    factor = min(1.0, clip / norm)
    for name, array in given_update.items():
        np.testing.assert_allclose(clipped[name], factor * array, rtol=1e-12)


def test_the_norm_is_over_all_arrays_and_survives_huge_values() -> None:
    assert global_norm({"a": np.array([3.0]), "b": np.array([[4.0]])}) == 5.0
    assert global_norm({"a": np.array([3e200, 4e200])}) == pytest.approx(5e200, rel=1e-15)
    assert global_norm({"a": np.zeros(3)}) == 0.0


def test_counts_and_broken_values_do_not_get_past_the_clipping() -> None:
    with pytest.raises(InvalidInputError, match="'n' has type int64"):
        clip_to({"n": np.array([7])}, 1.0)
    with pytest.raises(UpdateRejectedError, match="'w' has values that are not finite"):
        clip_to({"w": np.array([np.inf])}, 1.0)
    for clip in (0.0, -1.0, float("nan")):
        with pytest.raises(InvalidInputError, match="no norm to clip to"):
            clip_to(update(0), clip)


@given(st.integers(0, 5), st.integers(0, 2**32), st.floats(0.1, 10))
def test_one_update_more_moves_the_sum_by_at_most_the_clip(
    sites: int, seed: int, clip: float
) -> None:
    updates = [update(seed + place, 3.0) for place in range(sites + 1)]
    sums = [
        noised_sum(part, update(0), clip=clip, noise_multiplier=0)
        for part in (updates, updates[1:])
    ]
    moved = {name: sums[0][name] - sums[1][name] for name in sums[0]}
    assert global_norm(moved) <= clip * (1 + 1e-9)


def test_the_noise_of_a_round_has_the_planned_variance() -> None:
    plan = ClientPlan(
        clip=0.5, noise_multiplier=3.0, cohort_rate=0.25, sites=40, rounds=1, delta=1e-5
    )
    like = {"w": np.zeros((500, 500))}
    found = noised_mean([], like, plan, rng=SecureRandom(KEY))["w"]
    # sigma = z * S / (q * N), whoever came: here nobody did.
    assert found.std() == pytest.approx(3.0 * 0.5 / 10, rel=0.01)


def test_an_absent_site_counts_as_zero_and_the_denominator_stays() -> None:
    plan = ClientPlan(clip=100, noise_multiplier=0, cohort_rate=0.5, sites=8, rounds=1, delta=1e-5)
    updates = [update(place) for place in range(3)]
    found = noised_mean(updates, update(0), plan)
    np.testing.assert_allclose(found["w"], sum(u["w"] for u in updates) / 4, rtol=1e-12)


def test_a_round_keeps_the_models_types_and_the_sites_updates() -> None:
    given_update = {name: array.astype(np.float32) for name, array in update(0).items()}
    before = {name: array.copy() for name, array in given_update.items()}
    plan = ClientPlan(noise_multiplier=1.0, sites=1, rounds=1, delta=1e-5)
    assert {a.dtype for a in noised_mean([given_update], given_update, plan).values()} == {
        np.dtype(np.float32)
    }
    local = noised_update(given_update, LocalPlan(sigma=0.01, rounds=1, delta=1e-5))
    assert {a.dtype for a in local.values()} == {np.dtype(np.float32)}
    for name, array in before.items():
        np.testing.assert_array_equal(given_update[name], array)


def test_local_noise_is_sigma_on_the_clipped_update() -> None:
    big = {"w": np.full((300, 300), 1.0)}
    noised = noised_update(big, LocalPlan(clip=3, sigma=0.01, rounds=1, delta=1e-5))["w"]
    assert noised.mean() == pytest.approx(0.01, abs=2e-4)
    assert noised.std() == pytest.approx(0.01, rel=0.02)


def test_a_cohort_is_a_poisson_sample() -> None:
    rng = SecureRandom(KEY)
    sizes = np.array([len(cohort(200, 0.1, rng=rng)) for _ in range(4000)])
    assert sizes.mean() == pytest.approx(20, abs=5 * np.sqrt(18 / 4000))
    assert sizes.var() == pytest.approx(18, rel=0.12)
    assert cohort(5, 1.0).tolist() == [0, 1, 2, 3, 4]
    assert not np.array_equal(cohort(500, 0.5), cohort(500, 0.5))
    with pytest.raises(InvalidInputError, match="no chance to take part"):
        cohort(5, 0.0)
