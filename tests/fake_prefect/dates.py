"""When a schedule fires: the dates on or after a start, in the schedule's own time zone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from croniter import croniter
from dateutil import rrule

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
FIRST_ANCHOR = datetime(2020, 1, 1)


def dates(schedule: dict[str, Any], start: datetime, end: datetime, most: int) -> Iterator[datetime]:
    """At most `most` dates from `start` to `end`, both included."""
    zone = ZoneInfo(schedule["timezone"] or "UTC")
    local = start.astimezone(zone)
    if "cron" in schedule:
        found = _cron(schedule, local)
    elif "interval" in schedule:
        found = _interval(timedelta(seconds=schedule["interval"]), schedule["anchor_date"], local)
    else:
        found = _rrule(schedule["rrule"], local)
    for date in islice(found, most):
        if date > end:
            return
        yield date


def anchored(text: str, zone: str, now: datetime) -> str:
    """An rrule with a DTSTART, which the server adds when there is none: 2020, or for fast rules the last tick."""
    if "DTSTART" in text.upper():
        return text
    start = FIRST_ANCHOR
    fast = re.search(r"FREQ=(SECOND|MINUTE)LY", text.upper())
    if fast and "COUNT=" not in text.upper() and "\n" not in text.strip():
        every = re.search(r"INTERVAL=(\d+)", text.upper())
        step = int(every[1] if every else 1) * (MINUTE if fast[1] == "MINUTE" else SECOND)
        start += (now.astimezone(ZoneInfo(zone)).replace(tzinfo=None) - FIRST_ANCHOR) // step * step
    return f"DTSTART:{start:%Y%m%dT%H%M%S}\n{text}"


def _cron(schedule: dict[str, Any], start: datetime) -> Iterator[datetime]:
    """By the clock on the wall. Of an hour that comes twice in autumn the first counts, and an hour that is skipped in
    spring is the one before: so it is on Python 3.11 and 3.12, where Prefect uses pendulum."""
    before = start.replace(tzinfo=None) - SECOND
    if before.microsecond:
        before += SECOND
    seen = None
    for wall in croniter(schedule["cron"], before, day_or=schedule["day_or"], ret_type=datetime):
        date = _exactly(wall.replace(tzinfo=start.tzinfo), timedelta(0))
        if date.replace(tzinfo=None) != wall:
            date = _exactly(wall.replace(tzinfo=start.tzinfo, fold=1), timedelta(0))
        if date != seen:
            yield date
        seen = date


def _interval(interval: timedelta, anchor: datetime, start: datetime) -> Iterator[datetime]:
    """Whole days keep their hour over a change of the clocks; the rest of the interval is exact."""
    steps = int((start - anchor) / interval)
    date = (anchor + interval * steps).astimezone(start.tzinfo)
    while True:
        if date >= start:
            yield date
        date = _exactly(date + timedelta(days=interval.days), interval - timedelta(days=interval.days))


def _exactly(date: datetime, more: timedelta) -> datetime:
    return (date.astimezone(UTC) + more).astimezone(date.tzinfo)


def _rrule(text: str, start: datetime) -> Iterator[datetime]:
    rule = rrule.rrulestr(text, dtstart=FIRST_ANCHOR)
    local = start.replace(tzinfo=None)
    for date in rule.xafter(local, inc=True):
        yield date.replace(tzinfo=start.tzinfo)
