"""Old years of bars from the warehouse into files, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from typing import TYPE_CHECKING, Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.futures import wait
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import PositiveInt

from flows import settings
from flows.market_data import archive, warehouse
from flows.market_data.archive import Damaged
from flows.market_data.places import Place
from flows.market_data.symbols import Symbol
from flows.market_data.warehouse import Archived, Year
from flows.retries import TRIES_AGAIN

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

SYMBOLS_AT_A_TIME = 4
SYMBOLS_IN_HAND = 100  # submitted together: in between others may write, and the log tells how far it is
FAILURES_SHOWN = 500  # a table should stay small enough for a page

Line = dict[str, Any]
Key = tuple[str, str, str]
"""Source, interval, symbol."""


@dataclass(frozen=True)
class Choice:
    """Which years are meant; None is all."""

    symbols: Sequence[str] | None = None
    sources: Sequence[str] | None = None
    intervals: Sequence[str] | None = None
    first_year: int | None = None
    last_year: int | None = None

    def has(self, one: Year | Archived) -> bool:
        pairs = (one.symbol, self.symbols), (one.source, self.sources), (one.interval, self.intervals)
        after, before = one.year >= (self.first_year or 0), one.year <= (self.last_year or 9999)
        return after and before and all(of is None or value in of for value, of in pairs)


@task(**TRIES_AGAIN)
def years_to_archive(engine: Engine, keep_years: int, before: date | None, choice: Choice) -> list[Year]:
    return [year for year in warehouse.years_over(engine, keep_years, before) if choice.has(year)]


@task(task_run_name="archive {years[0].symbol}", **TRIES_AGAIN)
def archive_symbol(engine: Engine, place: Place, years: Sequence[Year]) -> list[Line]:
    """One year after the other. What fails leaves its bars in the warehouse, and the other years alone."""
    return each_year(years, lambda year: moved(archive.archive_year(engine, place, year)))


@task(task_run_name="restore {files[0].symbol}", **TRIES_AGAIN)
def restore_symbol(engine: Engine, place: Place, files: Sequence[Archived], dry_run: bool) -> list[Line]:
    return each_year(files, lambda file: put_back(engine, place, file, dry_run))


def each_year(years: Sequence[Any], do: Callable[[Any], Line]) -> list[Line]:
    """A damaged file stays damaged: it is a line of the table. What another try may mend fails the task."""
    lines = []
    for year in years:
        try:
            lines.append({**line(year), **do(year)})
        except Damaged as error:
            get_run_logger().error("%s", error)
            lines.append({**line(year), "error": str(error)})
    return lines


def moved(one: archive.Moved) -> Line:
    return {"bars": one.rows, "file": one.path, "state": "written" if one.written else "was there"}


def put_back(engine: Engine, place: Place, file: Archived, dry_run: bool) -> Line:
    if dry_run:
        return {"bars": archive.look(place, file).rows, "file": file.path, "state": "sound"}
    return {"bars": archive.restore_year(engine, place, file), "file": file.path, "state": "restored"}


def line(year: Year | Archived) -> Line:
    key = {"source": year.source, "interval": year.interval, "symbol": year.symbol, "year": year.year}
    return {**key, "bars": 0, "file": "", "state": "failed", "error": ""}


def by_symbol(years: Sequence[Any]) -> dict[Key, list[Any]]:
    def key(one: Any) -> Key:
        return one.source, one.interval, one.symbol

    return {of: list(some) for of, some in groupby(sorted(years, key=lambda one: (*key(one), one.year)), key=key)}


def in_hand(years: Mapping[Key, list[Any]]) -> Iterator[list[list[Any]]]:
    groups = list(years.values())
    for start in range(0, len(groups), SYMBOLS_IN_HAND):
        yield groups[start : start + SYMBOLS_IN_HAND]


def work(years: Sequence[Any], submit: Callable[[list[Any]], Any], writes: bool = True) -> list[Line]:
    """A task a symbol, some symbols at a time. The failure of one leaves the others alone."""
    lines: list[Line] = []
    for some in in_hand(by_symbol(years)):
        with settings.turn_to_write() if writes else nullcontext():
            futures = [submit(of_symbol) for of_symbol in some]
            wait(futures)
        for of_symbol, future in zip(some, futures, strict=True):
            answer = future.result(raise_on_failure=False)
            failed = isinstance(answer, BaseException)
            lines += [{**line(one), "error": said(answer)} for one in of_symbol] if failed else answer
        get_run_logger().info("%s of %s years are through", f"{len(lines):,}", f"{len(years):,}")
    return lines


def said(error: BaseException) -> str:
    return str(error) or type(error).__name__


def publish(key: str, lines: Sequence[Line], title: str) -> None:
    """What failed, and a line for each source, interval and year of what did not: the years of many symbols are many."""
    bad = [one for one in lines if one["error"]][:FAILURES_SHOWN]
    create_table_artifact(
        key=key, table=[*bad, *summary([one for one in lines if not one["error"]])], description=title
    )


def summary(lines: Sequence[Line]) -> list[Line]:
    def key(one: Line) -> tuple[Any, ...]:
        return one["source"], one["interval"], one["year"], one["state"]

    return [
        {
            "source": source,
            "interval": interval,
            "year": year,
            "state": state,
            "symbols": len(some),
            "bars": total(some),
        }
        for (source, interval, year, state), grouped in groupby(sorted(lines, key=key), key=key)
        if (some := list(grouped))
    ]


def total(lines: Sequence[Line]) -> int:
    return sum(one["bars"] for one in lines)


def verdict(lines: Sequence[Line], sentence: str) -> State:
    bad = [one for one in lines if one["error"]]
    if not bad:
        return Completed(message=sentence)
    return Failed(message=f"{sentence} {len(bad)} failed, the first: {bad[0]['error']}")


@flow(task_runner=ThreadPoolTaskRunner(max_workers=SYMBOLS_AT_A_TIME))  # type: ignore[arg-type]  # Prefect's own generics
def archive_bars(
    keep_years: PositiveInt = 2,
    before: date | None = None,
    symbols: list[Symbol] | None = None,
    sources: list[str] | None = None,
    intervals: list[str] | None = None,
    url: str | None = None,
    dry_run: bool = True,
) -> State:
    """Move years of bars that are over from the warehouse into Parquet files.

    A year of a symbol is written, read back, compared, and only then deleted. Start it again after it was killed: it goes on
    where it was. A year whose file can't be read back stays in the warehouse, and the run fails.

    Args:
        keep_years: So many calendar years stay besides the one of the newest bar of each source and interval: a feed that
            has stopped must not empty the warehouse. The indicators read 300 days back.
        before: Instead: the years that were over on this day, and are over today. Years are in UTC.
        symbols: Only these.
        sources: Only these. Adjusted prices change with each split: in the archive they stay as they were.
        intervals: Only these.
        url: A folder, or s3://bucket/prefix. Default: what the Prefect variable archive_url says.
        dry_run: Count only.
    """
    engine = warehouse.connect(settings.warehouse_url())
    years = years_to_archive(engine, keep_years, before, Choice(symbols, sources, intervals))
    if dry_run:
        lines = [{**line(year), "bars": year.rows, "state": "to be archived"} for year in years]
        publish("archive-bars", lines, "Years that would be archived")
        return Completed(message=f"{len(years):,} years with {total(lines):,} bars would be archived (dry run).")
    place = settings.archive(url)
    place.try_to_write()
    lines = work(years, lambda some: archive_symbol.submit(engine, place, some))
    publish("archive-bars", lines, f"Years archived at {place.url}")
    good = [one for one in lines if not one["error"]]
    return verdict(lines, f"{len(good):,} years archived of {len(years):,}: {total(good):,} bars.")


@flow(task_runner=ThreadPoolTaskRunner(max_workers=SYMBOLS_AT_A_TIME))  # type: ignore[arg-type]  # Prefect's own generics
def restore_archive(
    symbols: list[Symbol] | None = None,
    first_year: int | None = None,
    last_year: int | None = None,
    sources: list[str] | None = None,
    intervals: list[str] | None = None,
    url: str | None = None,
    dry_run: bool = True,
) -> State:
    """Put archived years of bars back into the warehouse. The files stay; what the warehouse has of a year stays, too.

    A missing or damaged file fails the run, after the others were put back. A dry run reads and compares every file: a check
    of the archive. Files that the ledger does not know are found by their names.

    Args:
        symbols: Only these. Default: all.
        first_year: From this year.
        last_year: To this year.
        sources: Only these.
        intervals: Only these.
        url: A folder, or s3://bucket/prefix. Default: what the Prefect variable archive_url says.
        dry_run: Read and compare the files only.
    """
    engine, place = warehouse.connect(settings.warehouse_url()), settings.archive(url)
    choice = Choice(symbols, sources, intervals, first_year, last_year)
    files = [file for file in archive.found_in(engine, place) if choice.has(file)]
    if not files:
        return Failed(message=f"The archive at {place.url} has no such years.")
    lines = work(files, lambda some: restore_symbol.submit(engine, place, some, dry_run), not dry_run)
    publish("restore-archive", lines, f"Years {'in the archive' if dry_run else 'put back from'} {place.url}")
    good = [one for one in lines if not one["error"]]
    did = "are sound" if dry_run else "put back"
    ending = " (dry run)." if dry_run else "."
    return verdict(lines, f"{len(good):,} years of {len(files):,} {did}: {total(good):,} bars{ending}")


if __name__ == "__main__":
    archive_bars()
