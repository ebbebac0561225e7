"""Results on standard output, everything else on standard error; in GitHub Actions also what that wants to hear."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from deployer import cli
from deployer.console import Console
from deployer.errors import Exit, InvalidInput, Problem
from deployer.github import MOST_ANNOTATIONS, MOST_SUMMARY
from deployer.model import Outcome
from tests.deployer import command as line
from tests.deployer.command import Command
from tests.repository import deployments

command = line.command
loading_command = line.loading_command

PLAN = "  + create a\n  ~ update b\n  - delete c\n  = held d\n      + detail\n1 to create."
GITHUB = {"GITHUB_ACTIONS": "true"}
DONE = Outcome("deployment", "hello/hello", "create", "done")
FAILED = Outcome("deployment", "hello/hello", "create", "failed", "[no] such pool")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def say(format: str = "text") -> None:
    Console(format, {}).result(lambda: PLAN, lambda: f"**{PLAN}**", lambda: {"plan": PLAN})


def said_on_a_terminal(format: str = "text") -> str:
    with redirect_stdout(Terminal()) as stream:
        say(format)
    return stream.getvalue()


@pytest.fixture(autouse=True)
def xterm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


def test_on_a_terminal_the_signs_are_coloured() -> None:
    lines = said_on_a_terminal().splitlines()
    assert [text[:5] for text in lines[:4]] == ["\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[36m"]
    assert lines[4:] == PLAN.splitlines()[4:]


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colour_is_respected(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert said_on_a_terminal() == PLAN + "\n"


@pytest.mark.parametrize("format", ["json", "markdown"])
def test_machines_get_no_colour(format: str) -> None:
    assert "\x1b" not in said_on_a_terminal(format)


def test_a_file_gets_no_colour(capsys: pytest.CaptureFixture[str]) -> None:
    say()
    assert capsys.readouterr() == (PLAN + "\n", "")


def test_messages_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console("text", {})
    console.note("a note")
    console.problems((Problem("a.yaml", 3, "name", "is missing."),))
    console.error(InvalidInput("It failed."))
    assert capsys.readouterr() == ("", "a note\na.yaml:3: name: is missing.\nerror: It failed.\n")


# -- progress


def test_progress_is_a_line_a_change(capsys: pytest.CaptureFixture[str]) -> None:
    with Console("text", {}).progress(1, "Deploying") as step:
        step(DONE)
    assert capsys.readouterr() == ("", "done    create deployment hello/hello\n")


def test_on_a_terminal_progress_is_a_bar_and_shows_failures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with Console("text", {}).progress(2, "Deploying") as step:
        step(DONE)
        step(FAILED)
    assert "Deploying" in stream.getvalue() and "[no] such pool" in stream.getvalue()
    assert "done    create" not in stream.getvalue() and capsys.readouterr().out == ""


def test_in_github_progress_is_a_group_also_when_it_breaks_off(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        with Console("json", GITHUB).progress(1, "Deploying") as step:
            step(DONE)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert capsys.readouterr().err.splitlines() == [
        "::group::Deploying",
        "done    create deployment hello/hello",
        "::endgroup::",
    ]


# -- GitHub Actions


def problems(count: int) -> tuple[Problem, ...]:
    return tuple(Problem("flows/a.yaml", n, "name", f"fault {n}") for n in range(1, count + 1))


@pytest.mark.parametrize(
    ("count", "annotations", "last"), [(1, 1, "fault 1"), (9, 9, "fault 9"), (12, 10, "and 3 more")]
)
def test_at_most_nine_faults_are_annotated(
    capsys: pytest.CaptureFixture[str], count: int, annotations: int, last: str
) -> None:
    Console("text", GITHUB).problems(problems(count))
    lines = capsys.readouterr().err.splitlines()
    found = [text for text in lines if text.startswith("::error")]
    assert MOST_ANNOTATIONS == 9 and len(found) == annotations and found[-1].endswith(last)
    assert found[0] == "::error file=flows/a.yaml,line=1::name: fault 1"
    assert len(lines) == count + annotations


def test_an_annotation_cannot_be_forged_by_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    Console("text", GITHUB).problems((Problem("a,b:c.yaml", None, "", "50% of\n::error::x"),))
    *_, found = capsys.readouterr().err.splitlines()
    assert found == "::error file=a%2Cb%3Ac.yaml,line=1::50%25 of%0A::error::x"


def test_no_message_of_ours_can_be_a_command_to_github(capsys: pytest.CaptureFixture[str]) -> None:
    Console("text", GITHUB).note("log line\n::set-output name=x::y\n  ::add-mask::z")
    assert not [text for text in capsys.readouterr().err.splitlines() if text.lstrip().startswith("::")]


def test_a_summary_above_githubs_limit_is_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    variables = {**GITHUB, "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
    Console("json", variables).result(lambda: "", lambda: "ü" * MOST_SUMMARY, dict)
    written = (tmp_path / "summary").read_bytes()
    assert len(written) <= 1024 * 1024 and written.decode().endswith("(cut)\n\n")
    assert capsys.readouterr().out == "{}\n"


@pytest.fixture
def in_github(command: Command, tmp_path: Path) -> Command:
    command.variables |= {
        **GITHUB,
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
    }
    return command


def outputs(tmp_path: Path) -> dict[str, str]:
    return dict(text.split("=", 1) for text in (tmp_path / "output").read_text().splitlines())


def test_in_github_an_apply_has_a_group_a_summary_and_outputs(in_github: Command, tmp_path: Path) -> None:
    said = in_github.done("apply", "--env", "dev", "--format", "json")
    assert said.json["release"]["number"] == 1
    assert "::group::Deploying" in said.err and "::endgroup::" in said.err and "::" not in said.out
    assert outputs(tmp_path) == {
        "digest": said.json["digest"],
        "changes": "2",
        "commit": in_github.repo.head,
        "release": "1",
        "result": "succeeded",
    }
    summary = (tmp_path / "summary").read_text()
    assert "| create | deployment | hello/hello |" in summary and "Release 1 of dev succeeded" in summary


def test_in_github_a_plan_and_a_target_have_outputs(in_github: Command, tmp_path: Path) -> None:
    in_github.done("plan", "--env", "dev")
    in_github.done("target", "--ref", "refs/tags/v1.0.0")
    found = outputs(tmp_path)
    assert (found["changes"], found["environment"], found["environments"]) == ("2", "prod", '["prod"]')
    assert found["result"] == "planned"


def test_in_github_a_plan_of_an_overtaken_commit_says_so_to_the_jobs_after_it(
    in_github: Command, tmp_path: Path
) -> None:
    first = in_github.repo.head
    in_github.change(parameters={"name": "moon"})
    in_github.done("apply", "--env", "dev")
    in_github.done("plan", "--env", "dev", "--ref", first, "--only-forward")
    assert outputs(tmp_path)["result"] == "overtaken"


def test_in_github_each_fault_is_annotated_once_at_its_line(in_github: Command) -> None:
    in_github.repo.commit("Faulty", {"flows/alpha/deployments.yaml": deployments(pool="nope")})
    said = in_github("apply", "--env", "dev")
    assert said.code == Exit.INVALID
    assert said.err.count("::error") == said.err.count("::error file=flows/alpha/deployments.yaml,line=") == 1
    assert "1 problem found; nothing was touched." in said.err


def test_in_github_the_summary_says_what_ended_a_verb_that_had_no_result(in_github: Command, tmp_path: Path) -> None:
    in_github.repo.commit("Faulty", {"flows/alpha/deployments.yaml": deployments(pool="no|pe")})
    in_github("apply", "--env", "dev")
    summary = (tmp_path / "summary").read_text()
    assert "**1 problem found; nothing was touched.**" in summary
    assert "| flows/alpha/deployments.yaml:" in summary and "no\\|pe" in summary


def test_in_github_the_summary_says_how_an_apply_failed(in_github: Command, tmp_path: Path) -> None:
    in_github.fake.fail("POST", "/deployments/$", before=422)
    assert in_github("apply", "--env", "dev").code == Exit.FAILED
    assert "What was written stays; mend the cause and apply again.**" in (tmp_path / "summary").read_text()


def test_elsewhere_github_hears_nothing(command: Command, tmp_path: Path) -> None:
    command.variables["GITHUB_STEP_SUMMARY"] = str(tmp_path / "summary")
    assert "::" not in command.done("apply", "--env", "dev").err
    assert not (tmp_path / "summary").exists()


# -- a reader that has enough


@contextmanager
def readers_gone() -> Iterator[None]:
    """Both streams lead into pipes that nobody reads any more, as after `2>&1 | head -1`."""
    ends = [os.pipe(), os.pipe()]
    for reading, _ in ends:
        os.close(reading)
    with open(ends[0][1], "w") as out, open(ends[1][1], "w") as err, redirect_stdout(out), redirect_stderr(err):
        yield


@pytest.mark.parametrize("code", [Exit.DONE, Exit.FAILED])
def test_an_apply_that_nobody_reads_goes_on_to_its_end_and_keeps_its_exit_code(command: Command, code: Exit) -> None:
    if code == Exit.FAILED:
        command.fake.fail("POST", "/deployments/$", before=422)
    handler = signal.getsignal(signal.SIGTERM)
    with readers_gone():
        assert cli.main(["apply", "--env", "dev", "--repo", str(command.repo.path)], command.variables) == code
    signal.signal(signal.SIGTERM, handler)
    assert command.releases()[0]["result"] == ("succeeded" if code == Exit.DONE else "failed")


def test_others_words_cannot_move_the_cursor_or_turn_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    Console("text", {}).note("name: x\x1b[31m\r\u202e\x85\u2028 end\n\tnext")
    assert capsys.readouterr().err == "name: x\ufffd[31m\ufffd\ufffd\ufffd\ufffd end\n\tnext\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_result_that_cannot_be_written_is_no_success() -> None:
    words = [sys.executable, str(Path(cli.__file__).parents[1] / "scripts/deploy.py"), "schema"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == Exit.INVALID
    assert "The result cannot be written to standard output: No space left on device." in done.stderr
