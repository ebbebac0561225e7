"""The repository's own files, as they are in the work tree or at a commit: environments, catalogue, job templates."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployer import catalog, desired, environment, source, template
from deployer.catalog import Declared
from deployer.environment import Environment, Readable
from deployer.errors import InvalidInput, Problem, invalid
from deployer.revision import Repository
from deployer.yamlfile import Document, guess, parse
from deployer.yamlfile import Path as Place

Variables = Mapping[str, str] | None


@dataclass(frozen=True)
class Tree:
    """Files of one state of the repository: `paths` are all of them, `texts` those that we always read, `open` reads another."""

    paths: frozenset[str]
    texts: Mapping[str, str]
    open: Callable[[str], str | None] = lambda path: None

    @classmethod
    def at(cls, repository: Repository, commit: str) -> Tree:
        paths = repository.paths(commit)
        texts = repository.read(commit, [p for p in sorted(paths) if _is_ours(p)])
        return cls(paths, texts, lambda path: repository.read(commit, [path]).get(path))

    @classmethod
    def working(cls, root: Path) -> Tree:
        """As it lies on the disk, whether or not Git knows it."""
        known = (
            Repository(root)
            .git("ls-files", "-z", "--cached", "--others", "--exclude-standard", check=False)
            .split("\0")
        )
        found = [*root.glob("environments/*"), *root.glob("flows/**/*"), *(root / name for name in known if name)]
        paths = {p.relative_to(root).as_posix() for p in found if p.is_file() and "__pycache__" not in p.parts}
        for path in found:
            if _is_ours(path.relative_to(root).as_posix()) and (
                path.is_dir() or (path.is_symlink() and not path.exists())
            ):
                raise InvalidInput(
                    f"{path} is no file: a folder, or a link to nothing. Put the file there, or remove it."
                )
        texts = {name: _text(root / name) for name in sorted(paths) if _is_ours(name)}
        return cls(frozenset(paths), texts, lambda path: _text(root / path) if (root / path).is_file() else None)

    def environment_names(self) -> list[str]:
        start, end = f"{environment.FOLDER}/", ".yaml"
        return sorted(
            p[len(start) : -len(end)]
            for p in self.paths
            if p.startswith(start) and p.endswith(end) and p.count("/") == 1
        )


def _is_ours(path: str) -> bool:
    in_environments = path.startswith(f"{environment.FOLDER}/") and path.endswith(".yaml")
    return in_environments or catalog.is_catalog_file(path)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from None


@dataclass(frozen=True)
class Contents:
    """One environment's view of a tree, checked."""

    environment: Environment
    declared: list[Declared]
    templates: Mapping[str, Any] = field(default_factory=dict)
    document: Document | None = None

    @property
    def file(self) -> Document:
        """The environment file, for problems that show only later."""
        return self.document or Document(environment_file(self.environment.name), None)


def environment_file(name: str) -> str:
    return f"{environment.FOLDER}/{name}.yaml"


def load_environment(tree: Tree, name: str, variables: Variables) -> Environment:
    """One environment, or every fault of its file."""
    found, problems = _environment(tree, name, variables)
    if found is None or problems:
        raise invalid(problems)
    return found


def all_names(tree: Tree) -> list[str]:
    """Of the environments: one at least, or this is no repository of ours."""
    if names := tree.environment_names():
        return names
    raise InvalidInput(f"There is no {environment.FOLDER}/*.yaml here. Is this the right repository (--repo DIR)?")


def load_environments(tree: Tree, variables: Variables) -> list[Environment]:
    """All of them; what is wrong in any is told at once."""
    found = [_environment(tree, name, variables) for name in all_names(tree)]
    if problems := [p for _, some in found for p in some]:
        raise invalid(problems)
    return [e for e, _ in found if e]


def readable(repository: Repository, name: str) -> Readable:
    """The variables that a commit's environment file may read: those of the checkout's own."""
    file = environment_file(name)
    path = repository.path / file
    return environment.readable(_text(path), file) if path.is_file() else Readable()


def hidden(tree: Tree, variables: Mapping[str, str]) -> set[str]:
    """The values of all environments' secrets and credentials that are given here."""
    files = [environment_file(name) for name in tree.environment_names()]
    return {value for file in files for value in environment.hidden(tree.texts[file], file, variables)}


def _environment(
    tree: Tree, name: str, variables: Variables, own: Readable | None = None
) -> tuple[Environment | None, list[Problem]]:
    file = environment_file(name)
    if file not in tree.texts:
        known = tree.environment_names()
        listed = f" There are: {', '.join(known)}." if known else ""
        raise InvalidInput(f"There is no environment '{name}' ({file}).{guess(name, known)}{listed}")
    return environment.load(tree.texts[file], file, variables, own)


def contents(
    tree: Tree, name: str, variables: Variables, own: Readable | None = None
) -> tuple[Contents | None, list[Problem]]:
    """Everything that the tree says for one environment, or every fault of every file."""
    found, problems = examine(tree, name, variables, own)
    return (None if problems else found), problems


def examine(
    tree: Tree, name: str, variables: Variables, own: Readable | None = None
) -> tuple[Contents | None, list[Problem]]:
    """Every fault, and what can be read besides: enough to look for more faults, and for nothing else.

    `own`: the tree is a commit's, and these are the variables that the tool's own checkout lets its file read.
    """
    declared, problems = load_catalog(tree)
    found, faults = _environment(tree, name, variables, own)
    problems = [*faults, *problems]
    if found is None:
        return None, problems
    document = parse(tree.texts[environment_file(name)], environment_file(name))
    problems += catalog.check(declared, found, document)
    problems += _about_deployments(found, declared, document)
    templates, faults = _templates(found, tree, document)
    problems += faults
    problems += _job_variables(found, _sound(declared, found, problems), templates, document)
    return Contents(found, _sound(declared, found, problems), templates, document), problems


def _sound(declared: list[Declared], found: Environment, problems: list[Problem]) -> list[Declared]:
    """The deployments without a fault of their own, in a pool that is known."""
    faulty = {(p.file, p.path.partition("]")[0] + "]") for p in problems}
    pools = {name: overlay.pool for name, overlay in found.deployments.overrides.items() if overlay.pool}
    return (
        [
            d
            for d in declared
            if (d.document.file, f"[{d.index}]") not in faulty
            and d.written("name")
            and pools.get(d.declaration.name, d.declaration.pool) in found.work_pools
        ]
        if problems
        else declared
    )


def load_catalog(tree: Tree) -> tuple[list[Declared], list[Problem]]:
    return catalog.load({p: t for p, t in tree.texts.items() if catalog.is_catalog_file(p)}, tree.paths)


def _about_deployments(found: Environment, declared: list[Declared], document: Document) -> list[Problem]:
    known = catalog.names_of(declared)
    names = set(known or ()) - set(found.deployments.exclude)
    return (
        []
        if known is None
        else [
            document.problem(("automations", index), f"there is no deployment '{name}' here.{guess(name, names)}")
            for index, name in desired.unknown_deployments(found, names)
        ]
    )


def _templates(found: Environment, tree: Tree, document: Document) -> tuple[dict[str, Any], list[Problem]]:
    """Pool key -> its base job template, and what is wrong with the files of those."""
    templates: dict[str, Any] = {}
    problems: list[Problem] = []
    for key, pool in found.work_pools.items():
        file = pool.base_job_template
        if file is None:
            continue
        text = tree.open(file) if file in tree.paths else None
        if text is None:
            hint = guess(file, [p for p in tree.paths if p.endswith(".json")])
            at = ("work_pools", key, "base_job_template")
            problems.append(document.problem(at, f"there is no file '{file}'.{hint}"))
            continue
        templates[key], faults = _template(text, file)
        problems += faults
    return templates, problems


def _template(text: str, file: str) -> tuple[Any, list[Problem]]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        return None, [Problem(file, getattr(error, "lineno", None), "", f"not valid JSON: {error}.")]
    faults = template.faults(found)
    return (None if faults else found), [Problem(file, None, "", fault) for fault in faults]


def _job_variables(
    found: Environment, declared: list[Declared], templates: Mapping[str, Any], document: Document
) -> list[Problem]:
    """Do they fit the pool's template? Only the server knows that of a pool that declares none."""
    code = source.code(found.source, "0" * 40)
    problems: list[Problem] = []
    missing: dict[tuple[str, str], list[str]] = {}
    for item in declared:
        key = desired.pool_key(found, item)
        if not templates.get(key) or item.declaration.name in found.deployments.exclude:
            continue
        name = f"{key} ({found.work_pools[key].base_job_template})"
        given = desired.job_variables(found, item, code)
        for at, why in template.unfit(name, templates[key], given):
            if at:
                problems.append(_placed(item, at, why, given, code.job_variables, document))
            else:
                missing.setdefault((key, why), []).append(item.declaration.name)
    return problems + [_lacking(key, why, names, document) for (key, why), names in missing.items()]


def _lacking(key: str, why: str, names: list[str], document: Document) -> Problem:
    """Once for a pool: what one deployment lacks, most of them do."""
    some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    way = "Set it in their job_variables, or for all in deployments.defaults.job_variables."
    return document.problem(("work_pools", key, "base_job_template"), f"{why} Not given by {some}. {way}")


def _placed(
    item: Declared, at: Place, why: str, given: Mapping[str, Any], sources: Mapping[str, Any], document: Document
) -> Problem:
    """At the deployment, at what the environment says of it, or at the source that brings an image."""
    if at[0] in sources and given[str(at[0])] == sources[str(at[0])]:
        return document.problem(("source", at[0]), why)
    return desired.overlaid(item, ("job_variables", *at), why, document)
