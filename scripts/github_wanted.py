"""What a GitHub repository should have for the workflows: environments, who may use them, and rulesets. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployer.environment import REFERENCE, Environment, Refs

PREVIEWED = "dev"
"""The environment that pull requests are planned against, and that previews live in."""
PREVIEW = "preview"
REPLAN = "REPLAN"
"""Where it is `true`, a plan that the live state has moved away from is planned anew. An approval is for one plan."""
MOST_REVIEWERS = 6


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


TOKEN_OF_WORKFLOWS: dict[str, Any] = {"default_workflow_permissions": "read", "can_approve_pull_request_reviews": False}
