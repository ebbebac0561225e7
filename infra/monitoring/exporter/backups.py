"""Backups, when they were made and when the next one is due."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from deployer.prefect_api import Client
from infra.monitoring.exporter.metrics import Sample, moment
from infra.monitoring.exporter.schedules import SECOND, next_times

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Backups:
    """The warehouse's, as its flow records them, and files that something else writes into a folder, by a schedule of its own."""

    folder: Path | None = None
    schedule: Mapping[str, Any] = field(default_factory=lambda: {"interval": DAY.total_seconds()})
    cronjob: tuple[str, str] | None = None
    """Its namespace and its name."""

    def __call__(self, client: Client) -> Iterator[Sample]:
        yield from self._warehouse(client)
        if self.folder:
            yield from self._files(self.folder)
        if self.cronjob:
            yield "backup_cronjob_info", 1, *self.cronjob

    def _files(self, folder: Path) -> Iterator[Sample]:
        files = [p.stat() for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")]
        newest = max(files, key=lambda stat: stat.st_mtime, default=None)
        yield "backup_timestamp_seconds", newest.st_mtime if newest else 0, "prefect"
        if newest:
            made = datetime.fromtimestamp(newest.st_mtime, UTC)
            schedule = {"anchor_date": made.isoformat(), **self.schedule}
            yield "backup_due_timestamp_seconds", following([schedule], made).timestamp(), "prefect"
            yield "backup_bytes", newest.st_size, "prefect"

    def _warehouse(self, client: Client) -> Iterator[Sample]:
        """Where none was made yet, the time since which it should have been: a deployment's creation."""
        found = client.pages("/deployments/filter", {"deployments": {"name": {"like_": "database-backup"}}})
        waiting = [d for d in found if not d["paused"] and any(one["active"] for one in d["schedules"])]
        body = {"artifacts": {"key": {"any_": ["database-backup"]}}, "sort": "CREATED_DESC", "limit": 1}
        newest = client.request("POST", "/artifacts/filter", body)
        times = [moment(one["created"]) for one in newest or waiting]
        if times:
            schedules = [one["schedule"] for d in waiting for one in d["schedules"] if one["active"]]
            yield "backup_timestamp_seconds", min(times).timestamp(), "warehouse"
            yield "backup_due_timestamp_seconds", following(schedules, min(times)).timestamp(), "warehouse"
        for made in newest:
            yield "backup_verified", "-unverified" not in (made["description"] or ""), "warehouse"


def following(schedules: Iterable[Mapping[str, Any]], made: datetime) -> datetime:
    """When the backup after this one is due: a day later where no schedule says so."""
    return min((at for one in schedules for at in next_times(one, made + SECOND, 1)), default=made + DAY)
