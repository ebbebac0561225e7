"""The flows as Prefect runs them, on a temporary server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.objects import State
from prefect.concurrency._asyncio import AcquireConcurrencySlotTimeoutError
from prefect.concurrency.sync import rate_limit
from prefect.exceptions import ParameterTypeError
from prefect.settings import PREFECT_HOME, temporary_settings
from prefect.testing.utilities import prefect_test_harness
from prefect.variables import Variable
from sqlalchemy import Engine, text

from flows import settings
from flows.analytics import indicators as analytics
from flows.analytics.indicators import daily_indicators
from flows.ingestion import loading
from flows.ingestion.orders import Order
from flows.ingestion.outcomes import Outcome, sentence
from flows.ingestion.sample import sample_market_data
from flows.ingestion.steps import Run
from flows.maintenance.cleanup import cleanup
from flows.market_data import warehouse
from flows.market_data.indicators import compute
from flows.market_data.providers import errors, sample
from flows.market_data.symbols import chosen
from tests.flows.frames import apple, bars, day
from tests.flows.providers.web import Web, serving
from tests.server import QUIET


@pytest.fixture(scope="module", autouse=True)
def prefect() -> Iterator[None]:
    """Without the services that write behind a run's back: each time they meet on SQLite, the run waits for 2 s."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**QUIET, "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore"}.items():
            patch.setenv(name, value)
        with prefect_test_harness(server_startup_timeout=90):
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
    state = run(sample_market_data, symbols=[" ibm ", "NOPE"], with_indicators=False)
    assert state.is_completed()
    assert state.message == "1 of 2 symbols loaded: 44 bars, 44 new or changed. Failed: NOPE."
    loaded, failed = newest_table("market-data-symbols")
    assert (loaded["symbol"], loaded["status"], loaded["last"]) == ("IBM", "loaded", "2013-03-01")
    assert (failed["symbol"], failed["status"]) == ("NOPE", "failed")
    assert "no symbol 'NOPE'" in failed["error"]


def test_a_load_without_any_symbol_fails(at: Engine) -> None:
    state = run(sample_market_data, symbols=["NOPE"])
    assert state.is_failed()
    assert state.message == "0 of 1 symbols loaded: 0 bars, 0 new or changed. Failed: NOPE."


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


def test_indicators_of_an_empty_warehouse_say_what_to_do(at: Engine) -> None:
    state = run(daily_indicators)
    assert state.is_failed()
    assert state.message == "The warehouse has no bars of 'sample_adjusted' for any symbol: load some first."


def test_indicators_of_an_earlier_day_see_nothing_of_the_days_after(at: Engine) -> None:
    warehouse.upsert_bars(at, "AAPL", "sample_adjusted", apple().tail(500))
    state = run(daily_indicators, calculation_date=date(2012, 12, 31))
    assert state.message == "1 of 1 symbols computed for 2012-12-31: 1 new or changed."
    until = apple()[apple()["time"] <= pd.Timestamp("2012-12-31", tz="UTC")]
    assert number(at, "select sma_50 from indicators") == pytest.approx(until["close"].tail(50).mean())


def test_cleanup_only_counts_until_it_is_told_to_delete(at: Engine) -> None:
    warehouse.upsert_bars(at, "AAPL", "sample", bars({}, {}, {}, {}))
    assert run(cleanup, keep_days=2).message == "1 bars are older than 2 days; 0 deleted (dry run)."
    assert number(at, "select count(*) from bars") == 4
    assert run(cleanup, keep_days=2, dry_run=False).message == "1 bars are older than 2 days; 1 deleted."
    assert number(at, "select count(*) from bars") == 3


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
    assert state.message == "1 of 2 symbols loaded: 2 bars, 2 new or changed. Failed: NOPE."
    assert number(at, "select count(*) from bars where source = 'polygon_adjusted' and volume = 1234") == 1
    assert "knows no symbol 'NOPE'" in newest_table("market-data-symbols")[1]["error"]
    assert polygon.paths("/v3") == ["/v3/reference/tickers/NOPE"]  # a wrong symbol is not tried again


def test_a_provider_can_be_asked_at_another_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YAHOO_URL", "http://127.0.0.1:9")
    with pytest.raises(errors.ProviderDown, match="ConnectionError"):
        settings.provider("yahoo").fetch_bars("IBM", "1d", date(2024, 7, 1), date(2024, 7, 1))


def test_polygon_needs_its_key_and_says_where_it_belongs() -> None:
    with pytest.raises(ValueError, match=r"no Secret block 'polygon-api-key'\. Set it under `secrets`"):
        settings.provider("polygon")
    Secret(value="k3y").save("polygon-api-key")
    try:
        provider = settings.provider("polygon")
    finally:
        Secret.delete("polygon-api-key")
    assert provider.source(adjusted=True) == "polygon_adjusted"
    assert "k3y" not in repr(provider)


def test_a_turn_is_waited_for_where_the_limit_exists_and_not_where_it_does_not() -> None:
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(name="yahoo-api", limit=1, slot_decay_per_second=0.001)
        )
    settings.turn_to_ask("no-such-limit")()
    rate_limit("yahoo-api", timeout_seconds=5)  # takes the only slot, which comes back in a quarter of an hour
    turn = settings.turn_to_ask("yahoo-api")
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
    with pytest.raises(ParameterTypeError, match=r"greater than 0|at least 1 character"):
        sample_market_data.validate_parameters(wrong)


def test_each_chosen_symbol_comes_once_in_order_up_to_the_limit() -> None:
    assert chosen(None, ["A", "B", "C"], 2) == ["A", "B"]
    assert chosen(["C", "A", "C"], ["A", "B", "C"]) == ["C", "A"]
    assert chosen([], ["A"]) == []


def test_the_report_names_what_is_missing_for_each_symbol() -> None:
    history = pd.concat([apple().tail(30), bars({}).assign(symbol="OLD")])
    rows = analytics.on_day(compute(history), date(2013, 3, 1))
    known, old, unknown = analytics.report(["AAPL", "OLD", "NOPE"], history, rows, date(2013, 3, 1))
    assert known["note"].startswith("30 bars are too few for sma_50, sma_200, ema_12")
    assert known["sma_200"] is None and known["sma_20"] > 0
    assert old == {"symbol": "OLD", "bars": 1, "note": "no bar on 2013-03-01"}
    assert unknown == {"symbol": "NOPE", "bars": 0, "note": "no bar on 2013-03-01"}


def test_rejected_bars_are_counted_by_reason() -> None:
    row = Outcome("A", bars=3, rejected={"missing value": 2, "duplicate time": 1}, first=day(1).date()).row
    assert row["rejected"] == "2 missing value, 1 duplicate time"
    assert (row["status"], row["first"], row["last"]) == ("loaded", "2010-01-01", "")
    assert Outcome("A").row["status"] == "no bars"
    assert Outcome("A", asked=False).row["status"] == "up to date"
    assert sentence([Outcome("A", 1500, 7)]) == "1 of 1 symbols loaded: 1,500 bars, 7 new or changed."
