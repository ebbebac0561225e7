"""What is too old goes, in whole batches, and is forgotten as loaded; what is not stays, whatever stopped."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as st
from sqlalchemy import Engine, Table, func, select

from flows.market_data import retention, warehouse
from flows.market_data.indicators import BARS_NEEDED
from flows.market_data.models import now
from flows.market_data.warehouse import EMPTY, FAILED, LOADED, Load, Series
from tests.flows.frames import bars, day

pytest_plugins = ["tests.postgres"]

EARLY = "early"
FOREVER = 100_000


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = warehouse.connect(url)
    yield engine
    engine.dispose()


@pytest.fixture
def sqlite() -> Iterator[Engine]:
    engine = warehouse.connect("sqlite://")
    yield engine
    engine.dispose()


def count(engine: Engine, of: Table = warehouse.bars) -> int:
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(of)) or 0


def daily(number: int) -> pd.DataFrame:
    """So many days from 1 January 2010."""
    times = pd.date_range(day(1), periods=number, freq="D")
    return bars({}).drop(columns="time").merge(pd.DataFrame({"time": times}), how="cross")


def indicators(engine: Engine, symbol: str, number: int) -> None:
    frame = daily(number)[["time"]].assign(symbol=symbol, **dict.fromkeys(BARS_NEEDED, 1.0))
    warehouse.upsert_indicators(engine, "sample", frame)


def clean(engine: Engine, keep_days: int) -> int:
    return sum(sum(retention.delete_old(engine, old)) for old in warehouse.series(engine, {}, keep_days))


def load(first: int, last: int, status: str = LOADED, age: int = 1000, **others: Any) -> Load:
    """Of days of January 2010; it ended so many days ago."""
    then = now() - timedelta(days=age)
    key = {"symbol": "A", "source": "sample", "interval": "1d", **others}
    return Load(first=date(2010, 1, first), last=date(2010, 1, last), status=status, started=then, ended=then, **key)


def done(engine: Engine) -> list[tuple[date, date]]:
    return warehouse.loaded_ranges(engine, "sample", "1d", ["A"])["A"]


def test_age_counts_from_the_newest_bar_of_each_source(engine: Engine) -> None:
    warehouse.upsert_bars(engine, "AAPL", "stopped", bars({}, {}, {}))
    warehouse.upsert_bars(engine, "AAPL", "living", bars({}, {"time": datetime(2020, 1, 1, tzinfo=UTC)}))
    living, stopped = warehouse.series(engine, {}, 2)
    assert (living.source, living.old_bars) == ("living", 1)
    assert (stopped.source, stopped.old_bars) == ("stopped", 0)
    assert clean(engine, 2) == 1
    assert [one.old_bars for one in warehouse.series(engine, {}, 2)] == [0, 0]
    assert count(engine) == 4


def test_each_interval_has_its_own_age(sqlite: Engine) -> None:
    for interval in ("1d", "1h", "1m"):
        warehouse.upsert_bars(sqlite, "A", "sample", daily(31), interval)
    found = warehouse.series(sqlite, {"1h": 10, "1m": 1}, 20)
    assert [(one.interval, one.old_bars) for one in found] == [("1d", 10), ("1h", 20), ("1m", 29)]


def test_a_bar_of_the_future_makes_nothing_old(sqlite: Engine) -> None:
    warehouse.upsert_bars(sqlite, "A", "sample", pd.concat([daily(5), bars({"time": now() + timedelta(days=9999)})]))
    assert clean(sqlite, 4) == 0
    assert clean(sqlite, 3) == 1


def test_a_day_is_kept_from_midnight_in_utc(engine: Engine) -> None:
    edges = [datetime(2010, 1, 1, 23, 59, tzinfo=UTC), datetime(2010, 1, 2, tzinfo=UTC)]
    newest = datetime(2010, 1, 4, 23, 30, tzinfo=UTC)
    warehouse.upsert_bars(engine, "A", "sample", bars(*({"time": time} for time in [*edges, newest])))
    assert clean(engine, 2) == 1
    left = warehouse.read_year(engine, "sample", "1d", "A", 2010)
    assert left["time"].tolist() == [edges[1], newest]


def test_indicators_leave_with_their_bars(sqlite: Engine) -> None:
    warehouse.upsert_bars(sqlite, "A", "sample", daily(9))
    indicators(sqlite, "A", 9)
    [old] = warehouse.series(sqlite, {}, 5)
    assert (old.old_bars, old.old_indicators) == (3, 3)
    assert list(retention.delete_old(sqlite, old)) == [3, 3]
    assert (count(sqlite), count(sqlite, warehouse.indicators)) == (6, 6)


def test_many_old_bars_go_in_batches_and_a_repeat_finds_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 10)
    warehouse.upsert_bars_of_many(
        engine, "sample", [("A", daily(40)), ("B", daily(5)), ("C", daily(4)), ("D", daily(40))]
    )
    [old] = warehouse.series(engine, {}, 1)
    batches = list(retention.delete_old(engine, old))
    assert sum(batches) == old.old_bars == 38 + 5 + 4 + 38
    assert len(batches) > 6 and max(batches) <= 11
    assert list(retention.delete_old(engine, old)) == []


def test_a_cleanup_that_is_killed_leaves_whole_batches_and_its_repeat_does_the_rest(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 10)
    warehouse.upsert_bars(engine, "A", "sample", daily(40), load=load(1, 31))
    indicators(engine, "A", 40)
    [old] = warehouse.series(engine, {}, 1)
    batches = retention.delete_old(engine, old)
    gone = [next(batches) for _ in range(5)]
    del batches  # killed
    assert count(engine) + count(engine, warehouse.indicators) == 80 - sum(gone)
    assert done(engine) == []  # what may be gone is not taken for loaded
    assert sum(gone) + clean(engine, 1) == 2 * 38
    assert (count(engine), count(engine, warehouse.indicators)) == (2, 2)


def test_deleted_days_are_fetched_again_by_a_backfill_that_is_asked_for_them(engine: Engine) -> None:
    warehouse.upsert_bars(engine, "A", "sample", daily(20), load=load(1, 20))
    clean(engine, 10)
    assert done(engine) == [(date(2010, 1, 10), date(2010, 1, 20))]
    assert warehouse.missing(done(engine), date(2010, 1, 1), date(2010, 1, 20)) == [
        (date(2010, 1, 1), date(2010, 1, 9))
    ]


def test_days_without_bars_are_forgotten_with_those_that_had_some(sqlite: Engine) -> None:
    warehouse.record_load(sqlite, load(1, 3, EMPTY), load(4, 8, EMPTY))
    warehouse.upsert_bars(sqlite, "A", "sample", daily(9))
    clean(sqlite, 3)
    assert done(sqlite) == [(date(2010, 1, 6), date(2010, 1, 8))]


@pytest.mark.parametrize("others", [{"source": "other"}, {"interval": "1h"}])
def test_other_series_notes_are_left_alone(sqlite: Engine, others: dict[str, Any]) -> None:
    warehouse.record_load(sqlite, load(1, 3, **others))
    warehouse.upsert_bars(sqlite, "A", "sample", daily(9))
    clean(sqlite, 1)
    key = {"source": "sample", "interval": "1d", **others}
    assert warehouse.loaded_ranges(sqlite, key["source"], key["interval"], ["A"])["A"] == [
        (date(2010, 1, 1), date(2010, 1, 3))
    ]


def test_an_age_beyond_all_calendars_keeps_everything(sqlite: Engine) -> None:
    warehouse.upsert_bars(sqlite, "A", "sample", daily(3))
    assert clean(sqlite, 10_000_000) == 0


def test_an_empty_warehouse_has_nothing_to_clean(sqlite: Engine) -> None:
    assert warehouse.series(sqlite, {}, 1) == []
    assert warehouse.old_notes(sqlite, 1) == []


def tidied(engine: Engine, keep_days: int = 365) -> int:
    return sum(sum(warehouse.tidy_notes(engine, old, keep_days)) for old in warehouse.old_notes(engine, keep_days))


def test_old_failures_go_and_young_ones_stay(sqlite: Engine) -> None:
    warehouse.record_load(sqlite, load(1, 1, FAILED), load(2, 2, EARLY), load(3, 3, FAILED, age=3))
    [old] = warehouse.old_notes(sqlite, 365)
    assert (old.forgotten, old.merged) == (2, 0)
    assert tidied(sqlite) == 2
    assert count(sqlite, warehouse.load_runs) == 1


def test_old_loads_that_are_done_are_told_by_one_note(engine: Engine) -> None:
    loads = [load(1, 3, rows=3, flow_run_id="x"), load(4, 6, EMPTY, flow_run_id="x"), load(9, 9, rows=1)]
    warehouse.record_load(engine, *loads, load(7, 8, age=3))
    assert tidied(engine) == 1
    with engine.connect() as connection:
        run = warehouse.load_runs.c
        found = connection.execute(select(run.first, run.status, run.rows, run.flow_run_id).order_by(run.first)).all()
    assert [tuple(row) for row in found] == [
        (date(2010, 1, 1), LOADED, 3, "x"),
        (date(2010, 1, 7), LOADED, 0, None),
        (date(2010, 1, 9), LOADED, 1, None),
    ]
    assert done(engine) == [(date(2010, 1, 1), date(2010, 1, 9))]


NOTES = st.tuples(
    st.integers(1, 20), st.integers(0, 11), st.sampled_from([LOADED, EMPTY, FAILED, EARLY]), st.sampled_from([1, 1000])
)


@tries(max_examples=40)
@given(notes=st.lists(NOTES, max_size=12))
def test_whatever_is_tidied_what_need_not_be_fetched_again_stays_the_same(
    notes: list[tuple[int, int, str, int]],
) -> None:
    engine = warehouse.connect("sqlite://")
    loads = [load(first, first + more, status, age) for first, more, status, age in notes]
    warehouse.record_load(engine, *loads)
    before, counted = done(engine), sum(old.rows for old in warehouse.old_notes(engine, 365))
    assert tidied(engine) == counted == len(loads) - count(engine, warehouse.load_runs)
    assert done(engine) == before
    assert tidied(engine) == 0
    engine.dispose()


def test_a_deletion_that_fails_takes_nothing_with_it(sqlite: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    warehouse.record_load(sqlite, load(1, 3), load(4, 6))
    monkeypatch.setattr(retention, "insert", None)  # between deleting the old notes and writing the new one
    with pytest.raises(TypeError):
        tidied(sqlite)
    assert count(sqlite, warehouse.load_runs) == 2


def test_a_series_says_what_it_is(sqlite: Engine) -> None:
    warehouse.upsert_bars(sqlite, "A", "sample", daily(3))
    midnights = datetime(2010, 1, 3, tzinfo=UTC), datetime(2010, 1, 2, tzinfo=UTC)
    assert warehouse.series(sqlite, {}, 1) == [Series("sample", "1d", *midnights, old_bars=1)]


def test_for_ever_may_be_any_number_of_days(tmp_path: Path) -> None:
    engine = warehouse.connect(f"sqlite:///{tmp_path / 'warehouse.db'}")
    assert retention.old_notes(engine, 999_999) == []
