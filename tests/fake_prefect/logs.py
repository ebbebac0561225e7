from __future__ import annotations

from typing import Literal
from uuid import UUID

from tests.fake_prefect.filters import Combined, Filter, Ids, Query, Time, Times, matches, page
from tests.fake_prefect.wire import Answer, Body, Call, Route


class LogCreate(Body):
    name: str
    level: int
    message: str
    timestamp: Time
    flow_run_id: UUID | None = None
    task_run_id: UUID | None = None


class Levels(Filter):
    ge_: int | None = None
    le_: int | None = None


class LogFilter(Combined):
    level: Levels | None = None
    timestamp: Times | None = None
    flow_run_id: Ids | None = None


class LogQuery(Query):
    logs: LogFilter | None = None
    sort: Literal["TIMESTAMP_ASC", "TIMESTAMP_DESC"] = "TIMESTAMP_ASC"


def create(call: Call) -> Answer:
    for body in call.body(list[LogCreate]):
        call.store.logs.add(**body.model_dump())
    return Answer(201)


def find(call: Call) -> Answer:
    query = call.body(LogQuery, optional=True)
    return Answer(200, page([row for row in call.store.logs.where() if matches(query.logs, row)], query))


ROUTES = (
    Route("POST", "/logs/", create, writes=True),
    Route("POST", "/logs/filter", find),
)
