from __future__ import annotations

import contextlib
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truststram_lab.exceptions import ConfigurationError
from truststram_lab.transport import Target, Targets, normal_url


@pytest.mark.parametrize("tail", ["", "/", "/api/v1", "/api/v1/"])
@pytest.mark.parametrize(
    "base", ["https://a.example.org", "https://a.example.org:8443/team", "http://127.0.0.1:81"]
)
def test_an_address_means_the_same_with_and_without_the_api_path(base, tail):
    assert normal_url(base + tail) == base
    assert Target(base + tail).base_url == base


@pytest.mark.parametrize(
    "url",
    [
        "",
        "platform.example.org",
        "ftp://a.example.org",
        "https://",
        "http://[::1",
        "https://a?x=1",
        "https://a b",
    ],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ConfigurationError, match="base URL"):
        normal_url(url)


@given(
    st.text() | st.text().map("https://{}".format) | st.text().map("http://localhost:1/{}".format)
)
def test_any_text_is_an_address_or_a_sentence(text):
    with contextlib.suppress(ConfigurationError):
        assert normal_url(normal_url(text)) == normal_url(text)


def test_no_credential_travels_unencrypted_to_another_computer():
    for host in ("localhost:1", "127.0.0.1:1", "127.9.9.9", "[::1]:1"):
        assert normal_url(f"http://{host}")
    with pytest.raises(ConfigurationError, match=r"https://platform\.example\.org"):
        normal_url("http://platform.example.org")


def test_a_password_in_the_address_is_refused_and_not_shown():
    with pytest.raises(ConfigurationError) as caught:
        normal_url("https://user:hunter2@a.example.org")
    assert "hunter2" not in str(caught.value)


def test_twenty_threads_that_lose_the_platform_search_once():
    searches: list[bool] = []

    def provider(*, failed: bool = False) -> Target:
        searches.append(failed)
        time.sleep(0.02)
        return Target("http://127.0.0.1:1")

    targets = Targets(provider)
    stale = targets.current()
    found: list[Target] = []
    threads = [
        threading.Thread(target=lambda: found.append(targets.after(stale))) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert searches == [False, True]
    assert len({id(target) for target in found}) == 1


def test_a_search_that_fails_is_made_again_by_the_next():
    outcomes = iter(
        [Target("http://127.0.0.1:1"), ConfigurationError("no"), Target("http://[::1]")]
    )

    def provider(*, failed: bool = False) -> Target:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    targets = Targets(provider)
    with pytest.raises(ConfigurationError):
        targets.after(targets.current())
    assert targets.current().base_url == "http://[::1]"
