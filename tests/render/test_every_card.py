"""Laws that hold for all cards."""

from __future__ import annotations

import json
import re

import card_examples as ex
import pytest
from card_reading import flat, read, words_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from truststram_lab import render
from truststram_lab.config import KNOWN, Decided
from truststram_lab.render.bars import NEGATIVE, POSITIVE
from truststram_lab.render.explanation_comparison import (
    ComparedColumn,
    ExplanationAgreement,
    agreement_card,
)
from truststram_lab.render.text import WIDTH, width_of
from truststram_lab.schemas.departures import Departure, SentArray
from truststram_lab.schemas.federation import RoundReport, SiteReport
from truststram_lab.schemas.replays import ArrayDifference, RoundReplay
from truststram_lab.schemas.serving import Contribution
from truststram_lab.schemas.tables import Column

URL = "http://127.0.0.1:8907"


def cards_about(name: str) -> dict[str, render.Card]:
    """Every card, with ``name`` wherever somebody may choose a text."""
    signature = ex.signature((f"not {name}", name)).model_copy(
        update={"columns": [Column(name=name, kind="categorical", categories=[name], unit=name)]}
    )
    plan = ex.plan(signature=signature, sites=[name, "site 2"]).model_copy(
        update={"model": name, "federation": name}
    )
    sites = [ex.site(name, 10, 3, 0.7, "done"), ex.site("site 2", 10, 4, 0.8, "failed")]
    sites = [s.model_copy(update={"class_rows": {name: 3, f"not {name}": 7}}) for s in sites]
    report = ex.report(sites=sites, device=name, federated=ex.score(0.9, recall={name: 0.8}))
    run = ex.run(name=name, plan=plan, report=report)
    array = SentArray(
        name=name, shape=[2], form="dense", coordinates=2, kept=2, bytes_before=8, bytes_after=8
    )
    sent = Departure(
        site=name, kind="update", round=1, body_bytes=9, arrays=[array], texts={name: name}, at=""
    )
    other = ArrayDifference(name=name, differing=1, coordinates=2, largest=0.5)
    replayed = RoundReplay(
        number=1, updates=1, expected="a" * 64, found="b" * 64, differences=[other]
    )
    explanation = ex.explanation(
        explained_class=name,
        meaning=name,
        contributions=[Contribution(feature=name, value=name, contribution=1.5)],
    )
    prediction = ex.prediction(
        model=name, label=name, probabilities={name: 0.9, "b": 0.1}, explanation=explanation
    )
    model = ex.model(
        name=name,
        description=name,
        framework=name,
        aliases=[ex.alias(name, 3), ex.alias("b", 2).model_copy(update={"moved_by": name})],
    )
    version = ex.version(signature=signature, model=name, label=name, metrics={name: 0.5})
    return {
        "run": render.run_card(run, progress=name),
        "live": render.run_card(run.model_copy(update={"status": "training", "round": 3})),
        "failed": render.run_card(run.model_copy(update={"status": "failed", "reason": name})),
        "unreported": render.run_card(run.model_copy(update={"report": None})),
        "runs": render.runs_card([run, run]),
        "sent": render.sent_card(run, [sent]),
        "replay": render.replay_card(run, [replayed]),
        "comparison": render.comparison_card([run, ex.run(name="other-1")], said=name),
        "prediction": render.prediction_card(prediction, truth=[name]),
        "predictions": render.prediction_card([prediction] * 3, truth=[name, "", name]),
        "models": render.models_card([model]),
        "model": render.model_card(model, [version], chosen=version, said=name),
        "deployments": render.deployments_card(
            [ex.deployment(name=name, model=name, reference=name)]
        ),
        "deployment": render.deployment_card(
            ex.deployment(name=name, model=name, reference=name, runtime_reason=name),
            ex.traffic(name=name),
            [ex.prediction_record(name=name, model=name, caller=name)] * 30,
            said=name,
        ),
        "prediction log": render.prediction_log_card(
            [ex.prediction_record(name=name, model=name, caller=name)], name=name
        ),
        "agreement": agreement_card(
            ExplanationAgreement(
                name,
                "LIME",
                7,
                0.5,
                0.25,
                None,
                0.9,
                (ComparedColumn(name, 0.75, 0.5, 1.0), ComparedColumn("other", 0.25, 0.5, None)),
            ),
            (name, name),
        ),
        "identity": render.identity_card(
            ex.identity(name=name, organisation=name, environment="team"), url=name, notices=[name]
        ),
        "where": render.where_card(
            ex.identity(),
            facts={name: name},
            next_steps=[(name, name)],
            settings=[Decided(KNOWN[0], name, name, ignored=name)],
        ),
        "sandbox": render.sandbox_card(running=True, facts={name: name}),
        "doctor": render.doctor_card({name: {name: name}, "nothing": {}}),
        "notice": render.notice_card(name),
        "simulated": ex.simulated(name, name),
    }


CARDS = {
    **cards_about("breast-cancer"),
    "final run": render.run_card(ex.run()),
    "live run": render.run_card(ex.live_run(), progress="round 4 of 10: site 3, 3 of 5"),
    "thousand sites": render.run_card(ex.many_sites_run()),
    "explained": render.prediction_card(ex.prediction()),
    "no models": render.models_card([]),
    "no runs": render.runs_card([]),
    "no deployments": render.deployments_card([]),
    "unasked deployment": render.deployment_card(ex.deployment(), ex.traffic(requests=0)),
    "empty log": render.prediction_log_card([]),
    "no predictions": render.prediction_card([]),
    "many aliases": render.model_card(
        ex.model(aliases=[ex.alias(f"{number:03}".ljust(100, "x"), 3) for number in range(100)]),
        [ex.version(3), ex.version(2)],
    ),
    "no versions": render.model_card(ex.model(version_count=0, latest_version=None), []),
    "thousand simulated": ex.simulated("completed", "y", clients=1000),
    "signed out": render.where_card(None, facts={}),
    "no sandbox": render.sandbox_card(running=False, facts={"start it": "%ts_sandbox start"}),
}
every_card = pytest.mark.parametrize("card", CARDS.values(), ids=list(CARDS))


@every_card
def test_html_is_balanced_and_uses_only_what_sanitizers_keep(card):
    reader = read(card.html)
    assert reader.seen.count("table") == reader.seen.count("caption")
    assert not re.search(r"<(script|style|svg|a|button)\b|var\(|role=|aria-", card.html)


@every_card
def test_html_and_text_say_the_same(card):
    # Text lays cells out over several lines, so facts are compared word by word.
    def facts(text: str) -> set[str]:
        return set(re.findall(r"[\w.,:%+\-–✓✗█▏▎▍▌▋▊▉▁▂▃▄▅▆▇●○]+", flat(text)))

    in_html, in_text = facts(words_of(card.html)), facts(card.text)
    # A long word may be broken in a narrow column of the text.
    glued_html, glued_text = (
        said.replace(" ", "") for said in (words_of(card.html), flat(card.text))
    )
    assert [word for word in in_html if word not in glued_text] == []
    assert [word for word in in_text if word not in glued_html] == []


@every_card
def test_text_fits_a_terminal(card):
    lines = card.text.split("\n")
    assert max(map(width_of, lines)) <= WIDTH
    assert all(line == line.rstrip() for line in lines)
    assert card.text.strip("\n") == card.text != ""


@every_card
def test_a_card_is_small_json_of_a_versioned_vendor_type(card):
    bundle = card.bundle()
    (vendor,) = set(bundle) - {"text/html", "text/plain"}
    assert re.fullmatch(r"application/vnd\.truststram\.[a-z]+\+json", vendor)
    assert bundle[vendor]["version"] == 1
    assert "widget" not in vendor
    assert len(json.dumps(bundle, allow_nan=False, ensure_ascii=False).encode()) < 50_000


@every_card
def test_a_card_brings_no_background_and_no_text_colour(card):
    assert not re.search(r'style="[^"]*background', card.html)
    assert read(card.html).colours <= {POSITIVE, NEGATIVE}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.one_of(
        st.text(min_size=1, max_size=300),
        st.text(alphabet="<>\"'&;/=`\\ \x1b\u202e\u00a0日", min_size=1, max_size=200),
    )
)
def test_no_name_breaks_out_of_any_card(name):
    for card in cards_about(name).values():
        read(card.html)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", card.text + card.html)
        assert max(map(width_of, card.text.split("\n"))) <= WIDTH
        assert len((card.html + card.text).encode()) < 50_000


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a\"b'c", "&amp;", "x" * 5000])
def test_a_hostile_name_is_shown_as_it_is_written(name):
    for card in cards_about(name).values():
        assert "<script" not in card.html
        assert name[:12] in words_of(card.html)
        assert name[:12] in flat(card.text).replace("- ", "-")


def _luminance(colour: str) -> float:
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", [POSITIVE, NEGATIVE])
@pytest.mark.parametrize("page", ["#ffffff", "#111111"])
def test_bars_are_seen_on_light_and_on_dark_pages(colour, page):
    """WCAG 2.2, success criterion 1.4.11: at least 3:1."""
    low, high = sorted((_luminance(colour), _luminance(page)))
    assert (high + 0.05) / (low + 0.05) >= 3.0


def test_the_worst_case_still_fits_a_notebook():
    long = "&" * 400
    names = [f"{i}{long}" for i in range(200)]
    classes = [f"{i}{long}" for i in range(40)]
    sites = [
        SiteReport(name=name, rows=9, class_rows=dict.fromkeys(classes, 9), alone=ex.score(0.5))
        for name in names
    ]
    history = [RoundReport(number=i, accuracy=0.5, loss=1) for i in range(5000)]
    plan = ex.plan(sites=names, signature=ex.signature(tuple(classes)))
    score = ex.score(0.5, recall=dict.fromkeys(classes, 0.5))
    report = ex.report(sites=sites, history=history, federated=score, pooled=score)
    parts = [Contribution(feature=name, value=name, contribution=1e-3) for name in names]
    explanation = ex.explanation(contributions=parts, explained_class=long, meaning=long)
    prediction = ex.prediction(
        label=classes[0],
        probabilities=dict.fromkeys(classes, 0.01),
        explanation=explanation,
        model=long,
    )
    columns = [Column(name=name, kind="categorical", categories=classes) for name in names]
    wide = ex.signature().model_copy(update={"columns": columns})
    many = [ex.model(name=name[:100], description=long) for name in names]
    for card in (
        render.run_card(ex.run(plan=plan, report=report, reason=long, status="failed")),
        render.runs_card([ex.run(name=name[:100]) for name in names]),
        render.prediction_card(prediction),
        render.prediction_card([prediction] * 500, truth=classes),
        render.models_card(many),
        render.model_card(many[0], [ex.version(signature=wide, label=long)] * 100),
        render.deployments_card([ex.deployment(endpoint_url=long)] * 100),
        render.doctor_card({"packages": dict.fromkeys(names, long)}),
        render.where_card(None, facts={}, next_steps=[(name, name) for name in names]),
        render.identity_card(ex.identity(), url=long, notices=[long] * 5),
        render.notice_card(long),
    ):
        bundle = json.dumps(card.bundle(), ensure_ascii=False)
        assert len(bundle.encode()) < 50_000, card.mime


def test_data_say_how_much_of_them_was_left_out():
    data = render.run_card(ex.many_sites_run(1000, 20)).data
    shown = len(data["run"]["report"]["sites"])
    assert shown + data["omitted"]["run.report.sites"] == 1000


def test_numbers_that_json_cannot_write_are_null():
    report = ex.report(elapsed_s=float("nan"))
    data = render.run_card(ex.run(report=report)).data
    assert data["run"]["report"]["elapsed_s"] is None
