"""The stores' own laws: durable files, gapless counters, one schema, ordered ids."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, insert, inspect, select

from truststram_lab.exceptions import ConfigurationError, NotFoundError
from truststram_lab.server.stores import migrations, outbox
from truststram_lab.server.stores.blobs import BlobStore
from truststram_lab.server.stores.engine import on_commit, open_engine, reading, writing
from truststram_lab.server.stores.ids import new_id, timestamp
from truststram_lab.server.stores.migrations import REVISIONS, upgrade
from truststram_lab.server.stores.tables import blobs, events, metadata, organisations

ORGANISATION = "org_" + "0" * 32


@pytest.fixture
def engine(database_url: str):
    made = open_engine(database_url)
    upgrade(made, "test")
    with writing(made) as connection:
        connection.execute(insert(organisations).values(id=ORGANISATION, name="o", created_at="t"))
    yield made
    made.dispose()


# Ids --------------------------------------------------------------------------------


def test_ids_of_all_threads_are_different_and_ordered() -> None:
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda _: [new_id("run") for _ in range(2000)], range(4)))
    for part in parts:
        assert part == sorted(part)
    assert len({found for part in parts for found in part}) == 8000
    digits = parts[0][0].removeprefix("run_")
    assert (len(digits), digits[12], digits[16] in "89ab") == (32, "7", True)


def test_instants_sort_as_texts() -> None:
    found = [timestamp() for _ in range(100)]
    assert found == sorted(found)
    assert {len(text) for text in found} == {32}


# The schema -------------------------------------------------------------------------


def test_the_migrations_build_exactly_the_tables(database_url: str) -> None:
    engine = open_engine(database_url)
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    migrated = _schema(engine)
    upgrade(engine, "test")  # nothing left to do
    with engine.begin() as connection:
        metadata.drop_all(connection)
        connection.exec_driver_sql("DROP TABLE alembic_version")
    upgrade(engine, "test")
    assert migrated == _schema(engine)
    engine.dispose()


def _schema(engine: Engine) -> dict[str, object]:
    found = inspect(engine)
    return {
        table: (
            [(column["name"], str(column["type"]), column["nullable"]) for column in columns],
            found.get_pk_constraint(table),
            sorted(found.get_foreign_keys(table), key=str),
            sorted(found.get_unique_constraints(table), key=str),
            sorted(found.get_indexes(table), key=str),
        )
        for table in found.get_table_names()
        for columns in [found.get_columns(table)]
    }


def test_the_known_revisions_are_those_of_the_scripts() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    walked = [script.revision for script in scripts.walk_revisions()]
    assert tuple(reversed(walked)) == REVISIONS


def test_a_newer_database_is_left_alone(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigurationError, match="'9999'"):
        upgrade(engine, "4.4.0")


# Transactions -----------------------------------------------------------------------


def test_the_database_is_set_up_for_durability(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'test.db'}")
    with reading(engine) as connection:
        for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)):
            found = connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one()
            assert found == value, pragma
    engine.dispose()


def test_a_failed_transaction_leaves_nothing_and_wakes_nobody(engine: Engine) -> None:
    woken: list[set[tuple[str, str]]] = []
    on_commit(engine, woken.append)

    def fail() -> None:
        with writing(engine) as connection:
            outbox.append(connection, ORGANISATION, "org", "x", {}, "t")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError):
        fail()
    with reading(engine) as connection:
        assert outbox.last_sequence(connection, ORGANISATION, "org") == 0
        assert connection.execute(select(events)).all() == []
    assert woken == []
    with writing(engine) as connection:
        assert outbox.append(connection, ORGANISATION, "org", "x", {}, "t") == 1
        assert woken == []  # not before the commit
    assert woken == [{(ORGANISATION, "org")}]


def test_the_numbers_of_a_stream_have_no_gap_under_threads(engine: Engine) -> None:
    barrier = threading.Barrier(6)

    def tell(thread: int) -> None:
        barrier.wait(20)
        for number in range(15):
            try:
                with writing(engine) as connection:
                    outbox.append(connection, ORGANISATION, "org", "x", {"of": thread}, "t")
                    if number % 5 == 4:
                        raise LookupError
            except LookupError:
                continue

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(tell, range(6)))
    with reading(engine) as connection:
        found = connection.execute(select(events.c.sequence).order_by(events.c.sequence))
        assert list(found.scalars()) == list(range(1, 6 * 12 + 1))


# Files ------------------------------------------------------------------------------


def test_a_file_is_under_its_content_and_a_row_follows(tmp_path: Path, engine: Engine) -> None:
    store = BlobStore(tmp_path / "blobs")
    blob = store.put(ORGANISATION, b"content")
    assert store.read(ORGANISATION, blob.sha256) == b"content"
    assert store.path(ORGANISATION, blob.sha256).stat().st_mode & 0o077 == 0
    with writing(engine) as connection:
        assert store.find(connection, ORGANISATION, blob.sha256) is None
        assert store.record(connection, ORGANISATION, blob, "t") is True
        assert store.record(connection, ORGANISATION, blob, "t") is False
        assert store.find(connection, ORGANISATION, blob.sha256) == blob
        assert len(connection.execute(select(blobs)).all()) == 1


def test_a_file_that_is_not_kept_leaves_nothing(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    with store.writer(ORGANISATION) as writer:
        writer.write(b"half")
        assert writer.content() == b"half"
        writer.write(b" a file")
        assert writer.content() == b"half a file"
        assert writer.size_bytes == 11
    assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    (tmp_path / "blobs" / "incoming" / "left").write_bytes(b"torn")
    kept = store.put(ORGANISATION, b"kept")
    assert store.sweep() == 1
    assert store.read(ORGANISATION, kept.sha256) == b"kept"


def test_one_organisation_cannot_read_anothers_file(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    blob = store.put(ORGANISATION, b"ours")
    with pytest.raises(NotFoundError):
        store.read("org_" + "1" * 32, blob.sha256)


@pytest.mark.parametrize(
    ("organisation_id", "sha256"),
    [
        (ORGANISATION, "../../../etc/passwd"),
        (ORGANISATION, "0" * 63),
        (ORGANISATION, "A" * 64),
        (ORGANISATION, "0" * 64 + "\n"),
        ("..", "0" * 64),
        ("org_1/../..", "0" * 64),
    ],
)
def test_a_name_never_leaves_the_folder(tmp_path: Path, organisation_id: str, sha256: str) -> None:
    with pytest.raises(NotFoundError):
        BlobStore(tmp_path / "blobs").path(organisation_id, sha256)


def test_the_file_is_durable_before_its_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(handle: int) -> None:
        steps.append("folder" if Path(f"/proc/self/fd/{handle}").resolve().is_dir() else "file")
        real_sync(handle)

    def replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return real_replace(self, target)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to tell a folder's handle from a file's")
    store = BlobStore(tmp_path / "blobs")
    store.put(ORGANISATION, b"first")
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    store.put(ORGANISATION, b"first")
    assert steps == ["file", "rename", "folder"]


def test_a_file_that_many_ask_for_is_held_for_its_own_organisation_alone(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    one, two = (store.put("org_1", content) for content in (b"one", b"twos"))
    held = store.again("org_1", one.sha256, 4)
    assert held == b"one"
    assert store.again("org_1", one.sha256, 4) is held
    with pytest.raises(NotFoundError):
        store.again("org_2", one.sha256, 4)
    assert store.again("org_1", two.sha256, 3) is None
    assert store.again("org_1", two.sha256, 4) == b"twos"
    assert store.again("org_1", one.sha256, 4) == b"one"
