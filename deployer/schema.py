"""JSON Schemas of both kinds of files, made from the models that read them: editors complete, CI compares. Pure."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from deployer.catalog import Declaration
from deployer.environment import Environment

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, Any]:
    return {
        "environment": {"$schema": DIALECT, **Environment.model_json_schema()},
        "deployments": {"$schema": DIALECT, "title": "Deployments", **TypeAdapter(list[Declaration]).json_schema()},
    }
