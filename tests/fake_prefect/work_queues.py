"""The queues of a work pool. Their priorities are unique: who takes one moves the others down."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from tests.fake_prefect.fields import Json, Name
from tests.fake_prefect.filters import Query, matches, page
from tests.fake_prefect.related import WorkQueueFilter
from tests.fake_prefect.store import Row, Store
from tests.fake_prefect.wire import Answer, Body, Call, Route, integrity_conflict, refuse, server_error

Limit = Annotated[int, Field(ge=0)]
Priority = Annotated[int, Field(gt=0)]


class WorkQueueCreate(Body):
    name: Name
    description: str | None = ""
    is_paused: bool = False
    concurrency_limit: Limit | None = None
    priority: Priority | None = None
    filter: Json | None = None


class WorkQueueUpdate(Body):
    name: str | None = None
    description: str | None = None
    is_paused: bool = False
    concurrency_limit: Limit | None = None
    priority: Priority | None = None
    filter: Json | None = None


class WorkQueueQuery(Query):
    work_queues: WorkQueueFilter | None = None


def add(store: Store, pool: Row, priority: int | None = None, **values: Any) -> Row:
    siblings = store.work_queues.where(work_pool_id=pool["id"])
    taken = {queue["priority"] for queue in siblings}
    free = next(number for number in range(1, len(siblings) + 2) if number not in taken)
    defaults = {"description": "", "is_paused": False, "concurrency_limit": None, "filter": None}
    row: Row = {**defaults, **values, "work_pool_id": pool["id"], "last_polled": None, "status": "NOT_READY"}
    queue = store.work_queues.add(**row, priority=priority or free)
    if priority:
        _make_room(store, queue)
    return queue


def named(store: Store, pool: Row, name: str) -> Row:
    """The queue of that name; a deployment that asks for one that isn't there creates it."""
    return store.work_queues.find(work_pool_id=pool["id"], name=name) or add(store, pool, name=name)


def pool_of(call: Call) -> Row:
    pool = call.store.work_pools.find(name=call.path["pool"])
    if pool is None:
        raise refuse(404, f'Work pool "{call.path["pool"]}" not found.')
    return pool


def create(call: Call) -> Answer:
    body = call.body(WorkQueueCreate)
    pool = pool_of(call)
    if call.store.work_queues.find(work_pool_id=pool["id"], name=body.name):
        # the braces are the server's own slip
        raise refuse(409, "A work queue with this name already exists in work pool {work_pool_name!r}.")
    return Answer(201, _shape(call.store, add(call.store, pool, **body.model_dump())))


def find(call: Call) -> Answer:
    query = call.body(WorkQueueQuery, optional=True)
    queues = call.store.work_queues.where(work_pool_id=pool_of(call)["id"])
    found = page([row for row in queues if matches(query.work_queues, row)], query, "PRIORITY_ASC")
    return Answer(200, [_shape(call.store, queue) for queue in found])


def read(call: Call) -> Answer:
    return Answer(200, _shape(call.store, _queue(call)))


def update(call: Call) -> Answer:
    changes = call.body(WorkQueueUpdate).sent()
    pool_of(call)
    queue = _queue(call)
    if changes.get("name", queue["name"]) is None:
        raise integrity_conflict()
    if "is_paused" in changes:
        changes["status"] = "PAUSED" if changes["is_paused"] else "NOT_READY"
    call.store.work_queues.change(queue, **changes)
    if "priority" in changes:
        _make_room(call.store, queue)
    return Answer(204)


def delete(call: Call) -> Answer:
    pool = pool_of(call)
    queue = _queue(call)
    if queue["id"] == pool["default_queue_id"]:
        raise server_error()
    call.store.work_queues.remove(queue)
    return Answer(204)


def _queue(call: Call) -> Row:
    pool = call.store.work_pools.find(name=call.path["pool"]) or {"id": None}
    queue = call.store.work_queues.find(work_pool_id=pool["id"], name=call.path["name"])
    if queue is None:
        raise refuse(404, f"Work pool queue '{call.path['pool']}/{call.path['name']}' not found.")
    return queue


def _make_room(store: Store, newcomer: Row) -> None:
    siblings = store.work_queues.where(work_pool_id=newcomer["work_pool_id"])
    last = 0
    for queue in sorted(siblings, key=lambda row: (row["priority"], row is not newcomer)):
        last = max(queue["priority"], last + 1)
        if queue["priority"] != last:
            store.work_queues.change(queue, priority=last)


def _shape(store: Store, queue: Row) -> Row:
    pool = store.work_pools.get(queue["work_pool_id"]) or {"name": None}
    runs = store.flow_runs.where(work_queue_id=queue["id"])
    busy = [run for run in runs if run["state_type"] in ("PENDING", "RUNNING")]
    slots = None if queue["concurrency_limit"] is None else len(busy)
    return {**queue, "work_pool_name": pool["name"], "active_slots": slots}


ROUTES = (
    Route("POST", "/work_pools/{pool}/queues", create, writes=True),
    Route("POST", "/work_pools/{pool}/queues/filter", find),
    Route("GET", "/work_pools/{pool}/queues/{name}", read),
    Route("PATCH", "/work_pools/{pool}/queues/{name}", update, writes=True),
    Route("DELETE", "/work_pools/{pool}/queues/{name}", delete, writes=True),
)
