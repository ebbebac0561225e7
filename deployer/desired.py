"""Environment + catalogue + what the loader answered -> what should exist. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deployer import comparable
from deployer.catalog import Declared
from deployer.environment import Environment, Limit, Overlay, Source
from deployer.errors import Problem
from deployer.fields import Schedule, value_of
from deployer.model import Hidden, Key, Resource, Specification, digest
from deployer.source import Code
from deployer.yamlfile import Document, Path

LOADERS_PLACEHOLDER = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True)
class Scope:
    """Whose deployments these are: the tags that mark them, and the form of their names."""

    project: str
    environment: str
    shared: bool = False
    preview: str | None = None

    @property
    def tags(self) -> tuple[str, ...]:
        own = (f"env:{self.environment}", f"project:{self.project}")
        return (*own, f"preview:{self.preview}") if self.preview else own

    @property
    def ledger(self) -> str:
        """What the names of the ledger's artifacts end in."""
        return f"{self.project}-{self.environment}" + (f"-{self.preview}" if self.preview else "")

    def name(self, name: str) -> str:
        """A declared name as it stands in Prefect."""
        parts = re.split(r"[-_]", name)
        suffixed = f"{name}-{self.environment}" if self.shared and self.environment not in parts else name
        return f"{self.preview}-{suffixed}" if self.preview else suffixed

    def owns(self, tags: list[str]) -> bool:
        """A preview's deployments belong to the preview alone."""
        previews = [t for t in tags if t.startswith("preview:")]
        return set(self.tags) <= set(tags) and (bool(previews) == bool(self.preview))


@dataclass(frozen=True)
class Request:
    """What the loader is asked for, in its words."""

    clone: dict[str, Any] | None
    steps: list[dict[str, Any]]
    deployments: list[dict[str, Any]] = field(default_factory=list)
    automations: list[dict[str, Any]] = field(default_factory=list)


def request(environment: Environment, declared: list[Declared], code: Code, commit: str, scope: Scope) -> Request:
    wanted = [d for d in declared if d.declaration.name not in environment.deployments.exclude]
    deployments = [_item(environment, d, code, commit, scope) for d in wanted]
    names = {d.declaration.name: scope.name(d.declaration.name) for d in wanted}
    automations = [] if scope.preview else [_automation(a.model_dump(), names) for a in environment.automations]
    return Request(code.clone, code.steps, deployments, automations)


def _item(environment: Environment, found: Declared, code: Code, commit: str, scope: Scope) -> dict[str, Any]:
    """One deployment, base and overlay merged: maps by key, tags added up, the rest replaced."""
    base, defaults = found.declaration, environment.deployments.defaults
    over = environment.deployments.overrides.get(base.name, Overlay())
    limit = over.concurrency_limit if over.concurrency_limit is not None else base.concurrency_limit
    schedules = over.schedules if over.schedules is not None else base.schedules
    active = defaults.schedules == "active" and not scope.preview
    pool = environment.work_pools[pool_key(environment, found)]
    return {
        "name": base.name,
        "deployment_name": scope.name(base.name),
        "entrypoint": base.entrypoint,
        "version": commit,
        "tags": sorted({*defaults.tags, *base.tags, *over.tags, *scope.tags}),
        "parameters": {**defaults.parameters, **base.parameters, **over.parameters},
        "job_variables": job_variables(environment, found, code),
        "description": over.description if over.description is not None else base.description,
        "work_pool_name": pool_name(scope, pool.name),
        "work_queue_name": over.queue if over.queue is not None else base.queue,
        "concurrency_limit": limit.model_dump() if isinstance(limit, Limit) else limit,
        "paused": over.paused if over.paused is not None else base.paused,
        "enforce_parameter_schema": base.enforce_parameter_schema
        if over.enforce_parameter_schema is None
        else over.enforce_parameter_schema,
        "schedules": [_schedule(s, active, scope) for s in schedules],
        "triggers": [
            {**t, "enabled": False} if scope.preview else t
            for t in (base.triggers if over.triggers is None else over.triggers)
        ],
    }


def pool_key(environment: Environment, found: Declared) -> str:
    over = environment.deployments.overrides.get(found.declaration.name)
    return (over and over.pool) or found.declaration.pool


def job_variables(environment: Environment, found: Declared, code: Code) -> dict[str, Any]:
    over = environment.deployments.overrides.get(found.declaration.name, Overlay())
    defaults = environment.deployments.defaults
    return {
        **code.job_variables,
        **defaults.job_variables,
        **found.declaration.job_variables,
        **over.job_variables,
    }


def source_in(environment: Environment, scope: Scope) -> Source:
    """The source with its Secret block by the name that the block has in Prefect."""
    found, block = environment.source, environment.source.credentials
    if block not in environment.secrets:
        return found
    return found.model_copy(update={"credentials": pool_name(scope, block)})


def pool_name(scope: Scope, name: str) -> str:
    """Pools are the environment's, also for its previews."""
    return Scope(scope.project, scope.environment, scope.shared).name(name)


def _schedule(schedule: Schedule, active: bool, scope: Scope) -> dict[str, Any]:
    chosen = active if schedule.active is None or scope.preview else schedule.active
    return {**schedule.model_dump(), "active": chosen}


def _automation(given: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """`deployment: NAME` in an action, and `{deployment:NAME}` in any text, become the placeholder of that deployment."""

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            filled = {key: fill(inner) for key, inner in value.items()}
            if "deployment" in filled and _runs_deployment(filled):
                name = str(filled.pop("deployment"))
                filled |= {"deployment_id": comparable.placeholder(names.get(name, name)), "source": "selected"}
            return filled
        if isinstance(value, list):
            return [fill(inner) for inner in value]
        if isinstance(value, str):
            return _IN_TEXT.sub(lambda m: comparable.placeholder(names.get(m[1], m[1])), value)
        return value

    return dict(fill(given))


def unknown_deployments(environment: Environment, names: set[str]) -> list[tuple[int, str]]:
    """Automations that speak of a deployment that is not deployed here."""
    return [
        (index, name)
        for index, automation in enumerate(environment.automations)
        for name in dict.fromkeys(_named(automation.model_dump()))
        if name not in names
    ]


def _named(value: Any) -> list[str]:
    """The deployments that a part of an automation speaks of, in both ways that _automation fills in."""
    if isinstance(value, dict):
        runs = [str(value["deployment"])] if "deployment" in value and _runs_deployment(value) else []
        return runs + [name for inner in value.values() for name in _named(inner)]
    if isinstance(value, list):
        return [name for inner in value for name in _named(inner)]
    return _IN_TEXT.findall(value) if isinstance(value, str) else []


def _runs_deployment(action: Mapping[str, Any]) -> bool:
    return str(action.get("type", "")).endswith("-deployment")


_IN_TEXT = re.compile(r"\{deployment:([a-z0-9-]+)\}")


def inputs_of(request: Request, environment: Environment, scope: Scope) -> str:
    """Identifies everything a specification is made from, but the flows themselves: those are the commit's."""
    files = environment.model_dump(mode="json", exclude={"api", "refs", "policy", "mode"})
    return digest({"request": request.__dict__, "environment": files, "scope": scope.__dict__})


def specification(
    environment: Environment,
    request: Request,
    answer: Mapping[str, Any],
    templates: Mapping[str, Any],
    scope: Scope,
    commit: str,
    inputs: str,
) -> Specification:
    """All wanted resources in comparable form. Secrets are named, not valued. `templates`: pool key -> base job template."""
    resources = [] if scope.preview else [*_settings(environment, scope), *_pools(environment, templates, scope)]
    resources += [_deployment(item, answer["deployments"][item["name"]]) for item in request.deployments]
    resources += [
        Resource("automation", a["name"], comparable.automation(answer["automations"][a["name"]]))
        for a in request.automations
    ]
    secrets = {} if scope.preview else {scope.name(name): reference for name, reference in environment.secrets.items()}
    return Specification(scope.project, scope.environment, commit, inputs, tuple(resources), secrets=secrets)


def _settings(environment: Environment, scope: Scope) -> list[Resource]:
    limits = [
        Resource("concurrency_limit", scope.name(name), limit.model_dump())
        for name, limit in environment.concurrency_limits.items()
    ]
    variables = [
        Resource("variable", scope.name(name), {"value": value}) for name, value in environment.variables.items()
    ]
    return [*variables, *limits]


def _pools(environment: Environment, templates: Mapping[str, Any], scope: Scope) -> list[Resource]:
    resources = []
    for key, pool in environment.work_pools.items():
        name = pool_name(scope, pool.name)
        fields = {
            k: v for k, v in pool.model_dump(exclude={"name", "queues", "base_job_template"}).items() if v is not None
        }
        if key in templates:
            fields["base_job_template"] = templates[key]
        resources.append(Resource("work_pool", name, fields))
        for queue, settings in pool.queues.items():
            chosen = {k: v for k, v in settings.model_dump().items() if v is not None}
            resources.append(Resource("work_queue", f"{name}/{queue}", chosen))
    return resources


def _deployment(item: Mapping[str, Any], answer: Mapping[str, Any]) -> Resource:
    own = {LOADERS_PLACEHOLDER: comparable.placeholder(item["deployment_name"])}
    limit = item["concurrency_limit"]
    fields: dict[str, Any] = {
        "version": item["version"],
        "entrypoint": answer["entrypoint"],
        "description": answer["description"],
        "pull_steps": answer["pull_steps"],
        "parameter_openapi_schema": answer["parameter_openapi_schema"],
        "enforce_parameter_schema": item["enforce_parameter_schema"],
        "work_pool": item["work_pool_name"],
        "tags": item["tags"],
        "parameters": answer["parameters"],
        "job_variables": answer["job_variables"],
        "paused": bool(item["paused"]),
        "schedules": [_wanted_schedule(s) for s in item["schedules"]],
        "triggers": {t["name"]: comparable.automation(comparable.with_ids(t, own)) for t in answer["triggers"]},
    }
    if item["work_queue_name"]:
        fields["work_queue"] = item["work_queue_name"]
    if limit is not None:
        chosen = limit if isinstance(limit, Mapping) else {"limit": limit}
        fields["concurrency_limit"] = chosen["limit"]
        fields |= {k: chosen[k] for k in ("collision_strategy", "grace_period_seconds") if chosen.get(k) is not None}
    return Resource("deployment", f"{answer['flow_name']}/{item['deployment_name']}", fields)


def _wanted_schedule(item: Mapping[str, Any]) -> dict[str, Any]:
    rule = {k: item[k] for k in ("cron", "interval", "rrule", "timezone", "day_or", "anchor_date")}
    return comparable.schedule(
        {"slug": item["slug"], "schedule": rule, "active": item["active"], "parameters": item["parameters"]}
    )


def with_secrets(spec: Specification, variables: Mapping[str, str]) -> tuple[list[Resource], list[Key]]:
    """The secrets that have a value now, and those that are not managed. Values live in memory only."""
    managed, unmanaged = [], []
    for name, reference in spec.secrets.items():
        value = value_of(reference, variables)
        if value:
            managed.append(Resource("secret", name, {"value": Hidden(value)}))
        else:
            unmanaged.append(("secret", name))
    return managed, unmanaged


def leaks(resources: list[Resource], secrets: list[Resource]) -> list[str]:
    """Where a secret's value stands in what everybody may read: Prefect shows job variables and parameters in clear."""
    values = {s.name: s.fields["value"].reveal() for s in secrets if len(s.fields["value"].reveal()) >= 6}
    found = []
    for resource in resources:
        texts = [text for part in READABLE for text in _texts(resource.fields.get(part))]
        found += [
            f"{resource.kind} {resource.name} holds the value of the secret '{name}'"
            for name, value in values.items()
            if any(value in text for text in texts)
        ]
    return found


def told_too_much(request: Request, known: Mapping[str, str]) -> str | None:
    """Before any of the commit's code runs: what the loader is asked must not hold what it shall not know. `known`: name -> value."""
    texts = _texts([request.deployments, request.automations, request.steps, request.clone])
    for name, value in known.items():
        if len(value) >= 6 and any(value in text for text in texts):
            return f"A parameter, job variable or the like holds the value of {name}. Everybody can read it there: use a Secret block inside the flow instead."
    return None


READABLE = (
    *("job_variables", "parameters", "schedules", "triggers", "description", "tags"),
    *("value", "trigger", "actions", "actions_on_trigger", "actions_on_resolve"),
)


def _texts(value: Any) -> list[str]:
    """Every text and number in a value. Keys are words of Prefect's, or of the flow's."""
    if isinstance(value, Mapping):
        return [text for inner in value.values() for text in _texts(inner)]
    if isinstance(value, list | tuple):
        return [text for inner in value for text in _texts(inner)]
    return [str(value)] if isinstance(value, str | int | float) else []


def loader_problems(answer: Mapping[str, Any], declared: list[Declared], environment: Document) -> list[Problem]:
    """The loader's faults, each at its line: in a deployments.yaml, or in the environment file that overlays it."""
    by_name = {d.declaration.name: d for d in declared}
    problems = []
    for name, found in answer["deployments"].items():
        for fault in found.get("faults", ()):
            where = tuple(p for p in re.split(r"[.\[\]]+", fault["at"]) if p) or ("entrypoint",)
            path = tuple(int(p) if p.isdecimal() else p for p in where)
            problems.append(overlaid(by_name[name], path, fault["message"], environment))
    written = environment.data.get("automations", []) if isinstance(environment.data, Mapping) else []
    places = {item["name"]: index for index, item in enumerate(written)}
    for name, found in answer["automations"].items():
        at = ("automations", places.get(name, name))
        problems += [environment.problem(at, f["message"]) for f in found.get("faults", ())]
    return problems


def overlaid(found: Declared, path: Path, message: str, environment: Document) -> Problem:
    """A value of the environment's wins over the deployment's own, and that over the environment's defaults."""
    override = ("deployments", "overrides", found.declaration.name)
    default = ("deployments", "defaults")
    if (*override, *path[:2]) in environment.lines:
        return environment.problem((*override, *path), message)
    if (found.index, *path[:2]) not in found.document.lines and (*default, *path[:2]) in environment.lines:
        return environment.problem((*default, *path), message)
    return found.problem(path, message)
