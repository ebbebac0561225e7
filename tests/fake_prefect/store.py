"""What the fake remembers: tables of rows, and a clock that a test can set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

Row = dict[str, Any]


class Clock:
    """The time of day, or the one that was set. It never stands quite still, so that an order of writes shows."""

    def __init__(self) -> None:
        self._set: datetime | None = None
        self._last = datetime.min.replace(tzinfo=UTC)

    def set(self, now: datetime | None) -> None:
        self._set = now
        self._last = datetime.min.replace(tzinfo=UTC)

    def read(self) -> datetime:
        return self._set or datetime.now(UTC)

    def tick(self) -> datetime:
        self._last = max(self.read(), self._last + timedelta(microseconds=1))
        return self._last


class Table:
    """Rows by id; each knows when it was created and when it was last changed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rows: dict[UUID, Row] = {}

    def add(self, **values: Any) -> Row:
        now = self._clock.tick()
        row = {"id": uuid4(), "created": now, "updated": now, **values}
        self._rows[row["id"]] = row
        return row

    def get(self, id: UUID | None) -> Row | None:
        return self._rows.get(id) if id else None

    def find(self, **equal: Any) -> Row | None:
        return next(self._matching(equal), None)

    def where(self, **equal: Any) -> list[Row]:
        return list(self._matching(equal))

    def _matching(self, equal: Row) -> Iterator[Row]:
        rows: Iterable[Row] = self._rows.values()
        for name, value in equal.items():
            rows = [row for row in rows if row[name] == value]
        return iter(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def change(self, row: Row, **values: Any) -> None:
        row.update(values, updated=self._clock.tick())

    def remove(self, *rows: Row) -> None:
        for row in rows:
            self._rows.pop(row["id"], None)


class Store:
    def __init__(self) -> None:
        self.clock = Clock()
        self.settings: dict[str, dict[str, Any]] = {
            "api": {"auth_string": None},
            "ui": {"enabled": False, "api_url": "http://127.0.0.1:4200/api"},
            "database": {"driver": None, "connection_url": "**********"},
            "concurrency": {"lease_storage": "prefect.server.concurrency.lease_storage.memory"},
        }
        self.flows = Table(self.clock)
        self.deployments = Table(self.clock)
        self.schedules = Table(self.clock)
        self.flow_runs = Table(self.clock)
        self.logs = Table(self.clock)
        self.work_pools = Table(self.clock)
        self.work_queues = Table(self.clock)
        self.workers = Table(self.clock)
        self.concurrency_limits = Table(self.clock)
        self.variables = Table(self.clock)
        self.block_types = Table(self.clock)
        self.block_schemas = Table(self.clock)
        self.block_documents = Table(self.clock)
        self.automations = Table(self.clock)
        self.artifacts = Table(self.clock)
        self.artifact_collections = Table(self.clock)
