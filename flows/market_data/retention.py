"""What is too old to be kept: bars and their indicators, by source and interval, and the notes of old loads.

Everything goes in batches, a short transaction each. A run that is killed leaves whole batches; a repeat does the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import Row, Select, Table, delete, func, insert, select, update
from sqlalchemy.engine import Connection, Engine

from flows.market_data.loads import DONE, EMPTY, LOADED, merged
from flows.market_data.models import bars, indicators, load_runs, now

BATCH = 20_000
"""Rows of one transaction, about."""

HANDFUL = 500  # SQLite takes a limited number of parameters


@dataclass(frozen=True)
class Series:
    """All bars of one source and interval: from when they may be kept, and how much is older."""

    source: str
    interval: str
    newest: datetime
    keep_from: datetime  # a midnight in UTC
    old_bars: int
    old_indicators: int = 0


def series(engine: Engine, keep_days: Mapping[str, int], others: int) -> list[Series]:
    """Every source and interval, and what of it is too old.

    Age is counted back from the newest bar of each source and interval, not from the clock: a feed that has stopped must
    not empty the warehouse. A bar of the future is a mistake, and does not count as the newest.

    Args:
        keep_days: Calendar days that are kept, by interval.
        others: The same for all intervals that are not named.
    """
    kinds = [bars.c.source, bars.c.interval]
    query = select(*kinds, func.max(bars.c.time)).where(bars.c.time <= now()).group_by(*kinds).order_by(*kinds)
    with engine.connect() as connection:
        found = connection.execute(query).all()
        return [_series(connection, keep_days.get(interval, others), s, interval, n) for s, interval, n in found]


def _series(connection: Connection, keep_days: int, source: str, interval: str, newest: datetime) -> Series:
    keep_from = _midnight(newest.date() - timedelta(days=min(keep_days, newest.date().toordinal() - 1)))
    counts = [_count(connection, table, source, interval, keep_from) for table in (bars, indicators)]
    return Series(source, interval, newest, keep_from, *counts)


def _count(connection: Connection, table: Table, source: str, interval: str, keep_from: datetime) -> int:
    return connection.scalar(select(func.count()).where(*_older(table, source, interval, keep_from))) or 0


def delete_old(engine: Engine, old: Series) -> Iterator[int]:
    """Delete what is too old of one source and interval; after each batch, answer how many rows it was.

    First of all the days are forgotten as loaded. A backfill that is asked for them fetches them again, instead of
    taking them for done. Indicators go before their bars, so that none is ever without its bar.
    """
    forget_days(engine, old)
    for table in (indicators, bars):
        for symbols in _handfuls(engine, table, old):
            yield from _delete(engine, table, old, symbols)


def _handfuls(engine: Engine, table: Table, old: Series) -> Iterator[list[str]]:
    """Symbols that have about a batch of old rows together; one that has more is alone."""
    mine = _older(table, old.source, old.interval, old.keep_from)
    query = select(table.c.symbol, func.count()).where(*mine).group_by(table.c.symbol).order_by(table.c.symbol)
    with engine.connect() as connection:
        found = connection.execute(query).all()
    some: list[str] = []
    held = 0
    for symbol, rows in found:
        if some and (held + rows > BATCH or len(some) == HANDFUL):
            yield some
            some, held = [], 0
        some.append(symbol)
        held += rows
    if some:
        yield some


def _delete(engine: Engine, table: Table, old: Series, symbols: Sequence[str]) -> Iterator[int]:
    mine = [table.c.symbol.in_(symbols), *_older(table, old.source, old.interval, old.keep_from)]
    beyond = select(table.c.time).where(*mine).order_by(table.c.time).offset(BATCH).limit(1)
    more = True
    while more:
        with engine.begin() as connection:
            until = connection.scalar(beyond)
            more = until is not None
            some = [*mine, table.c.time <= until] if more else mine
            gone = connection.execute(delete(table).where(*some)).rowcount
        yield gone


def forget_days(engine: Engine, old: Series) -> None:
    """Of the loads that are done, only the days that are kept stay noted."""
    run, first_kept = load_runs.c, old.keep_from.date()
    done = [run.source == old.source, run.interval == old.interval, run.status.in_(DONE)]
    with engine.begin() as connection:
        connection.execute(delete(load_runs).where(*done, run.last < first_kept))
        connection.execute(update(load_runs).where(*done, run.first < first_kept).values(first=first_kept))


@dataclass(frozen=True)
class Notes:
    """Old notes of loads of one source and interval: how many say nothing any more, how many one could stand for."""

    source: str
    interval: str
    forgotten: int
    merged: int

    @property
    def rows(self) -> int:
        return self.forgotten + self.merged


def old_notes(engine: Engine, keep_days: int) -> list[Notes]:
    """The notes of loads that ended more than `keep_days` days ago and are no longer needed.

    Failed loads, and those of days that were not over, can go. Those that are done tell a backfill what not to fetch
    again: they can't go, but one note can stand for many whose days touch.
    """
    run, before = load_runs.c, _days_ago(keep_days)
    query = select(run.source, run.interval).where(run.ended < before).distinct().order_by(run.source, run.interval)
    with engine.connect() as connection:
        return [_notes(connection, before, *kind) for kind in connection.execute(query).all()]


def _notes(connection: Connection, before: datetime, source: str, interval: str) -> Notes:
    mine = [*_of(source, interval), load_runs.c.ended < before]
    forgotten = select(func.count()).where(*mine, load_runs.c.status.not_in(DONE))
    spare = sum(len(rows) - len(_days(rows)) for rows in _done_by_symbol(connection, mine))
    return Notes(source, interval, connection.scalar(forgotten) or 0, spare)


def tidy_notes(engine: Engine, notes: Notes, keep_days: int) -> Iterator[int]:
    """Delete the first, merge the second; after each batch, answer how many notes are gone."""
    before = _days_ago(keep_days)
    mine = [*_of(notes.source, notes.interval), load_runs.c.ended < before]
    with engine.begin() as connection:
        gone = connection.execute(delete(load_runs).where(*mine, load_runs.c.status.not_in(DONE))).rowcount
    yield gone
    with engine.connect() as connection:
        crowded = [rows[0].symbol for rows in _done_by_symbol(connection, mine) if len(rows) > len(_days(rows))]
    for start in range(0, len(crowded), HANDFUL):
        with engine.begin() as connection:
            some = crowded[start : start + HANDFUL]
            gone = sum(_merge(connection, [*mine, load_runs.c.symbol == symbol]) for symbol in some)
        yield gone


def _merge(connection: Connection, mine: Sequence[Any]) -> int:
    """What is noted anew is what was deleted: two at once never make more or less of it."""
    done = delete(load_runs).where(*mine, load_runs.c.status.in_(DONE)).returning(*load_runs.columns)
    rows = connection.execute(done).all()
    anew = [_one_for_many(rows, *days) for days in _days(rows)]
    if anew:
        connection.execute(insert(load_runs), anew)
    return len(rows) - len(anew)


def _one_for_many(rows: Sequence[Row[Any]], first: date, last: date) -> dict[str, Any]:
    """A note of these days. Of the runs that it stands for there were many, or one."""
    mine = [row for row in rows if first <= row.first and row.last <= last]
    runs = {row.flow_run_id for row in mine}
    return {
        **{name: getattr(mine[0], name) for name in ("symbol", "source", "interval")},
        "first": first,
        "last": last,
        "status": LOADED if any(row.status == LOADED for row in mine) else EMPTY,
        "rows": sum(row.rows for row in mine),
        "flow_run_id": runs.pop() if len(runs) == 1 else None,
        "started": min(row.started for row in mine),
        "ended": max(row.ended for row in mine),
    }


def _done_by_symbol(connection: Connection, mine: Sequence[Any]) -> Iterator[list[Row[Any]]]:
    run = load_runs.c
    query: Select[Any] = select(run.symbol, run.first, run.last).where(*mine, run.status.in_(DONE)).order_by(run.symbol)
    some: list[Row[Any]] = []
    for row in connection.execute(query):
        if some and some[0].symbol != row.symbol:
            yield some
            some = []
        some.append(row)
    if some:
        yield some


def _days(rows: Sequence[Row[Any]]) -> list[tuple[date, date]]:
    return merged((row.first, row.last) for row in rows)


def _of(source: str, interval: str) -> list[Any]:
    return [load_runs.c.source == source, load_runs.c.interval == interval]


def _days_ago(days: int) -> datetime:
    """Not before the first day of all, for whoever says "for ever" by a large number."""
    today = now()
    return today - timedelta(days=min(days, today.toordinal() - 1))


def _older(table: Table, source: str, interval: str, moment: datetime) -> list[Any]:
    return [table.c.source == source, table.c.interval == interval, table.c.time < moment]


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
