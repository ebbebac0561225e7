"""Flow runs: read, filter, delete, move from state to state; the runs that a schedule made in advance."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID, uuid4

from pydantic import Field

from tests.fake_prefect import related
from tests.fake_prefect.fields import Json
from tests.fake_prefect.filters import page
from tests.fake_prefect.related import RelatedQuery, StateType
from tests.fake_prefect.store import Row, Store
from tests.fake_prefect.wire import Answer, Body, Call, Refusal, Route, refuse

FINAL = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")
STATE_DETAILS = dict.fromkeys(
    (
        "flow_run_id",
        "task_run_id",
        "child_flow_run_id",
        "scheduled_time",
        "cache_key",
        "cache_expiration",
        "pause_timeout",
        "pause_key",
        "run_input_keyset",
        "refresh_cache",
        "retriable",
        "transition_id",
        "task_parameters_id",
        "traceparent",
        "deployment_concurrency_lease_id",
    )
) | {"deferred": False, "untrackable_result": False, "pause_reschedule": False}
POLICY: Json = {
    "max_retries": 0,
    "retry_delay_seconds": 0.0,
    "retries": None,
    "retry_delay": None,
    "pause_keys": [],
    "resuming": False,
    "retry_type": None,
}


class StateCreate(Body):
    type: StateType
    name: str | None = None
    message: str | None = None
    data: Any = None
    state_details: Json = Field(default_factory=dict)


class SetState(Body):
    state: StateCreate
    force: bool = False


class FlowRunQuery(RelatedQuery):
    sort: Literal[
        "ID_DESC",
        "EXPECTED_START_TIME_ASC",
        "EXPECTED_START_TIME_DESC",
        "NAME_ASC",
        "NAME_DESC",
        "NEXT_SCHEDULED_START_TIME_ASC",
        "END_TIME_DESC",
    ] = "ID_DESC"


def add(store: Store, deployment: Row, key: str | None, state: Row, **values: Any) -> tuple[Row, bool]:
    """A run of the deployment and whether it is new: the same key gives the same run."""
    existing = store.flow_runs.find(idempotency_key=key, flow_id=deployment["flow_id"]) if key else None
    if existing:
        return existing, False
    run = {**_empty(deployment), "idempotency_key": key, "name": f"run-{len(store.flow_runs) + 1}", **values}
    run = store.flow_runs.add(**run)
    _enter(run, state)
    return run, True


def scheduled(at: datetime, now: datetime, message: str | None) -> Row:
    return _state("SCHEDULED", "Scheduled", message, now, scheduled_time=at)


def delete_scheduled(store: Store, deployment_id: UUID, auto_only: bool, future_only: bool) -> None:
    """Forget the runs that have not started yet; `auto_only`: those that a schedule made."""
    now = store.clock.read()
    for run in store.flow_runs.where(deployment_id=deployment_id, state_type="SCHEDULED", run_count=0):
        if run["state_name"] == "AwaitingConcurrencySlot" or (auto_only and not run["auto_scheduled"]):
            continue
        if not future_only or run["next_scheduled_start_time"] > now:
            store.flow_runs.remove(run)


def shape(store: Store, run: Row) -> Row:
    """The run as it is answered: with the names of its queue and pool, and its times as of now."""
    queue = store.work_queues.get(run["work_queue_id"]) or {}
    pool = store.work_pools.get(queue.get("work_pool_id")) or {}
    begun = run["start_time"] or (run["expected_start_time"] if run["state_type"] in FINAL else store.clock.read())
    return {
        **run,
        "work_queue_id": queue.get("id"),
        "work_queue_name": queue.get("name", run["work_queue_name"]),
        "work_pool_id": pool.get("id"),
        "work_pool_name": pool.get("name"),
        "estimated_run_time": run["total_run_time"],
        "estimated_start_time_delta": max(begun - run["expected_start_time"], timedelta(0)),
    }


def find(call: Call) -> Answer:
    query = call.body(FlowRunQuery, optional=True)
    rows = page(related.flow_runs(call.store, query), query)
    return Answer(200, [shape(call.store, run) for run in rows])


def read(call: Call) -> Answer:
    return Answer(200, shape(call.store, _run(call)))


def delete(call: Call) -> Answer:
    call.store.flow_runs.remove(_run(call))
    return Answer(204)


def set_state(call: Call) -> Answer:
    """Every state is accepted; the real server's rules about which may follow which are not played here."""
    body = call.body(SetState).state
    run = call.store.flow_runs.get(call.id())
    if run is None:
        raise Refusal(404, {"exception_message": f"Flow run with id {call.id()} not found"})
    now = call.store.clock.tick()
    name = body.name or body.type.capitalize()
    known = {"SCHEDULED": now, "PENDING": run["state"]["state_details"]["scheduled_time"]}
    details = {"scheduled_time": known.get(body.type), **body.state_details, "flow_run_id": run["id"]}
    state = _state(body.type, name, body.message, now, **details)
    call.store.flow_runs.change(run)
    _enter(run, {**state, "data": body.data})
    return Answer(201, {"state": run["state"], "status": "ACCEPT", "details": {"type": "accept_details"}})


def _run(call: Call) -> Row:
    run = call.store.flow_runs.get(call.id())
    if run is None:
        raise refuse(404, "Flow run not found")
    return run


def _state(type: StateType, name: str, message: str | None, now: datetime, **details: Any) -> Row:
    return {
        "id": uuid4(),
        "type": type,
        "name": name,
        "timestamp": now,
        "message": message,
        "data": None,
        "state_details": {**STATE_DETAILS, **details},
    }


def _enter(run: Row, state: Row) -> None:
    """What a new state does to the run's counters and times."""
    if run["state_type"] == "RUNNING":
        run["total_run_time"] += state["timestamp"] - run["state"]["timestamp"]
    if state["type"] == "RUNNING":
        run["run_count"] += 1
        run["start_time"] = run["start_time"] or state["timestamp"]
    planned = state["state_details"]["scheduled_time"] if state["type"] == "SCHEDULED" else None
    at = planned.astimezone(UTC) if planned else None
    run.update(
        state=state,
        state_id=state["id"],
        state_type=state["type"],
        state_name=state["name"],
        next_scheduled_start_time=at,
        expected_start_time=run["expected_start_time"] or at or state["timestamp"],
        end_time=state["timestamp"] if state["type"] in FINAL else None,
    )


def _empty(deployment: Row) -> Row:
    nothing = dict.fromkeys(
        (
            "flow_version",
            "parent_task_run_id",
            "infrastructure_document_id",
            "infrastructure_pid",
            "created_by",
            "state",
            "state_id",
            "state_type",
            "state_name",
            "expected_start_time",
            "next_scheduled_start_time",
            "start_time",
            "end_time",
        )
    )
    return {
        **nothing,
        "flow_id": deployment["flow_id"],
        "deployment_id": deployment["id"],
        "deployment_version": deployment["version"],
        "work_queue_id": deployment["work_queue_id"],
        "work_queue_name": deployment["work_queue_name"],
        "context": {},
        "empirical_policy": dict(POLICY),
        "run_count": 0,
        "total_run_time": timedelta(0),
        "auto_scheduled": False,
        "job_variables": {},
    }


ROUTES = (
    Route("POST", "/flow_runs/filter", find),
    Route("GET", "/flow_runs/{id}", read),
    Route("DELETE", "/flow_runs/{id}", delete, writes=True),
    Route("POST", "/flow_runs/{id}/set_state", set_state, writes=True),
)
