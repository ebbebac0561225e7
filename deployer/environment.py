"""environments/NAME.yaml -> Environment: all that differs between environments, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from deployer.errors import Problem
from deployer.fields import Json, Name, PrefectName, Schedule, Strict, read, secret_literals
from deployer.model import canonical
from deployer.yamlfile import Document, Path, parse

FOLDER = "environments"
REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class Api(Strict):
    url: str = Field(
        description="Ends in /api. Never a default: without it Prefect would start an empty server of its own."
    )
    key: str = Field("", description="Prefect Cloud.")
    auth_string: str = Field("", description="Self-hosted: user:password.")
    shared: bool = Field(False, description="Other environments live on the same API; names then end in -<env>.")


class Refs(Strict):
    """What may be deployed here, in GitHub's filter patterns; ! excludes."""

    branches: list[str] = Field(default_factory=list)
    tags: list[str] = Field(default_factory=list)


class Source(Strict):
    """How workers get the code."""

    strategy: Literal["git", "cached", "image", "local"] = Field(
        "git",
        description="git: a clone a run; cached: one checkout a commit and machine; image: baked in; local: a folder.",
    )
    repository: str | None = Field(None, description="The URL that workers clone.")
    credentials: str | None = Field(None, description="Name of the Secret block with a token for the repository.")
    image: str | None = Field(None, description="image only: reference; {commit} stands for the full SHA.")
    directory: str | None = Field(None, description="image and local: where the code lies.")

    @model_validator(mode="after")
    def _complete(self) -> Source:
        needs = {
            "git": ["repository"],
            "cached": ["repository"],
            "image": ["image", "directory"],
            "local": ["directory"],
        }
        missing = [key for key in needs[self.strategy] if not getattr(self, key)]
        if missing:
            raise ValueError(f"strategy '{self.strategy}' needs {' and '.join(missing)}")
        return self


class WorkQueue(Strict):
    description: str | None = None
    concurrency_limit: int | None = Field(None, ge=0)
    priority: int | None = Field(None, ge=1)


class WorkPool(Strict):
    name: PrefectName
    type: str = Field(examples=["process", "docker", "kubernetes", "ecs"])
    description: str | None = None
    concurrency_limit: int | None = Field(None, ge=0)
    base_job_template: str | None = Field(None, description="Path of a JSON file in the repository.")
    queues: dict[PrefectName, WorkQueue] = Field(default_factory=dict)


class ConcurrencyLimit(Strict):
    limit: int = Field(ge=0)
    slot_decay_per_second: float = Field(0.0, ge=0)
    active: bool = True


class Automation(Strict):
    """A Prefect automation. `deployment: <catalogue name>` in an action stands for the deployment's id."""

    name: str = Field(min_length=1)
    description: str = ""
    enabled: bool = True
    tags: list[str] = Field(default_factory=list)
    trigger: dict[str, Json]
    actions: list[dict[str, Json]]
    actions_on_trigger: list[dict[str, Json]] = Field(default_factory=list)
    actions_on_resolve: list[dict[str, Json]] = Field(default_factory=list)


class Limit(Strict):
    """How many runs of one deployment at a time, and what becomes of the next."""

    limit: int = Field(ge=1)
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"] = "ENQUEUE"
    grace_period_seconds: int | None = Field(None, ge=60, le=86400)


class Overlay(Strict):
    """What an environment may say differently of one deployment. Maps merge by key, tags add up, the rest replaces."""

    pool: str | None = None
    queue: PrefectName | None = None
    schedules: list[Schedule] | None = None
    parameters: dict[str, Json] = Field(default_factory=dict)
    job_variables: dict[str, Json] = Field(default_factory=dict)
    tags: list[str] = Field(default_factory=list)
    description: str | None = None
    concurrency_limit: Annotated[int, Field(ge=1)] | Limit | None = None
    paused: bool | None = None
    enforce_parameter_schema: bool | None = None
    triggers: list[dict[str, Json]] | None = None


class Defaults(Strict):
    tags: list[str] = Field(default_factory=list)
    schedules: Literal["active", "paused"] = "active"
    parameters: dict[str, Json] = Field(default_factory=dict)
    job_variables: dict[str, Json] = Field(default_factory=dict)


class Deployments(Strict):
    defaults: Defaults = Field(default_factory=Defaults)
    overrides: dict[Name, Overlay] = Field(default_factory=dict)
    exclude: list[Name] = Field(default_factory=list)


class Policy(Strict):
    prune: Literal["pause", "delete", "keep"] = "pause"
    max_removals: Annotated[str, Field(pattern=r"^(100|[0-9]{1,2})%$")] | Annotated[int, Field(ge=0)] = Field(
        "30%", description="Removed deployments in one deploy, from 10 owned ones on; more needs --allow-removals."
    )
    requires: dict[str, Json] = Field(
        default_factory=dict, max_length=0, description="Promotion gate; not available yet."
    )
    smoke: list[Json] = Field(default_factory=list, max_length=0, description="Smoke runs; not available yet.")


class Environment(Strict):
    """One environment file, its variables filled in, but for `secrets`: those stay references."""

    name: Name
    mode: Literal["development", "production"] = Field(
        description="development: any commit of an allowed ref, older ones too; production: strict guards."
    )
    project: Name | None = Field(None, description="Owner tag. Default: the last part of the repository's URL.")
    api: Api
    refs: Refs
    source: Source
    work_pools: dict[Name, WorkPool]
    concurrency_limits: dict[PrefectName, ConcurrencyLimit] = Field(default_factory=dict)
    variables: dict[Annotated[str, Field(pattern=r"^[a-z0-9_-]+$", max_length=255)], Json] = Field(default_factory=dict)
    secrets: dict[Annotated[str, Field(pattern=r"^[a-z0-9-]+$")], str] = Field(
        default_factory=dict, description="Secret block -> ${VARIABLE}. Empty: not managed, never written."
    )
    automations: list[Automation] = Field(default_factory=list)
    deployments: Deployments = Field(default_factory=Deployments)
    policy: Policy = Field(default_factory=Policy)

    @property
    def owner(self) -> str:
        return self.project or project_of(self.source.repository or self.source.directory or "project")


def project_of(url: str) -> str:
    """`https://host/Team/My_Repo.git` -> `my-repo`."""
    last = url.rstrip("/").removesuffix(".git").replace(":", "/").rsplit("/", 1)[-1]
    return re.sub(r"[^a-z0-9]+", "-", last.lower()).strip("-") or "project"


def load(text: str, file: str, variables: Mapping[str, str] | None) -> tuple[Environment | None, list[Problem]]:
    """One file -> Environment, or its faults. `variables` None: leave `${NAME}` as it stands and ask for none."""
    document = parse(text, file)
    if document.problems or document.data is None:
        return None, list(document.problems) or [Problem(file, None, "", "the file is empty.")]
    problems = _secret_faults(document)
    data, missing, unresolved = _interpolate(document.data, document, variables)
    environment, faults = read(Environment, data, document, unresolved=unresolved)
    problems += missing + faults
    if environment and not problems:
        problems += _cross_faults(environment, document)
    return (environment if not problems else None), problems


def _interpolate(
    data: Any, document: Document, variables: Mapping[str, str] | None
) -> tuple[Any, list[Problem], list[Path]]:
    problems: list[Problem] = []
    unresolved: list[Path] = []

    def fill(value: Any, path: Path) -> Any:
        if isinstance(value, dict):
            return {key: fill(inner, (*path, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [fill(inner, (*path, index)) for index, inner in enumerate(value)]
        return REFERENCE.sub(lambda m: lookup(m, path), value) if isinstance(value, str) else value

    def lookup(match: re.Match[str], path: Path) -> str:
        name, default = match.group(1), match.group(2)
        if variables is None:
            unresolved.append(path)
            return match.group(0)
        if variables.get(name) or default is not None or (path[0] == "secrets" and name in variables):
            return match.group(0) if path[0] == "secrets" else variables.get(name) or default or ""
        problems.append(
            document.problem(path, f"the variable {name} is not set. Set it, or write ${{{name}:-default}}.")
        )
        unresolved.append(path)
        return match.group(0)

    return fill(data, ()), problems, unresolved


def _secret_faults(document: Document) -> list[Problem]:
    data = document.data if isinstance(document.data, dict) else {}
    secrets = data.get("secrets")
    problems: list[Problem] = []
    for name, value in (secrets if isinstance(secrets, dict) else {}).items():
        if (
            not isinstance(value, str)
            or not REFERENCE.fullmatch(value)
            or (REFERENCE.fullmatch(value) or [0, 0, ""])[2]
        ):
            problems.append(
                document.problem(
                    ("secrets", name),
                    "must be one reference such as ${VARIABLE:-}; a secret's value is no part of a file.",
                )
            )
    for part in ("variables", "deployments", "work_pools", "automations"):
        problems += secret_literals(data.get(part), document, (part,))
    api = data.get("api") if isinstance(data.get("api"), dict) else {}
    for key in ("key", "auth_string"):
        value = api.get(key) if isinstance(api, dict) else None
        if isinstance(value, str) and value and "${" not in value:
            problems.append(
                document.problem(
                    ("api", key), "must be a reference such as ${PREFECT_API_KEY:-}; a credential is no part of a file."
                )
            )
    return problems


def _cross_faults(environment: Environment, document: Document) -> list[Problem]:
    problems: list[Problem] = []
    names: dict[str, str] = {}
    for key, pool in environment.work_pools.items():
        if pool.name in names:
            problems.append(
                document.problem(("work_pools", key, "name"), f"'{pool.name}' is the pool of '{names[pool.name]}' too.")
            )
        names[pool.name] = key
    url = environment.source.repository or ""
    if re.match(r"https?://[^/]*@", url):
        problems.append(
            document.problem(
                ("source", "repository"), "holds a credential; name a Secret block in source.credentials instead."
            )
        )
    seen: set[str] = set()
    for index, automation in enumerate(environment.automations):
        if automation.name in seen:
            problems.append(document.problem(("automations", index, "name"), f"'{automation.name}' is given twice."))
        seen.add(automation.name)
    for name, value in environment.variables.items():
        if len(canonical(value)) > 5000:
            problems.append(document.problem(("variables", name), "a Prefect variable holds 5000 characters at most."))
    stem = document.file.rsplit("/", 1)[-1].removesuffix(".yaml")
    if environment.name != stem:
        problems.append(
            document.problem(
                ("name",), f"'{environment.name}' stands in the file of '{stem}'; name and file must agree."
            )
        )
    return problems
