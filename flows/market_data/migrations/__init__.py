"""The warehouse's tables from one release to the next, by Alembic; on SQLite and PostgreSQL, all or nothing.

`upgrade` is safe when several start at once: one works, the others wait and find nothing left to do.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import column, func, inspect, select, table
from sqlalchemy.engine import Connection, Engine

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0002"
"""The revision that the models are at. Revisions are numbers that count up."""

VERSIONS = "warehouse_revision"
"""Where the database says its revision. Not `alembic_version`, which in a shared database may be another program's."""

FOLDER = Path(__file__).parent
MIGRATING = 20130301  # any number, as long as nothing else in the database locks it
_one_at_a_time = threading.RLock()  # Alembic keeps the running migration in a global


def upgrade(engine: Engine, revision: str = HEAD) -> str:
    """Bring the tables to this revision, and answer where they are. A newer warehouse is left alone: revisions only
    add, and after a rollback the older release has to work on it."""
    if (found := current(engine)) >= revision:
        return found
    with _alone(engine) as connection:
        before = _current(connection)
        if before < revision:
            _command("upgrade", connection, revision)
        if not before and revision == HEAD:
            _refuse_tables_of_others(connection)
        return _current(connection)


def downgrade(engine: Engine, revision: str, lose_rows: bool = False) -> str:
    """Take away what came after this revision ("base": everything). Refused where rows would be lost, unless told."""
    with _alone(engine) as connection:
        before = _rows(connection)
        _command("downgrade", connection, revision)
        left = inspect(connection).get_table_names()
        lost = [f"{name} ({rows:,} rows)" for name, rows in before.items() if rows and name not in left]
        if lost and not lose_rows:
            raise ValueError(f"The downgrade to '{revision}' would drop {', '.join(lost)}. Nothing was changed.")
        return _current(connection)


def current(engine: Engine) -> str:
    """The revision that the tables are at; "" where there are none, or only those from before there were migrations."""
    with engine.connect() as connection:
        return _current(connection)


def drift(engine: Engine) -> list[str]:
    """Where the database's tables are not what the models say, a line each. Tables of others are not looked at."""
    with engine.connect() as connection:
        return _drift(connection)


def write_revision(engine: Engine, message: str, folder: Path = FOLDER) -> Path:
    """A new file under `versions/`, filled with how the models differ from this database; to be read and corrected."""
    from alembic import command

    with _alone(engine) as connection:
        number = f"{int(HEAD) + 1:04}"
        script: Any = command.revision(_config(connection, folder), message, autogenerate=True, rev_id=number)
    return Path(script.path)


def is_ours(name: str | None, kind: str, _parents: object) -> bool:
    from flows.market_data.models import metadata

    return kind != "table" or name in metadata.tables


def _rows(connection: Connection) -> dict[str, int]:
    """Our tables in this database, and how many rows they have."""
    there = [name for name in inspect(connection).get_table_names() if is_ours(name, "table", None)]
    return {name: connection.scalar(select(func.count()).select_from(table(name))) or 0 for name in there}


def _drift(connection: Connection) -> list[str]:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from flows.market_data.models import metadata

    options = {"include_name": is_ours, "version_table": VERSIONS}
    return [str(each) for each in compare_metadata(MigrationContext.configure(connection, opts=options), metadata)]


def _refuse_tables_of_others(connection: Connection) -> None:
    """Tables of ours from before there were migrations are taken over; others of the same names must not be."""
    if differences := _drift(connection):
        raise ValueError(
            f"The database has tables of the warehouse's names that are not the warehouse's: {differences[0]}. "
            "Nothing was changed: use another database or schema."
        )


def _current(connection: Connection) -> str:
    if not inspect(connection).has_table(VERSIONS):
        return ""
    return connection.scalar(select(column("version_num")).select_from(table(VERSIONS))) or ""


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """A transaction that no other migration of this database runs beside, in this process or another."""
    with _one_at_a_time, engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(MIGRATING)))
        else:
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # Python's sqlite3 begins nothing before DDL by itself
        yield connection


def _command(verb: str, connection: Connection, revision: str) -> None:
    from alembic import command
    from alembic.util import CommandError

    try:
        getattr(command, verb)(_config(connection), revision)
    except CommandError as error:
        raise ValueError(f"The warehouse can't be taken to the revision '{revision}': {error}") from None


def _config(connection: Connection, folder: Path = FOLDER) -> Config:
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("file_template", "r%%(rev)s_%%(slug)s")
    return config
