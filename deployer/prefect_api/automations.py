"""Automations, of the environment and of deployments (triggers). Names are not unique, so a read comes before each repeat."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from deployer import comparable
from deployer.model import Change, Live
from deployer.prefect_api.client import Client

KIND = "automation"
ENABLED_ONLY = ("enabled",)


def answers(client: Client, names: Collection[str]) -> list[dict[str, Any]]:
    """Automations of these names, whoever's they are."""
    if not names:
        return []
    return list(client.pages("/automations/filter", {"automations": {"name": {"any_": sorted(names)}}}))


def of_environment(found: list[dict[str, Any]], names: Collection[str], ids: Mapping[str, str]) -> list[Live]:
    """The first of each name. `ids`: deployments' ids -> their placeholders."""
    first: dict[str, Live] = {}
    for answer in sorted(found, key=lambda a: a.get("created") or ""):
        if answer["name"] in names and answer["name"] not in first:
            fields = comparable.automation(comparable.with_ids(answer, ids))
            first[answer["name"]] = Live(KIND, answer["name"], answer["id"], fields)
    return list(first.values())


def runs_deployment(answer: Mapping[str, Any], deployment_id: str) -> bool:
    """Is this a trigger of that deployment: does it do nothing but run it?"""
    actions = answer["actions"]
    return (
        len(actions) == 1
        and actions[0].get("type") == "run-deployment"
        and actions[0].get("deployment_id") == deployment_id
    )


def post(
    client: Client, name: str, fields: Mapping[str, Any], ids: Mapping[str, str], owner: str | None = None
) -> None:
    """`ids`: placeholders -> ids. `owner`: the resource that the automation goes with."""
    body = comparable.with_ids({"name": name, **fields}, ids)
    send(client, {**body, "owner_resource": owner} if owner else body)


def send(client: Client, body: Mapping[str, Any]) -> Any:
    """One more automation, whatever others of its name there are."""
    names = [body["name"]]
    known = {a["id"] for a in answers(client, names)}
    return client.create(
        "/automations/", body, lambda: next((a for a in answers(client, names) if a["id"] not in known), None)
    )


def put(
    client: Client, id: str, name: str, fields: Mapping[str, Any], ids: Mapping[str, str], changed: set[str]
) -> None:
    """Only whether it is on has an endpoint of its own; all else is replaced whole."""
    if changed <= set(ENABLED_ONLY):
        client.patch(f"/automations/{id}", {"enabled": fields["enabled"]})
    else:
        client.put(f"/automations/{id}", comparable.with_ids({"name": name, **fields}, ids))


def remove(client: Client, id: str) -> None:
    client.delete(f"/automations/{id}")


def create(client: Client, change: Change, ids: Mapping[str, str]) -> None:
    post(client, change.name, change.target, ids)


def update(client: Client, change: Change, ids: Mapping[str, str]) -> None:
    assert change.live
    put(
        client,
        change.live.id,
        change.name,
        change.target,
        ids,
        {f.path.split(".")[0] for f in change.fields if not f.held},
    )


def delete(client: Client, change: Change) -> None:
    assert change.live
    remove(client, change.live.id)
