"""Variables: name -> JSON value."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from deployer.model import Change, Live
from deployer.prefect_api.client import Client

KIND = "variable"


def read(client: Client, names: Collection[str]) -> list[Live]:
    if not names:
        return []
    found = client.pages("/variables/filter", {"variables": {"name": {"any_": sorted(names)}}})
    return [_live(answer) for answer in found]


def _live(answer: dict[str, Any]) -> Live:
    return Live(KIND, answer["name"], answer["id"], {"value": answer["value"]})


def create(client: Client, change: Change) -> None:
    body = {"name": change.name, "value": change.target["value"]}
    client.create("/variables/", body, lambda: client.find(f"/variables/name/{change.name}"))


def update(client: Client, change: Change) -> None:
    client.patch(f"/variables/{_id(change)}", {"value": change.target["value"]})


def delete(client: Client, change: Change) -> None:
    client.delete(f"/variables/{_id(change)}")


def _id(change: Change) -> str:
    assert change.live
    return change.live.id
