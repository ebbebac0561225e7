"""The sample provider gives the data as it is, and says no to what it does not have."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pandas as pd
import pytest

from flows.market_data import quality
from flows.market_data.providers import Provider, errors, sample
from tests.flows.frames import LAST_DAY, LONG_AGO

FIRST_DAYS = {"AAPL": "2000-03-01", "FB": "2012-05-18", "GOOG": "2004-08-19", "IBM": "2000-03-01", "MSFT": "2000-03-01"}


@pytest.mark.parametrize("symbol", sample.SYMBOLS)
def test_every_symbol_begins_where_its_data_begins_and_ends_today(symbol: str) -> None:
    times = sample.fetch_bars(symbol, "1d", LONG_AGO, LAST_DAY)["time"]
    assert times.min() == pd.Timestamp(FIRST_DAYS[symbol], tz="UTC")
    assert times.max() == pd.Timestamp("2013-03-01", tz="UTC") == pd.Timestamp(sample.today(), tz="UTC")


@pytest.mark.parametrize("adjusted", [False, True])
@pytest.mark.parametrize("symbol", sample.SYMBOLS)
def test_every_bar_passes_the_quality_rules(symbol: str, adjusted: bool) -> None:
    checked = quality.validate(sample.fetch_bars(symbol, "1d", LONG_AGO, LAST_DAY, adjusted))
    assert checked.reasons == {}
    assert len(checked.good) > 100


def test_unadjusted_bars_are_the_prices_of_the_day() -> None:
    [last] = sample.fetch_bars("AAPL", "1d", LAST_DAY, LAST_DAY).to_dict("records")
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
    traded = sample.fetch_bars("AAPL", "1d", *weekend_of_the_split)["close"].pct_change().iloc[-1]
    adjusted = sample.fetch_bars("AAPL", "1d", *weekend_of_the_split, adjusted=True)["close"].pct_change().iloc[-1]
    assert traded < -0.49
    assert abs(adjusted) < 0.02


def test_all_adjusted_prices_of_a_day_keep_their_proportions() -> None:
    traded = sample.fetch_bars("IBM", "1d", LONG_AGO, LAST_DAY)
    adjusted = sample.fetch_bars("IBM", "1d", LONG_AGO, LAST_DAY, adjusted=True)
    for name in ("open", "high", "low"):
        pd.testing.assert_series_equal(adjusted[name] / adjusted["close"], traded[name] / traded["close"], rtol=1e-12)


def test_both_ends_of_the_range_are_included_and_weekends_are_empty() -> None:
    week = sample.fetch_bars("MSFT", "1d", date(2013, 2, 22), date(2013, 3, 1))
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
        sample.fetch_bars("NOPE", "1d", LONG_AGO, LAST_DAY)


def test_it_has_daily_bars_only() -> None:
    with pytest.raises(errors.Refused, match=r"'sample' has no interval '1h'\. It has 1d"):
        sample.fetch_bars("IBM", "1h", LAST_DAY, LAST_DAY)


def test_of_the_company_it_tells_its_first_and_last_day_and_nothing_that_it_does_not_have() -> None:
    told = sample.company_information("FB")
    assert {name: value for name, value in told.items() if value is not None} == {
        "symbol": "FB",
        "first_bar": date(2012, 5, 18),
        "last_bar": LAST_DAY,
    }


def test_the_statistics_are_computed_from_the_last_year_of_bars() -> None:
    told = sample.key_statistics("AAPL")
    year = sample.fetch_bars("AAPL", "1d", date(2012, 3, 3), LAST_DAY)
    assert (told["day"], told["last_price"]) == (LAST_DAY, 430.47)
    assert told["high_52_weeks"] == year["high"].max() == 705.07
    assert told["low_52_weeks"] == year["low"].min()
    assert told["average_volume"] == pytest.approx(year["volume"].tail(63).mean(), abs=1)
    assert told["market_cap"] is None


@pytest.mark.parametrize("question", [sample.company_information, sample.key_statistics])
def test_of_an_unknown_company_it_tells_nothing(question: Callable[[str], Any]) -> None:
    with pytest.raises(errors.UnknownSymbol, match="no symbol 'NOPE'"):
        question("NOPE")


def test_it_is_a_provider() -> None:
    provider: Provider = sample
    assert [provider.source(adjusted) for adjusted in (False, True)] == ["sample", "sample_adjusted"]
    assert provider.known_symbols() == provider.SYMBOLS
