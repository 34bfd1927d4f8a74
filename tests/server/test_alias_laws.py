"""Laws of aliases, against the service and a real database."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from machines import on_disk
from platform_process import ARCHITECTURE, SIGNATURE, initial_state
from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError

from truststram_lab.exceptions import ConflictError, InvalidInputError, ModelNotFoundError
from truststram_lab.learning import weights
from truststram_lab.schemas.registry import CreateModel, CreateVersion, SetAlias
from truststram_lab.schemas.tables import ColumnStatistics, Statistics
from truststram_lab.server.services.accounts import Principal
from truststram_lab.server.services.registry import RegistryService
from truststram_lab.server.settings import Settings
from truststram_lab.server.stores.blobs import BlobStore
from truststram_lab.server.stores.engine import open_engine, reading, writing
from truststram_lab.server.stores.ids import new_id, timestamp
from truststram_lab.server.stores.migrations import upgrade
from truststram_lab.server.stores.tables import (
    events,
    model_aliases,
    model_versions,
    organisations,
    principals,
)

MODELS = ("icu", "dose")
ALIASES = ("champion", "challenger", "v2", "a.b-c_d")


class Registry:
    """A registry of two organisations that use the same names."""

    def __init__(self, home: Path) -> None:
        where = Settings(home=home)
        self.engine = open_engine(where.url)
        upgrade(self.engine, "test")
        self.blobs = BlobStore(where.blobs)
        self.service = RegistryService(self.engine, self.blobs, where)
        self.ours, self.theirs = self._owner("ours"), self._owner("theirs")
        for owner in (self.ours, self.theirs):
            for name in MODELS:
                self.service.create_model(owner.organisation_id, CreateModel(name=name))

    def _owner(self, name: str) -> Principal:
        owner = Principal(new_id("usr"), new_id("org"), name, f"owner of {name}", "owner")
        now = timestamp()
        with writing(self.engine) as connection:
            connection.execute(
                insert(organisations).values(id=owner.organisation_id, name=name, created_at=now)
            )
            connection.execute(
                insert(principals).values(
                    id=owner.id,
                    organisation_id=owner.organisation_id,
                    name=owner.name,
                    role="owner",
                    created_at=now,
                )
            )
        return owner

    def register(self, owner: Principal, model: str, label: str | None = None) -> Any:
        with self.blobs.writer(owner.organisation_id) as writer:
            writer.write(weights.encode(initial_state()))
            sha256 = writer.sha256
            self.service.keep(owner.organisation_id, writer, sha256)
        columns = [
            ColumnStatistics(name=column.name, count=9, missing=0) for column in SIGNATURE.columns
        ]
        version = CreateVersion(
            label=label,
            weights_sha256=sha256,
            architecture=ARCHITECTURE,
            signature=SIGNATURE,
            statistics=Statistics(rows=9, sites=1, columns=columns),
        )
        return self.service.create_version(owner.organisation_id, model, version)

    def told(self, owner: Principal) -> list[Any]:
        query = select(events).where(events.c.organisation_id == owner.organisation_id)
        with reading(self.engine) as connection:
            return list(connection.execute(query.order_by(events.c.sequence)))

    def close(self) -> None:
        self.engine.dispose()


class Aliases(RuleBasedStateMachine):
    """What the platform says about aliases is what a dictionary says."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.registry = Registry(Path(self.folder.name))
        self.versions = dict.fromkeys(MODELS, 0)
        self.named: dict[tuple[str, str], int] = {}
        self.changes: list[tuple[str, str, str]] = []

    @rule(model=st.sampled_from(MODELS))
    def register(self, model: str) -> None:
        self.versions[model] += 1
        made = self.registry.register(self.registry.ours, model)
        assert made.sequence == self.versions[model]

    @rule(model=st.sampled_from(MODELS), alias=st.sampled_from(ALIASES), version=st.integers(1, 4))
    def move(self, model: str, alias: str, version: int) -> None:
        request = SetAlias(version=version)
        if version > self.versions[model]:
            with pytest.raises(ModelNotFoundError):
                self.registry.service.set_alias(self.registry.ours, model, alias, request)
            return
        self.registry.service.set_alias(self.registry.ours, model, alias, request)
        if self.named.get((model, alias)) != version:
            self.changes.append(("model.alias_moved", model, alias))
        self.named[model, alias] = version

    @precondition(lambda self: self.named)
    @rule(data=st.data())
    def move_to_where_it_is(self, data: st.DataObject) -> None:
        model, alias = data.draw(st.sampled_from(sorted(self.named)))
        version = self.named[model, alias]
        former = self.registry.service.get_model(self.registry.ours.organisation_id, model)
        request = SetAlias(version=version)
        again = self.registry.service.set_alias(self.registry.ours, model, alias, request)
        assert again == former

    @precondition(lambda self: self.named)
    @rule(data=st.data())
    def take_away(self, data: st.DataObject) -> None:
        model, alias = data.draw(st.sampled_from(sorted(self.named)))
        self.registry.service.delete_alias(self.registry.ours, model, alias)
        del self.named[model, alias]
        self.changes.append(("model.alias_deleted", model, alias))

    @rule(model=st.sampled_from(MODELS), alias=st.sampled_from(ALIASES))
    def take_away_what_is_not_there(self, model: str, alias: str) -> None:
        if (model, alias) not in self.named:
            with pytest.raises(ModelNotFoundError):
                self.registry.service.delete_alias(self.registry.ours, model, alias)

    @invariant()
    def an_alias_means_one_version_of_its_own_model(self) -> None:
        ours = self.registry.ours.organisation_id
        for model in MODELS:
            seen = self.registry.service.get_model(ours, model)
            listed = {entry.alias: entry.version for entry in seen.aliases}
            mine = {alias: of for (name, alias), of in self.named.items() if name == model}
            assert listed == mine
            assert list(listed) == sorted(listed)
            for alias in ALIASES:
                if alias in mine:
                    found = self.registry.service.resolve(ours, f"{model}@{alias}")
                    assert (found.model, found.sequence) == (model, mine[alias])
                    assert self.registry.service.resolve(ours, f"{seen.id}@{alias}") == found
                else:
                    with pytest.raises(ModelNotFoundError):
                        self.registry.service.resolve(ours, f"{model}@{alias}")

    @invariant()
    def latest_is_the_newest(self) -> None:
        ours = self.registry.ours.organisation_id
        for model, newest in self.versions.items():
            if newest:
                for ref in (model, f"{model}@latest", f"{model}:latest"):
                    assert self.registry.service.resolve(ours, ref).sequence == newest

    @invariant()
    def another_organisation_sees_none_of_it(self) -> None:
        theirs = self.registry.theirs.organisation_id
        for model in MODELS:
            assert self.registry.service.get_model(theirs, model).aliases == []
            for alias in ALIASES:
                with pytest.raises(ModelNotFoundError) as caught:
                    self.registry.service.resolve(theirs, f"{model}@{alias}")
                assert caught.value.choices == []

    @invariant()
    def every_change_is_told_once_and_nothing_else_is(self) -> None:
        rows = self.registry.told(self.registry.ours)
        assert [row.sequence for row in rows] == list(range(1, len(rows) + 1))
        told = [row for row in rows if "alias" in row.data]
        assert [(row.type, row.data["model"], row.data["alias"]) for row in told] == self.changes

    def teardown(self) -> None:
        if hasattr(self, "registry"):
            self.registry.close()
            self.folder.cleanup()


def test_aliases_are_a_dictionary_from_names_to_versions_of_their_own_model() -> None:
    run_state_machine_as_test(
        Aliases,
        settings=on_disk(10, 20),
    )


@pytest.fixture
def registry(tmp_path: Path):
    made = Registry(tmp_path)
    yield made
    made.close()


def test_the_database_keeps_an_alias_and_its_version_together(registry: Registry) -> None:
    registry.register(registry.ours, "icu")
    registry.register(registry.theirs, "icu")
    registry.service.set_alias(registry.ours, "icu", "champion", SetAlias(version=1))
    model = registry.service.get_model(registry.ours.organisation_id, "icu")
    with pytest.raises(IntegrityError), writing(registry.engine) as connection:
        connection.execute(delete(model_versions).where(model_versions.c.model_id == model.id))
    with pytest.raises(IntegrityError), writing(registry.engine) as connection:
        connection.execute(model_aliases.update().values(version_sequence=2))
    found = registry.service.resolve(registry.ours.organisation_id, "icu@champion")
    assert found.sequence == 1


@pytest.mark.parametrize(
    ("alias", "sentence"),
    [
        ("latest", "'latest' is built in: icu@latest is always its newest version"),
        ("deployed", "'deployed' is built in: icu@deployed is always what its endpoint serves"),
        ("3", "'3' would read as a version; write it with .* such as 'v3'."),
        ("1.0.0", "'1.0.0' would read as a version; write it with .* such as 'v1.0.0'."),
        ("Champion of 2026!", "is not an alias; .* such as 'champion-of-2026'."),
        ("a@b", "is not an alias; .* such as 'a-b'."),
        ("a:b", "is not an alias; .* such as 'a-b'."),
        ("", "is not an alias; .* such as 'champion'."),
        ("é" * 300, "is not an alias; .* such as 'champion'."),
        ("x" * 101, f"is not an alias; .* such as '{'x' * 99}'."),
        ("champion\n", "is not an alias; .* such as 'champion'."),
    ],
)
def test_what_cannot_be_an_alias_is_refused_with_one_that_can(
    registry: Registry, alias: str, sentence: str
) -> None:
    registry.register(registry.ours, "icu")
    with pytest.raises(InvalidInputError, match=sentence) as caught:
        registry.service.set_alias(registry.ours, "icu", alias, SetAlias(version=1))
    assert caught.value.field == "alias"
    for near in caught.value.choices or []:
        registry.service.set_alias(registry.ours, "icu", near, SetAlias(version=1))
        ref = f"icu@{near}"
        assert registry.service.resolve(registry.ours.organisation_id, ref).sequence == 1


def test_no_alias_is_a_label_and_no_label_an_alias(registry: Registry) -> None:
    registry.register(registry.ours, "icu", label="beta")
    with pytest.raises(ConflictError, match="'beta' is the label of version 1 of model 'icu'"):
        registry.service.set_alias(registry.ours, "icu", "beta", SetAlias())
    registry.service.set_alias(registry.ours, "icu", "gamma", SetAlias())
    with pytest.raises(ConflictError, match="'gamma' is an alias of model 'icu'"):
        registry.register(registry.ours, "icu", label="gamma")
    # of another model it is free
    registry.register(registry.ours, "dose", label="gamma")
    for label in ("latest", "deployed", "3"):
        with pytest.raises(InvalidInputError, match=f"The label '{label}'"):
            registry.register(registry.ours, "icu", label=label)
    ours = registry.ours.organisation_id
    assert registry.service.resolve(ours, "icu:beta").sequence == 1
    assert registry.service.resolve(ours, "dose:gamma").sequence == 1


def test_the_aliases_of_a_model_are_bounded(registry: Registry) -> None:
    registry.register(registry.ours, "icu")
    for number in range(100):
        registry.service.set_alias(registry.ours, "icu", f"a{number}", SetAlias())
    with pytest.raises(ConflictError, match="has 100 aliases, which is the most; delete one"):
        registry.service.set_alias(registry.ours, "icu", "one-more", SetAlias())
    registry.service.delete_alias(registry.ours, "icu", "a7")
    registry.service.set_alias(registry.ours, "icu", "one-more", SetAlias())


def test_an_unknown_alias_names_the_nearest_and_those_there_are(registry: Registry) -> None:
    registry.register(registry.ours, "icu")
    ours = registry.ours.organisation_id
    with pytest.raises(ModelNotFoundError) as caught:
        registry.service.resolve(ours, "icu@champoin")
    assert caught.value.message == (
        "Model 'icu' has no alias 'champoin', nor any other; "
        "PUT /api/v1/models/icu/aliases/<alias> sets one."
    )
    for alias in ("champion", "challenger"):
        registry.service.set_alias(registry.ours, "icu", alias, SetAlias())
    with pytest.raises(ModelNotFoundError) as caught:
        registry.service.resolve(ours, "icu@champoin")
    assert caught.value.message == (
        "Model 'icu' has no alias 'champoin'; did you mean 'champion', out of challenger, champion?"
    )
    assert caught.value.model_id == "icu@champoin"
    assert caught.value.choices == ["icu@champion"]
    with pytest.raises(ModelNotFoundError, match="it has challenger, champion") as caught:
        registry.service.resolve(ours, "icu@zzz")
    with pytest.raises(ModelNotFoundError, match="the alias is 'icu@champion'") as caught:
        registry.service.resolve(ours, "icu:champion")
    assert caught.value.choices == ["icu@champion"]
