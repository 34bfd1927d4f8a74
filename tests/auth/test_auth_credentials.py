from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truststram_lab.auth import ApiKey, StaticToken, credential
from truststram_lab.exceptions import ConfigurationError

SECRET = "tsk-0f4b7e2a91c83d56"


@pytest.mark.parametrize("kind", [ApiKey, StaticToken])
def test_a_credential_never_shows_itself(kind):
    token = kind(SECRET)
    for shown in (repr(token), str(token), f"{token}", f"{[token]}", repr({"key": token})):
        assert SECRET not in shown
    assert token.reveal() == SECRET
    with pytest.raises(TypeError) as caught:
        pickle.dumps(token)
    assert SECRET not in str(caught.value)
    with pytest.raises(TypeError):
        copy.copy(token)


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1))
def test_every_printable_key_fits_the_header(text):
    assert ApiKey(f" {text}\n").reveal() == text


@given(st.text(min_size=12), st.sampled_from([" ", "\n", "\0", "é", "\u2028"]))
def test_what_no_header_can_carry_is_refused_without_being_quoted(text, hostile):
    whole = f"k{text}{hostile}k"
    with pytest.raises(ConfigurationError) as caught:
        ApiKey(whole)
    assert whole not in str(caught.value)


def test_equal_credentials_are_equal():
    assert ApiKey(SECRET) == ApiKey(f" {SECRET}\n") == credential(SECRET)
    assert len({ApiKey(SECRET), ApiKey(SECRET)}) == 1
    assert ApiKey(SECRET) != ApiKey("another")
    assert credential(ApiKey(SECRET)) == ApiKey(SECRET)
