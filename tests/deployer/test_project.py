"""The files of a repository, in the work tree or at a commit, and all that is wrong with them in one pass."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from deployer import cli, project
from deployer.errors import InvalidInput, Problem
from deployer.project import Tree
from deployer.revision import Repository
from tests.repository import Repo, default_files, environment

URL = {"PREFECT_API_URL": "http://127.0.0.1:1/api"}
TEMPLATE = json.dumps({"job_configuration": {}, "variables": {"properties": {}}})


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "repo")


def validate(repo: Repo, *words: str, variables: Mapping[str, str] = URL) -> dict[str, Any]:
    """What `validate --format json` answers."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        code = cli.main(["validate", "--format", "json", "--repo", str(repo.path), *words], variables)
    answer: dict[str, Any] = json.loads(out.getvalue())
    assert code == (0 if answer["valid"] else 1)
    return answer


ENVIRONMENT = """\
name: dev
mode: developement
api: {url: "${PREFECT_API_URL}", key: pnu_literal}
refs: {branches: [main], tag: []}
source: {repository: "${REPOSITORY_URL}"}
work_pools:
  alpha: {name: dev-alpha, type: process, concurrency_limit: many}
  beta: {name: dev-alpha, type: process, base_job_template: infra/work-pools/gone.json}
concurrency_limits:
  api: {limt: 5}
variables: {market: off, password: hunter2}
secrets: {warehouse: postgres}
automations:
  - {name: late, trigger: {}, actions: [{type: run-deployment, deployment: helo}]}
  - {name: late, trigger: {}, actions: []}
deployments:
  overrides:
    helo: {parameters: {x: 1}}
    hello: {concurrency_limit: {limti: 1}}
  exclude: [goodbye]
policy: {max_removals: 130%}
"""
CATALOGUE = """\
- name: hello
  entrypoint: flows/alpha/helo.py:hello
  pool: alhpa
  schedules:
    - {slug: a, cron: "61 * * * *"}
    - {slug: a, cron: "0 0 * * *", timezone: America/Chikago}
    - {slug: b, interval: -1}
    - {slug: c, rrule: FREQ=DAYLY}
    - {cron: "0 0 * * *", interval: 5}
  parameters: {api_key: abc123}
  tags: [env:prod, 5]
- name: hello
  entrypoint: flows/alpha/hello.py:hello
  pool: alpha
  scedules: []
- name: Not_A_Name
  entrypoint: hello
- 42
"""
# File, line, key path -> words that the message must hold: what was expected, and a guess for a typo.
EXPECTED: dict[tuple[str, int, str], tuple[str, ...]] = {
    ("dev", 2, "mode"): ("expected 'development' or 'production', got 'developement'", "Did you mean 'development'?"),
    ("dev", 3, "api.key"): ("must be a reference", "${PREFECT_API_KEY:-}"),
    ("dev", 4, "refs.tag"): ("unknown key 'tag'", "Did you mean 'tags'?", "Known here: branches, tags."),
    ("dev", 5, "source.repository"): ("the variable REPOSITORY_URL is not set", "${REPOSITORY_URL:-default}"),
    ("dev", 7, "work_pools.alpha.concurrency_limit"): ("expected a whole number, got 'many'",),
    ("dev", 8, "work_pools.beta.name"): ("'dev-alpha' is the pool of 'alpha' too",),
    ("dev", 8, "work_pools.beta.base_job_template"): ("no file", "Did you mean 'infra/work-pools/one.json'?"),
    ("dev", 10, "concurrency_limits.api.limit"): ("missing; 'limit' is needed here",),
    ("dev", 10, "concurrency_limits.api.limt"): ("unknown key 'limt'", "Did you mean 'limit'?"),
    ("dev", 11, "variables.market"): ("'off' means different things", "write false"),
    ("dev", 11, "variables.password"): ("looks like a secret", "`secrets`"),
    ("dev", 12, "secrets.warehouse"): ("must be one reference", "${VARIABLE:-}"),
    ("dev", 15, "automations[1].name"): ("'late' is given twice (first in line 14)",),
    ("dev", 19, "deployments.overrides.hello.concurrency_limit.limit"): ("missing",),
    ("dev", 19, "deployments.overrides.hello.concurrency_limit.limti"): ("unknown key", "Did you mean 'limit'?"),
    ("dev", 21, "policy.max_removals"): ("a share from 0% to 100%", "got '130%'"),
    ("alpha", 2, "[0].entrypoint"): ("no file 'flows/alpha/helo.py'", "Did you mean 'flows/alpha/hello.py'?"),
    ("alpha", 3, "[0].pool"): ("not declared in environments/dev.yaml", "Did you mean 'alpha'?", "alpha, beta"),
    ("alpha", 5, "[0].schedules[0].cron"): ("'61 * * * *' is not a cron expression", "'0 20 * * 1-5'"),
    ("alpha", 6, "[0].schedules[1].slug"): ("'a' is given twice (first in line 5)",),
    ("alpha", 6, "[0].schedules[1].timezone"): ("not a time zone", "Did you mean 'America/Chicago'?"),
    ("alpha", 7, "[0].schedules[2].interval"): ("greater than 0, got -1",),
    ("alpha", 8, "[0].schedules[3].rrule"): ("not a recurrence rule", "DAYLY"),
    ("alpha", 9, "[0].schedules[4]"): ("exactly one of cron, interval, rrule",),
    ("alpha", 10, "[0].parameters.api_key"): ("looks like a secret",),
    ("alpha", 11, "[0].tags[0]"): ("'env:prod' is a tag that the deploy itself sets",),
    ("alpha", 11, "[0].tags[1]"): ("expected text, got 5", "Quote it"),
    ("alpha", 12, "[1].name"): ("declared at flows/alpha/deployments.yaml:1 too",),
    ("alpha", 15, "[1].scedules"): ("unknown key", "Did you mean 'schedules'?"),
    ("alpha", 16, "[2].name"): ("expected small letters and digits", "got 'Not_A_Name'"),
    ("alpha", 16, "[2].pool"): ("missing",),
    ("alpha", 17, "[2].entrypoint"): ("expected path/of/file.py:flow_function, got 'hello'",),
    ("alpha", 18, "[3]"): ("expected keys and values, got 42",),
    ("beta", 3, ""): ("not valid YAML",),
    ("one", 1, ""): ("not valid JSON",),
}
FILES = {"dev": "environments/dev.yaml", "alpha": "flows/alpha/deployments.yaml", "beta": "flows/beta/deployments.yaml"}


def everything_wrong(template: str) -> dict[str, str]:
    return {
        **default_files(),
        FILES["dev"]: ENVIRONMENT.replace(
            "process, concurrency", f"process, base_job_template: {template}, concurrency"
        ),
        FILES["alpha"]: CATALOGUE,
        FILES["beta"]: "- name: x\n  pool: [\n",
        "infra/work-pools/one.json": "{",
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Problem]:
    wrong = Repo(tmp_path_factory.mktemp("wrong"), everything_wrong("infra/work-pools/one.json"))
    contents, problems = project.contents(Tree.working(wrong.path), "dev", URL)
    assert contents is None
    return problems


@pytest.mark.parametrize("place", EXPECTED, ids=lambda place: " ".join(map(str, place)))
def test_each_kind_of_fault_is_told_with_its_place_the_expectation_and_a_guess(
    found: list[Problem], place: tuple[str, int, str]
) -> None:
    file = FILES.get(place[0], "infra/work-pools/one.json")
    messages = [p.message for p in found if (p.file, p.line, p.path) == (file, *place[1:])]
    assert len(messages) == 1
    assert [words for words in EXPECTED[place] if words not in messages[0]] == []


def test_all_faults_of_all_files_are_told_in_one_pass_and_no_others(found: list[Problem]) -> None:
    places = {(FILES.get(name, "infra/work-pools/one.json"), line, path) for name, line, path in EXPECTED}
    assert {(p.file, p.line, p.path) for p in found} == places
    assert len(found) == len(places)


def test_no_message_repeats_a_secret(found: list[Problem]) -> None:
    assert not [p for p in found if any(word in p.message for word in ("hunter2", "pnu_literal", "abc123", "postgres"))]


def test_deployments_that_are_spoken_of_and_are_not_there_are_told_beside_other_faults(repo: Repo) -> None:
    catalogue = CATALOGUE[: CATALOGUE.index("- name: Not_A_Name")]
    repo.write({"environments/dev.yaml": ENVIRONMENT, "flows/alpha/deployments.yaml": catalogue})
    problems = {p.path: p.message for p in project.contents(Tree.working(repo.path), "dev", URL)[1]}
    assert problems["deployments.overrides.helo"] == "there is no deployment 'helo'. Did you mean 'hello'?"
    assert problems["deployments.exclude[0]"] == "there is no deployment 'goodbye'."
    assert "no deployment 'helo' here. Did you mean 'hello'?" in problems["automations[0]"]
    assert "schedules[0].cron" in str(problems) and "mode" in problems


def test_a_fault_for_every_environment_is_told_once_by_validate(repo: Repo) -> None:
    repo.write({"environments/qa.yaml": environment("qa"), "flows/alpha/deployments.yaml": CATALOGUE})
    problems = validate(repo, "--static")["problems"]
    assert len([p for p in problems if p["path"] == "[0].schedules[0].cron"]) == 1
    assert {p["file"] for p in problems} == {"flows/alpha/deployments.yaml"}


# -- what only the flows themselves show

FLOW = """\
from prefect import flow

@flow
def hello(name: str = "x", count: int = 1): ...
"""
FLOWS = """\
- {name: fine, entrypoint: flows/alpha/hello.py:hello, pool: alpha}
- {name: gone, entrypoint: flows/alpha/hello.py:goodbye, pool: alpha}
- {name: broken, entrypoint: flows/alpha/broken.py:hello, pool: alpha}
- name: wrong
  entrypoint: flows/alpha/hello.py:hello
  pool: alpha
  parameters:
    nam: x
    count: many
  schedules: [{interval: 60, parameters: {cuont: 1}}]
  triggers:
    - {name: t, expect: [a.b], parameters: {count: "{{ event.payload.n }}", name: {__prefect_kind: jinja, template: x}}}
    - {name: u, expect: [a.b], parameters: {naem: "{{ event.payload.n }}"}}
    - {name: v, expect: [a.b], parameters: {count: some}}
    - {name: w, expect: [a.b], parameters: [1]}
- {name: static, entrypoint: flows/alpha/hello.py:hello, pool: alhpa}
"""


def test_validate_tells_in_the_same_pass_what_importing_the_flows_shows(repo: Repo) -> None:
    overlay = {"overrides": {"fine": {"parameters": {"count": "ten"}}}}
    repo.write(
        {
            "environments/dev.yaml": environment(deployments=overlay),
            "flows/alpha/hello.py": FLOW,
            "flows/alpha/broken.py": "import no_such_module\n",
            "flows/alpha/deployments.yaml": FLOWS,
        }
    )
    problems = {(p["file"].split("/")[1], p["line"], p["path"]): p["message"] for p in validate(repo)["problems"]}
    expected = {
        ("alpha", 2, "[1].entrypoint"): "goodbye",
        (
            "alpha",
            3,
            "[2].entrypoint",
        ): "ModuleNotFoundError: No module named 'no_such_module' (flows/alpha/broken.py:1)",
        ("alpha", 8, "[3].parameters.nam"): "has no parameter 'nam'. Did you mean 'name'? It takes: name, count.",
        ("alpha", 9, "[3].parameters.count"): "'many' is not of type 'integer'",
        ("alpha", 10, "[3].schedules[0].parameters.cuont"): "Did you mean 'count'?",
        ("alpha", 13, "[3].triggers[1].parameters.naem"): "Did you mean 'name'?",
        ("alpha", 14, "[3].triggers[2].parameters.count"): "'some' is not of type 'integer'",
        ("alpha", 15, "[3].triggers[3].parameters"): "expected a mapping of parameters, got [1].",
        ("alpha", 16, "[4].pool"): "Did you mean 'alpha'?",
        ("dev.yaml", 20, "deployments.overrides.fine.parameters.count"): "'ten' is not of type 'integer'",
    }
    assert problems.keys() == expected.keys()
    assert [place for place, words in expected.items() if words not in problems[place]] == []


# -- where files come from


def test_the_work_tree_counts_as_it_lies_there_and_a_commit_as_it_was(repo: Repo) -> None:
    first = repo.head
    repo.write({"environments/qa.yaml": environment("qa"), "flows/alpha/hello.py": None})
    working, before = Tree.working(repo.path), Tree.at(Repository(repo.path), first)
    assert working.environment_names() == ["dev", "qa"] and before.environment_names() == ["dev"]
    assert "flows/alpha/hello.py" in before.paths and "flows/alpha/hello.py" not in working.paths


@pytest.mark.parametrize("tree", [lambda r: Tree.working(r.path), lambda r: Tree.at(Repository(r.path), r.head)])
def test_entrypoints_and_templates_may_lie_anywhere_in_the_repository(repo: Repo, tree: Callable[[Repo], Tree]) -> None:
    pools = {"alpha": {"name": "a", "type": "process", "base_job_template": "deep/template.json"}}
    item = "- {name: far, entrypoint: jobs/far.py:f, pool: alpha}\n"
    files = {"environments/dev.yaml": environment(work_pools=pools), "flows/x/deployments.yaml": item}
    repo.commit("Far", {**files, "jobs/far.py": "", "deep/template.json": TEMPLATE})
    found, problems = project.contents(tree(repo), "dev", URL)
    assert problems == [] and found and found.templates == {"alpha": json.loads(TEMPLATE)}


@pytest.mark.parametrize("name", ["environments/qa.yaml", "flows/beta/deployments.yaml"])
@pytest.mark.parametrize("made", [Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_what_is_no_file_in_a_files_place_is_told(repo: Repo, name: str, made: Callable[[Path], None]) -> None:
    (repo.path / name).parent.mkdir(exist_ok=True)
    made(repo.path / name)
    with pytest.raises(InvalidInput, match=f"{name} is no file: a folder, or a link to nothing"):
        Tree.working(repo.path)


def test_other_files_are_not_read(repo: Repo) -> None:
    repo.commit("Data", {"data/big.json": "{}", "flows/alpha/data.json": "{}"})
    for tree in (Tree.working(repo.path), Tree.at(Repository(repo.path), repo.head)):
        assert set(tree.texts) == {"environments/dev.yaml", "flows/alpha/deployments.yaml"}


def test_bytes_that_are_no_text_are_a_problem_of_their_file(repo: Repo) -> None:
    (repo.path / "environments/dev.yaml").write_bytes(b"name: dev\nx: \xff\xfe\n")
    repo.commit("Bytes")
    for tree in (Tree.working(repo.path), Tree.at(Repository(repo.path), repo.head)):
        problems = project.contents(tree, "dev", URL)[1]
        assert [str(p) for p in problems] == ["environments/dev.yaml:2: holds bytes that are not UTF-8."]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("{", 1, "not valid JSON"),
        ("[]", None, "has the keys job_configuration and variables"),
        ('{"variables": {}}', None, "has the keys job_configuration and variables"),
        ("[" * 100_000, None, "not valid JSON"),
    ],
)
def test_a_template_that_is_none_is_a_problem_of_its_file(
    repo: Repo, text: str, line: int | None, message: str
) -> None:
    pools = {"alpha": {"name": "a", "type": "process", "base_job_template": "t.json"}}
    repo.commit("Template", {"environments/dev.yaml": environment(work_pools=pools), "t.json": text})
    (problem,) = project.contents(Tree.working(repo.path), "dev", URL)[1]
    assert (problem.file, problem.line) == ("t.json", line) and message in problem.message


SIZES: dict[str, Any] = {
    "job_configuration": {"limits": {"cpu": "{{ cpu }}"}, "env": "{{ env }}", "image": "{{ image }}"},
    "variables": {
        "properties": {
            "cpu": {"type": "string", "pattern": "^[0-9]+m?$", "default": "1"},
            "env": {"type": "object"},
            "image": {"type": "string"},
            "size": {"type": "integer"},
        }
    },
}


def sized(repo: Repo, given: dict[str, Any], template: dict[str, Any] = SIZES, **more: Any) -> list[dict[str, Any]]:
    """What `validate --static` says of these job variables of a deployment, line by line."""
    pools = {"alpha": {"name": "a", "type": "docker", "base_job_template": "t.json"}}
    files = {"environments/dev.yaml": environment(work_pools=pools, **more), "t.json": json.dumps(template)}
    item = f"- name: hello\n  entrypoint: flows/alpha/hello.py:hello\n  pool: alpha\n  job_variables: {json.dumps(given)}\n"
    repo.commit("Sizes", {**files, "flows/alpha/deployments.yaml": item})
    problems: list[dict[str, Any]] = validate(repo, "--static")["problems"]
    return problems


@pytest.mark.parametrize(
    ("given", "path", "message"),
    [
        (
            {"cup": "2"},
            "cup",
            "alpha (t.json) has no job variable 'cup'. Did you mean 'cpu'?",
        ),
        ({"cpu": "two"}, "cpu", "job variable cpu: 'two' does not match"),
        ({"size": "8"}, "size", "'8' is not of type 'integer'"),
    ],
)
def test_a_job_variable_that_does_not_fit_the_pools_template_is_told_without_an_api(
    repo: Repo, given: dict[str, Any], path: str, message: str
) -> None:
    (problem,) = sized(repo, given)
    place = (problem["file"], problem["line"], problem["path"])
    assert place == ("flows/alpha/deployments.yaml", 4, f"[0].job_variables.{path}") and message in problem["message"]


def test_one_that_the_environment_gives_is_told_there(repo: Repo) -> None:
    (problem,) = sized(repo, {}, deployments={"defaults": {"job_variables": {"cpu": "all"}}})
    assert (problem["file"], problem["path"]) == ("environments/dev.yaml", "deployments.defaults.job_variables.cpu")
    (problem,) = sized(repo, {"cpu": "2"}, deployments={"overrides": {"hello": {"job_variables": {"cpu": "all"}}}})
    assert problem["path"] == "deployments.overrides.hello.job_variables.cpu"


def test_one_that_the_template_requires_is_told_once_for_the_pool(repo: Repo) -> None:
    needs = {**SIZES, "variables": {**SIZES["variables"], "required": ["cpu", "size"]}}
    (problem,) = sized(repo, {}, needs)
    assert (problem["file"], problem["path"]) == ("environments/dev.yaml", "work_pools.alpha.base_job_template")
    assert "needs the job variable 'size', and has no default for it. Not given by hello. Set it" in problem["message"]
    assert sized(repo, {}, needs, deployments={"defaults": {"job_variables": {"size": 1}}}) == []


def test_a_pool_that_takes_no_image_does_not_go_with_a_source_that_brings_one(repo: Repo) -> None:
    source = {"strategy": "image", "image": "flows:sha-{commit}", "directory": "/opt/flows"}
    assert sized(repo, {}, source=source) == []
    without = {**SIZES, "job_configuration": {}, "variables": {"properties": {"cpu": {"type": "string"}}}}
    (problem,) = sized(repo, {}, without, source=source)
    assert problem["path"] == "source.image" and "has no job variable 'image'" in problem["message"]


def test_a_job_variable_that_fits_or_that_nobody_knows_yet_is_no_problem(repo: Repo) -> None:
    given = {"cpu": "2", "env.LOG_LEVEL": "debug", "size": "{{ prefect.variables.size }}", "image": "${IMAGE}"}
    assert sized(repo, given) == []
    assert sized(repo, {"cup": 1}, deployments={"exclude": ["hello"]}) == []


def test_an_automation_of_a_deployment_that_is_not_there_is_told(repo: Repo) -> None:
    action = {"type": "run-deployment", "deployment": "helo"}
    late = {"name": "late", "trigger": {}, "actions": [action]}
    repo.write({"environments/dev.yaml": environment(automations=[late])})
    (problem,) = project.contents(Tree.working(repo.path), "dev", URL)[1]
    assert problem.path == "automations[0]" and "no deployment 'helo' here. Did you mean 'hello'?" in problem.message


# -- asking for environments


def test_an_unknown_environment_is_answered_with_a_guess_and_the_known_ones(repo: Repo) -> None:
    with pytest.raises(InvalidInput, match=r"no environment 'dve' .*Did you mean 'dev'\? There are: dev\."):
        project.load_environment(Tree.working(repo.path), "dve", URL)


def test_an_environment_without_faults_is_given_whole(repo: Repo) -> None:
    assert project.load_environment(Tree.working(repo.path), "dev", URL).api.url == URL["PREFECT_API_URL"]


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"gone\.yaml cannot be read: No such file or directory\."):
        project._text(tmp_path / "gone.yaml")


def test_an_environment_with_faults_is_none(repo: Repo) -> None:
    with pytest.raises(InvalidInput, match="1 problem found") as caught:
        project.load_environment(Tree.working(repo.path), "dev", {})
    assert [p.path for p in caught.value.problems] == ["api.url"]


def test_all_environments_are_asked_for_at_once_and_all_their_faults_told(repo: Repo) -> None:
    repo.write({"environments/qa.yaml": environment("qa", zzz=1), "environments/prod.yaml": environment("prod", yyy=1)})
    with pytest.raises(InvalidInput) as caught:
        project.load_environments(Tree.working(repo.path), None)
    assert [(p.file, p.path) for p in caught.value.problems] == [
        *(("environments/prod.yaml", "yyy"), ("environments/qa.yaml", "zzz")),
    ]


def test_without_environments_the_way_on_is_told(repo: Repo) -> None:
    repo.write({"environments/dev.yaml": None})
    with pytest.raises(InvalidInput, match=r"no environments/.*--repo DIR"):
        project.load_environments(Tree.working(repo.path), None)


def test_a_number_from_an_unset_variable_is_no_fault_of_a_static_look(repo: Repo) -> None:
    text = environment(concurrency_limits={"api": {"limit": "${LIMIT}"}}, project="${PROJECT}")
    repo.write({"environments/dev.yaml": text})
    assert validate(repo, "--static", variables={})["valid"] is True
    assert [e.name for e in project.load_environments(Tree.working(repo.path), None)] == ["dev"]
