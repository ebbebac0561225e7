"""Prefect's own database: taken from one platform, put into a fresh one, and what hangs in it ended."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest

from deployer.environment import Api
from deployer.errors import InvalidInput
from deployer.prefect_api import Client
from infra.restore import inventory, restore
from infra.upgrade.trial import client_of, tool
from scripts import ha, stack
from scripts.stack import Stack
from tests.fake_prefect import FakePrefect

if TYPE_CHECKING:
    from tests.postgres import PostgreSQL

pytest_plugins = ["tests.postgres", "tests.flows.maintenance.s3"]

POOLS = {"ingestion": "old-ingestion", "maintenance": "old-maintenance"}
# Or Prefect ends a run itself that has been cancelling for five minutes, and `settle` finds one less.
PATIENT = {"PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_CANCELLING_TIMEOUT_SECONDS": "3600"}


def run_of(api: Client, deployment: str, *states: str) -> str:
    """A run as a worker leaves it that is gone since, after these states."""
    body: dict[str, Any] = {"parameters": {"number": 1, "seconds": 0}}
    made: str = api.request("POST", f"/deployments/{deployment}/create_flow_run", body)["id"]
    for state in states:
        body = {"state": {"type": state, "name": state.capitalize()}, "force": True}
        api.request("POST", f"/flow_runs/{made}/set_state", body)
    return made


@dataclass(frozen=True)
class Old:
    """What is known of the platform that is gone: the backup, and what it held."""

    backup: Path
    repository: Path
    inventory: inventory.Inventory
    history: Any
    running: str
    cancelling: str
    overdue: str


@contextmanager
def platform() -> Iterator[Stack]:
    """PostgreSQL and Redis, and an empty database; the server follows."""
    try:
        stack.find_programs()
    except stack.StackError as error:
        pytest.skip(str(error))
    with stack.running(POOLS, replicas=1, settings=PATIENT, serve=False) as found:
        yield found


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Old:
    folder = tmp_path_factory.mktemp("old")
    with platform() as there:
        stack.start_server(there)
        trial = ha.Trial(there, 0, 0, print)
        ha.deploy(trial, silent_after=3600)  # nothing but `settle` ends what hangs
        with client_of(there) as api:
            for state in ("COMPLETED", "COMPLETED", "FAILED"):
                run_of(api, trial.deployments["ingestion"], state)
            running = run_of(api, trial.deployments["ingestion"], "RUNNING")
            cancelling = run_of(api, trial.deployments["ingestion"], "RUNNING", "CANCELLING")
            overdue = run_of(api, trial.deployments["maintenance"])
            limit = api.request("POST", "/v2/concurrency_limits/", {"name": "lock", "limit": 2})["id"]
            api.patch(f"/v2/concurrency_limits/{limit}", {"active_slots": 2})
            held = inventory.read(api)
        told = restore.take(there.database, str(folder / "backups"))
        repository = folder / "repository"
        shutil.copytree(there.folder / "repository", repository)
        history = tool(there, "history", repository)
        backup = folder / "backups" / told.partition(":")[0]
        return Old(backup, repository, held, history, running, cancelling, overdue)


@pytest.fixture(scope="module")
def fresh(old: Old) -> Iterator[Stack]:
    """Another platform, with the backup in it."""
    with platform() as found:
        assert restore.main(["restore", str(old.backup), "--database", found.database]) == 0
        stack.start_server(found)
        yield found


@pytest.mark.stack
def test_a_restored_platform_has_all_deployments_and_runs_and_the_ledger(old: Old, fresh: Stack) -> None:
    with client_of(fresh) as api:
        assert inventory.differences(old.inventory, inventory.read(api)) == []
    assert old.inventory["releases"]
    assert old.inventory["flow runs"]["COMPLETED"] == 2
    assert tool(fresh, "history", old.repository) == old.history


@pytest.mark.stack
def test_on_a_restored_platform_there_is_nothing_to_deploy(old: Old, fresh: Stack) -> None:
    assert tool(fresh, "plan", old.repository)["changes"] == []


@pytest.mark.stack
def test_what_was_under_way_is_crashed_and_slots_that_nobody_holds_are_freed(old: Old, fresh: Stack) -> None:
    with client_of(fresh) as api:
        assert restore.settle(api, write=False)[-1] == "4 to settle; nothing was written. --write does it."
        assert api.get(f"/flow_runs/{old.running}")["state_type"] == "RUNNING"
        assert restore.settle(api, write=True, skip_overdue=True)[-1] == "4 settled."
        states = [one["name"] for one in api.get(f"/flow_run_states/?flow_run_id={old.running}")]
        assert "Crashed" in states
        assert api.get(f"/flow_runs/{old.cancelling}")["state_type"] == "CANCELLED"
        assert api.get(f"/flow_runs/{old.overdue}")["state_type"] == "CANCELLED"
        assert api.get("/v2/concurrency_limits/lock")["active_slots"] == 0


@pytest.mark.stack
def test_a_backup_is_never_put_over_another_database(old: Old, fresh: Stack) -> None:
    with pytest.raises(InvalidInput, match="a backup is put into an empty database only"):
        restore.put_back(old.backup, fresh.database)


# -- Without a platform


def test_a_backup_of_a_newer_prefect_is_refused_before_anything_is_written(
    postgresql: PostgreSQL, tmp_path: Path
) -> None:
    newer, empty = postgresql.new_database(), postgresql.new_database()
    with psycopg.connect(newer, autocommit=True) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num text)")
        connection.execute("INSERT INTO alembic_version VALUES ('ffff00000000')")
    name = restore.take(newer, str(tmp_path), verify=False).partition(":")[0]
    with pytest.raises(InvalidInput, match="made by a newer Prefect than this one"):
        restore.put_back(tmp_path / name, empty)
    with psycopg.connect(empty) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


def test_a_file_that_is_no_dump_is_named(postgresql: PostgreSQL, tmp_path: Path) -> None:
    (tmp_path / "notes.dump").write_text("notes")
    with pytest.raises(InvalidInput, match=r"notes\.dump is no dump of pg_dump's custom format"):
        restore.put_back(tmp_path / "notes.dump", postgresql.new_database())


def test_a_database_that_does_not_answer_is_told_without_its_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "postgresql+asyncpg://prefect:hunter2@127.0.0.1:9/prefect"
    assert restore.main(["backup", str(tmp_path / "backups"), "--database", url]) == 1
    said = capsys.readouterr().err
    assert "The database does not answer as it should" in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ("postgresql+asyncpg://u:p@h:5432/prefect", "postgresql://u:p@h:5432/prefect"),
        ("postgres://u@h/prefect?sslmode=require", "postgresql://u@h/prefect?sslmode=require"),
        ("postgresql+asyncpg://u@h/prefect?ssl=require", "postgresql://u@h/prefect?sslmode=require"),
        ("postgresql+asyncpg://u@h/prefect?a=1&ssl=prefer", "postgresql://u@h/prefect?a=1&sslmode=prefer"),
    ],
)
def test_prefects_own_url_of_its_database_will_do(given: str, plain: str) -> None:
    assert restore.plain(given) == plain
    assert restore.plain(restore.prefects(given)) == plain


def test_prefect_gets_a_url_of_its_driver() -> None:
    given = "postgresql://u:p@h/prefect?sslmode=require"
    assert restore.prefects(given) == "postgresql+asyncpg://u:p@h/prefect?ssl=require"


def test_the_url_that_terraform_makes_is_one_that_postgresqls_programs_understand(
    postgresql: PostgreSQL, tmp_path: Path
) -> None:
    """`prefer`, because the tests' server has no certificate."""
    url = postgresql.new_database().replace("postgresql:", "postgresql+asyncpg:", 1)
    url += ("&" if "?" in url else "?") + "ssl=prefer"
    assert restore.main(["backup", str(tmp_path), "--database", url, "--no-verify"]) == 0


def test_a_backup_in_s3_is_restored_from_there(
    postgresql: PostgreSQL, s3: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, empty = postgresql.new_database(), postgresql.new_database()
    revision = sorted(restore.known_revisions())[0]
    with psycopg.connect(old, autocommit=True) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num text)")
        connection.execute("INSERT INTO alembic_version VALUES (%s)", [revision])
    monkeypatch.setattr(restore, "migrate", lambda url: None)
    assert restore.main(["backup", f"{s3}/prefect", "--database", old]) == 0
    name = capsys.readouterr().out.partition(":")[0]
    assert restore.main(["restore", f"{s3}/prefect/{name}", "--database", empty]) == 0
    told = capsys.readouterr().out
    assert "Restored: 1 tables, 1 rows." in told
    assert "Start the API alone, then `settle`, then the services and the workers." in told
    assert restore.main(["restore", f"{s3}/prefect/other.dump", "--database", empty]) == 1
    assert "There is no file" in capsys.readouterr().err


def test_nothing_is_settled_while_a_worker_is_alive(fake: FakePrefect) -> None:
    with Client(Api(url="http://fake/api"), transport=fake.transport) as api:
        api.request("POST", "/work_pools/", {"name": "pool", "type": "process"})
        api.request("POST", "/work_pools/pool/workers/heartbeat", {"name": "busy"})
        with pytest.raises(InvalidInput, match="The worker busy of pool is alive"):
            restore.settle(api, write=True)


@pytest.fixture
def deployment(fake: FakePrefect) -> Iterator[tuple[Client, str]]:
    with Client(Api(url="http://fake/api"), transport=fake.transport) as api:
        flow = api.request("POST", "/flows/", {"name": "nap"})["id"]
        yield api, api.request("POST", "/deployments/", {"name": "nap", "flow_id": flow})["id"]


def test_a_run_that_was_being_cancelled_ends_as_cancelled(deployment: tuple[Client, str]) -> None:
    api, id = deployment
    cancelling, running = run_of(api, id, "RUNNING", "CANCELLING"), run_of(api, id, "RUNNING")
    assert restore.settle(api, write=True)[-1] == "2 settled."
    assert api.get(f"/flow_runs/{cancelling}")["state_type"] == "CANCELLED"
    assert api.get(f"/flow_runs/{running}")["state_type"] == "CRASHED"


class Rejecting(httpx.BaseTransport):
    """The fake, which plays no rules, with an API's no to a change of state."""

    def __init__(self, fake: FakePrefect) -> None:
        self.fake = fake

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/set_state"):
            details = {"type": "reject_details", "reason": "This run is already in state COMPLETED."}
            return httpx.Response(200, json={"state": None, "status": "REJECT", "details": details})
        return self.fake.transport.handle_request(request)


def test_a_run_that_the_api_does_not_let_end_is_not_called_settled(
    fake: FakePrefect, deployment: tuple[Client, str]
) -> None:
    run = run_of(*deployment, "RUNNING")
    with (
        Client(Api(url="http://fake/api"), transport=Rejecting(fake)) as api,
        pytest.raises(InvalidInput, match=rf"{run}.* did not become Crashed: This run is already in state COMPLETED"),
    ):
        restore.settle(api, write=True)


BEFORE: inventory.Inventory = {"deployments": {"a": "1", "b": "2"}, "flow runs": {"all": 5, "COMPLETED": 4}}


@pytest.mark.parametrize(
    ("after", "more", "told"),
    [
        (BEFORE, False, []),
        ({**BEFORE, "deployments": {"a": "1"}}, True, ["deployments: b is gone"]),
        ({**BEFORE, "deployments": {"a": "1", "b": "3"}}, True, ["deployments: b differs"]),
        ({**BEFORE, "deployments": {"a": "1", "b": "2", "c": "1"}}, True, []),
        ({**BEFORE, "deployments": {"a": "1", "b": "2", "c": "1"}}, False, ["deployments: c is new"]),
        ({**BEFORE, "flow runs": {"all": 7, "COMPLETED": 3}}, True, []),
        ({**BEFORE, "flow runs": {"all": 4, "COMPLETED": 4}}, True, ["1 flow runs are gone"]),
        ({**BEFORE, "flow runs": {"all": 5, "COMPLETED": 3}}, False, ["flow runs: COMPLETED differs"]),
    ],
)
def test_while_work_goes_on_there_may_be_more_but_nothing_may_be_gone(
    after: inventory.Inventory, more: bool, told: list[str]
) -> None:
    assert inventory.differences(BEFORE, after, more) == told
