"""The upgrade: in which order, what it refuses and compares, and once for real, from the previous Prefect."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployer.environment import Api
from deployer.errors import InvalidInput, Refused, VerificationFailed
from deployer.prefect_api import Client
from infra.restore import restore
from infra.upgrade import trial
from infra.upgrade import upgrade as script
from infra.upgrade.upgrade import upgrade
from tests.fake_prefect import FakePrefect

NEXT = "99.0.0"


class NoRuns(httpx.BaseTransport):
    """The fake, which doesn't count runs."""

    def __init__(self, fake: FakePrefect) -> None:
        self.fake = fake

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/flow_runs/count"):
            return httpx.Response(200, json=0)
        return self.fake.transport.handle_request(request)


class Platform:
    """The fake API, and what was done to it in which order."""

    def __init__(self, api: Client) -> None:
        self.api = api
        self.done: list[str] = []
        self.said: list[str] = []
        self.present = str(api.get("/admin/version"))

    def step(self, name: str, act: Callable[[], Any] = lambda: None) -> Callable[[], Any]:
        def run() -> str:
            self.done.append(name)
            act()
            return f"{name}.dump: 1 MB"

        return run

    def upgrade(self, wanted: str, migrate: Callable[[], Any] = lambda: None) -> None:
        upgrade(
            self.api,
            wanted,
            backup=self.step("backup"),
            migrate=self.step("migrate", migrate),
            restarts=[("api", self.step("api")), ("worker", self.step("worker"))],
            say=self.said.append,
        )


@pytest.fixture
def platform(fake: FakePrefect) -> Iterator[Platform]:
    with Client(Api(url="http://fake/api"), transport=NoRuns(fake)) as api:
        api.request("POST", "/variables/", {"name": "kept", "value": "1"})
        yield Platform(api)


def test_the_backup_comes_first_then_the_schema_then_one_part_after_the_other(platform: Platform) -> None:
    platform.upgrade(platform.present)
    assert platform.done == ["backup", "migrate", "api", "worker"]
    assert platform.said[-1] == f"Prefect {platform.present}. All that was there is there."


def test_a_newer_server_is_left_alone(platform: Platform) -> None:
    with pytest.raises(Refused, match=r"newer than 3\.0\.0"):
        platform.upgrade("3.0.0")
    assert platform.done == []


def test_a_failed_migration_stops_it_and_names_the_backup_to_go_back_to(platform: Platform) -> None:
    def fail() -> None:
        raise InvalidInput("The disk is full.")

    with pytest.raises(VerificationFailed, match=r"migrate: The disk is full\. .* the backup is backup\.dump"):
        platform.upgrade(platform.present, fail)
    assert platform.done == ["backup", "migrate"]


def test_what_is_gone_after_a_step_stops_it_there(platform: Platform) -> None:
    with pytest.raises(VerificationFailed, match="variables: kept is gone"):
        platform.upgrade(platform.present, lambda: platform.api.delete("/variables/name/kept"))
    assert platform.done == ["backup", "migrate"]


def test_replicas_that_stayed_as_they_were_are_noticed(platform: Platform) -> None:
    with pytest.raises(VerificationFailed, match=f"still answers as Prefect {platform.present}"):
        platform.upgrade(NEXT)


@pytest.fixture
def api(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Client:
    """What the script speaks to, with no database given."""
    monkeypatch.delenv(restore.DATABASE, raising=False)
    monkeypatch.setattr(script, "client", lambda any_version: contextlib.nullcontext(platform.api))
    monkeypatch.setattr(script, "version", lambda name: platform.present)
    return platform.api


@pytest.mark.usefixtures("api")
def test_commands_beside_the_database_make_a_connection_to_it_needless(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    book = tmp_path / "book"
    words = [
        "--backup",
        f"echo backup >> {book}; echo /backups/a.dump: 5 bytes",
        "--migrate",
        f"echo migrate >> {book}",
    ]
    assert script.main([*words, "--restart", f"echo api >> {book}"]) == 0
    assert book.read_text().split() == ["backup", "migrate", "api"]
    assert "backup: /backups/a.dump: 5 bytes" in capsys.readouterr().out


@pytest.mark.usefixtures("api")
def test_a_backup_that_fails_stops_it_before_the_migration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--backup", "exit 3", "--migrate", f"touch {tmp_path / 'migrated'}", "--restart", "true"]
    assert script.main(words) == 1
    assert "`exit 3` ended with 3. Nothing was changed." in capsys.readouterr().err
    assert not (tmp_path / "migrated").exists()


@pytest.mark.usefixtures("api")
def test_without_such_commands_the_database_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--backup", "true", "--restart", "true"]) == 1
    assert "Which database?" in capsys.readouterr().err


@pytest.mark.stack
def test_the_previous_prefect_becomes_this_one_while_runs_go_on_and_none_is_lost() -> None:
    if not trial.previous().exists():
        pytest.skip("the previous Prefect is not installed (python infra/upgrade/trial.py --prepare)")
    outcome = trial.try_it(trial.previous(), print)
    assert outcome.before.startswith("3.7.")
    assert outcome.after.startswith("3.8.")
    assert outcome.lost == []
    assert outcome.plan["changes"] == []
    assert outcome.releases == [1]
