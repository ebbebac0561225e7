"""The warehouse: the door to all that is kept, on SQLite or PostgreSQL by the same code.

What stands behind it: `models` (the tables), `migrations` (the tables from release to release), `connection` (from a URL
to an engine), `upserts` (many rows at once), `loads` (what was loaded), `companies`, `retention` (what is too old) and
`ledger` (of the archive).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import ScalarSelect, func, select
from sqlalchemy.engine import Connection, Engine

from flows.market_data import migrations, upserts
from flows.market_data.companies import add_symbols, upsert_company_information, upsert_key_statistics
from flows.market_data.connection import engine_of
from flows.market_data.indicators import BARS_NEEDED
from flows.market_data.ledger import (
    Archived,
    ChangedMeanwhile,
    Year,
    archived_years,
    checksum,
    delete_archived,
    delete_year,
    mark_verified,
    read_year,
    record_archive,
    restore_archived,
    years_of,
    years_over,
)
from flows.market_data.loads import EMPTY, FAILED, LOADED, Load, by_symbol, loaded_ranges, missing, record_load
from flows.market_data.migrations import upgrade
from flows.market_data.models import (
    archive_ledger,
    bars,
    company_information,
    indicators,
    key_statistics,
    load_runs,
    metadata,
    symbols,
)
from flows.market_data.reading import BAR, COLUMNS, as_frame
from flows.market_data.retention import Notes, Series, delete_old, old_notes, series, tidy_notes
from flows.market_data.upserts import upsert_statement

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "BAR",
    "DAILY",
    "EMPTY",
    "FAILED",
    "LOADED",
    "Archived",
    "ChangedMeanwhile",
    "Load",
    "Notes",
    "Series",
    "Year",
    "archive_ledger",
    "archived_years",
    "bars",
    "checksum",
    "company_information",
    "connect",
    "delete_archived",
    "delete_old",
    "delete_year",
    "indicators",
    "key_statistics",
    "load_runs",
    "loaded_ranges",
    "mark_verified",
    "metadata",
    "missing",
    "newest_day",
    "old_notes",
    "read_bars",
    "read_indicators",
    "read_year",
    "record_archive",
    "record_load",
    "restore_archived",
    "series",
    "symbols",
    "symbols_of",
    "tidy_notes",
    "upgrade",
    "upsert_bars",
    "upsert_bars_of_many",
    "upsert_company_information",
    "upsert_indicators",
    "upsert_key_statistics",
    "upsert_statement",
    "years_of",
    "years_over",
]

DAILY = "1d"


def connect(url: str) -> Engine:
    """An engine whose tables are up to date. The URL's password appears in no message."""
    engine = engine_of(url)
    migrations.upgrade(engine)
    return engine


def upsert_bars(
    engine: Engine, symbol: str, source: str, frame: pd.DataFrame, interval: str = DAILY, load: Load | None = None
) -> int:
    """Write one symbol's bars and the note of their load, all or none. Answers how many were new or different: 0 when
    they were loaded before.

    Args:
        frame: time (with its zone), open, high, low, close, volume; other columns are left aside. Of two bars with one
            time the last counts. A volume is rounded to whole shares.
        load: Is recorded in the same transaction: a run that is killed leaves both or neither.
    """
    with engine.begin() as connection:
        return _upsert_batch(connection, source, interval, {symbol: frame}, [load] if load else [])


def upsert_bars_of_many(
    engine: Engine,
    source: str,
    frames: Iterable[tuple[str, pd.DataFrame]],
    interval: str = DAILY,
    loads: Iterable[Load] = (),
) -> int:
    """Write the bars of many symbols, a transaction for every so many rows; a symbol's frame is never torn apart.

    `frames` may be a generator: one batch at a time is in memory. When a run is killed, whole batches are there, each with
    its `loads`, and a repeat writes the rest. Loads of symbols without a frame (failed ones) are recorded at the end.
    """
    notes = dict(by_symbol(loads))
    changed = 0
    for batch in upserts.in_batches(frames, upserts.BATCH):
        with engine.begin() as connection:
            done = [load for symbol in batch for load in notes.pop(symbol, [])]
            changed += _upsert_batch(connection, source, interval, batch, done)
    record_load(engine, *(load for left in notes.values() for load in left))
    return changed


def _upsert_batch(
    connection: Connection, source: str, interval: str, batch: dict[str, pd.DataFrame], loads: Sequence[Load]
) -> int:
    import numpy as np
    import pandas as pd

    add_symbols(connection, batch)
    record_load(connection, *loads)
    held = {symbol: batch[symbol] for symbol in sorted(batch) if len(batch[symbol])}
    if not held:
        return 0
    rows = pd.concat(held.values(), ignore_index=True)[BAR]  # once for all: a selection a symbol takes longer
    names = np.repeat(np.array(list(held), dtype=object), [len(frame) for frame in held.values()])
    return upserts.upsert(connection, bars, rows.assign(symbol=names), {"source": source, "interval": interval})


def upsert_indicators(engine: Engine, source: str, frame: pd.DataFrame, interval: str = DAILY) -> int:
    """Write rows of `indicators.compute`, NaN as NULL. Answers how many were new or different."""
    with engine.begin() as connection:
        return upserts.upsert(connection, indicators, frame, {"source": source, "interval": interval})


def read_bars(
    engine: Engine, source: str, names: Sequence[str], first: date, last: date, interval: str = DAILY
) -> pd.DataFrame:
    """Bars of these symbols, both days included, by symbol and time: symbol, time, open, high, low, close, volume."""
    query = (
        select(bars.c.symbol, *COLUMNS)
        .where(bars.c.source == source, bars.c.interval == interval, bars.c.symbol.in_(names))
        .where(bars.c.time >= _midnight(first), bars.c.time < _midnight(last + timedelta(days=1)))
        .order_by(bars.c.symbol, bars.c.time)
    )
    with engine.connect() as connection:
        return as_frame(connection, query)


def read_indicators(
    engine: Engine, source: str, names: Sequence[str], day: date, interval: str = DAILY
) -> pd.DataFrame:
    """One day's indicators of these symbols, by symbol: symbol, time and every indicator, NULL as NaN."""
    import pandas as pd

    row = indicators.c
    query = (
        select(row.symbol, row.time, *(row[name] for name in BARS_NEEDED))
        .where(row.source == source, row.interval == interval, row.symbol.in_(names), row.time == _midnight(day))
        .order_by(row.symbol)
    )
    with engine.connect() as connection:
        result = connection.execute(query)
        frame = pd.DataFrame([tuple(one) for one in result], columns=list(result.keys()))
    return frame.astype(dict.fromkeys(BARS_NEEDED, float))


def symbols_of(engine: Engine, source: str, interval: str = DAILY) -> list[str]:
    """The symbols that have bars of this source."""
    with engine.connect() as connection:
        found = select(symbols.c.symbol).where(_newest(source, interval).is_not(None)).order_by(symbols.c.symbol)
        return list(connection.scalars(found))


def newest_day(engine: Engine, source: str, names: Sequence[str], interval: str = DAILY) -> date | None:
    """The day of the newest bar of any of these symbols."""
    of_each = select(_newest(source, interval).label("time")).where(symbols.c.symbol.in_(names)).subquery()
    with engine.connect() as connection:
        newest = connection.scalar(select(func.max(of_each.c.time)))
    return newest.date() if newest else None


def _newest(source: str, interval: str) -> ScalarSelect[datetime]:
    """Of the symbol that is looked at: one step into the index each, however many bars there are. EXISTS could become a
    join, and has: of everything with everything, as long as PostgreSQL had no statistics of a new table."""
    same = [bars.c.symbol == symbols.c.symbol, bars.c.source == source, bars.c.interval == interval]
    return select(bars.c.time).where(*same).order_by(bars.c.time.desc()).limit(1).correlate(symbols).scalar_subquery()


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
