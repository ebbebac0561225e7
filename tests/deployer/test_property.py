"""For any configurations whatever: applying makes the live state what was asked for, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as some

from deployer import preview
from tests.deployer.stage import Config, Killed, Stage, deployment, schedule_ids, state
from tests.fake_prefect import FakePrefect

ENGINE = settings(
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)

VARIABLES = {"TOKEN": "value-of-the-token", "DSN": "value-of-the-dsn"}
COMMITS = [digit * 40 for digit in "0123456789abcdef"]

# -- any configuration

values = some.sampled_from([None, True, 0, 1, 2.5, "", "x", [1, "a"], {"k": 1}])
parameters = some.dictionaries(some.sampled_from("xyz"), values, max_size=3)
tags = some.lists(some.sampled_from(["red", "green", "blue"]), unique=True, max_size=3)
zones = some.sampled_from([None, "UTC", "America/Chicago"])


def optional(**keys: some.SearchStrategy[Any]) -> some.SearchStrategy[dict[str, Any]]:
    return some.fixed_dictionaries({}, optional=keys)


def _content(schedule: dict[str, Any]) -> str:
    blank = {"timezone": "UTC", "parameters": {}, "day_or": True}
    return repr(sorted({**blank, **schedule, "active": None}.items()))


rules = some.one_of(
    some.fixed_dictionaries(
        {"cron": some.sampled_from(["0 1 * * *", "30 6 1 * 1"])}, optional={"day_or": some.booleans()}
    ),
    some.fixed_dictionaries(
        {"interval": some.sampled_from([3600, 86400])},
        optional={"anchor_date": some.just("2024-01-01T06:00:00+00:00")},
    ),
    some.fixed_dictionaries({"rrule": some.sampled_from(["FREQ=DAILY", "DTSTART:20240102T030405\nFREQ=WEEKLY"])}),
)
schedules = some.lists(
    some.builds(
        lambda rule, more: {**rule, **more},
        rules,
        optional(
            slug=some.sampled_from(["s1", "s2", "s3"]),
            timezone=some.sampled_from(["UTC", "America/Chicago"]),
            active=some.booleans(),
            parameters=parameters,
        ),
    ),
    max_size=3,
    unique_by=lambda s: s.get("slug") or _content(s),
)
triggers = some.lists(
    some.fixed_dictionaries(
        {"name": some.sampled_from(["t1", "t2"]), "expect": some.lists(some.sampled_from(["a.b", "c.d"]), unique=True)},
        optional={"enabled": some.booleans(), "parameters": parameters},
    ),
    max_size=2,
    unique_by=lambda t: t["name"],
)
limits = some.one_of(
    some.integers(1, 3),
    some.fixed_dictionaries(
        {"limit": some.integers(1, 3)},
        optional={
            "collision_strategy": some.sampled_from(["ENQUEUE", "CANCEL_NEW"]),
            "grace_period_seconds": some.sampled_from([60, 600]),
        },
    ),
)
job_variables = optional(
    env=some.sampled_from([{}, {"K": "v"}, {"K": "w", "L": "v"}]),
    working_dir=some.just("/srv"),
    stream_output=some.booleans(),
)
deployments = some.lists(
    some.builds(
        lambda name, more: deployment(name, **more),
        some.sampled_from(["one", "two", "three"]),
        optional(
            entrypoint=some.sampled_from(["flows/alpha/x.py:f", "flows/alpha/y.py:f", "flows/alpha/y.py:g"]),
            pool=some.sampled_from(["alpha", "beta"]),
            queue=some.sampled_from(["fast", "slow"]),
            schedules=schedules,
            parameters=parameters,
            job_variables=job_variables,
            tags=tags,
            description=some.sampled_from(["", "What it does."]),
            concurrency_limit=limits,
            paused=some.booleans(),
            enforce_parameter_schema=some.booleans(),
            triggers=triggers,
        ),
    ),
    max_size=3,
    unique_by=lambda d: d["name"],
)
queues = some.dictionaries(
    some.sampled_from(["fast", "slow"]),
    optional(description=some.just("A queue."), concurrency_limit=some.integers(0, 3)),
    max_size=2,
)


def pool(name: str) -> some.SearchStrategy[dict[str, Any]]:
    return some.fixed_dictionaries(
        {"name": some.just(name), "type": some.just("process")},
        optional={"description": some.just("A pool."), "concurrency_limit": some.integers(0, 3), "queues": queues},
    )


automations = some.lists(
    some.fixed_dictionaries(
        {
            "name": some.sampled_from(["on-failure", "on-late"]),
            "trigger": some.sampled_from(
                [
                    {"posture": "Reactive", "expect": ["prefect.flow-run.Failed"]},
                    {"posture": "Proactive", "expect": ["prefect.flow-run.Running"], "within": 30.0},
                ]
            ),
            "actions": some.just([{"type": "cancel-flow-run"}]),
        },
        optional={"description": some.just("Why."), "enabled": some.booleans(), "tags": tags},
    ),
    max_size=2,
    unique_by=lambda a: a["name"],
)
templates = some.builds(
    lambda command: {
        "job_configuration": {"command": command, "env": "{{ env }}"},
        "variables": {
            "type": "object",
            "properties": {key: {} for key in ("env", "working_dir", "stream_output", "name")},
        },
    },
    some.sampled_from(["python -m one", "python -m two"]),
)
prunes = some.sampled_from(["pause", "delete", "keep"])
references = some.sampled_from(["${TOKEN:-}", "${DSN:-}", "${UNSET:-}"])


def configs(prune: str = "pause") -> some.SearchStrategy[Config]:
    more = some.fixed_dictionaries(
        {
            "work_pools": some.fixed_dictionaries({"alpha": pool("dev-alpha"), "beta": pool("dev-beta")}),
            "policy": some.just({"prune": prune, "max_removals": "100%"}),
        },
        optional={
            "variables": some.dictionaries(
                some.sampled_from(["colour", "size"]), values.filter(lambda v: v is not None)
            ),
            "secrets": some.dictionaries(some.sampled_from(["token", "dsn"]), references),
            "concurrency_limits": some.dictionaries(
                some.sampled_from(["db", "api"]),
                some.fixed_dictionaries(
                    {"limit": some.integers(0, 3)},
                    optional={"slot_decay_per_second": some.just(0.5), "active": some.booleans()},
                ),
            ),
            "automations": automations,
            "deployments": optional(
                defaults=optional(tags=tags, schedules=some.sampled_from(["active", "paused"]), parameters=parameters)
            ),
        },
    )
    return some.builds(sound, deployments, more, some.dictionaries(some.just("alpha"), templates, max_size=1))


def sound(found: Iterable[Mapping[str, Any]], settings: Mapping[str, Any], templates: Mapping[str, Any]) -> Config:
    """A deployment names a queue that its pool declares, or none."""
    declared = {key: pool.get("queues", {}) for key, pool in settings["work_pools"].items()}
    kept = [{k: v for k, v in d.items() if k != "queue" or v in declared[d["pool"]]} for d in found]
    return Config(tuple(kept), settings, templates)


# -- what holds for each


def alone(wanted: Config, commit: str) -> dict[tuple[str, str], Any]:
    """The state that a configuration gives on an empty server."""
    fake = FakePrefect()
    assert Stage(fake, VARIABLES).apply(wanted, commit).error is None
    return state(fake)


def assert_as_alone(fake: FakePrefect, wanted: Config, commit: str) -> None:
    """As on an empty server; what may be left besides are retired things, in their rest."""
    expected, found = alone(wanted, commit), state(fake)
    left = {key for key in found if key not in expected}
    retired = {name for kind, name in left if kind == "deployment"}
    for kind, name in sorted(expected):
        there = found.get((kind, name))
        assert _bare(kind, there, retired) == _bare(kind, expected[kind, name], set()), (kind, name)
    prune = wanted.contents().environment.policy.prune
    for kind, name in sorted(left):
        assert _may_stay(kind, name, found[kind, name], prune, wanted, retired), (kind, name)


def _bare(kind: str, value: Any, retired: set[str]) -> Any:
    """Without a queue's place in the row, which nobody asked for, and without the triggers of retired deployments."""
    if kind == "automation":
        return [a for a in value or [] if not any(action.get("deployment_id") in retired for action in a["actions"])]
    return {k: v for k, v in value.items() if k != "priority"} if kind == "work_queue" else value


def _may_stay(kind: str, name: str, value: Any, prune: str, wanted: Config, retired: set[str]) -> bool:
    if kind == "secret" and name in wanted.settings.get("secrets", {}):
        return True  # declared without a value: not managed
    if kind == "automation" and not _bare(kind, value, retired):
        return prune == "keep" or not any(a["enabled"] for a in value)
    if prune == "pause" and kind == "deployment":
        return value["paused"] and "retired" in value["tags"]
    if prune == "pause" and kind == "automation":
        return not any(a["enabled"] for a in value)
    return prune != "delete"


def assert_settled(stage: Stage, wanted: Config, commit: str) -> None:
    """Nothing is left to do, and doing it again writes nothing."""
    assert stage.plan(wanted, commit).writes == ()
    before = schedule_ids(stage.fake)
    stage.fake.forget()
    assert stage.apply(wanted, commit).release is None
    assert stage.fake.writes == []
    assert schedule_ids(stage.fake) == before


@given(data=some.data(), prune=prunes, recorded=some.booleans())
@settings(ENGINE, max_examples=40)
def test_a_series_of_deploys_ends_as_the_last_alone(data: some.DataObject, prune: str, recorded: bool) -> None:
    stage = Stage(FakePrefect(), VARIABLES, recorded)
    series = data.draw(some.lists(configs(prune), min_size=2, max_size=3))
    for wanted, commit in zip(series, COMMITS, strict=False):
        assert stage.apply(wanted, commit, allow_removals=True).error is None
    assert_settled(stage, wanted, commit)
    assert_as_alone(stage.fake, wanted, commit)


@given(data=some.data(), prune=prunes)
@settings(ENGINE, max_examples=40)
def test_rolling_back_gives_what_was(data: some.DataObject, prune: str) -> None:
    stage = Stage(FakePrefect(), VARIABLES)
    first, second = data.draw(configs(prune)), data.draw(configs(prune))
    assert stage.apply(first, COMMITS[0]).release
    stage.apply(second, COMMITS[1], allow_removals=True)
    result = stage.rollback(first, 1)
    assert result.error is None
    assert_as_alone(stage.fake, first, COMMITS[0])


faults = some.dictionaries(
    some.integers(1, 60),
    some.sampled_from(["503", "503 after", "429", "502", "500 after", "drop", "drop after", "timeout after"]),
    max_size=12,
)


@given(data=some.data(), recorded=some.booleans(), first=faults, second=faults)
@settings(ENGINE, max_examples=40)
def test_faults_on_the_way_change_nothing_of_the_result(
    data: some.DataObject, recorded: bool, first: dict[int, str], second: dict[int, str]
) -> None:
    stage = Stage(FakePrefect(), VARIABLES, recorded)
    before, wanted = data.draw(configs()), data.draw(configs())
    assert stage.apply(before, COMMITS[0], _apart(first)).error is None
    assert stage.apply(wanted, COMMITS[1], _apart(second), allow_removals=True).error is None
    assert_settled(stage, wanted, COMMITS[1])
    assert_as_alone(stage.fake, wanted, COMMITS[1])


def _apart(given: dict[int, str]) -> dict[int, str]:
    """Never more in a row than a request is tried again."""
    return {number: how for number, how in given.items() if number % 7}


@given(data=some.data(), recorded=some.booleans(), at=some.integers(1, 80), after=some.booleans())
@settings(ENGINE, max_examples=40)
def test_a_killed_deploy_is_finished_by_the_same_again(
    data: some.DataObject, recorded: bool, at: int, after: bool
) -> None:
    stage = Stage(FakePrefect(), VARIABLES, recorded)
    before, wanted = data.draw(configs()), data.draw(configs())
    stage.apply(before, COMMITS[0])
    try:
        stage.apply(wanted, COMMITS[1], {at: "kill after" if after else "kill"}, allow_removals=True)
    except Killed:
        assert stage.apply(wanted, COMMITS[1], allow_removals=True).error is None
    assert stage.releases()[0].succeeded
    assert_settled(stage, wanted, COMMITS[1])
    assert_as_alone(stage.fake, wanted, COMMITS[1])


@given(data=some.data(), recorded=some.booleans(), resume=some.booleans())
@settings(ENGINE, max_examples=40)
def test_what_an_operator_did_by_hand_is_held_or_left_alone(
    data: some.DataObject, recorded: bool, resume: bool
) -> None:
    stage = Stage(FakePrefect(), VARIABLES, recorded)
    before = data.draw(configs())
    wanted = data.draw(some.just(before) | configs())
    assert stage.apply(before, COMMITS[0]).error is None
    touched = by_hand(stage.fake)
    assert stage.apply(wanted, COMMITS[1], allow_removals=True, resume=resume).error is None
    assert stage.plan(wanted, COMMITS[1], resume=resume).writes == ()
    found = state(stage.fake)
    for name, old in touched.items():
        there = found["deployment", name]
        assert "by-hand" in there["tags"]
        assert there["parameters"]["by_hand"] == "x"
        assert there["job_variables"]["name"] == "by-hand"
        if wanted is before and not resume:
            assert there["paused"] is not old["paused"]
            assert there["schedules"] == sorted(({**s, "active": not s["active"]} for s in old["schedules"]), key=repr)
    assert found["variable", "by-hand"] == 1
    assert found["automation", "by-hand"][0]["enabled"]
    if resume:
        assert_switches(found, alone(wanted, COMMITS[1]))


@given(data=some.data(), recorded=some.booleans())
@settings(ENGINE, max_examples=20)
def test_a_preview_comes_and_goes_and_nothing_else_moves(data: some.DataObject, recorded: bool) -> None:
    stage = Stage(FakePrefect(), VARIABLES, recorded)
    wanted, branch = data.draw(configs()), data.draw(configs())
    assert stage.apply(wanted, COMMITS[0]).error is None
    before = state(stage.fake)
    beside = Stage(stage.fake, VARIABLES, recorded, preview="pr-1")
    ours = sound(branch.deployments, wanted.settings, wanted.templates)
    assert beside.apply(ours, COMMITS[1]).error is None
    assert_settled(beside, ours, COMMITS[1])
    assert _without_previews(state(stage.fake)) == before
    with beside.site(ours) as site:
        preview.destroy(site, lambda message: None)
    assert state(stage.fake) == before
    assert stage.plan(wanted, COMMITS[0]).writes == ()


def _without_previews(found: dict[tuple[str, str], Any]) -> dict[tuple[str, str], Any]:
    """Triggers bear the names that their authors gave them, in a preview too."""
    kept = {key: value for key, value in found.items() if "/pr-1-" not in key[1]}
    for key in [key for key in kept if key[0] == "automation"]:
        theirs = [a for a in kept[key] if not any("/pr-1-" in str(action["deployment_id"]) for action in a["actions"])]
        kept[key] = theirs
    return {key: value for key, value in kept.items() if value != [] or key[0] != "automation"}


def by_hand(fake: FakePrefect) -> dict[str, Any]:
    """Turn every switch over, and add something everywhere. The deployments as they were."""
    before = state(fake)
    with fake.backstage as client:
        for row in client.post("/deployments/filter", json={}).json():
            for schedule in row["schedules"]:
                path = f"/deployments/{row['id']}/schedules/{schedule['id']}"
                client.patch(path, json={"active": not schedule["active"], "parameters": schedule["parameters"]})
            more = {
                "paused": not row["paused"],
                "tags": [*row["tags"], "by-hand"],
                "parameters": {**row["parameters"], "by_hand": "x"},
                "job_variables": {**row["job_variables"], "name": "by-hand"},
            }
            client.patch(f"/deployments/{row['id']}", json=more).raise_for_status()
        client.post("/variables/", json={"name": "by-hand", "value": 1}).raise_for_status()
        automation = {"name": "by-hand", "trigger": {"posture": "Reactive", "expect": ["x"]}, "actions": []}
        client.post("/automations/", json=automation).raise_for_status()
    return {name: value for (kind, name), value in before.items() if kind == "deployment"}


def assert_switches(found: dict[tuple[str, str], Any], expected: dict[tuple[str, str], Any]) -> None:
    for key, value in expected.items():
        if key[0] == "deployment":
            assert found[key]["paused"] == value["paused"]
            assert found[key]["schedules"] == value["schedules"]
