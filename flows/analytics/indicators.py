"""Daily indicators: bars from the warehouse through TA-Lib, one row a symbol back into it."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Failed
from pydantic import Field

from flows import settings
from flows.analytics.batches import Work, compute_all, earlier
from flows.analytics.outcomes import named, publish, report, verdict
from flows.market_data import warehouse
from flows.market_data.connection import engine_at
from flows.market_data.symbols import Symbol, chosen
from flows.parameters import Days, Share
from flows.runners import runner
from flows.settings import ProviderName

BATCHES_AT_A_TIME = 4

BatchSize = Annotated[int, Field(ge=1, le=1_000)]


@flow(task_runner=runner(BATCHES_AT_A_TIME))
def daily_indicators(
    days_back: Days = 300,
    symbols: list[Symbol] | None = None,
    calculation_date: date | None = None,
    provider: ProviderName | None = None,
    max_failed_share: Share = 0.2,
    batch_size: BatchSize = 100,
) -> State:
    """Compute one day's indicators from the adjusted bars in the warehouse; nothing is fetched.

    An indicator that needs more bars than there are is NULL, with a warning, never a guess. A batch of symbols whose
    bars are those of an earlier run is not computed again; its rows are written where they are missing. Other symbols
    together are another batch.

    Args:
        days_back: How many calendar days are read from the warehouse, back from the calculation date. The longest
            indicator needs 200 bars, about 290 days. In ingestion the word is for the days fetched from a provider.
        symbols: Default: all that the warehouse has.
        calculation_date: The trading day to compute. Default: the newest one in the warehouse, of any of the symbols.
        provider: Whose bars. None: the provider that the environment's variable names.
        max_failed_share: The run fails if more than this share of the symbols does, or all. A batch that fails counts
            with all its symbols; a symbol that has no bar on the day did not fail.
        batch_size: So many symbols are read, computed and stored by one task.
    """
    url = settings.warehouse_url()
    source = settings.source(provider, adjusted=True)
    engine = engine_at(url)
    warehouse.upgrade(engine)
    # In order, so that the same symbols make the same batches, however they are told.
    wanted = sorted(chosen(symbols, warehouse.symbols_of(engine, source)))
    day = calculation_date or warehouse.newest_day(engine, source, wanted)
    if day is None:
        return Failed(
            message=f"The warehouse has no bars of '{source}' for {named(wanted) or 'any symbol'}: load some first."
        )
    work = Work(url, source, earlier(day, days_back), day)
    outcomes = compute_all(work, wanted, batch_size)
    publish(report(outcomes), source, day)
    return verdict(outcomes, day, max_failed_share)


if __name__ == "__main__":
    print(daily_indicators(return_state=True).message)
