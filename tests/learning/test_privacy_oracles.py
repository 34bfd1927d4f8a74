"""The same numbers from the libraries of others, like with like: RDP to RDP, PLD to PRV.

opacus and dp-accounting are looked for in the environment, in the folder TS_PRIVACY_ORACLES and
in ``oracles`` below the environment. dp-accounting asks for an old attrs, so it is never installed
beside the project's own packages. Where they are missing the tests are skipped, unless TS_REQUIRE
names ``oracles``.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from truststram_lab.exceptions import PrivacyBudgetError
from truststram_lab.federated.participation.terms import Terms
from truststram_lab.federated.site_spending import SiteSpending
from truststram_lab.learning.privacy.accountant import account
from truststram_lab.learning.privacy.dpsgd import clipped_gradient_sum, module_loss
from truststram_lab.learning.privacy.gaussian import gaussian_epsilon
from truststram_lab.learning.privacy.prv import prv_epsilon
from truststram_lab.learning.privacy.rdp import rdp_of
from truststram_lab.schemas.federation import LocalTraining
from truststram_lab.schemas.privacy import GaussianUse, RecordPlan
from truststram_lab.schemas.strategies import FedAvg

# Their warnings are theirs.
pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]

DELTA = 1e-5
#: (noise multiplier, sample rate, steps), of rounds that follow each other
RUNS = [
    [(1.0, 0.1, 100)],
    [(1.0, 0.01, 1000)],
    [(0.4, 0.05, 20)],
    [(1.0, 0.1, 50), (2.0, 0.3, 50), (4.0, 0.5, 10)],
]

Oracle = Callable[[str], Any]


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    """Imports a module of theirs."""
    folders = [os.environ.get("TS_PRIVACY_ORACLES", ""), str(Path(sys.prefix, "oracles"))]
    added = [folder for folder in folders if folder and Path(folder).is_dir()]
    # Behind the environment's own: nothing of theirs may take its place.
    sys.path.extend(added)
    logging.getLogger("absl").setLevel(logging.ERROR)
    logging.getLogger("opacus").setLevel(logging.ERROR)

    def load(name: str) -> Any:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            if "oracles" in os.environ.get("TS_REQUIRE", "").replace(",", " ").split():
                pytest.fail(f"TS_REQUIRE names oracles, but {error}.")
            pytest.skip(f"{error}; see this file's docstring.")

    yield load
    for folder in added:
        sys.path.remove(folder)


def uses(run: list[tuple[float, float, int]]) -> list[GaussianUse]:
    return [GaussianUse(noise_multiplier=z, sample_rate=q, steps=t) for z, q, t in run]


def event(dp: Any, run: list[tuple[float, float, int]]) -> Any:
    return dp.ComposedDpEvent(
        [
            dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(q, dp.GaussianDpEvent(z)), t)
            for z, q, t in run
        ]
    )


@pytest.mark.parametrize("run", RUNS)
def test_rdp_epsilons_agree_with_two_accountants(
    oracle: Oracle, run: list[tuple[float, float, int]]
) -> None:
    ours = account(uses(run), DELTA, "RDP").epsilon
    theirs = oracle("opacus.accountants").RDPAccountant()
    theirs.history = list(run)
    assert ours == pytest.approx(theirs.get_epsilon(DELTA), rel=0.01)
    dp, rdp = oracle("dp_accounting"), oracle("dp_accounting.rdp")
    google = rdp.RdpAccountant().compose(event(dp, run)).get_epsilon(DELTA)
    assert ours == pytest.approx(google, rel=0.01)


@pytest.mark.parametrize("run", RUNS)
def test_tight_epsilons_agree_with_two_accountants(
    oracle: Oracle, run: list[tuple[float, float, int]]
) -> None:
    ours = account(uses(run), DELTA, "tight")
    assert ours.accountant == "PRV"
    theirs = oracle("opacus.accountants").PRVAccountant()
    theirs.history = list(run)
    # An upper bound, eps_error above its estimate, as ours is.
    assert ours.epsilon == pytest.approx(
        theirs.get_epsilon(DELTA, eps_error=0.003 * ours.epsilon), rel=0.01
    )
    dp, pld = oracle("dp_accounting"), oracle("dp_accounting.pld")
    google = pld.PLDAccountant(value_discretization_interval=1e-3)
    found = google.compose(event(dp, run)).get_epsilon(DELTA)
    assert ours.epsilon == pytest.approx(found, rel=0.01)
    bounds = prv_epsilon(uses(run), DELTA)
    assert bounds.low <= found * 1.003
    assert bounds.estimate == pytest.approx(found, rel=0.005)


@pytest.mark.parametrize(("noise", "rate"), [(1.0, 0.1), (0.5, 0.5), (4.0, 0.01)])
def test_the_whole_rdp_curve_is_theirs(oracle: Oracle, noise: float, rate: float) -> None:
    orders = [1.25, 1.5, 2.0, 3.7, 8.2, 10.9, 16.0, 64.0, 256.0]
    analysis = oracle("opacus.accountants.analysis.rdp")
    theirs = analysis.compute_rdp(q=rate, noise_multiplier=noise, steps=1, orders=orders)
    np.testing.assert_allclose(rdp_of(noise, rate, np.array(orders)), theirs, rtol=1e-6)


@pytest.mark.parametrize("noise", [0.3, 1.0, 5.0])
def test_one_full_release_is_their_exact_gaussian(oracle: Oracle, noise: float) -> None:
    oracle("dp_accounting")
    gaussian = oracle("dp_accounting.gaussian_mechanism")
    ours = account([GaussianUse(noise_multiplier=noise)], DELTA).epsilon
    assert ours == pytest.approx(gaussian.get_epsilon_gaussian(noise, DELTA), rel=1e-4)
    assert ours == gaussian_epsilon(DELTA, 1 / noise)


def test_the_clipped_sum_of_gradients_is_theirs(oracle: Oracle) -> None:
    grad_sample = oracle("opacus.grad_sample")
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(),
        nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3),
    )  # fmt: skip
    x, y = torch.randn(32, 6), torch.randint(0, 3, (32,))
    ours, _ = clipped_gradient_sum(
        module_loss(module, nn.CrossEntropyLoss()), dict(module.named_parameters()), (x, y), 0.7
    )
    theirs = grad_sample.GradSampleModule(module, loss_reduction="sum")
    optimizer = oracle("opacus.optimizers").DPOptimizer(
        torch.optim.SGD(theirs.parameters(), lr=0.1),
        noise_multiplier=0.0, max_grad_norm=0.7, expected_batch_size=32, loss_reduction="sum",
    )  # fmt: skip
    nn.CrossEntropyLoss(reduction="sum")(theirs(x), y).backward()
    optimizer.clip_and_accumulate()
    for name, weight in theirs._module.named_parameters():
        torch.testing.assert_close(ours[name], weight.summed_grad, rtol=0, atol=1e-6)


def round_of(run: str, kind: str, number: int, plan: RecordPlan) -> Terms:
    return Terms(
        f"{run}-{kind}-{number}", run, run, kind, number, plan.rounds, 0, 5, LocalTraining(),
        {"statistics_noise": 8.0}, FedAvg(), (), plan, None, None, None, None,
    )  # fmt: skip


def test_a_sites_ledger_over_two_federations_is_the_composition_of_two_accountants(
    oracle: Oracle, tmp_path: Path
) -> None:
    """Statistics, training and attributions of one data set: to 1 %, and to the limit."""
    plans = {
        "icu": RecordPlan(
            noise_multiplier=1.6, sample_rate=0.1, batch_size=6, steps_per_round=10, rounds=4,
            delta=DELTA,
        ),
        "ward": RecordPlan(
            noise_multiplier=2.5, sample_rate=0.3, batch_size=6, steps_per_round=4, rounds=3,
            delta=DELTA,
        ),
    }  # fmt: skip
    history = []
    for name, plan in plans.items():
        # Each federation has an object of its own, as its process has; the ledger is the data's.
        spending = SiteSpending("ab" * 32, 500, folder=tmp_path)
        spending.reserve(round_of(name, "statistics", 0, plan))
        history.append((8.0, 1.0, 1))
        for number in range(1, plan.rounds + 1):
            spending.reserve(round_of(name, "training", number, plan))
            history.append((plan.noise_multiplier, plan.sample_rate, plan.steps_per_round))
        spending.reserve_attributions(f"exp_{name}", GaussianUse(noise_multiplier=6.0), name)
        history.append((6.0, 1.0, 1))

    def opacus(more: list[tuple[float, float, int]]) -> float:
        theirs = oracle("opacus.accountants").RDPAccountant()
        theirs.history = [*history, *more]
        return float(theirs.get_epsilon(DELTA))

    spending = SiteSpending("ab" * 32, 500, folder=tmp_path)
    found = spending.spent("record")
    assert (found.delta, found.releases) == (DELTA, 11)
    assert found.epsilon == pytest.approx(opacus([]), rel=0.01)
    dp, rdp = oracle("dp_accounting"), oracle("dp_accounting.rdp")
    google = rdp.RdpAccountant().compose(event(dp, history)).get_epsilon(DELTA)
    assert found.epsilon == pytest.approx(google, rel=0.01)

    # The limit lies halfway between what fits by their count and what does not.
    fits, over = [(6.0, 1.0, 1)], [(6.0, 1.0, 1), (3.0, 1.0, 1)]
    limit = (opacus(fits) + opacus(over)) / 2
    assert opacus(over) > opacus(fits) * 1.03
    limited = SiteSpending("ab" * 32, 500, limit=limit, folder=tmp_path)
    limited.keep_limit()
    limited.reserve_attributions("exp_fits", GaussianUse(noise_multiplier=6.0), "fits")
    with pytest.raises(PrivacyBudgetError, match="goes over the budget"):
        limited.reserve_attributions("exp_over", GaussianUse(noise_multiplier=3.0), "over")
    assert limited.objection(round_of("third", "training", 1, plans["icu"])) is not None
    assert limited.spent("record").epsilon == pytest.approx(opacus(fits), rel=0.01)
