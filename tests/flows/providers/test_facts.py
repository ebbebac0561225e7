"""Facts have always the same names, and bars tell some of them."""

from __future__ import annotations

import pytest

from flows.market_data.providers import facts
from tests.flows.frames import bars, day


def test_all_names_are_there_in_their_order_and_what_nobody_said_is_none() -> None:
    told = facts.company("A", name="Agilent", website="")
    assert tuple(told) == facts.COMPANY
    assert {name for name, value in told.items() if value is not None} == {"symbol", "name"}
    assert tuple(facts.statistics("A")) == facts.STATISTICS


def test_a_fact_of_no_known_name_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="no such fact: beta"):
        facts.company("A", beta=1.0)


def test_a_year_ends_with_the_last_bar_and_its_extremes_are_those_of_the_days() -> None:
    old = {"time": day(4) - facts.YEAR, "high": 99.0, "low": 1.0}
    told = facts.of_bars(bars(old, {"high": 15.0}, {"low": 5.0, "volume": 300}, {"volume": 200}))
    assert (told["high_52_weeks"], told["low_52_weeks"]) == (15.0, 5.0)
    assert (told["day"], told["last_price"], told["average_volume"]) == (day(4).date(), 11.0, 175)


def test_no_bars_tell_nothing() -> None:
    assert facts.of_bars(bars({}).head(0)) == {}
