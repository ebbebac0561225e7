"""Bars for tests: made up, or Apple's real ones."""

from __future__ import annotations

from datetime import date
from functools import cache
from typing import Any

import pandas as pd

from flows.market_data.providers import sample

LONG_AGO, LAST_DAY = date(2000, 1, 1), sample.today()


def bars(*rows: dict[str, Any]) -> pd.DataFrame:
    """Sound bars of 1 January 2010 and the days after; each row says only what differs."""
    sound = {"open": 10.0, "high": 12.0, "low": 9.0, "close": 11.0, "volume": 100}
    return pd.DataFrame([{"time": day(number), **sound, **row} for number, row in enumerate(rows, start=1)])


def day(number: int) -> pd.Timestamp:
    return pd.Timestamp(year=2010, month=1, day=number, tz="UTC")


@cache
def apple() -> pd.DataFrame:
    """Every adjusted bar of AAPL, 3,270 of them, with the symbol as the warehouse gives it."""
    return sample.fetch_bars("AAPL", "1d", LONG_AGO, LAST_DAY, adjusted=True).assign(symbol="AAPL")
