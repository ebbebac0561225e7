"""infra/monitoring/exporter on the fake API: what it tells, what it keeps to itself, and what it does when the API is away."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from deployer.environment import Api
from deployer.prefect_api import Client, Retry
from infra.monitoring.exporter.backups import Backups
from infra.monitoring.exporter.command import parser
from infra.monitoring.exporter.metrics import GAUGES, PREFIX, Sample
from infra.monitoring.exporter.names import Names
from infra.monitoring.exporter.reading import make
from infra.monitoring.exporter.runs import Runs
from infra.monitoring.exporter.schedules import Scheduler, next_time, next_times
from tests.deployer.stage import A, Stage, config, deployment
from tests.fake_prefect import FakePrefect
from tests.infra.tools import ROOT

SCRIPT = ROOT / "infra/monitoring/exporter"
OFTEN = {"interval": 900, "anchor_date": "2026-01-01T00:00:00+00:00"}
SCHEDULER = {"min_runs": 3, "max_runs": 100, "min_scheduled_time": "PT1H", "max_scheduled_time": "P100D"}
"""As GET /admin/settings of Prefect 3.8.8 says."""


@dataclass
class Platform:
    """A fake Prefect with things in it, and an exporter that looks at it."""

    fake: FakePrefect
    options: dict[str, Any] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.api = self.fake.backstage
        self.fake.settings["services"] = {"scheduler": SCHEDULER}
        self.restart()

    def restart(self) -> None:
        """A new process."""
        self.registry = CollectorRegistry()
        client = Client(Api(url="http://fake/api"), self.fake.transport, Retry(attempts=1))
        self.exporter = make(client, self.registry, **self.options)

    def look(self) -> None:
        for reader in self.exporter.readers:
            reader.due = 0.0
        self.exporter.turn()

    def told(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(PREFIX + name, labels)

    def all(self, name: str) -> dict[tuple[str, ...], float]:
        """Every sample of a metric, by its labels' values."""
        samples = (s for family in self.registry.collect() for s in family.samples)
        return {tuple(s.labels.values()): s.value for s in samples if s.name == PREFIX + name}

    def pool(self, name: str = "pool", **more: Any) -> str:
        self._post("/work_pools/", name=name, type=more.pop("type", "process"), **more)
        return name

    def deploy(self, name: str, schedule: Any = None, **more: Any) -> str:
        flow = self._post("/flows/", name=name)["id"]
        schedules = [{"schedule": schedule, "active": True}] if schedule else []
        body = {"name": name, "flow_id": flow, "work_pool_name": "pool", "schedules": schedules} | more
        self.ids[name] = str(self._post("/deployments/", **body)["id"])
        return self.ids[name]

    def run(self, name: str, *states: str, late: float = 0) -> str:
        """A run that was due so many seconds ago, and went through these states."""
        due = {"scheduled_time": (datetime.now(UTC) - timedelta(seconds=late)).isoformat()}
        state = {"type": "SCHEDULED", "state_details": due}
        run = str(self._post(f"/deployments/{self.ids[name]}/create_flow_run", state=state)["id"])
        for one in states:
            self.enter(run, one)
        return run

    def enter(self, run: str, state: str, name: str | None = None) -> None:
        self._post(f"/flow_runs/{run}/set_state", state={"type": state, "name": name})

    def beat(self, pool: str = "pool", worker: str = "w") -> None:
        self._post(f"/work_pools/{pool}/workers/heartbeat", name=worker)

    def artifact(self, key: str, description: str) -> None:
        self._post("/artifacts/", key=key, type="table", data="[]", description=description)

    def _post(self, path: str, **body: Any) -> Any:
        answer = self.api.post(path, json=body)
        answer.raise_for_status()
        return answer.json() if answer.content else None


@pytest.fixture
def platform(fake: FakePrefect) -> Platform:
    found = Platform(fake)
    found.pool()
    return found


def everything(fake: FakePrefect, folder: Path) -> Platform:
    """A platform of which every metric has something to tell."""
    Stage(fake).apply(config(deployment("hello"), variables={"colour": "red"}))
    platform = Platform(fake, {"backups": Backups(folder, cronjob=("prefect-prod", "prefect-platform-backup"))})
    platform.api.patch("/variables/name/colour", json={"value": "blue"})
    platform.pool(concurrency_limit=2)
    platform.api.post("/work_pools/pool/queues", json={"name": "urgent", "is_paused": True})
    platform.deploy("resting", paused=True)
    platform.deploy("nightly", OFTEN)
    platform.beat()
    platform.artifact("database-backup", "shop.dump at s3://bucket")
    (folder / "prefect.dump").write_bytes(b"1234")
    platform.run("nightly", late=300)
    platform.look()
    platform.run("nightly", "RUNNING", "FAILED")
    platform.look()
    return platform


# -- runs


def test_runs_are_told_by_deployment_pool_and_state(platform: Platform) -> None:
    platform.deploy("a")
    platform.deploy("b")
    platform.run("a", "RUNNING")
    platform.run("a", "RUNNING")
    platform.run("b", "PENDING")
    platform.run("b", "RUNNING", "COMPLETED")
    platform.look()
    assert platform.all("flow_runs") == {("a/a", "pool", "RUNNING"): 2, ("b/b", "pool", "PENDING"): 1}
    assert platform.all("flow_runs_recent") == {("b/b", "pool", "COMPLETED"): 1}


def test_a_run_is_late_a_minute_after_its_time(platform: Platform) -> None:
    platform.deploy("a")
    platform.deploy("b")
    for late in (30, 300, 700, -600):
        platform.run("a", late=late)
    platform.run("b", late=30)
    platform.look()
    assert platform.all("flow_runs_late") == {("a/a", "pool"): 2}
    assert platform.all("flow_run_lateness_seconds")["a/a", "pool"] == pytest.approx(700, abs=30)
    assert platform.all("flow_runs") == {("a/a", "pool", "SCHEDULED"): 3, ("b/b", "pool", "SCHEDULED"): 1}


@pytest.mark.parametrize(
    ("name", "state"), [("AwaitingRetry", "AWAITING_RETRY"), ("AwaitingConcurrencySlot", "AWAITING_SLOT")]
)
def test_what_waits_on_purpose_is_late_only_after_its_next_time(platform: Platform, name: str, state: str) -> None:
    platform.deploy("a")
    for seconds in (60, -600):
        run = platform.run("a", late=900)
        platform.fake.now = datetime.now(UTC) + timedelta(seconds=seconds)
        platform.enter(run, "SCHEDULED", name)
    platform.fake.now = None
    platform.look()
    assert platform.all("flow_runs") == {("a/a", "pool", state): 2}
    assert platform.all("flow_runs_late") == {("a/a", "pool"): 1}


def test_each_run_that_ends_is_counted_once(platform: Platform) -> None:
    platform.deploy("a")
    platform.look()
    platform.run("a", "RUNNING", "COMPLETED")
    for _ in range(3):
        platform.look()
    assert platform.all("flow_runs_finished_total") == {("a/a", "pool", "COMPLETED"): 1}
    assert platform.told("flow_run_duration_seconds_count", deployment="a/a", pool="pool") == 1
    assert platform.told("flow_run_start_delay_seconds_count", pool="pool") == 1


def test_a_run_that_ends_again_counts_again(platform: Platform) -> None:
    """Somebody retried it in the UI."""
    platform.deploy("a")
    platform.look()
    run = platform.run("a", "RUNNING", "FAILED")
    platform.look()
    platform.enter(run, "RUNNING")
    platform.enter(run, "COMPLETED")
    platform.look()
    assert platform.all("flow_runs_finished_total") == {("a/a", "pool", "FAILED"): 1, ("a/a", "pool", "COMPLETED"): 1}
    assert platform.all("flow_runs_recent") == {("a/a", "pool", "COMPLETED"): 1}


def test_a_new_process_knows_the_last_hour_and_counts_from_nought(platform: Platform) -> None:
    platform.deploy("a")
    platform.look()
    platform.run("a", "RUNNING", "FAILED")
    platform.look()
    platform.restart()
    platform.look()
    assert platform.all("flow_runs_recent") == {("a/a", "pool", "FAILED"): 1}
    assert platform.told("deployment_last_run_failed", deployment="a/a", pool="pool") == 1
    assert platform.all("flow_runs_finished_total") == {}


def test_what_ended_while_the_api_was_away_is_counted_afterwards(platform: Platform) -> None:
    platform.deploy("a")
    platform.look()
    platform.run("a", "RUNNING", "COMPLETED")
    platform.fake.fail("POST", "/flow_runs/filter", before=503, times=2)
    platform.look()
    platform.look()
    assert platform.all("flow_runs_finished_total") == {}
    platform.look()
    assert platform.all("flow_runs_finished_total") == {("a/a", "pool", "COMPLETED"): 1}


def test_a_reading_that_breaks_off_in_the_middle_counts_nothing_twice(platform: Platform) -> None:
    platform.deploy("a")
    platform.look()
    for _ in range(201):
        platform.run("a", "RUNNING", "COMPLETED")
    platform.fake.fail("POST", "/flow_runs/filter", before=503, skip=1)
    platform.look()
    platform.look()
    assert platform.all("flow_runs_finished_total") == {("a/a", "pool", "COMPLETED"): 201}


def test_the_last_run_counts_not_the_one_before(platform: Platform) -> None:
    for name in ("mended", "broken", "stopped"):
        platform.deploy(name)
    for name, *states in (
        ("mended", "FAILED", "COMPLETED"),
        ("broken", "COMPLETED", "CRASHED"),
        ("stopped", "FAILED", "CANCELLED"),
    ):
        for state in states:
            platform.run(name, "RUNNING", state)
    platform.look()
    failed = {labels[0]: value for labels, value in platform.all("deployment_last_run_failed").items()}
    assert failed == {"mended/mended": 0, "broken/broken": 1, "stopped/stopped": 1}


def test_what_failed_last_night_is_not_recent_and_not_forgotten(platform: Platform) -> None:
    platform.deploy("nightly")
    platform.fake.now = datetime.now(UTC) - timedelta(hours=8)
    platform.run("nightly", "RUNNING", "FAILED")
    platform.fake.now = None
    platform.look()
    assert platform.all("flow_runs_recent") == {}
    assert platform.all("deployment_last_run_failed") == {("nightly/nightly", "pool"): 1}


def test_a_deployment_that_moved_to_another_pool_has_one_last_run(platform: Platform) -> None:
    platform.deploy("a")
    platform.run("a", "RUNNING", "FAILED")
    platform.pool("other")
    platform.api.patch(f"/deployments/{platform.ids['a']}", json={"work_pool_name": "other"}).raise_for_status()
    platform.run("a", "RUNNING", "COMPLETED")
    platform.look()
    assert platform.all("deployment_last_run_failed") == {("a/a", "other"): 0}


def test_a_run_that_was_never_started_has_no_duration(platform: Platform) -> None:
    platform.deploy("a")
    platform.look()
    platform.run("a", "CANCELLED")
    platform.look()
    assert platform.all("flow_runs_finished_total") == {("a/a", "pool", "CANCELLED"): 1}
    assert platform.told("flow_run_duration_seconds_count", deployment="a/a", pool="pool") is None


def test_however_many_deployments_there_are_the_labels_are_bounded(fake: FakePrefect) -> None:
    platform = Platform(fake, {"most": 2})
    platform.pool()
    for name in "abcd":
        platform.deploy(name)
        platform.run(name, "RUNNING")
    platform.look()
    found = {labels[0]: value for labels, value in platform.all("flow_runs").items()}
    assert len(found) == 3 and found["(other)"] == 2
    assert platform.told("folded_deployments") == 2


def test_a_deployment_that_is_gone_leaves_its_place(fake: FakePrefect) -> None:
    platform = Platform(fake, {"most": 1})
    platform.pool()
    for name in ("old", "new"):
        platform.deploy(name)
        platform.look()
        platform.run(name, "RUNNING", "COMPLETED")
        platform.look()
        if name == "old":
            platform.api.delete(f"/deployments/{platform.ids['old']}")
    assert platform.all("flow_runs_finished_total") == {("new/new", "pool", "COMPLETED"): 1}
    assert platform.told("flow_run_duration_seconds_count", deployment="old/old", pool="pool") is None
    assert [labels[0] for labels in platform.all("deployment_last_run_failed")] == ["new/new"]


def test_a_deployment_is_known_by_name_as_soon_as_it_runs(platform: Platform) -> None:
    """Deployments are read less often than runs."""
    platform.look()
    platform.deploy("a")
    platform.run("a", "RUNNING")
    next(r for r in platform.exporter.readers if r.name == "runs").turn(platform.exporter.client)
    assert platform.all("flow_runs") == {("a/a", "pool", "RUNNING"): 1}


def test_a_flow_that_runs_as_part_of_another_is_not_counted() -> None:
    """A run that somebody started without a deployment is."""
    run = {
        "deployment_id": None,
        "work_pool_name": None,
        "state_id": "s",
        "state_type": "COMPLETED",
        "state_name": "Completed",
    }
    run["end_time"] = datetime.now(UTC).isoformat()
    answer = [{**run, "id": "1", "parent_task_run_id": "task"}, {**run, "id": "2", "parent_task_run_id": None}]
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=answer))
    runs = Runs(Names(9), timedelta(hours=1), CollectorRegistry())
    told = list(runs(Client(Api(url="http://fake/api"), transport)))
    assert ("flow_runs_recent", 1, "(none)", "(none)", "COMPLETED") in told


# -- pools


def test_a_pool_tells_its_workers_its_status_and_its_slots(platform: Platform) -> None:
    platform.pool("limited", type="docker", concurrency_limit=3)
    platform.beat("pool", "one")
    platform.beat("pool", "two")
    platform.look()
    assert platform.all("workers_online") == {("pool",): 2, ("limited",): 0}
    assert platform.told("work_pool_status", pool="pool", status="READY") == 1
    assert platform.told("work_pool_status", pool="limited", status="NOT_READY") == 1
    assert platform.all("work_pool_slots") == {("limited",): 3}
    assert platform.told("work_pool_info", pool="limited", type="docker") == 1


def test_a_worker_that_fell_silent_leaves_the_time_of_its_last_heartbeat(platform: Platform) -> None:
    platform.fake.now = datetime.now(UTC) - timedelta(hours=1)
    platform.beat()
    last = platform.fake.now.timestamp()
    platform.fake.now = None
    platform.look()
    assert platform.told("workers_online", pool="pool") == 0
    assert platform.told("worker_heartbeat_timestamp_seconds", pool="pool") == pytest.approx(last, abs=1)


def test_a_paused_queue_is_told(platform: Platform) -> None:
    platform.api.post("/work_pools/pool/queues", json={"name": "urgent", "is_paused": True})
    platform.look()
    assert platform.all("work_queue_paused") == {("pool", "default"): 0, ("pool", "urgent"): 1}


# -- schedules


def test_a_schedule_without_runs_ahead_is_overdue(platform: Platform) -> None:
    """As when SQLAlchemy 2.1 keeps the server from making any."""
    made = platform.deploy("made", OFTEN)
    platform.deploy("forgotten", OFTEN)
    platform.deploy("paused", OFTEN, paused=True)
    platform.deploy(
        "later", {"interval": 86400 * 30, "anchor_date": (datetime.now(UTC) + timedelta(days=3)).isoformat()}
    )
    platform.deploy("by-hand")
    platform.deploy("stopped", schedules=[{"schedule": OFTEN, "active": False}])
    platform.api.post(f"/deployments/{made}/schedule")
    platform.look()
    assert platform.all("deployment_without_next_run") == {("made/made", "pool"): 0, ("forgotten/forgotten", "pool"): 1}
    assert platform.all("deployments") == {("pool", "false"): 5, ("pool", "true"): 1}


def daily(ago: timedelta) -> dict[str, Any]:
    """A schedule that fired that long ago."""
    return {"interval": 86400, "anchor_date": (datetime.now(UTC) - ago).isoformat()}


def short(platform: Platform) -> dict[str, float]:
    platform.look()
    return {labels[0]: value for labels, value in platform.all("deployment_short_of_runs").items()}


@pytest.mark.parametrize(("minutes", "told"), [(1, 0), (10, 1)])
def test_the_first_nightly_run_after_it_shows_that_the_scheduler_stopped(
    platform: Platform, minutes: int, told: int
) -> None:
    """A healthy one comes by every minute."""
    nightly = platform.deploy("nightly", daily(timedelta(minutes=minutes)))
    before = datetime.now(UTC) - timedelta(hours=1)
    platform.api.post(f"/deployments/{nightly}/schedule", json={"start_time": before.isoformat()})
    platform.run("nightly", late=-9 * 86400)  # by hand
    assert short(platform) == {"nightly/nightly": told}
    assert platform.told("deployment_without_next_run", deployment="nightly/nightly", pool="pool") == 0
    platform.api.post(f"/deployments/{nightly}/schedule")
    assert short(platform) == {"nightly/nightly": 0}


def test_a_frequent_schedule_is_short_long_before_its_last_run(platform: Platform) -> None:
    """Of the hour that the scheduler keeps ahead some minutes are gone."""
    often = platform.deploy("often", {"interval": 60, "anchor_date": "2026-01-01T00:00:00+00:00"})
    start = (datetime.now(UTC) - timedelta(minutes=6)).isoformat()
    platform.api.post(f"/deployments/{often}/schedule", json={"start_time": start})
    assert short(platform) == {"often/often": 1}
    platform.api.post(f"/deployments/{often}/schedule")
    assert short(platform) == {"often/often": 0}


def test_a_run_that_somebody_cancelled_ahead_of_its_time_is_not_missed(platform: Platform) -> None:
    """The scheduler never makes it again."""
    nightly = platform.deploy("nightly", daily(timedelta(hours=2)))
    platform.api.post(f"/deployments/{nightly}/schedule")
    last = max(platform.api.post("/flow_runs/filter", json={}).json(), key=lambda run: str(run["expected_start_time"]))
    platform.enter(last["id"], "CANCELLED")
    assert short(platform) == {"nightly/nightly": 0}


def test_nobody_is_short_without_a_run_ahead_or_where_the_server_does_not_say_what_it_keeps(platform: Platform) -> None:
    """None at all: it was just deployed, or the server cannot expand the schedule."""
    platform.deploy("bare", daily(timedelta(hours=2)))
    platform.deploy("yearly", {"cron": "0 0 1 1 *"})
    platform.deploy("paused", daily(timedelta(hours=2)), paused=True)
    assert short(platform) == {"bare/bare": 0}
    del platform.fake.settings["services"]
    assert short(platform) == {}
    assert platform.told("reader_up", reader="deployments") == 1


NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "days"),
    [
        ({"cron": "0 20 * * 1-5"}, [10, 11, 12]),
        ({"interval": 86400.0, "anchor_date": "2026-01-01T00:30:00Z"}, [11, 12, 13]),
        ({"rrule": "DTSTART:20260101T060000\nRRULE:FREQ=DAILY;UNTIL=20260312T000000"}, [11]),
        ({"rrule": "FREQ=HOURLY;INTERVAL=5"}, []),
    ],
)
def test_the_times_that_follow(schedule: dict[str, Any], days: list[int]) -> None:
    """Those of a rule by the hour would have to be counted from their beginning."""
    assert [at.day for at in next_times(schedule, NOW, 3)] == days


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"cron": "0 20 * * *", "timezone": "America/Chicago"}, datetime(2026, 3, 11, 1, tzinfo=UTC)),
        ({"cron": "0 0 1 1 *"}, datetime(2027, 1, 1, tzinfo=UTC)),
        ({"interval": 3600.0, "anchor_date": "2026-01-01T00:30:00Z"}, datetime(2026, 3, 10, 12, 30, tzinfo=UTC)),
        ({"interval": 60.0, "anchor_date": "2027-01-01T00:00:00Z"}, datetime(2026, 3, 10, 12, 0, tzinfo=UTC)),
        ({"rrule": "FREQ=WEEKLY;BYDAY=SU;BYHOUR=5;BYMINUTE=0;BYSECOND=0"}, datetime(2026, 3, 15, 5, tzinfo=UTC)),
        (
            {"rrule": "DTSTART:20260101T060000\nRRULE:FREQ=DAILY", "timezone": "Europe/Berlin"},
            datetime(2026, 3, 11, 5, tzinfo=UTC),
        ),
        ({"rrule": "DTSTART:20260101T060000Z\nRRULE:FREQ=DAILY"}, datetime(2026, 3, 11, 6, tzinfo=UTC)),
        ({"rrule": "DTSTART:20260101T060000\nRRULE:FREQ=DAILY;COUNT=3"}, None),
        ({"rrule": "FREQ=MINUTELY"}, NOW),
        ({"cron": "no cron"}, None),
        ({"something": "else"}, None),
    ],
)
def test_when_a_schedule_fires_next(schedule: dict[str, Any], expected: datetime | None) -> None:
    assert next_time(schedule, NOW) == expected


@pytest.mark.parametrize(
    ("kind", "schedule"),
    [
        ("Cron", {"cron": "30 2 * * *", "timezone": "America/Chicago"}),
        ("Cron", {"cron": "0 20 * * 1-5", "timezone": "Europe/Berlin"}),
        ("Cron", {"cron": "*/15 * * * *", "timezone": "Australia/Lord_Howe"}),
        ("Interval", {"interval": 90000, "anchor_date": "2026-01-01T00:30:00Z", "timezone": "America/Chicago"}),
        ("RRule", {"rrule": "FREQ=WEEKLY;BYDAY=SU;BYHOUR=2;BYMINUTE=30;BYSECOND=0", "timezone": "Europe/Berlin"}),
        ("RRule", {"rrule": "FREQ=DAILY;COUNT=2280", "timezone": "Europe/Berlin"}),
    ],
)
def test_the_last_run_that_is_expected_is_the_last_that_prefect_makes(kind: str, schedule: dict[str, Any]) -> None:
    """By Prefect's own dates, all through the weeks in which the clocks change; unless the schedule ends before."""
    prefects = getattr(import_module("prefect.server.schemas.schedules"), f"{kind}Schedule")(**schedule)
    keeps, judged = Scheduler(3, 100, timedelta(hours=1), timedelta(days=100)), 0
    for hours in range(0, 24 * 42, 11):
        since = datetime(2026, 3, 1, 0, 7, tzinfo=UTC) + timedelta(hours=hours)
        dates = asyncio.run(prefects.get_dates(100, since, since + timedelta(days=100)))
        enough = [n for n, date in enumerate(dates, start=1) if n >= 3 and date >= since + timedelta(hours=1)]
        if edge := keeps.edge({"schedules": [{"schedule": schedule, "active": True}]}, since):
            assert dates[enough[0] - 2] <= edge < dates[enough[0] - 1]
            judged += 1
    assert judged > 50


# -- releases and drift


@pytest.fixture
def released(fake: FakePrefect) -> tuple[Stage, Platform]:
    stage = Stage(fake)
    stage.apply(config(deployment("hello"), variables={"colour": "red"}))
    return stage, Platform(fake)


HERE = {"project": "scratch", "environment": "dev"}


def test_the_newest_release_is_told(released: tuple[Stage, Platform]) -> None:
    _, platform = released
    platform.look()
    assert platform.told("release_number", **HERE) == platform.told("release_live_number", **HERE) == 1
    assert platform.told("release_result", **HERE, result="succeeded") == 1
    assert platform.told("release_result", **HERE, result="failed") == 0
    [labels] = platform.all("release_info")
    assert labels[2] == A[:12] and labels[4] == "succeeded"


def test_after_a_failed_release_the_one_before_is_live(released: tuple[Stage, Platform]) -> None:
    stage, platform = released
    stage.fake.fail("POST", "^/variables/$", before=422, times=1)
    stage.apply(config(deployment("hello"), variables={"colour": "red", "size": "big"}))
    platform.look()
    assert platform.told("release_number", **HERE) == 2
    assert platform.told("release_result", **HERE, result="failed") == 1
    assert platform.told("release_live_number", **HERE) == 1


def test_what_somebody_changed_by_hand_is_drift(released: tuple[Stage, Platform]) -> None:
    _, platform = released
    platform.look()
    assert set(platform.all("drift_changes").values()) == {0}
    assert platform.told("drift_compared", **HERE) == 1
    platform.api.patch("/variables/name/colour", json={"value": "blue"})
    platform.look()
    assert {labels[2]: n for labels, n in platform.all("drift_changes").items() if n} == {"variable": 1}


def test_while_a_release_is_made_nothing_is_compared(released: tuple[Stage, Platform]) -> None:
    stage, platform = released
    stage.apply(config(deployment("hello"), variables={"colour": "green"}))
    chosen = {"artifacts": {"key": {"any_": ["release-scratch-dev"]}}, "sort": "CREATED_DESC"}
    answers = platform.api.post("/artifacts/filter", json=chosen)
    text = answers.json()[0]["data"].replace('"succeeded"', '"started"')
    platform.api.patch(f"/artifacts/{answers.json()[0]['id']}", json={"data": text})
    platform.look()
    assert platform.told("drift_compared", **HERE) == 0
    assert platform.all("drift_changes") == {}


def test_a_lost_specification_is_told_and_not_taken_for_drift(released: tuple[Stage, Platform]) -> None:
    _, platform = released
    for answer in platform.api.post("/artifacts/filter", json={}).json():
        if answer["key"].startswith("spec-"):
            platform.api.delete(f"/artifacts/{answer['id']}")
    platform.look()
    assert platform.told("drift_compared", **HERE) == 0
    assert platform.told("reader_up", reader="drift") == 1


def test_an_api_that_fails_in_the_middle_is_no_drift_and_no_answer(released: tuple[Stage, Platform]) -> None:
    _, platform = released
    platform.look()
    platform.fake.fail("POST", "/variables/filter", before=503, times=10)
    platform.look()
    assert platform.told("reader_up", reader="drift") == 0
    assert platform.told("drift_compared", **HERE) == 1


def test_a_preview_is_counted_beside_its_environment(released: tuple[Stage, Platform]) -> None:
    _, platform = released
    [release] = platform.api.post(
        "/artifacts/filter", json={"artifacts": {"key": {"any_": ["release-scratch-dev"]}}}
    ).json()
    platform._post("/artifacts/", key="release-scratch-dev-pr-12", type="markdown", data=release["data"])
    platform.look()
    assert platform.told("previews", **HERE) == 1
    assert len(platform.all("release_number")) == 1


# -- backups


def test_the_warehouses_backup_is_told_with_its_proof(platform: Platform) -> None:
    platform.artifact("database-backup", "shop-1.dump at s3://bucket")
    platform.look()
    assert platform.told("backup_timestamp_seconds", of="warehouse") == pytest.approx(
        datetime.now(UTC).timestamp(), abs=30
    )
    assert platform.told("backup_verified", of="warehouse") == 1
    platform.artifact("database-backup", "shop-2-unverified.dump at s3://bucket")
    platform.look()
    assert platform.told("backup_verified", of="warehouse") == 0


def test_a_backup_that_was_never_made_is_as_old_as_its_schedule(platform: Platform) -> None:
    platform.look()
    assert platform.told("backup_timestamp_seconds", of="warehouse") is None
    platform.fake.now = datetime.now(UTC) - timedelta(days=3)
    platform.deploy("database-backup", OFTEN)
    platform.fake.now = datetime.now(UTC) - timedelta(days=1)
    platform.deploy("database-backup-dev", OFTEN)
    platform.fake.now = datetime.now(UTC) - timedelta(days=9)
    platform.deploy("database-backup-qa", OFTEN, paused=True)
    platform.fake.now = None
    platform.look()
    three_days_ago = (datetime.now(UTC) - timedelta(days=3)).timestamp()
    assert platform.told("backup_timestamp_seconds", of="warehouse") == pytest.approx(three_days_ago, abs=30)


def test_of_a_folder_the_newest_file_counts(fake: FakePrefect, tmp_path: Path) -> None:
    platform = Platform(fake, {"backups": Backups(tmp_path)})
    platform.look()
    assert platform.told("backup_timestamp_seconds", of="prefect") == 0
    assert platform.told("backup_due_timestamp_seconds", of="prefect") is None
    for name, age in (("new.dump", 100), ("old.dump", 9000), (".new.dump.part", 1)):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (0, 1_000_000_000 - age))
    platform.look()
    assert platform.told("backup_timestamp_seconds", of="prefect") == 1_000_000_000 - 100
    assert platform.told("backup_bytes", of="prefect") == len("new.dump")


NIGHT = datetime(2026, 3, 6, 2, 20, tzinfo=UTC)
"""A Friday."""


@pytest.mark.parametrize(
    ("schedule", "due"),
    [
        ("86400", NIGHT + timedelta(days=1)),
        ("3600", NIGHT + timedelta(hours=1)),
        ("15 2 * * 1-5 Etc/UTC", datetime(2026, 3, 9, 2, 15, tzinfo=UTC)),
    ],
)
def test_the_next_file_is_due_when_its_schedule_says(
    fake: FakePrefect, tmp_path: Path, schedule: str, due: datetime
) -> None:
    (tmp_path / "prefect.dump").touch()
    os.utime(tmp_path / "prefect.dump", (0, NIGHT.timestamp()))
    asked = parser().parse_args(["--backups-schedule", schedule]).backups_schedule
    platform = Platform(fake, {"backups": Backups(tmp_path, asked)})
    platform.look()
    assert platform.told("backup_due_timestamp_seconds", of="prefect") == due.timestamp()


@pytest.mark.parametrize("text", ["0", "-60", "nightly", "15 2 * * *", "15 2 * * * Mars/Olympus"])
def test_a_schedule_of_backups_that_cannot_be_read_is_told(text: str) -> None:
    process = command("--once", f"--backups-schedule={text}")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"--backups-schedule: '{text}' is neither seconds nor cron's fields and a time zone" in err


def test_the_warehouses_next_backup_is_due_when_its_deployment_fires(platform: Platform) -> None:
    """Once a day where none is scheduled."""
    platform.fake.now = NIGHT
    platform.artifact("database-backup", "shop-1.dump at s3://bucket")
    platform.fake.now = None
    platform.look()
    day = NIGHT + timedelta(days=1)
    assert platform.told("backup_due_timestamp_seconds", of="warehouse") == pytest.approx(day.timestamp(), abs=5)
    platform.deploy("database-backup", {"cron": "0 3 * * 0", "timezone": "UTC"})
    platform.look()
    sunday = datetime(2026, 3, 8, 3, tzinfo=UTC)
    assert platform.told("backup_due_timestamp_seconds", of="warehouse") == sunday.timestamp()


# -- the API is away


def test_it_says_that_the_api_is_away_and_why(platform: Platform, caplog: pytest.LogCaptureFixture) -> None:
    platform.look()
    assert platform.told("api_up") == 1
    platform.fake.fail("*", "", before="drop", times=1000)
    for _ in range(3):
        platform.look()
    assert platform.told("api_up") == 0
    assert platform.told("api_failure", reason="unreachable") == 1
    assert platform.told("reader_up", reader="runs") == 0
    assert len(caplog.records) == 1


def test_while_the_api_is_away_nothing_else_is_asked(platform: Platform) -> None:
    platform.fake.fail("*", "", before="drop", times=1000)
    platform.look()
    platform.fake.forget()
    platform.exporter.turn()
    assert platform.fake.requests == []
    assert min(reader.due for reader in platform.exporter.readers) > time.monotonic() + 10
    platform.exporter.readers[0].due = 0.0
    platform.exporter.turn()
    assert [str(request) for request in platform.fake.requests] == ["GET /admin/version"]


@pytest.mark.parametrize("status", [500, 503])
def test_an_api_without_its_database_is_down(platform: Platform, status: int) -> None:
    """PostgreSQL is away: version and health answer all the same, whatever needs a row does not."""
    platform.fake.fail("*", "/(filter|read|count|[0-9a-f-]{36})$", before=status, times=1000)
    platform.look()
    assert platform.fake.client().get("/admin/version").status_code == 200
    assert platform.told("api_up") == 0
    assert platform.told("api_failure", reason="unreachable") == 1
    assert [str(r) for r in platform.fake.requests if r.path.endswith("filter")] == ["POST /flows/filter"]


def test_what_fails_alone_is_said_to_work_again_only_when_it_does(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    """Other readers' turns in between are no news."""
    platform.fake.fail("POST", "/work_pools/filter", before=422, times=1)
    platform.look()
    platform.exporter.readers[0].due = 0.0
    platform.exporter.turn()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert platform.told("api_failure", reason="refused") == 1
    platform.look()
    assert "Reading pools works again" in caplog.records[1].getMessage()


def test_it_says_when_the_api_is_back(platform: Platform, caplog: pytest.LogCaptureFixture) -> None:
    platform.look()
    platform.fake.fail("*", "", before="drop", times=1)
    for _ in range(3):  # what comes seldom has no turn meanwhile
        platform.exporter.readers[0].due = 0.0
        platform.exporter.turn()
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert platform.told("api_up") == platform.told("reader_up", reader="drift") == 1
    assert set(platform.all("api_failure").values()) == {0}


@pytest.mark.parametrize(("status", "reason"), [(401, "unauthorized"), (403, "forbidden")])
def test_refused_credentials_have_a_reason_of_their_own(platform: Platform, status: int, reason: str) -> None:
    platform.fake.fail("*", "", before=status, times=1000)
    platform.look()
    assert platform.told("api_failure", reason=reason) == 1
    assert platform.told("api_up") == 0


def test_one_reader_that_fails_leaves_the_others_alone(platform: Platform) -> None:
    platform.look()
    platform.fake.fail("POST", "/work_pools/pool/queues/filter", before=500, times=1000)
    platform.look()
    assert platform.told("reader_up", reader="pools") == 0
    assert platform.told("reader_up", reader="runs") == 1
    assert platform.told("api_up") == 1


def test_what_failed_has_its_next_turn_within_a_minute(platform: Platform) -> None:
    drift = platform.exporter.readers[-1]
    platform.look()
    assert drift.due > time.monotonic() + 500
    platform.fake.fail("POST", "/artifacts/latest/filter", before=422, times=9)
    platform.look()
    assert drift.due < time.monotonic() + 61


def test_a_bug_in_one_reader_does_not_end_the_process(platform: Platform) -> None:
    def broken(client: Client) -> Iterator[Sample]:
        raise ZeroDivisionError

    next(r for r in platform.exporter.readers if r.name == "pools").read = broken
    platform.look()
    assert platform.told("api_failure", reason="bug") == 1
    assert platform.told("reader_up", reader="drift") == 1


def test_old_numbers_do_not_pass_for_new_ones(platform: Platform) -> None:
    platform.beat()
    platform.look()
    platform.fake.fail("*", "", before="drop", times=1000)
    platform.look()
    assert platform.told("workers_online", pool="pool") == 1
    for reader in platform.exporter.readers:
        assert reader.read_at
        reader.read_at -= 3600 * 24
    assert platform.told("workers_online", pool="pool") is None


def test_the_readers_come_in_turns(platform: Platform) -> None:
    """A turn asks only for what is due."""
    platform.look()
    platform.fake.forget()
    platform.exporter.turn()
    assert platform.fake.requests == []


def test_it_writes_nothing(fake: FakePrefect, tmp_path: Path) -> None:
    platform = everything(fake, tmp_path)
    fake.forget()
    platform.look()
    assert fake.requests and not fake.writes


def test_a_platform_with_everything_has_a_sample_of_every_metric(fake: FakePrefect, tmp_path: Path) -> None:
    platform = everything(fake, tmp_path)
    assert [name for name in GAUGES if not platform.all(name)] == []


# -- the command


def command(*words: object, **variables: str) -> subprocess.Popen[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME")}
    return subprocess.Popen(
        [sys.executable, SCRIPT, *map(str, words)],
        env={**kept, "PYTHONPATH": str(ROOT), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def served(url: str, *words: str, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The exporter as a process, on a port of its own."""
    process = command("--listen", "127.0.0.1:0", "--interval", "0.2", *words, PREFECT_API_URL=url, **variables)
    try:
        assert process.stderr
        line = process.stderr.readline()
        assert line.startswith("Serving "), line + process.stderr.read()
        yield process, line.split()[1]
    finally:
        process.kill()
        process.communicate()


def hanging(fake: FakePrefect) -> threading.Event:
    """From now on the API takes requests and does not answer. Set as soon as the first one came."""
    asked = threading.Event()
    fake.on_request = lambda _: asked.set()
    fake.fail("*", "", before="timeout", times=1000)
    return asked


def test_a_scrape_is_answered_while_the_api_hangs(fake: FakePrefect) -> None:
    asked = hanging(fake)
    with fake.serve() as url, served(url) as (_, address):
        assert asked.wait(60)
        assert "prefect_platform_api_up 0.0" in httpx.get(address, timeout=30).text


def test_it_ends_at_once_also_while_the_api_hangs(fake: FakePrefect) -> None:
    asked = hanging(fake)
    with fake.serve() as url, served(url) as (process, _):
        assert asked.wait(60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_the_password_comes_from_a_file_and_goes_nowhere_else(fake: FakePrefect, tmp_path: Path) -> None:
    fake.auth = "admin:right"
    secret = tmp_path / "auth"
    secret.write_text("admin:wrong-one\n")
    with fake.serve() as url:
        process = command("--once", PREFECT_API_URL=url, PREFECT_API_AUTH_STRING_FILE=str(secret))
        out, err = process.communicate(timeout=60)
        secret.write_text("admin:right\n")
        again = command("--once", PREFECT_API_URL=url, PREFECT_API_AUTH_STRING_FILE=str(secret))
        told, _ = again.communicate(timeout=60)
    assert process.returncode == 1 and "(401)" in err and "wrong-one" not in out + err
    assert again.returncode == 0 and "prefect_platform_api_up 1.0" in told


def test_it_needs_no_prefect_to_start() -> None:
    """Which takes a second or two, and 100 MB."""
    code = "import sys, infra.monitoring.exporter.command; sys.exit('prefect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_without_an_address_it_says_what_is_missing() -> None:
    process = command("--once")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "PREFECT_API_URL" in err and "Traceback" not in err


def test_a_taken_port_is_an_error_in_one_line(fake: FakePrefect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, fake.serve() as url:
        process = command("--listen", f"127.0.0.1:{taken.getsockname()[1]}", PREFECT_API_URL=url)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith("exporter: cannot listen on") and "Traceback" not in err
