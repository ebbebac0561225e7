"""flows/**/deployments.yaml -> the declarations that every environment overlays. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from deployer.environment import Environment, Limit
from deployer.errors import Problem
from deployer.fields import (
    ENTRYPOINT,
    MARKS,
    WHOLE,
    Json,
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
from deployer.yamlfile import Document, Path, guess, parse

FOLDER = "flows"
FILE = "deployments.yaml"


class Smoke(Strict):
    """A run that proves a release."""

    parameters: dict[str, Json] = Field(default_factory=dict)
    timeout: float = Field(300, gt=0, description="Seconds.")


class Declaration(Strict):
    """One deployment as the repository declares it for every environment."""

    name: Name
    entrypoint: Annotated[
        str, Field(pattern=ENTRYPOINT, examples=["flows/ingestion/polygon.py:polygon_daily_ingestion"])
    ]
    pool: str = Field(description="A key of the environment's work_pools.")
    queue: PrefectName | None = None
    schedules: list[Schedule] = Field(default_factory=list)
    parameters: dict[str, Json] = Field(default_factory=dict)
    job_variables: dict[str, Json] = Field(default_factory=dict)
    tags: list[Tag] = Field(default_factory=list)
    description: str | None = Field(None, description="Default: the flow's docstring.")
    concurrency_limit: Annotated[int, Field(ge=1), WHOLE] | Limit | None = None
    paused: bool = False
    enforce_parameter_schema: bool = True
    triggers: list[dict[str, Json]] = Field(default_factory=list, description="Prefect's deployment triggers.")
    smoke: Smoke | None = None


@dataclass(frozen=True)
class Declared:
    """A declaration, and where it stands."""

    declaration: Declaration
    document: Document
    index: int

    def problem(self, path: tuple[str | int, ...], message: str) -> Problem:
        return self.document.problem((self.index, *path), message)

    def written(self, key: str) -> bool:
        """Does the file say so, or does a stand-in fill a gap?"""
        items = self.document.data
        item = items[self.index] if isinstance(items, list) and self.index < len(items) else None
        return isinstance(item, dict) and item.get(key) == getattr(self.declaration, key)


def is_catalog_file(path: str) -> bool:
    return path.startswith(FOLDER + "/") and path.rsplit("/", 1)[-1] == FILE


def load(files: Mapping[str, str], paths: frozenset[str]) -> tuple[list[Declared], list[Problem]]:
    """All files (path -> text) -> declarations sorted by name, and every fault. `paths`: all files of the tree.

    With faults, declarations are what could be read besides, for other checks to go on with, and for nothing else.
    """
    declared: list[Declared] = []
    problems: list[Problem] = []
    for file in sorted(files):
        document = parse(files[file], file)
        problems += document.problems
        if isinstance(document.data, list):
            for index, item in enumerate(document.data):
                problems += _item(item, index, document, paths, declared)
        elif document.data is not None or document.problems:
            declared.append(Declared(UNKNOWN, document, 0))
            problems += [] if document.problems else [document.problem((), NO_LIST)]
    problems += [p for path in sorted(paths) if (p := _misnamed(path))]
    return sorted(declared, key=lambda d: d.declaration.name), problems


def _misnamed(path: str) -> Problem | None:
    wrong = path.startswith(FOLDER + "/") and path.rsplit("/", 1)[-1] in (
        "deployments.yml",
        "deployment.yaml",
        "deployment.yml",
    )
    return Problem(path, None, "", f"is not read; rename it to {FILE}.") if wrong else None


STAND_INS: Mapping[str, Any] = {"name": "unknown", "entrypoint": "unknown.py:unknown", "pool": "unknown"}
UNKNOWN = Declaration.model_validate(STAND_INS)
NO_LIST = "expected a list of deployments, each starting with '- name:'."


def _item(item: Any, index: int, document: Document, paths: frozenset[str], declared: list[Declared]) -> list[Problem]:
    told = {p.path for p in document.problems}
    declaration, faults = read(Declaration, item, document, (index,), stand_ins=STAND_INS)
    problems = [p for p in faults if p.path not in told]
    found = Declared(declaration or UNKNOWN, document, index)
    if isinstance(item, dict):
        problems += _within(item, index, document)
    if found.written("name") and (twin := _twin(found, declared)):
        place = f"{twin.document.file}:{twin.document.line((twin.index, 'name'))}"
        message = f"'{found.declaration.name}' is declared at {place} too; names are unique in the repository."
        problems.append(found.problem(("name",), message))
    script = found.declaration.entrypoint.rsplit(":", 1)[0]
    if found.written("entrypoint") and script not in paths:
        problems.append(found.problem(("entrypoint",), f"there is no file '{script}'.{guess(script, paths)}"))
    declared.append(found)
    return problems


def _within(item: Mapping[str, Any], index: int, document: Document) -> list[Problem]:
    """What the model cannot see: secrets, and names that are given twice."""
    problems = []
    for part in ("parameters", "job_variables", "schedules", "triggers"):
        problems += secret_literals(item.get(part), document, (index, part))
    problems += unprintable(item.get("triggers"), "name", document, (index, "triggers"))
    problems += twice(item.get("schedules"), "slug", document, (index, "schedules"))
    return problems + twice(item.get("triggers"), "name", document, (index, "triggers"))


def _twin(found: Declared, declared: list[Declared]) -> Declared | None:
    name = found.declaration.name
    return next((d for d in declared if d.declaration.name == name and d.written("name")), None)


def names_of(declared: list[Declared]) -> list[str] | None:
    """All names; None while some cannot be read: then nobody can say that there is no such deployment."""
    return [d.declaration.name for d in declared] if all(d.written("name") for d in declared) else None


def check(declared: list[Declared], environment: Environment, document: Document) -> list[Problem]:
    """What only the pair shows: pools that the environment does not declare, overlays of nothing."""
    names = names_of(declared)
    overrides, exclude = environment.deployments.overrides, environment.deployments.exclude
    named: list[tuple[Path, str]] = [
        *((("deployments", "overrides", name), name) for name in overrides),
        *((("deployments", "exclude", index), name) for index, name in enumerate(exclude)),
    ]
    problems = [
        document.problem(at, f"there is no deployment '{name}'.{guess(name, names or ())}")
        for at, name in named
        if names is not None and name not in names
    ]
    for item in declared:
        problems += _tags(item, environment)
        if item.written("pool") and item.declaration.name not in exclude:
            problems += _pool(item, environment, document)
            problems += _triggers(item, environment, document)
    return problems


MOST_TAGS = 100
"""With more, Prefect's runs break."""


def _tags(item: Declared, environment: Environment) -> list[Problem]:
    found = environment.deployments
    overlay = found.overrides.get(item.declaration.name)
    tags = {*found.defaults.tags, *item.declaration.tags, *(overlay.tags if overlay else [])}
    most = MOST_TAGS - len(MARKS)
    return [item.problem(("tags",), f"{len(tags)} tags; at most {most} can be set.")] if len(tags) > most else []


def _triggers(item: Declared, environment: Environment, document: Document) -> list[Problem]:
    """A trigger is an automation too, and the environment's own are found by their names alone."""
    overlay = environment.deployments.overrides.get(item.declaration.name)
    replaced = overlay.triggers if overlay else None
    names = {t.get("name") for t in (item.declaration.triggers if replaced is None else replaced)}
    return [
        document.problem(
            ("automations", index, "name"),
            f"the deployment '{item.declaration.name}' has a trigger of the same name, '{automation.name}'; rename one of them.",
        )
        for index, automation in enumerate(environment.automations)
        if automation.name in names
    ]


def _pool(item: Declared, environment: Environment, document: Document) -> list[Problem]:
    """Is its pool one of the environment's? Pools that are declared with faults count."""
    name = item.declaration.name
    overlay = environment.deployments.overrides.get(name)
    pool = (overlay and overlay.pool) or item.declaration.pool
    written = document.data.get("work_pools") if isinstance(document.data, dict) else None
    known = list(written) if isinstance(written, dict) else list(environment.work_pools)
    if pool in known:
        return []
    message = f"the pool '{pool}' is not declared in {document.file}.{guess(pool, known)} Declared there: {', '.join(known) or 'none'}."
    if overlay and overlay.pool:
        return [document.problem(("deployments", "overrides", name, "pool"), message)]
    return [item.problem(("pool",), message)]
