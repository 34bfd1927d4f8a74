"""Cards about privacy, strategies, what left, and rounds computed again."""

from __future__ import annotations

import json

import card_examples as ex
import pytest
from card_reading import words_of

from truststram_lab.learning.privacy.statements import no_guarantee, statement
from truststram_lab.render import Card, replay_card, run_card, sent_card
from truststram_lab.render.strategies import filter_words, strategy_words
from truststram_lab.schemas.departures import Departure, SentArray
from truststram_lab.schemas.filters import FilterStep, Sparsification, parse_filters
from truststram_lab.schemas.privacy import ClientPlan, RecordPlan
from truststram_lab.schemas.replays import ArrayDifference, RoundReplay
from truststram_lab.schemas.run_privacy import RunPrivacy
from truststram_lab.schemas.strategies import STRATEGY_NAMES, FedAdam, as_strategy

PLAN = RecordPlan(
    clip=1.5,
    noise_multiplier=2.25,
    sample_rate=0.125,
    batch_size=16,
    steps_per_round=16,
    rounds=10,
    delta=0.002,
)


def both(card: Card) -> list[str]:
    return [words_of(card.html), " ".join(card.text.split())]


def small(card: Card) -> bool:
    return len(json.dumps(card.bundle(), ensure_ascii=False).encode()) < 50_000


def spending(rounds: int = 4, **changes: object) -> RunPrivacy:
    stated = statement(PLAN, rounds, tight=False)
    values = {"statement": stated, "epsilon": stated.epsilon, "budget": 3.0, **changes}
    return RunPrivacy.model_validate(values)


def private_run(**changes: object):
    return ex.live_run(plan=ex.plan(privacy=PLAN), **changes)


def test_a_record_level_plan_says_its_sampling_and_names_no_batches():
    for said in both(run_card(private_run())):
        assert (
            "16 steps of DP-SGD, each on a Poisson sample: every row with chance 0.125, learning "
            "rate" in said
        )
        assert "batches of" not in said


def test_epsilon_is_live_with_all_that_it_depends_on():
    spent = spending()
    for said in both(run_card(private_run(), spending=spent)):
        assert f"record-level, epsilon {spent.epsilon:.1f}"[:-1] in said
        assert "of 3 at delta 0.002" in said
        for part in ("add-or-remove", "one row more or less at a site", "DP-SGD (clip 1.5",
                     "noise multiplier 2.25", "accounted by RDP", "the platform saw noised updates "
                     "only", "Losses, accuracies and row counts"):  # fmt: skip
            assert part in said
        assert "none added" not in said
        assert "no noise was added" not in said


def test_a_shown_epsilon_is_never_smaller_than_the_number():
    for said in both(run_card(private_run(), spending=spending(epsilon=1.9001))):
        assert "epsilon 1.91 of 3" in said


def test_what_was_spent_before_is_shown_composed():
    spent = spending(before=2.1, together=3.4, limit=5.0)
    for said in both(run_card(private_run(), spending=spent)):
        assert "2.1 spent on this data before, together 3.4 of at most 5" in said


def test_before_the_first_release_nothing_is_spent():
    spent = RunPrivacy(budget=3.0, statistics="Inputs are scaled by bounds.")
    for said in both(run_card(private_run(), spending=spent)):
        assert "epsilon 0 of 3" in said


def test_a_watcher_sees_the_statement_that_the_platform_has():
    stated = statement(PLAN, 4, tight=False)
    plan = ex.plan(privacy=PLAN, config={"dp_epsilon": 3.0, "statistics_noise": 9.5})
    for said in both(run_card(ex.live_run(plan=plan, statement=stated))):
        assert "record-level, epsilon" in said
        assert " of 3 at delta 0.002" in said
        assert "one row more or less" in said
        assert "the noised means and variances come on top" in said


def test_noise_that_protects_nobody_is_never_called_privacy():
    stated = no_guarantee(PLAN, "no noise was added")
    for said in both(run_card(ex.run(), spending=RunPrivacy(statement=stated, epsilon=None))):
        assert "No differential privacy: no noise was added" in said


def test_a_client_level_run_says_that_the_platform_saw_every_update():
    plan = ClientPlan(noise_multiplier=4.0, sites=5, rounds=10, delta=0.001)
    stated = statement(plan, 10, tight=False)
    run = ex.run(plan=ex.plan(privacy=plan))
    for said in both(run_card(run, spending=RunPrivacy(statement=stated, epsilon=9.0, budget=9.0))):
        assert "client-level, epsilon 9 of 9" in said
        assert "the platform saw every update" in said
        assert "could read every update before it added the noise" in said


def test_a_card_without_noise_says_how_to_have_some():
    for said in both(run_card(ex.run())):
        assert "Privacy: none added; the platform saw every site's update. Try --dp 3" in said


@pytest.mark.parametrize("name", STRATEGY_NAMES)
def test_every_strategy_has_words_and_every_parameter_is_in_them(name):
    strategy = as_strategy(name)
    words = strategy_words(strategy)
    for value in strategy.model_dump(exclude={"name"}, exclude_none=True).values():
        assert f"{value:g}" in words


def test_the_headline_names_a_strategy_that_is_not_the_usual_one():
    run = ex.run(plan=ex.plan(strategy=FedAdam(server_learning_rate=0.03)))
    for said in both(run_card(run)):
        assert "FedAdam (server learning rate 0.03, beta1 0.9, beta2 0.99, tau 0.001)" in said


def test_filters_are_told_in_their_order():
    found = parse_filters(
        [
            {"type": "gradient_clip", "max_norm": 2.0},
            {"type": "sparsification", "top_k": 0.05},
            {"type": "quantization", "bits": 4},
        ]
    )
    assert filter_words(found) == "clip to norm 2, then keep the largest 5 %, then round to 4 bits"


# What left -------------------------------------------------------------------------------


def _departures(sites: int = 3, rounds: int = 2) -> list[Departure]:
    array = SentArray(
        name="layers.0.weight",
        shape=[64, 30],
        form="sparse",
        coordinates=1920,
        kept=192,
        bytes_before=7680,
        bytes_after=912,
    )
    step = FilterStep(
        filter=Sparsification(top_k=0.1),
        norm_before=1.0,
        norm_after=0.9,
        coordinates=1920,
        kept=192,
        bytes_before=7680,
        bytes_after=912,
    )
    plan = Departure(site=None, kind="plan", body_bytes=4000, texts={"model": "m"}, at=ex.THEN)
    return [
        plan,
        *(
            Departure(
                site=f"site {site}",
                kind="update",
                round=number,
                body_bytes=1300,
                arrays=[array],
                texts={"sample_count": "88", "metrics": "{}"},
                steps=[step],
                sha256=ex.SHA,
                at=ex.THEN,
            )
            for number in range(1, rounds + 1)
            for site in range(1, sites + 1)
        ),
    ]


def test_what_left_is_told_by_site_by_update_and_field_by_field():
    for said in both(sent_card(ex.run(), _departures())):
        assert "7 bodies left this computer, 12 kB in all" in said
        assert "layers.0.weight update 64 x 30 sparse 6 46 kB 5.5 kB" in said
        assert "site 2 round 1 7.7 kB 912 B 1.3 kB" in said
        assert "sample_count 88" in said
        assert "sent.to_frame()" in said


def test_nothing_on_record_is_not_called_nothing_sent():
    for said in both(sent_card(ex.run(), [])):
        assert "from another one, or before such records were kept" in said


def test_a_thousand_sites_still_make_a_small_card():
    card = sent_card(ex.run(), _departures(1000, 10))
    assert small(card)
    assert "more sites" in card.text


# Computed again --------------------------------------------------------------------------


def _replay(number: int, **changes: object) -> RoundReplay:
    values = {"number": number, "updates": 5, "expected": ex.SHA, "found": ex.SHA, **changes}
    return RoundReplay.model_validate(values)


def test_equal_rounds_are_equal_bit_for_bit():
    for said in both(replay_card(ex.run(), [_replay(n) for n in (1, 2, 3)])):
        assert "3 rounds computed again from the stored updates: all equal, bit for bit" in said


def test_a_round_that_differs_names_the_array_and_by_how_much():
    other = ArrayDifference(name="layers.2.bias", differing=1, coordinates=64, largest=0.00125)
    wrong = _replay(2, found="0" * 64, differences=[other])
    for said in both(replay_card(ex.run(), [_replay(1), wrong])):
        assert "2 rounds computed again from the stored updates: 1 differ" in said
        assert "2 layers.2.bias 1 of 64 0.00125" in said


def test_a_noised_round_says_that_its_noise_was_reused():
    for said in both(replay_card(ex.run(), [_replay(1, noised=True)])):
        assert "cannot be drawn again: the stored noised mean was taken" in said


def test_a_thousand_rounds_still_make_a_small_card():
    assert small(replay_card(ex.run(), [_replay(n + 1) for n in range(1000)]))
