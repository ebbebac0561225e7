"""When the New York Stock Exchange trades, by `exchange_calendars`: holidays, half days, openings and closings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

EXCHANGE = "XNYS"
ZONE = "America/New_York"
FIRST_DAY = date(1990, 1, 1)  # the package's own default is twenty years ago: the sample's bars are older
DAILY = "1d"


@dataclass(frozen=True)
class Session:
    """A trading day: its first and last moment, in UTC."""

    day: date
    opens: datetime
    closes: datetime


def trading_days(first: date, last: date) -> list[date]:
    """Both ends included."""
    return [day.date() for day in _exchange().sessions_in_range(*_known(first, last))]


def is_open(day: date) -> bool:
    """Is it a trading day, be it half a one?"""
    return bool(trading_days(day, day))


def session(day: date) -> Session:
    """Raises ValueError on a day without trading."""
    import pandas as pd

    if not is_open(day):
        raise ValueError(f"{EXCHANGE} is closed on {day}; ask is_open first.")
    opens, closes = _exchange().session_open_close(pd.Timestamp(day))
    return Session(day, opens.to_pydatetime(), closes.to_pydatetime())


def half_days(first: date, last: date) -> list[date]:
    """The trading days that end early, at 13:00 in New York."""
    early = set(_exchange().early_closes.date)
    return [day for day in trading_days(first, last) if day in early]


def missing_days(bars: pd.DataFrame, first: date, last: date, interval: str = DAILY) -> list[date]:
    """The trading days that have no bar. A daily bar's day is its date in UTC, another's its date in New York."""
    times = bars["time"] if interval == DAILY else bars["time"].dt.tz_convert(ZONE)
    present = set(times.dt.date)
    return [day for day in trading_days(first, last) if day not in present]


@cache
def _exchange() -> Any:
    """Takes about a second to import and make, so it is made at the first question."""
    import exchange_calendars

    return exchange_calendars.get_calendar(EXCHANGE, start=str(FIRST_DAY))


def _known(first: date, last: date) -> tuple[Any, Any]:
    """The range as the package wants it. Outside of what it knows it would raise errors of its own."""
    import pandas as pd

    begin, end = FIRST_DAY, _exchange().last_session.date()
    if first < begin or last > end:
        raise ValueError(f"The calendar of {EXCHANGE} goes from {begin} to {end}, not from {first} to {last}.")
    return pd.Timestamp(first), pd.Timestamp(last)
