"""One function a verb: it takes what was asked for, and answers the exit code. `apply` and `rollback` make releases."""

from __future__ import annotations

import getpass
import json
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from deployer import (
    __version__,
    doctor,
    following,
    github,
    prefect_api,
    prepare,
    preview,
    project,
    refs,
    render,
    saved,
    schema,
    source,
    stats,
)
from deployer.apply import Author, Result, apply
from deployer.console import Console
from deployer.environment import Environment
from deployer.errors import DeployError, Exit, InvalidInput, Problem, Refused, invalid
from deployer.fields import RETIRED
from deployer.model import Plan, Release
from deployer.plan import Options
from deployer.prepare import Prepared, Site
from deployer.project import Tree
from deployer.revision import Repository, Revision
from deployer.saved import SavedPlan


@dataclass(frozen=True)
class Call:
    """What every verb gets: the words of the command line, the repository, the variables, the streams."""

    words: Namespace
    variables: Mapping[str, str]
    console: Console
    reports: list[dict[str, Any]] = field(default_factory=list)
    """What was written to --report: once it is there, a later error does not replace it."""

    @cached_property
    def repository(self) -> Repository:
        return Repository.find(Path(self.words.repo))

    @cached_property
    def tree(self) -> Tree:
        """The tool's own checkout: where to deploy, and by which rules. What it makes a secret is hidden from here on."""
        found = Tree.working(self.repository.path)
        self.console.hide(project.hidden(found, self.variables))
        return found

    def environment(self, name: str) -> Environment:
        return project.load_environment(self.tree, name, self.variables)

    @contextmanager
    def site(self, name: str, preview: str | None = None, goes: bool = False) -> Iterator[Site]:
        """A preview that goes may be called as an environment that came after it, and waits for it."""
        names = () if goes else self.tree.environment_names()
        with prepare.open_site(self.environment(name), preview, names=names) as site:
            try:
                yield site
            finally:
                stats.write(self.variables, site.client)

    def author(self, reason: str = "") -> Author:
        actor = github.actor(self.variables) or _user()
        return Author(actor, github.run_url(self.variables), __version__, reason)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


# -- read only


def validate(call: Call) -> Exit:
    """Every fault of every file, and with the flows imported also of their parameters."""
    tree = Tree.at(call.repository, call.repository.resolve(call.words.ref).commit) if call.words.ref else call.tree
    variables = None if call.words.static else call.variables
    names = [call.words.env] if call.words.env else tree.environment_names()
    if not names:
        raise InvalidInput("There is no environments/*.yaml here. Is this the right repository (--repo DIR)?")
    found, problems = {}, []
    for name in names:
        own = project.readable(call.repository, name) if call.words.ref else None
        found[name], faults = project.examine(tree, name, variables, own)
        problems += faults
    if not call.words.static:
        told = {(p.file, p.path) for p in problems}
        more = _load_all(call, {name: contents for name, contents in found.items() if contents})
        problems += [p for p in more if (p.file, p.path) not in told]
    unique = tuple(sorted(set(problems), key=lambda p: (p.file, p.line or 0, p.path, p.message)))
    count = len(next(c for c in found.values() if c).declared) if not unique else 0
    good = f"{render.count(len(names), 'environment')} and {render.count(count, 'deployment')} are valid: {', '.join(names)}."
    bad = f"{render.count(len(unique), 'problem')} found."
    if unique:
        call.console.problems(unique)
    call.console.result(
        lambda: bad if unique else good,
        lambda: f"**{bad if unique else good}**\n\n" + "\n".join(f"- {p}" for p in unique),
        lambda: {
            "format": render.FORMAT,
            "valid": not unique,
            "environments": names,
            "problems": render.problems_data(unique),
        },
    )
    return Exit.INVALID if unique else Exit.DONE


def _load_all(call: Call, found: Mapping[str, project.Contents]) -> list[Problem]:
    """Import the flows once for each environment, in one loader each: parameters differ between them."""
    commit = call.repository.resolve(call.words.ref).commit if call.words.ref else "0" * 40
    with _checkout(call, commit) as folder:
        return [p for contents in found.values() for p in prepare.import_faults(contents, commit, folder)]


@contextmanager
def _checkout(call: Call, commit: str) -> Iterator[Path]:
    if not call.words.ref:
        yield call.repository.path
        return
    with call.repository.checkout(commit) as folder:
        yield folder


def plan(call: Call) -> Exit:
    words = call.words
    options = Options(words.adopt, words.resume, words.allow_removals, words.only_forward)
    if words.unmerged and words.out:
        raise InvalidInput("A plan of what is not merged cannot be applied: leave out --out, or --unmerged.")
    with (
        call.site(words.env, words.preview) as site,
        prepare.prepare(
            site, call.repository, _revision(call), call.variables, options, words.unmerged, words.image_digest
        ) as prepared,
    ):
        _say_before(call, prepared)
        found = prepared.plan
        told = render.unbuilt(found) if words.unmerged else found
        call.console.result(
            lambda: render.plan_text(told), lambda: render.plan_markdown(told), lambda: render.plan_data(found)
        )
        _say_plan(call, found)
        if words.out:
            _refuse(found)
            _save(call, found, options)
        call.console.outputs(digest=found.digest, changes=str(len(found.writes)), commit=found.commit)
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


def _say_plan(call: Call, found: Plan) -> None:
    """Guards and notices also where the result is for machines."""
    if call.console.format != "text":
        for notice in found.notices:
            call.console.note(f"note: {notice}")
        for refusal in found.refusals:
            call.console.note(f"refused by '{refusal.guard}': {refusal.message}")


def drift(call: Call) -> Exit:
    """Live against what the last release set, without a look at the repository's commits."""
    with call.site(call.words.env) as site:
        prepare.check_tenancy(site)
        release = site.ledger.live()
        if release is None:
            return _never_released(call, site)
        spec = site.ledger.specification(release)
        if spec is None:
            raise InvalidInput(
                f"The specification of release {release.number} is gone from {site.client.url}: nothing to compare with. Apply the commit again: apply --ref {release.commit[:12]}"
            )
        prepared = prepare.from_specification(
            site, spec, Revision(release.commit, release.ref), site.ledger.history(), call.variables, Options()
        )
        found = prepared.plan
        call.console.result(
            lambda: render.plan_text(found, "drift"),
            lambda: render.plan_markdown(found, "drift"),
            lambda: render.plan_data(found),
        )
        _say_plan(call, found)
        return Exit.DIFFERENCES if found.writes else Exit.DONE


def _never_released(call: Call, site: Site) -> Exit:
    """No difference, unless there are deployments of ours: then it is the ledger that is gone."""
    env, url = call.words.env, site.client.url
    if ours := prefect_api.deployments.answers(site.client, site.scope.tags, ()):
        raise InvalidInput(
            f"{url} has {render.count(len(ours), 'deployment')} of {env}, and no release that set them: its ledger is gone. Apply what should be live."
        )
    call.console.note(f"No release of {env} is recorded at {url}: nothing to compare with.")
    return Exit.DONE


def status(call: Call) -> Exit:
    """What is where. Without --env, every environment whose variables are set."""
    names = [call.words.env] if call.words.env else call.tree.environment_names()
    if not names:
        raise InvalidInput("There is no environments/*.yaml here. Is this the right repository (--repo DIR)?")
    found = []
    for name in names:
        try:
            found.append(_status(call, name))
        except DeployError as error:
            if call.words.env:
                raise
            found.append(
                {
                    "environment": name,
                    "api": None,
                    "release": None,
                    "deployments": None,
                    "paused": None,
                    "retired": None,
                    "error": _first(error),
                }
            )
    call.console.result(
        lambda: render.status_text(found),
        lambda: render.status_markdown(found),
        lambda: {"format": render.FORMAT, "environments": found},
    )
    for each in found:
        if each["error"]:
            call.console.note(f"{each['environment']}: {each['error']}")
    return Exit.INVALID if all(each["error"] for each in found) else Exit.DONE


def _first(error: DeployError) -> str:
    return str(error.problems[0]) if isinstance(error, InvalidInput) and error.problems else str(error)


def _status(call: Call, name: str) -> dict[str, Any]:
    with call.site(name) as site:
        prepare.check_tenancy(site)
        newest = site.ledger.newest()
        live = [
            f.fields
            for f in prefect_api.read(site.client, (), (), site.scope).values()
            if site.scope.owns(f.fields["tags"])
        ]
        retired = [f for f in live if RETIRED in f["tags"]]
        return {
            "environment": name,
            "api": site.client.url,
            "release": render.release_data(newest) if newest else None,
            "deployments": len(live) - len(retired),
            "paused": sum(f["paused"] for f in live if f not in retired),
            "retired": len(retired),
            "error": None,
        }


def examine(call: Call) -> Exit:
    """Look at all of an environment. Problems are differences from what it should be: they need a fix, and exit 2."""
    environment = call.environment(call.words.env)
    found = doctor.examine(environment, call.repository, call.variables)
    url = environment.api.url.rstrip("/")
    call.console.result(
        lambda: render.findings_text(environment.name, url, found),
        lambda: render.findings_markdown(environment.name, url, found),
        lambda: render.findings_data(environment.name, url, found),
    )
    counts = render.findings_summary(found)
    call.console.outputs(problems=str(counts["problem"]), warnings=str(counts["warning"]))
    if doctor.shut_out(found):
        return Exit.INVALID
    return Exit.DIFFERENCES if counts["problem"] else Exit.DONE


def history(call: Call) -> Exit:
    with call.site(call.words.env) as site:
        releases = list(islice(site.ledger.releases(), call.words.limit))
    name = call.words.env
    call.console.result(
        lambda: render.history_text(name, releases),
        lambda: render.history_markdown(name, releases),
        lambda: {"format": render.FORMAT, "environment": name, "releases": [render.release_data(r) for r in releases]},
    )
    return Exit.DONE


def target(call: Call) -> Exit:
    """Which environments a full Git ref deploys to, by their `refs` in this checkout."""
    ref = call.words.ref
    if not ref.startswith("refs/"):
        raise InvalidInput(
            f"'{ref}' is no full Git ref. Write refs/heads/{ref} for a branch, refs/tags/{ref} for a tag."
        )
    environments = project.load_environments(call.tree, None)
    found = refs.targets(environments, ref)
    there = [each for each in environments if each.name in found]
    images = _images(there, _commit_of(call, ref))
    call.console.result(
        lambda: "\n".join(found) if found else f"{ref} deploys nowhere.",
        lambda: f"`{ref}`: {', '.join(found) or 'nowhere'}",
        lambda: {"format": render.FORMAT, "ref": ref, "environments": found, "images": images},
    )
    production = any(each.name in images and each.mode == "production" for each in there)
    call.console.outputs(
        **{
            "environments": json.dumps(found),
            "environment": found[0] if found else "",
            "needs-image": json.dumps(list(images)),
            "image": next(iter(images.values()), ""),
            "build": str(bool(images) and not production).lower(),
        }
    )
    return Exit.DONE


def _commit_of(call: Call, ref: str) -> str:
    """GitHub's own where the run is for this ref; empty for a ref that is not here."""
    if commit := github.commit_of(call.variables, ref):
        return commit
    try:
        return call.repository.resolve(ref).commit
    except InvalidInput:
        return ""


def _images(environments: list[Environment], commit: str) -> dict[str, str]:
    """Of the environments whose code comes in an image for each commit: its name, one for all of them."""
    wanted = [each for each in environments if source.needs_image(each.source)]
    if unclear := next((each.name for each in wanted if "${" in (each.source.image or "")), None):
        raise InvalidInput(
            f"{project.environment_file(unclear)}: source.image must be written out: where it is pushed is decided before any variable is read."
        )
    found = {each.name: source.image_of(each.source, commit or "{commit}") for each in wanted}
    if len(set(found.values())) > 1:
        raise InvalidInput(
            f"{', '.join(found)} are deployed by one ref, and want different images: {', '.join(sorted(set(found.values())))}. One is built for a commit: give them the same source.image."
        )
    return found


def print_schema(call: Call) -> Exit:
    call.console.document(schema.schemas()[call.words.file] if call.words.file else schema.schemas())
    return Exit.DONE


# -- writing


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
    options = Options(resume=words.resume, allow_removals=words.allow_removals)
    reason = " ".join(words.reason.split())
    with _restoring(call, words.to, options) as prepared:
        if not words.out:
            return _release(call, prepared, None, reason)
        found = prepared.plan
        call.console.result(
            lambda: render.plan_text(found), lambda: render.plan_markdown(found), lambda: render.plan_data(found)
        )
        _say_plan(call, found)
        _refuse(found)
        _save(call, found, options, saved.Rollback(prepared.restores or 0, reason))
        call.console.outputs(digest=found.digest, changes=str(len(found.writes)), commit=found.commit)
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
    _say_plan(call, found)
    release = result.release
    call.console.outputs(
        digest=found.digest,
        changes=str(len(found.writes)),
        commit=found.commit,
        release=str(release.number) if release else "",
        result=release.result if release else otherwise,
    )


def previews(call: Call) -> Exit:
    with call.site(call.words.env) as site:
        found = preview.names(site)
    env = call.words.env
    call.console.result(
        lambda: "\n".join(found) if found else f"{env} has no preview.",
        lambda: f"**Previews of {env}:** {', '.join(f'`{name}`' for name in found) or 'none'}",
        lambda: {"format": render.FORMAT, "environment": env, "previews": found},
    )
    call.console.outputs(previews=json.dumps(found))
    return Exit.DONE


def destroy(call: Call) -> Exit:
    with call.site(call.words.env, call.words.preview, goes=True) as site:
        gone = preview.destroy(site, call.console.note)
    name = call.words.preview
    text = f"The preview {name} of {call.words.env} is gone: {render.count(len(gone), 'deployment')} deleted."
    call.console.result(
        lambda: text,
        lambda: f"**{text}**",
        lambda: {"format": render.FORMAT, "environment": call.words.env, "preview": name, "deleted": gone},
    )
    return Exit.DONE


def run(call: Call) -> Exit:
    with call.site(call.words.env, call.words.preview) as site:
        return following.run(site, call.words.name, call.words.param, call.words.timeout, call.console)


def serve(call: Call) -> Exit:
    from deployer import serving

    declared, problems = project.load_catalog(call.tree)
    if problems:
        raise invalid(problems)
    environments = project.load_environments(call.tree, None)
    production = [e.name for e in environments if e.mode == "production"]
    return serving.serve(call.repository.path, declared, call.words.name, production, call.variables, call.console.note)
