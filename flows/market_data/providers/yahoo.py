"""Provider `yahoo`: Yahoo Finance by `yfinance`. No key, and no promise: Yahoo documents nothing and changes at will.

Worth knowing, from yfinance's source and what Yahoo answers:

- Yahoo has no prices as traded. Its "unadjusted" ones (auto_adjust=False) are adjusted for splits; the adjusted ones
  (auto_adjust=True) for dividends too, if they are daily: of hours and minutes both are the same.
- Hours begin at the opening, 9:30 in New York, and end with the session, on half days too. Hours reach back 730 days,
  single minutes 8, the other intervals 60.
- yfinance sorts bars, and keeps the first of two with one time, or of the last day's two the last. Bars without prices
  it would drop: here they are kept, for `quality.validate` to reject and count. A missing volume it makes 0.
- While a session lasts, the newest bar is not final. Loading it again later corrects it.
- A symbol's dot is a dash there: BRK.B is BRK-B.
- yfinance keeps one connection, cookie and crumb for the process, and remembers answers about past days; bad ones are
  kept out here, in `yahoo_wire`. It also keeps cookies and time zones in the user's cache folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from flows.market_data import providers
from flows.market_data.providers import Turn, errors, facts

if TYPE_CHECKING:
    import pandas as pd
    from yfinance import Ticker

    from flows.market_data.providers.yahoo_wire import Wire

NAME = providers.YAHOO
LIMIT = providers.LIMITS[NAME]  # Yahoo does not say how many requests it takes
INTERVALS = ("1m", "5m", "15m", "30m", "1h", "1d")


@dataclass(frozen=True)
class Yahoo:
    """The provider. It can be pickled, for another process: its connection stays behind."""

    turn: Turn = providers.at_once
    base: str | None = None  # in place of Yahoo's hosts
    timeout: float = 30  # seconds

    NAME = NAME
    SYMBOLS = providers.WATCHED

    def known_symbols(self) -> tuple[str, ...]:
        """The same few: Yahoo has no list."""
        return self.SYMBOLS

    def today(self) -> date:
        return providers.today_at_the_exchange()

    def source(self, adjusted: bool) -> str:
        return providers.source(NAME, adjusted)

    def fetch_bars(self, symbol: str, interval: str, start: date, end: date, adjusted: bool = False) -> pd.DataFrame:
        providers.check(NAME, INTERVALS, symbol, interval, start, end)
        with self._answers(symbol) as ticker:
            found = history(
                ticker,
                interval=interval,
                start=start,
                end=end + timedelta(days=1),  # yfinance leaves the end out
                auto_adjust=adjusted,
                actions=False,
                keepna=True,
            )
            return providers.no_bars() if found.empty else providers.of_days(frame(found), interval, start, end)

    def company_information(self, symbol: str) -> dict[str, Any]:
        with self._answers(symbol) as ticker:
            told = info(ticker)
            return facts.company(
                symbol,
                name=told.get("longName") or told.get("shortName"),
                exchange=told.get("fullExchangeName") or told.get("exchange"),
                currency=told.get("currency"),
                country=told.get("country"),
                sector=told.get("sector"),
                industry=told.get("industry"),
                employees=told.get("fullTimeEmployees"),
                website=told.get("website"),
                description=told.get("longBusinessSummary"),
                first_bar=_day(told.get("firstTradeDateMilliseconds"), per_second=1000),
            )

    def key_statistics(self, symbol: str) -> dict[str, Any]:
        with self._answers(symbol) as ticker:
            told = info(ticker)
            return facts.statistics(
                symbol,
                day=_day(told.get("regularMarketTime")),
                last_price=told.get("regularMarketPrice"),
                high_52_weeks=told.get("fiftyTwoWeekHigh"),
                low_52_weeks=told.get("fiftyTwoWeekLow"),
                average_volume=told.get("averageVolume"),
                market_cap=told.get("marketCap"),
                enterprise_value=told.get("enterpriseValue"),
                shares_outstanding=told.get("sharesOutstanding"),
                trailing_pe=told.get("trailingPE"),
                forward_pe=told.get("forwardPE"),
                price_to_book=told.get("priceToBook"),
                earnings_per_share=told.get("trailingEps"),
                # not `dividendYield`: of its two sources one has a fraction, one per cent
                dividend_yield=told.get("trailingAnnualDividendYield"),
                beta=told.get("beta"),
            )

    @contextmanager
    def _answers(self, symbol: str) -> Iterator[Ticker]:
        """yfinance's object for the symbol. Whatever goes wrong in here leaves as one of our errors."""
        import yfinance
        from yfinance.exceptions import YFException

        from flows.market_data.providers.yahoo_wire import NotFound, forget

        yfinance.config.debug.hide_exceptions = False  # else a failure looks like a day without trading
        self._wire.begin()
        try:
            yield yfinance.Ticker(symbol.replace(".", "-"), session=self._wire)
        except NotFound:
            raise errors.unknown(NAME, symbol) from None
        except errors.ProviderError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, YFException) as error:
            forget()
            raise errors.bad(NAME, f"'{symbol}'", f"{type(error).__name__} while yfinance read it") from None

    @cached_property
    def _wire(self) -> Wire:
        from flows.market_data.providers.yahoo_wire import Wire

        return Wire(self.base, self.timeout, self.turn)

    def __reduce__(self) -> tuple[Any, ...]:
        return Yahoo, tuple(getattr(self, one.name) for one in fields(self))


def history(ticker: Ticker, **asked: Any) -> pd.DataFrame:
    """yfinance's bars; none if Yahoo has none in that range."""
    import pandas as pd
    from yfinance.exceptions import YFPricesMissingError

    from flows.market_data.providers.yahoo_wire import NoBars

    try:
        found: pd.DataFrame = ticker.history(**asked)
        return found
    except (NoBars, YFPricesMissingError):
        return pd.DataFrame()


def info(ticker: Ticker) -> dict[str, Any]:
    """What Yahoo says of the symbol, all in one. Of one that it does not know it may say nothing, without an error."""
    from flows.market_data.providers.yahoo_wire import NotFound

    told: dict[str, Any] = ticker.info
    if "symbol" not in told:
        raise NotFound
    return told


def frame(found: pd.DataFrame) -> pd.DataFrame:
    """yfinance's columns and index -> ours."""
    names = {"Open": "open", "High": "high", "Low": "low", "Close": "close", "Volume": "volume"}
    bars = found.rename(columns=names)[list(names.values())].reset_index(drop=True)
    return bars.assign(time=found.index.tz_convert("UTC").as_unit("us"))


def _day(seconds: float | None, per_second: int = 1) -> date | None:
    """The day in New York of a moment since 1970, also one before it."""
    if seconds is None:
        return None
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds / per_second)
    return moment.astimezone(ZoneInfo(providers.EXCHANGE_ZONE)).date()
