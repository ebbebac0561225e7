"""flows/**/deployments.yaml -> the declarations that every environment overlays. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from deployer.environment import Environment, Limit
from deployer.errors import Problem
from deployer.fields import Json, Name, PrefectName, Schedule, Strict, read, secret_literals
from deployer.yamlfile import Document, guess, parse

FOLDER = "flows"
FILE = "deployments.yaml"
ENTRYPOINT = r"^[^:\s]+\.py:[A-Za-z_][A-Za-z0-9_.]*$"


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
    tags: list[str] = Field(default_factory=list)
    description: str | None = Field(None, description="Default: the flow's docstring.")
    concurrency_limit: Annotated[int, Field(ge=1)] | Limit | None = None
    paused: bool = False
    enforce_parameter_schema: bool = True
    triggers: list[dict[str, Json]] = Field(default_factory=list, description="Prefect's deployment triggers.")
    smoke: Smoke | None = None


class CatalogFile(Strict):
    """The list of a deployments.yaml, as JSON Schema needs it named."""

    deployments: list[Declaration]


@dataclass(frozen=True)
class Declared:
    """A declaration, and where it stands."""

    declaration: Declaration
    document: Document
    index: int

    def problem(self, path: tuple[str | int, ...], message: str) -> Problem:
        return self.document.problem((self.index, *path), message)


def is_catalog_file(path: str) -> bool:
    return path.startswith(FOLDER + "/") and path.rsplit("/", 1)[-1] == FILE


def load(files: Mapping[str, str], paths: frozenset[str]) -> tuple[list[Declared], list[Problem]]:
    """All files (path -> text) -> declarations sorted by name, and every fault. `paths`: all files of the tree."""
    declared: list[Declared] = []
    problems: list[Problem] = []
    for file in sorted(files):
        document = parse(files[file], file)
        problems += document.problems
        if document.problems or document.data is None:
            continue
        if not isinstance(document.data, list):
            problems.append(document.problem((), "expected a list of deployments, each starting with '- name:'."))
            continue
        for index, item in enumerate(document.data):
            problems += _item(item, index, document, paths, declared)
    problems += [p for path in sorted(paths) if (p := _misnamed(path))]
    return sorted(declared, key=lambda d: d.declaration.name), problems


def _misnamed(path: str) -> Problem | None:
    wrong = path.startswith(FOLDER + "/") and path.rsplit("/", 1)[-1] in (
        "deployments.yml",
        "deployment.yaml",
        "deployment.yml",
    )
    return Problem(path, None, "", f"is not read; rename it to {FILE}.") if wrong else None


def _item(item: Any, index: int, document: Document, paths: frozenset[str], declared: list[Declared]) -> list[Problem]:
    declaration, problems = read(Declaration, item, document, (index,))
    for part in ("parameters", "job_variables", "schedules", "triggers"):
        problems += secret_literals(item.get(part) if isinstance(item, dict) else None, document, (index, part))
    if declaration is None:
        return problems
    found = Declared(declaration, document, index)
    twin = next((d for d in declared if d.declaration.name == declaration.name), None)
    if twin:
        place = f"{twin.document.file}:{twin.document.line((twin.index, 'name'))}"
        problems.append(
            found.problem(
                ("name",), f"'{declaration.name}' is declared at {place} too; names are unique in the repository."
            )
        )
    script = declaration.entrypoint.rsplit(":", 1)[0]
    if script not in paths:
        problems.append(found.problem(("entrypoint",), f"there is no file '{script}'.{guess(script, paths)}"))
    problems += _twice(found, [s.slug for s in declaration.schedules if s.slug])
    declared.append(found)
    return problems


def _twice(found: Declared, slugs: list[str]) -> list[Problem]:
    again = sorted({slug for slug in slugs if slugs.count(slug) > 1})
    return [
        found.problem(("schedules",), f"the slug '{slug}' is used twice; slugs are unique within a deployment.")
        for slug in again
    ]


def check(declared: list[Declared], environment: Environment, document: Document) -> list[Problem]:
    """What only the pair shows: pools that the environment does not declare, overlays of nothing."""
    names = [d.declaration.name for d in declared]
    problems = [
        document.problem(("deployments", "overrides", name), f"there is no deployment '{name}'.{guess(name, names)}")
        for name in environment.deployments.overrides
        if name not in names
    ]
    problems += [
        document.problem(("deployments", "exclude", index), f"there is no deployment '{name}'.{guess(name, names)}")
        for index, name in enumerate(environment.deployments.exclude)
        if name not in names
    ]
    for item in declared:
        overlay = environment.deployments.overrides.get(item.declaration.name)
        pool = (overlay and overlay.pool) or item.declaration.pool
        if item.declaration.name not in environment.deployments.exclude and pool not in environment.work_pools:
            known = ", ".join(environment.work_pools) or "none"
            message = f"the pool '{pool}' is not declared in {document.file}.{guess(pool, environment.work_pools)} Declared there: {known}."
            problems.append(
                document.problem(("deployments", "overrides", item.declaration.name, "pool"), message)
                if overlay and overlay.pool
                else item.problem(("pool",), message)
            )
    return problems
