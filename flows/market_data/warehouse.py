"""The warehouse: symbols, bars and indicators, on SQLite or PostgreSQL by the same code.

A row of bars is one symbol at one time, from one source, for one interval. Unadjusted and adjusted prices are different
sources (`sample`, `sample_adjusted`). Times are UTC; a daily bar stands at midnight UTC of its trading day.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Insert,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    event,
    func,
    or_,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Dialect, Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.schema import CreateTable
from sqlalchemy.types import TypeDecorator

from flows.market_data.indicators import BARS_NEEDED

if TYPE_CHECKING:
    import pandas as pd

DAILY = "1d"
BAR = ["time", "open", "high", "low", "close", "volume"]
BATCH = 10_000
CREATING_TABLES = 20130301  # any number, as long as nothing else in the database locks it
SECONDS_TO_WAIT_FOR_A_LOCK = 30
INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}

Row = Mapping[str, Any]


class UtcTime(TypeDecorator[datetime]):
    """A moment. SQLite keeps no time zone: there it is written as UTC, and read back as UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"The time {value} has no time zone; the warehouse takes times in UTC.")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData()

symbols = Table(
    "symbols",
    metadata,
    Column("symbol", String(32), primary_key=True),
    Column("added", UtcTime, nullable=False, default=lambda: datetime.now(UTC)),
)


def _keys() -> list[Column[Any]]:
    return [
        Column("symbol", ForeignKey(symbols.c.symbol), primary_key=True),
        Column("source", String(32), primary_key=True),
        Column("interval", String(8), primary_key=True),
        Column("time", UtcTime, primary_key=True),
    ]


bars = Table(
    "bars",
    metadata,
    *_keys(),
    Column("open", Double, nullable=False),
    Column("high", Double, nullable=False),
    Column("low", Double, nullable=False),
    Column("close", Double, nullable=False),
    Column("volume", BigInteger, nullable=False),
)

indicators = Table("indicators", metadata, *_keys(), *(Column(name, Double) for name in BARS_NEEDED))


@dataclass(frozen=True)
class Series:
    """All bars of one source and interval: from when they may be kept, and how many are older."""

    source: str
    interval: str
    newest: datetime
    keep_from: datetime
    old_bars: int


def connect(url: str) -> Engine:
    """An engine whose tables exist. The URL's password appears in no message."""
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() not in INSERTS:
            raise ValueError(f"The warehouse can be on {' or '.join(INSERTS)}, not on {parsed.get_backend_name()}.")
        engine = create_engine(parsed, connect_args=_connect_args(parsed.get_backend_name()), pool_pre_ping=True)
    except (ArgumentError, NoSuchModuleError):
        raise ValueError("The warehouse's URL is none: expected something like sqlite:////data/warehouse.db.") from None
    except ModuleNotFoundError as error:
        raise ValueError(f"The warehouse's URL needs the package '{error.name}', which is not installed.") from None
    if engine.dialect.name == "sqlite":
        _prepare_file(parsed.database)
        event.listen(engine, "connect", _enforce_foreign_keys)
    _create_tables(engine)
    return engine


def _connect_args(backend: str) -> dict[str, Any]:
    return {"timeout": SECONDS_TO_WAIT_FOR_A_LOCK} if backend == "sqlite" else {}


def _prepare_file(database: str | None) -> None:
    if database and database != ":memory:":
        Path(database).parent.mkdir(parents=True, exist_ok=True)


def _enforce_foreign_keys(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA foreign_keys = ON")


def _create_tables(engine: Engine) -> None:
    """IF NOT EXISTS instead of looking first: two runs may start at once. PostgreSQL needs a lock for it to hold."""
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(CREATING_TABLES)))
        for table in metadata.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))


def upsert_bars(engine: Engine, symbol: str, source: str, frame: pd.DataFrame, interval: str = DAILY) -> int:
    """Write one symbol's bars, all or none. Answers how many were new or different: 0 when they were loaded before."""
    key = {"symbol": symbol, "source": source, "interval": interval}
    with engine.begin() as connection:
        _add_symbols(connection, [symbol])
        return _upsert(connection, bars, [key | row for row in _rows(frame[BAR])])


def upsert_indicators(engine: Engine, source: str, frame: pd.DataFrame, interval: str = DAILY) -> int:
    """Write rows of `indicators.compute`, NaN as NULL. Answers how many were new or different."""
    key = {"source": source, "interval": interval}
    with engine.begin() as connection:
        return _upsert(connection, indicators, [key | row for row in _rows(frame)])


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(k): v for k, v in row.items()}
        for row in frame.astype(object).where(frame.notna(), None).to_dict("records")
    ]


def _add_symbols(connection: Connection, names: Iterable[str]) -> None:
    insert = INSERTS[connection.dialect.name](symbols).on_conflict_do_nothing()
    connection.execute(insert, [{"symbol": name} for name in names])


def _upsert(connection: Connection, table: Table, rows: Sequence[Row]) -> int:
    statement = upsert_statement(table, connection.dialect.name).execution_options(preserve_rowcount=True)
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    return sum(connection.execute(statement, batch).rowcount for batch in batches)


def upsert_statement(table: Table, dialect: str) -> Insert:
    """Insert by primary key; on conflict write only rows that differ, so that the row count leaves out equal ones."""
    insert = INSERTS[dialect](table)
    values = {c.name: insert.excluded[c.name] for c in table.columns if not c.primary_key}
    differs = or_(*(table.c[name].is_distinct_from(value) for name, value in values.items()))
    statement: Insert = insert.on_conflict_do_update(index_elements=list(table.primary_key), set_=values, where=differs)
    return statement


def read_bars(
    engine: Engine, source: str, names: Sequence[str], first: date, last: date, interval: str = DAILY
) -> pd.DataFrame:
    """Bars of these symbols, both days included, by symbol and time: symbol, time, open, high, low, close, volume."""
    import pandas as pd

    columns = [bars.c.symbol, *(bars.c[name] for name in BAR)]
    query = (
        select(*columns)
        .where(bars.c.source == source, bars.c.interval == interval, bars.c.symbol.in_(names))
        .where(bars.c.time >= _midnight(first), bars.c.time < _midnight(last + timedelta(days=1)))
        .order_by(bars.c.symbol, bars.c.time)
    )
    with engine.connect() as connection:
        found = connection.execute(query).all()
    frame = pd.DataFrame(found, columns=[column.name for column in columns])
    return frame.assign(time=pd.to_datetime(frame["time"], utc=True))


def symbols_of(engine: Engine, source: str, interval: str = DAILY) -> list[str]:
    """The symbols that have bars of this source."""
    query = (
        select(bars.c.symbol)
        .where(bars.c.source == source, bars.c.interval == interval)
        .distinct()
        .order_by(bars.c.symbol)
    )
    with engine.connect() as connection:
        return list(connection.scalars(query))


def newest_day(engine: Engine, source: str, names: Sequence[str], interval: str = DAILY) -> date | None:
    """The day of the newest bar of any of these symbols."""
    query = select(func.max(bars.c.time)).where(
        bars.c.source == source, bars.c.interval == interval, bars.c.symbol.in_(names)
    )
    with engine.connect() as connection:
        newest = connection.scalar(query)
    return newest.date() if newest else None


def series(engine: Engine, keep_days: int) -> list[Series]:
    """Every source and interval, with how many bars are over `keep_days` days older than its own newest."""
    kinds = [bars.c.source, bars.c.interval]
    query = select(*kinds, func.max(bars.c.time)).group_by(*kinds).order_by(*kinds)
    with engine.connect() as connection:
        return [_series(connection, timedelta(days=keep_days), *row) for row in connection.execute(query).all()]


def _series(connection: Connection, kept: timedelta, source: str, interval: str, newest: datetime) -> Series:
    old = select(func.count()).select_from(bars).where(*_older(source, interval, newest - kept))
    return Series(source, interval, newest, newest - kept, connection.scalar(old) or 0)


def delete_old_bars(engine: Engine, old: Series) -> int:
    with engine.begin() as connection:
        return connection.execute(delete(bars).where(*_older(old.source, old.interval, old.keep_from))).rowcount


def _older(source: str, interval: str, moment: datetime) -> list[Any]:
    return [bars.c.source == source, bars.c.interval == interval, bars.c.time < moment]


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
