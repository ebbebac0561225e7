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
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from deployer import project  # noqa: E402
from deployer.environment import REFERENCE, Environment, Refs  # noqa: E402
from deployer.errors import DeployError, InvalidInput  # noqa: E402

PREVIEWED = "dev"
"""The environment that pull requests are planned against, and that previews live in."""
PREVIEW = "preview"
SETTABLE = ("PREFECT_API_URL", "PREFECT_UI_URL", "PREFECT_API_OPEN", "REPOSITORY_URL")
REPLAN = "REPLAN"
"""Where it is `true`, a plan that the live state has moved away from is planned anew. An approval is for one plan."""
MOST_REVIEWERS = 6
MOST_APPROVALS = 6
TRIES = 5
ROUNDS = 4
LONGEST_PAUSE = 60.0

Body = Mapping[str, Any]


class SetupError(Exception):
    """What the operator can act on: what happened, where, what now."""


class Lost(Exception):
    """A write without an answer: it may have happened."""


# -- what there should be


@dataclass(frozen=True, order=True)
class Policy:
    """Which branches or tags may use a GitHub environment. `pattern` is Ruby's fnmatch: `*` stops at a slash."""

    kind: str
    pattern: str


PULL_REQUESTS = Policy("branch", "refs/pull/*/merge")


@dataclass(frozen=True)
class Target:
    """A GitHub environment. `file`: the name of the environment file that it is for."""

    name: str
    file: str
    policies: frozenset[Policy]
    credentials: tuple[str, ...]
    """Secrets of which the API wants one."""
    secrets: tuple[str, ...]
    """Those that a deploy sets in Prefect, if they are there."""
    needed: tuple[str, ...]
    variables: Mapping[str, str]
    guarded: bool = False
    replan: bool = False
    """May a plan be made anew when it is applied? Not where somebody reviews it."""


@dataclass(frozen=True)
class Options:
    reviewers: tuple[str, ...] = ()
    without_reviewers: bool = False
    guarded: frozenset[str] = frozenset()
    variables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    approvals: int = 1


def targets(environments: Iterable[Environment], default_branch: str, options: Options) -> list[Target]:
    """`<env>` and `<env>-plan` of each environment file, and `preview`; the guarded ones first."""
    files = list(environments)
    found = [target for each in files for target in _pair(each, default_branch, options)]
    found += [_preview(each, files, default_branch, options) for each in files if each.name == PREVIEWED]
    guarded = {target.file for target in found if target.guarded}
    return sorted(found, key=lambda target: target.file not in guarded)


def _pair(each: Environment, default_branch: str, options: Options) -> list[Target]:
    """The plan is made without an approval and must see what the deploy will see, so both have the same names."""
    own = policies(each.refs, default_branch)
    rest = (_credentials(each), _names(*each.secrets.values()), _names(each.api.url))
    given = options.variables.get(each.name, {})
    planning = own | {PULL_REQUESTS} if each.name == PREVIEWED else own
    guarded = each.mode == "production" or each.name in options.guarded
    deploy = Target(each.name, each.name, own, *rest, given, guarded, replan=not guarded)
    return [deploy, Target(f"{each.name}-plan", each.name, planning, *rest, given)]


def _preview(each: Environment, files: list[Environment], default_branch: str, options: Options) -> Target:
    """A merged pull request's last run is of the branch that it was merged into."""
    bases = frozenset(p for file in files for p in policies(file.refs, default_branch) if p.kind == "branch")
    given = options.variables.get(each.name, {})
    needed = _names(each.api.url)
    return Target(PREVIEW, each.name, bases | {PULL_REQUESTS}, _credentials(each), (), needed, given)


def _credentials(each: Environment) -> tuple[str, ...]:
    return _names(each.api.key) + _names(each.api.auth_string)


def _names(*values: str) -> tuple[str, ...]:
    return tuple(sorted({match[1] for value in values for match in REFERENCE.finditer(value)}))


def policies(refs: Refs, default_branch: str) -> frozenset[Policy]:
    """What the file's refs come to, and the default branch: rollback and drift run from there."""
    branches = {p for pattern in refs.branches for p in fnmatch_patterns(pattern)}
    tags = {p for pattern in refs.tags for p in fnmatch_patterns(pattern)}
    return frozenset({Policy("branch", p) for p in branches | {default_branch}} | {Policy("tag", p) for p in tags})


def fnmatch_patterns(pattern: str) -> list[str]:
    """A workflow's filter pattern in the words of a GitHub environment: as wide or wider, never narrower.

    Environments know no `+` and no `!`, and there `**` passes a slash only as `**/`. What gets in because of that, the
    deploy refuses: it goes by the exact pattern.
    """
    if pattern.startswith("!"):
        return []
    found = [""]
    for word in _words(pattern):
        endings = (word,) if word != "**" else ("*", "**/*")
        found = [f"{start}{end}" if _at_slash(start, end) else f"{start}*/{end}" for start in found for end in endings]
    return found


def _at_slash(start: str, end: str) -> bool:
    return not end.startswith("**/") or start == "" or start.endswith("/")


PARTS = re.compile(r"\*\*/?|(?:\[[^]]*\]|\\.|[^*])[?+]|\[[^]]*\]|\\.|.")


def _words(pattern: str) -> list[str]:
    """Literal characters, `**/`, `**` and `*`, which stands for all else: [0-9]+.[0-9]+ becomes one `*`."""
    found: list[str] = []
    for part in PARTS.findall(pattern):
        word = part if part.startswith("**") or (len(part) == 1 and part not in "?+") else "*"
        if word == "*" and found[-2:] == ["*", "."]:
            found.pop()
        elif word != "*" or found[-1:] != ["*"]:
            found.append(word)
    return found


def widened(environments: Iterable[Environment]) -> Iterator[str]:
    for each in environments:
        for kind, patterns in (("branches", each.refs.branches), ("tags", each.refs.tags)):
            for pattern in patterns:
                if fnmatch_patterns(pattern) != [pattern]:
                    said = " and ".join(fnmatch_patterns(pattern)) or "nothing: environments cannot exclude"
                    yield f"{each.name}: {kind} {pattern} -> {said}"


def rulesets(options: Options, actions_app: int | None) -> list[dict[str, Any]]:
    check = {"context": "gate"} | ({"integration_id": actions_app} if actions_app else {})
    reviewed = {
        "required_approving_review_count": options.approvals,
        "require_code_owner_review": options.approvals > 0,
        "dismiss_stale_reviews_on_push": True,
        "require_last_push_approval": False,
        "required_review_thread_resolution": False,
    }
    checked = {"strict_required_status_checks_policy": False, "required_status_checks": [check]}
    stays = [{"type": "deletion"}, {"type": "non_fast_forward"}]
    return [
        _ruleset("release tags", "tag", "refs/tags/v*", [*stays, {"type": "update"}]),
        _ruleset(
            "default branch",
            "branch",
            "~DEFAULT_BRANCH",
            [
                *stays,
                {"type": "pull_request", "parameters": reviewed},
                {"type": "required_status_checks", "parameters": checked},
            ],
        ),
    ]


def _ruleset(name: str, target: str, include: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
    conditions = {"ref_name": {"include": [include], "exclude": []}}
    return {"name": name, "target": target, "enforcement": "active", "conditions": conditions, "rules": rules}


TOKEN_OF_WORKFLOWS = {"default_workflow_permissions": "read", "can_approve_pull_request_reviews": False}


# -- what there is


@dataclass(frozen=True)
class Live:
    repository: Body
    plan: str = ""
    actions_app: int | None = None
    reviewers: tuple[tuple[str, int], ...] = ()
    """Those that were named, as GitHub knows them: User or Team, and the id."""
    environments: Mapping[str, Body] = field(default_factory=dict)
    policies: Mapping[str, Mapping[Policy, int]] = field(default_factory=dict)
    secrets: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By environment; under "" the repository's own."""
    variables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    rulesets: Mapping[str, Body] = field(default_factory=dict)
    workflows: Body = field(default_factory=dict)
    pushed: bool = True
    """Is the default branch there?"""

    def rule(self, name: str, kind: str) -> Body:
        rules = self.environments.get(name, {}).get("protection_rules", [])
        return next((rule for rule in rules if rule["type"] == kind), {})

    def reviewers_of(self, name: str) -> set[tuple[str, int]]:
        listed = self.rule(name, "required_reviewers").get("reviewers", [])
        return {(each["type"], each["reviewer"]["id"]) for each in listed}


class GitHub:
    """GitHub's REST API, for one repository."""

    def __init__(self, http: httpx.Client, repository: str, pause: Callable[[float], None]) -> None:
        self.http, self.repository, self.pause = http, repository, pause

    @property
    def root(self) -> str:
        return f"/repos/{self.repository}"

    def get(self, path: str) -> Any:
        return _data(self.ask("GET", path))

    def find(self, path: str) -> Any:
        """None: it is not there, or not for us to see."""
        answer = self.ask("GET", path, bear=(403, 404, 409))
        return _data(answer) if answer.is_success else None

    def pages(self, path: str, key: str = "") -> list[Any]:
        found: list[Any] = []
        following: str | None = f"{path}?per_page=30"
        while following:
            answer = self.ask("GET", following)
            data = _data(answer)
            found += data[key] if key else data
            following = answer.links.get("next", {}).get("url")
        return found

    def ask(self, method: str, path: str, body: Body | None = None, bear: tuple[int, ...] = ()) -> httpx.Response:
        """Reads are repeated until they are answered; of a write that was not answered only reading again tells."""
        for attempt in range(TRIES):
            answer = self._once(method, path, body)
            if answer is not None and not _limited(answer) and answer.status_code not in (500, 502, 503, 504):
                if answer.is_success or answer.status_code in bear:
                    return answer
                raise _refusal(method, path, answer)
            if method != "GET" and not (answer is not None and _limited(answer)):
                raise Lost(f"{method} {path}")
            self.pause(_seconds(answer, attempt))
        if answer is not None and _limited(answer):
            raise SetupError("GitHub's rate limit is used up. Run this again later: it goes on where it stopped.")
        raise SetupError(f"GitHub does not answer ({method} {path}, {TRIES} times). Run this again: it goes on.")

    def _once(self, method: str, path: str, body: Body | None) -> httpx.Response | None:
        try:
            return self.http.request(method, path, json=body)
        except httpx.TransportError:
            return None


def _data(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        raise SetupError(
            f"{answer.url} does not answer as GitHub does. Is GITHUB_API_URL right, or is there a proxy between?"
        ) from None


def _limited(answer: httpx.Response) -> bool:
    told = "retry-after" in answer.headers or answer.headers.get("x-ratelimit-remaining") == "0"
    return answer.status_code == 429 or (answer.status_code == 403 and (told or "rate limit" in answer.text))


def _seconds(answer: httpx.Response | None, attempt: int) -> float:
    told = answer.headers.get("retry-after", "") if answer is not None else ""
    return min(float(told) if told.isdigit() else 2.0**attempt, LONGEST_PAUSE)


PERMISSIONS = (
    ("/teams/", "the organisation permission Members: read"),
    ("/actions/secrets", "the permission Secrets: read"),
    ("/secrets", "the permission Environments: read"),
    ("/variables", "the permission Environments: read and write"),
    ("", "the permissions Administration: read and write and Actions: read"),
)


def _refusal(method: str, path: str, answer: httpx.Response) -> SetupError:
    said = _message(answer)
    if answer.status_code == 401:
        return SetupError("GitHub does not accept GITHUB_TOKEN: it is wrong, or no longer valid.")
    if "billing plan" in said or "Upgrade to" in said:
        return SetupError(f"This is not part of the plan that the repository's owner has ({method} {path}): {said}")
    if answer.status_code in (403, 404):
        needed = next(name for part, name in PERMISSIONS if part in path)
        return SetupError(
            f"GitHub refuses {method} {path} to this token. A fine-grained token needs {needed} for this repository; "
            f"a classic one the scope repo; and its owner must be an administrator of the repository."
        )
    return SetupError(f"GitHub answers {answer.status_code} to {method} {path}: {said}")


def _message(answer: httpx.Response) -> str:
    try:
        told = answer.json()
    except ValueError:
        return "no explanation."
    if not isinstance(told, dict):
        return "no explanation."
    errors = [each if isinstance(each, str) else str(each.get("message", "")) for each in told.get("errors") or []]
    return " ".join(text for text in (str(told.get("message", "")), *errors) if text)


def read(github: GitHub, names: Iterable[str], options: Options) -> Live:
    """All that the changes are decided by. `names`: of the environments that there should be."""
    repository = look_up(github)
    wanted = set(names)
    there = {e["name"]: e for e in github.pages(f"{github.root}/environments", "environments") if e["name"] in wanted}
    secrets = {name: f"{github.root}/environments/{name}/secrets" for name in there}
    return Live(
        repository,
        _plan(github, repository),
        (github.find("/apps/github-actions") or {}).get("id"),
        tuple(_reviewer(github, name) for name in options.reviewers),
        there,
        {name: _policies(github, e) for name, e in there.items()},
        {name: _listed(github, path) for name, path in {**secrets, "": f"{github.root}/actions/secrets"}.items()},
        {name: _variables(github, name) for name in there},
        {r["name"]: r for r in _rulesets(github)},
        github.get(f"{github.root}/actions/permissions/workflow"),
        github.find(f"{github.root}/branches/{repository['default_branch']}") is not None,
    )


def look_up(github: GitHub) -> Body:
    found: Body | None = github.find(github.root)
    if found is None:
        raise SetupError(f"There is no repository {github.repository}, or the token in GITHUB_TOKEN cannot see it.")
    return found


def _plan(github: GitHub, repository: Body) -> str:
    """Its owner's, in lower case; empty if this token cannot see it."""
    owner = repository["owner"]
    account = github.find(f"/orgs/{owner['login']}" if owner["type"] == "Organization" else "/user") or {}
    known = account.get("plan") if account.get("login", "").lower() == owner["login"].lower() else None
    return str((known or {}).get("name", "")).lower()


def _reviewer(github: GitHub, name: str) -> tuple[str, int]:
    organisation, slash, team = name.partition("/")
    path = f"/orgs/{organisation}/teams/{team}" if slash else f"/users/{name}"
    found = github.find(path)
    if found is None:
        kind = "team (or the token lacks the organisation permission Members: read)" if slash else "user"
        raise SetupError(
            f"--reviewers {name}: GitHub knows no such {kind}. Write LOGIN, or ORG/TEAM by the team's slug."
        )
    return ("Team" if slash else "User", int(found["id"]))


def _policies(github: GitHub, environment: Body) -> dict[Policy, int]:
    if not (environment.get("deployment_branch_policy") or {}).get("custom_branch_policies"):
        return {}
    path = f"{github.root}/environments/{environment['name']}/deployment-branch-policies"
    listed = github.pages(path, "branch_policies")
    return {Policy(each.get("type", "branch"), each["name"]): each["id"] for each in listed}


def _listed(github: GitHub, path: str) -> frozenset[str]:
    return frozenset(each["name"] for each in github.pages(path, "secrets"))


def _variables(github: GitHub, name: str) -> dict[str, str]:
    listed = github.pages(f"{github.root}/environments/{name}/variables", "variables")
    return {each["name"]: each["value"] for each in listed}


def _rulesets(github: GitHub) -> Iterator[Body]:
    """With their rules, which the list leaves out. One from the organisation is not ours."""
    names = {ruleset["name"] for ruleset in rulesets(Options(), None)}
    for each in github.pages(f"{github.root}/rulesets"):
        if each["name"] in names and each.get("source_type", "Repository") == "Repository":
            yield github.get(f"{github.root}/rulesets/{each['id']}")


# -- what to do


@dataclass(frozen=True)
class Change:
    """`+` to create, `~` to change, `-` to remove, `=` is so already."""

    sign: str
    what: str
    method: str = ""
    path: str = ""
    body: Body | None = None

    def __str__(self) -> str:
        return f"{self.sign} {self.what}"


def check(wanted: Sequence[Target], live: Live, options: Options) -> None:
    """Before anything is written: can production be guarded?"""
    private = bool(live.repository.get("private"))
    name, plan = live.repository["full_name"], live.plan.title()
    if private and live.plan == "free":
        raise SetupError(
            f"{name} is private and its owner's plan is Free: environments have neither secrets nor branch policies there. "
            "Make the repository public, or choose a plan that has them. Nothing was written."
        )
    if options.without_reviewers:
        return
    for target in (target for target in wanted if target.guarded):
        if private and live.plan and not live.plan.startswith(("enterprise", "business")):
            raise SetupError(
                f"{name} is private and its owner's plan is {plan}: on Free, Pro and Team only public repositories have "
                f"required reviewers, so {target.name} would be deployed to without an approval. Nothing was written. Make the "
                "repository public, choose GitHub Enterprise, or accept that with --without-reviewers."
            )
        if not live.reviewers and not live.reviewers_of(target.name):
            raise SetupError(
                f"{target.name} has no reviewers: whoever can push a tag could deploy to it. Nothing was written. Name up to "
                f"{MOST_REVIEWERS} with --reviewers LOGIN ORG/TEAM, or accept that with --without-reviewers."
            )


def changes(root: str, wanted: Sequence[Target], live: Live, options: Options) -> list[Change]:
    """In the order in which they are made: a GitHub environment lets nothing in until it has its policies."""
    found = [change for target in wanted for change in _about(f"{root}/environments/{target.name}", target, live)]
    found += [
        _about_ruleset(f"{root}/rulesets", ruleset, live)
        for ruleset in rulesets(options, live.actions_app)
        if live.pushed or ruleset["target"] == "tag"
    ]
    same = {key: live.workflows.get(key) for key in TOKEN_OF_WORKFLOWS} == TOKEN_OF_WORKFLOWS
    what = "workflows: a token that may read only, unless a job says more"
    path = f"{root}/actions/permissions/workflow"
    return [*found, Change("=", what) if same else Change("~", what, "PUT", path, TOKEN_OF_WORKFLOWS)]


def _about(path: str, target: Target, live: Live) -> Iterator[Change]:
    yield _about_environment(path, target, live)
    yield from _about_policies(f"{path}/deployment-branch-policies", target, live)
    yield from _about_variables(f"{path}/variables", target, live)


def _about_environment(path: str, target: Target, live: Live) -> Change:
    """PUT sets all at once, so what was set by hand is sent along; a field that a plan does not have is refused even if empty."""
    before = live.environments.get(target.name)
    has = live.reviewers_of(target.name)
    reviewers = set(live.reviewers) if target.guarded and live.reviewers else has
    alone = target.guarded or live.rule(target.name, "required_reviewers").get("prevent_self_review", False)
    branches = {"protected_branches": False, "custom_branch_policies": True}
    body: dict[str, Any] = {"deployment_branch_policy": branches}
    if reviewers:
        body["reviewers"] = [{"type": kind, "id": number} for kind, number in sorted(reviewers)]
        body["prevent_self_review"] = bool(alone)
    if timer := live.rule(target.name, "wait_timer").get("wait_timer"):
        body["wait_timer"] = timer
    if before and before.get("can_admins_bypass") is False:
        body["can_admins_bypass"] = False
    what = f"{target.name}: environment{_guard(len(reviewers)) if target.guarded else ''}"
    if before is None:
        return Change("+", what, "PUT", path, body)
    prevents = bool(live.rule(target.name, "required_reviewers").get("prevent_self_review"))
    same = before.get("deployment_branch_policy") == branches and has == reviewers
    same = same and (not reviewers or prevents == bool(alone))
    return Change("=", what) if same else Change("~", what, "PUT", path, body)


def _guard(count: int) -> str:
    if not count:
        return ", WITHOUT reviewers"
    return f", {count} reviewer{'s' if count > 1 else ''}, none for a run of their own"


def _about_policies(path: str, target: Target, live: Live) -> Iterator[Change]:
    there = live.policies.get(target.name, {})
    for policy in sorted(target.policies):
        what = f"{target.name}: {policy.kind} {policy.pattern}"
        body = {"name": policy.pattern, "type": policy.kind}
        yield Change("=", what) if policy in there else Change("+", what, "POST", path, body)
    for policy in sorted(set(there) - target.policies):
        yield Change("-", f"{target.name}: {policy.kind} {policy.pattern}", "DELETE", f"{path}/{there[policy]}")


def _about_variables(path: str, target: Target, live: Live) -> Iterator[Change]:
    there = live.variables.get(target.name, {})
    replan = {REPLAN: "true"} if target.replan and not live.reviewers_of(target.name) else {}
    if REPLAN in there and not replan:
        yield Change("-", f"{target.name}: variable {REPLAN}", "DELETE", f"{path}/{REPLAN}")
    for name, value in sorted({**target.variables, **replan}.items()):
        what, body = f"{target.name}: variable {name} = {value}", {"name": name, "value": value}
        if name not in there:
            yield Change("+", what, "POST", path, body)
        elif there[name] != value:
            yield Change("~", f"{what} (was {there[name]})", "PATCH", f"{path}/{name}", body)
        else:
            yield Change("=", what)


def _about_ruleset(path: str, wanted: dict[str, Any], live: Live) -> Change:
    what = f"ruleset: {wanted['name']}"
    there = live.rulesets.get(wanted["name"])
    if there is None:
        return Change("+", what, "POST", path, wanted)
    body = stricter(wanted, there)
    if _sorted(body) == _sorted({key: there.get(key) for key in body}):
        return Change("=", what)
    return Change("~", what, "PUT", f"{path}/{there['id']}", body)


def _sorted(ruleset: Body) -> dict[str, Any]:
    """GitHub lists rules in an order of its own."""
    return {**ruleset, "rules": sorted(ruleset["rules"] or [], key=lambda rule: str(rule["type"]))}


def stricter(wanted: Body, there: Body) -> dict[str, Any]:
    """Of each setting the stricter one: a ruleset is never loosened, and what is in it besides stays."""
    known = {rule["type"]: rule for rule in there.get("rules") or []}
    rules = [_rule(rule, known.pop(rule["type"], {})) for rule in wanted["rules"]]
    refs = (there.get("conditions") or {}).get("ref_name") or {}
    kept = {key: there[key] for key in ("bypass_actors",) if there.get(key)}
    conditions = {"ref_name": {"include": _included(wanted, refs.get("include", [])), "exclude": []}}
    return {**wanted, **kept, "conditions": conditions, "rules": [*rules, *known.values()]}


def _included(wanted: Body, there: list[str]) -> list[str]:
    ours: list[str] = wanted["conditions"]["ref_name"]["include"]
    return there if "~ALL" in there else [*there, *(ref for ref in ours if ref not in there)]


def _rule(wanted: Body, there: Body) -> dict[str, Any]:
    before: Body = there.get("parameters") or {}
    merged = {key: _stricter_value(value, before.get(key)) for key, value in wanted.get("parameters", {}).items()}
    return {**there, **wanted, **({"parameters": {**before, **merged}} if before or merged else {})}


def _stricter_value(wanted: Any, there: Any) -> Any:
    """Numbers are approvals, lists are checks, and what is on asks for more than what is off."""
    if isinstance(wanted, list):
        return _checks(wanted, there or [])
    return max(wanted, there) if type(there) is type(wanted) else wanted


def _checks(wanted: list[Body], there: list[Body]) -> list[Body]:
    """A check is known by its name and the app that reports it; one that anybody may report becomes that app's."""
    found = {(check["context"], check.get("integration_id")): check for check in there}
    for each in wanted:
        name, app = each["context"], each.get("integration_id")
        if app is None and any(known == name for known, _ in found):
            continue
        anybodys = found.pop((name, None), {})
        found[name, app] = {**anybodys, **found.get((name, app), {}), **each}
    return list(found.values())


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
    transport: httpx.BaseTransport | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    words = parser().parse_args(arguments)
    try:
        environments = environment_files()
        options = options_of(words, environments)
        with connect(environ, transport) as http:
            return run(
                GitHub(http, words.repository or repository_of(environ), pause), environments, options, words.apply
            )
    except SetupError as error:
        print(f"github_setup: {error}", file=sys.stderr)
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
    wanted = targets(environments, look_up(github)["default_branch"], options)
    names = [target.name for target in wanted]
    live = read(github, names, options)
    check(wanted, live, options)
    found = changes(github.root, wanted, live, options)
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
        due = [change for change in changes(github.root, wanted, live, options) if change.method]
        if not due:
            return live
        try:
            for change in due:
                _write(github, change)
        except Lost:
            github.pause(1)
        live = read(github, [target.name for target in wanted], options)
    left = [str(c) for c in changes(github.root, wanted, live, options) if c.method]
    if left:
        raise SetupError(
            f"GitHub took the changes and still differs: {'; '.join(left)}. Look at the repository's settings."
        )
    return live


def _write(github: GitHub, change: Change) -> None:
    try:
        github.ask(change.method, change.path, change.body, bear=(404,) if change.method == "DELETE" else ())
    except SetupError as error:
        if "billing plan" in str(error) and change.body and "reviewers" in change.body:
            name = change.path.rpartition("/")[2]
            raise SetupError(
                f"{name} cannot have required reviewers: on Free, Pro and Team only public repositories have them. It may exist "
                "now without any, so give it no secrets. Make the repository public, choose GitHub Enterprise, or accept "
                "that with --without-reviewers."
            ) from None
        raise


def connect(environ: Mapping[str, str], transport: httpx.BaseTransport | None) -> httpx.Client:
    token = environ.get("GITHUB_TOKEN", "").strip()
    if not token:
        raise SetupError(
            "GITHUB_TOKEN is not set. Give a fine-grained token for this repository with Administration and Environments: "
            "read and write, Actions and Secrets: read; or: GITHUB_TOKEN=$(gh auth token)"
        )
    base = environ.get("GITHUB_API_URL") or "https://api.github.com"
    address = urlsplit(base)
    if address.scheme != "https" and address.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise SetupError(f"GITHUB_API_URL is {base}: a token is sent over https only.")
    headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
    headers |= {"Authorization": f"Bearer {token}", "User-Agent": "prefect-platform"}
    return httpx.Client(base_url=base, headers=headers, transport=transport, timeout=30)


def repository_of(environ: Mapping[str, str]) -> str:
    """From the workflow's variable, or the remote `origin`."""
    if given := environ.get("GITHUB_REPOSITORY"):
        return given
    done = subprocess.run(["git", "-C", str(ROOT), "remote", "get-url", "origin"], capture_output=True, text=True)
    found = re.search(r"[/:]([\w.-]+/[\w.-]+?)(?:\.git)?/?$", done.stdout.strip())
    if not found:
        raise SetupError("Which repository? Here is no remote `origin`: give --repository OWNER/NAME.")
    return found[1]


def options_of(words: argparse.Namespace, environments: Iterable[Environment]) -> Options:
    names = [each.name for each in environments]
    if words.reviewers and words.without_reviewers:
        raise SetupError("--reviewers or --without-reviewers: choose one.")
    if len(words.reviewers) > MOST_REVIEWERS:
        raise SetupError(f"GitHub takes {MOST_REVIEWERS} reviewers at most; a team counts as one.")
    if not 0 <= words.approvals <= MOST_APPROVALS:
        raise SetupError(f"--approvals {words.approvals}: GitHub takes 0 to {MOST_APPROVALS} of a pull request.")
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
        raise SetupError(f"{where}: there is no environments/{name}.yaml. There are: {', '.join(names)}.")


def _from_file(path: Path | None) -> dict[str, dict[str, str]]:
    """`dev: {PREFECT_API_URL: https://...}`, an environment a key."""
    if path is None:
        return {}
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SetupError(f"{path} cannot be read as YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(data, dict) or not all(isinstance(pairs, dict) for pairs in data.values()):
        raise SetupError(
            f"{path}: expected environments, each with its variables, such as dev: {{PREFECT_API_URL: ...}}."
        )
    return {str(name): {str(key): _text(value) for key, value in pairs.items()} for name, pairs in data.items()}


def _text(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _check_variable(name: str, variable: str, value: str) -> None:
    if variable not in SETTABLE:
        raise SetupError(
            f"{name}: {variable or 'nothing'} is no variable of the workflows. These are: {', '.join(SETTABLE)}."
        )
    if not value.strip():
        raise SetupError(
            f"{name}: {variable} is empty. scripts/github_setup.py sets no empty variable: every job would fail."
        )
    if re.search(r"://[^/]*@", value):
        raise SetupError(f"{name}: {variable} holds a credential, and variables are shown to everybody: use a secret.")


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
