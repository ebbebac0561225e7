"""What an error means to a task, and how long a busy provider asks to wait."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from flows.market_data.providers import errors


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        (errors.ProviderBusy, False),
        (errors.ProviderDown, False),
        (errors.BadAnswer, False),
        (errors.UnknownSymbol, True),
        (errors.Refused, True),
    ],
)
def test_what_stays_as_it_is_is_a_value_error_which_a_task_does_not_try_again(
    error: type[errors.ProviderError], stays: bool
) -> None:
    assert issubclass(error, ValueError) is stays


@pytest.mark.parametrize(
    ("said", "seconds"), [("12", 12.0), ("0.5", 0.5), ("-3", 0.0), (None, None), ("", None), ("soon", None)]
)
def test_a_wait_in_seconds_is_read_and_nonsense_is_not(said: str | None, seconds: float | None) -> None:
    assert errors.seconds_of(said) == seconds


def test_a_wait_until_a_moment_is_counted_from_now_and_never_negative() -> None:
    now = datetime.now(UTC)
    assert errors.seconds_of(format_datetime(now + timedelta(seconds=60))) == pytest.approx(60, abs=5)
    assert errors.seconds_of(format_datetime(now - timedelta(seconds=60))) == 0


def test_a_busy_provider_says_how_long_also_in_another_process() -> None:
    error = pickle.loads(pickle.dumps(errors.busy("polygon", "/v2/aggs", "7", "polygon-api")))
    assert error.retry_after == 7
    assert str(error) == (
        "The provider 'polygon' had too many requests (429 from /v2/aggs). Try again after 7 s; "
        "if it happens often, lower the concurrency limit 'polygon-api'."
    )


def test_what_a_provider_says_at_length_is_cut_to_one_line() -> None:
    text = str(errors.refused("polygon", "/v2/aggs", "no\n" * 500, "Ask less."))
    assert "\n" not in text
    assert len(text) < 300
