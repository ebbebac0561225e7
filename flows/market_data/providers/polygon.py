"""Provider `polygon`: massive.com, formerly Polygon.io, by its official client `massive`. It needs a key.

Worth knowing, from https://massive.com/docs/rest/stocks/aggregates/custom-bars and the client's source:

- Unadjusted prices are as traded. Adjusted ones are adjusted for splits, not for dividends.
- A daily bar is stamped with New York's midnight. Hours and minutes cover the trading before and after hours too, in
  whole hours of the clock, and a time without trades has no bar.
- A limit counts the minutes or days that bars are made of, 50,000 at most: longer ranges come in pages.
- The bars of an unknown symbol are not an error but none at all, as on a holiday. So where there are none, the
  reference data is asked whether the symbol was listed on the last of the days. That is one request more.
- The client by itself would try failed requests again at once, and swallow an answer that is no JSON: see
  `polygon_wire`. It does not use the proxies of the environment.
- The free plan allows five requests a minute. It has the day's bars at the end of the day only, and refuses a range
  that ends with today before that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import date, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flows.market_data import providers, quality
from flows.market_data.providers import Turn, errors, facts

if TYPE_CHECKING:
    import pandas as pd
    from massive import RESTClient

NAME = providers.POLYGON
LIMIT = providers.LIMITS[NAME]
BASE = "https://api.massive.com"
PAGE = 50_000
INTERVALS = {
    "1m": (1, "minute"),
    "5m": (5, "minute"),
    "15m": (15, "minute"),
    "30m": (30, "minute"),
    "1h": (1, "hour"),
    "1d": (1, "day"),
}


@dataclass(frozen=True)
class Polygon:
    """The provider with its key. It can be pickled, for another process: the key goes along, the connections don't."""

    key: str = field(repr=False)
    turn: Turn = providers.at_once
    base: str = BASE
    timeout: float = 30  # seconds without a byte

    NAME = NAME
    SYMBOLS = providers.WATCHED

    def known_symbols(self) -> tuple[str, ...]:
        """All active shares, funds and the like: over 10,000, a thousand a request."""
        with self._answers():
            listed = self._client.list_tickers(market="stocks", active=True, limit=1000)
            return tuple(sorted(one.ticker for one in listed))

    def today(self) -> date:
        return providers.today_at_the_exchange()

    def source(self, adjusted: bool) -> str:
        return providers.source(NAME, adjusted)

    def fetch_bars(self, symbol: str, interval: str, start: date, end: date, adjusted: bool = False) -> pd.DataFrame:
        providers.check(NAME, INTERVALS, symbol, interval, start, end)
        with self._answers(symbol):
            multiplier, span = INTERVALS[interval]
            found = self._client.list_aggs(
                symbol, multiplier, span, start, end, adjusted=adjusted, sort="asc", limit=PAGE
            )
            bars = frame(found)
        if bars.empty:
            self._details(symbol, min(end, self.today()))
            return providers.no_bars()
        return providers.of_days(bars, interval, start, end)

    def company_information(self, symbol: str) -> dict[str, Any]:
        told = self._details(symbol)
        return facts.company(
            symbol,
            name=told.get("name"),
            exchange=told.get("primary_exchange"),
            currency=(told.get("currency_name") or "").upper(),
            country=(told.get("locale") or "").upper(),
            industry=told.get("sic_description"),
            employees=told.get("total_employees"),
            website=told.get("homepage_url"),
            description=told.get("description"),
            listed=_day(told.get("list_date")),
            delisted=_day(told.get("delisted_utc")),
        )

    def key_statistics(self, symbol: str) -> dict[str, Any]:
        """What the reference data says, and what a year of daily bars up to yesterday, adjusted for splits, tells."""
        told, end = self._details(symbol), self.today() - timedelta(days=1)  # the free plan has no today
        year = self.fetch_bars(symbol, providers.DAILY, end - facts.YEAR - timedelta(days=7), end, adjusted=True)
        return facts.statistics(
            symbol,
            market_cap=told.get("market_cap"),
            shares_outstanding=told.get("share_class_shares_outstanding"),
            **facts.of_bars(quality.validate(year).good),
        )

    def _details(self, symbol: str, on: date | None = None) -> dict[str, Any]:
        """The reference data of today, or of a day. Raises UnknownSymbol if it was not listed then."""
        with self._answers(symbol, f" on {on}" if on else ""):
            answer = self._client.get_ticker_details(symbol, date=str(on) if on else None, raw=True)
            told: dict[str, Any] = json.loads(answer.data)["results"]
            return {**told}

    @contextmanager
    def _answers(self, symbol: str = "", when: str = "") -> Iterator[None]:
        """Whatever goes wrong in here leaves as one of our errors."""
        from flows.market_data.providers.polygon_wire import NotFound

        try:
            yield
        except NotFound:
            raise errors.unknown(NAME, symbol, when) from None
        except errors.ProviderError:
            raise
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise errors.bad(NAME, self.base, f"{type(error).__name__} while reading it") from None

    @cached_property
    def _client(self) -> RESTClient:
        from flows.market_data.providers.polygon_wire import client

        return client(self.key, self.base, self.timeout, self.turn)

    def __reduce__(self) -> tuple[Any, ...]:
        return Polygon, tuple(getattr(self, one.name) for one in fields(self))


def frame(found: Any) -> pd.DataFrame:
    """The client's bars, in the order in which they came. What is missing in one is NaN."""
    import pandas as pd

    rows = [(one.timestamp, one.open, one.high, one.low, one.close, one.volume) for one in found]
    bars = pd.DataFrame(rows, columns=providers.COLUMNS)
    values = {name: pd.to_numeric(bars[name]).astype(float) for name in providers.COLUMNS[1:]}
    return bars.assign(time=pd.to_datetime(bars["time"].astype(float), unit="ms", utc=True), **values)


def _day(text: str | None) -> date | None:
    """2004-08-19, or 2022-10-28T00:00:00Z."""
    return date.fromisoformat(text[:10]) if text else None
