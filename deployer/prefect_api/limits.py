"""Global concurrency limits: how many slots, and how fast a used slot comes back."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import quote

from deployer.model import Change, Live
from deployer.prefect_api.client import Client

KIND = "concurrency_limit"
FIELDS = ("limit", "slot_decay_per_second", "active")


def read(client: Client, names: Collection[str]) -> list[Live]:
    """The filter endpoint knows no names, so one call each when they are few."""
    if len(names) <= 5:
        answers = [
            found for name in sorted(names) if (found := client.find(f"/v2/concurrency_limits/{quote(name, safe='')}"))
        ]
    else:
        answers = [found for found in client.pages("/v2/concurrency_limits/filter") if found["name"] in names]
    return [Live(KIND, a["name"], a["id"], {key: a[key] for key in FIELDS}) for a in answers]


def create(client: Client, change: Change) -> None:
    body = {"name": change.name, **{key: change.target[key] for key in FIELDS}}
    client.create(
        "/v2/concurrency_limits/", body, lambda: client.find(f"/v2/concurrency_limits/{quote(change.name, safe='')}")
    )


def update(client: Client, change: Change) -> None:
    assert change.live
    client.patch(
        f"/v2/concurrency_limits/{change.live.id}", {key: change.target[key] for key in FIELDS if change.touches(key)}
    )


def delete(client: Client, change: Change) -> None:
    assert change.live
    client.delete(f"/v2/concurrency_limits/{change.live.id}")
