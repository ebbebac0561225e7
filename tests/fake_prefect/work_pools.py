from __future__ import annotations

import json
import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from tests.fake_prefect import work_queues, workers
from tests.fake_prefect.fields import Json, Name
from tests.fake_prefect.filters import Query, matches, page
from tests.fake_prefect.related import WorkPoolFilter
from tests.fake_prefect.store import Row, Store
from tests.fake_prefect.wire import Answer, Body, Call, Route, refuse

STORAGE = {"bundle_upload_step": None, "bundle_execution_step": None, "default_result_storage_block_id": None}


def _not_empty(name: str) -> str:
    if not name.strip("' \""):
        raise ValueError("name cannot be an empty string")
    return name


def _whole(template: Json | None) -> Json | None:
    """A base job template declares each variable that it uses."""
    if not template:
        return template
    if not (template.get("job_configuration") and template.get("variables")):
        raise ValueError("The `base_job_template` must contain both a `job_configuration` key and a `variables` key.")
    used = set(re.findall(r"\{\{\s*([\w.-]+)\s*\}\}", json.dumps(template["job_configuration"])))
    missing = {name for name in used if "." not in name} - set(template["variables"].get("properties", {}))
    if missing:
        raise ValueError(
            "The variables specified in the job configuration template must be present as properties in the "
            "variables schema. Your job configuration uses the following undeclared "
            f"variable(s): {' ,'.join(missing)}."
        )
    return template


Template = Annotated[Json, AfterValidator(_whole)]
Limit = Annotated[int, Field(ge=0)]


class WorkPoolCreate(Body):
    name: Annotated[Name, BeforeValidator(_not_empty)]
    description: str | None = None
    type: str = "prefect-agent"
    base_job_template: Template = Field(default_factory=dict)
    is_paused: bool = False
    concurrency_limit: Limit | None = None
    storage_configuration: Json = Field(default_factory=lambda: dict(STORAGE))


class WorkPoolUpdate(Body):
    description: str | None = None
    is_paused: bool | None = None
    base_job_template: Template | None = None
    concurrency_limit: Limit | None = None
    storage_configuration: Json | None = None


class WorkPoolQuery(Query):
    work_pools: WorkPoolFilter | None = None


def create(call: Call) -> Answer:
    body = call.body(WorkPoolCreate)
    _reserved(body.name, "Work pools starting with 'Prefect' are reserved for internal use.")
    if call.store.work_pools.find(name=body.name):
        raise refuse(409, "A work pool with this name already exists.")
    status = "PAUSED" if body.is_paused else "NOT_READY"
    pool = call.store.work_pools.add(**body.model_dump(), status=status)
    queue = work_queues.add(call.store, pool, name="default", description="The work pool's default queue.")
    call.store.work_pools.change(pool, default_queue_id=queue["id"])
    return Answer(201, _shape(call.store, pool))


def find(call: Call) -> Answer:
    query = call.body(WorkPoolQuery, optional=True)
    pools = [row for row in call.store.work_pools.where() if matches(query.work_pools, row)]
    return Answer(200, [_shape(call.store, pool) for pool in page(pools, query)])


def read(call: Call) -> Answer:
    return Answer(200, _shape(call.store, work_queues.pool_of(call)))


def update(call: Call) -> Answer:
    changes = call.body(WorkPoolUpdate).sent()
    pool = work_queues.pool_of(call)
    if changes.get("is_paused") is not None:
        idle = "READY" if workers.online(call.store, pool) else "NOT_READY"
        changes["status"] = "PAUSED" if changes["is_paused"] else idle
    call.store.work_pools.change(pool, **changes)
    return Answer(204)


def delete(call: Call) -> Answer:
    _reserved(
        call.path["pool"],
        "Work pools starting with 'Prefect' are reserved for internal use and can not be deleted.",
    )
    pool = work_queues.pool_of(call)
    call.store.work_queues.remove(*call.store.work_queues.where(work_pool_id=pool["id"]))
    call.store.workers.remove(*call.store.workers.where(work_pool_id=pool["id"]))
    call.store.work_pools.remove(pool)
    return Answer(204)


def _reserved(name: str, message: str) -> None:
    if name.lower().startswith("prefect"):
        raise refuse(403, message)


def _shape(store: Store, pool: Row) -> Row:
    queues = {queue["id"] for queue in store.work_queues.where(work_pool_id=pool["id"])}
    busy = [run for run in store.flow_runs.where() if run["work_queue_id"] in queues and _busy(run)]
    return {**pool, "active_slots": None if pool["concurrency_limit"] is None else len(busy)}


def _busy(run: Row) -> bool:
    return run["state_type"] in ("PENDING", "RUNNING")


ROUTES = (
    Route("POST", "/work_pools/", create, writes=True),
    Route("POST", "/work_pools/filter", find),
    Route("GET", "/work_pools/{pool}", read),
    Route("PATCH", "/work_pools/{pool}", update, writes=True),
    Route("DELETE", "/work_pools/{pool}", delete, writes=True),
)
