"""What is known of a company beside its bars: which facts, and those that its bars tell."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

COMPANY = (
    "symbol",
    "name",
    "exchange",  # as the provider calls it: XNAS, NasdaqGS
    "currency",  # ISO 4217
    "country",  # as the provider writes it
    "sector",
    "industry",
    "employees",
    "website",
    "description",
    "first_day",  # a date: the first of trading, as far as the provider knows
    "last_day",  # a date: the last of trading; None while it goes on
)
STATISTICS = (
    "symbol",
    "as_of",  # the trading day of the last price
    "last_price",  # US dollars
    "high_52_weeks",
    "low_52_weeks",
    "average_volume",  # shares a day, over the last three months
    "market_cap",  # US dollars
    "shares_outstanding",
    "price_to_earnings",  # over the last twelve months
    "earnings_per_share",  # US dollars, over the last twelve months
    "dividend_yield",  # of the last twelve months, as a fraction: 0.005 is half a per cent
    "beta",
)
YEAR = timedelta(weeks=52)
THREE_MONTHS = 63  # trading days


def company(symbol: str, **known: Any) -> dict[str, Any]:
    return _complete(COMPANY, {"symbol": symbol, **known})


def statistics(symbol: str, **known: Any) -> dict[str, Any]:
    return _complete(STATISTICS, {"symbol": symbol, **known})


def _complete(names: tuple[str, ...], known: dict[str, Any]) -> dict[str, Any]:
    """All names in their order. Empty text is no fact."""
    if strange := known.keys() - set(names):
        raise TypeError(f"no such fact: {', '.join(sorted(strange))}")
    return {name: None if known.get(name) == "" else known.get(name) for name in names}


def of_bars(daily: pd.DataFrame) -> dict[str, Any]:
    """What daily bars in the order of time tell. Highs and lows are those of the day, not of its close.

    Take prices that no split in the year makes incomparable.
    """
    if daily.empty:
        return {}
    last = daily.iloc[-1]
    year = daily[daily["time"] > last["time"] - YEAR]
    return {
        "as_of": last["time"].date(),
        "last_price": float(last["close"]),
        "high_52_weeks": float(year["high"].max()),
        "low_52_weeks": float(year["low"].min()),
        "average_volume": round(daily["volume"].tail(THREE_MONTHS).mean()),
    }
