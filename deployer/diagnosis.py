"""What was seen of an environment -> findings: a state, the evidence, and the fix by name. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from shlex import quote
from typing import Any
from urllib.parse import urlsplit

from deployer.environment import Source
from deployer.model import Release

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


# -- what is looked at


@dataclass(frozen=True)
class Server:
    """What a self-hosted server says of its own settings."""

    auth: bool
    ui: str | None
    """The API's address as browsers are told it; None where no UI is served."""
    driver: str | None
    leases: str


@dataclass(frozen=True)
class Queue:
    name: str
    paused: bool
    limit: int | None
    active: int
    polled: datetime | None


@dataclass(frozen=True)
class Pool:
    """`heartbeat` is that of the worker heard last, which promised the next one within `interval` seconds."""

    name: str
    type: str
    paused: bool
    ready: bool
    limit: int | None
    active: int
    workers: int
    heartbeat: datetime | None
    interval: float
    queues: tuple[Queue, ...]
    template: Mapping[str, Any]

    @property
    def needs_worker(self) -> bool:
        """Prefect Cloud itself starts the runs of push and managed pools."""
        return not self.type.endswith((":push", ":managed"))

    def hears(self, at: datetime) -> bool:
        """Is a worker there? By the server's own rule: three heartbeats missed, and it is gone."""
        return self.heartbeat is not None and at - self.heartbeat < timedelta(seconds=3 * self.interval)


@dataclass(frozen=True)
class Limit:
    name: str
    limit: int
    active: int
    decay: float
    enabled: bool

    @property
    def full(self) -> bool:
        return self.enabled and 0 < self.limit <= self.active and not self.decay


@dataclass(frozen=True)
class Deployed:
    id: str
    name: str
    version: str | None
    pool: str | None
    queue: str | None
    limit: Limit | None
    scheduled: bool
    """Has it an active schedule, and is not paused?"""
    retired: bool
    updated: datetime


@dataclass(frozen=True)
class Run:
    id: str
    name: str
    deployment: str
    due: datetime
    state: str
    message: str = ""


# -- the server


def versions(theirs: str, ours: str) -> Finding:
    seen = f"server {theirs}, this client {ours}"
    if _minor(theirs) < _minor(ours):
        return problem("versions", f"{seen}: older than its client", "upgrade the server first, then the clients")
    if _minor(theirs) > _minor(ours):
        fix = "bring this checkout's and the workers' Prefect to the server's version"
        return warning("versions", f"{seen}: newer than its client", fix)
    return ok("versions", seen)


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def key(given: bool, server: Server | None, production: bool) -> Finding:
    """The API has answered a request that needs it. `server` is None on Prefect Cloud."""
    if server is None or (server.auth and given):
        return ok("key", "accepted")
    if production and not server.auth:
        fix = "set PREFECT_SERVER_API_AUTH_STRING on the server, PREFECT_API_AUTH_STRING for its clients"
        return warning("key", "the server asks for none: who reaches it may do everything", fix)
    return ok("key", "the server asks for none")


CLOCK = 5.0
"""Seconds that clocks may differ. Workers look ten ahead for runs, and answers tell the time in whole seconds."""


def clock(ahead: float) -> Finding:
    if abs(ahead) <= CLOCK:
        return ok("clock", "the server's and this machine's agree")
    which = "ahead of" if ahead > 0 else "behind"
    seen = f"the server's is {span(abs(ahead))} {which} this machine's: runs start that much too early or too late"
    return warning("clock", seen, "let both machines follow a time server (timedatectl set-ntp true)")


def answers(faults: Mapping[str, int], requests: int, kind: str | None) -> Finding:
    """`faults`: how often a request had to be repeated, by the reason."""
    if not faults:
        return ok("answers", f"{requests} of {requests} requests answered at once")
    told = ", ".join(f"{reason} ({count(number, 'time')})" for reason, number in sorted(faults.items()))
    fix = (
        "SQLite is locked while somebody writes: fewer workers, or PostgreSQL"
        if kind == "SQLite"
        else "look at the server's log and load, and at its database's connections"
    )
    return warning("answers", f"{sum(faults.values())} of {requests} requests had to be repeated: {told}", fix)


def database(kind: str | None, production: bool) -> Finding:
    if kind is None:
        return unchecked("database", "the server does not tell which it uses, and there is nothing to tell it by")
    if kind == "SQLite" and production:
        fix = "give the server PostgreSQL: PREFECT_SERVER_DATABASE_CONNECTION_URL=postgresql+asyncpg://..."
        return problem("database", "SQLite behind a production environment: one writer at a time, then 503", fix)
    return ok("database", "SQLite: one writer at a time, the others wait or get 503" if kind == "SQLite" else kind)


def database_of(driver: str | None, documents: Iterable[Any]) -> str | None:
    """The server hides its connection. But PostgreSQL keeps the keys of a document in an order of its own (JSONB: the
    shorter first, then by their bytes), SQLite as they were written."""
    if driver:
        return "SQLite" if "sqlite" in driver else "PostgreSQL"
    keys = [list(mapping) for document in documents for mapping in _mappings(document) if len(mapping) > 1]
    if not keys:
        return None
    sorted_so = all(found == sorted(found, key=lambda k: (len(k.encode()), k.encode())) for found in keys)
    return "PostgreSQL" if sorted_so else "SQLite"


def _mappings(value: Any) -> Iterable[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for part in inner:
        yield from _mappings(part)


NOWHERE = ("0.0.0.0", "::", "[::]", "")
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def ui(server: Server, api: str) -> Finding:
    """Does the UI send browsers to an address of the API that they can reach?"""
    told = server.ui
    if told is None:
        return ok("ui", "the server serves none")
    if told.startswith("/"):
        return ok("ui", f"browsers ask {told} where they got the UI from")
    there, here = urlsplit(told), urlsplit(api)
    fix = f"PREFECT_SERVER_UI_API_URL={api} for the server, then start it again"
    if (there.hostname or "") in NOWHERE:
        return problem("ui", f"browsers are sent to {told}, which is no address: the UI cannot reach the API", fix)
    if there.hostname in LOOPBACK and here.hostname not in LOOPBACK:
        return problem("ui", f"browsers are sent to {told}, which is their own machine", fix)
    if here.scheme == "https" and there.scheme == "http":
        return problem("ui", f"browsers are sent to {told}; on a page from https they refuse to go there", fix)
    return ok("ui", f"browsers are sent to {told}")


def leases(server: Server, production: bool) -> Finding:
    if "memory" not in server.leases:
        return ok("leases", server.leases)
    seen = "concurrency leases live in the server's memory: after its restart taken slots stay taken"
    fix = "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=prefect_redis.lease_storage for the server"
    return warning("leases", seen, fix) if production else ok("leases", "in the server's memory")


# -- what is released


def release(newest: Release | None, live: Release | None, owned: int, environment: str) -> Finding:
    if newest is None and owned:
        seen = f"{count(owned, 'deployment')} of {environment}, and no release that set them: the ledger is gone"
        return problem("release", seen, f"deploy.py apply --env {environment}")
    if newest is None:
        return unchecked("release", f"nothing has been released to {environment} yet")
    if not newest.succeeded:
        seen = f"release {newest.number} ended as {newest.result}; live before it was {_release(live)}"
        if newest.result == "started":
            seen = f"release {newest.number} has started and not ended; live before it was {_release(live)}"
        return warning("release", seen, f"unless a deploy is at work: {_again(newest, environment)}")
    return ok("release", f"{_release(newest)} is live")


def _again(newest: Release, environment: str) -> str:
    """A plain apply would deploy HEAD: after a rollback that is what was taken back."""
    if newest.restores:
        return f"deploy.py rollback --env {environment} --to {newest.restores} --reason ..."
    return f"deploy.py apply --env {environment} --ref {newest.commit[:12]}, or rollback"


def _release(found: Release | None) -> str:
    if found is None:
        return "none"
    ref = found.ref.removeprefix("refs/tags/").removeprefix("refs/heads/")
    return f"release {found.number} ({found.commit[:12]}{'' if ref in ('', found.commit, 'HEAD') else f', {ref}'})"


def code(live: Release | None, deployed: Sequence[Deployed], source: Source, environment: str) -> Finding:
    """Do runs get the code of the live release?"""
    if live is None:
        return unchecked("code", f"nothing has been released to {environment} yet")
    active = [d for d in deployed if not d.retired]
    other = [d for d in active if d.version != live.commit]
    if other:
        seen = f"{count(len(other), 'deployment')} of {len(active)} name another commit than {_release(live)}: {names(other)}"
        return problem(
            "code",
            seen,
            f"deploy.py drift --env {environment}, then apply --env {environment} --ref {live.commit[:12]}",
        )
    if source.strategy == "local":
        seen = f"runs import whatever lies in {source.directory} when they start: it is pinned to no commit"
        return warning("code", seen, "source.strategy git, cached or image pins it")
    return ok("code", f"{count(len(active), 'deployment')} at {live.commit[:12]}")


def clone(url: str, commit: str, fault: str | None, only_here: bool = False, login: str = "") -> Finding:
    """`only_here`: it works with this machine's own Git credentials alone. `login`: what a worker has."""
    short = commit[:12]
    if only_here:
        seen = f"{short} can be fetched from {url} with this machine's own Git credentials only; workers may have none"
        return warning("clone", seen, "source.credentials: the name of a Secret block with a token")
    if fault:
        seen = f"{short} cannot be fetched from {url}{login}: {fault}"
        return problem("clone", seen, "push the commit; is the address right, and the token still valid?")
    return ok("clone", f"{short} can be fetched from {url}{login}")


def entrypoints(faults: Sequence[str], number: int, where: str) -> Finding:
    if not faults:
        return ok("entrypoints", f"{count(number, 'deployment')} of {where} can be imported here")
    more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
    seen = f"{count(len(faults), 'fault')} in {where}: {'; '.join(faults[:3])}{more}"
    fix = "install what is missing where flows run and deploys are made; deploy.py validate lists every fault"
    return problem("entrypoints", seen, fix)


# -- where it runs


FOREMAN = timedelta(minutes=1)
"""The server's service that calls pools NOT READY comes by every 15 seconds."""


def pool(name: str, kind: str, found: Pool | None, at: datetime, environment: str) -> Finding:
    check, start = f"pool {name}", _worker(name, kind)
    if found is None:
        return problem(check, "there is no such pool", f"deploy.py apply --env {environment}")
    if found.type != kind:
        seen = f"its type is {found.type}, the environment file says {kind}"
        return problem(check, seen, "Prefect cannot change a pool's type: delete the pool, then apply")
    heard = f"heard {_ago(at, found.heartbeat)}" if found.heartbeat else "no worker has ever called"
    if found.paused:
        return warning(check, f"paused: nothing of it starts ({heard})", _resume_pool(name))
    if not found.needs_worker:
        return ok(check, "needs no worker")
    if not found.hears(at):
        seen = f"NOT READY: {heard if found.heartbeat is None else f'its last worker was {heard}'}"
        if found.ready and found.heartbeat and at - found.heartbeat > timedelta(seconds=3 * found.interval) + FOREMAN:
            seen = f"called READY, but its last worker was {heard}: the server's background services do not run"
            return problem(check, seen, f"prefect server services start; {start}")
        return problem(check, seen, start)
    seen = f"READY, {count(found.workers, 'worker')}, {heard}"
    return ok(check, seen + (f", {found.active} of {found.limit} slots taken" if found.limit is not None else ""))


def queues(pools: Iterable[Pool]) -> list[Finding]:
    return [
        warning(
            f"queue {pool.name}/{queue.name}",
            "paused: nothing of it starts",
            _resume_queue(pool, queue),
        )
        for pool in pools
        for queue in pool.queues
        if queue.paused
    ]


# What people paste into a shell: names come from the server, where others choose them.


def _worker(pool: str, kind: str) -> str:
    return f"prefect worker start --pool {quote(pool)} --type {quote(kind)}"


def _resume_pool(name: str) -> str:
    return f"prefect work-pool resume {quote(name)}"


def _resume_queue(pool: Pool, queue: Queue) -> str:
    return f"prefect work-queue resume {quote(queue.name)} --pool {quote(pool.name)}"


# -- what runs


SCHEDULER = timedelta(minutes=2)
"""What was written later may have no runs yet: the scheduler comes by every minute."""


def schedules(deployed: Sequence[Deployed], provided: Collection[str], at: datetime) -> Finding:
    """`provided`: the deployments that have runs ahead."""
    due = [d for d in deployed if d.scheduled]
    bare = [d for d in due if d.id not in provided and at - d.updated > SCHEDULER]
    if not due:
        return ok("schedules", "no schedule is active")
    if bare and len(bare) == len(due):
        seen = f"none of {count(len(due), 'deployment')} with active schedules has a run ahead: the server's scheduler does not work"
        fix = "is `prefect server services start` up? SQLAlchemy 2.1 stops Prefect 3.8's scheduler: install sqlalchemy<2.1"
        return problem("schedules", seen, fix)
    if bare:
        seen = f"{len(bare)} of {count(len(due), 'deployment')} with active schedules have no run ahead: {names(bare)}"
        fix = "has the rule ended, is its next time over 100 days off, or does the server's scheduler lag (its log)?"
        return warning("schedules", seen, fix)
    return ok("schedules", f"{count(len(due), 'deployment')} with active schedules, all with runs ahead")


@dataclass(frozen=True)
class Reason:
    """Why runs wait. Waiting for a free slot is what a limit is for: no more than a warning."""

    state: str
    why: str
    fix: str


def late(
    runs: Sequence[Run], whole: bool, deployed: Mapping[str, Deployed], pools: Mapping[str, Pool], at: datetime
) -> list[Finding]:
    """A line for each reason. `whole`: are these all, or the oldest only?"""
    groups: dict[Reason, list[Run]] = {}
    for run in runs:
        groups.setdefault(_reason(run, deployed[run.deployment], pools, at), []).append(run)
    if not groups:
        return [ok("late runs", "none")]
    return [
        Finding(
            "late runs",
            reason.state,
            f"{count(len(found), 'run', whole)} of {_of(found, deployed)}, "
            f"the oldest due {_ago(at, min(r.due for r in found))}: {reason.why}",
            reason.fix,
        )
        for reason, found in groups.items()
    ]


def _reason(run: Run, deployment: Deployed, pools: Mapping[str, Pool], at: datetime) -> Reason:
    found = pools.get(deployment.pool or "")
    if found is None:
        why = f"there is no work pool {deployment.pool}" if deployment.pool else "the deployment names no work pool"
        return Reason("problem", why, "deploy.py apply makes the declared pools")
    queue = next((q for q in found.queues if q.name == (deployment.queue or "default")), None)
    for reason in (_paused(found, queue), _alone(found, queue, at), _slots(run, deployment, found, queue)):
        if reason:
            return reason
    why = f"a worker of {found.name} is there, and nothing that the API shows holds them"
    return Reason("problem", why, "see the worker's log; a worker's own --limit holds runs back too")


def _paused(pool: Pool, queue: Queue | None) -> Reason | None:
    if pool.paused:
        return Reason("problem", f"the pool {pool.name} is paused", _resume_pool(pool.name))
    if queue and queue.paused:
        why = f"the queue {pool.name}/{queue.name} is paused"
        return Reason("problem", why, _resume_queue(pool, queue))
    return None


POLLED = timedelta(minutes=1)
"""Workers ask for runs every 15 seconds; the server itself calls a queue NOT_READY after a minute."""


def _alone(pool: Pool, queue: Queue | None, at: datetime) -> Reason | None:
    start = _worker(pool.name, pool.type)
    if not pool.needs_worker:
        return None
    if not pool.hears(at):
        return Reason("problem", f"the pool {pool.name} has no worker", start)
    if queue and (queue.polled is None or at - queue.polled > POLLED):
        why = f"no worker asks the queue {pool.name}/{queue.name} for runs"
        return Reason("problem", why, f"{start} --work-queue {quote(queue.name)}")
    return None


def _slots(run: Run, deployment: Deployed, pool: Pool, queue: Queue | None) -> Reason | None:
    own = deployment.limit
    if own and (run.state == "AwaitingConcurrencySlot" or own.active >= own.limit):
        why = f"the deployment's own concurrency limit is full ({own.active} of {own.limit})"
        return Reason("warning", why, "wait, or raise concurrency_limit; if nothing of it runs, see limits")
    if queue and queue.limit is not None and queue.active >= queue.limit:
        why = f"the queue {pool.name}/{queue.name} is full ({queue.active} of {queue.limit})"
        return Reason(
            "warning",
            why,
            "wait, or raise the queue's concurrency_limit; a run that died with its worker may still count: set it to Crashed",
        )
    if pool.limit is not None and pool.active >= pool.limit:
        why = f"the pool {pool.name} is full ({pool.active} of {pool.limit})"
        return Reason(
            "warning",
            why,
            "wait, or raise the pool's concurrency_limit; a run that died with its worker may still count: set it to Crashed",
        )
    return None


RAISE = "raise it in the repository and deploy; if it is higher there, it was changed by hand: deploy.py drift"
"""Every limit that is looked at is one that the repository declares."""


def limits(found: Sequence[Limit], idle: Collection[str], shown: Mapping[str, str]) -> list[Finding]:
    """`idle`: the names of full limits that no running run can hold. `shown`: name -> whose it is."""
    stuck = [x for x in found if x.full and x.name in idle]
    closed = [x for x in found if x.enabled and not x.limit]
    lines = [
        problem(
            "limits",
            f"{shown.get(x.name, x.name)}: {x.active} of {x.limit} taken, and nothing runs that could hold it: a dead run's lock",
            f"its lease ends within five minutes; if it does not: prefect gcl update {quote(x.name)} --active-slots 0",
        )
        for x in stuck
    ]
    lines += [warning("limits", f"{shown.get(x.name, x.name)}: 0 lets nothing through", RAISE) for x in closed]
    full = [x for x in found if x.full and x not in stuck]
    seen = f"{count(len(found), 'limit')}, none held by a dead run" if found else "none declared"
    return lines or [
        ok("limits", seen + (f"; full: {', '.join(shown.get(x.name, x.name) for x in full)}" * bool(full)))
    ]


IMPORT = re.compile(
    r"^(?:[\w.]+\.)?((?:ImportError|ModuleNotFoundError|SyntaxError|FileNotFoundError|MissingFlowError|ScriptError)\b.*)$",
    re.M,
)


def failures(runs: Sequence[Run], whole: bool, said: str, deployed: Mapping[str, Deployed]) -> Finding:
    """Of the last day, newest first. `said`: the errors in the newest one's log."""
    if not runs:
        return ok("failed runs", "none in the last 24 hours")
    newest, fault = runs[0], IMPORT.search(said)
    seen = (
        f"{count(len(runs), 'run', whole)} of {_of(runs, deployed)} in the last 24 hours; the newest, '{newest.name}'"
    )
    if fault and newest.state == "Crashed":
        fix = "install it where the worker runs; `entrypoints` and `clone` tell whether the code itself is whole"
        return problem("failed runs", f"{seen}, could not import its flow: {fault[1][:200]}", fix)
    return warning("failed runs", f"{seen}: {(newest.message or newest.state)[:200]}", "look at its log in the UI")


def _of(runs: Iterable[Run], deployed: Mapping[str, Deployed]) -> str:
    return names([deployed[i] for i in dict.fromkeys(run.deployment for run in runs)])


# -- words


def names(deployed: Sequence[Deployed], most: int = 3) -> str:
    more = f" and {len(deployed) - most} more" if len(deployed) > most else ""
    return ", ".join(d.name for d in deployed[:most]) + more


def count(number: int, word: str, whole: bool = True) -> str:
    return f"{number}{'' if whole else ' or more'} {word}{'' if number == 1 and whole else 's'}"


def _ago(at: datetime, then: datetime) -> str:
    return f"{span(max((at - then).total_seconds(), 0))} ago"


def span(seconds: float) -> str:
    for size, word in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {word}"
    return f"{seconds:.0f} s"
