"""Plan, Outcome, Release -> text, Markdown, JSON, from the same rows. Pure: each function answers a string or plain data."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from deployer.errors import DeployError, InvalidInput, Problem, count
from deployer.finding import STATES, Finding
from deployer.model import Change, FieldChange, Hidden, Outcome, Plan, Release, rows, shown

FORMAT = 1
IMAGE = "job_variables.image"
SIGNS = {"create": "+", "update": "~", "pause": "-", "delete": "-", "held": "="}


# -- plan


def plan_data(plan: Plan) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "environment": plan.environment,
        "commit": plan.commit,
        "ref": plan.ref,
        "base": {"release": plan.base.release, "commit": plan.base.commit} if plan.base else None,
        "summary": plan.summary,
        "changes": rows(plan.changes),
        "digest": plan.digest,
    }


def refused_data(environment: str, error: DeployError) -> dict[str, Any]:
    """What stands in place of an apply's outcome where nothing was begun."""
    problems = error.problems if isinstance(error, InvalidInput) else ()
    said = {"error": str(error), "problems": problems_data(problems), "exit": int(error.exit_code)}
    return {"format": FORMAT, "environment": environment, "outcomes": [], "release": None, **said}


def sentence(plan: Plan) -> str:
    s = plan.summary
    return f"{s['create']} to create, {s['update']} to update, {s['pause']} to pause, {s['delete']} to delete, {s['unchanged']} unchanged."


def plan_text(plan: Plan, title: str = "plan") -> str:
    lines = [_heading(plan, title), ""]
    moved, rest = _moved(plan.changes)
    for change in rest:
        lines.append(f"  {SIGNS[change.action]} {change.action:<6} {_kind(change.kind)} {change.name}")
        lines += [f"      {line}" for line in _field_lines(change)]
    if moved:
        before, after = _commits(moved[0])
        lines.append(
            f"  ~ update {count(len(moved), 'deployment')}: only the commit moves, {before[:12]} -> {after[:12]}"
        )
        lines += [f"      {change.name}" for change in moved[:5]]
        lines += [f"      and {len(moved) - 5} more"] if len(moved) > 5 else []
    lines += [""] if plan.changes else []
    lines += [f"image: {image}" for image in _images(plan)]
    lines += _held_lines(plan)
    lines += [f"Note: {notice}" for notice in plan.notices]
    lines += [f"Refused by '{r.guard}': {r.message}" for r in plan.refusals]
    return "\n".join([*lines, sentence(plan)])


def _heading(plan: Plan, title: str) -> str:
    against = (
        f"compared with release {plan.base.release} ({plan.base.commit[:12]})" if plan.base else "no release before it"
    )
    named = "" if plan.ref == plan.commit else f" ({plan.ref})"
    return f"{plan.environment}: {title} for {plan.commit[:12]}{named}, {against}"


def _held_lines(plan: Plan) -> list[str]:
    held = sum(f.held for c in plan.changes for f in c.fields)
    return (
        [
            f"{count(held, 'value')} set by hand {'is' if held == 1 else 'are'} held; --resume takes {'it' if held == 1 else 'them'} back."
        ]
        if held
        else []
    )


def _moved(changes: Sequence[Change]) -> tuple[list[Change], list[Change]]:
    """Updates in which nothing but the commit moves, once there are enough to be noise; and the rest."""
    moved = [
        c
        for c in changes
        if c.action == "update" and c.kind == "deployment" and [f.path for f in told(c)] == ["commit"]
    ]
    return (moved, [c for c in changes if c not in moved]) if len(moved) > 2 else ([], list(changes))


def _commits(change: Change) -> tuple[str, str]:
    version = next((f for f in change.fields if f.path == "version"), change.fields[0])
    return str(version.before), str(version.after)


def told(change: Change) -> list[FieldChange]:
    """The rows as people read them: at a creation only what matters; where code moves, one row for the whole commit."""
    if change.action == "create":
        return [f for f in change.fields if f.path.split(".")[0] in _TOLD_AT_CREATION]
    if not any(f.path == "version" for f in change.fields):
        return list(change.fields)
    old, new = _commits(change)
    rest = [f for f in change.fields if f.path != "version" and not _follows(f, old, new)]
    return [*rest, FieldChange("commit", old, new)]


def _follows(field: FieldChange, old: str, new: str) -> bool:
    """Does this value differ only because it names the commit, or the image that was built from it?"""
    before, after = field.before, field.after
    if field.path == IMAGE and isinstance(before, str) and isinstance(after, str):
        if bool(_DIGEST.search(before)) != bool(_DIGEST.search(after)):
            return False  # pinned or no longer pinned: that is more than another commit
        before, after = _DIGEST.sub("", before), _DIGEST.sub("", after)
    return isinstance(before, str) and old in before and before.replace(old, new) == after


_DIGEST = re.compile("@sha256:[0-9a-f]{64}$")


def unbuilt(plan: Plan) -> Plan:
    """A commit that is not merged has no image yet: that its digest is missing is no news."""
    return replace(plan, changes=tuple(replace(c, fields=tuple(map(_unpinned, c.fields))) for c in plan.changes))


def _unpinned(field: FieldChange) -> FieldChange:
    if field.path != IMAGE or not isinstance(field.before, str) or _DIGEST.search(str(field.after)):
        return field
    return replace(field, before=_DIGEST.sub("", field.before))


def _images(plan: Plan) -> list[str]:
    """The images that this plan brings to deployments, with the beginning of what they are known by."""
    found = {image for change in plan.writes for f in change.fields if not f.held and (image := _image(f))}
    return [_LONG.sub(lambda part: part[0][:12], image) for image in sorted(found)]


def _image(field: FieldChange) -> str:
    """At a creation the job variables are one row."""
    value = shown(field.after)
    if field.path == "job_variables" and isinstance(value, dict):
        value = value.get("image")
    elif field.path != IMAGE:
        return ""
    return value if isinstance(value, str) else ""


_LONG = re.compile("(?<![0-9a-f])(?:[0-9a-f]{64}|[0-9a-f]{40})(?![0-9a-f])")


def _field_lines(change: Change) -> list[str]:
    rows = told(change)
    if change.action == "create":
        return [f"{f.path}: {_brief(f.after, f.path)}" for f in rows]
    width = max((len(f.path) for f in rows), default=0)
    return [f"{f.path:<{width}}  {_arrow(f)}" for f in rows]


_TOLD_AT_CREATION = (
    "version",
    "entrypoint",
    "work_pool",
    "parameters",
    "schedules",
    "concurrency_limit",
    "limit",
    "slot_decay_per_second",
    "type",
    "value",
    "trigger",
)


def _arrow(field: FieldChange) -> str:
    if field.held:
        return f"held at {_brief(field.before, field.path)} (the repository says {_brief(field.after, field.path)})"
    if _hidden(field):
        return "value differs"
    return f"{_brief(field.before, field.path)} -> {_brief(field.after, field.path)}"


def _hidden(field: FieldChange) -> bool:
    return isinstance(field.before, Hidden) and isinstance(field.after, Hidden)


def _brief(value: Any, path: str = "", most: int = 90) -> str:
    """Of an image the end counts: its tag and its digest."""
    value = shown(value)
    if value is None:
        return "(none)"
    if isinstance(value, dict) and "active" in value and (rule := _rule(value)):
        return rule
    text = (
        value[:12]
        if isinstance(value, str) and _COMMIT.fullmatch(value)
        else json.dumps(value, ensure_ascii=False, sort_keys=True)
    )
    if len(text) <= most:
        return text
    return "..." + text[3 - most :] if path == IMAGE else text[: most - 3] + "..."


_COMMIT = re.compile("[0-9a-f]{40}")


def _rule(schedule: Mapping[str, Any]) -> str:
    """`0 20 * * 1-5 America/Chicago, paused`, for what has a cron, an interval or a recurrence rule."""
    interval = schedule.get("interval")
    rule = schedule.get("cron") or schedule.get("rrule") or (f"every {interval:g} s" if interval else "")
    if not rule:
        return ""
    parameters = f" with {json.dumps(schedule['parameters'], sort_keys=True)}" if schedule.get("parameters") else ""
    return f"{rule} {schedule.get('timezone') or 'UTC'}{parameters}{'' if schedule['active'] else ', paused'}"


def _kind(kind: str) -> str:
    return kind.replace("_", " ")


def plan_markdown(plan: Plan, title: str = "plan") -> str:
    lines = [f"### {_heading(plan, title)}", "", f"**{sentence(plan)}**", ""]
    lines += [f"> **Refused by `{r.guard}`**: {_cell(r.message)}\n" for r in plan.refusals]
    lines += [f"> {_cell(notice)}\n" for notice in plan.notices]
    moved, rest = _moved(plan.changes)
    if rest:
        lines += ["| | kind | name | field | before | after |", "|---|---|---|---|---|---|"]
        lines += [row for change in rest for row in _markdown_rows(change)]
    if moved:
        before, after = _commits(moved[0])
        lines += [
            "",
            f"<details><summary>{count(len(moved), 'deployment')}: only the commit moves, <code>{before[:12]}</code> &rarr; <code>{after[:12]}</code></summary>",
            "",
        ]
        lines += [*(f"- {_cell(c.name)}" for c in moved), "", "</details>"]
    lines += [line for image in _images(plan) for line in ("", f"image: {_code(image)}")]
    return "\n".join([*lines, "", f"Digest `{plan.digest}`"])


def _markdown_rows(change: Change) -> Iterable[str]:
    fields = told(change)
    head = f"| {change.action} | {_kind(change.kind)} | {_cell(change.name)} |"
    if not fields:
        yield f"{head} | | |"
    for field in fields:
        note = " (held)" if field.held else ""
        before, after = _code(field.before, field.path), _code(field.after, field.path)
        values = "value differs | " if _hidden(field) else f"{before} | {after} "
        yield f"{head} {_cell(field.path)}{note} | {values}|"
        head = "| | | |"


def _code(value: Any, path: str = "") -> str:
    """Between more backticks than stand in it, so that it ends where it should."""
    if value is None:
        return ""
    text = _brief(value, path).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if len(fence) > 1 else f"`{text}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


# -- apply


def apply_data(plan: Plan, outcomes: Sequence[Outcome], release: Release | None, seconds: float) -> dict[str, Any]:
    return {
        **plan_data(plan),
        "outcomes": [asdict(outcome) for outcome in outcomes],
        "release": {"number": release.number, "commit": release.commit, "result": release.result} if release else None,
        "seconds": round(seconds, 3),
    }


def apply_text(plan: Plan, outcomes: Sequence[Outcome], release: Release | None, seconds: float) -> str:
    """How it ended. The plan was shown before the first write, as people expect."""
    return _result(plan, outcomes, release, seconds)


def apply_markdown(plan: Plan, outcomes: Sequence[Outcome], release: Release | None, seconds: float) -> str:
    failed = [f"- {_kind(o.kind)} {_cell(o.name)}: {_cell(o.error or '')}" for o in outcomes if o.result == "failed"]
    return "\n".join(
        [plan_markdown(plan, "apply"), "", *failed, "", f"**{_result(plan, outcomes, release, seconds)}**"]
    )


def _result(plan: Plan, outcomes: Sequence[Outcome], release: Release | None, seconds: float) -> str:
    if release is None:
        return f"Nothing to do in {plan.environment}; nothing was written."
    done = sum(o.result == "done" for o in outcomes)
    back = f", rolling back release {release.rollback_of} to release {release.restores}" if release.restores else ""
    proof = " and proven: nothing is left to do" if release.succeeded else ""
    return f"Release {release.number} of {plan.environment} {release.result}{back}: {done} of {len(plan.writes)} changes written in {seconds:.1f} s{proof}."


def outcome_line(outcome: Outcome) -> str:
    error = f": {outcome.error}" if outcome.error else ""
    return f"{outcome.result:<7} {outcome.action:<6} {_kind(outcome.kind)} {outcome.name}{error}"


# -- the ledger


def release_data(release: Release) -> dict[str, Any]:
    return {k: v for k, v in asdict(release).items() if k != "declares"}


def history_text(environment: str, releases: Sequence[Release]) -> str:
    if not releases:
        return f"{environment}: no release is recorded yet."
    head = ["number", "commit", "ref", "result", "started", "by", "changes", ""]
    return table(head, [_history_row(r) for r in releases])


def history_markdown(environment: str, releases: Sequence[Release]) -> str:
    return markdown_table(
        ["number", "commit", "ref", "result", "started", "by", "changes", "note"], [_history_row(r) for r in releases]
    )


def _history_row(r: Release) -> list[str]:
    changed = sum(number for action, number in r.summary.items() if action in ("create", "update", "pause", "delete"))
    note = f"puts back {r.restores}, for {r.rollback_of}: {r.reason}" if r.restores else r.reason
    return [
        str(r.number),
        r.commit[:12],
        r.ref if r.ref != r.commit else "",
        r.result,
        r.started,
        r.actor,
        str(changed),
        note or r.error[:60],
    ]


STATUS_HEAD = ["environment", "release", "commit", "ref", "result", "when", "deployments", "paused", "retired", "api"]


def status_rows(statuses: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    found = []
    for s in statuses:
        r = s["release"] or {}
        left = [
            s["environment"],
            *(str(r.get(k) or "-") for k in ("number",)),
            (r.get("commit") or "-")[:12],
            r.get("ref") or "-",
        ]
        right = [
            r.get("result") or s["error"] or "none yet",
            r.get("started") or "-",
            *(str(s[k]) if s[k] is not None else "-" for k in ("deployments", "paused", "retired")),
        ]
        found.append([*left, *right, s["api"] or "-"])
    return found


def status_text(statuses: Iterable[Mapping[str, Any]]) -> str:
    return table(STATUS_HEAD, status_rows(statuses))


def status_markdown(statuses: Iterable[Mapping[str, Any]]) -> str:
    return markdown_table(STATUS_HEAD, status_rows(statuses))


# -- findings


def findings_data(environment: str, api: str, found: Sequence[Finding]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "environment": environment,
        "api": api,
        "summary": findings_summary(found),
        "checks": [asdict(finding) for finding in found],
    }


def findings_summary(found: Sequence[Finding]) -> dict[str, int]:
    return {state: sum(f.state == state for f in found) for state in STATES}


def findings_text(environment: str, api: str, found: Sequence[Finding]) -> str:
    width = max(len(f.check) for f in found)
    lines = [f"{environment}: doctor for {api}", ""]
    for f in found:
        lines.append(f"  {f.state:<11}  {f.check:<{width}}  {f.seen}")
        lines += [f"  {'':<11}  {'':<{width}}  fix: {f.fix}"] if f.fix else []
    return "\n".join([*lines, "", _tally(found)])


def findings_markdown(environment: str, api: str, found: Sequence[Finding]) -> str:
    rows = [[f.state, f.check, f.seen, f.fix] for f in found]
    title = f"### {environment}: doctor for {_cell(api)}"
    return "\n".join([title, "", f"**{_tally(found)}**", "", markdown_table(["state", "check", "seen", "fix"], rows)])


def _tally(found: Sequence[Finding]) -> str:
    s = findings_summary(found)
    return f"{count(s['problem'], 'problem')}, {count(s['warning'], 'warning')}, {s['ok']} ok, {s['not checked']} not checked."


# -- the rest


def error_markdown(error: DeployError) -> str:
    """How a verb ended that did not do what it was for."""
    problems = error.problems if isinstance(error, InvalidInput) else ()
    rows = [[f"{p.file}:{p.line}" if p.line else p.file, p.path, p.message] for p in problems]
    listed = ["", markdown_table(["where", "key", "problem"], rows)] if rows else []
    return "\n".join([f"**{_cell(str(error))}**", *listed])


def problems_data(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    return [asdict(problem) for problem in problems]


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [list(head), *[list(row) for row in body]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]

    def pad(line: Sequence[str]) -> str:
        return "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()

    return "\n".join(pad(line) for line in lines)


def markdown_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    line: Callable[[Sequence[str]], str] = lambda cells: "| " + " | ".join(_cell(c) for c in cells) + " |"  # noqa: E731
    return "\n".join([line(head), "|" + "---|" * len(head), *(line(row) for row in body)])


def document(data: Any) -> str:
    return json.dumps(shown(data), indent=2, ensure_ascii=False, sort_keys=False)
