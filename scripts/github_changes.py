"""What differs between what a GitHub repository should have and what it has. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.github_rest import GitHubError, Json
from scripts.github_there import Body, Live
from scripts.github_wanted import MOST_REVIEWERS, REPLAN, TOKEN_OF_WORKFLOWS, Options, Target, rulesets


@dataclass(frozen=True)
class Change:
    """`+` to create, `~` to change, `-` to remove, `=` is so already."""

    sign: str
    what: str
    method: str = ""
    path: str = ""
    body: Json | None = None

    def __str__(self) -> str:
        return f"{self.sign} {self.what}"


def check(wanted: Sequence[Target], live: Live, options: Options) -> None:
    """Before anything is written: can production be guarded?"""
    private = bool(live.repository.get("private"))
    name, plan = live.repository["full_name"], live.plan.title()
    if private and live.plan == "free":
        raise GitHubError(
            f"{name} is private and its owner's plan is Free: environments have neither secrets nor branch policies there. "
            "Make the repository public, or choose a plan that has them. Nothing was written."
        )
    if options.without_reviewers:
        return
    for target in (target for target in wanted if target.guarded):
        if private and live.plan and not live.plan.startswith(("enterprise", "business")):
            raise GitHubError(
                f"{name} is private and its owner's plan is {plan}: on Free, Pro and Team only public repositories have "
                f"required reviewers, so {target.name} would be deployed to without an approval. Nothing was written. Make the "
                "repository public, choose GitHub Enterprise, or accept that with --without-reviewers."
            )
        if not live.reviewers and not live.reviewers_of(target.name):
            raise GitHubError(
                f"{target.name} has no reviewers: whoever can push a tag could deploy to it. Nothing was written. Name up to "
                f"{MOST_REVIEWERS} with --reviewers LOGIN ORG/TEAM, or accept that with --without-reviewers."
            )


def changes(wanted: Sequence[Target], live: Live, options: Options) -> list[Change]:
    """In the order in which they are made: a GitHub environment lets nothing in until it has its policies."""
    found = [change for target in wanted for change in _about(f"environments/{target.name}", target, live)]
    found += [
        _about_ruleset(ruleset, live)
        for ruleset in rulesets(options, live.actions_app)
        if live.pushed or ruleset["target"] == "tag"
    ]
    same = {key: live.workflows.get(key) for key in TOKEN_OF_WORKFLOWS} == TOKEN_OF_WORKFLOWS
    what = "workflows: a token that may read only, unless a job says more"
    path = "actions/permissions/workflow"
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


def _about_ruleset(wanted: dict[str, Any], live: Live) -> Change:
    what = f"ruleset: {wanted['name']}"
    there = live.rulesets.get(wanted["name"])
    if there is None:
        return Change("+", what, "POST", "rulesets", wanted)
    body = stricter(wanted, there)
    if _sorted(body) == _sorted({key: there.get(key) for key in body}):
        return Change("=", what)
    return Change("~", what, "PUT", f"rulesets/{there['id']}", body)


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
