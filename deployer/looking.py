"""The verbs that only look."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from deployer import doctor, github, prefect_api, prepare, preview, project, refs, render, schema, source
from deployer.call import Call, show_plan
from deployer.environment import Environment
from deployer.errors import DeployError, Exit, InvalidInput, Problem, count, in_order
from deployer.fields import RETIRED
from deployer.plan import Options
from deployer.prepare import Site
from deployer.project import Tree
from deployer.revision import Revision


def validate(call: Call) -> Exit:
    """Every fault of every file, and with the flows imported also of their parameters."""
    tree = Tree.at(call.repository, call.repository.resolve(call.words.ref).commit) if call.words.ref else call.tree
    variables = None if call.words.static else call.variables
    names = [call.words.env] if call.words.env else project.all_names(tree)
    found, problems = {}, []
    for name in names:
        own = project.readable(call.repository, name) if call.words.ref else None
        found[name], faults = project.examine(tree, name, variables, own)
        problems += faults
    if not call.words.static:
        told = {(p.file, p.path) for p in problems}
        more = _load_all(call, {name: contents for name, contents in found.items() if contents})
        problems += [p for p in more if (p.file, p.path) not in told]
    unique = in_order(problems)
    declared = len(next(c for c in found.values() if c).declared) if not unique else 0
    good = f"{count(len(names), 'environment')} and {count(declared, 'deployment')} are valid: {', '.join(names)}."
    bad = f"{count(len(unique), 'problem')} found."
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
    """The flows' imports, and the parameters of each environment."""
    commit = call.repository.resolve(call.words.ref).commit if call.words.ref else "0" * 40
    with _checkout(call, commit) as folder:
        return prepare.import_faults(found.values(), commit, folder)


@contextmanager
def _checkout(call: Call, commit: str) -> Iterator[Path]:
    if not call.words.ref:
        yield call.repository.path
        return
    with call.repository.checkout(commit) as folder:
        yield folder


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
        show_plan(call, prepared.plan, "drift")
        return Exit.DIFFERENCES if prepared.plan.writes else Exit.DONE


def _never_released(call: Call, site: Site) -> Exit:
    """No difference, unless there are deployments of ours: then it is the ledger that is gone."""
    env, url = call.words.env, site.client.url
    if ours := prefect_api.deployments.answers(site.client, site.scope.tags, ()):
        raise InvalidInput(
            f"{url} has {count(len(ours), 'deployment')} of {env}, and no release that set them: its ledger is gone. Apply what should be live."
        )
    call.console.note(f"No release of {env} is recorded at {url}: nothing to compare with.")
    return Exit.DONE


def status(call: Call) -> Exit:
    """What is where. Without --env, every environment whose variables are set."""
    names = [call.words.env] if call.words.env else project.all_names(call.tree)
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
        live = [deployment.fields for deployment in prepare.owned(site)]
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
