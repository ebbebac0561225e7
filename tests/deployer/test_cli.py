"""Words -> a verb, a failure -> one message and its exit code; results on standard output, the rest on standard error."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deployer import __version__, cli, errors
from deployer.errors import Exit
from tests.deployer import command as line
from tests.deployer.command import Command, main
from tests.fake_prefect import Recorded

command = line.command
loading_command = line.loading_command

ROOT = Path(__file__).parents[2]
VERBS = (
    "validate",
    "plan",
    "apply",
    "rollback",
    "drift",
    "status",
    "history",
    "target",
    "run",
    "serve",
    "previews",
    "destroy",
)
REPORTING = (
    ("validate", "--static"),
    ("plan", "--env", "dev"),
    ("apply", "--env", "dev"),
    ("drift", "--env", "dev"),
    ("status",),
    ("history", "--env", "dev"),
    ("target", "--ref", "refs/heads/main"),
    ("previews", "--env", "dev"),
    ("destroy", "--env", "dev", "--preview", "pr-1"),
)


def test_exit_codes_are_unique_and_each_is_in_the_help() -> None:
    assert len({int(code) for code in Exit}) == len(Exit)
    assert {int(code) for code in Exit} == {int(n) for n in re.findall(r"(?:^|\s)(\d+) ", cli.EXITS)}


def test_every_failure_has_an_exit_code() -> None:
    kinds = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.DeployError)]
    assert {kind.exit_code for kind in kinds} == set(Exit) - {Exit.DONE, Exit.DIFFERENCES, Exit.BUG}


def test_every_verb_explains_itself() -> None:
    for verb in VERBS:
        said = main(verb, "--help")
        assert said.code == Exit.DONE and said.out.startswith("usage: deploy.py " + verb) and said.err == ""


def test_the_version_is_a_result() -> None:
    assert main("--version").out == f"prefect-platform {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("deploy",),
        ("plan",),
        ("plan", "--env", "dev", "--nope"),
        ("plan", "--env", "dev", "--format", "xml"),
        ("rollback", "--env", "dev"),
        ("history", "--env", "dev", "--limit", "0"),
        ("history", "--env", "dev", "--limit", "many"),
        ("apply", "--env", "dev", "--preview", "Not A Name"),
        ("destroy", "--env", "dev"),
        ("target",),
        ("run", "--env", "dev"),
        ("schema", "nothing"),
    ],
    ids=" ".join,
)
def test_wrong_words_exit_1_and_never_2_which_means_differences(words: tuple[str, ...]) -> None:
    said = main(*words)
    assert said.code == Exit.INVALID
    assert said.out == "" and said.err.startswith("usage: deploy.py")


def test_with_json_standard_output_is_one_document(command: Command) -> None:
    command.apply()
    documents = [command.done(*words, "--format", "json").json for words in REPORTING]
    assert [d["format"] for d in documents] == [1] * len(REPORTING)


def test_with_markdown_standard_output_is_markdown(command: Command) -> None:
    command.apply()
    for words in REPORTING:
        assert re.match(r"### |\*\*|\| |`", command.done(*words, "--format", "markdown").out), words


@pytest.mark.parametrize("words", [w for w in REPORTING if w[0] != "destroy"], ids=lambda words: words[0])
def test_a_verb_that_fails_leaves_standard_output_empty(words: tuple[str, ...], tmp_path: Path) -> None:
    for form in ("text", "json", "markdown"):
        said = main(*words, "--format", form, "--repo", str(tmp_path))
        assert said.code == Exit.INVALID
        assert (
            said.out == ""
            and said.err == f"error: {tmp_path} is no Git repository. Run in one, or give it with --repo DIR.\n"
        )


def test_a_repository_that_is_not_there_is_named(tmp_path: Path) -> None:
    said = main("status", "--repo", str(tmp_path / "none"))
    assert said.code == Exit.INVALID and f"There is no folder {tmp_path / 'none'}" in said.err


def test_the_repository_of_the_current_directory_is_the_default(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(command.repo.path / "flows" / "alpha")
    said = main("target", "--ref", "refs/heads/main", variables=command.variables)
    assert (said.code, said.out) == (Exit.DONE, "dev\n")


def test_an_unknown_environment_is_answered_with_a_guess(command: Command) -> None:
    said = command("plan", "--env", "prd")
    assert said.code == Exit.INVALID
    assert "no environment 'prd'" in said.err and "Did you mean 'prod'?" in said.err and "dev, prod" in said.err


def test_a_commit_that_does_not_exist_is_named(command: Command) -> None:
    said = command("plan", "--env", "dev", "--ref", "v9")
    assert said.code == Exit.INVALID and "'v9' names no commit" in said.err and said.out == ""


def test_a_shallow_clone_is_told_to_fetch_the_rest(command: Command, tmp_path: Path) -> None:
    first = command.repo.head
    command.repo.commit("Second")
    subprocess.run(["git", "clone", "-q", "--depth", "1", command.repo.url, str(tmp_path / "clone")], check=True)
    said = main("plan", "--env", "dev", "--ref", first, "--repo", str(tmp_path / "clone"), variables=command.variables)
    assert said.code == Exit.INVALID and "fetch-depth: 0" in said.err


def test_a_repository_that_git_does_not_trust_is_told_with_the_way(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    said = command("validate", "--static")
    assert said.code == Exit.INVALID and "dubious ownership" in said.err and "--add safe.directory" in said.err


def test_a_bare_repository_is_not_called_none(command: Command, tmp_path: Path) -> None:
    command.repo.git("clone", "--quiet", "--bare", command.repo.url, str(tmp_path / "bare.git"))
    said = main("validate", "--static", "--repo", str(tmp_path / "bare.git"))
    assert said.code == Exit.INVALID and "must be run in a work tree" in said.err


def test_a_repository_without_a_commit_is_told(command: Command, tmp_path: Path) -> None:
    command.repo.git("init", "--quiet", str(tmp_path / "new"))
    (tmp_path / "new/environments").mkdir()
    (tmp_path / "new/environments/dev.yaml").write_text((command.repo.path / "environments/dev.yaml").read_text())
    said = main("plan", "--env", "dev", "--repo", str(tmp_path / "new"), variables=command.variables)
    assert said.code == Exit.INVALID and "'HEAD' names no commit" in said.err and "Nothing was committed" in said.err


# -- variables from files


def env_file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "variables.env"
    path.write_text(text)
    return str(path)


def test_variables_of_a_file_win_over_the_environment(command: Command, tmp_path: Path) -> None:
    url = command.variables["PREFECT_API_URL"]
    file = env_file(tmp_path, f"# where\n\nexport PREFECT_API_URL='{url}'  # here\nOTHER=\"two words\"\n")
    said = command("status", "--env", "dev", "--env-file", file, PREFECT_API_URL="http://127.0.0.1:9/api")
    assert said.code == Exit.DONE, said.err


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("KEY=plain", "plain"),
        ("export KEY=plain", "plain"),
        ("KEY=pa#ss", "pa#ss"),
        ("KEY=v # don't", "v"),
        ("KEY='single # and $x'  # more", "single # and $x"),
        ('KEY="two \\"words\\""', 'two "words"'),
        ("KEY=a=b&c=d", "a=b&c=d"),
        ("KEY=", ""),
        ("KEY=http://user@host:4200/api?x=1#frag", "http://user@host:4200/api?x=1#frag"),
    ],
)
def test_a_line_means_what_it_means_in_a_shell(tmp_path: Path, text: str, value: str) -> None:
    assert cli._env_files([env_file(tmp_path, text)]) == {"KEY": value}


def test_the_last_of_several_files_wins(command: Command, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.env"
    wrong.write_text("PREFECT_API_URL=nonsense\n")
    right = env_file(tmp_path, f"PREFECT_API_URL={command.variables['PREFECT_API_URL']}\n")
    assert command("status", "--env", "dev", "--env-file", str(wrong), "--env-file", right).code == Exit.DONE
    assert command("status", "--env", "dev", "--env-file", right, "--env-file", str(wrong)).code == Exit.INVALID


@pytest.mark.parametrize("text", ["nan", "inf", "1e400", "-5", "0", "soon", "9e99"])
def test_a_time_that_is_none_is_told(command: Command, text: str) -> None:
    said = command("run", "--env", "dev", "hello", f"--timeout={text}")
    assert said.code == Exit.INVALID and f"'{text}': expected seconds" in said.err and command.fake.requests == []


@pytest.mark.parametrize("text", ["0", "-1", "\u00b2", "1_0", "9" * 30, "9" * 5000])
def test_a_number_that_is_none_is_told(command: Command, text: str) -> None:
    said = command("history", "--env", "dev", f"--limit={text}")
    assert said.code == Exit.INVALID and "expected a whole number from 1 to" in said.err


@pytest.mark.parametrize("words", [("plan",), ("rollback", "--reason", "x")], ids=lambda words: words[0])
def test_a_place_for_the_plan_is_looked_at_before_the_api_is_asked(
    command: Command, tmp_path: Path, words: tuple[str, ...]
) -> None:
    said = command(*words, "--env", "dev", "--out", str(tmp_path))
    assert said.code == Exit.INVALID and "that is a folder" in said.err and command.fake.requests == []


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    assert cli._env_files([env_file(tmp_path, "\ufeffKEY=plain")]) == {"KEY": "plain"}


@pytest.mark.parametrize(("content", "words"), [(b"\xff\xfe", "not UTF-8"), (b"A=x\0y", "A holds a NUL character")])
def test_a_file_of_other_bytes_is_told(command: Command, tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "strange.env").write_bytes(content)
    said = command("status", "--env-file", str(tmp_path / "strange.env"))
    assert said.code == Exit.INVALID and words in said.err and "codec" not in said.err


EMPTY = [
    *(("apply", "--env", "dev", option, "") for option in ("--plan", "--ref", "--report", "--env-file", "--repo")),
    *(("rollback", "--env", "dev", "--reason", "x", option, " ") for option in ("--to", "--out")),
    *(("plan", "--env", "dev", "--out", ""), ("validate", "--env", ""), ("target", "--ref", "")),
]


@pytest.mark.parametrize("words", EMPTY, ids=" ".join)
def test_an_empty_value_is_not_taken_for_none(command: Command, words: tuple[str, ...]) -> None:
    """As of a variable that a script forgot to set: `apply --plan "$PLAN"` would deploy what nobody has reviewed."""
    said = main(*words, variables=command.variables)
    assert said.code == Exit.INVALID and f"argument {words[-2]}: it is empty" in said.err
    assert command.fake.requests == []


@pytest.mark.parametrize("text", ["A=1\nB", "A=1\nB=one two", "A=1\nB='open", "A=1\n9=x", "A=1\n=x"])
def test_a_faulty_line_is_named_by_file_and_number(command: Command, tmp_path: Path, text: str) -> None:
    file = env_file(tmp_path, text)
    said = command("status", "--env-file", file)
    assert said.code == Exit.INVALID and said.err.startswith(f"error: {file}:2: ") and "KEY=value" in said.err


def test_a_file_that_cannot_be_read_is_named(command: Command, tmp_path: Path) -> None:
    said = command("status", "--env-file", str(tmp_path / "none.env"))
    assert said.code == Exit.INVALID and "none.env cannot be read" in said.err


def test_a_faulty_line_does_not_show_its_value(command: Command, tmp_path: Path) -> None:
    said = command("status", "--env-file", env_file(tmp_path, "KEY=pa55 word\nOTHER='pa55"))
    assert said.code == Exit.INVALID and "pa55" not in said.all


# -- exit codes, each through main()


def test_0_done_1_invalid_2_differences(command: Command) -> None:
    assert command("plan", "--env", "dev").code == 0
    assert command("plan", "--env", "nope").code == 1
    assert command("plan", "--env", "dev", "--detailed-exitcode").code == 2
    command.apply()
    assert command("plan", "--env", "dev", "--detailed-exitcode").code == 0


def test_1_when_the_api_cannot_be_reached(command: Command) -> None:
    said = command("plan", "--env", "dev", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert said.code == 1 and "Is the server up" in said.err and "Traceback" not in said.err


def test_1_when_no_address_is_given(command: Command) -> None:
    said = main("plan", "--env", "dev", "--repo", str(command.repo.path))
    assert said.code == 1 and "PREFECT_API_URL" in said.err and "environments/dev.yaml" in said.err


def test_4_when_a_write_fails_and_what_failed_is_listed(command: Command) -> None:
    command.fake.fail("POST", "/deployments/$", before=422, times=99)
    said = command("apply", "--env", "dev", "--format", "json")
    assert said.code == 4
    assert [o["name"] for o in said.json["outcomes"] if o["result"] == "failed"] == ["hello/hello"]
    assert said.json["release"]["result"] == "failed" and "hello/hello" in said.err


def test_6_when_a_guard_refuses(command: Command) -> None:
    command.repo.branch("feature")
    command.repo.commit("Not merged")
    said = command("apply", "--env", "dev")
    assert said.code == 6 and "Nothing was written" in said.err and command.fake.writes == []


def test_7_when_the_live_state_differs_after_all_writes(command: Command) -> None:
    command.fake.on_request = meddle(command, after=r"^POST /deployments/$")
    said = command("apply", "--env", "dev", "--format", "json")
    assert said.code == 7 and "still differs" in said.err and "hello/hello" in said.err
    assert said.json["release"]["result"] == "unverified"


def meddle(command: Command, after: str) -> Any:
    """Somebody changes the entrypoint as soon as that request came through."""
    came: list[str] = []

    def on_request(request: Recorded) -> None:
        if re.search(after, str(request)):
            came.append("writing")
        elif came == ["writing"] and (found := command.live()):
            came.append("done")
            with command.fake.backstage as client:
                client.patch(f"/deployments/{found['hello']['id']}", json={"entrypoint": "other.py:other"})

    return on_request


def test_70_with_a_traceback_for_a_bug_of_ours(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployer.verbs.status", lambda call: 1 / 0)
    said = command("status")
    assert said.code == 70 and said.out == ""
    assert "ZeroDivisionError" in said.err and "Traceback" in said.err and "Please report" in said.err


def test_130_when_interrupted_before_anything_was_written(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(call: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("deployer.verbs.status", interrupt)
    said = command("status")
    assert (said.code, said.out, said.err) == (130, "", "Interrupted.\n")


# -- interrupted in the middle of an apply


def interrupt_at(command: Command, request: str) -> None:
    """Ctrl-C, or what a runner sends when somebody cancels, while that request is under way."""

    def on_request(seen: Recorded) -> None:
        if seen.writes and str(seen).startswith(request):
            command.fake.on_request = None
            os.kill(os.getpid(), signal.SIGTERM)

    command.fake.on_request = on_request


@pytest.mark.parametrize("moment", ["POST /work_pools/", "POST /flows/", "POST /deployments/"])
def test_an_interrupted_apply_is_recorded_and_the_next_one_finishes(command: Command, moment: str) -> None:
    interrupt_at(command, moment)
    said = command("apply", "--env", "dev", "--format", "json")
    assert said.code == Exit.INTERRUPTED, said.all
    assert command.releases()[0]["result"] == "interrupted" and "Run the same apply again" in said.err
    command.apply()
    assert command.releases()[0]["result"] == "succeeded"
    assert command("plan", "--env", "dev", "--detailed-exitcode").code == Exit.DONE


@pytest.mark.parametrize("moment", ["POST /artifacts/", "PATCH /artifacts/"])
def test_interrupted_while_the_release_is_recorded_the_next_apply_settles_it(command: Command, moment: str) -> None:
    interrupt_at(command, moment)
    assert command("apply", "--env", "dev").code == Exit.INTERRUPTED
    command.apply()
    assert command.releases()[0]["result"] == "succeeded"
    assert command("plan", "--env", "dev", "--detailed-exitcode").code == Exit.DONE


# -- as a process


def deploy(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, str(ROOT / "scripts" / "deploy.py"), *words]
    return subprocess.run(arguments, capture_output=True, text=True, check=False, **options)


def test_a_reader_that_has_enough_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "deploy.py"), "schema", "--repo", str(ROOT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout and process.stderr
    process.stdout.close()
    said = process.stderr.read()
    assert (process.wait(), said) == (0, b"")
    process.stderr.close()


def test_the_script_ends_with_the_exit_code(tmp_path: Path) -> None:
    done = deploy("status", "--repo", str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "") and "is no Git repository" in done.stderr


def test_static_validation_imports_neither_prefect_nor_a_flow(command: Command) -> None:
    code = (
        "import sys; from deployer.cli import main; main(); print([m for m in sys.modules if m.startswith('prefect')])"
    )
    words = ["validate", "--static", "--repo", str(command.repo.path)]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_an_argument_that_is_no_text_is_told() -> None:
    said = main("rollback", "--env", "dev", "--reason", "caf\udce9")
    assert said.code == Exit.INVALID and "is not UTF-8" in said.err
