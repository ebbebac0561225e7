"""Where submitted tasks run, as the environment says: in threads of the flow's own process, or on Dask's worker processes.

| FLOWS_TASK_RUNNER | tasks run |
|---|---|
| `thread`, or not set | in threads of the flow's process |
| `dask` | in worker processes on this machine, started with the flow run and ended with it |
| `tcp://host:port`, `tls://host:port`, `dask://host:port` | on the Dask cluster whose scheduler listens there |

It is read when a flow's module is imported, which a worker does anew for each run. So a deployment says it by
`job_variables: {env: {FLOWS_TASK_RUNNER: dask}}`, and an environment by the same in an override.

Dask's processes import what they need from the package `flows`, and a cluster elsewhere has to have it, of the same release.
The file of a flow is no module there: Prefect loads it by its path. So it holds the flow, and what the flow calls is
imported into it.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

VARIABLE = "FLOWS_TASK_RUNNER"
THREAD, DASK = "thread", "dask"
SCHEMES = ("tcp", "tls", "dask")
SECONDS_TO_CONNECT = 15


def runner(max_workers: int) -> TaskRunner[Any]:
    """So many threads, or at most so many processes of an own cluster. A cluster at an address has its own number.

    A ValueError if the variable says neither.
    """
    wanted = os.environ.get(VARIABLE) or THREAD
    if wanted == THREAD:
        return ThreadPoolTaskRunner(max_workers=max_workers)
    if wanted == DASK:
        return _own_cluster(max_workers)
    return _cluster_at(_address(wanted))


def answer(future: PrefectFuture[Any]) -> Any:
    """What the task returned, or its error: also that of a worker process that is gone, which a future on Dask raises."""
    try:
        return future.result(raise_on_failure=False)
    except Exception as error:
        return error


def _own_cluster(max_workers: int) -> TaskRunner[Any]:
    from prefect_dask.task_runners import (
        DaskTaskRunner,  # not before it is asked for: it takes longer to import than all the rest
    )

    own = {
        "n_workers": min(max_workers, os.cpu_count() or 1),
        "processes": True,
        "threads_per_worker": 1,  # more would wait for each other in Python
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",  # nothing to see there, but Dask opens a port, and 8787 is for one run only
        "scheduler_kwargs": {"dashboard": False},
    }
    return DaskTaskRunner(cluster_kwargs=own)


def _cluster_at(address: str) -> TaskRunner[Any]:
    from prefect_dask.task_runners import DaskTaskRunner

    return DaskTaskRunner(address=address, client_kwargs={"timeout": SECONDS_TO_CONNECT})


def _address(wanted: str) -> str:
    """As Dask writes it: `dask://` is its usual TCP."""
    try:
        parts = urlsplit(wanted)
        sound = parts.scheme in SCHEMES and parts.hostname and parts.port and not (parts.path or parts.query)
    except ValueError:  # a port that is no number
        sound = False
    if not sound:
        raise ValueError(
            f"The variable {VARIABLE} is {wanted!r}; expected {THREAD}, {DASK} or a Dask scheduler's address, "
            "such as tcp://dask.example.com:8786."
        )
    return f"tcp://{parts.netloc}" if parts.scheme == "dask" else wanted
