"""Which platform a client speaks to, and with which key; nothing is contacted here."""

from __future__ import annotations

import pytest

from truststram_lab.auth import ApiKey, TokenStore, store
from truststram_lab.client import AsyncTrustStramClient, ParticipantClient, TrustStramClient
from truststram_lab.exceptions import AuthenticationError, ConfigurationError
from truststram_lab.transport import Target

URL = "https://platform.example.org"
SECRET = "tsk-3e1d7f9b5a20c846"


@pytest.fixture(autouse=True)
def settings(monkeypatch, tmp_path):
    monkeypatch.setenv("TRUSTSTRAM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRUSTSTRAM_TOKEN_STORAGE", "memory")
    monkeypatch.setattr(store, "_memory", {})
    for name in ("TRUSTSTRAM_BASE_URL", "TRUSTSTRAM_API_KEY", "TRUSTSTRAM_ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("EDGEML_API_BASE", raising=False)


kinds = pytest.mark.parametrize("kind", [TrustStramClient, AsyncTrustStramClient])


@kinds
def test_without_settings_it_is_the_sandbox_and_nothing_is_started(kind, tmp_path):
    assert kind().environment == "sandbox"
    assert kind(api_key=SECRET).environment == "sandbox"
    assert not (tmp_path / "home").exists()


@kinds
def test_a_configured_platform_is_production(kind, monkeypatch):
    monkeypatch.setenv("TRUSTSTRAM_API_KEY", SECRET)
    for name in ("TRUSTSTRAM_BASE_URL", "EDGEML_API_BASE"):
        with monkeypatch.context() as patch:
            patch.setenv(name, f"{URL}/api/v1")
            client = kind()
            assert (client.environment, client.base_url) == ("production", URL)
            assert kind(environment="sandbox").environment == "sandbox"
    assert kind(base_url=URL).environment == "production"
    monkeypatch.setenv("TRUSTSTRAM_ENVIRONMENT", "sandbox")
    monkeypatch.setenv("TRUSTSTRAM_BASE_URL", URL)
    assert kind().environment == "sandbox"


@kinds
def test_production_without_a_platform_says_what_to_set(kind):
    with pytest.raises(ConfigurationError, match="TRUSTSTRAM_BASE_URL"):
        kind(api_key=SECRET, environment="production")


@kinds
def test_production_without_a_key_says_what_to_set(kind):
    with pytest.raises(AuthenticationError, match="TRUSTSTRAM_API_KEY"):
        kind(base_url=URL)


@kinds
def test_an_unknown_environment_names_the_nearest(kind):
    with pytest.raises(ConfigurationError, match="'production'"):
        kind(environment="prodution")


@kinds
def test_a_sandbox_at_an_address_is_a_contradiction(kind):
    with pytest.raises(ConfigurationError, match="contradict"):
        kind(environment="sandbox", base_url=URL)


def test_the_key_comes_from_the_argument_then_the_variable_then_the_store(monkeypatch):
    TokenStore().set(URL, "stored")
    assert TrustStramClient(base_url=URL).target().token == "stored"
    monkeypatch.setenv("TRUSTSTRAM_API_KEY", "variable")
    assert TrustStramClient(base_url=URL).target().token == "variable"
    assert TrustStramClient("argument", base_url=f"{URL}/api/v1/").target().token == "argument"
    assert TrustStramClient(ApiKey("kept"), base_url=URL).target().token == "kept"


@kinds
def test_no_client_shows_its_key(kind):
    client = kind(SECRET, base_url=URL)
    for shown in (client, client.target, client.target(), vars(client), vars(client.target)):
        assert SECRET not in repr(shown)


def test_a_participant_does_not_show_its_token():
    with ParticipantClient(Target(URL, "owner's"), SECRET) as site:
        assert SECRET not in repr(site)
        assert SECRET not in repr(vars(site))
