"""Retention: bars that are older than the warehouse is meant to keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import PositiveInt

from flows import settings
from flows.market_data import warehouse
from flows.retries import TRIES_AGAIN

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine


@task(**TRIES_AGAIN)
def count(engine: Engine, keep_days: int) -> list[warehouse.Series]:
    return warehouse.series(engine, keep_days)


@task(task_run_name="delete {old.source} {old.interval}", **TRIES_AGAIN)
def remove(engine: Engine, old: warehouse.Series) -> int:
    return warehouse.delete_old_bars(engine, old)


def line(series: warehouse.Series, deleted: int) -> dict[str, Any]:
    return {
        "source": series.source,
        "interval": series.interval,
        "newest": str(series.newest.date()),
        "keep from": str(series.keep_from.date()),
        "old bars": series.old_bars,
        "deleted": deleted,
    }


@flow
def cleanup(keep_days: PositiveInt = 3650, dry_run: bool = True) -> State:
    """Count the bars that are too old, and delete them unless this is a dry run.

    Args:
        keep_days: How many calendar days of bars stay, counted back from the newest bar of each source and interval,
            not from the clock: a feed that has stopped must not empty the warehouse.
        dry_run: Count only.
    """
    engine = warehouse.connect(settings.warehouse_url())
    found = count(engine, keep_days)
    with settings.turn_to_write():
        deleted = [0 if dry_run or not one.old_bars else remove(engine, one) for one in found]
    table = [line(one, gone) for one, gone in zip(found, deleted, strict=True)]
    create_table_artifact(key="cleanup", table=table, description=f"Bars older than {keep_days} days")
    old, ending = sum(one.old_bars for one in found), " (dry run)." if dry_run else "."
    return Completed(message=f"{old:,} bars are older than {keep_days} days; {sum(deleted):,} deleted{ending}")
