"""Deployments: the upsert by POST, the PATCH that forgets future runs, and what the server makes of what was sent."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BeforeValidator, Field, model_validator

from tests.fake_prefect import concurrency_limits, related, schedules, work_queues
from tests.fake_prefect.fields import Json, Labels
from tests.fake_prefect.filters import Order, page
from tests.fake_prefect.flow_runs import delete_scheduled
from tests.fake_prefect.related import RelatedQuery
from tests.fake_prefect.schedules import ScheduleCreate, ScheduleUpdate
from tests.fake_prefect.schema import misfit, without_required
from tests.fake_prefect.store import Row, Store
from tests.fake_prefect.wire import Answer, Body, Call, Route, integrity_conflict, refuse, server_error

# What a deployment is when nothing was said about it.
BLANK: Row = {
    "version": None,
    "description": None,
    "paused": False,
    "concurrency_options": None,
    "job_variables": {},
    "parameters": {},
    "tags": [],
    "work_queue_name": None,
    "work_queue_id": None,
    "last_polled": None,
    "parameter_openapi_schema": {},
    "path": None,
    "pull_steps": [],
    "entrypoint": None,
    "storage_document_id": None,
    "infrastructure_document_id": None,
    "created_by": None,
    "updated_by": None,
    "status": "NOT_READY",
    "enforce_parameter_schema": True,
    "concurrency_limit_id": None,
}
# Sent, but not kept in a field of the same name.
ELSEWHERE = frozenset(
    ("work_pool_name", "schedules", "concurrency_limit", "global_concurrency_limit_id", "version_info")
)

Positive = Annotated[int, Field(gt=0)]
Schema = Annotated[Json, BeforeValidator(lambda value: value or {"type": "object", "properties": {}})]


class ConcurrencyOptions(Body):
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"]
    grace_period_seconds: Annotated[int, Field(ge=60, le=86400)] | None = None


class Common(Body):
    version: str | None = None
    description: str | None = None
    paused: bool = False
    concurrency_limit: Positive | None = None
    concurrency_options: ConcurrencyOptions | None = None
    global_concurrency_limit_id: UUID | None = None
    tags: list[str] = Field(default_factory=list)
    work_queue_name: str | None = None
    work_pool_name: str | None = None
    path: str | None = None
    pull_steps: list[Json] | None = None
    entrypoint: str | None = None
    storage_document_id: UUID | None = None
    infrastructure_document_id: UUID | None = None
    version_info: Json | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_limit(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("concurrency_limit") and values.get("global_concurrency_limit_id"):
            raise ValueError("A deployment cannot have both a concurrency limit and a global concurrency limit.")
        return values


class DeploymentCreate(Common):
    name: str
    flow_id: UUID
    schedules: list[ScheduleCreate] = Field(default_factory=list)
    enforce_parameter_schema: bool = True
    parameter_openapi_schema: Schema | None = Field(default_factory=dict)
    parameters: Json = Field(default_factory=dict)
    labels: Labels = Field(default_factory=dict)
    job_variables: Json = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _fitting(cls, values: Any) -> Any:
        """Only checked if the sender asks for it by name. Parameters that are not sent count as sent and empty."""
        if not isinstance(values, dict):
            return values
        values = {**values, "parameters": values.get("parameters", {})}
        if values.get("enforce_parameter_schema") and values.get("parameter_openapi_schema"):
            fault = misfit(values["parameters"], without_required(values["parameter_openapi_schema"]))
            if fault:
                raise ValueError(fault)
        return values


class DeploymentUpdate(Common):
    schedules: list[ScheduleUpdate] = Field(default_factory=list)
    parameters: Json | None = None
    parameter_openapi_schema: Schema | None = None
    job_variables: Json | None = None
    enforce_parameter_schema: bool | None = None


class DeploymentQuery(RelatedQuery):
    sort: Order = "NAME_ASC"


def create(call: Call) -> Answer:
    """Create, or overwrite the deployment of that flow and name: what was sent, its labels, parameters, schedules."""
    store = call.store
    body = call.body(DeploymentCreate)
    _check_place(store, body)
    changes = {**_kept(body), **_limit(store, body), "labels": {"prefect.flow.id": str(body.flow_id), **body.labels}}
    if "/" in body.name:
        raise server_error()
    if store.flows.get(body.flow_id) is None:
        raise integrity_conflict()
    schedules.check_slugs(body.schedules)

    existing = store.deployments.find(flow_id=body.flow_id, name=body.name)
    deployment = existing or store.deployments.add(**BLANK)
    store.deployments.change(deployment, **changes, **_queue(store, body))
    delete_scheduled(store, deployment["id"], auto_only=True, future_only=True)
    store.schedules.remove(*store.schedules.where(deployment_id=deployment["id"]))
    schedules.add(store, deployment["id"], body.schedules, runs=False)
    _set_own_limit(store, deployment, body)
    return Answer(200 if existing else 201, shape(store, deployment))


def find(call: Call) -> Answer:
    query = call.body(DeploymentQuery, optional=True)
    rows = page(related.deployments(call.store, query), query)
    return Answer(200, [shape(call.store, row) for row in rows])


def count(call: Call) -> Answer:
    return Answer(200, len(related.deployments(call.store, call.body(DeploymentQuery, optional=True))))


def read(call: Call) -> Answer:
    return Answer(200, shape(call.store, one(call)))


def read_by_name(call: Call) -> Answer:
    flow = call.store.flows.find(name=call.path["flow"])
    deployment = call.store.deployments.find(flow_id=flow["id"], name=call.path["name"]) if flow else None
    if deployment is None:
        raise refuse(404, "Deployment not found")
    return Answer(200, shape(call.store, deployment))


def update(call: Call) -> Answer:
    """Change what was sent. Whatever that is, even nothing, the runs that schedules made in advance are deleted."""
    store = call.store
    body = call.body(DeploymentUpdate)
    deployment = store.deployments.get(call.id())
    if deployment is None:
        raise refuse(404, "Deployment not found.")
    _check_schedules(store, deployment, body)
    _check_parameters(deployment, body)
    _check_new_place(store, body)
    changes = _kept(body) | _limit(store, body)
    if None in (changes.get("parameters", {}), changes.get("enforce_parameter_schema", True)):
        raise integrity_conflict()

    store.deployments.change(deployment, **changes, **_queue(store, body))
    delete_scheduled(store, deployment["id"], auto_only=True, future_only=True)
    _set_schedules(store, deployment, body)
    _set_own_limit(store, deployment, body)
    return Answer(204)


def delete(call: Call) -> Answer:
    """With it go its limit and the runs that have not started; its automations stay."""
    store = call.store
    deployment = one(call)
    delete_scheduled(store, deployment["id"], auto_only=False, future_only=False)
    store.schedules.remove(*store.schedules.where(deployment_id=deployment["id"]))
    limit = store.concurrency_limits.get(deployment["concurrency_limit_id"])
    store.concurrency_limits.remove(*([limit] if limit else []))
    store.deployments.remove(deployment)
    return Answer(204)


def pause(call: Call) -> Answer:
    deployment = one(call)
    call.store.deployments.change(deployment, paused=True)
    delete_scheduled(call.store, deployment["id"], auto_only=True, future_only=False)
    return Answer(200)


def resume(call: Call) -> Answer:
    call.store.deployments.change(one(call), paused=False)
    return Answer(200)


def one(call: Call) -> Row:
    deployment = call.store.deployments.get(call.id())
    if deployment is None:
        raise refuse(404, "Deployment not found")
    return deployment


def shape(store: Store, deployment: Row) -> Row:
    """The deployment as it is answered: its limit in another field, with its schedules, queue and pool."""
    queue = store.work_queues.get(deployment["work_queue_id"]) or {}
    pool = store.work_pools.get(queue.get("work_pool_id")) or {}
    limit = store.concurrency_limits.get(deployment["concurrency_limit_id"])
    return {
        **{name: value for name, value in deployment.items() if name != "concurrency_limit_id"},
        "schedules": schedules.of(store, deployment["id"]),
        "concurrency_limit": None,
        "global_concurrency_limit": concurrency_limits.shape(limit) if limit else None,
        "work_queue_name": queue.get("name", deployment["work_queue_name"]),
        "work_queue_id": queue.get("id"),
        "work_pool_name": pool.get("name"),
    }


def _kept(body: Common) -> Row:
    """The fields that were sent and that are stored as sent; null job variables count as not sent."""
    kept = {name: value for name, value in body.sent().items() if name not in ELSEWHERE}
    if body.concurrency_options:
        kept["concurrency_options"] = body.concurrency_options.model_dump()
    if kept.get("job_variables", {}) is None:
        del kept["job_variables"]
    return kept


def _check_place(store: Store, body: DeploymentCreate) -> None:
    if body.work_pool_name and store.work_pools.find(name=body.work_pool_name) is None:
        raise refuse(404, f'Work pool "{body.work_pool_name}" not found.')
    fault = _job_variables_misfit(store, body.work_pool_name, body.job_variables)
    if fault:
        raise refuse(422, f"Error creating deployment: {fault}")


def _check_new_place(store: Store, body: DeploymentUpdate) -> None:
    if body.work_pool_name and store.work_pools.find(name=body.work_pool_name) is None:
        raise server_error()
    fault = _job_variables_misfit(store, body.work_pool_name, body.job_variables or {})
    if fault:
        raise refuse(409, f"Error creating deployment: {fault}")


def _queue(store: Store, body: Common) -> Row:
    """Where runs go: the named queue of the pool, or its default. A queue without a pool may be anybody's."""
    pool = store.work_pools.find(name=body.work_pool_name) if body.work_pool_name else None
    if pool and body.work_queue_name:
        return {"work_queue_id": work_queues.named(store, pool, body.work_queue_name)["id"]}
    if pool:
        return {"work_queue_id": pool["default_queue_id"]}
    if isinstance(body, DeploymentUpdate) and "work_pool_name" in body.model_fields_set:
        return {"work_queue_id": None}
    if body.work_queue_name:
        namesake = store.work_queues.find(name=body.work_queue_name)
        return {"work_queue_id": namesake["id"] if namesake else None}
    return {}


def _job_variables_misfit(store: Store, pool_name: str | None, variables: Json) -> str | None:
    pool = store.work_pools.find(name=pool_name) if pool_name else None
    schema = pool["base_job_template"].get("variables") if pool else None
    return misfit(variables, without_required(schema), lenient=True) if schema and variables else None


def _limit(store: Store, body: Common) -> Row:
    """The shared limit that a deployment is attached to by id."""
    if "global_concurrency_limit_id" not in body.model_fields_set:
        return {}
    if body.global_concurrency_limit_id and not store.concurrency_limits.get(body.global_concurrency_limit_id):
        raise refuse(404, "Concurrency limit not found")
    return {"concurrency_limit_id": body.global_concurrency_limit_id}


def _set_own_limit(store: Store, deployment: Row, body: Common) -> None:
    """A number changes the attached limit, shared or not, or creates one; null deletes it, shared or not."""
    if "concurrency_limit" not in body.model_fields_set:
        return
    limit = store.concurrency_limits.get(deployment["concurrency_limit_id"])
    if body.concurrency_limit is None:
        store.concurrency_limits.remove(*([limit] if limit else []))
        deployment["concurrency_limit_id"] = None
    elif limit is None:
        wanted = concurrency_limits.LimitCreate(name=f"deployment:{deployment['id']}", limit=body.concurrency_limit)
        deployment["concurrency_limit_id"] = concurrency_limits.add(store, wanted)["id"]
    elif limit["limit"] != body.concurrency_limit:
        store.concurrency_limits.change(limit, limit=body.concurrency_limit)


def _check_parameters(deployment: Row, body: DeploymentUpdate) -> None:
    enforced = body.enforce_parameter_schema
    if not (deployment["enforce_parameter_schema"] if enforced is None else enforced):
        return
    parameters = deployment["parameters"] if body.parameters is None else body.parameters
    schema = body.parameter_openapi_schema or deployment["parameter_openapi_schema"]
    if not isinstance(schema, dict):
        raise refuse(
            409,
            "Error updating deployment: Cannot update parameters because parameter schema enforcement is enabled "
            "and the deployment does not have a valid parameter schema.",
        )
    fault = misfit(parameters, without_required(schema), lenient=True)
    if fault:
        raise refuse(409, f"Error updating deployment: {fault}")


def _by_slug(store: Store, deployment: Row) -> dict[str | None, Row] | None:
    """The schedules by slug, if there are some and all of them have one."""
    existing = store.schedules.where(deployment_id=deployment["id"])
    found = {row["slug"]: row for row in existing}
    return found if existing and None not in found else None


def _check_schedules(store: Store, deployment: Row, body: DeploymentUpdate) -> None:
    """With slugs on both sides they are changed one by one; slugs that would get lost are refused."""
    existing = _by_slug(store, deployment)
    if existing is None:
        schedules.check_slugs(body.schedules)
        return
    if any(wanted.slug is None for wanted in body.schedules):
        raise refuse(
            422,
            "Please provide a slug for each schedule in your request to ensure schedules are updated correctly.",
        )
    replaced = [wanted.replaces for wanted in body.schedules if wanted.replaces]
    for twice in (slug for slug in replaced if replaced.count(slug) > 1):
        raise refuse(422, f"Multiple schedules have 'replaces' targeting the same slug: {twice}")
    for wanted in body.schedules:
        if wanted.replaces and wanted.slug in existing and wanted.slug not in replaced:
            raise refuse(
                422,
                f"Cannot rename schedule from '{wanted.replaces}' to '{wanted.slug}': "
                f"a schedule with slug '{wanted.slug}' already exists.",
            )
        if (wanted.replaces or wanted.slug) not in existing and not wanted.schedule:
            raise refuse(422, "Unable to create new deployment schedules without a schedule configuration.")


def _set_schedules(store: Store, deployment: Row, body: DeploymentUpdate) -> None:
    """By slug: what is not sent stays. Without slugs: all are replaced by what is sent."""
    existing = _by_slug(store, deployment)
    if existing is None:
        if "schedules" in body.model_fields_set:
            store.schedules.remove(*store.schedules.where(deployment_id=deployment["id"]))
            schedules.add(store, deployment["id"], body.schedules, runs=False)
        return
    for renamed in (existing[wanted.replaces] for wanted in body.schedules if wanted.replaces in existing):
        renamed["slug"] = None  # so that two schedules may swap theirs
    for wanted in body.schedules:
        row = existing.get(wanted.replaces or wanted.slug)
        if row:
            schedules.change(store, row, wanted)
        else:
            schedules.add(store, deployment["id"], [wanted], runs=False)


ROUTES = (
    Route("POST", "/deployments/", create, writes=True),
    Route("POST", "/deployments/filter", find),
    Route("POST", "/deployments/count", count),
    Route("GET", "/deployments/{id}", read),
    Route("GET", "/deployments/name/{flow}/{name}", read_by_name),
    Route("PATCH", "/deployments/{id}", update, writes=True),
    Route("DELETE", "/deployments/{id}", delete, writes=True),
    Route("POST", "/deployments/{id}/pause_deployment", pause, writes=True),
    Route("POST", "/deployments/{id}/resume_deployment", resume, writes=True),
)
