"""How a task tries again: `@task(**TRIES_AGAIN)`. For what touches the outside: a pure step would fail again.

| | tries | waits before them, times 1 to 1.5 | for |
|---|---|---|---|
| TRIES_AGAIN | 4 | 2, 4, 8 s | a database, a server of one's own |
| ASKS_AGAIN | 6 | 2, 4, 8, 16, 32 s: over a minute | a provider, whose plan counts requests by the minute |
"""

from __future__ import annotations

from time import sleep
from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from flows.market_data.providers.errors import ProviderBusy

LONGEST_WAIT = 300  # seconds, whatever a provider says


def may_pass(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Is another try worth it? Not after a ValueError: a wrong symbol or wrong data stays wrong."""
    return not isinstance(state.result(raise_on_failure=False), ValueError)


def may_pass_after_a_wait(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """The same, after as long as a busy provider said: Prefect's own delays are fixed before, and come on top."""
    error = state.result(raise_on_failure=False)
    if isinstance(error, ProviderBusy) and error.retry_after:
        sleep(min(error.retry_after, LONGEST_WAIT))
    return may_pass(task, run, state)


TRIES_AGAIN: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(backoff_factor=2),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": may_pass,
    "cache_policy": NO_CACHE,  # engines and frames have no key, and what was fetched a while ago is no answer for today
}
ASKS_AGAIN: dict[str, Any] = {**TRIES_AGAIN, "retries": 5, "retry_condition_fn": may_pass_after_a_wait}
