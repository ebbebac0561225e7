"""Which loads were tried, and which days of which symbols are done: what lets a backfill go on where it was killed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import insert, select
from sqlalchemy.engine import Connection, Engine

from flows.market_data.models import load_runs

LOADED = "loaded"
EMPTY = "empty"  # the provider answered, and has no bars for these days: nothing to fetch again
FAILED = "failed"
DONE = (LOADED, EMPTY)
ONE_DAY = timedelta(days=1)

Days = tuple[date, date]
"""The first and the last, both included."""


@dataclass(frozen=True)
class Load:
    """One try to load one symbol's bars: the days that were asked for, and what came of it.

    Name only days that are over: what is loaded is not fetched again.
    """

    symbol: str
    source: str
    interval: str
    first: date
    last: date
    status: str
    started: datetime
    ended: datetime
    rows: int = 0
    error: str | None = None
    flow_run_id: str | None = None


def record_load(at: Engine | Connection, *loads: Load) -> None:
    """Note what was tried. Given a connection, in its transaction: with the bars or not at all."""
    if isinstance(at, Engine):
        with at.begin() as connection:
            record_load(connection, *loads)
    elif loads:
        at.execute(insert(load_runs), [asdict(load) for load in loads])


def loaded_ranges(engine: Engine, source: str, interval: str, symbols: Sequence[str]) -> dict[str, list[Days]]:
    """The days that are done, for each of these symbols: in order, touching ranges as one."""
    run = load_runs.c
    query = (
        select(run.symbol, run.first, run.last)
        .where(run.source == source, run.interval == interval, run.status.in_(DONE))
        .distinct()
    )
    found: defaultdict[str, list[Days]] = defaultdict(list)
    with engine.connect() as connection:
        for some in _handfuls(symbols):
            for symbol, first, last in connection.execute(query.where(run.symbol.in_(some))):
                found[symbol].append((first, last))
    return {symbol: merged(found[symbol]) for symbol in symbols}


def merged(ranges: Iterable[Days]) -> list[Days]:
    """Sorted, and one range instead of two that overlap or touch."""
    result: list[Days] = []
    for first, last in sorted(ranges):
        if result and first <= result[-1][1] + ONE_DAY:
            result[-1] = result[-1][0], max(result[-1][1], last)
        else:
            result.append((first, last))
    return result


def missing(done: Sequence[Days], first: date, last: date) -> list[Days]:
    """What of these days is not done yet. `done` is what loaded_ranges gives for a symbol."""
    gaps: list[Days] = []
    for begin, end in done:
        if begin > last:
            break
        if first < begin:
            gaps.append((first, begin - ONE_DAY))
        first = max(first, end + ONE_DAY)
    return [*gaps, (first, last)] if first <= last else gaps


def _handfuls(symbols: Sequence[str], size: int = 500) -> Iterable[Sequence[str]]:
    """SQLite takes a limited number of parameters."""
    return (symbols[start : start + size] for start in range(0, len(symbols), size))


def by_symbol(loads: Iterable[Load]) -> Mapping[str, list[Load]]:
    found: defaultdict[str, list[Load]] = defaultdict(list)
    for load in loads:
        found[load.symbol].append(load)
    return found
