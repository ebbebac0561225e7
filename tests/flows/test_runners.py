"""Where tasks run, as the environment says."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from prefect.flows import load_flow_from_entrypoint
from prefect.task_runners import ThreadPoolTaskRunner

from flows.runners import runner
from tests.real.stage import until

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("value", [None, "", "thread"])
def test_tasks_run_in_threads_unless_somebody_says_otherwise(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is not None:
        monkeypatch.setenv("FLOWS_TASK_RUNNER", value)
    found = runner(3)
    assert isinstance(found, ThreadPoolTaskRunner)
    assert found._max_workers == 3


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("tcp://127.0.0.1:8786", "tcp://127.0.0.1:8786"),
        ("tls://dask.example.com:8786", "tls://dask.example.com:8786"),
        ("dask://dask.example.com:8786", "tcp://dask.example.com:8786"),
    ],
)
def test_an_address_is_that_of_a_scheduler(value: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect_dask.task_runners import DaskTaskRunner

    monkeypatch.setenv("FLOWS_TASK_RUNNER", value)
    found = runner(3)
    assert isinstance(found, DaskTaskRunner)
    assert found.address == address
    assert found.client_kwargs["timeout"] == 15


def test_a_cluster_of_its_own_is_processes_on_loopback_that_end_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect_dask.task_runners import DaskTaskRunner

    monkeypatch.setenv("FLOWS_TASK_RUNNER", "dask")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    found = runner(4)
    assert isinstance(found, DaskTaskRunner)
    with found:
        workers = found.client.scheduler_info()["workers"]
        pids = set(found.client.run(os.getpid).values())
    assert [worker["nthreads"] for worker in workers.values()] == [1, 1]
    assert all(address.startswith("tcp://127.0.0.1:") for address in workers)
    assert len(pids - {os.getpid()}) == 2
    until(lambda: not [pid for pid in pids if alive(pid)], 30)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    "value",
    ["threads", "Dask", "http://host:1", "tcp://host", "tcp://host:x", "tcp://:8786", "host:8786", "tcp://a:1/b"],
)
def test_another_value_is_refused_with_what_is_expected(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWS_TASK_RUNNER", value)
    with pytest.raises(ValueError, match=r"FLOWS_TASK_RUNNER is '.+'; expected thread, dask or .* tcp://"):
        runner(3)


def test_dask_is_not_imported_where_nobody_asks_for_it() -> None:
    code = "import sys; from flows.runners import runner; runner(2); print({'dask', 'distributed'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    "entrypoint",
    ["flows/analytics/indicators.py:daily_indicators", "flows/ingestion/polygon.py:polygon_historical_backfill"],
)
def test_a_cluster_elsewhere_needs_the_package_and_not_the_flows_own_file(
    entrypoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect loads the file under a name of its own. A process that does not know the name would not even answer."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        loaded: Any = load_flow_from_entrypoint(str(ROOT / entrypoint))
        sent = cloudpickle.dumps(loaded)
    monkeypatch.delitem(sys.modules, loaded.fn.__module__)
    assert pickle.loads(sent).name == loaded.name
