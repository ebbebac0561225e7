"""A request as the route functions see it, and what they answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any, TypeVar, cast
from uuid import UUID

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from tests.fake_prefect.store import Store

T = TypeVar("T")

ID = re.compile(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")


class Body(BaseModel):
    """What a client may send; like the real server, a field that it doesn't know is refused."""

    model_config = ConfigDict(extra="forbid")

    def sent(self) -> dict[str, Any]:
        """Only the fields that the client named: what a PATCH changes."""
        return self.model_dump(exclude_unset=True)


@dataclass(frozen=True)
class Answer:
    status: int
    content: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def encoded(self) -> bytes:
        return b"" if self.status == 204 else json.dumps(self.content, default=_plain).encode()


class Refusal(Exception):
    """An answer that says no; nothing was changed."""

    def __init__(self, status: int, content: Any) -> None:
        super().__init__(status, content)
        self.answer = Answer(status, content)


def refuse(status: int, detail: str) -> Refusal:
    return Refusal(status, {"detail": detail})


def integrity_conflict() -> Refusal:
    return refuse(
        409,
        "Data integrity conflict. This usually means a unique or foreign key constraint was violated. "
        "See server logs for details.",
    )


def server_error() -> Refusal:
    return Refusal(500, {"exception_message": "Internal Server Error"})


@dataclass(frozen=True)
class Call:
    """One request: the parts of its path, its query, its body, and the store to work on."""

    store: Store
    version: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    content: bytes

    def id(self, name: str = "id") -> UUID:
        return UUID(self.path[name])

    def body(self, kind: type[T], optional: bool = False) -> T:
        """The body, read as `kind`, or a refusal in the words of the real server."""
        if not self.content and not optional:
            raise _invalid([{"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}], None)
        raw = self._json() if self.content else {}
        try:
            read: T = _reader(cast(Any, kind)).validate_python(raw, from_attributes=True)
        except ValidationError as error:
            details = [{**item, "loc": ["body", *item["loc"]]} for item in error.errors(include_url=False)]
            raise _invalid(details, raw) from error
        return read

    def _json(self) -> Any:
        try:
            return json.loads(self.content)
        except ValueError as error:
            detail = {"type": "json_invalid", "loc": ["body", 0], "msg": "JSON decode error", "input": {}}
            raise _invalid([{**detail, "ctx": {"error": str(error)}}], self.content.decode()) from error


@dataclass(frozen=True)
class Route:
    """`path` as in "/flows/{id}/x/{name}": a part called `id` or `..._id` must be a UUID."""

    method: str
    path: str
    answer: Callable[[Call], Answer]
    writes: bool = False

    def match(self, path: str) -> Mapping[str, str] | None:
        found = _pattern(self.path).fullmatch(path)
        return found.groupdict() if found else None


@cache
def _reader(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@cache
def _pattern(path: str) -> re.Pattern[str]:
    def part(found: re.Match[str]) -> str:
        name = found[1]
        return f"(?P<{name}>{ID.pattern if name == 'id' or name.endswith('_id') else '[^/]+'})"

    return re.compile(re.sub(r"\{(\w+)\}", part, path))


def _invalid(details: list[Any], body: Any) -> Refusal:
    return Refusal(
        422,
        {"exception_message": "Invalid request received.", "exception_detail": details, "request_body": body},
    )


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Exception):
        return {}
    raise TypeError(f"no JSON for {value!r}")
