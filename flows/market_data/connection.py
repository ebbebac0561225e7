"""From a URL to an engine: SQLite, or PostgreSQL by psycopg 3. The URL's password appears in no message."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError

DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgres": "postgresql+psycopg",  # as hosting services write it
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
SECONDS_TO_WAIT_FOR_A_LOCK = 30
SECONDS_TO_CONNECT = 15


def engine_of(url: str) -> Engine:
    """An engine; nothing is connected yet. A URL that can't work is a ValueError that says why."""
    parsed = _parsed(url)
    sqlite = parsed.drivername == "sqlite"
    waits = {"timeout": SECONDS_TO_WAIT_FOR_A_LOCK} if sqlite else {"connect_timeout": SECONDS_TO_CONNECT}
    try:
        engine = create_engine(parsed, connect_args=waits, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise ValueError(f"The warehouse's URL needs the package '{error.name}', which is not installed.") from None
    if sqlite:
        _prepare_file(parsed.database)
        event.listen(engine, "connect", _enforce_foreign_keys)
    return engine


@cache
def engine_at(url: str) -> Engine:
    """One for the process, so that its connections are shared by all threads."""
    return engine_of(url)


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # a port that is no number: its text may be a part of the password
        raise ValueError(
            "The warehouse's URL is none: expected something like sqlite:////data/warehouse.db "
            "or postgresql://user:password@host/warehouse."
        ) from None
    if parsed.drivername not in DRIVERS:
        raise ValueError(
            f"The warehouse can be on sqlite:// or postgresql:// (by psycopg 3), not on {parsed.drivername}://."
        )
    if parsed.drivername != "sqlite" and "@" in (parsed.host or "") + (parsed.database or ""):
        raise ValueError("The warehouse's URL has more than one @: in a password it is written %40.")
    if secret := parsed.query.get("password"):  # libpq's other way to write it, which no repr of a URL would hide
        parsed = parsed.difference_update_query(["password"]).set(password=str(secret))
    return parsed.set(drivername=DRIVERS[parsed.drivername])


def lasts_only_for_the_run(url: str) -> bool:
    """SQLite in memory, or in a file below wherever the process happens to be."""
    parsed = _parsed(url)
    return parsed.drivername == "sqlite" and not Path(parsed.database or "").is_absolute()


def _prepare_file(database: str | None) -> None:
    if database and database != ":memory:":
        Path(database).parent.mkdir(parents=True, exist_ok=True)


def _enforce_foreign_keys(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
