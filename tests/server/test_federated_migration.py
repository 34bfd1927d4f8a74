"""Runs of an older platform go on: their rounds keep their numbers and models."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import text

from truststram_lab.server.stores import migrations
from truststram_lab.server.stores.engine import open_engine
from truststram_lab.server.stores.migrations import upgrade

_ROWS = (
    "INSERT INTO organisations VALUES ('org_1', 'o', 't')",
    "INSERT INTO federations (id, organisation_id, name, created_at) "
    "VALUES ('fed_1', 'org_1', 'f', 't')",
    "INSERT INTO runs (id, organisation_id, federation_id, name, model, number, status, plan, "
    "deployed, created_at, updated_at) "
    "VALUES ('run_1', 'org_1', 'fed_1', 'm-1', 'm', 1, 'training', '{}', 0, 't', 't')",
    "INSERT INTO rounds (id, run_id, number, kind, status, created_at) "
    "VALUES ('rnd_0', 'run_1', 0, 'statistics', 'closed', 't')",
    "INSERT INTO rounds (id, run_id, number, kind, status, result_sha256, created_at) "
    "VALUES ('rnd_1', 'run_1', 1, 'training', 'closed', 'abc', 't')",
)


def test_rounds_of_before_keep_their_numbers_and_their_models(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'old.db'}")
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
    with engine.begin() as connection:
        for row in _ROWS:
            connection.execute(text(row))
    upgrade(engine, "test")
    with engine.connect() as connection:
        query = "SELECT number, training_number, next_model_sha256, cohort FROM rounds"
        found = [tuple(row) for row in connection.execute(text(query))]
    engine.dispose()
    assert found == [(0, 0, None, None), (1, 1, "abc", None)]
