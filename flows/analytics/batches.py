"""Batches of symbols: read, compute, store, one task each. What one computes is remembered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import TASK_SOURCE, CacheKeyFnPolicy
from prefect.context import TaskRunContext
from prefect.futures import PrefectFuture, wait

from flows.analytics.outcomes import Outcome, line
from flows.market_data import indicators, warehouse
from flows.market_data.connection import engine_at
from flows.market_data.upserts import values
from flows.retries import TRIES_AGAIN
from flows.runners import answer

if TYPE_CHECKING:
    import pandas as pd

Rows = dict[str, dict[str, Any]]
"""By symbol: how many `bars` it has, and, if it has one on the day, each indicator's value, None where there is none."""


@dataclass(frozen=True)
class Work:
    """What every batch of one run needs. It goes to another process as it is: connections stay behind."""

    url: str = field(repr=False)  # of the warehouse; it may hold a password
    source: str
    first: date
    day: date


@task(task_run_name="indicators from {symbols[0]} on", **TRIES_AGAIN)
def batch(work: Work, symbols: Sequence[str]) -> Outcome:
    """Always reads its bars and always stores: only the computation is remembered. So what was deleted from the warehouse
    comes back, and rows that are there already are left alone."""
    engine = engine_at(work.url)
    bars = warehouse.read_bars(engine, work.source, symbols, work.first, work.day)
    rows = compute(bars, work.day)
    found = frame(rows, work.day)
    changed = warehouse.upsert_indicators(engine, work.source, found)  # over in an instant: it takes no turn to write
    lines = [line(symbol, rows.get(symbol, {"bars": 0}), work.day) for symbol in symbols]
    return Outcome(symbols, lines, len(found), changed)


def key(_: TaskRunContext, given: Mapping[str, Any]) -> str:
    return fingerprint(given["bars"], given["day"])


@task(
    # TASK_SOURCE knows the lines of the task below and nothing that they call: the fingerprint has the rest.
    cache_policy=TASK_SOURCE + CacheKeyFnPolicy(cache_key_fn=key),
    persist_result=True,
    result_serializer="json",
    task_run_name="compute {day}",
)
def compute(bars: pd.DataFrame, day: date) -> Rows:
    """The day's indicators. Of the same bars, day and code another run, in any process that shares Prefect's result
    storage, takes the answer from there."""
    counts = bars["symbol"].value_counts()
    on_day = indicators.on_day(bars, day).drop(columns="time")
    known = on_day.astype(object).where(on_day.notna(), None).set_index("symbol").to_dict("index")
    return {symbol: {"bars": int(count), **known.get(symbol, {})} for symbol, count in counts.items()}


def fingerprint(bars: pd.DataFrame, day: date) -> str:
    """Of all that decides the answer: every bar that is read, to the last bit, the day, and the code that computes.

    That says more than how many days were read, or of which source, and is the same wherever the warehouse is.
    """
    digest = sha256(f"{day} {version()} {' '.join(bars['symbol'])}".encode())
    for name in ("time", "high", "low", "close"):
        digest.update(values(warehouse.bars.c[name], bars[name]).tobytes())
    return digest.hexdigest()


@cache
def version() -> str:
    """Of the code that computes: this project's own and TA-Lib's."""
    import talib

    own = sha256(Path(indicators.__file__).read_bytes()).hexdigest()
    return f"{own} {talib.__version__} {talib.__ta_version__!r}"  # type: ignore[attr-defined]  # its stubs leave it out


def frame(rows: Rows, day: date) -> pd.DataFrame:
    """As the warehouse takes it: the symbols that have a bar on the day."""
    import pandas as pd

    columns = ["symbol", *indicators.BARS_NEEDED]
    found = [{"symbol": symbol, **row} for symbol, row in rows.items() if len(row) > 1]
    return pd.DataFrame(found, columns=columns).assign(time=pd.Timestamp(day, tz="UTC"))


def compute_all(work: Work, symbols: Sequence[str], batch_size: int) -> list[Outcome]:
    """A task a batch: so many bars are in memory as fit into the batches that run at a time."""
    parts = [symbols[start : start + batch_size] for start in range(0, len(symbols), batch_size)]
    futures = [batch.submit(work, part) for part in parts]
    wait(futures)
    return [result(part, future) for part, future in zip(parts, futures, strict=True)]


def result(symbols: Sequence[str], future: PrefectFuture[Outcome]) -> Outcome:
    """The failure of one batch leaves the others alone."""
    found = answer(future)
    return found if isinstance(found, Outcome) else Outcome(symbols, error=str(found) or type(found).__name__)


def earlier(day: date, days: int) -> date:
    """A date can't be before the first of all."""
    return day - min(timedelta(days=days), day - date.min)
