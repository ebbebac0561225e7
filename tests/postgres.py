"""A real PostgreSQL of the tests' own, on a free loopback port, and a warehouse's URL on each database.

A test module asks for it with `pytest_plugins = ["tests.postgres"]`. Where PostgreSQL's programs are missing its tests are
skipped, always with the same reason; in CI that is a failure (tests/skips.py).
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from bench.servers import postgresql_programs
from tests.server import clean_environment, free_port

REASON = "PostgreSQL's programs are not on this machine (apt or brew install postgresql)"
SECONDS_TO_START = 180
USER = "tester"

# The server's standard input is a leash: when the other end is closed, also because the tests were killed, this stops
# PostgreSQL and removes its folder.
LEASHED = """
import os, shutil, signal, subprocess, sys, threading
folder, user, *words = sys.argv[1:]
server = subprocess.Popen(words, stdin=subprocess.DEVNULL, cwd=folder, user=user or None)
let_go = threading.Event()
def end_with_the_parent():
    while os.read(0, 1):
        pass
    let_go.set()
    server.send_signal(signal.SIGINT)
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)
leash = threading.Thread(target=end_with_the_parent)
leash.start()
server.wait()
if let_go.is_set():
    leash.join()
os._exit(server.returncode)
"""

_numbers = count(1)


@dataclass(frozen=True)
class PostgreSQL:
    """A running server."""

    port: int
    password: str
    folder: Path

    def url(self, database: str = "postgres", password: str | None = None) -> str:
        return f"postgresql://{USER}:{password or self.password}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Its URL."""
        import psycopg

        name = f"warehouse_{next(_numbers)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)


@contextmanager
def running() -> Iterator[PostgreSQL]:
    """Start one, as the user postgres if this is root; end it afterwards, and leave nothing behind.

    Its sessions are in New York's time, so that whoever leaves the time zone to the server is found out.
    """
    programs = postgresql_programs()
    assert programs, "the caller looks for it first"
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    user = "postgres" if os.geteuid() == 0 else ""
    server = PostgreSQL(free_port(), secrets.token_urlsafe(16), folder)
    _initialize(programs, server, user)
    words = [str(programs / "postgres"), "-D", str(folder / "data"), "-p", str(server.port), "-k", str(folder)]
    settings = ["listen_addresses=127.0.0.1", "fsync=off", "max_connections=30", "timezone=America/New_York"]
    options = [word for setting in settings for word in ("-c", setting)]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", LEASHED, str(folder), user, *words, *options],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=clean_environment(folder),
            start_new_session=True,
        )
    try:
        _wait_until_ready(server, process)
        yield server
    finally:
        assert process.stdin
        process.stdin.close()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _initialize(programs: Path, server: PostgreSQL, user: str) -> None:
    secret = server.folder / "password"
    secret.write_text(server.password)
    if user:
        for path in (server.folder, secret):
            shutil.chown(path, user)
    words = ["-D", str(server.folder / "data"), "-U", USER, "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync"]
    subprocess.run(
        [str(programs / "initdb"), *words, "-E", "UTF8", "--locale=C"],
        user=user or None,
        cwd=server.folder,
        env=clean_environment(server.folder),
        check=True,
        capture_output=True,
    )


def _wait_until_ready(server: PostgreSQL, process: subprocess.Popen[bytes]) -> None:
    pause, deadline = threading.Event(), time.monotonic() + SECONDS_TO_START
    status = server.folder / "data" / "postmaster.pid"
    while not (status.exists() and "ready" in status.read_text()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL did not start:\n{(server.folder / 'log').read_text()}")
        pause.wait(0.05)


def answers(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """One server for all tests of this process; a test takes a database of its own."""
    if postgresql_programs() is None:
        pytest.skip(REASON)
    with running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a new, empty database: once on SQLite, once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'warehouse.db'}"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.new_database()
