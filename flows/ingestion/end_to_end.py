"""The sample from end to end: load, indicators, the clean-up's count, and checks of what came of them.

Run it after a deploy: it takes half a minute, writes real prices of the provider `sample` only, and needs no key. As a
deployment it goes through every work pool. A pool without a worker, a worker that does not get the code, or one that has
another warehouse than the others, is a check that fails and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

from prefect import Flow, flow, task
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.futures import wait
from prefect.runtime import deployment
from prefect.states import Cancelling, Completed, Failed
from pydantic import Field

from flows import settings
from flows.analytics.indicators import daily_indicators
from flows.ingestion.sample import sample_market_data
from flows.maintenance.cleanup import cleanup
from flows.market_data import calendar, warehouse
from flows.market_data.providers import sample
from flows.market_data.symbols import chosen

if TYPE_CHECKING:
    import pandas as pd
    from sqlalchemy.engine import Engine

OWN_NAME = "sample-end-to-end"
ELSEWHERE: dict[str, Flow[..., State]] = {"daily-indicators": daily_indicators, "cleanup": cleanup}
SECONDS_FOR_A_RUN = 180  # of another deployment: a machine may have to be started for it
SECONDS_IN_ALL = 420

Days = Annotated[int, Field(ge=40, le=36_500)]
SampleSymbol = Literal["AAPL", "FB", "GOOG", "IBM", "MSFT"]


@dataclass(frozen=True)
class Check:
    """What was expected, and whether it is so."""

    check: str
    passed: bool
    detail: str


@task(task_run_name="run {name}")
def through_its_pool(name: str, parameters: Mapping[str, Any]) -> Check:
    """Run the deployment beside this one; whatever becomes of it is a check's answer."""
    full_name = f"{name}/{beside(str(deployment.name), name)}"
    try:
        run: FlowRun = run_deployment(  # type: ignore[assignment]  # nothing to await where nothing is async
            full_name, parameters=dict(parameters), timeout=SECONDS_FOR_A_RUN, poll_interval=1
        )
    except ObjectNotFound:
        return Check(name, False, f"There is no deployment {full_name}: deploy it, or end this check's run without it.")
    if run.state and run.state.is_final():
        return of_state(name, run.state)
    give_up(run)
    where = f"work pool '{run.work_pool_name}'"
    return Check(name, False, f"Not finished after {SECONDS_FOR_A_RUN} s. Is a worker of {where} online, and free?")


def beside(own: str, name: str) -> str:
    """The other deployment's name in this environment: where environments share an API, names end in theirs."""
    return own.replace(OWN_NAME, name)


def give_up(run: FlowRun) -> None:
    """Nobody waits for it any more: it must not begin tomorrow."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, Cancelling(message=f"{OWN_NAME} waited for {SECONDS_FOR_A_RUN} s."))


def in_this_process(name: str, parameters: Mapping[str, Any]) -> Check:
    return of_state(name, ELSEWHERE[name](**parameters, return_state=True))


def of_state(name: str, state: State) -> Check:
    return Check(name, state.is_completed(), state.message or state.name or state.type.value)


def run_elsewhere(asked: Mapping[str, Mapping[str, Any]]) -> list[Check]:
    if not deployment.name:
        return [in_this_process(name, parameters) for name, parameters in asked.items()]
    futures = [through_its_pool.submit(name, parameters) for name, parameters in asked.items()]
    wait(futures)
    return [future.result() for future in futures]


def checks_of(engine: Engine, symbols: Sequence[str], first: date, last: date) -> list[Check]:
    """Compare the warehouse with what the provider has, and the newest indicators with what its prices give."""
    found = []
    for symbol in symbols:
        for adjusted in (False, True):
            source = sample.source(adjusted)
            bars = sample.fetch_bars(symbol, warehouse.DAILY, first, last, adjusted)
            stored = warehouse.read_bars(engine, source, [symbol], first, last)
            found.append(same_bars(symbol, source, bars, stored))
        found.append(every_day(symbol, bars, last))
        found.append(same_average(symbol, bars, warehouse.read_indicators(engine, source, [symbol], last)))
    return found


def same_bars(symbol: str, source: str, bars: pd.DataFrame, stored: pd.DataFrame) -> Check:
    same = warehouse.checksum(bars) == warehouse.checksum(stored)
    detail = f"{len(stored)} bars, as the provider has them" if same else f"{len(stored)} bars, not the provider's"
    return Check(f"{symbol}: bars of {source}", same, detail)


def every_day(symbol: str, bars: pd.DataFrame, last: date) -> Check:
    missing = calendar.missing_days(bars, bars["time"].min().date(), last)
    detail = f"without a bar: {', '.join(map(str, missing[:3]))}" if missing else f"all of {len(bars)} have a bar"
    return Check(f"{symbol}: trading days", not missing, detail)


def same_average(symbol: str, bars: pd.DataFrame, stored: pd.DataFrame) -> Check:
    """Of all indicators the one that can be told by hand."""
    days = 20
    expected = float(bars["close"].tail(days).mean()) if len(bars) >= days else None
    found = None if stored.empty or stored["sma_20"].isna().all() else float(stored["sma_20"].iloc[-1])
    same = found == expected if found is None or expected is None else abs(found - expected) < 1e-9 * expected
    return Check(f"{symbol}: sma_20", same and not stored.empty, f"{found}, and {expected} from the provider's prices")


@flow(timeout_seconds=SECONDS_IN_ALL)
def sample_end_to_end(symbols: list[SampleSymbol] | None = None, days_back: Days = 365) -> State:
    """Load the provider `sample`, compute indicators, count what is too old, and check all of it.

    Run by a worker, the last two go to their own work pools; in a process of your own they run there.

    Args:
        symbols: Which. Default: all five that the provider has.
        days_back: How many calendar days are loaded, back from the provider's today, 2013-03-01. At least 40: the average that is checked
            needs 20 trading days.
    """
    names = chosen(symbols, sample.SYMBOLS)
    asked = {"symbols": names, "provider": "sample"}
    load = sample_market_data(**asked, days_back=days_back, with_indicators=False, return_state=True)
    checks = [of_state("sample-market-data", load)]
    if load.is_completed():
        checks += run_elsewhere({"daily-indicators": asked, "cleanup": {"dry_run": True}})
        engine, last = warehouse.connect(settings.warehouse_url()), sample.today()
        checks += checks_of(engine, names, last - timedelta(days=days_back), last)
    table = [{**asdict(one), "passed": "yes" if one.passed else "NO"} for one in checks]
    create_table_artifact(key=OWN_NAME, table=table, description="What was expected, and whether it is so")
    return verdict(checks)


def verdict(checks: Sequence[Check]) -> State:
    wrong = [one for one in checks if not one.passed]
    sentence = f"{len(checks) - len(wrong)} of {len(checks)} checks passed."
    if wrong:
        return Failed(message=" ".join([sentence, *(f"{one.check}: {one.detail}" for one in wrong[:3])]))
    return Completed(message=sentence)


if __name__ == "__main__":
    sample_end_to_end()
