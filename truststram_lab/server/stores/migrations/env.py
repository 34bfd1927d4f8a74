"""Run by Alembic inside the transaction that ``upgrade`` opened."""

from __future__ import annotations

from alembic import context

from truststram_lab.server.stores.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite changes a table by copying it
)
with context.begin_transaction():
    context.run_migrations()
