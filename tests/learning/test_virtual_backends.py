"""Both trainers of virtual clients say the same, for each kind of layer and each optimizer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning.training import GradientTerms, initial_state, train
from truststram_lab.learning.virtual import Adam, AdamW, Client, Sgd, Task, Trained, Work, choose
from truststram_lab.learning.virtual.task import Loss, Optimizer
from truststram_lab.learning.weights import apply
from truststram_lab.schemas.federation import LocalTraining
from truststram_lab.schemas.registry import Architecture, DenseLayer, DropoutLayer

SIZES = (37, 5, 16, 1, 60, 33, 20)


class _Words(nn.Module):
    """Custom code, functional dropout, a mean over words, a padding word."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(30, 6, padding_idx=0)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = self.table(x).view(x.size(0), -1, 6).mean(dim=1)
        return self.head(functional.dropout(mean, 0.25, self.training))


class _Branches(nn.Module):
    """torch.fx cannot trace it, vmap can."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 3)])
        self.drop = nn.Dropout(0.4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x.shape) != 2:
            raise ValueError("rows of numbers")
        for _ in range(int(x.shape[-1] > 2)):
            x = self.drop(torch.tanh(self.layers[0](x)))
        return self.layers[1](x)


class _Scaled(nn.Module):
    """A buffer, a bare parameter and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("place", torch.linspace(0, 1, 6))
        self.scale = nn.Parameter(torch.ones(6))
        self.attention = nn.MultiheadAttention(2, 1, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        words = ((x + self.place) * self.scale).unflatten(1, (3, 2))
        return self.head(self.attention(words, words, words)[0].flatten(1))


MODULES: dict[str, Callable[[], nn.Module]] = {
    "dense": lambda: nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 8, bias=False), nn.Tanh(),
        nn.Linear(8, 3),
    ),
    "one logit": lambda: nn.Sequential(nn.Linear(6, 4), nn.Sigmoid(), nn.Linear(4, 1)),
    "norms": lambda: nn.Sequential(
        nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.GroupNorm(2, 8), nn.SiLU(True),
        nn.Linear(8, 3),
    ),
    "images": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, (2, 3), padding=1, stride=(1, 2)),
        nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv2d(4, 4, 1, groups=2), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.1), nn.LazyLinear(3),
    ),
    "signals": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 4, 2, dilation=2, padding=1), nn.AdaptiveAvgPool1d(2),
        nn.Conv1d(4, 4, 3, padding="same"), nn.Flatten(), nn.Linear(8, 3),
    ),
    "words": _Words,
    "untraceable": _Branches,
    "attention": _Scaled,
}  # fmt: skip

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Sgd(0.1),
    "momentum": Sgd(0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": Sgd(0.05, momentum=0.8, nesterov=True),
    "adam": Adam(0.01, weight_decay=0.1),
    "adamw": AdamW(0.01, weight_decay=0.1),
}


def _module(name: str) -> nn.Module:
    torch.manual_seed(0)
    made = MODULES[name]()
    made(_rows(name, 2)[0])  # a lazy layer gets its size
    return made


def _rows(name: str, rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 30, (rows, 6)) if name == "words" else rng.normal(size=(rows, 6))
    y = rng.integers(0, 2 if name == "one logit" else 3, rows)
    found = torch.from_numpy(x)
    return (found if name == "words" else found.float()), torch.from_numpy(y)


def _clients(name: str) -> list[Client]:
    return [Client(*_rows(name, size, seed)) for seed, size in enumerate(SIZES)]


def _gap(some: list[Trained], others: list[Trained]) -> float:
    """The largest difference of the two trainers' deltas."""
    return max(
        float(np.abs(one.delta[name] - other.delta[name]).max())
        for one, other in zip(some, others, strict=True)
        for name in one.delta
    )


def _both(task: Task, clients: list[Client], works: list[Work]) -> tuple[list[Trained], float]:
    start = task.initial_state()
    together = choose(task, clients, "vectorized", chunk=4)
    alone = choose(task, clients, "loop")
    found = list(together.train(start, works))
    return found, _gap(found, list(alone.train(start, works)))


@pytest.mark.parametrize("name", MODULES)
def test_each_kind_of_layer_trains_alike_in_both(name: str) -> None:
    task = Task(_module(name), optimizer=OPTIMIZERS["momentum"], dtype="float64", batch_size=8)
    clients = _clients(name)
    works = [Work(place, seed=place, epochs=2) for place in (6, 1, 2, 3, 4, 5, 0)]
    found, gap = _both(task, clients, works)
    assert [trained.client for trained in found] == [6, 1, 2, 3, 4, 5, 0]
    assert max(float(np.abs(trained.delta[n]).max()) for trained in found for n in trained.delta)
    assert gap < 1e-12


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_is_torchs_in_both(name: str) -> None:
    """Clients of one group take 1 to 8 steps: moments of who is done must not move."""
    how = OPTIMIZERS[name]
    task = Task(_module("dense"), optimizer=how, dtype="float64", batch_size=8)
    clients = _clients("dense")
    works = [Work(place, seed=place, epochs=1 + place % 2) for place in range(len(SIZES))]
    found, gap = _both(task, clients, works)
    assert gap < 1e-12

    def torchs(values: list[nn.Parameter]) -> torch.optim.Optimizer:
        if isinstance(how, Sgd):
            return torch.optim.SGD(
                values, how.lr, how.momentum, weight_decay=how.weight_decay, nesterov=how.nesterov
            )
        assert isinstance(how, Adam)
        kind = torch.optim.AdamW if how.decoupled else torch.optim.Adam
        return kind(values, how.lr, how.betas, how.eps, how.weight_decay)

    other = choose(Task(task.module, optimizer=torchs, dtype="float64", batch_size=8), clients)
    assert other.backend == "loop"
    assert "made by a function" in other.why
    assert _gap(found, list(other.train(task.initial_state(), works))) < 1e-12


def test_our_own_networks_train_as_a_site_trains_them() -> None:
    architecture = Architecture(
        inputs=6,
        layers=[
            DropoutLayer(rate=0.1),
            DenseLayer(units=8, activation="relu"),
            DropoutLayer(rate=0.4),
            DenseLayer(units=3),
        ],
    )
    local = LocalTraining(epochs=3, batch_size=8, momentum=0.9, weight_decay=0.01, dtype="float64")
    start = initial_state(architecture, 1, "float64")
    correction = {name: np.full_like(array, 0.01) for name, array in start.items()}
    clients = [Client(*_rows("dense", size, seed)) for seed, size in enumerate(SIZES)]
    works = [
        Work(place, seed=50 + place, epochs=3, pull=0.2, correction=correction)
        for place in range(len(clients))
    ]
    for backend in ("vectorized", "loop"):
        trainer = choose(Task.from_architecture(architecture, local), clients, backend, chunk=3)
        for trained in trainer.train(start, works):
            client = clients[trained.client]
            weights, metrics = train(
                architecture, start, np.asarray(client.x), np.asarray(client.y), local,
                50 + trained.client, "cpu", lambda: False, None, GradientTerms(0.2, correction),
            )  # fmt: skip
            assert trained.loss == pytest.approx(metrics["loss"], abs=1e-12)
            for name, array in apply(start, trained.delta).items():
                np.testing.assert_allclose(array, weights[name], rtol=0, atol=1e-12)


def _mean_square(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return ((outputs - targets) ** 2).mean()


@pytest.mark.parametrize("loss", [_mean_square, nn.MSELoss(), functional.l1_loss])
def test_a_mean_loss_counts_no_row_that_only_fills_up(loss: Loss) -> None:
    rng = np.random.default_rng(0)
    clients = [Client(rng.normal(size=(n, 6)), rng.normal(size=(n, 2))) for n in SIZES]
    task = Task(nn.Linear(6, 2), loss=loss, dtype="float64")
    works = [Work(place, seed=place, epochs=2) for place in range(len(clients))]
    assert _both(task, clients, works)[1] < 1e-12


class _Centered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x - x.mean(dim=0))


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(2, 4, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cells(x.unflatten(1, (3, 2)))[0][:, -1])


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (_Recurrent, "nn.LSTM (cells) has no batching rule"),
        (_Centered, "mixes the rows"),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)), "BatchNorm1d"),
        (lambda: nn.Sequential(nn.Linear(6, 3), nn.AlphaDropout(0.2)), "at random"),
        (lambda: nn.Sequential(nn.Linear(6, 3), nn.RReLU()), "at random"),
    ],
)
def test_what_has_no_batching_rule_is_looped_and_says_why(
    module: Callable[[], nn.Module], reason: str
) -> None:
    torch.manual_seed(0)
    task = Task(module())
    clients = [Client(*_rows("dense", 16, seed)) for seed in range(3)]
    trainer = choose(task, clients)
    assert trainer.backend == "loop"
    assert reason in trainer.why
    works = [Work(place, seed=place) for place in range(3)]
    first = list(trainer.train(task.initial_state(), works))
    torch.manual_seed(99)
    again = list(trainer.train(task.initial_state(), works))
    assert _gap(first, again) == 0.0
    assert first[0].delta != {}
    with pytest.raises(InvalidInputError, match="cannot train at once"):
        choose(task, clients, "vectorized")


def test_arrays_that_cannot_be_written_are_taken_as_they_are() -> None:
    """Decoded weights and mapped rows are read-only, and torch warns of them."""
    x, y = (np.asarray(values) for values in _rows("dense", 20))
    x.flags.writeable = y.flags.writeable = False
    task = Task(_module("dense"), dtype="float64")
    start = task.initial_state()
    for array in start.values():
        array.flags.writeable = False
    for backend in ("vectorized", "loop"):
        trainer = choose(task, [Client(x, y[::-1])], backend)
        works = [Work(0, seed=1, pull=0.1, anchor=start, correction=start, start=start)]
        assert next(trainer.train(start, works)).samples == 20
        assert trainer.evaluate([start])[0].samples == 20


def test_a_sum_as_loss_is_looped() -> None:
    def total(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(outputs, targets, reduction="sum")

    trainer = choose(Task(nn.Linear(6, 3), loss=total), _clients("dense"))
    assert trainer.why == "Clients train one after another: the loss is no mean over the rows."


def _rounds(backend: str, dtype: str, rounds: int) -> list[np.ndarray]:
    """The global weights after FedAvg of ten clients."""
    task = Task(_module("dense"), optimizer=Sgd(0.1, 0.9), dtype=dtype, batch_size=8)
    clients = [Client(*_rows("dense", 20 + 3 * seed, seed)) for seed in range(10)]
    trainer = choose(task, clients, backend, chunk=4)
    state = {name: array.astype(dtype) for name, array in task.initial_state().items()}
    for number in range(rounds):
        works = [Work(place, seed=1000 * number + place) for place in range(10)]
        found = list(trainer.train(state, works))
        rows = sum(trained.samples for trained in found)
        for trained in found:
            for name, change in trained.delta.items():
                state[name] = state[name] + change * (trained.samples / rows)
    return list(state.values())


@pytest.mark.long
def test_fifty_rounds_with_dropout_agree_to_a_billionth() -> None:
    together, alone = _rounds("vectorized", "float64", 50), _rounds("loop", "float64", 50)
    assert max(np.abs(a - b).max() for a, b in zip(together, alone, strict=True)) < 1e-9


@pytest.mark.long
def test_float32_drifts_no_further_than_float64_explains() -> None:
    exact = _rounds("loop", "float64", 50)

    def away(found: list[np.ndarray]) -> float:
        return float(np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(found, exact, strict=True))))

    together, alone = (
        away(_rounds("vectorized", "float32", 50)),
        away(_rounds("loop", "float32", 50)),
    )
    assert 0 < alone < 1e-2
    assert together < 3 * alone
