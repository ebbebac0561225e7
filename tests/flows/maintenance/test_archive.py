"""Bars leave the warehouse for files, and come back, the same to the last bit: whatever happens in between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as tries
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, event, select

from flows.market_data import archive, warehouse
from flows.market_data.archive import Damaged, archive_year, found_in, path_of, restore_year
from flows.market_data.models import now
from flows.market_data.places import Place
from flows.market_data.warehouse import ChangedMeanwhile, Year, checksum
from tests.flows.frames import apple, bars

pytest_plugins = ["tests.postgres", "tests.flows.maintenance.s3"]

OF_2012 = Year("sample", "1d", "AAPL", 2012, 250)
FILE = "source=sample/interval=1d/year=2012/symbol=AAPL.parquet"


class Killed(BaseException):
    """Nothing catches it."""


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """With AAPL's bars from 2011, of which 250 are of 2012 and 41 of 2013."""
    engine = warehouse.connect(url)
    warehouse.upsert_bars(engine, "AAPL", "sample", recent())
    yield engine
    engine.dispose()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Engine]:
    engine = warehouse.connect(f"sqlite:///{tmp_path / 'warehouse.db'}")
    warehouse.upsert_bars(engine, "AAPL", "sample", recent())
    yield engine
    engine.dispose()


def recent() -> pd.DataFrame:
    found: pd.DataFrame = apple()[apple()["time"].dt.year >= 2011]
    return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(str(tmp_path / "archive"))


def contents(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(select(warehouse.bars).order_by(*warehouse.bars.primary_key)))


def bars_of(engine: Engine, year: int = 2012) -> pd.DataFrame:
    return warehouse.read_year(engine, "sample", "1d", "AAPL", year)


def all_years(engine: Engine, place: Place, keep_years: int = 1) -> list[archive.Moved]:
    return [archive_year(engine, place, year) for year in warehouse.years_over(engine, keep_years)]


def restored(engine: Engine, place: Place) -> int:
    return sum(restore_year(engine, place, file) for file in found_in(engine, place))


def correct(engine: Engine, close: float = 1.0) -> None:
    """A bar of 2012 comes anew, with another close."""
    frame = recent()[recent()["time"].dt.year == 2012].head(1)
    warehouse.upsert_bars(engine, "AAPL", "sample", frame.assign(close=close))


def forget(engine: Engine, table: Any, *tests: Any) -> None:
    with engine.begin() as connection:
        connection.execute(delete(table).where(*tests))


def test_a_year_is_in_its_file_and_no_longer_in_the_warehouse(engine: Engine, place: Place) -> None:
    expected = bars_of(engine)
    moved = archive_year(engine, place, OF_2012)
    assert (moved.path, moved.rows, moved.written) == (FILE, 250, True)
    assert len(bars_of(engine)) == 0 and len(bars_of(engine, 2013)) == 41
    [noted] = warehouse.archived_years(engine)
    assert noted.verified and noted.deleted
    pd.testing.assert_frame_equal(archive.read(place, noted), expected, check_exact=True, check_dtype=False)


def test_any_reader_of_parquet_reads_the_archive_as_one_table(sqlite: Engine, place: Place) -> None:
    all_years(sqlite, place, keep_years=1)
    warehouse.upsert_bars(sqlite, "BRK.B", "sample", bars({}))
    archive_year(sqlite, place, Year("sample", "1d", "BRK.B", 2010, 1))
    found = pd.read_parquet(place.folder)
    assert set(found.columns) == {*warehouse.BAR, "symbol", "source", "interval", "year"}
    assert found.groupby("symbol", observed=True).size().to_dict() == {"AAPL": 252, "BRK.B": 1}
    assert str(found["time"].dtype) == "datetime64[us, UTC]"


def test_an_archive_is_in_s3_as_it_is_in_a_folder(sqlite: Engine, s3: str) -> None:
    place, before = Place(f"{s3}/archive"), contents(sqlite)
    place.try_to_write()
    assert archive_year(sqlite, place, OF_2012).path == FILE
    assert place.names() == [FILE]
    assert restored(sqlite, place) == 250
    assert contents(sqlite) == before


def test_a_restored_year_that_did_not_change_is_not_written_again(engine: Engine, place: Place) -> None:
    before = contents(engine)
    archive_year(engine, place, OF_2012)
    assert restored(engine, place) == 250
    assert contents(engine) == before
    assert warehouse.archived_years(engine)[0].deleted is None
    assert not archive_year(engine, place, OF_2012).written
    assert len(bars_of(engine)) == 0


def test_a_repeated_restore_changes_nothing(sqlite: Engine, place: Place) -> None:
    archive_year(sqlite, place, OF_2012)
    assert [restored(sqlite, place), restored(sqlite, place)] == [250, 0]


def test_a_corrected_year_is_written_anew(sqlite: Engine, place: Place) -> None:
    archive_year(sqlite, place, OF_2012)
    restored(sqlite, place)
    correct(sqlite)
    assert archive_year(sqlite, place, OF_2012).written
    restored(sqlite, place)
    assert bars_of(sqlite)["close"].tolist()[:1] == [1.0] and len(bars_of(sqlite)) == 250


def test_a_few_bars_that_come_after_do_not_replace_the_many_in_the_file(engine: Engine, place: Place) -> None:
    archive_year(engine, place, OF_2012)
    correct(engine)
    moved = archive_year(engine, place, replace(OF_2012, rows=1))
    assert (moved.rows, moved.written) == (250, True)
    restored(engine, place)
    assert len(bars_of(engine)) == 250
    assert bars_of(engine)["close"].tolist()[:1] == [1.0]  # the warehouse's was the newer


def test_what_retention_deleted_of_a_restored_year_stays_in_the_file(sqlite: Engine, place: Place) -> None:
    before = contents(sqlite)
    archive_year(sqlite, place, OF_2012)
    restored(sqlite, place)
    forget(sqlite, warehouse.bars, warehouse.bars.c.time < datetime(2012, 7, 1, tzinfo=UTC))
    assert archive_year(sqlite, place, OF_2012).rows == 250
    restored(sqlite, place)
    assert contents(sqlite)[-291:] == before[-291:]


def test_a_restore_leaves_what_the_warehouse_has(sqlite: Engine, place: Place) -> None:
    archive_year(sqlite, place, OF_2012)
    correct(sqlite)
    assert restored(sqlite, place) == 249
    assert bars_of(sqlite)["close"].tolist()[:1] == [1.0]


def test_bars_that_change_between_writing_and_deleting_stay(
    engine: Engine, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified = warehouse.mark_verified

    def meanwhile(*arguments: Any) -> Any:
        correct(engine)
        return verified(*arguments)

    monkeypatch.setattr(archive, "mark_verified", meanwhile)
    with pytest.raises(ChangedMeanwhile):
        archive_year(engine, place, OF_2012)
    assert len(bars_of(engine)) == 250
    monkeypatch.undo()
    assert archive_year(engine, place, OF_2012).written
    restored(engine, place)
    assert bars_of(engine)["close"].tolist()[:1] == [1.0]


def broken(kind: str, file: Path) -> None:
    content = file.read_bytes()
    if kind == "missing":
        file.unlink()
        return
    file.write_bytes(
        {"empty": b"", "truncated": content[:-100], "nonsense": b"x" * 5000, "flipped": flipped(content)}[kind]
    )


def flipped(content: bytes) -> bytes:
    middle = len(content) // 3
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


KINDS = ["missing", "empty", "truncated", "nonsense", "flipped"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_not_what_was_written_keeps_the_bars_in_the_warehouse(
    sqlite: Engine, place: Place, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Place.write

    def and_break(self: Place, name: str, content: bytes) -> None:
        write(self, name, content)
        broken(kind, Path(self.at(name)))

    monkeypatch.setattr(Place, "write", and_break)
    with pytest.raises(Damaged, match=r"symbol=AAPL\.parquet (is missing|can't be read|does not hold)"):
        archive_year(sqlite, place, OF_2012)
    assert len(bars_of(sqlite)) == 250
    monkeypatch.undo()
    assert archive_year(sqlite, place, OF_2012).rows == 250


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_broke_later_is_named_and_no_bar_is_lost_over_it(sqlite: Engine, place: Place, kind: str) -> None:
    archive_year(sqlite, place, OF_2012)
    broken(kind, Path(place.at(FILE)))
    with pytest.raises(Damaged, match=r"symbol=AAPL\.parquet (is missing|can't be read|does not hold)"):
        restored(sqlite, place)
    correct(sqlite)
    with pytest.raises(Damaged, match=r"so it is not written over\. Put the file back from a copy"):
        archive_year(sqlite, place, OF_2012)
    assert len(bars_of(sqlite)) == 1
    warehouse.upsert_bars(
        sqlite, "AAPL", "sample", recent()
    )  # the same bars again, of which the ledger has the checksum
    assert archive_year(sqlite, place, OF_2012).written


def test_of_any_broken_bytes_the_bars_are_the_same_or_the_file_is_damaged(sqlite: Engine, place: Place) -> None:
    archive_year(sqlite, place, OF_2012)
    [noted], file = warehouse.archived_years(sqlite), Path(place.at(FILE))
    whole, good = file.read_bytes(), archive.read(place, noted)
    told = 0
    for position in range(0, len(whole), 127):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 0xA5]) + whole[position + 1 :])
        try:
            assert archive.read(place, noted).equals(good)
        except Damaged:
            told += 1
    assert told > len(whole) / 127 * 0.8


def test_a_broken_file_whose_bars_are_all_restored_is_written_anew(sqlite: Engine, place: Place) -> None:
    archive_year(sqlite, place, OF_2012)
    restored(sqlite, place)
    broken("missing", Path(place.at(FILE)))
    correct(sqlite)
    assert archive_year(sqlite, place, OF_2012).written
    assert restored(sqlite, place) == 250


def test_two_archive_runs_at_once_lose_nothing(engine: Engine, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second does all of it while the first is about to delete, and the other way round."""
    before, gone = contents(engine), warehouse.delete_archived

    def another_first(*arguments: Any) -> Any:
        monkeypatch.setattr(archive, "delete_archived", gone)
        archive_year(engine, place, OF_2012)
        return gone(*arguments)

    monkeypatch.setattr(archive, "delete_archived", another_first)
    assert archive_year(engine, place, OF_2012).rows == 250
    assert len(bars_of(engine)) == 0
    assert restored(engine, place) == 250
    assert contents(engine) == before


def test_an_archive_whose_ledger_was_lost_is_put_back_by_what_its_files_say(engine: Engine, place: Place) -> None:
    before = contents(engine)
    all_years(engine, place)
    for table in (warehouse.archive_ledger, warehouse.bars, warehouse.symbols):
        forget(engine, table)
    assert restored(engine, place) == 252
    assert contents(engine) == before[:252]
    assert [noted.rows for noted in warehouse.archived_years(engine)] == [252]


def test_a_file_that_the_ledger_does_not_know_loses_no_bar(sqlite: Engine, place: Place) -> None:
    archive_year(sqlite, place, OF_2012)
    forget(sqlite, warehouse.archive_ledger)
    correct(sqlite)
    assert archive_year(sqlite, place, OF_2012).rows == 250


def test_a_foreign_file_in_a_years_place_is_left_there(sqlite: Engine, place: Place) -> None:
    place.write(FILE, b"a letter")
    with pytest.raises(Damaged, match="can't be read"):
        archive_year(sqlite, place, OF_2012)
    recent().to_parquet(place.at(FILE))
    with pytest.raises(Damaged, match="was not written by this archive"):
        archive_year(sqlite, place, OF_2012)
    archive_year(sqlite, Place(f"{place.url}-2"), Year("sample", "1d", "AAPL", 2011, 252))
    other = Place(f"{place.url}-2").read(FILE.replace("2012", "2011"))
    forget(sqlite, warehouse.archive_ledger)
    place.write(FILE, other)
    with pytest.raises(Damaged, match="is not a file of this archive"):
        archive_year(sqlite, place, OF_2012)
    assert len(bars_of(sqlite)) == 250


@pytest.mark.parametrize("name", ["notes.txt", "source=a/interval=1d/year=x/symbol=A.parquet", "a/b/c/d.parquet"])
def test_other_files_in_the_place_are_not_of_the_archive(sqlite: Engine, place: Place, name: str) -> None:
    place.write(name, b"")
    assert found_in(sqlite, place) == []


ODD = ["BRK.B", "..", "../../../etc/passwd", "A/B", "a", "A", "%2E", "Ä", "A B", "^GSPC", "X=Y", "CON", "\\", "*"]


def test_each_symbol_has_a_file_of_its_own_in_its_folder() -> None:
    paths = [path_of("sample", "1d", symbol, 2012) for symbol in ODD]
    assert len({path.lower() for path in paths}) == len(ODD)
    assert all(path.isascii() and path.count("/") == 3 and "/../" not in path for path in paths)
    assert path_of("../x", "1d", "A", 2012).startswith("source=..%2Fx/")


YEARS = st.lists(
    st.tuples(
        st.sampled_from(ODD),
        st.sampled_from(["sample", "sample_adjusted", "A/../b"]),
        st.sampled_from(["1d", "1h"]),
        st.datetimes(datetime(2008, 12, 30), datetime(2012, 1, 3), timezones=st.just(UTC)),
        st.floats(5e-324, 1.7e308),
        st.integers(0, 2**62),
    ),
    min_size=1,
    max_size=30,
)


@tries(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(found=YEARS)
def test_archived_and_restored_is_the_same_warehouse(
    found: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    engine, place = warehouse.connect("sqlite://"), Place(str(tmp_path_factory.mktemp("archive")))
    for symbol, source, interval, time, close, volume in found:
        frame = bars({"time": time, "close": close, "volume": volume})
        warehouse.upsert_bars(engine, symbol, source, frame, interval)
    before = contents(engine)
    years = warehouse.years_over(engine, 1, date(2012, 1, 1))
    assert sum(moved.rows for moved in all_of(engine, place, years)) == len(before) - len(contents(engine))
    assert all(row.time.year == 2012 for row in contents(engine))
    restored(engine, place)
    assert contents(engine) == before
    assert not any(moved.written for moved in all_of(engine, place, years))
    engine.dispose()


def all_of(engine: Engine, place: Place, years: list[Year]) -> list[archive.Moved]:
    return [archive_year(engine, place, year) for year in years]


class Death:
    """Comes at the so-manieth step: before a statement, before a commit, before and after a file is written."""

    def __init__(self, engine: Engine, patch: pytest.MonkeyPatch, after: int) -> None:
        self.left = after
        write = Place.write

        def written(place: Place, name: str, content: bytes) -> None:
            self.step()
            write(place, name, content)
            self.step()

        patch.setattr(Place, "write", written)
        event.listen(engine, "before_cursor_execute", self.step)
        event.listen(engine, "commit", self.step)
        self.engine = engine

    def step(self, *_: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed

    def end(self) -> None:
        event.remove(self.engine, "before_cursor_execute", self.step)
        event.remove(self.engine, "commit", self.step)


def killed(engine: Engine, place: Place, after: int) -> bool:
    """A corrected year, of which an earlier file has bars that the warehouse has not: every step there is."""
    with pytest.MonkeyPatch.context() as patch:
        death = Death(engine, patch, after)
        try:
            archive_year(engine, place, OF_2012)
        except Killed:
            return True
        finally:
            death.end()
    return False


@pytest.mark.parametrize("again", [False, True], ids=["the first time", "over an earlier file"])
def test_an_archive_that_is_killed_at_any_step_is_finished_by_its_repeat(
    engine: Engine, tmp_path: Path, again: bool
) -> None:
    ends: list[Any] = []
    after = 0
    while not ends or after == len(ends):
        after += 1
        place = Place(str(tmp_path / str(after)))
        begin(engine, place, again)
        if not killed(engine, place, after):
            after = 0
        assert archive_year(engine, place, OF_2012).path == FILE
        [noted] = warehouse.archived_years(engine)
        assert noted.verified and noted.deleted and len(bars_of(engine)) == 0
        ends.append((noted.checksum, noted.rows, checksum(archive.read(place, noted))))
    assert len(ends) > 10
    assert set(ends) == {(ends[0][0], 250, ends[0][0])}


def begin(engine: Engine, place: Place, again: bool) -> None:
    forget(engine, warehouse.archive_ledger)
    warehouse.upsert_bars(engine, "AAPL", "sample", recent())
    if again:
        archive_year(engine, place, OF_2012)
    correct(engine)


def test_what_retention_deletes_between_a_kill_and_the_repeat_stays_in_the_file(sqlite: Engine, place: Place) -> None:
    archive_year(sqlite, place, OF_2012)
    correct(sqlite)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "record_archive", die)  # the new file is there, the ledger has the old one
        with pytest.raises(Killed):
            archive_year(sqlite, place, OF_2012)
    forget(sqlite, warehouse.bars, warehouse.bars.c.time < datetime(2012, 7, 1, tzinfo=UTC))
    assert archive_year(sqlite, place, OF_2012).rows == 250
    restored(sqlite, place)
    assert len(bars_of(sqlite)) == 250 and bars_of(sqlite)["close"].tolist()[:1] == [1.0]


def die(*_: Any) -> None:
    raise Killed


def test_a_year_that_is_not_over_is_not_archived_whatever_is_asked_for(sqlite: Engine) -> None:
    today = now()
    warehouse.upsert_bars(sqlite, "AAPL", "sample", bars({"time": today - timedelta(minutes=1)}))
    years = warehouse.years_over(sqlite, 1, before=date(9999, 12, 31))
    assert {year.year for year in years} == {2011, 2012, 2013}


def test_kept_years_count_from_the_newest_bar_of_each_source(sqlite: Engine) -> None:
    warehouse.upsert_bars(sqlite, "AAPL", "other", bars({}, {"time": datetime(2020, 1, 1, tzinfo=UTC)}))
    found = [(year.source, year.year) for year in warehouse.years_over(sqlite, 1)]
    assert found == [("other", 2010), ("sample", 2011)]
    assert warehouse.years_over(sqlite, 5000) == []


def test_a_bar_of_the_future_lets_no_year_end(sqlite: Engine) -> None:
    warehouse.upsert_bars(sqlite, "AAPL", "sample", bars({"time": datetime(2200, 1, 1, tzinfo=UTC)}))
    assert [year.year for year in warehouse.years_over(sqlite, 1)] == [2011]


def test_an_empty_warehouse_has_no_years() -> None:
    engine = warehouse.connect("sqlite://")
    assert warehouse.years_over(engine, 1) == []
    engine.dispose()


def test_an_evening_in_new_york_is_of_the_next_year_in_utc(engine: Engine, place: Place) -> None:
    """PostgreSQL's sessions are in New York's time here."""
    edge = datetime(2011, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    warehouse.upsert_bars(engine, "EDGE", "x", bars({"time": edge}, {"time": edge + timedelta(microseconds=1)}), "1h")
    years = warehouse.years_over(engine, 1, before=date(2012, 1, 1))
    assert [(year.year, year.rows) for year in years if year.symbol == "EDGE"] == [(2011, 1)]
    archive_year(engine, place, Year("x", "1h", "EDGE", 2011, 1))
    assert warehouse.read_year(engine, "x", "1h", "EDGE", 2012)["time"].tolist() == [edge + timedelta(microseconds=1)]
