"""Daily bars -> technical indicators, by TA-Lib over whole series at once.

Use adjusted bars: in unadjusted ones each split is a crash.
"""

from __future__ import annotations

from math import ceil, log, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

TRADING_DAYS = 252


def _settled(seed: int, alpha: float) -> int:
    """Bars until a smoothed average forgets where it began: until its seed, from `seed` bars, weighs less than 1 %.

    Before that the same day gets another value with each other start, so there is no right one to give.
    """
    return seed + ceil(log(0.01) / log(1 - alpha))


BARS_NEEDED: dict[str, int] = {
    "return_1d": 2,
    "return_5d": 6,
    "return_20d": 21,
    "volatility_20d": 21,
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


def compute(bars: pd.DataFrame) -> pd.DataFrame:
    """Bars of any symbols (symbol, time, high, low, close) -> symbol, time and every indicator, a row a bar."""
    import pandas as pd

    parts = [_one_symbol(part) for _, part in bars.groupby("symbol", sort=True)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["symbol", "time", *BARS_NEEDED])


def lacking(row: pd.Series) -> list[str]:
    """The indicators that a row of `compute` has no value for."""
    return [name for name in BARS_NEEDED if row.isna()[name]]


def _one_symbol(bars: pd.DataFrame) -> pd.DataFrame:
    import numpy as np
    import pandas as pd
    import talib

    bars = bars.sort_values("time", ignore_index=True)
    high, low, close = (bars[name].to_numpy(float) for name in ("high", "low", "close"))
    macd, signal, histogram = talib.MACD(close, 12, 26, 9)
    upper, _, lower = talib.BBANDS(close, 20, 2.0, 2.0)  # the middle band is sma_20
    log_returns = pd.Series(np.log(close)).diff()
    values = {
        "return_1d": talib.ROCP(close, 1),
        "return_5d": talib.ROCP(close, 5),
        "return_20d": talib.ROCP(close, 20),
        "volatility_20d": log_returns.rolling(20).std() * sqrt(TRADING_DAYS),  # a year's, from the sample deviation
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
    counted = np.arange(1, len(bars) + 1)
    kept = {name: np.where(counted >= needed, values[name], np.nan) for name, needed in BARS_NEEDED.items()}
    return pd.DataFrame({"symbol": bars["symbol"], "time": bars["time"], **kept})
