"""Indicators against a second computation, written from their definitions, on Apple's real prices."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flows.market_data.indicators import BARS_NEEDED, compute, lacking
from tests.flows.frames import apple, bars

# Smoothed averages forget their seed, but a definition may seed them differently: compared from here on.
LONG_FORGOTTEN = 1000


def smoothed(values: pd.Series, alpha: float) -> pd.Series:
    return values.ewm(alpha=alpha, adjust=False).mean()


def ema(period: int) -> pd.Series:
    return smoothed(apple()["close"], 2 / (period + 1))


def macd() -> pd.Series:
    return ema(12) - ema(26)


def rsi() -> pd.Series:
    change = apple()["close"].diff().fillna(0)
    gain, loss = smoothed(change.clip(lower=0), 1 / 14), smoothed(-change.clip(upper=0), 1 / 14)
    return 100 - 100 / (1 + gain / loss)


def atr() -> pd.Series:
    high, low, before = apple()["high"], apple()["low"], apple()["close"].shift()
    true_range = pd.concat([high - low, (high - before).abs(), (low - before).abs()], axis=1).max(axis=1)
    return smoothed(true_range, 1 / 14)


def windows(values: pd.Series, size: int, reduce: Callable[..., Any]) -> pd.Series:
    """A function of each window of its own: nothing is carried from one to the next."""
    found = reduce(np.lib.stride_tricks.sliding_window_view(values.to_numpy(), size), axis=1)
    return pd.Series(np.concatenate([np.full(size - 1, np.nan), found]))


def bollinger(side: int) -> pd.Series:
    close = apple()["close"]
    return windows(close, 20, np.mean) + side * 2 * windows(close, 20, np.std)


def volatility() -> pd.Series:
    returns = np.log(apple()["close"] / apple()["close"].shift())
    return windows(returns, 20, lambda w, axis: np.std(w, axis=axis, ddof=1)) * np.sqrt(252)


DEFINITIONS: dict[str, Callable[[], pd.Series]] = {
    "return_1d": lambda: apple()["close"] / apple()["close"].shift(1) - 1,
    "return_5d": lambda: apple()["close"] / apple()["close"].shift(5) - 1,
    "return_20d": lambda: apple()["close"] / apple()["close"].shift(20) - 1,
    "volatility_20d": volatility,
    "sma_20": lambda: windows(apple()["close"], 20, np.mean),
    "sma_50": lambda: windows(apple()["close"], 50, np.mean),
    "sma_200": lambda: windows(apple()["close"], 200, np.mean),
    "bollinger_upper": lambda: bollinger(+1),
    "bollinger_lower": lambda: bollinger(-1),
    "ema_12": lambda: ema(12),
    "ema_26": lambda: ema(26),
    "macd": macd,
    "macd_signal": lambda: smoothed(macd(), 2 / 10),
    "macd_histogram": lambda: macd() - smoothed(macd(), 2 / 10),
    "rsi_14": rsi,
    "atr_14": atr,
}
SMOOTHED = ("ema", "macd", "rsi", "atr")


@cache
def computed() -> pd.DataFrame:
    return compute(apple())


def test_every_indicator_has_a_second_computation() -> None:
    assert DEFINITIONS.keys() == BARS_NEEDED.keys()


@pytest.mark.parametrize("name", BARS_NEEDED)
def test_an_indicator_equals_its_definition_to_nine_digits(name: str) -> None:
    start = LONG_FORGOTTEN if name.startswith(SMOOTHED) else BARS_NEEDED[name] - 1
    ours, theirs = computed()[name].iloc[start:], DEFINITIONS[name]().iloc[start:]
    assert ours.notna().all()
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


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
    pd.testing.assert_frame_equal(mixed[mixed["symbol"] == "AAPL"].reset_index(drop=True), computed())


def test_one_bar_gives_a_row_without_values_and_no_bars_give_no_rows() -> None:
    one = bars({}).assign(symbol="A")
    assert lacking(compute(one).iloc[0]) == list(BARS_NEEDED)
    assert len(compute(one.head(0))) == 0


def test_prices_that_never_move_have_no_volatility() -> None:
    still = compute(bars(*[{} for _ in range(31)]).assign(symbol="A", high=11.0, low=11.0)).iloc[-1]
    assert still["volatility_20d"] == still["return_1d"] == 0
    assert still["sma_20"] == still["bollinger_upper"] == pytest.approx(11)
