from __future__ import annotations

import re

import card_examples as ex
from card_reading import words_of

from truststram_lab.render import FOLD_MARK, Card, live_run_card, run_card, runs_card
from truststram_lab.render.numbers import count, percent, share, size
from truststram_lab.render.sites import MOST_SITES, sites_shown
from truststram_lab.schemas.federation import RoundReport, Split


def both(card: Card) -> list[str]:
    return [words_of(card.html), " ".join(card.text.split())]


def test_the_headline_says_what_where_how_far_and_how_long():
    for said in both(run_card(ex.run())):
        assert said.startswith("breast-cancer, 5 simulated sites, round 10/10, 14 s, cpu")


def test_a_live_card_is_the_card_without_what_is_folded_and_without_data():
    card, live = run_card(ex.run()), live_run_card(ex.run())
    assert card.html.startswith(live.html.removesuffix("</div>") + "<details")
    assert card.text.startswith(live.text + f"\n\n{FOLD_MARK}")
    assert set(live.bundle()) == {"text/html", "text/plain"}


def test_every_number_of_the_report_is_visible():
    run = ex.run()
    report = run.report
    expected = {count(report.held_out_rows), share(report.majority_share)}
    for score in [report.federated, report.pooled, *(site.alone for site in report.sites)]:
        expected |= {share(score.accuracy, 3), share(score.low, 3), share(score.high, 3)}
        expected |= {f"{label} {share(found)}" for label, found in score.recall.items()}
    for site in report.sites:
        expected |= {size(site.sent_bytes), size(site.received_bytes), count(site.rows)}
        expected |= {f"{label} {rows}" for label, rows in site.class_rows.items()}
        expected.add(percent(site.class_rows["malignant"] / site.rows))
    for entry in report.history:
        expected |= {f"{entry.number} {share(entry.accuracy, 3)} {entry.loss:.3f}"}
    for said in both(run_card(run)):
        assert {text for text in expected if text not in said} == set()


def test_every_number_of_the_plan_is_visible():
    plan = ["3 epochs", "batches of 24", "learning rate 0.07", "momentum 0.15", "weight decay 0",
            "float32", "seed 4711", "alpha 0.35", "25 % held out", "30 inputs, 32 relu, dropout "
            "0.125, 1 identity", "569 rows", "event 37", "fedavg"]  # fmt: skip
    for said in both(run_card(ex.run())):
        assert [text for text in plan if text not in said] == []


def test_alone_is_the_mean_of_the_sites_and_names_the_worst():
    for said in both(run_card(ex.run())):
        assert re.search(
            r"alone 0\.77 [█▏▎▍▌▋▊▉]+ mean of 5 sites; worst site 0\.54 \(site 3\)", said
        )
        assert "malignant found 0.88" in said
        assert "impossible in reality" in said
        assert "majority class 0.63" in said


def test_more_than_two_classes_count_classes_and_name_the_least_found():
    classes = ("setosa", "versicolor", "virginica")
    sites = [
        ex.site("a", 9, 3, 0.5, "done").model_copy(
            update={"class_rows": {"setosa": 5, "versicolor": 4, "virginica": 0}}
        )
    ]
    recall = {"setosa": 1.0, "versicolor": 0.71, "virginica": 0.9}
    report = ex.report(sites=sites, federated=ex.score(0.9, recall=recall))
    plan = ex.plan(signature=ex.signature(classes), sites=["a"])
    for said in both(run_card(ex.run(plan=plan, report=report))):
        assert "2 of 3" in said
        assert "least found: versicolor 0.71" in said


def test_it_says_what_was_saved_and_whether_it_is_served():
    assert "Saved breast-cancer:1, deployed here." in run_card(ex.run()).text
    assert "not deployed" in run_card(ex.run(deployed=False)).text
    assert "Saved" not in run_card(ex.live_run()).text


def test_a_live_run_says_who_is_awaited_and_what_goes_on():
    for said in both(run_card(ex.live_run(), progress="round 4 of 10: site 3, 3 of 5")):
        assert "round 4 of 10: site 3, 3 of 5" in said
        assert "2 of 5 sites in; waiting for site 3, site 4, site 5" in said
        assert "Saved" not in said
        assert "measured at the end" in said


def test_a_run_without_a_report_shows_what_the_platform_knows():
    run = ex.run(status="statistics", round=0, report=None, statistics=None, pushed=["site 2"],
                 model_version=None)  # fmt: skip
    for said in both(run_card(run)):
        assert "means and variances" in said
        assert "1 of 5 sites in; waiting for site 1, site 3, site 4, site 5" in said
        assert "site 2 update sent" in said
        assert "Accuracy" not in said


def test_a_round_with_everybody_in_waits_for_the_platform():
    run = ex.live_run(pushed=[name for name, *_ in ex.SITES])
    assert "5 of 5 sites in; the platform adds them up" in run_card(run).text


def test_a_stopped_run_says_where_and_the_exact_way_on():
    card = run_card(ex.live_run(status="stopped"))
    assert "<code>%ts_runs breast-cancer-1 resume</code>" in card.html
    assert "Go on with %ts_runs breast-cancer-1 resume" in card.text
    assert "stopped in round 4 of 10, 2 of 5 sites in" in card.text
    early = run_card(ex.live_run(status="stopped", round=0, statistics=None, pushed=[]))
    assert "stopped while collecting means and variances, 0 of 5 sites in" in early.text


def test_a_failed_run_says_the_reason():
    for said in both(run_card(ex.live_run(status="failed", reason="site 3 diverged; lower --lr"))):
        assert "failed in round 4 of 10, 2 of 5 sites in: site 3 diverged; lower --lr" in said


def test_a_trained_run_that_is_still_compared_says_so():
    report = ex.report(pooled=None)
    text = run_card(ex.run(report=report), progress="comparing: all rows pooled").text
    assert "Run breast-cancer-1 is trained; comparing: all rows pooled" in text


def test_privacy_and_what_the_platform_saw_are_never_left_out():
    for run in (ex.run(), ex.live_run(), ex.live_run(status="stopped"), ex.many_sites_run()):
        for said in both(run_card(run)):
            assert "Privacy: none added; the platform saw every site's update." in said
            assert "Never a row" in said


def test_a_thousand_sites_show_the_first_the_worst_and_the_failed():
    run = ex.many_sites_run()
    shown = sites_shown(run.report.sites)
    assert len(shown) == MOST_SITES
    assert {"hospital 1", "hospital 778"} <= {site.name for site in shown}
    worst = min(run.report.sites, key=lambda site: site.alone.accuracy).alone.accuracy
    assert any(site.alone.accuracy == worst for site in shown)
    for said in both(run_card(run)):
        assert "and 980 more sites: 980 done" in said
        assert "1,000 sites, 22,997 rows" in said
        assert "960 rounds in between left out" in said


def test_the_best_round_is_always_among_those_shown():
    history = [RoundReport(number=i, accuracy=0.5, loss=1) for i in range(1, 301)]
    history[150] = RoundReport(number=151, accuracy=0.9123, loss=1)
    for said in both(run_card(ex.run(report=ex.report(history=history)))):
        assert "151 0.912" in said


def test_rows_dealt_by_a_column_and_rows_that_sites_hold_are_told_apart():
    by = ex.plan(split=Split(kind="column", column="hospital", allow_one_class=True))
    assert "by the values of hospital; 25 % held out first" in run_card(ex.run(plan=by)).text
    own = ex.plan(split=None, source=None, simulated=False)
    text = run_card(ex.run(plan=own)).text
    assert "as the sites hold them" in text
    assert "breast-cancer, 5 sites, round" in text


def test_the_list_of_runs_shows_states_and_says_how_to_look_at_one():
    for said in both(runs_card([ex.live_run(name="breast-cancer-2"), ex.run()])):
        assert "breast-cancer-2 training 3/10 5 0.81" in said
        assert "breast-cancer-1 completed 10/10 5 0.94 1, deployed 2026-11-22 09:30" in said
        assert "%ts_runs breast-cancer-2" in said


def test_an_empty_list_of_runs_says_how_to_start_one():
    assert runs_card([]).text == "No runs yet. Start one: %ts_federate breast-cancer"
