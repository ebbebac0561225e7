"""Which bars are trusted, and what is said of the others."""

from __future__ import annotations

from typing import Any

import pytest

from flows.market_data.quality import validate
from tests.flows.frames import bars, day

NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"close": NAN}, "missing value"),
        ({"open": None}, "missing value"),
        ({"volume": NAN}, "missing value"),
        ({"time": None}, "missing value"),
        ({"high": INFINITE}, "missing value"),
        ({"low": -9.0}, "price not above zero"),
        ({"low": 0.0}, "price not above zero"),
        ({"volume": -1}, "negative volume"),
        ({"high": 8.0}, "high below low"),
        ({"open": 12.01}, "open or close outside low to high"),
        ({"close": 8.99}, "open or close outside low to high"),
        ({"time": day(1)}, "duplicate time"),
        ({"time": day(1), "close": 10.5}, "duplicate time"),
        ({"time": day(1) - day(2).resolution}, "out of order"),
    ],
)
def test_a_faulty_bar_is_rejected_with_its_reason_and_the_others_stay(fault: dict[str, Any], reason: str) -> None:
    checked = validate(bars({}, fault, {}))
    assert checked.reasons == {reason: 1}
    assert checked.good["time"].tolist() == [day(1), day(3)]


@pytest.mark.parametrize(
    "edge", [{"volume": 0}, {"open": 9.0, "high": 9.0, "close": 9.0}, {"open": 12.0}, {"close": 9.0}]
)
def test_a_bar_at_the_edge_of_a_rule_is_good(edge: dict[str, Any]) -> None:
    assert validate(bars({}, edge)).reasons == {}


def test_a_broken_bar_does_not_make_a_sound_one_a_duplicate() -> None:
    checked = validate(bars({"close": NAN}, {"time": day(1)}))
    assert checked.reasons == {"missing value": 1}
    assert checked.good["close"].tolist() == [11.0]


def test_a_bar_with_several_faults_has_the_first_reason_only() -> None:
    assert validate(bars({"high": -1.0, "volume": -1})).reasons == {"price not above zero": 1}


def test_of_two_bars_with_one_time_the_first_is_kept() -> None:
    assert validate(bars({"close": 10.0}, {"close": 11.0, "time": day(1)})).good["close"].tolist() == [10.0]


def test_every_row_ends_up_good_or_rejected_with_its_values() -> None:
    checked = validate(bars({}, {"volume": -5}, {"low": -1.0}))
    assert len(checked.good) + len(checked.rejected) == 3
    assert checked.rejected["volume"].tolist() == [100, -5]


def test_the_volumes_of_good_bars_are_whole_whatever_stood_beside_them() -> None:
    checked = validate(bars({"volume": 1234.6}, {"volume": NAN}, {"volume": 7}))
    assert checked.good["volume"].tolist() == [1235, 7]
    assert checked.good["volume"].dtype == "int64"


def test_no_bars_are_no_error() -> None:
    checked = validate(bars({}).head(0))
    assert len(checked.good) == len(checked.rejected) == 0
    assert list(checked.rejected.columns) == [*checked.good.columns, "reason"]
