"""From a ref to a plan: everything that is read and checked before the first write."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deployer import desired, ledger, loading, plan, prefect_api, project, source, template
from deployer.desired import Request, Scope
from deployer.environment import Environment
from deployer.errors import InvalidInput, Problem, Refused, invalid
from deployer.fields import value_of
from deployer.ledger import Ledger
from deployer.loading import Loader
from deployer.model import Key, Live, Plan, Refusal, Release, Resource, Specification
from deployer.plan import History, Options, World
from deployer.prefect_api import Client
from deployer.project import Contents, Tree
from deployer.revision import Repository, Revision


@dataclass(frozen=True)
class Site:
    """One environment's API, as this checkout's own files name it, and what is recorded there."""

    environment: Environment
    scope: Scope
    client: Client
    ledger: Ledger


@dataclass
class Prepared:
    """A plan, and all that applying it needs. `loader` is None where the specification was on record."""

    site: Site
    plan: Plan
    specification: Specification
    wanted: list[Resource]
    unmanaged: list[Key]
    history: History
    options: Options
    loader: Loader | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    rollback_of: int | None = None
    restores: int | None = None
    overtaken: str | None = None

    def world(self) -> World:
        """What is live now: read when planning, and again to prove."""
        return read_world(self.site, self.wanted, self.unmanaged, self.history)

    def again(self) -> Plan:
        """The same plan against what is live now."""
        site = self.site
        return plan.plan(
            self.wanted,
            self.unmanaged,
            self.world(),
            self.history,
            site.scope,
            site.environment.policy,
            self.plan.commit,
            self.plan.ref,
            self.options,
        )


@contextmanager
def open_site(
    environment: Environment,
    preview: str | None = None,
    client: Client | None = None,
    names: Collection[str] = (),
) -> Iterator[Site]:
    """Reach the API, and make sure that this environment may live there. `names`: of all environments."""
    if preview and environment.mode == "production":
        raise Refused(
            f"Previews live in development environments; {environment.name} is one of mode {environment.mode}."
        )
    if preview and f"{environment.name}-{preview}" in names:
        raise Refused(
            f"{environment.name}-{preview} is an environment of its own, and the preview {preview} of {environment.name} "
            "would share its ledger. Give the preview another name. Nothing was touched."
        )
    scope = Scope(environment.owner, environment.name, environment.api.shared, preview)
    with client or Client(environment.api) as connected:
        prefect_api.connect(connected)
        site = Site(environment, scope, connected, Ledger(connected, scope))
        check_ledger(site)
        yield site


def check_ledger(site: Site) -> None:
    """The preview `eu` of dev and an environment dev-eu would write into one ledger."""
    if not (other := site.ledger.strange()):
        return
    scope = site.scope
    whose, way = f"{scope.environment} ({scope.project})", "Give one of the two another name."
    if scope.preview:
        whose, way = f"the preview {scope.preview} of {scope.environment}", "Give the preview another name."
    elif other.project == scope.project and scope.environment.startswith(f"{other.environment}-"):
        name = scope.environment.removeprefix(f"{other.environment}-")
        way = f"They are of its preview {name}: remove that (destroy --env {other.environment} --preview {name}), or give the environment another name."
    raise Refused(
        f"The releases of {other.environment} ({other.project}) at {site.client.url} are kept where those of {whose} would be. "
        f"{way} Nothing was touched."
    )


def check_tenancy(site: Site) -> None:
    """An API that another environment lives on is the wrong one, unless both say that they share it."""
    strangers = sorted({r.environment for r in site.ledger.others if r.environment != site.environment.name})
    if strangers and not site.environment.api.shared:
        raise Refused(
            f"The API {site.client.url} holds releases of {', '.join(strangers)}; this is {site.environment.name}. "
            f"Check api.url (PREFECT_API_URL). If they share one API on purpose: api.shared: true in each environment file."
        )


def owned(site: Site) -> list[Live]:
    """The deployments that are this environment's, or this preview's."""
    found = prefect_api.read(site.client, (), (), site.scope).values()
    return [live for live in found if site.scope.owns(live.fields["tags"])]


def read_world(site: Site, wanted: list[Resource], unmanaged: list[Key], history: History) -> World:
    recorded = {key for key in history.known | history.created if key[0] != "deployment"}
    keys = {r.key for r in wanted} | set(unmanaged) | recorded | set(_queues(wanted))
    specs = [
        *(r.fields for r in wanted if r.kind == "deployment"),
        *(f for s in history.specifications for k, f in s.by_key().items() if k[0] == "deployment"),
    ]
    triggers = {name for fields in specs for name in fields["triggers"]}
    live = prefect_api.read(site.client, keys, triggers, site.scope)
    return World(live, ledger.foreign(site.ledger.others))


@contextmanager
def prepare(
    site: Site,
    repository: Repository,
    revision: Revision,
    variables: Mapping[str, str],
    options: Options,
    unmerged: bool = False,
    image_digest: str | None = None,
) -> Iterator[Prepared]:
    """Plan a commit; `unmerged` as if the environment's refs let it in. The loader, where one was needed, stays open for the with-block: creating deployments needs it."""
    history = site.ledger.history()
    check_tenancy(site)
    back = _back(site, repository, revision.commit, options.only_forward)
    with ExitStack() as stack:
        if isinstance(back, str):
            yield _overtaken(site, revision, history, options, back)
            return
        names: dict[str, str] = {}
        faults: list[Problem] = []
        loader, found = None, None
        recorded = site.ledger.specification(back) if back else None
        if recorded is None:
            recorded, found, faults = _recorded(site, repository, revision.commit, variables, image_digest)
        if recorded is None:
            if found is None:
                raise invalid(faults)
            loader, recorded, request = _load(stack, site, repository, revision, found, variables)
            names = {r.name: n for r, n in _names(recorded, request)}
        prepared = from_specification(site, recorded, revision, history, variables, options)
        prepared.loader, prepared.names = loader, names
        if back:
            newest = site.ledger.newest()
            prepared.restores, prepared.rollback_of = back.number, newest.number if newest else None
        if options.only_forward and not back and (doubt := _doubt(site, repository, revision.commit)):
            prepared.plan = replace(prepared.plan, notices=(*prepared.plan.notices, doubt))
        if not unmerged:
            _check_ref(prepared, repository, revision)
        _check_tag(prepared, repository, revision)
        yield prepared


def from_specification(
    site: Site,
    recorded: Specification,
    revision: Revision,
    history: History,
    variables: Mapping[str, str],
    options: Options,
) -> Prepared:
    """A specification -> a plan: no flow, no checkout, no dependency of the flows is needed."""
    secrets, unmanaged = desired.with_secrets(recorded, variables)
    if found := desired.leaks(list(recorded.resources), secrets):
        raise InvalidInput(
            f"{'; '.join(found)}. Everybody can read it there: use a Secret block inside the flow instead. Nothing was touched."
        )
    wanted = [*(_whole(r, site.client, history) for r in recorded.resources), *secrets]
    world = read_world(site, wanted, unmanaged, history)
    _check_pools(site, wanted)
    _check_queues(wanted, world.live)
    _check_job_variables(site.client, wanted, world.live)
    planned = plan.plan(
        wanted, unmanaged, world, history, site.scope, site.environment.policy, revision.commit, revision.ref, options
    )
    return Prepared(site, planned, recorded, wanted, unmanaged, history, options)


def _whole(resource: Resource, client: Client, history: History) -> Resource:
    """A pool whose job template we set once and no longer declare gets its type's own back, as a new pool would."""
    if resource.kind != "work_pool" or "base_job_template" in resource.fields:
        return resource
    if not any("base_job_template" in base for base in history.of(resource.key)):
        return resource
    template = prefect_api.pools.default_template(client, resource.fields["type"])
    return replace(resource, fields={**resource.fields, "base_job_template": template})


def _overtaken(site: Site, revision: Revision, history: History, options: Options, why: str) -> Prepared:
    nothing = Plan(site.environment.name, revision.commit, revision.ref, history.base, (), 0, (), (why,))
    empty = Specification(site.scope.project, site.environment.name, revision.commit, "", ())
    return Prepared(site, nothing, empty, [], [], history, options, overtaken=why)


def _back(site: Site, repository: Repository, commit: str, only_forward: bool) -> Release | str | None:
    """In production, or with `only_forward`: the release that this commit goes back to, or the reason why it is
    too late for it.

    A commit that the live one is an ancestor of goes forward, also when it was live once before.
    """
    live = site.ledger.live()
    strict = site.environment.mode == "production"
    if not (strict or only_forward) or live is None or live.commit == commit:
        return None
    known = repository.knows(live.commit)
    if known and repository.is_ancestor(live.commit, commit):
        return None
    if before := site.ledger.of_commit(commit):
        return before
    if known and repository.is_ancestor(commit, live.commit):
        return (
            f"{commit[:12]} is older than what is live in {site.environment.name} (release {live.number}, "
            f"{live.commit[:12]}) and was never released there: a newer commit has overtaken it. Nothing was written."
        )
    if strict and (not known or repository.shallow()):
        raise InvalidInput(
            f"Whether {commit[:12]} is older than what is live in {site.environment.name} ({live.commit[:12]}) cannot be told "
            f"from this clone. Fetch the whole history (fetch-depth: 0), or that commit: git fetch origin {live.commit}. Nothing was touched."
        )
    return None


def _doubt(site: Site, repository: Repository, commit: str) -> str | None:
    """Where nothing is refused for it: does this clone know too little to keep an older commit back?"""
    live = site.ledger.live()
    if live is None or live.commit == commit:
        return None
    known = repository.knows(live.commit)
    if known and (repository.is_ancestor(live.commit, commit) or not repository.shallow()):
        return None
    return (
        f"whether this is older than what is live ({live.commit[:12]}) cannot be told from this clone. "
        f"To be sure, fetch the whole history, or that commit: git fetch origin {live.commit}."
    )


def _recorded(
    site: Site, repository: Repository, commit: str, variables: Mapping[str, str], image_digest: str | None
) -> tuple[Specification | None, Contents | None, list[Problem]]:
    """The ledger's specification of this commit, if it was made from the same files and variables."""
    tree = Tree.at(repository, commit)
    releases = [r for r in site.ledger.releases() if r.commit == commit]
    try:
        own = project.readable(repository, site.environment.name)
        found, faults = project.contents(tree, site.environment.name, variables, own)
    except InvalidInput:
        if not releases:
            raise
        found, faults = None, []
    if found is None:
        best = next((r for r in releases if r.succeeded), None)
        return (site.ledger.specification(best) if best else None), None, faults
    environment = _governed(found.environment, site.environment)
    if image_digest:
        environment = environment.model_copy(update={"source": source.pinned(environment.source, image_digest)})
    found = replace(found, environment=environment)
    inputs = desired.inputs_of(_request(site, found, commit), found.environment, site.scope)
    for release in releases:
        spec = site.ledger.specification(release)
        if spec and spec.inputs == inputs:
            return spec, found, []
    return None, found, []


def _governed(theirs: Environment, own: Environment) -> Environment:
    """Where to deploy, what may be deployed and how strictly are decided by today's checkout, never by the commit."""
    return theirs.model_copy(update={key: getattr(own, key) for key in ("api", "refs", "policy", "mode", "project")})


def _request(site: Site, found: Contents, commit: str) -> Request:
    code = source.code(desired.source_in(found.environment, site.scope), commit)
    return desired.request(found.environment, found.declared, code, commit, site.scope)


def _load(
    stack: ExitStack,
    site: Site,
    repository: Repository,
    revision: Revision,
    found: Contents,
    variables: Mapping[str, str],
) -> tuple[Loader, Specification, Request]:
    request = _request(site, found, revision.commit)
    api = site.environment.api
    known = {"api.key": api.key, "api.auth_string": api.auth_string}
    known |= {f"the secret '{name}'": value_of(text, variables) for name, text in found.environment.secrets.items()}
    if fault := desired.told_too_much(request, known):
        raise InvalidInput(f"{fault} Nothing was touched.")
    checkout = stack.enter_context(repository.checkout(revision.commit))
    loader = stack.enter_context(loading.open_loader(checkout))
    prefect_api.deployments.early(site.client, site.scope.tags)  # importing takes as long as reading
    spec = specify(loader, site.scope, found, request, revision.commit)
    return loader, spec, request


def specify(loader: Loader, scope: Scope, found: Contents, request: Request, commit: str) -> Specification:
    """Ask the loader; its faults are problems of the files."""
    answer = loader.load(request)
    if problems := desired.loader_problems(answer, found.declared, found.file):
        raise invalid(problems)
    inputs = desired.inputs_of(request, found.environment, scope)
    return desired.specification(found.environment, request, answer, found.templates, scope, commit, inputs)


def import_faults(found: Iterable[Contents], commit: str, folder: Path) -> list[Problem]:
    """Import the flows of a tree's files, and do nothing else with them: what is wrong in any environment, each at its line."""
    with loading.open_loader(folder) as loader:
        return [problem for contents in found for problem in _import_faults(loader, contents, commit)]


def _import_faults(loader: Loader, found: Contents, commit: str) -> list[Problem]:
    environment = found.environment
    scope = Scope(environment.owner, environment.name, environment.api.shared)
    code = source.code(desired.source_in(environment, scope), commit)
    request = desired.request(environment, found.declared, code, commit, scope)
    try:
        return desired.loader_problems(loader.load(request), found.declared, found.file)
    except InvalidInput as error:
        return [Problem(found.file.file, None, "", str(error))]


def _names(spec: Specification, request: Request) -> list[tuple[Resource, str]]:
    """Deployments and their catalogue names, in the order of the request."""
    resources = [r for r in spec.resources if r.kind == "deployment"]
    return list(zip(resources, [item["name"] for item in request.deployments], strict=True))


def _check_ref(prepared: Prepared, repository: Repository, revision: Revision) -> None:
    """Only what the environment's refs let in; a preview is for what they don't."""
    site = prepared.site
    if site.scope.preview or prepared.restores or repository.allowed_by(revision.commit, site.environment.refs):
        return
    refs = site.environment.refs
    allowed = ", ".join([f"branch {p}" for p in refs.branches] + [f"tag {p}" for p in refs.tags]) or "nothing"
    here = (
        ", ".join(r.removeprefix("refs/heads/").removeprefix("refs/tags/") for r in repository.refs_of(revision.commit))
        or "no branch or tag"
    )
    message = f"{revision.commit[:12]} ({revision.ref}) may not be deployed to {site.environment.name}, which takes {allowed}; the commit is on {here}."
    prepared.plan = replace(prepared.plan, refusals=(*prepared.plan.refusals, Refusal("ref", message)))


def _check_tag(prepared: Prepared, repository: Repository, revision: Revision) -> None:
    """A tag that was released does not move: whoever rolls back to it must get what it was."""
    name = revision.ref.removeprefix("refs/tags/")
    if not repository.has_tag(name):
        return
    site = prepared.site
    known = (r for r in site.ledger.releases() if r.succeeded and r.ref.removeprefix("refs/tags/") == name)
    before = next((r for r in known if r.commit != revision.commit), None)
    if before:
        message = f"{name} was released to {site.environment.name} as {before.commit[:12]} (release {before.number}), and now names {revision.commit[:12]}. A released tag does not move: make a new one."
        prepared.plan = replace(prepared.plan, refusals=(*prepared.plan.refusals, Refusal("moved-tag", message)))


def _check_pools(site: Site, wanted: list[Resource]) -> None:
    """A preview uses its environment's pools, and makes none."""
    named = {r.fields["work_pool"] for r in wanted if r.kind == "deployment"}
    missing = named - {r.name for r in wanted if r.kind == "work_pool"}
    missing -= {live.name for live in prefect_api.pools.read(site.client, missing)}
    if missing:
        env = site.environment.name
        raise InvalidInput(
            f"{site.client.url} has no work pool {', '.join(sorted(missing))}. {env}'s deploys make it: apply --env {env} first. Nothing was touched."
        )


def _queues(wanted: list[Resource]) -> dict[Key, list[str]]:
    """The queues that deployments name -> those deployments. Every pool has its default queue."""
    found: dict[Key, list[str]] = {}
    for r in wanted:
        if r.kind == "deployment" and r.fields.get("work_queue", "default") != "default":
            found.setdefault(("work_queue", f"{r.fields['work_pool']}/{r.fields['work_queue']}"), []).append(r.name)
    return found


def _check_queues(wanted: list[Resource], live: Mapping[Key, Live]) -> None:
    """A misspelt queue would be created without a word, and no worker would ever look at it."""
    there = {r.key for r in wanted} | set(live)
    missing = [
        f"{names[0]} names the work queue {key[1]}" for key, names in _queues(wanted).items() if key not in there
    ]
    if missing:
        raise InvalidInput(
            f"{'; '.join(missing)}, which is neither there nor declared. Declare it under the pool's `queues`. Nothing was touched."
        )


def _check_job_variables(client: Client, wanted: list[Resource], live: Mapping[Key, Live]) -> None:
    """Do the job variables fit the pool's template? Prefect says so only at that deployment's turn."""
    pools = {r.name: r for r in wanted if r.kind == "work_pool"}
    templates = {name: r.fields["base_job_template"] for name, r in pools.items() if r.fields.get("base_job_template")}
    problems = []
    for resource in wanted:
        if resource.kind != "deployment":
            continue
        pool, given = resource.fields["work_pool"], resource.fields["job_variables"]
        if given and not templates.get(pool):
            templates[pool] = _template(client, pools.get(pool), live.get(("work_pool", pool)))
        found = template.unfit(pool, templates.get(pool, {}), given, live=True)  # a declared one is judged by now
        problems += [f"{resource.name}: {why}" for _, why in found]
    if problems:
        raise InvalidInput(f"{' '.join(problems)} Nothing was touched.")


def _template(client: Client, pool: Resource | None, live: Live | None) -> Mapping[str, Any]:
    """The pool's base job template: the declared one, else the live one, else what a new pool of its type gets."""
    declared = pool.fields.get("base_job_template") if pool else None
    there = live.fields["base_job_template"] if live else None
    return declared or there or (prefect_api.pools.default_template(client, pool.fields["type"]) if pool else {})


def check_published(prepared: Prepared, repository: Repository, variables: Mapping[str, str]) -> str | None:
    """Can workers clone the commit? False stops an apply; a remote that cannot be asked is only said."""
    environment = prepared.site.environment
    if environment.source.strategy not in ("git", "cached") or prepared.restores:
        return None
    url = environment.source.repository or ""
    credentials = environment.source.credentials
    token = value_of(environment.secrets.get(credentials or "", ""), variables)
    state = repository.published(url, prepared.plan.commit, token)
    if state is False:
        raise InvalidInput(
            f"Workers cannot clone {prepared.plan.commit[:12]}: nothing at {url} reaches it. Push it first. Nothing was touched."
        )
    return (
        None
        if state
        else f"whether {url} has {prepared.plan.commit[:12]} cannot be told from here; workers will find out."
    )
