"""One line of the doctor's, and the words for it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from shlex import quote

STATES = ("ok", "warning", "problem", "not checked")


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's. `fix` says what to do, where there is something to do."""

    check: str
    state: str
    seen: str
    fix: str = ""


def ok(check: str, seen: str) -> Finding:
    return Finding(check, "ok", seen)


def warning(check: str, seen: str, fix: str) -> Finding:
    return Finding(check, "warning", seen, fix)


def problem(check: str, seen: str, fix: str) -> Finding:
    return Finding(check, "problem", seen, fix)


def unchecked(check: str, why: str) -> Finding:
    return Finding(check, "not checked", why)


def ago(at: datetime, then: datetime) -> str:
    return f"{span(max((at - then).total_seconds(), 0))} ago"


def span(seconds: float) -> str:
    for size, word in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {word}"
    return f"{seconds:.0f} s"


# What people paste into a shell: names come from the server, where others choose them.


def worker(pool: str, kind: str) -> str:
    return f"prefect worker start --pool {quote(pool)} --type {quote(kind)}"


def resume_pool(name: str) -> str:
    return f"prefect work-pool resume {quote(name)}"


def resume_queue(pool: str, queue: str) -> str:
    return f"prefect work-queue resume {quote(queue)} --pool {quote(pool)}"
