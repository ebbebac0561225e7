"""Flow runs: what goes on, what ended and how, what is late."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

from deployer.prefect_api import Client
from deployer.prefect_api.runs import FINAL
from infra.monitoring.exporter.metrics import NONE, OTHER, PREFIX, RUN, Sample, moment
from infra.monitoring.exporter.names import Names

FAILURES = ("FAILED", "CRASHED")
BUSY = ("PENDING", "RUNNING", "PAUSED", "CANCELLING")
WAITING = {"AwaitingRetry": "AWAITING_RETRY", "AwaitingConcurrencySlot": "AWAITING_SLOT"}
DURATIONS = (1, 5, 15, 60, 300, 900, 1800, 3600, 14400, 43200)
DELAYS = (1, 5, 15, 30, 60, 300, 900, 3600)

LATE = timedelta(minutes=1)
"""Workers ask every 10 to 15 s; later than that something is wrong."""
OVERLAP = timedelta(minutes=1)
"""Read again, as a run's end may be written a little after the time that it says."""
MEMORY = timedelta(hours=26)
"""How far back the first reading looks: so a restart does not forget that last night's run failed."""


@dataclass(frozen=True)
class Ended:
    """A run's last final state."""

    state_id: str
    at: datetime
    labels: tuple[str, str, str]


class Runs:
    """Runs by state. What ended is read once and remembered, so that a turn costs what happened since the last."""

    def __init__(self, names: Names, window: timedelta, registry: CollectorRegistry) -> None:
        self.names, self.window, self.memory = names, window, max(window, MEMORY)
        self.ended: dict[str, Ended] = {}
        self.read_until: datetime | None = None
        self.finished = Counter(
            f"{PREFIX}flow_runs_finished", "Flow runs that ended, by final state.", RUN, registry=registry
        )
        self.durations = Histogram(
            f"{PREFIX}flow_run_duration_seconds",
            "How long flow runs that ended were running.",
            RUN[:2],
            registry=registry,
            buckets=DURATIONS,
        )
        self.delays = Histogram(
            f"{PREFIX}flow_run_start_delay_seconds",
            "How long after their time flow runs that ended had started.",
            ("pool",),
            registry=registry,
            buckets=DELAYS,
        )

    def __call__(self, client: Client) -> Iterator[Sample]:
        now = client.now()
        self._read_ended(client, now)
        yield from self._recent(now)
        yield from self._last()
        yield from self._unended(client, now)
        yield "folded_deployments", len(self.names.folded)

    def _read_ended(self, client: Client, now: datetime) -> None:
        """The first reading fills the memory and counts nothing: another exporter may have counted those."""
        since = self.read_until - OVERLAP if self.read_until else now - self.memory
        chosen = {"end_time": {"after_": since.isoformat()}, "state": {"type": {"any_": sorted(FINAL)}}}
        for run in self._pages(client, chosen, "END_TIME_DESC"):
            before = self.ended.get(run["id"])
            if before and before.state_id == run["state_id"]:
                continue
            ended = Ended(run["state_id"], moment(run["end_time"]), (*self._place(run), run["state_type"]))
            self.ended[run["id"]] = ended
            if self.read_until:
                self._count(run, ended)
        self.read_until = now
        self.ended = {id: e for id, e in self.ended.items() if e.at >= now - self.memory - OVERLAP}

    def _count(self, run: Mapping[str, Any], ended: Ended) -> None:
        deployment, pool, _ = ended.labels
        self.finished.labels(*ended.labels).inc()
        if run["start_time"]:
            self.durations.labels(deployment, pool).observe(run["total_run_time"])
            late = moment(run["start_time"]) - moment(run["expected_start_time"])
            self.delays.labels(pool).observe(max(late.total_seconds(), 0))

    def _recent(self, now: datetime) -> Iterator[Sample]:
        counts = Counts(e.labels for e in self.ended.values() if e.at >= now - self.window)
        yield from (("flow_runs_recent", count, *labels) for labels, count in counts.items())

    def _last(self) -> Iterator[Sample]:
        """Per deployment, as those that run once a night are out of every window when somebody looks."""
        told = sorted((e for e in self.ended.values() if e.labels[2] != "CANCELLED"), key=lambda e: e.at)
        for deployment, pool, state in {e.labels[0]: e.labels for e in told}.values():
            if deployment not in (NONE, OTHER):
                yield "deployment_last_run_failed", state in FAILURES, deployment, pool

    def _unended(self, client: Client, now: datetime) -> Iterator[Sample]:
        due = {"state": {"type": {"any_": ["SCHEDULED"]}}, "next_scheduled_start_time": {"before_": now.isoformat()}}
        queries = ({"state": {"type": {"any_": BUSY}}}, {"state": {"name": {"any_": list(WAITING)}}}, due)
        found = {
            run["id"]: run for chosen in queries for run in self._pages(client, chosen, "EXPECTED_START_TIME_DESC")
        }
        counts = Counts((*self._place(r), WAITING.get(r["state_name"], r["state_type"])) for r in found.values())
        yield from (("flow_runs", count, *labels) for labels, count in counts.items())
        yield from self._late((r for r in found.values() if r["state_type"] == "SCHEDULED"), now)

    def _late(self, waiting: Iterable[Mapping[str, Any]], now: datetime) -> Iterator[Sample]:
        """By the time of the next try: a run that waits for a retry or for a slot is late when nobody looks at it then."""
        late: dict[tuple[str, str], list[float]] = {}
        for run in waiting:
            overdue = now - moment(run["next_scheduled_start_time"] or run["expected_start_time"])
            if overdue > LATE:
                late.setdefault(self._place(run), []).append(overdue.total_seconds())
        for place, seconds in late.items():
            yield "flow_runs_late", len(seconds), *place
            yield "flow_run_lateness_seconds", max(seconds), *place

    def _pages(self, client: Client, chosen: Mapping[str, Any], sort: str) -> list[dict[str, Any]]:
        """Without the subflows that are part of another run."""
        found = list(client.pages("/flow_runs/filter", {"flow_runs": chosen, "sort": sort}))
        found = [run for run in found if run["deployment_id"] or not run["parent_task_run_id"]]
        self.names.look_up(client, {run["deployment_id"] for run in found if run["deployment_id"]})
        return found

    def _place(self, run: Mapping[str, Any]) -> tuple[str, str]:
        return self.names.label(run["deployment_id"]), run["work_pool_name"] or NONE

    def forget(self, labels: Collection[str]) -> None:
        """Deployments that are gone: their counters go, and their runs have none."""
        for id, e in self.ended.items():
            if e.labels[0] in labels:
                self.ended[id] = replace(e, labels=(NONE, *e.labels[1:]))
        for label in labels:
            self.finished.remove_by_labels({"deployment": label})
            self.durations.remove_by_labels({"deployment": label})
