from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truststram_lab.exceptions import InvalidInputError, UpdateRejectedError
from truststram_lab.learning import weights
from truststram_lab.learning.strategies import aggregate, expected_update, fed_avg
from truststram_lab.learning.strategies.scaffold import (
    correction,
    new_control,
    no_control,
    upload,
)
from truststram_lab.learning.weights import State
from truststram_lab.schemas.strategies import FedAvg, Scaffold

MODEL: State = {"w": np.arange(6.0).reshape(2, 3), "n": np.array(7, np.int64)}


def noisy(rng: np.random.Generator) -> State:
    return {"c/w": rng.normal(size=(2, 3))}


@given(st.integers(0, 2**32), st.integers(1, 9), st.floats(1e-3, 1))
def test_the_new_control_is_the_mean_gradient_of_the_way(
    seed: int, steps: int, rate: float
) -> None:
    # Option II is option I averaged along the path: that is what makes it free.
    rng = np.random.default_rng(seed)
    server, site = noisy(rng), noisy(rng)
    extra = correction(server, site)["w"]
    at, gradients = MODEL["w"].copy(), rng.normal(size=(steps, 2, 3))
    for gradient in gradients:
        at -= rate * (gradient + extra)
    found = new_control(server, site, MODEL, {**MODEL, "w": at}, steps * rate)
    np.testing.assert_allclose(found["c/w"], gradients.mean(axis=0), rtol=1e-9, atol=1e-9)


@given(st.integers(0, 2**32), st.lists(st.integers(1, 50), min_size=4, max_size=4))
def test_the_servers_control_stays_the_mean_of_the_sites(seed: int, rows: list[int]) -> None:
    # Sites weigh by their rows, and take part as they please.
    rng = np.random.default_rng(seed)
    sites, server, model = [no_control(MODEL) for _ in rows], no_control(MODEL), MODEL
    for _ in range(5):
        present = sorted(rng.choice(4, rng.integers(1, 5), replace=False))
        uploads = []
        for place in present:
            trained = {"w": model["w"] - rng.normal(size=(2, 3)), "n": model["n"] + 3}
            new = new_control(server, sites[place], model, trained, 0.5)
            uploads.append(upload(weights.delta(model, trained), sites[place], new))
            sites[place] = new
        counts = [rows[place] for place in present]
        done = aggregate(
            Scaffold(), model, uploads, counts, server, participation=sum(counts) / sum(rows)
        )
        model, server = done.state, done.server_state
        mean = np.average([site["c/w"] for site in sites], axis=0, weights=rows)
        np.testing.assert_allclose(server["c/w"], mean, rtol=1e-9, atol=1e-9)


def test_the_model_moves_by_the_mean_times_the_servers_rate() -> None:
    rng = np.random.default_rng(0)
    deltas = [{"w": rng.normal(size=(2, 3)), "n": np.array(2, np.int64)} for _ in range(3)]
    uploads = [{**delta, "c/w": np.zeros((2, 3))} for delta in deltas]
    plain = aggregate(FedAvg(), MODEL, deltas, [1, 2, 3]).state
    assert aggregate(Scaffold(), MODEL, uploads, [1, 2, 3]).state["w"].tolist() == (
        plain["w"].tolist()
    )
    half = aggregate(Scaffold(server_learning_rate=0.5), MODEL, uploads, [1, 2, 3]).state
    step = fed_avg(deltas, [1, 2, 3])["w"]
    np.testing.assert_allclose(half["w"] - MODEL["w"], 0.5 * step, rtol=1e-12)
    assert half["n"] == 9


def test_whole_numbers_have_no_control() -> None:
    assert set(no_control(MODEL)) == {"c/w"}
    assert set(expected_update(Scaffold(), MODEL)) == {"w", "n", "c/w"}


def test_the_controls_of_half_precision_are_kept_in_single() -> None:
    assert no_control({"w": np.zeros(2, np.float16)})["c/w"].dtype == np.float32


def test_an_upload_is_what_the_platform_expects() -> None:
    new = {"c/w": np.ones((2, 3))}
    sent = upload(weights.delta(MODEL, MODEL), no_control(MODEL), new)
    weights.check_update(sent, expected_update(Scaffold(), MODEL))
    assert weights.decode(weights.encode(sent))[0].keys() == sent.keys()


@pytest.mark.parametrize("participation", [0, -0.5, 1.5, float("nan")])
def test_a_share_of_sites_out_of_its_range_is_refused(participation: float) -> None:
    sent = {**MODEL, "c/w": np.zeros((2, 3))}
    with pytest.raises(InvalidInputError, match="more than 0 and at most 1"):
        aggregate(Scaffold(), MODEL, [sent], [1], participation=participation)


@pytest.mark.parametrize("path", [0.0, -1.0, float("nan"), float("inf")])
def test_a_way_of_no_length_is_refused(path: float) -> None:
    zero = no_control(MODEL)
    with pytest.raises(InvalidInputError, match="take one step or more"):
        new_control(zero, zero, MODEL, MODEL, path)


def test_an_upload_without_its_control_is_rejected() -> None:
    with pytest.raises(UpdateRejectedError, match="'c/w' is missing"):
        aggregate(Scaffold(), MODEL, [MODEL], [1])


def test_a_control_of_another_model_is_rejected() -> None:
    with pytest.raises(UpdateRejectedError, match="'c/w' has shape"):
        correction(no_control(MODEL), {"c/w": np.zeros(3)})
