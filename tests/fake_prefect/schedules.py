"""A deployment's schedules, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID
from zoneinfo import ZoneInfo

from croniter import croniter
from dateutil import rrule
from pydantic import AfterValidator, Field

from tests.fake_prefect import dates
from tests.fake_prefect.fields import Json
from tests.fake_prefect.flow_runs import delete_scheduled
from tests.fake_prefect.store import Row, Store
from tests.fake_prefect.wire import Answer, Body, Call, Route, integrity_conflict, refuse

MOST_RUNS = 50


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise ValueError(
            f'Invalid timezone: "{name}" (specify in IANA tzdata format, for example, America/New_York)'
        ) from None
    return name


def _cron(text: str) -> str:
    if not croniter.is_valid(text):
        raise ValueError(f'Invalid cron string: "{text}"')
    if {"r", "h"} & set(text.casefold().split()):
        raise ValueError(f'Random and Hashed expressions are unsupported, received: "{text}"')
    return text


def _rrule(text: str) -> str:
    try:
        rrule.rrulestr(text)
    except ValueError as error:
        raise ValueError(f'Invalid RRule string "{text}": {error}') from None
    return text


def _positive(interval: timedelta) -> timedelta:
    if interval <= timedelta(0):
        raise ValueError("interval must be positive")
    return interval


def _few(runs: int | None) -> int | None:
    if runs is not None and runs > MOST_RUNS:
        raise ValueError(f"`max_scheduled_runs` must be less than or equal to {MOST_RUNS}.")
    return runs


Zone = Annotated[str, AfterValidator(_zone)]
Few = Annotated[Annotated[int, Field(gt=0)] | None, AfterValidator(_few)]


class Interval(Body):
    interval: Annotated[timedelta, AfterValidator(_positive)]
    anchor_date: datetime | None = None
    timezone: Zone | None = None

    def kept(self, now: datetime) -> Json:
        """Without an anchor it is the moment of sending: sent again, it fires at other times."""
        anchor = self.anchor_date or now
        anchor = anchor if anchor.tzinfo else anchor.replace(tzinfo=UTC)
        return {
            "interval": self.interval.total_seconds(),
            "anchor_date": anchor,
            "timezone": self.timezone or "UTC",
        }


class Cron(Body):
    cron: Annotated[str, AfterValidator(_cron)]
    timezone: Zone | None = None
    day_or: bool = True

    def kept(self, now: datetime) -> Json:
        return self.model_dump()


class RRule(Body):
    rrule: Annotated[str, AfterValidator(_rrule)]
    timezone: Zone | None = "UTC"

    def kept(self, now: datetime) -> Json:
        return {"rrule": dates.anchored(self.rrule, self.timezone or "UTC", now), "timezone": self.timezone}


class ScheduleCreate(Body):
    active: bool = True
    schedule: Interval | Cron | RRule
    max_scheduled_runs: Few = None
    parameters: Json = Field(default_factory=dict)
    slug: str | None = None
    replaces: str | None = None


class ScheduleUpdate(Body):
    active: bool | None = None
    schedule: Interval | Cron | RRule | None = None
    max_scheduled_runs: Few = None
    parameters: Json = Field(default_factory=dict)
    slug: str | None = None
    replaces: str | None = None


def of(store: Store, deployment_id: UUID) -> list[Row]:
    """The deployment's schedules, the one changed last first: the reverse of how they were sent."""
    return sorted(store.schedules.where(deployment_id=deployment_id), key=lambda row: row["updated"], reverse=True)


def add(
    store: Store, deployment_id: UUID, wanted: Sequence[ScheduleCreate | ScheduleUpdate], runs: bool = True
) -> list[Row]:
    """`runs`: keep `max_scheduled_runs`, which is lost when a schedule is sent with its deployment."""
    check_slugs(wanted, store.schedules.where(deployment_id=deployment_id))
    return [
        store.schedules.add(
            deployment_id=deployment_id,
            schedule=body.schedule.kept(store.clock.tick()),
            active=True if body.active is None else body.active,
            max_scheduled_runs=body.max_scheduled_runs if runs else None,
            parameters=body.parameters,
            slug=body.slug,
        )
        for body in wanted
        if body.schedule
    ]


def check_slugs(wanted: Sequence[ScheduleCreate | ScheduleUpdate], existing: Sequence[Row] = ()) -> None:
    slugs = [slug for slug in [body.slug for body in wanted] + [row["slug"] for row in existing] if slug is not None]
    if len(slugs) != len(set(slugs)):
        raise integrity_conflict()


def change(store: Store, row: Row, body: ScheduleUpdate) -> None:
    """Null means "leave it", but parameters that are not sent become {}."""
    changes: dict[str, Any] = body.model_dump(exclude_none=True, exclude={"replaces", "schedule"})
    if body.schedule:
        changes["schedule"] = body.schedule.kept(store.clock.tick())
    others = [one for one in store.schedules.where(deployment_id=row["deployment_id"]) if one is not row]
    check_slugs([body], others)
    store.schedules.change(row, **changes)


def find(call: Call) -> Answer:
    return Answer(200, of(call.store, _deployment(call)["id"]))


def create(call: Call) -> Answer:
    wanted = call.body(list[ScheduleCreate])
    return Answer(201, add(call.store, _deployment(call)["id"], wanted))


def update(call: Call) -> Answer:
    body = call.body(ScheduleUpdate)
    deployment = _deployment(call)
    change(call.store, _schedule(call), body)
    delete_scheduled(call.store, deployment["id"], auto_only=True, future_only=True)
    return Answer(204)


def delete(call: Call) -> Answer:
    deployment = _deployment(call)
    call.store.schedules.remove(_schedule(call))
    delete_scheduled(call.store, deployment["id"], auto_only=True, future_only=False)
    return Answer(204)


def _deployment(call: Call) -> Row:
    row = call.store.deployments.get(call.id())
    if row is None:
        raise refuse(404, "Deployment not found.")
    return row


def _schedule(call: Call) -> Row:
    row = call.store.schedules.find(id=call.id("schedule_id"), deployment_id=call.id())
    if row is None:
        raise refuse(404, "Schedule not found.")
    return row


ROUTES = (
    Route("GET", "/deployments/{id}/schedules", find),
    Route("POST", "/deployments/{id}/schedules", create, writes=True),
    Route("PATCH", "/deployments/{id}/schedules/{schedule_id}", update, writes=True),
    Route("DELETE", "/deployments/{id}/schedules/{schedule_id}", delete, writes=True),
)
