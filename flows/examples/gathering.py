"""Prices and their statistics: retries, caching, persisted results, map, limits, time-outs, async."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from time import sleep
from typing import Any, Literal

from prefect import allow_failure, flow, get_run_logger, task, unmapped
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import INPUTS, NO_CACHE, TASK_SOURCE
from prefect.concurrency.sync import rate_limit
from prefect.futures import PrefectFuture, as_completed
from prefect.results import ResultStorage
from prefect.runtime import task_run
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import exponential_backoff
from prefect.variables import Variable

from flows.examples import report
from flows.examples.report import Closes
from flows.market_data.providers import sample
from flows.market_data.providers.errors import ProviderDown
from flows.naming import own
from flows.retries import may_pass

Fault = Literal["once", "provider", "timeout", "check"]
"""What to see go wrong. once: each first request, so that it is made again. provider: every one. timeout: the picture.
check: the report is cut off while it is written, and its publication is undone."""

STORAGE = "result_storage"  # a Prefect variable: small letters, digits and underscores
RESULTS = Path("results")


def storage() -> ResultStorage:
    """Where results are kept: the storage block that the Prefect variable names, else the folder `results`.

    On a worker that folder is inside of the run's clone and goes with it, so caching from run to run needs the block there:
    `remote-file-system/results` with the basepath `s3://bucket/results` is in Prefect itself, s3fs does the rest. A
    bucket's keys belong into the worker's environment (AWS_...) or its role: the block's `settings` are shown in the UI.
    """
    block = Variable.get(own(STORAGE))
    return str(block) if block else RESULTS.absolute()


# RETRIES, because a provider that is down now is up again in a moment. The delays grow, so that it isn't kept down, and
# vary, so that five tasks don't come back at the same time. The condition sees the failed state: a wrong symbol stays
# wrong. (flows/retries.py has these for real providers, longer.)
# A TAG that has a limit holds back all tasks with it, in all runs together. It is set by
# `prefect concurrency-limit create market-data-request 2`, or declared as `tag:market-data-request` with the other limits
# of the environment: on the server both are one. A task has its slot from its first try to its last, the waits between
# included: with long waits a few that fail hold up all others. A task whose answer is in the cache waits for a slot as well.
# NO_CACHE, because what was fetched a while ago is no answer for today. It says so to Prefect, and to the reader.
@task(
    task_run_name="fetch {symbol}",  # else the UI shows five times `fetch-a1b`
    retries=2,
    retry_delay_seconds=exponential_backoff(backoff_factor=1),  # 1 s, 2 s
    retry_jitter_factor=0.5,
    retry_condition_fn=may_pass,
    tags=["market-data-request"],
    cache_policy=NO_CACHE,
)
def fetch(symbol: str, first: date, last: date, fault: Fault | None = None) -> Closes:
    # A GLOBAL LIMIT with slot decay is so many requests a second, whoever makes them. One that is not declared holds
    # nobody back, but for `strict=True`.
    rate_limit(own("market-data-requests"))
    # RUNTIME CONTEXT without passing it around: `run_count` is the number of this try, from 1.
    if fault == "provider" or (fault == "once" and task_run.run_count == 1):
        raise ProviderDown(f"The provider 'sample' is told to fail, try {task_run.run_count}.")
    return report.closes(sample.fetch_bars(symbol, "1d", first, last, adjusted=True))


# CACHING, because a re-run on the same prices should compute nothing: same INPUTS and same source, same answer, for a day.
# - TASK_SOURCE is this function's own lines only. A change in `report.statistics` is not seen: give such a task a
#   version as a parameter, or start with `refresh_cache=True`.
# - The key is a hash of the inputs: plain values are safe. An engine or a lock has none: Prefect then logs an error and does
#   not cache. Leave those out (`INPUTS - "engine"`), or take NO_CACHE.
# - What is in the cache is the PERSISTED RESULT. With `persist_result=False`, or on another machine's disk, nothing is found.
# - A name of your own (`result_storage_key`) switches the policy off: what is once in a file of that name is never computed again.
# JSON, because people and other programs read it too, and an update of pandas doesn't make it unreadable. Prefect's
# default is a pickle.
@task(
    task_run_name="summarise {symbol}",
    cache_policy=INPUTS + TASK_SOURCE,
    cache_expiration=timedelta(days=1),
    persist_result=True,
    result_serializer="json",
)
def summarise(symbol: str, closes: Closes) -> dict[str, Any]:
    return report.statistics(symbol, closes)


# A TIME-OUT, because a hung task holds up its run for ever. Called as it is here, in the main thread and in no flow that has
# one of its own, it interrupts anything. Else (submitted to a thread, or the second of two) it can't interrupt a sleep, a
# socket or C code: Prefect notices when that is over, hours later maybe. So give requests a time-out of their own as well.
@task(timeout_seconds=60, cache_policy=NO_CACHE)
def draw(prices: Mapping[str, Closes], fault: Fault | None = None) -> bytes:
    while fault == "timeout":
        sleep(0.05)
    return report.chart(prices)


# ASYNC, because two questions can wait side by side. A flow that is not async calls it like any other task when it is submitted.
@task(cache_policy=NO_CACHE)
async def headings() -> tuple[str, str]:
    # VARIABLES, because a text, a threshold or a switch differs between environments, and changes without a deploy.
    title, author = await asyncio.gather(
        Variable.aget(own("report_title"), default="Weekly market report"),
        Variable.aget(own("report_author"), default="the data team"),
    )
    return str(title), str(author)


# ALLOW_FAILURE hands a task its failed input as the exception. Without it the task is not run, NotReady; and what comes after
# that, with allow_failure, finds None in its place (https://github.com/PrefectHQ/prefect/issues/22918): so the reason is
# taken from where it arose.
@task(cache_policy=NO_CACHE)
def tabulate(symbols: Sequence[str], *tries: Sequence[Any]) -> list[dict[str, Any]]:
    """A row each: what the last step answers, or the error of the first that failed."""
    return [row(symbol, answers) for symbol, *answers in zip(symbols, *tries, strict=True)]


def row(symbol: str, answers: Sequence[Any]) -> dict[str, Any]:
    error = next((answer for answer in answers if isinstance(answer, BaseException)), None)
    return report.failed(symbol, error) if error else answers[-1]


def watch(futures: Sequence[PrefectFuture[Any]]) -> None:
    """A PROGRESS artifact, because a backfill of a thousand symbols is not to be guessed at from its log."""
    progress: Any = create_progress_artifact(0, key="market-report-progress", description="Symbols that are done")
    for done, _ in enumerate(as_completed(list(futures)), start=1):
        update_progress_artifact(progress, 100 * done / len(futures))


# A SUBFLOW, because it is a unit of its own: own state, retries, time-out and task runner, and a page in the UI; for one step
# a task is enough. It runs in this process. The TASK RUNNER is what `submit` and `map` hand tasks to; threads suit what
# waits for others, `DaskTaskRunner` what computes.
@flow(
    flow_run_name="gather {first} to {last}",
    task_runner=ThreadPoolTaskRunner(max_workers=4),  # type: ignore[arg-type]  # Prefect's own generics
)
def gather(symbols: list[str], first: date, last: date, fault: Fault | None = None) -> dict[str, Any]:
    """The statistics of each symbol, one row each in their order, the picture's address, and the headings."""
    # MAP: one task a symbol, at the same time. A list is mapped over, so what is the same for all is `unmapped`.
    fetched = fetch.map(symbols, unmapped(first), unmapped(last), unmapped(fault))
    # Where a result goes is decided here and not at the decorator: naming a block there asks the API at import.
    summarised = summarise.with_options(result_storage=storage()).map(symbols, fetched)
    # SUBMIT: it starts now and is waited for where its result is needed.
    words = headings.submit()
    watch(summarised)
    # WAIT_FOR: an order without data. Futures as arguments are waited for anyway.
    rows = tabulate(symbols, allow_failure(fetched), allow_failure(summarised), wait_for=[words])
    sound = [future.result() for future, row in zip(fetched, rows, strict=True) if not row["error"]]
    return {
        "rows": rows,
        "picture": picture(dict(zip(whole(rows), sound, strict=True)), fault),
        "words": words.result(),
    }


def whole(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [row["symbol"] for row in rows if not row["error"]]


def picture(prices: Mapping[str, Closes], fault: Fault | None) -> str | None:
    """RETURN_STATE, because a report without its picture is still a report: what failed is looked at, not raised."""
    if not prices:
        return None
    drawing = draw.with_options(timeout_seconds=0.5) if fault == "timeout" else draw
    state = drawing(prices, fault, return_state=True)
    if state.is_completed():
        return report.data_uri(state.result())
    get_run_logger().warning("The report goes without its picture: %s (%s)", state.name, state.message)
    return None
