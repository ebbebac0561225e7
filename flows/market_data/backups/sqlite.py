"""A SQLite database: copied by SQLite itself, page by page, in one read transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from hashlib import sha256
from pathlib import Path

from flows.market_data.backups.contents import BackupFailed, Contents, Rows
from flows.market_data.connection import SECONDS_TO_WAIT_FOR_A_LOCK, engine_of

SUFFIX = ".sqlite"
AT_ONCE = 10_000  # rows


def alone(_url: str) -> AbstractContextManager[None]:
    """Two backups at once are no harm: each reads, and has a file of its own."""
    return nullcontext()


def dump(url: str, file: Path) -> Contents:
    """A copy of the database, and what is in it. Others can write after it, or meanwhile if the database's journal is a WAL."""
    with _open(_path(url)) as source, _reading(source), _open(file, create=True) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, whatever the journal of the database is
        return contents(source)


def tried(_url: str, file: Path) -> Contents:
    restored = file.with_name("restored.db")
    try:
        _copy(file, restored)
        with _open(restored) as database:
            problems = [row[0].decode() for row in database.execute("PRAGMA integrity_check").fetchmany(3)]
            if problems != ["ok"]:
                raise BackupFailed(f"The backup is broken: {'; '.join(problems)}. It was thrown away.")
            return contents(database)
    except sqlite3.DatabaseError as error:
        raise BackupFailed(f"The backup can't be restored: {error}. It was thrown away.") from None


def restore(url: str, file: Path) -> Contents:
    path = _path(url, must_exist=False)
    if path.exists() and path.stat().st_size:
        raise ValueError(f"{path} exists already: a backup is put into a new file only. Move the old one away.")
    if strays := [stray for end in ("-journal", "-wal", "-shm") if (stray := path.with_name(path.name + end)).exists()]:
        raise ValueError(
            f"{', '.join(map(str, strays))} belongs to a database that was here: SQLite would take it for the new one's. "
            "Move it away, beside its own file."
        )
    part = path.with_name(f"{path.name}.restoring")
    part.unlink(missing_ok=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _copy(file, part)
        with _open(part) as database:
            found = contents(database)
        part.replace(path)
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{file.name} can't be restored: {error}.") from None
    finally:
        part.unlink(missing_ok=True)
    return found


def contents(database: sqlite3.Connection) -> Contents:
    """Rows in their order in the file, which a copy of its pages has as well."""
    query = "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name"
    names = [name.decode() for (name,) in database.execute(query)]
    return {name: _rows(database, name) for name in names}


def _rows(database: sqlite3.Connection, table: str) -> Rows:
    digest, rows = sha256(), 0
    quoted = table.replace('"', '""')
    cursor = database.execute(f'SELECT * FROM "{quoted}"')
    while some := cursor.fetchmany(AT_ONCE):
        rows += len(some)
        digest.update(repr(some).encode())
    return Rows(rows, digest.hexdigest())


def _copy(source: Path, target: Path) -> None:
    with _open(source) as given, _open(target, create=True) as new:
        given.backup(new)


@contextmanager
def _open(path: Path, create: bool = False) -> Iterator[sqlite3.Connection]:
    address = f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
    with closing(sqlite3.connect(address, uri=True, timeout=SECONDS_TO_WAIT_FOR_A_LOCK, isolation_level=None)) as found:
        found.text_factory = bytes  # as it is in the file, whatever its encoding
        yield found


@contextmanager
def _reading(database: sqlite3.Connection) -> Iterator[None]:
    """What is read inside is of one moment, which is that of the first read."""
    database.execute("BEGIN")
    database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    try:
        yield
    finally:
        database.rollback()


def _path(url: str, must_exist: bool = True) -> Path:
    engine = engine_of(url)
    engine.dispose()
    name = engine.url.database
    if not name or name == ":memory:":
        raise ValueError("The warehouse is in memory only: there is no file to back up.")
    if must_exist and not Path(name).is_file():
        raise ValueError(f"There is no database at {name}: nothing was loaded yet.")
    return Path(name)
