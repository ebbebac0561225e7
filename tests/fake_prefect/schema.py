"""Does a value fit a JSON schema, asked and answered as the server does it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any


def misfit(value: Any, schema: Any, lenient: bool = False) -> str | None:
    """What is wrong with the value, or None. `lenient`: what the schema does not require may also be null."""
    import jsonschema  # takes 0.1 s, and few tests need it

    error = jsonschema.exceptions.best_match(
        jsonschema.Draft202012Validator(_nullable(schema) if lenient else schema).iter_errors(value)
    )
    if error is None:
        return None
    place = "" if error.json_path == "$" else f" for field {error.json_path.replace('$.', '')!r}"
    return f"Validation failed{place}. Failure reason: {error.message}"


def without_required(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: without_required(part) for key, part in schema.items() if key != "required"}
    return [without_required(part) for part in schema] if isinstance(schema, list) else schema


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    schema = deepcopy(schema)
    for name, part in schema.get("properties", {}).items():
        if name not in schema.get("required", []) and "type" in part and "default" not in part:
            part["anyOf"] = [{"type": part.pop("type")}, {"type": "null"}]
    return schema
