"""Retention: what is older than the warehouse is meant to keep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import PositiveInt, StringConstraints

from flows import settings
from flows.market_data import warehouse
from flows.retries import TRIES_AGAIN

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

Interval = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]?(m|h|d|wk|mo)$")]

KEEP_DAYS: dict[Interval, PositiveInt] = {"1d": 3650, "1h": 730, "1m": 30}


@task(**TRIES_AGAIN)
def count(engine: Engine, keep_days: Mapping[str, int], others: int) -> list[warehouse.Series]:
    return warehouse.series(engine, keep_days, others)


@task(**TRIES_AGAIN)
def count_notes(engine: Engine, keep_days: int) -> list[warehouse.Notes]:
    return warehouse.old_notes(engine, keep_days)


@task(task_run_name="delete {old.source} {old.interval}", **TRIES_AGAIN)
def remove(engine: Engine, old: warehouse.Series) -> None:
    follow(f"{old.source} {old.interval}", warehouse.delete_old(engine, old), old.old_bars + old.old_indicators)


@task(task_run_name="tidy load runs {old.source} {old.interval}", **TRIES_AGAIN)
def tidy(engine: Engine, old: warehouse.Notes, keep_days: int) -> None:
    follow(f"load runs {old.source} {old.interval}", warehouse.tidy_notes(engine, old, keep_days), old.rows)


def follow(what: str, batches: Iterable[int], of: int) -> None:
    gone = 0
    for rows in batches:
        gone += rows
        get_run_logger().info("%s: %s of %s rows are gone", what, f"{gone:,}", f"{of:,}")


def line(series: warehouse.Series, left: warehouse.Series | None) -> dict[str, Any]:
    """What was found, and what of it is gone. Counted again: what a try did that then failed counts, too."""
    return {
        "source": series.source,
        "interval": series.interval,
        "newest": str(series.newest.date()),
        "keep from": str(series.keep_from.date()),
        "old bars": series.old_bars,
        "deleted bars": series.old_bars - (left.old_bars if left else 0),
        "old indicators": series.old_indicators,
        "deleted indicators": series.old_indicators - (left.old_indicators if left else 0),
    }


def lines(found: Sequence[warehouse.Series], left: Sequence[warehouse.Series]) -> list[dict[str, Any]]:
    still = {(one.source, one.interval): one for one in left}
    return [line(one, still.get((one.source, one.interval))) for one in found]


def sentence(table: Sequence[Mapping[str, Any]], notes: int, dry_run: bool) -> str:
    bars, indicators = (sum(one[f"old {name}"] for one in table) for name in ("bars", "indicators"))
    deleted = sum(one["deleted bars"] for one in table)
    found = f"{bars:,} bars, {indicators:,} rows of indicators and {notes:,} notes of loads are too old; "
    return f"{found}{deleted:,} bars deleted{' (dry run).' if dry_run else '.'}"


@flow
def cleanup(
    keep_days: dict[Interval, PositiveInt] = KEEP_DAYS,
    keep_days_of_others: PositiveInt = 3650,
    keep_load_runs_days: PositiveInt = 365,
    dry_run: bool = True,
) -> State:
    """Count the bars, indicators and notes of loads that are too old, and delete them unless this is a dry run.

    What is deleted is also forgotten as loaded: a backfill that is asked for those days fetches them again.

    Args:
        keep_days: How many calendar days of bars stay, by interval, counted back from the newest bar of each source and
            interval, not from the clock: a feed that has stopped must not empty the warehouse. Indicators go with them.
        keep_days_of_others: The same for intervals that keep_days does not name.
        keep_load_runs_days: Notes of failed loads go after so many days. Those of loads that are done are merged then:
            one says what many said, so that nothing is fetched again.
        dry_run: Count only.
    """
    engine = warehouse.connect(settings.warehouse_url())
    found = count(engine, keep_days, keep_days_of_others)
    notes = count_notes(engine, keep_load_runs_days)
    if not dry_run:
        for one in found:
            with settings.turn_to_write():
                remove(engine, one)
        for old in notes:
            with settings.turn_to_write():
                tidy(engine, old, keep_load_runs_days)
    table = lines(found, found if dry_run else count(engine, keep_days, keep_days_of_others))
    create_table_artifact(key="cleanup", table=table, description="Bars and indicators that are too old")
    create_table_artifact(
        key="cleanup-load-runs", table=[asdict(one) for one in notes], description="Old notes of loads"
    )
    return Completed(message=sentence(table, sum(one.rows for one in notes), dry_run))


if __name__ == "__main__":
    cleanup()
