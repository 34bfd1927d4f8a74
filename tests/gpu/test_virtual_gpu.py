"""Virtual clients on a GPU: the CPU's numbers, flat memory, far faster than the loop."""

from __future__ import annotations

import time
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from truststram_lab.learning.virtual import Client, Sgd, Task, Work, choose

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is at hand")


def _clients(count: int) -> list[Client]:
    rng = np.random.default_rng(0)
    return [
        Client(rng.normal(size=(64, 20)).astype(np.float32), rng.integers(0, 2, 64))
        for _ in range(count)
    ]


def _task() -> Task:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 2))
    return Task(module, optimizer=Sgd(0.1, momentum=0.9))


def _seconds(backend: Literal["vectorized", "loop"], clients: list[Client], count: int) -> float:
    task = _task()
    trainer = choose(task, clients, backend, device="cuda")
    start, works = task.initial_state(), [Work(place, seed=place) for place in range(count)]
    taken = []
    for _ in range(3):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        assert sum(1 for _ in trainer.train(start, works)) == count
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - begun)
    return min(taken) / count


def test_the_gpu_agrees_with_the_processor() -> None:
    task, clients = _task(), _clients(50)
    works = [Work(place, seed=place, epochs=3) for place in range(50)]
    start = task.initial_state()
    found = [
        list(choose(task, clients, "vectorized", device=device).train(start, works))
        for device in ("cpu", "cuda", "cuda")
    ]
    for on_cpu, on_gpu, again in zip(*found, strict=True):
        for name, change in on_cpu.delta.items():
            np.testing.assert_allclose(on_gpu.delta[name], change, rtol=0, atol=1e-3)
            np.testing.assert_array_equal(on_gpu.delta[name], again.delta[name])


def test_memory_is_flat_over_a_hundred_rounds() -> None:
    task = _task()
    trainer = choose(task, _clients(500), "vectorized", device="cuda")
    start, peaks = task.initial_state(), []
    for number in range(100):
        torch.cuda.reset_peak_memory_stats()
        works = [Work(place, seed=1000 * number + place) for place in range(500)]
        assert sum(trained.steps for trained in trainer.train(start, works)) == 2000
        peaks.append(torch.cuda.max_memory_allocated())
    assert max(peaks[5:]) <= 1.05 * max(peaks[:5])


@pytest.mark.long
def test_a_thousand_clients_train_twenty_times_as_fast_as_by_the_loop() -> None:
    clients = _clients(1000)
    ratio = _seconds("loop", clients, 50) / _seconds("vectorized", clients, 1000)
    assert ratio >= 20, f"{ratio:.1f} times on {torch.cuda.get_device_name()}"
