"""Prepare a GitHub repository for the workflows: who may deploy what where, and what nobody may move.

    GITHUB_TOKEN=... .venv/bin/python scripts/github_setup.py --reviewers LOGIN ORG/TEAM --variables setup.yaml

shows what it would do; with --apply it does that, and reads again. docs/github-setup.md has the whole way.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from deployer import project  # noqa: E402
from deployer.environment import Environment  # noqa: E402
from deployer.errors import DeployError, InvalidInput  # noqa: E402
from scripts import github_rest  # noqa: E402
from scripts.github_changes import Change, changes, check  # noqa: E402
from scripts.github_rest import Garbled, GitHub, GitHubError, Limited, Missing, Unanswered  # noqa: E402
from scripts.github_there import Live, look_up, read  # noqa: E402
from scripts.github_wanted import MOST_REVIEWERS, Options, Target, targets, widened  # noqa: E402

SETTABLE = ("PREFECT_API_URL", "PREFECT_UI_URL", "PREFECT_API_OPEN", "REPOSITORY_URL")
MOST_APPROVALS = 6
ROUNDS = 4


# -- what only a person can do


def secrets_text(wanted: Sequence[Target], live: Live, repository: str) -> list[str]:
    lines = ["", "Secrets, by name. gh asks for each value; what `secrets:` names and you leave out is not managed."]
    for target in wanted:
        has = live.secrets.get(target.name, frozenset())
        lines.append(f"  {target.name}: {', '.join(sorted(has)) or 'none'}")
        lines += [f"    {_command(name, target, repository)}" for name in target.secrets if name not in has]
        if target.credentials and not has & set(target.credentials):
            first, *others = target.credentials
            lines.append(f"    {_command(first, target, repository)}{f'  # or {others[0]}' if others else ''}")
    return [*lines, *_secret_warnings(wanted, live)]


def _command(name: str, target: Target, repository: str) -> str:
    return f"gh secret set {name} --env {target.name} --repo {repository}"


def _secret_warnings(wanted: Sequence[Target], live: Live) -> Iterator[str]:
    for target in wanted:
        plan = f"{target.name}-plan"
        both = live.secrets.get(target.name, frozenset()) ^ live.secrets.get(plan, frozenset())
        if plan in live.secrets and (differ := sorted(both & {*target.secrets, *target.credentials})):
            yield f"! {target.name} and {plan} must have the same secrets, or the plan is refused when it is applied: {', '.join(differ)}."
    ours = {name for target in wanted for name in (*target.secrets, *target.credentials)}
    if known := sorted(live.secrets.get("", frozenset()) & ours):
        yield f"! The repository itself has {', '.join(known)}: a workflow of any branch can read that. Give it to the environments, then: gh secret delete NAME"


def missing_variables(wanted: Sequence[Target], live: Live) -> list[str]:
    """Without the API's address a job fails; better here."""
    return [
        f"{target.name}: the variable {name} is neither set nor given, and every job there would fail. Give it: "
        f"scripts/github_setup.py --variable {target.file}.{name}=https://.../api"
        for target in wanted
        for name in target.needed
        if not (target.variables.get(name) or live.variables.get(target.name, {}).get(name))
    ]


def summary(found: Iterable[Change]) -> str:
    signs = [change.sign for change in found]
    words = (("+", "to create"), ("~", "to change"), ("-", "to remove"), ("=", "as they should be"))
    return ", ".join(f"{signs.count(sign)} {word}" for sign, word in words) + "."


# -- the command


def main(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    pause: Callable[[float], None] = time.sleep,
) -> int:
    words = parser().parse_args(arguments)
    try:
        environments = environment_files()
        options = options_of(words, environments)
        github = connect(environ, words.repository or repository_of(environ), pause)
        return run(github, environments, options, words.apply)
    except GitHubError as error:
        print(f"github_setup: {in_words(error)}", file=sys.stderr)
    except DeployError as error:
        told = [str(problem) for problem in error.problems] if isinstance(error, InvalidInput) else []
        print("\n".join([f"github_setup: {error}", *told]), file=sys.stderr)
    except KeyboardInterrupt:
        print("github_setup: interrupted. Run this again: it goes on where it stopped.", file=sys.stderr)
        return 130
    return 1


@cache
def environment_files() -> list[Environment]:
    return project.load_environments(project.Tree.working(ROOT), None)


def run(github: GitHub, environments: list[Environment], options: Options, write: bool) -> int:
    repository = look_up(github)
    wanted = targets(environments, repository["default_branch"], options)
    live = read(github, repository, [target.name for target in wanted], options)
    check(wanted, live, options)
    found = changes(wanted, live, options)
    print("\n".join(str(change) for change in found))
    if lines := list(widened(environments)):
        print("\nEnvironments of GitHub know simpler patterns only; deploys go by the exact ones:")
        print("\n".join(f"  {line}" for line in lines))
    if not live.pushed:
        print(
            "\nThe default branch is not there yet, and its ruleset would refuse the first push: push, then run this again."
        )
    due = [change for change in found if change.method]
    print(f"\n{summary(found)}{'' if write else _dry(due)}")
    if write and due:
        live = bring_about(github, wanted, live, options)
        print("Done, and read again: nothing differs any more.")
    elif write:
        print("There is nothing to do.")
    print("\n".join(secrets_text(wanted, live, github.repository)))
    missing = missing_variables(wanted, live)
    for line in missing:
        print(f"github_setup: {line}", file=sys.stderr)
    return 1 if missing else 0


def _dry(due: list[Change]) -> str:
    return " Nothing was written: --apply does it." if due else " There is nothing to do."


def bring_about(github: GitHub, wanted: Sequence[Target], live: Live, options: Options) -> Live:
    """Write what differs, and read until nothing does. A write whose answer was lost is decided anew."""
    for _ in range(ROUNDS):
        due = [change for change in changes(wanted, live, options) if change.method]
        if not due:
            return live
        try:
            for change in due:
                _write(github, change)
        except Unanswered:
            github.pause(1)
        live = read(github, live.repository, [target.name for target in wanted], options)
    left = [str(c) for c in changes(wanted, live, options) if c.method]
    if left:
        raise GitHubError(
            f"GitHub took the changes and still differs: {'; '.join(left)}. Look at the repository's settings."
        )
    return live


def _write(github: GitHub, change: Change) -> None:
    try:
        github.write(change.method, change.path, change.body)
    except Missing:
        if change.method != "DELETE":
            raise
    except GitHubError as error:
        if "billing plan" in error.said and change.body and "reviewers" in change.body:
            name = change.path.rpartition("/")[2]
            raise GitHubError(
                f"{name} cannot have required reviewers: on Free, Pro and Team only public repositories have them. It may exist "
                "now without any, so give it no secrets. Make the repository public, choose GitHub Enterprise, or accept "
                "that with --without-reviewers."
            ) from None
        raise


def connect(environ: Mapping[str, str], repository: str, pause: Callable[[float], None]) -> GitHub:
    token = environ.get("GITHUB_TOKEN", "").strip()
    if not github_rest.TOKEN.fullmatch(token):
        raise GitHubError(
            f"GITHUB_TOKEN is {'no token' if token else 'not set'}. Give a fine-grained token for this repository with Administration "
            "and Environments: read and write, Actions, Contents and Secrets: read; or: GITHUB_TOKEN=$(gh auth token)"
        )
    base = (environ.get("GITHUB_API_URL") or "https://api.github.com").rstrip("/")
    if not github_rest.confidential(base):
        raise GitHubError(f"GITHUB_API_URL is {base}: a token is sent over https only.")
    if not github_rest.REPOSITORY.fullmatch(repository):
        raise GitHubError(f"The repository {repository!r} is not OWNER/NAME.")
    trusted = httpx.create_ssl_context() if base.startswith("https") else None
    return GitHub(base, repository, token, pause, context=trusted)


PERMISSIONS = (
    ("/teams/", "the organisation permission Members: read"),
    ("/actions/secrets", "the permission Secrets: read"),
    ("/secrets", "the permission Environments: read"),
    ("/variables", "the permission Environments: read and write"),
    ("/branches/", "the permission Contents: read"),
    ("", "the permissions Administration: read and write and Actions: read"),
)


def in_words(error: GitHubError) -> str:
    """For a person with a token of their own, who runs this again."""
    if isinstance(error, Limited):
        return "GitHub's rate limit is used up. Run this again later: it goes on where it stopped."
    if isinstance(error, Garbled):
        return f"{error.what}: what answers does not answer as GitHub does. Is GITHUB_API_URL right, or is there a proxy between?"
    if isinstance(error, Unanswered):
        return f"GitHub does not answer ({error.what}, {github_rest.TRIES} times). Run this again: it goes on."
    if error.status is None:
        return str(error)
    if error.status == 401:
        return "GitHub does not accept GITHUB_TOKEN: it is wrong, or no longer valid."
    if "billing plan" in error.said or "Upgrade to" in error.said:
        return f"This is not part of the plan that the repository's owner has ({error.what}): {error.said}"
    if error.status in (403, 404):
        needed = next(name for part, name in PERMISSIONS if part in error.what)
        return (
            f"GitHub refuses {error.what} to this token. A fine-grained token needs {needed} for this repository; "
            f"a classic one the scope repo; and its owner must be an administrator of the repository."
        )
    return f"GitHub answers {error.status} to {error.what}: {error.said or 'no explanation.'}"


def repository_of(environ: Mapping[str, str]) -> str:
    """From the workflow's variable, or the remote `origin`."""
    if given := environ.get("GITHUB_REPOSITORY"):
        return given
    done = subprocess.run(["git", "-C", str(ROOT), "remote", "get-url", "origin"], capture_output=True, text=True)
    found = re.search(r"[/:]([\w.-]+/[\w.-]+?)(?:\.git)?/?$", done.stdout.strip())
    if not found:
        raise GitHubError("Which repository? Here is no remote `origin`: give --repository OWNER/NAME.")
    return found[1]


def options_of(words: argparse.Namespace, environments: Iterable[Environment]) -> Options:
    names = [each.name for each in environments]
    if words.reviewers and words.without_reviewers:
        raise GitHubError("--reviewers or --without-reviewers: choose one.")
    if len(words.reviewers) > MOST_REVIEWERS:
        raise GitHubError(f"GitHub takes {MOST_REVIEWERS} reviewers at most; a team counts as one.")
    if not 0 <= words.approvals <= MOST_APPROVALS:
        raise GitHubError(f"--approvals {words.approvals}: GitHub takes 0 to {MOST_APPROVALS} of a pull request.")
    for name in words.guard:
        _known(name, names, "--guard")
    given = _from_file(words.variables)
    for text in words.variable:
        place, _, value = text.partition("=")
        name, _, variable = place.partition(".")
        given.setdefault(name, {})[variable] = value
    for name, pairs in given.items():
        _known(name, names, "variables")
        for variable, value in pairs.items():
            _check_variable(name, variable, value)
    guarded = frozenset(words.guard)
    return Options(tuple(words.reviewers), words.without_reviewers, guarded, given, words.approvals)


def _known(name: str, names: Sequence[str], where: str) -> None:
    if name not in names:
        raise GitHubError(f"{where}: there is no environments/{name}.yaml. There are: {', '.join(names)}.")


def _from_file(path: Path | None) -> dict[str, dict[str, str]]:
    """`dev: {PREFECT_API_URL: https://...}`, an environment a key."""
    if path is None:
        return {}
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except RecursionError:
        raise GitHubError(f"{path} cannot be read as YAML: it is nested too deeply.") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise GitHubError(f"{path} cannot be read as YAML: {str(error).splitlines()[0]}") from None
    groups = data.values() if isinstance(data, dict) else [None]
    if not all(isinstance(g, dict) and not any(isinstance(v, dict | list) for v in g.values()) for g in groups):
        raise GitHubError(
            f"{path}: expected environments, each with its variables, such as dev: {{PREFECT_API_URL: ...}}."
        )
    return {str(name): {str(key): _text(value) for key, value in pairs.items()} for name, pairs in data.items()}


def _text(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _check_variable(name: str, variable: str, value: str) -> None:
    if variable not in SETTABLE:
        raise GitHubError(
            f"{name}: {variable or 'nothing'} is no variable of the workflows. These are: {', '.join(SETTABLE)}."
        )
    if not value.strip():
        raise GitHubError(
            f"{name}: {variable} is empty. scripts/github_setup.py sets no empty variable: every job would fail."
        )
    if not value.isprintable():
        raise GitHubError(f"{name}: {variable} holds a line break or another character that is not printed.")
    if re.search(r"://[^/]*@", value):
        raise GitHubError(f"{name}: {variable} holds a credential, and variables are shown to everybody: use a secret.")


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--apply", action="store_true", help="write; without it, nothing is changed")
    found.add_argument("--repository", metavar="OWNER/NAME", help="default: the remote `origin`")
    found.add_argument(
        "--reviewers",
        nargs="+",
        default=[],
        metavar="WHO",
        help="LOGIN or ORG/TEAM: who approves deploys to production",
    )
    found.add_argument(
        "--guard", nargs="+", default=[], metavar="ENV", help="environments besides that need an approval"
    )
    found.add_argument(
        "--without-reviewers", action="store_true", help="go on although nobody has to approve a deploy to production"
    )
    found.add_argument("--variables", type=Path, metavar="FILE", help="YAML: an environment a key, its variables below")
    found.add_argument(
        "--variable", action="append", default=[], metavar="ENV.NAME=VALUE", help=f"one of {', '.join(SETTABLE)}"
    )
    found.add_argument(
        "--approvals",
        type=int,
        default=1,
        metavar="N",
        help="of a pull request to the default branch; 0 if you work alone",
    )
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
