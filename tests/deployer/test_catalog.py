"""The catalogue: all declarations of all files, and every fault with its place."""

from __future__ import annotations

from typing import Any

import pytest

from deployer import catalog
from deployer.catalog import Declared
from deployer.environment import Environment
from deployer.errors import Problem
from deployer.yamlfile import parse
from tests.deployer.builders import environment

FILE = "flows/alpha/deployments.yaml"
PATHS = frozenset({"flows/alpha/hello.py", FILE})
HELLO = "- {name: hello, entrypoint: flows/alpha/hello.py:hello, pool: alpha}\n"


def load(text: str, **others: str) -> tuple[list[Declared], list[Problem]]:
    files = {FILE: text, **{f"flows/{domain}/deployments.yaml": more for domain, more in others.items()}}
    return catalog.load(files, PATHS)


def faults(text: str, **others: str) -> dict[str, str]:
    """`file:line path` -> message; the folder's name stands for the file."""
    problems = load(text, **others)[1]
    return {f"{p.file.split('/')[1]}:{p.line} {p.path}": p.message for p in problems}


def checked(text: str, **changes: Any) -> list[str]:
    """What the catalogue and this environment show together."""
    found: Environment = environment(**changes)
    written = "\n".join(f"{key}: {value!r}" for key, value in changes.items())
    return [str(p) for p in catalog.check(load(text)[0], found, parse(written, "environments/dev.yaml"))]


def test_declarations_come_by_name_from_all_files() -> None:
    found, problems = load(HELLO, beta=HELLO.replace("name: hello", "name: ahoi"))
    assert problems == []
    assert [(d.declaration.name, d.document.file.split("/")[1]) for d in found] == [
        ("ahoi", "beta"),
        ("hello", "alpha"),
    ]


def test_an_empty_file_declares_nothing() -> None:
    assert load("# nothing yet\n") == ([], [])


@pytest.mark.parametrize("text", ["deployments: []", "hello", "5"])
def test_a_file_is_a_list(text: str) -> None:
    assert faults(text) == {"alpha:1 ": "expected a list of deployments, each starting with '- name:'."}


def test_every_fault_of_every_file_is_told_at_once() -> None:
    alpha = "- {name: One, entrypoint: flows/alpha/hello.py:f, pool: alpha}\n- {name: two, entrypoint: nowhere}\n- 3\n"
    found = faults(alpha, beta="[", gamma=HELLO.replace("pool", "pol"))
    assert found.keys() == {
        *("alpha:1 [0].name", "alpha:2 [1].entrypoint", "alpha:2 [1].pool", "alpha:3 [2]", "beta:1 "),
        *("gamma:1 [0].pol", "gamma:1 [0].pool"),
    }


def test_a_value_that_cannot_be_read_is_one_fault() -> None:
    found = faults(f"{HELLO.strip()[:-1]}, description: no, paused: yes}}")
    assert found.keys() == {"alpha:1 [0].description", "alpha:1 [0].paused"}
    assert len(load(f"{HELLO.strip()[:-1]}, paused: yes}}")[1]) == 1


def test_a_name_given_twice_names_the_other_place() -> None:
    found = faults(HELLO, beta=f"\n{HELLO}")
    expected = f"'hello' is declared at {FILE}:1 too; names are unique in the repository."
    assert found == {"beta:2 [0].name": expected}


def test_a_name_is_found_twice_also_where_other_parts_are_wrong() -> None:
    found = faults(f"{HELLO}- {{name: hello, pool: 5}}\n")
    assert found.keys() == {"alpha:2 [1].name", "alpha:2 [1].entrypoint", "alpha:2 [1].pool"}


@pytest.mark.parametrize("name", ["Hello", "a_b", "-a", "a--b", "a/b", "", "ä"])
def test_a_name_has_small_letters_digits_and_dashes(name: str) -> None:
    expected = f"expected small letters and digits, with single dashes between them, got '{name}'."
    assert faults(HELLO.replace("name: hello", f"name: '{name}'")) == {"alpha:1 [0].name": expected}


def test_an_entrypoint_that_is_no_file_is_told_with_a_guess() -> None:
    found = faults(HELLO.replace("hello.py", "helo.py"))
    message = "there is no file 'flows/alpha/helo.py'. Did you mean 'flows/alpha/hello.py'?"
    assert found == {"alpha:1 [0].entrypoint": message}


@pytest.mark.parametrize("entrypoint", ["flows/alpha/hello.py", "hello", "flows/alpha/hello.py:", "a b.py:f", "x.py:1"])
def test_an_entrypoint_is_a_file_and_a_function(entrypoint: str) -> None:
    found = faults(HELLO.replace("flows/alpha/hello.py:hello", f"'{entrypoint}'"))
    assert found == {"alpha:1 [0].entrypoint": f"expected path/of/file.py:flow_function, got '{entrypoint}'."}


def test_slugs_and_triggers_are_unique_within_a_deployment() -> None:
    text = f"""{HELLO.strip()[:-1]},
  schedules: [{{slug: s, interval: 5}}, {{slug: s, interval: 6}}],
  triggers: [{{name: t}}, {{}}, {{name: t}}]}}"""
    assert faults(text).keys() == {"alpha:2 [0].schedules[1].slug", "alpha:3 [0].triggers[2].name"}


@pytest.mark.parametrize("part", ["parameters", "job_variables", "schedules", "triggers"])
def test_secret_looking_literals_are_told_in_all_that_prefect_shows(part: str) -> None:
    value = "{env: {API_KEY: abc}}" if part in ("parameters", "job_variables") else "[{parameters: {api_key: abc}}]"
    found = faults(f"{HELLO.strip()[:-1]}, {part}: {value}}}")
    assert [m for m in found.values() if m.startswith("looks like a secret")]


@pytest.mark.parametrize("name", ["deployments.yml", "deployment.yaml", "deployment.yml"])
def test_a_file_of_nearly_the_right_name_is_told(name: str) -> None:
    problems = catalog.load({}, frozenset({f"flows/alpha/{name}"}))[1]
    assert [str(p) for p in problems] == [f"flows/alpha/{name}: is not read; rename it to deployments.yaml."]


def test_catalogue_files_are_those_of_that_name_below_flows() -> None:
    assert catalog.is_catalog_file("flows/deployments.yaml") and catalog.is_catalog_file("flows/a/b/deployments.yaml")
    assert not catalog.is_catalog_file("other/deployments.yaml")
    assert not catalog.is_catalog_file("flows/my-deployments.yaml")


# -- together with an environment


def test_a_pool_that_the_environment_does_not_declare_is_told_with_a_guess() -> None:
    (problem,) = checked(HELLO.replace("pool: alpha", "pool: alhpa"))
    assert problem.startswith(f"{FILE}:1: [0].pool: the pool 'alhpa' is not declared in environments/dev.yaml.")
    assert problem.endswith("Did you mean 'alpha'? Declared there: alpha.")


def test_the_pool_of_an_overlay_is_told_where_it_stands() -> None:
    (problem,) = checked(HELLO, deployments={"overrides": {"hello": {"pool": "beta"}}})
    assert problem.startswith("environments/dev.yaml:1: deployments.overrides.hello.pool: the pool 'beta'")


def test_more_tags_than_prefects_runs_bear_are_told() -> None:
    own, added = ([f"{start}{n}" for n in range(50)] for start in "ab")
    text = f"{HELLO.strip()[:-1]}, tags: {own}}}"
    assert checked(text, deployments={"defaults": {"tags": own}}) == []
    (problem,) = checked(text, deployments={"overrides": {"hello": {"tags": added}}})
    assert problem == f"{FILE}:1: [0].tags: 100 tags; at most 97 can be set."


def test_a_trigger_and_an_automation_of_one_name_are_told() -> None:
    """The automation would be found by its name, and be the deployment's trigger."""
    triggered = HELLO.replace("alpha}", "alpha, triggers: [{name: after-load, expect: [x]}]}")
    automations: list[Any] = [{"name": name, "trigger": {}, "actions": []} for name in ("late", "after-load")]
    assert checked(HELLO, automations=automations) == []
    (problem,) = checked(triggered, automations=automations)
    assert problem == (
        "environments/dev.yaml:1: automations[1].name: the deployment 'hello' has a trigger of the same name, "
        "'after-load'; rename one of them."
    )
    assert checked(triggered, automations=automations, deployments={"overrides": {"hello": {"triggers": []}}}) == []


def test_an_excluded_deployment_needs_no_pool() -> None:
    assert checked(HELLO.replace("pool: alpha", "pool: gone"), deployments={"exclude": ["hello"]}) == []


def test_an_overlay_or_exclusion_of_nothing_is_told_with_a_guess() -> None:
    found = checked(HELLO, deployments={"overrides": {"helo": {}}, "exclude": ["zebra"]})
    assert found == [
        "environments/dev.yaml:1: deployments.overrides.helo: there is no deployment 'helo'. Did you mean 'hello'?",
        "environments/dev.yaml:1: deployments.exclude[0]: there is no deployment 'zebra'.",
    ]


@pytest.mark.parametrize(
    "text", [HELLO.replace("alpha}", "alpha, cron: x}"), HELLO.replace("name: hello", "nam: hello"), "["]
)
def test_a_faulty_declaration_makes_no_second_fault_elsewhere(text: str) -> None:
    """`hello` is there, though it cannot be read: nobody is told that there is no such deployment."""
    assert load(text)[1]
    assert checked(text, deployments={"overrides": {"hello": {}}}) == []


def test_a_pool_that_is_declared_with_a_fault_is_declared() -> None:
    document = parse("work_pools: {alpha: {tpye: process}}", "environments/dev.yaml")
    assert catalog.check(load(HELLO)[0], environment(work_pools={}), document) == []
