"""The cards of federations, invitations, sites, and of what would leave one."""

from __future__ import annotations

import json
import re

import card_examples as ex
import pytest
from card_reading import flat, read, words_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from truststram_lab import render
from truststram_lab.render.bars import NEGATIVE, POSITIVE
from truststram_lab.render.text import WIDTH, width_of
from truststram_lab.schemas.federation import Federation
from truststram_lab.schemas.participation import Preflight, PreflightSite
from truststram_lab.schemas.privacy import PrivacyBudget
from truststram_lab.schemas.sites import (
    LeavingArrays,
    SiteEvent,
    SitePreview,
    SiteScore,
    SiteView,
)
from truststram_lab.schemas.tables import Column

TOKEN = "tss_" + "a1" * 21


def federation(name: str = "icu", sites: int = 3, **changes) -> Federation:
    values = {
        "id": "fed_1",
        "name": name,
        "participants": [name, *(f"site {n}" for n in range(2, sites + 1))],
        "created_at": ex.THEN,
        "description": name,
        **changes,
    }
    return Federation(**values)


def preflight(name: str = "icu", **changes) -> Preflight:
    sites = [
        PreflightSite(name=name, status="present"),
        PreflightSite(name="site 2", status="described", problems=[f"Column {name!r} is missing."]),
        PreflightSite(name="site 3", status="invited"),
    ]
    values = {"ready": False, "sites": sites, "signature": ex.signature(("no", name)), **changes}
    return Preflight(**values)


def budget(**changes) -> PrivacyBudget:
    values = {
        "federation_id": "fed_1",
        "epsilon": 1.25,
        "delta": 1e-5,
        "rounds_consumed": 4,
        "budget_remaining": 6.75,
        "epsilon_spent": 1.25,
        "epsilon_budget": 8.0,
        **changes,
    }
    return PrivacyBudget(**values)


def site(name: str = "icu", **changes) -> SiteView:
    values = {
        "federation": name,
        "site": name,
        "status": "working",
        "training": name,
        "rows": 60,
        "held_out_rows": 20,
        "class_rows": {name: 40, "no": 20},
        "run": name,
        "kind": "training",
        "number": 3,
        "rounds": 10,
        "updates_sent": 5,
        "sent_bytes": 40_000,
        "received_bytes": 90_000,
        "policy": [f"Only {name} may be trained."],
        "privacy": name,
        "epsilon": 1.5,
        "budget": 3.0,
        "scores": [SiteScore(number=n, loss=0.5 / n, score=ex.score(0.9)) for n in (1, 2)],
        "events": [
            SiteEvent(kind="training", number=2, state="completed", at=1.0),
            SiteEvent(kind="training", number=3, state="failed_retryable", detail=name, at=2.0),
        ],
        "elapsed_s": 12.0,
        **changes,
    }
    return SiteView(**values)


def preview(name: str = "icu", columns: int = 2, **changes) -> SitePreview:
    described = [Column(name=name, kind="categorical", categories=[name, "b"], nullable=True)]
    described += [Column(name=f"x{n}", kind="numeric") for n in range(1, columns)]
    values = {
        "federation": name,
        "site": name,
        "registration": {
            "device_identifier": f"{name}/{name}",
            "org_id": "default",
            "platform": "python",
            "os_version": "Linux 6",
        },
        "columns": described,
        "target": name,
        "classes": ["no", name],
        "rows": 60,
        "statistics": {column.name: ["mean"] for column in described},
        "statistics_bytes": 800,
        "update": [
            LeavingArrays(name="layers.0.weight", shape=[64, 4], dtype="float32", size_bytes=1024)
        ],
        "update_bytes": 1200,
        "filters": [name],
        "architecture": ex.plan().architecture,
        "metrics": ["loss", name],
        "policy": [f"Only {name} may be trained."],
        **changes,
    }
    return SitePreview(**values)


def cards_about(name: str) -> dict[str, render.Card]:
    """Every card, with ``name`` wherever somebody may choose a text."""
    run = ex.run(name=name)
    lines = [(name, "%ts_join icu --data df --target COLUMN", TOKEN)]
    return {
        "federations": render.federations_card([federation(name)]),
        "federation": render.federation_card(
            federation(name), preflight(name), runs=[run], budget=budget(), said=name
        ),
        "invitations": render.invitations_card(
            name, lines, setting=["export X={token}"], same_user=False, shown=False
        ),
        "site": render.site_card(site(name)),
        "failed site": render.site_card(site(name, status="failed", reason=name)),
        "stopped site": render.site_card(site(name, status="stopped", reason=name)),
        "site of its own": render.site_card(
            site(
                name,
                personal=name,
                scores=[
                    SiteScore(number=1, loss=0.5, score=ex.score(0.8)),
                    SiteScore(
                        number=2,
                        loss=0.4,
                        score=ex.score(0.8),
                        personal=ex.score(0.9),
                        personal_loss=0.3,
                    ),
                ],
            )
        ),
        "preview": render.preview_card(preview(name, personal=name)),
    }


CARDS = {
    **cards_about("breast-cancer"),
    "no federations": render.federations_card([]),
    "empty federation": render.federation_card(
        federation(participants=[]), Preflight(ready=False, sites=[])
    ),
    "ready federation": render.federation_card(
        federation(),
        preflight(ready=True, sites=[PreflightSite(name="icu", status="present")]),
        budget=budget(epsilon_spent=None, epsilon_budget=None),
    ),
    "closed federation": render.federation_card(federation(status="closed"), None),
    "invitations again": render.invitations_card(
        "icu", [("a", "%ts_join icu", TOKEN)], setting=["{token}"], same_user=True, shown=True
    ),
    "site before a run": render.site_card(
        site(run=None, kind=None, events=[], scores=[], policy=[], privacy=None)
    ),
    "training site": render.site_card(
        site(
            events=[SiteEvent(kind="training", number=3, state="local_training", at=1.0)],
            progress="step 12 of 40",
        )
    ),
    "site without noise": render.site_card(site(epsilon=None, budget=None, status="done")),
    "thousand sites": render.federation_card(
        federation(sites=1000),
        Preflight(
            ready=False,
            sites=[
                PreflightSite(name=f"site {n}", status="described", problems=["A problem. " * 36])
                for n in range(1000)
            ],
        ),
        runs=[ex.run() for _ in range(100)],
    ),
    "thousand columns": render.preview_card(preview(columns=1000)),
    "thousand invitations": render.invitations_card(
        "icu",
        [(f"site {n}", "%ts_join icu", TOKEN) for n in range(1000)],
        setting=["export A=b", "export X={token}"],
        same_user=False,
        shown=False,
    ),
}
every_card = pytest.mark.parametrize("card", CARDS.values(), ids=list(CARDS))


@every_card
def test_html_is_balanced_and_uses_only_what_sanitizers_keep(card):
    reader = read(card.html)
    assert reader.seen.count("table") == reader.seen.count("caption")
    assert reader.colours <= {POSITIVE, NEGATIVE}
    assert not re.search(r'style="[^"]*background', card.html)


@every_card
def test_html_and_text_say_the_same(card):
    def words(text: str) -> set[str]:
        return set(re.findall(r"[\w.,:%+\-✓✗█]+", flat(text)))

    in_html, in_text = words(words_of(card.html)), words(card.text)
    glued_html, glued_text = (
        said.replace(" ", "") for said in (words_of(card.html), flat(card.text))
    )
    assert [word for word in in_html if word not in glued_text] == []
    assert [word for word in in_text if word not in glued_html] == []


@every_card
def test_text_fits_a_terminal(card):
    assert max(map(width_of, card.text.split("\n"))) <= WIDTH


@every_card
def test_a_card_is_small_json_of_a_versioned_vendor_type(card):
    bundle = card.bundle()
    (vendor,) = set(bundle) - {"text/html", "text/plain"}
    assert re.fullmatch(r"application/vnd\.truststram\.[a-z]+\+json", vendor)
    assert bundle[vendor]["version"] == 1
    assert len(json.dumps(bundle, allow_nan=False, ensure_ascii=False).encode()) < 50_000


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(name=st.text(min_size=1, max_size=30))
def test_no_name_breaks_out_of_any_card(name):
    for card in cards_about(name).values():
        read(card.html)


def test_a_token_stays_in_one_piece_and_out_of_the_data():
    card = CARDS["invitations"]
    assert TOKEN in card.text
    assert TOKEN not in json.dumps(card.data)
    again = CARDS["invitations again"]
    assert TOKEN not in json.dumps(again.bundle())
    assert "%ts_join icu" in again.text


def test_sites_with_problems_come_first():
    text = CARDS["federation"].text
    assert text.index("is missing") < text.index("present")


@pytest.mark.parametrize(
    ("card", "says"),
    [
        ("no federations", "%ts_federations icu create"),
        ("empty federation", "%ts_federations icu invite SITE"),
        ("ready federation", "%ts_federations icu open"),
        ("closed federation", "It takes no new site"),
        ("federation", "do not fit together"),
        ("federation", "epsilon 1.25 of 8 spent at delta 1e-05, in 4 rounds"),
        ("site", "epsilon 1.5 of 3"),
        ("site", "Trying again: breast-cancer"),
        ("training site", "Training on this site's rows: step 12 of 40"),
        ("site before a run", "Waiting for the owner to open a run"),
        ("stopped site", "Join again to go on"),
        ("preview", "Nothing was sent"),
        ("preview", "breast-cancer, b"),
        ("preview", "64 × 4"),
    ],
)
def test_a_card_says_where_it_stands_and_what_to_do_next(card, says):
    assert says in flat(CARDS[card].text)
