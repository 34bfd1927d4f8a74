"""Signing in and out: what is kept, what ends, and what a person is told."""

from __future__ import annotations

import pytest

from truststram_lab import sandbox, verbs
from truststram_lab.exceptions import (
    AuthenticationError,
    ConfigurationError,
    InvalidInputError,
    NotSignedInError,
    UsageError,
)
from truststram_lab.verbs import session as sessions


@pytest.mark.parametrize(
    "verb",
    [
        lambda: verbs.federate("breast-cancer"),
        lambda: verbs.predict("breast-cancer", {}),
        lambda: verbs.models(),
        lambda: verbs.runs(),
    ],
)
def test_before_signing_in_every_verb_says_how(platform_home, verb):
    with pytest.raises(NotSignedInError, match="%ts_login --sandbox"):
        verb()
    assert sandbox.status() is None


def test_signing_in_twice_keeps_the_session_and_a_stopped_run_resumes(signed_in):
    run = verbs.federate("breast-cancer", rounds=4, background=True)
    run.stop()
    first = sessions.require("testing")
    verbs.login(sandbox=True)
    assert sessions.require("testing") is first
    assert verbs.runs(run.name, "resume") is run
    assert run.status == "completed"


def test_signing_out_stops_this_kernels_runs_and_they_can_be_resumed_later(signed_in):
    run = verbs.federate("breast-cancer", rounds=500, background=True)
    verbs.logout()
    assert not run.active
    assert run.status == "stopped"
    assert "Nobody" in verbs.logout().text
    verbs.login(sandbox=True)
    assert verbs.runs(run.name).snapshot().status == "stopped"


def test_a_stopped_sandbox_stays_stopped_until_it_is_needed(signed_in):
    run = verbs.federate("breast-cancer", rounds=500, background=True)
    assert "is stopped" in verbs.sandbox("stop").text
    assert not run.active
    assert not verbs.sandbox("status").running
    assert verbs.runs(run.name).snapshot().status == "stopped"
    assert [each.name for each in verbs.runs()] == [run.name]
    assert verbs.sandbox("status").running


def test_a_reset_wants_a_word_more_and_leaves_nothing(signed_in):
    verbs.federate("breast-cancer", rounds=1, background=True).wait()
    with pytest.raises(UsageError, match="--yes"):
        verbs.sandbox("reset")
    assert len(verbs.models()) == 1
    verbs.sandbox("reset", yes=True)
    with pytest.raises(NotSignedInError):
        verbs.models()
    verbs.login(sandbox=True)
    assert len(verbs.models()) == 0


def test_an_unknown_action_names_the_nearest(platform_home):
    with pytest.raises(InvalidInputError, match=r"'stpo'.*'stop'"):
        verbs.sandbox("stpo")


def test_a_platform_by_url_takes_its_key_and_keeps_it(signed_in, monkeypatch):
    state = sandbox.status()
    verbs.logout()
    with pytest.raises(AuthenticationError, match="no API key"):
        verbs.login(url=state.url)
    answer = verbs.login(url=state.url, api_key=state.api_key)
    assert state.api_key not in answer.card().html + answer.card().text + repr(answer)
    verbs.login(url=state.url)  # found in the token store
    verbs.logout()
    with pytest.raises(AuthenticationError):
        verbs.login(url=state.url)
    with pytest.raises(ConfigurationError, match="sandbox needs neither"):
        verbs.login(sandbox=True, url=state.url)


def test_a_wrong_key_is_refused_and_not_kept(signed_in):
    state = sandbox.status()
    verbs.logout()
    with pytest.raises(AuthenticationError):
        verbs.login(url=state.url, api_key="tsk_wrong")
    with pytest.raises(AuthenticationError, match="no API key"):
        verbs.login(url=state.url)


def test_where_and_doctor_tell_and_hold_no_secret(signed_in):
    key = sandbox.status().api_key
    for answer in (verbs.where(), verbs.doctor(), verbs.sandbox("status")):
        card = answer.card()
        assert key not in card.html + card.text + repr(card.data)
        assert str(signed_in) not in card.text
    assert "answers" in verbs.where().card().text
