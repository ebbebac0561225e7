"""The servers that are measured against: PostgreSQL and Prefect on free loopback ports, with all their data in one scratch folder."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from flows.market_data.backups.postgresql import folders_of
from scripts.stack import free_ports

SECONDS_TO_START = 120
SECONDS_TO_STOP = 10


@dataclass(frozen=True)
class Server:
    """A running Prefect server, and the processes whose work is the server's: its own and its database's."""

    url: str
    processes: tuple[int, ...]


def postgresql_programs() -> Path | None:
    """The folder of `initdb` and `postgres`: the PATH's, else the newest of the usual ones."""
    return next(((folder / "initdb").resolve().parent for folder in folders_of("initdb")), None)


@contextmanager
def prefect_on(database: str, scratch: Path) -> Iterator[Server]:
    """A Prefect server on "sqlite" or "postgresql"."""
    if database == "sqlite":
        with prefect(scratch / "prefect", {}) as server:
            yield server
        return
    with (
        postgresql(scratch / "postgresql") as (url, postmaster),
        prefect(scratch / "prefect", {"PREFECT_SERVER_DATABASE_CONNECTION_URL": url}) as server,
    ):
        yield Server(server.url, (*server.processes, postmaster))


@contextmanager
def prefect(home: Path, settings: Mapping[str, str]) -> Iterator[Server]:
    """`prefect server start` as anybody runs it: all its services, no analytics."""
    home.mkdir(parents=True)
    [port] = free_ports(1)
    words = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_SERVER_LOGGING_LEVEL": "ERROR"}
    url = f"http://127.0.0.1:{port}/api"
    with _process([sys.executable, *words], home, {**clean_environment(home), **quiet, **settings}) as process:
        _wait(process, home, lambda: _healthy(url))
        yield Server(url, (process.pid,))


@contextmanager
def postgresql(home: Path) -> Iterator[tuple[str, int]]:
    """A PostgreSQL of its own, with its defaults: the URL for Prefect, and the pid. As root it runs as the user postgres."""
    programs = postgresql_programs()
    assert programs, "the caller looks for it first"
    home.mkdir(parents=True)
    user = "postgres" if os.geteuid() == 0 else None
    [port], password, secret = free_ports(1), secrets.token_urlsafe(16), home / "password"
    secret.write_text(password)
    if user:
        _let_in(home, user)
    data = home / "data"
    words = ["-D", str(data), "-U", "bench", "-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "--locale=C"]
    subprocess.run(
        [str(programs / "initdb"), *words],
        user=user,
        cwd=home,
        check=True,
        capture_output=True,
        env=clean_environment(home),
    )
    start = ["-D", str(data), "-p", str(port), "-k", str(home), "-c", "listen_addresses=127.0.0.1"]
    with _process([str(programs / "postgres"), *start], home, clean_environment(home), user, signal.SIGINT) as process:
        _wait(
            process,
            home,
            lambda: (data / "postmaster.pid").exists() and "ready" in (data / "postmaster.pid").read_text(),
        )
        yield f"postgresql+asyncpg://bench:{password}@127.0.0.1:{port}/postgres", process.pid


def _let_in(folder: Path, user: str) -> None:
    """The folder becomes the user's, and the scratch folders that it is in can be passed."""
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, user)
    for parent in (folder.parent, folder.parent.parent):
        parent.chmod(0o711)


@contextmanager
def _process(
    words: list[str], home: Path, environment: Mapping[str, str], user: str | None = None, end: int = signal.SIGTERM
) -> Iterator[subprocess.Popen[bytes]]:
    with open(home / "log", "wb") as log:
        process = subprocess.Popen(
            words,
            env=dict(environment),
            cwd=home,
            user=user,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.send_signal(end)
        try:
            process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], home: Path, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} did not start:\n{(home / 'log').read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def clean_environment(home: Path) -> dict[str, str]:
    """Nothing of the caller's shell but where programs are: no PREFECT_*, no PYTHON*, no GIT_*, no proxy."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    return {
        **kept,
        "HOME": str(home),
        "PREFECT_HOME": str(home / ".prefect"),
        "DO_NOT_TRACK": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
    }
