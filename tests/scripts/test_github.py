"""scripts/github.py against a fake of GitHub: written once, updated after, and never what is another's."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployer import cli, render
from deployer.model import Plan
from scripts import github as program
from scripts import github_registry, github_rest
from scripts.github_rest import GitHubError, connect
from tests.deployer.builders import A, B, deployment, live, planned, resource, schedule, spec
from tests.fake_prefect.serving import served
from tests.github import BOT, PERSON, FakeGitHub, Json, limited, refused, reply

PROGRAM = Path(program.__file__)
WORKFLOWS = PROGRAM.parents[1] / ".github/workflows"
RUN = "https://github.example/team/shop/actions/runs/77"
PLAN, DRIFT, RELEASED = (f"<!-- prefect-platform {what} -->" for what in ("plan: dev", "drift: dev", "release: "))
CHANGELOG = """\
# Changelog

## [Unreleased]

- Later.

## [1.1.0] - 2026-11-21

### Added

- Bars, see [the guide] and [1.0.0].

```
## not a heading
```

## 1.1.0-rc.1

- Tried.

## [1.0.0] - 2026-10-01

## [0.9.0]

[the guide]: https://docs.example/guide
[1.0.0]: https://github.example/compare/1.0.0
[0.9.0]: https://github.example/compare/0.9.0
"""
ROW = "| update | deployment | f/a | parameters.x | `0` | `1` |\n"


@dataclass
class Job:
    """`job("drift", ...)`: the program in this process, in a job of GitHub's. Files are named by what they hold."""

    github: FakeGitHub
    folder: Path
    out: Callable[[], str]
    environ: dict[str, str] = field(default_factory=dict)
    pauses: list[float] = field(default_factory=list)
    deploy: Path = Path("nowhere")

    def __call__(self, *words: str) -> tuple[int, str]:
        environ = {**self.github.environ, **self.environ}
        code = program.main(words, environ, self.pauses.append, self.deploy)
        said = self.out()
        assert self.github.token not in said
        return code, said

    def done(self, *words: str) -> str:
        code, said = self(*words)
        assert code == 0 and "::error" not in said, said
        return said

    def fails(self, *words: str) -> str:
        """With one annotation and no traceback."""
        code, said = self(*words)
        assert code == 1 and len(re.findall("^::error::", said, re.MULTILINE)) == 1 and "Traceback" not in said, said
        return said

    def file(self, text: str) -> str:
        path = self.folder / "file"
        path.write_text(text)
        return str(path)

    def plan(self, text: str = ROW, commit: str = A, number: int = 7) -> tuple[str, ...]:
        """A pull request at this commit, and the words that comment its plan."""
        self.github.pulls[number] = {"state": "open", "labels": [], "head": {"sha": commit}}
        event = self.folder / "event.json"
        event.write_text(json.dumps({"pull_request": {"number": number, "head": {"sha": commit}}}))
        self.environ["GITHUB_EVENT_PATH"] = str(event)
        return "comment", "--env", "dev", "--file", self.file(text)

    def drift(self, code: object = 2, text: str = ROW) -> tuple[str, ...]:
        (self.folder / "code").write_text(f"{code}\n")
        return "drift", "--env", "dev", "--file", self.file(text), "--code", str(self.folder / "code")

    def release(self, tag: str = "v1.1.0", changelog: str = CHANGELOG) -> tuple[str, ...]:
        self.github.tags[tag] = {"type": "commit", "sha": A}
        self.environ |= {"GITHUB_REF": f"refs/tags/{tag}", "GITHUB_SHA": A}
        return "release", "--changelog", self.file(changelog)

    def put_back(self, result: str = "success") -> tuple[str, ...]:
        return "deployment", "--env", "prod", "--sha", A, "--result", result


@pytest.fixture(scope="module")
def served_ones() -> Iterator[list[FakeGitHub]]:
    """One server for all tests: to start and end one for each would take most of their time."""
    fakes: list[FakeGitHub] = []
    with served(lambda request: fakes[-1].handle(request)) as url:
        fakes.append(FakeGitHub(url=url))
        yield fakes


@pytest.fixture
def github(served_ones: list[FakeGitHub]) -> FakeGitHub:
    served_ones.append(FakeGitHub(url=served_ones[0].url))
    return served_ones[-1]


@pytest.fixture
def job(github: FakeGitHub, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Job:
    return Job(github, tmp_path, lambda: "".join(capfd.readouterr()))


VERBS: dict[str, Callable[[Job], tuple[str, ...]]] = {
    "comments": Job.plan,
    "issues": Job.drift,
    "releases": Job.release,
    "deployments": Job.put_back,
}
"""What is created -> what creates it."""
created = pytest.mark.parametrize("what", VERBS)


# -- comments


def test_a_plan_is_posted_once_and_updated_after(job: Job, github: FakeGitHub) -> None:
    job.done(*job.plan("one"))
    job.done(*job.plan("two"))
    job.done(*job.plan("two", B))
    (comment,) = github.comments
    assert comment["on"] == 7 and comment["body"].startswith(f"{PLAN}\n")
    assert comment["body"].endswith(f"\n\ntwo\n\nFor the merge of commit {B}. From [this run]({RUN}).")


def test_a_plan_that_says_the_same_is_not_written_again(job: Job, github: FakeGitHub) -> None:
    job.done(*job.plan())
    assert github.writes
    github.comments[0]["body"] = github.comments[0]["body"].replace("\n", "\r\n")  # as GitHub's editor saves it
    job.environ["GITHUB_RUN_ID"] = "78"
    assert "says so already" in job.done(*job.plan())
    assert not github.writes


def test_who_quotes_the_marker_keeps_their_words(job: Job, github: FakeGitHub) -> None:
    github.comment(7, f"{PLAN}\nlook at this", PERSON)
    github.comment(7, f"I saw {PLAN}")
    github.comment(7, "<!-- prefect-platform plan: qa -->")
    github.comments.append({**github.comments[0], "user": None})  # of a deleted account
    job.done(*job.plan())
    assert github.writes == [("POST", "/issues/7/comments")]


def test_the_comment_is_found_behind_many_others(job: Job, github: FakeGitHub) -> None:
    for number in range(205):
        github.comment(7, f"remark {number}", PERSON)
    old = github.comment(7, PLAN)
    job.done(*job.plan())
    assert github.writes == [("PATCH", f"/issues/comments/{old['id']}")] and len(github.comments) == 206


def test_a_long_plan_is_cut_where_a_line_ends_and_what_is_open_is_closed(job: Job, github: FakeGitHub) -> None:
    items = "".join(f"- ä {'x' * 90} {number}\n" for number in range(1000))
    job.done(*job.plan(f"<details><summary>all</summary>\n\n```\n{items}```\n</details>\n"))
    body = github.comments[0]["body"]
    assert 64_500 < len(body) < 65_536
    end = rf"- ä x{{90}} \d+\n```\n\n</details>\n\nCut here; the rest is in \[this run\]\({RUN}\)\.\n\nFor the merge of commit {A}\. .*"
    assert re.fullmatch(end, "- ä" + body.rpartition("- ä")[2], re.DOTALL)


@pytest.mark.parametrize(
    ("text", "most", "cut"),
    [
        ("aaaa\nbbbb", 9, "aaaa\nbbbb"),
        ("aaaa\nbbbb\ncccc", 9, "aaaa\n\n+"),
        ("a" * 20, 9, "\n\n+"),
        ("```sh\naaaa\nbbbb", 30, "```sh\naaaa\nbbbb\n```"),
        ("~~~\n```\naaaa\n~~~\nbbbbbbbbbbbbbbbb", 20, "~~~\n```\naaaa\n~~~\n\n+"),
        ("<details>\n<details>\n</details>\naaaa", 50, "<details>\n<details>\n</details>\naaaa\n\n</details>"),
        ("`<details>`", 50, "`<details>`"),
    ],
)
def test_a_text_is_cut_so_that_its_markdown_holds(text: str, most: int, cut: str) -> None:
    assert program._cut(text, most, "+") == cut


def moved(number: int) -> Plan:
    """So many deployments of which only the commit moves."""
    names = [f"f/d|{n}" for n in range(number)]
    return planned([deployment(n, commit=B) for n in names], [live(deployment(n)) for n in names], spec(deployment()))


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (0, "What is live is what this commit says."),
        (1, "1 deployment moves to this commit as it is."),
        (2, "2 deployments move to this commit as they are."),
        (7, "7 deployments move to this commit as they are."),
    ],
)
def test_where_only_the_commit_moves_the_comment_says_no_changes(number: int, sentence: str) -> None:
    assert program._short("dev", render.plan_markdown(moved(number))) == f"### dev: no changes\n\n{sentence}"


def test_every_other_plan_is_shown_whole() -> None:
    base = deployment(schedules=[schedule()])
    wanted = deployment(commit=B, schedules=[schedule()])
    plans = [
        planned([resource("variable", "x", value=1), wanted], [live(base)], spec(base)),
        planned([deployment(commit=B, parameters={"x": 1})], [live(deployment())], spec(deployment())),
        planned([wanted], [live(base, paused=True)], spec(base)),
        planned([], [live(base)], spec(base)),
    ]
    texts = [render.plan_markdown(plan) for plan in plans]
    texts += [
        render.plan_markdown(moved(7)) + "\n> a notice",
        render.plan_markdown(moved(2)).replace("2 to", "3 to"),
        "",
    ]
    assert [text for text in texts if program._short("dev", text) != text] == []


def test_the_plan_of_a_commit_that_was_overtaken_is_not_posted(job: Job, github: FakeGitHub) -> None:
    words = job.plan()
    github.pulls[7]["head"]["sha"] = B
    assert f"is at {B[:12]} by now" in job.done(*words)
    assert not github.comments


@pytest.mark.parametrize("event", ['{"ref": "refs/heads/main"}', '{"pull_request": {"number": 7}}', "[]", "no json"])
def test_without_a_pull_request_there_is_nothing_to_comment_on(job: Job, event: str) -> None:
    words = job.plan()
    Path(job.environ["GITHUB_EVENT_PATH"]).write_text(event)
    assert "event" in job.fails(*words)


# -- releases


def test_a_release_has_the_changelogs_section_and_is_made_once(job: Job, github: FakeGitHub) -> None:
    job.done(*job.release())
    assert github.writes == [("POST", "/releases")]
    (release,) = github.releases
    kept = {key: release[key] for key in ("tag_name", "name", "draft", "prerelease", "make_latest")}
    assert kept == {
        "tag_name": "v1.1.0",
        "name": "v1.1.0",
        "draft": False,
        "prerelease": False,
        "make_latest": "legacy",
    }
    text, _, seal = release["body"].rpartition("\n\n")
    assert text.startswith("### Added\n\n- Bars") and "## not a heading" in text and "Tried" not in text
    assert text.endswith("[the guide]: https://docs.example/guide\n[1.0.0]: https://github.example/compare/1.0.0")
    assert seal.startswith("<!-- prefect-platform release: ")
    assert "there already" in job.done(*job.release()) and not github.writes


@pytest.mark.parametrize(("tag", "candidate"), [("v1.1.0-rc.1", True), ("v1.1.0", False)])
def test_a_candidate_is_a_prerelease(job: Job, github: FakeGitHub, tag: str, candidate: bool) -> None:
    job.done(*job.release(tag))
    assert github.releases[0]["prerelease"] is candidate and ("Tried" in github.releases[0]["body"]) is candidate


@pytest.mark.parametrize("tag", ["v2.0.0", "v1.0.0", "v1.1.1", "v11.1.0"])
def test_without_a_section_github_writes_the_notes(job: Job, github: FakeGitHub, tag: str) -> None:
    assert f"has no section {tag[1:]}" in job.done(*job.release(tag))
    assert github.releases[0]["generate_release_notes"] is True
    job.done(*job.release(tag))
    assert github.releases[0]["body"] == "What's Changed"


def test_notes_that_only_we_wrote_are_updated(job: Job, github: FakeGitHub) -> None:
    job.done(*job.release(changelog="## 1.1.0\nold"))
    job.done(*job.release(changelog="## 1.1.0\nnew"))
    assert len(github.releases) == 1 and github.releases[0]["body"].startswith("new\n\n<!--")


@pytest.mark.parametrize(
    ("change", "why"),
    [({"body": "Thanks to all!"}, "by hand"), ({"draft": True}, "a draft"), ({"body": ""}, "by hand")],
)
def test_what_people_made_of_a_release_stays(job: Job, github: FakeGitHub, change: Json, why: str) -> None:
    job.done(*job.release(changelog="## 1.1.0\nold"))
    github.releases[0].update(change)
    before = dict(github.releases[0])
    assert why in job.done(*job.release())
    assert github.releases == [before]


def test_no_release_of_a_tag_that_is_gone_or_moved(job: Job, github: FakeGitHub) -> None:
    words = job.release()
    github.tags.clear()
    assert "gone" in job.fails(*words)
    github.tags["v1.1.0"], github.annotations["note"] = {"type": "tag", "sha": "note"}, {"type": "commit", "sha": B}
    assert f"at {B[:12]} by now" in job.fails(*words)
    assert not github.releases
    github.annotations["note"]["sha"] = A
    job.done(*words)


def test_a_branch_is_not_released(job: Job) -> None:
    words = job.release()
    for ref in ("refs/heads/main", "refs/tags/v1", "refs/tags/v1.0.0/x", ""):
        job.environ["GITHUB_REF"] = ref
        assert "GITHUB_REF" in job.fails(*words)


def test_a_release_that_another_run_makes_meanwhile_is_fine(job: Job, github: FakeGitHub) -> None:
    job.done(*job.release())
    github.fail("GET", "/releases/tags", 404)
    github.fail("GET", "/releases$", reply([]))
    job.done(*job.release())
    assert len(github.releases) == 1


def test_long_notes_are_cut(job: Job, github: FakeGitHub) -> None:
    job.done(*job.release(changelog="## 1.1.0\n" + "- more\n" * 30_000))
    assert 119_000 < len(github.releases[0]["body"]) < 125_000
    assert "https://github.example/team/shop/blob/v1.1.0/file" in github.releases[0]["body"]


# -- deployment records


def test_a_rollback_is_recorded_at_the_commit_that_was_put_back(job: Job, github: FakeGitHub) -> None:
    job.done(*job.put_back())
    (record,) = github.deployments
    assert {key: record[key] for key in ("ref", "task", "environment", "production_environment")} == {
        "ref": A,
        "task": "rollback",
        "environment": "prod",
        "production_environment": True,
    }
    assert record["auto_merge"] is False and record["required_contexts"] == []
    (status,) = record["statuses"]
    assert (status["state"], status["log_url"]) == ("success", f"{RUN}/attempts/1")


def test_each_attempt_has_one_record(job: Job, github: FakeGitHub) -> None:
    job.done(*job.put_back("failure"))
    github.deployments[0]["payload"] = json.dumps(github.deployments[0]["payload"])  # GitHub answers either way
    job.done(*job.put_back("failure"))
    job.environ["GITHUB_RUN_ATTEMPT"] = "2"
    job.done(*job.put_back())
    assert [[s["state"] for s in d["statuses"]] for d in github.deployments] == [["failure"], ["success"]]


def test_a_cancelled_rollback_is_an_error_and_a_skipped_one_is_nothing(job: Job, github: FakeGitHub) -> None:
    assert "Nothing was put back" in job.done(*job.put_back("skipped"))
    assert not github.requests
    job.done(*job.put_back("cancelled"))
    assert [s["state"] for s in github.deployments[0]["statuses"]] == ["error"]


# -- drift


def test_drift_opens_one_issue(job: Job, github: FakeGitHub) -> None:
    job.done(*job.drift())
    assert "says so already" in job.done(*job.drift())
    (issue,) = github.issues
    assert (issue["title"], issue["labels"]) == ("Drift in dev", [{"name": "drift"}])
    assert issue["body"].startswith(f"{DRIFT}\n") and ROW in issue["body"] and RUN in issue["body"]
    assert github.writes == [("POST", "/labels"), ("POST", "/issues")]


def test_other_drift_updates_the_issue_and_says_so_once(job: Job, github: FakeGitHub) -> None:
    job.done(*job.drift())
    job.done(*job.drift(text="another"))
    job.done(*job.drift(text="another"))
    (issue,), (comment,) = github.issues, github.comments
    assert "another" in issue["body"] and comment["on"] == issue["number"] and "another one now" in comment["body"]


def test_nothing_to_compare_with_is_no_end_of_a_drift(job: Job, github: FakeGitHub) -> None:
    """The API was emptied, say: then `drift` ends with 0, and has no result."""
    job.done(*job.drift())
    assert github.writes and "no release to compare with" in job.done(*job.drift(0, "\n"))
    assert github.writes == [] and github.issues[0]["state"] == "open"


def test_no_drift_closes_the_issue(job: Job, github: FakeGitHub) -> None:
    job.done(*job.drift())
    job.done(*job.drift(0, "nothing differs"))
    (issue,), (comment,) = github.issues, github.comments
    assert (issue["state"], issue["state_reason"]) == ("closed", "completed")
    assert "no drift any more" in comment["body"] and RUN in comment["body"]
    assert github.writes and not job.done(*job.drift(0, "nothing differs")) and not github.writes
    job.done(*job.drift())
    assert [i["state"] for i in github.issues] == ["closed", "open"]


@pytest.mark.parametrize("code", [1, 6, 70, 130, "", "two"])
def test_what_could_not_be_compared_leaves_the_issue_alone(job: Job, github: FakeGitHub, code: object) -> None:
    assert "left as it is" in job.done(*job.drift(code))
    assert not github.requests


@pytest.mark.parametrize("code", [0, 2])
def test_only_our_own_open_issue_of_the_environment_is_touched(job: Job, github: FakeGitHub, code: int) -> None:
    for number in range(120):
        github.issue(f"remark {number}", PERSON)
    github.issue(DRIFT, PERSON)
    github.issue(DRIFT, pull_request={"url": "x"})
    github.issue(DRIFT, state="closed")
    github.issue(DRIFT, labels=("bug",))
    github.issue("<!-- prefect-platform drift: qa -->")
    ours = github.issue(DRIFT)
    job.done(*job.drift(code))
    number = ours["number"]
    assert github.writes == [("POST", f"/issues/{number}/comments"), ("PATCH", f"/issues/{number}")]


def test_long_drift_is_cut_and_what_is_cut_off_still_counts(job: Job, github: FakeGitHub) -> None:
    rows = ROW * 3000
    job.done(*job.drift(text=rows))
    assert "Cut here" in github.issues[0]["body"] and len(github.issues[0]["body"]) < 65_536
    job.done(*job.drift(text=rows + "one more"))
    assert len(github.comments) == 1


def test_a_file_that_is_missing_is_named(job: Job, tmp_path: Path) -> None:
    words = job.drift()
    (tmp_path / "code").unlink()
    assert f"{tmp_path}/code cannot be read" in job.fails(*words)


def test_a_link_is_not_followed_to_what_only_this_job_can_read(job: Job, github: FakeGitHub) -> None:
    words = job.plan()
    secret = job.folder / "secret"
    secret.write_text("the job's own")
    Path(words[-1]).unlink()
    Path(words[-1]).symlink_to(secret)
    assert "not an ordinary file" in job.fails(*words)
    assert not github.comments


# -- previews

STAND_IN = """\
import json, os, sys
from pathlib import Path
here = Path(__file__).parent
assert "GITHUB_TOKEN" not in os.environ and os.environ["PREFECT_API_URL"]
with open(here / "calls", "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1] == "previews":
    print((here / "previews").read_text())
else:
    print("destroying", sys.argv[-1])
sys.exit(os.environ.get("FAILS") in sys.argv)
"""
SWEEP = ("sweep", "--env", "dev", "--label", "preview")


class Previews:
    """A stand-in for deploy.py that lists these previews and notes what it is called with."""

    def __init__(self, job: Job, *names: str) -> None:
        self.folder = job.folder
        job.deploy = self.folder / "deploy.py"
        job.deploy.write_text(STAND_IN)
        job.environ["PREFECT_API_URL"] = "http://127.0.0.1:1/api"
        (self.folder / "previews").write_text(json.dumps({"format": 1, "environment": "dev", "previews": names}))

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]

    @property
    def destroyed(self) -> list[str]:
        return [call[-1] for call in self.calls if call[0] == "destroy"]


def pull(state: str = "open", *labels: str) -> Json:
    return {"state": state, "labels": [{"name": name} for name in labels]}


def test_previews_of_closed_unlabelled_and_unknown_pull_requests_go(job: Job, github: FakeGitHub) -> None:
    github.pulls = {1: pull("closed", "preview"), 2: pull("open", "bug", "preview"), 3: pull("open", "bug")}
    previews = Previews(job, "pr-1", "pr-2", "pr-3", "pr-4", "demo", "pr-0", "pr-5x")
    said = job.done(*SWEEP)
    assert previews.destroyed == ["pr-1", "pr-3", "pr-4"]
    order = ["pr-1 goes: its pull request is closed", "destroying pr-1", "pr-2 stays", "pr-3 goes", "destroying pr-3"]
    assert [said.find(words) for words in order] == sorted(said.find(words) for words in order) and order[0] in said
    assert [name for name in ("demo", "pr-0", "pr-5x") if f"{name} is of no pull request" in said] == [
        "demo",
        "pr-0",
        "pr-5x",
    ]
    for call in previews.calls:
        cli.parser().parse_args(call)


def test_what_cannot_be_decided_stays_and_fails_the_sweep_at_its_end(job: Job, github: FakeGitHub) -> None:
    previews = Previews(job, "pr-1", "pr-2", "pr-3")
    github.fail("GET", "/pulls/1", 502, times=5)
    github.fail("GET", "/pulls/2", refused("pull_requests=read"))
    said = job.fails(*SWEEP)
    assert previews.destroyed == ["pr-3"]
    assert "Not swept: pr-1" in said and "; pr-2" in said and "pull_requests=read" in said


def test_a_preview_that_cannot_be_destroyed_does_not_hold_up_the_others(job: Job) -> None:
    previews = Previews(job, "pr-1", "pr-2")
    job.environ["FAILS"] = "pr-1"
    assert "pr-1 (destroy ended with 1" in job.fails(*SWEEP)
    assert previews.destroyed == ["pr-1", "pr-2"]


def test_a_token_that_sees_nothing_here_removes_nothing(job: Job, github: FakeGitHub) -> None:
    previews = Previews(job, "pr-1")
    github.repository = "team/elsewhere"
    job.environ["GITHUB_REPOSITORY"] = "team/shop"
    assert "Not swept: pr-1" in job.fails(*SWEEP)
    assert not previews.destroyed


@pytest.mark.parametrize("listed", ["", "[]", '{"previews": [1]}', '{"previews": ["pr-1"]}'])
def test_without_a_list_of_previews_nothing_is_removed(job: Job, listed: str) -> None:
    previews = Previews(job)
    (job.folder / "previews").write_text(listed)
    job.environ["FAILS"] = "previews" if "pr-1" in listed else ""
    assert "cannot be listed" in job.fails(*SWEEP)
    assert not previews.destroyed


# -- credentials


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({"PREFECT_API_URL": "HERE", "PREFECT_API_KEY": "key"}, True),
        ({"PREFECT_API_URL": "HERE", "PREFECT_API_AUTH_STRING": "a:b"}, True),
        ({"PREFECT_API_URL": "HERE", "PREFECT_API_OPEN": "true"}, True),
        ({"PREFECT_API_URL": "HERE", "PREFECT_API_OPEN": "false"}, False),
        ({"PREFECT_API_URL": "HERE", "PREFECT_API_KEY": " "}, False),
        ({"PREFECT_API_URL": "", "PREFECT_API_KEY": "key"}, False),
        ({"PREFECT_API_OPEN": "true"}, False),
    ],
)
def test_credentials_are_an_address_and_a_secret_or_an_open_api(job: Job, environ: dict[str, str], found: bool) -> None:
    output = job.folder / "output"
    output.write_text("before=1\n")
    with served(lambda request: httpx.Response(401)) as url:  # whose key is wrong is for the plan to tell
        given = {name: value.replace("HERE", url) for name, value in environ.items()}
        assert program.main(["credentials"], {"GITHUB_TOKEN": "", "GITHUB_OUTPUT": str(output), **given}) == 0
    said = job.out()
    assert output.read_text() == f"before=1\nfound={str(found).lower()}\n"
    assert ("::notice::No plan: " in said) is not found and "key" not in said.splitlines()


@pytest.mark.parametrize(("answers", "found"), [([502, 503, 504], False), ([502, 522, 504], False), ([502, 200], True)])
def test_an_api_that_is_away_keeps_nobody_from_merging(job: Job, answers: list[int], found: bool) -> None:
    left, asked = list(answers), []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(left.pop(0))

    with served(answer) as url:
        job.environ = {"PREFECT_API_URL": f"{url}/api/", "PREFECT_API_KEY": "key"}
        said = job.done("credentials")
    assert asked == ["/api/health"] * len(answers) and len(job.pauses) == len(answers) - 1
    assert f"found={str(found).lower()}" in said.splitlines()
    assert ("::warning::No plan: the API of PREFECT_API_URL does not answer (HTTP 504)." in said) is not found


@pytest.mark.parametrize(
    ("url", "why"), [("http://127.0.0.1:9/api", "ConnectionRefusedError"), ("http://[x/api", "ValueError")]
)
def test_an_api_that_nobody_listens_at_is_away(job: Job, url: str, why: str) -> None:
    job.environ = {"PREFECT_API_URL": url, "PREFECT_API_OPEN": "true"}
    said = job.done("credentials")
    assert f"does not answer ({why})" in said and "found=false" in said.splitlines()


# -- what holds for all of them


@created
@pytest.mark.parametrize("answer", [500, 502, 503, 504, "drop", httpx.Response(200, text="<html>")], ids=repr)
def test_what_passes_is_tried_again(job: Job, github: FakeGitHub, what: str, answer: Any) -> None:
    github.fail("GET", ".", answer)
    github.fail("POST", f"/{what}$", answer, times=3)
    job.done(*VERBS[what](job))
    assert job.pauses == [1, 1, 2, 4] and len(getattr(github, what)) == 1


@created
@pytest.mark.parametrize("answer", [500, 502, "drop", httpx.Response(201, text='{"id": ')], ids=repr)
def test_what_was_made_is_not_made_again_when_the_answer_was_lost(
    job: Job, github: FakeGitHub, what: str, answer: Any
) -> None:
    github.fail("POST", f"/{what}$", answer, after=True, times=5)
    job.done(*VERBS[what](job))
    assert len(getattr(github, what)) == 1 and job.pauses == [1]


def test_remarks_statuses_and_labels_are_not_doubled_either(job: Job, github: FakeGitHub) -> None:
    github.fail("POST", "/labels$|/comments$|/statuses$", "drop", after=True, times=3)
    job.done(*job.drift())
    job.done(*job.drift(0))
    job.done(*job.put_back())
    assert (len(github.labels), len(github.comments), len(github.deployments[0]["statuses"])) == (1, 1, 1)
    assert not [fault for fault in github.faults if fault.times]


@pytest.mark.parametrize(
    ("answer", "pause"),
    [
        (limited(403, "Wait", Retry_After="1"), 1),
        (limited(429, "Too many", Retry_After="0"), 0),
        (limited(403, "No", X_RateLimit_Remaining="0", X_RateLimit_Reset="1"), 1),
        (limited(403), 60),
        (limited(429, Retry_After="soon"), 60),
    ],
)
def test_a_rate_limit_is_waited_for(job: Job, github: FakeGitHub, answer: httpx.Response, pause: float) -> None:
    github.fail("POST", "/comments$", answer, times=4)
    job.done(*job.plan())
    assert job.pauses == [pause] * 4 and len(github.comments) == 1


@pytest.mark.parametrize(
    "headers", [{"Retry_After": "61"}, {"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": "9" * 10}]
)
def test_a_rate_limit_of_more_than_a_minute_is_told_instead(job: Job, github: FakeGitHub, headers: Json) -> None:
    github.fail("GET", "/pulls", limited(**headers))
    assert "rate limit" in job.fails(*job.plan()) and not job.pauses


def test_until_the_limits_reset_is_what_is_waited(job: Job, github: FakeGitHub) -> None:
    github.fail("GET", "/pulls", limited(X_RateLimit_Remaining="0", X_RateLimit_Reset=str(int(time.time()) + 30)))
    job.done(*job.plan())
    assert 25 < job.pauses[0] <= 30


@pytest.mark.parametrize("answer", [502, "drop", limited(Retry_After="1")], ids=repr)
def test_after_five_tries_it_gives_up(job: Job, github: FakeGitHub, answer: Any) -> None:
    github.fail("POST", "/comments$", answer, times=9)
    assert "5 times. Run the job again later." in job.fails(*job.plan())
    assert github.writes == [("POST", "/issues/7/comments")] * 5


def test_a_server_that_never_answers_is_given_up(github: FakeGitHub) -> None:
    github.fail("GET", "", "slow", times=5)
    with pytest.raises(GitHubError, match=r"/repos/team/shop: no answer \(\w+\), 5 times"):
        connect(github.environ, lambda _: None, timeout=0.05).get()


@created
def test_a_refused_permission_is_named_and_fails_nothing(job: Job, github: FakeGitHub, what: str) -> None:
    github.fail("POST", f"/{what}$", refused(f"{what}=write"))
    said = job.done(*VERBS[what](job))
    assert said.count("::warning::") == 1 and f"({what}=write)" in said and not getattr(github, what)
    assert re.search(r"It needs `permissions: \{[a-z-]+: write\}`", said)


@pytest.mark.parametrize(
    ("status", "now"),
    [
        (401, "not accepted"),
        (403, "may not do that"),
        (404, "may not see it"),
        (410, "switched off"),
        (422, "as it is"),
    ],
)
def test_a_real_failure_is_one_error_that_says_where(job: Job, github: FakeGitHub, status: int, now: str) -> None:
    said = reply({"message": f"No\n::error::{github.token}", "errors": [{"code": "custom"}, "odd"]}, status)
    github.fail("POST", "/issues$", said)
    line = job.fails(*job.drift()).splitlines()[-1]
    assert line.startswith(f"::error::POST /repos/team/shop/issues: GitHub answers {status}") and now in line
    assert "***" in line and "custom" in line


def test_a_redirect_does_not_take_the_token_along(job: Job, github: FakeGitHub) -> None:
    with FakeGitHub() as elsewhere:
        github.fail(
            "GET", "/pulls", httpx.Response(301, headers={"Location": f"{elsewhere.url}/repos/team/shop/pulls/7"})
        )
        assert "GitHub answers 301" in job.fails(*job.plan())
        link = {"Link": f'<{elsewhere.url}/more>; rel="next"'}
        github.fail("GET", "/comments", httpx.Response(200, json=[], headers=link))
        assert "the token stays here" in job.fails(*job.plan())
        assert not elsewhere.requests


@pytest.mark.parametrize(
    "answer", [reply([]), reply("text"), reply({}), reply({"head": None}), reply({"head": []})], ids=lambda a: a.text
)
def test_an_answer_of_another_shape_is_an_error_in_words(job: Job, github: FakeGitHub, answer: httpx.Response) -> None:
    github.fail("GET", "/pulls", answer)
    assert "Is GITHUB_API_URL right?" in job.fails(*job.plan())


@pytest.mark.parametrize("answer", [reply({}), reply([1])], ids=lambda a: a.text)
def test_a_list_of_another_shape_is_one_too(job: Job, github: FakeGitHub, answer: httpx.Response) -> None:
    github.fail("GET", "/comments", answer)
    assert "Is GITHUB_API_URL right?" in job.fails(*job.plan())


@pytest.mark.parametrize(
    "url",
    [
        "http://api.github.example",
        "ftp://127.0.0.1",
        "https://",
        "api.github.example",
        "https://me:secret@api.github.example",
        "http://[::1",
        "http://localhost.example",
    ],
)
def test_the_token_is_sent_nowhere_where_others_could_read_it(job: Job, url: str) -> None:
    job.environ["GITHUB_API_URL"] = url
    assert "GITHUB_API_URL must begin with https://" in (said := job.fails(*job.plan())) and "secret" not in said


def test_https_and_loopback_are_fine(github: FakeGitHub) -> None:
    for url in (
        "https://api.github.example/",
        "http://localhost:1",
        "http://[::1]:1",
        "https://ghe.example/api/v3",
        "",
    ):
        api = connect({**github.environ, "GITHUB_API_URL": url}, lambda _: None)
        assert api.base == (url.rstrip("/") or "https://api.github.com") and github.token not in repr(api)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GITHUB_TOKEN", ""),
        ("GITHUB_TOKEN", "a\nb"),
        ("GITHUB_TOKEN", "ä"),
        ("GITHUB_REPOSITORY", "shop"),
        ("GITHUB_REPOSITORY", "../x"),
    ],
)
def test_what_the_job_lacks_is_named(job: Job, name: str, value: str) -> None:
    job.environ[name] = value
    assert f"::error::{name} is not" in job.fails(*job.plan())


# -- as a program


def steps() -> list[str]:
    """Every call of the program in the workflows, without the shell's variables."""
    texts = [path.read_text() for path in sorted(WORKFLOWS.glob("*.yml"))]
    return [line for text in texts for line in re.findall(r"scripts/github\.py (.+)", text)]


def test_the_workflows_call_it_with_words_that_it_knows() -> None:
    known = {"$COMMIT": A, "$RESULT": "failure", "$ENVIRONMENT": "dev", "$BUILD": "false"}
    known["$IMAGE"] = f"ghcr.io/team/flows:sha-{A}"
    called = [
        program.parser().parse_args([known.get(w, w) for w in shlex.split(step)]).verb.__name__ for step in steps()
    ]
    assert sorted(called) == ["comment", "credentials", "deployment", "drift", "image", "image", "release", "sweep"]


def test_it_needs_no_more_than_a_bare_python_of_3_10(job: Job, github: FakeGitHub) -> None:
    for file in (PROGRAM, Path(github_rest.__file__), Path(github_registry.__file__)):
        ast.parse(file.read_text(), feature_version=(3, 10))
    command = [sys.executable, "-S", str(PROGRAM), *job.plan()]
    environ = {**github.environ, **job.environ, "PATH": os.environ["PATH"]}
    done = subprocess.run(command, cwd=job.folder, env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "The plan of dev is posted on #7.\n")
    assert github.comments[0]["user"] == BOT


def test_an_output_that_cannot_be_written_is_told(job: Job) -> None:
    job.environ["GITHUB_OUTPUT"] = str(job.folder)
    assert "GITHUB_OUTPUT" in job.fails("credentials")


def test_wrong_words_end_with_1_and_help_with_0(job: Job) -> None:
    wrong = [(), ("coment",), ("comment",), ("comment", "--env", "a b", "--file", "x"), ("deployment", "--sha", "v1")]
    assert [job(*words)[0] for words in wrong] == [1] * len(wrong)
    for verb in ("comment", "credentials", "deployment", "drift", "image", "release", "sweep"):
        assert job(verb, "--help")[0] == 0
