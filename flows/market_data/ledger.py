"""The archive's ledger: which bars lie in which file, and what may leave the warehouse because of it.

A year of one symbol's bars, of one source and interval, goes through it in this order: `record_archive` when the file is
written, `mark_verified` when it was read back and is equal, `delete_archived`. `restore_archived` turns the last step back.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, cast, delete, extract, func, select, update
from sqlalchemy.engine import Connection, Engine

from flows.market_data.companies import add_symbols
from flows.market_data.models import archive_ledger, bars, now
from flows.market_data.reading import BAR, COLUMNS, as_frame
from flows.market_data.upserts import upsert, upsert_rows, values

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Year:
    """One symbol's bars of one year, in UTC, of one source and interval."""

    source: str
    interval: str
    symbol: str
    year: int
    rows: int


@dataclass(frozen=True)
class Archived:
    """A file of the archive. `checksum` is that of its bars: see `checksum`."""

    source: str
    interval: str
    symbol: str
    year: int
    path: str
    rows: int
    checksum: str
    written: datetime
    verified: datetime | None = None
    deleted: datetime | None = None


class ChangedMeanwhile(RuntimeError):
    """The warehouse has other bars than the archive: nothing was deleted."""


def years_of(engine: Engine, source: str, interval: str, before: datetime) -> list[Year]:
    """The years that are in the warehouse and were over at this moment, by symbol and year."""
    year = cast(extract("year", _in_utc(engine)), Integer)
    query = (
        select(bars.c.symbol, year, func.count())
        .where(bars.c.source == source, bars.c.interval == interval)
        .where(bars.c.time < datetime(before.astimezone(UTC).year, 1, 1, tzinfo=UTC))
        .group_by(bars.c.symbol, year)
        .order_by(bars.c.symbol, year)
    )
    with engine.connect() as connection:
        return [Year(source, interval, symbol, number, rows) for symbol, number, rows in connection.execute(query)]


def years_over(engine: Engine, keep_years: int, before: date | None = None) -> list[Year]:
    """The years that may leave the warehouse, by source, interval, symbol and year.

    Args:
        keep_years: So many stay besides the year of the newest bar of each source and interval. A bar of the future does
            not count as the newest.
        before: Instead, for all alike: the years that were over on this day. One that is not over today never counts.
    """
    kinds, moment = [bars.c.source, bars.c.interval], now()
    query = select(*kinds, func.max(bars.c.time)).where(bars.c.time <= moment).group_by(*kinds).order_by(*kinds)
    with engine.connect() as connection:
        newest = connection.execute(query).all()
    found = []
    for source, interval, time in newest:
        first_kept = before.year if before else time.year - keep_years
        over = datetime(max(1, min(first_kept, moment.year)), 1, 1, tzinfo=UTC)
        found += years_of(engine, source, interval, over)
    return found


def _in_utc(engine: Engine) -> Any:
    """PostgreSQL tells a moment's year in the session's time zone."""
    return func.timezone("UTC", bars.c.time) if engine.dialect.name == "postgresql" else bars.c.time


def read_year(engine: Engine, source: str, interval: str, symbol: str, year: int) -> pd.DataFrame:
    """Time (UTC), open, high, low, close, volume; by time."""
    query = select(*COLUMNS).where(*_of(source, interval, symbol, year)).order_by(bars.c.time)
    with engine.connect() as connection:
        return as_frame(connection, query)


def delete_year(engine: Engine, source: str, interval: str, symbol: str, year: int, expected: str) -> int:
    """Delete these bars if their checksum is the expected one; ChangedMeanwhile and nothing deleted otherwise."""
    with engine.begin() as connection:
        return _delete_year(connection, source, interval, symbol, year, expected)


def _delete_year(connection: Connection, source: str, interval: str, symbol: str, year: int, expected: str) -> int:
    """What is compared is what was deleted: nobody can write between a look and the deletion. None are none: another run
    was first."""
    statement = delete(bars).where(*_of(source, interval, symbol, year)).returning(*COLUMNS)
    gone = as_frame(connection, statement)
    if len(gone) and checksum(gone) != expected:
        raise ChangedMeanwhile(
            f"{symbol}, {interval} of {source}, {year}: the warehouse's {len(gone):,} bars are not those of the archive. "
            "Nothing was deleted: archive the year again."
        )
    return len(gone)


def checksum(frame: pd.DataFrame) -> str:
    """Of bars by time, to the last bit, whatever file or database they come from: SHA-256 of one column after the other."""
    ordered = frame.sort_values("time", kind="stable")
    digest = sha256()
    for name in BAR:
        found = values(bars.c[name], ordered[name])
        digest.update(found.view("int64").astype("<i8").tobytes())
    return digest.hexdigest()


def record_archive(engine: Engine, archived: Archived) -> None:
    """Note a file that was written; again after it was written anew."""
    with engine.begin() as connection:
        add_symbols(connection, [archived.symbol])
        upsert_rows(connection, archive_ledger, [asdict(archived)])


def mark_verified(engine: Engine, archived: Archived) -> Archived:
    """Note that the file was read back, and that its checksum is the ledger's."""
    with engine.begin() as connection:
        return _mark(connection, replace(archived, verified=now()))


def delete_archived(engine: Engine, archived: Archived) -> Archived:
    """Delete the bars that are in this file, and note it, both or neither. Only what is verified and still the same."""
    if archived.verified is None:
        raise ValueError(f"{archived.path} was not read back yet: its bars stay in the warehouse.")
    with engine.begin() as connection:
        a = archived
        _delete_year(connection, a.source, a.interval, a.symbol, a.year, a.checksum)
        return _mark(connection, replace(archived, deleted=now()))


def restore_archived(engine: Engine, archived: Archived, frame: pd.DataFrame) -> int:
    """Put a file's bars back, and note it, both or neither. Answers how many the warehouse did not have.

    A bar that it has is newer than the file, and stays.
    """
    if checksum(frame) != archived.checksum:
        raise ValueError(f"{archived.path} does not hold the {archived.rows:,} bars that were archived in it.")
    key = {"symbol": archived.symbol, "source": archived.source, "interval": archived.interval}
    a = archived
    with engine.begin() as connection:
        _mark(connection, replace(archived, deleted=None))
        there = as_frame(connection, select(*COLUMNS).where(*_of(a.source, a.interval, a.symbol, a.year)))
        return upsert(connection, bars, frame.loc[~frame["time"].isin(there["time"]), BAR], key)


def archived_years(
    engine: Engine, source: str | None = None, interval: str | None = None, symbol: str | None = None
) -> list[Archived]:
    """What the ledger holds, all or some, in order."""
    row = archive_ledger.c
    wanted = {row.source: source, row.interval: interval, row.symbol: symbol}
    query = select(archive_ledger).order_by(row.source, row.interval, row.symbol, row.year, row.path)
    for each, value in wanted.items():
        query = query if value is None else query.where(each == value)
    with engine.connect() as connection:
        return [Archived(**found) for found in connection.execute(query).mappings()]


def _mark(connection: Connection, archived: Archived) -> Archived:
    facts = asdict(archived)
    key = [each == facts[each.name] for each in archive_ledger.primary_key]
    same = archive_ledger.c.checksum == archived.checksum
    statement = update(archive_ledger).where(*key, same).values(verified=archived.verified, deleted=archived.deleted)
    if connection.execute(statement).rowcount != 1:
        raise ChangedMeanwhile(f"The ledger no longer has {archived.path} with this checksum. Nothing was changed.")
    return archived


def _of(source: str, interval: str, symbol: str, year: int) -> list[Any]:
    begin, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    key = [bars.c.symbol == symbol, bars.c.source == source, bars.c.interval == interval]
    return [*key, bars.c.time >= begin, bars.c.time < end]
