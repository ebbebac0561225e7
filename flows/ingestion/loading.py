"""What the loads of bars share: every symbol on its own, as one task or as three, and a report of them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any, Literal

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows import settings
from flows.ingestion import steps
from flows.ingestion.orders import Done, Order, orders_of
from flows.ingestion.outcomes import Outcome, failed, loaded, outcome, sentence
from flows.ingestion.steps import Part, Run
from flows.market_data import calendar, warehouse
from flows.retries import ASKS_AGAIN, TRIES_AGAIN
from flows.runners import answer
from flows.verdicts import too_many_failed

LOADED_EVENT = "market-data.load.completed"
SYMBOLS_AT_A_TIME = 4
SYMBOLS_IN_MEMORY = 100  # submitted together: of a step apart, Prefect keeps the frames until the next has them

Granularity = Literal["coarse", "fine"]
"""coarse: one task a symbol. fine: a task for each of fetch, validate, store, which the UI shows and retries apart."""


def begin(provider: settings.ProviderName | None) -> Run:
    """A run on the provider of that name, or the environment's, and a warehouse whose tables are up to date."""
    run = Run(settings.warehouse_url(), settings.provider(provider), flow_run.id)
    warehouse.upgrade(run.engine)
    return run


def wanted(
    run: Run, symbols: Sequence[str], first: date, last: date, intervals: Sequence[str], incremental: bool
) -> dict[str, list[Order]]:
    """What is to be fetched of these days: all, or what is not loaded yet."""
    done = done_of(run, symbols, intervals) if incremental else {}
    return orders_of(symbols, intervals, first, last, done, trades)


def done_of(run: Run, symbols: Sequence[str], intervals: Sequence[str]) -> Done:
    return {
        (adjusted, interval): warehouse.loaded_ranges(run.engine, run.provider.source(adjusted), interval, symbols)
        for interval in intervals
        for adjusted in (False, True)
    }


def trades(first: date, last: date) -> bool:
    """Is there a trading day among them? Of days before the calendar begins nobody knows."""
    return first < calendar.FIRST_DAY or bool(calendar.trading_days(first, last))


def load(run: Run, orders: Mapping[str, Sequence[Order]], granularity: Granularity = "coarse") -> list[Outcome]:
    """Every symbol on its own. The failure of one leaves the others alone."""
    submit = SUBMIT[granularity]
    asked = {symbol: some for symbol, some in orders.items() if some}
    done = {one.symbol: one for some in handfuls(asked) for one in finished(run, submit, some)}
    return [done.get(symbol, Outcome(symbol, asked=False)) for symbol in orders]


def finished(run: Run, submit: Submit, orders: Mapping[str, Sequence[Order]]) -> list[Outcome]:
    submitted = {symbol: submit(run, symbol, some) for symbol, some in orders.items()}
    wait([future for futures in submitted.values() for future in futures])
    return [result(symbol, futures) for symbol, futures in submitted.items()]


def handfuls(orders: Mapping[str, Sequence[Order]]) -> Iterator[dict[str, Sequence[Order]]]:
    symbols = list(orders)
    for start in range(0, len(symbols), SYMBOLS_IN_MEMORY):
        yield {symbol: orders[symbol] for symbol in symbols[start : start + SYMBOLS_IN_MEMORY]}


def result(symbol: str, futures: Sequence[PrefectFuture[Any]]) -> Outcome:
    """What the last step answers, or the error of the first that failed."""
    answers = [answer(future) for future in futures]
    error = next((one for one in answers if isinstance(one, BaseException)), None)
    return answers[-1] if error is None else Outcome(symbol, error=str(error) or type(error).__name__)


@task(task_run_name="load {symbol}", **ASKS_AGAIN)
def load_symbol(run: Run, symbol: str, orders: Sequence[Order]) -> Outcome:
    """Fetch, validate and store one series after the other. Another try fetches them again, and stores nothing twice."""
    parts, changed = [], 0
    for order in orders:
        part = steps.check(run, steps.fetch(run, order))
        changed += steps.store(run, part)
        parts.append(part)
    warn(symbol, parts)
    return outcome(symbol, parts, changed)


@task(task_run_name="fetch {symbol}", **ASKS_AGAIN)
def fetch(run: Run, symbol: str, orders: Sequence[Order]) -> list[Part]:
    return [steps.fetch(run, order) for order in orders]


@task(task_run_name="validate {symbol}", cache_policy=NO_CACHE)
def validate(run: Run, symbol: str, fetched: Sequence[Part]) -> list[Part]:
    parts = [steps.check(run, part) for part in fetched]
    warn(symbol, parts)
    return parts


@task(task_run_name="store {symbol}", **TRIES_AGAIN)
def store(run: Run, symbol: str, parts: Sequence[Part]) -> Outcome:
    return outcome(symbol, parts, sum(steps.store(run, part) for part in parts))


Submit = Callable[[Run, str, Sequence[Order]], list[PrefectFuture[Any]]]


def as_one_task(run: Run, symbol: str, orders: Sequence[Order]) -> list[PrefectFuture[Any]]:
    return [load_symbol.submit(run, symbol, orders)]


def as_a_task_a_step(run: Run, symbol: str, orders: Sequence[Order]) -> list[PrefectFuture[Any]]:
    fetched: Any = fetch.submit(run, symbol, orders)
    parts: Any = validate.submit(run, symbol, fetched)
    return [fetched, parts, store.submit(run, symbol, parts)]


SUBMIT: dict[Granularity, Submit] = {"coarse": as_one_task, "fine": as_a_task_a_step}


def warn(symbol: str, parts: Sequence[Part]) -> None:
    for part in parts:
        if part.rejected:
            kind = "adjusted" if part.order.adjusted else "unadjusted"
            get_run_logger().warning(
                "%s, %s, %s: rejected %s", symbol, part.order.interval, kind, steps.told(part.rejected)
            )


def publish(outcomes: Sequence[Outcome], title: str) -> None:
    """A table of every symbol, and a sentence of all."""
    create_table_artifact(key="market-data-symbols", table=[one.row for one in outcomes], description=title)
    markdown = f"## {title}\n\n{sentence(outcomes)}\n"
    create_markdown_artifact(key="market-data-load", markdown=markdown, description=title)


def announce(run: Run, outcomes: Sequence[Outcome], intervals: Sequence[str]) -> None:
    """Tell whoever waits for new daily bars, by an event. An automation can hand its payload to a deployment."""
    if (symbols := loaded(outcomes)) and warehouse.DAILY in intervals:
        name = run.provider.NAME
        payload = {
            "provider": name,
            "source": run.provider.source(False),
            "adjusted_source": run.provider.source(True),
            "intervals": list(intervals),
            "symbols": symbols,
            "bars": sum(one.bars for one in outcomes),
            "changed": sum(one.changed for one in outcomes),
        }
        emit_event(LOADED_EVENT, resource={"prefect.resource.id": f"market-data.{name}"}, payload=payload)


def verdict(outcomes: Sequence[Outcome], max_failed_share: float) -> State:
    if why := too_many_failed(len(failed(outcomes)), len(outcomes), max_failed_share):
        return Failed(message=f"{sentence(outcomes)} {why}")
    return Completed(message=sentence(outcomes))
