"""When the exchange trades, against days that everybody can look up."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pandas as pd
import pytest

from flows.market_data import calendar
from flows.market_data.providers import sample
from tests.flows.frames import LAST_DAY, LONG_AGO

pytestmark = pytest.mark.filterwarnings("ignore:Series.values:DeprecationWarning")  # exchange_calendars and pandas 4


def days(*texts: str) -> list[date]:
    return [date.fromisoformat(text) for text in texts]


def hourly(*times: str) -> pd.DataFrame:
    """Bars that have only what matters here: times in New York."""
    return pd.DataFrame({"time": pd.DatetimeIndex(times, tz="America/New_York").tz_convert("UTC")})


@pytest.mark.parametrize(
    ("closed", "why"),
    [
        ("2024-07-04", "Independence Day"),
        ("2024-03-29", "Good Friday"),
        ("2024-07-06", "Saturday"),
        ("2001-09-11", "the attacks"),
        ("2012-10-29", "Hurricane Sandy"),
        ("2018-12-05", "mourning for a president"),
    ],
)
def test_the_exchange_is_closed_on_holidays_weekends_and_when_something_happened(closed: str, why: str) -> None:
    assert not calendar.is_open(date.fromisoformat(closed)), why
    with pytest.raises(ValueError, match=f"XNYS is closed on {closed}"):
        calendar.session(date.fromisoformat(closed))


def test_both_ends_of_a_range_are_included() -> None:
    week = calendar.trading_days(date(2024, 7, 1), date(2024, 7, 5))
    assert week == days("2024-07-01", "2024-07-02", "2024-07-03", "2024-07-05")
    assert calendar.trading_days(date(2024, 7, 6), date(2024, 7, 7)) == []


def test_half_days_are_trading_days_that_end_at_one() -> None:
    half = calendar.half_days(date(2024, 7, 1), date(2024, 12, 31))
    assert half == days("2024-07-03", "2024-11-29", "2024-12-24")
    assert calendar.is_open(half[0])
    assert calendar.session(half[0]).closes == datetime(2024, 7, 3, 17, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("day", "opens", "closes"),
    [
        (date(2024, 3, 8), "14:30", "21:00"),
        (date(2024, 3, 11), "13:30", "20:00"),  # the clocks went forward on Sunday
        (date(2024, 11, 1), "13:30", "20:00"),
        (date(2024, 11, 4), "14:30", "21:00"),
    ],
)
def test_a_session_follows_new_yorks_clocks(day: date, opens: str, closes: str) -> None:
    session = calendar.session(day)
    assert (f"{session.opens:%H:%M}", f"{session.closes:%H:%M}") == (opens, closes)
    assert session.opens.utcoffset() == session.closes.utcoffset() == UTC.utcoffset(None)


@pytest.mark.parametrize("symbol", sample.SYMBOLS)
def test_the_calendar_and_the_real_prices_of_thirteen_years_agree_on_every_day(symbol: str) -> None:
    bars = sample.fetch_bars(symbol, "1d", LONG_AGO, LAST_DAY)
    first = bars["time"].iloc[0].date()
    assert calendar.missing_days(bars, first, LAST_DAY) == []
    assert {time.date() for time in bars["time"]} <= set(calendar.trading_days(first, LAST_DAY))


def test_a_day_without_a_bar_is_missing_and_a_holiday_is_not() -> None:
    bars = sample.fetch_bars("IBM", "1d", date(2013, 1, 14), date(2013, 1, 25))
    kept = bars[bars["time"] != pd.Timestamp("2013-01-16", tz="UTC")]
    assert calendar.missing_days(kept, date(2013, 1, 14), date(2013, 1, 25)) == days("2013-01-16")


def test_an_hourly_bar_belongs_to_its_day_in_new_york_also_when_that_is_over_in_utc() -> None:
    bars = hourly("2024-07-01 10:00", "2024-07-02 20:00")  # the second is midnight of the 3rd in UTC
    assert calendar.missing_days(bars, date(2024, 7, 1), date(2024, 7, 3), "1h") == days("2024-07-03")


@pytest.mark.parametrize("outside", [(date(1980, 1, 1), date(2024, 1, 1)), (date(2024, 1, 1), date(2099, 1, 1))])
def test_a_range_that_the_calendar_does_not_know_is_no_guess(outside: Any) -> None:
    with pytest.raises(ValueError, match=r"The calendar of XNYS goes from 1990-01-01 to 20\d\d"):
        calendar.trading_days(*outside)
