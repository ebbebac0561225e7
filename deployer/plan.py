"""What should exist + what exists + what the last releases set -> Plan. Pure: the same values give the same plan.

Three ways to compare: what we set last (base), what we want, what is live. RULES says for each field which one applies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployer import comparable
from deployer.desired import RETIRED, RETIRED_WHILE_PAUSED, Scope
from deployer.environment import Policy
from deployer.model import (
    KINDS,
    Base,
    Change,
    FieldChange,
    Fields,
    Hidden,
    Key,
    Live,
    Plan,
    Refusal,
    Resource,
    Specification,
    same,
)

FEW = 10
"""From this many owned deployments on, the share of removals is guarded."""

MISSING: Any = object()
Compared = tuple[Any, list[FieldChange]]
Rule = Callable[[str, Any, Any, list[Any], "Options"], Compared]


@dataclass(frozen=True)
class Options:
    """What the operator asks for beside the plan itself."""

    adopt: bool = False
    resume: bool = False
    allow_removals: bool = False


@dataclass(frozen=True)
class World:
    """What is live, as far as this plan may see it. `foreign` maps resources to the ledger (project-environment) that lists them."""

    live: Mapping[Key, Live]
    foreign: Mapping[Key, str] = field(default_factory=dict)


@dataclass(frozen=True)
class History:
    """The last successful release's specification and those of failed releases since: each may have set something."""

    base: Base | None = None
    specifications: tuple[Specification, ...] = ()

    def of(self, key: Key) -> list[Fields]:
        """What we set last: as a release has it, or as its removal left it."""
        found = [fields for spec in self.specifications if (fields := spec.by_key().get(key)) is not None]
        return found + [spec.retired[name] for spec in self.specifications if (name := _laid(key)) in spec.retired]

    @property
    def created(self) -> set[Key]:
        """What we surely made. A release that failed only lists what it was about to make: somebody else may have."""
        return set(self.specifications[0].created) if self.base and self.specifications else set()

    @property
    def known(self) -> set[Key]:
        listed = {r.key for spec in self.specifications for r in spec.resources}
        return listed | {("secret", name) for spec in self.specifications for name in spec.secrets}


def plan(
    wanted: Iterable[Resource],
    unmanaged: Iterable[Key],
    world: World,
    history: History,
    scope: Scope,
    policy: Policy,
    commit: str,
    ref: str,
    options: Options,
) -> Plan:
    wanted = list(wanted)
    changes: list[Change] = []
    bases = {key: history.of(key) for key in {r.key for r in wanted}}
    for resource in wanted:
        changes.append(_compare(resource, world.live.get(resource.key), bases[resource.key], options))
    removed, notices = _removals(wanted, set(unmanaged), world, history, scope, policy)
    shown = sorted((c for c in [*changes, *removed] if c.action != "unchanged"), key=_order)
    refusals = [
        *_ownership(wanted, world, scope, options),
        *_foreign(wanted, world),
        *_fixed(wanted, world),
        *_too_many(wanted, removed, world, scope, policy, options),
    ]
    unchanged = sum(c.action == "unchanged" for c in changes)
    return Plan(scope.environment, commit, ref, history.base, tuple(shown), unchanged, tuple(refusals), tuple(notices))


def _order(change: Change) -> tuple[int, int, str]:
    position = KINDS.index(change.kind)
    gone = change.action in ("pause", "delete")
    return (1 if gone else 0, -position if gone else position, change.name)


def _compare(resource: Resource, live: Live | None, bases: list[Fields], options: Options) -> Change:
    if live is None:
        created = tuple(FieldChange(path, None, value) for path, value in _new(resource.fields))
        return Change(resource.kind, resource.name, "create", created, resource.fields)
    target: dict[str, Any] = dict(live.fields)
    rows: list[FieldChange] = []
    for name, rule in RULES[resource.kind].items():
        before = [base.get(name, MISSING) for base in bases]
        value, found = rule(name, resource.fields.get(name, MISSING), live.fields.get(name, MISSING), before, options)
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


def _own(name: str, wanted: Any, live: Any, bases: list[Any], options: Options) -> Compared:
    """Always ours: the live value becomes the wanted one."""
    if wanted is MISSING:
        return MISSING, []
    before = None if live is MISSING else live
    if same(wanted, before):
        return wanted, []
    return wanted, list(_leaves(name, before, wanted))


def _optional(default: Any) -> Rule:
    """Ours only while the repository says something; when it stops, Prefect's default returns."""

    def rule(name: str, wanted: Any, live: Any, bases: list[Any], options: Options) -> Compared:
        if wanted is not MISSING:
            return _own(name, wanted, live, bases, options)
        was_ours = any(base is not MISSING for base in bases)
        return _own(name, default, live, bases, options) if was_ours else (MISSING, [])

    return rule


def _elements(name: str, wanted: Any, live: Any, bases: list[Any], options: Options) -> Compared:
    """Key by key: ours are set, those that we set once and no longer want go, all others stay."""
    wanted, live = _mapping(wanted), _mapping(live)
    dropped = {key for base in bases for key in _mapping(base)} - set(wanted)
    target = {**{k: v for k, v in live.items() if k not in dropped}, **wanted}
    rows = [
        row
        for key in sorted({*live, *target})
        if not same(live.get(key, MISSING), target.get(key, MISSING))
        for row in _leaves(f"{name}.{key}", live.get(key), target.get(key))
    ]
    return target, rows


def _tags(name: str, wanted: Any, live: Any, bases: list[Any], options: Options) -> Compared:
    """Like elements, for a set. What marks an owner or a retirement is never somebody else's."""
    wanted, live = _sequence(wanted), _sequence(live)
    ours = {t for base in bases for t in _sequence(base)} | {t for t in live if _marks(t)}
    target = sorted((set(live) - ours) | set(wanted))
    return target, ([FieldChange(name, sorted(live), target)] if set(live) != set(target) else [])


def _marks(tag: str) -> bool:
    return tag.startswith(("project:", "env:", "preview:")) or tag in (RETIRED, RETIRED_WHILE_PAUSED)


def _switch(name: str, wanted: Any, live: Any, bases: list[Any], options: Options) -> Compared:
    """On or off: written when the repository's own value changes; otherwise the operator's hand on it is held."""
    if wanted is MISSING or wanted == live:
        return live, []
    changed_here = any(base is not MISSING and base != wanted for base in bases)
    if changed_here or options.resume or live is MISSING:
        return wanted, [FieldChange(name, None if live is MISSING else live, wanted)]
    return live, [FieldChange(name, live, wanted, held=True)]


def _secret(name: str, wanted: Any, live: Any, bases: list[Any], options: Options) -> Compared:
    """Compared in memory; the row says that it differs, and no more."""
    return wanted, ([] if wanted == live else [FieldChange(name, Hidden(""), Hidden(""))])


def _schedules(name: str, wanted: Any, live: Any, bases: list[Any], options: Options) -> Compared:
    """The deployment's schedules are the repository's, all of them. Each finds its live one by slug, else by content."""
    target, rows = [], []
    pairs, gone = pair_schedules(_sequence(wanted), _sequence(live))
    for want, have in pairs:
        path = f"{name}.{comparable.schedule_key(want)}"
        if have is None:
            target.append(want)
            rows.append(FieldChange(path, None, _brief(want)))
            continue
        past = _past_schedules(want, bases)
        result = dict(have)
        for part, rule in SCHEDULE_RULES.items():
            value, found = rule(
                f"{path}.{part}",
                want.get(part, MISSING),
                have.get(part, MISSING),
                [p.get(part, MISSING) for p in past],
                options,
            )
            if value is not MISSING:
                result[part] = value
            rows += found
        other_rule = [part for part in ("cron", "interval", "rrule") if part in have and part not in want]
        rows += [FieldChange(f"{path}.{part}", have[part], None) for part in other_rule]
        target.append({k: v for k, v in result.items() if k in want} if other_rule else result)
    rows += [FieldChange(f"{name}.{comparable.schedule_key(have)}", _brief(have), None) for have in gone]
    return target, rows


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
    known = [entry for base in bases for entry in _sequence(base)]
    if want["slug"] and (same := [e for e in known if e["slug"] == want["slug"]]):
        return same
    return [e for e in known if comparable.content(e) == comparable.content(want)]


def _brief(schedule: Fields) -> dict[str, Any]:
    return {k: v for k, v in schedule.items() if v is not None and v != {} and not (k == "day_or" and v is True)}


def _anchor(name: str, wanted: Any, live: Any, bases: list[Any], options: Options) -> Compared:
    """Prefect makes one up where none is given; ours only while the repository gives one."""
    if wanted is MISSING or wanted is None:
        stale = [base for base in bases if base is not MISSING and base is not None and base == live]
        return (None, [FieldChange(name, live, None)]) if stale else (MISSING, [])
    return _own(name, wanted, live, bases, options)


def _triggers(name: str, wanted: Any, live: Any, bases: list[Any], options: Options) -> Compared:
    """By name; those of names that we never set are not ours."""
    wanted, live = _mapping(wanted), _mapping(live)
    dropped = {key for base in bases for key in _mapping(base)} - set(wanted)
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
            past = [_mapping(base).get(key, {}) for base in bases]
            target[key], found = _parts(path, wanted[key], live[key], past, RULES["automation"], options)
            rows += found
    return target, rows


def _parts(
    path: str, wanted: Fields, live: Fields, bases: list[Fields], rules: Mapping[str, Rule], options: Options
) -> tuple[dict[str, Any], list[FieldChange]]:
    target, rows = dict(live), []
    for part, rule in rules.items():
        past = [base.get(part, MISSING) for base in bases]
        value, found = rule(f"{path}.{part}", wanted.get(part, MISSING), live.get(part, MISSING), past, options)
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


def _mapping(value: Any) -> Mapping[str, Any]:
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


# -- what is no longer wanted


def _removals(
    wanted: list[Resource], unmanaged: set[Key], world: World, history: History, scope: Scope, policy: Policy
) -> tuple[list[Change], list[str]]:
    keep = {r.key for r in wanted} | {_queue(r) for r in wanted if r.kind == "deployment"} | unmanaged
    changes: list[Change] = []
    notices: list[str] = []
    for live in world.live.values():
        if live.key in keep or live.key in world.foreign:
            continue
        if live.kind == "deployment":
            if scope.owns(live.fields["tags"]):
                changes += _retire(live, policy, history, notices)
        elif live.key in history.known or (policy.prune == "delete" and live.key in history.created):
            changes += _drop(live, policy, history, notices)
    return changes, notices


def _queue(deployment: Resource) -> Key:
    """The queue that it uses, declared or not: Prefect makes one for whoever names it, and none goes away under it."""
    return "work_queue", f"{deployment.fields['work_pool']}/{deployment.fields.get('work_queue', 'default')}"


def _retire(live: Live, policy: Policy, history: History, notices: list[str]) -> list[Change]:
    """Paused, tagged, and its triggers off: pausing stops schedules only."""
    if policy.prune == "delete":
        return [Change("deployment", live.name, "delete", (), {}, live)]
    if RETIRED in live.fields["tags"]:
        return []
    if policy.prune == "keep":
        notices.append(f"deployment {live.name} is no longer declared; kept as it is (prune: keep).")
        return []
    was_paused = live.fields["paused"]
    tags = sorted({*live.fields["tags"], RETIRED, *([RETIRED_WHILE_PAUSED] if was_paused else [])})
    rows = [FieldChange("tags", sorted(live.fields["tags"]), tags)]
    rows += [] if was_paused else [FieldChange("paused", False, True)]
    ours = {name for base in history.of(live.key) for name in _mapping(base.get("triggers"))}
    off = {n: t for n, t in live.fields["triggers"].items() if n in ours and t["enabled"]}
    rows += [FieldChange(f"triggers.{name}.enabled", True, False) for name in off]
    triggers = {**live.fields["triggers"], **{name: {**t, "enabled": False} for name, t in off.items()}}
    target = {**live.fields, "tags": tags, "paused": True, "triggers": triggers}
    return [Change("deployment", live.name, "pause", tuple(sorted(rows, key=lambda r: r.path)), target, live)]


def _drop(live: Live, policy: Policy, history: History, notices: list[str]) -> list[Change]:
    """Other kinds: deleted only if we made them and may; automations are switched off; the rest is kept and said."""
    if policy.prune == "delete" and live.key in history.created:
        return [Change(live.kind, live.name, "delete", (), {}, live)]
    if live.kind == "automation" and policy.prune == "pause":
        if not live.fields["enabled"]:
            return []
        return [
            Change(
                live.kind,
                live.name,
                "pause",
                (FieldChange("enabled", True, False),),
                {**live.fields, "enabled": False},
                live,
            )
        ]
    why = "not made by this project" if policy.prune == "delete" else f"prune: {policy.prune}"
    notices.append(f"{live.kind.replace('_', ' ')} {live.name} is no longer declared; kept ({why}).")
    return []


# -- guards


def _ownership(wanted: list[Resource], world: World, scope: Scope, options: Options) -> list[Refusal]:
    if options.adopt:
        return []
    theirs = []
    for resource in wanted:
        live = world.live.get(resource.key) if resource.kind == "deployment" else None
        if live and not scope.owns(live.fields["tags"]):
            owner = [t for t in live.fields["tags"] if t.startswith(("project:", "env:", "preview:"))]
            theirs.append(f"{resource.name} ({', '.join(owner) or 'no owner tags'})")
    if not theirs:
        return []
    tags = ", ".join(scope.tags)
    return [
        Refusal(
            "ownership",
            f"{_count(theirs, 'deployment')} of these names exist and are not tagged {tags}: {'; '.join(theirs)}. Rename ours, or take them over with --adopt.",
        )
    ]


def _foreign(wanted: list[Resource], world: World) -> list[Refusal]:
    theirs = [f"{r.kind.replace('_', ' ')} {r.name} ({world.foreign[r.key]})" for r in wanted if r.key in world.foreign]
    if not theirs:
        return []
    return [
        Refusal(
            "ownership",
            f"Another release ledger on this API lists {'; '.join(theirs)}. Give ours other names. Was this repository called otherwise before? Then set `project:` to the old name.",
        )
    ]


def _fixed(wanted: list[Resource], world: World) -> list[Refusal]:
    """A pool's type cannot be changed through the API."""
    refusals = []
    for r in wanted:
        live = world.live.get(r.key) if r.kind == "work_pool" else None
        if live and live.fields["type"] != r.fields["type"]:
            refusals.append(
                Refusal(
                    "pool-type",
                    f"work pool {r.name} is of type {live.fields['type']}, not {r.fields['type']}; a type cannot change. Use a new name, or delete the pool.",
                )
            )
    return refusals


def _too_many(
    wanted: list[Resource], removed: list[Change], world: World, scope: Scope, policy: Policy, options: Options
) -> list[Refusal]:
    owned = [
        live
        for live in world.live.values()
        if live.kind == "deployment" and scope.owns(live.fields["tags"]) and RETIRED not in live.fields["tags"]
    ]
    lost = [c for c in removed if c.kind == "deployment" and c.live and RETIRED not in c.live.fields["tags"]]
    if options.allow_removals or not lost:
        return []
    if not any(r.kind == "deployment" for r in wanted):
        return [
            Refusal(
                "empty-catalogue",
                f"The catalogue declares no deployment, and {_count(owned, 'deployment')} would go. If that is meant: --allow-removals.",
            )
        ]
    most = policy.max_removals
    share = int(most.rstrip("%")) * len(owned) // 100 if isinstance(most, str) else most
    if len(owned) < FEW or len(lost) <= share:
        return []
    return [
        Refusal(
            "removals",
            f"{len(lost)} of {len(owned)} deployments would go; policy.max_removals is {most}. If that is meant: --allow-removals.",
        )
    ]


def _count(things: list[Any], word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"


def retired_after(history: History, plan: Plan, wanted: Iterable[Resource]) -> dict[str, Fields]:
    """The fields of what earlier releases set and this one does not, kept for its return."""
    kept: dict[str, Fields] = {}
    for spec in history.specifications:
        kept |= {**spec.retired, **{_laid(key): fields for key, fields in spec.by_key().items()}}
    kept |= {_laid(c.key): _laid_down(c, history.of(c.key)) for c in plan.changes if c.action == "pause"}
    gone = {_laid(c.key) for c in plan.changes if c.action == "delete"} | {_laid(r.key) for r in wanted}
    return {name: fields for name, fields in sorted(kept.items()) if name not in gone}


def _laid(key: Key) -> str:
    """The name under which a removed resource's fields are kept."""
    return key[1] if key[0] == "deployment" else f"{key[0]}:{key[1]}"


def _laid_down(change: Change, bases: list[Fields]) -> Fields:
    """What we set last, with what this removal switches off: so its return knows our hand from the operator's."""
    past = bases[-1] if bases else {}
    if change.kind == "automation":
        return {**past, "enabled": False}
    triggers = {
        name: {**trigger, "enabled": False} if change.touches(f"triggers.{name}") else trigger
        for name, trigger in _mapping(past.get("triggers")).items()
    }
    return {**past, "triggers": triggers} if triggers else past


def created_after(history: History, plan: Plan) -> tuple[Key, ...]:
    """Resources without tags that we made: those of before, and those that this plan makes, less those it deletes."""
    made = {c.key for c in plan.changes if c.action == "create" and c.kind != "deployment"}
    gone = {c.key for c in plan.changes if c.action == "delete"}
    return tuple(sorted((history.created | made) - gone))
