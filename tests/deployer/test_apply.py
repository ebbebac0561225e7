"""A plan carried out: what is sent, in which order, what becomes of failures, and the proof at the end."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployer import saved
from deployer.apply import apply
from deployer.errors import Exit, InvalidInput
from deployer.model import Outcome
from deployer.plan import Options
from tests.deployer.stage import (
    AUTHOR,
    A,
    B,
    C,
    Config,
    Killed,
    Stage,
    StandIn,
    config,
    deployment,
    schedule_ids,
    state,
)
from tests.fake_prefect import FakePrefect, Recorded

TRIGGER = {"name": "after-load", "type": "event", "expect": ["load.done"]}
ON_FAILURE = {
    "name": "on-failure",
    "trigger": {"posture": "Reactive", "expect": ["prefect.flow-run.Failed"]},
    "actions": [{"type": "run-deployment", "deployment": "hello"}],
}
POOLS = {"alpha": {"name": "dev-alpha", "type": "process", "queues": {"fast": {"priority": 1}}}}
EVERYTHING = config(
    deployment("hello", schedules=[{"slug": "night", "cron": "0 1 * * *"}, {"interval": 3600}], triggers=[TRIGGER]),
    work_pools=POOLS,
    variables={"colour": "red"},
    secrets={"token": "${TOKEN:-}"},
    concurrency_limits={"db": {"limit": 3}},
    automations=[ON_FAILURE],
)
NOTHING = config(policy={"prune": "delete", "max_removals": "100%"})


@pytest.fixture
def stage(fake: FakePrefect) -> Stage:
    return Stage(fake, {"TOKEN": "value-of-the-token"})


def changes(fake: FakePrefect) -> list[str]:
    """The writes, but for the ledger's, without ids."""
    told = [re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", str(r)) for r in fake.writes]
    return [line for line in told if "/artifacts/" not in line]


def live(fake: FakePrefect, name: str = "hello/hello") -> dict[str, Any]:
    found: dict[str, Any] = state(fake)["deployment", name]
    return found


def by_hand(fake: FakePrefect, name: str, **fields: Any) -> None:
    """What an operator does in Prefect's UI to a deployment."""
    with fake.backstage as client:
        row = next(d for d in client.post("/deployments/filter", json={}).json() if d["name"] == name)
        client.patch(f"/deployments/{row['id']}", json=fields).raise_for_status()


def switch(fake: FakePrefect, name: str, on: bool) -> None:
    with fake.backstage as client:
        for row in client.post("/automations/filter", json={}).json():
            if row["name"] == name:
                client.patch(f"/automations/{row['id']}", json={"enabled": on}).raise_for_status()


# -- order


def test_what_others_need_comes_first_and_goes_last(fake: FakePrefect, stage: Stage) -> None:
    result = stage.apply(EVERYTHING)
    kinds = ["variable", "secret", "concurrency_limit", "work_pool", "work_queue", "deployment", "automation"]
    assert [o.kind for o in result.outcomes] == kinds
    gone = stage.apply(NOTHING, B, allow_removals=True)
    removed = [o.kind for o in gone.outcomes if o.action == "delete"]
    assert removed == [k for k in reversed(kinds) if k != "work_pool"]  # the pool is declared in any environment


def test_each_change_has_one_outcome_and_is_told_when_it_happens(fake: FakePrefect, stage: Stage) -> None:
    told: list[Outcome] = []
    with stage.site(EVERYTHING) as site:
        prepared = stage.prepare(site, EVERYTHING, A, Options())
        result = apply(prepared, AUTHOR, told.append)
    assert told == list(result.outcomes)
    assert [(o.kind, o.name) for o in told] == [c.key for c in prepared.plan.writes]


# -- what is sent


def test_a_new_commit_sends_version_and_code_and_nothing_else(fake: FakePrefect, stage: Stage) -> None:
    stage.apply(EVERYTHING)
    fake.forget()
    stage.apply(EVERYTHING, B)
    (patch,) = [r.json for r in fake.writes if r.method == "PATCH" and "/deployments/" in r.path]
    assert set(patch) == {"version", "pull_steps"}
    assert [line for line in changes(fake) if "/schedule" not in line] == ["PATCH /deployments/ID"]


@pytest.mark.parametrize(
    ("more", "sent"),
    [
        ({"parameters": {"x": 1}}, {"parameters"}),
        ({"tags": ["red"]}, {"tags"}),
        ({"job_variables": {"env": {"K": "v"}}}, {"job_variables"}),
        ({"description": "New."}, {"description"}),
        ({"concurrency_limit": 2}, {"concurrency_limit"}),
        ({"paused": True}, {"paused"}),
        ({"queue": "fast"}, {"work_pool_name", "work_queue_name"}),
        ({"enforce_parameter_schema": False}, {"enforce_parameter_schema"}),
    ],
)
def test_only_what_differs_is_sent(fake: FakePrefect, stage: Stage, more: dict[str, Any], sent: set[str]) -> None:
    stage.apply(config(deployment("hello"), work_pools=POOLS))
    fake.forget()
    assert stage.apply(config(deployment("hello", **more), work_pools=POOLS)).error is None
    patches = [r.json for r in fake.writes if re.fullmatch(r"PATCH /deployments/[^/]+", str(r))]
    assert [set(patch) for patch in patches] == [sent]


def test_one_schedule_more_touches_no_other_and_not_the_deployment(fake: FakePrefect, stage: Stage) -> None:
    first = {"slug": "night", "cron": "0 1 * * *"}
    stage.apply(config(deployment("hello", schedules=[first])))
    before = schedule_ids(fake)
    fake.forget()
    stage.apply(config(deployment("hello", schedules=[first, {"slug": "noon", "cron": "0 12 * * *"}])))
    assert before < schedule_ids(fake)
    assert changes(fake)[0] == "POST /deployments/ID/schedules" and not any("PATCH" in c for c in changes(fake))


def test_an_automation_that_is_only_switched_is_not_sent_whole(fake: FakePrefect, stage: Stage) -> None:
    stage.apply(config(deployment("hello"), automations=[ON_FAILURE]))
    fake.forget()
    stage.apply(config(deployment("hello"), automations=[{**ON_FAILURE, "enabled": False}]))
    assert changes(fake) == ["PATCH /automations/ID"]


def test_the_second_apply_writes_nothing_and_keeps_schedules_and_runs(fake: FakePrefect, stage: Stage) -> None:
    stage.apply(EVERYTHING)
    with fake.backstage as client:
        (row,) = client.post("/deployments/filter", json={}).json()
        client.post(f"/deployments/{row['id']}/schedule", json={}).raise_for_status()
        runs = {r["id"] for r in client.post("/flow_runs/filter", json={}).json()}
    before = schedule_ids(fake)
    fake.forget()
    result = stage.apply(EVERYTHING)
    assert (result.release, result.outcomes, fake.writes) == (None, (), [])
    assert schedule_ids(fake) == before
    with fake.backstage as client:
        assert {r["id"] for r in client.post("/flow_runs/filter", json={}).json()} == runs and runs


def test_an_automation_runs_the_deployment_that_this_apply_made(fake: FakePrefect, stage: Stage) -> None:
    stage.apply(EVERYTHING)
    assert state(fake)["automation", "on-failure"][0]["actions"][0]["deployment_id"] == "hello/hello"
    assert state(fake)["automation", "after-load"][0]["actions"][0]["deployment_id"] == "hello/hello"


# -- failures


def test_a_kind_that_failed_ends_it_and_the_rest_is_listed_as_not_tried(fake: FakePrefect, stage: Stage) -> None:
    fake.fail("POST", "/work_pools/$", before=422)
    result = stage.apply(EVERYTHING)
    results = {o.kind: o.result for o in result.outcomes}
    assert results["concurrency_limit"] == "done" and results["work_pool"] == "failed"
    assert {results[k] for k in ("work_queue", "deployment", "automation")} == {"skipped"}
    assert result.error and result.error.exit_code == Exit.FAILED
    assert "1 of 7 changes failed: work_pool dev-alpha" in str(result.error)
    assert "3 more were not tried" in str(result.error)


@pytest.mark.parametrize("recorded", [False, True], ids=["by deploy()", "from the record"])
def test_one_refused_deployment_does_not_stop_its_siblings(fake: FakePrefect, recorded: bool) -> None:
    fake.fail("POST", "/deployments/$", before=422, skip=1)
    result = Stage(fake, recorded=recorded).apply(config(*(deployment(name) for name in ("one", "two", "zoo"))))
    failed = [o.name for o in result.outcomes if o.result == "failed"]
    assert failed == ["two/two"]
    there = {name for kind, name in state(fake) if kind == "deployment"}
    assert there == {"one/one", "zoo/zoo"}


def test_after_a_failure_the_same_apply_finishes(fake: FakePrefect, stage: Stage) -> None:
    fake.fail("POST", "/deployments/$", before=422)
    assert stage.apply(EVERYTHING).error
    again = stage.apply(EVERYTHING)
    assert again.error is None and [o.kind for o in again.outcomes] == ["deployment", "automation"]


def test_a_deploy_that_says_nothing_and_does_nothing_is_a_failure(
    fake: FakePrefect, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect's deploy() of several raises nothing where one fails."""
    monkeypatch.setattr(StandIn, "create", lambda self, names, relay: {"faults": {}})
    result = stage.apply(config(deployment("hello")))
    assert result.error and result.error.exit_code == Exit.FAILED
    assert "Prefect's deploy() did not create it, and did not say why" in str(result.error)


def test_a_loader_that_dies_while_it_creates_has_touched_something(
    fake: FakePrefect, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(self: StandIn, names: list[str], relay: object) -> Any:
        raise InvalidInput("The loader ended by itself (exit 9).")

    monkeypatch.setattr(StandIn, "create", die)
    result = stage.apply(config(deployment("hello")))
    assert result.error and result.error.exit_code == Exit.FAILED
    assert result.release and result.release.result == "failed" and "The loader ended" in result.release.error


def test_an_interrupt_is_recorded_and_the_same_apply_finishes(fake: FakePrefect, stage: Stage) -> None:
    at(fake, "POST /work_pools/$", interrupted)
    result = stage.apply(EVERYTHING)
    assert result.error and result.error.exit_code == Exit.INTERRUPTED
    assert "Interrupted after 3 of 7 changes" in str(result.error)
    assert stage.releases()[0].result == "interrupted"
    assert stage.apply(EVERYTHING).error is None


def test_an_interrupt_does_not_wait_for_an_api_that_is_gone(fake: FakePrefect, stage: Stage) -> None:
    """GitHub kills ten seconds after its first signal."""

    def gone() -> None:
        fake.fail("*", "", before=503, times=99)
        fake.requests.clear()
        interrupted()

    at(fake, "POST /work_pools/$", gone)
    result = stage.apply(EVERYTHING)
    assert result.error and result.error.exit_code == Exit.INTERRUPTED
    assert len(fake.requests) == 1


def test_a_failure_is_told_in_one_sentence(fake: FakePrefect, stage: Stage) -> None:
    fake.fail("POST", "/work_pools/$", before=503, times=99)
    result = stage.apply(EVERYTHING)
    assert ".." not in str(result.error) and ".;" not in str(result.error)


def interrupted() -> None:
    raise KeyboardInterrupt


def at(fake: FakePrefect, request: str, do: Callable[[], Any], after: bool = False) -> None:
    """When the first such request comes in, somebody does something; `after`: when the first other follows on these."""
    came = [not after]

    def on_request(seen: Recorded) -> None:
        found = bool(re.search(request, str(seen)))
        if came[0] and found != after:
            fake.on_request = None
            do()
        came[0] = came[0] or found

    fake.on_request = on_request


# -- a kill at every request there is


@pytest.mark.parametrize("how", ["kill", "kill after"])
def test_killed_at_any_request_the_same_apply_again_ends_as_without(how: str, tmp_path: Path) -> None:
    """And what is left to do is a part of the plan that was reviewed: a saved one needs no second review."""
    first = config(deployment("hello", schedules=[{"cron": "0 1 * * *"}]), deployment("old", triggers=[TRIGGER]))
    expected = FakePrefect()
    for wanted, commit in ((first, A), (EVERYTHING, B)):
        Stage(expected, {"TOKEN": "x"}, recorded=True).apply(wanted, commit)
    kills = 0
    for number in range(1 if how == "kill" else 2, 999, 2):
        stage = Stage(FakePrefect(), {"TOKEN": "x"}, recorded=True)
        stage.apply(first)
        saved.write(tmp_path / "plan.json", stage.plan(EVERYTHING, B), Options(), None)
        try:
            stage.apply(EVERYTHING, B, {number: how})
        except Killed:
            kills += 1
        else:
            break
        reviewed = saved.read(tmp_path / "plan.json")
        saved.check(reviewed, stage.plan(EVERYTHING, B), {reviewed.digest})
        assert stage.apply(EVERYTHING, B).error is None
        assert state(stage.fake) == state(expected), f"killed at request {number}"
        assert stage.releases()[0].succeeded
    assert kills > 15


# -- the record


def test_a_result_that_cannot_be_recorded_is_exit_4_and_the_next_apply_records_it(
    fake: FakePrefect, stage: Stage
) -> None:
    fake.fail("PATCH", "/artifacts/", before=503, times=8)
    result = stage.apply(EVERYTHING)
    assert result.error and result.error.exit_code == Exit.FAILED
    assert "Everything was written and proven, but the release could not be recorded" in str(result.error)
    assert stage.releases()[0].result == "started"
    again = stage.apply(EVERYTHING)
    assert again.error is None and again.release and again.release.result == "succeeded"
    assert again.outcomes == () and stage.apply(EVERYTHING).release is None


def test_a_failure_that_cannot_be_recorded_is_still_told(fake: FakePrefect, stage: Stage) -> None:
    fake.fail("PATCH", "/artifacts/", before=503, times=8)
    fake.fail("POST", "/work_pools/$", before=422)
    result = stage.apply(EVERYTHING)
    assert result.error and "work_pool dev-alpha" in str(result.error)


# -- somebody else writes meanwhile


def test_what_another_hand_changes_meanwhile_is_found_by_the_proof(fake: FakePrefect, stage: Stage) -> None:
    stage.apply(EVERYTHING)
    at(fake, "PATCH /deployments/", lambda: by_hand(fake, "hello", entrypoint="elsewhere.py:f"), after=True)
    result = stage.apply(EVERYTHING, B)
    assert result.error and result.error.exit_code == Exit.UNVERIFIED
    assert "still differs: deployment hello/hello: entrypoint" in str(result.error)
    assert "Somebody may be changing it" in str(result.error)
    assert result.release and result.release.result == "unverified"


def test_an_operators_pause_during_a_deploy_is_held_and_no_fault(fake: FakePrefect, stage: Stage) -> None:
    stage.apply(EVERYTHING)
    at(fake, "PATCH /deployments/", lambda: by_hand(fake, "hello", paused=True))
    assert stage.apply(EVERYTHING, B).error is None
    assert live(fake)["paused"]


@pytest.mark.parametrize(("after", "word"), [(False, "succeeded"), (True, "unverified")])
def test_of_two_deploys_at_once_the_overwritten_one_is_no_success(
    fake: FakePrefect, stage: Stage, after: bool, word: str
) -> None:
    """The other one comes before our writes, which then count, or after them. Both are recorded."""
    stage.apply(config(deployment("a")))
    at(fake, "PATCH /deployments/", lambda: Stage(fake).apply(config(deployment("a")), C), after)
    result = stage.apply(config(deployment("a", parameters={"x": 1})), B)
    assert result.release and result.release.result == word
    assert live(fake, "a/a")["version"] == (C if after else B)
    assert sorted(r.number for r in stage.releases()) == [1, 2, 3]


# -- removed and back


def test_a_retired_deployment_is_paused_tagged_and_started_by_nothing(fake: FakePrefect, stage: Stage) -> None:
    stage.apply(EVERYTHING)
    stage.apply(config(), B, allow_removals=True)
    there = live(fake)
    assert there["paused"] and "retired" in there["tags"] and "retired-while-paused" not in there["tags"]
    assert not state(fake)["automation", "after-load"][0]["enabled"]
    assert not state(fake)["automation", "on-failure"][0]["enabled"]


def test_back_again_it_runs_as_before(fake: FakePrefect, stage: Stage) -> None:
    stage.apply(EVERYTHING)
    before = state(fake)
    stage.apply(config(), B, allow_removals=True)
    assert stage.apply(EVERYTHING, A).error is None
    assert state(fake) == before


def test_back_again_what_an_operator_had_switched_off_stays_off(fake: FakePrefect, stage: Stage) -> None:
    stage.apply(EVERYTHING)
    by_hand(fake, "hello", paused=True)
    switch(fake, "after-load", on=False)
    switch(fake, "on-failure", on=False)
    stage.apply(config(), B, allow_removals=True)
    assert "retired-while-paused" in live(fake)["tags"]
    assert stage.apply(EVERYTHING, A).error is None
    assert live(fake)["paused"] and "retired" not in live(fake)["tags"]
    assert not state(fake)["automation", "after-load"][0]["enabled"]
    assert not state(fake)["automation", "on-failure"][0]["enabled"]
    assert stage.apply(EVERYTHING, A, resume=True).error is None
    assert state(fake)["automation", "after-load"][0]["enabled"] and not live(fake)["paused"]


def test_what_went_and_came_back_over_several_releases_is_still_ours(fake: FakePrefect, stage: Stage) -> None:
    """A description, a tag and a parameter that the last release before the removal set, and that the return does not."""
    queues = {"fast": {"description": "For the hurried."}}
    pool = {"name": "dev-alpha", "type": "process"}
    stage.apply(
        config(deployment("hello", tags=["red"], parameters={"x": 1}), work_pools={"alpha": {**pool, "queues": queues}})
    )
    for commit in (B, C):
        stage.apply(config(deployment("other")), commit, allow_removals=True)
    stage.apply(config(deployment("hello"), work_pools={"alpha": {**pool, "queues": {"fast": {}}}}), A)
    assert "red" not in live(fake)["tags"] and live(fake)["parameters"] == {}
    assert state(fake)["work_queue", "dev-alpha/fast"]["description"] == ""


def test_a_queue_that_a_deployment_uses_is_not_deleted_under_it(fake: FakePrefect, stage: Stage) -> None:
    prune = {"policy": {"prune": "delete", "max_removals": "100%"}}
    stage.apply(config(deployment("hello", queue="fast"), work_pools=POOLS, **prune))
    assert stage.apply(config(deployment("hello", queue="fast"), **prune), B).error is None
    assert live(fake)["work_pool_name"] == "dev-alpha" and live(fake)["work_queue_name"] == "fast"


# -- schedules


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"interval": 3600}, {"cron": "0 1 * * *"}),
        ({"interval": 3600, "anchor_date": "2024-01-01T06:00:00+00:00"}, {"rrule": "FREQ=DAILY"}),
        ({"cron": "0 1 * * *", "day_or": False}, {"interval": 3600}),
        ({"rrule": "DTSTART:20240102T030405\nFREQ=DAILY"}, {"cron": "0 1 * * *"}),
        ({"cron": "0 1 * * *"}, {"rrule": "FREQ=DAILY"}),
        ({"interval": 3600}, {"interval": 60, "anchor_date": "2024-01-01T06:00:00+00:00"}),
    ],
)
def test_a_slugged_schedule_takes_another_rule_and_keeps_its_id(
    fake: FakePrefect, stage: Stage, before: dict[str, Any], after: dict[str, Any]
) -> None:
    stage.apply(config(deployment("hello", schedules=[{"slug": "s", **before}])))
    kept = schedule_ids(fake)
    assert stage.apply(config(deployment("hello", schedules=[{"slug": "s", **after}])), B).error is None
    assert schedule_ids(fake) == kept


def test_equal_schedules_of_which_one_is_off_converge(fake: FakePrefect, stage: Stage) -> None:
    daily = {"rrule": "FREQ=DAILY"}
    for pair in ([{**daily, "active": False}, daily], [daily, {**daily, "active": False}]):
        wanted = config(deployment("hello", schedules=pair))
        assert stage.apply(wanted).error is None
        assert stage.apply(wanted).release is None
    assert sorted(s["active"] for s in live(fake)["schedules"]) == [False, True]


def test_intervals_of_which_one_has_an_anchor_find_their_own(fake: FakePrefect, stage: Stage) -> None:
    anchored = {"interval": 3600, "anchor_date": "2024-01-01T06:00:00+00:00"}
    for commit, pair in ((A, [{"interval": 3600}, anchored]), (B, [anchored, {"interval": 3600}])):
        assert stage.apply(config(deployment("hello", schedules=pair)), commit).error is None
    kept = schedule_ids(fake)
    stage.apply(config(deployment("hello", schedules=[{"interval": 3600}, anchored])), C)
    assert schedule_ids(fake) == kept


# -- triggers


def test_a_null_that_a_trigger_gives_its_run_is_sent(fake: FakePrefect) -> None:
    stage = Stage(fake, recorded=True)
    trigger = {**TRIGGER, "parameters": {"since": None}}
    stage.apply(config(deployment("hello", triggers=[trigger])))
    assert state(fake)["automation", "after-load"][0]["actions"][0]["parameters"] == {"since": None}


def test_triggers_of_one_name_at_two_deployments_are_two(fake: FakePrefect, stage: Stage) -> None:
    wanted = config(deployment("a", triggers=[TRIGGER]), deployment("b", triggers=[TRIGGER]))
    assert stage.apply(wanted).error is None
    runs = {a["actions"][0]["deployment_id"] for a in state(fake)["automation", "after-load"]}
    assert runs == {"a/a", "b/b"}
    assert stage.apply(config(deployment("a"), deployment("b", triggers=[TRIGGER])), B).error is None
    assert [a["actions"][0]["deployment_id"] for a in state(fake)["automation", "after-load"]] == ["b/b"]


def test_a_deleted_deployment_takes_its_triggers_with_it(fake: FakePrefect, stage: Stage) -> None:
    stage.apply(EVERYTHING)
    stage.apply(NOTHING, B, allow_removals=True)
    assert not [key for key in state(fake) if key[0] in ("deployment", "automation")]


# -- what is not ours


def test_others_are_never_written(fake: FakePrefect, stage: Stage) -> None:
    theirs = {"project": "bakery", "work_pools": {"alpha": {"name": "bakery-pool", "type": "process"}}}
    Stage(fake).apply(config(deployment("oven"), variables={"flour": 1}, **theirs), C)
    before = state(fake)
    for wanted, commit in ((EVERYTHING, A), (NOTHING, B)):
        assert stage.apply(wanted, commit, allow_removals=True).error is None
    after = state(fake)
    assert {key: after[key] for key in before} == before


def test_an_adopted_deployment_is_ours_from_then_on(fake: FakePrefect, stage: Stage) -> None:
    with fake.backstage as client:
        flow = client.post("/flows/", json={"name": "hello"}).json()
        body = {"name": "hello", "flow_id": flow["id"], "tags": ["theirs"], "parameters": {"mine": 1}}
        client.post("/deployments/", json=body).raise_for_status()
    assert [r.guard for r in stage.plan(config(deployment("hello"))).refusals] == ["ownership"]
    assert stage.apply(config(deployment("hello")), adopt=True).error is None
    assert live(fake)["tags"] == ["env:dev", "project:scratch", "theirs"] and live(fake)["parameters"] == {"mine": 1}
    assert stage.plan(config(deployment("hello")), B).refusals == ()


def everything_but(**changes: Any) -> Config:
    return Config(EVERYTHING.deployments, {**EVERYTHING.settings, **changes})


@pytest.mark.parametrize("value", ["", "another value"])
def test_a_secret_is_written_when_it_differs_and_left_when_it_has_no_value(fake: FakePrefect, value: str) -> None:
    Stage(fake, {"TOKEN": "first value"}).apply(everything_but())
    Stage(fake, {"TOKEN": value}).apply(everything_but(), B)
    assert state(fake)["secret", "token"] == (value or "first value")
