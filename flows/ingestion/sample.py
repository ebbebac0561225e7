"""The sample load: a provider's daily bars through validation into the warehouse, then their indicators."""

from __future__ import annotations

from datetime import timedelta

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import PositiveInt

from flows.analytics.indicators import daily_indicators
from flows.ingestion.loading import SYMBOLS_AT_A_TIME, begin, load, publish, verdict, wanted
from flows.ingestion.outcomes import loaded
from flows.market_data.symbols import Symbol, chosen
from flows.market_data.warehouse import DAILY
from flows.parameters import Days, Share
from flows.settings import ProviderName


@flow(task_runner=ThreadPoolTaskRunner(max_workers=SYMBOLS_AT_A_TIME))  # type: ignore[arg-type]  # Prefect's own generics
def sample_market_data(
    symbols: list[Symbol] | None = None,
    days_back: Days = 30,
    max_symbols: PositiveInt | None = None,
    with_indicators: bool = True,
    provider: ProviderName | None = None,
    max_failed_share: Share = 0.2,
) -> State:
    """Load daily bars, unadjusted and adjusted, into the warehouse, then compute the newest day's indicators.

    A repeated or overlapping load changes nothing. One symbol's failure doesn't stop the others.

    Args:
        symbols: What to load. Default: all that the provider has.
        days_back: How many calendar days are fetched from the provider, back from its today (2013-03-01 for `sample`).
            Indicators read the warehouse instead, and may find less there than they need: see daily_indicators.
        max_symbols: Load the first so many only.
        with_indicators: Compute indicators after the load.
        provider: Whom to ask. None: the one that the environment's variable names.
        max_failed_share: The run fails if more than this share of the symbols does, or all.
    """
    run = begin(provider)
    last = run.provider.today()
    first = last - timedelta(days=days_back)
    names = chosen(symbols, run.provider.SYMBOLS, max_symbols)
    outcomes = load(run, wanted(run, names, first, last, [DAILY], incremental=False))
    publish(outcomes, f"Daily bars of provider `{run.provider.NAME}`, {first} to {last}")
    if with_indicators and (found := loaded(outcomes)):
        daily_indicators(symbols=found, provider=provider)
    return verdict(outcomes, max_failed_share)


if __name__ == "__main__":
    sample_market_data()
