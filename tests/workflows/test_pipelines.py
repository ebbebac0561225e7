"""The workflows themselves, run by act against real Prefect APIs: what a push, a tag and a rollback do, and leave alone."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
import yaml

from scripts import act
from scripts.act import Answer, PullRequest
from tests.server import patient_client
from tests.workflows.scenario import ENVIRONMENTS, ROOT, TOKEN, Team, team

pytestmark = pytest.mark.stack

NAMES = ("show-1", "show-2", "show-3")
MAIN = "refs/heads/main"
DECLARED = "flows/deployments.yaml"
NOBODY = "http://127.0.0.1:9/api"


@dataclass
class Step:
    """A workflow that ran, and what every environment had after it."""

    answer: Answer
    live: dict[str, set[str]]
    releases: dict[str, list[dict[str, Any]]]

    @property
    def newest(self) -> dict[str, Any]:
        return self.releases["prod"][0]


def spent() -> float:
    """Seconds of processor, by all programs that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


IMPORT = 1.5
"""Seconds of processor to import Prefect, on two cores of 2026 with nothing else to do."""


def slowness() -> float:
    before = spent()
    subprocess.run([sys.executable, "-c", "import prefect, prefect.flows, prefect.deployments"], check=True)
    return max(1.0, (spent() - before) / IMPORT)


@dataclass
class Story:
    """One after the other: merge, rc tag, tag, next tag, the first tag's pipeline again, a rollback, a late pipeline."""

    team: Team
    first: str
    second: str = ""
    seconds: float = 0
    """Of processor, that the first push took."""
    slowness: float = 1
    """How many times as much of it the same work took just then as where the promise was made."""
    steps: dict[str, Step] = field(default_factory=dict)

    def add(self, name: str, answer: Answer) -> None:
        live = {env: {version for _, version in self.team.live(env)} for env in ENVIRONMENTS}
        self.steps[name] = Step(answer, live, {env: self.team.releases(env) for env in ENVIRONMENTS})


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    with team(tmp_path_factory.mktemp("team")) as found:
        yield found


@pytest.fixture(scope="module")
def story(repository: Team) -> Story:
    told = Story(repository, repository.git("rev-parse", "HEAD"))
    before = spent()
    merged = repository.push(MAIN, "dev")
    told.seconds = spent() - before
    told.slowness = slowness()
    told.add("merge", merged)
    for tag, env in (("v1.0.0-rc1", "qa"), ("v1.0.0", "prod")):
        repository.tag(tag)
        told.add(env, repository.push(f"refs/tags/{tag}", env))
    repository.change("Never released", {"notes": "one\n"})
    repository.tag("v1.0.1")
    told.second = repository.change("The next one", {"notes": "two\n"})
    repository.tag("v1.1.0")
    told.add("next", repository.push("refs/tags/v1.1.0", "prod"))
    told.add("again", repository.push("refs/tags/v1.0.0", "prod", GITHUB_RUN_ATTEMPT="2", GITHUB_RUN_ID="7"))
    told.add("rollback", repository.roll_back("prod", "v1.1.0", 'It "broke"; $(id)'))
    told.add("late", repository.push("refs/tags/v1.0.1", "prod"))
    return told


def test_a_push_to_main_deploys_its_commit_to_dev_and_nowhere_else(story: Story) -> None:
    step = story.steps["merge"]
    assert step.answer.code == 0, step.answer.said()
    assert step.live == {"dev": {story.first}, "qa": set(), "prod": set()}
    assert list(step.answer.jobs.values()) == ["success"] * 7
    assert {name for name, _ in story.team.live("dev")} == set(NAMES)


def test_from_push_to_deployed_it_takes_less_than_20_seconds(story: Story) -> None:
    """Of processor, so that it holds on a busy machine too: one thing after the other, with checks that are next to nothing."""
    assert 0 < story.seconds < 20 * story.slowness


@pytest.mark.parametrize(("env", "tag"), [("qa", "v1.0.0-rc1"), ("prod", "v1.0.0")])
def test_a_tag_deploys_its_commit_to_its_environment(story: Story, env: str, tag: str) -> None:
    step = story.steps[env]
    assert step.answer.code == 0, step.answer.said()
    assert step.live[env] == {story.first}
    assert [release["ref"] for release in step.releases[env]] == [f"refs/tags/{tag}"]


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_a_worker_clones_that_commit_with_the_token_and_runs_it(story: Story, env: str) -> None:
    story.team.host.asked.clear()
    said = story.team.deploy("run", env, "show-1", "--timeout", "240")
    commit = story.second if env == "prod" else story.first
    assert said.returncode == 0 and f"hello from {commit}" in said.stderr, said.stderr
    assert True in story.team.host.asked
    assert TOKEN not in said.stdout + said.stderr


def test_the_next_tag_replaces_the_release(story: Story) -> None:
    assert story.steps["next"].answer.code == 0
    assert story.steps["next"].live["prod"] == {story.second}


def test_running_an_old_tags_pipeline_again_puts_its_release_back_and_is_recorded_so(story: Story) -> None:
    step = story.steps["again"]
    assert step.answer.code == 0 and step.live["prod"] == {story.first}
    assert (step.newest["number"], step.newest["restores"], step.newest["rollback_of"]) == (3, 1, 2)
    assert step.newest["run_url"].endswith("/actions/runs/7/attempts/2")


def test_the_rollback_workflow_puts_a_release_back_with_its_reason(story: Story) -> None:
    step = story.steps["rollback"]
    assert step.answer.code == 0, step.answer.said()
    assert step.live["prod"] == {story.second}
    assert (step.newest["number"], step.newest["restores"], step.newest["reason"]) == (4, 2, 'It "broke"; $(id)')


def test_a_late_pipeline_of_an_older_commit_changes_nothing_and_says_why(story: Story) -> None:
    step = story.steps["late"]
    assert step.answer.code == 0 and step.live == story.steps["rollback"].live
    assert len(step.releases["prod"]) == 4
    assert "set-output:: result=overtaken" in step.answer.said("plan")
    ran = {name for name, result in step.answer.jobs.items() if result == "success"}
    assert "deploy-environment/plan" in ran
    assert not {"deploy-environment/apply", "release"} & ran  # nobody is asked to approve it, no record calls it live


def test_dev_and_qa_are_untouched_by_what_production_goes_through(story: Story) -> None:
    before = story.steps["prod"]
    for step in list(story.steps.values())[3:]:
        assert [step.live[env] for env in ("dev", "qa")] == [before.live[env] for env in ("dev", "qa")]
        assert [step.releases[env] for env in ("dev", "qa")] == [before.releases[env] for env in ("dev", "qa")]


def test_a_release_of_production_is_one_of_githubs_and_nothing_else_is(story: Story) -> None:
    """Not the candidate, nor what a newer one had overtaken; and running a pipeline again makes none twice."""
    found = [(one["tag_name"], one["prerelease"]) for one in story.team.github.releases]
    assert found == [("v1.1.0", False), ("v1.0.0", False)]
    ran = {name for name, step in story.steps.items() if step.answer.jobs.get("release") == "success"}
    assert ran == {"prod", "next", "again"}


def test_githubs_record_of_a_rollback_names_the_commit_that_was_put_back(story: Story) -> None:
    (record,) = story.team.github.deployments
    assert (record["sha"], record["environment"], record["task"]) == (story.second, "prod", "rollback")
    assert [status["state"] for status in record["statuses"]] == ["success"]


def test_no_secret_is_in_what_a_workflow_prints_or_keeps(story: Story) -> None:
    said = "".join(step.answer.said() for step in story.steps.values())
    kept = [file for file in (story.team.act.folder / "kept").rglob("*") if file.is_file()]
    assert {file.name for file in kept} >= {"plan.json", "outcome.json"}
    for text in (said, *(file.read_text() for file in kept)):
        assert "/nowhere/" not in text and TOKEN not in text and story.team.github.token not in text


# -- Pull requests: a plan, a preview


BRANCH = "more-words"


@pytest.fixture(scope="module")
def branch(story: Story) -> Iterator[Team]:
    """Of main, with another parameter for one of the three."""
    team = story.team
    team.git("checkout", "--quiet", "-b", BRANCH)
    text = (team.work / DECLARED).read_text()
    team.change(
        "Other words", {DECLARED: text.replace("pool: ingestion", "pool: ingestion\n  parameters: {word: hi}", 1)}
    )
    yield team
    team.git("checkout", "--quiet", "main")


def test_a_pull_request_is_checked_and_its_plan_is_one_comment(branch: Team) -> None:
    before = branch.records("dev"), branch.live("dev")
    answer = branch.pull_request("ci.yml", PullRequest(7, BRANCH))
    assert answer.code == 0, answer.said()
    assert set(answer.jobs) == {
        "checks/check",
        "checks/test",
        "checks/infra",
        "checks/test-stack",
        "plan",
        "comment",
        "gate",
    }
    (comment,) = branch.github.comments
    assert comment["on"] == 7 and "| update | deployment | show/show-1 | parameters.word |" in comment["body"]
    assert (branch.records("dev"), branch.live("dev")) == before
    branch.change("More", {"notes": "four\n"})
    branch.pull_request("ci.yml", PullRequest(7, BRANCH))
    (again,) = branch.github.comments
    assert again["id"] == comment["id"] and branch.git("rev-parse", "HEAD") in again["body"]


def test_without_credentials_there_is_no_plan_and_the_gate_is_green(branch: Team) -> None:
    before = list(branch.github.comments)
    answer = branch.pull_request("ci.yml", PullRequest(8, BRANCH), PREFECT_API_OPEN="")
    assert answer.code == 0 and answer.jobs["gate"] == "success" and "comment" not in answer.jobs
    assert "No plan: this run is given neither" in answer.said("plan") and branch.github.comments == before


def test_a_label_makes_a_preview_in_dev_and_closing_takes_it_away(branch: Team) -> None:
    before = branch.records("dev"), branch.live("dev")
    labelled = PullRequest(7, BRANCH, "labeled", ("preview",), "preview")
    answer = branch.pull_request("preview.yml", labelled)
    assert answer.code == 0 and answer.jobs == {"deploy": "success"}, answer.said()
    commit = branch.git("rev-parse", "HEAD")
    assert branch.live("dev") - before[1] == {(f"pr-7-{name}", commit) for name in NAMES}
    kept = branch.pull_request("preview.yml", PullRequest(8, BRANCH, "closed", ("preview",), by_main=True))
    assert kept.jobs == {"sweep": "success"} and branch.live("dev") != before[1]
    answer = branch.pull_request("preview.yml", PullRequest(7, BRANCH, "closed", ("preview",), by_main=True))
    assert answer.jobs == {"sweep": "success"}, answer.said()
    assert (branch.records("dev"), branch.live("dev")) == before


# -- Drift


def test_what_was_changed_by_hand_is_an_issue_until_it_is_put_back(story: Story) -> None:
    team, github = story.team, story.team.github
    api = patient_client(team.apis["dev"])
    (shown,) = (one for one in api.post("/deployments/filter", json={}).json() if one["name"] == "show-1")
    for description, states in (("by hand", ["open"]), (shown["description"], ["closed"])):
        api.patch(f"/deployments/{shown['id']}", json={"description": description}).raise_for_status()
        answer = team.look_for_drift()
        assert answer.code == 0 and answer.jobs == {"drift": "success", "issue": "success"}, answer.said()
        assert [issue["state"] for issue in github.issues] == states
    assert "by hand" in github.issues[0]["body"] and github.issues[0]["title"] == "Drift in dev"


# -- What fails, fails before anything is written


@pytest.fixture
def untouched(repository: Team) -> Iterator[None]:
    before = {env: (repository.live(env), repository.records(env)) for env in ENVIRONMENTS}
    yield
    assert {env: (repository.live(env), repository.records(env)) for env in ENVIRONMENTS} == before


def errors(answer: Answer) -> list[str]:
    """What GitHub would show as annotations: act prints them as they are."""
    return [line.text for line in answer.lines if "::error" in line.text]


@contextmanager
def refusing() -> Iterator[str]:
    """An API that wants another key."""

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/api"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.usefixtures("untouched")
def test_a_failing_test_stops_before_any_write(repository: Team) -> None:
    repository.git("checkout", "--quiet", "main")
    repository.change("Break it", {"tests/test_sums.py": "def test_a_sum() -> None:\n    assert 1 + 1 == 3\n"})
    answer = repository.push(MAIN, "dev")
    repository.git("revert", "--no-edit", "HEAD")
    repository.git("push", "--quiet", "origin", "HEAD")
    assert answer.code != 0 and answer.jobs["checks/test"] == "failure"
    assert not [job for job in answer.jobs if "apply" in job or "plan" in job]


@pytest.mark.usefixtures("untouched")
def test_a_wrong_key_fails_with_one_annotation(repository: Team) -> None:
    with refusing() as api:
        answer = repository.push(MAIN, "dev", variables={"PREFECT_API_URL": api})
    assert answer.code != 0 and answer.jobs["deploy-environment/plan"] == "failure"
    [error] = errors(answer)
    assert "401" in error or "refuse" in error.lower() or "key" in error


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(("url", "words"), [("", "scripts/github_setup.py"), (NOBODY, "did not answer")])
def test_an_api_that_is_not_there_fails_with_one_annotation(repository: Team, url: str, words: str) -> None:
    answer = repository.push(MAIN, "dev", variables={"PREFECT_API_URL": url})
    assert answer.code != 0 and answer.jobs["deploy-environment/plan"] == "failure"
    [error] = errors(answer)
    assert words in error


@pytest.mark.usefixtures("untouched")
def test_an_invalid_file_fails_with_its_line(repository: Team) -> None:
    text = (repository.work / DECLARED).read_text()
    repository.change("A typo", {DECLARED: text.replace("entrypoint:", "entrypiont:", 1)})
    answer = repository.push(MAIN, "dev")
    repository.change("Mend it", {DECLARED: text})
    assert answer.code != 0 and answer.jobs["checks/check"] == "failure"
    assert any(f"file={DECLARED},line=1" in error for error in errors(answer))


# -- Cancelled in the middle


@contextmanager
def holding(api: str) -> Iterator[tuple[str, threading.Event, threading.Event]]:
    """The API, but its first change of a deployment never arrives: the address, when that is, and the end of waiting."""
    held, over = threading.Event(), threading.Event()

    class Holding(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.command == "PATCH" and self.path.startswith("/api/deployments/"):
                held.set()
                over.wait(60)
                self.close_connection = True
                return
            wanted = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
            answer = httpx.request(self.command, api.removesuffix("/api") + self.path, content=body, headers=wanted)
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_POST = do_PATCH = do_DELETE = do_PUT = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Holding)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/api", held, over
    finally:
        over.set()
        server.shutdown()
        server.server_close()


def applying() -> int:
    """The process number of the deploying step's Python, among what this process has started."""
    listed = subprocess.run(["ps", "-axwwo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    ours = {os.getpid()}
    for _ in rows:
        ours |= {int(pid) for pid, parent, *_ in rows if int(parent) in ours}
    [found] = [int(row[0]) for row in rows if int(row[0]) in ours and row[-1].endswith("--report outcome.json")]
    return found


def test_a_deploy_that_is_cancelled_as_github_does_it_is_finished_by_the_next(repository: Team) -> None:
    if not repository.live("dev"):
        repository.push(MAIN, "dev")
    repository.git("checkout", "--quiet", "main")
    commit = repository.change("Another word", {"notes": "three\n"})
    with holding(repository.apis["dev"]) as (api, held, over), ThreadPoolExecutor() as pool:
        cancelled = pool.submit(repository.push, MAIN, "dev", variables={"PREFECT_API_URL": api})
        assert held.wait(300)
        step = applying()  # the step's shell is gone: `exec`
        for number, seconds in ((signal.SIGINT, 7.5), (signal.SIGTERM, 2.5), (signal.SIGKILL, 60)):
            with suppress(ProcessLookupError):
                os.kill(step, number)
            if wait([cancelled], timeout=seconds).done:
                break
        over.set()
        assert cancelled.result(60).jobs["deploy-environment/apply"] == "failure"
    assert {version for _, version in repository.live("dev")} != {commit}
    assert repository.push(MAIN, "dev").code == 0
    assert {version for _, version in repository.live("dev")} == {commit}
    assert repository.releases("dev")[0]["result"] == "succeeded"


# -- What is run is what is committed


@pytest.mark.parametrize("file", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=lambda file: file.name)
def test_act_gets_the_workflows_as_they_are_but_for_the_keys_that_it_does_not_know(file: Any) -> None:
    text = file.read_text()
    whole, given = (yaml.load(each, yaml.BaseLoader) for each in (text, act.form(text)))
    for job in whole["jobs"].values():
        for holder, key in ((job.get("environment"), "deployment"), (job.get("concurrency"), "queue")):
            (holder or {}).pop(key, None)
        for step in job.get("steps", []):
            if step.get("uses", "").startswith("actions/checkout@"):
                step["with"].pop("ref", None)
    assert given == whole
