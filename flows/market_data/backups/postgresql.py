"""A PostgreSQL database: by pg_dump and pg_restore, tried in a scratch database on the same server.

The password goes to the programs by their environment: arguments can be seen by everybody on the machine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Any

from sqlalchemy import Numeric, Text, cast, func, literal_column, select, table
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from flows.market_data.backups.contents import BackupFailed, Contents, Rows
from flows.market_data.connection import SECONDS_TO_CONNECT, engine_of

SUFFIX = ".dump"
FOLDERS = "/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin"
SCRATCH = "backup_check_"
BACKING_UP = 20130302  # any number, as long as nothing else in the database locks it
SAME_TEXT = {
    "timezone": "UTC",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "search_path": "pg_catalog",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
"""A row's text is the same in two sessions, and a session may wait for pg_dump as long as that takes."""

OURS = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1, 2
"""
"""Every table but the system's, and those that belong to extensions: those come with the extension, not with a dump."""

TO_ANYBODY = ("--no-owner", "--no-privileges")
QUIETLY = ("--no-comments", "--no-publications", "--no-subscriptions", "--no-security-labels", "--no-tablespaces")
"""Of a scratch database: only its tables are wanted, and a subscription in it would begin to work."""


@contextmanager
def alone(url: str) -> Iterator[None]:
    """One backup of a database at a time. So the scratch databases that are there already are those of killed runs."""
    with _engine(url) as engine, _outside(engine) as connection:
        if not connection.scalar(select(func.pg_try_advisory_lock(BACKING_UP))):
            raise BackupFailed("Another backup of this database is being taken. Wait for it, and try again.")
        for left in _scratches(connection, engine):
            _drop(connection, left)
        yield


def dump(url: str, file: Path) -> Contents:
    """A dump, and what was in the database at the moment of the dump."""
    with _engine(url) as engine, _reading(engine) as connection:
        programs = programs_for(_version(connection))
        snapshot = connection.scalar(select(func.pg_export_snapshot()))
        _run(engine, programs / "pg_dump", "--format=custom", f"--snapshot={snapshot}", f"--file={file}")
        return contents(connection)


def tried(url: str, file: Path) -> Contents:
    with _engine(url) as engine, scratch(engine) as name, _engine(_named(engine, name)) as other:
        _restore(other, file, *QUIETLY)
        with _reading(other) as connection:
            return contents(connection)


def restore(url: str, file: Path) -> Contents:
    with _engine(url) as engine:
        with engine.connect() as connection:
            if there := _tables(connection):
                raise ValueError(
                    f"The database has {len(there)} tables already, the first {there[0][1]}: a backup is put into an empty "
                    "database only. Create one."
                )
        _restore(engine, file, "--single-transaction")
        with _reading(engine) as connection:
            return contents(connection)


def contents(connection: Connection) -> Contents:
    """A checksum doesn't depend on the rows' order: it is the sum of a number for each."""
    return {f"{schema}.{name}": _rows(connection, schema, name) for schema, name in _tables(connection)}


def _rows(connection: Connection, schema: str, name: str) -> Rows:
    whole = table(name, schema=schema).alias("a_whole_row")
    number = cast(func.hashtextextended(cast(literal_column("a_whole_row"), Text), 0), Numeric)
    rows, total = connection.execute(select(func.count(), func.sum(number)).select_from(whole)).one()
    return Rows(rows, str(total or 0))


def _tables(connection: Connection) -> list[tuple[str, str]]:
    return [(schema, name) for schema, name in connection.exec_driver_sql(OURS)]


def programs_for(server: int) -> Path:
    """The folder of a pg_dump that is as new as the server at least: the PATH's, else the newest of the usual ones."""
    versions = {}
    for folder in folders_of("pg_dump"):
        versions[folder] = _major(folder / "pg_dump")
        if versions[folder] >= server and (folder / "pg_restore").exists():
            return folder
    found = f"that of {max(versions.values())} is too old" if versions else "there is none on this machine"
    raise ValueError(
        f"The server is PostgreSQL {server}, and its backup needs a pg_dump and pg_restore at least as new: {found}. "
        f"Install PostgreSQL's client programs (apt: postgresql-client-{server}), or put them on the PATH."
    )


def folders_of(program: str) -> Iterator[Path]:
    """Where one of PostgreSQL's programs is: on the PATH, then where Debian and Homebrew put it, the newest first."""
    if found := shutil.which(program):
        yield Path(found).parent
    usual = [folder for pattern in FOLDERS for folder in Path("/").glob(pattern[1:]) if (folder / program).exists()]
    yield from sorted(usual, key=_number, reverse=True)


def _number(folder: Path) -> int:
    return int("0" + "".join(c for c in folder.parent.name if c.isdigit()))


def _major(program: Path) -> int:
    told = subprocess.run([program, "--version"], capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    match = re.search(r"\(PostgreSQL\) (\d+)", told)
    return int(match[1]) if match else 0


def _version(connection: Connection) -> int:
    return int(connection.exec_driver_sql("SHOW server_version_num").scalar_one()) // 10_000


def _restore(into: Engine, file: Path, *words: str) -> None:
    with into.connect() as connection:
        programs = programs_for(_version(connection))
    _run(into, programs / "pg_restore", "--exit-on-error", *TO_ANYBODY, *words, after=[str(file)])


def _run(engine: Engine, program: Path, *words: str, after: list[str] | None = None) -> None:
    """Ended with the run, whatever ends it. Its own words are in the error."""
    address, environment = _address(engine)
    command = [str(program), *words, "--no-password", f"--dbname={address}", *(after or [])]
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        told = " ".join(line.strip() for line in done.stderr.strip().splitlines()[:4]) or f"code {done.returncode}"
        raise BackupFailed(f"{program.name} failed: {told}")


def _address(engine: Engine) -> tuple[str, dict[str, str]]:
    """The database as libpq writes it, without the password, and the environment that holds it."""
    from psycopg.conninfo import make_conninfo
    from psycopg.pq import Conninfo

    known = {each.keyword.decode() for each in Conninfo.get_defaults()}  # the driver has options of its own besides
    given = engine.dialect.create_connect_args(engine.url)[1]
    options = {name: value for name, value in given.items() if name in known}
    if "sslpassword" in options:
        raise ValueError("pg_dump can't be given the URL's sslpassword in secret: use a client key without a password.")
    password = options.pop("password", None)
    environment = {**os.environ, "LC_MESSAGES": "C"}
    if password:
        environment["PGPASSWORD"] = str(password)
    return make_conninfo(**{"connect_timeout": SECONDS_TO_CONNECT, **options}), environment


@contextmanager
def scratch(engine: Engine) -> Iterator[str]:
    """A database's name, which is dropped in the end; also of a run that is interrupted."""
    name = f"{_prefix(engine)}{token_hex(4)}"
    with _outside(engine) as connection:
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    try:
        _create(engine, name, encoding)
        yield name
    finally:
        with _outside(engine) as connection:
            _drop(connection, name)


def _create(engine: Engine, name: str, encoding: str) -> None:
    locale = "LC_COLLATE 'C' LC_CTYPE 'C'"  # fits every encoding; nothing is sorted there
    try:
        with _outside(engine) as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' {locale}")
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", "") != "42501":
            raise
        raise ValueError(
            f"The role {engine.url.username} may not create the scratch database that the backup is tried in. Let an "
            f"administrator say ALTER ROLE {engine.url.username} CREATEDB, or take backups that are not tried: verify = false."
        ) from None


def _scratches(connection: Connection, engine: Engine) -> list[str]:
    names: list[str] = list(connection.exec_driver_sql("SELECT datname FROM pg_database").scalars())
    return [name for name in names if re.fullmatch(rf"{_prefix(engine)}[0-9a-f]{{8}}", name)]


def _prefix(engine: Engine) -> str:
    """Of this database only: another one on the server may be being backed up as well."""
    return f"{SCRATCH}{sha256(str(engine.url.database).encode()).hexdigest()[:8]}_"


def _drop(connection: Connection, name: str) -> None:
    force = " WITH (FORCE)" if _version(connection) >= 13 else ""
    connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {name}{force}")


def _named(engine: Engine, database: str) -> str:
    return engine.url.set(database=database).render_as_string(hide_password=False)


@contextmanager
def _engine(url: str) -> Iterator[Engine]:
    engine = engine_of(url)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def _outside(engine: Engine) -> Iterator[Connection]:
    """Outside of a transaction, as databases are created and dropped."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


@contextmanager
def _reading(engine: Engine) -> Iterator[Connection]:
    """What is read inside is of one moment."""
    options: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect().execution_options(**options) as connection:
        for name, value in SAME_TEXT.items():
            connection.execute(select(func.set_config(name, value, True)))
        yield connection
