"""Daily bars from Polygon (massive.com): the evening's load, and the history behind it."""

from __future__ import annotations

from datetime import date, timedelta

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
from flows.runners import runner
from flows.settings import ProviderName


@flow(task_runner=ThreadPoolTaskRunner(max_workers=SYMBOLS_AT_A_TIME))  # type: ignore[arg-type]  # Prefect's own generics
def polygon_daily_ingestion(
    days_back: Days = 1,
    symbols: list[Symbol] | None = None,
    incremental: bool = True,
    max_symbols: PositiveInt | None = None,
    granularity: Granularity = "coarse",
    max_failed_share: Share = 0.2,
    provider: ProviderName | None = "polygon",
) -> State:
    """Load the last days' bars, unadjusted and adjusted; then tell the indicators by an event.

    A repeated or overlapping load changes nothing. One symbol's failure doesn't stop the others.

    Args:
        days_back: How many calendar days are fetched from the provider, back from its today. In analytics the word is
            for the days that are read from the warehouse.
        symbols: What to load. Default: the few that the provider's module watches.
        incremental: Leave out days that are loaded already. Today never counts as such: its bar is not final.
        max_symbols: Load the first so many only.
        granularity: One task a symbol, or one for each of its steps: fetch, validate, store.
        max_failed_share: The run fails if more than this share of the symbols does, or all.
        provider: Whom to ask. None: the one that the environment's variable names.
    """
    run = begin(provider)
    last = run.provider.today()
    first = last - timedelta(days=days_back)
    names = chosen(symbols, run.provider.SYMBOLS, max_symbols)
    outcomes = load(run, wanted(run, names, first, last, [DAILY], incremental), granularity)
    publish(outcomes, f"Daily bars of provider `{run.provider.NAME}`, {first} to {last}")
    announce(run, outcomes, [DAILY])
    return verdict(outcomes, max_failed_share)


@flow(task_runner=runner(SYMBOLS_AT_A_TIME))
def polygon_historical_backfill(
    start_date: date,
    end_date: date,
    symbols: list[Symbol] | None = None,
    granularity: Granularity = "coarse",
    max_failed_share: Share = 0.2,
    provider: ProviderName | None = "polygon",
) -> State:
    """Load the bars of all days from `start_date` to `end_date`, both included, that are not loaded yet.

    Start it again after it was killed, or with more days or symbols: it goes on where it was, and what failed is tried
    again. A series and the note that it is loaded are one transaction. No event: the evening's load computes indicators.

    Args:
        start_date: The first day. Days before the provider's own first one are none at all.
        end_date: The last day; at most the provider's today.
        symbols: What to load. Default: the few that the provider's module watches.
        granularity: One task a symbol, or one for each of its steps: fetch, validate, store.
        max_failed_share: The run fails if more than this share of the symbols does, or all.
        provider: Whom to ask. None: the one that the environment's variable names.
    """
    run = begin(provider)
    last = min(end_date, run.provider.today())
    if start_date > last:
        raise ValueError(
            f"There is nothing from {start_date} to {last}: give a start_date before the end_date and today."
        )
    names = chosen(symbols, run.provider.SYMBOLS)
    outcomes = load(run, wanted(run, names, start_date, last, [DAILY], incremental=True), granularity)
    publish(outcomes, f"Daily bars of provider `{run.provider.NAME}`, {start_date} to {last}")
    return verdict(outcomes, max_failed_share)


if __name__ == "__main__":
    polygon_daily_ingestion()
