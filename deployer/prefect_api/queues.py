"""Work queues, named `pool/queue`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from urllib.parse import quote

from deployer.errors import ApiRefused
from deployer.model import Change, Live
from deployer.prefect_api.client import Client

KIND = "work_queue"
FIELDS = ("description", "concurrency_limit", "priority")


def read(client: Client, names: Collection[str]) -> list[Live]:
    return [
        live
        for pool in sorted({name.split("/")[0] for name in names})
        for live in _of_pool(client, pool)
        if live.name in names
    ]


def _of_pool(client: Client, pool: str) -> list[Live]:
    try:
        answers = list(client.pages(f"/work_pools/{quote(pool)}/queues/filter"))
    except ApiRefused as error:
        if error.status == 404:
            return []
        raise
    return [Live(KIND, f"{pool}/{a['name']}", a["id"], {key: _said(a, key) for key in FIELDS}) for a in answers]


def _said(answer: dict[str, Any], key: str) -> Any:
    """The server answers "" for a description that nobody gave."""
    return answer.get(key) or None if key == "description" else answer.get(key)


def create(client: Client, change: Change) -> None:
    pool, queue = change.name.split("/", 1)
    client.create(
        f"/work_pools/{quote(pool)}/queues", {"name": queue, **change.target}, lambda: client.find(_path(change))
    )


def update(client: Client, change: Change) -> None:
    client.patch(_path(change), {key: change.target[key] for key in FIELDS if change.touches(key)})


def delete(client: Client, change: Change) -> None:
    client.delete(_path(change))


def _path(change: Change) -> str:
    pool, queue = change.name.split("/", 1)
    return f"/work_pools/{quote(pool)}/queues/{quote(queue)}"
