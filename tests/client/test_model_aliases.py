"""Aliases through both clients, against a real platform; and how a reference is read."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import create_version, weights_file

from truststram_lab.client import AsyncTrustStramClient
from truststram_lab.exceptions import ConflictError, InvalidInputError, ModelNotFoundError
from truststram_lab.schemas.references import BUILT_IN, Reference

words = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,12}", fullmatch=True)


@pytest.fixture(scope="module")
def icu(client) -> str:
    client.models.create("icu")
    for slope in (1.0, 2.0, 3.0):
        client.models.create_version("icu", create_version(client, slope))
    return "icu"


@given(words, words.filter(lambda word: word not in BUILT_IN))
def test_a_reference_is_put_together_as_it_was_taken_apart(name, word):
    for reference in (Reference(name), Reference(name, word), Reference(name, alias=word)):
        assert Reference.parse(str(reference)) == reference
        assert reference.is_exact == (str(reference) != name)
    assert Reference.parse(f"{name}@{word}").alias == word
    for word in BUILT_IN:
        assert Reference.parse(f"{name}@{word}") == Reference.parse(f"{name}:{word}")


@given(st.text(alphabet="ab1:@", max_size=8))
def test_a_text_is_a_reference_or_refused_and_never_read_twice(text):
    if not re.fullmatch("[^:@]*|[^:@]+[:@][^:@]+", text):
        with pytest.raises(InvalidInputError) as caught:
            Reference.parse(text)
        assert caught.value.field == "model"
    else:
        found = Reference.parse(text)
        assert found.name == re.split("[:@]", text)[0]
        assert found.version is None or found.alias is None
        assert str(found) == text


def test_an_alias_is_set_moved_and_deleted(client, icu):
    model = client.models.set_alias(icu, "champion", 2)
    [entry] = model.aliases
    assert (entry.alias, entry.version) == ("champion", 2)
    assert entry.moved_by == client.accounts.whoami().name
    assert client.models.get(icu) == client.models.get("icu@champion") == model
    assert client.models.version("icu@champion").sequence == 2
    assert client.models.download("icu@champion") == weights_file(2.0)
    assert client.models.set_alias(model, "champion", 2) == model
    later = client.models.set_alias(icu, "champion")
    assert later.aliases[0].version == 3
    assert later.aliases[0].moved_at > entry.moved_at
    assert client.models.delete_alias(icu, "champion").aliases == []
    with pytest.raises(ModelNotFoundError, match="no alias 'champion'"):
        client.models.version("icu@champion")


def test_a_version_is_named_by_the_reference_or_beside_it(client, icu):
    second = client.models.version(icu, 2)
    for model, version in (
        ("icu:2", None),
        ("icu", "2"),
        (second, None),
        (second, 2),
        (client.models.get(icu), 2),
        ("icu", second.label),
        (f"icu:{second.label}", None),
    ):
        assert client.models.version(model, version) == second
        assert client.models.set_alias(model, "second", version).aliases[0].version == 2
    assert client.models.version("icu", "@second") == second
    assert client.models.set_alias("icu@second", "copy").aliases[0].version == 2
    assert client.models.set_alias("icu", "copy", "@second").aliases[0].version == 2
    for ref, latest in (("icu", 3), ("icu@latest", 3), ("icu:latest", 3)):
        assert client.models.version(ref).sequence == latest
    for model in ("icu:2", "icu@second", second):
        with pytest.raises(InvalidInputError, match="names a version and version=3 another"):
            client.models.version(model, 3)
        assert [one.sequence for one in client.models.versions(model).items] == [3, 2, 1]
    with pytest.raises(ModelNotFoundError, match="did you mean 'second'"):
        client.models.versions("icu@secund")


def test_the_same_reference_predicts_deploys_and_explains(client, icu):
    client.models.set_alias(icu, "stable", 1)
    found = client.inference.predict("icu@stable", {"dose": 6.0}, explain=True)
    assert (found.version, found.explanation is not None) == (1, True)
    made = client.deployments.create("icu@stable")
    assert (made.version, made.reference, made.environment) == (1, "icu@stable", "sandbox")
    client.models.set_alias(icu, "stable", 2)
    assert client.inference.predict("icu@stable", {"dose": 6.0}).version == 2
    assert client.inference.predict("icu", {"dose": 6.0}).version == 1
    assert client.deployments.get("icu") == made
    assert client.models.version("icu@deployed").sequence == 1


def test_an_alias_that_cannot_be_one_says_which_can(client, icu):
    with pytest.raises(InvalidInputError, match="such as 'my-alias'") as caught:
        client.models.set_alias(icu, "My Alias")
    assert caught.value.choices == ["my-alias"]
    with pytest.raises(InvalidInputError, match="is built in"):
        client.models.set_alias(icu, "latest")
    client.models.create("labelled")
    labelled = create_version(client, 1.0).model_copy(update={"label": "beta"})
    client.models.create_version("labelled", labelled)
    with pytest.raises(ConflictError, match="label of version 1"):
        client.models.set_alias("labelled", "beta")
    for name in ("..", "", "."):
        with pytest.raises(InvalidInputError):
            client.models.set_alias(icu, name)
    for name in ("a/b", "a?b", "a%2Fb", "a#b"):
        with pytest.raises((InvalidInputError, ModelNotFoundError, LookupError)):
            client.models.set_alias(icu, name)
    assert not {"a", "b"} & {entry.alias for entry in client.models.get(icu).aliases}


def test_the_async_client_has_the_same_calls(client, icu):
    async def scenario() -> None:
        async with AsyncTrustStramClient() as other:
            model = await other.models.set_alias(icu, "awaited", 1)
            assert {entry.alias: entry.version for entry in model.aliases}["awaited"] == 1
            assert (await other.models.version("icu@awaited")).sequence == 1
            model = await other.models.delete_alias(icu, "awaited")
            assert "awaited" not in {entry.alias for entry in model.aliases}
            with pytest.raises(ModelNotFoundError):
                await other.models.delete_alias(icu, "awaited")

    asyncio.run(scenario())


def test_a_listener_hears_of_every_move(client, icu):
    with client.events.stream("org") as stream:
        for version in (1, 2, 2, 1):
            client.models.set_alias(icu, "heard", version)
        client.models.delete_alias(icu, "heard")
        seen = []
        while not seen or seen[-1][0] != "model.alias_deleted":
            event = next(stream)
            if event.data.get("alias") == "heard":
                seen.append((event.type, event.data["version"]))
    moved = "model.alias_moved"
    assert seen == [(moved, 1), (moved, 2), (moved, 1), ("model.alias_deleted", 1)]
