"""Daily bars -> technical indicators, by TA-Lib over whole series at once.

Use adjusted bars: in unadjusted ones each split is a crash.
"""

from __future__ import annotations

from datetime import date
from itertools import pairwise
from math import ceil, log, sqrt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

TRADING_DAYS = 252
VOLATILITY_DAYS = 20


def _settled(seed: int, alpha: float) -> int:
    """Bars until a smoothed average forgets where it began: until its seed, from `seed` bars, weighs less than 1 %.

    Before that the same day gets another value with each other start, so there is no right one to give.
    """
    return seed + ceil(log(0.01) / log(1 - alpha))


BARS_NEEDED: dict[str, int] = {
    "return_1d": 2,
    "return_5d": 6,
    "return_20d": 21,
    "volatility_20d": VOLATILITY_DAYS + 1,
    "sma_20": 20,
    "sma_50": 50,
    "sma_200": 200,
    "bollinger_upper": 20,
    "bollinger_lower": 20,
    "ema_12": _settled(12, 2 / 13),
    "ema_26": _settled(26, 2 / 27),
    "macd": _settled(26, 2 / 27),
    "macd_signal": _settled(26, 2 / 27) + _settled(9, 2 / 10),
    "macd_histogram": _settled(26, 2 / 27) + _settled(9, 2 / 10),
    "rsi_14": _settled(15, 1 / 14),
    "atr_14": _settled(15, 1 / 14),
}
"""Every indicator, and how many bars it needs. With fewer it is NaN, never an early guess."""

Values = Any
"""An array with a value a bar."""


def compute(bars: pd.DataFrame) -> pd.DataFrame:
    """Bars of any symbols (symbol, time, high, low, close) -> symbol, time and every indicator, a row a bar.

    By symbol and time, in whatever order they come. A symbol's values come from its own bars alone.
    """
    import numpy as np
    import pandas as pd

    bars = bars.sort_values(["symbol", "time"], ignore_index=True)
    high, low, close = (bars[name].to_numpy(float) for name in ("high", "low", "close"))
    ends = np.flatnonzero(bars["symbol"].ne(bars["symbol"].shift(-1)).to_numpy(bool)) + 1
    table = np.full((len(BARS_NEEDED), len(bars)), np.nan)
    rows = dict(zip(BARS_NEEDED, table, strict=True))
    of_all = _over_all(close)
    for start, end in pairwise([0, *ends.tolist()]):
        mine = slice(start, end)
        values = {
            **{name: found[mine] for name, found in of_all.items()},
            **_over_one(high[mine], low[mine], close[mine]),
        }
        for name, found in values.items():
            missing = BARS_NEEDED[name] - 1
            rows[name][start + missing : end] = found[missing:]
    keys = {"symbol": bars["symbol"], "time": bars["time"]}
    return pd.concat([pd.DataFrame(keys), pd.DataFrame(table.T, columns=list(rows))], axis=1)


def on_day(bars: pd.DataFrame, day: date) -> pd.DataFrame:
    """The rows of `compute` for this day alone: days before it have less history behind them than they should."""
    import pandas as pd

    rows = compute(bars)
    midnight = pd.Timestamp(day, tz="UTC")
    on_it = (rows["time"] >= midnight) & (rows["time"] < midnight + pd.Timedelta(days=1))
    return rows[on_it].reset_index(drop=True)


def _over_all(close: Values) -> dict[str, Values]:
    """What looks back a fixed number of bars and carries nothing on: all symbols at once, one behind the other. The first
    values of each come from the symbol before it; they have too little history, and are not kept."""
    import numpy as np
    import talib

    if not len(close):
        return {}
    with np.errstate(divide="ignore", invalid="ignore"):
        returns = np.diff(np.log(close), prepend=np.nan)
    return {
        "return_1d": talib.ROCP(close, 1),
        "return_5d": talib.ROCP(close, 5),
        "return_20d": talib.ROCP(close, 20),
        "volatility_20d": _deviation(returns, VOLATILITY_DAYS) * sqrt(TRADING_DAYS),  # a year's
    }


def _deviation(values: Values, size: int) -> Values:
    """The sample deviation of each window, by its own mean. TA-Lib's is that of a whole, from running sums, which keep
    a trace of what has left the window."""
    import numpy as np

    found = np.full(len(values), np.nan)
    windows = max(0, len(values) - size + 1)
    shifted = [values[start : start + windows] for start in range(size)]
    mean = sum(shifted) / size
    found[size - 1 :] = np.sqrt(sum((one - mean) ** 2 for one in shifted) / (size - 1))
    return found


def _over_one(high: Values, low: Values, close: Values) -> dict[str, Values]:
    """What TA-Lib carries on from bar to bar, a running sum or an average: of one symbol, in order of time."""
    import talib

    macd, signal, histogram = talib.MACD(close, 12, 26, 9)
    upper, _, lower = talib.BBANDS(close, 20, 2.0, 2.0)  # the middle band is sma_20
    return {
        "sma_20": talib.SMA(close, 20),
        "sma_50": talib.SMA(close, 50),
        "sma_200": talib.SMA(close, 200),
        "bollinger_upper": upper,
        "bollinger_lower": lower,
        "ema_12": talib.EMA(close, 12),
        "ema_26": talib.EMA(close, 26),
        "macd": macd,
        "macd_signal": signal,
        "macd_histogram": histogram,
        "rsi_14": talib.RSI(close, 14),
        "atr_14": talib.ATR(high, low, close, 14),
    }
