"""What is fetched is decided before anything is asked."""

from __future__ import annotations

from datetime import date

import pytest

from flows.ingestion.loading import trades
from flows.ingestion.orders import Done, Order, orders_of
from flows.verdicts import too_many_failed

MONDAY, TUESDAY, WEDNESDAY = date(2024, 7, 1), date(2024, 7, 2), date(2024, 7, 3)
FRIDAY, SATURDAY, SUNDAY = date(2024, 7, 5), date(2024, 7, 6), date(2024, 7, 7)


def orders(done: Done, first: date = MONDAY, last: date = FRIDAY, intervals: tuple[str, ...] = ("1d",)) -> list[Order]:
    return orders_of(["AAA"], intervals, first, last, done, trades)["AAA"]


def test_of_a_new_symbol_all_days_of_both_series_are_fetched() -> None:
    assert orders({}) == [Order("AAA", "1d", adjusted, MONDAY, FRIDAY) for adjusted in (False, True)]


def test_each_series_goes_on_from_what_it_has_itself() -> None:
    done = {(False, "1d"): {"AAA": [(MONDAY, FRIDAY)]}, (True, "1d"): {"AAA": [(TUESDAY, TUESDAY)]}}
    assert orders(done) == [Order("AAA", "1d", True, MONDAY, MONDAY), Order("AAA", "1d", True, WEDNESDAY, FRIDAY)]


def test_another_interval_is_another_series_and_the_same_one_twice_is_one() -> None:
    assert [(one.interval, one.adjusted) for one in orders({}, intervals=("1h", "1d", "1h"))] == [
        ("1h", False),
        ("1h", True),
        ("1d", False),
        ("1d", True),
    ]


@pytest.mark.parametrize(
    ("first", "last", "asked"),
    [
        (SATURDAY, SUNDAY, False),
        (date(2024, 7, 4), date(2024, 7, 4), False),  # Independence Day
        (FRIDAY, SUNDAY, True),
        (date(1980, 1, 1), date(1980, 1, 1), True),  # before the calendar begins nobody knows
    ],
)
def test_nothing_is_asked_of_days_without_trading(first: date, last: date, asked: bool) -> None:
    assert bool(orders({}, first, last)) is asked


@pytest.mark.parametrize(
    ("failed", "of", "share", "too_many"),
    [(0, 0, 0, False), (0, 5, 0, False), (1, 5, 0, True), (1, 5, 0.2, False), (2, 5, 0.2, True), (5, 5, 1, True)],
)
def test_a_run_fails_above_the_share_and_always_if_all_symbols_do(
    failed: int, of: int, share: float, too_many: bool
) -> None:
    assert bool(too_many_failed(failed, of, share)) is too_many


def test_a_run_that_fails_says_by_which_rule() -> None:
    assert too_many_failed(2, 5, 0.2) == "More than 20% may not fail."
    assert too_many_failed(5, 5, 1) == "All failed."
