from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import BaseModel

from tests.fake_prefect.filters import Combined, Filter, Query, Times, matches, page
from tests.fake_prefect.store import Row, Store
from tests.fake_prefect.wire import Answer, Call, Route, refuse
from tests.fake_prefect.work_queues import pool_of

BEATS_MISSED = 3


class Heartbeat(BaseModel):
    name: str
    heartbeat_interval_seconds: int | None = None


class Statuses(Filter):
    any_: list[Literal["ONLINE", "OFFLINE"]] | None = None
    not_any_: list[Literal["ONLINE", "OFFLINE"]] | None = None


class WorkerFilter(Combined):
    last_heartbeat_time: Times | None = None
    status: Statuses | None = None


class WorkerQuery(Query):
    workers: WorkerFilter | None = None


def online(store: Store, pool: Row) -> bool:
    return any(_shape(store, worker)["status"] == "ONLINE" for worker in store.workers.where(work_pool_id=pool["id"]))


def beat(call: Call) -> Answer:
    body = call.body(Heartbeat)
    pool = pool_of(call)
    worker = call.store.workers.find(work_pool_id=pool["id"], name=body.name)
    worker = worker or call.store.workers.add(work_pool_id=pool["id"], name=body.name)
    now = call.store.clock.tick()
    interval = body.heartbeat_interval_seconds
    call.store.workers.change(worker, last_heartbeat_time=now, heartbeat_interval_seconds=interval)
    if pool["status"] == "NOT_READY":
        call.store.work_pools.change(pool, status="READY")
    return Answer(204)


def find(call: Call) -> Answer:
    query = call.body(WorkerQuery, optional=True)
    workers = [_shape(call.store, worker) for worker in call.store.workers.where(work_pool_id=pool_of(call)["id"])]
    return Answer(200, page([row for row in workers if matches(query.workers, row)], query, "LAST_HEARTBEAT_TIME_DESC"))


def delete(call: Call) -> Answer:
    worker = call.store.workers.find(work_pool_id=pool_of(call)["id"], name=call.path["name"])
    if worker is None:
        raise refuse(404, "Worker not found.")
    call.store.workers.remove(worker)
    return Answer(204)


def _shape(store: Store, worker: Row) -> Row:
    silence = store.clock.read() - worker["last_heartbeat_time"]
    patience = timedelta(seconds=(worker["heartbeat_interval_seconds"] or 30) * BEATS_MISSED)
    return {**worker, "status": "ONLINE" if silence < patience else "OFFLINE"}


ROUTES = (
    Route("POST", "/work_pools/{pool}/workers/heartbeat", beat, writes=True),
    Route("POST", "/work_pools/{pool}/workers/filter", find),
    Route("DELETE", "/work_pools/{pool}/workers/{name}", delete, writes=True),
)
