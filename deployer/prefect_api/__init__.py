"""The only door to Prefect: one module a kind, all of one shape (read, create, update, delete).

Nothing else of the deployer speaks HTTP, and nothing in here decides what should be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import ModuleType

from deployer import comparable
from deployer.desired import Scope
from deployer.model import Key, Live
from deployer.prefect_api import (
    artifacts,
    automations,
    deployments,
    health,
    limits,
    pools,
    queues,
    runs,
    schedules,
    secrets,
    variables,
)
from deployer.prefect_api.client import CLOUDS, Client, Retry, connect, greet

__all__ = [
    "CLOUDS",
    "PLAIN",
    "Client",
    "Retry",
    "artifacts",
    "automations",
    "connect",
    "deployments",
    "greet",
    "health",
    "pools",
    "read",
    "runs",
    "schedules",
    "secrets",
]

PLAIN: Mapping[str, ModuleType] = {
    "variable": variables,
    "secret": secrets,
    "concurrency_limit": limits,
    "work_pool": pools,
    "work_queue": queues,
}
"""Kinds that need nothing but their own name."""


def read(client: Client, keys: Iterable[Key], triggers: Iterable[str], scope: Scope) -> dict[Key, Live]:
    """What is live of `keys`, and every deployment that carries the scope's tags. `triggers`: names of triggers to look for."""
    wanted = set(keys)
    names = {kind: {name for k, name in wanted if k == kind} for kind in (*PLAIN, "deployment", "automation")}
    found: list[Live] = []
    for kind, module in PLAIN.items():
        found += module.read(client, names[kind])
    answers = deployments.answers(client, scope.tags, sorted(names["deployment"]))
    trigger_names = set(triggers)
    automation_answers = automations.answers(client, names["automation"] | trigger_names)
    possible = [a for a in automation_answers if a["name"] in trigger_names]
    found += [deployments.live(answer, possible) for answer in answers]
    # Of two deployments of one name (a renamed flow leaves the old one retired) automations mean the wanted one.
    meant = [a for a in answers if f"{a['flow_name']}/{a['name']}" in names["deployment"]]
    ids = {a["id"]: comparable.placeholder(a["name"]) for a in meant}
    found += automations.of_environment(automation_answers, names["automation"], ids)
    return {live.key: live for live in found}
