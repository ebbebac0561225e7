"""What a Prefect API holds, in a form that can be compared: before and after an upgrade, on the old stack and a restored one.

Only what its owner chose, field by field, so that a newer Prefect's new fields are no difference. No secret value is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployer.model import digest
from deployer.prefect_api import Client
from deployer.prefect_api.runs import FINAL

Inventory = dict[str, dict[str, Any]]
"""Kind -> name -> a digest, or a number."""

RUNS = "flow runs"
ALL = "all"
DEPLOYMENT = (
    "version",
    "description",
    "paused",
    "tags",
    "entrypoint",
    "parameters",
    "pull_steps",
    "job_variables",
    "path",
)
SCHEDULE = ("schedule", "active", "slug", "parameters")
POOL = ("type", "description", "is_paused", "concurrency_limit", "base_job_template")
AUTOMATION = ("description", "enabled", "tags")
LIMIT = ("limit", "active", "slot_decay_per_second")


def read(client: Client) -> Inventory:
    flows = {flow["id"]: flow["name"] for flow in client.pages("/flows/filter")}
    return {
        "work pools": {one["name"]: _digest(one, POOL) for one in client.pages("/work_pools/filter")},
        "deployments": {
            f"{flows[one['flow_id']]}/{one['name']}": _deployment(one) for one in client.pages("/deployments/filter")
        },
        "automations": {one["name"]: _digest(one, AUTOMATION) for one in client.pages("/automations/filter")},
        "variables": {one["name"]: digest(one["value"]) for one in client.pages("/variables/filter")},
        "blocks": {
            one["name"]: one["block_type"]["slug"] for one in client.pages("/block_documents/filter") if one["name"]
        },
        "concurrency limits": {
            one["name"]: _digest(one, LIMIT) for one in client.pages("/v2/concurrency_limits/filter")
        },
        "releases": {one["id"]: digest(one["data"]) for kind in ("release-", "spec-") for one in _ledger(client, kind)},
        RUNS: {ALL: _runs(client), **{state: _runs(client, state) for state in sorted(FINAL)}},
    }


def _digest(answer: Mapping[str, Any], fields: tuple[str, ...]) -> str:
    return digest({field: answer.get(field) for field in fields})


def _deployment(answer: Mapping[str, Any]) -> str:
    """PostgreSQL gives schedules in no order."""
    schedules = sorted(_digest(one, SCHEDULE) for one in answer["schedules"])
    return digest([_digest({**answer, "tags": sorted(answer["tags"])}, DEPLOYMENT), schedules])


def _ledger(client: Client, kind: str) -> list[dict[str, Any]]:
    """All releases of all environments, and what they applied (deployer/ledger.py)."""
    return list(client.pages("/artifacts/filter", {"artifacts": {"key": {"like_": f"{kind}%"}}, "sort": "ID_DESC"}))


def _runs(client: Client, *states: str) -> int:
    wanted = {"flow_runs": {"state": {"type": {"any_": list(states)}}}} if states else {}
    return int(client.request("POST", "/flow_runs/count", wanted))


def differences(before: Inventory, after: Inventory, more: bool = False) -> list[str]:
    """What is not as it was. `more`: work goes on meanwhile, so there may be more than before, but nothing may be gone."""
    return [line for kind in before for line in _of_kind(kind, before[kind], after.get(kind, {}), more)]


def _of_kind(kind: str, before: Mapping[str, Any], after: Mapping[str, Any], more: bool) -> list[str]:
    if kind == RUNS and more:
        lost = before[ALL] - after[ALL]
        return [f"{lost} {RUNS} are gone"] if lost > 0 else []
    gone = [f"{kind}: {name} is gone" for name in before if name not in after]
    other = [f"{kind}: {name} differs" for name in before if name in after and after[name] != before[name]]
    new = [f"{kind}: {name} is new" for name in after if name not in before and not more]
    return [*gone, *other, *new]


def sentence(inventory: Inventory) -> str:
    told = [f"{len(names)} {kind}" for kind, names in inventory.items() if kind != RUNS]
    return f"{', '.join(told)}, {inventory[RUNS][ALL]} {RUNS}"
