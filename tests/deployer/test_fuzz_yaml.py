"""Whatever stands in the files: an answer, or problems in words. Never a traceback."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as some

from deployer import catalog, cli, desired, environment, project, source
from deployer.desired import Scope
from deployer.environment import Environment
from deployer.errors import DeployError, Problem
from deployer.project import Tree
from deployer.yamlfile import Document, parse
from tests.repository import Repo, default_files

ENVIRONMENT = """\
name: dev
mode: development
project: shop
api: {url: "${URL}", key: "${KEY:-}", shared: true}
refs: {branches: [main, "release/**"], tags: ["!v*"]}
source: {strategy: image, image: "shop:{commit}", directory: /srv}
work_pools:
  alpha: {name: dev-alpha, type: process, concurrency_limit: 4, queues: {slow: {priority: 2}}}
concurrency_limits: {api: {limit: 5, slot_decay_per_second: 0.0833}}
variables: {market: {list: [1, 2.5, true, null]}}
secrets: {warehouse: "${WAREHOUSE:-}"}
automations:
  - {name: late, trigger: {match: {id: "{deployment:hello}"}}, actions: [{type: run-deployment, deployment: hello}]}
deployments:
  defaults: &defaults {tags: [dev], schedules: paused, parameters: {a: 1}}
  overrides:
    hello: {parameters: {count: 5}, schedules: [{slug: a, interval: 60, anchor_date: 2026-01-01}], concurrency_limit: 2}
  exclude: [ahoi]
policy: {prune: delete, max_removals: 50%}
"""
CATALOGUE = """\
- &hello
  name: hello
  entrypoint: flows/alpha/hello.py:hello
  pool: alpha
  queue: slow
  schedules:
    - {slug: a, cron: "0 20 * * 1-5", timezone: America/Chicago, day_or: false, parameters: {x: 1}}
    - {rrule: "DTSTART:20260101T000000\\nFREQ=DAILY", active: false}
  parameters: {name: world, count: 3}
  job_variables: {env: {X: "1"}}
  tags: [greeting]
  concurrency_limit: {limit: 2, collision_strategy: CANCEL_NEW, grace_period_seconds: 60}
  triggers: [{name: t, expect: [order.paid]}]
- {<<: *hello, name: ahoi, smoke: {parameters: {}, timeout: 60}}
"""
FILES = {"environments/dev.yaml": ENVIRONMENT, "flows/alpha/deployments.yaml": CATALOGUE}
PATHS = frozenset({*FILES, "flows/alpha/hello.py"})
VARIABLES = {"URL": "http://127.0.0.1:1/api", "WAREHOUSE": "x"}

# Pieces that mean something to YAML, to ${...}, or to one of the fields.
PIECES = [
    *(
        "${X}",
        "${URL}",
        "${",
        "}",
        "&a",
        "*a",
        "<<: ",
        "- ",
        ": ",
        "? ",
        "[",
        "]",
        "{",
        "}",
        "|\n",
        ">\n",
        "---\n",
        "...\n",
    ),
    *(
        "!!python/object:os.system ",
        "!!set ",
        "!!binary ",
        "!x ",
        "~",
        "yes",
        "010",
        "1e3",
        ".inf",
        ".nan",
        "20:00",
        "\t",
        "#",
    ),
    *(
        "'",
        '"',
        "\\",
        "%",
        "@",
        "`",
        "\x00",
        "\ufeff",
        "\u2028",
        "\x85",
        "\ufffd",
        "²",
        "٣",
        "9" * 400,
        "-1",
        "null",
        "[[" * 60,
    ),
    *(
        "name",
        "pool",
        "0 0 31 2 *",
        "* * * * * *",
        "R R R R R",
        "FREQ=DAILY;INTERVAL=0",
        "RRULE:",
        "DTSTART:",
        "9999-99-99",
    ),
    *("{deployment:", "refs", "secrets", "env:dev", "retired", "password: x", "../../etc/passwd", "a.py:f"),
]
texts = some.text(some.characters(exclude_categories=["Cs"]), max_size=60) | some.sampled_from(PIECES)
leaves = (
    some.none() | some.booleans() | some.integers() | some.floats() | texts | some.dates() | some.binary(max_size=5)
)
keys = some.sampled_from(sorted(set(re.findall(r"[a-z_]+", ENVIRONMENT + CATALOGUE)))) | texts
values = some.recursive(
    leaves, lambda inner: some.lists(inner, max_size=4) | some.dictionaries(keys | some.integers(), inner, max_size=4)
)


@some.composite
def mutilated(draw: some.DrawFn, text: str) -> str:
    """Some pieces cut out, doubled, or put in."""
    for _ in range(draw(some.integers(1, 4))):
        start = draw(some.integers(0, len(text)))
        end = min(len(text), start + draw(some.integers(0, 30)))
        text = text[:start] + draw(some.sampled_from(["", text[start:end] * 2]) | texts) + text[end:]
    return text


@some.composite
def altered(draw: some.DrawFn, text: str) -> str:
    """Still YAML: some values replaced, some keys renamed or gone."""
    data = yaml.safe_load(text)
    for _ in range(draw(some.integers(1, 4))):
        here = data
        while True:
            places = list(here) if isinstance(here, dict) else list(range(len(here)))
            if not places:
                break
            place = draw(some.sampled_from(places))
            if isinstance(here[place], dict | list) and draw(some.booleans()):
                here = here[place]
                continue
            value = draw(some.just(here[place]) | values)
            del here[place]
            if isinstance(here, list):
                here.insert(place, value)
            elif draw(some.integers(0, 4)):
                here[draw(some.just(place) | keys)] = value
            break
    return yaml.safe_dump(data, allow_unicode=draw(some.booleans()))


def files_like(text: str) -> some.SearchStrategy[str]:
    raw = some.binary(max_size=80).map(lambda data: data.decode("utf-8", errors="replace"))
    return mutilated(text) | altered(text) | values.map(yaml.safe_dump) | texts | raw


def check_problems(problems: list[Problem], files: Mapping[str, str]) -> None:
    """Each names its file, a line of it, and says something."""
    for problem in problems:
        assert problem.file in files and problem.message
        assert problem.line is None or 1 <= problem.line <= files[problem.file].count("\n") + 2
        assert str(problem)


@given(text=files_like(ENVIRONMENT), variables=some.sampled_from([None, {}, VARIABLES]))
@settings(max_examples=150)
def test_an_environment_file_is_an_environment_or_problems(text: str, variables: Mapping[str, str] | None) -> None:
    found, problems = environment.load(text, "environments/dev.yaml", variables)
    assert found or problems
    check_problems(problems, {"environments/dev.yaml": text})


@cache
def known() -> tuple[Environment, Document]:
    found = environment.load(ENVIRONMENT, "environments/dev.yaml", VARIABLES)[0]
    assert found
    return found, parse(ENVIRONMENT, "environments/dev.yaml")


@given(text=files_like(CATALOGUE))
@settings(max_examples=150)
def test_a_catalogue_file_is_declarations_or_problems(text: str) -> None:
    declared, problems = catalog.load({"flows/alpha/deployments.yaml": text}, PATHS)
    check_problems(problems, {"flows/alpha/deployments.yaml": text})
    check_problems(catalog.check(declared, *known()), {**FILES, "flows/alpha/deployments.yaml": text})


@given(one=files_like(ENVIRONMENT), other=files_like(CATALOGUE), variables=some.sampled_from([None, VARIABLES]))
@settings(max_examples=120)
def test_files_without_a_problem_can_be_deployed_as_far_as_anybody_can_tell_without_importing_flows(
    one: str, other: str, variables: Mapping[str, str] | None
) -> None:
    files = {"environments/dev.yaml": one, "flows/alpha/deployments.yaml": other}
    found, problems = project.contents(Tree(PATHS, files), "dev", variables)
    check_problems(problems, files)
    assert bool(found) is not bool(problems)
    if found:
        asked(found)


def asked(found: project.Contents) -> Any:
    """What comes of it: the loader's request and the identity of its inputs."""
    here, commit = found.environment, "a" * 40
    scope = Scope(here.owner, here.name, here.api.shared)
    request = desired.request(here, found.declared, source.code(here.source, commit), commit, scope)
    desired.inputs_of(request, here, scope)
    return request


@given(one=files_like(ENVIRONMENT), other=files_like(CATALOGUE))
@settings(max_examples=60)
def test_what_is_left_of_faulty_files_can_be_looked_at_further(one: str, other: str) -> None:
    files = {"environments/dev.yaml": one, "flows/alpha/deployments.yaml": other}
    found, _ = project.examine(Tree(PATHS, files), "dev", VARIABLES)
    if found:
        asked(found)


def test_the_files_that_are_varied_are_valid_ones() -> None:
    found, problems = project.contents(Tree(PATHS, FILES), "dev", VARIABLES)
    assert problems == [] and found and [d["name"] for d in asked(found).deployments] == ["hello"]


# -- the command line


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    return Repo(tmp_path_factory.mktemp("fuzzed"), {**default_files(), **FILES})


def run(repo: Repo, *words: str) -> tuple[int, str]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = cli.main([*words, "--repo", str(repo.path)], VARIABLES)
    return code, said.getvalue()


@given(
    one=files_like(ENVIRONMENT).map(str.encode) | some.binary(max_size=60), other=files_like(CATALOGUE).map(str.encode)
)
@settings(max_examples=30)
def test_validate_and_target_end_in_an_answer_and_never_in_a_traceback(repo: Repo, one: bytes, other: bytes) -> None:
    for name, data in zip(FILES, (one, other), strict=True):
        Path(repo.path, name).write_bytes(data)
    for words in (("validate", "--static"), ("target", "--ref", "refs/heads/main")):
        code, said = run(repo, *words)
        assert code in (0, 1) and "Traceback" not in said, said


@given(text=some.text(max_size=80) | mutilated("export A='b c' # d\nB=\"e\"\n"))
@settings(max_examples=60)
def test_a_file_of_variables_is_read_or_refused_in_words(text: str) -> None:
    path = Path("variables.env")
    path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    with contextlib.suppress(DeployError):
        assert all(name.isidentifier() for name in cli._env_files([str(path)]))


@pytest.fixture(autouse=True)
def in_a_scratch_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
