"""A deploy loses no scheduled run and doubles none, whenever it comes: Prefect drops a deployment's future runs at every write."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from deployer import apply as engine
from deployer.environment import Api
from deployer.prefect_api import Client
from tests.real.stage import Stage, at, until, worker
from tests.server import Server

pytestmark = [pytest.mark.usefixtures("warm_loader"), pytest.mark.stack]

ANCHOR = "2026-01-01T00:00:00+00:00"


def every(seconds: float, **more: Any) -> dict[str, Any]:
    """A schedule that fires at whole multiples of so many seconds."""
    return {"interval": seconds, "anchor_date": ANCHOR, **more}


def hourly(slug: str) -> dict[str, Any]:
    """A schedule that fires in half an hour for the first time: after any test of this file, at whatever time that runs."""
    anchor = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=30)
    return every(3600, slug=slug, anchor_date=anchor.isoformat())


def next_fire(seconds: float, ahead: float = 0.0) -> datetime:
    """When `every(seconds)` fires next, at least `ahead` seconds from now."""
    start = datetime.fromisoformat(ANCHOR)
    passed = (datetime.now(UTC) + timedelta(seconds=ahead) - start).total_seconds()
    return start + timedelta(seconds=seconds * (passed // seconds + 1))


def wait_until(moment: datetime) -> None:
    threading.Event().wait(max(0.0, (moment - datetime.now(UTC)).total_seconds()))


def carried_out(stage: Stage, name: str = "hello") -> list[dict[str, Any]]:
    """Runs that were, or will be."""
    return [run for run in stage.runs(name) if run["state_type"] != "CANCELLED"]


def fires(stage: Stage, name: str = "hello") -> Counter[datetime]:
    """How many runs each moment has."""
    return Counter(at(run) for run in carried_out(stage, name))


def is_patch(request: httpx.Request) -> bool:
    return request.method == "PATCH" and "/deployments/" in request.url.path


def is_schedule(request: httpx.Request) -> bool:
    return request.url.path.endswith("/schedule")


def scheduled(stage: Stage, *entries: dict[str, Any]) -> None:
    """Release, and have the runs that the server's scheduler would make within some seconds."""
    stage.release(*entries)
    for deployment in stage.deployments().values():
        stage.ask("POST", f"/deployments/{deployment['id']}/schedule", {})


def test_every_fire_time_has_one_run_through_many_deploys_in_its_second(stage: Stage, tmp_path: Path) -> None:
    """With a worker that takes runs ahead. Each deploy is written at a moment when both deployments fire, or shortly before."""
    stage.environment["source"] = {"strategy": "local", "directory": str(stage.repo.path)}
    minutely: list[dict[str, Any]] = [{"slug": "minutely", "cron": "* * * * *"}]
    series = [
        (minutely, [every(10, slug="s")]),
        ([*minutely, hourly("hourly")], [every(10, slug="renamed")]),
        (minutely, [every(10)]),
        ([{"cron": "* * * * *"}], [every(10)]),
        (minutely, [every(10, slug="s", parameters={"name": "y"})]),
    ]
    scheduled(stage, *both(stage, *series[0]))
    first = next_fire(10, ahead=1)
    minute = next_fire(60, ahead=12)
    with worker(stage.url, stage.named("pool"), tmp_path / "worker"):
        for index in count():
            moment = next_fire(10, ahead=2)
            stage.commit(*both(stage, *series[index % len(series)]))
            with stage.prepared() as prepared:
                wait_until(moment - timedelta(seconds=0.15 * (index % 4)))
                result = stage.carry_out(prepared)
            assert result.error is None, result.error
            if index >= 3 and moment >= minute:
                break
        last = next_fire(10) - timedelta(seconds=10)
        until(lambda: all(done(stage, name, last) for name in ("quick", "minutely")), 300)
    due = [first + timedelta(seconds=s) for s in range(0, int((last - first).total_seconds()) + 1, 10)]
    assert between(first, fires(stage, "quick"), last) == dict.fromkeys(due, 1)
    assert between(first, fires(stage, "minutely"), last) == {moment: 1 for moment in due if moment.second == 0}
    stage.nothing_left()


def both(stage: Stage, minutely: list[Any], quick: list[Any]) -> list[dict[str, Any]]:
    return [stage.entry(name="minutely", schedules=minutely), stage.entry(name="quick", schedules=quick)]


def between(first: datetime, runs: Counter[datetime], last: datetime) -> dict[datetime, int]:
    return {moment: number for moment, number in runs.items() if first <= moment <= last}


def done(stage: Stage, name: str, last: datetime) -> bool:
    """Has the worker completed all that was due?"""
    return all(run["state_type"] == "COMPLETED" for run in carried_out(stage, name) if at(run) <= last)


SHAPES = {
    "cron": {"cron": "* * * * *"},
    "cron-in-a-time-zone": {"slug": "s", "cron": "* * * * *", "timezone": "America/Chicago"},
    "interval": {"slug": "s", "interval": 20},
    "interval-with-anchor": every(20, timezone="Asia/Kolkata"),
    "rrule": {"slug": "s", "rrule": "FREQ=SECONDLY;INTERVAL=20", "timezone": "Europe/Berlin"},
}


def test_a_deploy_keeps_all_runs_and_doubles_none_that_has_begun(stage: Stage) -> None:
    """Whatever the schedule's kind: the server knows a run made again by the very same words."""
    entries = [stage.entry(name=name, schedules=[shape]) for name, shape in SHAPES.items()]
    scheduled(stage, *entries)
    before = {name: stage.runs(name) for name in SHAPES}
    for runs in before.values():
        stage.begin(runs[0])
    stage.release(*entries)
    released = datetime.now(UTC)
    soon = released + timedelta(seconds=60)  # what comes later is left to the server's own scheduler
    for name in SHAPES:
        after = stage.runs(name)
        assert set(Counter(map(at, after)).values()) == {1}, name
        assert {at(run) for run in before[name] if at(run) < soon} <= {at(run) for run in after}, name
        assert after[0]["id"] == before[name][0]["id"], name


def test_a_run_that_is_due_between_the_write_and_the_repair_is_there(stage: Stage) -> None:
    scheduled(stage, stage.entry(schedules=[every(10)]))
    due = next_fire(10, ahead=4)

    def hold(request: httpx.Request) -> None:
        if is_patch(request):
            wait_until(due - timedelta(seconds=0.4))
        if is_schedule(request):
            wait_until(due + timedelta(seconds=0.4))

    stage.wire.before = hold
    stage.release(stage.entry(schedules=[every(10)]))
    assert fires(stage)[due] == 1


def test_runs_that_the_scheduler_had_not_made_again_yet_are_made(stage: Stage) -> None:
    """A deploy seconds after a write that dropped what was not due soon. Where the server's scheduler was quicker, once more."""
    anchor = datetime.now(UTC).replace(microsecond=0)
    entry = stage.entry(schedules=[{"interval": 1800, "anchor_date": anchor.isoformat()}])
    scheduled(stage, entry)
    dropped: list[bool] = []
    stage.wire.before = lambda request: dropped.append(not stage.runs()) if is_patch(request) else None
    while not (dropped and dropped[-1]):
        assert len(dropped) < 20
        stage.commit(entry)
        with stage.prepared() as prepared:
            stage.ask("PATCH", f"/deployments/{stage.deployment()['id']}", {"paused": False})
            assert stage.carry_out(prepared).error is None
    assert fires(stage)[anchor + timedelta(seconds=1800)] == 1


def test_a_write_that_fails_halfway_leaves_the_runs_in_place(stage: Stage) -> None:
    scheduled(stage, stage.entry(schedules=[every(20, slug="a"), every(30, slug="b")]))
    refused = httpx.Response(409, json={"detail": "refused by the test"})
    stage.wire.before = lambda request: refused if is_patch(request) and "/schedules/" in request.url.path else None
    stage.commit(stage.entry(schedules=[every(20, slug="a"), every(40, slug="b")]))
    result = stage.apply()
    assert result.error and "refused by the test" in str(result.error)
    assert fires(stage)[next_fire(30, ahead=1)] >= 1


def test_what_is_due_is_looked_up_again_when_writing_takes_long(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a look and a write at most so much time may pass that the server's own scheduler is sure to come before the run."""
    entries = [
        stage.entry(name=name, schedules=[every(3600)]) for name in "abcdefghij"
    ]  # more than are written at a time
    stage.release(*entries)
    monkeypatch.setattr(engine, "LOOK", timedelta(minutes=10))
    assert looks(stage, *entries) == 1
    monkeypatch.setattr(engine, "LOOK", timedelta(seconds=0.2))
    stage.wire.before = lambda request: (
        wait_until(datetime.now(UTC) + timedelta(seconds=0.3)) if is_patch(request) else None
    )
    assert looks(stage, *entries) >= 2


def looks(stage: Stage, *entries: dict[str, Any]) -> int:
    stage.wire.forget()
    stage.release(*entries)
    return stage.wire.requests.count(("POST", "/flow_runs/filter"))


# -- schedules that change


def test_deleting_a_schedule_keeps_late_runs_of_the_others(stage: Stage) -> None:
    """The server drops them with it; hours of them when no worker was there, and nothing may come up for times that had no run."""
    scheduled(stage, stage.entry(schedules=[every(20, slug="stays"), every(30, slug="goes")]))
    late = datetime.now(UTC) - timedelta(hours=3)
    stage.make_runs(late, late + timedelta(minutes=2))
    before = fires_of(stage, "stays")
    stage.release(stage.entry(schedules=[every(20, slug="stays")]))
    after = fires_of(stage, "stays")
    assert set(after.values()) == {1}
    assert before.keys() <= after.keys()
    assert not [m for m in after.keys() - before.keys() if m < datetime.now(UTC) - timedelta(seconds=20)]
    assert next_fire(20) in after


def fires_of(stage: Stage, slug: str) -> Counter[datetime]:
    id = stage.schedules()[slug]["id"]
    return Counter(at(run) for run in stage.runs() if run["created_by"]["id"] == id)


WITH, WITHOUT = every(10, slug="s"), every(10)


def test_a_run_that_a_worker_took_ahead_is_not_doubled_when_a_schedule_loses_its_slug(stage: Stage) -> None:
    scheduled(stage, stage.entry(schedules=[WITH]))
    due = next_fire(10, ahead=2)
    stage.begin(stage.run_at(due), "PENDING")
    stage.release(stage.entry(schedules=[WITHOUT]))
    ahead = [due + timedelta(seconds=10 * step) for step in range(6)]
    wait_until(due + timedelta(seconds=6))  # a round of the server's own scheduler
    assert [fires(stage)[moment] for moment in ahead] == [1] * 6
    stage.nothing_left()


def test_a_late_run_survives_its_schedules_loss_of_the_slug(stage: Stage) -> None:
    scheduled(stage, stage.entry(schedules=[WITH]))
    late = next_fire(10) - timedelta(seconds=300)
    stage.make_runs(late, late)
    stage.release(stage.entry(schedules=[WITHOUT]))
    assert fires(stage)[late] == 1
    assert set(fires(stage).values()) == {1}


def test_a_run_that_waits_for_a_concurrency_slot_is_not_doubled(stage: Stage) -> None:
    scheduled(stage, stage.entry(schedules=[WITH]))
    late = next_fire(10) - timedelta(seconds=300)
    stage.make_runs(late, late)
    stage.begin(stage.run_at(late), "SCHEDULED", "AwaitingConcurrencySlot")
    stage.release(stage.entry(schedules=[WITHOUT]))
    assert fires(stage)[late] == 1


def test_runs_that_the_servers_scheduler_made_of_what_it_had_read_before_the_deploy_go(
    stage: Stage, real_server: Server
) -> None:
    """It reads schedules, and inserts their runs some moment later: here when the old schedule has been deleted. A worker takes one."""
    due = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=5)  # none becomes due in between
    rule = every(600, anchor_date=due.isoformat())
    scheduled(stage, stage.entry(schedules=[{**rule, "slug": "s"}]))
    read, stray = scheduled_rows(real_server, stage), stage.run_at(due)

    def insert(request: httpx.Request) -> None:
        if request.method == "POST" and request.url.path.endswith("/schedules"):
            put_rows(real_server, read)
            stage.begin(stray, "PENDING")

    stage.wire.after = insert
    stage.release(stage.entry(schedules=[rule]))
    assert fires(stage)[due] == 1
    assert set(fires(stage).values()) == {1}
    assert next(run for run in stage.runs() if run["id"] == stray["id"])["state_type"] == "CANCELLED"


def scheduled_rows(server: Server, stage: Stage) -> dict[str, list[tuple[Any, ...]]]:
    """The runs of a stage's deployment that wait, and their states, as the database has them."""
    deployment = UUID(stage.deployment()["id"])
    chosen = "SELECT id FROM flow_run WHERE deployment_id = ? AND state_type = 'SCHEDULED'"
    with database(server) as connection:
        found = {
            "flow_run": connection.execute(f"SELECT * FROM flow_run WHERE id IN ({chosen})", (str(deployment),)),
            "flow_run_state": connection.execute(
                f"SELECT * FROM flow_run_state WHERE flow_run_id IN ({chosen})", (str(deployment),)
            ),
        }
        return {table: rows.fetchall() for table, rows in found.items()}


def put_rows(server: Server, rows: dict[str, list[tuple[Any, ...]]]) -> None:
    with database(server) as connection:
        for table, found in rows.items():
            marks = ", ".join("?" for _ in found[0])
            connection.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", found)


@contextmanager
def database(server: Server) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(server.home / ".prefect/prefect.db", timeout=30)
    try:
        with connection:
            yield connection
    finally:
        connection.close()


def test_a_run_is_not_doubled_when_its_rule_moves_to_another_slug(stage: Stage) -> None:
    scheduled(stage, stage.entry(schedules=[every(10, slug="a")]))
    due = next_fire(10, ahead=2)
    stage.begin(stage.run_at(due), "PENDING")
    stage.release(stage.entry(schedules=[hourly("a"), every(10, slug="b")]))
    wait_until(due + timedelta(seconds=6))
    assert fires(stage)[due] == 1
    assert fires(stage)[due + timedelta(seconds=10)] == 1


def test_a_run_that_becomes_due_while_its_rule_moves_is_not_doubled(stage: Stage) -> None:
    """By our own clock, which may lag behind the server's, it may still seem to be ahead."""
    scheduled(stage, stage.entry(schedules=[every(10, slug="a")]))
    due = next_fire(10, ahead=3)

    def hold(request: httpx.Request) -> None:
        if is_patch(request) and "/schedules/" in request.url.path:
            wait_until(due + timedelta(seconds=0.05))

    stage.wire.before = hold
    stage.release(stage.entry(schedules=[hourly("a"), every(10, slug="b")]))
    assert [fires(stage)[due + timedelta(seconds=s)] for s in (0, 10, 20)] == [1, 1, 1]


NEW: dict[str, tuple[list[Any], list[Any]]] = {
    "added": ([], [{"slug": "s", "interval": 3600}]),
    "for-a-cron": ([{"slug": "s", "cron": "0 0 1 1 *"}], [{"slug": "s", "interval": 3600}]),
    "for-another": ([{"slug": "a", "cron": "0 0 1 1 *"}], [{"slug": "b", "interval": 3600}]),
    "without-a-slug": ([{"slug": "a", "cron": "0 0 1 1 *"}], [{"interval": 3600}]),
}


def test_a_new_interval_does_not_fire_at_the_moment_of_the_deploy(stage: Stage) -> None:
    stage.release(*(stage.entry(name=name, schedules=before) for name, (before, _) in NEW.items()))
    stage.release(*(stage.entry(name=name, schedules=after) for name, (_, after) in NEW.items()))
    soon = datetime.now(UTC) + timedelta(seconds=60)
    assert {name: [at(run) for run in stage.runs(name) if at(run) < soon] for name in NEW} == {name: [] for name in NEW}
    stage.nothing_left()


def test_what_an_operator_paused_gets_no_runs(stage: Stage) -> None:
    entries = [stage.entry(name=name, schedules=[every(20, slug="s")]) for name in ("whole", "schedule")]
    scheduled(stage, *entries)
    whole, one = (f"/deployments/{stage.deployment(name)['id']}" for name in ("whole", "schedule"))
    stage.ask("PATCH", whole, {"paused": True})
    stage.ask("PATCH", f"{one}/schedules/{stage.schedules('schedule')['s']['id']}", {"active": False})
    stage.release(*entries)
    ahead = [run for name in ("whole", "schedule") for run in stage.runs(name) if at(run) > datetime.now(UTC)]
    assert ahead == []


def test_the_servers_clock_counts_and_is_never_run_ahead_of() -> None:
    """A machine whose clock is some seconds fast would make runs again from too late on."""
    servers = datetime.now(UTC) - timedelta(minutes=7)
    seconds = iter([0.0, 0.4, 1.2])

    def answer(request: httpx.Request) -> httpx.Response:
        told = (servers + timedelta(seconds=next(seconds))).replace(microsecond=0)
        return httpx.Response(200, json={}, headers={"Date": format_datetime(told, usegmt=True)})

    with Client(Api(url="http://127.0.0.1/api"), transport=httpx.MockTransport(answer)) as client:
        for _ in range(3):
            client.get("/")
            assert servers - timedelta(seconds=1) < client.now()
        assert client.now() < servers + timedelta(seconds=3)
