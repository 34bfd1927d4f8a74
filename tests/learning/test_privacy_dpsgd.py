from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.learning.network import Network
from truststram_lab.learning.privacy.dpsgd import (
    clipped_gradient_sum,
    module_loss,
    private_gradient,
    rates,
)
from truststram_lab.learning.privacy.noise import SecureRandom
from truststram_lab.learning.privacy.private_training import train_privately
from truststram_lab.learning.training import (
    GradientTerms,
    Stopped,
    build_module,
    initial_state,
    train,
)
from truststram_lab.learning.weights import State
from truststram_lab.schemas.federation import LocalTraining
from truststram_lab.schemas.privacy import RecordPlan
from truststram_lab.schemas.registry import Architecture, DenseLayer, DropoutLayer

KEY = bytes(range(32))
BINARY = Architecture(
    inputs=4, layers=[DenseLayer(units=6, activation="tanh"), DenseLayer(units=1)]
)
DROPPING = Architecture(
    inputs=4,
    layers=[DenseLayer(units=8, activation="relu"), DropoutLayer(rate=0.5), DenseLayer(units=3)],
)
LOCAL = LocalTraining(learning_rate=0.5, dtype="float64")


def plan(**changes: object) -> RecordPlan:
    common = {"noise_multiplier": 1.0, "sample_rate": 0.25, "batch_size": 15, "steps_per_round": 8}
    return RecordPlan.model_validate({**common, "rounds": 1, "delta": 1e-5, **changes})


def rows(classes: int, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 4))
    return x, (x @ rng.normal(size=(4, classes))).argmax(axis=1)


def never() -> bool:
    return False


def small_nets() -> list[nn.Module]:
    torch.manual_seed(0)
    return [
        nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)),
        nn.Sequential(
            nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(),
            nn.Flatten(), nn.Linear(16, 3),
        ),
        nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 3)),
    ]  # fmt: skip


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("chunk", [None, 1, 4])
def test_the_clipped_sum_is_that_of_one_row_after_the_other(place: int, chunk: int | None) -> None:
    module = small_nets()[place].double()
    x, y = torch.randn(11, 6, dtype=torch.float64), torch.randint(0, 3, (11,))
    parameters = dict(module.named_parameters())
    loss = nn.CrossEntropyLoss()
    expected = {name: torch.zeros_like(weight) for name, weight in parameters.items()}
    clipped = 0
    for row in range(11):
        value = loss(module(x[row : row + 1]), y[row : row + 1])
        gradients = torch.autograd.grad(value, list(parameters.values()))
        norm = torch.sqrt(sum((g**2).sum() for g in gradients))
        clipped += int(norm > 0.9)
        for name, gradient in zip(parameters, gradients, strict=True):
            expected[name] += gradient * min(1.0, 0.9 / float(norm))
    found, losses = clipped_gradient_sum(
        module_loss(module, loss), parameters, (x, y), 0.9, chunk=chunk
    )
    assert clipped > 0
    for name in parameters:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-10, atol=1e-12)
    assert float(losses.mean()) == pytest.approx(float(loss(module(x), y).detach()), rel=1e-12)


def test_one_row_more_moves_the_sum_by_at_most_the_clip() -> None:
    module = small_nets()[0]
    x, y = 100 * torch.randn(9, 6), torch.randint(0, 3, (9,))
    loss = module_loss(module, nn.CrossEntropyLoss())
    parameters = dict(module.named_parameters())
    for removed in range(9):
        kept = [place for place in range(9) if place != removed]
        all_rows, _ = clipped_gradient_sum(loss, parameters, (x, y), 0.5)
        others, _ = clipped_gradient_sum(loss, parameters, (x[kept], y[kept]), 0.5)
        moved = torch.cat([(all_rows[n] - others[n]).flatten() for n in parameters])
        assert float(moved.norm()) <= 0.5 * (1 + 1e-4)


def test_an_empty_sample_still_releases_noise() -> None:
    module = small_nets()[0]
    # At this rate a sample of 50 rows is empty but once in 20 million.
    tiny = plan(sample_rate=1e-9, noise_multiplier=1.0)
    x, y = torch.randn(50, 6), torch.randint(0, 3, (50,))
    gradient, losses = private_gradient(
        module_loss(module, nn.CrossEntropyLoss()), dict(module.named_parameters()), (x, y), tiny
    )
    assert len(losses) == 0
    assert all(float(g.abs().min()) > 0 for g in gradient.values())


def test_the_noise_of_a_step_has_the_planned_variance_and_a_fixed_denominator() -> None:
    layer = nn.Linear(300, 300, bias=False)
    wide = plan(sample_rate=0.1, batch_size=4, noise_multiplier=2.0, clip=1e-6)
    x, y = torch.randn(40, 300), torch.randn(40, 300)
    gradient, _ = private_gradient(
        module_loss(layer, nn.MSELoss()), dict(layer.named_parameters()), (x, y), wide,
        noise=SecureRandom(KEY),
    )  # fmt: skip
    # sigma = z * C over the planned batch, however many rows were drawn.
    assert float(gradient["weight"].std()) == pytest.approx(2e-6 / 4, rel=0.02)


def test_without_noise_and_clipping_a_step_is_one_of_plain_gradient_descent() -> None:
    x, y = rows(2)
    state = initial_state(BINARY, 0, "float64")
    still = plan(noise_multiplier=0, clip=1e6, sample_rate=1, batch_size=60, steps_per_round=3)
    found, metrics = train_privately(BINARY, state, x, y, LOCAL, still, "cpu", never)
    module = build_module(BINARY).double()
    module.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    losses = []
    for _ in range(3):
        logits = module(torch.tensor(x))[:, 0]
        loss = nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(y).double())
        losses.append(float(loss.detach()))
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        with torch.no_grad():
            for weight, gradient in zip(module.parameters(), gradients, strict=True):
                weight -= 0.5 * gradient
    for name, weight in module.state_dict().items():
        np.testing.assert_allclose(found[name], weight.numpy(), rtol=1e-9, atol=1e-12)
    assert metrics == pytest.approx({"loss": np.mean(losses), "samples": 60.0})


@pytest.mark.parametrize("architecture", [BINARY, DROPPING])
def test_a_network_learns_under_moderate_noise(architecture: Architecture) -> None:
    x, y = rows(2 if architecture is BINARY else 3, 2000)
    state = initial_state(architecture, 0, "float64")
    learning = plan(sample_rate=0.1, batch_size=200, steps_per_round=150)
    new, _ = train_privately(
        architecture, state, x, y, LOCAL, learning, "cpu", never,
        sampling=SecureRandom(KEY), noise=SecureRandom(bytes(32)),
    )  # fmt: skip
    hits = Network(architecture, new).probabilities(x).argmax(axis=1) == y
    assert hits.mean() > 0.85


def test_a_row_more_does_not_show_in_the_size_of_the_noise() -> None:
    layer = nn.Linear(30, 30, bias=False)
    loss, weights = module_loss(layer, nn.MSELoss()), dict(layer.named_parameters())
    fixed = plan(sample_rate=0.5, batch_size=10, clip=1e-9, noise_multiplier=1e6)
    with_and_without = [
        private_gradient(
            loss, weights, (torch.ones(n, 30), torch.ones(n, 30)), fixed, noise=SecureRandom(KEY)
        )[0]["weight"]
        for n in (20, 21)
    ]
    torch.testing.assert_close(*with_and_without, rtol=1e-4, atol=1e-9)


def trained(sampling: SecureRandom | None, noise: SecureRandom | None) -> State:
    x, y = rows(3)
    state = initial_state(DROPPING, 0)
    return train_privately(
        DROPPING, state, x, y, LOCAL, plan(), "cpu", never, sampling=sampling, noise=noise
    )[0]


def test_noise_and_samples_are_new_in_every_run_and_leave_torchs_generator_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, second = trained(None, None), trained(None, None)
    assert not np.array_equal(first["layers.0.weight"], second["layers.0.weight"])
    assert torch.equal(before, torch.get_rng_state())
    same = [trained(SecureRandom(KEY), SecureRandom(KEY)) for _ in range(2)]
    np.testing.assert_array_equal(same[0]["layers.0.weight"], same[1]["layers.0.weight"])
    assert first["layers.0.weight"].dtype == np.float32


def test_a_stop_ends_private_training_before_the_next_step() -> None:
    x, y = rows(2)
    seen: list[tuple[int, int]] = []
    with pytest.raises(Stopped):
        train_privately(
            BINARY, initial_state(BINARY, 0), x, y, LOCAL, plan(), "cpu",
            lambda: len(seen) == 2, lambda done, steps: seen.append((done, steps)),
        )  # fmt: skip
    assert seen == [(1, 8), (2, 8)]


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm1d(5), nn.InstanceNorm1d(5, track_running_stats=True), nn.SyncBatchNorm(5)]
)
def test_layers_that_mix_rows_are_refused_with_the_way_out(norm: nn.Module) -> None:
    module = nn.Sequential(nn.Linear(6, 5), norm, nn.Linear(5, 3))
    with pytest.raises(InvalidInputError, match=r"Layer '1' .* use GroupNorm instead"):
        module_loss(module, nn.CrossEntropyLoss())


def test_a_module_that_looks_at_its_values_is_refused_with_the_way_out() -> None:
    class Peeking(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x if bool(x.sum() > 0) else -x)

    module = Peeking(6, 3)
    with pytest.raises(InvalidInputError, match="cannot be taken row by row"):
        clipped_gradient_sum(
            module_loss(module, nn.CrossEntropyLoss()),
            dict(module.named_parameters()),
            (torch.randn(3, 6), torch.tensor([0, 1, 2])),
            1.0,
        )


def test_a_row_without_a_finite_gradient_is_refused() -> None:
    module = small_nets()[0]
    x = torch.randn(3, 6)
    x[1, 2] = float("nan")
    with pytest.raises(InvalidInputError, match="no longer finite"):
        clipped_gradient_sum(
            module_loss(module, nn.CrossEntropyLoss()),
            dict(module.named_parameters()),
            (x, torch.tensor([0, 1, 2])),
            1.0,
        )


def test_a_row_without_a_gradient_adds_nothing() -> None:
    layer = nn.Linear(3, 1, bias=False)
    found, _ = clipped_gradient_sum(
        module_loss(layer, nn.MSELoss()),
        dict(layer.named_parameters()),
        (torch.zeros(2, 3), torch.ones(2, 1)),
        1.0,
    )
    assert torch.equal(found["weight"], torch.zeros(1, 3))


def test_rates_come_from_rows_batches_and_epochs() -> None:
    assert rates(400, 16, 2) == (0.04, 50)
    assert rates(10, 10, 1) == (1.0, 1)
    assert rates(7, 2, 1) == (2 / 7, 4)
    with pytest.raises(InvalidInputError, match="use a batch size of 10 or less"):
        rates(10, 11, 1)
    for wrong in ((0, 1, 1), (10, 0, 1), (10, 1, 0)):
        with pytest.raises(InvalidInputError, match="use a positive number"):
            rates(*wrong)


@pytest.mark.parametrize("kind", ["fedprox", "scaffold"])
def test_without_noise_and_clip_a_strategys_term_is_that_of_training_without_privacy(kind):
    x, y = rows(2)
    state = initial_state(BINARY, 0, "float64")
    local = LocalTraining(learning_rate=0.1, dtype="float64", batch_size=60, epochs=4)
    terms = GradientTerms(pull=0.7)
    if kind == "scaffold":
        terms = GradientTerms(correction={name: np.full_like(a, 0.3) for name, a in state.items()})
    bare = plan(noise_multiplier=0.0, clip=1e9, sample_rate=1.0, batch_size=60, steps_per_round=4)
    private, _ = train_privately(BINARY, state, x, y, local, bare, "cpu", never, terms=terms)
    plain, _ = train(BINARY, state, x, y, local, 0, "cpu", never, terms=terms)
    without, _ = train(BINARY, state, x, y, local, 0, "cpu", never)
    for name, expected in plain.items():
        np.testing.assert_allclose(private[name], expected, rtol=0, atol=1e-9)
    assert max(np.abs(plain[name] - without[name]).max() for name in plain) > 1e-3
