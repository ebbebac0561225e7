"""Provider `sample`: real daily prices of five companies, from the package bokeh-sampledata. No network, no key.

What the package holds (its source is Quandl's public-domain WIKI prices, as supplied):

- AAPL, IBM, MSFT from 2000-03-01, GOOG from 2004-08-19, FB from 2012-05-18, all until 2013-03-01.
- open, high, low, close, volume as traded: a split shows as a fall (AAPL, 2005-02-28: 88.99 to 44.86).
- adj_close, adjusted for splits and dividends, also for those after 2013 (AAPL's last close is 430.47, adjusted 56.14).
- GOOG is the share that is called GOOGL today.

Adjusted open, high and low are not in it: they are scaled here by the day's adj_close / close. Volume stays as traded.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

NAME = "sample"
SYMBOLS = ("AAPL", "FB", "GOOG", "IBM", "MSFT")
PRICES = ["open", "high", "low", "close"]


def today() -> date:
    """The last day that the data has. This provider's clock stands still there."""
    return date(2013, 3, 1)


def fetch_bars(symbol: str, start: date, end: date, adjusted: bool = False) -> pd.DataFrame:
    """Daily bars, both ends included: time (midnight UTC of the trading day), open, high, low, close, volume."""
    history = _history(symbol)
    days = history["time"].dt.date
    bars = history[(days >= start) & (days <= end)].reset_index(drop=True)
    return _adjusted(bars) if adjusted else bars.drop(columns="adj_close")


def _history(symbol: str) -> pd.DataFrame:
    import pandas as pd
    from bokeh_sampledata import stocks

    if symbol not in SYMBOLS:
        raise ValueError(f"The provider '{NAME}' has no symbol '{symbol}'. It has {', '.join(SYMBOLS)}.")
    frame = pd.DataFrame(getattr(stocks, symbol)).rename(columns={"date": "time"})
    return frame.assign(time=pd.to_datetime(frame["time"], utc=True))


def _adjusted(bars: pd.DataFrame) -> pd.DataFrame:
    """All four prices by the same factor, close too: so that rounding can't lift it above the high."""
    factor = bars["adj_close"] / bars["close"]
    return bars.assign(**{name: bars[name] * factor for name in PRICES}).drop(columns="adj_close")
