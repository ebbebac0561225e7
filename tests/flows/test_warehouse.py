"""The warehouse on SQLite: loads can be repeated, times are UTC, a batch is written whole or not at all."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, insert, inspect, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.schema import CreateTable

from flows.market_data import warehouse
from flows.market_data.indicators import compute
from tests.flows.frames import LAST_DAY, LONG_AGO, apple, bars, day

IN_MEMORY = "sqlite://"


@pytest.fixture
def engine() -> Iterator[Engine]:
    with opened() as engine:
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


@settings(max_examples=25, deadline=None)
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
    assert warehouse.series(engine, keep_days=1) == []


def test_a_load_that_fails_in_its_last_row_leaves_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warehouse, "BATCH", 2)
    with pytest.raises(IntegrityError):
        warehouse.upsert_bars(engine, "AAPL", "sample", bars({}, {}, {}, {}, {"close": None}))
    assert count(engine) == 0


def test_a_load_of_many_batches_counts_all_of_them(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warehouse, "BATCH", 100)
    assert warehouse.upsert_bars(engine, "AAPL", "sample", apple()) == 3270
    assert count(engine) == 3270


def test_a_time_in_another_zone_is_the_same_moment_in_utc(engine: Engine) -> None:
    opening = datetime(2010, 7, 1, 9, 30, tzinfo=ZoneInfo("America/New_York"))
    warehouse.upsert_bars(engine, "AAPL", "sample", bars({"time": opening}))
    [time] = everything(engine)["time"]
    assert time == opening
    assert time.isoformat() == "2010-07-01T13:30:00+00:00"


def test_a_time_without_a_zone_is_refused(engine: Engine) -> None:
    with pytest.raises(StatementError, match="has no time zone"):
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


def test_age_counts_from_the_newest_bar_of_each_source(engine: Engine) -> None:
    warehouse.upsert_bars(engine, "AAPL", "stopped", bars({}, {}, {}))
    warehouse.upsert_bars(engine, "AAPL", "living", bars({}, {"time": datetime(2030, 1, 1, tzinfo=UTC)}))
    living, stopped = warehouse.series(engine, keep_days=2)
    assert (living.source, living.old_bars) == ("living", 1)
    assert (stopped.source, stopped.old_bars) == ("stopped", 0)
    assert warehouse.delete_old_bars(engine, living) == 1
    assert [one.old_bars for one in warehouse.series(engine, keep_days=2)] == [0, 0]
    assert count(engine) == 4


def test_two_runs_that_start_at_once_make_one_warehouse(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new' / 'folder' / 'warehouse.db'}"
    together, errors = threading.Barrier(4), []

    def start(number: int) -> None:
        together.wait()
        try:
            with opened(url) as engine:
                warehouse.upsert_bars(engine, f"S{number}", "sample", bars({}, {}))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=start, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with opened(url) as engine:
        assert warehouse.symbols_of(engine, "sample") == ["S0", "S1", "S2", "S3"]
        assert set(inspect(engine).get_table_names()) == {"symbols", "bars", "indicators"}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("hunter2", "expected something like sqlite:"),
        ("nosuch://me:hunter2@host/db", "can be on sqlite or postgresql, not on nosuch"),
        ("mysql://me:hunter2@host/db", "can be on sqlite or postgresql, not on mysql"),
        ("postgresql+nosuch://me:hunter2@host/db", "expected something like sqlite:"),
        ("postgresql+pg8000://me:hunter2@host/db", "needs the package 'pg8000'"),
    ],
)
def test_a_url_that_cannot_work_is_explained_without_its_password(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        warehouse.connect(url)
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
