"""What Prefect's own metrics lack, for Prometheus: runs, lateness, pools, workers, schedules, releases, drift, backups.

    PREFECT_API_URL=http://127.0.0.1:4200/api python infra/monitoring/exporter.py [--listen 0.0.0.0:9464]

It reads the API in the background and answers scrapes from memory, so a slow API never holds up a scrape. It writes nothing.
Gauges say what the API said at the last reading, whenever this process began. Counters and histograms begin at nought with
the process, as Prometheus expects, and hold every run that ended since: what ended while none ran is only in the gauges.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import signal
import sys
import threading
import time
from collections import Counter as Counts
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import httpx
from croniter import croniter
from dateutil.rrule import rrulestr
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
    metrics,
    start_http_server,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from pydantic import TypeAdapter

from deployer import prepare
from deployer.desired import Scope
from deployer.environment import Api, Environment
from deployer.errors import ApiRefused, DeployError, Unreachable
from deployer.ledger import Ledger, parse
from deployer.model import KINDS, Release
from deployer.plan import Options
from deployer.prefect_api import Client, Retry, artifacts, connect, runs
from deployer.prepare import Site
from deployer.revision import Revision

PREFIX = "prefect_platform_"
RUN = ("deployment", "pool", "state")
PLACE = ("project", "environment")

metrics.disable_created_metrics()  # type: ignore[no-untyped-call]  # a gauge more for each counter, which nobody asks for

GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    # the API, and this exporter
    "api_up": ("1 while the Prefect API answers, and takes the credentials.", ()),
    "api_failure": ("1 for each reason why something cannot be read now.", ("reason",)),
    "api_info": ("The version that the Prefect API says it is.", ("version",)),
    "reader_up": ("1 if what this reader reads was read at its last turn.", ("reader",)),
    "reader_seconds": ("How long the reader's last reading took.", ("reader",)),
    "reader_success_timestamp_seconds": ("When the reader last read all of it.", ("reader",)),
    "folded_deployments": ("Deployments beyond --max-deployments, which share the label (other).", ()),
    # runs
    "flow_runs": ("Flow runs that have not ended; SCHEDULED are those that are due.", RUN),
    "flow_runs_recent": ("Flow runs that ended in the window (--window), by their last state.", RUN),
    "deployment_last_run_failed": ("1 if the deployment's last run within 26 hours failed or crashed.", RUN[:2]),
    "flow_runs_late": ("Flow runs due for more than a minute that nobody started.", RUN[:2]),
    "flow_run_lateness_seconds": ("How long the latest of them is overdue.", RUN[:2]),
    # pools
    "work_pool_info": ("A work pool and its type.", ("pool", "type")),
    "work_pool_status": ("1 for the status that the pool has: READY, NOT_READY, PAUSED.", ("pool", "status")),
    "work_pool_slots": ("The pool's concurrency limit, if it has one.", ("pool",)),
    "work_pool_slots_used": ("Runs that take a slot of the pool's limit.", ("pool",)),
    "workers_online": ("Workers of the pool whose heartbeat is fresh.", ("pool",)),
    "worker_heartbeat_timestamp_seconds": ("The newest heartbeat of any worker of the pool; none: never.", ("pool",)),
    "work_queue_paused": ("1 while the queue is paused.", ("pool", "queue")),
    # deployments
    "deployments": ("Deployments of the pool.", ("pool", "paused")),
    "deployment_without_next_run": (
        "1 if an active schedule fires within a day and the server has made no run for it.",
        ("deployment", "pool"),
    ),
    "deployment_short_of_runs": (
        "1 if a schedule has runs ahead, and not as many as the server's scheduler keeps.",
        ("deployment", "pool"),
    ),
    # releases
    "release_info": ("The newest release.", (*PLACE, "commit", "ref", "result")),
    "release_number": ("The newest release's number.", PLACE),
    "release_result": ("1 for the newest release's result.", (*PLACE, "result")),
    "release_started_timestamp_seconds": ("When the newest release began.", PLACE),
    "release_seconds": ("How long the newest release took.", PLACE),
    "release_live_number": ("The number of the last release that succeeded.", PLACE),
    "release_live_timestamp_seconds": ("When the last release that succeeded began.", PLACE),
    "previews": ("Previews that live beside the environment.", PLACE),
    # drift
    "drift_changes": (
        "What differs from the last release, by kind; secrets' values are not compared.",
        (*PLACE, "kind"),
    ),
    "drift_compared": ("1 if live and release could be compared.", PLACE),
    # backups
    "backup_timestamp_seconds": ("When the newest backup was made; 0: there is none.", ("of",)),
    "backup_due_timestamp_seconds": ("When the one after it should be made.", ("of",)),
    "backup_cronjob_info": ("A CronJob whose backups the exporter does not see (--backups-cronjob).", ("cronjob",)),
    "backup_bytes": ("The size of the newest backup's file.", ("of",)),
    "backup_verified": ("1 if the newest backup was restored and compared.", ("of",)),
}

FINAL = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")
FAILURES = ("FAILED", "CRASHED")
BUSY = ("PENDING", "RUNNING", "PAUSED", "CANCELLING")
WAITING = {"AwaitingRetry": "AWAITING_RETRY", "AwaitingConcurrencySlot": "AWAITING_SLOT"}
RESULTS = ("started", "succeeded", "failed", "interrupted", "unverified")
STATUSES = ("READY", "NOT_READY", "PAUSED")
REASONS = ("unauthorized", "forbidden", "unreachable", "refused", "bug")
DURATIONS = (1, 5, 15, 60, 300, 900, 1800, 3600, 14400, 43200)
DELAYS = (1, 5, 15, 30, 60, 300, 900, 3600)

LATE = timedelta(minutes=1)
"""Workers ask every 10 to 15 s; later than that something is wrong."""
OVERLAP = timedelta(minutes=1)
"""Read again, as a run's end may be written a little after the time that it says."""
MEMORY = timedelta(hours=26)
"""How far back the first reading looks: so a restart does not forget that last night's run failed."""
SOON = DAY = timedelta(days=1)
GRACE = timedelta(minutes=3)
"""What should have been made so long ago: the server's scheduler comes by every minute."""
SECOND = timedelta(seconds=1)
AGAIN = 60.0
"""Seconds until what failed is tried again, however seldom its turn comes."""
OTHER, NONE = "(other)", "(none)"

Sample = tuple[Any, ...]
"""A gauge's name, its value, and the values of its labels."""

log = logging.getLogger("exporter")


# -- names: a bounded number of labels


class Names:
    """Deployments' ids -> flow/deployment. No more than `most` are told apart, however many come and go."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.known: dict[str, str] = {}
        self.labels: set[str] = set()
        self.folded: set[str] = set()

    def learn(self, client: Client, found: Iterable[Mapping[str, Any]], flows: Mapping[str, str] | None = None) -> None:
        found = list(found)
        if flows is None:
            ids = sorted({d["flow_id"] for d in found})
            flows = {f["id"]: f["name"] for f in client.pages("/flows/filter", {"flows": {"id": {"any_": ids}}})}
        self.known |= {d["id"]: f"{flows.get(d['flow_id'], NONE)}/{d['name']}" for d in found}

    def look_up(self, client: Client, ids: Collection[str]) -> None:
        """Those that came since the deployments were read last."""
        missing = sorted(set(ids) - self.known.keys())
        for start in range(0, len(missing), 200):
            body = {"deployments": {"id": {"any_": missing[start : start + 200]}}}
            self.learn(client, client.pages("/deployments/filter", body))

    def keep(self, ids: Collection[str]) -> set[str]:
        """Forget all others. Answers the labels that are free again."""
        self.known = {id: name for id, name in self.known.items() if id in ids}
        gone = self.labels - set(self.known.values())
        self.labels -= gone
        self.folded.clear()
        return gone

    def label(self, id: str | None) -> str:
        name = self.known.get(id or "", NONE)
        if name == NONE or name in self.labels:
            return name
        if len(self.labels) >= self.most:
            self.folded.add(name)
            return OTHER
        self.labels.add(name)
        return name


# -- readers: from the API to samples


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
        chosen = {"end_time": {"after_": since.isoformat()}, "state": {"type": {"any_": FINAL}}}
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


def read_pools(client: Client) -> Iterator[Sample]:
    for pool in client.pages("/work_pools/filter"):
        name = pool["name"]
        yield "work_pool_info", 1, name, pool["type"]
        yield from (("work_pool_status", pool["status"] == status, name, status) for status in STATUSES)
        if pool["concurrency_limit"] is not None:
            yield "work_pool_slots", pool["concurrency_limit"], name
            yield "work_pool_slots_used", pool["active_slots"] or 0, name
        path = f"/work_pools/{quote(name)}"
        online = list(client.pages(f"{path}/workers/filter", {"workers": {"status": {"any_": ["ONLINE"]}}}))
        yield "workers_online", len(online), name
        newest = online or client.request("POST", f"{path}/workers/filter", {"limit": 1})
        if beats := [moment(worker["last_heartbeat_time"]) for worker in newest if worker["last_heartbeat_time"]]:
            yield "worker_heartbeat_timestamp_seconds", max(beats).timestamp(), name
        for queue in client.pages(f"{path}/queues/filter"):
            yield "work_queue_paused", queue["is_paused"], name, queue["name"]


@dataclass
class Deployments:
    names: Names
    forget: Callable[[Collection[str]], None]

    def __call__(self, client: Client) -> Iterator[Sample]:
        found = list(client.pages("/deployments/filter"))
        self.names.learn(client, found, {flow["id"]: flow["name"] for flow in client.pages("/flows/filter")})
        self.forget(self.names.keep({d["id"] for d in found}))
        counts = Counts((d["work_pool_name"] or NONE, str(d["paused"]).lower()) for d in found)
        yield from (("deployments", count, *labels) for labels, count in counts.items())
        now = client.now()
        expected = [d for d in found if not d["paused"] and fires(d, now)]
        have = runs.provided(client, [d["id"] for d in expected], now)
        missing: Counts[tuple[str, str]] = Counts()
        for d in expected:
            missing[self.names.label(d["id"]), d["work_pool_name"] or NONE] += d["id"] not in have
        yield from (("deployment_without_next_run", count > 0, *labels) for labels, count in missing.items())
        yield from self._short(client, [d for d in found if not d["paused"]], now)

    def _short(self, client: Client, unpaused: Iterable[Mapping[str, Any]], now: datetime) -> Iterator[Sample]:
        """What shows a scheduler that stopped while those whose turn has not come yet have all their runs."""
        scheduler = Scheduler.of(client)
        if not scheduler:
            return
        edges = {d["id"]: (edge, d) for d in unpaused if (edge := scheduler.edge(d, now - GRACE))}
        behind = set(edges) - reached(client, {id: edge for id, (edge, _) in edges.items()})
        have = runs.provided(client, sorted(behind), now)
        short: Counts[tuple[str, str]] = Counts()
        for id, (_, d) in edges.items():
            short[self.names.label(id), d["work_pool_name"] or NONE] += id in have
        yield from (("deployment_short_of_runs", count > 0, *labels) for labels, count in short.items())


@dataclass(frozen=True)
class Scheduler:
    """How many runs the server's scheduler keeps ahead of every active schedule, and how far."""

    fewest: int
    most: int
    ahead: timedelta
    horizon: timedelta

    @classmethod
    def of(cls, client: Client) -> Scheduler | None:
        """As the API is set; its services should be set alike. Prefect Cloud, for one, does not tell."""
        with suppress(ApiRefused, KeyError):
            told = client.get("/admin/settings")["server"]["services"]["scheduler"]
            ahead, horizon = map(SPAN.validate_python, (told["min_scheduled_time"], told["max_scheduled_time"]))
            return cls(told["min_runs"], told["max_runs"], ahead, horizon)
        return None

    def edge(self, deployment: Mapping[str, Any], since: datetime) -> datetime | None:
        """The deployment's last run is later than that, if the scheduler did its work. None: that cannot be told."""
        active = (one["schedule"] for one in deployment["schedules"] if one["active"])
        return max((edge for schedule in active if (edge := self._edge(schedule, since))), default=None)

    def _edge(self, schedule: Mapping[str, Any], since: datetime) -> datetime | None:
        """Half-way between two times, so that a change of the clocks makes no difference."""
        times = next_times(schedule, since, self.fewest)
        if not times or len(times) < self.fewest or times[-1] > since + self.horizon:
            return None
        before = [since, *times][-2]
        edge = before + (times[-1] - before) / 2
        gap = (times[-1] - since) / len(times)
        goes_on = gap * self.most > self.ahead and next_time(schedule, since + self.ahead)
        return max(edge, since + self.ahead) if goes_on else edge


SPAN = TypeAdapter(timedelta)


def reached(client: Client, edges: Mapping[str, datetime]) -> set[str]:
    """Which of these deployments have a run that a schedule made for later than that, whatever became of it."""
    found: set[str] = set()
    ordered = sorted(edges, key=lambda id: edges[id])  # those that reach equally far together: fewest rows
    for start in range(0, len(ordered), 200):
        group = ordered[start : start + 200]
        chosen = {"expected_start_time": {"after_": edges[group[0]].isoformat()}}
        body = {"deployments": {"id": {"any_": group}}, "flow_runs": chosen, "sort": "EXPECTED_START_TIME_DESC"}
        for run in client.pages("/flow_runs/filter", body):
            if run["auto_scheduled"] and moment(run["expected_start_time"]) > edges[run["deployment_id"]]:
                found.add(run["deployment_id"])
    return found


def fires(deployment: Mapping[str, Any], now: datetime) -> bool:
    active = (one["schedule"] for one in deployment["schedules"] if one["active"])
    return any((at := next_time(schedule, now)) and at <= now + SOON for schedule in active)


def next_time(schedule: Mapping[str, Any], now: datetime) -> datetime | None:
    """When a schedule fires next, to the hour or so; None for never, and for what only Prefect can read."""
    with suppress(ValueError, KeyError, TypeError):
        if "interval" in schedule:
            anchor, step = moment(schedule["anchor_date"]), timedelta(seconds=schedule["interval"])
            return anchor + math.ceil((now - anchor) / step) * step
        zone = ZoneInfo(schedule.get("timezone") or "UTC")
        local = now.astimezone(zone)
        if "cron" in schedule:
            found: datetime = croniter(schedule["cron"], local, day_or=schedule.get("day_or", True)).get_next(datetime)
            return found
        return _next_of_rule(schedule["rrule"], local, zone)
    return None


def next_times(schedule: Mapping[str, Any], since: datetime, count: int) -> list[datetime]:
    """Its next ones, in order; fewer where it ends, none where that cannot be told exactly."""
    found: list[datetime] = []
    if _endless(schedule.get("rrule") or ""):
        return found
    while len(found) < count and (at := next_time(schedule, found[-1] + SECOND if found else since)):
        found.append(at)
    return found


def _endless(text: str) -> bool:
    """A rule that fires so often that to count all its times from their beginning takes long."""
    often = any(f"FREQ={word}" in text for word in ("SECONDLY", "MINUTELY", "HOURLY"))
    return often and "UNTIL" not in text and "COUNT" not in text


def _next_of_rule(text: str, local: datetime, zone: ZoneInfo) -> datetime | None:
    if _endless(text):
        return local
    rule = rrulestr(text, dtstart=datetime(2020, 1, 1), ignoretz=True)  # Prefect's own beginning
    found = rule.after(local.replace(tzinfo=None))
    return found.replace(tzinfo=zone) if found else None


def environments(client: Client) -> tuple[list[Release], Counts[tuple[str, str]]]:
    """Every environment's newest release, as the ledgers on this API have them, and how many previews live beside it."""
    newest, previews = [], Counts[tuple[str, str]]()
    for answer in artifacts.latest_of_each(client, "release-"):
        release = parse(answer["data"])
        if release and answer["key"] == f"release-{release.project}-{release.environment}":
            newest.append(release)
        elif release:
            previews[release.project, release.environment] += 1
    return newest, previews


def read_releases(client: Client) -> Iterator[Sample]:
    newest, previews = environments(client)
    for release in newest:
        place = (release.project, release.environment)
        yield "release_info", 1, *place, release.commit[:12], release.ref[:80], release.result
        yield "release_number", release.number, *place
        yield from (("release_result", release.result == result, *place, result) for result in RESULTS)
        yield "release_started_timestamp_seconds", moment(release.started).timestamp(), *place
        if release.seconds is not None:
            yield "release_seconds", release.seconds, *place
        live = release if release.succeeded else Ledger(client, Scope(*place)).live()
        if live:
            yield "release_live_number", live.number, *place
            yield "release_live_timestamp_seconds", moment(live.started).timestamp(), *place
        yield "previews", previews[place], *place


class Drift:
    """As `deploy.py drift` does without the variables of secrets, and with the default policy."""

    def __init__(self) -> None:
        self.told: set[str] = set()

    def __call__(self, client: Client) -> Iterator[Sample]:
        """While a release is being made, there is nothing to compare."""
        for newest in environments(client)[0]:
            place = (newest.project, newest.environment)
            changed = None if newest.result == "started" else self._changed(client, Scope(*place))
            yield "drift_compared", changed is not None, *place
            if changed is not None:
                yield from (("drift_changes", changed[kind], *place, kind) for kind in KINDS)

    def _changed(self, client: Client, scope: Scope) -> Counts[str] | None:
        try:
            return drift(client, scope)
        except Unreachable:
            raise
        except DeployError as error:
            if str(error) not in self.told:
                log.warning("Drift of %s cannot be told: %s", scope.environment, error)
            self.told.add(str(error))
            return None


def drift(client: Client, scope: Scope) -> Counts[str] | None:
    """What a plan of the last successful release would write, by kind; None where its specification is not on record."""
    ledger = Ledger(client, scope)
    live = ledger.live()
    spec = ledger.specification(live) if live else None
    if live is None or spec is None:
        return None
    site = Site(_environment(client.url, scope), scope, client, ledger)
    revision = Revision(live.commit, live.ref)
    found = prepare.from_specification(site, spec, revision, ledger.history(), {}, Options())
    return Counts(change.kind for change in found.plan.writes)


def _environment(url: str, scope: Scope) -> Environment:
    """What a comparison asks of an environment file: whose it is. The rest stands in the ledger."""
    nowhere = {"strategy": "local", "directory": "/"}
    return Environment.model_validate(
        {"name": scope.environment, "project": scope.project, "mode": "production", "api": {"url": url}, "refs": {}}
        | {"source": nowhere, "work_pools": {}}
    )


@dataclass(frozen=True)
class Backups:
    """The warehouse's, as its flow records them, and files that something else writes into a folder, by a schedule of its own."""

    folder: Path | None = None
    schedule: Mapping[str, Any] = field(default_factory=lambda: {"interval": DAY.total_seconds()})
    cronjob: str | None = None

    def __call__(self, client: Client) -> Iterator[Sample]:
        yield from self._warehouse(client)
        if self.folder:
            yield from self._files(self.folder)
        if self.cronjob:
            yield "backup_cronjob_info", 1, self.cronjob

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


def read_api(client: Client) -> Iterator[Sample]:
    """Its version needs no database; without one the API is as good as down, so a row of it is asked for too."""
    yield "api_info", 1, connect(client)
    client.request("POST", "/flows/filter", {"limit": 1})


def moment(text: str) -> datetime:
    at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return at if at.tzinfo else at.replace(tzinfo=UTC)


# -- reading in the background


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


# -- the command


def main(words: list[str] | None = None) -> int:
    asked = _parser().parse_args(words)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    registry = CollectorRegistry()
    try:
        api = Api(
            url=given("PREFECT_API_URL"), key=given("PREFECT_API_KEY"), auth_string=given("PREFECT_API_AUTH_STRING")
        )
        client = Client(api, retry=Retry(attempts=3))
    except (DeployError, OSError) as error:
        print(f"exporter: {error}", file=sys.stderr)
        return 1
    window = timedelta(seconds=asked.window)
    backups = Backups(asked.backups, asked.backups_schedule, asked.backups_cronjob)
    exporter = make(client, registry, asked.interval, window, backups, asked.max_deployments)
    if asked.once:
        exporter.turn()
        print(generate_latest(registry).decode(), end="")
        return 0 if all(map(works, exporter.readers)) else 1
    return serve(exporter, registry, asked.listen)


def serve(exporter: Exporter, registry: CollectorRegistry, listen: str) -> int:
    host, _, port = listen.rpartition(":")
    ProcessCollector(registry=registry)
    try:
        server, thread = start_http_server(int(port), host or "0.0.0.0", registry)
    except (OSError, ValueError) as error:
        print(f"exporter: cannot listen on {listen}: {error}", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: exporter.stopped.set())
    print(f"Serving http://{host or '0.0.0.0'}:{server.server_port}/metrics", file=sys.stderr, flush=True)
    threading.Thread(target=exporter.run, daemon=True).start()  # may be waiting for the API when it is time to go
    exporter.stopped.wait()
    server.shutdown()
    server.server_close()
    thread.join()
    return 0


def given(name: str) -> str:
    """A variable's value, or what stands in the file that NAME_FILE names."""
    path = os.environ.get(f"{name}_FILE")
    return Path(path).read_text().strip() if path else os.environ.get(name, "")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="exporter",
        description="Metrics of a Prefect API for Prometheus. Reads PREFECT_API_URL, PREFECT_API_KEY and PREFECT_API_AUTH_STRING, or the files that the same names with _FILE give.",
    )
    parser.add_argument("--listen", default="0.0.0.0:9464", metavar="HOST:PORT", help="default: %(default)s")
    parser.add_argument(
        "--interval",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="between readings of runs and pools; default: %(default)s",
    )
    parser.add_argument(
        "--window",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="for how long ended runs are recent; default: %(default)s",
    )
    parser.add_argument(
        "--max-deployments", type=int, default=500, metavar="N", help="told apart by label; default: %(default)s"
    )
    parser.add_argument(
        "--backups", type=Path, metavar="DIR", help="where the backups of Prefect's own database are written"
    )
    parser.add_argument(
        "--backups-schedule",
        type=_schedule,
        default="86400",
        metavar="WHEN",
        help="how often: seconds, or five fields of cron and a time zone, such as '15 2 * * * Etc/UTC'; default: %(default)s",
    )
    parser.add_argument(
        "--backups-cronjob", metavar="NAME", help="the CronJob that makes them where no folder has them, for a rule"
    )
    parser.add_argument("--once", action="store_true", help="read once, print, end")
    return parser


def _schedule(text: str) -> dict[str, Any]:
    """What Prefect would call it, without an anchor."""
    cron, _, zone = text.rpartition(" ")
    with suppress(ValueError):
        if (seconds := float(text)) > 0:
            return {"interval": seconds}
    with suppress(ValueError, ZoneInfoNotFoundError):
        if croniter.is_valid(cron) and ZoneInfo(zone):
            return {"cron": cron, "timezone": zone}
    raise argparse.ArgumentTypeError(f"{text!r} is neither seconds nor cron's fields and a time zone")


if __name__ == "__main__":
    sys.exit(main())
