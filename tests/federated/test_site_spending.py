"""A site's own ledger: one charge a release, whatever dies in between."""

from __future__ import annotations

import pytest

from truststram_lab.federated.participation.terms import Terms
from truststram_lab.federated.site_spending import SiteSpending
from truststram_lab.learning.privacy.accountant import account
from truststram_lab.schemas.federation import LocalTraining
from truststram_lab.schemas.privacy import GaussianUse, RecordPlan
from truststram_lab.schemas.strategies import FedAvg

PLAN = RecordPlan(
    noise_multiplier=2.0, sample_rate=0.1, batch_size=6, steps_per_round=10, rounds=3, delta=1e-5
)


def terms(run: str, number: int, kind: str = "training") -> Terms:
    return Terms(
        f"{run}-{kind}-{number}", run, run, kind, number, 3, 0, 5, LocalTraining(),
        {"statistics_noise": 8.0}, FedAvg(), (), PLAN, None, None, None, None,
    )  # fmt: skip


def test_a_round_is_charged_once_until_its_update_leaves_and_again_if_it_is_made_again(tmp_path):
    for _ in range(3):  # a process that died before anything left, and its successors
        SiteSpending("ab" * 32, 100, folder=tmp_path).reserve(terms("r", 1))
    spending = SiteSpending("ab" * 32, 100, folder=tmp_path)
    assert spending.spent("record").releases == 1
    spending.release("r-training-1")
    spending.release("r-training-1")
    assert spending.spent("record").releases == 1
    spending.reserve(terms("r", 1))
    assert spending.spent("record").releases == 2


def test_runs_of_two_federations_add_up_to_the_limit_and_no_further(tmp_path):
    spending = SiteSpending("ab" * 32, 100, limit=2.0, folder=tmp_path)
    spending.keep_limit()
    spending.reserve(terms("one", 0, "statistics"))
    charged = [GaussianUse(noise_multiplier=8.0)]
    for number in range(1, 1000):
        asked = terms("one" if number % 2 else "two", number)
        if spending.objection(asked) is not None:
            break
        spending.reserve(asked)
        charged.append(PLAN.use())
    found = spending.spent("record")
    assert found.epsilon == pytest.approx(account(charged, 1e-5).epsilon)
    assert found.epsilon <= 2.0 < account([*charged, PLAN.use()], 1e-5).epsilon
