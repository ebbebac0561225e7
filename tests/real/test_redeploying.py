"""What Prefect's own `.deploy()` gets wrong on a deployment that exists already converges here; each name says what happens."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from deployer.errors import Exit, InvalidInput, WriteFailed
from tests.real.stage import Stage, at, paths

pytestmark = pytest.mark.usefixtures("warm_loader")

NOON = {"slug": "noon", "cron": "0 12 * * *"}
NIGHT = {"slug": "night", "cron": "0 2 * * *", "timezone": "America/Chicago"}


def ids(stage: Stage) -> dict[str, str]:
    return {name: schedule["id"] for name, schedule in stage.schedules().items()}


# -- schedules


def test_a_schedule_that_left_the_file_is_gone(stage: Stage) -> None:
    stage.release(stage.entry(schedules=[NOON, NIGHT]))
    before = ids(stage)
    plan = stage.release(stage.entry(schedules=[NOON]))
    assert "schedules.night" in paths(plan)
    assert ids(stage) == {"noon": before["noon"]}
    stage.nothing_left()


def test_a_renamed_slug_leaves_one_schedule_with_the_old_id(stage: Stage) -> None:
    stage.release(stage.entry(schedules=[NOON]))
    before = ids(stage)
    stage.release(stage.entry(schedules=[{**NOON, "slug": "midday"}]))
    assert ids(stage) == {"midday": before["noon"]}
    stage.nothing_left()


def test_a_schedule_loses_its_slug_and_gets_it_back(stage: Stage) -> None:
    stage.release(stage.entry(schedules=[NOON]))
    stage.release(stage.entry(schedules=[{"cron": NOON["cron"]}]))
    [bare] = stage.deployment()["schedules"]
    assert (bare["slug"], bare["schedule"]["cron"], bare["active"]) == (None, NOON["cron"], True)
    stage.nothing_left()
    stage.release(stage.entry(schedules=[NOON]))
    assert ids(stage) == {"noon": bare["id"]}
    stage.nothing_left()


@pytest.mark.parametrize("schedule", [NOON, {"cron": "0 12 * * *"}], ids=["with slug", "without"])
def test_the_same_again_keeps_schedules_and_their_runs(stage: Stage, schedule: dict[str, Any]) -> None:
    stage.release(stage.entry(schedules=[schedule]))
    stage.ask("POST", f"/deployments/{stage.deployment()['id']}/schedule", {})
    before = ids(stage), [(run["id"], at(run)) for run in stage.runs()]
    stage.nothing_left()
    assert before[1]
    assert (ids(stage), [(run["id"], at(run)) for run in stage.runs()]) == before


def test_a_new_commit_keeps_the_schedules(stage: Stage) -> None:
    stage.release(stage.entry(schedules=[NOON, {"interval": 3600}]))
    before = stage.deployment()["schedules"]
    plan = stage.release(stage.entry(schedules=[NOON, {"interval": 3600}]))
    clone = "pull_steps.0.prefect.deployments.steps.git_clone"
    assert paths(plan) == [f"{clone}.clone_directory_name", f"{clone}.commit_sha", "version"]
    assert stage.deployment()["schedules"] == before
    stage.nothing_left()


RULES: dict[str, dict[str, Any]] = {
    "cron": {"cron": "0 12 * * 1-5", "timezone": "America/Chicago"},
    "cron with day and": {"cron": "0 12 1 * 1", "day_or": False},
    "interval": {"interval": 3600},
    "interval with anchor": {"interval": 86400, "anchor_date": "2026-01-01T06:00:00+01:00", "timezone": "Asia/Kolkata"},
    "rrule": {"rrule": "FREQ=WEEKLY;BYDAY=MO;BYHOUR=6;BYMINUTE=0;BYSECOND=0", "timezone": "Europe/Berlin"},
    "rrule with start": {"rrule": "DTSTART:20260101T060000\nRRULE:FREQ=MONTHLY;BYDAY=1MO"},
    "off, with parameters": {"cron": "1 1 * * *", "active": False, "parameters": {"count": 7}},
}


def test_every_kind_of_schedule_becomes_every_other(stage: Stage) -> None:
    """One keeps its slug, one never had any; both keep their ids."""
    seen = set()
    for rule in [*RULES.values(), next(iter(RULES.values()))]:
        stage.release(stage.entry(name="a", schedules=[{**rule, "slug": "s"}]), stage.entry(name="b", schedules=[rule]))
        for name in "ab":
            [live] = stage.deployment(name)["schedules"]
            seen.add(live["id"])
            given = {k: v for k, v in rule.items() if k in ("cron", "interval")}
            assert {k: live["schedule"][k] for k in given} == given
            assert live["active"] == rule.get("active", True)
    assert len(seen) == 2
    stage.nothing_left()


def test_two_slugs_change_places(stage: Stage) -> None:
    stage.release(stage.entry(schedules=[NOON, NIGHT]))
    before = ids(stage)
    stage.release(stage.entry(schedules=[{**NOON, "slug": "night"}, {**NIGHT, "slug": "noon"}]))
    assert ids(stage) == before
    assert stage.schedules()["night"]["schedule"]["cron"] == NOON["cron"]
    stage.nothing_left()


# -- what operators did by hand


def test_a_paused_deployment_stays_paused_until_somebody_says_resume(stage: Stage) -> None:
    stage.release(stage.entry(schedules=[NOON]))
    stage.ask("PATCH", f"/deployments/{stage.deployment()['id']}", {"paused": True})
    plan = stage.release(stage.entry(schedules=[NOON]))
    assert [f.path for c in plan.changes for f in c.fields if f.held] == ["paused"]
    assert stage.deployment()["paused"] is True
    stage.nothing_left()
    stage.release(stage.entry(schedules=[NOON]), resume=True)
    assert stage.deployment()["paused"] is False
    stage.nothing_left()


def test_a_paused_schedule_stays_paused_until_the_file_speaks_of_it(stage: Stage) -> None:
    stage.release(stage.entry(schedules=[NOON, NIGHT]))
    schedule = f"/deployments/{stage.deployment()['id']}/schedules/{ids(stage)['noon']}"
    stage.ask("PATCH", schedule, {"active": False})
    stage.release(stage.entry(schedules=[{**NOON, "cron": "30 12 * * *"}, NIGHT]))
    assert {name: s["active"] for name, s in stage.schedules().items()} == {"noon": False, "night": True}
    assert stage.schedules()["noon"]["schedule"]["cron"] == "30 12 * * *"
    stage.nothing_left()
    stage.release(stage.entry(schedules=[{**NOON, "active": False}, NIGHT]))
    stage.release(stage.entry(schedules=[{**NOON, "active": True}, NIGHT]))
    assert stage.schedules()["noon"]["active"] is True
    stage.nothing_left()


def test_a_schedule_added_by_hand_goes_and_the_plan_says_so(stage: Stage) -> None:
    stage.release(stage.entry(schedules=[NOON]))
    own = {"schedule": {"cron": "1 1 * * *", "timezone": "UTC"}, "active": True}
    stage.ask("POST", f"/deployments/{stage.deployment()['id']}/schedules", [own])
    plan = stage.release(stage.entry(schedules=[NOON]))
    assert "schedules.(1 1 * * * UTC)" in paths(plan)
    assert stage.schedules().keys() == {"noon"}
    stage.nothing_left()


def test_a_shared_global_limit_stays_attached(stage: Stage) -> None:
    limit = stage.ask("POST", "/v2/concurrency_limits/", {"name": stage.named("shared"), "limit": 3})
    stage.release(stage.entry(schedules=[NOON]))
    stage.ask("PATCH", f"/deployments/{stage.deployment()['id']}", {"global_concurrency_limit_id": limit["id"]})
    stage.release(stage.entry(schedules=[NIGHT]))
    assert stage.deployment()["global_concurrency_limit"]["id"] == limit["id"]
    assert stage.ask("GET", f"/v2/concurrency_limits/{stage.named('shared')}")["limit"] == 3
    stage.nothing_left()


def test_tags_parameters_and_job_variables_of_others_stay(stage: Stage) -> None:
    stage.release(stage.entry(tags=["ours"], parameters={"name": "a"}, job_variables={"env": {"A": "1"}}))
    found = stage.deployment()
    theirs = {
        "tags": [*found["tags"], "theirs"],
        "parameters": {**found["parameters"], "count": 9},
        "job_variables": {**found["job_variables"], "stream_output": False},
    }
    stage.ask("PATCH", f"/deployments/{found['id']}", theirs)
    stage.release(stage.entry(tags=["new"], parameters={"name": "b"}, job_variables={"env": {"B": "2"}}))
    live = stage.deployment()
    assert set(live["tags"]) == {"env:dev", f"project:{stage.name}", "new", "theirs"}
    assert live["parameters"] == {"name": "b", "count": 9}
    assert live["job_variables"] == {"env": {"B": "2"}, "stream_output": False}
    stage.nothing_left()


def test_a_schedule_that_the_server_cannot_expand_does_not_keep_its_own_removal_away(stage: Stage) -> None:
    """Added by hand: in files such a rule is refused. The server answers 500 to every question for runs while it is there."""
    entry = stage.entry(schedules=[{"slug": "often", "interval": 20}])
    stage.release(entry)
    rule = {"rrule": "FREQ=DAILY;BYHOUR=5;UNTIL=20300101T000000Z", "timezone": "UTC"}
    bad = [{"schedule": rule, "active": True, "slug": "bad", "parameters": {}}]
    stage.ask("POST", f"/deployments/{stage.deployment()['id']}/schedules", bad)
    stage.release(entry)
    assert set(stage.schedules()) == {"often"}
    assert stage.runs() != []
    stage.nothing_left()


# -- parameters are checked before anything is written


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"parameters": {"nmae": "x"}}, "has no parameter 'nmae'. Did you mean 'name'?"),
    "type": ({"parameters": {"count": "many"}}, "'many' is not of type 'integer'"),
    "scheduled": ({"schedules": [{**NOON, "parameters": {"count": [1]}}]}, "[1] is not of type 'integer'"),
    "scheduled-unknown": ({"schedules": [{**NOON, "parameters": {"sum": 1}}]}, "has no parameter 'sum'"),
}


def test_wrong_parameters_are_found_all_together_before_anything_is_written(stage: Stage) -> None:
    stage.release(stage.entry(), stage.entry(name="type"))
    before = stage.everything()
    wrong = [stage.entry(name=name, **changes) for name, (changes, _) in WRONG.items()]
    stage.commit(stage.entry(tags=["new"]), *wrong, stage.entry(name="another"))
    stage.wire.forget()
    with pytest.raises(InvalidInput) as error:
        stage.plan()
    told = sorted(error.value.problems, key=lambda problem: problem.line or 0)
    assert [said in problem.message for (_, said), problem in zip(WRONG.values(), told, strict=True)] == [True] * 4
    assert {problem.file for problem in told} == {"flows/alpha/deployments.yaml"}
    assert stage.wire.writes == []
    assert stage.everything() == before


# -- triggers


def trigger(name: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "expect": ["a.b"], "match": {"prefect.resource.id": "x.*"}, **changes}


def test_only_the_trigger_that_differs_is_written(stage: Stage) -> None:
    stage.release(stage.entry(triggers=[trigger("stays"), trigger("changes"), trigger("goes")]))
    before = stage.automations()
    stage.release(stage.entry(triggers=[trigger("stays"), trigger("changes", threshold=3), trigger("comes")]))
    after = stage.automations()
    assert after.keys() == {"stays", "changes", "comes"}
    assert after["stays"] == before["stays"]
    assert after["changes"]["id"] == before["changes"]["id"]
    assert after["changes"]["trigger"]["threshold"] == 3
    stage.nothing_left()


def test_a_disabled_trigger_stays_disabled(stage: Stage) -> None:
    stage.release(stage.entry(triggers=[trigger("t")]))
    stage.ask("PATCH", f"/automations/{stage.automations()['t']['id']}", {"enabled": False})
    stage.release(stage.entry(triggers=[trigger("t", threshold=2)]))
    found = stage.automations()["t"]
    assert (found["enabled"], found["trigger"]["threshold"]) == (False, 2)
    stage.nothing_left()


def test_an_automation_of_others_that_runs_the_deployment_stays(stage: Stage) -> None:
    stage.release(stage.entry(triggers=[trigger("t")]))
    theirs = stage.automations()["t"]
    body = {k: theirs[k] for k in ("trigger", "actions", "enabled")}
    stage.ask("POST", "/automations/", {**body, "name": stage.named("theirs")})
    stage.release(stage.entry())
    assert stage.automations().keys() == {stage.named("theirs")}
    stage.nothing_left()


def test_deleting_a_deployment_deletes_its_automations_first(stage: Stage) -> None:
    stage.environment["policy"] = {"prune": "delete", "max_removals": "100%"}
    stage.release(stage.entry(name="stays"), stage.entry(name="goes", triggers=[trigger("t")]))
    gone = stage.deployment("goes")["id"]
    stage.release(stage.entry(name="stays"))
    assert stage.deployments().keys() == {"stays"}
    assert stage.ask("GET", f"/automations/related-to/prefect.deployment.{gone}") == []
    stage.nothing_left()


# -- whole deployments


def test_a_removed_deployment_is_paused_and_tagged_and_comes_back(stage: Stage) -> None:
    stage.release(stage.entry(name="stays"), stage.entry(name="goes", schedules=[NOON]))
    before = stage.deployment("goes")
    stage.release(stage.entry(name="stays"))
    gone = stage.deployment("goes")
    assert (gone["paused"], "retired" in gone["tags"]) == (True, True)
    stage.nothing_left()
    stage.release(stage.entry(name="stays"), stage.entry(name="goes", schedules=[NOON]))
    back = stage.deployment("goes")
    assert {k: back[k] for k in ("id", "paused", "tags")} == {k: before[k] for k in ("id", "paused", "tags")}
    assert back["schedules"] == before["schedules"]
    stage.nothing_left()


def test_a_removed_deployment_that_an_operator_had_paused_comes_back_paused(stage: Stage) -> None:
    stage.release(stage.entry(name="stays"), stage.entry(name="goes"))
    stage.ask("PATCH", f"/deployments/{stage.deployment('goes')['id']}", {"paused": True})
    stage.release(stage.entry(name="stays"))
    stage.release(stage.entry(name="stays"), stage.entry(name="goes"))
    assert stage.deployment("goes")["paused"] is True
    stage.nothing_left()


def test_a_creation_that_fails_is_told_by_name_and_no_success(stage: Stage) -> None:
    """`prefect.deploy(a, b, c)` raises nothing, and answers fewer ids."""
    refused = httpx.Response(409, json={"detail": "refused by the test"})

    def refuse(request: httpx.Request) -> httpx.Response | None:
        created = request.method == "POST" and request.url.path == "/api/deployments/"
        return refused if created and stage.named("b").encode() in request.content else None

    stage.wire.before = refuse
    entries = [stage.entry(name=name) for name in "abc"]
    stage.commit(*entries)
    result = stage.apply()
    assert isinstance(result.error, WriteFailed) and result.error.exit_code == Exit.FAILED
    assert f"hello/{stage.named('b')}" in str(result.error) and "refused by the test" in str(result.error)
    assert {o.name: o.result for o in result.outcomes if o.kind == "deployment"} == {
        f"hello/{stage.named('a')}": "done",
        f"hello/{stage.named('b')}": "failed",
        f"hello/{stage.named('c')}": "done",
    }
    assert stage.deployments().keys() == {"a", "c"}
    assert result.release and result.release.result == "failed"
    stage.wire.before = lambda request: None
    assert stage.apply().error is None
    assert stage.deployments().keys() == {"a", "b", "c"}
    stage.nothing_left()


# -- fields

FULL: dict[str, Any] = {
    "description": "What it does.",
    "concurrency_limit": {"limit": 2, "collision_strategy": "CANCEL_NEW", "grace_period_seconds": 120},
    "parameters": {"name": "a", "count": 3},
    "job_variables": {"env": {"A": "1"}, "stream_output": False},
    "tags": ["one", "two"],
    "queue": "fast",
    "schedules": [NOON],
    "triggers": [trigger("t")],
    "paused": True,
    "enforce_parameter_schema": False,
}


def shape(deployment: dict[str, Any]) -> dict[str, Any]:
    """What a deployment says of itself, without ids, times and its name."""
    limit = deployment["global_concurrency_limit"] or {}
    kept = ("description", "parameters", "job_variables", "paused", "enforce_parameter_schema", "work_queue_name")
    return {
        **{key: deployment[key] for key in kept},
        "tags": sorted(deployment["tags"]),
        "limit": limit.get("limit"),
        "options": deployment["concurrency_options"],
        "schedules": [s["slug"] for s in deployment["schedules"]],
    }


def test_a_field_that_left_the_file_goes_back_to_what_prefect_sets(stage: Stage) -> None:
    """As with a deployment that never had it: one pair for each field."""
    without = {name: {k: v for k, v in FULL.items() if k != name} for name in FULL}
    had = [stage.entry(name=dashed(name), **FULL) for name in FULL]
    have = [stage.entry(name=dashed(name), **less) for name, less in without.items()]
    never = [stage.entry(name=f"never-{dashed(name)}", **less) for name, less in without.items()]
    stage.release(*had)
    stage.release(*have, *never)
    live = stage.deployments()
    assert {n: shape(live[dashed(n)]) for n in FULL} == {n: shape(live[f"never-{dashed(n)}"]) for n in FULL}
    assert [n for n in FULL if not stage.automations(dashed(n))] == ["triggers"]
    stage.nothing_left()


def dashed(name: str) -> str:
    return name.replace("_", "-")


def test_elements_that_left_the_file_go_one_by_one(stage: Stage) -> None:
    stage.release(stage.entry(**FULL))
    less = {"parameters": {"name": "a"}, "job_variables": {"env": {"A": "1"}}, "tags": ["two"]}
    stage.release(stage.entry(**{**FULL, **less}))
    live = stage.deployment()
    assert (live["parameters"], live["job_variables"]) == (less["parameters"], less["job_variables"])
    assert set(live["tags"]) == {"env:dev", f"project:{stage.name}", "two"}
    stage.nothing_left()


def test_another_pool_and_another_queue_converge(stage: Stage) -> None:
    places = []
    for changes in ({}, {"queue": "fast"}, {"pool": "beta", "queue": "fast"}, {"pool": "beta"}, {"pool": "alpha"}):
        stage.release(stage.entry(**changes))
        live = stage.deployment()
        places.append((live["work_pool_name"].removeprefix(f"{stage.name}-"), live["work_queue_name"]))
        stage.nothing_left()
    assert places == [
        ("pool", "default"),
        ("pool", "fast"),
        ("pool-b", "fast"),
        ("pool-b", "default"),
        ("pool", "default"),
    ]


def test_another_flow_under_the_same_name_is_another_deployment(stage: Stage) -> None:
    """Prefect knows a deployment by its flow and its name: the old one is retired, the new one made."""
    stage.environment["policy"] = {"max_removals": "100%"}
    stage.release(stage.entry(schedules=[NOON]))
    plan = stage.release(stage.entry(entrypoint="flows/alpha/flows.py:other", schedules=[NOON]))
    name = stage.named("hello")
    assert {c.name: c.action for c in plan.changes} == {f"hello/{name}": "pause", f"other/{name}": "create"}
    stage.nothing_left()


# -- all kinds

BEFORE: dict[str, Any] = {
    "concurrency_limits": {"{}-api": {"limit": 5, "slot_decay_per_second": 0.5}},
    "variables": {"{}-size": 1, "{}-list": [1, {"a": None}]},
    "secrets": {"{}-token": "${TOKEN:-}"},
    "automations": [
        {
            "name": "{}-late",
            "trigger": {"type": "event", "posture": "Reactive", "expect": ["prefect.flow-run.Late"], "threshold": 1},
            "actions": [{"type": "run-deployment", "deployment": "{}-hello"}],
        }
    ],
}
AFTER: dict[str, Any] = {
    "concurrency_limits": {"{}-api": {"limit": 6, "slot_decay_per_second": 0.0}},
    "variables": {"{}-size": "two", "{}-list": []},
    "secrets": {"{}-token": "${TOKEN:-}"},
    "automations": [
        {
            "name": "{}-late",
            "description": "Now with words.",
            "trigger": {"type": "event", "posture": "Proactive", "expect": ["a", "b"], "threshold": 2, "within": 60},
            "actions": [{"type": "cancel-flow-run"}],
        }
    ],
}


def named(stage: Stage, value: Any) -> Any:
    if isinstance(value, dict):
        return {named(stage, key): named(stage, inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [named(stage, inner) for inner in value]
    return value.replace("{}", stage.name) if isinstance(value, str) else value


def test_every_kind_is_created_changed_and_left_alone(stage: Stage) -> None:
    pool = {"name": stage.named("pool"), "type": "process", "concurrency_limit": 1, "queues": {"fast": {"priority": 1}}}
    stage.environment = {**named(stage, BEFORE), "work_pools": {"alpha": pool}}
    stage.variables["TOKEN"] = "the-first-token"
    plan = stage.release(stage.entry())
    kinds = {"work_pool", "work_queue", "concurrency_limit", "variable", "secret", "deployment", "automation"}
    assert {c.kind for c in plan.changes if c.action == "create"} == kinds
    stage.nothing_left()
    queues = {"fast": {"priority": 2, "concurrency_limit": 4, "description": "Quick ones."}}
    stage.environment = {
        **named(stage, AFTER),
        "work_pools": {"alpha": {**pool, "concurrency_limit": 2, "description": "A pool.", "queues": queues}},
    }
    stage.variables["TOKEN"] = "the-second-token"
    plan = stage.release(stage.entry())
    assert {c.kind for c in plan.changes if c.action == "update"} == kinds
    stage.nothing_left()
    assert "token" not in str([(f.before, f.after) for c in plan.changes if c.kind == "secret" for f in c.fields])
