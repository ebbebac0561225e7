"""What can be promised of .github/ without running it. scripts/act.py runs it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from deployer import cli, refs
from deployer.environment import REFERENCE, Environment
from deployer.project import Tree, load_environments
from scripts import github_setup, github_wanted

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / ".github").rglob("*.yml"))
WORKFLOWS = {path.name: path for path in FILES if path.parent.name == "workflows"}
READ = {"contents": "read"}


@cache
def parsed(path: Path) -> dict[str, Any]:
    """All scalars are strings: `on` and `off` are words to GitHub, not truths."""
    data: dict[str, Any] = yaml.load(path.read_text(), yaml.BaseLoader)
    return data


def workflow(name: str) -> dict[str, Any]:
    return parsed(WORKFLOWS[name])


class Job(NamedTuple):
    file: str
    name: str
    body: dict[str, Any]

    @property
    def steps(self) -> list[dict[str, Any]]:
        return list(self.body.get("steps", []))


def jobs() -> list[Job]:
    return [Job(file, name, body) for file in WORKFLOWS for name, body in workflow(file)["jobs"].items()]


class Step(NamedTuple):
    job: Job
    body: dict[str, Any]

    @property
    def runs(self) -> str:
        return str(self.body.get("run", ""))

    @property
    def env(self) -> dict[str, str]:
        return dict(self.body.get("env", {}))

    @property
    def secrets(self) -> set[str]:
        return {name for value in self.env.values() for name in re.findall(r"secrets\.(\w+)", value)}


def steps() -> list[Step]:
    return [Step(job, body) for job in jobs() for body in job.steps]


def texts(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every scalar of a document, and where it stands."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        here = (*path, str(key))
        yield from texts(inner, here) if isinstance(inner, dict | list) else [(here, inner)]


@cache
def environments() -> list[Environment]:
    return load_environments(Tree.working(ROOT), None)


def names() -> list[str]:
    return [each.name for each in environments()]


# -- which ref goes where

TARGETS: dict[str, list[str]] = {
    "refs/heads/main": ["dev"],
    "refs/heads/release/2026.11": ["qa"],
    "refs/heads/release/a/b": ["qa"],
    "refs/tags/v1.0.0-rc.1": ["qa"],
    "refs/tags/v1.0.0": ["prod"],
    "refs/tags/v10.20.30": ["prod"],
    **{
        ref: []
        for ref in ("refs/tags/v1.0", "refs/tags/vnext", "refs/tags/v1/x", "refs/tags/main", "refs/tags/v1.0.0x")
    },
    **{ref: [] for ref in ("refs/heads/v1.0.0", "refs/heads/feature/x", "refs/heads/release", "refs/pull/7/merge")},
}


def fits(name: str, pattern: str) -> bool:
    """GitHub's filter patterns by trying: `*` stops at a slash, `**` does not, `?` and `+` say how often the unit before."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        deep = pattern.startswith("**")
        rest = pattern[2:] if deep else pattern[1:]
        longest = len(name) if deep or "/" not in name else name.index("/")
        return (deep and rest[:1] == "/" and fits(name, rest[1:])) or any(
            fits(name[n:], rest) for n in range(longest + 1)
        )
    unit = pattern[: pattern.index("]") + 1] if pattern[0] == "[" else pattern[0]
    rest, one = pattern[len(unit) :], bool(name) and name[0] in members(unit)
    if rest[:1] == "?":
        return fits(name, rest[1:]) or (one and fits(name[1:], rest[1:]))
    if rest[:1] == "+":
        return one and (fits(name[1:], pattern) or fits(name[1:], rest[1:]))
    return one and fits(name[1:], rest)


def members(unit: str) -> str:
    """`[a-c1]` -> "abc1"."""
    if unit[0] != "[":
        return unit
    return re.sub(r"(.)-(.)", lambda m: "".join(map(chr, range(ord(m[1]), ord(m[2]) + 1))), unit[1:-1])


def let_in(name: str, patterns: list[str]) -> bool:
    """The last one that fits decides; `!` excludes."""
    fitting = [p for p in patterns if fits(name, p.removeprefix("!"))]
    return bool(fitting) and not fitting[-1].startswith("!")


PATTERNS = [
    *(["main"], ["*"], ["**"], ["release/**"], ["release/*"], ["v[0-9]+.[0-9]+.[0-9]+"], ["v[0-9]+.[0-9]+.[0-9]+-rc*"]),
    *(
        ["v*"],
        ["v[12].?[0-9]*"],
        ["**/x"],
        ["releases?/**"],
        ["**", "!release/**"],
        ["!main", "main"],
        ["v*", "!v*-rc*"],
    ),
]


def test_the_engine_reads_filter_patterns_as_this_matcher_does() -> None:
    short = [re.sub("^refs/(heads/|tags/)?", "", ref) for ref in TARGETS]
    said = [(name, patterns) for name in short for patterns in PATTERNS if let_in(name, patterns)]
    assert said == [(name, patterns) for name in short for patterns in PATTERNS if refs.matches(name, patterns)]
    assert {tuple(patterns) for _, patterns in said} == {tuple(patterns) for patterns in PATTERNS}


def starts(ref: str) -> bool:
    """Does a push of it start deploy.yml?"""
    push = workflow("deploy.yml")["on"]["push"]
    kind, _, name = ref.removeprefix("refs/").partition("/")
    return let_in(name, {"heads": push["branches"], "tags": push["tags"]}.get(kind, []))


@pytest.mark.parametrize("ref", TARGETS)
def test_the_workflow_starts_for_what_deploy_py_sends_somewhere_and_for_nothing_else(ref: str) -> None:
    said = io.StringIO()
    with redirect_stdout(said):
        assert cli.main(["target", "--ref", ref, "--format", "json", "--repo", str(ROOT)], {}) == 0
    assert json.loads(said.getvalue())["environments"] == TARGETS[ref]
    assert starts(ref) == bool(TARGETS[ref])


def test_a_deleted_ref_does_nothing() -> None:
    """Everything waits for the job that such a push skips, and what waits for a skipped job is skipped too."""
    found = workflow("deploy.yml")["jobs"]
    assert found["target"]["if"] == "github.event.deleted != true"
    for name, job in found.items():
        assert name == "target" or "target" in job["needs"], name
        assert "always()" not in job.get("if", ""), name
        if "cancelled()" in job.get("if", ""):  # which looks at all jobs before, and lets skipped ones pass
            assert re.search(r"&& needs\.(checks|deploy)\.result == 'success' ", job["if"]), name


def test_a_deploy_by_hand_takes_no_input_but_the_ref() -> None:
    assert workflow("deploy.yml")["on"]["workflow_dispatch"] == ""


def test_the_workflows_know_the_environments_that_there_are() -> None:
    drift, rollback = workflow("drift.yml")["jobs"], workflow("rollback.yml")["on"]["workflow_dispatch"]["inputs"]
    form = parsed(ROOT / ".github/ISSUE_TEMPLATE/failed-deploy.yml")["body"][0]["attributes"]["options"]
    listed = [*(drift[job]["strategy"]["matrix"]["environment"] for job in ("drift", "issue"))]
    listed += [rollback["environment"]["options"], form]
    assert [sorted(each) for each in listed] == [sorted(names())] * 4
    produced = re.findall(r", '(\w+)'\)", workflow("deploy.yml")["jobs"]["release"]["if"])
    assert produced == [each.name for each in environments() if each.mode == "production"]


def test_every_github_environment_that_a_job_names_is_one_that_the_set_up_makes() -> None:
    made = {target.name for target in github_wanted.targets(environments(), "main", github_wanted.Options())}
    used = set()
    for job in jobs():
        if "environment" in job.body:
            name = re.sub(r"\$\{\{ \w+\.environment \}\}", "*", job.body["environment"]["name"])
            used |= {name.replace("*", each) for each in names()}
    assert used == made


# -- names: variables and secrets


def referred(*values: str) -> set[str]:
    return {match[1] for value in values for match in REFERENCE.finditer(value)}


def credentials() -> set[str]:
    return {name for each in environments() for name in referred(each.api.key, each.api.auth_string)}


def secrets() -> set[str]:
    return credentials() | {name for each in environments() for name in referred(*each.secrets.values())}


def needed() -> set[str]:
    """What a file cannot do without."""
    text = "".join((ROOT / "environments" / f"{name}.yaml").read_text() for name in names())
    return {match[1] for match in REFERENCE.finditer(text) if match[2] is None}


def deploying() -> list[Step]:
    verbs = r"deploy\.py (plan|apply|rollback|drift)\b|github\.py sweep\b"
    return [step for step in steps() if re.search(verbs, step.runs)]


def test_every_step_that_speaks_with_an_environment_gets_what_its_file_needs() -> None:
    found = deploying()
    assert len(found) == 6 and needed() == {"PREFECT_API_URL", "REPOSITORY_URL"}
    for step in found:
        assert needed() | credentials() <= set(step.env), (step.job.file, step.job.name)


def test_no_step_gets_a_secret_that_it_does_not_use() -> None:
    """What plans and applies an environment needs the secrets that it manages; the rest only asks the API."""
    for step in steps():
        asks = step in deploying() or "github.py credentials" in step.runs
        wanted = secrets() if step.job.file == "deploy-environment.yml" and asks else credentials() if asks else set()
        assert step.secrets == wanted, (step.job.file, step.job.name, step.runs)


def test_each_name_is_handed_on_as_itself() -> None:
    for step in steps():
        for name, value in step.env.items():
            for kind, other in re.findall(r"\b(secrets|vars)\.(\w+)", value):
                assert other == name and (kind == "secrets") == (name in secrets()), (step.job.file, name, value)


def test_the_reusable_workflow_and_its_callers_agree_on_the_secrets() -> None:
    declared = workflow("deploy-environment.yml")["on"]["workflow_call"]["secrets"]
    assert set(declared) == secrets()
    callers = [job for job in jobs() if job.body.get("uses", "").endswith("/deploy-environment.yml")]
    assert [job.file for job in callers] == ["deploy.yml", "rollback.yml"]
    for job in callers:
        assert job.body["secrets"] == {name: f"${{{{ secrets.{name} }}}}" for name in secrets()}


def test_variables_are_those_that_the_set_up_can_set() -> None:
    used = {name for path in FILES for name in re.findall(r"\bvars\.(\w+)", path.read_text())}
    assert used == {*github_setup.SETTABLE, github_wanted.REPLAN}


def test_secrets_stand_in_the_environment_of_a_step_and_nowhere_else() -> None:
    for path in FILES:
        for place, text in texts(parsed(path)):
            if re.search(r"\bsecrets\b(?!:)|github\.token", text) and "${{" in text:
                in_step = place[0] == "jobs" and place[2] == "steps" and place[4] == "env"
                handed_on = place[0] == "jobs" and place[2] == "secrets"
                login = place[-2:] == ("with", "password") and text == "${{ github.token }}"
                assert in_step or handed_on or login, (path.name, place)


def test_githubs_own_token_is_given_to_the_tool_that_speaks_with_github_and_to_nothing_else() -> None:
    holders = [step for step in steps() if "github.token" in str(step.env)]
    assert len(holders) == 7
    assert [step.runs for step in holders if not re.match(r"(exec \S+|python3) scripts/github\.py ", step.runs)] == []
    logins = [step for step in steps() if "github.token" in str(step.body.get("with", {}))]
    assert [(step.job.name, step.body["uses"].partition("@")[0]) for step in logins] == [
        ("build", "docker/login-action")
    ]
    assert logins[0].body["with"]["registry"] == "ghcr.io"


# -- rights

PERMISSIONS: dict[str, dict[str, dict[str, str]]] = {
    "checks.yml": {"check": READ, "test": READ, "infra": READ, "test-stack": READ},
    "ci.yml": {"checks": READ, "plan": READ, "comment": {**READ, "pull-requests": "write"}, "gate": {}},
    "deploy.yml": {
        "target": READ,
        "checks": READ,
        "deploy": READ,
        "release": {"contents": "write"},
        "image": {**READ, "packages": "read"},
        "build": {**READ, "packages": "write"},
    },
    "deploy-environment.yml": {"plan": READ, "apply": READ},
    "rollback.yml": {"rollback": READ, "record": {**READ, "deployments": "write"}, "elsewhere": {}},
    "drift.yml": {"drift": READ, "issue": {**READ, "issues": "write"}},
    "preview.yml": {"deploy": READ, "sweep": {**READ, "pull-requests": "read"}},
}


def test_every_job_may_do_exactly_this() -> None:
    found: dict[str, dict[str, Any]] = {file: {} for file in WORKFLOWS}
    for job in jobs():
        found[job.file][job.name] = job.body["permissions"]
    assert found == PERMISSIONS


def test_what_a_workflow_does_not_grant_is_not_granted() -> None:
    assert {file: workflow(file)["permissions"] for file in WORKFLOWS} == {file: {} for file in WORKFLOWS}


def test_a_caller_grants_what_the_called_jobs_need() -> None:
    """GitHub does not start the run otherwise."""
    for job in jobs():
        if called := job.body.get("uses"):
            for inner in workflow(Path(called).name)["jobs"].values():
                assert inner["permissions"].items() <= job.body["permissions"].items(), (job.file, job.name)


def test_a_job_that_may_write_to_github_runs_nothing_of_a_pull_request() -> None:
    """No installation, and one program of the standard library alone, of the base branch. What builds an image never sees one."""
    writing = [job for job in jobs() if "write" in job.body["permissions"].values()]
    assert len(writing) == 5
    for job in writing:
        uses = {step["uses"].partition("@")[0] for step in job.steps if "uses" in step}
        builds = {"docker/login-action", "docker/setup-buildx-action", "docker/build-push-action"}
        assert uses - {"actions/checkout", "actions/download-artifact"} == (builds if job.name == "build" else set()), (
            job
        )
        assert all(step["run"].startswith("python3 scripts/github.py ") for step in job.steps if "run" in step), job
        if "pull_request" in workflow(job.file)["on"]:
            checkout = next(step for step in job.steps if step.get("uses", "").startswith("actions/checkout@"))
            assert checkout["with"]["ref"] == "${{ github.event.pull_request.base.sha }}", job


def test_a_preview_is_removed_by_the_default_branchs_code() -> None:
    checkout = workflow("preview.yml")["jobs"]["sweep"]["steps"][0]
    assert checkout["with"]["ref"] == "${{ github.event.repository.default_branch }}"


def test_no_workflow_runs_for_a_fork_with_rights() -> None:
    assert {event for file in WORKFLOWS for event in workflow(file)["on"]} == {
        *("push", "pull_request", "merge_group", "schedule", "workflow_call", "workflow_dispatch"),
    }


# -- when, where

PR = "github.event.pull_request"
OURS = f"{PR}.head.repo.full_name == github.repository"
LABELLED = f"contains({PR}.labels.*.name, 'preview')"


class Shape(NamedTuple):
    """GitHub's environment of a job and whether it counts as a deployment, the jobs before it, and its condition."""

    environment: str = ""
    deployment: str = ""
    needs: tuple[str, ...] = ()
    condition: str = ""


SHAPES: dict[str, Shape] = {
    "ci.yml plan": Shape(environment="dev-plan", deployment="false", condition="github.event_name == 'pull_request'"),
    "ci.yml comment": Shape(needs=("plan",), condition="needs.plan.outputs.planned == 'true'"),
    "ci.yml gate": Shape(
        needs=("checks", "plan", "comment"),
        condition="always()",
    ),
    "deploy-environment.yml plan": Shape(
        environment="${{ inputs.environment }}-plan", deployment="false", condition="${{ !cancelled() }}"
    ),
    "deploy-environment.yml apply": Shape(
        environment="${{ inputs.environment }}",
        deployment="${{ inputs.operation != 'rollback' }}",
        needs=("plan",),
        condition="${{ !cancelled() && needs.plan.result == 'success' && needs.plan.outputs.result != 'overtaken' }}",
    ),
    "deploy.yml target": Shape(condition="github.event.deleted != true"),
    "deploy.yml checks": Shape(needs=("target",), condition="needs.target.outputs.environments != '[]'"),
    "deploy.yml image": Shape(needs=("target", "checks"), condition="needs.target.outputs.needs-image != '[]'"),
    "deploy.yml build": Shape(
        needs=("target", "image"),
        condition="needs.target.outputs.build == 'true' && needs.image.outputs.digest == ''",
    ),
    "deploy.yml deploy": Shape(
        needs=("target", "checks", "image", "build"),
        condition="!cancelled() && needs.checks.result == 'success' && (needs.target.outputs.needs-image == '[]' || needs.image.result == 'success' && (needs.image.outputs.digest != '' || needs.build.result == 'success'))",
    ),
    "deploy.yml release": Shape(
        needs=("target", "deploy"),
        condition="!cancelled() && needs.deploy.result == 'success' && needs.deploy.outputs.result != 'overtaken' && github.ref_type == 'tag' && contains(fromJSON(needs.target.outputs.environments), 'prod')",
    ),
    "drift.yml drift": Shape(environment="${{ matrix.environment }}-plan", deployment="false"),
    "drift.yml issue": Shape(needs=("drift",), condition="always()"),
    "preview.yml deploy": Shape(
        environment="preview",
        condition=f"github.event_name == 'pull_request' && github.event.action != 'closed' && {LABELLED} && {OURS}",
    ),
    "preview.yml sweep": Shape(
        environment="preview",
        deployment="false",
        condition=f"github.event_name != 'pull_request' || ({OURS} && (github.event.action == 'closed' && {LABELLED} || github.event.action == 'unlabeled' && github.event.label.name == 'preview'))",
    ),
    "rollback.yml rollback": Shape(condition="github.ref_name == github.event.repository.default_branch"),
    "rollback.yml record": Shape(needs=("rollback",), condition="always() && needs.rollback.outputs.commit != ''"),
    "rollback.yml elsewhere": Shape(condition="github.ref_name != github.event.repository.default_branch"),
}


def test_every_job_runs_when_and_where_it_should() -> None:
    """Nothing is written to production but in its own environment, nothing is planned there but in the one without reviewers."""
    assert {f"{job.file} {job.name}": shape for job in jobs() if (shape := shape_of(job)) != Shape()} == SHAPES


def shape_of(job: Job) -> Shape:
    environment, needs = job.body.get("environment", {}), job.body.get("needs", [])
    before = (needs,) if isinstance(needs, str) else tuple(needs)
    return Shape(environment.get("name", ""), environment.get("deployment", ""), before, job.body.get("if", ""))


def test_a_plan_and_a_deploy_have_the_whole_history_and_what_they_need_to_know() -> None:
    """Whether a commit is older than what is live is asked of Git."""
    for file, name in (
        ("deploy-environment.yml", "plan"),
        ("deploy-environment.yml", "apply"),
        ("ci.yml", "plan"),
        ("preview.yml", "deploy"),
    ):
        checkout = workflow(file)["jobs"][name]["steps"][0]
        assert checkout["with"]["fetch-depth"] == "0", (file, name)


VERBS = {
    "ci.yml plan": 'plan --env dev --ref "$GITHUB_SHA" --unmerged --format markdown > plan-dev.md',
    "deploy-environment.yml apply": 'apply --env "$ENVIRONMENT" --plan plan.json ${REPLAN:+--replan} --report outcome.json',
    "preview.yml deploy": 'apply --env dev --ref "$HEAD_SHA" --preview "pr-$NUMBER"',
}


@pytest.mark.parametrize("where", VERBS)
def test_each_job_calls_the_tool_with_exactly_these_words(where: str) -> None:
    file, name = where.split()
    called = [
        step.runs for step in steps() if (step.job.file, step.job.name) == (file, name) and "deploy.py" in step.runs
    ]
    assert [run.partition("scripts/deploy.py ")[2] for run in called] == [VERBS[where]]


def after_skipped(file: str) -> dict[str, Job]:
    """Jobs after one that may be skipped while they may not: GitHub's own condition, success(), would skip them too."""
    found = {job.name: job for job in jobs() if job.file == file}

    def before(name: str) -> set[str]:
        needs = shape_of(found[name]).needs
        return set(needs).union(*(before(each) for each in needs))

    skipped = {name for name, job in found.items() if "needs.target.outputs.build" in str(job.body.get("if"))}
    return {name: job for name, job in found.items() if before(name) & skipped}


def test_a_deploy_without_an_image_is_not_skipped_with_the_building_of_one() -> None:
    """https://github.com/actions/runner/issues/2205"""
    found = after_skipped("deploy.yml")
    assert set(found) == {"deploy", "release"}
    assert all(job.body["if"].startswith("!cancelled() && ") for job in found.values())


def test_an_image_is_built_for_its_commit_and_pushed_under_that_name_only() -> None:
    """`SOURCE` becomes the label by which GitHub knows whose package it is: that gives the workflows access to it."""
    (step,) = [step.body for step in steps() if step.body.get("uses", "").startswith("docker/build-push-action@")]
    given = {**step["with"]}
    known = given.pop("build-args").split("\n")
    assert known[:2] == ["COMMIT=${{ github.sha }}", "SOURCE=${{ github.server_url }}/${{ github.repository }}"]
    assert step["if"] == "steps.image.outputs.digest == ''"
    where = {"context": ".", "file": "infra/images/Dockerfile", "target": "flows"}
    assert given == {**where, "tags": "${{ needs.target.outputs.image }}", "push": "true"}


def test_the_digest_goes_to_the_environments_that_deploy_an_image_and_into_the_plan() -> None:
    given = workflow("deploy.yml")["jobs"]["deploy"]["with"]["digest"]
    known = "(needs.image.outputs.digest || needs.build.outputs.digest)"
    assert (
        given == f"${{{{ contains(fromJSON(needs.target.outputs.needs-image), matrix.environment) && {known} || '' }}}}"
    )
    (step,) = [step for step in steps() if 'deploy.py plan --env "$ENVIRONMENT"' in step.runs]
    assert '${DIGEST:+"--image-digest=$DIGEST"}' in step.runs and step.env["DIGEST"] == "${{ inputs.digest }}"


KEPT = {
    "ci.yml plan": ("comment", ["plan-dev.md"], "steps.plan.outcome == 'success'"),
    "deploy-environment.yml plan": ("plan-${{ inputs.environment }}", ["plan.json"], "always()"),
    "deploy-environment.yml apply": ("outcome-${{ inputs.environment }}", ["outcome.json"], "always()"),
    "drift.yml drift": ("drift-${{ matrix.environment }}", ["drift.md", "code"], "always()"),
}


def test_what_was_planned_and_what_became_of_it_is_kept_for_30_days_also_when_it_failed() -> None:
    found = [step for step in steps() if step.body.get("uses", "").startswith("actions/upload-artifact@")]
    given = {f"{step.job.file} {step.job.name}": (step.body["with"], step.body["if"]) for step in found}
    assert {key: (g["name"], g["path"].split(), when) for key, (g, when) in given.items()} == KEPT
    assert {g["retention-days"] for g, _ in given.values()} == {"30"} and len(found) == len(KEPT)
    assert {g.get("if-no-files-found") for g, when in given.values() if when == "always()"} == {"ignore"}


def test_a_rollback_is_given_every_answer_of_the_form_that_starts_it() -> None:
    asked = workflow("rollback.yml")["on"]["workflow_dispatch"]["inputs"]
    given = workflow("rollback.yml")["jobs"]["rollback"]["with"]
    assert {key: given.get(key) for key in asked} == {key: f"${{{{ inputs.{key} }}}}" for key in asked}
    inputs = workflow("deploy-environment.yml")["on"]["workflow_call"]["inputs"]
    assert set(given) | {"digest"} == set(inputs)
    assert {key: inputs[key]["type"] for key in asked} == {
        key: asked[key]["type"].replace("choice", "string") for key in asked
    }
    (step,) = [step for step in steps() if "deploy.py rollback" in step.runs]
    words = '--env "$ENVIRONMENT" ${TO:+"--to=$TO"} "--reason=$REASON" ${ALLOW_REMOVALS:+--allow-removals} --out'
    assert words in step.runs and step.env["ALLOW_REMOVALS"] == "${{ inputs.allow-removals && 'true' || '' }}"


def test_the_gate_fails_unless_the_checks_passed_and_nothing_failed() -> None:
    (step,) = workflow("ci.yml")["jobs"]["gate"]["steps"]
    assert step["run"] == "exit 1"
    assert step["if"] == (
        "needs.checks.result != 'success' || contains(needs.*.result, 'failure') || contains(needs.*.result, 'cancelled')"
    )


def test_drift_tells_its_exit_code_on_and_is_red_only_when_it_could_not_look() -> None:
    (step,) = [step for step in steps() if step.job.file == "drift.yml" and "deploy.py" in step.runs]
    lines = step.runs.strip().splitlines()
    assert lines[1].endswith("> drift.md || code=$?")
    assert lines[2:] == ['echo "$code" > code', "exit $((code == 2 ? 0 : code))"]


# -- form

CONCURRENCY = {
    ("ci.yml", ""): ("ci-${{ github.ref }}", None, "true"),
    ("deploy.yml", "build"): ("image-${{ github.sha }}", "max", "false"),
    ("deploy-environment.yml", "apply"): ("${{ inputs.operation }}-${{ inputs.environment }}", "max", "false"),
    ("preview.yml", "deploy"): ("preview-${{ github.event.pull_request.number }}", None, "false"),
    ("preview.yml", "sweep"): ("preview-sweep", "max", "false"),
}


def test_only_what_writes_waits_for_its_like_and_a_deploy_is_never_cancelled() -> None:
    found = {(file, ""): workflow(file)["concurrency"] for file in WORKFLOWS if "concurrency" in workflow(file)}
    found |= {(job.file, job.name): job.body["concurrency"] for job in jobs() if "concurrency" in job.body}
    said = {key: (c["group"], c.get("queue"), c["cancel-in-progress"]) for key, c in found.items()}
    assert said == CONCURRENCY


def test_every_job_has_a_time_limit() -> None:
    """One that calls a workflow has those of the called jobs."""
    assert [job for job in jobs() if "uses" not in job.body and not 0 < int(job.body["timeout-minutes"]) <= 60] == []


def test_every_action_is_pinned_to_a_commit_that_the_documentation_lists() -> None:
    lines = [line for path in FILES for line in re.findall(r"^\s*(?:- )?uses: (.*)$", path.read_text(), re.MULTILINE)]
    foreign = [line for line in lines if not line.startswith("./")]
    pins = {re.fullmatch(r"([\w./-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", line) for line in foreign}
    assert len(foreign) > 20 and None not in pins
    documented = (ROOT / "docs" / "github-setup.md").read_text()
    rows = set(re.findall(r"^\| `([\w./-]+)` \| (v[\d.]+) \| `([0-9a-f]{40})` \|$", documented, re.MULTILINE))
    assert rows == {(pin[1], pin[3], pin[2]) for pin in pins if pin}


def test_no_checkout_leaves_its_token_behind() -> None:
    found = [step.body for step in steps() if step.body.get("uses", "").startswith("actions/checkout@")]
    assert len(found) > 10 and {step["with"]["persist-credentials"] for step in found} == {"false"}


def test_nothing_is_pasted_into_a_script() -> None:
    scripts = [(path.name, place, text) for path in FILES for place, text in texts(parsed(path)) if place[-1] == "run"]
    assert len(scripts) > 15 and [each for each in scripts if "${{" in each[2]] == []


def test_the_gate_waits_for_every_other_job_and_runs_whatever_becomes_of_them() -> None:
    found = workflow("ci.yml")["jobs"]
    assert set(found["gate"]["needs"]) == set(found) - {"gate"} and found["gate"]["if"] == "always()"
    assert [check["context"] for check in required_checks()] == ["gate"]


def required_checks() -> list[dict[str, Any]]:
    rules = [rule for ruleset in github_wanted.rulesets(github_wanted.Options(), None) for rule in ruleset["rules"]]
    found = next(rule for rule in rules if rule["type"] == "required_status_checks")
    checks: list[dict[str, Any]] = found["parameters"]["required_status_checks"]
    return checks


def test_what_writes_hears_githubs_signals_itself() -> None:
    writing = [step.runs for step in steps() if re.search(r"deploy\.py apply|github\.py sweep", step.runs)]
    assert len(writing) == 3 and [line for line in writing if not line.startswith("exec ")] == []


def test_the_linters_exceptions_have_their_reasons_beside_them() -> None:
    lines = (ROOT / ".github" / "zizmor.yml").read_text().splitlines()
    assert [line for line in lines if re.search(r"disable|ignore", line) and "#" not in line] == []
    assert [path.name for path in FILES if re.search(r"zizmor: *ignore|actionlint.*ignore", path.read_text())] == []


def test_every_linter_runs_at_each_commit() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert [
        name for name in ("actionlint", "zizmor --offline", "check-jsonschema") if f".venv/bin/{name}" not in hooks
    ] == []
