"""A deployment's schedules, each changed by its own id, so that ids and runs stay."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from deployer import comparable
from deployer.merge import pair_schedules
from deployer.model import Change, Fields, same
from deployer.prefect_api import runs
from deployer.prefect_api.client import Client


def body(fields: Fields) -> dict[str, Any]:
    """The comparable form -> what Prefect takes."""
    rule = {key: fields[key] for key in ("cron", "day_or", "interval", "timezone") if key in fields}
    if fields.get("anchor_date"):
        rule["anchor_date"] = fields["anchor_date"]
    if "rrule" in fields:
        rule["rrule"] = "\n".join(part for part in (fields.get("dtstart"), fields["rrule"]) if part)
    return {"schedule": rule, "active": fields["active"], "slug": fields["slug"], "parameters": fields["parameters"]}


def converge(client: Client, change: Change) -> None:
    """Delete, change, create; and no run is lost or doubled by it.

    The server drops all future runs of the deployment when one of its schedules is changed, and late ones too when one is
    deleted. Each such write is followed by making them again at once, while the other schedules still have their rules.
    """
    assert change.live
    deployment, running = change.live.id, not change.target["paused"]
    base = f"/deployments/{deployment}/schedules"
    since = client.now()
    wanted = [_anchored(want, since) for want in change.target["schedules"]]
    changed, new, gone = _sorted(wanted, change.live.extra["schedules"])
    ended = {have["id"] for have in gone} | _moved(changed, new)
    waiting = runs.due(client, [deployment], None, since + AHEAD) if ended else []
    if gone:
        _delete(client, deployment, gone, waiting, running)
    for want, have in changed:
        with runs.kept(client, deployment, running):
            client.patch(f"{base}/{have['id']}", body(want))
    if new:
        lost = [run for run in waiting if runs.maker(run) in ended]
        start, left_out = _after(client, deployment, ended, lost, since) if ended and running else (client.now(), [])
        bodies = [body(want) for want in new]
        client.create(base, bodies, lambda: _found(client, base, bodies))
        for due in left_out:
            runs.schedule(client, deployment, due, due)
        if running:
            runs.schedule(client, deployment, start)


def replaced(change: Change) -> tuple[list[str], list[str]]:
    """The ids of the schedules that a change changes, and of those that it deletes."""
    if not (change.live and change.touches("schedules")):
        return [], []
    changed, _, gone = _sorted(change.target["schedules"], change.live.extra["schedules"])
    return [have["id"] for _, have in changed], [have["id"] for have in gone]


AHEAD = timedelta(hours=1)
"""As far as the server makes runs at least."""


def _anchored(want: Fields, since: datetime) -> Fields:
    """An interval that nobody gave an anchor counts from just before `since`: it does not fire at once."""
    if "interval" not in want or want.get("anchor_date"):
        return want
    return {**want, "anchor_date": (since - timedelta(milliseconds=1)).isoformat()}


def _sorted(wanted: list[Any], live: list[Any]) -> tuple[list[tuple[Any, Any]], list[Any], list[Any]]:
    """Those to change, each with its live one; those to create; those to delete."""
    pairs, gone = _in_place(*pair_schedules(wanted, live))
    changed = [(want, have) for want, have in pairs if have and _differ(want, have)]
    return changed, [want for want, have in pairs if have is None], gone


def _differ(want: Fields, have: Fields) -> bool:
    return any(not same(want.get(key), have.get(key)) for key in {*want, *have} - {"id"})


def _in_place(pairs: list[tuple[Any, Any]], gone: list[Any]) -> tuple[list[tuple[Any, Any]], list[Any]]:
    """A new schedule takes the place of one that goes, with its id: fewer writes, and none that drops late runs. But for a
    new one without a slug: a slug cannot be taken off."""
    left = list(gone)
    placed = []
    for want, have in pairs:
        old = have or next((h for h in left if want["slug"] or not h["slug"]), None)
        left = [h for h in left if h is not old]
        placed.append((want, old))
    return placed, left


def _moved(changed: list[tuple[Any, Any]], new: list[Any]) -> set[str]:
    """Schedules that get another rule, while a new one gets theirs: for its runs they are as good as deleted."""
    rules = {comparable.content(want) for want in new}
    return {have["id"] for want, have in changed if comparable.content(have) in rules}


def _delete(client: Client, deployment: str, gone: list[Any], waiting: list[dict[str, Any]], running: bool) -> None:
    """Delete, and put back what other schedules lose by it."""
    with runs.kept(client, deployment, running):
        for have in gone:
            client.delete(f"/deployments/{deployment}/schedules/{have['id']}")
    others = [run for run in waiting if runs.maker(run) not in {have["id"] for have in gone}]
    there = runs.left(client, [run["id"] for run in others])
    for due in sorted({runs.moment(run) for run in others if run["id"] not in there}):
        if due <= client.now():
            runs.schedule(client, deployment, due, due)


def _after(
    client: Client, deployment: str, ended: set[str], lost: list[dict[str, Any]], since: datetime
) -> tuple[datetime, list[datetime]]:
    """From when new schedules may make runs in place of `ended` ones, and for which moments before.

    A worker takes runs up to its prefetch time (10 s) ahead, and under a new schedule's id the server cannot know that a run of
    that moment has been taken: so wait until it is past. What was `lost` without anybody having taken it is made again.
    """
    there = runs.left(client, [run["id"] for run in lost])
    begun = [run for run in runs.made(client, deployment, since) if runs.maker(run) in ended and not runs.waits(run)]
    taken = [runs.moment(run) for run in [*begun, *(run for run in lost if run["id"] in there)]]
    start = max([since, *(due + timedelta(milliseconds=1) for due in taken)])
    client.sleep(max(0.0, (start - client.now()).total_seconds()))
    return start, sorted({due for run in lost if run["id"] not in there and (due := runs.moment(run)) < start})


def _found(client: Client, base: str, new: list[dict[str, Any]]) -> Any | None:
    """Were these schedules made, though the answer was lost? Slug-less ones would otherwise be doubled."""
    there = [comparable.schedule(s) for s in client.get(base)]
    wanted = [comparable.schedule(s) for s in new]
    made = all(
        any(w["slug"] == h["slug"] and comparable.content(w) == comparable.content(h) for h in there) for w in wanted
    )
    return there if made else None
