"""The runs of a deployment: those that its schedules make in advance, and those that somebody starts."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from tests.fake_prefect import deployments, flow_runs, schedules
from tests.fake_prefect.dates import dates
from tests.fake_prefect.fields import Json
from tests.fake_prefect.filters import Time
from tests.fake_prefect.flow_runs import StateCreate
from tests.fake_prefect.schema import misfit
from tests.fake_prefect.store import Row, Store
from tests.fake_prefect.wire import Answer, Body, Call, Route, refuse

# The server's own settings.
FEWEST_RUNS = 3
MOST_RUNS = 100
LEAST_AHEAD = timedelta(hours=1)
MOST_AHEAD = timedelta(days=100)


class Schedule(BaseModel):
    start_time: Time | None = None
    end_time: Time | None = None
    min_time: float | None = None
    min_runs: int | None = None
    max_runs: int | None = None


class FlowRunCreate(Body):
    state: StateCreate | None = None
    name: str | None = None
    parameters: Json = Field(default_factory=dict)
    enforce_parameter_schema: bool | None = None
    context: Json = Field(default_factory=dict)
    infrastructure_document_id: UUID | None = None
    empirical_policy: Json = Field(default_factory=lambda: dict(flow_runs.POLICY))
    tags: list[str] = Field(default_factory=list)
    idempotency_key: str | None = None
    labels: Json | None = None
    parent_task_run_id: UUID | None = None
    work_queue_name: str | None = None
    job_variables: Json | None = Field(default_factory=dict)


def schedule(call: Call) -> Answer:
    """Make the runs of all active schedules; runs that exist already are not made twice. Pausing does not matter."""
    body = call.body(Schedule, optional=True)
    deployment = call.store.deployments.get(call.id())
    if deployment:
        for one in schedules.of(call.store, deployment["id"]):
            if one["active"]:
                _make_runs(call.store, deployment, one, body)
    return Answer(200)


def create_flow_run(call: Call) -> Answer:
    body = call.body(FlowRunCreate)
    deployment = deployments.one(call)
    parameters = {**deployment["parameters"], **body.parameters}
    _check(deployment, parameters, body.enforce_parameter_schema)
    now = call.store.clock.tick()
    at = body.state.state_details.get("scheduled_time") if body.state else None
    run, new = flow_runs.add(
        call.store,
        deployment,
        body.idempotency_key,
        flow_runs.scheduled(_time(at) or now, now, body.state.message if body.state else None),
        **_chosen(body),
        parameters=parameters,
        tags=sorted({*deployment["tags"], *body.tags}),
        labels={**_labels(deployment), **(body.labels or {})},
    )
    run["state"]["state_details"]["flow_run_id"] = run["id"]
    return Answer(201 if new else 200, flow_runs.shape(call.store, run))


def _make_runs(store: Store, deployment: Row, one: Row, body: Schedule) -> None:
    now = store.clock.tick()
    start = body.start_time or now
    end = body.end_time or start + MOST_AHEAD
    for count, date in enumerate(dates(one["schedule"], start, end, body.max_runs or MOST_RUNS), start=1):
        flow_runs.add(
            store,
            deployment,
            f"scheduled {deployment['id']} {one['id']} {date}",
            flow_runs.scheduled(date, now, "Flow run scheduled"),
            parameters={**deployment["parameters"], **one["parameters"]},
            tags=["auto-scheduled", *deployment["tags"]],
            labels=_labels(deployment),
            auto_scheduled=True,
            created_by={"id": one["id"], "type": "SCHEDULE", "display_value": one["slug"] or _kind(one["schedule"])},
        )
        if count >= _fewest(body) and date >= start + _ahead(body):
            return


def _fewest(body: Schedule) -> int:
    return FEWEST_RUNS if body.min_runs is None else body.min_runs


def _ahead(body: Schedule) -> timedelta:
    return LEAST_AHEAD if body.min_time is None else timedelta(seconds=body.min_time)


def _kind(schedule: Json) -> str:
    kinds = {"cron": "CronSchedule", "interval": "IntervalSchedule", "rrule": "RRuleSchedule"}
    return next(kind for key, kind in kinds.items() if key in schedule)


def _labels(deployment: Row) -> Json:
    return {**deployment["labels"], "prefect.deployment.id": str(deployment["id"])}


def _chosen(body: FlowRunCreate) -> dict[str, Any]:
    names = ("context", "infrastructure_document_id", "empirical_policy", "parent_task_run_id", "job_variables")
    chosen = {name: getattr(body, name) for name in names}
    return chosen | ({"name": body.name} if body.name else {})


def _time(value: Any) -> datetime | None:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def _check(deployment: Row, parameters: Json, enforced: bool | None) -> None:
    if not (deployment["enforce_parameter_schema"] if enforced is None else enforced):
        return
    schema = deployment["parameter_openapi_schema"]
    fault = misfit(parameters, schema, lenient=True) if schema else None
    if fault:
        raise refuse(409, f"Error creating flow run: {fault}")


ROUTES = (
    Route("POST", "/deployments/{id}/schedule", schedule, writes=True),
    Route("POST", "/deployments/{id}/create_flow_run", create_flow_run, writes=True),
)
