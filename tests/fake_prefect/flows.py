from __future__ import annotations

from pydantic import Field

from tests.fake_prefect.fields import Labels, Name
from tests.fake_prefect.filters import Order, Query, matches, page
from tests.fake_prefect.related import FlowFilter
from tests.fake_prefect.store import Row
from tests.fake_prefect.wire import Answer, Body, Call, Route, refuse


class FlowCreate(Body):
    name: Name
    tags: list[str] = Field(default_factory=list)
    labels: Labels = Field(default_factory=dict)


class FlowQuery(Query):
    flows: FlowFilter | None = None
    sort: Order = "NAME_ASC"


def create(call: Call) -> Answer:
    """Get or create: a flow of that name stays as it is."""
    body = call.body(FlowCreate)
    existing = call.store.flows.find(name=body.name)
    return Answer(200, existing) if existing else Answer(201, call.store.flows.add(**body.model_dump()))


def find(call: Call) -> Answer:
    query = call.body(FlowQuery, optional=True)
    return Answer(200, page([row for row in call.store.flows.where() if matches(query.flows, row)], query))


def read(call: Call) -> Answer:
    return _answer(call.store.flows.get(call.id()))


def read_by_name(call: Call) -> Answer:
    return _answer(call.store.flows.find(name=call.path["name"]))


def _answer(row: Row | None) -> Answer:
    if row is None:
        raise refuse(404, "Flow not found")
    return Answer(200, row)


ROUTES = (
    Route("POST", "/flows/", create, writes=True),
    Route("POST", "/flows/filter", find),
    Route("GET", "/flows/name/{name}", read_by_name),
    Route("GET", "/flows/{id}", read),
)
