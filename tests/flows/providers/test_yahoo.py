"""Provider yahoo: the real yfinance against a server that answers as Yahoo does, cookie, crumb and all."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import pandas as pd
import pytest
from yfinance import cache, data

from flows.market_data import quality
from flows.market_data.providers import Provider, errors
from flows.market_data.providers.yahoo import Yahoo
from tests.flows.providers.web import Answer, Web

DAY, FRIDAY = date(2024, 7, 1), date(2024, 7, 5)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:yfinance")  # it uses what pandas 4 won't have

CRUMB = "q7xTZ.4Wd1k"
CHART, SUMMARY = "/v8/finance/chart/*", "/v10/finance/quoteSummary/*"
APPLE = {
    "assetProfile": {
        "country": "United States",
        "sector": "Technology",
        "industry": "Consumer Electronics",
        "fullTimeEmployees": 164000,
        "website": "https://www.apple.com",
        "longBusinessSummary": "Apple Inc. designs smartphones.",
    },
    "summaryDetail": {"beta": 1.24, "dividendYield": 0.0044, "trailingAnnualDividendYield": 0.00424, "marketCap": 3400},
    "defaultKeyStatistics": {
        "priceToBook": 46.5,
        "forwardPE": 31.1,
        "enterpriseValue": 3500,
        "sharesOutstanding": 15204100096,
        "trailingEps": 6.08,
    },
}
QUOTE = {
    "symbol": "AAPL",
    "longName": "Apple Inc.",
    "shortName": "Apple",
    "fullExchangeName": "NasdaqGS",
    "currency": "USD",
    "firstTradeDateMilliseconds": 345479400000,
    "regularMarketTime": 1720209601,
    "regularMarketPrice": 226.34,
    "fiftyTwoWeekHigh": 226.45,
    "fiftyTwoWeekLow": 164.08,
    "averageVolume": 70000000,
    "trailingPE": 35.2,
    "dividendYield": 0.44,
}


class Known(cache._TzCacheDummy):  # type: ignore[misc]  # yfinance has no types
    """As if yfinance had asked for the symbol's time zone before."""

    def lookup(self, tkr: str) -> str:
        return "America/New_York"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """yfinance keeps its connection and its answers for the process, and cookies and time zones on disk."""
    monkeypatch.setattr(data.SingletonMeta, "_instances", {})
    monkeypatch.setattr(cache._TzCacheManager, "_tz_cache", Known())
    monkeypatch.setattr(cache._CookieCacheManager, "_Cookie_cache", cache._CookieCacheDummy())
    data.YfData.cache_get.cache_clear()
    yield
    data.YfData.cache_get.cache_clear()


@pytest.fixture
def web(web: Web) -> Web:
    web.on("/", Answer(status=404, headers={"Set-Cookie": "A3=d=AQABB; Path=/"}))
    web.on("/v1/test/getcrumb", CRUMB)
    return web


def yahoo(web: Web, **options: Any) -> Yahoo:
    return Yahoo(base=web.url, **options)


def fetch(web: Web, symbol: str = "AAPL", interval: str = "1d", adjusted: bool = False, **options: Any) -> pd.DataFrame:
    return yahoo(web, **options).fetch_bars(symbol, interval, DAY, FRIDAY, adjusted)


def moment(time: str) -> int:
    """Seconds since 1970 of a time in New York."""
    return int(pd.Timestamp(time, tz="America/New_York").timestamp())


def bar(time: str, **other: Any) -> dict[str, Any]:
    values = {"open": 10.0, "high": 12.0, "low": 9.0, "close": 11.0, "volume": 1000, **other}
    return {"timestamp": moment(time), "adjclose": values["close"], **values}


def chart(*bars: dict[str, Any], closing: str = "16:00", hourly: bool = False, **other: Any) -> dict[str, Any]:
    """The answer of Yahoo's chart, version 8. Only hourly ones have trading periods, and no adjusted close."""
    days = sorted({str(pd.Timestamp(one["timestamp"], unit="s", tz="America/New_York").date()) for one in bars})
    periods = [
        [{"timezone": "EDT", "gmtoffset": -14400, "start": moment(f"{one} 09:30"), "end": moment(f"{one} {closing}")}]
        for one in days
    ]
    meta = {
        "currency": "USD",
        "symbol": "AAPL",
        "exchangeName": "NMS",
        "instrumentType": "EQUITY",
        "firstTradeDate": 345479400,
        "regularMarketTime": 1720209601,
        "gmtoffset": -14400,
        "timezone": "EDT",
        "exchangeTimezoneName": "America/New_York",
        "regularMarketPrice": 226.34,
        "priceHint": 2,
        "dataGranularity": "1h" if hourly else "1d",
        "range": "",
        "validRanges": ["1d", "5d", "1mo", "max"],
        **({"tradingPeriods": periods} if hourly else {}),
    }
    column = {name: [one[name] for one in bars] for name in ("open", "high", "low", "close", "volume")}
    adjusted = {} if hourly else {"adjclose": [{"adjclose": [one["adjclose"] for one in bars]}]}
    times = {"timestamp": [one["timestamp"] for one in bars]} if bars else {}
    result = {"meta": meta, **times, "indicators": {"quote": [column if bars else {}], **adjusted}, **other}
    return {"chart": {"result": [result], "error": None}}


def failure(status: int, code: str, text: str, part: str = "chart", **headers: str) -> Answer:
    return Answer({part: {"result": None, "error": {"code": code, "description": text}}}, status, headers)


def test_a_daily_bar_stands_at_midnight_utc_of_its_trading_day_in_summer_and_in_winter(web: Web) -> None:
    web.on(CHART, chart(bar("2024-01-05 09:30"), bar("2024-07-05 09:30")))
    bars = yahoo(web).fetch_bars("AAPL", "1d", date(2024, 1, 5), FRIDAY)
    assert bars["time"].tolist() == [pd.Timestamp("2024-01-05", tz="UTC"), pd.Timestamp("2024-07-05", tz="UTC")]
    assert bars.iloc[0, 1:].tolist() == [10.0, 12.0, 9.0, 11.0, 1000]
    assert list(bars.columns) == ["time", "open", "high", "low", "close", "volume"]


def test_it_asks_for_whole_days_in_new_york_and_each_request_waits_for_its_turn(web: Web) -> None:
    turns: list[int] = []
    web.on(CHART, chart(bar("2024-07-01 09:30")))
    fetch(web, turn=lambda: turns.append(len(web.asked)))
    asked = web.asked[-1]
    assert (asked.query["period1"], asked.query["period2"]) == (str(moment("2024-07-01")), str(moment("2024-07-06")))
    assert (asked.query["interval"], asked.query["crumb"]) == ("1d", CRUMB)
    assert turns == list(range(len(web.asked)))


def test_a_symbol_with_a_dot_is_asked_with_a_dash(web: Web) -> None:
    web.on(CHART, chart(bar("2024-07-01 09:30")))
    assert len(fetch(web, "BRK.B")) == 1
    assert web.paths("/v8") == ["/v8/finance/chart/BRK-B"]


def test_a_symbol_that_was_never_asked_for_is_asked_for_its_time_zone_first(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache._TzCacheManager, "_tz_cache", cache._TzCacheDummy())
    web.on(CHART, chart(), chart(bar("2024-07-01 09:30")))
    assert len(fetch(web)) == 1
    assert [one.query.get("range") for one in web.asked if one.path.startswith("/v8")] == ["1d", None]


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (Answer("Too Many Requests\r\n", 429, {"Retry-After": "12"}), errors.ProviderBusy, "Try again after 12 s"),
        (Answer("Too Many Requests\r\n", 429), errors.ProviderBusy, "after a while"),
        (Answer("<html>Bad Gateway</html>", 502), errors.ProviderDown, "status 502"),
        (failure(500, "Internal Server Error", "oops"), errors.ProviderDown, "status 500"),
        (Answer("<html>Will be right back...</html>", 200), errors.ProviderDown, "will be right back"),
        (Answer(never=True), errors.ProviderDown, "Timeout"),
        (Answer(chart(bar("2024-07-01 09:30")), cut=True), errors.ProviderDown, "IncompleteRead"),
        (Answer('{"chart":{"result":[{"meta":{"curr'), errors.BadAnswer, "34 bytes that are no JSON"),
        (Answer("<html>consent</html>"), errors.BadAnswer, "no JSON"),
        (Answer(""), errors.BadAnswer, "no JSON"),
        (Answer([]), errors.BadAnswer, "not of the known form"),
        (Answer({"chart": None}), errors.BadAnswer, "not of the known form"),
        (Answer({"chart": {"result": None, "error": None}}), errors.BadAnswer, "not of the known form"),
        (Answer({"chart": {"result": [{}], "error": {"description": "?"}}}), errors.BadAnswer, "not of the known form"),
        (Answer({"finance": {"result": None, "error": None}}), errors.BadAnswer, "not of the known form"),
        (Answer(chart(bar("2024-07-01 09:30"), timestamp=None)), errors.BadAnswer, "while yfinance read it"),
        (Answer(chart(bar("2024-07-01 09:30"), timestamp=[1, 2])), errors.BadAnswer, "while yfinance read it"),
        (Answer(chart(bar("2024-07-01 09:30", open="ten"))), errors.BadAnswer, "while yfinance read it"),
        (Answer(chart(bar("2024-07-01 09:30"), meta={})), errors.BadAnswer, "while yfinance read it"),
        (failure(401, "Unauthorized", "Invalid Crumb", "finance"), errors.ProviderDown, "401, Invalid Crumb"),
        (failure(403, "Forbidden", "not from here"), errors.ProviderDown, "403, not from here"),
        (failure(422, "Unprocessable Entity", "1h data not available for startTime=1."), errors.Refused, "1h data not"),
        (failure(404, "Not Found", "No data found, symbol may be delisted"), errors.UnknownSymbol, "no symbol 'AAPL'"),
    ],
)
def test_each_failure_has_its_error_which_says_where(
    web: Web, answer: Answer, error: type[Exception], text: str
) -> None:
    web.on(CHART, answer)
    with pytest.raises(error, match=text) as caught:
        fetch(web, timeout=0.3 if answer.never else 30)
    assert "'yahoo'" in str(caught.value)
    assert CRUMB not in str(caught.value)


def test_a_bad_answer_about_past_days_is_not_remembered(web: Web) -> None:
    web.on(CHART, chart(bar("2024-07-01 09:30"), timestamp=None), chart(bar("2024-07-01 09:30")))
    with pytest.raises(errors.BadAnswer):
        fetch(web)
    assert len(fetch(web)) == 1


def test_a_refusal_that_another_cookie_changes_is_none(web: Web) -> None:
    web.on(CHART, failure(401, "Unauthorized", "Invalid Crumb", "finance"), chart(bar("2024-07-01 09:30")))
    assert len(fetch(web)) == 1


def test_a_second_question_gets_its_own_second_chance(web: Web) -> None:
    refusal = failure(401, "Unauthorized", "Invalid Crumb", "finance")
    web.on(CHART, refusal, refusal, refusal, chart(bar("2024-07-01 09:30")))
    one = yahoo(web)
    with pytest.raises(errors.ProviderDown, match="turned us away twice"):
        one.fetch_bars("AAPL", "1d", DAY, FRIDAY)
    assert len(one.fetch_bars("AAPL", "1d", DAY, FRIDAY)) == 1


def test_several_threads_get_each_its_own_symbol(web: Web) -> None:
    prices = {"AAPL": 10.1, "IBM": 10.2, "MSFT": 10.3, "NVDA": 10.4}
    for symbol, price in prices.items():
        web.on(f"/v8/finance/chart/{symbol}", chart(bar("2024-07-01 09:30", close=price)))
    one = yahoo(web)
    with ThreadPoolExecutor(4) as threads:
        found = threads.map(lambda symbol: one.fetch_bars(symbol, "1d", DAY, FRIDAY)["close"].item(), prices)
    assert list(found) == list(prices.values())


@pytest.mark.parametrize("answer", [Answer("Too Many Requests", 429), Answer(status=503), Answer(never=True)])
def test_bars_need_no_crumb(web: Web, answer: Answer) -> None:
    web.on("/v1/test/getcrumb", answer)
    web.on(CHART, chart(bar("2024-07-01 09:30")))
    assert len(fetch(web, timeout=2 if answer.never else 30)) == 1


@pytest.mark.parametrize(
    "answer", [chart(), failure(400, "Bad Request", "Data doesn't exist for startDate = 1, endDate = 2")]
)
def test_days_without_trading_are_an_empty_frame_with_all_columns(web: Web, answer: Any) -> None:
    web.on(CHART, answer)
    bars = fetch(web)
    assert len(bars) == 0
    assert str(bars["time"].dtype).endswith("UTC]")
    assert quality.validate(bars).reasons == {}


def test_nan_and_negative_prices_come_through_and_are_rejected_with_their_reasons(web: Web) -> None:
    bars = [
        bar("2024-07-01 09:30"),
        bar("2024-07-02 09:30", open=None, high=None, low=None, close=None, volume=None),
        bar("2024-07-03 09:30", close=-11.0),
        bar("2024-07-05 09:30", high=None),
    ]
    web.on(CHART, chart(*bars))
    assert quality.validate(fetch(web)).reasons == {"missing value": 2, "price not above zero": 1}


def test_yfinance_itself_sorts_bars_and_keeps_the_first_of_two_with_one_time(web: Web) -> None:
    bars = [bar("2024-07-05 09:30"), bar("2024-07-02 09:30", close=10.5), bar("2024-07-02 09:30", close=11.5)]
    web.on(CHART, chart(*bars))
    got = fetch(web)
    assert got["time"].dt.day.tolist() == [2, 5]
    assert got["close"].tolist() == [10.5, 11.0]


def test_of_the_running_day_the_newest_of_two_bars_is_kept(web: Web) -> None:
    web.on(CHART, chart(bar("2024-07-05 09:30", volume=500), bar("2024-07-05 11:47", close=11.5, volume=600)))
    [row] = fetch(web).to_dict("records")
    assert (row["time"], row["close"], row["volume"]) == (pd.Timestamp("2024-07-05", tz="UTC"), 11.5, 600)


def test_unadjusted_prices_are_yahoos_close_and_adjusted_ones_all_follow_its_adjusted_close(web: Web) -> None:
    dividend = {"dividends": {"1": {"amount": 1.1, "date": moment("2024-07-02 09:30")}}}
    web.on(CHART, chart({**bar("2024-07-01 09:30"), "adjclose": 9.9}, bar("2024-07-02 09:30"), events=dividend))
    traded = fetch(web)
    data.YfData.cache_get.cache_clear()
    adjusted = fetch(web, adjusted=True)
    assert traded["close"].tolist() == [11.0, 11.0]
    assert adjusted.iloc[0, 1:5].tolist() == pytest.approx([9.0, 10.8, 8.1, 9.9])
    assert adjusted["volume"].tolist() == [1000, 1000]


@pytest.mark.parametrize("adjusted", [False, True])
def test_a_split_is_not_seen_for_yahoo_has_no_prices_as_traded(web: Web, adjusted: bool) -> None:
    split = {"numerator": 10.0, "denominator": 1.0, "splitRatio": "10:1", "date": moment("2024-07-02 09:30")}
    web.on(CHART, chart(bar("2024-07-01 09:30"), bar("2024-07-02 09:30"), events={"splits": {"1": split}}))
    assert fetch(web, adjusted=adjusted)["close"].tolist() == [11.0, 11.0]


def test_hourly_bars_keep_their_distance_when_the_clocks_change(web: Web) -> None:
    bars = [bar(f"{day} {hour}") for day in ("2024-03-08", "2024-03-11", "2024-11-04") for hour in ("09:30", "15:30")]
    web.on(CHART, chart(*bars, hourly=True))
    times = yahoo(web).fetch_bars("AAPL", "1h", date(2024, 3, 8), date(2024, 11, 4))["time"]
    assert times.dt.strftime("%d. %H:%M").tolist() == [
        "08. 14:30",
        "08. 20:30",
        "11. 13:30",
        "11. 19:30",
        "04. 14:30",
        "04. 20:30",
    ]


def test_of_hours_adjusted_and_unadjusted_prices_are_the_same(web: Web) -> None:
    web.on(CHART, chart(bar("2024-07-01 09:30"), hourly=True))
    pd.testing.assert_frame_equal(fetch(web, interval="1h"), fetch(web, interval="1h", adjusted=True))


def test_of_a_half_day_what_comes_after_its_close_is_left_out(web: Web) -> None:
    web.on(
        CHART, chart(*(bar(f"2024-07-03 {hour}:30") for hour in ("09", "12", "13", "15")), hourly=True, closing="13:00")
    )
    assert fetch(web, interval="1h")["time"].dt.strftime("%H:%M").tolist() == ["13:30", "16:30"]


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (("AAPL", "2h", DAY, FRIDAY), "no interval '2h'. It has 1m, 5m, 15m, 30m, 1h, 1d"),
        (("AAPL", "1d", FRIDAY, DAY), "2024-07-05, is after the last, 2024-07-01"),
        (("../v1/key?x", "1d", DAY, FRIDAY), "no symbol '../v1/key?x'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(web: Web, asked: Any, text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        yahoo(web).fetch_bars(*asked)
    assert web.asked == []


@pytest.fixture
def known(web: Web) -> Web:
    """Yahoo knows Apple."""
    web.on(SUMMARY, {"quoteSummary": {"result": [APPLE], "error": None}})
    web.on("/v7/finance/quote", {"quoteResponse": {"result": [QUOTE], "error": None}})
    web.on("/ws/fundamentals-timeseries/*", {"timeseries": {"result": [{}], "error": None}})
    return web


def test_the_company_is_what_yahoo_says(known: Web) -> None:
    told = yahoo(known).company_information("AAPL")
    assert (told["symbol"], told["name"], told["exchange"], told["currency"]) == (
        "AAPL",
        "Apple Inc.",
        "NasdaqGS",
        "USD",
    )
    assert (told["sector"], told["employees"], told["first_bar"]) == ("Technology", 164000, date(1980, 12, 12))
    assert told["listed"] is None  # Yahoo's first trade is the first that it has: IBM's is in 1962


def test_what_yfinance_asks_besides_need_not_have_an_answer(known: Web) -> None:
    known.on("/ws/fundamentals-timeseries/*", {"finance": {"result": None, "error": None}})
    assert yahoo(known).company_information("AAPL")["name"] == "Apple Inc."


def test_the_statistics_are_what_yahoo_says_and_a_yield_is_a_fraction(known: Web) -> None:
    told = yahoo(known).key_statistics("AAPL")
    assert (told["day"], told["last_price"], told["high_52_weeks"]) == (date(2024, 7, 5), 226.34, 226.45)
    assert (told["market_cap"], told["shares_outstanding"], told["beta"]) == (3400, 15204100096, 1.24)
    assert (told["trailing_pe"], told["forward_pe"], told["price_to_book"]) == (35.2, 31.1, 46.5)
    assert (told["enterprise_value"], told["earnings_per_share"]) == (3500, 6.08)
    assert told["dividend_yield"] == 0.00424


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (failure(404, "Not Found", "Quote not found for symbol: NOPE", "quoteSummary"), errors.UnknownSymbol),
        (Answer("Too Many Requests", 429), errors.ProviderBusy),
        (Answer(status=503), errors.ProviderDown),
        (Answer({"quoteSummary": {"result": "cut"}}), errors.BadAnswer),
    ],
)
def test_facts_fail_as_bars_do(known: Web, answer: Answer, error: type[Exception]) -> None:
    known.on(SUMMARY, answer)
    for question in (yahoo(known).company_information, yahoo(known).key_statistics):
        with pytest.raises(error):
            question("NOPE")


def test_a_company_of_which_yahoo_says_nothing_is_unknown(known: Web) -> None:
    known.on(SUMMARY, {"quoteSummary": {"result": [], "error": None}})
    known.on("/v7/finance/quote", {"quoteResponse": {"result": [], "error": None}})
    with pytest.raises(errors.UnknownSymbol):
        yahoo(known).company_information("NOPE")


def test_it_is_a_provider_that_can_be_sent_to_another_process(web: Web) -> None:
    web.on(CHART, chart(bar("2024-07-01 09:30")))
    one: Provider = yahoo(web)
    one.fetch_bars("AAPL", "1d", DAY, FRIDAY)  # with open connections
    other = pickle.loads(pickle.dumps(one))
    assert len(other.fetch_bars("AAPL", "1d", DAY, FRIDAY)) == 1
    assert [other.source(adjusted) for adjusted in (False, True)] == ["yahoo", "yahoo_adjusted"]


def test_without_a_base_it_goes_to_yahoo_which_no_test_can_reach() -> None:
    with pytest.raises(errors.ProviderDown, match="/v8/finance/chart/AAPL"):
        Yahoo(timeout=5).fetch_bars("AAPL", "1d", DAY, FRIDAY)
