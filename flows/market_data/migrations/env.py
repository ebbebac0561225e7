"""Run by Alembic for each command. The connection, its transaction and its lock are the caller's: see __init__.py."""

from __future__ import annotations

from alembic import context

from flows.market_data.migrations import VERSIONS, is_ours
from flows.market_data.models import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    include_name=is_ours,
    version_table=VERSIONS,
    render_as_batch=True,  # SQLite can't alter a table: Alembic makes a new one and moves the rows
)
context.run_migrations()
