"""Bars as a provider sends them -> bars that can be trusted, and the rest with a reason each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

PRICES = ["open", "high", "low", "close"]
VALUES = [*PRICES, "volume"]


@dataclass(frozen=True)
class Checked:
    """`good` has the columns that came in, its volumes made whole; `rejected` one more, `reason`, and all as it came."""

    good: pd.DataFrame
    rejected: pd.DataFrame

    @property
    def reasons(self) -> dict[str, int]:
        return dict(Counter(self.rejected["reason"]))


def validate(bars: pd.DataFrame) -> Checked:
    """Split one series' bars, in the order in which they came. Nothing is repaired, sorted or guessed.

    The rules apply one after the other, each to what the one before left: a row has one reason, and a broken row can't
    make a sound one a duplicate. Of two bars with the same time the first is kept.
    """
    import pandas as pd

    good, rejected = bars, [bars.head(0).assign(reason="")]
    for reason, breaks in RULES:
        broken = breaks(good).astype(bool)
        rejected.append(good[broken].assign(reason=reason))
        good = good[~broken]
    good = good.assign(
        volume=pd.to_numeric(good["volume"]).round().astype("int64")
    )  # a NaN had made all of them floats
    return Checked(good.reset_index(drop=True), pd.concat([part for part in rejected if len(part)] or rejected))


def _missing(bars: pd.DataFrame) -> pd.Series:
    """NaN, None, no time, or infinite."""
    infinite = bars[VALUES].isin([float("inf"), float("-inf")])
    return bars[["time", *VALUES]].isna().any(axis=1) | infinite.any(axis=1)


def _not_positive(bars: pd.DataFrame) -> pd.Series:
    return (bars[PRICES] <= 0).any(axis=1)


def _negative_volume(bars: pd.DataFrame) -> pd.Series:
    return bars["volume"] < 0


def _high_below_low(bars: pd.DataFrame) -> pd.Series:
    return bars["high"] < bars["low"]


def _outside_range(bars: pd.DataFrame) -> pd.Series:
    ends = bars[["open", "close"]]
    return ends.lt(bars["low"], axis=0).any(axis=1) | ends.gt(bars["high"], axis=0).any(axis=1)


def _duplicate(bars: pd.DataFrame) -> pd.Series:
    return bars["time"].duplicated(keep="first")


def _out_of_order(bars: pd.DataFrame) -> pd.Series:
    return bars["time"] < bars["time"].cummax()


RULES: tuple[tuple[str, Callable[[pd.DataFrame], pd.Series]], ...] = (
    ("missing value", _missing),
    ("price not above zero", _not_positive),
    ("negative volume", _negative_volume),
    ("high below low", _high_below_low),
    ("open or close outside low to high", _outside_range),
    ("duplicate time", _duplicate),
    ("out of order", _out_of_order),
)
