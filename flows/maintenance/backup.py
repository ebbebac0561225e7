"""The warehouse's whole database into a file, tried by restoring it."""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import PositiveInt, SecretStr

from flows import settings
from flows.market_data import backups
from flows.market_data.backups import Backup
from flows.market_data.places import Place
from flows.retries import TRIES_AGAIN


@task(**TRIES_AGAIN)
def take(url: SecretStr, place: Place, verify: bool) -> Backup:
    return backups.back_up(url.get_secret_value(), place, verify)


@task(**TRIES_AGAIN)
def thin(url: SecretStr, place: Place, keep: int) -> list[str]:
    return backups.thin(url.get_secret_value(), place, keep)


def lines(backup: Backup) -> list[dict[str, Any]]:
    return [{"table": name, "rows": one.rows, "checksum": one.checksum} for name, one in sorted(backup.tables.items())]


def sentence(backup: Backup, deleted: list[str]) -> str:
    tried = "tried by restoring it" if backup.verified else "not tried"
    what = f"{backup.name}: {backup.size / 1e6:,.1f} MB, {len(backup.tables)} tables, {backup.rows:,} rows, {tried}"
    return f"{what}; {len(deleted)} old ones deleted."


@flow
def database_backup(url: str | None = None, keep: PositiveInt = 7, verify: bool = True) -> State:
    """Back up the warehouse's whole database: pg_dump for PostgreSQL, SQLite's own copy for SQLite.

    The backup is restored into a scratch database and compared with what was in the warehouse at its moment, table by table.
    Only then it gets its name and older ones are deleted; until then the ones before are untouched.

    Args:
        url: A folder, or s3://bucket/prefix. Default: what the Prefect variable backup_url says.
        keep: So many of the newest verified backups stay.
        verify: On PostgreSQL the role needs CREATEDB for it. Without it the file's name ends in -unverified.
    """
    warehouse, place = SecretStr(settings.warehouse_url()), settings.backups(url)
    backup = take(warehouse, place, verify)
    deleted = thin(warehouse, place, keep)
    create_table_artifact(key="database-backup", table=lines(backup), description=f"{backup.name} at {place.url}")
    return Completed(message=sentence(backup, deleted))


if __name__ == "__main__":
    database_backup()
