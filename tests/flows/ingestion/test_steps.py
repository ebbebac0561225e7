"""One series into the warehouse, without Prefect."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from flows.ingestion import steps
from flows.ingestion.loading import done_of, load_symbol, wanted
from flows.ingestion.orders import Order
from flows.ingestion.outcomes import Outcome
from flows.ingestion.steps import Run
from flows.market_data import providers, warehouse
from flows.market_data.providers import errors, sample
from tests.flows.ingestion.stock import Stock

MONDAY, WEDNESDAY, THURSDAY, FRIDAY = (date(2024, 7, day) for day in (1, 3, 4, 5))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(f"sqlite:///{tmp_path / 'warehouse.db'}", Stock(), id="run-1")
    warehouse.upgrade(run.engine)
    yield run
    run.engine.dispose()


def load(run: Run, first: date, last: date, symbol: str = "AAA", incremental: bool = True) -> Outcome:
    """What the task does, without Prefect."""
    orders = wanted(run, [symbol], first, last, ["1d"], incremental)[symbol]
    return load_symbol.fn(run, symbol, orders)


def stock(run: Run) -> Stock:
    assert isinstance(run.provider, Stock)
    return run.provider


def rows(run: Run, query: str) -> list[tuple[Any, ...]]:
    with run.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def test_a_load_stores_both_series_and_notes_each_with_its_flow_run(run: Run) -> None:
    found = load(run, MONDAY, FRIDAY)
    assert (found.bars, found.changed, found.first, found.last) == (10, 10, MONDAY, FRIDAY)
    assert rows(run, "select source, status, rows, flow_run_id, error from load_runs order by id") == [
        ("stock", "loaded", 5, "run-1", None),
        ("stock_adjusted", "loaded", 5, "run-1", None),
    ]


def test_what_is_loaded_is_not_fetched_again_unless_all_is_wanted(run: Run) -> None:
    load(run, MONDAY, WEDNESDAY)
    stock(run).asked.clear()
    assert load(run, MONDAY, WEDNESDAY) == Outcome("AAA")
    assert stock(run).asked == []
    assert load(run, MONDAY, WEDNESDAY, incremental=False).changed == 0
    assert len(stock(run).asked) == 2


def test_a_day_that_is_not_over_is_stored_and_counts_as_missing(run: Run) -> None:
    early = Run(run.url, run.provider, over=THURSDAY)
    assert load(early, MONDAY, FRIDAY).bars == 10
    assert done_of(early, ["AAA"], ["1d"])[False, "1d"] == {"AAA": [(MONDAY, THURSDAY)]}
    assert load(early, MONDAY, FRIDAY).bars == 2
    assert rows(run, "select distinct status, first, last from load_runs where id > 2") == [
        ("early", "2024-07-05", "2024-07-05")
    ]


def test_the_days_after_a_split_bring_the_whole_adjusted_series_anew(run: Run) -> None:
    load(run, MONDAY, WEDNESDAY)
    stock(run).factor = 0.5
    found = load(run, THURSDAY, FRIDAY)
    assert (found.bars, found.changed) == (2 + 5, 2 + 5)
    closes = "select close from bars where source = 'stock_adjusted' order by time"
    assert [close for (close,) in rows(run, closes)] == [(13.0 + day) * 0.5 for day in range(183, 188)]
    assert rows(run, "select first, last from load_runs order by id desc limit 1") == [("2024-07-01", "2024-07-05")]


def test_the_day_beside_is_compared_and_not_counted(run: Run) -> None:
    load(run, MONDAY, WEDNESDAY)
    stock(run).asked.clear()
    assert load(run, THURSDAY, FRIDAY).bars == 4
    assert stock(run).asked == [("AAA", False, WEDNESDAY, FRIDAY), ("AAA", True, WEDNESDAY, FRIDAY)]
    assert steps.beside(run.engine, "stock", Order("AAA", "1d", False, date(2024, 6, 3), date(2024, 6, 4))) is not None


def test_hours_have_no_day_beside_since_a_provider_does_not_keep_them_all(run: Run) -> None:
    load(run, MONDAY, WEDNESDAY)
    assert steps.beside(run.engine, "stock", Order("AAA", "1h", False, THURSDAY, FRIDAY)) is None


def test_a_symbol_that_was_delisted_is_said_to_be_so_although_the_day_beside_is_there(run: Run) -> None:
    load(run, MONDAY, WEDNESDAY)

    class Delisted(Stock):
        def fetch_bars(self, symbol: str, interval: str, start: date, end: date, adjusted: bool = False) -> Any:
            if start > WEDNESDAY:
                raise errors.unknown("stock", symbol)
            return super().fetch_bars(symbol, interval, start, min(end, WEDNESDAY), adjusted)

    with pytest.raises(errors.UnknownSymbol):
        load(Run(run.url, Delisted()), THURSDAY, FRIDAY)


def test_days_without_bars_are_noted_as_empty_and_not_asked_for_again(run: Run) -> None:
    class Empty(Stock):
        def fetch_bars(self, *_: Any, **__: Any) -> Any:
            return providers.no_bars()

    empty = Run(run.url, Empty())
    assert load(empty, MONDAY, FRIDAY).status == "no bars"
    assert wanted(empty, ["AAA"], MONDAY, FRIDAY, ["1d"], incremental=True) == {"AAA": []}


def test_each_try_that_fails_is_noted_with_its_error_and_its_days_are_missing_still(run: Run) -> None:
    stock(run).failing.append(errors.down("stock", "/bars", "status 502"))
    with pytest.raises(errors.ProviderDown):
        load(run, MONDAY, FRIDAY)
    [(status, error)] = rows(run, "select status, error from load_runs")
    assert status == "failed" and "status 502" in error
    assert load(run, MONDAY, FRIDAY).bars == 10


def test_a_series_without_one_good_bar_is_no_load(run: Run) -> None:
    broken = Run(run.url, Stock(broken=frozenset(["AAA"])))
    with pytest.raises(ValueError, match=r"All 5 bars of AAA were rejected: 5 high below low\."):
        load(broken, MONDAY, FRIDAY)
    assert rows(run, "select status from load_runs") == [("failed",)]
    assert rows(run, "select count(*) from bars") == [(0,)]


def test_a_run_goes_to_another_process_and_shows_no_password(tmp_path: Path) -> None:
    run = Run("postgresql://me:hunter2@host/db", Stock())
    assert "hunter2" not in repr(run)
    assert pickle.loads(pickle.dumps(run)).url == run.url


def test_the_samples_own_days_are_over_although_they_are_its_today() -> None:
    assert Run("sqlite://", sample).over > sample.today()
