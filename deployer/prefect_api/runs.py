"""Flow runs: what is due, starting one, following it to its end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime, timedelta
from typing import Any

from deployer.errors import ApiRefused, DeployError, Unreachable
from deployer.prefect_api.client import Client

FINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED"})


def due(client: Client, deployments: Collection[str], since: datetime | None, until: datetime) -> list[dict[str, Any]]:
    """Runs of these deployments' schedules that wait to be started and are due in that time.

    The latest first: what a worker takes away between two pages then moves no page.
    """
    span = {"after_": since.isoformat(), "before_": until.isoformat()} if since else {"before_": until.isoformat()}
    chosen = {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": span}
    return [run for group in _groups(deployments) for run in _made(client, group, chosen)]


def provided(client: Client, deployments: Sequence[str], since: datetime) -> set[str]:
    """Which of these deployments have runs waiting that are due after that: the server makes all of one's runs together.

    Counted first, as all or none usually have: to list two hundred deployments takes the server a second. In small groups, in the
    order given: what the server's scheduler has not come to yet was written together.
    """
    found: set[str] = set()
    chosen = {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": {"after_": since.isoformat()}}
    for start in range(0, len(deployments), 50):
        group = deployments[start : start + 50]
        body = {"deployments": {"id": {"any_": list(group)}}, "flow_runs": chosen}
        have = client.request("POST", "/deployments/count", body)
        if have == len(group):
            found |= set(group)
        elif have:
            found |= {deployment["id"] for deployment in client.pages("/deployments/filter", body)}
    return found


def made(client: Client, deployment: str, since: datetime) -> list[dict[str, Any]]:
    """Runs of one deployment's schedules due since then, whatever became of them."""
    return list(_made(client, [deployment], {"expected_start_time": {"after_": since.isoformat()}}))


def taken_ahead(client: Client, deployment: str) -> list[dict[str, Any]]:
    """Runs of one deployment's schedules that a worker has taken before they are due."""
    chosen = {"state": {"type": {"any_": ["PENDING"]}}, "expected_start_time": {"after_": client.now().isoformat()}}
    return list(_made(client, [deployment], chosen))


def cancel(client: Client, run: str, message: str) -> None:
    state = {"type": "CANCELLED", "name": "Cancelled", "message": message}
    client.request("POST", f"/flow_runs/{run}/set_state", {"state": state})


def _made(client: Client, deployments: list[str], chosen: dict[str, Any]) -> Iterator[dict[str, Any]]:
    body = {
        "deployments": {"id": {"any_": deployments}},
        "flow_runs": chosen,
        "sort": "EXPECTED_START_TIME_DESC",
    }
    return (run for run in client.pages("/flow_runs/filter", body) if run.get("auto_scheduled"))


def left(client: Client, ids: Collection[str]) -> set[str]:
    """Which of these runs still exist."""
    pages = (client.pages("/flow_runs/filter", {"flow_runs": {"id": {"any_": group}}}) for group in _groups(ids))
    return {run["id"] for page in pages for run in page}


def _groups(ids: Collection[str]) -> Iterator[list[str]]:
    ordered = sorted(ids)
    return (ordered[start : start + 200] for start in range(0, len(ordered), 200))


def moment(run: Mapping[str, Any]) -> datetime:
    """When a run is due."""
    return _time(run["expected_start_time"])


def maker(run: Mapping[str, Any]) -> str | None:
    """The schedule that made a run."""
    made_by: Mapping[str, Any] = run.get("created_by") or {}
    return made_by.get("id")


def waits(run: Mapping[str, Any]) -> bool:
    """Has nobody tried to start it yet? Such runs are dropped by the server when their deployment is written."""
    return bool(run["state_type"] == "SCHEDULED" and run["state_name"] != "AwaitingConcurrencySlot")


def schedule(client: Client, deployment: str, since: datetime, until: datetime | None = None) -> None:
    """Make the runs of all active schedules from `since` on. Runs that are there already are not doubled: the server
    knows each by deployment, schedule and time."""
    span = {"start_time": since.isoformat(), **({"end_time": until.isoformat()} if until else {})}
    client.request("POST", f"/deployments/{deployment}/schedule", span)


@contextmanager
def kept(client: Client, deployment: str, wanted: bool = True, more_follows: bool = False) -> Iterator[None]:
    """Around a write at which the server drops the deployment's future runs: makes them again at once, from the moment before
    it on. Also after a write that failed or was interrupted: it may have happened.

    `more_follows`: the schedules are changed next. One that the server cannot expand must not keep its own removal away.
    """
    since = client.now()
    try:
        yield
    except Unreachable:
        raise
    except BaseException:
        if wanted:
            with suppress(DeployError):
                schedule(client, deployment, since)
        raise
    if wanted:
        with suppress(ApiRefused) if more_follows else nullcontext():
            schedule(client, deployment, since)


def start(client: Client, deployment: str, parameters: dict[str, Any], key: str) -> dict[str, Any]:
    """A run now. `key` makes a repeated request find the first one's run."""
    body = {"parameters": parameters, "idempotency_key": key, "state": {"type": "SCHEDULED", "name": "Scheduled"}}
    answer: dict[str, Any] = client.request("POST", f"/deployments/{deployment}/create_flow_run", body)
    return answer


def follow(
    client: Client, run: str, wait: Callable[[float], None], patience: timedelta | None
) -> Iterator[dict[str, Any]]:
    """Log lines as they come ({"log": ...}), state changes ({"state": ...}); the last one is final, unless patience ends first."""
    seen: dict[str, datetime] = {}
    state, waited, quiet = None, 0.0, 0.0
    while True:
        lines = list(_logs(client, run, max(seen.values()) - LATE if seen else None))
        flow_run = client.get(f"/flow_runs/{run}")  # after the lines: a run ends first, and then says so
        final = flow_run["state_type"] in FINAL
        if flow_run["state"]["name"] != state:
            state = flow_run["state"]["name"]
            yield {"state": flow_run}
        new = [log for log in lines if log["id"] not in seen]
        for log in new:
            seen[log["id"]] = _time(log["timestamp"])
            yield {"log": log}
        ended = any(log["message"].startswith("Finished in state") and not log.get("task_run_id") for log in new)
        if (final and (ended or quiet >= FLUSH[flow_run["state_type"]])) or (
            patience is not None and waited >= patience.total_seconds()
        ):
            return
        wait(1.0)
        waited += 1.0
        quiet = 0.0 if new or not final else quiet + 1.0


FLUSH = {"COMPLETED": 15.0, "FAILED": 15.0, "CANCELLED": 3.0, "CRASHED": 3.0}
"""Seconds without a line after which no more will come. A run sends its last ones after its state, every 2 s, and where the
API does not take them it tries again, 2 and 4 s later. The very last says that it finished, and then nobody waits: only for a
run that logs no such line. One that was ended from outside says no such thing."""

LATE = timedelta(seconds=30)
"""Worker and flow run send their lines in batches of their own: an older one may come after a newer one."""


def _logs(client: Client, run: str, since: datetime | None) -> Iterator[dict[str, Any]]:
    chosen: dict[str, Any] = {"flow_run_id": {"any_": [run]}}
    chosen |= {"timestamp": {"after_": since.isoformat()}} if since else {}
    return client.pages("/logs/filter", {"logs": chosen, "sort": "TIMESTAMP_ASC"})


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
