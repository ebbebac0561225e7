"""What of that a GitHub repository has: all that the changes are decided by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from scripts.github_rest import GitHub, GitHubError, Json, quoted
from scripts.github_wanted import Options, Policy, rulesets

Body = Mapping[str, Any]


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


def read(github: GitHub, repository: Body, names: Iterable[str], options: Options) -> Live:
    """`names`: of the environments that there should be."""
    wanted = set(names)
    there = {e["name"]: e for e in github.pages("environments", "environments") if e["name"] in wanted}
    secrets = {name: f"environments/{name}/secrets" for name in there}
    return Live(
        repository,
        _plan(github, repository),
        (find(github, "/apps/github-actions") or {}).get("id"),
        tuple(_reviewer(github, name) for name in options.reviewers),
        there,
        {name: _policies(github, e) for name, e in there.items()},
        {name: _listed(github, path) for name, path in {**secrets, "": "actions/secrets"}.items()},
        {name: _variables(github, name) for name in there},
        {r["name"]: r for r in _rulesets(github)},
        github.get("actions/permissions/workflow"),
        _pushed(github, repository),
    )


def look_up(github: GitHub) -> Body:
    found = find(github, "")
    if found is None:
        raise GitHubError(f"There is no repository {github.repository}, or the token in GITHUB_TOKEN cannot see it.")
    return found


def find(github: GitHub, path: str) -> Json | None:
    """None: it is not there, or not for us to see."""
    try:
        return github.get(path)
    except GitHubError as error:
        if error.status in (403, 404, 409):
            return None
        raise


def _pushed(github: GitHub, repository: Body) -> bool:
    """A token that may not read the code of a private repository must not be taken for a repository without any: the
    default branch would stay without rules for good."""
    branch = repository["default_branch"]
    try:
        github.get(f"branches/{quoted(branch)}")
    except GitHubError as error:
        if error.status not in (404, 409):
            raise
        if repository.get("size"):
            raise GitHubError(
                f"The repository {repository['full_name']} is not empty, and this token does not see its default branch "
                f"{branch}. A fine-grained token needs the permission Contents: read; or the branch is not there. Nothing was written."
            ) from None
        return False
    return True


def _plan(github: GitHub, repository: Body) -> str:
    """Its owner's, in lower case; empty if this token cannot see it."""
    owner = repository["owner"]
    account = find(github, f"/orgs/{owner['login']}" if owner["type"] == "Organization" else "/user") or {}
    known = account.get("plan") if account.get("login", "").lower() == owner["login"].lower() else None
    return str((known or {}).get("name", "")).lower()


def _reviewer(github: GitHub, name: str) -> tuple[str, int]:
    organisation, slash, team = name.partition("/")
    path = f"/orgs/{quoted(organisation)}/teams/{quoted(team)}" if slash else f"/users/{quoted(name)}"
    found = find(github, path)
    if found is None:
        kind = "team (or the token lacks the organisation permission Members: read)" if slash else "user"
        raise GitHubError(
            f"--reviewers {name}: GitHub knows no such {kind}. Write LOGIN, or ORG/TEAM by the team's slug."
        )
    return ("Team" if slash else "User", int(found["id"]))


def _policies(github: GitHub, environment: Body) -> dict[Policy, int]:
    if not (environment.get("deployment_branch_policy") or {}).get("custom_branch_policies"):
        return {}
    path = f"environments/{environment['name']}/deployment-branch-policies"
    listed = github.pages(path, "branch_policies")
    return {Policy(each.get("type", "branch"), each["name"]): each["id"] for each in listed}


def _listed(github: GitHub, path: str) -> frozenset[str]:
    return frozenset(each["name"] for each in github.pages(path, "secrets"))


def _variables(github: GitHub, name: str) -> dict[str, str]:
    listed = github.pages(f"environments/{name}/variables", "variables", per_page="30")  # no more are given at once
    return {each["name"]: each["value"] for each in listed}


def _rulesets(github: GitHub) -> Iterator[Body]:
    """With their rules, which the list leaves out. One from the organisation is not ours."""
    names = {ruleset["name"] for ruleset in rulesets(Options(), None)}
    for each in github.pages("rulesets"):
        if each["name"] in names and each.get("source_type", "Repository") == "Repository":
            yield github.get(f"rulesets/{each['id']}")
