from __future__ import annotations

import subprocess
import sys

import card_examples as ex
from card_reading import words_of

from truststram_lab.render import (
    deployments_card,
    doctor_card,
    identity_card,
    model_card,
    models_card,
    notice_card,
    sandbox_card,
    where_card,
)
from truststram_lab.render.numbers import scalar
from truststram_lab.schemas.registry import Lineage
from truststram_lab.schemas.tables import Column, ColumnStatistics


def both(card):
    return [words_of(card.html), " ".join(card.text.split())]


def test_signing_in_to_the_sandbox_says_where_data_stay_and_what_is_next():
    for said in both(identity_card(ex.identity(), url="http://127.0.0.1:8907", notices=["Hello."])):
        assert said.startswith("● Signed in: sandbox, this computer; data stays here")
        assert "Next: %ts_federate breast-cancer" in said
        assert "Note: Hello." in said
        assert "version 0.1.0, protocol 1" in said


def test_signing_in_elsewhere_names_the_organisation_the_address_and_the_role():
    identity = ex.identity(environment="team", organisation="Clinic", name="Ada", role="member")
    for said in both(identity_card(identity, url="https://platform.example")):
        assert "● Signed in: Clinic at https://platform.example, as Ada (member)" in said


def test_where_says_what_can_be_done_now():
    steps = [("%ts_runs", "the runs")]
    for said in both(where_card(None, facts={"package": "truststram-lab 0.1.0"}, next_steps=steps)):
        assert "○ Not signed in" in said
        assert "package truststram-lab 0.1.0" in said
        assert "%ts_runs the runs" in said
    assert "Signed in: sandbox" in where_card(ex.identity(), facts={}).text


def test_the_sandbox_runs_or_does_not():
    running = sandbox_card(running=True, facts={"started": ex.THEN, "process": "4711"})
    assert "● Sandbox runs" in running.text
    assert "2026-11-22 09:30 UTC" in running.text
    assert "○ Sandbox is not running" in sandbox_card(running=False, facts={}).text


def test_the_doctor_reports_every_section():
    card = doctor_card({"This computer": {"python": "3.11.2"}, "Settings": {}})
    for said in both(card):
        assert "This computer python 3.11.2" in said
        assert "Settings: nothing to report" in said


def test_a_notice_is_its_sentence():
    assert notice_card("Signed out.").text == "Signed out."


def test_models_show_what_is_latest_and_what_is_deployed():
    card = models_card([ex.model(), ex.model(name="icu", deployed_version=None, description="")])
    for said in both(card):
        assert "breast-cancer 3 3 2 pytorch" in said
        assert "icu 3 3 none pytorch" in said
    assert "%ts_federate" in models_card([]).text


def test_a_model_shows_versions_inputs_and_origin():
    for said in both(model_card(ex.model(), [ex.version(3), ex.version(2)])):
        assert "breast-cancer, 3 versions, breast-cancer:2 deployed" in said
        assert "2, deployed 0.2.0 2026-11-22 09:30 4.5 kB breast-cancer-2" in said
        assert "accuracy 0.9441, loss 0.2051" in said
        for column in ex.statistics().columns:
            assert f"{column.name} numeric {scalar(column.mean)} 3.5 {column.missing}" in said
        assert "breast-cancer, 10 rounds" in said


def test_aliases_stand_beside_the_version_that_they_name():
    model = ex.model(aliases=[ex.alias("champion", 2), ex.alias("challenger", 3)])
    others = [ex.model(name="icu", deployed_version=None)]
    listed = models_card([model, *others])
    assert "breast-cancer 3 3 2 @champion 2, @challenger 3 2026" in words_of(listed.html)
    assert "icu 3 3 none 2026" in words_of(listed.html)
    for said in both(listed):
        assert {"Aliases", "@champion", "@challenger", "2,", "3"} <= set(said.split())
    assert "Aliases" not in models_card(others).text
    detail = model_card(model, [ex.version(3), ex.version(2), ex.version(1)])
    assert "2, deployed, @champion 0.2.0" in words_of(detail.html)
    for said in both(detail):
        assert "3, @challenger 0.3.0" in said
        assert "1 0.1.0" in said
        assert "@challenger since 2026-11-22 09:30 UTC, by Ada" in said
        assert "What version 3 takes in" in said


def test_a_card_shows_the_version_that_was_asked_for_and_says_what_was_done():
    model = ex.model(aliases=[ex.alias("champion", 2)])
    versions = [ex.version(3), ex.version(2)]
    card = model_card(model, versions, chosen=versions[1], said="icu@champion means version 2 now.")
    for said in both(card):
        assert said.startswith("icu@champion means version 2 now. breast-cancer, 3 versions")
        assert "What version 2 takes in" in said
        assert "@champion since" in said


def test_many_aliases_of_a_version_are_counted():
    names = [f"a{number}" for number in range(9)]
    model = ex.model(aliases=[ex.alias(name, 3) for name in names])
    assert "3, @a0, @a1, @a2, @a3, 5 more" in words_of(model_card(model, [ex.version(3)]).html)
    assert "@a0 3, @a1 3, @a2 3, @a3 3 and 5 more" in words_of(models_card([model]).html)


def test_a_deployment_says_by_which_alias_its_version_was_named():
    named = ex.deployment(reference="breast-cancer@champion")
    card = deployments_card([named, ex.deployment(name="icu", model="icu")])
    assert "breast-cancer:2, named as breast-cancer@champion" in words_of(card.html)
    for said in both(card):
        assert "breast-cancer@champion" in said
        assert "icu:2 ready" in said


def test_categories_and_units_of_inputs_are_shown_with_their_counts():
    signature = ex.signature().model_copy(
        update={
            "columns": [
                Column(name="ward", kind="categorical", nullable=True, categories=["a", "b"]),
                Column(name="age", kind="numeric", unit="years"),
            ]
        }
    )
    statistics = ex.statistics().model_copy(
        update={
            "columns": [
                ColumnStatistics(name="ward", count=9, missing=1, category_counts=[4, 5]),
            ]
        }
    )
    version = ex.version(signature=signature, statistics=statistics, lineage=Lineage())
    for said in both(model_card(ex.model(), [version])):
        assert "ward categorical, may be missing: a 4, b 5" in said
        assert "age in years numeric" in said
        assert "none recorded" in said


def test_a_model_without_versions_says_how_one_comes_about():
    model = ex.model(version_count=0, latest_version=None, deployed_version=None)
    assert "no version yet" in model_card(model, []).text


def test_cards_load_nothing_heavy():
    code = (
        "import sys, truststram_lab.render\n"
        "heavy = {'torch', 'numpy', 'pandas', 'matplotlib', 'IPython', 'httpx', 'fastapi'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
