"""What the doctor looks at, as the API shows it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any


@dataclass(frozen=True)
class Server:
    """What a self-hosted server says of its own settings."""

    auth: bool
    ui: str | None
    """The API's address as browsers are told it; None where no UI is served."""
    driver: str | None
    leases: str


@dataclass(frozen=True)
class Queue:
    name: str
    paused: bool
    limit: int | None
    active: int
    polled: datetime | None


@dataclass(frozen=True)
class Pool:
    """`heartbeat` is that of the worker heard last, which promised the next one within `interval` seconds."""

    name: str
    type: str
    paused: bool
    ready: bool
    limit: int | None
    active: int
    workers: int
    heartbeat: datetime | None
    interval: float
    queues: tuple[Queue, ...]
    template: Mapping[str, Any]

    @property
    def needs_worker(self) -> bool:
        """Prefect Cloud itself starts the runs of push and managed pools."""
        return not self.type.endswith((":push", ":managed"))

    def hears(self, at: datetime) -> bool:
        """Is a worker there? By the server's own rule: three heartbeats missed, and it is gone."""
        return self.heartbeat is not None and at - self.heartbeat < timedelta(seconds=3 * self.interval)


@dataclass(frozen=True)
class Limit:
    name: str
    limit: int
    active: int
    decay: float
    enabled: bool

    @property
    def full(self) -> bool:
        return self.enabled and 0 < self.limit <= self.active and not self.decay


@dataclass(frozen=True)
class Deployed:
    id: str
    name: str
    version: str | None
    pool: str | None
    queue: str | None
    limit: Limit | None
    scheduled: bool
    """Has it an active schedule, and is not paused?"""
    retired: bool
    updated: datetime


@dataclass(frozen=True)
class Run:
    id: str
    name: str
    deployment: str
    due: datetime
    state: str
    message: str = ""


def names(deployed: Sequence[Deployed], most: int = 3) -> str:
    more = f" and {len(deployed) - most} more" if len(deployed) > most else ""
    return ", ".join(d.name for d in deployed[:most]) + more
