"""Processes that are known by a mark, and ended by it.

The mark holds the state directory, the environment and the role. It is there from a process's first moment, whatever
becomes of who started it or of any file, and nobody who later gets the same number has it.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

API = "api"
# Runs first, so that they still tell the API that they crash; then workers, what those left behind, and the API, which
# hears nothing while it makes its database. Seconds until they are killed: on a slow machine all of them take their time.
ENDING = (("run", 30.0), ("worker", 30.0), ("run", 5.0), (API, 15.0))
PAUSE = 0.1

Say = Callable[[str], None]


class LocalError(Exception):
    """What the operator can act on: what happened, where, what now."""


def silent(line: str) -> None:
    """For callers that want no progress."""


@dataclass(frozen=True)
class Process:
    """One that `up` started (`direct`: the mark is in its command line), or that descends from such a one."""

    pid: int
    since: str
    environment: str
    role: str
    direct: bool

    @property
    def kind(self) -> str:
        return API if self.role == API else "worker" if self.direct else "run"


def find(state: Path) -> list[Process]:
    """All that runs on behalf of this state directory."""
    own = tag(state)
    mark = re.compile(rf"(?:local-prefect|LOCAL_PREFECT)={own}:([\w-]+):([\w.~%-]+)")
    return [
        Process(pid, since, found[1], found[2], direct=f"local-prefect={own}:" in text)
        for pid, since, text in _listing()
        if (found := mark.search(text)) and pid != os.getpid()
    ]


def tag(state: Path) -> str:
    return hashlib.sha256(os.fsencode(state.resolve())).hexdigest()[:16]


def _listing() -> Iterator[tuple[int, str, str]]:
    """Of each process: its number, its start, its command line and environment, as far as we may read them.

    One that is ending has lost the latter already, while it still holds its ports.
    """
    return _proc() if Path("/proc/self/environ").exists() else _ps("-AE")


def _proc() -> Iterator[tuple[int, str, str]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it is gone meanwhile
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            state, threads, since = fields[0], fields[17], fields[19]  # since: ticks after the boot
            if state not in "ZX" or int(threads) > 1:
                yield int(folder.name), since, _contents(folder / "cmdline") + "\0" + _contents(folder / "environ")


def _contents(file: Path) -> str:
    with suppress(OSError):
        return file.read_bytes().decode(errors="replace")
    return ""


def _ps(all_with_environment: str) -> Iterator[tuple[int, str, str]]:
    """The same where there is no /proc: macOS."""
    command = ["ps", all_with_environment, "-ww", "-o", "pid=,lstart=,stat=,command="]
    answer = subprocess.run(command, capture_output=True, env={**os.environ, "LC_ALL": "C"}, check=True)
    for line in answer.stdout.decode(errors="replace").splitlines():
        if row := re.match(r"\s*(\d+)\s+(\w+ \w+ +\d+ [\d:]+ \d+)\s+[^Z\s]\S*\s+(.*)", line):
            yield int(row[1]), row[2], row[3]


def running(state: Path) -> set[tuple[str, str]]:
    return {(one.environment, one.role) for one in find(state) if one.direct}


def end(state: Path, chosen: Callable[[Process], bool], say: Say = silent) -> None:
    """Ask them to end, one kind after the other, and kill those that do not."""
    for kind, seconds in ENDING:
        group = [one for one in find(state) if chosen(one) and one.kind == kind]
        left = _send(signal.SIGTERM, group, seconds)
        for one in left:
            say(f"{one.environment}: {one.role} (pid {one.pid}) does not end by itself: killing it")
        if stubborn := _send(signal.SIGKILL, left, seconds):
            raise LocalError(f"These cannot be ended: {', '.join(f'pid {one.pid}' for one in stubborn)}.")


def _send(number: signal.Signals, group: Sequence[Process], seconds: float) -> list[Process]:
    """Signal them and wait for their ends. Who is left?"""
    for one in group:
        try:
            os.kill(one.pid, number)
        except ProcessLookupError:
            pass
        except PermissionError:
            raise LocalError(
                f"pid {one.pid} ({one.environment}, {one.role}) is another user's: they can end it."
            ) from None
    deadline = time.monotonic() + seconds
    left = list(group)
    while left and time.monotonic() < deadline:
        time.sleep(PAUSE / 2)  # most are not our children: there is no event to wait for
        present = {(pid, since) for pid, since, _ in _listing()}
        left = [one for one in left if (one.pid, one.since) in present]
    for one in group:
        has_ended(one.pid)
    return left


def has_ended(pid: int) -> bool:
    """Has this child of ours ended? Taking note of it, so that no zombie stays."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
