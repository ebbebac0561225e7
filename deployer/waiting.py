"""What was seen of runs -> findings: are there any ahead, what are the late ones waiting for, why did others fail? Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from shlex import quote

from deployer.errors import count
from deployer.finding import Finding, ago, ok, problem, resume_pool, resume_queue, warning, worker
from deployer.seen import Deployed, Limit, Pool, Queue, Run, names

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
            f"the oldest due {ago(at, min(r.due for r in found))}: {reason.why}",
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
        return Reason("problem", f"the pool {pool.name} is paused", resume_pool(pool.name))
    if queue and queue.paused:
        why = f"the queue {pool.name}/{queue.name} is paused"
        return Reason("problem", why, resume_queue(pool.name, queue.name))
    return None


POLLED = timedelta(minutes=1)
"""Workers ask for runs every 15 seconds; the server itself calls a queue NOT_READY after a minute."""


def _alone(pool: Pool, queue: Queue | None, at: datetime) -> Reason | None:
    start = worker(pool.name, pool.type)
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
