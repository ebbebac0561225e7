"""Who the companies are and what their figures say, once a week: one request or two, and one row, a symbol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from prefect import Task, flow, task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.futures import wait
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import PositiveInt

from flows.ingestion.loading import SYMBOLS_AT_A_TIME, begin
from flows.ingestion.steps import Run
from flows.market_data import warehouse
from flows.market_data.symbols import Symbol, chosen
from flows.parameters import Share
from flows.retries import ASKS_AGAIN
from flows.settings import ProviderName
from flows.verdicts import too_many_failed

WEEKLY: dict[str, Any] = {"task_runner": ThreadPoolTaskRunner(max_workers=SYMBOLS_AT_A_TIME)}


@dataclass(frozen=True)
class Told:
    """What came of one symbol: how many facts its provider told, and whether they were new or different."""

    symbol: str
    facts: int = 0
    changed: int = 0
    error: str = ""

    @property
    def row(self) -> dict[str, Any]:
        status = "failed" if self.error else "changed" if self.changed else "as before"
        return {"symbol": self.symbol, "status": status, "facts": self.facts, "error": self.error}


def information(run: Run, symbol: str) -> Told:
    """The newest answer replaces the one before."""
    told = run.provider.company_information(symbol)
    changed = warehouse.upsert_company_information(run.engine, run.provider.NAME, {symbol: told})
    return Told(symbol, count(told), changed)


def statistics(run: Run, symbol: str) -> Told:
    """A row a trading day, that of the last price; the provider's today where it does not say."""
    told = run.provider.key_statistics(symbol)
    changed = warehouse.upsert_key_statistics(run.engine, run.provider.NAME, {symbol: told}, run.provider.today())
    return Told(symbol, count(told), changed)


def count(told: dict[str, Any]) -> int:
    return sum(value is not None for name, value in told.items() if name not in ("symbol", "day"))


@task(task_run_name="company {symbol}", **ASKS_AGAIN)
def load_information(run: Run, symbol: str) -> Told:
    return information(run, symbol)


@task(task_run_name="statistics {symbol}", **ASKS_AGAIN)
def load_statistics(run: Run, symbol: str) -> Told:
    return statistics(run, symbol)


def load(step: Task[[Run, str], Told], run: Run, symbols: Sequence[str]) -> list[Told]:
    """Every symbol on its own. The failure of one leaves the others alone."""
    futures = [step.submit(run, symbol) for symbol in symbols]
    wait(futures)
    answers = [future.result(raise_on_failure=False) for future in futures]
    return [result(*pair) for pair in zip(symbols, answers, strict=True)]


def result(symbol: str, answer: Told | BaseException) -> Told:
    return answer if isinstance(answer, Told) else Told(symbol, error=str(answer) or type(answer).__name__)


def sentence(what: str, told: Sequence[Told]) -> str:
    missing = [one.symbol for one in told if one.error]
    changed = sum(one.changed for one in told)
    text = f"{what} of {len(told) - len(missing)} of {len(told)} symbols: {changed} new or changed."
    return f"{text} Failed: {', '.join(missing)}." if missing else text


def finish(what: str, key: str, told: Sequence[Told], max_failed_share: float) -> State:
    text = sentence(what, told)
    create_table_artifact(key=key, table=[one.row for one in told], description=text)
    if why := too_many_failed(sum(bool(one.error) for one in told), len(told), max_failed_share):
        return Failed(message=f"{text} {why}")
    return Completed(message=text)


@flow(**WEEKLY)
def weekly_company_information(
    symbols: list[Symbol] | None = None,
    max_symbols: PositiveInt | None = None,
    max_failed_share: Share = 0.2,
    provider: ProviderName | None = None,
) -> State:
    """Load who the companies are: name, exchange, industry, employees and the like.

    Args:
        symbols: Whose. Default: the few that the provider's module watches.
        max_symbols: The first so many only.
        max_failed_share: The run fails if more than this share of the symbols does, or all.
        provider: Whom to ask. None: the one that the environment's variable names.
    """
    run = begin(provider)
    told = load(load_information, run, chosen(symbols, run.provider.SYMBOLS, max_symbols))
    return finish("Company information", "company-information", told, max_failed_share)


@flow(**WEEKLY)
def weekly_key_statistics(
    symbols: list[Symbol] | None = None,
    max_symbols: PositiveInt | None = None,
    max_failed_share: Share = 0.2,
    provider: ProviderName | None = None,
) -> State:
    """Load the companies' figures of the last trading day: market value, ratios, the year's high and low.

    Args:
        symbols: Whose. Default: the few that the provider's module watches.
        max_symbols: The first so many only.
        max_failed_share: The run fails if more than this share of the symbols does, or all.
        provider: Whom to ask. None: the one that the environment's variable names.
    """
    run = begin(provider)
    told = load(load_statistics, run, chosen(symbols, run.provider.SYMBOLS, max_symbols))
    return finish("Key statistics", "key-statistics", told, max_failed_share)


@flow
def weekly_reference_data(
    symbols: list[Symbol] | None = None,
    max_symbols: PositiveInt | None = None,
    max_failed_share: Share = 0.2,
    provider: ProviderName | None = None,
) -> State:
    """Both, one after the other. If the first fails the second still runs; the run fails if one of them does.

    Args:
        symbols: Whose. Default: the few that the provider's module watches.
        max_symbols: The first so many only.
        max_failed_share: Each of both fails if more than this share of the symbols does, or all.
        provider: Whom to ask. None: the one that the environment's variable names.
    """
    parts: list[Callable[..., State]] = [weekly_company_information, weekly_key_statistics]
    asked = {"symbols": symbols, "max_symbols": max_symbols, "max_failed_share": max_failed_share, "provider": provider}
    states = [part(**asked, return_state=True) for part in parts]
    text = " ".join(str(state.message) for state in states)
    return Completed(message=text) if all(state.is_completed() for state in states) else Failed(message=text)


if __name__ == "__main__":
    weekly_reference_data()
