"""Data for tests of the pure modules: each builder gives something valid, and takes what a test is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from deployer import comparable, plan
from deployer.catalog import Declaration, Declared
from deployer.desired import Scope
from deployer.environment import Environment, Policy
from deployer.model import Base, Change, Fields, Key, Live, Outcome, Plan, Release, Resource, Specification
from deployer.plan import History, Options, World
from deployer.yamlfile import Document

A, B, C = "a" * 40, "b" * 40, "c" * 40
SCOPE = Scope("shop", "dev")
OWNED = list(SCOPE.tags)
THEIRS = ["env:dev", "project:bakery"]


def resource(kind: str, name: str, **fields: Any) -> Resource:
    return Resource(kind, name, fields)


def schedule(slug: str | None = "evening", **changes: Any) -> dict[str, Any]:
    """In comparable form: at eight in the evening, unless `changes` has another rule."""
    rule = {} if {"interval", "rrule"} & set(changes) else {"cron": "0 20 * * *", "day_or": True}
    return {"slug": slug, "timezone": "UTC", "active": True, "parameters": {}, **rule, **changes}


def trigger(**changes: Any) -> dict[str, Any]:
    event = {"type": "event", "match": {}, "match_related": {}, "expect": ["order.paid"], "posture": "Reactive"}
    action = {"type": "run-deployment", "source": "selected", "deployment_id": comparable.placeholder("hello")}
    fields = {"description": "", "enabled": True, "tags": [], "trigger": event, "actions": [action]}
    return {**fields, "actions_on_trigger": [], "actions_on_resolve": [], **changes}


def deployment(name: str = "hello/hello", commit: str = A, tags: Iterable[str] = (), **fields: Any) -> Resource:
    """What the repository wants. Our owner tags are added."""
    step = {"prefect.deployments.steps.git_clone": {"repository": "https://git.example/shop", "commit_sha": commit}}
    blank = {
        "version": commit,
        "entrypoint": "flows/alpha/hello.py:hello",
        "description": "Says hello.",
        "pull_steps": [step],
        "parameter_openapi_schema": {"type": "object", "properties": {}},
        "enforce_parameter_schema": True,
        "work_pool": "dev-alpha",
        "tags": sorted({*OWNED, *tags}),
        "parameters": {},
        "job_variables": {},
        "paused": False,
        "schedules": [],
        "triggers": {},
    }
    return Resource("deployment", name, {**blank, **fields})


FILLED_IN: Mapping[str, Fields] = {
    "deployment": {
        "work_queue": "default",
        "concurrency_limit": None,
        "collision_strategy": "ENQUEUE",
        "grace_period_seconds": None,
    },
    "work_pool": {"description": None, "concurrency_limit": None, "base_job_template": {"variables": {}}},
    "work_queue": {"description": None, "concurrency_limit": None, "priority": 1},
}
"""What Prefect answers where nothing was said."""


def live(of: Resource, **changes: Any) -> Live:
    """The resource as it is after it was applied, and then changed."""
    fields = {**FILLED_IN.get(of.kind, {}), **of.fields, **changes}
    return Live(of.kind, of.name, f"id of {of.name}", fields)


def spec(*resources: Resource, commit: str = A, **more: Any) -> Specification:
    return Specification("shop", "dev", commit, "inputs", resources, **more)


def planned(
    wanted: Iterable[Resource] = (),
    lives: Iterable[Live] = (),
    *past: Specification,
    policy: Policy | None = None,
    foreign: Mapping[Key, str] | None = None,
    unmanaged: Iterable[Key] = (),
    scope: Scope = SCOPE,
    commit: str = A,
    **options: bool,
) -> Plan:
    """`past`: what the last successful release set, and those that failed since."""
    world = World({found.key: found for found in lives}, foreign or {})
    history = History(Base(7, past[0].commit) if past else None, past)
    rules = policy or Policy()
    return plan.plan(wanted, unmanaged, world, history, scope, rules, commit, "main", Options(**options))


def change(found: Plan, name: str = "hello/hello") -> Change:
    return next(c for c in found.changes if c.name == name)


def told(found: Plan, name: str = "hello/hello") -> dict[str, tuple[Any, Any]]:
    """The rows of one change: path -> before and after."""
    return {f.path: (f.before, f.after) for f in change(found, name).fields}


def actions(found: Plan) -> dict[str, str]:
    return {c.name: c.action for c in found.changes}


def guards(found: Plan) -> list[str]:
    return [r.guard for r in found.refusals]


def environment(**changes: Any) -> Environment:
    """Already read: `changes` are keys of the file."""
    blank = {
        "name": "dev",
        "mode": "development",
        "api": {"url": "http://127.0.0.1:1/api"},
        "refs": {"branches": ["main"]},
        "source": {"repository": "https://git.example/team/shop.git"},
        "work_pools": {"alpha": {"name": "dev-alpha", "type": "process"}},
    }
    return Environment.model_validate({**blank, **changes})


def declared(name: str = "hello", **changes: Any) -> Declared:
    item = {"name": name, "entrypoint": "flows/alpha/hello.py:hello", "pool": "alpha", **changes}
    return Declared(Declaration.model_validate(item), Document("flows/alpha/deployments.yaml", [item]), 0)


def release(number: int = 8, **changes: Any) -> Release:
    blank: dict[str, Any] = {
        "project": "shop",
        "environment": "dev",
        "commit": A,
        "ref": "main",
        "actor": "ada",
        "run_url": "https://ci.example/runs/1",
        "tool_version": "0.1.0",
        "digest": "d" * 64,
        "specification": "s" * 32,
        "summary": {"create": 1, "update": 2, "pause": 0, "delete": 0, "held": 3, "unchanged": 4},
        "started": "2026-01-31T12:00:00+00:00",
        "seconds": 1.5,
        "result": "succeeded",
    }
    return Release(number, **{**blank, **changes})


def outcome(name: str = "hello/hello", result: str = "done", error: str | None = None) -> Outcome:
    return Outcome("deployment", name, "update", result, error)
