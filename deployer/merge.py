"""One resource three ways, what we set last (base), what we want and what is live -> what it will be, and the plan's rows.

RULES says for each field which of the three counts. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from deployer import comparable
from deployer.fields import RETIRED, RETIRED_WHILE_PAUSED, marks
from deployer.model import Change, FieldChange, Fields, Hidden, Live, Resource, same

MISSING: Any = object()
Compared = tuple[Any, list[FieldChange]]
Rule = Callable[[str, Any, Any, list[Any], bool], Compared]


def compare(resource: Resource, live: Live | None, bases: list[Fields], resume: bool) -> Change:
    if live is None:
        created = tuple(FieldChange(path, None, value) for path, value in _new(resource.fields))
        return Change(resource.kind, resource.name, "create", created, resource.fields)
    target: dict[str, Any] = dict(live.fields)
    rows: list[FieldChange] = []
    for name, rule in RULES[resource.kind].items():
        before = [base.get(name, MISSING) for base in bases]
        value, found = rule(name, resource.fields.get(name, MISSING), live.fields.get(name, MISSING), before, resume)
        if value is not MISSING:
            target[name] = value
        rows += found
    if resource.kind == "deployment":
        rows += _returning(resource, live, target, rows)
    writes = any(not row.held for row in rows)
    action = "update" if writes else "held" if rows else "unchanged"
    return Change(resource.kind, resource.name, action, tuple(sorted(rows, key=lambda r: r.path)), target, live)


def _new(fields: Fields) -> Iterable[tuple[str, Any]]:
    """What a creation sets: a row a field, and a row a schedule, named as in an update."""
    for path, value in sorted(fields.items()):
        if path == "schedules":
            yield from ((f"{path}.{comparable.schedule_key(s)}", _brief(s)) for s in value)
        elif not _trivial(value):
            yield path, value


def _trivial(value: Any) -> bool:
    return value is None or value == {} or value == [] or value is False


def _returning(resource: Resource, live: Live, target: dict[str, Any], rows: list[FieldChange]) -> list[FieldChange]:
    """A retired deployment that is wanted again: un-paused only if it was our retirement that paused it."""
    tags, paused = live.fields["tags"], live.fields["paused"]
    if RETIRED not in tags or RETIRED_WHILE_PAUSED in tags or not paused or resource.fields["paused"]:
        return []
    rows[:] = [row for row in rows if row.path != "paused"]
    target["paused"] = False
    return [FieldChange("paused", True, False)]


# -- rules: name, wanted, live, bases -> what it will be, and the rows of the plan


def _own(name: str, wanted: Any, live: Any, bases: list[Any], resume: bool) -> Compared:
    """Always ours: the live value becomes the wanted one."""
    if wanted is MISSING:
        return MISSING, []
    before = None if live is MISSING else live
    if same(wanted, before):
        return wanted, []
    return wanted, list(_leaves(name, before, wanted))


def _optional(default: Any) -> Rule:
    """Ours only while the repository says something; when it stops, Prefect's default returns."""

    def rule(name: str, wanted: Any, live: Any, bases: list[Any], resume: bool) -> Compared:
        if wanted is not MISSING:
            return _own(name, wanted, live, bases, resume)
        was_ours = any(base is not MISSING for base in bases)
        return _own(name, default, live, bases, resume) if was_ours else (MISSING, [])

    return rule


def _elements(name: str, wanted: Any, live: Any, bases: list[Any], resume: bool) -> Compared:
    """Key by key: ours are set, those that we set once and no longer want go, all others stay."""
    wanted, live = mapping(wanted), mapping(live)
    dropped = {key for base in bases for key in mapping(base)} - set(wanted)
    target = {**{k: v for k, v in live.items() if k not in dropped}, **wanted}
    rows = [
        row
        for key in sorted({*live, *target})
        if not same(live.get(key, MISSING), target.get(key, MISSING))
        for row in _leaves(f"{name}.{key}", live.get(key), target.get(key))
    ]
    return target, rows


def _tags(name: str, wanted: Any, live: Any, bases: list[Any], resume: bool) -> Compared:
    """Like elements, for a set. What marks an owner or a retirement is never somebody else's."""
    wanted, live = _sequence(wanted), _sequence(live)
    ours = {t for base in bases for t in _sequence(base)} | {t for t in live if marks(t)}
    target = sorted((set(live) - ours) | set(wanted))
    return target, ([FieldChange(name, sorted(live), target)] if set(live) != set(target) else [])


def _switch(name: str, wanted: Any, live: Any, bases: list[Any], resume: bool) -> Compared:
    """On or off: written when the repository's own value changes; otherwise the operator's hand on it is held."""
    if wanted is MISSING or wanted == live:
        return live, []
    changed_here = any(base is not MISSING and base != wanted for base in bases)
    if changed_here or resume or live is MISSING:
        return wanted, [FieldChange(name, None if live is MISSING else live, wanted)]
    return live, [FieldChange(name, live, wanted, held=True)]


def _secret(name: str, wanted: Any, live: Any, bases: list[Any], resume: bool) -> Compared:
    """Compared in memory; the row says that it differs, and no more."""
    return wanted, ([] if wanted == live else [FieldChange(name, Hidden(""), Hidden(""))])


def _schedules(name: str, wanted: Any, live: Any, bases: list[Any], resume: bool) -> Compared:
    """The deployment's schedules are the repository's, all of them. Each finds its live one by slug, else by content."""
    target, rows = [], []
    pairs, gone = pair_schedules(_sequence(wanted), _sequence(live))
    for want, have in pairs:
        path = f"{name}.{comparable.schedule_key(want)}"
        if have is None:
            made, held = _successor(path, want, [w for w, h in pairs if h is None], gone, bases, resume)
            target.append(made)
            rows += [FieldChange(path, None, _brief(made)), *held]
            continue
        past = _past_schedules(want, bases)
        result = dict(have)
        for part, rule in SCHEDULE_RULES.items():
            value, found = rule(
                f"{path}.{part}",
                want.get(part, MISSING),
                have.get(part, MISSING),
                [p.get(part, MISSING) for p in past],
                resume,
            )
            if value is not MISSING:
                result[part] = value
            rows += found
        other_rule = [part for part in ("cron", "interval", "rrule") if part in have and part not in want]
        rows += [FieldChange(f"{path}.{part}", have[part], None) for part in other_rule]
        target.append({k: v for k, v in result.items() if k in want} if other_rule else result)
    rows += [FieldChange(f"{name}.{comparable.schedule_key(have)}", _brief(have), None) for have in gone]
    return target, rows


def _successor(
    path: str, want: Fields, new: list[Any], gone: list[Any], bases: list[Any], resume: bool
) -> tuple[Fields, list[FieldChange]]:
    """A new schedule, and what is held: who paused the one whose place it takes meant this one too.

    It takes the place of one with the same content, whose slug went; or of the only one, both without a slug.
    """
    before = next((h for h in gone if comparable.content(h) == comparable.content(want)), None)
    if before is None and len(new) == len(gone) == 1 and not want["slug"] and not gone[0]["slug"]:
        before = gone[0]
    if before is None:
        return want, []
    past = [entry.get("active", MISSING) for entry in _past_schedules(before, bases)]
    active, rows = _switch(f"{path}.active", want["active"], before["active"], past, resume)
    return {**want, "active": active}, [row for row in rows if row.held]


def pair_schedules(wanted: list[Any], live: list[Any]) -> tuple[list[tuple[Any, Any]], list[Any]]:
    """(wanted, its live one or None) in wanted's order, and the live ones that nobody wants.

    By slug first. Then by content, where only the slug is new: a rename keeps the id and the runs. A slug that is gone
    cannot be taken off through the API, so that schedule is made anew. Of several with one content, each finds the one
    that starts as it asks for.
    """
    left = list(live)
    found: list[Any] = [None] * len(wanted)
    for fits in (_same_slug, _same_start, _same_content):
        found = [have or _take(left, fits, want) for want, have in zip(wanted, found, strict=True)]
    return list(zip(wanted, found, strict=True)), left


def _same_slug(want: Fields, have: Fields) -> bool:
    return bool(want["slug"]) and have["slug"] == want["slug"]


def _same_start(want: Fields, have: Fields) -> bool:
    given = [key for key in ("anchor_date", "dtstart") if want.get(key) is not None]
    return bool(given) and _same_content(want, have) and all(want[key] == have.get(key) for key in given)


def _same_content(want: Fields, have: Fields) -> bool:
    return comparable.content(have) == comparable.content(want) and bool(want["slug"] or not have["slug"])


def _take(left: list[Any], fits: Callable[[Fields, Fields], bool], want: Fields) -> Any:
    """The first that fits; of several the first that is on, or off, as wanted."""
    found = [i for i, have in enumerate(left) if fits(want, have)]
    best = sorted(found, key=lambda i: left[i]["active"] != want["active"])[:1]
    return left.pop(best[0]) if best else None


def _past_schedules(want: Fields, bases: list[Any]) -> list[Fields]:
    """What it was before: by its slug, or as one without a slug; else one that did the same, whose slug came or went."""
    known = [entry for base in bases for entry in _sequence(base)]
    alike = [e for e in known if comparable.content(e) == comparable.content(want)]
    if want["slug"]:
        return [e for e in known if e["slug"] == want["slug"]] or alike
    return [e for e in alike if not e["slug"]] or alike


def _brief(schedule: Fields) -> dict[str, Any]:
    return {k: v for k, v in schedule.items() if v is not None and v != {} and not (k == "day_or" and v is True)}


def _anchor(name: str, wanted: Any, live: Any, bases: list[Any], resume: bool) -> Compared:
    """Prefect makes one up where none is given; ours only while the repository gives one."""
    if wanted is MISSING or wanted is None:
        stale = [base for base in bases if base is not MISSING and base is not None and base == live]
        return (None, [FieldChange(name, live, None)]) if stale else (MISSING, [])
    return _own(name, wanted, live, bases, resume)


def _triggers(name: str, wanted: Any, live: Any, bases: list[Any], resume: bool) -> Compared:
    """By name; those of names that we never set are not ours."""
    wanted, live = mapping(wanted), mapping(live)
    dropped = {key for base in bases for key in mapping(base)} - set(wanted)
    target = {k: v for k, v in live.items() if k not in dropped}
    rows: list[FieldChange] = []
    for key in sorted({*wanted, *live}):
        path = f"{name}.{key}"
        if key not in wanted:
            rows += [FieldChange(path, live[key], None)] if key in dropped else []
        elif key not in live:
            target[key] = wanted[key]
            rows.append(FieldChange(path, None, wanted[key]))
        else:
            past = [mapping(base).get(key, {}) for base in bases]
            target[key], found = _parts(path, wanted[key], live[key], past, RULES["automation"], resume)
            rows += found
    return target, rows


def _parts(
    path: str, wanted: Fields, live: Fields, bases: list[Fields], rules: Mapping[str, Rule], resume: bool
) -> tuple[dict[str, Any], list[FieldChange]]:
    target, rows = dict(live), []
    for part, rule in rules.items():
        past = [base.get(part, MISSING) for base in bases]
        value, found = rule(f"{path}.{part}", wanted.get(part, MISSING), live.get(part, MISSING), past, resume)
        if value is not MISSING:
            target[part] = value
        rows += found
    return target, rows


def _leaves(path: str, before: Any, after: Any) -> Iterable[FieldChange]:
    """Where two values differ, as deep as both have the same shape: a reviewer reads `...commit_sha`, not all pull steps."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}):
            if not same(before.get(key, MISSING), after.get(key, MISSING)):
                yield from _leaves(f"{path}.{key}", before.get(key), after.get(key))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after) and path == "pull_steps":
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            if not same(old, new):
                yield from _leaves(f"{path}.{index}", old, new)
    else:
        yield FieldChange(path, before, after)


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


SCHEDULE_RULES: dict[str, Rule] = {
    "slug": _own,
    "cron": _own,
    "day_or": _own,
    "interval": _own,
    "rrule": _own,
    "timezone": _own,
    "anchor_date": _anchor,
    "dtstart": _anchor,
    "parameters": _own,
    "active": _switch,
}

RULES: dict[str, dict[str, Rule]] = {
    "variable": {"value": _own},
    "secret": {"value": _secret},
    "concurrency_limit": {"limit": _own, "slot_decay_per_second": _own, "active": _switch},
    "work_pool": {
        "description": _optional(None),
        "concurrency_limit": _optional(None),
        "base_job_template": _optional({}),
    },
    "work_queue": {
        "description": _optional(None),
        "concurrency_limit": _optional(None),
        "priority": _optional(MISSING),
    },
    "deployment": {
        "version": _own,
        "entrypoint": _own,
        "description": _own,
        "pull_steps": _own,
        "parameter_openapi_schema": _own,
        "enforce_parameter_schema": _own,
        "work_pool": _own,
        "work_queue": _optional("default"),
        "tags": _tags,
        "parameters": _elements,
        "job_variables": _elements,
        "concurrency_limit": _optional(None),
        "collision_strategy": _optional("ENQUEUE"),
        "grace_period_seconds": _optional(None),
        "paused": _switch,
        "schedules": _schedules,
        "triggers": _triggers,
    },
    "automation": {
        "description": _own,
        "enabled": _switch,
        "tags": _own,
        "trigger": _own,
        "actions": _own,
        "actions_on_trigger": _own,
        "actions_on_resolve": _own,
    },
}
