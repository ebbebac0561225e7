"""The repository's own files, as they are in the work tree or at a commit: environments, catalogue, job templates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployer import catalog, desired, environment
from deployer.catalog import Declared
from deployer.environment import Environment
from deployer.errors import InvalidInput, Problem, invalid
from deployer.revision import Repository
from deployer.yamlfile import Document, guess, parse

Variables = Mapping[str, str] | None


@dataclass(frozen=True)
class Tree:
    """Files of one state of the repository: `paths` are all of them, `texts` those that we read."""

    paths: frozenset[str]
    texts: Mapping[str, str]

    @classmethod
    def at(cls, repository: Repository, commit: str) -> Tree:
        paths = repository.paths(commit)
        return cls(paths, repository.read(commit, [p for p in sorted(paths) if _is_ours(p)]))

    @classmethod
    def working(cls, root: Path) -> Tree:
        """As it lies on the disk, whether or not Git knows it."""
        found = [*root.glob("environments/*"), *root.glob("flows/**/*"), *root.glob("infra/work-pools/**/*")]
        files = {p.relative_to(root).as_posix(): p for p in found if p.is_file() and "__pycache__" not in p.parts}
        return cls(frozenset(files), {name: _text(p) for name, p in files.items() if _is_ours(name)})

    def environment_names(self) -> list[str]:
        start, end = f"{environment.FOLDER}/", ".yaml"
        return sorted(
            p[len(start) : -len(end)]
            for p in self.paths
            if p.startswith(start) and p.endswith(end) and p.count("/") == 1
        )


def _is_ours(path: str) -> bool:
    in_environments = path.startswith(f"{environment.FOLDER}/") and path.endswith(".yaml")
    return in_environments or catalog.is_catalog_file(path) or path.endswith(".json")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


@dataclass(frozen=True)
class Contents:
    """One environment's view of a tree, checked."""

    environment: Environment
    declared: list[Declared]
    templates: Mapping[str, Any] = field(default_factory=dict)


def environment_file(name: str) -> str:
    return f"{environment.FOLDER}/{name}.yaml"


def load_environment(tree: Tree, name: str, variables: Variables) -> Environment:
    """One environment, or every fault of its file."""
    found, problems = _environment(tree, name, variables)
    if found is None:
        raise invalid(problems)
    return found


def load_environments(tree: Tree, variables: Variables) -> list[Environment]:
    """All of them; what is wrong in any is told at once."""
    names = tree.environment_names()
    if not names:
        raise InvalidInput(f"There is no {environment.FOLDER}/*.yaml here. Is this the right repository (--repo DIR)?")
    found = [_environment(tree, name, variables) for name in names]
    if problems := [p for _, some in found for p in some]:
        raise invalid(problems)
    return [e for e, _ in found if e]


def _environment(tree: Tree, name: str, variables: Variables) -> tuple[Environment | None, list[Problem]]:
    file = environment_file(name)
    if file not in tree.texts:
        known = tree.environment_names()
        listed = f" There are: {', '.join(known)}." if known else ""
        raise InvalidInput(f"There is no environment '{name}' ({file}).{guess(name, known)}{listed}")
    return environment.load(tree.texts[file], file, variables)


def contents(tree: Tree, name: str, variables: Variables) -> tuple[Contents | None, list[Problem]]:
    """Everything that the tree says for one environment, or every fault of every file."""
    declared, problems = load_catalog(tree)
    found, faults = _environment(tree, name, variables)
    problems = [*faults, *problems]
    if found is None:
        return None, problems
    document = parse(tree.texts[environment_file(name)], environment_file(name))
    problems += catalog.check(declared, found, document)
    problems += _about_deployments(found, declared, document)
    templates, faults = _templates(found, tree, document)
    problems += faults
    return (Contents(found, declared, templates) if not problems else None), problems


def load_catalog(tree: Tree) -> tuple[list[Declared], list[Problem]]:
    return catalog.load({p: t for p, t in tree.texts.items() if catalog.is_catalog_file(p)}, tree.paths)


def _about_deployments(found: Environment, declared: list[Declared], document: Document) -> list[Problem]:
    names = {d.declaration.name for d in declared} - set(found.deployments.exclude)
    return [
        document.problem(("automations", index), f"there is no deployment '{name}' here.{guess(name, names)}")
        for index, name in desired.unknown_deployments(found, names)
    ]


def _templates(found: Environment, tree: Tree, document: Document) -> tuple[dict[str, Any], list[Problem]]:
    templates: dict[str, Any] = {}
    problems: list[Problem] = []
    for key, pool in found.work_pools.items():
        if pool.base_job_template is None:
            continue
        at = ("work_pools", key, "base_job_template")
        text = tree.texts.get(pool.base_job_template)
        if text is None:
            problems.append(
                document.problem(
                    at, f"there is no JSON file '{pool.base_job_template}'.{guess(pool.base_job_template, tree.texts)}"
                )
            )
            continue
        try:
            template = json.loads(text)
        except ValueError as error:
            problems.append(
                Problem(pool.base_job_template, getattr(error, "lineno", None), "", f"not valid JSON: {error}")
            )
            continue
        if not isinstance(template, dict) or not {"job_configuration", "variables"} <= set(template):
            problems.append(
                Problem(
                    pool.base_job_template,
                    None,
                    "",
                    "a base job template has the keys job_configuration and variables.",
                )
            )
            continue
        templates[key] = template
    return templates, problems
