"""Flow runs: what is due, starting one, following it to its end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta
from typing import Any

from deployer.prefect_api.client import Client

FINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED"})


def due(client: Client, deployments: Collection[str], before: datetime) -> list[dict[str, Any]]:
    """Scheduled runs of these deployments that have not started and are due before `before`, late ones included."""
    found: list[dict[str, Any]] = []
    ids = sorted(deployments)
    for start in range(0, len(ids), 200):
        body = {
            "deployments": {"id": {"any_": ids[start : start + 200]}},
            "flow_runs": {
                "state": {"type": {"any_": ["SCHEDULED"]}},
                "expected_start_time": {"before_": before.isoformat()},
            },
        }
        found += client.pages("/flow_runs/filter", body)
    return [run for run in found if run.get("auto_scheduled")]


def started(client: Client, deployment: str, since: datetime) -> list[dict[str, Any]]:
    """Scheduled runs of one deployment due since then that are no longer waiting."""
    body = {
        "deployments": {"id": {"any_": [deployment]}},
        "flow_runs": {"expected_start_time": {"after_": since.isoformat()}},
    }
    return [
        r for r in client.pages("/flow_runs/filter", body) if r.get("auto_scheduled") and r["state_type"] != "SCHEDULED"
    ]


def schedule(client: Client, deployment: str, since: datetime) -> None:
    """Make the runs of all active schedules again from `since` on. Runs that are there already are not doubled: the server
    knows each by deployment, schedule and time."""
    client.request("POST", f"/deployments/{deployment}/schedule", {"start_time": since.isoformat()})


def start(client: Client, deployment: str, parameters: dict[str, Any], key: str) -> dict[str, Any]:
    """A run now. `key` makes a repeated request find the first one's run."""
    body = {"parameters": parameters, "idempotency_key": key, "state": {"type": "SCHEDULED", "name": "Scheduled"}}
    answer: dict[str, Any] = client.request("POST", f"/deployments/{deployment}/create_flow_run", body)
    return answer


def follow(
    client: Client, run: str, wait: Callable[[float], None], patience: timedelta | None
) -> Iterator[dict[str, Any]]:
    """Log lines as they come ({"log": ...}), state changes ({"state": ...}); the last one is final, unless patience ends first."""
    seen, state, waited = 0, None, 0.0
    while True:
        flow_run = client.get(f"/flow_runs/{run}")
        final = flow_run["state_type"] in FINAL
        for log in _logs(client, run, seen):
            seen += 1
            yield {"log": log}
        if flow_run["state"]["name"] != state:
            state = flow_run["state"]["name"]
            yield {"state": flow_run}
        if final or (patience is not None and waited >= patience.total_seconds()):
            return
        wait(1.0)
        waited += 1.0


def _logs(client: Client, run: str, offset: int) -> Iterator[dict[str, Any]]:
    body: dict[str, Any] = {
        "logs": {"flow_run_id": {"any_": [run]}},
        "sort": "TIMESTAMP_ASC",
        "limit": 200,
        "offset": offset,
    }
    while page := client.request("POST", "/logs/filter", body):
        yield from page
        body["offset"] += len(page)
