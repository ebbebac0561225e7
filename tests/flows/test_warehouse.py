"""The warehouse on SQLite and PostgreSQL: loads can be repeated, times are UTC, a batch is written whole or not at all."""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, insert, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.schema import CreateTable

from flows.market_data import upserts, warehouse
from flows.market_data.connection import engine_of
from flows.market_data.indicators import compute
from tests.flows.frames import LAST_DAY, LONG_AGO, apple, bars, day

if TYPE_CHECKING:
    from tests.postgres import PostgreSQL

pytest_plugins = ["tests.postgres"]

IN_MEMORY = "sqlite://"


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    with opened(url) as engine:
        yield engine


@contextmanager
def opened(url: str = IN_MEMORY) -> Iterator[Engine]:
    engine = warehouse.connect(url)
    try:
        yield engine
    finally:
        engine.dispose()


def everything(engine: Engine, *names: str) -> pd.DataFrame:
    return warehouse.read_bars(engine, "sample", names or ["AAPL"], LONG_AGO, LAST_DAY)


def count(engine: Engine) -> int:
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(warehouse.bars)) or 0


def test_what_was_written_is_read_back_to_the_last_bit(engine: Engine) -> None:
    assert warehouse.upsert_bars(engine, "AAPL", "sample", apple()) == 3270
    found = everything(engine)
    expected = apple()[list(found.columns)]
    pd.testing.assert_frame_equal(found, expected, check_exact=True, check_dtype=False)


def test_a_repeated_load_changes_nothing(engine: Engine) -> None:
    assert warehouse.upsert_bars(engine, "AAPL", "sample", apple()) == 3270
    assert warehouse.upsert_bars(engine, "AAPL", "sample", apple()) == 0
    assert count(engine) == 3270


@settings(max_examples=25)
@given(loads=st.lists(st.tuples(st.integers(0, 120), st.integers(0, 120)), min_size=1, max_size=6))
def test_overlapping_loads_in_any_order_give_what_one_load_gives(loads: list[tuple[int, int]]) -> None:
    days = sorted({index for start, length in loads for index in range(start, start + length)})
    with opened() as engine:
        written = [warehouse.upsert_bars(engine, "AAPL", "sample", apple()[a : a + n]) for a, n in loads]
        found = everything(engine)
    assert sum(written) == len(found) == len(days)
    assert found["close"].tolist() == apple()["close"].iloc[days].tolist()


def test_a_corrected_bar_replaces_the_old_one_and_only_that_one(engine: Engine) -> None:
    warehouse.upsert_bars(engine, "AAPL", "sample", bars({}, {}, {}))
    assert warehouse.upsert_bars(engine, "AAPL", "sample", bars({}, {"close": 10.5}, {})) == 1
    assert everything(engine)["close"].tolist() == [11.0, 10.5, 11.0]


def test_sources_intervals_and_symbols_do_not_touch_each_other(engine: Engine) -> None:
    for symbol, source, interval in [("A", "x", "1d"), ("A", "y", "1d"), ("A", "x", "1h"), ("B", "x", "1d")]:
        assert warehouse.upsert_bars(engine, symbol, source, bars({}), interval) == 1
    assert warehouse.symbols_of(engine, "x") == ["A", "B"]
    assert warehouse.symbols_of(engine, "y") == ["A"]


def test_no_bars_are_no_error(engine: Engine) -> None:
    assert warehouse.upsert_bars(engine, "AAPL", "sample", bars({}).head(0)) == 0
    assert len(everything(engine)) == 0
    assert warehouse.newest_day(engine, "sample", ["AAPL"]) is None
    assert warehouse.series(engine, {}, 1) == []


def test_a_load_that_fails_in_its_last_row_leaves_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upserts, "BATCH", 2)
    with pytest.raises(IntegrityError):
        warehouse.upsert_bars(engine, "AAPL", "sample", bars({}, {}, {}, {}, {"close": None}))
    assert count(engine) == 0


def test_a_load_of_many_batches_counts_all_of_them(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upserts, "BATCH", 100)
    assert warehouse.upsert_bars(engine, "AAPL", "sample", apple()) == 3270
    assert count(engine) == 3270


def test_a_time_in_another_zone_is_the_same_moment_in_utc(engine: Engine) -> None:
    opening = datetime(2010, 7, 1, 9, 30, tzinfo=ZoneInfo("America/New_York"))
    warehouse.upsert_bars(engine, "AAPL", "sample", bars({"time": opening}))
    [time] = everything(engine)["time"]
    assert time == opening
    assert time.isoformat() == "2010-07-01T13:30:00+00:00"


def test_a_time_without_a_zone_is_refused(engine: Engine) -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        warehouse.upsert_bars(engine, "AAPL", "sample", bars({"time": datetime(2010, 7, 1)}))


def test_both_days_of_a_range_are_read(engine: Engine) -> None:
    warehouse.upsert_bars(engine, "AAPL", "sample", bars({}, {}, {}, {}))
    found = warehouse.read_bars(engine, "sample", ["AAPL"], date(2010, 1, 2), date(2010, 1, 3))
    assert found["time"].tolist() == [day(2), day(3)]
    assert warehouse.newest_day(engine, "sample", ["AAPL", "OTHER"]) == date(2010, 1, 4)


def test_missing_indicators_are_null_and_a_repeat_changes_nothing(engine: Engine) -> None:
    warehouse.upsert_bars(engine, "AAPL", "sample", apple())
    rows = compute(apple().tail(30))
    assert warehouse.upsert_indicators(engine, "sample", rows) == 30
    assert warehouse.upsert_indicators(engine, "sample", rows) == 0
    with engine.connect() as connection:
        table = warehouse.indicators.c
        last = connection.execute(select(table.sma_20, table.sma_200).order_by(table.time.desc())).first()
    assert last is not None
    assert last.sma_20 == rows["sma_20"].iloc[-1]
    assert last.sma_200 is None


def test_indicators_of_a_symbol_that_nobody_loaded_are_refused(engine: Engine) -> None:
    with pytest.raises(IntegrityError):
        warehouse.upsert_indicators(engine, "sample", compute(apple().tail(3)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("hunter2", "expected something like sqlite:"),
        ("nosuch://me:hunter2@host/db", "on sqlite:// or postgresql://.*, not on nosuch://"),
        ("postgresql+asyncpg://me:hunter2@host/db", "by psycopg 3.*, not on postgresql\\+asyncpg://"),
        ("postgresql://me:un@hunter2@host/db", "more than one @: in a password it is written %40"),
        ("postgresql://me@host:hunter2/db", "expected something like sqlite:"),
    ],
)
def test_a_url_that_cannot_work_is_explained_without_its_password(wrong: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        warehouse.connect(wrong)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_postgresql_gets_its_own_upsert_and_real_moments() -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    statement = str(warehouse.upsert_statement(warehouse.bars, "postgresql").compile(dialect=dialect))
    assert "ON CONFLICT (symbol, source, interval, time) DO UPDATE" in statement
    assert "bars.close IS DISTINCT FROM excluded.close" in statement
    table = str(CreateTable(warehouse.bars).compile(dialect=dialect))
    assert "time TIMESTAMP WITH TIME ZONE" in table and "close DOUBLE PRECISION" in table


def test_a_bar_without_a_symbol_is_refused(engine: Engine) -> None:
    row = {"symbol": "NOPE", "source": "sample", "interval": "1d", "time": day(1), "volume": 1}
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(insert(warehouse.bars), [row | dict.fromkeys(("open", "high", "low", "close"), 1.0)])


def test_a_wrong_password_is_in_no_error_and_no_log(postgresql: PostgreSQL, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    url = postgresql.url(password="hunter2")
    with pytest.raises(OperationalError, match="password authentication failed") as caught:
        warehouse.connect(url)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value)) + caplog.text


def test_nor_is_a_right_one_when_a_statement_fails(postgresql: PostgreSQL, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with opened(postgresql.new_database()) as engine, pytest.raises(IntegrityError) as caught:
        warehouse.upsert_bars(engine, "AAPL", "sample", bars({"close": None}))
    seen = "".join(traceback.format_exception(caught.value)) + caplog.text + repr(engine) + str(engine.url)
    assert postgresql.password not in seen


def test_a_password_among_the_options_is_hidden_like_any_other() -> None:
    engine = engine_of("postgresql://me@127.0.0.1:9/db?password=hunter2&sslmode=disable")
    assert "hunter2" not in repr(engine) + repr(engine.url) + str(engine.url)
    assert (engine.url.password, dict(engine.url.query)) == ("hunter2", {"sslmode": "disable"})


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_each_way_to_write_postgresql_is_psycopg_3(scheme: str) -> None:
    engine = engine_of(f"{scheme}://me:secret@127.0.0.1:9/db")
    assert engine.driver == "psycopg"


def test_many_symbols_are_one_call_and_a_repeat_changes_nothing(engine: Engine) -> None:
    frames = [("B", bars({}, {})), ("A", bars({}, {}, {})), ("EMPTY", bars({}).head(0))]
    assert warehouse.upsert_bars_of_many(engine, "sample", frames) == 5
    assert warehouse.upsert_bars_of_many(engine, "sample", frames) == 0
    frames[0] = ("B", bars({}, {"close": 10.5}, {}))
    assert warehouse.upsert_bars_of_many(engine, "sample", frames) == 2
    assert everything(engine, "A", "B")["close"].tolist() == [11.0, 11.0, 11.0, 11.0, 10.5, 11.0]


def test_a_batch_is_whole_symbols_and_frames_are_made_when_their_turn_comes() -> None:
    made: list[str] = []

    def frames() -> Iterator[tuple[str, pd.DataFrame]]:
        for symbol in "ABCDE":
            made.append(symbol)
            yield symbol, bars({}, {})

    batches = upserts.in_batches(frames(), rows=5)
    assert list(next(batches)) == ["A", "B"]
    assert made == ["A", "B", "C"]
    assert [list(batch) for batch in batches] == [["C", "D"], ["E"]]


def test_a_symbol_that_comes_twice_is_written_twice_and_the_last_counts(engine: Engine) -> None:
    frames = [("A", bars({}, {})), ("A", bars({"close": 10.5}))]
    assert warehouse.upsert_bars_of_many(engine, "sample", frames) == 3
    assert everything(engine, "A")["close"].tolist() == [10.5, 11.0]


def test_of_two_bars_with_one_time_the_last_counts(engine: Engine) -> None:
    twice = bars({}, {"time": day(1), "close": 10.5})
    assert warehouse.upsert_bars(engine, "A", "sample", twice) == 1
    assert everything(engine, "A")["close"].tolist() == [10.5]


@pytest.mark.parametrize(("given", "kept"), [(7, 7), (7.0, 7), (7.4, 7), (7.6, 8), (3e9, 3_000_000_000)])
def test_a_volume_is_whole_shares(engine: Engine, given: float, kept: int) -> None:
    warehouse.upsert_bars(engine, "A", "sample", bars({"volume": given}))
    assert everything(engine, "A")["volume"].tolist() == [kept]


MISSING = {"time": pd.Series([day(1), pd.NaT]), "close": math.nan, "volume": math.nan}


@pytest.mark.parametrize("column", MISSING)
def test_a_missing_value_is_refused(engine: Engine, column: str) -> None:
    with pytest.raises(IntegrityError):
        warehouse.upsert_bars(
            engine, "A", "sample", bars({}, {}).astype({"volume": float}).assign(**{column: MISSING[column]})
        )
    assert count(engine) == 0


@pytest.mark.parametrize("number", [0.1 + 0.2, math.pi, 5e-324, 1.7976931348623157e308, 123456789.12345679])
def test_a_price_comes_back_to_the_last_bit(engine: Engine, number: float) -> None:
    warehouse.upsert_bars(engine, "A", "sample", bars({"close": number}))
    assert everything(engine, "A")["close"].tolist() == [number]


@pytest.mark.parametrize("symbol", ["BRK.B", 'A"B', "A,B", "A\\B", "\\.", "A'B", "Ä", "%s", "?"])
def test_any_symbol_comes_back_as_it_was(engine: Engine, symbol: str) -> None:
    assert warehouse.upsert_bars(engine, symbol, "sample", bars({}, {})) == 2
    assert warehouse.symbols_of(engine, "sample") == [symbol]
    assert everything(engine, symbol)["symbol"].tolist() == [symbol, symbol]


def test_both_databases_hold_the_same(postgresql: PostgreSQL) -> None:
    found = []
    for url in (IN_MEMORY, postgresql.new_database()):
        with opened(url) as engine:
            warehouse.upsert_bars_of_many(engine, "sample", [("AAPL", apple()), ("A", bars({}, {}))])
            found.append(everything(engine, "AAPL", "A"))
    pd.testing.assert_frame_equal(*found, check_exact=True)


def test_a_part_of_a_password_that_is_not_encoded_reaches_no_message() -> None:
    with pytest.raises(ValueError, match="more than one @") as caught:
        warehouse.connect("postgresql://me:p@ss/hunter2@127.0.0.1:5/db")
    assert "hunter2" not in str(caught.value) and "ss" not in str(caught.value).split("password")[0]
