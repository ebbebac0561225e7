"""GitHub Actions: annotations, summaries, outputs, and who runs there."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployer import github
from deployer.errors import Problem


def test_a_problem_is_an_annotation_at_its_file_and_line() -> None:
    (line,) = github.error_lines([Problem("flows/a.yaml", 3, "[0].cron", "wrong.")])
    assert line == "::error file=flows/a.yaml,line=3::[0].cron: wrong."
    (line,) = github.error_lines([Problem("a.yaml", None, "", "empty.")])
    assert line == "::error file=a.yaml,line=1::empty."


def test_a_missing_address_names_the_script_that_sets_github_up() -> None:
    missing = Problem("environments/dev.yaml", 6, "api.url", "the variable PREFECT_API_URL is empty.")
    (line,) = github.error_lines([missing])
    assert line.endswith(
        "PREFECT_API_URL is empty. In GitHub it is a variable of the environment: scripts/github_setup.py sets them all up."
    )


def test_what_a_file_says_cannot_become_a_command_of_its_own() -> None:
    hostile = "x\n::set-output name=a::b\r100% done"
    (line,) = github.error_lines([Problem("a,line=9:b\n.yaml", 1, "", hostile)])
    assert "\n" not in line and "\r" not in line
    assert line == "::error file=a%2Cline=9%3Ab%0A.yaml,line=1::x%0A::set-output name=a::b%0D100%25 done"
    assert github.error("a\nb") == "::error::a%0Ab"
    assert github.harmless("x ##[stop-commands]y") == "x ## [stop-commands]y"


def test_of_many_problems_the_last_annotation_counts_the_rest() -> None:
    problems = [Problem("a.yaml", n, "", "x") for n in range(1, 31)]
    lines = github.error_lines(problems)
    assert len(lines) == 10 and lines[-1] == "::error::and 21 more"
    assert len(github.error_lines(problems[:9])) == 9


def test_summaries_and_outputs_are_added_to_what_other_steps_wrote(tmp_path: Path) -> None:
    summary, outputs = tmp_path / "summary", tmp_path / "outputs"
    summary.write_text("before\n")
    variables = {"GITHUB_STEP_SUMMARY": str(summary), "GITHUB_OUTPUT": str(outputs)}
    github.write_summary(variables, "### Plan")
    github.write_outputs(variables, {"digest": "abc", "changes": "3"})
    github.write_outputs(variables, {"result": "succeeded"})
    assert summary.read_text() == "before\n### Plan\n\n"
    assert outputs.read_text() == "digest=abc\nchanges=3\nresult=succeeded\n"


def test_an_output_cannot_bring_in_another_one(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    github.write_outputs({"GITHUB_OUTPUT": str(outputs)}, {"ref": "x\nadmin=true", "ok": "1"})
    assert outputs.read_text() == "ok=1\n"


def test_a_summary_stays_below_what_github_takes(tmp_path: Path) -> None:
    summary = tmp_path / "summary"
    github.write_summary({"GITHUB_STEP_SUMMARY": str(summary)}, "ä" * 2_000_000)
    text = summary.read_text()
    assert len(text.encode()) < 2**20 and text.endswith("(cut)\n\n")


def test_after_the_longest_plan_there_is_room_to_say_how_it_ended(tmp_path: Path) -> None:
    summary = tmp_path / "summary"
    for text in ("ä" * 2_000_000, "It failed.", "x" * 2_000_000):
        github.write_summary({"GITHUB_STEP_SUMMARY": str(summary)}, text)
    text = summary.read_text()
    assert len(text.encode()) < 2**20 and "It failed." in text


def test_outside_of_github_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    github.write_summary({}, "### Plan")
    github.write_outputs({}, {"a": "b"})
    assert list(tmp_path.iterdir()) == []
    assert not github.runs_here({}) and github.runs_here({"GITHUB_ACTIONS": "true"})


@pytest.mark.parametrize(
    ("first", "again", "actor"),
    [("ada", "ada", "ada"), ("ada", "", "ada"), ("ada", "bob", "ada (re-run by bob)"), ("", "", "")],
)
def test_the_actor_is_who_triggered_the_run_and_who_ran_it_again(first: str, again: str, actor: str) -> None:
    assert github.actor({"GITHUB_ACTOR": first, "GITHUB_TRIGGERING_ACTOR": again}) == actor


def test_the_runs_address_names_its_attempt() -> None:
    known = {"GITHUB_SERVER_URL": "https://github.example", "GITHUB_REPOSITORY": "team/shop", "GITHUB_RUN_ID": "77"}
    start = "https://github.example/team/shop/actions/runs/77/attempts/"
    assert github.run_url(known) == f"{start}1"
    assert github.run_url({**known, "GITHUB_RUN_ATTEMPT": "2"}) == f"{start}2"
    assert github.run_url({"GITHUB_RUN_ID": "77"}) == ""
