"""A platform on PostgreSQL: one writer, one owner, and a server that goes away."""

from __future__ import annotations

import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from platform_process import PlatformProcess, Run, ok, refused
from postgresql import PostgreSQL
from sqlalchemy import select, update

from truststram_lab.exceptions import ConfigurationError
from truststram_lab.server.stores.engine import open_engine, own_database, reading, writing
from truststram_lab.server.stores.migrations import upgrade
from truststram_lab.server.stores.tables import streams

pytestmark = pytest.mark.postgres


@pytest.fixture
def url(postgresql: PostgreSQL) -> str:
    return postgresql.new_database()


@pytest.fixture
def team(tmp_path: Path, url: str):
    made = PlatformProcess(tmp_path / "home", url)
    yield made
    made.end()


def test_a_run_goes_from_its_first_round_to_its_prediction(team: PlatformProcess) -> None:
    run = Run(team.start(), "icu", sites=2, rounds=2)
    for number in range(3):
        run.play(number)
    assert run.wait("completed")["model_version"] == 1
    row = {"age": 61.0, "dose": None, "ward": "icu"}
    answer = run.owner.post("/api/v1/endpoints/icu/predict", json={"data": row})
    assert set(ok(answer)["predictions"][0]["probabilities"]) == {"died", "lived"}
    assert not (team.home / "platform.db").exists()


def test_what_was_acknowledged_outlives_a_killed_platform(team: PlatformProcess) -> None:
    run = Run(team.start(), "kept", sites=1, rounds=1)
    run.play(0)
    team.end(signal.SIGKILL)
    team.start()
    run.reconnect()
    run.play(1)
    run.wait("completed")


def test_who_reads_and_then_writes_is_not_overtaken(url: str) -> None:
    engine = open_engine(url)
    upgrade(engine, "test")
    with writing(engine) as connection:
        connection.exec_driver_sql(
            "INSERT INTO organisations (id, name, created_at) VALUES ('o', 'o', 't')"
        )
        connection.exec_driver_sql(
            "INSERT INTO streams (organisation_id, name, last_sequence) VALUES ('o', 's', 0)"
        )
    engines = [open_engine(url) for _ in range(4)]  # as if each were another process

    def count(one: int) -> None:
        for _ in range(25):
            with writing(engines[one]) as connection:
                last = connection.execute(select(streams.c.last_sequence)).scalar_one()
                connection.execute(update(streams).values(last_sequence=last + 1))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(4)))
    with reading(engine) as connection:
        assert connection.execute(select(streams.c.last_sequence)).scalar_one() == 100
    for made in (engine, *engines):
        made.dispose()


def test_a_reader_sees_one_state_and_waits_for_nobody(url: str) -> None:
    engine = open_engine(url)
    upgrade(engine, "test")
    done = threading.Event()
    with reading(engine) as connection:
        query = select(streams.c.name)
        assert connection.execute(query).all() == []

        def write() -> None:
            with writing(engine) as other:
                other.exec_driver_sql(
                    "INSERT INTO organisations (id, name, created_at) VALUES ('o', 'o', 't')"
                )
                other.exec_driver_sql(
                    "INSERT INTO streams (organisation_id, name, last_sequence) VALUES ('o','s',0)"
                )
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        assert done.wait(20)
        writer.join()
        assert connection.execute(query).all() == []
    with reading(engine) as connection:
        assert len(connection.execute(query).all()) == 1
    engine.dispose()


def test_a_database_belongs_to_one_platform(team: PlatformProcess, tmp_path: Path) -> None:
    team.start()
    second = PlatformProcess(tmp_path / "second", team.database).spawn()
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 1
    assert errors.count(b"\n") == 1
    assert b"Another platform is running on the database" in errors
    team.end(signal.SIGKILL)
    team.start()  # the dead one holds nothing


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://ann:secret-word@127.0.0.1:1/icu", "cannot be reached"),
        ("mysql://ann:secret-word@127.0.0.1/icu", "'postgresql' or 'sqlite'"),
        ("secret-word", "no database's URL"),
    ],
)
def test_what_is_no_database_is_one_sentence_without_the_password(
    tmp_path: Path, url: str, says: str
) -> None:
    process = PlatformProcess(tmp_path / "home", url).spawn()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.count(b"\n") == 1
    assert says in errors.decode()
    assert b"secret-word" not in errors


def test_without_the_driver_the_way_to_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match=r"truststram-lab\[postgresql\]"):
        open_engine("postgresql://localhost/icu")


def test_a_file_needs_no_owner_of_its_own(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'a.db'}")
    assert own_database(engine) is None
    engine.dispose()


@pytest.mark.long
def test_a_database_that_goes_away_is_said_and_found_again(tmp_path: Path) -> None:
    server = PostgreSQL()
    team = PlatformProcess(tmp_path / "home", server.new_database())
    try:
        run = Run(team.start(), "away", sites=1, rounds=1)
        run.play(0)
        server.stop(signal.SIGKILL)
        problem = refused(run.owner.get("/api/v1/models"), 503, "unavailable")
        assert "database" in problem["detail"]
        server.start()
        assert _found_again(run.owner)
        run.play(1)
        run.wait("completed")
    finally:
        team.end()
        server.end()


def _found_again(client: httpx.Client) -> bool:
    return any(client.get("/api/v1/models").is_success for _ in range(20))
