"""Artifacts: where the ledger lives. Filters always answer the whole `data`, so what is listed is kept small."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from deployer.prefect_api.client import Client


def newest_first(client: Client, key: str) -> Iterator[dict[str, Any]]:
    """Every version of one key."""
    yield from client.pages("/artifacts/filter", {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC"})


def latest_of_each(client: Client, key_prefix: str) -> list[dict[str, Any]]:
    """The newest version of every key that starts so."""
    found = client.pages("/artifacts/latest/filter", {"artifacts": {"key": {"like_": f"{key_prefix}%"}}})
    return [a for a in found if a["key"].startswith(key_prefix)]


def latest(client: Client, key: str) -> dict[str, Any] | None:
    return client.find(f"/artifacts/{key}/latest")


def post(
    client: Client, key: str, kind: str, data: Any, description: str, same: Callable[[dict[str, Any]], bool]
) -> str:
    """A new version. `same` recognises it among those there, should the answer be lost."""
    body = {"key": key, "type": kind, "data": data, "description": description}
    answer = client.create("/artifacts/", body, lambda: next((a for a in newest_first(client, key) if same(a)), None))
    return str(answer["id"])


def patch(client: Client, id: str, data: Any) -> None:
    client.patch(f"/artifacts/{id}", {"data": data})


def delete(client: Client, id: str) -> None:
    client.delete(f"/artifacts/{id}")
