"""Wanted and live, brought to one form: the only place that knows how Prefect's answers differ from what was sent. Pure.

What Prefect adds by itself (ids, times, an interval's anchor, a rule's DTSTART, `day_or`, nulls) is gone afterwards.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

NAMESPACE = uuid.UUID("6f1d3c1e-52a5-4b0e-9a55-5b0b7c0f9a11")


def placeholder(deployment: str) -> str:
    """Stands for a deployment's id in automations: the same on every server, and before the deployment exists."""
    return str(uuid.uuid5(NAMESPACE, deployment))


def with_ids(value: Any, ids: Mapping[str, str]) -> Any:
    """`value` with each key of `ids` replaced by its value, wherever it stands in a string."""
    text = json.dumps(value)
    if not any(old in text for old in ids):
        return value
    pattern = re.compile("|".join(re.escape(old) for old in ids))
    return json.loads(pattern.sub(lambda m: ids[m.group(0)], text))


def schedule(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A schedule of Prefect's API -> slug, the rule, active, parameters."""
    rule = entry["schedule"]
    fields: dict[str, Any] = {"slug": entry.get("slug"), "timezone": rule.get("timezone") or "UTC"}
    if rule.get("cron") is not None:
        fields["timezone"] = rule.get("timezone")  # here alone Prefect leaves it open, and then means UTC
        fields |= {"cron": rule["cron"], "day_or": rule.get("day_or", True)}
    elif rule.get("interval") is not None:
        fields |= {"interval": float(rule["interval"]), "anchor_date": instant(rule.get("anchor_date"))}
    else:
        fields |= recurrence(rule["rrule"])
    return {**fields, "active": bool(entry.get("active", True)), "parameters": dict(entry.get("parameters") or {})}


def recurrence(rule: str) -> dict[str, Any]:
    """A rule without its DTSTART, and the DTSTART apart: the server puts one in where none was given."""
    lines = [line.strip() for line in rule.replace("\\n", "\n").splitlines() if line.strip()]
    starts = [line for line in lines if line.upper().startswith("DTSTART")]
    rest = [line if _PROPERTY.match(line) else f"RRULE:{line}" for line in lines if line not in starts]
    return {"rrule": "\n".join(rest), "dtstart": starts[0] if starts else None}


_PROPERTY = re.compile(r"(RRULE|EXRULE|RDATE|EXDATE)[:;]", re.I)


def instant(text: str | None) -> str | None:
    """An ISO time in UTC, so that two ways to write one moment are equal."""
    if text is None:
        return None
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).isoformat()


CONTENT = ("cron", "day_or", "interval", "rrule", "timezone", "parameters")


def content(fields: Mapping[str, Any]) -> str:
    """What a schedule without a slug is recognised by: all but its slug, its anchor and whether it is active."""
    told = {key: fields[key] for key in CONTENT if key in fields}
    return json.dumps({**told, "timezone": fields["timezone"] or "UTC"}, sort_keys=True)


def schedule_key(fields: Mapping[str, Any]) -> str:
    """The schedule's name in plans: its slug, or what it does."""
    if fields["slug"]:
        return str(fields["slug"])
    rule = fields.get("cron") or fields.get("rrule") or f"every {fields.get('interval')} s"
    suffix = f" {json.dumps(fields['parameters'], sort_keys=True)}" if fields["parameters"] else ""
    return f"({rule} {fields['timezone'] or 'UTC'}{suffix})"


def schedules(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return sorted((schedule(e) for e in entries), key=lambda s: (s["slug"] or "", content(s)))


SETS = ("expect", "after", "for_each")


def automation(answer: Mapping[str, Any]) -> dict[str, Any]:
    """An automation of Prefect's API -> what its owner chose."""
    kept = ("description", "enabled", "tags", "trigger", "actions", "actions_on_trigger", "actions_on_resolve")
    return {key: _plain(answer[key]) for key in kept if key in answer}


def _plain(value: Any, key: str = "") -> Any:
    """Without ids and nulls; sets sorted; a list of one resource label as that label. What a run is given stays as it is."""
    if key in ("parameters", "job_variables"):
        return value
    if isinstance(value, Mapping):
        if key in ("match", "match_related") and value:
            return {k: _label(v) for k, v in value.items()}
        return {k: _plain(v, k) for k, v in value.items() if v is not None and k != "id"}
    if isinstance(value, list):
        items = [_plain(v, key) for v in value]
        return sorted(items) if key in SETS and all(isinstance(i, str) for i in items) else items
    return value


def _label(value: Any) -> Any:
    """`["a"]` and `"a"` mean the same to Prefect."""
    if not isinstance(value, list):
        return value
    return value[0] if len(value) == 1 else sorted(value)
