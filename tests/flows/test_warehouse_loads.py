"""What was loaded is known: a backfill that was killed goes on with what is missing, and finds whole batches only."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from flows.market_data import warehouse
from flows.market_data.loads import ONE_DAY, Days, merged, missing
from flows.market_data.warehouse import EMPTY, FAILED, LOADED, Load
from tests.flows.frames import LAST_DAY, LONG_AGO, bars, day

pytest_plugins = ["tests.postgres"]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = warehouse.connect(url)
    yield engine
    engine.dispose()


def load(symbol: str = "A", first: int = 1, last: int = 3, status: str = LOADED) -> Load:
    """Of days of January 2010."""
    moment = day(20).to_pydatetime()
    return Load(symbol, "sample", "1d", date(2010, 1, first), date(2010, 1, last), status, moment, moment)


def days(first: int, last: int) -> Days:
    return date(2010, 1, first), date(2010, 1, last)


def done(engine: Engine, symbol: str = "A") -> list[Days]:
    return warehouse.loaded_ranges(engine, "sample", "1d", [symbol])[symbol]


def test_a_load_is_a_row_with_all_that_is_known_of_it(engine: Engine) -> None:
    failed = Load(**{**load(status=FAILED).__dict__, "error": "HTTP 500", "flow_run_id": "0" * 36})
    warehouse.record_load(engine, failed)
    with engine.connect() as connection:
        [row] = connection.execute(select(warehouse.load_runs)).mappings()
    assert dict(row) == {"id": 1, **failed.__dict__}


def test_loaded_days_are_ranges_and_failed_ones_are_not_among_them(engine: Engine) -> None:
    tries = [load(first=1, last=3), load(first=4, last=5), load(first=9, last=9, status=EMPTY)]
    warehouse.record_load(engine, *tries, load(first=7, last=7, status=FAILED), load("B", 1, 30))
    assert done(engine) == [days(1, 5), days(9, 9)]
    assert done(engine, "C") == []


def test_other_sources_and_intervals_are_other_loads(engine: Engine) -> None:
    warehouse.record_load(engine, load())
    assert warehouse.loaded_ranges(engine, "other", "1d", ["A"]) == {"A": []}
    assert warehouse.loaded_ranges(engine, "sample", "1h", ["A"]) == {"A": []}


def test_more_symbols_than_a_statement_takes_are_asked_for_in_handfuls(engine: Engine) -> None:
    warehouse.record_load(engine, load("S4999"))
    found = warehouse.loaded_ranges(engine, "sample", "1d", [f"S{number}" for number in range(5000)])
    assert [symbol for symbol, ranges in found.items() if ranges] == ["S4999"]


@given(
    st.lists(st.tuples(st.integers(1, 31), st.integers(1, 31)).map(sorted), max_size=6),
    st.tuples(st.integers(1, 31), st.integers(1, 31)).map(sorted),
)
def test_what_is_done_and_what_is_missing_are_all_days_and_none_twice(
    loads: list[list[int]], wanted: list[int]
) -> None:
    ranges = merged([days(*each) for each in loads])
    gaps = missing(ranges, *days(*wanted))
    by_hand = {number for number in range(wanted[0], wanted[1] + 1) if not any(a <= number <= b for a, b in loads)}
    found = [number for first, last in gaps for number in range(first.day, last.day + 1)]
    assert found == sorted(by_hand)
    assert all(left[1] + ONE_DAY < right[0] for left, right in pairwise(ranges))


def test_bars_and_the_note_of_their_load_are_written_both_or_neither(engine: Engine) -> None:
    with pytest.raises(Exception, match=r"(?i)null"):
        warehouse.upsert_bars(engine, "A", "sample", bars({"close": None}), load=load())
    assert done(engine) == []
    warehouse.upsert_bars(engine, "A", "sample", bars({}), load=load())
    assert done(engine) == [days(1, 3)]


def test_loads_of_many_go_with_their_batch_and_failed_ones_are_not_forgotten(engine: Engine) -> None:
    loads = [load("A"), load("B"), load("NOPE", status=FAILED)]
    warehouse.upsert_bars_of_many(engine, "sample", [("A", bars({})), ("B", bars({}))], loads=loads)
    with engine.connect() as connection:
        rows = connection.execute(select(warehouse.load_runs.c.symbol, warehouse.load_runs.c.status)).all()
    assert sorted(rows) == [("A", "loaded"), ("B", "loaded"), ("NOPE", "failed")]


# Stands still just before its second batch is committed, with everything written that belongs to it.
BACKFILL = """
import sys
from sqlalchemy import event
from flows.market_data import upserts, warehouse
from tests.flows.frames import bars
from tests.flows.test_warehouse_loads import load
upserts.BATCH = 4
engine = warehouse.connect(sys.argv[1])
commits = []
@event.listens_for(engine, "commit")
def stand_still(connection):
    commits.append(connection)
    if len(commits) == 2:
        print("about to commit", flush=True)
        sys.stdin.read()
symbols = "ABCDEF"
frames = ((symbol, bars({}, {})) for symbol in symbols)
warehouse.upsert_bars_of_many(engine, "sample", frames, loads=[load(symbol) for symbol in symbols])
"""


def test_a_backfill_that_is_killed_leaves_whole_batches_and_goes_on_with_the_rest(url: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", BACKFILL, url], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout and process.stdout.readline() == b"about to commit\n"
        process.send_signal(signal.SIGKILL)
    engine = warehouse.connect(url)
    everyone = list("ABCDEF")
    assert warehouse.symbols_of(engine, "sample") == ["A", "B"]
    left = [
        symbol for symbol, ranges in warehouse.loaded_ranges(engine, "sample", "1d", everyone).items() if not ranges
    ]
    assert left == ["C", "D", "E", "F"]
    assert warehouse.upsert_bars_of_many(engine, "sample", [(symbol, bars({}, {})) for symbol in left]) == 8
    assert len(warehouse.read_bars(engine, "sample", everyone, LONG_AGO, LAST_DAY)) == 12
    engine.dispose()
