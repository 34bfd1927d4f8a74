"""A site's own ledger: one charge a release, whatever dies in between."""

from __future__ import annotations

import pytest

from truststram_lab.exceptions import ConfigurationError, InvalidInputError, PrivacyBudgetError
from truststram_lab.federated.joined_data import (
    JoinedData,
    federations_at,
    joined_data,
    note_joined,
)
from truststram_lab.federated.owner_ledger import OwnerLedger
from truststram_lab.federated.participation.terms import Terms
from truststram_lab.federated.site_spending import SiteSpending
from truststram_lab.learning.privacy.accountant import account
from truststram_lab.schemas.federation import LocalTraining
from truststram_lab.schemas.privacy import BudgetKey, GaussianUse, RecordPlan
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


EXPLAINED = GaussianUse(noise_multiplier=5.0)


def test_statistics_training_and_attributions_are_one_budget_and_each_is_named(tmp_path):
    spending = SiteSpending("ab" * 32, 100, folder=tmp_path)
    spending.reserve(terms("one", 0, "statistics"))
    spending.reserve(terms("two", 1))
    spending.reserve_attributions("exp_1", EXPLAINED, "mean attributions of icu:3")
    ledger = OwnerLedger(BudgetKey(dataset_sha256="ab" * 32, unit="record"), tmp_path)
    assert [entry.kind for entry in ledger.entries()] == ["statistics", "training", "attributions"]
    whole = [GaussianUse(noise_multiplier=8.0), PLAN.use(), EXPLAINED]
    assert spending.spent("record").epsilon == pytest.approx(account(whole, 1e-5).epsilon)


def test_attributions_are_charged_once_until_they_leave_and_again_if_made_again(tmp_path):
    spending = SiteSpending("ab" * 32, 100, folder=tmp_path)
    for _ in range(2):
        spending.reserve_attributions("exp_1", EXPLAINED, "why")
    assert spending.spent("record").releases == 1
    spending.release("exp_1")
    spending.reserve_attributions("exp_1", EXPLAINED, "why")
    assert spending.spent("record").releases == 2
    states = [
        entry.state
        for entry in OwnerLedger(
            BudgetKey(dataset_sha256="ab" * 32, unit="record"), tmp_path
        ).entries()
    ]
    assert states == ["released", "reserved"]


def test_attributions_beyond_the_limit_are_refused_and_nothing_is_charged(tmp_path):
    spending = SiteSpending("ab" * 32, 100, limit=1.0, folder=tmp_path)
    spending.keep_limit()
    spending.reserve_attributions("exp_1", EXPLAINED, "why")
    with pytest.raises(PrivacyBudgetError, match="goes over the budget of 1 at delta 1e-05"):
        spending.reserve_attributions("exp_2", GaussianUse(noise_multiplier=2.0), "why")
    assert spending.spent("record").releases == 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("a/b", EXPLAINED, ""), "'a/b' is no id"),
        (("", EXPLAINED, ""), "is no id"),
        (("a", GaussianUse(noise_multiplier=0.0), ""), "without noise show single rows"),
    ],
)
def test_attributions_that_cannot_be_charged_are_refused(tmp_path, given, says):
    with pytest.raises(InvalidInputError, match=says):
        SiteSpending("ab" * 32, 100, folder=tmp_path).reserve_attributions(*given)


def test_a_computer_remembers_which_of_its_data_took_part_where(tmp_path, monkeypatch):
    monkeypatch.setenv("TRUSTSTRAM_HOME", str(tmp_path))
    first, second = JoinedData("ab" * 32, 100), JoinedData("cd" * 32, 7)
    for data in (first, second, first):
        note_joined("sandbox", "a/b", data)
    assert joined_data("sandbox", "a/b") == [first, second]
    assert joined_data("sandbox", "other") == joined_data("elsewhere:443", "a/b") == []
    assert federations_at("sandbox") == ["a/b"]
    [path] = (tmp_path / "ledger" / "federations").rglob("*.json")
    assert path.stat().st_mode & 0o077 == 0
    path.write_text("{}")
    with pytest.raises(ConfigurationError, match="is damaged"):
        joined_data("sandbox", "a/b")
