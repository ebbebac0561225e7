"""The indicators as Prefect runs them: in batches, remembered, in threads or on Dask, and started by an event."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId, FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from prefect.events import DeploymentTriggerTypes
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, PREFECT_LOCAL_STORAGE_PATH, temporary_settings
from prefect.testing.utilities import prefect_test_harness
from pydantic import TypeAdapter
from sqlalchemy import Engine, select, text

from flows import runners
from flows.analytics import batches, outcomes
from flows.analytics.indicators import daily_indicators
from flows.ingestion.loading import announce
from flows.ingestion.outcomes import Outcome
from flows.ingestion.polygon import polygon_historical_backfill
from flows.ingestion.steps import Run
from flows.market_data import indicators, warehouse
from flows.market_data.providers import sample
from tests.flows.frames import apple
from tests.real.stage import until
from tests.server import QUIET, free_port

pytest_plugins = ["tests.postgres"]

ROOT = Path(__file__).parents[3]
WATCHING = "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED"

NO_HEARTBEAT = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}  # at its end each run waits for it, up to a second

ALL = {"days_back": 400, "batch_size": 2}
"""The five symbols of the sample, in three batches."""


@pytest.fixture(scope="module", autouse=True)
def prefect() -> Iterator[None]:
    """With the service that watches for events, for the last test."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**QUIET, WATCHING: "true", "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore"}.items():
            patch.setenv(name, value)
        with prefect_test_harness(server_startup_timeout=90), temporary_settings(NO_HEARTBEAT):
            yield


@pytest.fixture(autouse=True)
def results(tmp_path: Path) -> Iterator[Path]:
    """Where Prefect keeps results: a folder of the test's own, so that no other test's are found."""
    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: tmp_path / "results"}):
        yield tmp_path / "results"


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse with the sample's last two years."""
    path = tmp_path_factory.mktemp("full") / "warehouse.db"
    engine = warehouse.connect(f"sqlite:///{path}")
    for symbol in sample.SYMBOLS:
        bars = sample.fetch_bars(symbol, "1d", date(2011, 3, 1), sample.today(), adjusted=True)
        warehouse.upsert_bars(engine, symbol, "sample_adjusted", bars)
    engine.dispose()
    return path


@pytest.fixture
def at(full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A copy of it, which the flow finds by the environment variable."""
    yield from warehouse_at(tmp_path / "full.db", monkeypatch, full.read_bytes())


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    yield from warehouse_at(tmp_path / "empty.db", monkeypatch)


def warehouse_at(path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes = b"") -> Iterator[Engine]:
    path.write_bytes(content)
    url = f"sqlite:///{path}"
    monkeypatch.setenv("WAREHOUSE_URL", url)
    engine = warehouse.connect(url)
    yield engine
    engine.dispose()


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Of which symbols indicators were really computed, a list a batch, since it was last emptied."""
    seen: list[list[str]] = []

    def watched(bars: pd.DataFrame, day: date) -> pd.DataFrame:
        seen.append(bars["symbol"].unique().tolist())
        return original(bars, day)

    original = indicators.on_day
    monkeypatch.setattr(indicators, "on_day", watched)
    return seen


def run(**parameters: Any) -> State:
    return state_of(daily_indicators, **parameters)


def state_of(flow: Any, **parameters: Any) -> State:
    state = flow(**parameters, return_state=True)
    assert isinstance(state, State)
    return state


def change(engine: Engine, statement: str) -> int:
    with engine.begin() as connection:
        return connection.execute(text(statement)).rowcount


def contents(engine: Engine) -> list[Any]:
    """Every bar and every row of indicators, by its key."""
    queries = [select(table).order_by(*table.primary_key) for table in (warehouse.bars, warehouse.indicators)]
    with engine.connect() as connection:
        return [tuple(row) for query in queries for row in connection.execute(query)]


def report(state: State) -> list[dict[str, Any]]:
    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        [found] = client.read_artifacts(flow_run_filter=wanted)
    return json.loads(str(found.data))  # type: ignore[no-any-return]


def test_the_same_bars_are_computed_once(
    at: Engine, computed: list[list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    first = run(**ALL)
    before = contents(at)
    caplog.clear()
    again = run(**ALL, symbols=["MSFT", "IBM", "GOOG", "FB", "AAPL"])
    assert first.message == "5 of 5 symbols computed for 2013-03-01: 5 new or changed."
    assert again.message == "5 of 5 symbols computed for 2013-03-01: 0 new or changed."
    assert sorted(computed) == [["AAPL", "FB"], ["GOOG", "IBM"], ["MSFT"]]
    assert caplog.text.count("Cached(type=COMPLETED)") == 3
    assert contents(at) == before
    assert report(again) == report(first)


def test_one_bar_that_changed_makes_its_batch_be_computed_again_and_no_other(
    at: Engine, computed: list[list[str]]
) -> None:
    run(**ALL)
    computed.clear()
    assert change(at, "update bars set close = close * 1.001 where symbol = 'IBM' and time like '2013-02-28%'") == 1
    assert run(**ALL).message == "5 of 5 symbols computed for 2013-03-01: 1 new or changed."
    assert computed == [["GOOG", "IBM"]]


def test_of_another_release_everything_is_computed_anew(
    at: Engine, computed: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(**ALL)
    computed.clear()
    monkeypatch.setattr(batches, "version", lambda: "of the next release")
    assert run(**ALL).message == "5 of 5 symbols computed for 2013-03-01: 0 new or changed."
    assert sorted(computed) == [["AAPL", "FB"], ["GOOG", "IBM"], ["MSFT"]]


def test_rows_that_were_deleted_come_back_without_being_computed_again(at: Engine, computed: list[list[str]]) -> None:
    run(**ALL)
    before = contents(at)
    computed.clear()
    assert change(at, "delete from indicators where symbol <> 'IBM'") == 4
    assert run(**ALL).message == "5 of 5 symbols computed for 2013-03-01: 4 new or changed."
    assert contents(at) == before
    assert computed == []


def test_nothing_that_is_kept_holds_the_warehouses_address(at: Engine, results: Path) -> None:
    run(**ALL)
    kept = [path.read_text() for path in results.iterdir()]
    assert len(kept) == 3
    assert not [one for one in kept if str(at.url.database) in one]


def test_a_batch_that_fails_leaves_the_others_alone(at: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    store = warehouse.upsert_indicators

    def full_disk(engine: Engine, source: str, frame: pd.DataFrame) -> int:
        if "IBM" in set(frame["symbol"]):
            raise ValueError("disk full")
        return store(engine, source, frame)

    monkeypatch.setattr(warehouse, "upsert_indicators", full_disk)
    state = run(**ALL, max_failed_share=0.4)
    assert state.is_completed()
    assert state.message == "3 of 5 symbols computed for 2013-03-01: 3 new or changed. Failed: GOOG, IBM."
    assert [one["note"] for one in report(state)][:2] == ["failed: disk full"] * 2
    assert run(**ALL).is_failed()


def test_of_many_symbols_the_report_shows_the_first_and_those_with_a_note(
    at: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "LINES", 2)
    state = run(days_back=300, symbols=["AAPL", "MSFT", "IBM", "NOPE"])
    assert state.message == "3 of 4 symbols computed for 2013-03-01: 3 new or changed."
    assert [one["symbol"] for one in report(state)] == ["NOPE", "AAPL"]


def test_indicators_of_an_empty_warehouse_say_what_to_do(empty: Engine) -> None:
    state = run()
    assert state.is_failed()
    assert state.message == "The warehouse has no bars of 'sample_adjusted' for any symbol: load some first."


def test_whose_bars_can_be_said(at: Engine) -> None:
    state = run(provider="yahoo", symbols=["IBM"])
    assert state.message == "The warehouse has no bars of 'yahoo_adjusted' for IBM: load some first."


def test_indicators_of_an_earlier_day_see_nothing_of_the_days_after(at: Engine) -> None:
    state = run(calculation_date=date(2012, 12, 31), symbols=["AAPL"])
    assert state.message == "1 of 1 symbols computed for 2012-12-31: 1 new or changed."
    until = apple()[apple()["time"] <= pd.Timestamp("2012-12-31", tz="UTC")]
    with at.connect() as connection:
        assert connection.scalar(text("select sma_50 from indicators")) == pytest.approx(until["close"].tail(50).mean())


def test_a_holiday_has_no_indicators_and_the_run_says_so(at: Engine) -> None:
    state = run(calculation_date=date(2012, 12, 25))
    assert state.is_failed()
    assert state.message == (
        "0 of 5 symbols computed for 2012-12-25: 0 new or changed. The exchange was closed on 2012-12-25."
    )


# On Dask

DAYS = {"start_date": date(2012, 1, 1), "end_date": date(2013, 3, 1), "symbols": ["AAPL", "FB", "IBM"]}
SAMPLE: dict[str, Any] = {"provider": "sample"}


@pytest.fixture(scope="module")
def dask() -> Iterator[str]:
    """The address of a real cluster: two worker processes."""
    from distributed import LocalCluster

    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "host": "127.0.0.1"}
    with LocalCluster(**options, dashboard_address="127.0.0.1:0") as cluster:  # type: ignore[no-untyped-call]
        yield cluster.scheduler_address


def on_dask(flow: Any, address: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The flow as a run loads it, by its file and with this variable. The cluster's processes do not know of the file."""
    monkeypatch.setenv("FLOWS_TASK_RUNNER", address)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return load_flow_from_entrypoint(f"{inspect.getsourcefile(flow.fn)}:{flow.fn.__name__}")


@pytest.fixture(scope="module")
def in_threads(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What a backfill and the indicators leave behind, and say, in threads."""
    folder = tmp_path_factory.mktemp("threads")
    with pytest.MonkeyPatch.context() as patch, temporary_settings({PREFECT_LOCAL_STORAGE_PATH: folder / "results"}):
        [engine] = warehouse_at(folder / "warehouse.db", patch)
        states = [state_of(polygon_historical_backfill, **DAYS, **SAMPLE), run(**ALL, **SAMPLE)]
        return [*(state.message for state in states), *contents(engine)]


def test_on_dask_both_flows_leave_the_same_warehouse_as_in_threads(
    url: str, dask: str, in_threads: list[Any], computed: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAREHOUSE_URL", url)
    load, compute = (on_dask(flow, dask, monkeypatch) for flow in (polygon_historical_backfill, daily_indicators))
    states = [state_of(load, **DAYS, **SAMPLE), state_of(compute, **ALL, **SAMPLE)]
    engine = warehouse.connect(url)
    assert [*(state.message for state in states), *contents(engine)] == in_threads
    assert len(contents(engine)) == 1556 + 3
    assert run(**ALL, **SAMPLE).message == "3 of 3 symbols computed for 2013-03-01: 0 new or changed."
    assert computed == []  # in this process: what the others computed is found by it
    engine.dispose()


def test_a_cluster_that_does_not_answer_fails_the_run_and_is_named(at: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "SECONDS_TO_CONNECT", 1)
    address = f"tcp://127.0.0.1:{free_port()}"
    state = state_of(on_dask(daily_indicators, address, monkeypatch), **ALL)
    assert state.is_failed()
    assert f"OSError: Timed out trying to connect to {address} after 1 s" in str(state.message)


# By an event


def test_a_load_that_completes_starts_the_deployment_for_its_symbols_and_provider() -> None:
    """As it is declared, on a server that watches for events."""
    [declared] = yaml.safe_load((ROOT / "flows/analytics/deployments.yaml").read_text())
    triggers: Any = TypeAdapter(list[DeploymentTriggerTypes]).validate_python(declared["triggers"])
    made: Any = daily_indicators.to_deployment(declared["name"], parameters=declared["parameters"], triggers=triggers)
    deployment = DeploymentFilter(id=DeploymentFilterId(any_=[made.apply()]))
    symbols = ["BRK.B", *(f"S{number:04}" for number in range(5000))]
    loads = [*(Outcome(symbol, bars=3) for symbol in symbols), Outcome("NOPE")]
    announce(Run("sqlite://", sample), loads, ["1d"])
    with get_client(sync_client=True) as client:
        until(lambda: client.read_flow_runs(deployment_filter=deployment), 120)
        [started] = client.read_flow_runs(deployment_filter=deployment)
    assert started.parameters == {"days_back": 300, "symbols": symbols, "provider": "sample"}
    daily_indicators.validate_parameters(started.parameters)  # raises where they do not fit
