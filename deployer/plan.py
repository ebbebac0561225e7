"""What should exist + what exists + what the last releases set -> Plan. Pure: the same values give the same plan.

What one resource will be is `merge`'s; here are the order, what goes, and the guards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from deployer.desired import Scope
from deployer.environment import Policy
from deployer.errors import count
from deployer.fields import RETIRED, RETIRED_WHILE_PAUSED
from deployer.merge import compare, mapping
from deployer.model import (
    KINDS,
    Base,
    Change,
    FieldChange,
    Fields,
    Key,
    Live,
    Plan,
    Refusal,
    Resource,
    Specification,
)

FEW = 10
"""From this many owned deployments on, the share of removals is guarded."""


@dataclass(frozen=True)
class Options:
    """What the operator asks for beside the plan itself."""

    adopt: bool = False
    resume: bool = False
    allow_removals: bool = False
    only_forward: bool = False
    """Leave a newer commit alone, as production always does."""


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
        changes.append(compare(resource, world.live.get(resource.key), bases[resource.key], options.resume))
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
    ours = {name for base in history.of(live.key) for name in mapping(base.get("triggers"))}
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
            f"{count(len(theirs), 'deployment')} of these names exist and are not tagged {tags}: {'; '.join(theirs)}. Rename ours, or take them over with --adopt.",
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
                f"The catalogue declares no deployment, and {count(len(owned), 'deployment')} would go. If that is meant: --allow-removals.",
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
        for name, trigger in mapping(past.get("triggers")).items()
    }
    return {**past, "triggers": triggers} if triggers else past


def created_after(history: History, plan: Plan) -> tuple[Key, ...]:
    """Resources without tags that we made: those of before, and those that this plan makes, less those it deletes."""
    made = {c.key for c in plan.changes if c.action == "create" and c.kind != "deployment"}
    gone = {c.key for c in plan.changes if c.action == "delete"}
    return tuple(sorted((history.created | made) - gone))
