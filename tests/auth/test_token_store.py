"""The token store over real keyring backends, made for the test."""

from __future__ import annotations

import threading

import keyring
import keyring.backend
import keyring.backends.fail
import keyring.errors
import pytest

from truststram_lab.auth import TokenStore, store
from truststram_lab.exceptions import ConfigurationError

URL = "https://platform.example.org"
SECRET = "tsk-5c2d8e7f61b09a34"


class Working(keyring.backend.KeyringBackend):
    priority = 1

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def delete_password(self, service: str, username: str) -> None:
        if self.kept.pop((service, username), None) is None:
            raise keyring.errors.PasswordDeleteError(username)


class Locked(Working):
    def set_password(self, service: str, username: str, password: str) -> None:
        raise keyring.errors.KeyringLocked("locked")


class Forgetful(Working):
    def get_password(self, service: str, username: str) -> str | None:
        return None


class Asking(Working):
    """Waits for a person who never comes."""

    release = threading.Event()

    def set_password(self, service: str, username: str, password: str) -> None:
        self.release.wait(30)


class FileBased(Working):
    pass


FileBased.__module__ = "keyrings.alt.file"


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    for name in ("TRUSTSTRAM_TOKEN_STORAGE", "EDGEML_TOKEN_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(store, "_memory", {})
    monkeypatch.setattr(store, "_verdicts", {})
    monkeypatch.setattr(store, "_noticed", False)
    before = keyring.get_keyring()
    yield
    keyring.set_keyring(before)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def use(backend: keyring.backend.KeyringBackend) -> keyring.backend.KeyringBackend:
    keyring.set_keyring(backend)
    return backend


def round_trip() -> TokenStore:
    kept = TokenStore()
    assert kept.get(URL) is None
    kept.set(URL, SECRET)
    assert TokenStore().get(URL) == SECRET
    assert TokenStore().get("https://another.example.org") is None
    TokenStore().delete(URL)
    TokenStore().delete(URL)
    assert kept.get(URL) is None
    return kept


def test_a_keyring_that_works_keeps_the_key_and_no_trace_of_the_probe():
    backend = use(Working())
    assert round_trip().kind == "keyring"
    assert backend.kept == {}
    assert TokenStore().set(URL, SECRET) is None
    assert list(backend.kept.values()) == [SECRET]
    assert store._memory == {}


@pytest.mark.parametrize("kind", [Locked, Forgetful, FileBased, keyring.backends.fail.Keyring])
def test_without_a_working_keyring_the_key_stays_in_memory(kind):
    use(kind())
    assert round_trip().kind == "memory"


def test_a_keyring_that_waits_for_a_person_counts_as_none(monkeypatch):
    monkeypatch.setattr(store, "_PROBE_S", 0.05)
    use(Asking())
    try:
        assert TokenStore().kind == "memory"
    finally:
        Asking.release.set()


def test_the_notice_comes_once_and_names_the_reason():
    use(Locked())
    first = TokenStore().set(URL, SECRET)
    assert first is not None
    assert "memory only" in first
    assert "KeyringLocked" in first
    assert SECRET not in first
    assert TokenStore().set(URL, SECRET) is None


@pytest.mark.parametrize("name", ["TRUSTSTRAM_TOKEN_STORAGE", "EDGEML_TOKEN_STORAGE"])
def test_memory_can_be_chosen_without_a_notice(monkeypatch, name):
    backend = use(Working())
    monkeypatch.setenv(name, "memory")
    assert TokenStore().set(URL, SECRET) is None
    assert TokenStore().kind == "memory"
    assert backend.kept == {}


def test_a_chosen_keyring_that_fails_is_an_error(monkeypatch):
    monkeypatch.setenv("TRUSTSTRAM_TOKEN_STORAGE", "keyring")
    use(Locked())
    with pytest.raises(ConfigurationError, match="KeyringLocked"):
        TokenStore()
    use(Working())
    assert TokenStore().kind == "keyring"


def test_another_storage_names_the_nearest(monkeypatch):
    monkeypatch.setenv("TRUSTSTRAM_TOKEN_STORAGE", "memroy")
    with pytest.raises(ConfigurationError, match="did you mean 'memory'"):
        TokenStore()


def test_the_backend_is_probed_once():
    class Counting(Working):
        writes = 0

        def set_password(self, service: str, username: str, password: str) -> None:
            Counting.writes += 1
            super().set_password(service, username, password)

    use(Counting())
    for _ in range(5):
        TokenStore()
    assert Counting.writes == 1


def test_the_store_does_not_show_what_it_keeps():
    use(Locked())
    kept = TokenStore()
    kept.set(URL, SECRET)
    assert SECRET not in repr(kept)
    assert SECRET not in repr(vars(kept))
