"""Environment and catalogue together: what should exist, under which names, for whom."""

from __future__ import annotations

from typing import Any

import pytest

from deployer import comparable, desired
from deployer.catalog import Declared
from deployer.desired import Scope
from deployer.environment import Environment
from deployer.model import Hidden, Specification
from deployer.source import Code
from deployer.yamlfile import Document, parse
from tests.deployer.builders import SCOPE, A, declared, deployment, environment, resource, spec, trigger

CODE = Code(clone={"url": "https://git.example/team/shop.git"}, job_variables={"image": "shop:1"})


def asked(found: Environment, *items: Declared, scope: Scope = SCOPE) -> list[dict[str, Any]]:
    """What the loader is asked for, deployment by deployment."""
    return desired.request(found, list(items), CODE, A, scope).deployments


def item(declaration: dict[str, Any], **deployments: Any) -> dict[str, Any]:
    """One declaration under an environment's `deployments:`."""
    (found,) = asked(environment(deployments=deployments), declared(**declaration))
    return found


def made(found: Environment, *items: Declared, scope: Scope = SCOPE) -> Specification:
    """The specification, where the loader answered what it was asked for."""
    request = desired.request(found, list(items), CODE, A, scope)
    answer = {
        "deployments": {one["name"]: answered(one) for one in request.deployments},
        "automations": {one["name"]: {**trigger(), **one} for one in request.automations},
    }
    return desired.specification(found, request, answer, {}, scope, A, "inputs")


def answered(one: dict[str, Any]) -> dict[str, Any]:
    return {
        "flow_name": "greet",
        **{key: one[key] for key in ("entrypoint", "parameters", "job_variables", "description")},
        "pull_steps": [],
        "parameter_openapi_schema": {},
        "triggers": [{"name": "t", **trigger()}] * len(one["triggers"]),
    }


# -- base and overlay


def test_maps_merge_by_key_and_the_nearest_wins() -> None:
    base = {"parameters": {"a": "base", "b": "base", "c": "base"}, "job_variables": {"env": {"X": 1}}}
    over = {"hello": {"parameters": {"a": "over"}, "job_variables": {"cpu": 2}}}
    found = item(base, defaults={"parameters": {"a": "default", "b": "default", "d": "default"}}, overrides=over)
    assert found["parameters"] == {"a": "over", "b": "base", "c": "base", "d": "default"}
    assert found["job_variables"] == {"env": {"X": 1}, "cpu": 2}


@pytest.mark.parametrize(
    ("pool_type", "given"), [("process", {}), ("docker", {"image": "shop:1"}), ("ecs", {"image": "shop:1"})]
)
def test_the_sources_image_is_for_pools_that_start_containers(pool_type: str, given: dict[str, str]) -> None:
    """In a process pool the run is in the worker's own container, and Prefect knows no job variable of that name."""
    found = environment(work_pools={"alpha": {"name": "dev-alpha", "type": pool_type}})
    (asked_for,) = asked(found, declared())
    assert asked_for["job_variables"] == given


def test_tags_add_up_and_carry_the_owner() -> None:
    found = item({"tags": ["b", "a"]}, defaults={"tags": ["dev", "a"]}, overrides={"hello": {"tags": ["z"]}})
    assert found["tags"] == ["a", "b", "dev", "env:dev", "project:shop", "z"]


@pytest.mark.parametrize(
    ("key", "base", "over", "sent"),
    [
        ("description", "one", "", "description"),
        ("queue", "one", "two", "work_queue_name"),
        ("paused", True, False, "paused"),
        ("enforce_parameter_schema", True, False, "enforce_parameter_schema"),
        ("concurrency_limit", 1, 2, "concurrency_limit"),
        ("triggers", [{"name": "a"}], [], "triggers"),
    ],
)
def test_everything_else_is_replaced_also_by_what_is_empty(key: str, base: Any, over: Any, sent: str) -> None:
    assert item({key: base})[sent] == base
    assert item({key: base}, overrides={"hello": {key: over}})[sent] == over


def test_schedules_are_replaced_as_a_whole_also_by_none() -> None:
    base = {"schedules": [{"slug": "a", "interval": 60}, {"slug": "b", "interval": 60}]}
    assert [s["slug"] for s in item(base)["schedules"]] == ["a", "b"]
    over = [{"slug": "c", "cron": "0 1 * * *"}]
    assert [s["slug"] for s in item(base, overrides={"hello": {"schedules": over}})["schedules"]] == ["c"]
    assert item(base, overrides={"hello": {"schedules": []}})["schedules"] == []


def test_schedules_are_active_unless_the_environment_or_they_themselves_say_otherwise() -> None:
    base = {"schedules": [{"interval": 1}, {"interval": 2, "active": True}, {"interval": 3, "active": False}]}
    assert [s["active"] for s in item(base)["schedules"]] == [True, True, False]
    assert [s["active"] for s in item(base, defaults={"schedules": "paused"})["schedules"]] == [False, True, False]


def test_an_overlay_may_move_a_deployment_to_another_pool() -> None:
    pools = {key: {"name": f"dev-{key}", "type": "process"} for key in ("alpha", "beta")}
    moved = environment(work_pools=pools, deployments={"overrides": {"hello": {"pool": "beta"}}})
    assert [d["work_pool_name"] for d in asked(moved, declared())] == ["dev-beta"]


def test_an_excluded_deployment_is_not_wanted() -> None:
    found = asked(environment(deployments={"exclude": ["hello"]}), declared(), declared("ahoi"))
    assert [d["name"] for d in found] == ["ahoi"]


def test_the_version_is_the_whole_commit() -> None:
    assert item({})["version"] == A


# -- names


@pytest.mark.parametrize(
    ("scope", "name", "expected"),
    [
        (Scope("shop", "dev"), "hello", "hello"),
        (Scope("shop", "dev", shared=True), "hello", "hello-dev"),
        (Scope("shop", "dev", shared=True), "dev-hello", "dev-hello"),
        (Scope("shop", "dev", shared=True), "development", "development-dev"),
        (Scope("shop", "dev", preview="pr-1"), "hello", "pr-1-hello"),
        (Scope("shop", "dev", shared=True, preview="pr-1"), "hello", "pr-1-hello-dev"),
    ],
)
def test_names_tell_environments_and_previews_on_one_api_apart(scope: Scope, name: str, expected: str) -> None:
    assert scope.name(name) == expected


def test_on_a_shared_api_every_kind_ends_in_the_environments_name() -> None:
    found = environment(
        api={"url": "http://x/api", "shared": True},
        concurrency_limits={"api": {"limit": 1}},
        variables={"colour": "red"},
        secrets={"key": "${KEY:-}"},
        work_pools={"alpha": {"name": "alpha", "type": "process", "queues": {"slow": {}}}},
    )
    spec = made(found, declared(), scope=Scope("shop", "dev", shared=True))
    names = [f"{r.kind} {r.name}" for r in spec.resources]
    expected = ["variable colour-dev", "concurrency_limit api-dev", "work_pool alpha-dev", "work_queue alpha-dev/slow"]
    assert names == [*expected, "deployment greet/hello-dev"] and spec.secrets == {"key-dev": "${KEY:-}"}


def test_an_owner_is_told_by_both_tags_and_a_preview_is_an_owner_of_its_own() -> None:
    preview = Scope("shop", "dev", preview="pr-1")
    assert SCOPE.owns(["x", "env:dev", "project:shop"])
    assert not SCOPE.owns(["env:dev"]) and not SCOPE.owns(["project:shop"]) and not SCOPE.owns([])
    assert (
        not SCOPE.owns(list(preview.tags)) and not preview.owns(list(SCOPE.tags)) and preview.owns(list(preview.tags))
    )
    assert not preview.owns(["env:dev", "project:shop", "preview:pr-2"])


def test_ledgers_of_environments_and_previews_do_not_meet() -> None:
    scopes = [SCOPE, Scope("shop", "qa"), Scope("bakery", "dev"), Scope("shop", "dev", preview="pr-1")]
    assert [s.ledger for s in scopes] == ["shop-dev", "shop-qa", "bakery-dev", "shop-dev-pr-1"]


# -- previews


def test_a_preview_pauses_every_schedule_and_trigger() -> None:
    found = declared(schedules=[{"interval": 1, "active": True}], triggers=[{"name": "t", "enabled": True}])
    (one,) = asked(environment(), found, scope=Scope("shop", "dev", preview="pr-1"))
    assert [s["active"] for s in one["schedules"]] == [False]
    assert [t["enabled"] for t in one["triggers"]] == [False]
    assert "preview:pr-1" in one["tags"] and one["deployment_name"] == "pr-1-hello"
    assert one["work_pool_name"] == "dev-alpha", "pools are the environment's"


def test_a_preview_wants_deployments_and_nothing_else() -> None:
    found = environment(
        variables={"x": 1},
        secrets={"k": "${K:-}"},
        concurrency_limits={"api": {"limit": 1}},
        automations=[{"name": "late", "trigger": {}, "actions": []}],
    )
    spec = made(found, declared(), scope=Scope("shop", "dev", preview="pr-1"))
    assert [r.kind for r in spec.resources] == ["deployment"] and spec.secrets == {}


# -- what the specification holds


def test_every_kind_that_the_files_declare_is_wanted() -> None:
    pool = {"name": "dev-alpha", "type": "process", "concurrency_limit": 4, "queues": {"slow": {"priority": 2}}}
    found = environment(
        work_pools={"alpha": pool},
        variables={"colour": {"red": 1}},
        concurrency_limits={"api": {"limit": 5, "slot_decay_per_second": 0.5}},
        automations=[{"name": "late", "trigger": {}, "actions": []}],
    )
    by_key = made(found, declared()).by_key()
    assert by_key["variable", "colour"] == {"value": {"red": 1}}
    assert by_key["concurrency_limit", "api"] == {"limit": 5, "slot_decay_per_second": 0.5, "active": True}
    assert by_key["work_pool", "dev-alpha"] == {"type": "process", "concurrency_limit": 4}
    assert by_key["work_queue", "dev-alpha/slow"] == {"priority": 2}
    assert {kind for kind, _ in by_key} >= {"deployment", "automation"}


def test_a_pools_job_template_is_wanted_whole() -> None:
    template = {"job_configuration": {"command": "{{ command }}"}, "variables": {"properties": {}}}
    request = desired.request(environment(), [], CODE, A, SCOPE)
    answer: dict[str, Any] = {"deployments": {}, "automations": {}}
    found = desired.specification(environment(), request, answer, {"alpha": template}, SCOPE, A, "inputs")
    assert found.by_key()["work_pool", "dev-alpha"] == {"type": "process", "base_job_template": template}


def test_a_deployments_queue_and_schedules_are_wanted_in_comparable_form() -> None:
    items = [
        {"slug": "a", "interval": 60},
        {"cron": "0 1 * * *", "timezone": "America/Chicago", "parameters": {"x": 1}},
    ]
    fields = made(environment(), declared(queue="slow", schedules=items)).by_key()["deployment", "greet/hello"]
    assert fields["work_queue"] == "slow"
    assert [s["slug"] for s in fields["schedules"]] == ["a", None]
    assert fields["schedules"][0]["interval"] == 60.0 and fields["schedules"][1]["parameters"] == {"x": 1}
    assert fields["schedules"][1]["timezone"] == "America/Chicago"


def test_what_the_files_do_not_say_is_not_wanted() -> None:
    fields = made(environment(), declared()).by_key()["deployment", "greet/hello"]
    optional = {"work_queue", "concurrency_limit", "collision_strategy", "grace_period_seconds"}
    assert not optional & fields.keys()
    assert made(environment(), declared()).by_key()["work_pool", "dev-alpha"] == {"type": "process"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (2, {"concurrency_limit": 2}),
        ({"limit": 2}, {"concurrency_limit": 2, "collision_strategy": "ENQUEUE"}),
        (
            {"limit": 2, "collision_strategy": "CANCEL_NEW", "grace_period_seconds": 60},
            {"concurrency_limit": 2, "collision_strategy": "CANCEL_NEW", "grace_period_seconds": 60},
        ),
    ],
)
def test_a_concurrency_limit_is_a_number_or_a_number_with_a_strategy(given: Any, expected: dict[str, Any]) -> None:
    fields = made(environment(), declared(concurrency_limit=given)).by_key()["deployment", "greet/hello"]
    assert {key: fields[key] for key in fields if key in expected} == expected


def test_a_trigger_names_its_deployment_by_a_placeholder() -> None:
    own = trigger(actions=[{"type": "run-deployment", "deployment_id": desired.LOADERS_PLACEHOLDER}])
    request = desired.request(environment(), [declared(triggers=[{"name": "t"}])], CODE, A, SCOPE)
    answer = {**answered(request.deployments[0]), "triggers": [{"name": "t", **own}]}
    found = desired.specification(
        environment(), request, {"deployments": {"hello": answer}, "automations": {}}, {}, SCOPE, A, ""
    )
    fields = found.by_key()["deployment", "greet/hello"]
    assert fields["triggers"]["t"]["actions"][0]["deployment_id"] == comparable.placeholder("hello")


def test_an_automation_speaks_of_deployments_by_their_catalogue_names() -> None:
    late = {
        "name": "late",
        "trigger": {"match": {"prefect.resource.id": "prefect.deployment.{deployment:hello}"}},
        "actions": [{"type": "pause-deployment", "deployment": "hello"}, {"type": "do-nothing", "deployment": "kept"}],
    }
    request = desired.request(environment(automations=[late]), [declared()], CODE, A, Scope("shop", "dev", shared=True))
    (found,) = request.automations
    there = comparable.placeholder("hello-dev")
    assert found["trigger"]["match"]["prefect.resource.id"] == f"prefect.deployment.{there}"
    assert found["actions"][0] == {"type": "pause-deployment", "deployment_id": there, "source": "selected"}
    assert found["actions"][1] == {"type": "do-nothing", "deployment": "kept"}


def test_an_automation_of_an_unknown_deployment_is_found_and_other_words_are_not_taken_for_one() -> None:
    action = {"type": "run-deployment", "deployment": "gone", "parameters": {"deployment": "just a word"}}
    late = {"name": "late", "trigger": {"match": {"id": "{deployment:lost}"}}, "actions": [action]}
    found = desired.unknown_deployments(environment(automations=[{**late, "name": "a", "actions": []}, late]), {"x"})
    assert found == [(0, "lost"), (1, "lost"), (1, "gone")]


# -- what it is made from


def test_inputs_change_with_the_files_and_not_with_where_the_api_is() -> None:
    def inputs(found: Environment, *items: Declared, scope: Scope = SCOPE) -> str:
        return desired.inputs_of(desired.request(found, list(items), CODE, A, scope), found, scope)

    same = inputs(environment(), declared())
    assert same == inputs(environment(api={"url": "http://elsewhere/api"}, refs={}, mode="production"), declared())
    assert same == inputs(environment(policy={"prune": "delete"}), declared())
    others = [
        inputs(environment(), declared(parameters={"x": 1})),
        inputs(environment(variables={"x": 1}), declared()),
        inputs(environment(), declared(), scope=Scope("shop", "dev", preview="pr-1")),
        inputs(environment(), declared(), declared("ahoi")),
    ]
    assert len({same, *others}) == 5


# -- secrets


def test_a_secret_with_a_value_is_managed_and_an_empty_one_is_not() -> None:
    wanted = spec(secrets={"a": "${A}", "b": "${B:-}", "c": "${C:-}"})
    managed, unmanaged = desired.with_secrets(wanted, {"A": "hunter2", "B": ""})
    assert [(r.kind, r.name, r.fields["value"]) for r in managed] == [("secret", "a", Hidden("hunter2"))]
    assert unmanaged == [("secret", "b"), ("secret", "c")]


LONG = "h\"u\\nt'er2 ü"


@pytest.mark.parametrize(
    "fields",
    [
        {"parameters": {"x": [f"a {LONG} b"]}},
        {"job_variables": {"env": {"X": LONG}}},
        {"description": LONG},
        {"tags": [LONG]},
        {"schedules": [{"parameters": {"x": LONG}}]},
        {"triggers": {"t": {"actions": [{"parameters": {"x": LONG}}]}}},
    ],
)
def test_a_secrets_value_in_what_everybody_can_read_is_found_and_not_repeated(fields: dict[str, Any]) -> None:
    found = desired.leaks([deployment(**fields)], [resource("secret", "key", value=Hidden(LONG))])
    assert found == ["deployment hello/hello holds the value of the secret 'key'"]


def test_a_number_that_is_a_secret_is_found_in_a_variable() -> None:
    variable = resource("variable", "pin", value={"x": 123456})
    assert desired.leaks([variable], [resource("secret", "key", value=Hidden("123456"))]) != []


def test_short_values_and_field_names_are_no_leak() -> None:
    found = deployment(parameters={"x": "ab", "active": 1})
    assert (
        desired.leaks([found], [resource("secret", n, value=Hidden(v)) for n, v in (("a", "ab"), ("b", "active"))])
        == []
    )


# -- the loader's faults


CATALOGUE = """\
- name: hello
  entrypoint: flows/alpha/hello.py:hello
  parameters:
    cont: 1
  schedules:
    - interval: 60
      parameters: {nme: x}
"""
OVERLAY = """\
deployments:
  defaults:
    parameters: {colour: red, cont: 2}
  overrides:
    hello:
      parameters:
        "²": 1
automations:
  - name: late
"""


@pytest.mark.parametrize(
    ("at", "place"),
    [
        ("", "flows/alpha/deployments.yaml:2: [0].entrypoint"),
        ("parameters.cont", "flows/alpha/deployments.yaml:4: [0].parameters.cont"),
        ("schedules[0].parameters.nme", "flows/alpha/deployments.yaml:7: [0].schedules[0].parameters.nme"),
        ("parameters.colour", "environments/dev.yaml:3: deployments.defaults.parameters.colour"),
        ("parameters.²", "environments/dev.yaml:7: deployments.overrides.hello.parameters.²"),
        ("parameters.colour.deep.0", "environments/dev.yaml:3: deployments.defaults.parameters.colour.deep[0]"),
        ("parameters.².deep", "environments/dev.yaml:7: deployments.overrides.hello.parameters.².deep"),
        ("parameters.cont.deep", "flows/alpha/deployments.yaml:4: [0].parameters.cont.deep"),
        ("parameters.missing", "flows/alpha/deployments.yaml:3: [0].parameters.missing"),
    ],
)
def test_a_fault_of_the_loader_stands_in_the_file_that_gave_the_value(at: str, place: str) -> None:
    document = parse(CATALOGUE, "flows/alpha/deployments.yaml")
    found = Declared(declared().declaration, document, 0)
    answer = {"deployments": {"hello": {"faults": [{"at": at, "message": "wrong."}]}}, "automations": {}}
    (problem,) = desired.loader_problems(answer, [found], parse(OVERLAY, "environments/dev.yaml"))
    assert str(problem) == f"{place}: wrong."


def test_a_fault_of_an_automation_stands_at_its_line() -> None:
    answer = {"deployments": {}, "automations": {"late": {"faults": [{"at": "", "message": "wrong."}]}}}
    (problem,) = desired.loader_problems(answer, [], parse(OVERLAY, "environments/dev.yaml"))
    assert str(problem) == "environments/dev.yaml:9: automations[0]: wrong."
    (unplaced,) = desired.loader_problems(answer, [], Document("environments/dev.yaml", None))
    assert str(unplaced) == "environments/dev.yaml: automations.late: wrong."


def test_no_fault_is_no_problem() -> None:
    answer = {"deployments": {"hello": {"flow_name": "greet"}}, "automations": {"late": trigger()}}
    assert desired.loader_problems(answer, [declared()], Document("environments/dev.yaml", None)) == []
