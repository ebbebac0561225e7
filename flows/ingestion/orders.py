"""What is to be fetched: decided before anything is asked, from what the warehouse says is done. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from flows.market_data.loads import Days, missing

Done = Mapping[tuple[bool, str], Mapping[str, Sequence[Days]]]
"""By adjusted and interval, then by symbol: the days that need not be fetched again."""


@dataclass(frozen=True)
class Order:
    """Days of one series to fetch, the first and the last included: one request, or as many as it has pages."""

    symbol: str
    interval: str
    adjusted: bool
    first: date
    last: date

    def reaching(self, *days: date) -> Order:
        """The same with these days, and all between."""
        return replace(self, first=min(self.first, *days), last=max(self.last, *days))


def orders_of(
    symbols: Sequence[str],
    intervals: Sequence[str],
    first: date,
    last: date,
    done: Done,
    trades: Callable[[date, date], bool],
) -> dict[str, list[Order]]:
    """What each symbol still needs of these days. None for a symbol that has all: nothing is asked of it.

    Days without trading make no order: the answer is known. Given `done` is empty, all is fetched again.
    """
    series = [(adjusted, interval) for interval in dict.fromkeys(intervals) for adjusted in (False, True)]
    return {
        symbol: [
            Order(symbol, interval, adjusted, *days)
            for adjusted, interval in series
            for days in missing(done.get((adjusted, interval), {}).get(symbol, ()), first, last)
            if trades(*days)
        ]
        for symbol in symbols
    }
