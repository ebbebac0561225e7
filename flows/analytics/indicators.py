"""Daily indicators: bars from the warehouse through TA-Lib, one row a symbol back into it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import PositiveInt

from flows import settings
from flows.market_data import indicators, warehouse
from flows.market_data.symbols import Symbol, chosen
from flows.retries import TRIES_AGAIN

if TYPE_CHECKING:
    import pandas as pd
    from sqlalchemy.engine import Engine


@task(**TRIES_AGAIN)
def read_history(engine: Engine, source: str, symbols: Sequence[str], first: date, last: date) -> pd.DataFrame:
    return warehouse.read_bars(engine, source, symbols, first, last)


@task(cache_policy=NO_CACHE)
def compute(bars: pd.DataFrame, day: date) -> pd.DataFrame:
    return on_day(indicators.compute(bars), day)


@task(**TRIES_AGAIN)
def store(engine: Engine, source: str, rows: pd.DataFrame) -> int:
    return warehouse.upsert_indicators(engine, source, rows)


def on_day(rows: pd.DataFrame, day: date) -> pd.DataFrame:
    """Only the day that was asked for: the days before it have less history behind them than they should."""
    return rows[rows["time"].dt.date == day].reset_index(drop=True)


def report(symbols: Sequence[str], bars: pd.DataFrame, rows: pd.DataFrame, day: date) -> list[dict[str, Any]]:
    """A line a symbol: how many bars there were, which indicators they are too few for, and the values."""
    counts = bars.groupby("symbol").size()
    computed = {row["symbol"]: row for _, row in rows.iterrows()}
    return [line(symbol, int(counts.get(symbol, 0)), computed.get(symbol), day) for symbol in symbols]


def line(symbol: str, bars: int, row: pd.Series | None, day: date) -> dict[str, Any]:
    if row is None:
        return {"symbol": symbol, "bars": bars, "note": f"no bar on {day}"}
    missing = indicators.lacking(row)
    note = f"{bars} bars are too few for {', '.join(missing)}" if missing else ""
    values = {name: None if name in missing else round(float(row[name]), 6) for name in indicators.BARS_NEEDED}
    return {"symbol": symbol, "bars": bars, "note": note, **values}


def publish(lines: Sequence[dict[str, Any]], source: str, day: date) -> None:
    for one in lines:
        if one["note"]:
            get_run_logger().warning("%s: %s", one["symbol"], one["note"])
    create_table_artifact(key="daily-indicators", table=list(lines), description=f"Indicators of `{source}` on {day}")


@flow
def daily_indicators(
    days_back: PositiveInt = 300,
    symbols: list[Symbol] | None = None,
    calculation_date: date | None = None,
    provider: settings.ProviderName | None = None,
) -> State:
    """Compute one day's indicators from the adjusted bars in the warehouse; nothing is fetched.

    An indicator that needs more bars than there are is NULL, with a warning, never a guess.

    Args:
        days_back: How many calendar days are read from the warehouse, back from the calculation date. The longest
            indicator needs 200 bars, about 290 days. In ingestion the word is for the days fetched from a provider.
        symbols: Default: all that the warehouse has.
        calculation_date: The trading day to compute. Default: the newest one in the warehouse.
    """
    source = settings.source(settings.provider(provider), adjusted=True)
    engine = warehouse.connect(settings.warehouse_url())
    wanted = chosen(symbols, warehouse.symbols_of(engine, source))
    day = calculation_date or warehouse.newest_day(engine, source, wanted)
    if day is None:
        return Failed(
            message=f"The warehouse has no bars of '{source}' for {', '.join(wanted) or 'any symbol'}: load some first."
        )
    bars = read_history(engine, source, wanted, day - timedelta(days=days_back), day)
    rows: pd.DataFrame = compute(bars, day)
    with settings.turn_to_write():
        changed = store(engine, source, rows)
    publish(report(wanted, bars, rows, day), source, day)
    sentence = f"{len(rows)} of {len(wanted)} symbols computed for {day}: {changed} new or changed."
    return Completed(message=sentence) if len(rows) else Failed(message=sentence)
