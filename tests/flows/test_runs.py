"""The flows as Prefect runs them, on a temporary server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from prefect.client.schemas.sorting import FlowRunSort
from prefect.concurrency._asyncio import AcquireConcurrencySlotTimeoutError
from prefect.concurrency.sync import rate_limit
from prefect.events import Event
from prefect.events.clients import AssertingEventsClient
from prefect.events.worker import EventsWorker
from prefect.exceptions import ParameterTypeError
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, PREFECT_HOME, temporary_settings
from prefect.testing.utilities import prefect_test_harness
from prefect.variables import Variable
from sqlalchemy import Engine, text

from flows import settings
from flows.ingestion import end_to_end, loading
from flows.ingestion.companies import weekly_reference_data
from flows.ingestion.end_to_end import sample_end_to_end
from flows.ingestion.orders import Order
from flows.ingestion.outcomes import Outcome, sentence
from flows.ingestion.polygon import polygon_daily_ingestion, polygon_historical_backfill
from flows.ingestion.sample import sample_market_data
from flows.ingestion.steps import Run
from flows.ingestion.yahoo import yahoo_market_data
from flows.maintenance import archive as archiving
from flows.maintenance.archive import archive_bars, restore_archive
from flows.maintenance.backup import database_backup
from flows.maintenance.cleanup import cleanup
from flows.market_data import warehouse
from flows.market_data.places import Place
from flows.market_data.providers import errors, sample, today_at_the_exchange
from flows.market_data.symbols import chosen
from flows.naming import own
from tests.flows.frames import apple, bars, day
from tests.flows.providers.test_yahoo import CHART, bar, chart, fresh  # noqa: F401  # a fixture: yfinance forgets
from tests.flows.providers.web import Answer, Web, serving
from tests.server import QUIET

BARS = "/v2/aggs/ticker/{}/*"
DAY = timedelta(days=1)
NO_HEARTBEAT = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}  # at its end each run waits for it, up to a second
NEWEST = FlowRunSort.START_TIME_DESC


@pytest.fixture(scope="module", autouse=True)
def prefect() -> Iterator[None]:
    """Without the services that write behind a run's back: each time they meet on SQLite, the run waits for 2 s."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**QUIET, "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore"}.items():
            patch.setenv(name, value)
        with prefect_test_harness(server_startup_timeout=90), temporary_settings(NO_HEARTBEAT):
            yield


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A warehouse of the test's own, which the flows find by the environment variable."""
    url = f"sqlite:///{tmp_path / 'warehouse.db'}"
    monkeypatch.setenv("WAREHOUSE_URL", url)
    engine = warehouse.connect(url)
    yield engine
    engine.dispose()


def run(flow: Any, **parameters: Any) -> State:
    state = flow(**parameters, return_state=True)
    assert isinstance(state, State)
    return state


def number(engine: Engine, query: str) -> Any:
    with engine.connect() as connection:
        return connection.execute(text(query)).scalar()


def newest_table(key: str) -> list[dict[str, Any]]:
    with get_client(sync_client=True) as client:
        found = [artifact for artifact in client.read_artifacts() if artifact.key == key]
    data = max(found, key=lambda artifact: str(artifact.created)).data
    assert isinstance(data, str)
    table: list[dict[str, Any]] = json.loads(data)
    return table


def rows(engine: Engine, query: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def table(state: State, key: str) -> list[dict[str, Any]]:
    """What the run published."""
    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        [found] = [one for one in client.read_artifacts(flow_run_filter=wanted) if one.key == key]
    return json.loads(str(found.data))  # type: ignore[no-any-return]


def polygon_bars(*days: date) -> dict[str, Any]:
    stamps = [int(pd.Timestamp(day, tz="America/New_York").timestamp() * 1000) for day in days]
    found = [{"o": 10.0, "h": 12.0, "l": 9.0, "c": 11.0, "v": 1000.0, "t": stamp} for stamp in stamps]
    return {"status": "OK", "resultsCount": len(found), "results": found}


@pytest.fixture
def emitted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[Event]]]:
    """The market-data events so far. They are kept instead of sent."""
    worker = EventsWorker.instance(AssertingEventsClient)
    monkeypatch.setattr(EventsWorker, "instance", lambda *_: worker)

    def events() -> list[Event]:
        worker.wait_until_empty()
        client = AssertingEventsClient.last
        return [event for event in client.events if event.event.startswith("market-data.")] if client else []

    yield events
    worker.drain()


def test_a_load_fills_the_warehouse_and_its_repeat_changes_nothing(at: Engine) -> None:
    first = run(sample_market_data, days_back=365)
    again = run(sample_market_data, days_back=365, with_indicators=False)
    assert first.message == "5 of 5 symbols loaded: 2,400 bars, 2,400 new or changed."
    assert again.message == "5 of 5 symbols loaded: 2,400 bars, 0 new or changed."
    assert number(at, "select count(*) from bars where source = 'sample'") == 1200
    assert number(at, "select count(*) from bars where source = 'sample_adjusted'") == 1200
    assert number(at, "select close from bars where source = 'sample' and symbol = 'AAPL' order by time desc") == 430.47
    stored = number(at, "select sma_200 from indicators where symbol = 'AAPL'")
    assert stored == pytest.approx(apple()["close"].tail(200).mean())
    assert number(at, "select count(*) from indicators where sma_200 is null") == 1  # FB had 196 bars


def test_one_unknown_symbol_fails_alone_and_is_in_the_table(at: Engine) -> None:
    state = run(sample_market_data, symbols=[" ibm ", "NOPE"], with_indicators=False, max_failed_share=0.5)
    assert state.is_completed()
    assert state.message == "1 of 2 symbols loaded: 44 bars, 44 new or changed. Failed: NOPE."
    loaded, failed = newest_table("market-data-symbols")
    assert (loaded["symbol"], loaded["status"], loaded["last"]) == ("IBM", "loaded", "2013-03-01")
    assert (failed["symbol"], failed["status"]) == ("NOPE", "failed")
    assert "no symbol 'NOPE'" in failed["error"]


def test_a_load_without_any_symbol_fails(at: Engine) -> None:
    state = run(sample_market_data, symbols=["NOPE"])
    assert state.is_failed()
    assert state.message == "0 of 1 symbols loaded: 0 bars, 0 new or changed. Failed: NOPE. All failed."


def test_a_dropped_connection_is_tried_again_and_a_wrong_symbol_is_not(at: Engine) -> None:
    orders = [Order("IBM", "1d", False, date(2013, 2, 1), date(2013, 3, 1))]
    load = loading.load_symbol.with_options(retry_delay_seconds=0)
    assert load(unsteady(at, ConnectionError("reset by peer")), "IBM", orders).bars == 20
    with pytest.raises(ValueError, match="no such symbol"):
        load(unsteady(at, ValueError("no such symbol")), "IBM", orders)
    assert number(at, "select group_concat(status) from load_runs") == "failed,loaded,failed"


def unsteady(engine: Engine, error: Exception) -> Run:
    provider: Any = Unsteady(error)
    return Run(engine.url.render_as_string(hide_password=False), provider)


class Unsteady:
    """The sample provider, whose first answer is an error."""

    def __init__(self, error: Exception) -> None:
        self.errors = [error]

    def source(self, adjusted: bool) -> str:
        return sample.source(adjusted)

    def fetch_bars(self, symbol: str, interval: str, start: date, end: date, adjusted: bool = False) -> pd.DataFrame:
        if self.errors:
            raise self.errors.pop()
        return sample.fetch_bars(symbol, interval, start, end, adjusted)


def test_cleanup_only_counts_until_it_is_told_to_delete(at: Engine) -> None:
    warehouse.upsert_bars(at, "AAPL", "sample", bars({}, {}, {}, {}))
    counted = run(cleanup, keep_days={"1d": 2})
    assert counted.message == (
        "1 bars, 0 rows of indicators and 0 notes of loads are too old; 0 bars deleted (dry run)."
    )
    assert number(at, "select count(*) from bars") == 4
    cleaned = run(cleanup, keep_days={"1d": 2}, dry_run=False)
    assert str(cleaned.message).endswith("are too old; 1 bars deleted.")
    assert number(at, "select count(*) from bars") == 3
    [line] = table(cleaned, "cleanup")
    assert (line["interval"], line["keep from"], line["old bars"], line["deleted bars"]) == ("1d", "2010-01-02", 1, 1)


def test_cleanup_keeps_intervals_that_are_not_named_as_long_as_the_others(at: Engine) -> None:
    warehouse.upsert_bars(at, "AAPL", "sample", bars({}, {}, {}, {}), "5m")
    days, then = date(2010, 1, 1), day(1).to_pydatetime()
    warehouse.record_load(at, warehouse.Load("AAPL", "sample", "5m", days, days, "failed", then, then))
    state = run(cleanup, keep_days={"1d": 1}, keep_days_of_others=2)
    assert [line["old bars"] for line in table(state, "cleanup")] == [1]
    assert [line["forgotten"] for line in table(state, "cleanup-load-runs")] == [1]


@pytest.mark.parametrize("wrong", [{"1D": 1}, {"daily": 1}, {"1d": 0}, {"1d": "x"}])
def test_an_age_that_makes_no_sense_is_refused_before_the_run(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParameterTypeError):
        cleanup.validate_parameters({"keep_days": wrong})


def test_an_archive_run_only_counts_until_it_is_told_to_move(at: Engine, tmp_path: Path) -> None:
    warehouse.upsert_bars(at, "AAPL", "sample", apple())
    warehouse.upsert_bars(at, "IBM", "sample", bars({}, {}))
    place = {"url": str(tmp_path / "archive"), "keep_years": 3}
    assert run(archive_bars, **place).message == "10 years with 2,475 bars would be archived (dry run)."
    assert not (tmp_path / "archive").exists()
    state = run(archive_bars, **place, dry_run=False)
    assert state.message == "10 years archived of 10: 2,475 bars."
    assert number(at, "select count(*) from bars") == 3272 - 2475


def test_what_was_archived_is_restored_by_years_and_symbols(at: Engine, tmp_path: Path) -> None:
    warehouse.upsert_bars(at, "AAPL", "sample", apple().tail(900))
    place = {"url": str(tmp_path / "archive")}
    run(archive_bars, **place, before=date(2012, 1, 1), dry_run=False)
    some = {**place, "symbols": ["aapl"], "first_year": 2010, "last_year": 2011}
    assert run(restore_archive, **some).message == "2 years of 2 are sound: 504 bars (dry run)."
    assert run(restore_archive, **some, dry_run=False).message == "2 years of 2 put back: 504 bars."
    assert number(at, "select min(time) from bars").startswith("2010-01-04")
    nothing = run(restore_archive, **place, symbols=["IBM"])
    assert nothing.is_failed() and "has no such years" in str(nothing.message)


def test_a_damaged_file_fails_the_restore_after_the_others_were_put_back(at: Engine, tmp_path: Path) -> None:
    warehouse.upsert_bars(at, "AAPL", "sample", apple())
    place = {"url": str(tmp_path / "archive")}
    run(archive_bars, **place, dry_run=False)
    broken = tmp_path / "archive/source=sample/interval=1d/year=2005/symbol=AAPL.parquet"
    broken.write_bytes(b"")
    state = run(restore_archive, **place, dry_run=False)
    assert state.is_failed()
    assert str(state.message).startswith("10 years of 11 put back: 2,475 bars. 1 failed, the first: ")
    assert table(state, "restore-archive")[0]["error"].startswith(f"{broken} can't be read")
    assert number(at, "select count(*) from bars") == 3270 - 252


def test_a_symbol_that_cannot_be_archived_leaves_the_others_alone(
    at: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for symbol in ("AAA", "BBB"):
        warehouse.upsert_bars(at, symbol, "sample", bars({}, {}))
    write = Place.write
    full = OSError(28, "No space left on device")

    def unless_full(place: Place, name: str, content: bytes) -> None:
        if "AAA" in name:
            raise full
        write(place, name, content)

    monkeypatch.setattr(Place, "write", unless_full)
    monkeypatch.setattr(archiving.archive_symbol, "retry_delay_seconds", 0)
    state = run(archive_bars, url=str(tmp_path / "archive"), before=date(2011, 1, 1), dry_run=False)
    assert state.is_failed()
    assert state.message == "1 years archived of 2: 2 bars. 1 failed, the first: [Errno 28] No space left on device"
    assert rows(at, "select distinct symbol from bars") == [("AAA",)]


def test_a_backup_is_tried_and_the_old_ones_are_thinned_out(at: Engine, tmp_path: Path) -> None:
    place = tmp_path / "backups"
    for _ in range(3):
        warehouse.upsert_bars(at, "AAPL", "sample", bars({}, {"close": 9.0 + len(list(place.glob("*.sqlite")))}))
        state = run(database_backup, url=str(place), keep=2)
        assert state.is_completed(), state.message
    assert len(list(place.glob("*.sqlite"))) == 2
    assert "8 tables, 4 rows, tried by restoring it; 1 old ones deleted." in str(state.message)
    assert {line["table"]: line["rows"] for line in table(state, "database-backup")}["bars"] == 2


def test_files_are_kept_where_the_parameter_says_else_the_variable_else_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with temporary_settings({PREFECT_HOME: tmp_path}):
        assert (settings.archive().url, settings.backups().url) == (f"{tmp_path}/archive", f"{tmp_path}/backups")
    monkeypatch.setenv("WAREHOUSE_URL", "postgresql://me@host/warehouse")
    with pytest.raises(ValueError, match=r"nobody said where its backups should be kept: .*set 'backup_url' under"):
        settings.backups()
    Variable.set("archive_url", "s3://bucket/archive", overwrite=True)
    Secret(value='{"key": "k3y", "secret": "hunter2"}').save("storage-options")
    try:
        assert settings.archive("/elsewhere").url == "/elsewhere"
        assert settings.archive().options == {"key": "k3y", "secret": "hunter2"}
        Secret(value="key=hunter2").save("storage-options", overwrite=True)
        with pytest.raises(ValueError, match=r"'storage-options' is no JSON object") as caught:
            settings.archive()
    finally:
        Secret.delete("storage-options")
        Variable.unset("archive_url")
    assert "hunter2" not in str(caught.value)


def test_an_unknown_provider_is_named_with_the_known_ones() -> None:
    Variable.set("market_data_provider", "polygone", overwrite=True)
    try:
        with pytest.raises(
            ValueError, match=r"'market_data_provider' is 'polygone'; known providers: sample, yahoo, polygon\. Set"
        ):
            settings.provider()
    finally:
        Variable.unset("market_data_provider")
    assert settings.provider() is sample
    with pytest.raises(ValueError, match=r"parameter 'provider' is 'yaho'; known providers: .*\. Take one of them"):
        settings.provider("yaho")


@pytest.fixture
def polygon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """The environment's provider is polygon, which is a server of the test's own."""
    with serving() as web:
        monkeypatch.setenv("POLYGON_URL", web.url)
        Variable.set("market_data_provider", "polygon", overwrite=True)
        Secret(value="k3y").save("polygon-api-key")
        yield web
    Variable.unset("market_data_provider")
    Secret.delete("polygon-api-key")


def test_a_flow_takes_its_bars_from_the_provider_of_the_environment(at: Engine, polygon: Web) -> None:
    one = {"o": 10.0, "h": 12.0, "l": 9.0, "c": 11.0, "v": 1234.0}
    noon = pd.Timestamp(settings.provider().today(), tz="America/New_York") - pd.Timedelta(hours=12)
    found = {"status": "OK", "resultsCount": 1, "results": [{**one, "t": int(noon.timestamp() * 1000)}]}
    polygon.on("/v2/aggs/ticker/BRK.B/*", found)
    polygon.on("/v2/aggs/ticker/NOPE/*", {"status": "OK", "resultsCount": 0})
    state = run(sample_market_data, symbols=["BRK.B", "NOPE"], days_back=3, with_indicators=False)
    assert state.message == (
        "1 of 2 symbols loaded: 2 bars, 2 new or changed. Failed: NOPE. More than 20% may not fail."
    )
    assert number(at, "select count(*) from bars where source = 'polygon_adjusted' and volume = 1234") == 1
    assert "knows no symbol 'NOPE'" in newest_table("market-data-symbols")[1]["error"]
    assert polygon.paths("/v3") == ["/v3/reference/tickers/NOPE"]  # a wrong symbol is not tried again


def test_one_failure_is_in_the_table_and_below_the_share_the_run_completes(at: Engine, polygon: Web) -> None:
    polygon.on(BARS.format("AAPL"), polygon_bars(today_at_the_exchange() - DAY, today_at_the_exchange()))
    polygon.on(BARS.format("NOPE"), {"status": "OK", "resultsCount": 0})
    state = run(polygon_daily_ingestion, symbols=["AAPL", "NOPE"], days_back=6, max_failed_share=0.5)
    assert state.is_completed(), state.message
    assert state.message == "1 of 2 symbols loaded: 4 bars, 4 new or changed. Failed: NOPE."
    assert [(one["symbol"], one["status"]) for one in table(state, "market-data-symbols")] == [
        ("AAPL", "loaded"),
        ("NOPE", "failed"),
    ]
    noted = rows(at, "select symbol, source, status, flow_run_id from load_runs order by symbol, source")
    this = str(state.state_details.flow_run_id)
    assert noted == [
        ("AAPL", "polygon", "loaded", this),
        ("AAPL", "polygon_adjusted", "loaded", this),
        ("NOPE", "polygon", "failed", this),
    ]


def test_a_load_tells_by_an_event_which_symbols_have_new_bars(
    at: Engine, polygon: Web, emitted: Callable[[], list[Event]]
) -> None:
    polygon.on(BARS.format("AAPL"), polygon_bars(today_at_the_exchange() - DAY))
    run(polygon_daily_ingestion, symbols=["AAPL"], days_back=6, granularity="fine")
    [event] = emitted()
    assert event.event == "market-data.load.completed"
    assert event.resource.id == "market-data.polygon"
    assert event.payload == {
        "provider": "polygon",
        "source": "polygon",
        "adjusted_source": "polygon_adjusted",
        "intervals": ["1d"],
        "symbols": ["AAPL"],
        "bars": 2,
        "changed": 2,
    }


def test_above_the_share_the_run_fails_and_says_what_was_allowed(at: Engine, polygon: Web) -> None:
    polygon.on(BARS.format("AAPL"), polygon_bars(today_at_the_exchange() - DAY))
    polygon.on(BARS.format("NOPE"), {"status": "OK", "resultsCount": 0})
    state = run(polygon_daily_ingestion, symbols=["AAPL", "NOPE"], days_back=6)
    assert state.is_failed()
    assert str(state.message).endswith("Failed: NOPE. More than 20% may not fail.")
    assert number(at, "select count(*) from bars") == 2


@pytest.mark.parametrize("granularity", ["coarse", "fine"])
def test_a_busy_provider_is_asked_again(
    at: Engine, polygon: Web, granularity: loading.Granularity, monkeypatch: pytest.MonkeyPatch
) -> None:
    for asking in (loading.load_symbol, loading.fetch):
        monkeypatch.setattr(asking, "retry_delay_seconds", 0)
    polygon.on(BARS.format("AAPL"), Answer(status=429), Answer(status=502), polygon_bars(today_at_the_exchange() - DAY))
    state = run(polygon_daily_ingestion, symbols=["AAPL"], days_back=6, granularity=granularity)
    assert state.message == "1 of 1 symbols loaded: 2 bars, 2 new or changed."
    assert rows(at, "select status from load_runs order by id") == [("failed",), ("failed",), ("loaded",), ("loaded",)]


def test_a_backfill_with_more_symbols_goes_on_where_it_was(at: Engine) -> None:
    days = {"start_date": date(2012, 1, 1), "end_date": date(2013, 3, 31), "provider": "sample"}
    assert run(polygon_historical_backfill, symbols=["IBM"], **days).message == (
        "1 of 1 symbols loaded: 582 bars, 582 new or changed."
    )
    state = run(polygon_historical_backfill, symbols=["IBM", "FB"], granularity="fine", **days)
    assert state.message == "2 of 2 symbols loaded: 392 bars, 392 new or changed."
    assert [one["status"] for one in table(state, "market-data-symbols")] == ["up to date", "loaded"]
    assert number(at, "select count(*) from load_runs") == 4


def test_a_backfill_of_no_days_says_so(at: Engine) -> None:
    state = run(polygon_historical_backfill, start_date=date(2013, 3, 2), end_date=date(2013, 3, 31), provider="sample")
    assert state.is_failed()
    assert "nothing from 2013-03-02 to 2013-03-01" in str(state.message)


@pytest.fixture
def yahoo(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A Yahoo of the test's own, with cookie and crumb."""
    with serving() as web:
        web.on("/", Answer(status=404, headers={"Set-Cookie": "A3=d=AQABB; Path=/"}))
        web.on("/v1/test/getcrumb", "q7xTZ.4Wd1k")
        monkeypatch.setenv("YAHOO_URL", web.url)
        yield web


def test_yahoos_hours_come_with_the_daily_bars_that_indicators_need(
    at: Engine, yahoo: Web, emitted: Callable[[], list[Event]]
) -> None:
    yesterday = today_at_the_exchange() - DAY
    hours = chart(bar(f"{yesterday} 09:30"), bar(f"{yesterday} 10:30"), hourly=True)
    yahoo.on(CHART, hours, hours, chart(bar(f"{yesterday} 09:30")))
    state = run(yahoo_market_data, symbols=["AAPL"])
    assert state.message == "1 of 1 symbols loaded: 6 bars, 6 new or changed."
    found = "select source, interval, count(*) from bars group by source, interval order by source, interval"
    assert rows(at, found) == [
        ("yahoo", "1d", 1),
        ("yahoo", "1h", 2),
        ("yahoo_adjusted", "1d", 1),
        ("yahoo_adjusted", "1h", 2),
    ]
    assert [event.payload["intervals"] for event in emitted()] == [["1h", "1d"]]


def test_the_weekly_reference_data_are_facts_and_figures_of_each_company(at: Engine) -> None:
    state = run(weekly_reference_data, symbols=["IBM", "NOPE"], max_failed_share=0.5)  # the provider is the sample
    assert state.is_completed()
    assert state.message == (
        "Company information of 1 of 2 symbols: 1 new or changed. Failed: NOPE. "
        "Key statistics of 1 of 2 symbols: 1 new or changed. Failed: NOPE."
    )
    assert rows(at, "select symbol, source, day, high_52_weeks > 200 from key_statistics") == [
        ("IBM", "sample", "2013-03-01", 1)
    ]
    assert rows(at, "select symbol, last_bar from company_information") == [("IBM", "2013-03-01")]


def test_a_provider_can_be_asked_at_another_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YAHOO_URL", "http://127.0.0.1:9")
    with pytest.raises(errors.ProviderDown, match="ConnectionError"):
        settings.provider("yahoo").fetch_bars("IBM", "1d", date(2024, 7, 1), date(2024, 7, 1))


def test_polygon_needs_its_key_and_says_where_it_belongs() -> None:
    with pytest.raises(ValueError, match=r"no Secret block 'polygon-api-key'\. Set it under `secrets`"):
        settings.provider("polygon")
    assert settings.source("polygon", adjusted=True) == "polygon_adjusted"  # what is loaded can be read without a key
    Secret(value="k3y").save("polygon-api-key")
    try:
        provider = settings.provider("polygon")
    finally:
        Secret.delete("polygon-api-key")
    assert provider.source(adjusted=True) == "polygon_adjusted"
    assert "k3y" not in repr(provider)


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smoke run as a worker's: one deployment is missing beside it, of the other no worker takes the runs."""
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__NAME", "sample-end-to-end-qa")
    monkeypatch.setattr(end_to_end, "SECONDS_FOR_A_RUN", 0.1)
    with get_client(sync_client=True) as client:
        client.create_deployment(client.create_flow_from_name("cleanup"), "cleanup-qa", parameters={"dry_run": False})


@pytest.mark.usefixtures("deployed")
def test_the_smoke_run_says_which_pool_did_not_run_and_calls_its_run_off(at: Engine) -> None:
    state = run(sample_end_to_end, symbols=["IBM"])
    message, found = str(state.message), table(state, "sample-end-to-end")
    assert state.is_failed() and "There is no deployment daily-indicators/daily-indicators-qa" in message
    assert "cleanup: Not finished after 0.1 s" in message
    assert {row["check"]: row["passed"] for row in found}["IBM: bars of sample"] == "yes"
    with get_client(sync_client=True) as client:
        [left] = client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["cleanup"])), sort=NEWEST)[:1]
    assert left.state and left.state.is_final() and left.parameters["dry_run"] is True


def test_a_turn_is_waited_for_where_the_limit_exists_and_not_where_it_does_not() -> None:
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(name="slow-api", limit=1, slot_decay_per_second=0.001)
        )
    settings.turn_to_ask("no-such-limit")()
    rate_limit("slow-api", timeout_seconds=60)  # takes the only slot, which comes back in a quarter of an hour
    turn = settings.turn_to_ask("slow-api")
    assert isinstance(turn, partial)
    with pytest.raises(AcquireConcurrencySlotTimeoutError):
        turn(timeout_seconds=0.1)


def test_the_warehouse_is_the_secrets_else_the_variables_else_a_file_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with temporary_settings({PREFECT_HOME: tmp_path}):
        assert settings.warehouse_url() == f"sqlite:///{tmp_path}/warehouse.db"
    monkeypatch.setenv("WAREHOUSE_URL", "sqlite:////from/the/variable")
    assert settings.warehouse_url() == "sqlite:////from/the/variable"
    Secret(value="sqlite:////from/the/secret").save("warehouse-url")
    try:
        assert settings.warehouse_url() == "sqlite:////from/the/secret"
    finally:
        Secret.delete("warehouse-url")


@pytest.mark.parametrize(
    ("deployment", "tags", "name"),
    [
        (None, ["env:qa"], "warehouse-url"),
        ("cleanup", ["env:qa", "qa"], "warehouse-url"),
        ("cleanup-qa", ["env:qa", "qa"], "warehouse-url-qa"),
        ("pr-1-cleanup-qa", ["env:qa"], "warehouse-url-qa"),
        ("cleanup-qa", [], "warehouse-url"),
    ],
)
def test_where_environments_share_an_api_a_run_takes_its_own_ones(
    monkeypatch: pytest.MonkeyPatch, deployment: str | None, tags: list[str], name: str
) -> None:
    if deployment:
        monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__NAME", deployment)
    monkeypatch.setattr("flows.naming.flow_run", SimpleNamespace(tags=tags))
    assert own("warehouse-url") == name


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///warehouse.db", "sqlite:///:memory:"])
def test_a_warehouse_that_would_be_gone_after_the_run_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("WAREHOUSE_URL", url)
    with pytest.raises(ValueError, match="gone after the run"):
        settings.warehouse_url()


def test_a_wrong_password_is_not_in_the_runs_messages_or_logs(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WAREHOUSE_URL", "mysql://me:hunter2@host/db")
    state = run(cleanup)
    assert state.is_failed()
    assert "not on mysql" in str(state.message)
    assert "hunter2" not in str(state.message) + caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize("wrong", [{"days_back": 0}, {"max_symbols": 0}, {"symbols": [" "]}])
def test_a_parameter_that_makes_no_sense_is_refused_before_the_run(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParameterTypeError, match=r"greater than or equal to 1|greater than 0|at least 1 character"):
        sample_market_data.validate_parameters(wrong)


def test_each_chosen_symbol_comes_once_in_order_up_to_the_limit() -> None:
    assert chosen(None, ["A", "B", "C"], 2) == ["A", "B"]
    assert chosen(["C", "A", "C"], ["A", "B", "C"]) == ["C", "A"]
    assert chosen([], ["A"]) == []


def test_rejected_bars_are_counted_by_reason() -> None:
    row = Outcome("A", bars=3, rejected={"missing value": 2, "duplicate time": 1}, first=day(1).date()).row
    assert row["rejected"] == "2 missing value, 1 duplicate time"
    assert (row["status"], row["first"], row["last"]) == ("loaded", "2010-01-01", "")
    assert Outcome("A").row["status"] == "no bars"
    assert Outcome("A", asked=False).row["status"] == "up to date"
    assert sentence([Outcome("A", 1500, 7)]) == "1 of 1 symbols loaded: 1,500 bars, 7 new or changed."
