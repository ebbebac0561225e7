"""Whose turn it is, what came of it, and what a scrape is answered."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import httpx
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from deployer.errors import DeployError, Unreachable
from deployer.prefect_api import Client, connect
from infra.monitoring.exporter.backups import Backups
from infra.monitoring.exporter.deployments import Deployments
from infra.monitoring.exporter.drift import Drift
from infra.monitoring.exporter.metrics import GAUGES, PREFIX, Sample
from infra.monitoring.exporter.names import Names
from infra.monitoring.exporter.pools import read_pools
from infra.monitoring.exporter.releases import read_releases
from infra.monitoring.exporter.runs import Runs

REASONS = ("unauthorized", "forbidden", "unreachable", "refused", "bug")
AGAIN = 60.0
"""Seconds until what failed is tried again, however seldom its turn comes."""

log = logging.getLogger("exporter")


@dataclass
class Reader:
    """One thing to read, every so many seconds, and what came of it."""

    name: str
    every: float
    read: Callable[[Client], Iterable[Sample]]
    samples: list[Sample] = field(default_factory=list)
    due: float = 0.0
    read_at: float | None = None
    seconds: float = 0.0
    fault: str | None = None
    """Why it could not be read at its last turn, in a word of REASONS."""

    def turn(self, client: Client) -> None:
        """All or nothing: what was read before stays until it is too old. After a failure it is soon its turn again."""
        begun = time.monotonic()
        self.due = begun + min(self.every, AGAIN)
        try:
            self.samples = list(self.read(client))
            self.due, self.read_at = begun + self.every, time.time()
        finally:
            self.seconds = time.monotonic() - begun

    @property
    def fresh(self) -> bool:
        """Old numbers must not pass for new ones: after five turns without an answer there are none."""
        return self.read_at is not None and time.time() - self.read_at < 5 * self.every + 60


class Exporter(Collector):
    """Reads in turns, in a thread of its own; collects from memory."""

    def __init__(self, client: Client, readers: list[Reader]) -> None:
        self.client, self.readers = client, readers
        self.status = 0
        self.told: dict[str, str | None] = {}
        self.stopped = threading.Event()
        client.http.event_hooks["response"].append(self._note)

    def _note(self, response: httpx.Response) -> None:
        self.status = response.status_code

    def run(self) -> None:
        while not self.stopped.is_set():
            self.turn()
            self.stopped.wait(max(min(reader.due for reader in self.readers) - time.monotonic(), 0.1))

    def turn(self) -> None:
        """Those that are due. Where the first, which only asks whether the API is there, fails, the others wait for it."""
        first = self.readers[0]
        for reader in self.readers:
            if reader is not first and first.fault:
                reader.due = max(reader.due, first.due)
            elif reader.due <= time.monotonic():
                self._read(reader)

    def _read(self, reader: Reader) -> None:
        self.status = 0
        try:
            reader.turn(self.client)
            reader.fault = None
        except DeployError as error:
            named = {401: "unauthorized", 403: "forbidden"}.get(self.status)
            reader.fault = named or ("unreachable" if isinstance(error, Unreachable) else "refused")
            if self._news(reader):
                log.error("Reading %s failed: %s", reader.name, error)
        except Exception:
            reader.fault = "bug"
            if self._news(reader):
                log.exception("Reading %s failed: a bug of the exporter.", reader.name)
        else:
            if self.told.pop(reader.name, None):
                log.warning("Reading %s works again.", reader.name)

    def _news(self, reader: Reader) -> bool:
        """One line when it begins to fail, not one a turn."""
        before, self.told[reader.name] = self.told.get(reader.name), reader.fault
        return before != reader.fault

    def collect(self) -> Iterator[GaugeMetricFamily]:
        samples = [sample for reader in self.readers if reader.fresh for sample in reader.samples]
        families = {
            name: GaugeMetricFamily(PREFIX + name, meaning, labels=labels) for name, (meaning, labels) in GAUGES.items()
        }
        for name, value, *given in (*samples, *self._own()):
            families[name].add_metric(given, value)
        yield from families.values()

    def _own(self) -> Iterator[Sample]:
        yield "api_up", works(self.readers[0])
        faults = {reader.fault for reader in self.readers}
        yield from (("api_failure", reason in faults, reason) for reason in REASONS)
        for reader in self.readers:
            yield "reader_up", works(reader) and works(self.readers[0]), reader.name
            yield "reader_seconds", reader.seconds, reader.name
            if reader.read_at is not None:
                yield "reader_success_timestamp_seconds", reader.read_at, reader.name


def works(reader: Reader) -> bool:
    return reader.fault is None and reader.read_at is not None


def make(
    client: Client,
    registry: CollectorRegistry,
    interval: float = 30.0,
    window: timedelta = timedelta(hours=1),
    backups: Backups | None = None,
    most: int = 500,
) -> Exporter:
    """The readers, in the order of a turn; what is costly, or seldom changes, comes less often."""
    names = Names(most)
    of_runs = Runs(names, window, registry)
    table: tuple[tuple[str, int, Callable[[Client], Iterable[Sample]]], ...] = (
        ("api", 1, read_api),
        ("deployments", 4, Deployments(names, of_runs.forget)),
        ("runs", 1, of_runs),
        ("pools", 1, read_pools),
        ("releases", 2, read_releases),
        ("backups", 10, backups or Backups()),
        ("drift", 20, Drift()),
    )
    exporter = Exporter(client, [Reader(name, interval * turns, read) for name, turns, read in table])
    registry.register(exporter)
    return exporter


def read_api(client: Client) -> Iterator[Sample]:
    """Its version needs no database; without one the API is as good as down, so a row of it is asked for too."""
    yield "api_info", 1, connect(client)
    client.request("POST", "/flows/filter", {"limit": 1})
