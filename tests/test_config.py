"""Which variable decides, and how it is said."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import pytest

from truststram_lab import config
from truststram_lab.exceptions import ConfigurationError
from truststram_lab.verbs import where

TWINS = {
    "BASE_URL": "EDGEML_API_BASE",
    "ORG_ID": "EDGEML_ORG_ID",
    "DEVICE_ID": "EDGEML_DEVICE_ID",
    "PLATFORM": "EDGEML_PLATFORM",
    "TOKEN_STORAGE": "EDGEML_TOKEN_STORAGE",
    "LOG_LEVEL": "EDGEML_LOG_LEVEL",
}


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in [*os.environ]:
        if name.startswith(("TRUSTSTRAM_", "EDGEML_")):
            monkeypatch.delenv(name)
    logger = logging.getLogger("truststram_lab")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.mark.parametrize("name", TWINS)
def test_the_first_family_of_names_wins_and_the_card_says_so(name, monkeypatch):
    monkeypatch.setenv(TWINS[name], "of the second")
    assert config.setting(name) == config.Setting("of the second", TWINS[name])
    monkeypatch.setenv(f"TRUSTSTRAM_{name}", "of the first")
    assert config.setting(name).value == "of the first"
    assert config.setting(name, "mine") == config.Setting("mine", "argument")
    (told,) = [each for each in config.decided() if each.known.name == name]
    assert (told.value, told.source) == ("of the first", f"TRUSTSTRAM_{name}")
    assert told.ignored == TWINS[name]
    text = where().card().html
    assert f"TRUSTSTRAM_{name} ({TWINS[name]} is set, too, and ignored)" in text


def test_without_any_every_setting_is_its_default():
    assert {each.source for each in config.decided()} == {"default"}
    assert "Settings: all default" in where().card().text


def test_secrets_are_said_to_be_there_and_not_shown(monkeypatch):
    monkeypatch.setenv("TRUSTSTRAM_API_KEY", "tsk_hidden")
    monkeypatch.setenv("TRUSTSTRAM_DATABASE_URL", "postgresql://ada:hidden@db/name")
    card = where().card()
    for said in (card.text, card.html, str(card.bundle())):
        assert "hidden" not in said
        assert "set, not shown" in said


def test_every_variable_that_is_read_is_shown():
    package = Path(config.__file__).parent
    read: set[str] = set()
    for path in package.rglob("*.py"):
        text = path.read_text()
        read |= set(re.findall(r"setting\(\s*\"([A-Z_]+)\"", text))
        read |= set(re.findall(r"environ[^\n]*\"TRUSTSTRAM_([A-Z_]+)\"", text))
    assert read == {known.name for known in config.KNOWN}


@pytest.mark.parametrize(("asked", "level"), [("debug", 10), (" WARNING ", 30), ("Error", 40)])
def test_a_client_lets_the_packages_loggers_follow_the_level(asked, level, monkeypatch):
    from truststram_lab.client import TrustStramClient

    monkeypatch.setenv("EDGEML_LOG_LEVEL", asked)
    TrustStramClient("tsk_x", base_url="http://127.0.0.1:9").close()
    assert logging.getLogger("truststram_lab").level == level


def test_a_wrong_level_names_the_nearest(monkeypatch):
    monkeypatch.setenv("TRUSTSTRAM_LOG_LEVEL", "WARNIN")
    with pytest.raises(ConfigurationError, match=r"TRUSTSTRAM_LOG_LEVEL='WARNIN' .*mean WARNING"):
        config.log_level()
