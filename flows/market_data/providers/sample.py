"""Provider `sample`: real daily prices of five companies, from the package bokeh-sampledata. No network, no key.

What the package holds (its source is Quandl's public-domain WIKI prices, as supplied):

- AAPL, IBM, MSFT from 2000-03-01, GOOG from 2004-08-19, FB from 2012-05-18, all until 2013-03-01.
- open, high, low, close, volume as traded: a split shows as a fall (AAPL, 2005-02-28: 88.99 to 44.86).
- adj_close, adjusted for splits and dividends, also for those after 2013 (AAPL's last close is 430.47, adjusted 56.14).
- GOOG is the share that is called GOOGL today.

Adjusted open, high and low are not in it: they are scaled here by the day's adj_close / close. Volume stays as traded.

There are daily bars only, and no facts about the companies: what is answered of them is what the bars tell.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

from flows.market_data import providers
from flows.market_data.providers import facts
from flows.market_data.providers.errors import UnknownSymbol

if TYPE_CHECKING:
    import pandas as pd

NAME = providers.SAMPLE
SYMBOLS = ("AAPL", "FB", "GOOG", "IBM", "MSFT")
PRICES = ["open", "high", "low", "close"]


def known_symbols() -> tuple[str, ...]:
    return SYMBOLS


def today() -> date:
    """The last day that the data has. This provider's clock stands still there."""
    return date(2013, 3, 1)


def source(adjusted: bool) -> str:
    return providers.source(NAME, adjusted)


def fetch_bars(symbol: str, interval: str, start: date, end: date, adjusted: bool = False) -> pd.DataFrame:
    """Daily bars, both ends included: time (midnight UTC of the trading day), open, high, low, close, volume."""
    providers.check(NAME, [providers.DAILY], symbol, interval, start, end)
    history = _history(symbol)
    days = history["time"].dt.date
    bars = history[(days >= start) & (days <= end)].reset_index(drop=True)
    return _adjusted(bars) if adjusted else bars.drop(columns="adj_close")


def company_information(symbol: str) -> dict[str, Any]:
    """The first and the last day that the data has. Nothing else is in it: no name, no exchange."""
    days = _history(symbol)["time"].dt.date
    return facts.company(symbol, first_bar=days.iloc[0], last_bar=days.iloc[-1])


def key_statistics(symbol: str) -> dict[str, Any]:
    """As of the last day, from prices as traded: none of the five was split in the year before it."""
    return facts.statistics(symbol, **facts.of_bars(_history(symbol)))


def _history(symbol: str) -> pd.DataFrame:
    import pandas as pd
    from bokeh_sampledata import stocks

    if symbol not in SYMBOLS:
        raise UnknownSymbol(f"The provider '{NAME}' has no symbol '{symbol}'. It has {', '.join(SYMBOLS)}.")
    frame = pd.DataFrame(getattr(stocks, symbol)).rename(columns={"date": "time"})
    return frame.assign(time=pd.to_datetime(frame["time"], utc=True))


def _adjusted(bars: pd.DataFrame) -> pd.DataFrame:
    """All four prices by the same factor, close too: so that rounding can't lift it above the high."""
    factor = bars["adj_close"] / bars["close"]
    return bars.assign(**{name: bars[name] * factor for name in PRICES}).drop(columns="adj_close")
