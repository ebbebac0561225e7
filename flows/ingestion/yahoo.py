"""Bars from Yahoo Finance, hours or another interval, and the daily ones that indicators are computed from."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import PositiveInt

from flows.ingestion.loading import (
    SYMBOLS_AT_A_TIME,
    Granularity,
    announce,
    begin,
    load,
    publish,
    verdict,
    wanted,
)
from flows.market_data.symbols import Symbol, chosen
from flows.market_data.warehouse import DAILY
from flows.parameters import Days, Share
from flows.settings import ProviderName

Interval = Literal["1m", "5m", "15m", "30m", "1h", "1d"]


@flow(task_runner=ThreadPoolTaskRunner(max_workers=SYMBOLS_AT_A_TIME))  # type: ignore[arg-type]  # Prefect's own generics
def yahoo_market_data(
    days_back: Days = 7,
    interval: Interval = "1h",
    symbols: list[Symbol] | None = None,
    max_symbols: PositiveInt | None = None,
    with_daily: bool = True,
    granularity: Granularity = "coarse",
    max_failed_share: Share = 0.2,
    provider: ProviderName | None = "yahoo",
) -> State:
    """Load the last days' bars, unadjusted and adjusted; then tell the indicators by an event.

    All the days are fetched each time: Yahoo corrects its bars, and the newest is not final while a session lasts.
    A repeated or overlapping load changes nothing. One symbol's failure doesn't stop the others.

    Args:
        days_back: How many calendar days are fetched from the provider, back from its today. In analytics the word is
            for the days that are read from the warehouse. Yahoo has 8 days of single minutes, 60 of the other minutes
            and 730 of hours.
        interval: What a bar covers.
        symbols: What to load. Default: the few that the provider's module watches.
        max_symbols: Load the first so many only.
        with_daily: Load the daily bars of these days as well: indicators are computed from nothing else.
        granularity: One task a symbol, or one for each of its steps: fetch, validate, store.
        max_failed_share: The run fails if more than this share of the symbols does, or all.
        provider: Whom to ask. None: the one that the environment's variable names.
    """
    run = begin(provider)
    last = run.provider.today()
    first = last - timedelta(days=days_back)
    intervals = list(dict.fromkeys([interval, DAILY] if with_daily else [interval]))
    names = chosen(symbols, run.provider.SYMBOLS, max_symbols)
    outcomes = load(run, wanted(run, names, first, last, intervals, incremental=False), granularity)
    publish(outcomes, f"Bars ({', '.join(intervals)}) of provider `{run.provider.NAME}`, {first} to {last}")
    announce(run, outcomes, intervals)
    return verdict(outcomes, max_failed_share)


if __name__ == "__main__":
    yahoo_market_data()
