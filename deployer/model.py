"""The nouns of a deploy, as frozen data: Resource, Live, Change, Plan, Outcome, Release. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

KINDS = ("variable", "secret", "concurrency_limit", "work_pool", "work_queue", "deployment", "automation")
"""In the order in which they are created: what others need comes first. Removal runs backwards."""

ACTIONS = ("create", "update", "pause", "delete", "held")

Key = tuple[str, str]
Fields = Mapping[str, Any]


class Hidden:
    """A secret's value. Equal to its like, and never shown: not by repr, not by JSON, not by a format string."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hidden) and other._value == self._value

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "(hidden)"


@dataclass(frozen=True)
class Resource:
    """What should exist: `fields` are in the comparable form of comparable.py."""

    kind: str
    name: str
    fields: Fields

    @property
    def key(self) -> Key:
        return self.kind, self.name


@dataclass(frozen=True)
class Live:
    """What exists now. `extra` holds what writing needs and comparing must not see (ids of schedules and so on)."""

    kind: str
    name: str
    id: str
    fields: Fields
    extra: Fields = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return self.kind, self.name


@dataclass(frozen=True)
class FieldChange:
    path: str
    before: Any
    after: Any
    held: bool = False


@dataclass(frozen=True)
class Change:
    """One row of the plan. `target` is what the resource will be: the merge of wanted and live."""

    kind: str
    name: str
    action: str
    fields: tuple[FieldChange, ...] = ()
    target: Fields = field(default_factory=dict)
    live: Live | None = None

    @property
    def key(self) -> Key:
        return self.kind, self.name

    def touches(self, field_name: str) -> bool:
        """Does writing this change send the field (or a part of it)?"""
        start = field_name + "."
        return any(not f.held and (f.path == field_name or f.path.startswith(start)) for f in self.fields)


@dataclass(frozen=True)
class Refusal:
    """A guard that says no: its name, the reason with its numbers, and the way on."""

    guard: str
    message: str


@dataclass(frozen=True)
class Base:
    """The release that the plan starts from."""

    release: int
    commit: str


@dataclass(frozen=True)
class Plan:
    environment: str
    commit: str
    ref: str
    base: Base | None
    changes: tuple[Change, ...]
    unchanged: int
    refusals: tuple[Refusal, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def writes(self) -> tuple[Change, ...]:
        return tuple(c for c in self.changes if c.action != "held")

    @property
    def summary(self) -> dict[str, int]:
        counts = {action: sum(c.action == action for c in self.changes) for action in ACTIONS}
        return {**counts, "unchanged": self.unchanged}

    @property
    def digest(self) -> str:
        return digest({"environment": self.environment, "commit": self.commit, "changes": rows(self.changes)})


@dataclass(frozen=True)
class Outcome:
    """What became of one change."""

    kind: str
    name: str
    action: str
    result: str  # done | failed | skipped
    error: str | None = None


@dataclass(frozen=True)
class Release:
    """One line of the ledger. `specification` is the digest of the specification that it applied."""

    number: int
    project: str
    environment: str
    commit: str
    ref: str
    actor: str
    run_url: str
    tool_version: str
    digest: str
    specification: str
    summary: Mapping[str, int]
    started: str
    seconds: float | None
    result: str  # started | succeeded | failed | interrupted | unverified
    rollback_of: int | None = None
    restores: int | None = None
    reason: str = ""
    error: str = ""
    declares: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        return self.result == "succeeded"

    @property
    def ended_early(self) -> bool:
        return self.result in ("failed", "interrupted", "unverified")


@dataclass(frozen=True)
class Specification:
    """All that a release sets, whole, without secret values: enough to put it back without its code.

    `inputs` identifies the files and variables it was built from; `retired` keeps the fields of what was
    removed and may return; `created` lists the resources without tags that we made, and so may delete.
    """

    project: str
    environment: str
    commit: str
    inputs: str
    resources: tuple[Resource, ...]
    secrets: Mapping[str, str] = field(default_factory=dict)
    retired: Mapping[str, Fields] = field(default_factory=dict)
    created: tuple[Key, ...] = ()

    def by_key(self) -> dict[Key, Fields]:
        return {r.key: r.fields for r in self.resources}


def rows(changes: Iterable[Change]) -> list[dict[str, Any]]:
    """The changes as the plan's JSON shows them."""
    return [
        {
            "kind": c.kind,
            "name": c.name,
            "action": c.action,
            "fields": [{**asdict(f), "before": shown(f.before), "after": shown(f.after)} for f in c.fields],
        }
        for c in changes
    ]


def shown(value: Any) -> Any:
    """A value as anybody may see it."""
    if isinstance(value, Hidden):
        return repr(value)
    if isinstance(value, Mapping):
        return {key: shown(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [shown(inner) for inner in value]
    return value


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: `true` is not 1, but 1.0 is."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces."""
    return json.dumps(shown(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()
