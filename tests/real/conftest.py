"""A stage for each test, and one warm loader for those that need no flows of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from deployer import apply, loading
from deployer.loading import Loader
from tests.real.stage import FLOWS, Stage, scratch
from tests.server import Server


@pytest.fixture
def stage(real_server: Server, tmp_path: Path, unique: Callable[[str], str]) -> Iterator[Stage]:
    stage = scratch(real_server.url, tmp_path, unique("stage"))
    yield stage
    stage.end()


@pytest.fixture(autouse=True)
def no_wait_for_the_servers_scheduler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """But where its runs are looked at. There it is given longer: on SQLite, beside all other tests, it takes its time."""
    looks = request.module.__name__ == "tests.real.test_no_run_is_lost"
    monkeypatch.setattr(apply, "A_PASS", timedelta(seconds=5 if looks else 0))


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loader]:
    """A real loader over the stages' own flows, started once: importing Prefect takes it longer than anything else."""
    checkout = tmp_path_factory.mktemp("checkout")
    script = checkout / "flows/alpha/flows.py"
    script.parent.mkdir(parents=True)
    script.write_text(FLOWS)
    with loading.open_loader(checkout) as loader:
        yield loader


@pytest.fixture
def warm_loader(warm: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every commit of the test's stage has the same flows, and so one loader answers for all of them."""

    @contextmanager
    def opened(checkout: Path) -> Iterator[Loader]:
        assert (checkout / "flows/alpha/flows.py").read_text() == FLOWS
        yield warm

    monkeypatch.setattr(loading, "open_loader", opened)
