"""Running a command and noting what it cost, and what else the machine was doing meanwhile."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
MB = 1 << 20


@dataclass(frozen=True)
class Cost:
    """Of one process and its children. What only Linux tells is None elsewhere: the processor seconds of the servers, and
    how many cores others kept busy meanwhile."""

    seconds: float
    cpu: float
    peak_mb: float
    server_cpu: float | None = None
    foreign: float | None = None


def run(words: list[str], folder: Path, environment: Mapping[str, str], servers: Iterable[int]) -> Cost:
    """A whole process, from start to end. Its failure is the benchmark's."""
    log = folder.parent / "command.log"
    load = Load(servers)
    began = time.monotonic()
    with open(log, "wb") as out:
        process = subprocess.Popen(
            words, cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = log.read_text(errors="replace")[-3000:]
        raise RuntimeError(f"{' '.join(words[:6])} ended with {process.returncode}:\n{said}")
    cpu = usage.ru_utime + usage.ru_stime
    return load.cost(seconds, cpu, _megabytes(usage.ru_maxrss))


def _megabytes(maxrss: int) -> float:
    """Linux counts in kB, macOS in bytes."""
    return maxrss / 1024 if os.uname().sysname == "Linux" else maxrss / MB


class Load:
    """What the machine did from now on: all that was busy, without the servers and what is measured."""

    def __init__(self, servers: Iterable[int]) -> None:
        self.servers = tuple(servers)
        self.start = _busy(), _family(self.servers)

    def cost(self, seconds: float, cpu: float, peak_mb: float) -> Cost:
        """Of what was measured since."""
        (busy_before, servers_before), busy, servers = self.start, _busy(), _family(self.servers)
        if busy is None or busy_before is None or servers is None or servers_before is None:
            return Cost(seconds, cpu, peak_mb)
        served = servers - servers_before
        return Cost(seconds, cpu, peak_mb, served, max(0.0, busy - busy_before - served - cpu) / seconds)


def _busy() -> float | None:
    """Processor seconds since the machine started, of all processes; Linux only."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _idle, _wait, irq, soft, steal = (int(f) for f in fields[:8])
    return (user + nice + system + irq + soft + steal) / TICKS


def _family(roots: Iterable[int]) -> float | None:
    """Processor seconds of these processes and all their descendants, ended ones included."""
    parents: dict[int, int] = {}
    spent: dict[int, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(folder.name)
        parents[pid], spent[pid] = int(fields[1]), sum(int(f) for f in fields[11:15]) / TICKS
    if not spent:
        return None
    family = set(roots)
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(spent.get(pid, 0.0) for pid in family)


def wait_until_quiet(limit: float, busy: float = 0.3, window: float = 3.0) -> None:
    """Until others leave all but `busy` of a core alone for a moment, `limit` seconds at most."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        before = _busy()
        time.sleep(window)
        after = _busy()
        if before is None or after is None or (after - before) / window < busy:
            return
