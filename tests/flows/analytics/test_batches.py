"""A batch of symbols, and what is said of it, without a run."""

from __future__ import annotations

import json
import pickle
from datetime import date

import pandas as pd
import pytest
from sqlalchemy import text

from flows.analytics import batches
from flows.analytics.batches import Rows, Work, earlier, fingerprint, frame
from flows.analytics.outcomes import Outcome, line, named, nothing_on, report, verdict
from flows.market_data import indicators, warehouse
from flows.market_data.connection import engine_at
from tests.flows.frames import apple, bars

pytest_plugins = ["tests.postgres"]

DAY = date(2013, 3, 1)
FRIDAY, NEW_YEAR = date(2012, 12, 28), date(2013, 1, 1)


def history(count: int = 250) -> pd.DataFrame:
    return apple().tail(count).reset_index(drop=True)


def rows(of: pd.DataFrame) -> Rows:
    return batches.compute.fn(of, DAY)


def lines(of: pd.DataFrame, *symbols: str) -> list[dict[str, object]]:
    found = rows(of)
    return [line(symbol, found.get(symbol, {"bars": 0}), DAY) for symbol in symbols]


def test_the_days_values_survive_being_kept_as_json_to_the_last_bit() -> None:
    found = rows(history())
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    last = indicators.compute(history()).iloc[-1]
    assert found["AAPL"] == {"bars": 250, **last[list(indicators.BARS_NEEDED)].to_dict()}


def test_what_is_missing_is_none_and_a_symbol_without_a_bar_on_the_day_has_no_values() -> None:
    found = rows(pd.concat([history(30), bars({}).assign(symbol="OLD")]))
    assert found["AAPL"]["sma_200"] is None and found["AAPL"]["sma_20"] > 0
    assert found["OLD"] == {"bars": 1}
    stored = frame(found, DAY)
    assert stored["symbol"].tolist() == ["AAPL"]
    assert stored["time"].tolist() == [pd.Timestamp(DAY, tz="UTC")]


@pytest.mark.parametrize("name", ["high", "low", "close"])
def test_one_price_that_differs_in_its_last_bit_gives_another_fingerprint(name: str) -> None:
    other = history()
    other.loc[100, name] = other.loc[100, name] * (1 + 2**-52)
    assert fingerprint(other, DAY) != fingerprint(history(), DAY)


@pytest.mark.parametrize(
    "other",
    [
        history(249),
        history().assign(symbol="OTHER"),
        history().assign(time=history()["time"] + pd.Timedelta(days=1)),
    ],
    ids=["a bar less", "another symbol", "other days"],
)
def test_other_bars_give_another_fingerprint(other: pd.DataFrame) -> None:
    assert fingerprint(other, DAY) != fingerprint(history(), DAY)


def test_another_day_or_other_code_gives_another_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(history(), DAY)
    assert fingerprint(history(), FRIDAY) != before
    monkeypatch.setattr(batches, "version", lambda: "of another release")
    assert fingerprint(history(), DAY) != before


def test_what_no_indicator_reads_leaves_the_fingerprint_as_it_is() -> None:
    assert fingerprint(history().assign(volume=1, open=1.0), DAY) == fingerprint(history(), DAY)


def test_the_code_is_this_modules_and_talibs() -> None:
    assert "b'0." in batches.version()
    assert len(batches.version().split()[0]) == 64


def test_the_fingerprint_is_that_of_the_bars_whatever_database_they_come_from(url: str) -> None:
    engine = warehouse.connect(url)
    warehouse.upsert_bars(engine, "AAPL", "sample_adjusted", history())
    read = warehouse.read_bars(engine, "sample_adjusted", ["AAPL"], date(2000, 1, 1), DAY)
    engine.dispose()
    assert fingerprint(read, DAY) == fingerprint(history(), DAY)


def test_stored_again_nothing_is_written(url: str) -> None:
    engine = warehouse.connect(url)
    warehouse.upsert_bars(engine, "AAPL", "sample_adjusted", history())
    found = frame(rows(history()), DAY)
    assert [warehouse.upsert_indicators(engine, "sample_adjusted", found) for _ in range(2)] == [1, 0]
    with engine.connect() as connection:
        assert connection.scalar(text("select sma_200 from indicators")) == rows(history())["AAPL"]["sma_200"]
    engine.dispose()


def test_the_report_names_what_is_missing_for_each_symbol() -> None:
    known, old, unknown = lines(pd.concat([history(30), bars({}).assign(symbol="OLD")]), "AAPL", "OLD", "NOPE")
    assert str(known["note"]).startswith("30 bars are too few for sma_50, sma_200, ema_12")
    assert known["sma_200"] is None
    assert old == {"symbol": "OLD", "bars": 1, "note": "no bar on 2013-03-01"}
    assert unknown == {"symbol": "NOPE", "bars": 0, "note": "no bar on 2013-03-01"}


def test_the_report_begins_with_what_failed_and_what_is_missing() -> None:
    sound, missing = lines(history(), "AAPL", "NOPE")
    found = report([Outcome(["AAPL", "NOPE"], [sound, missing], 1), Outcome(["B", "C"], error="disk full")])
    assert [(one["symbol"], one["note"]) for one in found] == [
        ("B", "failed: disk full"),
        ("C", "failed: disk full"),
        ("NOPE", "no bar on 2013-03-01"),
        ("AAPL", ""),
    ]


def test_a_failed_batch_counts_with_all_its_symbols() -> None:
    outcomes = [Outcome(["A"] * 8, computed=8, changed=5), Outcome(["B", "C"], error="disk full")]
    allowed, failed = verdict(outcomes, DAY, 0.2), verdict(outcomes, DAY, 0.1)
    assert allowed.message == "8 of 10 symbols computed for 2013-03-01: 5 new or changed. Failed: B, C."
    assert allowed.is_completed() and failed.is_failed()
    assert str(failed.message).endswith("Failed: B, C. More than 10% may not fail.")


def test_a_long_list_of_symbols_is_cut_short() -> None:
    assert named([f"S{number}" for number in range(5000)], at_most=2) == "S0, S1 and 4,998 more"
    assert named(["A", "B"]) == "A, B"


@pytest.mark.parametrize(
    ("day", "said"),
    [
        (NEW_YEAR, "The exchange was closed on 2013-01-01."),
        (FRIDAY, "No symbol has a bar on 2012-12-28."),
        (date(1789, 7, 14), "No symbol has a bar on 1789-07-14."),
    ],
)
def test_a_day_without_any_bar_is_explained(day: date, said: str) -> None:
    assert nothing_on(day) == said


def test_the_days_before_the_first_of_all_are_not_asked_for() -> None:
    assert earlier(date(2, 1, 1), 36_500) == date.min
    assert earlier(DAY, 300) == date(2012, 5, 5)


def test_what_a_batch_needs_goes_to_another_process_and_shows_no_password() -> None:
    work = Work("postgresql://me:hunter2@host/db", "sample_adjusted", FRIDAY, DAY)
    assert pickle.loads(pickle.dumps(work)) == work
    assert "hunter2" not in repr(work)


def test_an_engine_is_made_once_for_a_process(tmp_path: object) -> None:
    assert engine_at(f"sqlite:///{tmp_path}/x.db") is engine_at(f"sqlite:///{tmp_path}/x.db")
