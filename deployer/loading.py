"""The parent's side of the loader: start it with nothing to steal, ask it, end it."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from deployer.desired import Request
from deployer.errors import InvalidInput
from deployer.prefect_api.relay import Relay

SCRIPT = Path(__file__).with_name("loader.py")
KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""All that a flow's module may see of our process environment."""


PATIENCE = 300.0
"""Seconds for importing all flows."""


class Loader:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = b""
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()

    def _listen(self) -> None:
        """Keep the end of what the flows print, however much it is."""
        assert self.process.stderr
        with suppress(OSError, ValueError):
            while heard := os.read(self.process.stderr.fileno(), 65536):
                self.said = (self.said + heard)[-4096:]

    def load(self, request: Request) -> dict[str, Any]:
        return self._ask({"op": "load", **request.__dict__}, PATIENCE)

    def create(self, names: list[str], relay: Relay) -> dict[str, Any]:
        """Through the relay, which has time limits of its own."""
        return self._ask({"op": "create", "api": relay.access, "names": names}, None)

    def _ask(self, request: Mapping[str, Any], patience: float | None) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        with _limited(self.process, patience) as overdue:
            with suppress(BrokenPipeError):
                self.process.stdin.write(json.dumps(request) + "\n")
                self.process.stdin.flush()
            line = self.process.stdout.readline()
        if overdue.is_set():
            raise InvalidInput(
                f"The loader has not finished importing the flows after {patience:g} s. Does a module wait for something, "
                f"or work, while it is imported? {self._last_words()}"
            )
        if not line:
            raise InvalidInput(
                f"The loader ended by itself (exit {_ended(self.process)}) while importing the flows. {self._last_words()}"
            )
        return _answer(line, request)

    def _last_words(self) -> str:
        self.listener.join(timeout=1)
        said = self.said.decode(errors="replace").strip().splitlines()[-3:]
        return f"It said last: {' / '.join(line[:300] for line in said)}" if said else "It said nothing."


def _ended(process: subprocess.Popen[str]) -> int | None:
    """Its exit code. One that only closed its streams is ended here."""
    with suppress(subprocess.TimeoutExpired):
        return process.wait(timeout=3)
    _kill(process)
    return process.wait()


def _answer(line: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """What the loader answers, and not what a flow's module wrote into its place."""
    expected = {"load": ("deployments", "automations"), "create": ("faults",)}[request["op"]]
    try:
        answer = json.loads(line)
        parts = [answer[key] for key in expected]
        asked = {part: {item["name"] for item in request.get(part, ())} for part in expected}
        whole = all(isinstance(p, dict) and asked[key] <= set(p) for key, p in zip(expected, parts, strict=True))
    except (ValueError, TypeError, KeyError, RecursionError):
        whole = False
    if not whole:
        raise InvalidInput(
            f"What the loader answered is no answer: '{line[:80].strip()}'. Does a flow's module write to its file descriptors, or change json, while it is imported?"
        )
    return dict(answer)


@contextmanager
def open_loader(checkout: Path) -> Iterator[Loader]:
    """A loader for one checkout, in a home of its own. What flows print last is shown when the loader dies."""
    with tempfile.TemporaryDirectory(prefix="prefect-loader-") as home:
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", str(SCRIPT), str(checkout)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=environment(home),
            close_fds=True,
            start_new_session=True,
            preexec_fn=_drop_privileges if sys.platform == "linux" else None,
        )
        loader = Loader(process)
        try:
            yield loader
        finally:
            _end(process)
            loader.listener.join(timeout=1)
            if process.stderr:
                process.stderr.close()


@contextmanager
def _limited(process: subprocess.Popen[str], seconds: float | None) -> Iterator[threading.Event]:
    """End the process when the with-block takes longer; the event tells that it did."""
    overdue = threading.Event()

    def give_up() -> None:
        overdue.set()
        _kill(process)

    if seconds is None:
        yield overdue
        return
    limit = threading.Timer(seconds, give_up)
    limit.start()
    try:
        yield overdue
    finally:
        limit.cancel()


def _kill(process: subprocess.Popen[str]) -> None:
    """With all its children: it leads a session of its own."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _end(process: subprocess.Popen[str]) -> None:
    """Its standard input's end is its sign to go; whatever does not, is ended with all its children."""
    assert process.stdin and process.stdout
    with suppress(BrokenPipeError):
        process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=3)
    _kill(process)
    process.wait()
    process.stdout.close()


def environment(home: str) -> dict[str, str]:
    """No API address, key or secret, and no profile of the user's: an empty home, and Prefect kept from starting a server."""
    kept = {key: os.environ[key] for key in KEPT if key in os.environ}
    return {
        **kept,
        "HOME": home,
        "PREFECT_HOME": f"{home}/.prefect",
        "PREFECT_PROFILES_PATH": f"{home}/profiles.toml",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_CLIENT_MAX_RETRIES": "0",  # the relay retries
        "DO_NOT_TRACK": "1",
    }


PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38


def hide_from_children() -> None:
    """On Linux, keep processes of the same user from reading this one's environment and memory (/proc/PID/environ)."""
    if sys.platform == "linux":
        _libc().prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


LIBC = _libc() if sys.platform == "linux" else None
NO_CAPABILITIES = (ctypes.c_uint32 * 6)()
CAPABILITIES_HEADER = (ctypes.c_uint32 * 2)(0x20080522, 0)


def _drop_privileges() -> None:
    """Between fork and exec: root without capabilities cannot read its parent's environment either. And when the parent is
    killed, the loader goes with it."""
    assert LIBC
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for capability in range(64):
        LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    LIBC.capset(CAPABILITIES_HEADER, NO_CAPABILITIES)
