"""The sample load: a provider's daily bars through validation into the warehouse, then their indicators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import PositiveInt

from flows import settings
from flows.analytics.indicators import daily_indicators
from flows.market_data import quality, warehouse
from flows.market_data.providers import Provider
from flows.market_data.symbols import Symbol, chosen
from flows.retries import TRIES_AGAIN

if TYPE_CHECKING:
    import pandas as pd
    from sqlalchemy.engine import Engine

SYMBOLS_AT_A_TIME = 4


@dataclass(frozen=True)
class Load:
    """One symbol's result: good bars of both series, how many were new or different, what was rejected and why."""

    symbol: str
    bars: int = 0
    changed: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    first: date | None = None
    last: date | None = None
    error: str = ""

    @property
    def row(self) -> dict[str, Any]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.rejected.items())
        return {
            "symbol": self.symbol,
            "status": "failed" if self.error else "loaded" if self.bars else "no bars",
            "first": str(self.first or ""),
            "last": str(self.last or ""),
            "bars": self.bars,
            "changed": self.changed,
            "rejected": reasons,
            "error": self.error,
        }


@task(task_run_name="fetch {symbol}", **TRIES_AGAIN)
def fetch(provider: Provider, symbol: str, first: date, last: date) -> dict[str, pd.DataFrame]:
    """Both series of one symbol, by source."""
    return {
        settings.source(provider, adjusted): provider.fetch_bars(symbol, warehouse.DAILY, first, last, adjusted)
        for adjusted in (False, True)
    }


@task(task_run_name="validate {symbol}", cache_policy=NO_CACHE)
def validate(symbol: str, fetched: Mapping[str, pd.DataFrame]) -> dict[str, quality.Checked]:
    checked = {source: quality.validate(bars) for source, bars in fetched.items()}
    for source, part in checked.items():
        if part.reasons:
            get_run_logger().warning(
                "%s from %s: rejected %s of %d bars", symbol, source, part.reasons, len(fetched[source])
            )
    return checked


@task(task_run_name="store {symbol}", **TRIES_AGAIN)
def store(engine: Engine, symbol: str, checked: Mapping[str, quality.Checked]) -> Load:
    """Upsert both series. A repeat after a failure in the middle writes what is missing and nothing twice."""
    changed = sum(warehouse.upsert_bars(engine, symbol, source, part.good) for source, part in checked.items())
    days = [time.date() for part in checked.values() for time in part.good["time"]]
    rejected = sum((Counter(part.reasons) for part in checked.values()), Counter[str]())
    return Load(symbol, len(days), changed, rejected, min(days, default=None), max(days, default=None))


def load(engine: Engine, provider: Provider, symbols: Sequence[str], first: date, last: date) -> list[Load]:
    """Every symbol on its own: fetch, validate, store. The failure of one leaves the others alone."""
    fetched: list[Any] = [fetch.submit(provider, symbol, first, last) for symbol in symbols]
    checked: list[Any] = [validate.submit(symbol, bars) for symbol, bars in zip(symbols, fetched, strict=True)]
    stored = [store.submit(engine, symbol, parts) for symbol, parts in zip(symbols, checked, strict=True)]
    wait([*fetched, *checked, *stored])
    return [outcome(*steps) for steps in zip(symbols, fetched, checked, stored, strict=True)]


def outcome(symbol: str, *steps: PrefectFuture[Any]) -> Load:
    """What the last step answers, or the error of the first that failed."""
    results = (step.result(raise_on_failure=False) for step in steps)
    error = next((result for result in results if isinstance(result, BaseException)), None)
    return steps[-1].result() if error is None else Load(symbol, error=str(error))


def sentence(loads: Sequence[Load]) -> str:
    failed = [one.symbol for one in loads if one.error]
    bars, changed = sum(one.bars for one in loads), sum(one.changed for one in loads)
    text = f"{len(loads) - len(failed)} of {len(loads)} symbols loaded: {bars:,} bars, {changed:,} new or changed."
    return f"{text} Failed: {', '.join(failed)}." if failed else text


def publish(loads: Sequence[Load], provider: str, first: date, last: date) -> None:
    title = f"Daily bars of provider `{provider}`, {first} to {last}"
    create_table_artifact(key="market-data-symbols", table=[one.row for one in loads], description=title)
    create_markdown_artifact(key="market-data-load", markdown=f"## {title}\n\n{sentence(loads)}\n", description=title)


@flow(task_runner=ThreadPoolTaskRunner(max_workers=SYMBOLS_AT_A_TIME))  # type: ignore[arg-type]  # Prefect's own generics
def sample_market_data(
    symbols: list[Symbol] | None = None,
    days_back: PositiveInt = 30,
    max_symbols: PositiveInt | None = None,
    with_indicators: bool = True,
) -> State:
    """Load daily bars, unadjusted and adjusted, into the warehouse, then compute the newest day's indicators.

    A repeated or overlapping load changes nothing. One symbol's failure doesn't stop the others.

    Args:
        symbols: What to load. Default: all that the provider has.
        days_back: How many calendar days are fetched from the provider, back from its today (2013-03-01 for `sample`).
            Indicators read the warehouse instead, and may find less there than they need: see daily_indicators.
        max_symbols: Load the first so many only.
        with_indicators: Compute indicators after the load.
    """
    provider = settings.provider()
    engine = warehouse.connect(settings.warehouse_url())
    last = provider.today()
    first = last - timedelta(days=days_back)
    with settings.turn_to_write():
        loads = load(engine, provider, chosen(symbols, provider.SYMBOLS, max_symbols), first, last)
    publish(loads, provider.NAME, first, last)
    loaded = [one.symbol for one in loads if one.bars]
    if not loaded:
        return Failed(message=sentence(loads))
    if with_indicators:
        daily_indicators(symbols=loaded)
    return Completed(message=sentence(loads))
