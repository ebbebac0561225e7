"""What the workflows write to GitHub: comments, releases, deployment records, issues; and what they ask of it.

Runs on a bare runner's Python (3.10 or newer, standard library only): the jobs that may write to GitHub install nothing
and run nothing of a pull request. Everything that it writes carries a hidden marker, by which it is found again and
updated in place. It ends with 0, also where GitHub refuses a permission (a warning says which), or with 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts import github_registry  # noqa: E402
from scripts.github_rest import (  # noqa: E402
    GitHub,
    GitHubError,
    Json,
    Missing,
    NoAnswer,
    Refused,
    connect,
    of,
    quoted,
    send,
)

DEPLOY = ROOT / "scripts/deploy.py"
MOST_BODY = 65_000  # characters; GitHub takes 65,536 of a comment or an issue
MOST_NOTES = 120_000  # GitHub takes 125,000 of a release
MOST_READ = 4_000_000  # bytes of a file that a pull request's code may have written


@dataclass(frozen=True)
class Call:
    """One call of this program: its words, and whatever it meets outside."""

    words: argparse.Namespace
    environ: Mapping[str, str]
    pause: Callable[[float], None]
    deploy: Path

    @property
    def env(self) -> str:
        return str(self.words.env)

    @cached_property
    def github(self) -> GitHub:
        return connect(self.environ, self.pause)

    @property
    def run(self) -> str:
        """The address of this workflow run; all its attempts have one."""
        names = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
        server, repository, number = (self.environ.get(name, "") for name in names)
        return f"{server}/{repository}/actions/runs/{number}"

    @property
    def attempt(self) -> str:
        return f"{self.run}/attempts/{self.environ.get('GITHUB_RUN_ATTEMPT') or 1}"

    def event(self) -> Json:
        try:
            event = json.loads(Path(self.environ.get("GITHUB_EVENT_PATH", "")).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            event = None
        if not isinstance(event, dict):
            raise GitHubError("GITHUB_EVENT_PATH leads to no event. GitHub sets it in every job; by hand, set it.")
        return event

    def answer(self, line: str) -> None:
        """An output of the step: NAME=VALUE."""
        print(line)
        if path := self.environ.get("GITHUB_OUTPUT"):
            try:
                with open(path, "a", encoding="utf-8") as file:
                    file.write(f"{line}\n")
            except OSError as error:
                raise GitHubError(f"GITHUB_OUTPUT ({path}) cannot be written: {error.strerror}.") from None

    def say(self, text: str, kind: str = "notice") -> None:
        """An annotation; whatever it quotes, it is one line and holds no token."""
        if token := self.environ.get("GITHUB_TOKEN", "").strip():
            text = text.replace(token, "***")
        escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
        print(f"::{kind}::{escaped}", flush=True)


def main(
    arguments: Sequence[str] | None = None,
    environ: Mapping[str, str] = os.environ,
    pause: Callable[[float], None] = time.sleep,
    deploy: Path = DEPLOY,
) -> int:
    """Answers the exit code."""
    try:
        words = parser().parse_args(arguments)
    except SystemExit as done:
        return 1 if done.code else 0
    call = Call(words, environ, pause, deploy)
    try:
        words.verb(call)
    except Refused as refused:
        call.say(f"{refused} It needs `permissions: {{{words.needs}}}`; nothing more was written to GitHub.", "warning")
    except GitHubError as error:
        call.say(str(error), "error")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="github.py", description=__doc__)
    verbs = top.add_subparsers(metavar="VERB", required=True)

    def verb(
        name: str, run: Callable[[Call], None], needs: str, summary: str, env: bool = True
    ) -> argparse.ArgumentParser:
        v = verbs.add_parser(name, help=summary, description=summary)
        v.set_defaults(verb=run, needs=needs)
        if env:
            v.add_argument("--env", required=True, type=_name, metavar="ENV", help="the environment")
        return v

    verb(
        "credentials",
        credentials,
        "",
        "Are there credentials of a Prefect API, and does it answer? Output: found=true|false.",
        env=False,
    )
    v = verb(
        "comment", comment, "pull-requests: write", "Post a plan as the pull request's one comment of this environment."
    )
    v.add_argument("--file", required=True, type=Path, help="of deploy.py plan --format markdown")
    v = verb(
        "release", release, "contents: write", "Create the GitHub release of the tag in GITHUB_REF, once.", env=False
    )
    v.add_argument("--changelog", default=Path("CHANGELOG.md"), type=Path, metavar="FILE", help="default: CHANGELOG.md")
    v = verb("deployment", deployment, "deployments: write", "Record that a rollback put a commit back.")
    v.add_argument("--sha", required=True, type=_sha, help="the commit, 40 digits")
    v.add_argument("--result", required=True, choices=["success", "failure", "cancelled", "skipped"])
    v = verb("drift", drift, "issues: write", "Keep one issue open as long as there is drift.")
    v.add_argument("--file", required=True, type=Path, help="of deploy.py drift --format markdown")
    v.add_argument("--code", required=True, type=Path, metavar="FILE", help="holds the exit code of deploy.py drift")
    v = verb(
        "image", image, "packages: read", "Which digest has this image? Output: digest, empty for none.", env=False
    )
    v.add_argument("--image", required=True, metavar="NAME:TAG", help="with its registry")
    v.add_argument("--build", required=True, choices=["true", "false"], help="false: fail where there is none")
    v = verb(
        "sweep",
        sweep,
        "pull-requests: read",
        "Destroy the previews of pull requests that are closed or lack the label.",
    )
    v.add_argument("--label", required=True, help="what a pull request with a preview carries")
    return top


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is no environment's name")
    return text


def _sha(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{40}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no commit of 40 digits")
    return text


# -- credentials


def credentials(call: Call) -> None:
    """A fork's or Dependabot's run is given none: then there is no plan, and that is fine. Nor does an API that is away
    for a while keep everybody from merging: what a commit itself has wrong, the checks find."""
    missing = _missing(call.environ)
    away = "" if missing else _away(call)
    if missing:
        call.say(f"No plan: {missing}")
    elif away:
        call.say(
            f"No plan: the API of PREFECT_API_URL does not answer ({away}). Run this job again when it does.", "warning"
        )
    call.answer(f"found={'false' if missing or away else 'true'}")


TRIES = 3


def _away(call: Call) -> str:
    """Why there is no answer. What any answer but a proxy's says is for the plan to tell."""
    url, why = call.environ["PREFECT_API_URL"].strip().rstrip("/"), ""
    if not url.startswith(("http://", "https://")):
        return ""
    for number in range(TRIES):
        if number:
            call.pause(2.0)
        try:
            answer = send("GET", f"{url}/health", {}, timeout=10, most=1000)
        except NoAnswer as error:
            why = str(error)
        else:
            if answer.status not in (502, 503, 504) and answer.status < 520:
                return ""
            why = f"HTTP {answer.status}"
    return why


def _missing(environ: Mapping[str, str]) -> str:
    def there(name: str) -> bool:
        return bool(environ.get(name, "").strip())

    if not there("PREFECT_API_URL"):
        return "the variable PREFECT_API_URL of this GitHub environment is not set."
    if there("PREFECT_API_KEY") or there("PREFECT_API_AUTH_STRING") or environ.get("PREFECT_API_OPEN") == "true":
        return ""
    return (
        "this run is given neither PREFECT_API_KEY nor PREFECT_API_AUTH_STRING, as forks' and Dependabot's are not. "
        "For an API without authentication set the variable PREFECT_API_OPEN to true."
    )


# -- comment


def comment(call: Call) -> None:
    number, commit = _pull_request(call)
    head = of(call.github.get(f"pulls/{number}"), "head", "sha")
    if head != commit:
        call.say(f"No comment: #{number} is at {head[:12]} by now, and this is the plan of {commit[:12]}.")
        return
    marker, about = _marker("plan", call.env), f"For the merge of commit {commit}"
    body = _body(marker, _short(call.env, _read(call.words.file)), about, call.run)

    def look() -> Json | None:
        return next((c for c in call.github.pages(f"issues/{number}/comments") if _ours(c, marker)), None)

    present = look()
    if present is None:
        call.github.post(f"issues/{number}/comments", {"body": body}, look)
    elif _same(present, body):
        print(f"The comment of {call.env} on #{number} says so already.")
        return
    else:
        call.github.patch(f"issues/comments/{of(present, 'id')}", {"body": body})
    print(f"The plan of {call.env} is {'updated' if present else 'posted'} on #{number}.")


def _pull_request(call: Call) -> tuple[int, str]:
    """Its number, and the commit that this run is about."""
    pull = call.event().get("pull_request")
    number, commit = (pull.get("number"), (pull.get("head") or {}).get("sha")) if isinstance(pull, dict) else (0, "")
    if not isinstance(number, int) or not re.fullmatch(r"[0-9a-f]{40}", str(commit)):
        raise GitHubError("The event is not a pull request's, so there is nothing to comment on.")
    return number, str(commit)


HEAD = "| | kind | name | field | before | after |"


def _short(environment: str, plan: str) -> str:
    """A plan in which only the commit moves is no news: one sentence instead of it.

    The rows and the folded list must account for every update that the plan's own sentence counts.
    """
    counted = re.search(
        r"^\*\*0 to create, (\d+) to update, 0 to pause, 0 to delete, \d+ unchanged\.\*\*$", plan, re.MULTILINE
    )
    rows = [line for line in plan.split("\n") if line.startswith("| ") and line != HEAD]
    folded = re.search(r"<summary>(\d+) deployments: only the commit moves", plan)
    only_commits = all(re.match(r"\| update \| deployment \| (?:[^|\\]|\\.)* \| commit \| ", row) for row in rows)
    if not counted or not only_commits or re.search("^> ", plan, re.MULTILINE):
        return plan
    updates = int(counted[1])
    if updates != len(rows) + int(folded[1] if folded else 0):
        return plan
    moves = "1 deployment moves to this commit as it is."
    if updates > 1:
        moves = f"{updates} deployments move to this commit as they are."
    return f"### {environment}: no changes\n\n{moves if updates else 'What is live is what this commit says.'}"


# -- release


def release(call: Call) -> None:
    found = re.fullmatch(r"refs/tags/(v(\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?))", call.environ.get("GITHUB_REF", ""))
    if not found:
        raise GitHubError("GITHUB_REF is not a tag like refs/tags/v1.2.0, so there is nothing to release.")
    tag, version, candidate = found.groups()
    _check_tag(call, tag)
    notes = _notes(call, tag, _section(_read(call.words.changelog), version))

    def look() -> Json | None:
        return _release(call.github, tag)

    present = look()
    if present is None:
        wanted = {"tag_name": tag, "name": tag, "prerelease": bool(candidate), "make_latest": "legacy"}
        call.github.post(
            "releases", {**wanted, **({"body": notes} if notes else {"generate_release_notes": True})}, look
        )
        print(f"Release {tag} is created.")
    elif present.get("draft"):
        call.say(f"The release {tag} is a draft: it is left as it is.")
    elif not notes or _plain(present) == notes:
        print(f"Release {tag} is there already.")
    elif not _untouched(_plain(present)):
        call.say(f"The notes of release {tag} were written by hand: they are left as they are.")
    else:
        call.github.patch(f"releases/{of(present, 'id')}", {"body": notes})
        print(f"The notes of release {tag} are updated.")


def _check_tag(call: Call, tag: str) -> None:
    """GitHub would make a tag that is gone anew, at the default branch."""
    try:
        target = of(call.github.get(f"git/ref/tags/{quoted(tag)}"), "object")
    except Missing:
        raise GitHubError(f"The tag {tag} is gone from GitHub, so there is no release of it. Push it again.") from None
    if of(target, "type") == "tag":
        target = of(call.github.get(f"git/tags/{of(target, 'sha')}"), "object")
    here, there = call.environ.get("GITHUB_SHA", ""), of(target, "sha")
    if here != there:
        raise GitHubError(
            f"The tag {tag} is at {there[:12]} by now, and this run is of {here[:12]}: no release is made. "
            "Tags of releases should not move: tag the new commit with a new version."
        )


def _release(github: GitHub, tag: str) -> Json | None:
    try:
        return github.get(f"releases/tags/{quoted(tag)}")
    except Missing:  # a draft is only in the list
        return next((r for r in github.pages("releases") if r.get("tag_name") == tag), None)


def _section(changelog: str, version: str) -> str:
    """What stands below `## [1.2.0] - 2026-11-21`, with the links that it refers to."""
    section, chosen, fence = [], False, ""
    links = re.findall(r"^\[[^\]\n]+\]:.*$", changelog, re.MULTILINE)
    for line in changelog.splitlines():
        fence = _fence(line, fence)
        if not fence and (heading := re.match(r"##?\s+(.*)", line)):
            chosen = bool(re.match(rf"\[?v?{re.escape(version)}(?![\w.+-])", heading[1]))
        elif chosen and line not in links:
            section.append(line)
    text = "\n".join(section).strip()
    used = [link for link in links if text and f"{link.partition(']:')[0]}]" in text]
    return "\n".join([text, "", *used]).strip()


def _notes(call: Call, tag: str, section: str) -> str:
    """With a seal, so that what people write into a release later is never overwritten. Empty: GitHub's own notes."""
    if not section:
        call.say(f"{call.words.changelog.name} has no section {tag[1:]}: GitHub writes the notes of this release.")
        return ""
    server, repository = (call.environ.get(name, "") for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY"))
    more = f"Cut here; the rest is in [{call.words.changelog.name}]({server}/{repository}/blob/{tag}/{call.words.changelog.name})."
    text = _cut(section, MOST_NOTES, more)
    return f"{text}\n\n<!-- prefect-platform release: {_digest(text)} -->"


def _plain(item: Json) -> str:
    """A body as it was sent: GitHub's editor ends lines otherwise."""
    return str(item.get("body") or "").replace("\r\n", "\n").rstrip()


def _untouched(notes: str) -> bool:
    found = re.fullmatch(r"(.*)\n\n<!-- prefect-platform release: ([0-9a-f]+) -->", notes, re.DOTALL)
    return found is not None and found[2] == _digest(found[1])


# -- image


def image(call: Call) -> None:
    """Built once for a commit: what is there already is taken, and production takes nothing else."""
    wanted, build = github_registry.parse(call.words.image), call.words.build == "true"
    try:
        digest = github_registry.digest(wanted, call.environ, call.pause)
    except github_registry.NotShown as error:
        if not build:
            raise GitHubError(f"{error} {MAY_READ}") from None
        call.say(f"{error} It is taken for not there, and built.")
        digest = ""
    if not digest and not build:
        raise GitHubError(
            f"There is no image {wanted}. For production none is built: what was tried elsewhere goes there. "
            "Deploy the commit to an environment that builds it first, then run this again."
        )
    print(f"{wanted} {f'is {digest}' if digest else 'is not there yet'}.")
    call.answer(f"digest={digest}")


MAY_READ = (
    "The job needs `permissions: {packages: read}`, and the package must give this repository access: its settings, "
    "Manage Actions access."
)


# -- deployment

STATES = {"success": "success", "failure": "failure", "cancelled": "error"}


def deployment(call: Call) -> None:
    """GitHub itself would record the commit whose tool was used; this names the one that was put back."""
    if call.words.result == "skipped":
        call.say(f"Nothing was put back in {call.env}, so there is no deployment record.")
        return
    github, sha = call.github, call.words.sha
    query = {"sha": sha, "environment": call.env, "task": "rollback"}

    def look() -> Json | None:
        return next((d for d in github.pages("deployments", **query) if _payload(d).get("run") == call.attempt), None)

    wanted = {
        "ref": sha,
        "task": "rollback",
        "environment": call.env,
        "production_environment": call.env == "prod",
        "auto_merge": False,
        "required_contexts": [],
        "description": "An earlier release, put back.",
        "payload": {"run": call.attempt},
    }
    record = look() or github.post("deployments", wanted, look)
    path = f"deployments/{of(record, 'id')}/statuses"
    status = {"state": STATES[call.words.result], "log_url": call.attempt}

    def look_for_status() -> Json | None:
        return next((s for s in github.pages(path) if all(s.get(key) == status[key] for key in status)), None)

    if not look_for_status():
        github.post(path, {**status, "description": f"rollback: {call.words.result}"}, look_for_status)
    print(f"The deployment of {sha[:12]} to {call.env} is recorded: {status['state']}.")


def _payload(record: Json) -> Json:
    payload = record.get("payload")
    try:
        payload = json.loads(payload) if isinstance(payload, str) else payload
    except ValueError:
        payload = None
    return payload if isinstance(payload, dict) else {}


# -- drift

LABEL = {"name": "drift", "color": "d93f0b", "description": "What is live differs from what was released"}


def drift(call: Call) -> None:
    code = _read(call.words.code).strip()
    if code == "0" and not _read(call.words.file).strip():
        call.say(f"{call.env} has no release to compare with: its issue is left as it is.")
    elif code == "0":
        _close(call)
    elif code == "2":
        _report(call)
    else:
        call.say(f"{call.env} was not compared (exit code {code[:20]!r}): its issue is left as it is.")


def _close(call: Call) -> None:
    for issue in _issues(call):
        number = of(issue, "number")
        _remark(call, number, f"There is no drift any more: {_link(call.run)}.")
        call.github.patch(f"issues/{number}", {"state": "closed", "state_reason": "completed"})
        print(f"#{number} is closed: {call.env} has no drift.")


def _report(call: Call) -> None:
    """One issue an environment; people are told by a comment, and only of news."""
    about = (
        "To put it back, deploy what was released once more; to keep it, say the same in the repository. "
        "This issue closes itself after the first comparison without drift"
    )
    body = _body(_marker("drift", call.env), _read(call.words.file), about, call.run)
    present = next(_issues(call), None)
    if present is None:
        _make_label(call.github)
        wanted = {"title": f"Drift in {call.env}", "body": body, "labels": [LABEL["name"]]}
        answer = call.github.post("issues", wanted, lambda: next(_issues(call), None))
        print(f"#{of(answer, 'number')} is open: {call.env} has drift.")
    elif _same(present, body):
        print(f"#{of(present, 'number')} says so already.")
    else:
        number = of(present, "number")
        _remark(call, number, f"The drift is another one now, as the text above shows: {_link(call.run)}.")
        call.github.patch(f"issues/{number}", {"body": body})
        print(f"#{number} is updated: the drift of {call.env} is another one now.")


def _issues(call: Call) -> Iterator[Json]:
    """The open ones about this environment, oldest first. To GitHub a pull request is an issue as well."""
    query = {"labels": LABEL["name"], "state": "open", "sort": "created", "direction": "asc"}
    marker = _marker("drift", call.env)
    return (i for i in call.github.pages("issues", **query) if _ours(i, marker) and "pull_request" not in i)


def _make_label(github: GitHub) -> None:
    """GitHub may drop a label that it does not know, and then the issue would not be found again."""

    def look() -> Json | None:
        try:
            return github.get(f"labels/{quoted(LABEL['name'])}")
        except Missing:
            return None

    if not look():
        github.post("labels", dict(LABEL), look)


def _remark(call: Call, number: int, text: str) -> None:
    marker = f"<!-- prefect-platform remark: {call.attempt} -->"
    path = f"issues/{number}/comments"

    def look() -> Json | None:
        return next((c for c in call.github.pages(path) if _ours(c, marker)), None)

    call.github.post(path, {"body": f"{marker}\n{text}"}, look)


# -- sweep


def sweep(call: Call) -> None:
    """What cannot be decided stays, and so do previews that no pull request made."""
    stay = []
    for name in _previews(call):
        found = re.fullmatch(r"pr-([1-9]\d*)", name)
        if not found:
            call.say(f"The preview {name} is of no pull request: it is left alone.")
            continue
        try:
            why = _why_not(call, found[1])
        except GitHubError as error:
            stay.append(f"{name} ({error})")
            continue
        if not why:
            print(f"{name} stays: its pull request is open and carries '{call.words.label}'.", flush=True)
            continue
        print(f"{name} goes: {why}.", flush=True)
        if code := _deploy(call, "destroy", "--env", call.env, "--preview", name).returncode:
            stay.append(f"{name} (destroy ended with {code}, see above)")
    if stay:
        raise GitHubError(f"Not swept: {'; '.join(stay)}. The next sweep tries again.")


def _why_not(call: Call, number: str) -> str:
    """Why this pull request's preview should go; empty if it should stay."""
    try:
        pull = call.github.get(f"pulls/{number}")
    except Missing:
        call.github.get()  # fails for a token that sees nothing here: then that says nothing about pull requests
        return "there is no such pull request"
    if of(pull, "state") != "open":
        return "its pull request is closed"
    names = [label.get("name") for label in of(pull, "labels") if isinstance(label, dict)]
    return "" if call.words.label in names else f"its pull request no longer carries '{call.words.label}'"


def _previews(call: Call) -> list[str]:
    done = _deploy(call, "previews", "--env", call.env, "--format", "json", stdout=subprocess.PIPE)
    try:
        names = json.loads(done.stdout)["previews"] if done.returncode == 0 else None
    except (ValueError, KeyError, TypeError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise GitHubError(
            f"The previews of {call.env} cannot be listed: `deploy.py previews --env {call.env}` ended with {done.returncode}, see above. Nothing was removed."
        )
    return names


def _deploy(call: Call, *words: str, stdout: int | None = None) -> subprocess.CompletedProcess[bytes]:
    """The deploying program has no business with GitHub's token."""
    environ = {name: value for name, value in call.environ.items() if name != "GITHUB_TOKEN"}
    return subprocess.run([sys.executable, str(call.deploy), *words], env=environ, stdout=stdout)


# -- what is ours at GitHub, and what it says


def _marker(kind: str, environment: str) -> str:
    return f"<!-- prefect-platform {kind}: {environment} -->"


def _ours(item: Json, marker: str) -> bool:
    """Begun by the marker, and by a workflow: a person who quotes the marker keeps what they wrote."""
    user = item.get("user")
    return isinstance(user, dict) and user.get("type") == "Bot" and _plain(item).startswith(marker)


def _body(marker: str, text: str, about: str, run: str) -> str:
    head = f"{marker}\n<!-- content: {_digest(text + about)} -->\n\n"
    foot = f"\n\n{about}. From {_link(run)}."
    return f"{head}{_cut(text, MOST_BODY - len(head + foot), f'Cut here; the rest is in {_link(run)}.')}{foot}"


def _same(item: Json, body: str) -> bool:
    """Does it say the same, whatever run it was?"""
    return _plain(item).split("\n")[:2] == body.split("\n")[:2]


def _link(run: str) -> str:
    return f"[this run]({run})"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _cut(text: str, most: int, more: str) -> str:
    """At most so many characters, ending where a line does, with what is open in its Markdown closed."""
    lines = text.rstrip().split("\n")
    ends = _ends(lines)
    whole = "\n".join(lines) + ends[-1]
    if len(whole) <= most:
        return whole
    kept, length, room = 0, 0, most - len(f"\n\n{more}")
    for line, end in zip(lines, ends, strict=True):
        length += len(line) + 1
        if length + len(end) > room:
            break
        kept += 1
    return "\n".join(lines[:kept]) + (ends[kept - 1] if kept else "") + f"\n\n{more}"


def _ends(lines: Sequence[str]) -> list[str]:
    """After each line: what closes the code fence and the folded parts that are open there."""
    ends, fence, details = [], "", 0
    for line in lines:
        fence = _fence(line, fence)
        if not fence and re.match(r"\s*</?details\b", line):
            details = max(0, details + line.count("<details") - line.count("</details"))
        ends.append((f"\n{fence}" if fence else "") + "\n\n</details>" * details)
    return ends


def _fence(line: str, fence: str) -> str:
    """The code fence that is open after this line, if any."""
    found = re.match(r" {0,3}(`{3,}|~{3,})(.*)", line)
    if not found:
        return fence
    if not fence:
        return "" if found[1][0] == "`" and "`" in found[2] else found[1]
    ends = found[1][0] == fence[0] and len(found[1]) >= len(fence) and not found[2].strip()
    return "" if ends else fence


def _read(path: Path) -> str:
    """A pull request's code may have made it: a link would show what only this job can read."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise GitHubError(f"{path} is not an ordinary file, so it is not read.")
    try:
        with open(path, "rb") as file:
            return file.read(MOST_READ).decode(errors="replace")
    except OSError as error:
        raise GitHubError(f"{path} cannot be read: {error.strerror}. Does the step before write it there?") from None


if __name__ == "__main__":
    sys.exit(main())
