"""When a schedule fires, and what the server's scheduler should have made by then."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from croniter import croniter
from dateutil.rrule import rrulestr
from pydantic import TypeAdapter

from deployer.errors import ApiRefused
from deployer.prefect_api import Client
from infra.monitoring.exporter.metrics import moment

SOON = timedelta(days=1)
SECOND = timedelta(seconds=1)
SPAN = TypeAdapter(timedelta)


def fires(deployment: Mapping[str, Any], now: datetime) -> bool:
    active = (one["schedule"] for one in deployment["schedules"] if one["active"])
    return any((at := next_time(schedule, now)) and at <= now + SOON for schedule in active)


def next_time(schedule: Mapping[str, Any], now: datetime) -> datetime | None:
    """When a schedule fires next, to the hour or so; None for never, and for what only Prefect can read."""
    with suppress(ValueError, KeyError, TypeError):
        if "interval" in schedule:
            anchor, step = moment(schedule["anchor_date"]), timedelta(seconds=schedule["interval"])
            return anchor + math.ceil((now - anchor) / step) * step
        local = _local(schedule, now)
        if "cron" in schedule:
            found: datetime = croniter(schedule["cron"], local, day_or=schedule.get("day_or", True)).get_next(datetime)
            return found
        return local if _endless(schedule["rrule"]) else next(_of_rule(schedule["rrule"], local, 1), None)
    return None


def next_times(schedule: Mapping[str, Any], since: datetime, count: int) -> list[datetime]:
    """Its next ones, in order; fewer where it ends, none where that cannot be told exactly."""
    found: list[datetime] = []
    if text := schedule.get("rrule"):
        with suppress(ValueError, KeyError, TypeError):
            found += () if _endless(text) else _of_rule(text, _local(schedule, since), count)  # in one go: it is slow
        return found
    while len(found) < count and (at := next_time(schedule, found[-1] + SECOND if found else since)):
        found.append(at)
    return found


def _endless(text: str) -> bool:
    """A rule that fires so often that to count all its times from their beginning takes long."""
    often = any(f"FREQ={word}" in text for word in ("SECONDLY", "MINUTELY", "HOURLY"))
    return often and "UNTIL" not in text and "COUNT" not in text


def _of_rule(text: str, local: datetime, count: int) -> Iterator[datetime]:
    rule = rrulestr(text, dtstart=datetime(2020, 1, 1), ignoretz=True)  # Prefect's own beginning
    return (found.replace(tzinfo=local.tzinfo) for found in rule.xafter(local.replace(tzinfo=None), count))


def _local(schedule: Mapping[str, Any], now: datetime) -> datetime:
    return now.astimezone(ZoneInfo(schedule.get("timezone") or "UTC"))


@dataclass(frozen=True)
class Scheduler:
    """How many runs the server's scheduler keeps ahead of every active schedule, and how far."""

    fewest: int
    most: int
    ahead: timedelta
    horizon: timedelta

    @classmethod
    def of(cls, client: Client) -> Scheduler | None:
        """As the API is set; its services should be set alike. Prefect Cloud, for one, does not tell."""
        with suppress(ApiRefused, KeyError):
            told = client.get("/admin/settings")["server"]["services"]["scheduler"]
            ahead, horizon = map(SPAN.validate_python, (told["min_scheduled_time"], told["max_scheduled_time"]))
            return cls(told["min_runs"], told["max_runs"], ahead, horizon)
        return None

    def edge(self, deployment: Mapping[str, Any], since: datetime) -> datetime | None:
        """The deployment's last run is later than that, if the scheduler did its work. None: that cannot be told."""
        active = (one["schedule"] for one in deployment["schedules"] if one["active"])
        return max((edge for schedule in active if (edge := self._edge(schedule, since))), default=None)

    def _edge(self, schedule: Mapping[str, Any], since: datetime) -> datetime | None:
        """Half-way between two times, so that a change of the clocks makes no difference."""
        times = next_times(schedule, since, self.fewest)
        if not times or len(times) < self.fewest or times[-1] > since + self.horizon:
            return None
        before = [since, *times][-2]
        edge = before + (times[-1] - before) / 2
        far, gap = since + self.ahead, (times[-1] - since) / len(times)
        return far if edge < far and gap * self.most > self.ahead and next_time(schedule, far) else edge


def reached(client: Client, edges: Mapping[str, datetime]) -> set[str]:
    """Which of these deployments have a run that a schedule made for later than that, whatever became of it."""
    found: set[str] = set()
    ordered = sorted(edges, key=lambda id: edges[id])  # those that reach equally far together: fewest rows
    for start in range(0, len(ordered), 200):
        group = ordered[start : start + 200]
        chosen = {"expected_start_time": {"after_": edges[group[0]].isoformat()}}
        body = {"deployments": {"id": {"any_": group}}, "flow_runs": chosen, "sort": "EXPECTED_START_TIME_DESC"}
        for run in client.pages("/flow_runs/filter", body):
            if run["auto_scheduled"] and moment(run["expected_start_time"]) > edges[run["deployment_id"]]:
                found.add(run["deployment_id"])
    return found
