"""How long, and whether, a task that asks a provider waits before it asks again."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.client.schemas.objects import State
from prefect.states import Failed

from flows import retries
from flows.ingestion import companies, loading
from flows.market_data.providers import errors


@pytest.mark.parametrize(
    ("error", "again", "waited"),
    [
        (errors.busy("polygon", "/v2", "7", "polygon-api"), True, [7.0]),
        (errors.busy("polygon", "/v2", "86400", "polygon-api"), True, [retries.LONGEST_WAIT]),
        (errors.busy("polygon", "/v2", None, "polygon-api"), True, []),
        (errors.down("polygon", "/v2", "status 502"), True, []),
        (errors.bad("polygon", "/v2", "no JSON"), True, []),
        (ConnectionError("reset by peer"), True, []),
        (errors.unknown("polygon", "NOPE"), False, []),
        (errors.refused("polygon", "/v2", "no such plan", "Buy one."), False, []),
        (ValueError("wrong"), False, []),
    ],
)
def test_what_may_pass_is_tried_again_after_as_long_as_the_provider_said(
    error: Exception, again: bool, waited: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(retries, "sleep", waits.append)
    state: State[Any] = Failed(data=error)
    nothing: Any = None
    assert retries.may_pass_after_a_wait(nothing, nothing, state) is again
    assert waits == waited


@pytest.mark.parametrize(
    "task", [loading.load_symbol, loading.fetch, companies.load_information, companies.load_statistics]
)
def test_the_tries_together_outlast_the_minute_by_which_plans_count(task: Any) -> None:
    assert task.retry_delay_seconds == [2, 4, 8, 16, 32]
    assert task.retry_jitter_factor == 0.5
    assert sum(task.retry_delay_seconds) > 60
