"""What was loaded is known: a backfill that was killed goes on with what is missing, and finds whole batches only."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import date
from itertools import count, pairwise
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, select

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


# For each number that it is told: a backfill of six symbols in three batches that kills itself at that step, just before a
# statement or a commit. Says whether there was such a step.
BACKFILLS = """
import os, signal, sys
from sqlalchemy import event
from flows.market_data import upserts, warehouse
from tests.flows.test_warehouse_loads import EVERYONE, frames, load
upserts.BATCH = 4
def backfill(die_at):
    engine, steps = warehouse.connect(sys.argv[1]), iter(range(1000))
    def step(*_):
        if next(steps) == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
    for each in ("before_cursor_execute", "commit"):
        event.listen(engine, each, step)
    warehouse.upsert_bars_of_many(engine, "sample", frames(EVERYONE), loads=[load(symbol) for symbol in EVERYONE])
for line in sys.stdin:
    child = os.fork()
    if not child:
        backfill(int(line))
        os._exit(0)
    print("killed" if os.waitpid(child, 0)[1] == signal.SIGKILL else "not killed", flush=True)
"""
EVERYONE = list("ABCDEF")


def frames(symbols: list[str]) -> list[tuple[str, pd.DataFrame]]:
    return [(symbol, bars({}, {})) for symbol in symbols]


def test_a_backfill_that_is_killed_anywhere_leaves_whole_batches_and_goes_on_with_the_rest(url: str) -> None:
    engine = warehouse.connect(url)
    command = [sys.executable, "-c", BACKFILLS, url]
    left_over = []
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        for step in count():
            emptied(engine)
            print(step, file=process.stdin, flush=True)
            killed = process.stdout.readline() == "killed\n"
            left_over.append(finished(engine))
            if not killed:
                process.stdin.close()
                break
    assert list(dict.fromkeys(left_over)) == ["ABCDEF", "CDEF", "EF", ""]
    engine.dispose()


def finished(engine: Engine) -> str:
    """What the backfill has left to do, after doing it."""
    ranges = warehouse.loaded_ranges(engine, "sample", "1d", EVERYONE)
    left = [symbol for symbol in EVERYONE if not ranges[symbol]]
    there = warehouse.read_bars(engine, "sample", EVERYONE, LONG_AGO, LAST_DAY)
    assert there["symbol"].tolist() == [symbol for symbol in EVERYONE if symbol not in left for _ in range(2)]
    assert warehouse.upsert_bars_of_many(engine, "sample", frames(left)) == 2 * len(left)
    assert len(warehouse.read_bars(engine, "sample", EVERYONE, LONG_AGO, LAST_DAY)) == 12
    return "".join(left)


def emptied(engine: Engine) -> None:
    with engine.begin() as connection:
        for table in reversed(warehouse.metadata.sorted_tables):
            connection.execute(delete(table))


def test_loads_of_the_same_symbols_at_once_do_not_stop_each_other(url: str) -> None:
    engine, together, errors = warehouse.connect(url), threading.Barrier(4), []
    names = [f"S{number}" for number in range(200)]

    def write(seed: int) -> None:
        symbols = random.Random(seed).sample(names, len(names))
        frame = bars({"close": 9.0 + seed})
        together.wait()
        try:
            warehouse.upsert_bars_of_many(engine, "sample", [(symbol, frame) for symbol in symbols])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=[seed]) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert warehouse.symbols_of(engine, "sample") == sorted(names)
    engine.dispose()
