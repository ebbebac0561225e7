"""Where bars and facts come from: one small interface, and a module for each provider.

| provider | prices as `NAME` | prices as `NAME_adjusted` | needs |
|---|---|---|---|
| sample | as traded | adjusted for splits and dividends | nothing |
| polygon | as traded | adjusted for splits only | a key |
| yahoo | adjusted for splits only: it has none as traded | adjusted for splits and dividends | the network |

What every provider does with what goes wrong:

| what comes back | result |
|---|---|
| too many requests (429) | ProviderBusy, with the seconds to wait if the provider said them |
| a server's failure (5xx), no connection, no answer in time, Yahoo's "not you" (401, 403) | ProviderDown |
| cut off, not JSON, not of the known form | BadAnswer |
| a symbol that is unknown, or was not listed in those days | UnknownSymbol |
| a wrong key, a plan that does not include it, a range or interval that is not offered | Refused |
| days without trading | a frame without rows, with all its columns |
| NaN, negative, duplicate or unordered bars | as they came, for `quality.validate` to reject; yfinance itself sorts and drops duplicates |

The first three may pass: another try is worth it. The others are ValueErrors, and are not tried again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from datetime import date
from typing import TYPE_CHECKING, Any, Protocol

from flows.market_data.providers.errors import Refused, unknown

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["time", "open", "high", "low", "close", "volume"]
DAILY = "1d"
EXCHANGE_ZONE = "America/New_York"
SPELLING = re.compile(r"[A-Za-z0-9.^=:-]+")
SAMPLE, POLYGON, YAHOO = "sample", "polygon", "yahoo"
LIMITS = {POLYGON: "polygon-api", YAHOO: "yahoo-api"}  # global ones, that decay: so many requests in a while
WATCHED = ("AAPL", "AMZN", "BRK.B", "GOOGL", "IBM", "JPM", "META", "MSFT", "NVDA", "XOM")

Turn = Callable[[], None]
"""Called before each HTTP request. It returns when the request may be made: a rate limit, or nothing at all."""


class Provider(Protocol):
    """What a provider has: a module or an object. Symbols are written as in the US: BRK.B."""

    @property
    def NAME(self) -> str: ...

    @property
    def SYMBOLS(self) -> tuple[str, ...]:
        """What is loaded where nobody says which: a few, so that a first run is short."""
        ...

    def known_symbols(self) -> tuple[str, ...]:
        """Everything that the provider lists. It may be thousands, and take many requests to ask."""
        ...

    def today(self) -> date:
        """The newest day to ask for, by the exchange's clock."""
        ...

    def source(self, adjusted: bool) -> str:
        """The name of these prices in the warehouse."""
        ...

    def fetch_bars(self, symbol: str, interval: str, start: date, end: date, adjusted: bool = False) -> pd.DataFrame:
        """Bars of the days from `start` to `end`, both included, as they came.

        Columns: time (UTC; of a daily bar midnight of the trading day, else the bar's first moment), open, high, low,
        close (US dollars), volume (shares). Raises what `providers.errors` has, besides what its turn raises.
        """
        ...

    def company_information(self, symbol: str) -> dict[str, Any]:
        """The keys of `facts.COMPANY`; None where the provider does not say."""
        ...

    def key_statistics(self, symbol: str) -> dict[str, Any]:
        """The keys of `facts.STATISTICS`; None where the provider does not say."""
        ...


def at_once() -> None:
    """The turn of one who needs not wait."""


def source(name: str, adjusted: bool) -> str:
    """Unadjusted and adjusted prices are different sources."""
    return f"{name}_adjusted" if adjusted else name


def today_at_the_exchange() -> date:
    from datetime import datetime
    from zoneinfo import ZoneInfo

    return datetime.now(ZoneInfo(EXCHANGE_ZONE)).date()


def check(name: str, intervals: Collection[str], symbol: str, interval: str, start: date, end: date) -> None:
    """Say no before anything is asked. A symbol becomes part of an address: what can't be one is not sent."""
    if not SPELLING.fullmatch(symbol):
        raise unknown(name, symbol)
    if interval not in intervals:
        raise Refused(f"The provider '{name}' has no interval '{interval}'. It has {', '.join(intervals)}.")
    if start > end:
        raise Refused(f"The first day, {start}, is after the last, {end}: swap them.")


def no_bars() -> pd.DataFrame:
    import pandas as pd

    times = pd.Series([], dtype="datetime64[us, UTC]")
    return pd.DataFrame({"time": times, **{name: pd.Series([], dtype=float) for name in COLUMNS[1:]}})


def of_days(bars: pd.DataFrame, interval: str, start: date, end: date) -> pd.DataFrame:
    """Bars with a time in UTC -> those of the exchange's days from `start` to `end`, daily ones at midnight UTC.

    A bar without a time stays: what is wrong with it is for `quality` to say.
    """
    local = bars["time"].dt.tz_convert(EXCHANGE_ZONE).dt.tz_localize(None)
    days = local.dt.normalize()
    if interval == DAILY:
        bars = bars.assign(time=days.dt.tz_localize("UTC"))
    kept = days.isna() | days.dt.date.between(start, end)
    return bars.loc[kept, COLUMNS].reset_index(drop=True)
