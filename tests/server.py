"""A real Prefect server of its own, on a free loopback port, for as long as a `with` lasts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from scripts.stack import free_ports

SECONDS_TO_START = 240  # it needs some 10 of one core, and is not alone: 90 were not enough
SECONDS_TO_STOP = 5
SECONDS_OF_PATIENCE = 90
"""The server itself waits 60 s for SQLite's lock before it answers 503."""

# The server's standard input is a leash: it ends with the process that holds the other end,
# also when that one is killed and can't clean up.
LEASHED = """
import os, signal, threading
def end_with_the_parent():
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=end_with_the_parent, daemon=True).start()
from prefect.cli import app
app()
"""

# No analytics, no UI, and none of the services that write to the database behind a test's back:
# on SQLite each of them makes the API answer 503 now and then. The scheduler stays.
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
}


@dataclass(frozen=True)
class Server:
    """A running server: the address of its API, where it keeps its data and log, its process."""

    url: str
    home: Path
    pid: int

    @property
    def log(self) -> str:
        return (self.home / "server.log").read_text()


@contextmanager
def real_prefect(home: Path, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Start `prefect server start` with its data under `home`, wait until it answers, end it afterwards."""
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    process = start(home, port, settings or {})
    server = Server(f"http://127.0.0.1:{port}/api", home, process.pid)
    try:
        _wait_until_ready(server, process)
        yield server
    finally:
        _stop(process)


def patient_client(url: str, timeout: float = SECONDS_OF_PATIENCE) -> httpx.Client:
    """For a server on SQLite: a request that finds the database locked is made again."""
    return httpx.Client(base_url=url, transport=PatientTransport(), timeout=timeout)


class PatientTransport(httpx.HTTPTransport):
    """Asks again when SQLite was locked: the server then answers 503, or hangs up, and has done nothing.

    A request that got no answer in time is not made again: it may have been done. A connection each time: the server closes
    it after a 500, but does not say so.
    """

    def __init__(self) -> None:
        super().__init__(limits=httpx.Limits(max_keepalive_connections=0), trust_env=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        deadline, resting = time.monotonic() + SECONDS_OF_PATIENCE, threading.Event()
        while time.monotonic() < deadline:
            try:
                response = super().handle_request(request)
            except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                pass
            else:
                if response.status_code != 503:
                    return response
                response.close()
            resting.wait(0.02)
        return super().handle_request(request)


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    return free_ports(1)[0]


def clean_environment(home: Path) -> dict[str, str]:
    """What a process needs and no more: no PREFECT_* variable of the shell, a home of its own."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": str(home), "PREFECT_HOME": str(home / ".prefect"), "PYTHONUNBUFFERED": "1"}


def start(home: Path, port: int, settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Only start it; it ends when its standard input is closed."""
    arguments = ["server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with open(home / "server.log", "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", LEASHED, *arguments],
            env={**clean_environment(home), **QUIET, **settings},
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal is for the tests, which then end the server
        )


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes]) -> None:
    pause = threading.Event()
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the Prefect server ended at once with {process.returncode}:\n{server.log}")
        if _answers(server.url):
            return
        pause.wait(0.1)
    raise RuntimeError(f"the Prefect server did not answer within {SECONDS_TO_START} s:\n{server.log}")


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin:
        process.stdin.close()
