"""Deployments, with their schedules (schedules.py) and triggers (automations.py)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from deployer import comparable
from deployer.model import Change, Fields, Live
from deployer.prefect_api import automations, runs, schedules
from deployer.prefect_api.client import Client

KIND = "deployment"
PLAIN = ("version", "entrypoint", "description", "pull_steps", "parameter_openapi_schema", "enforce_parameter_schema")
WHOLE = ("tags", "parameters", "job_variables", "paused")


def answers(client: Client, tags: Collection[str], names: Collection[str]) -> list[dict[str, Any]]:
    """Deployments that carry all `tags`, and those of `names` (flow/deployment) whoever's they are; each with its `flow_name`."""
    found = {a["id"]: a for a in client.pages("/deployments/filter", _carrying(tags))}
    flows = _flow_names(client, found.values())
    have = {f"{flows[a['flow_id']]}/{a['name']}" for a in found.values()}
    missing = [name for name in names if name not in have]
    if missing:
        others, more = named(client, missing)
        found |= {a["id"]: a for a in others}
        flows |= more
    return [{**a, "flow_name": flows[a["flow_id"]]} for a in found.values()]


def early(client: Client, tags: Collection[str]) -> None:
    """Start the slow part of `answers`."""
    client.early("/deployments/filter", _carrying(tags))


def _carrying(tags: Collection[str]) -> dict[str, Any]:
    return {"deployments": {"tags": {"all_": sorted(tags)}}}


def _flow_names(client: Client, found: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    ids = sorted({a["flow_id"] for a in found})
    pages = (
        client.pages("/flows/filter", {"flows": {"id": {"any_": ids[i : i + 200]}}}) for i in range(0, len(ids), 200)
    )
    return {flow["id"]: flow["name"] for page in pages for flow in page}


def named(client: Client, names: list[str]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Deployments by flow/deployment, and their flows' names. Looked up by both names at once, in groups that keep a request small."""
    found: list[dict[str, Any]] = []
    flows: dict[str, str] = {}
    for start in range(0, len(names), 100):
        group = set(names[start : start + 100])
        flow_names = sorted({n.split("/", 1)[0] for n in group})
        deployment_names = sorted({n.split("/", 1)[1] for n in group})
        known = {f["id"]: f["name"] for f in client.pages("/flows/filter", {"flows": {"name": {"any_": flow_names}}})}
        if not known:
            continue
        body = {"flows": {"name": {"any_": flow_names}}, "deployments": {"name": {"any_": deployment_names}}}
        found += [
            a for a in client.pages("/deployments/filter", body) if f"{known.get(a['flow_id'])}/{a['name']}" in group
        ]
        flows |= known
    return found, flows


def live(answer: Mapping[str, Any], triggers: list[dict[str, Any]]) -> Live:
    """Prefect's answer in comparable form. `triggers`: automations of the names that we care for."""
    limit = answer.get("global_concurrency_limit") or {}
    options = answer.get("concurrency_options") or {}
    own = [t for t in triggers if automations.runs_deployment(t, answer["id"])]
    ids = {answer["id"]: comparable.placeholder(answer["name"])}
    fields = {
        **{key: answer.get(key) for key in PLAIN},
        "work_pool": answer.get("work_pool_name"),
        "work_queue": answer.get("work_queue_name") or "default",
        "tags": sorted(answer["tags"]),
        "parameters": answer["parameters"],
        "job_variables": answer["job_variables"],
        "paused": answer["paused"],
        "concurrency_limit": limit.get("limit", answer.get("concurrency_limit")),
        "collision_strategy": options.get("collision_strategy") or "ENQUEUE",
        "grace_period_seconds": options.get("grace_period_seconds"),
        "schedules": comparable.schedules(answer["schedules"]),
        "triggers": {t["name"]: comparable.automation(comparable.with_ids(t, ids)) for t in own},
    }
    extra = {
        "updated": _last_change(answer),
        "schedules": [{"id": s["id"], **comparable.schedule(s)} for s in answer["schedules"]],
        "triggers": {t["name"]: t["id"] for t in own},
    }
    return Live(KIND, f"{answer['flow_name']}/{answer['name']}", answer["id"], fields, extra)


def _last_change(answer: Mapping[str, Any]) -> datetime:
    """When the deployment or one of its schedules was written last."""
    texts = [answer.get("updated"), *(s.get("updated") for s in answer["schedules"])]
    return max(
        (datetime.fromisoformat(t.replace("Z", "+00:00")) for t in texts if t), default=datetime.min.replace(tzinfo=UTC)
    )


def create(client: Client, change: Change) -> str:
    """From a recorded specification: what `.deploy()` sends, without the flow. Answers the id."""
    flow_name, name = change.name.split("/", 1)
    flow = client.create("/flows/", {"name": flow_name}, lambda: client.find(f"/flows/name/{quote(flow_name)}"))
    want = change.target
    body = {
        **{key: want[key] for key in (*PLAIN, *WHOLE)},
        "name": name,
        "flow_id": flow["id"],
        "work_pool_name": want["work_pool"],
        "work_queue_name": want.get("work_queue"),
        "schedules": [schedules.body(s) for s in want["schedules"]],
        **_concurrency(want),
    }
    path = f"/deployments/name/{quote(flow_name)}/{quote(name)}"
    answer = client.create("/deployments/", body, lambda: client.find(path))
    ids = {comparable.placeholder(name): answer["id"]}
    for trigger, fields in want["triggers"].items():
        automations.post(client, trigger, fields, ids, owner=f"prefect.deployment.{answer['id']}")
    return str(answer["id"])


def _concurrency(want: Fields) -> dict[str, Any]:
    if want.get("concurrency_limit") is None:
        return {}
    options = {key: want[key] for key in ("collision_strategy", "grace_period_seconds") if want.get(key) is not None}
    return {"concurrency_limit": want["concurrency_limit"], **({"concurrency_options": options} if options else {})}


def update(client: Client, change: Change, due: bool) -> None:
    """PATCH of the fields that differ; schedules and triggers one by one. `due`: one of its scheduled runs is due soon."""
    assert change.live
    if change.touches("triggers"):  # first: the tag of a retired deployment says that its triggers are off
        _converge_triggers(client, change)
    body = patch_body(change)
    if body:
        running = not change.target["paused"] and any(s["active"] for s in change.live.fields["schedules"])
        with runs.kept(
            client, change.live.id, running and (due or change.touches("paused")), change.touches("schedules")
        ):
            client.patch(f"/deployments/{change.live.id}", body)
    if change.touches("schedules"):
        schedules.converge(client, change)


def may_leave_strays(change: Change) -> bool:
    """Runs may come up after this write that it should have ended: see `remake_runs`."""
    assert change.live
    pauses = change.touches("paused") and change.target["paused"]
    return any(schedules.replaced(change)) or (pauses and any(s["active"] for s in change.live.fields["schedules"]))


def remake_runs(client: Client, change: Change) -> None:
    """Drop what is scheduled ahead, and make it anew by the schedules as they are.

    The server's scheduler reads schedules in one transaction and inserts their runs in a later one. What was read before a schedule
    was changed, deleted or paused, and inserted after it, would be carried out as well. What a worker has taken of it is cancelled.
    """
    assert change.live
    paused, (_, gone) = change.target["paused"], schedules.replaced(change)
    running = not paused and any(s["active"] for s in change.target["schedules"])
    for run in runs.taken_ahead(client, change.live.id) if gone else ():
        if runs.maker(run) in gone:
            runs.cancel(client, run["id"], "The server made it of a schedule that was deleted meanwhile")
    with runs.kept(client, change.live.id, running):
        client.patch(f"/deployments/{change.live.id}", {"paused": paused})


def patch_body(change: Change) -> dict[str, Any]:
    want = change.target
    body = {key: want[key] for key in (*PLAIN, *WHOLE) if change.touches(key)}
    if change.touches("work_pool") or change.touches("work_queue"):
        body |= {"work_pool_name": want["work_pool"], "work_queue_name": want.get("work_queue") or "default"}
    if change.touches("concurrency_limit"):
        body["concurrency_limit"] = want["concurrency_limit"]
    if change.touches("collision_strategy") or change.touches("grace_period_seconds"):
        options = {
            key: want[key] for key in ("collision_strategy", "grace_period_seconds") if want.get(key) is not None
        }
        body["concurrency_options"] = None if options == {"collision_strategy": "ENQUEUE"} else options
    return body


def _converge_triggers(client: Client, change: Change) -> None:
    assert change.live
    had: Mapping[str, str] = change.live.extra["triggers"]
    ids = {comparable.placeholder(change.name.split("/", 1)[1]): change.live.id}
    for name, fields in change.target["triggers"].items():
        if name not in had:
            automations.post(client, name, fields, ids, owner=f"prefect.deployment.{change.live.id}")
        elif fields != change.live.fields["triggers"][name]:
            start = f"triggers.{name}."
            changed = {
                f.path.removeprefix(start).split(".")[0]
                for f in change.fields
                if f.path.startswith(start) and not f.held
            }
            automations.put(client, had[name], name, fields, ids, changed)
    for name in had.keys() - change.target["triggers"].keys():
        automations.remove(client, had[name])


def delete(client: Client, change: Change) -> None:
    """Its automations go first: Prefect would leave them behind, pointing at nothing."""
    assert change.live
    for answer in client.get(f"/automations/related-to/prefect.deployment.{change.live.id}"):
        if automations.runs_deployment(answer, change.live.id):
            automations.remove(client, answer["id"])
    client.delete(f"/deployments/{change.live.id}")
