"""A provider of the tests' own, in memory: it remembers what it was asked, and its prices can be adjusted anew."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pandas as pd

from flows.market_data import providers
from flows.market_data.providers import errors, facts


@dataclass
class Stock:
    """A bar a weekday, the same for everybody but for the price. `factor` is what adjusted prices are multiplied with."""

    factor: float = 1.0
    unknown: frozenset[str] = frozenset()
    broken: frozenset[str] = frozenset()  # whose bars are all unsound
    failing: list[BaseException] = field(default_factory=list)  # what the next questions get
    asked: list[tuple[str, bool, date, date]] = field(default_factory=list)

    NAME = "stock"
    SYMBOLS = ("AAA", "BBB", "CCC")

    def known_symbols(self) -> tuple[str, ...]:
        return self.SYMBOLS

    def company_information(self, symbol: str) -> dict[str, Any]:
        return facts.company(symbol, name=f"{symbol} Inc.")

    def key_statistics(self, symbol: str) -> dict[str, Any]:
        return facts.statistics(symbol, market_cap=1e9)

    def today(self) -> date:
        return date(2024, 7, 5)

    def source(self, adjusted: bool) -> str:
        return providers.source(self.NAME, adjusted)

    def fetch_bars(self, symbol: str, interval: str, start: date, end: date, adjusted: bool = False) -> pd.DataFrame:
        self.asked.append((symbol, adjusted, start, end))
        if self.failing:
            raise self.failing.pop(0)
        if symbol in self.unknown:
            raise errors.unknown(self.NAME, symbol)
        times = pd.bdate_range(start, end, tz="UTC")
        price = (10.0 + len(symbol) + times.day_of_year) * (self.factor if adjusted else 1)
        high = price * (0.1 if symbol in self.broken else 1.1)
        bars: dict[str, Any] = {"time": times, "open": price, "high": high, "low": price * 0.9, "close": price}
        return pd.DataFrame(bars).assign(volume=1000.0)
