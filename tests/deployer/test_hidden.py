"""In GitHub Actions: what nobody should see is hidden before anything is said, and stands in no file that a run leaves."""

from __future__ import annotations

import json
import signal
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from deployer import cli
from deployer.errors import Exit
from tests.deployer import command as line
from tests.deployer.command import API, Command, Said
from tests.repository import environment

command = line.command
loading_command = line.loading_command

WAREHOUSE = "postgresql://me:w0rd-of-the-warehouse@db/prices"
PASSWORD = "long:password"
KEY = "-----BEGIN-----\nfirst 100% line\n##[x]\n-----END-----"
SECRET = (WAREHOUSE, PASSWORD, "first 100% line", "w0rd-of-the-warehouse")


@pytest.fixture
def job(command: Command, tmp_path: Path) -> Command:
    """A job of GitHub's, with secrets of all forms."""
    secrets = {"warehouse-url": "${WAREHOUSE_URL:-}", "signing-key": "${SIGNING_KEY:-}"}
    text = environment(repository=command.repo.url, api=API, secrets=secrets)
    command.repo.commit("Secrets", {"environments/dev.yaml": text})
    command.variables |= {
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "PREFECT_API_AUTH_STRING": f"ada:{PASSWORD}",
        "WAREHOUSE_URL": WAREHOUSE,
        "SIGNING_KEY": KEY + "\n",
    }
    (tmp_path / "summary").write_text("")
    return command


def masks(said: Said) -> list[str]:
    return [line for line in said.err.splitlines() if line.startswith("::add-mask::")]


def shown(said: Said, *files: Path) -> str:
    """All that people get to see: the log but for what GitHub takes out of it, and the files."""
    log = [line for line in said.all.splitlines() if not line.startswith("::add-mask::")]
    return "\n".join([*log, *(file.read_text() for file in files)])


@pytest.mark.parametrize("verb", ["plan", "apply", "drift", "status", "history", "previews", "validate"])
def test_secrets_are_hidden_before_anything_else_is_said(job: Command, verb: str) -> None:
    said = job(verb, "--env", "dev")
    assert masks(said) == said.err.splitlines()[:4]
    assert [line.removeprefix("::add-mask::") for line in masks(said)] == [
        "-----BEGIN-----%0Afirst 100%25 line%0A##[x]%0A-----END-----",
        *(f"ada:{PASSWORD}", PASSWORD, WAREHOUSE),
    ]


def test_outside_of_github_nothing_is_hidden_by_saying_it(job: Command) -> None:
    said = job.done("plan", "--env", "dev", GITHUB_ACTIONS="")
    assert masks(said) == [] and not [secret for secret in SECRET if secret in said.all]


def test_no_secret_is_in_what_a_deploy_leaves(job: Command, tmp_path: Path) -> None:
    plan, report, summary, output = (tmp_path / name for name in ("plan.json", "report.json", "summary", "output"))
    planned = job.done("plan", "--env", "dev", "--out", str(plan))
    applied = job.done("apply", "--env", "dev", "--plan", str(plan), "--report", str(report))
    seen = shown(planned) + shown(applied, plan, report, summary, output)
    assert [secret for secret in SECRET if secret in seen] == []
    assert "signing-key" in summary.read_text() and "signing-key" in plan.read_text()


def test_no_secret_is_in_what_a_failed_deploy_leaves(job: Command, tmp_path: Path) -> None:
    report, summary = tmp_path / "report.json", tmp_path / "summary"
    job.fake.fail("POST", "/block_documents/$", before=422, times=99)
    said = job("apply", "--env", "dev", "--report", str(report))
    assert said.code == Exit.FAILED and said.err.count("::error") == 1
    assert [secret for secret in SECRET if secret in shown(said, report, summary)] == []
    results = {o["kind"]: o["result"] for o in json.loads(report.read_text())["outcomes"]}
    assert results["secret"] == "failed" and results["deployment"] == "skipped"


def test_a_report_says_what_became_of_the_deploy(job: Command, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    said = job.done("apply", "--env", "dev", "--report", str(report), "--format", "json")
    assert json.loads(report.read_text()) == said.json and said.json["release"]["result"] == "succeeded"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_report_says_what_was_written_though_standard_output_is_full(job: Command, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    words = ["apply", "--env", "dev", "--report", str(report), "--format", "json", "--repo", str(job.repo.path)]
    handler = signal.getsignal(signal.SIGTERM)
    with open("/dev/full", "w") as full, redirect_stdout(full):
        assert cli.main(words, job.variables) == Exit.INVALID
    signal.signal(signal.SIGTERM, handler)
    found = json.loads(report.read_text())
    assert found["release"]["result"] == "succeeded" and [o["result"] for o in found["outcomes"]]


@pytest.mark.parametrize("name", ["GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"])
def test_a_file_of_githubs_that_cannot_be_written_is_a_note(job: Command, tmp_path: Path, name: str) -> None:
    said = job.done("apply", "--env", "dev", **{name: str(tmp_path / "missing/file")})
    assert f"note: {name}: {tmp_path / 'missing/file'} cannot be written: No such file or directory." in said.err
    assert job.releases()[0]["result"] == "succeeded"


def test_a_deploy_that_is_refused_leaves_a_report_too(job: Command, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    job.repo.branch("feature")
    job.repo.commit("Not merged")
    said = job("apply", "--env", "dev", "--report", str(report))
    found = json.loads(report.read_text())
    assert (found["exit"], found["outcomes"], found["release"]) == (said.code, [], None) == (Exit.REFUSED, [], None)
    assert "may not be deployed to dev" in found["error"] and found["problems"] == []


def test_the_report_of_an_invalid_commit_has_every_fault(job: Command, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    job.change(pool="alhpa", schedules=[{"cron": "61 * * * *"}])
    assert job("apply", "--env", "dev", "--report", str(report)).code == Exit.INVALID
    found = json.loads(report.read_text())
    assert found["exit"] == 1 and len(found["problems"]) == 2


@pytest.mark.parametrize("place", [".", "missing/report.json"])
def test_a_report_that_has_no_place_is_told_before_anything_is_written(
    job: Command, tmp_path: Path, place: str
) -> None:
    said = job("apply", "--env", "dev", "--report", str(tmp_path / place))
    assert said.code == Exit.INVALID and "The report cannot be written" in said.err
    assert job.fake.requests == []


# -- one annotation for each failure

IN_GITHUB = {"GITHUB_ACTIONS": "true"}


def annotated(said: Said) -> list[str]:
    return [line for line in said.err.splitlines() if line.startswith("::error")]


@pytest.mark.parametrize("words", [("deploy",), ("plan",), ("plan", "--env", "dev", "--nope"), ("plan", "\udce4")])
def test_wrong_words_make_one_annotation(words: tuple[str, ...]) -> None:
    said = line.main(*words, variables=IN_GITHUB)
    assert said.code == Exit.INVALID and len(annotated(said)) == 1
    assert "error: " in annotated(said)[0]
    assert annotated(line.main(*words)) == []


def test_a_bug_makes_one_annotation_that_holds_nothing_of_its_words(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(call: object) -> None:
        raise ValueError("a value that may be secret")

    monkeypatch.setattr("deployer.verbs.status", fail)
    (said,) = annotated(command("status", **IN_GITHUB))
    assert said.startswith("::error::ValueError: this is a bug of prefect-platform") and "secret" not in said


def test_help_is_no_failure() -> None:
    for words in (("--help",), ("plan", "--help"), ("--version",)):
        said = line.main(*words, variables=IN_GITHUB)
        assert (said.code, said.err) == (0, "") and said.out


def test_the_parser_of_each_verb_is_of_the_same_kind() -> None:
    with pytest.raises(cli.Misused, match=r"deploy\.py plan: error: "):
        cli.parser().parse_args(["plan", "--nope"])
