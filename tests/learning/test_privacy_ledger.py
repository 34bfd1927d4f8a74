from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from truststram_lab.exceptions import ConflictError, InvalidInputError, NotFoundError
from truststram_lab.learning.privacy.accountant import account
from truststram_lab.learning.privacy.ledger import Ledger
from truststram_lab.schemas.privacy import Budget, BudgetEntry, BudgetKey, GaussianUse, Spending

KEY = BudgetKey(dataset_sha256="a" * 64, unit="record")
BUDGET = Budget(epsilon=3.0, delta=1e-5)
ROUND = [GaussianUse(noise_multiplier=1.1, sample_rate=0.04, steps=50)]
RELEASES = {
    "round": ROUND,
    "statistics": [GaussianUse(noise_multiplier=8.0)],
    "explanation": [GaussianUse(noise_multiplier=12.0, steps=2)],
    "both": [GaussianUse(noise_multiplier=2.0, sample_rate=0.2), GaussianUse(noise_multiplier=9.0)],
}


def empty() -> Ledger:
    return Ledger(KEY, BUDGET)


class LedgerLaws(RuleBasedStateMachine):
    """What nobody can do with a ledger: spend without it noticing."""

    reserved: Bundle[str] = Bundle("reserved")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = empty()
        self.number = 0
        #: What may have left the site: noise is drawn the moment a reservation holds.
        self.possibly_out: dict[str, list[GaussianUse]] = {}

    @rule(target=reserved, what=st.sampled_from(sorted(RELEASES)))
    def reserve(self, what: str) -> str:
        name = f"{what}-{self.number}"
        self.number += 1
        decision = self.ledger.consider(RELEASES[what])
        if not decision.allowed:
            assert decision.after > BUDGET.epsilon
            with pytest.raises(ConflictError) as refused:
                self.ledger.reserve(name, what, RELEASES[what])
            assert str(refused.value) == decision.sentence
            return "refused"
        self.ledger = self.ledger.reserve(name, what, RELEASES[what])
        self.possibly_out[name] = RELEASES[what]
        return name

    @rule(name=reserved)
    def ask_again(self, name: str) -> None:
        entry = next((e for e in self.ledger.entries if e.id == name), None)
        if entry is not None and entry.state != "returned":
            assert self.ledger.reserve(name, entry.purpose, entry.uses) is self.ledger

    @rule(name=consumes(reserved), drawn=st.booleans())
    def settle(self, name: str, drawn: bool) -> None:
        if name not in self.possibly_out:
            with pytest.raises(NotFoundError):
                self.ledger.release(name)
            return
        if drawn:
            self.ledger = self.ledger.release(name)
            assert self.ledger.release(name) == self.ledger
            with pytest.raises(ConflictError, match="was released, and that is final"):
                self.ledger.give_back(name)
        else:
            self.ledger = self.ledger.give_back(name)
            assert self.ledger.give_back(name) == self.ledger
            with pytest.raises(ConflictError, match="was returned, and that is final"):
                self.ledger.release(name)
            del self.possibly_out[name]

    @rule()
    def crash(self) -> None:
        stored = [entry.model_dump_json() for entry in self.ledger.entries]
        self.ledger = Ledger(
            KEY, BUDGET, tuple(BudgetEntry.model_validate_json(line) for line in stored)
        )

    @invariant()
    def the_budget_covers_all_that_may_be_out(self) -> None:
        out = [use for uses in self.possibly_out.values() for use in uses]
        spent = self.ledger.spent()
        assert spent.epsilon == pytest.approx(account(out, BUDGET.delta).epsilon, rel=1e-12)
        assert spent.epsilon is not None
        assert spent.epsilon <= BUDGET.epsilon
        assert spent.entries == len(self.possibly_out)
        assert self.ledger.remaining() == pytest.approx(BUDGET.epsilon - spent.epsilon)


LedgerLaws.TestCase.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
TestLedgerLaws = LedgerLaws.TestCase


def test_a_spent_budget_refuses_the_round_with_the_numbers() -> None:
    ledger = empty().reserve("r1", "round 1", ROUND).release("r1").reserve("r2", "round 2", ROUND)
    with pytest.raises(ConflictError) as refused:
        ledger.reserve("r3", "round 3", ROUND)
    assert str(refused.value) == (
        "This goes over the budget of 3 at delta 1e-05: epsilon 2.68 is spent, 2.13 is asked, "
        "together 3.13; 35 of its 50 steps would fit, or use more noise."
    )


def test_what_would_fit_fits_and_one_step_more_does_not() -> None:
    ledger = empty().reserve("r1", "round 1", ROUND).reserve("r2", "round 2", ROUND)
    decision = ledger.consider(ROUND)
    assert not decision.allowed
    assert (decision.fits_steps, decision.fits_share) == (35, 0.7)
    fitting, over = ([ROUND[0].model_copy(update={"steps": steps})] for steps in (35, 36))
    assert ledger.consider(fitting).allowed
    assert not ledger.consider(over).allowed
    two_kinds = [GaussianUse(noise_multiplier=30.0, steps=3), GaussianUse(noise_multiplier=0.1)]
    assert ledger.consider(two_kinds).fits_steps == 3
    assert "nothing of it would fit" in ledger.consider(two_kinds[1:]).sentence


def test_the_number_of_rounds_left_is_the_number_that_can_be_reserved() -> None:
    ledger = empty()
    left = ledger.more_of(ROUND)
    for number in range(left):
        ledger = ledger.reserve(f"r{number}", "round", ROUND)
    assert left == 2
    assert ledger.more_of(ROUND) == 0
    with pytest.raises(ConflictError):
        ledger.reserve("one more", "round", ROUND)


def test_a_reservation_whose_end_nobody_knows_counts_as_spent() -> None:
    reserved = empty().reserve("r1", "round 1", ROUND)
    assert reserved.spent().epsilon == reserved.release("r1").spent().epsilon
    assert reserved.give_back("r1").spent() == empty().spent()


def test_releases_of_all_kinds_are_composed_and_the_plain_sum_is_shown_beside() -> None:
    ledger = empty()
    for name, uses in RELEASES.items():
        if name != "both":
            ledger = ledger.reserve(name, name, uses)
    spent = ledger.spent()
    assert spent.epsilon is not None
    assert spent.epsilon_added_up is not None
    alone = [account(RELEASES[n], 1e-5).epsilon for n in ("round", "statistics", "explanation")]
    assert spent.epsilon_added_up == pytest.approx(math.fsum(alone))
    assert max(alone) < spent.epsilon < spent.epsilon_added_up
    assert ledger.spent("tight").epsilon < spent.epsilon
    assert (spent.accountant, ledger.spent("tight").accountant) == ("RDP", "PRV")


def test_a_release_without_noise_never_fits() -> None:
    bare = [GaussianUse(noise_multiplier=0.0)]
    decision = empty().consider(bare)
    assert not decision.allowed
    assert decision.asked == math.inf
    assert "infinite is asked" in decision.sentence
    assert empty().more_of(bare) == 0


def test_an_empty_ledger_has_spent_nothing() -> None:
    assert empty().spent() == Spending(
        epsilon=0.0, epsilon_added_up=0.0, delta=1e-5, entries=0, accountant=None
    )
    assert empty().remaining() == 3.0


def test_an_id_stands_for_one_request_for_ever() -> None:
    ledger = empty().reserve("r1", "round 1", ROUND)
    with pytest.raises(ConflictError, match="in the ledger already, as 'round 1'"):
        ledger.reserve("r1", "round 1", RELEASES["statistics"])
    with pytest.raises(ConflictError, match="reserve under a new id"):
        ledger.give_back("r1").reserve("r1", "round 1", ROUND)
    with pytest.raises(NotFoundError, match="did you mean 'r1'"):
        ledger.release("r11")
    with pytest.raises(InvalidInputError, match="at least one release"):
        ledger.reserve("r2", "round 2", [])


def test_a_ledger_is_a_value() -> None:
    ledger = empty()
    ledger.reserve("r1", "round 1", ROUND)
    assert ledger == empty()
