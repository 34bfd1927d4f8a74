from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning.strategies import (
    HeldUpdates,
    aggregate,
    krum,
    median,
    multi_krum,
    trimmed_mean,
)
from truststram_lab.learning.strategies.krum import squared_distances
from truststram_lab.learning.weights import State
from truststram_lab.schemas.strategies import AnyStrategy, Krum, Median, MultiKrum, TrimmedMean

SEEDS = st.integers(0, 2**32)
ROBUST = [Median(), TrimmedMean(fraction=0.25), Krum(hostile=1), MultiKrum(hostile=1)]


def updates(sites: int, seed: int, dtype: str = "float64") -> list[State]:
    rng = np.random.default_rng(seed)
    return [
        {"w": rng.normal(size=(3, 2)).astype(dtype), "b": rng.normal(size=3).astype(dtype)}
        for _ in range(sites)
    ]


def rows(sent: list[State]) -> np.ndarray:
    return np.stack([np.concatenate([u["w"].ravel(), u["b"]]) for u in sent])


def flat(found: State) -> np.ndarray:
    return np.concatenate([found["w"].ravel(), found["b"]])


@given(st.integers(1, 12), SEEDS)
def test_the_median_is_numpys(sites: int, seed: int) -> None:
    sent = updates(sites, seed)
    found = flat(median(HeldUpdates(sent), sent[0]))
    np.testing.assert_allclose(found, np.median(rows(sent), axis=0), rtol=1e-14)


@given(st.integers(4, 15), st.floats(0.25, 0.49), SEEDS)
def test_the_trimmed_mean_drops_the_extremes_of_every_coordinate(
    sites: int, fraction: float, seed: int
) -> None:
    sent = updates(sites, seed)
    cut = int(fraction * sites)
    expected = [
        sum(sorted(column)[cut : sites - cut]) / (sites - 2 * cut) for column in rows(sent).T
    ]
    found = trimmed_mean(HeldUpdates(sent), sent[0], fraction)
    np.testing.assert_allclose(flat(found), expected, rtol=1e-12, atol=1e-14)


def test_a_trimmed_mean_of_fraction_zero_is_the_plain_mean() -> None:
    sent = updates(2, 0)
    found = trimmed_mean(HeldUpdates(sent), sent[0], 0)
    np.testing.assert_allclose(flat(found), rows(sent).mean(axis=0), rtol=1e-14)


def test_a_trimmed_mean_that_would_trim_nothing_is_refused_with_the_count() -> None:
    sent = updates(9, 0)
    with pytest.raises(InvalidInputError, match=r"9 updates came.*0\.1 takes 10 or more"):
        trimmed_mean(HeldUpdates(sent), sent[0], 0.1)


@pytest.mark.parametrize("fraction", [0.5, -0.1, float("nan")])
def test_a_fraction_out_of_its_range_is_refused_with_the_range(fraction: float) -> None:
    sent = updates(9, 0)
    with pytest.raises(InvalidInputError, match=r"at least 0.* and less than 0\.5"):
        trimmed_mean(HeldUpdates(sent), sent[0], fraction)


def plain_krum_order(vectors: np.ndarray, hostile: int) -> list[int]:
    """The paper's scores by direct differences and loops."""
    count = len(vectors)
    scores = []
    for i in range(count):
        away = sorted(float(((vectors[i] - vectors[j]) ** 2).sum()) for j in range(count) if j != i)
        scores.append(sum(away[: count - hostile - 2]))
    return sorted(range(count), key=lambda i: (scores[i], i))


@given(st.integers(0, 3), st.integers(0, 5), SEEDS)
def test_krum_takes_the_update_of_the_lowest_score(hostile: int, more: int, seed: int) -> None:
    sent = updates(2 * hostile + 3 + more, seed)
    best = plain_krum_order(rows(sent), hostile)[0]
    found, places = krum(HeldUpdates(sent), sent[0], hostile)
    assert places == (best,)
    assert flat(found).tobytes() == rows(sent)[best].tobytes()


@given(st.integers(0, 3), st.integers(0, 5), SEEDS, st.data())
def test_multi_krum_is_the_mean_of_the_best(
    hostile: int, more: int, seed: int, data: st.DataObject
) -> None:
    count = 2 * hostile + 3 + more
    sent = updates(count, seed)
    keep = data.draw(st.none() | st.integers(1, count - hostile))
    wanted = count - hostile - 2 if keep is None else keep
    best = sorted(plain_krum_order(rows(sent), hostile)[:wanted])
    found, places = multi_krum(HeldUpdates(sent), sent[0], hostile, keep)
    assert list(places) == best
    np.testing.assert_allclose(flat(found), rows(sent)[best].mean(axis=0), rtol=1e-12, atol=1e-14)


@given(st.integers(2, 8), SEEDS)
def test_distances_are_those_of_direct_differences(count: int, seed: int) -> None:
    sent = updates(count, seed)
    found = squared_distances(HeldUpdates(sent), sent[0])
    for i, j in itertools.permutations(range(count), 2):
        direct = ((rows(sent)[i] - rows(sent)[j]) ** 2).sum()
        assert found[i, j] == pytest.approx(direct, rel=1e-9, abs=1e-12)
    assert np.isinf(np.diag(found)).all()


def test_of_equal_scores_the_first_site_of_the_plan_is_taken() -> None:
    sent = [{"w": np.array([v])} for v in (5.0, 1.0, 1.0, 1.0, 5.0)]
    assert krum(HeldUpdates(sent), sent[0], 1)[1] == (1,)


@pytest.mark.parametrize(("hostile", "sites"), [(0, 2), (1, 4), (2, 6), (5, 12)])
def test_too_few_updates_for_f_are_refused_with_the_numbers(hostile: int, sites: int) -> None:
    sent = updates(sites, 0)
    for rule in (krum, multi_krum):
        with pytest.raises(InvalidInputError) as error:
            rule(HeldUpdates(sent), sent[0], hostile)
        assert f"takes {2 * hostile + 3} updates or more, but {sites} came" in error.value.message
        way_out = f"choose hostile={(sites - 3) // 2} or less" if sites > 2 else "wait for more"
        assert way_out in error.value.message


@pytest.mark.parametrize("keep", [0, 5, 6])
def test_keeping_more_than_can_be_honest_is_refused_with_the_range(keep: int) -> None:
    sent = updates(5, 0)
    with pytest.raises(InvalidInputError, match=f"cannot keep {keep} of 5.*keep 1 to 4"):
        multi_krum(HeldUpdates(sent), sent[0], 1, keep)


@pytest.mark.parametrize("strategy", ROBUST, ids=lambda strategy: strategy.name)
@pytest.mark.parametrize("lie", [1e6, -1e6, 3e38])
@given(seed=SEEDS, liar=st.integers(0, 6))
def test_one_liar_of_seven_stays_within_what_honest_sites_sent(
    strategy: AnyStrategy, lie: float, seed: int, liar: int
) -> None:
    sent = updates(7, seed, "float32")
    honest = rows([update for place, update in enumerate(sent) if place != liar])
    sent[liar] = {name: np.full_like(array, lie) for name, array in sent[liar].items()}
    base = {name: np.zeros_like(array) for name, array in sent[0].items()}
    # The liar also claims to have a billion rows.
    counts = [1e9 if place == liar else 1.0 for place in range(7)]
    done = aggregate(strategy, base, sent, counts)
    slack = 1e-6
    assert (flat(done.state) <= honest.max(axis=0) + slack).all()
    assert (flat(done.state) >= honest.min(axis=0) - slack).all()
    if done.kept is not None:
        assert liar not in done.kept


def test_a_liar_moves_the_mean_as_far_as_he_likes() -> None:
    # What the robust rules are for; without this the test above would say nothing.
    sent = updates(7, 0)
    sent[3] = {name: np.full_like(array, 1e6) for name, array in sent[3].items()}
    base = {name: np.zeros_like(array) for name, array in sent[0].items()}
    from truststram_lab.schemas.strategies import FedAvg

    assert flat(aggregate(FedAvg(), base, sent, [1] * 7).state).min() > 1e5


@pytest.mark.parametrize("strategy", ROBUST, ids=lambda strategy: strategy.name)
@given(seed=SEEDS, weights=st.lists(st.floats(0.1, 1e9), min_size=7, max_size=7))
def test_robust_rules_ignore_how_many_rows_a_site_claims(
    strategy: AnyStrategy, seed: int, weights: list[float]
) -> None:
    sent = updates(7, seed)
    one = aggregate(strategy, sent[0], sent, [1] * 7).state
    assert flat(one).tobytes() == flat(aggregate(strategy, sent[0], sent, weights).state).tobytes()


@pytest.mark.parametrize("strategy", ROBUST, ids=lambda strategy: strategy.name)
@given(seed=SEEDS, order=st.permutations(range(7)))
def test_who_sits_where_changes_no_more_than_rounding(
    strategy: AnyStrategy, seed: int, order: list[int]
) -> None:
    sent = updates(7, seed)
    one = aggregate(strategy, sent[0], sent, [1] * 7).state
    other = aggregate(strategy, sent[0], [sent[place] for place in order], [1] * 7).state
    np.testing.assert_allclose(flat(one), flat(other), rtol=1e-12, atol=1e-14)


def test_distances_beyond_float64_belong_to_the_liar_alone() -> None:
    sent = updates(5, 0)
    sent[2] = {name: np.full_like(array, 1e300) for name, array in sent[2].items()}
    _, places = multi_krum(HeldUpdates(sent), sent[0], 1, 4)
    assert places == (0, 1, 3, 4)


def test_updates_that_are_all_beyond_float64_are_refused() -> None:
    sent = [{"w": np.array([v * 1e300])} for v in (1.0, -1.0, 2.0, -2.0, 3.0)]
    with pytest.raises(InvalidInputError, match="so far apart"):
        krum(HeldUpdates(sent), sent[0], 1)


def test_whole_numbers_take_a_value_that_somebody_sent() -> None:
    sent = [{"n": np.array(v, np.int64)} for v in (1, 2, 7, 2**62)]
    assert median(HeldUpdates(sent), sent[0])["n"] == 2
    assert trimmed_mean(HeldUpdates(sent), sent[0], 0.25)["n"] == 4


def test_whole_numbers_do_not_count_as_distance() -> None:
    sent = updates(5, 0)
    plain = krum(HeldUpdates(sent), sent[0], 1)[1]
    counted = [{**update, "n": np.array(10**6 * i)} for i, update in enumerate(sent)]
    assert krum(HeldUpdates(counted), counted[0], 1)[1] == plain
