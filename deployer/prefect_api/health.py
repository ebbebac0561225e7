"""How things are, not how they are set: the server's own settings, who works, what waits, what failed. Reads only, a page of each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from deployer.fields import RETIRED
from deployer.prefect_api.client import PAGE, Client
from deployer.seen import Deployed, Limit, Pool, Queue, Run, Server

HEARTBEAT = 30.0
"""Seconds that Prefect assumes where a worker does not say how often it calls."""


def server(client: Client) -> Server:
    told = client.get("/admin/settings")["server"]
    served = told["ui"]["api_url"] if told["ui"]["enabled"] else None
    return Server(
        bool(told["api"]["auth_string"]), served, told["database"]["driver"], told["concurrency"]["lease_storage"]
    )


def pools(client: Client, names: Collection[str]) -> dict[str, Pool]:
    if not names:
        return {}
    found = client.pages("/work_pools/filter", {"work_pools": {"name": {"any_": sorted(names)}}})
    return {answer["name"]: _pool(client, answer) for answer in list(found)}


def _pool(client: Client, answer: Mapping[str, Any]) -> Pool:
    workers = list(client.pages(f"/work_pools/{quote(answer['name'])}/workers/filter"))
    queues = client.pages(f"/work_pools/{quote(answer['name'])}/queues/filter")
    heard = [worker for worker in workers if worker["last_heartbeat_time"]]
    newest = max(heard, key=lambda w: str(w["last_heartbeat_time"]), default=None)
    return Pool(
        answer["name"],
        answer["type"],
        answer["is_paused"],
        answer["status"] == "READY",
        answer["concurrency_limit"],
        answer.get("active_slots") or 0,
        sum(worker["status"] == "ONLINE" for worker in workers),
        moment(newest["last_heartbeat_time"]) if newest else None,
        (newest or {}).get("heartbeat_interval_seconds") or HEARTBEAT,
        tuple(_queue(q) for q in queues),
        answer["base_job_template"],
    )


def _queue(answer: Mapping[str, Any]) -> Queue:
    polled = answer.get("last_polled")
    return Queue(
        answer["name"],
        answer["is_paused"],
        answer["concurrency_limit"],
        answer.get("active_slots") or 0,
        moment(polled) if polled else None,
    )


def deployed(answer: Mapping[str, Any]) -> Deployed:
    """From what `deployments.answers` reads."""
    limit = answer.get("global_concurrency_limit")
    written = [answer["updated"], *(s["updated"] for s in answer["schedules"])]
    return Deployed(
        answer["id"],
        f"{answer['flow_name']}/{answer['name']}",
        answer["version"],
        answer.get("work_pool_name"),
        answer.get("work_queue_name"),
        _limit(limit) if limit else None,
        not answer["paused"] and any(s["active"] for s in answer["schedules"]),
        RETIRED in answer["tags"],
        max(moment(text) for text in written),
    )


def limits(client: Client, names: Collection[str]) -> list[Limit]:
    if not names:
        return []
    return [_limit(a) for a in client.pages("/v2/concurrency_limits/filter") if a["name"] in names]


def _limit(answer: Mapping[str, Any]) -> Limit:
    return Limit(
        answer["name"], answer["limit"], answer["active_slots"], answer["slot_decay_per_second"], answer["active"]
    )


HOLDING = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING", "PAUSED"]}}}
"""Runs that may hold a slot."""


def running(client: Client, deployments: Collection[str]) -> set[str]:
    """Which of these have a run that may hold a slot."""
    if not deployments:
        return set()
    body = {"deployments": {"id": {"any_": sorted(deployments)}}, "flow_runs": HOLDING}
    return {deployment["id"] for deployment in client.pages("/deployments/filter", body)}


def anything_runs(client: Client) -> bool:
    """Of this environment or another's: a global limit is everybody's."""
    return bool(client.request("POST", "/flow_runs/filter", {"flow_runs": HOLDING, "limit": 1}))


def overdue(client: Client, tags: Iterable[str], before: datetime) -> tuple[list[Run], bool]:
    """Runs that should have been started before that, the oldest first, and whether these are all."""
    chosen = {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": {"before_": before.isoformat()}}
    return _runs(client, tags, chosen, "EXPECTED_START_TIME_ASC")


def failed(client: Client, tags: Iterable[str], since: datetime) -> tuple[list[Run], bool]:
    """Runs that failed or crashed since then, the newest first, and whether these are all."""
    chosen = {"state": {"type": {"any_": ["FAILED", "CRASHED"]}}, "end_time": {"after_": since.isoformat()}}
    return _runs(client, tags, chosen, "END_TIME_DESC")


def _runs(client: Client, tags: Iterable[str], chosen: Mapping[str, Any], sort: str) -> tuple[list[Run], bool]:
    body = {"deployments": {"tags": {"all_": sorted(tags)}}, "flow_runs": chosen, "sort": sort, "limit": PAGE}
    found = client.request("POST", "/flow_runs/filter", body)
    return [_run(answer) for answer in found], len(found) < PAGE


def _run(answer: Mapping[str, Any]) -> Run:
    return Run(
        answer["id"],
        answer["name"],
        answer["deployment_id"],
        moment(answer["expected_start_time"]),
        answer["state_name"],
        answer["state"].get("message") or "",
    )


def errors(client: Client, run: str) -> str:
    """What a run's log says at level ERROR and above."""
    chosen = {"flow_run_id": {"any_": [run]}, "level": {"ge_": 40}}
    found = client.request("POST", "/logs/filter", {"logs": chosen, "sort": "TIMESTAMP_ASC", "limit": 20})
    return "\n".join(log["message"] for log in found)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
