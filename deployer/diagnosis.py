"""What was seen of a server, a release and its pools -> findings: a state, the evidence, and the fix by name. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from deployer.environment import Source
from deployer.errors import count
from deployer.finding import (
    Finding,
    ago,
    ok,
    problem,
    resume_pool,
    resume_queue,
    span,
    unchecked,
    warning,
    worker,
)
from deployer.model import Release
from deployer.seen import Deployed, Pool, Server, names

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
    check, start = f"pool {name}", worker(name, kind)
    if found is None:
        return problem(check, "there is no such pool", f"deploy.py apply --env {environment}")
    if found.type != kind:
        seen = f"its type is {found.type}, the environment file says {kind}"
        return problem(check, seen, "Prefect cannot change a pool's type: delete the pool, then apply")
    heard = f"heard {ago(at, found.heartbeat)}" if found.heartbeat else "no worker has ever called"
    if found.paused:
        return warning(check, f"paused: nothing of it starts ({heard})", resume_pool(name))
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
            resume_queue(pool.name, queue.name),
        )
        for pool in pools
        for queue in pool.queues
        if queue.paused
    ]
