"""Indicators against a second computation, written from their definitions, on Apple's real prices."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import talib

from flows.market_data.indicators import BARS_NEEDED, compute
from tests.flows.frames import apple, bars

Values = Any
"""An array with a value a bar."""


def close() -> Values:
    return apple()["close"].to_numpy()


def smoothed(values: Any, size: int, alpha: float, start: int = 0) -> Values:
    """The plain mean of the first `size` values from `start` on, then each value's share is alpha."""
    found = np.full(len(values), np.nan)
    first = start + size - 1
    found[first] = sum(values[start : first + 1]) / size
    for at in range(first + 1, len(values)):
        found[at] = alpha * values[at] + (1 - alpha) * found[at - 1]
    return found


def ema(period: int, start: int = 0) -> Values:
    return smoothed(close(), period, 2 / (period + 1), start)


def macd() -> Values:
    return ema(12, start=26 - 12) - ema(26)  # both begin on the same day


def signal() -> Values:
    return smoothed(macd(), 9, 2 / 10, start=25)


def rsi() -> Values:
    """Wilder's: the averages are of changes, of which the first day has none."""
    change = np.diff(close(), prepend=np.nan)
    gain, loss = (smoothed(np.maximum(side * change, 0), 14, 1 / 14, start=1) for side in (1, -1))
    return 100 - 100 / (1 + gain / loss)


def atr() -> Values:
    """Wilder's, too."""
    high, low, before = (apple()[name].to_numpy() for name in ("high", "low", "close"))
    before = np.concatenate([[np.nan], before[:-1]])
    true_range = np.maximum(high - low, np.maximum(abs(high - before), abs(low - before)))
    return smoothed(true_range, 14, 1 / 14, start=1)


def windows(values: Any, size: int, reduce: Callable[..., Any]) -> Values:
    """A function of each window of its own: nothing is carried from one to the next."""
    found = reduce(np.lib.stride_tricks.sliding_window_view(values, size), axis=1)
    return np.concatenate([np.full(size - 1, np.nan), found])


def change_over(days: int) -> Values:
    return np.concatenate([np.full(days, np.nan), close()[days:] / close()[:-days] - 1])


def bollinger(side: int) -> Values:
    return windows(close(), 20, np.mean) + side * 2 * windows(close(), 20, np.std)


def volatility() -> Values:
    returns = np.diff(np.log(close()), prepend=np.nan)
    return windows(returns, 20, lambda w, axis: np.std(w, axis=axis, ddof=1)) * np.sqrt(252)


DEFINITIONS: dict[str, Callable[[], Any]] = {
    "return_1d": lambda: change_over(1),
    "return_5d": lambda: change_over(5),
    "return_20d": lambda: change_over(20),
    "volatility_20d": volatility,
    "sma_20": lambda: windows(close(), 20, np.mean),
    "sma_50": lambda: windows(close(), 50, np.mean),
    "sma_200": lambda: windows(close(), 200, np.mean),
    "bollinger_upper": lambda: bollinger(+1),
    "bollinger_lower": lambda: bollinger(-1),
    "ema_12": lambda: ema(12),
    "ema_26": lambda: ema(26),
    "macd": macd,
    "macd_signal": signal,
    "macd_histogram": lambda: macd() - signal(),
    "rsi_14": rsi,
    "atr_14": atr,
}
SMOOTHED = ("ema", "macd", "rsi", "atr")


def by_talib(bars: pd.DataFrame) -> dict[str, Any]:
    """What TA-Lib says of one symbol."""
    high, low, price = (bars[name].to_numpy() for name in ("high", "low", "close"))
    upper, _, lower = talib.BBANDS(price, 20, 2.0, 2.0)
    found = {f"return_{days}d": talib.ROCP(price, days) for days in (1, 5, 20)}
    found |= {f"sma_{days}": talib.SMA(price, days) for days in (20, 50, 200)}
    found |= {f"ema_{days}": talib.EMA(price, days) for days in (12, 26)}
    found |= dict(zip(("macd", "macd_signal", "macd_histogram"), talib.MACD(price, 12, 26, 9), strict=True))
    deviation = talib.STDDEV(np.log(talib.ROCR(price, 1)), 20, np.sqrt(20 / 19))  # TA-Lib's is that of a whole
    found |= {"bollinger_upper": upper, "bollinger_lower": lower, "volatility_20d": deviation * np.sqrt(252)}
    return {**found, "rsi_14": talib.RSI(price, 14), "atr_14": talib.ATR(high, low, price, 14)}


@cache
def computed() -> pd.DataFrame:
    return compute(apple())


def lacking(row: pd.Series) -> list[str]:
    return [name for name in BARS_NEEDED if row.isna()[name]]


def test_every_indicator_has_a_second_computation() -> None:
    assert DEFINITIONS.keys() == BARS_NEEDED.keys()


@pytest.mark.parametrize("name", BARS_NEEDED)
def test_an_indicator_equals_its_definition_to_nine_digits_from_its_first_day_on(name: str) -> None:
    shown = slice(BARS_NEEDED[name] - 1, None)
    ours, theirs = computed()[name].to_numpy()[shown], DEFINITIONS[name]()[shown]
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_each_of_many_symbols_has_what_talib_says_of_it_alone() -> None:
    """However long or short, cheap or dear the symbols beside it are."""
    lengths = {"A": 1, "B": 700, "C": 2, "D": 20, "E": 199, "F": 1200}
    dear = apple().assign(**{name: apple()[name] * 1e6 for name in ("high", "low", "close")})
    parts = [(dear if symbol in "BE" else apple()).tail(n).assign(symbol=symbol) for symbol, n in lengths.items()]
    found = compute(pd.concat(parts))
    for symbol, part in zip(lengths, parts, strict=True):
        mine, theirs = found[found["symbol"] == symbol], by_talib(part)
        for name, needed in BARS_NEEDED.items():
            expected = np.where(np.arange(1, len(part) + 1) >= needed, theirs[name], np.nan)
            np.testing.assert_allclose(mine[name], expected, rtol=1e-9, atol=1e-9, err_msg=f"{symbol} {name}")


@pytest.mark.parametrize(("name", "needed"), BARS_NEEDED.items())
def test_an_indicator_is_missing_until_it_has_its_bars_and_never_after(name: str, needed: int) -> None:
    values = computed()[name]
    assert values.iloc[: needed - 1].isna().all()
    assert values.iloc[needed - 1 :].notna().all()


@pytest.mark.parametrize("name", [name for name in BARS_NEEDED if name.startswith(SMOOTHED)])
@pytest.mark.parametrize("end", [300, 777, 1500, 2222, 3270])
def test_a_value_from_just_enough_bars_is_close_to_the_one_from_all(name: str, end: int) -> None:
    close = apple()["close"].iloc[end - 1]
    scale = 100 if name == "rsi_14" else close
    short = compute(apple().iloc[end - BARS_NEEDED[name] : end])[name].iloc[-1]
    assert abs(short - computed()[name].iloc[end - 1]) < scale / 100


def test_apple_on_its_last_day() -> None:
    last = computed().iloc[-1]
    assert last["return_1d"] == pytest.approx(56.137353 / 57.562728 - 1, abs=1e-6)
    assert last["return_1d"] == pytest.approx(430.47 / 441.40 - 1, abs=1e-6)
    assert lacking(last) == []


def test_too_little_history_is_said_by_name() -> None:
    row = compute(apple().tail(21)).iloc[-1]
    assert not {"sma_20", "return_20d", "volatility_20d"} & set(lacking(row))
    assert {"sma_50", "sma_200", "ema_12", "rsi_14", "macd_signal"} <= set(lacking(row))


def test_each_symbol_is_computed_from_its_own_bars_in_time_order() -> None:
    other = apple().assign(symbol="OTHER", close=apple()["close"] * 2)
    mixed = compute(pd.concat([other, apple()]).sample(frac=1, random_state=1))
    assert mixed["symbol"].unique().tolist() == ["AAPL", "OTHER"]
    ours = mixed[mixed["symbol"] == "AAPL"].reset_index(drop=True)
    pd.testing.assert_frame_equal(ours, computed(), check_exact=True)


def test_one_bar_gives_a_row_without_values_and_no_bars_give_no_rows() -> None:
    one = bars({}).assign(symbol="A")
    assert lacking(compute(one).iloc[0]) == list(BARS_NEEDED)
    assert len(compute(one.head(0))) == 0


def test_prices_that_never_move_have_no_volatility() -> None:
    still = compute(bars(*[{} for _ in range(31)]).assign(symbol="A", high=11.0, low=11.0)).iloc[-1]
    assert still["volatility_20d"] == still["return_1d"] == 0
    assert still["sma_20"] == still["bollinger_upper"] == pytest.approx(11)
