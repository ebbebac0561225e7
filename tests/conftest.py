"""What every test gets: a home of its own, no way out of this machine, a fake Prefect and, if asked for, a real one."""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from deployer import loading
from tests.fake_prefect import FakePrefect
from tests.server import Server, patient_client, real_prefect
from tests.skips import IN_CI

# Nothing of the shell that started the tests may reach them: not its Prefect, its git (a hook's GIT_DIR!) or its CI.
FOREIGN = re.compile(
    r"PREFECT_|GIT_|GITHUB_|RUNNER_|ACTIONS_|INPUT_|CI$|NO_COLOR$|FORCE_COLOR$|CLICOLOR|.*_proxy$", re.I
)
NOWHERE = "http://127.0.0.1:9"


@pytest.hookimpl(trylast=True)  # after the plugins that look at the real environment
def pytest_configure(config: pytest.Config) -> None:
    """Before any test module is imported: Prefect reads its settings and makes its home at import time."""
    patch = pytest.MonkeyPatch()
    home = Path(tempfile.mkdtemp(prefix="home-"))
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    config.add_cleanup(patch.undo)
    live_in(home, patch)
    leave_nothing_behind(config, patch)
    stay_on_loopback(patch)
    set_up_hypothesis(in_ci=config.stash[IN_CI])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is born deaf to Ctrl-C
    measured = tuple(name for name in os.environ if name.startswith("COVERAGE_"))
    patch.setattr(
        loading, "KEPT", (*loading.KEPT, *measured)
    )  # the loader's environment is bare, or it is not measured


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # a class without types
    """With several processes each takes whole files, for their fixtures, and one takes all that need the real server.

    Marks for groups do nothing with pytest 9.2: https://github.com/pytest-dev/pytest-xdist/issues/1386
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "server" if file.startswith(("tests/real/", "tests/test_fake_is_honest.py")) else file


SLOWEST = (
    "tests/workflows/",
    "tests/real/",
    "tests/test_fake_",
    "tests/scripts/",
    "tests/flows/",
    "tests/deployer/test_property.py",
)
"""They begin, so that no process is left with them at the end."""


SECONDS_OF_A_STACK_TEST = 900
"""Its time includes its fixtures': a platform, its workers, the first deploy. On a slow machine with others beside it, too."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In the order of files where one process runs all."""
    for item in items:
        if item.get_closest_marker("stack") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SECONDS_OF_A_STACK_TEST))
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: next((n for n, s in enumerate(SLOWEST) if item.nodeid.startswith(s)), len(SLOWEST)))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    return ByFile(config, log)


def set_up_hypothesis(in_ci: bool) -> None:
    """The same examples at every run of CI: it is about the change at hand. New ones are found where people work. And no limit
    to an example's time, which only measures how busy the machine is."""
    from hypothesis import HealthCheck, settings  # it looks at the environment, which has just been emptied

    slow = [HealthCheck.too_slow]
    settings.register_profile("tests", deadline=None, derandomize=in_ci, suppress_health_check=slow)
    settings.load_profile("tests")


def live_in(home: Path, patch: pytest.MonkeyPatch) -> None:
    """An environment in which everything that looks for a home, a profile or an identity finds an empty one."""
    for name in [name for name in os.environ if FOREIGN.match(name)]:
        patch.delenv(name)
    wanted = {
        "HOME": home,
        "XDG_CONFIG_HOME": home / ".config",
        "XDG_CACHE_HOME": home / ".cache",
        "XDG_DATA_HOME": home / ".local/share",
        "PREFECT_HOME": home / ".prefect",
        "PREFECT_PROFILES_PATH": home / ".prefect/profiles.toml",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": "Test",
        "GIT_AUTHOR_EMAIL": "test@example.invalid",
        "GIT_COMMITTER_NAME": "Test",
        "GIT_COMMITTER_EMAIL": "test@example.invalid",
        "HTTP_PROXY": NOWHERE,
        "HTTPS_PROXY": NOWHERE,
        "ALL_PROXY": NOWHERE,
        "NO_PROXY": "127.0.0.1,localhost,::1",
    }
    for name, value in wanted.items():
        patch.setenv(name, str(value))


def leave_nothing_behind(config: pytest.Config, patch: pytest.MonkeyPatch) -> None:
    """A temporary folder of this run's own: programs that a test kills cannot clean up. Pytest's stays where people look for it."""
    usual = tempfile.gettempdir()
    own = Path(tempfile.mkdtemp(prefix="tests-"))
    own.chmod(0o711)  # PostgreSQL refuses to run as root, and its own user has to get to its folder
    config.add_cleanup(lambda: shutil.rmtree(own, ignore_errors=True))
    patch.setenv("PYTEST_DEBUG_TEMPROOT", os.environ.get("PYTEST_DEBUG_TEMPROOT", usual))
    patch.setenv("TMPDIR", str(own))
    patch.setattr(tempfile, "tempdir", str(own))


def stay_on_loopback(patch: pytest.MonkeyPatch) -> None:
    """Refuse names and connections that lead off this machine. Child processes only have the dead proxy."""

    def guarded(original: Callable[..., Any], host_of: Callable[..., object]) -> Callable[..., Any]:
        def guard(*arguments: Any, **options: Any) -> Any:
            host = host_of(*arguments)
            if not local(host):
                raise ConnectionRefusedError(f"a test may not leave this machine, but wanted to reach {host!r}")
            return original(*arguments, **options)

        return guard

    patch.setattr(socket.socket, "connect", guarded(socket.socket.connect, lambda _, address: address))
    patch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex, lambda _, address: address))
    patch.setattr(socket, "getaddrinfo", guarded(socket.getaddrinfo, lambda host, *_: (host,)))


def local(address: object) -> bool:
    """Is it this machine: loopback, the name of it, or a socket that is a file."""
    if not isinstance(address, tuple):
        return True
    host = address[0].decode() if isinstance(address[0], bytes) else address[0]
    if host in (None, "", "localhost", "0.0.0.0", "::"):
        return True
    try:
        return ipaddress.ip_address(str(host).partition("%")[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new, empty home for each test."""
    path = tmp_path_factory.mktemp("home")
    live_in(path, monkeypatch)
    return path


@pytest.fixture
def fake() -> FakePrefect:
    """A fresh fake Prefect API."""
    return FakePrefect()


@pytest.fixture(scope="session")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real Prefect server, started when the first test asks for it and shared by all that do: use `unique` names."""
    with real_prefect(tmp_path_factory.mktemp("prefect-server")) as server:
        yield server


@pytest.fixture
def real_api(real_server: Server) -> Iterator[httpx.Client]:
    """A client of the real server."""
    with patient_client(real_server.url) as client:
        yield client


@pytest.fixture(params=["fake", "real"])
def api(request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """A client of the API: once of the fake, once of the real server. What holds for both is what Prefect does."""
    if request.param == "real":
        yield request.getfixturevalue("real_api")
        return
    fake: FakePrefect = request.getfixturevalue("fake")
    with fake.client() as client:
        yield client


_numbers = count(1)


@pytest.fixture
def unique() -> Callable[[str], str]:
    """A name that no other test uses: unique("pool") is "pool-17"."""
    return lambda stem: f"{stem}-{next(_numbers)}"
