"""What the smoke run checks, and what it says when something is not as it should be."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest
from prefect.states import Completed, Failed
from sqlalchemy.engine import Engine

from flows.ingestion import end_to_end
from flows.ingestion.end_to_end import Check, checks_of, verdict
from flows.market_data import indicators, warehouse
from flows.market_data.providers import sample

LAST = sample.today()
FIRST = LAST - timedelta(days=365)


@pytest.fixture
def stored(tmp_path: Path) -> Engine:
    """A warehouse that has Apple's year, and its newest indicators."""
    engine = warehouse.connect(f"sqlite:///{tmp_path / 'warehouse.db'}")
    for adjusted in (False, True):
        bars = sample.fetch_bars("AAPL", "1d", FIRST, LAST, adjusted)
        warehouse.upsert_bars(engine, "AAPL", sample.source(adjusted), bars)
    rows = indicators.compute(bars.assign(symbol="AAPL"))
    warehouse.upsert_indicators(engine, "sample_adjusted", rows.tail(1))
    return engine


def wrong(engine: Engine) -> list[str]:
    return [one.check for one in checks_of(engine, ["AAPL"], FIRST, LAST) if not one.passed]


def test_a_load_as_it_should_be_passes_every_check(stored: Engine) -> None:
    assert [one.check for one in checks_of(stored, ["AAPL"], FIRST, LAST)] == [
        "AAPL: bars of sample",
        "AAPL: bars of sample_adjusted",
        "AAPL: trading days",
        "AAPL: sma_20",
    ]
    assert wrong(stored) == []


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("update bars set close = close + 0.01 where source = 'sample' and time like '2013-02-15%'", "bars of sample"),
        ("delete from bars where source = 'sample_adjusted' and time like '2013-03-01%'", "bars of sample_adjusted"),
        ("update indicators set sma_20 = sma_20 * 1.000001", "sma_20"),
        ("update indicators set sma_20 = null", "sma_20"),
        ("delete from indicators", "sma_20"),
    ],
)
def test_each_damage_fails_its_own_check(stored: Engine, damage: str, found: str) -> None:
    with stored.begin() as connection:
        assert connection.exec_driver_sql(damage).rowcount == 1
    assert wrong(stored) == [f"AAPL: {found}"]


def test_a_trading_day_without_a_bar_is_named() -> None:
    bars = sample.fetch_bars("IBM", "1d", FIRST, LAST)
    check = end_to_end.every_day("IBM", bars[bars["time"].dt.date != date(2012, 7, 3)], LAST)
    assert not check.passed and check.detail == "without a bar: 2012-07-03"


def test_the_run_fails_by_one_check_and_says_which() -> None:
    good, bad = Check("a load", True, "done"), Check("an average", False, "1.0, and 2.0")
    assert verdict([good, good]).type == Completed().type and verdict([good, good]).message == "2 of 2 checks passed."
    assert verdict([good, bad]).type == Failed().type
    assert verdict([good, bad]).message == "1 of 2 checks passed. an average: 1.0, and 2.0"


@pytest.mark.parametrize(
    ("own", "other"),
    [
        ("sample-end-to-end", "cleanup"),
        ("sample-end-to-end-qa", "cleanup-qa"),
        ("pr-7-sample-end-to-end", "pr-7-cleanup"),
    ],
)
def test_the_deployment_beside_it_is_that_of_its_own_environment(own: str, other: str) -> None:
    assert end_to_end.beside(own, "cleanup") == other
