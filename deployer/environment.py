"""environments/NAME.yaml -> Environment: all that differs between environments, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from deployer.errors import Problem
from deployer.fields import (
    BLOCK_NAME,
    SHARE,
    VARIABLE_NAME,
    WHOLE,
    Json,
    Line,
    Name,
    PrefectName,
    Schedule,
    Strict,
    Tag,
    read,
    secret_literals,
    twice,
    unprintable,
)
from deployer.fields import REFERENCE as REFERENCE
from deployer.model import canonical
from deployer.yamlfile import Document, Path, parse

FOLDER = "environments"


Pasted = Annotated[str, StringConstraints(strip_whitespace=True)]
"""Into a CI's form; then it often ends in a line break."""


class Api(Strict):
    url: Pasted = Field(
        description="Ends in /api. Never a default: without it Prefect would start an empty server of its own."
    )
    key: Pasted = Field("", description="Prefect Cloud.")
    auth_string: Pasted = Field("", description="Self-hosted: user:password.")
    shared: bool = Field(False, description="Other environments live on the same API; names then end in -<env>.")


class Refs(Strict):
    """What may be deployed here, in GitHub's filter patterns; ! excludes."""

    branches: list[str] = Field(default_factory=list)
    tags: list[str] = Field(default_factory=list)


def _address(url: str) -> str:
    if url.startswith("-") or not url.isprintable():
        raise ValueError("no address that Git clones begins with a dash or holds a control character")
    return url


def _block(name: str) -> str:
    if name and not re.fullmatch(BLOCK_NAME, name):
        raise ValueError(f"'{name}' can name no Secret block; expected small letters, digits and dashes")
    return name


class Source(Strict):
    """How workers get the code."""

    strategy: Literal["git", "cached", "image", "local"] = Field(
        "git",
        description="git: a clone a run; cached: one checkout a commit and machine; image: baked in; local: a folder.",
    )
    repository: Annotated[Pasted, AfterValidator(_address)] | None = Field(
        None, description="The URL that workers clone."
    )
    credentials: Annotated[str, AfterValidator(_block)] | None = Field(
        None, description="Name of the Secret block with a token for the repository."
    )
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
    concurrency_limit: Annotated[int, Field(ge=0), WHOLE] | None = None
    priority: Annotated[int, Field(ge=1), WHOLE] | None = None


def _not_prefects(name: str) -> str:
    if name.lower().startswith("prefect"):
        raise ValueError(f"'{name}': names that start with 'Prefect' are its own; choose another")
    return name


class WorkPool(Strict):
    name: Annotated[PrefectName, AfterValidator(_not_prefects)]
    type: str = Field(examples=["process", "docker", "kubernetes", "ecs"])
    description: str | None = None
    concurrency_limit: Annotated[int, Field(ge=0), WHOLE] | None = None
    base_job_template: str | None = Field(None, description="Path of a JSON file in the repository.")
    queues: dict[PrefectName, WorkQueue] = Field(default_factory=dict)


class ConcurrencyLimit(Strict):
    limit: Annotated[int, Field(ge=0), WHOLE]
    slot_decay_per_second: float = Field(0.0, ge=0)
    active: bool = True


class Automation(Strict):
    """A Prefect automation. `deployment: <catalogue name>` in an action stands for the deployment's id."""

    name: Line
    description: str = ""
    enabled: bool = True
    tags: list[str] = Field(default_factory=list)
    trigger: dict[str, Json]
    actions: list[dict[str, Json]]
    actions_on_trigger: list[dict[str, Json]] = Field(default_factory=list)
    actions_on_resolve: list[dict[str, Json]] = Field(default_factory=list)


class Limit(Strict):
    """How many runs of one deployment at a time, and what becomes of the next."""

    limit: Annotated[int, Field(ge=1), WHOLE]
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"] = "ENQUEUE"
    grace_period_seconds: Annotated[int, Field(ge=60, le=86400), WHOLE] | None = None


class Overlay(Strict):
    """What an environment may say differently of one deployment. Maps merge by key, tags add up, the rest replaces."""

    pool: str | None = None
    queue: PrefectName | None = None
    schedules: list[Schedule] | None = None
    parameters: dict[str, Json] = Field(default_factory=dict)
    job_variables: dict[str, Json] = Field(default_factory=dict)
    tags: list[Tag] = Field(default_factory=list)
    description: str | None = None
    concurrency_limit: Annotated[int, Field(ge=1), WHOLE] | Limit | None = None
    paused: bool | None = None
    enforce_parameter_schema: bool | None = None
    triggers: list[dict[str, Json]] | None = None


class Defaults(Strict):
    tags: list[Tag] = Field(default_factory=list)
    schedules: Literal["active", "paused"] = "active"
    parameters: dict[str, Json] = Field(default_factory=dict)
    job_variables: dict[str, Json] = Field(default_factory=dict)


class Deployments(Strict):
    defaults: Defaults = Field(default_factory=Defaults)
    overrides: dict[Name, Overlay] = Field(default_factory=dict)
    exclude: list[Name] = Field(default_factory=list)


def _later(value: Any) -> Any:
    if value:
        raise ValueError("not available yet; leave it out")
    return value


class Policy(Strict):
    prune: Literal["pause", "delete", "keep"] = "pause"
    max_removals: Annotated[str, Field(pattern=SHARE)] | Annotated[int, Field(ge=0), WHOLE] = Field(
        "30%", description="Removed deployments in one deploy, from 10 owned ones on; more needs --allow-removals."
    )
    requires: Annotated[dict[str, Json], AfterValidator(_later)] = Field(
        default_factory=dict, description="Promotion gate; not available yet.", json_schema_extra={"maxProperties": 0}
    )
    smoke: Annotated[list[Json], AfterValidator(_later)] = Field(
        default_factory=list, description="Smoke runs; not available yet.", json_schema_extra={"maxItems": 0}
    )


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
    variables: dict[Annotated[str, Field(pattern=VARIABLE_NAME, max_length=255)], Json] = Field(default_factory=dict)
    secrets: dict[Annotated[str, Field(pattern=BLOCK_NAME)], str] = Field(
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


class Readable(NamedTuple):
    """The variables that a commit's version of a file may read: as secrets, and as anything else but the API's."""

    secrets: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()


def readable(text: str, file: str) -> Readable:
    """Those that this version reads."""
    data = _mapping(parse(text, file).data)
    others = {key: value for key, value in data.items() if key not in ("api", "secrets")}
    return Readable(_referred(data.get("secrets")), _referred(others))


def hidden(text: str, file: str, variables: Mapping[str, str]) -> set[str]:
    """What the file's secrets and the API's credentials are here: nobody should see these values."""
    data = _mapping(parse(text, file).data)
    api = _mapping(data.get("api"))
    names = _referred([api.get("key"), api.get("auth_string"), data.get("secrets")])
    values = {variables.get(name, "").strip() for name in names}
    passwords = {variables.get(name, "").strip().partition(":")[2] for name in _referred([api.get("auth_string")])}
    return (values | {word for word in passwords if len(word) >= LEAST_HIDDEN}) - {""}


LEAST_HIDDEN = 6
"""Characters of a part of a secret: hiding a shorter word would hide half of a log."""


def _referred(value: Any) -> frozenset[str]:
    if isinstance(value, dict | list):
        return frozenset(
            name for inner in (value.values() if isinstance(value, dict) else value) for name in _referred(inner)
        )
    return frozenset(match[1] for match in REFERENCE.finditer(value)) if isinstance(value, str) else frozenset()


def load(
    text: str, file: str, variables: Mapping[str, str] | None, own: Readable | None = None
) -> tuple[Environment | None, list[Problem]]:
    """One file -> Environment, and its faults. `variables` None: leave `${NAME}` as it stands and ask for none.

    `own`: the file is a commit's, and these are the variables that the tool's own checkout lets it read.

    With faults, the environment is what could be read besides, for other checks to go on with, and for nothing else.
    """
    document = parse(text, file)
    if document.data is None:
        return None, list(document.problems) or [Problem(file, None, "", "the file is empty.")]
    problems = [*document.problems, *_fixed_faults(document), *_secret_faults(document)]
    data, missing, unresolved = _interpolate(document.data, document, variables, own)
    stand_ins = {**STAND_INS, "name": name_of(file)}
    environment, faults = read(Environment, data, document, unresolved=unresolved, stand_ins=stand_ins)
    problems += missing
    told = {p.path for p in problems}
    problems += [p for p in faults if p.path not in told]  # a fault of a secret must not be followed by its value
    return environment, problems + (_cross_faults(data, environment, document) if environment else [])


STAND_INS: Mapping[str, Any] = {
    "mode": "development",
    "api": {"url": ""},
    "refs": {},
    "source": {"strategy": "local", "directory": "."},
    "work_pools": {},
}


def name_of(file: str) -> str:
    return file.rsplit("/", 1)[-1].removesuffix(".yaml")


def _interpolate(
    data: Any, document: Document, variables: Mapping[str, str] | None, own: Readable | None
) -> tuple[Any, list[Problem], list[Path]]:
    problems: list[Problem] = []
    unresolved: list[Path] = []
    api = _mapping(_mapping(data).get("api"))
    credentials = _referred([api.get("key"), api.get("auth_string")])

    def fill(value: Any, path: Path) -> Any:
        if isinstance(value, dict):
            return {key: fill(inner, (*path, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [fill(inner, (*path, index)) for index, inner in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        if "${" in REFERENCE.sub("", value):
            problems.append(document.problem(path, "expected ${NAME} or ${NAME:-default}; '${' starts neither."))
        return REFERENCE.sub(lambda m: lookup(m, path), value)

    def lookup(match: re.Match[str], path: Path) -> str:
        name, default = match.group(1), match.group(2)
        if variables is None:
            unresolved.append(path)
            return match.group(0)
        secret = path[:1] == ("secrets",)
        allowed = own is None or name in (own.secrets if secret else own.others)
        if path[:1] != ("api",) and (name in credentials or not allowed):
            why = (
                "is the API's credential, which nothing else may read"
                if name in credentials
                else f"is not one that the checkout's own {document.file} reads {'as a secret' if secret else 'there'}, and a commit cannot ask for more. Check that commit out"
            )
            problems.append(document.problem(path, f"the variable {name} {why}."))
            unresolved.append(path)
            return match.group(0)
        if variables.get(name) or default is not None or (secret and name in variables):
            return match.group(0) if secret else variables.get(name) or default or ""
        why = "is empty" if name in variables else "is not set"
        problems.append(document.problem(path, f"the variable {name} {why}. Set it, or write ${{{name}:-default}}."))
        unresolved.append(path)
        return match.group(0)

    return fill(data, ()), problems, unresolved


def _fixed_faults(document: Document) -> list[Problem]:
    """`target` and `validate --static` decide by these, and know no variable."""
    data = document.data if isinstance(document.data, dict) else {}
    return [
        document.problem((key,), "must be written out; it decides what goes where, before any variable is read.")
        for key in ("name", "mode", "refs")
        if REFERENCE.search(canonical(data.get(key)))
    ]


def _secret_faults(document: Document) -> list[Problem]:
    data = document.data if isinstance(document.data, dict) else {}
    problems: list[Problem] = []
    for name, value in _mapping(data.get("secrets")).items():
        reference = REFERENCE.fullmatch(value) if isinstance(value, str) else None
        if not reference or reference[2]:
            problems.append(
                document.problem(
                    ("secrets", name),
                    "must be one reference such as ${VARIABLE:-}; a secret's value is no part of a file.",
                )
            )
    for part in ("variables", "deployments", "work_pools", "automations"):
        problems += secret_literals(data.get(part), document, (part,))
    api = _mapping(data.get("api"))
    for key in ("key", "auth_string"):
        if api.get(key) and not _only_refers(api[key]):
            problems.append(
                document.problem(
                    ("api", key), "must be a reference such as ${PREFECT_API_KEY:-}; a credential is no part of a file."
                )
            )
    if re.search(r"://[^/]*@", str(api.get("url"))):
        problems.append(document.problem(("api", "url"), "holds a credential; use api.key or api.auth_string."))
    return problems


def _only_refers(value: Any) -> bool:
    """Does the value come from variables, none with a default that would be the secret itself?"""
    found = list(REFERENCE.finditer(value)) if isinstance(value, str) else []
    return bool(found) and not any(reference[2] for reference in found)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _cross_faults(data: Mapping[str, Any], environment: Environment, document: Document) -> list[Problem]:
    """What only several parts of the file show together. `data`: the file with its variables filled in."""
    problems = twice(data.get("automations"), "name", document, ("automations",))
    for name, overlay in _mapping(_mapping(data.get("deployments")).get("overrides")).items():
        for part, key in (("schedules", "slug"), ("triggers", "name")):
            at = ("deployments", "overrides", name, part)
            problems += twice(_mapping(overlay).get(part), key, document, at)
        named = ("deployments", "overrides", name, "triggers")
        problems += unprintable(_mapping(overlay).get("triggers"), "name", document, named)
    names: dict[str, str] = {}
    for key, pool in environment.work_pools.items():
        if pool.name in names:
            problems.append(
                document.problem(("work_pools", key, "name"), f"'{pool.name}' is the pool of '{names[pool.name]}' too.")
            )
        names.setdefault(pool.name, key)
    if re.match(r"https?://[^/]*@", environment.source.repository or ""):
        problems.append(
            document.problem(
                ("source", "repository"), "holds a credential; name a Secret block in source.credentials instead."
            )
        )
    for name, value in environment.variables.items():
        if len(canonical(value)) > 5000:
            problems.append(document.problem(("variables", name), "a Prefect variable holds 5000 characters at most."))
    if environment.name != name_of(document.file):
        problems.append(
            document.problem(
                ("name",),
                f"'{environment.name}' stands in the file of '{name_of(document.file)}'; name and file must agree.",
            )
        )
    return problems
