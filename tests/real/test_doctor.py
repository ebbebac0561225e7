"""The troubles of docs/troubleshooting.md, made on purpose on a real server: the line of the doctor's that shows each, and its fix.

One server of their own, started as people do who get into them: on SQLite, for all addresses, leases in its memory.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deployer.command import main
from tests.real.stage import FLOWS, Stage, scratch, until
from tests.server import Server, clean_environment, patient_client, real_prefect

pytestmark = pytest.mark.stack

SETTINGS = {
    "PREFECT_SERVER_UI_ENABLED": "true",
    "PREFECT_SERVER_API_HOST": "0.0.0.0",  # what images say; the tests' server is bound to loopback all the same
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "true",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "1",
    "PREFECT_API_LOG_RETRYABLE_ERRORS": "true",
}


class Own:
    """A server that a test can start again, on the same data."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.up = ExitStack()
        self.server = self.start()

    def start(self) -> Server:
        self.up.close()
        self.server = self.up.enter_context(
            real_prefect(self.home, SETTINGS | {"PREFECT_UI_STATIC_DIRECTORY": str(self.home / "ui")})
        )
        return self.server


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Own]:
    own = Own(tmp_path_factory.mktemp("own-server"))
    with own.up:
        yield own


@pytest.fixture
def stage(own: Own, tmp_path: Path, unique: Any) -> Iterator[Stage]:
    """Its workers could clone its repository."""
    stage = scratch(own.server.url, tmp_path, unique("doctor"))
    stage.environment["source"] = {"repository": stage.repo.url}
    yield stage
    stage.end()


def look(stage: Stage) -> dict[str, dict[str, str]]:
    said = main("doctor", "--env", "dev", "--format", "json", "--repo", str(stage.repo.path), variables=stage.known)
    assert said.code in (0, 2), said.all
    return {row["check"]: row for row in said.json["checks"]}


def python(stage: Stage, home: Path, module: str, *words: str) -> int:
    """A program of Prefect's, as a worker or a person starts it there; its exit code."""
    settings = {**clean_environment(home), "PREFECT_API_URL": stage.url}
    return subprocess.run(
        [sys.executable, "-m", module, *words], env=settings, cwd=home, capture_output=True, timeout=120
    ).returncode


@pytest.mark.usefixtures("warm_loader")
def test_a_pool_without_a_worker_is_not_ready_its_runs_are_late_and_the_ui_is_sent_to_0_0_0_0(stage: Stage) -> None:
    stage.release(stage.entry())
    due = datetime.now(UTC) - timedelta(hours=3)
    run = stage.ask(
        "POST",
        f"/deployments/{stage.deployment()['id']}/create_flow_run",
        {"state": {"type": "SCHEDULED", "state_details": {"scheduled_time": due.isoformat()}}},
    )
    until(lambda: stage.ask("GET", f"/flow_runs/{run['id']}")["state_name"] == "Late", 120)
    assert stage.ask("GET", f"/work_pools/{stage.named('pool')}")["status"] == "NOT_READY"
    found = look(stage)
    assert "NOT READY: no worker has ever called" in found[f"pool {stage.named('pool')}"]["seen"]
    assert found["late runs"]["seen"].endswith(f"due 3 h ago: the pool {stage.named('pool')} has no worker")
    with patient_client(stage.url.removesuffix("/api")) as server:
        told = server.get("/ui-settings").json()
    assert told["api_url"] == "http://0.0.0.0:4200/api" and told["api_url"] in found["ui"]["seen"]
    assert f"PREFECT_SERVER_UI_API_URL={stage.url} " in found["ui"]["fix"]
    stage.ask("POST", f"/work_pools/{stage.named('pool')}/workers/heartbeat", {"name": "one"})
    assert look(stage)[f"pool {stage.named('pool')}"]["state"] == "ok"


@pytest.mark.usefixtures("warm_loader")
def test_on_sqlite_writers_at_once_find_the_database_locked_and_get_503(stage: Stage, own: Own) -> None:
    stage.release(stage.entry())
    address = f"{stage.url}/deployments/{stage.deployment()['id']}"

    def write(number: int) -> int:
        try:
            return httpx.patch(address, json={"description": str(number)}, trust_env=False, timeout=150).status_code
        except httpx.TransportError:
            return 0  # it hung up, which it does for the same reason, or waited for the lock for longer than we for it

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(write, range(40)))
    assert 503 in answers and "database is locked" in own.server.log
    assert look(stage)["database"]["seen"].startswith("SQLite: one writer at a time")


WHERE_A_RUN_IS = "import os\n\nif 'PREFECT_API_URL' in os.environ:\n    import installed_for_the_deploy_only\n"


@pytest.mark.usefixtures("warm_loader")
def test_a_module_that_the_workers_environment_lacks_is_named(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.real.stage.FLOWS", FLOWS + WHERE_A_RUN_IS)
    monkeypatch.setattr("tests.real.conftest.FLOWS", FLOWS + WHERE_A_RUN_IS)
    stage.release(stage.entry())
    run = stage.ask("POST", f"/deployments/{stage.deployment()['id']}/create_flow_run", {})
    assert python(stage, tmp_path, "prefect.engine", run["id"]) == 1
    stage.begin(run, "CRASHED")  # as the worker says when that process has ended so
    found = look(stage)
    assert found["failed runs"]["state"] == "problem" and found["entrypoints"]["state"] == "ok"
    assert "ModuleNotFoundError: No module named 'installed_for_the_deploy_only'" in found["failed runs"]["seen"]


def test_a_module_that_is_missing_here_is_named_before_any_deploy(stage: Stage) -> None:
    stage.commit(stage.entry(), files={"flows/alpha/flows.py": f"import not_installed_anywhere\n{FLOWS}"})
    found = look(stage)["entrypoints"]
    assert found["state"] == "problem" and "not_installed_anywhere" in found["seen"]


@pytest.mark.usefixtures("warm_loader")
def test_what_redeploys_past_the_ledger_is_stale_code(stage: Stage) -> None:
    old = stage.commit(stage.entry())
    stage.release(stage.entry(parameters={"count": 2}))
    there = stage.deployment()
    body = {"name": there["name"], "flow_id": there["flow_id"], "version": old, "tags": there["tags"]}
    stage.ask("POST", "/deployments/", body)
    found = look(stage)["code"]
    assert found["state"] == "problem" and there["name"] in found["seen"]
    stage.apply()
    assert look(stage)["code"]["state"] == "ok"


@pytest.mark.usefixtures("warm_loader")
def test_a_lock_whose_lease_died_with_the_server_is_stuck_until_it_is_taken_back(
    stage: Stage, own: Own, tmp_path: Path
) -> None:
    """The last one: it starts the server again."""
    lock = stage.named("lock")
    stage.environment["concurrency_limits"] = {lock: {"limit": 1}}
    stage.release(stage.entry())
    lease = {"slots": 1, "names": [lock], "lease_duration": 60}
    stage.ask("POST", "/v2/concurrency_limits/increment-with-lease", lease)
    stage.url = own.start().url
    assert stage.ask("GET", f"/v2/concurrency_limits/{lock}")["active_slots"] == 1
    found = look(stage)["limits"]
    assert found["state"] == "problem" and f"{lock}: 1 of 1 taken, and nothing runs" in found["seen"]
    words = found["fix"].partition("prefect ")[2].split()
    assert python(stage, tmp_path, "prefect", *words) == 0
    assert look(stage)["limits"]["state"] == "ok"
