"""Filters as the API knows them: {"name": {"any_": [...]}, "tags": {"all_": [...]}, "operator": "or_"}."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from tests.fake_prefect.store import Row
from tests.fake_prefect.wire import refuse

PAGE = 200

Time = Annotated[datetime, AfterValidator(lambda at: at if at.tzinfo else at.replace(tzinfo=UTC))]


class Query(BaseModel):
    """The body of a POST to .../filter: how many, from where on. What the real server doesn't know there it ignores."""

    limit: int | None = None
    offset: int = Field(0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _null_is_unsaid(cls, values: Any) -> Any:
        said = values.items() if isinstance(values, dict) else ()
        return {name: value for name, value in said if value is not None} if said else values


class Filter(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Combined(Filter):
    operator: Literal["and_", "or_"] = "and_"


class Ids(Filter):
    any_: list[UUID] | None = None


class IdsOrNot(Ids):
    not_any_: list[UUID] | None = None


class IdsOrNull(Combined):
    any_: list[UUID] | None = None
    is_null_: bool | None = None


class Names(Filter):
    any_: list[str] | None = None


class NamesOrNot(Names):
    not_any_: list[str] | None = None


class NamesOrNull(Combined):
    any_: list[str] | None = None
    is_null_: bool | None = None


class NamesLike(Names):
    like_: str | None = None


class Like(Filter):
    like_: str | None = None


class Keys(NamesLike):
    exists_: bool | None = None


class Is(Filter):
    eq_: bool | None = None


class Times(Filter):
    before_: Time | None = None
    after_: Time | None = None


class TimesOrNull(Times):
    is_null_: bool | None = None


class AllTags(Combined):
    all_: list[str] | None = None
    is_null_: bool | None = None


class Tags(AllTags):
    any_: list[str] | None = None


def _any(value: Any, wanted: Sequence[Any]) -> bool:
    return bool(set(value) & set(wanted)) if isinstance(value, list) else value in wanted


def _like(value: str | None, wanted: str) -> bool:
    pattern = ".*".join(map(re.escape, wanted.split("%")))
    return not wanted or (value is not None and bool(re.search(pattern, value, re.IGNORECASE)))


# The orders that most kinds know.
Order = Literal["CREATED_DESC", "UPDATED_DESC", "NAME_ASC", "NAME_DESC"]

OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "any_": _any,
    "not_any_": lambda value, unwanted: not unwanted or (value is not None and value not in unwanted),
    "all_": lambda value, wanted: set(wanted) <= set(value),
    "like_": _like,
    "startswith_": lambda value, wanted: any(value.lower().startswith(start.lower()) for start in wanted),
    "eq_": lambda value, wanted: value is wanted,
    "exists_": lambda value, wanted: (value is not None) is wanted,
    "is_null_": lambda value, wanted: (value is None or value == []) is wanted,
    "before_": lambda value, wanted: value is not None and value <= wanted,
    "after_": lambda value, wanted: value is not None and value >= wanted,
    "ge_": lambda value, wanted: value >= wanted,
    "le_": lambda value, wanted: value <= wanted,
}


def matches(wanted: Filter | None, value: Any) -> bool:
    """Does a row fit a filter; no filter, or an empty one, fits all."""
    if wanted is None:
        return True
    criteria = [(name, part) for name, part in wanted if part is not None and name != "operator"]
    checks = [
        OPERATORS[name](value, part) if name in OPERATORS else matches(part, value[name]) for name, part in criteria
    ]
    return not checks or (any(checks) if getattr(wanted, "operator", "and_") == "or_" else all(checks))


def page(rows: Sequence[Row], query: Query, order: str = "") -> list[Row]:
    """The rows from the place that was asked for, in the query's order or the given: a field and ASC or DESC."""
    limit = _limit(query)
    field, direction = (order or getattr(query, "sort", "NAME_ASC")).lower().rsplit("_", 1)
    ordered = sorted(rows, key=lambda row: (row[field] is not None, row[field]), reverse=direction == "desc")
    return ordered[query.offset : query.offset + limit]


def _limit(query: Query) -> int:
    limit = PAGE if query.limit is None else query.limit
    if limit < 0:
        raise refuse(422, "Invalid limit: must be greater than or equal to 0.")
    if limit > PAGE:
        raise refuse(422, f"Invalid limit: must be less than or equal to {PAGE}.")
    return limit
