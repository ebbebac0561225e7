"""Provider polygon: the real client against a server that answers as massive.com does, pages, failures and all."""

from __future__ import annotations

import pickle
import re
from datetime import date
from typing import Any

import pandas as pd
import pytest

from flows.market_data import quality
from flows.market_data.providers import Provider, errors
from flows.market_data.providers.polygon import Polygon
from tests.flows.providers.web import Answer, Web

KEY = "k3y-that-nobody-may-see"
DAY = date(2024, 7, 1)
FRIDAY = date(2024, 7, 5)
BARS, DETAILS = "/v2/aggs/ticker/*", "/v3/reference/tickers/*"
APPLE = {
    "ticker": "AAPL",
    "name": "Apple Inc.",
    "market": "stocks",
    "locale": "us",
    "primary_exchange": "XNAS",
    "type": "CS",
    "active": True,
    "currency_name": "usd",
    "cik": "0000320193",
    "market_cap": 2488795282370,
    "description": "Apple designs a wide variety of consumer electronic devices.",
    "sic_code": "3571",
    "sic_description": "ELECTRONIC COMPUTERS",
    "homepage_url": "https://www.apple.com",
    "total_employees": 154000,
    "list_date": "1980-12-12",
    "share_class_shares_outstanding": 16319440000,
}


def polygon(web: Web, **options: Any) -> Polygon:
    return Polygon(KEY, base=web.url, **options)


def bar(time: str, **other: Any) -> dict[str, Any]:
    """A sound bar, stamped with a moment in New York."""
    moment = int(pd.Timestamp(time, tz="America/New_York").timestamp() * 1000)
    return {"v": 1000.0, "vw": 10.5, "o": 10.0, "c": 11.0, "h": 12.0, "l": 9.0, "t": moment, "n": 7, **other}


def page(*bars: dict[str, Any], **other: Any) -> dict[str, Any]:
    return {
        "ticker": "AAPL",
        "queryCount": len(bars),
        "resultsCount": len(bars),
        "adjusted": True,
        "results": list(bars),
        "status": "OK",
        "request_id": "12afda77aab3b1936c5fb6ef4241ae42",
        "count": len(bars),
        **other,
    }


def nothing() -> dict[str, Any]:
    return {"ticker": "X", "queryCount": 0, "resultsCount": 0, "adjusted": True, "status": "OK", "request_id": "6a7e"}


def failure(status: int, text: str, word: str = "ERROR", **headers: str) -> Answer:
    return Answer({"status": word, "request_id": "req-1", "error": text}, status, headers)


def fetch(web: Web, symbol: str = "AAPL", interval: str = "1d", **options: Any) -> pd.DataFrame:
    return polygon(web, **options).fetch_bars(symbol, interval, DAY, FRIDAY)


def test_a_daily_bar_stands_at_midnight_utc_of_its_trading_day_in_summer_and_in_winter(web: Web) -> None:
    web.on(BARS, page(bar("2024-01-05"), bar("2024-07-05")))
    bars = polygon(web).fetch_bars("AAPL", "1d", date(2024, 1, 5), FRIDAY)
    assert bars["time"].tolist() == [pd.Timestamp("2024-01-05", tz="UTC"), pd.Timestamp("2024-07-05", tz="UTC")]
    assert bars.iloc[0, 1:].tolist() == [10.0, 12.0, 9.0, 11.0, 1000.0]
    assert list(bars.columns) == ["time", "open", "high", "low", "close", "volume"]


def test_it_asks_for_the_range_the_interval_and_the_adjustment_with_the_key_in_a_header(web: Web) -> None:
    web.on(BARS, page(bar("2024-07-01 10:00")))
    polygon(web).fetch_bars("BRK.B", "15m", DAY, FRIDAY, adjusted=True)
    [asked] = web.asked
    assert asked.path == "/v2/aggs/ticker/BRK.B/range/15/minute/2024-07-01/2024-07-05"
    assert asked.query == {"adjusted": "true", "sort": "asc", "limit": "50000"}
    assert asked.headers["Authorization"] == f"Bearer {KEY}"


def test_pages_are_followed_to_the_end_each_after_its_turn_and_on_our_host_only(web: Web) -> None:
    turns: list[int] = []
    following = "https://api.massive.com/v2/aggs/ticker/AAPL/range/1/day/1720065600000/2024-07-05?cursor=bGltaXQ9Mg"
    web.on("/v2/aggs/ticker/AAPL/range/1/day/2024-07-01/2024-07-05", page(bar("2024-07-01"), next_url=following))
    web.on("/v2/aggs/ticker/AAPL/range/1/day/1720065600000/2024-07-05", page(bar("2024-07-05")))
    bars = fetch(web, turn=lambda: turns.append(len(web.asked)))
    assert [time.day for time in bars["time"]] == [1, 5]
    assert web.asked[1].query == {"cursor": "bGltaXQ9Mg"}
    assert turns == [0, 1]


def test_a_page_without_bars_is_not_the_last_if_it_names_a_next_one(web: Web) -> None:
    web.on(BARS, {**nothing(), "next_url": f"{web.url}/v2/aggs/ticker/next?cursor=x"}, page(bar("2024-07-05")))
    assert len(fetch(web)) == 1


def test_a_page_that_fails_fails_the_whole_so_that_half_a_series_is_never_stored(web: Web) -> None:
    web.on(BARS, page(bar("2024-07-01"), next_url=f"{web.url}/v2/aggs/ticker/next?cursor=x"), Answer(status=502))
    with pytest.raises(errors.ProviderDown, match="502"):
        fetch(web)


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (failure(429, "You've exceeded the maximum requests per minute.", **{"Retry-After": "12"}), errors.ProviderBusy, "after 12 s"),
        (failure(429, "You've exceeded the maximum requests per minute."), errors.ProviderBusy, "after a while"),
        (Answer("<html>Bad Gateway</html>", 502), errors.ProviderDown, "status 502"),
        (Answer(status=503), errors.ProviderDown, "status 503"),
        (Answer(status=499), errors.ProviderDown, "status 499"),
        (Answer(never=True), errors.ProviderDown, "Timeout"),
        (Answer(page(), cut=True), errors.ProviderDown, "Protocol"),
        (Answer('{"status":"OK","results":[{"v":1'), errors.BadAnswer, "32 bytes that are no JSON"),
        (Answer("<html>maintenance</html>"), errors.BadAnswer, "no JSON"),
        (Answer(""), errors.BadAnswer, "no JSON"),
        (Answer([1, 2]), errors.BadAnswer, "no status"),
        (Answer({"status": "ERROR", "error": "internal"}), errors.BadAnswer, "no status"),
        (Answer(page(bar("2024-07-01"), resultsCount=2)), errors.BadAnswer, "2 results announced"),
        (Answer(page(results="none", resultsCount=1)), errors.BadAnswer, "1 results announced"),
        (Answer(page("AAPL", resultsCount=1)), errors.BadAnswer, "while reading"),  # type: ignore[arg-type]  # on purpose
        (Answer(page(bar("2024-07-01", c="eleven"))), errors.BadAnswer, "while reading"),
        (failure(401, "Unknown API Key"), errors.Refused, "401, Unknown API Key. Check the key"),
        (failure(403, "You are not entitled to this data.", "NOT_AUTHORIZED"), errors.Refused, "not entitled"),
        (failure(400, "could not parse the time"), errors.Refused, r"400, could not .* Ask for a range"),
    ],
)  # fmt: skip
def test_each_failure_has_its_error_which_says_where_and_never_the_key(
    web: Web, answer: Answer, error: type[Exception], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    web.on(BARS, answer)
    with pytest.raises(error, match=text) as caught:
        fetch(web, timeout=0.3 if answer.never else 30)
    assert "'polygon'" in str(caught.value)
    assert KEY not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__dict__} {caplog.text}"
    assert len(web.asked) == 1  # the client's own repeats would break the rate limit


def test_a_provider_that_is_not_there_is_down() -> None:
    with pytest.raises(errors.ProviderDown, match="NewConnectionError"):
        Polygon(KEY, base="http://127.0.0.1:9").fetch_bars("AAPL", "1d", DAY, FRIDAY)


def test_a_key_that_the_provider_repeats_is_left_out(web: Web) -> None:
    web.on(BARS, failure(401, f"Unknown API Key {KEY}"))
    with pytest.raises(errors.Refused, match="Unknown API Key …") as caught:
        fetch(web)
    assert KEY not in str(caught.value) + repr(polygon(web))


def test_days_without_trading_are_an_empty_frame_with_all_columns(web: Web) -> None:
    web.on(BARS, nothing())
    web.on(DETAILS, {"results": APPLE, "status": "OK", "request_id": "r"})
    bars = fetch(web)
    assert len(bars) == 0
    assert str(bars["time"].dtype).endswith("UTC]")
    assert quality.validate(bars).reasons == {}


def test_a_symbol_without_bars_that_was_not_listed_is_unknown(web: Web) -> None:
    web.on(BARS, nothing())
    web.on(DETAILS, Answer({"status": "NOT_FOUND", "request_id": "r", "message": "Ticker not found."}, 404))
    with pytest.raises(errors.UnknownSymbol, match="no symbol 'TWTR' on 2024-07-05"):
        fetch(web, "TWTR")
    assert web.asked[-1].path == "/v3/reference/tickers/TWTR"
    assert web.asked[-1].query["date"] == "2024-07-05"


def test_a_symbol_that_was_delisted_within_the_range_has_its_bars_up_to_then(web: Web) -> None:
    web.on(BARS, page(bar("2024-07-01"), bar("2024-07-02")))
    assert len(fetch(web)) == 2


def test_nan_negative_duplicate_and_unordered_bars_come_through_and_are_rejected_with_their_reasons(web: Web) -> None:
    web.on(
        BARS,
        Answer(
            page(
                bar("2024-07-02"),
                bar("2024-07-01"),
                bar("2024-07-02"),
                bar("2024-07-03", c=None),
                bar("2024-07-03", h=float("nan")),
                bar("2024-07-03", l=-9.0),
                {name: value for name, value in bar("2024-07-03").items() if name != "v"},
                bar("2024-07-05", v=1234.6),
            )
        ),
    )
    checked = quality.validate(fetch(web))
    assert checked.reasons == {"missing value": 3, "price not above zero": 1, "duplicate time": 1, "out of order": 1}
    assert checked.good["time"].dt.day.tolist() == [2, 5]
    assert checked.good["volume"].tolist() == [1000, 1235]


def test_a_bar_without_a_time_is_rejected_and_not_lost(web: Web) -> None:
    web.on(BARS, page(bar("2024-07-01"), bar("2024-07-02", t=None)))
    assert quality.validate(fetch(web)).reasons == {"missing value": 1}


def test_a_split_shows_as_a_fall_only_in_the_unadjusted_prices(web: Web) -> None:
    before, after = bar("2024-06-07", c=1208.88), bar("2024-06-10", c=121.79)  # NVDA, 10 for 1
    web.on(BARS, page(before, after, adjusted=False), page({**before, "c": 120.888}, after))
    days = date(2024, 6, 7), date(2024, 6, 10)
    traded = polygon(web).fetch_bars("NVDA", "1d", *days)["close"].tolist()
    adjusted = polygon(web).fetch_bars("NVDA", "1d", *days, adjusted=True)["close"].tolist()
    assert (traded, adjusted) == ([1208.88, 121.79], [120.888, 121.79])
    assert [one.query["adjusted"] for one in web.asked] == ["false", "true"]


def test_hourly_bars_keep_their_distance_when_the_clocks_change(web: Web) -> None:
    web.on(BARS, page(bar("2024-03-08 15:00"), bar("2024-03-11 09:00"), bar("2024-11-04 09:00")))
    times = polygon(web).fetch_bars("AAPL", "1h", date(2024, 3, 8), date(2024, 11, 4))["time"]
    assert [str(time) for time in times] == [
        "2024-03-08 20:00:00+00:00",
        "2024-03-11 13:00:00+00:00",
        "2024-11-04 14:00:00+00:00",
    ]


def test_an_evening_bar_belongs_to_its_day_in_new_york(web: Web) -> None:
    web.on(BARS, page(bar("2024-06-30 23:59"), bar("2024-07-05 19:00"), bar("2024-07-06 04:00")))
    [time] = fetch(web, interval="1h")["time"]
    assert str(time) == "2024-07-05 23:00:00+00:00"


def test_of_a_half_day_the_trading_after_its_close_is_there_too(web: Web) -> None:
    web.on(BARS, page(*(bar(f"2024-07-03 {hour}:00") for hour in ("12", "13", "16"))))
    assert fetch(web, interval="1h")["time"].dt.strftime("%H:%M").tolist() == ["16:00", "17:00", "20:00"]


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
        polygon(web).fetch_bars(*asked)
    assert web.asked == []


def test_the_company_is_what_the_reference_data_says(web: Web) -> None:
    web.on(DETAILS, {"results": APPLE, "status": "OK", "request_id": "r"})
    told = polygon(web).company_information("AAPL")
    assert told["name"] == "Apple Inc."
    assert (told["exchange"], told["currency"], told["country"], told["employees"]) == ("XNAS", "USD", "US", 154000)
    assert (told["listed"], told["delisted"], told["sector"]) == (date(1980, 12, 12), None, None)


def test_a_delisted_company_has_its_last_day(web: Web) -> None:
    web.on(DETAILS, {"results": {"ticker": "TWTR", "delisted_utc": "2022-10-28T00:00:00Z"}, "status": "OK"})
    assert polygon(web).company_information("TWTR")["delisted"] == date(2022, 10, 28)


def test_the_statistics_join_the_reference_data_and_a_year_of_adjusted_bars(web: Web) -> None:
    web.on(DETAILS, {"results": APPLE, "status": "OK", "request_id": "r"})
    today = pd.Timestamp(Polygon(KEY).today())
    days = [str((today - pd.Timedelta(days=back)).date()) for back in (2, 1)]
    web.on(BARS, page(bar(days[0], h=20.0, v=2000), bar(days[1], l=3.0)))
    told = polygon(web).key_statistics("AAPL")
    assert (told["high_52_weeks"], told["low_52_weeks"], told["average_volume"]) == (20.0, 3.0, 1500)
    assert (told["day"], told["last_price"]) == (date.fromisoformat(days[1]), 11.0)
    assert (told["market_cap"], told["shares_outstanding"], told["beta"]) == (2488795282370, 16319440000, None)
    assert web.asked[-1].query["adjusted"] == "true"


def test_an_unknown_company_is_an_unknown_symbol(web: Web) -> None:
    web.on(DETAILS, Answer({"status": "NOT_FOUND", "message": "Ticker not found."}, 404))
    for question in (polygon(web).company_information, polygon(web).key_statistics):
        with pytest.raises(errors.UnknownSymbol, match=r"no symbol 'NOPE'\. Is it spelt right"):
            question("NOPE")


def test_the_known_symbols_come_in_pages(web: Web) -> None:
    more = f"{web.url}/v3/reference/tickers?cursor=abc"
    web.on(
        "/v3/reference/tickers",
        {"results": [{"ticker": "MSFT"}], "status": "OK", "next_url": more},
        {"results": [{"ticker": "AAPL"}], "status": "OK"},
    )
    assert polygon(web).known_symbols() == ("AAPL", "MSFT")
    assert [one.query for one in web.asked] == [
        {"market": "stocks", "active": "true", "limit": "1000", "sort": "ticker", "order": "asc"},
        {"cursor": "abc"},
    ]


def test_it_is_a_provider_that_can_be_sent_to_another_process(web: Web) -> None:
    web.on(BARS, page(bar("2024-07-01")))
    one: Provider = polygon(web)
    one.fetch_bars("AAPL", "1d", DAY, FRIDAY)  # with open connections
    other = pickle.loads(pickle.dumps(one))
    assert len(other.fetch_bars("AAPL", "1d", DAY, FRIDAY)) == 1
    assert [other.source(adjusted) for adjusted in (False, True)] == ["polygon", "polygon_adjusted"]
