"""A deployment's schedules, each changed by its own id, so that ids and runs stay."""

from __future__ import annotations

from typing import Any

from deployer import comparable
from deployer.model import Change, Fields
from deployer.plan import pair_schedules
from deployer.prefect_api.client import Client


def body(fields: Fields) -> dict[str, Any]:
    """The comparable form -> what Prefect takes."""
    rule = {key: fields[key] for key in ("cron", "day_or", "interval", "timezone") if key in fields}
    if fields.get("anchor_date"):
        rule["anchor_date"] = fields["anchor_date"]
    if "rrule" in fields:
        rule["rrule"] = "\n".join(part for part in (fields.get("dtstart"), fields["rrule"]) if part)
    return {"schedule": rule, "active": fields["active"], "slug": fields["slug"], "parameters": fields["parameters"]}


def converge(client: Client, change: Change) -> bool:
    """Delete, change, create. Answers whether anything was written."""
    assert change.live
    base = f"/deployments/{change.live.id}/schedules"
    pairs, gone = pair_schedules(change.target["schedules"], change.live.extra["schedules"])
    for have in gone:
        client.delete(f"{base}/{have['id']}")
    new = []
    for want, have in pairs:
        if have is None:
            new.append(body(want))
        elif any(want.get(key) != have.get(key) for key in {*want, *have} - {"id"}):
            client.patch(f"{base}/{have['id']}", body(want))
    if new:
        client.create(base, new, lambda: _found(client, base, new))
    return bool(gone or new) or any(have is not None for _, have in pairs)


def _found(client: Client, base: str, new: list[dict[str, Any]]) -> Any | None:
    """Were these schedules made, though the answer was lost? Slug-less ones would otherwise be doubled."""
    there = [comparable.schedule(s) for s in client.get(base)]
    wanted = [comparable.schedule(s) for s in new]
    made = all(
        any(w["slug"] == h["slug"] and comparable.content(w) == comparable.content(h) for h in there) for w in wanted
    )
    return there if made else None
