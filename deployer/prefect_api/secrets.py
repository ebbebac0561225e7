"""Secret blocks. Values are read in clear to be compared in memory, and go nowhere else."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from deployer.errors import ApiRefused, Unreachable
from deployer.model import Change, Hidden, Live
from deployer.prefect_api.client import Client

KIND = "secret"


def read(client: Client, names: Collection[str]) -> list[Live]:
    return [_live(answer) for answer in _answers(client, names)]


def _answers(client: Client, names: Collection[str]) -> list[dict[str, Any]]:
    if not names:
        return []
    body = {
        "block_types": {"slug": {"any_": ["secret"]}},
        "block_documents": {"name": {"any_": sorted(names)}, "is_anonymous": {"eq_": False}},
        "include_secrets": True,
    }
    return list(client.pages("/block_documents/filter", body))


def _live(answer: dict[str, Any]) -> Live:
    value = answer["data"].get("value")
    return Live(KIND, answer["name"], answer["id"], {"value": Hidden(value if isinstance(value, str) else repr(value))})


def create(client: Client, change: Change) -> None:
    kind, schema = _schema(client)
    body = {
        "name": change.name,
        "data": {"value": change.target["value"].reveal()},
        "block_type_id": kind,
        "block_schema_id": schema,
        "is_anonymous": False,
    }
    client.create("/block_documents/", body, lambda: next(iter(_answers(client, [change.name])), None))


def _schema(client: Client) -> tuple[str, str]:
    """Ids of the Secret block type and of its newest schema. A server that never registered its blocks is asked to."""
    for attempt in range(2):
        kind = client.find("/block_types/slug/secret")
        if kind:
            schemas = client.request(
                "POST",
                "/block_schemas/filter",
                {"block_schemas": {"block_type_id": {"any_": [kind["id"]]}}, "limit": 1},
            )
            if schemas:
                return kind["id"], schemas[0]["id"]
        if attempt == 0:
            try:
                client.request("POST", "/block_types/install_system_block_types")
            except ApiRefused:
                break
    raise Unreachable(
        f"{client.url} does not know the Secret block type. Register Prefect's blocks there: prefect block register -m prefect.blocks.system"
    )


def update(client: Client, change: Change) -> None:
    assert change.live
    client.patch(
        f"/block_documents/{change.live.id}",
        {"data": {"value": change.target["value"].reveal()}, "merge_existing_data": False},
    )


def delete(client: Client, change: Change) -> None:
    assert change.live
    client.delete(f"/block_documents/{change.live.id}")
