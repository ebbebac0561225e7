"""One environment file: its variables, its secrets, and every fault of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from deployer import environment
from deployer.environment import Environment, project_of
from deployer.errors import Problem
from tests.deployer.builders import environment as built

ROOT = Path(__file__).resolve().parents[2]
BASE = """\
name: dev
mode: development
api: {url: "${URL}"}
refs: {branches: [main]}
source: {repository: https://git.example/team/shop.git}
work_pools: {alpha: {name: dev-alpha, type: process}}
"""
VARIABLES = {"URL": "http://127.0.0.1:1/api"}


def load(
    more: str = "", variables: Mapping[str, str] | None = VARIABLES, base: str = BASE
) -> tuple[Environment | None, list[Problem]]:
    return environment.load(base + more, "environments/dev.yaml", variables)


def loaded(more: str = "", variables: Mapping[str, str] | None = VARIABLES, base: str = BASE) -> Environment:
    found, problems = load(more, variables, base)
    assert found and problems == []
    return found


def faults(more: str = "", variables: Mapping[str, str] | None = VARIABLES, base: str = BASE) -> dict[str, str]:
    """Path -> message. Every fault has a file and a line."""
    problems = load(more, variables, base)[1]
    assert all(p.file == "environments/dev.yaml" and p.line for p in problems)
    assert len({p.path for p in problems}) == len(problems), "one fault a place"
    return {p.path: p.message for p in problems}


@pytest.mark.parametrize("file", sorted((ROOT / "environments").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_environment_file_of_this_repository_loads_without_a_variable(file: Path) -> None:
    found, problems = environment.load(file.read_text(), f"environments/{file.name}", None)
    assert found and problems == []


def test_all_keys_but_name_mode_api_url_refs_source_and_work_pools_are_optional() -> None:
    assert faults(base="x: 1\n").keys() == {"x", "name", "mode", "api", "refs", "source", "work_pools"}
    assert faults(base=BASE.replace('url: "${URL}"', "")).keys() == {"api.url"}
    assert loaded().policy.prune == "pause" and loaded().policy.max_removals == "30%"


# -- variables


def test_variables_are_read_from_the_process_environment_after_the_yaml_is_parsed() -> None:
    hostile = "x: y\nmode: production # ' \" {["
    assert loaded("variables: {motto: '${MOTTO}'}", {**VARIABLES, "MOTTO": hostile}).variables == {"motto": hostile}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("${SET}", "here"), ("${SET:-other}", "here"), ("${UNSET:-other}", "other"), ("${UNSET:-}", "")),
        *(("${EMPTY:-other}", "other"), ("a ${SET} b ${UNSET:-c}", "a here b c"), ("${UNSET:-a:-b}", "a:-b")),
        *(("$SET", "$SET"), ("$(SET)", "$(SET)"), ("{SET}", "{SET}"), ("${HOLDS}", "${SET}")),
    ],
)
def test_a_reference_becomes_its_value_or_its_default_once(text: str, value: str) -> None:
    variables = {**VARIABLES, "SET": "here", "EMPTY": "", "HOLDS": "${SET}"}
    assert loaded(f"variables: {{x: [a, '{text}']}}", variables).variables == {"x": ["a", value]}


def test_a_missing_variable_names_the_file_the_key_and_the_variable() -> None:
    (problem,) = load("variables: {x: '${GONE}'}")[1]
    expected = "environments/dev.yaml:7: variables.x: the variable GONE is not set. Set it, or write ${GONE:-default}."
    assert str(problem) == expected
    assert "the variable URL is empty" in faults(variables={"URL": ""})["api.url"]


def test_all_missing_variables_are_told_at_once() -> None:
    assert faults("variables: {x: '${A}', y: '${B}', z: '${C:-}'}").keys() == {"variables.x", "variables.y"}


@pytest.mark.parametrize(
    "text", ["${", "${X", "${X:default}", "${X-default}", "${}", "${1X}", "${ X }", "ok ${URL} ${X"]
)
def test_a_reference_gone_wrong_is_told(text: str) -> None:
    expected = "expected ${NAME} or ${NAME:-default}; '${' starts neither."
    assert faults(f"variables: {{x: '{text}'}}") == {"variables.x": expected}


def test_a_number_may_come_from_a_variable() -> None:
    text = "concurrency_limits: {api: {limit: '${LIMIT}'}}"
    assert loaded(text, {**VARIABLES, "LIMIT": "5"}).concurrency_limits["api"].limit == 5
    problems = faults(text, {**VARIABLES, "LIMIT": "five"})
    assert problems == {"concurrency_limits.api.limit": "expected a whole number, got 'five'."}


def test_without_variables_references_stand_as_they_are_and_are_no_fault() -> None:
    text = "concurrency_limits: {api: {limit: '${LIMIT}'}}\nproject: ${PROJECT}\nvariables: {x: '${X}'}\n"
    assert loaded(text, None).variables == {"x": "${X}"}
    assert loaded(text, None).api.url == "${URL}"


def test_without_variables_everything_else_is_still_checked() -> None:
    text = "concurrency_limits: {api: {limit: '${LIMIT}', actve: true}, db: {limit: -1}}\n"
    assert faults(text, None).keys() == {"concurrency_limits.api.actve", "concurrency_limits.db.limit"}


@pytest.mark.parametrize("line", ["name: ${X}", "mode: ${X:-development}", "refs: {tags: ['${X}']}"])
def test_what_decides_where_a_ref_goes_is_written_out(line: str) -> None:
    key = line.partition(":")[0]
    base = "".join(kept + "\n" for kept in BASE.splitlines() if not kept.startswith(key)) + line
    for variables in (None, {**VARIABLES, "X": "dev"}):
        assert "must be written out" in faults(variables=variables, base=base)[key]


# -- secrets


def test_a_secret_stays_a_reference_and_its_value_is_not_read() -> None:
    assert loaded("secrets: {key: '${KEY}'}", {**VARIABLES, "KEY": "hunter2"}).secrets == {"key": "${KEY}"}


def test_a_secret_may_be_empty_but_its_variable_must_be_known() -> None:
    assert loaded("secrets: {a: '${EMPTY}', b: '${GONE:-}'}", {**VARIABLES, "EMPTY": ""}).secrets.keys() == {"a", "b"}
    assert "GONE is not set" in faults("secrets: {key: '${GONE}'}")["secrets.key"]


@pytest.mark.parametrize("value", ["hunter2", "'${X:-hunter2}'", "'a ${X}'", "4711", "[x]", "", "'${X} '"])
def test_a_secrets_value_is_no_part_of_a_file_and_is_not_repeated(value: str) -> None:
    problems = faults(f"secrets: {{key: {value}}}", {**VARIABLES, "X": "y"})
    expected = "must be one reference such as ${VARIABLE:-}; a secret's value is no part of a file."
    assert problems == {"secrets.key": expected}


@pytest.mark.parametrize("key", ["key", "auth_string"])
@pytest.mark.parametrize("value", ["pnu_123", "4711", "'${X:-pnu_123}'", "[x]"])
def test_a_credential_of_the_api_is_a_reference_and_is_not_repeated(key: str, value: str) -> None:
    problems = faults(base=BASE.replace("{url:", f"{{{key}: {value}, url:"))
    assert problems.keys() == {f"api.{key}"} and "must be a reference" in problems[f"api.{key}"]


def test_a_credential_of_the_api_may_be_put_together_from_references() -> None:
    base = BASE.replace("{url:", '{auth_string: "admin:${PASSWORD}", key: "${KEY:-}", url:')
    assert loaded(base=base, variables={**VARIABLES, "PASSWORD": "x"}).api.auth_string == "admin:x"


@pytest.mark.parametrize("url", ["https://x:hunter2@git.example/shop.git", "https://${TOKEN}@git.example/shop.git"])
def test_a_repository_url_holds_no_credential(url: str) -> None:
    base = BASE.replace("https://git.example/team/shop.git", f"'{url}'")
    for variables in (None, {**VARIABLES, "TOKEN": "hunter2"}):
        problems = faults(base=base, variables=variables)
        assert problems.keys() == {"source.repository"} and "hunter2" not in str(problems)


def test_an_api_url_holds_no_credential() -> None:
    assert "use api.key or api.auth_string" in faults(base=BASE.replace("${URL}", "https://a:b@host/api"))["api.url"]


@pytest.mark.parametrize("part", ["variables: {token: abc}", "deployments: {defaults: {parameters: {api_key: abc}}}"])
def test_secret_looking_literals_are_told_wherever_prefect_would_show_them(part: str) -> None:
    assert "looks like a secret" in next(iter(faults(part).values()))


# -- what several parts show together


TWICE = """\
work_pools:
  alpha: {name: one, type: process}
  beta: {name: one, type: process}
automations:
  - {name: late, trigger: {}, actions: []}
  - {name: late, trigger: {}, actions: []}
deployments:
  overrides:
    hello:
      schedules: [{slug: s, cron: 0 1 * * *}, {slug: s, cron: 0 2 * * *}]
      triggers: [{name: t}, {name: t}]
"""


def test_names_that_are_given_twice_are_told() -> None:
    base = BASE.replace("work_pools: {alpha: {name: dev-alpha, type: process}}\n", TWICE)
    assert faults(base=base) == {
        "automations[1].name": "'late' is given twice (first in line 10).",
        "deployments.overrides.hello.schedules[1].slug": "'s' is given twice (first in line 15).",
        "deployments.overrides.hello.triggers[1].name": "'t' is given twice (first in line 16).",
        "work_pools.beta.name": "'one' is the pool of 'alpha' too.",
    }


def test_a_pool_is_not_named_as_prefects_own() -> None:
    problems = faults(base=BASE.replace("name: dev-alpha", "name: Prefect-pool"))
    expected = "'Prefect-pool': names that start with 'Prefect' are its own; choose another."
    assert problems == {"work_pools.alpha.name": expected}


def test_name_and_file_must_agree() -> None:
    problems = faults(base=BASE.replace("name: dev\n", "name: prod\n"))
    assert problems == {"name": "'prod' stands in the file of 'dev'; name and file must agree."}


def test_a_variable_that_prefect_cannot_hold_is_told() -> None:
    assert "5000 characters" in faults(f"variables: {{x: {'y' * 5000}}}")["variables.x"]
    assert loaded(f"variables: {{x: {'y' * 4990}}}").variables


def test_faults_of_different_kinds_are_told_together() -> None:
    text = "policy: {prune: paus}\nvariables: {x: '${GONE}', token: abc}\nautomation: []\nsecrets: {k: v}\nname: dev\n"
    paths = {"policy.prune", "variables.x", "variables.token", "automation", "secrets.k", "name"}
    assert faults(text).keys() == paths


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{strategy: git}", "strategy 'git' needs repository."),
        ("{strategy: git, repository: '  '}", "strategy 'git' needs repository."),
        ("{strategy: image, image: a}", "strategy 'image' needs directory."),
        ("{strategy: image}", "strategy 'image' needs image and directory."),
        ("{strategy: local, repository: x}", "strategy 'local' needs directory."),
    ],
)
def test_a_source_has_what_its_strategy_needs(source: str, message: str) -> None:
    base = BASE.replace("{repository: https://git.example/team/shop.git}", source)
    assert faults(base=base) == {"source": message}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("repository", "--upload-pack=touch x", "begins with a dash"),
        ("repository", "https://git.example/a\\nb", "a control character"),
        ("credentials", "a b}}", "can name no Secret block"),
    ],
)
def test_what_git_or_prefect_would_take_for_something_else_is_told(key: str, value: str, words: str) -> None:
    given = {"repository": "https://git.example/team/shop.git", key: value}
    source = ", ".join(f'{name}: "{text}"' for name, text in given.items())
    base = BASE.replace("repository: https://git.example/team/shop.git", source)
    (found,) = faults(base=base).items()
    assert found[0] == f"source.{key}" and words in found[1]


@pytest.mark.parametrize("place", ["alpha: {%s}", "alpha: {queues: {urgent: {%s}}}"])
def test_a_limit_that_no_database_holds_is_told(place: str) -> None:
    text = place % "concurrency_limit: 2147483648"
    base = BASE.replace("{alpha: {", f"{{{text[:-1]}, ")
    (message,) = faults(base=base).values()
    assert message.startswith("expected at most 2147483647")


@pytest.mark.parametrize("key", ["requires: {environment: qa}", "smoke: [x]"])
def test_what_is_not_available_yet_says_so(key: str) -> None:
    assert list(faults(f"policy: {{{key}}}").values()) == ["not available yet; leave it out."]


# -- the owner


@pytest.mark.parametrize(
    ("url", "project"),
    [
        ("https://git.example/Team/My_Repo.git", "my-repo"),
        ("git@git.example:team/shop.git", "shop"),
        ("git@git.example:shop", "shop"),
        ("file:///srv/git/shop/", "shop"),
        ("/", "project"),
    ],
)
def test_the_project_is_the_last_part_of_the_repositorys_url(url: str, project: str) -> None:
    assert project_of(url) == project
    assert built(source={"repository": url}).owner == project


def test_the_project_may_be_named() -> None:
    assert built(project="bakery").owner == "bakery"
    assert built(source={"strategy": "local", "directory": "/srv/shop"}).owner == "shop"


@pytest.mark.parametrize("text", ["", "# nothing\n", "just text", "- a list", "${URL}", "5", "null"])
def test_a_file_that_is_no_environment_is_one_fault(text: str) -> None:
    found, problems = environment.load(text, "environments/dev.yaml", {})
    assert found is None and len(problems) == 1


def test_a_name_that_would_break_a_plans_lines_is_told_wherever_it_stands() -> None:
    found = faults(
        'automations: [{name: "a\\nb", trigger: {}, actions: []}]\n'
        'deployments: {overrides: {hello: {triggers: [{name: "c\\ed"}]}}}\n'
    )
    assert set(found) == {"automations[0].name", "deployments.overrides.hello.triggers[0].name"}
    assert all("one line of text" in message for message in found.values())
