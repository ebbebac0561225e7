"""The verbs that make releases, or plan one: `apply` and `rollback` write, and `plan` shows what they would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from deployer import github, prepare, render, saved
from deployer.apply import Result, apply
from deployer.call import Call, say_guards, show_plan
from deployer.errors import DeployError, Exit, InvalidInput, Refused
from deployer.model import Plan, Release
from deployer.plan import Options
from deployer.prepare import Prepared, Site
from deployer.revision import Repository, Revision
from deployer.saved import SavedPlan


def plan(call: Call) -> Exit:
    words = call.words
    options = Options(words.adopt, words.resume, words.allow_removals, words.only_forward)
    if words.unmerged and words.out:
        raise InvalidInput("A plan of what is not merged cannot be applied: leave out --out, or --unmerged.")
    if words.out:
        saved.check_place(Path(words.out), "plan")
    revision = _revision(call)
    with (
        call.site(words.env, words.preview) as site,
        prepare.prepare(
            site, call.repository, revision, call.variables, options, words.unmerged, words.image_digest
        ) as prepared,
    ):
        _say_before(call, prepared)
        found = prepared.plan
        show_plan(call, found, told=render.unbuilt(found) if words.unmerged else None)
        if words.out:
            _refuse(found)
            _save(call, found, options)
        result = "overtaken" if prepared.overtaken else "planned"
        call.console.outputs(digest=found.digest, changes=str(len(found.writes)), commit=found.commit, result=result)
        return Exit.DIFFERENCES if words.detailed_exitcode and found.writes else Exit.DONE


def _save(call: Call, found: Plan, options: Options, back: saved.Rollback | None = None) -> None:
    words = call.words
    preview, digest = getattr(words, "preview", None), getattr(words, "image_digest", None)
    saved.write(Path(words.out), found, options, preview, back, digest)
    call.console.note(f"Saved to {words.out}; apply it with: apply --env {words.env} --plan {words.out}")


def _revision(call: Call) -> Revision:
    """A commit that GitHub gives by its SHA is known by the branch or tag that the run is for."""
    found = call.repository.resolve(call.words.ref or "HEAD")
    return replace(found, ref=github.ref_of(call.variables, found.commit) or found.ref)


def _say_before(call: Call, prepared: Prepared) -> None:
    if call.words.ref in (None, "HEAD") and call.repository.dirty():
        call.console.note(f"The work tree holds changes that {prepared.plan.commit[:12]} does not; the commit counts.")


def apply_commit(call: Call) -> Exit:
    """Where a report is wanted there is one also of what was not begun."""
    if call.words.report:
        saved.check_place(Path(call.words.report), "report")
    try:
        return _apply_commit(call)
    except DeployError as error:
        if not call.reports and error.exit_code in (Exit.INVALID, Exit.REFUSED):  # else `_report` was there
            _keep(call, render.refused_data(call.words.env, error))
        raise


def _keep(call: Call, outcome: dict[str, Any]) -> None:
    call.reports.append(outcome)
    report = getattr(call.words, "report", None)
    if report and (fault := saved.report(report, outcome)):
        call.console.note(f"note: {fault}")


def _apply_commit(call: Call) -> Exit:
    words = call.words
    reviewed = saved.read(Path(words.plan)) if words.plan else None
    if reviewed and reviewed.environment != words.env:
        raise Refused(f"{words.plan} is a plan for {reviewed.environment}, not for {words.env}.")
    if reviewed and reviewed.rollback:
        return _apply_rollback(call, reviewed, reviewed.rollback)
    if reviewed and words.ref and call.repository.resolve(words.ref).commit != reviewed.commit:
        raise Refused(f"{words.plan} is a plan for {reviewed.commit[:12]}; --ref {words.ref} is another commit.")
    options = Options(words.adopt, words.resume, words.allow_removals, words.only_forward)
    if words.replan and not reviewed:
        raise InvalidInput("--replan goes with --plan FILE: without a saved plan every apply plans by itself.")
    if reviewed:
        saved.check_options(reviewed, options, words.preview, words.image_digest)
        options = reviewed.options
    revision = replace(call.repository.resolve(reviewed.commit), ref=reviewed.ref) if reviewed else _revision(call)
    name, digest = (reviewed.preview, reviewed.image_digest) if reviewed else (words.preview, words.image_digest)
    with (
        call.site(words.env, name) as site,
        prepare.prepare(site, call.repository, revision, call.variables, options, image_digest=digest) as prepared,
    ):
        if reviewed:
            _check_review(call, reviewed, prepared)
        else:
            _say_before(call, prepared)
        return _release(call, prepared, call.repository)


def _check_review(call: Call, reviewed: SavedPlan, prepared: Prepared) -> None:
    """As reviewed, or its rest; with --replan also what it has become, where nobody has to review it."""
    try:
        saved.check(reviewed, prepared.plan, prepared.site.ledger.begun())
    except Refused:
        if not call.words.replan or prepared.site.environment.mode == "production":
            raise
        call.console.note(f"note: the live state moved since {call.words.plan} was made; this is planned anew.")


def rollback(call: Call) -> Exit:
    """Put a recorded release back whole: from its specification, without its code."""
    words = call.words
    if not words.reason.strip():
        raise InvalidInput("Say why with --reason TEXT; it stays with the release.")
    if words.out:
        saved.check_place(Path(words.out), "plan")
    options = Options(resume=words.resume, allow_removals=words.allow_removals)
    reason = " ".join(words.reason.split())
    with _restoring(call, words.to, options) as prepared:
        if not words.out:
            return _release(call, prepared, None, reason)
        found = prepared.plan
        show_plan(call, found)
        _refuse(found)
        _save(call, found, options, saved.Rollback(prepared.restores or 0, reason))
        call.console.outputs(digest=found.digest, changes=str(len(found.writes)), commit=found.commit, result="planned")
        return Exit.DONE


def _apply_rollback(call: Call, reviewed: SavedPlan, back: saved.Rollback) -> Exit:
    """A rollback that was planned before: the same release, if the plan is still the same."""
    words = call.words
    if words.ref:
        raise Refused(f"{words.plan} puts release {back.release} back: leave out --ref.")
    given = Options(words.adopt, words.resume, words.allow_removals, words.only_forward)
    saved.check_options(reviewed, given, words.preview, words.image_digest)
    with _restoring(call, str(back.release), reviewed.options) as prepared:
        saved.check(reviewed, prepared.plan, prepared.site.ledger.begun())
        return _release(call, prepared, None, back.reason)


@contextmanager
def _restoring(call: Call, to: str | None, options: Options) -> Iterator[Prepared]:
    """What would put a release back, planned."""
    with call.site(call.words.env) as site:
        newest = site.ledger.newest()
        goal = _goal(call, site, to)
        spec = site.ledger.specification(goal)
        if spec is None:
            raise InvalidInput(
                f"The specification of release {goal.number} is gone from {site.client.url}; deploy its commit instead: apply --ref {goal.commit[:12]}"
            )
        prepare.check_tenancy(site)
        revision = Revision(goal.commit, goal.ref)
        prepared = prepare.from_specification(site, spec, revision, site.ledger.history(), call.variables, options)
        prepared.restores, prepared.rollback_of = goal.number, newest.number if newest else None
        yield prepared


def _goal(call: Call, site: Site, to: str | None) -> Release:
    """A number, a tag or a commit -> the newest successful release of it."""
    env = site.environment.name
    if to is None:
        found = site.ledger.before_live()
        if found is None:
            raise InvalidInput(f"{env} has no successful release before the live one. See: history --env {env}")
        return found
    if to.isascii() and to.isdigit() and len(to) < 7:
        found = site.ledger.numbered(int(to))
    else:
        found = site.ledger.of_commit(to) or next(
            (
                r
                for r in site.ledger.releases()
                if r.succeeded and (r.ref in (to, f"refs/tags/{to}") or (len(to) >= 7 and r.commit.startswith(to)))
            ),
            None,
        )
        found = found or _by_git(call, site, to)
    if found is None or not found.succeeded:
        why = f"release {to} ended as {found.result}" if found else f"'{to}' was never released successfully to {env}"
        raise InvalidInput(f"{why}; only what was live before can be put back. See: history --env {env}")
    return found


def _by_git(call: Call, site: Site, to: str) -> Release | None:
    try:
        return site.ledger.of_commit(call.repository.resolve(to).commit)
    except InvalidInput:
        return None


def _release(call: Call, prepared: Prepared, repository: Repository | None, reason: str = "") -> Exit:
    """Guards, then writes, then says what came of it."""
    found = prepared.plan
    if found.refusals:
        call.console.note(render.plan_text(found))
    _refuse(found)
    if repository and found.writes and (note := prepare.check_published(prepared, repository, call.variables)):
        call.console.note(f"note: {note}")
    call.console.before(render.plan_text(found, "apply"))
    with call.console.progress(len(found.writes), f"Deploying {found.commit[:12]} to {found.environment}") as step:
        result = apply(prepared, call.author(reason), step)
    _report(call, found, result, "overtaken" if prepared.overtaken else "unchanged")
    if result.error:
        raise result.error
    return Exit.DONE


def _refuse(found: Plan) -> None:
    """What a guard holds back is neither written nor handed to a reviewer."""
    if found.refusals:
        raise Refused(" ".join(r.message for r in found.refusals) + " Nothing was written.")


def _report(call: Call, found: Plan, result: Result, otherwise: str) -> None:
    """`otherwise`: what came of it where there was nothing to release."""
    parts = (found, result.outcomes, result.release, result.seconds)
    _keep(call, render.apply_data(*parts))  # first: the streams may be gone
    call.console.result(
        lambda: render.apply_text(*parts), lambda: render.apply_markdown(*parts), lambda: render.apply_data(*parts)
    )
    say_guards(call, found)
    release = result.release
    call.console.outputs(
        digest=found.digest,
        changes=str(len(found.writes)),
        commit=found.commit,
        release=str(release.number) if release else "",
        result=release.result if release else otherwise,
    )
