"""A plan in a file: written for review, and applied as reviewed or refused."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from deployer import render
from deployer.errors import InvalidInput, Refused
from deployer.model import Change, Plan, digest, rows, same
from deployer.plan import Options


@dataclass(frozen=True)
class Rollback:
    """What a rollback's plan puts back, and why."""

    release: int
    reason: str


@dataclass(frozen=True)
class SavedPlan:
    environment: str
    commit: str
    ref: str
    digest: str
    options: Options
    preview: str | None
    rollback: Rollback | None = None
    image_digest: str | None = None
    changes: list[dict[str, Any]] = field(default_factory=list, compare=False)  # as JSON; the digest speaks for them


def write(
    path: Path,
    plan: Plan,
    options: Options,
    preview: str | None,
    rollback: Rollback | None = None,
    image_digest: str | None = None,
) -> None:
    """Whole or not at all: a plan is never half written."""
    data: dict[str, Any] = {**render.plan_data(plan), "options": asdict(options), "preview": preview}
    data["image_digest"] = image_digest
    data["rollback"] = asdict(rollback) if rollback else None
    data["seal"] = digest(data)
    check_place(path, "plan")
    try:
        _replace(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise InvalidInput(f"The plan cannot be written to {path}: {error.strerror}.") from None


def check_place(path: Path, what: str) -> None:
    """Can a file be written there?"""
    if not path.name or path.is_dir():
        raise InvalidInput(f"The {what} cannot be written to {path}: that is a folder. Give a file.")
    if path.exists() and not path.is_file():
        raise InvalidInput(
            f"The {what} cannot be written to {path}: that is no ordinary file. For the terminal: --format json."
        )
    if not path.parent.is_dir():
        raise InvalidInput(f"The {what} cannot be written to {path}: there is no folder {path.parent}.")


def _replace(path: Path, text: str) -> None:
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def report(path: str, outcome: dict[str, Any]) -> str:
    """What an apply did, for machines. Answers why it could not be written: what was deployed is deployed all the same."""
    try:
        _replace(Path(path), render.document(outcome) + "\n")
    except OSError as error:
        return f"the report cannot be written to {path}: {error.strerror}."
    return ""


def read(path: Path) -> SavedPlan:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(data, ensure_ascii=False).encode()
    except OSError as error:
        raise InvalidInput(
            f"The plan {path} cannot be read: {error.strerror}. Make one with: plan --env E --out {path}"
        ) from None
    except (ValueError, RecursionError):  # also of half a character
        raise InvalidInput(f"{path} is no plan: not JSON. Make one with: plan --env E --out {path}") from None
    if not isinstance(data, dict) or data.get("format") != render.FORMAT or "seal" not in data:
        raise InvalidInput(f"{path} is no plan that this version wrote. Make one with: plan --env E --out {path}")
    seal = data.pop("seal")
    content = {key: data.get(key) for key in ("environment", "commit", "changes")}
    if seal != digest(data) or data.get("digest") != digest(content):
        raise Refused(f"{path} was altered after it was written. Plan again, and review again.")
    try:
        options = Options(**data["options"])
        rollback = Rollback(**data["rollback"]) if data["rollback"] else None
        named = (data["environment"], data["commit"], data["ref"], data["digest"])
        return _typed(SavedPlan(*named, options, data["preview"], rollback, data["image_digest"], data["changes"]))
    except (KeyError, TypeError):
        raise InvalidInput(
            f"{path} is no plan that this version wrote. Make one with: plan --env E --out {path}"
        ) from None


def _typed(found: SavedPlan) -> SavedPlan:
    """Whoever can write a seal can write anything under it."""
    texts = [found.environment, found.commit, found.ref, found.digest, found.preview or "", found.image_digest or ""]
    texts += [found.rollback.reason] if found.rollback else []
    numbers = [found.rollback.release] if found.rollback else []
    rows = found.changes if isinstance(found.changes, list) else [None]
    whole = all(isinstance(row, dict) and {"kind", "name", "action", "fields"} <= set(row) for row in rows)
    if not whole or not all(isinstance(t, str) for t in texts) or not all(type(n) is int for n in numbers):
        raise TypeError
    return found


def check_options(saved: SavedPlan, given: Options, preview: str | None, image_digest: str | None = None) -> None:
    """What is asked for beside a saved plan may repeat what it was made with, and add nothing."""
    added = [
        f"--{key.replace('_', '-')}" for key, on in asdict(given).items() if on and not getattr(saved.options, key)
    ]
    added += [f"--preview {preview}"] if preview not in (None, saved.preview) else []
    added += [f"--image-digest {image_digest}"] if image_digest not in (None, saved.image_digest) else []
    if added:
        raise Refused(f"The plan was made without {', '.join(added)}. Plan with it, and review that.")


def check(saved: SavedPlan, plan: Plan, begun: Collection[str] = ()) -> None:
    """The plan made now must be the one that was reviewed, or its rest: `begun` are the digests of the plans that the newest
    release began and did not finish. One that has nothing left to do was carried out by another deploy of the same."""
    if saved.digest == plan.digest or not plan.writes:
        return
    if saved.digest in begun and all(_reviewed(change, saved.changes) for change in plan.writes):
        return
    raise Refused(
        f"This plan of {plan.environment} is no longer what would be written: now {render.sentence(plan)} The live state moved, or a secret or variable is another one here. Nothing was written. Plan again, and review again."
    )


def _reviewed(change: Change, reviewed: list[dict[str, Any]]) -> bool:
    """Is all that this change would write a part of a change that was reviewed?"""
    (now,) = rows([change])
    before = next((r for r in reviewed if (r["kind"], r["name"]) == change.key), None)
    asked = [row for row in now["fields"] if not row["held"]]
    if before is None:
        return False
    if before["action"] == now["action"]:
        parts = ("path", "before", "after")
        return all(any(all(same(row[p], known[p]) for p in parts) for known in before["fields"]) for row in asked)
    if (before["action"], now["action"]) != ("create", "update"):
        return False
    return all(_half_created(row, before["fields"]) for row in asked)


def _half_created(row: dict[str, Any], reviewed: list[dict[str, Any]]) -> bool:
    """What was created and lacks a part is an update now. A value that is there already is somebody else's."""
    if row["before"] is not None:
        return False
    for known in reviewed:
        key = row["path"].removeprefix(f"{known['path']}.")
        if row["path"] == known["path"]:
            return same(row["after"], known["after"])
        if key != row["path"] and isinstance(known["after"], dict) and key in known["after"]:
            return same(row["after"], known["after"][key])
    return False
