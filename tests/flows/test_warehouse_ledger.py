"""The archive's ledger: a bar leaves the warehouse only when the archive has it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pandas as pd
import pytest
from sqlalchemy import Engine

from flows.market_data import warehouse
from flows.market_data.models import now
from flows.market_data.warehouse import Archived, ChangedMeanwhile, Year, checksum
from tests.flows.frames import LAST_DAY, LONG_AGO, apple, bars

pytest_plugins = ["tests.postgres"]

YEAR = ("sample", "1d", "AAPL", 2012)


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """With every bar of AAPL, 3,270 of them, of which 250 are of 2012."""
    engine = warehouse.connect(url)
    warehouse.upsert_bars(engine, "AAPL", "sample", apple())
    yield engine
    engine.dispose()


def archived(engine: Engine) -> Archived:
    """As an archive does it, without the file."""
    frame = warehouse.read_year(engine, *YEAR)
    noted = Archived(*YEAR, "2012/AAPL.parquet", len(frame), checksum(frame), written=now())
    warehouse.record_archive(engine, noted)
    return noted


def left(engine: Engine) -> int:
    return len(warehouse.read_bars(engine, "sample", ["AAPL"], LONG_AGO, LAST_DAY))


def test_a_year_is_from_midnight_to_midnight_in_utc(engine: Engine) -> None:
    edges = [datetime(2011, 12, 31, 23, 59, tzinfo=UTC), datetime(2012, 1, 1, tzinfo=UTC)]
    warehouse.upsert_bars(engine, "EDGE", "sample", bars(*({"time": edge} for edge in edges)), "1h")
    found = warehouse.read_year(engine, "sample", "1h", "EDGE", 2012)
    assert found["time"].tolist() == edges[1:]
    years = warehouse.years_of(engine, "sample", "1h", before=datetime(2013, 1, 1, tzinfo=UTC))
    assert years == [Year("sample", "1h", "EDGE", 2011, 1), Year("sample", "1h", "EDGE", 2012, 1)]


def test_only_years_that_are_over_are_offered(engine: Engine) -> None:
    years = warehouse.years_of(engine, "sample", "1d", before=datetime(2012, 12, 31, tzinfo=UTC))
    assert [year.year for year in years] == list(range(2000, 2012))
    assert sum(year.rows for year in years) == (apple()["time"].dt.year < 2012).sum()


def test_what_was_archived_verified_and_deleted_can_be_put_back(engine: Engine) -> None:
    frame = warehouse.read_year(engine, *YEAR)
    verified = warehouse.mark_verified(engine, archived(engine))
    gone = warehouse.delete_archived(engine, verified)
    assert left(engine) == 3270 - 250
    assert warehouse.archived_years(engine) == [gone]
    assert warehouse.restore_archived(engine, gone, frame) == 250
    assert left(engine) == 3270
    assert warehouse.archived_years(engine) == [replace(gone, deleted=None)]


def test_bars_whose_file_was_not_read_back_stay(engine: Engine) -> None:
    with pytest.raises(ValueError, match="was not read back yet"):
        warehouse.delete_archived(engine, archived(engine))
    assert left(engine) == 3270


def test_bars_that_changed_since_they_were_archived_stay(engine: Engine) -> None:
    verified = warehouse.mark_verified(engine, archived(engine))
    corrected = warehouse.read_year(engine, *YEAR).head(1).assign(close=1.0)
    warehouse.upsert_bars(engine, "AAPL", "sample", corrected)
    with pytest.raises(ChangedMeanwhile, match="250 bars are not those of the archive"):
        warehouse.delete_archived(engine, verified)
    assert left(engine) == 3270
    assert warehouse.archived_years(engine)[0].deleted is None


def test_a_file_that_was_written_anew_meanwhile_is_not_the_one_that_was_verified(engine: Engine) -> None:
    noted = archived(engine)
    warehouse.record_archive(engine, replace(noted, checksum="0" * 64))
    with pytest.raises(ChangedMeanwhile, match=r"no longer has 2012/AAPL\.parquet"):
        warehouse.mark_verified(engine, noted)


def test_a_file_with_other_bars_is_not_put_back(engine: Engine) -> None:
    noted = archived(engine)
    with pytest.raises(ValueError, match="does not hold the 250 bars"):
        warehouse.restore_archived(engine, noted, warehouse.read_year(engine, *YEAR).head(249))


def test_an_archive_that_is_noted_twice_is_there_once(engine: Engine) -> None:
    noted = archived(engine)
    warehouse.record_archive(engine, noted)
    assert warehouse.archived_years(engine, source="sample", interval="1d", symbol="AAPL") == [noted]
    assert warehouse.archived_years(engine, symbol="IBM") == []


def test_a_checksum_is_of_the_bars_and_not_of_how_they_came() -> None:
    frame = apple()
    shuffled = frame.sample(frac=1, random_state=1).assign(time=lambda each: each["time"].astype("datetime64[ns, UTC]"))
    assert checksum(frame) == checksum(shuffled) == checksum(frame.astype({"volume": float}))
    nudged = frame.assign(close=frame["close"].where(frame.index != 7, frame["close"] + 1e-12))
    assert checksum(nudged) != checksum(frame) != checksum(frame.tail(-1))


def test_the_checksum_of_the_warehouse_is_that_of_the_frame(engine: Engine) -> None:
    of_2012 = apple()[apple()["time"].dt.year == 2012]
    assert checksum(warehouse.read_year(engine, *YEAR)) == checksum(of_2012)
    assert warehouse.delete_year(engine, *YEAR, expected=checksum(of_2012)) == 250
    assert isinstance(warehouse.read_year(engine, *YEAR), pd.DataFrame)
    assert len(warehouse.read_year(engine, *YEAR)) == 0
