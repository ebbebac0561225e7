"""The command line: words -> a verb, errors -> a message and an exit code. Only this module exits."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

from deployer import __version__
from deployer.console import Console
from deployer.errors import DeployError, Exit, InvalidInput

DESCRIPTION = "Take Prefect flows from a commit to an environment: plan, apply, prove, remember, put back."
EXITS = """exit codes:
  0 done                       4 failed: what was written stays, and is listed
  1 invalid input, usage, or   6 refused by a guard: nothing written
    API unreachable            7 written, but the live state still differs
  2 differences (drift, plan   70 a bug, with its traceback
    --detailed-exitcode),      130 interrupted
    problems (doctor)"""


class Misused(Exception):
    """Wrong words on the command line."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong, and leaves it to `main` how to end."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        raise Misused(f"{self.prog}: error: {message}")


def parser() -> argparse.ArgumentParser:
    top = Parser(
        prog="deploy.py", description=DESCRIPTION, epilog=EXITS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--version", action="version", version=f"prefect-platform {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    common = Parser(add_help=False)
    common.add_argument(
        "--repo",
        default=".",
        type=_given,
        metavar="DIR",
        help="the Git repository to work on (default: the current directory's)",
    )
    common.add_argument(
        "--env-file",
        action="append",
        default=[],
        type=_given,
        metavar="FILE",
        help="read variables from FILE (KEY=value lines); they win over the process environment",
    )
    report = Parser(add_help=False)
    report.add_argument(
        "--format", choices=["text", "json", "markdown"], default="text", help="form of the result on standard output"
    )

    def verb(
        name: str, function: str, help: str, parents: Sequence[Parser] = (common, report)
    ) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=help, description=help, parents=list(parents))
        added.set_defaults(function=function)
        return added

    def env(added: argparse.ArgumentParser, required: bool = True) -> None:
        added.add_argument(
            "--env", required=required, type=_given, metavar="E", help="the environment: environments/E.yaml"
        )

    def preview(added: argparse.ArgumentParser, required: bool = False) -> None:
        added.add_argument(
            "--preview",
            required=required,
            metavar="NAME",
            type=_preview,
            help="a copy under this prefix and tag, schedules paused",
        )

    def guards(added: argparse.ArgumentParser) -> None:
        added.add_argument("--resume", action="store_true", help="take back what operators paused or switched by hand")
        added.add_argument(
            "--allow-removals",
            action="store_true",
            help="go on when more deployments would go than policy.max_removals",
        )

    v = verb("validate", "validate", "Find every fault of every file; without --static also import the flows.")
    env(v, required=False)
    v.add_argument("--ref", type=_given, metavar="R", help="a commit's files instead of the work tree's")
    v.add_argument("--static", action="store_true", help="files only: no flow is imported, no variable needed")

    for name, function, help in (
        ("plan", "plan", "Show what apply would write, field by field."),
        ("apply", "apply_commit", "Make an environment match a commit, and prove it."),
    ):
        v = verb(name, function, help)
        env(v)
        source = v.add_mutually_exclusive_group() if name == "plan" else v
        source.add_argument("--ref", type=_given, metavar="R", help="branch, tag or SHA (default: HEAD)")
        v.add_argument(
            "--adopt",
            action="store_true",
            help="take over deployments of ours by name that carry other owner tags, or none",
        )
        v.add_argument(
            "--only-forward",
            action="store_true",
            help="leave a newer commit alone, as environments of mode production always do",
        )
        guards(v)
        preview(v)
        v.add_argument(
            "--image-digest",
            type=_digest,
            metavar="SHA256",
            help="source.strategy image: deploy exactly this one, sha256:<64 digits>",
        )
        if name == "plan":
            v.add_argument("--out", type=_given, metavar="FILE", help="save the plan for apply --plan")
            v.add_argument(
                "--unmerged", action="store_true", help="as if the commit were on a branch that may go there"
            )
            v.add_argument("--detailed-exitcode", action="store_true", help="exit 2 when there is something to write")
        else:
            v.add_argument(
                "--plan", type=_given, metavar="FILE", help="apply a saved plan exactly as reviewed, or refuse"
            )
            v.add_argument(
                "--replan",
                action="store_true",
                help="with --plan, where the mode is development: plan anew if the live state moved since",
            )
            v.add_argument(
                "--report", type=_given, metavar="FILE", help="also write what became of it to FILE, as JSON"
            )

    v = verb("rollback", "rollback", "Put an earlier release back whole, from what the ledger recorded.")
    env(v)
    v.add_argument(
        "--to", type=_given, metavar="TAG|SHA|NUMBER", help="default: the newest successful release before the live one"
    )
    v.add_argument("--reason", required=True, metavar="TEXT", help="why; it stays with the release")
    v.add_argument("--out", type=_given, metavar="FILE", help="write nothing; save the plan for apply --plan")
    guards(v)

    env(verb("drift", "drift", "Compare what is live with the last release: exit 0 none, 2 some."))
    env(verb("status", "status", "What is where: the newest release of each environment."), required=False)
    env(
        verb(
            "doctor", "examine", "Look at an environment from this machine, and name each fix: exit 2 if there is one."
        )
    )
    v = verb("history", "history", "The releases of an environment, newest first.")
    env(v)
    v.add_argument("--limit", type=_positive, default=30, metavar="N", help="how many (default: 30)")
    verb("target", "target", "Which environments a Git ref deploys to.").add_argument(
        "--ref", required=True, type=_given, metavar="REF", help="full: refs/heads/main, refs/tags/v1.2.0"
    )
    v = verb("run", "run", "Start a run, follow its logs, exit 0 if it completed.")
    env(v)
    v.add_argument("name", metavar="NAME", help="the deployment's name in the catalogue")
    v.add_argument("--param", action="append", default=[], metavar="K=V", help="a parameter; V is JSON or text")
    v.add_argument(
        "--timeout", type=_seconds, metavar="SECONDS", help="stop following after this long (the run goes on)"
    )
    preview(v)
    v = verb("serve", "serve", "Local loop with Prefect's serve(): no pool, no worker.", (common,))
    v.add_argument("name", nargs="*", metavar="NAME", help="deployments by their catalogue names (default: all)")
    env(verb("previews", "previews", "The previews of an environment, by their names."))
    v = verb("destroy", "destroy", "Remove a preview, and nothing else.")
    env(v)
    preview(v, required=True)
    v = verb("schema", "print_schema", "JSON Schemas of the environment file and of deployments.yaml.", (common,))
    v.add_argument(
        "file", nargs="?", choices=["environment", "deployments"], help="one of them (default: both in one document)"
    )
    return top


def _given(text: str) -> str:
    """`--plan "$FILE"` without FILE must not be taken for no --plan."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; give a value, or leave the option out")
    return text


def _preview(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", text) or len(text) > 40:
        raise argparse.ArgumentTypeError(f"'{text}': small letters, digits and dashes, at most 40, e.g. pr-123")
    return text


def _digest(text: str) -> str:
    if not re.fullmatch("sha256:[0-9a-f]{64}", text):
        raise argparse.ArgumentTypeError(f"'{text}': expected sha256: and 64 digits, as the registry says it")
    return text


def _positive(text: str) -> int:
    if not re.fullmatch("0*[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"'{text}': expected a whole number from 1 to 999999999")
    return int(text)


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found <= MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"'{text}': expected seconds, more than 0 and at most {MOST_SECONDS}")
    return found


MOST_SECONDS = 315_360_000
"""Ten years: whoever wants no limit leaves it out."""


def main(arguments: Sequence[str] | None = None, variables: Mapping[str, str] | None = None) -> int:
    """Answers the exit code."""
    known = os.environ if variables is None else variables
    try:
        words = _words(sys.argv[1:] if arguments is None else arguments)
    except SystemExit:  # --help, --version
        return Exit.DONE
    except Misused as fault:
        Console("text", known).fault(str(fault))
        return Exit.INVALID
    console = Console(getattr(words, "format", "text"), known)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return int(_verb(words, console)())
    except InvalidInput as error:
        console.problems(error.problems)
        console.error(error, annotated=bool(error.problems))
        return error.exit_code
    except DeployError as error:
        console.error(error)
        return error.exit_code
    except KeyboardInterrupt:
        console.note("Interrupted.")
        return Exit.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return Exit.DONE
    except Exception as bug:
        traceback.print_exc()
        console.fault(
            f"This is a bug of prefect-platform {__version__}, not of your input. Please report it with the lines above.",
            f"{type(bug).__name__}: this is a bug of prefect-platform {__version__}; the log has its traceback.",
        )
        return Exit.BUG


def _words(given: Sequence[str]) -> argparse.Namespace:
    words = parser().parse_args(given)
    if strange := next((word for word in given if _SURROGATE.search(word)), None):
        raise Misused(f"error: the argument {strange!r} is not UTF-8.")
    return words


_SURROGATE = re.compile("[\ud800-\udfff]")
"""What Python makes of bytes that are no text."""


def _verb(words: argparse.Namespace, console: Console) -> Callable[[], Any]:
    """The function of the verb. Imported late: `--help` and usage errors need none of it."""
    from deployer import verbs
    from deployer.call import Call
    from deployer.loading import hide_from_children

    hide_from_children()
    variables = {**console.variables, **_env_files(words.env_file)}
    call = Call(words, variables, Console(console.format, variables))
    return lambda: getattr(verbs, words.function)(call)


def _interrupt(signal_number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _env_files(paths: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in paths:
        try:
            text = Path(path).read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
        except OSError as error:
            raise InvalidInput(f"--env-file {path} cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise InvalidInput(f"--env-file {path} holds bytes that are not UTF-8. Save it as UTF-8.") from None
        for number, line in enumerate(text.splitlines(), 1):
            found.update(_env_line(line, f"{path}:{number}"))
    return found


def _env_line(line: str, place: str) -> dict[str, str]:
    import shlex

    found = shlex.shlex(line, posix=True)
    found.whitespace_split, found.commenters = True, ""  # as in a shell, # starts a comment at the start of a word only
    try:
        words = list(takewhile(lambda word: not word.startswith("#"), found))
    except ValueError as error:
        raise InvalidInput(f"{place}: {error}. Expected KEY=value.") from None
    if words[:1] == ["export"]:
        words = words[1:]
    if not words:
        return {}
    key, sign, value = words[0].partition("=")
    if not sign or not key.isidentifier() or len(words) > 1:
        raise InvalidInput(f"{place}: expected KEY=value; quote a value that holds spaces.")
    if "\0" in value:
        raise InvalidInput(f"{place}: {key} holds a NUL character, which no variable can.")
    return {key: value}


if __name__ == "__main__":
    sys.exit(main())
