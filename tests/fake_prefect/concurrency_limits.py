"""Global concurrency limits, which are the limits of deployments too."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import Field

from tests.fake_prefect.fields import Name
from tests.fake_prefect.filters import Query, page
from tests.fake_prefect.store import Row, Store
from tests.fake_prefect.wire import Answer, Body, Call, Route, integrity_conflict, refuse

Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(ge=0)]
# Only the answer to a creation has these.
INTERNAL = ("denied_slots", "avg_slot_occupancy_seconds")


class LimitCreate(Body):
    active: bool = True
    name: Name
    limit: Count
    active_slots: Count = 0
    denied_slots: Count = 0
    slot_decay_per_second: Rate = 0.0


class LimitUpdate(Body):
    active: bool | None = None
    name: Name | None = None
    limit: Count | None = None
    active_slots: Count | None = None
    denied_slots: Count | None = None
    slot_decay_per_second: Rate | None = None


def add(store: Store, body: LimitCreate) -> Row:
    if store.concurrency_limits.find(name=body.name):
        raise integrity_conflict()
    return store.concurrency_limits.add(**body.model_dump(), avg_slot_occupancy_seconds=2.0)


def shape(limit: Row) -> Row:
    return {name: value for name, value in limit.items() if name not in INTERNAL}


def create(call: Call) -> Answer:
    return Answer(201, add(call.store, call.body(LimitCreate)))


def find(call: Call) -> Answer:
    rows = page(call.store.concurrency_limits.where(), call.body(Query, optional=True))
    return Answer(200, [shape(row) for row in rows])


def read(call: Call) -> Answer:
    return Answer(200, shape(_limit(call)))


def update(call: Call) -> Answer:
    changes = call.body(LimitUpdate).sent()
    limit = _limit(call)
    namesake = call.store.concurrency_limits.find(name=changes.get("name"))
    if None in changes.values() or (namesake and namesake is not limit):
        raise integrity_conflict()
    call.store.concurrency_limits.change(limit, **changes)
    return Answer(204)


def delete(call: Call) -> Answer:
    call.store.concurrency_limits.remove(_limit(call))
    return Answer(204)


def _limit(call: Call) -> Row:
    key = call.path["id_or_name"]
    try:
        limit = call.store.concurrency_limits.get(UUID(key))
    except ValueError:
        limit = call.store.concurrency_limits.find(name=key)
    if limit is None:
        raise refuse(404, "Concurrency Limit not found")
    return limit


ROUTES = (
    Route("POST", "/v2/concurrency_limits/", create, writes=True),
    Route("POST", "/v2/concurrency_limits/filter", find),
    Route("GET", "/v2/concurrency_limits/{id_or_name}", read),
    Route("PATCH", "/v2/concurrency_limits/{id_or_name}", update, writes=True),
    Route("DELETE", "/v2/concurrency_limits/{id_or_name}", delete, writes=True),
)
