from __future__ import annotations

import json
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from tests.fake_prefect.filters import AllTags, Combined, Ids, NamesLike, Order, Query, matches, page
from tests.fake_prefect.store import Row
from tests.fake_prefect.wire import Answer, Body, Call, Route, integrity_conflict, refuse

LONGEST = 5000


def _name(name: str) -> str:
    if not re.match(r"^[a-z0-9-_]*$", name):
        raise ValueError("Variable name must only contain lowercase letters, numbers, and dashes or underscores.")
    return name


def _short(value: Any) -> Any:
    if value is not None and len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()) > LONGEST:
        raise ValueError(f"Variable value must be less than {LONGEST} characters")
    return value


VariableName = Annotated[str, AfterValidator(_name), Field(max_length=255)]
Value = Annotated[Any, BeforeValidator(_short)]


class VariableCreate(Body):
    name: VariableName
    value: Value
    tags: list[str] = Field(default_factory=list)


class VariableUpdate(Body):
    name: VariableName | None = None
    value: Value = None
    tags: list[str] | None = None


class VariableFilter(Combined):
    id: Ids | None = None
    name: NamesLike | None = None
    tags: AllTags | None = None


class VariableQuery(Query):
    variables: VariableFilter | None = None
    sort: Order = "NAME_ASC"


def create(call: Call) -> Answer:
    body = call.body(VariableCreate)
    if call.store.variables.find(name=body.name):
        raise refuse(409, f"A variable with the name {body.name!r} already exists.")
    return Answer(201, call.store.variables.add(**body.model_dump()))


def find(call: Call) -> Answer:
    query = call.body(VariableQuery, optional=True)
    return Answer(200, page([row for row in call.store.variables.where() if matches(query.variables, row)], query))


def read(call: Call) -> Answer:
    return Answer(200, _variable(call))


def update(call: Call) -> Answer:
    changes = call.body(VariableUpdate).sent()
    variable = _variable(call)
    namesake = call.store.variables.find(name=changes.get("name"))
    if "name" in changes and (changes["name"] is None or (namesake and namesake is not variable)):
        raise integrity_conflict()
    call.store.variables.change(variable, **changes)
    return Answer(204)


def delete(call: Call) -> Answer:
    call.store.variables.remove(_variable(call))
    return Answer(204)


def _variable(call: Call) -> Row:
    by_name = "name" in call.path
    row = call.store.variables.find(name=call.path["name"]) if by_name else call.store.variables.get(call.id())
    if row is None:
        raise refuse(404, "Variable not found.")
    return row


ROUTES = (
    Route("POST", "/variables/", create, writes=True),
    Route("POST", "/variables/filter", find),
    Route("GET", "/variables/{id}", read),
    Route("PATCH", "/variables/{id}", update, writes=True),
    Route("DELETE", "/variables/{id}", delete, writes=True),
    Route("GET", "/variables/name/{name}", read),
    Route("PATCH", "/variables/name/{name}", update, writes=True),
    Route("DELETE", "/variables/name/{name}", delete, writes=True),
)
