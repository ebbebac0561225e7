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
    "listed",  # the first day on the exchange
    "delisted",  # the last
    "first_bar",  # the first day that the provider has, which may be long after the listing
    "last_bar",
)
STATISTICS = (
    "symbol",
    "day",  # the trading day of the last price
    "last_price",  # US dollars, as all money here
    "high_52_weeks",
    "low_52_weeks",
    "average_volume",  # shares a day, over the last three months
    "market_cap",
    "enterprise_value",
    "shares_outstanding",
    "trailing_pe",  # price to the earnings of the last twelve months
    "forward_pe",  # to those expected of the next
    "price_to_book",
    "earnings_per_share",  # of the last twelve months
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
        "day": last["time"].date(),
        "last_price": float(last["close"]),
        "high_52_weeks": float(year["high"].max()),
        "low_52_weeks": float(year["low"].min()),
        "average_volume": round(daily["volume"].tail(THREE_MONTHS).mean()),
    }
