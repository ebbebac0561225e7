"""Work pools."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from urllib.parse import quote

from deployer.model import Change, Live
from deployer.prefect_api.client import Client

KIND = "work_pool"
FIELDS = ("description", "concurrency_limit", "base_job_template")


def read(client: Client, names: Collection[str]) -> list[Live]:
    if not names:
        return []
    answers = client.pages("/work_pools/filter", {"work_pools": {"name": {"any_": sorted(names)}}})
    return [Live(KIND, a["name"], a["id"], {"type": a["type"], **{key: a.get(key) for key in FIELDS}}) for a in answers]


def create(client: Client, change: Change) -> None:
    """With the type's own job template where none is given: Prefect's CLI does so too, and job variables are checked at once."""
    body = {"name": change.name, **change.target}
    if "base_job_template" not in body:
        body["base_job_template"] = default_template(client, change.target["type"])
    client.create("/work_pools/", body, lambda: client.find(f"/work_pools/{quote(change.name)}"))


def default_template(client: Client, kind: str) -> dict[str, Any]:
    """The base job template that Prefect ships for a type; empty for one that the server does not know."""
    known = client.get("/collections/views/aggregate-worker-metadata")
    workers = (entry for collection in known.values() for entry in collection.values())
    return next((dict(w["default_base_job_configuration"]) for w in workers if w["type"] == kind), {})


def update(client: Client, change: Change) -> None:
    client.patch(
        f"/work_pools/{quote(change.name)}", {key: change.target[key] for key in FIELDS if change.touches(key)}
    )


def delete(client: Client, change: Change) -> None:
    client.delete(f"/work_pools/{quote(change.name)}")
