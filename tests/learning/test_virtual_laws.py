"""What holds of virtual clients, whichever trainer trains them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning.privacy.private_training import train_privately
from truststram_lab.learning.training import Stopped, initial_state
from truststram_lab.learning.virtual import Client, Sgd, Task, Work, choose
from truststram_lab.learning.virtual.grouping import groups_of
from truststram_lab.learning.virtual.probe import chunk_of
from truststram_lab.learning.virtual.vectorized import VectorizedTrainer
from truststram_lab.learning.weights import State, apply
from truststram_lab.schemas.federation import LocalTraining
from truststram_lab.schemas.privacy import RecordPlan
from truststram_lab.schemas.registry import Architecture, DenseLayer, DropoutLayer

Backend = Literal["vectorized", "loop"]
BACKENDS: tuple[Backend, ...] = ("vectorized", "loop")


def _classes(count: int, rows: int = 24) -> list[Client]:
    found = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        found.append(Client(rng.normal(size=(rows + seed, 4)), rng.integers(0, 3, rows + seed)))
    return found


def _task(**more: object) -> Task:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
    return Task(module, **{"dtype": "float64", "batch_size": 8, **more})


def _flat(state: State) -> np.ndarray:
    return np.concatenate([array.ravel() for array in state.values()])


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_seed_gives_the_same_bits(backend: Backend) -> None:
    task, clients = _task(dtype="float32"), _classes(5)
    works = [Work(place, seed=place, epochs=2) for place in range(5)]
    first, again = (
        [_flat(trained.delta).tobytes() for trained in choose(task, clients, backend).train(
            task.initial_state(), works
        )]
        for _ in range(2)
    )  # fmt: skip
    assert first == again
    assert len(set(first)) == 5


def test_the_size_of_the_chunk_does_not_show_in_the_results() -> None:
    task, clients = _task(), _classes(9, rows=3)
    works = [Work(place % 9, seed=place, epochs=1 + place % 3) for place in range(20)]
    found = {
        chunk: np.stack(
            [
                _flat(trained.delta)
                for trained in choose(task, clients, "vectorized", chunk).train(
                    task.initial_state(), works
                )
            ]
        )
        for chunk in (1, 3, 64)
    }
    np.testing.assert_allclose(found[1], found[64], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found[3], found[64], rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_straggler_does_the_beginning_of_the_same_round(backend: Backend) -> None:
    task, clients = _task(), _classes(2)
    trainer = choose(task, clients, backend)
    works = [Work(0, seed=7, epochs=2), Work(0, seed=7, steps=2), Work(1, seed=7)]
    whole, late, _ = trainer.train(task.initial_state(), works)
    assert (whole.steps, late.steps) == (6, 2)
    np.testing.assert_allclose(late.losses, whole.losses[:2], rtol=0, atol=1e-12)
    assert not np.allclose(_flat(late.delta), _flat(whole.delta), atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_fedprox_and_ditto_follow_the_closed_form(backend: Backend) -> None:
    """Least squares by full batches: w_t = w* + (1 - rate (A + pull))^t (w_0 - w*)."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(12, 3)), rng.normal(size=(12, 1))
    start = {"weight": rng.normal(size=(1, 3))}
    anchor, own = {"weight": rng.normal(size=(1, 3))}, {"weight": rng.normal(size=(1, 3))}

    def half_square(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return ((outputs - targets) ** 2).sum(dim=1) / 2

    task = Task(nn.Linear(3, 1, bias=False), half_square, Sgd(0.1), batch_size=12, dtype="float64")
    works = [
        Work(0, seed=1, steps=15),
        Work(0, seed=2, steps=15, pull=0.7),
        Work(0, seed=3, steps=15, start=own, pull=0.4, anchor=anchor),
    ]
    trainer = choose(task, [Client(x, y)], backend)
    for work, trained in zip(works, trainer.train(start, works), strict=True):
        w0 = (work.start or start)["weight"][0]
        to = (work.anchor or {"weight": w0[None]})["weight"][0]
        bent = x.T @ x / 12 + work.pull * np.eye(3)
        best = np.linalg.solve(bent, x.T @ y[:, 0] / 12 + work.pull * to)
        power = np.linalg.matrix_power(np.eye(3) - 0.1 * bent, 15)
        expected = best + power @ (w0 - best)
        np.testing.assert_allclose(w0 + trained.delta["weight"][0], expected, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_correction_is_added_to_every_gradient_and_the_delta_clipped(backend: Backend) -> None:
    def nothing(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs * 0).sum(dim=1)

    task = Task(nn.Linear(4, 3), nothing, Sgd(0.1), dtype="float64")
    start = task.initial_state()
    correction = {name: np.full_like(array, 2.0) for name, array in start.items()}
    works = [
        Work(0, seed=0, steps=5, correction=correction),
        Work(1, seed=0, steps=5),
        Work(2, seed=0, steps=5, correction=correction, clip=0.25),
    ]
    corrected, plain, clipped = choose(task, _classes(3), backend).train(start, works)
    np.testing.assert_allclose(_flat(corrected.delta), -0.1 * 2.0 * 5)
    assert not _flat(plain.delta).any()
    assert np.linalg.norm(_flat(clipped.delta)) == pytest.approx(0.25)
    np.testing.assert_allclose(_flat(clipped.delta), -0.25 / np.sqrt(15))


PLAN = RecordPlan(
    clip=0.5, noise_multiplier=1.1, sample_rate=0.3, batch_size=8, steps_per_round=4, rounds=1,
    delta=1e-5,
)  # fmt: skip


def _private(place: int, plan: RecordPlan = PLAN) -> Work:
    return Work(
        place, seed=0, private=plan,
        sampling=np.random.default_rng([place, 0]), noise=np.random.default_rng([place, 1]),
    )  # fmt: skip


def test_dp_sgd_draws_and_computes_what_a_protected_site_does() -> None:
    architecture = Architecture(
        inputs=4,
        layers=[
            DenseLayer(units=6, activation="tanh"), DropoutLayer(rate=0.3), DenseLayer(units=3)
        ],
    )  # fmt: skip
    local = LocalTraining(learning_rate=0.2, momentum=0.5, dtype="float64")
    start, clients = initial_state(architecture, 0, "float64"), _classes(5)
    task = Task.from_architecture(architecture, local)
    shorter = PLAN.model_copy(update={"steps_per_round": 2})
    plans = [PLAN, shorter, PLAN, PLAN, shorter]
    for backend in BACKENDS:
        works = [_private(place, plan) for place, plan in enumerate(plans)]
        works.insert(1, Work(3, seed=5))
        for work, trained in zip(
            works, choose(task, clients, backend, 2).train(start, works), strict=True
        ):
            if work.private is None:
                continue
            client, twin = clients[work.client], _private(work.client, work.private)
            weights, metrics = train_privately(
                architecture, start, np.asarray(client.x), np.asarray(client.y), local,
                work.private, "cpu", lambda: False, sampling=twin.sampling, noise=twin.noise,
            )  # fmt: skip
            assert trained.loss == pytest.approx(metrics["loss"], abs=1e-9)
            for name, array in apply(start, trained.delta).items():
                np.testing.assert_allclose(array, weights[name], rtol=0, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_noise_of_dp_sgd_has_the_variance_of_the_plan(backend: Backend) -> None:
    def nothing(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs * 0).sum(dim=1)

    task = Task(nn.Linear(4, 25), nothing, Sgd(1.0), dtype="float64")
    works = [_private(place) for place in range(40)]
    found = choose(task, _classes(40, rows=4), backend).train(task.initial_state(), works)
    values = np.concatenate([_flat(trained.delta) for trained in found])
    deviation = PLAN.noise_multiplier * PLAN.clip / PLAN.batch_size * np.sqrt(4)
    assert len(values) == 5000
    # The sample's variance lies within 5 of its own standard deviations, sqrt(2 / n).
    assert values.var() == pytest.approx(deviation**2, rel=5 * np.sqrt(2 / 5000))


def test_the_noise_is_not_that_of_another_run() -> None:
    task, clients = _task(), _classes(2)
    works = [Work(0, seed=0, private=PLAN), Work(1, seed=0, private=PLAN)]
    trainer = choose(task, clients, "vectorized")
    first, again = (
        [_flat(trained.delta) for trained in trainer.train(task.initial_state(), works)]
        for _ in range(2)
    )
    assert not np.allclose(first[0], again[0], atol=1e-6)


@given(
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=60),
    epochs=st.integers(1, 3),
    chunk=st.integers(1, 20),
)
def test_filling_up_wastes_at_most_half(sizes: list[int], epochs: int, chunk: int) -> None:
    batch = 16
    batches = [-(-size // batch) for size in sizes]
    steps = [epochs * count for count in batches]
    groups = groups_of(sizes, steps, [False] * len(sizes), batch, chunk)
    assert sorted(place for group in groups for place in group.members) == list(range(len(sizes)))
    filled = 0
    for group in groups:
        assert len(group.members) <= chunk
        for step in range(max(steps[place] for place in group.members)):
            taken = [
                min(batch, sizes[place] - step % batches[place] * batch)
                for place in group.members
                if steps[place] > step
            ]
            filled += len(taken) * max(taken)
    assert filled <= 2 * epochs * sum(sizes)


def test_lognormal_clients_waste_little() -> None:
    rng = np.random.default_rng(0)
    clients = [
        Client(rng.normal(size=(n, 4)), rng.integers(0, 3, n))
        for n in np.maximum(1, rng.lognormal(3, 1.5, 200)).astype(int)
    ]
    trainer = choose(_task(), clients, "vectorized")
    assert isinstance(trainer, VectorizedTrainer)
    start = _task().initial_state()
    found = list(trainer.train(start, [Work(place, seed=place) for place in range(200)]))
    assert [trained.samples for trained in found] == [len(client) for client in clients]
    assert 0 < trainer.waste < 0.3


class _Opened(list[Client]):
    """Clients that note which of them were read."""

    read: set[int]

    def __getitem__(self, place: int) -> Client:
        self.read.add(place)
        return super().__getitem__(place)


def test_results_stream_before_later_clients_are_read() -> None:
    clients = _Opened(_classes(40))
    clients.read = set()
    trainer = choose(_task(), clients, "vectorized", chunk=2)
    clients.read.clear()
    stream: Iterator[object] = trainer.train(
        _task().initial_state(), [Work(place, seed=place) for place in range(40)]
    )
    next(stream)
    assert clients.read == set(range(8))


@pytest.mark.parametrize("backend", BACKENDS)
def test_training_stops_before_the_next_step(backend: Backend) -> None:
    task, asked = _task(), []

    def should_stop() -> bool:
        asked.append(1)
        return len(asked) == 3

    trainer = choose(task, _classes(3), backend)
    with pytest.raises(Stopped):
        list(trainer.train(task.initial_state(), [Work(0, seed=0, epochs=9)], should_stop))
    assert len(asked) == 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_client_whose_training_diverged_is_named(backend: Backend) -> None:
    clients = _classes(3)
    clients[1] = Client(np.full((8, 4), np.nan), np.zeros(8, int))
    task = _task()
    trainer = choose(task, clients[:1] + clients[2:], backend)
    trainer.clients = clients
    with pytest.raises(InvalidInputError, match=r"client 1 diverged at learning rate 0\.1"):
        list(trainer.train(task.initial_state(), [Work(place, seed=0) for place in range(3)]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_evaluation_is_the_modules_own(backend: Backend) -> None:
    task, clients = _task(), _classes(6, rows=9)
    trainer = choose(task, clients, backend, chunk=4)
    start = task.initial_state()
    states = [
        apply(start, trained.delta)
        for trained in trainer.train(start, [Work(place, seed=place) for place in range(6)])
    ]
    found = {"one": trainer.evaluate(start), "each": trainer.evaluate(states)}
    for kind, evaluations in found.items():
        for place, evaluation in enumerate(evaluations):
            module = task.new_module().eval()
            state = start if kind == "one" else states[place]
            module.load_state_dict({name: torch.from_numpy(a) for name, a in state.items()})
            y = torch.from_numpy(np.asarray(clients[place].y))
            with torch.no_grad():
                outputs = module(torch.from_numpy(np.asarray(clients[place].x)))
            loss = functional.cross_entropy(outputs, y).item()
            assert evaluation.client == place
            assert evaluation.samples == len(y)
            assert evaluation.loss == pytest.approx(loss, abs=1e-12)
            right = (outputs.argmax(1) == y).double().mean().item()
            assert evaluation.accuracy == pytest.approx(right, abs=1e-12)
    assert trainer.evaluate(start, [4, 2]) == [found["one"][4], found["one"][2]]


@pytest.mark.parametrize(("alone", "backend"), [(10.0, "vectorized"), (0.1, "loop")])
def test_the_faster_of_both_is_taken(
    alone: float, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Four trials of each, the loop's first; each reads the clock before and after.
    ticks = iter(np.cumsum([part for took in (alone, 1.0) for _ in range(4) for part in (0, took)]))
    monkeypatch.setattr(time, "process_time", lambda: float(next(ticks)))
    trainer = choose(_task(), _classes(4))
    assert trainer.backend == backend
    assert "10.0 times as" in trainer.why


def test_the_chunk_grows_with_the_device_and_shrinks_with_the_module() -> None:
    task, clients = _task(), _classes(1)
    assert chunk_of(task, clients, "cuda") > chunk_of(task, clients, "cpu")
    large = Task(nn.Linear(4, 500_000))
    assert chunk_of(large, clients, "cpu") == 1
    assert 1 < chunk_of(large, clients, "cuda") < chunk_of(task, clients, "cuda")


def test_wrong_words_get_one_sentence() -> None:
    task, clients = _task(), _classes(2)
    with pytest.raises(InvalidInputError, match="choose one of auto, vectorized, loop"):
        choose(task, clients, "vectorised")
    with pytest.raises(InvalidInputError, match="no clients"):
        choose(task, [])
    with pytest.raises(InvalidInputError, match="chunk of 0"):
        choose(task, clients, chunk=0)
    with pytest.raises(InvalidInputError, match="3 rows and 2 targets"):
        Client(np.zeros((3, 4)), np.zeros(2))
    with pytest.raises(InvalidInputError, match=r"does not take rows of shape \(5,\)"):
        choose(task, [Client(np.zeros((3, 5)), np.zeros(3, int))])
    start = task.initial_state()
    for backend in BACKENDS:
        trainer = choose(task, clients, backend)
        with pytest.raises(InvalidInputError, match=r"'0\.bias': it is missing"):
            list(trainer.train({k: v for k, v in start.items() if k != "0.bias"}, []))
        with pytest.raises(InvalidInputError, match="0 steps"):
            list(trainer.train(start, [Work(0, seed=0, steps=0)]))
        with pytest.raises(InvalidInputError, match="1 states for 2 clients"):
            trainer.evaluate([start])
