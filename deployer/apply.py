"""Plan -> calls, an Outcome each; then the live state is read again, and must leave nothing to do. Every release is recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import groupby
from typing import Any

from deployer import comparable, ledger, plan, writers
from deployer.errors import DeployError, Interrupted, InvalidInput, Unreachable, VerificationFailed, WriteFailed
from deployer.loading import Loader
from deployer.model import Change, Fields, Outcome, Plan, Release
from deployer.prefect_api import PLAIN, Client, automations, deployments, relay, runs
from deployer.prepare import Prepared

Progress = Callable[[Outcome], None]

SOON = timedelta(seconds=75)
"""Runs due later than this come back by the server's own scheduler, whose full pass takes a minute."""

LOOK = timedelta(seconds=10)
"""How long a look at what is due soon holds: less than SOON by that minute, and by what one deployment takes."""

A_PASS = timedelta(seconds=1)
"""The server's scheduler is through with what it has read of a few deployments, ..."""

A_PASS_MORE = timedelta(seconds=0.05)
"""... and for each more, up to the hundred that it reads at a time."""


@dataclass(frozen=True)
class Author:
    """Who releases, from where, with what."""

    actor: str
    run_url: str
    tool_version: str
    reason: str = ""


@dataclass(frozen=True)
class Result:
    outcomes: tuple[Outcome, ...]
    release: Release | None
    seconds: float
    error: DeployError | None = None


def apply(
    prepared: Prepared, author: Author, progress: Progress = lambda outcome: None, at_a_time: int = writers.MOST
) -> Result:
    """Carry the plan out. Refused plans must not come here; an empty one writes nothing, unless there is a release to settle."""
    began = time.monotonic()
    if not prepared.plan.writes and not unsettled(prepared):
        return Result((), None, time.monotonic() - began)
    release, artifact = _open_release(prepared, author)
    outcomes: list[Outcome] = []
    error: DeployError | None = None
    try:
        for outcome in _write(prepared, at_a_time):
            outcomes.append(outcome)
            progress(outcome)
        error = _judge(prepared, outcomes)
    except DeployError as failure:  # not of one change, but of a look between two
        error = WriteFailed(
            f"Stopped after {len(outcomes)} of {len(prepared.plan.writes)} changes: {failure} What was written stays; mend the cause and apply again."
        )
    except KeyboardInterrupt:
        prepared.site.client.hurry()
        error = Interrupted(
            f"Interrupted after {len(outcomes)} of {len(prepared.plan.writes)} changes; what was written stays. Run the same apply again to finish."
        )
    seconds = time.monotonic() - began
    results = {Interrupted: "interrupted", VerificationFailed: "unverified"}
    word = "succeeded" if error is None else results.get(type(error), "failed")
    release = replace(release, result=word, seconds=round(seconds, 3), error=str(error or ""))
    try:
        prepared.site.ledger.finish(artifact, release)
    except DeployError as failure:
        error = error or WriteFailed(
            f"Everything was written and proven, but the release could not be recorded as finished: {failure}"
        )
    return Result(tuple(outcomes), release, seconds, error)


def unsettled(prepared: Prepared) -> Release | None:
    """The newest release, if it did not succeed. What it left undone may have been done since, by hand or by its own last
    write: then there is nothing to write, but still to record what is live."""
    newest = None if prepared.overtaken else prepared.site.ledger.newest()
    return newest if newest and not newest.succeeded else None


def _open_release(prepared: Prepared, author: Author) -> tuple[Release, str]:
    """Written as started before the first change: a deploy that dies leaves a trace, and what it may have set is known."""
    book, planned = prepared.site.ledger, prepared.plan
    spec = replace(
        prepared.specification,
        retired=plan.retired_after(prepared.history, planned, prepared.wanted),
        created=plan.created_after(prepared.history, planned),
    )
    release = Release(
        number=book.next_number(),
        project=prepared.site.scope.project,
        environment=planned.environment,
        commit=planned.commit,
        ref=planned.ref,
        actor=author.actor,
        run_url=author.run_url,
        tool_version=author.tool_version,
        digest=planned.digest,
        specification=book.write_specification(spec),
        summary=planned.summary,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=None,
        result="started",
        rollback_of=prepared.rollback_of,
        restores=prepared.restores,
        reason=author.reason,
        declares={} if prepared.site.scope.preview else ledger.declares(spec),
    )
    return release, book.start(release)


def _write(prepared: Prepared, at_a_time: int) -> Iterable[Outcome]:
    """Kind by kind in the plan's order. A kind that failed ends it: what follows may need what is missing."""
    failed = False
    for _, group in groupby(prepared.plan.writes, key=lambda c: (c.kind, c.action in ("pause", "delete"))):
        changes = list(group)
        if failed:
            yield from (
                Outcome(c.kind, c.name, c.action, "skipped", "not tried: an earlier change failed") for c in changes
            )
            continue
        for outcome in _stage(prepared, changes, at_a_time):
            failed = failed or outcome.result == "failed"
            yield outcome


def _stage(prepared: Prepared, changes: list[Change], at_a_time: int) -> Iterable[Outcome]:
    kind, client = changes[0].kind, prepared.site.client
    if kind == "deployment":
        yield from _deployments(prepared, changes, at_a_time)
    elif kind == "automation":
        ids = _ids(prepared)
        for change in changes:
            yield _try(change, _automation, client, change, ids)
    else:
        module = PLAIN[kind]
        calls = {"create": module.create, "update": module.update, "delete": module.delete}
        for change in changes:
            yield _try(change, calls[change.action], client, change)


def _try(change: Change, call: Callable[..., Any], *arguments: Any) -> Outcome:
    """A change that fails is told, and the others of its kind go on; an API that is gone ends it."""
    try:
        call(*arguments)
    except Unreachable:
        raise
    except DeployError as error:
        return Outcome(change.kind, change.name, change.action, "failed", str(error))
    return Outcome(change.kind, change.name, change.action, "done")


def _ids(prepared: Prepared) -> dict[str, str]:
    """Placeholders -> ids, of all deployments as they are after their stage."""
    wanted = {r.name for r in prepared.wanted if r.kind == "deployment"}
    found = deployments.answers(prepared.site.client, prepared.site.scope.tags, ())
    meant = [answer for answer in found if f"{answer['flow_name']}/{answer['name']}" in wanted]
    return {comparable.placeholder(answer["name"]): answer["id"] for answer in meant}


def _automation(client: Client, change: Change, ids: dict[str, str]) -> None:
    if change.action == "create":
        automations.create(client, change, ids)
    elif change.action == "delete":
        automations.delete(client, change)
    else:
        automations.update(client, change, ids)


def _deployments(prepared: Prepared, changes: list[Change], at_a_time: int) -> Iterable[Outcome]:
    client = prepared.site.client
    new = [c for c in changes if c.action == "create"]
    if prepared.loader:
        yield from _create_loaded(prepared, new)
    else:
        yield from (_try(c, deployments.create, client, c) for c in new)
    yield from (_try(c, deployments.delete, client, c) for c in changes if c.action == "delete")
    updates = {c.name: c for c in changes if c.action in ("update", "pause")}
    done = []
    for outcome in writers.several(client, _updates(client, list(updates.values())), at_a_time):
        done += [updates[outcome.name]] if outcome.result == "done" else []
        yield outcome
    _drop_strays(client, [c for c in done if deployments.may_leave_strays(c)], at_a_time)


def _drop_strays(client: Client, changes: list[Change], at_a_time: int) -> None:
    """Once the server's scheduler is through with whatever it read before these were written."""
    if changes:
        client.sleep((A_PASS + A_PASS_MORE * min(len(changes), 100)).total_seconds())
        for _ in writers.several(client, [partial(deployments.remake_runs, client, c) for c in changes], at_a_time):
            pass


def _create_loaded(prepared: Prepared, new: list[Change]) -> Iterable[Outcome]:
    """By Prefect's own deploy(), in the loader, through the relay."""
    if not new or not prepared.loader:
        return
    by_name = {prepared.names[c.name]: c for c in new}
    with relay.open_relay(prepared.site.client, frozenset(c.name for c in new)) as through:
        faults = _faults(prepared.loader, list(by_name), through)
    for name, change in by_name.items():
        deployed = change.name.split("/", 1)[1]
        error = through.failed.get(deployed) or faults.get(name)
        if error is None and deployed not in through.created:
            error = str(through.fatal or "Prefect's deploy() did not create it, and did not say why")
        yield Outcome(change.kind, change.name, change.action, "failed" if error else "done", error)


def _faults(loader: Loader, names: list[str], through: relay.Relay) -> dict[str, str]:
    """What Prefect says of each. A loader that dies here has touched something already: a failed write, no invalid input."""
    try:
        return dict(loader.create(names, through)["faults"])
    except InvalidInput as error:
        return dict.fromkeys(names, str(error))


# -- a deploy loses and doubles no scheduled run: see docs/concepts.md


def _updates(client: Client, changed: list[Change]) -> Iterable[Callable[[], Outcome]]:
    """A job for each, that knows whether runs of its deployment are due soon: looked up when it can begin."""
    looked, due = datetime.min.replace(tzinfo=UTC), frozenset[str]()
    for index, change in enumerate(changed):
        if client.now() - looked > LOOK:
            looked, due = client.now(), _due_soon(client, changed[index:])
        yield partial(_try, change, deployments.update, client, change, bool(change.live and change.live.id in due))


def _due_soon(client: Client, changes: list[Change]) -> frozenset[str]:
    """Deployments that have runs due soon: every PATCH drops the future ones. And those that have none at all, because they
    were written a moment ago: that dropped theirs, and the server's scheduler has not come by yet."""
    now = client.now()
    active = {c.live.id: c.live.extra["updated"] for c in changes if c.live and _scheduled(c.live.fields)}
    due = {run["deployment_id"] for run in runs.due(client, active, now - LOOK, now + SOON)} if active else set()
    fresh = [id for id, updated in active.items() if id not in due and updated > now - 2 * SOON]
    return frozenset(due | (set(fresh) - runs.provided(client, fresh, now)))


def _scheduled(fields: Fields) -> bool:
    return not fields["paused"] and any(s["active"] for s in fields["schedules"])


# -- proof


def _judge(prepared: Prepared, outcomes: list[Outcome]) -> DeployError | None:
    failed = [o for o in outcomes if o.result != "done"]
    if failed:
        names = "; ".join(f"{o.kind} {o.name}: {str(o.error).rstrip('.')}" for o in failed if o.result == "failed")
        skipped = sum(o.result == "skipped" for o in failed)
        more = f" {skipped} more were not tried." if skipped else ""
        return WriteFailed(
            f"{len(failed) - skipped} of {len(prepared.plan.writes)} changes failed: {names}.{more} What was written stays; mend the cause and apply again."
        )
    try:
        return prove(prepared.again())
    except DeployError as failure:
        return VerificationFailed(
            f"All changes were written, but not proven: {failure} Plan again to see what is left."
        )


def prove(left: Plan) -> DeployError | None:
    """The plan against what is live now must be empty."""
    if not left.writes:
        return None
    rest = "; ".join(
        f"{c.kind} {c.name}: {', '.join(f.path for f in c.fields if not f.held) or c.action}" for c in left.writes[:10]
    )
    more = f" and {len(left.writes) - 10} more" if len(left.writes) > 10 else ""
    return VerificationFailed(
        f"All changes were written, and the live state still differs: {rest}{more}. Somebody may be changing it at the same time; plan again."
    )
