"""A work pool's base job template: is it one, and do a deployment's job variables fit it? Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from deployer.yamlfile import Path, dotted, guess

PLACEHOLDER = re.compile(r"{{\s*([\w.\-\[\]$]+)\s*}}")
"""As Prefect finds them."""
INAPPLICABLE = (RecursionError, re.error, ArithmeticError, TypeError, AttributeError)
"""What comes of a schema that leads back to itself, has a pattern that is none of Python's, or is none at all."""


def faults(template: Any) -> list[str]:
    """What Prefect would refuse, or would fail on at the first run."""
    if not isinstance(template, dict) or not {"job_configuration", "variables"} <= set(template):
        return ["a base job template has the keys job_configuration and variables."]
    if not all(isinstance(template[key], dict) for key in ("job_configuration", "variables")):
        return ["job_configuration and variables are objects."]
    import jsonschema

    schema = template["variables"]
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        where = ".".join(["variables", *map(str, error.absolute_path)])
        return [f"{where} is no JSON Schema: {error.message}."]
    known = schema.get("properties", {})
    used = sorted(set(PLACEHOLDER.findall(json.dumps(template["job_configuration"]))))
    undeclared = [f"{{{{ {name} }}}} is no variable of it.{guess(name, known)}" for name in used if name not in known]
    try:
        return undeclared + [f"{dotted(('default', *at))}: {why}." for at, why in _wrong(schema, _defaults(known))]
    except ValueError as error:
        return [*undeclared, f"{error}."]


def unfit(
    pool: str, template: Mapping[str, Any], given: Mapping[str, Any], live: bool = False
) -> list[tuple[Path, str]]:
    """Where a deployment's job variables do not fit the pool's template, and why; an empty path is what is missing.

    `live`: somebody else's, so where its schema cannot be applied here, there is no judgement of the values.
    """
    schema = template.get("variables") or {}
    known = schema.get("properties")
    if not known:
        return []
    takes = ", ".join(sorted(known))
    found: list[tuple[Path, str]] = [
        ((key,), f"the pool {pool} has no job variable '{key}'.{guess(key, known) or f' It takes {takes}.'}")
        for key in given
        if _first(key) not in known
    ]
    judged = {key: value for key, value in given.items() if key in known and not _filled_in_later(value)}
    try:
        found += [(at, f"job variable {dotted(at)}: {why}.") for at, why in _wrong(schema, judged)]
    except ValueError as error:
        found += [] if live else [((), f"the pool {pool}: {error}.")]
    there = {_first(key) for key in given} | set(_defaults(known))
    needed = [key for key in schema.get("required", ()) if key not in there]
    return found + [
        ((), f"the pool {pool} needs the job variable '{key}', and has no default for it.") for key in needed
    ]


def _first(key: str) -> str:
    """`env.LOG_LEVEL` is a part of `env`: Prefect takes both forms."""
    return key.partition(".")[0]


def _filled_in_later(value: Any) -> bool:
    """By Prefect when the run starts, or from the variables of the deploy."""
    return "{{" in str(value) or "${" in str(value)


def _defaults(known: Mapping[str, Any]) -> dict[str, Any]:
    """A default of null is none: Prefect leaves it away."""
    found = {key: rules.get("default") for key, rules in known.items() if isinstance(rules, dict)}
    return {key: value for key, value in found.items() if value is not None}


def _wrong(schema: Mapping[str, Any], values: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """ValueError: this schema can judge no value."""
    if not values:
        return []
    import jsonschema  # late: most deploys have no job variable
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    rules = {key: part for key, part in schema.items() if key != "required"}
    nothing_more: Registry[Any] = Registry()  # or a schema that a $ref names would be fetched from where it says
    try:
        errors = list(jsonschema.Draft202012Validator(rules, registry=nothing_more).iter_errors(dict(values)))
        # Of alternatives the one that comes nearest: a text that is no null either need not hear of null.
        best = [jsonschema.exceptions.best_match([error]) for error in errors]
    except Unresolvable as error:
        return [((), f"a $ref leads nowhere: {error.ref}")]
    except (*INAPPLICABLE, jsonschema.exceptions.UnknownType) as error:
        why = "a $ref leads back to itself" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        raise ValueError(f"the template's schema cannot be applied: {why}") from None
    return [(tuple(error.absolute_path), error.message) for error in best]
