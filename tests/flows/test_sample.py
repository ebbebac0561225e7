"""The sample provider gives the data as it is, and says no to what it does not have."""

from __future__ import annotations

from datetime import date

import pandas as pd
import pytest

from flows.market_data import quality, sample
from tests.flows.frames import LAST_DAY, LONG_AGO

FIRST_DAYS = {"AAPL": "2000-03-01", "FB": "2012-05-18", "GOOG": "2004-08-19", "IBM": "2000-03-01", "MSFT": "2000-03-01"}


@pytest.mark.parametrize("symbol", sample.SYMBOLS)
def test_every_symbol_begins_where_its_data_begins_and_ends_today(symbol: str) -> None:
    times = sample.fetch_bars(symbol, LONG_AGO, LAST_DAY)["time"]
    assert times.min() == pd.Timestamp(FIRST_DAYS[symbol], tz="UTC")
    assert times.max() == pd.Timestamp("2013-03-01", tz="UTC") == pd.Timestamp(sample.today(), tz="UTC")


@pytest.mark.parametrize("adjusted", [False, True])
@pytest.mark.parametrize("symbol", sample.SYMBOLS)
def test_every_bar_passes_the_quality_rules(symbol: str, adjusted: bool) -> None:
    checked = quality.validate(sample.fetch_bars(symbol, LONG_AGO, LAST_DAY, adjusted))
    assert checked.reasons == {}
    assert len(checked.good) > 100


def test_unadjusted_bars_are_the_prices_of_the_day() -> None:
    [last] = sample.fetch_bars("AAPL", LAST_DAY, LAST_DAY).to_dict("records")
    assert last == {
        "time": pd.Timestamp("2013-03-01", tz="UTC"),
        "open": 438.0,
        "high": pytest.approx(438.18, abs=1),
        "low": pytest.approx(430, abs=1),
        "close": 430.47,
        "volume": 19730300,
    }


def test_adjusted_bars_show_no_crash_where_a_split_was() -> None:
    weekend_of_the_split = date(2005, 2, 25), date(2005, 2, 28)
    traded = sample.fetch_bars("AAPL", *weekend_of_the_split)["close"].pct_change().iloc[-1]
    adjusted = sample.fetch_bars("AAPL", *weekend_of_the_split, adjusted=True)["close"].pct_change().iloc[-1]
    assert traded < -0.49
    assert abs(adjusted) < 0.02


def test_all_adjusted_prices_of_a_day_keep_their_proportions() -> None:
    traded = sample.fetch_bars("IBM", LONG_AGO, LAST_DAY)
    adjusted = sample.fetch_bars("IBM", LONG_AGO, LAST_DAY, adjusted=True)
    for name in ("open", "high", "low"):
        pd.testing.assert_series_equal(adjusted[name] / adjusted["close"], traded[name] / traded["close"], rtol=1e-12)


def test_both_ends_of_the_range_are_included_and_weekends_are_empty() -> None:
    week = sample.fetch_bars("MSFT", date(2013, 2, 22), date(2013, 3, 1))
    assert [str(time.date()) for time in week["time"]] == [
        "2013-02-22",
        "2013-02-25",
        "2013-02-26",
        "2013-02-27",
        "2013-02-28",
        "2013-03-01",
    ]


def test_an_unknown_symbol_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no symbol 'NOPE'\. It has AAPL, FB, GOOG, IBM, MSFT"):
        sample.fetch_bars("NOPE", LONG_AGO, LAST_DAY)
