"""Look at an environment from this machine. Every look stands for itself: what cannot be seen is told, and the rest goes on."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from deployer import desired, diagnosis, prefect_api, prepare, project, waiting
from deployer.desired import Scope
from deployer.environment import Environment
from deployer.errors import DeployError, Refused, Unreachable
from deployer.finding import Finding, ok, problem, unchecked
from deployer.ledger import Ledger
from deployer.model import Release
from deployer.prefect_api import Client, Retry, health
from deployer.prepare import Site
from deployer.project import Tree
from deployer.revision import Repository
from deployer.seen import Deployed, Limit, Pool, Server

PATIENCE = Retry(attempts=4, cap=2.0)
"""Whoever asks what is wrong does not want to wait for it."""

LATE = timedelta(seconds=60)
"""A worker asks for runs every 15 seconds, and the server calls them late after as many."""


ODD = (AttributeError, LookupError, TypeError, ValueError)
"""What comes of an answer in another form: null or a number where a text was, a text where a mapping was."""


def examine(
    environment: Environment, repository: Repository, variables: Mapping[str, str], client: Client | None = None
) -> list[Finding]:
    """A finding or more of each check, in the order of the table below. Reads only."""
    with client or Client(environment.api, retry=PATIENCE) as connected:
        visit = Visit(environment, repository, variables, connected)
        found = visit.greet()
        if shut_out(found):
            told = {f.check for f in found}
            found += [unchecked(check, "the API lets nothing be read") for check, _ in LOOKS if check not in told]
            return [*found, *visit.try_to(Visit.entrypoints, "entrypoints")]
        found += [finding for check, look in LOOKS for finding in visit.try_to(look, check)]
        return [*found, *visit.try_to(Visit.entrypoints, "entrypoints"), *visit.try_to(Visit.last, "clock")]


def shut_out(found: list[Finding]) -> bool:
    """Was the API unreachable, or the key refused? Then next to nothing could be looked at."""
    return any(f.check in ("api", "key") and f.state == "problem" for f in found)


@dataclass
class Visit:
    """One look around. What several checks need is read once."""

    environment: Environment
    repository: Repository
    variables: Mapping[str, str]
    client: Client
    version: str = ""
    kind: str | None = None
    """The server's database, once it is known."""

    def try_to(self, look: Callable[[Visit], list[Finding]], check: str) -> list[Finding]:
        try:
            return look(self)
        except Unreachable as error:
            self.client.hurry()
            return [unchecked(check, str(error))]
        except DeployError as error:
            return [unchecked(check, str(error))]
        except ODD as error:  # a server of another version
            return [
                unchecked(check, f"the server answers in another form than expected ({type(error).__name__}: {error})")
            ]

    # -- what is read

    @cached_property
    def scope(self) -> Scope:
        return Scope(self.environment.owner, self.environment.name, self.environment.api.shared)

    @property
    def name(self) -> str:
        return self.environment.name

    @property
    def production(self) -> bool:
        return self.environment.mode == "production"

    @property
    def at(self) -> datetime:
        """By the server's clock, which all times in its answers are of."""
        return self.client.now()

    @cached_property
    def site(self) -> Site:
        return Site(self.environment, self.scope, self.client, Ledger(self.client, self.scope))

    @cached_property
    def live(self) -> Release | None:
        return self.site.ledger.live()

    @cached_property
    def server(self) -> Server | None:
        return None if self.client.cloud else health.server(self.client)

    @cached_property
    def declared(self) -> dict[str, str]:
        """The environment's pools, as they are called in Prefect -> their types."""
        return {desired.pool_name(self.scope, p.name): p.type for p in self.environment.work_pools.values()}

    @cached_property
    def pools(self) -> dict[str, Pool]:
        return health.pools(self.client, {*self.declared, *(d.pool for d in self.deployed if d.pool)})

    @cached_property
    def deployed(self) -> list[Deployed]:
        """Without previews."""
        answers = prefect_api.deployments.answers(self.client, self.scope.tags, ())
        return [health.deployed(a) for a in answers if self.scope.owns(a["tags"])]

    @cached_property
    def by_id(self) -> dict[str, Deployed]:
        return {d.id: d for d in self.deployed}

    # -- the server

    def greet(self) -> list[Finding]:
        """Without an answer there is nothing to look at."""
        try:
            self.version = prefect_api.greet(self.client)
        except Unreachable as error:
            if error.status is None:
                return [problem("api", str(error), "start the server, or mend api.url (PREFECT_API_URL)")]
            fix = "PREFECT_API_KEY for Prefect Cloud, PREFECT_API_AUTH_STRING (user:password) for a server of your own"
            return [ok("api", f"{self.client.url} answers"), problem("key", str(error), fix)]
        return [ok("api", f"{self.client.url} answers")]

    def versions(self) -> list[Finding]:
        if self.version == prefect_api.CLOUDS:
            return [ok("versions", "Prefect Cloud")]
        return [diagnosis.versions(self.version, importlib.metadata.version("prefect"))]

    def key(self) -> list[Finding]:
        given = bool(self.environment.api.key or self.environment.api.auth_string)
        with suppress(DeployError, *ODD):
            return [diagnosis.key(given, self.server, self.production)]
        if not given:
            return [unchecked("key", "none is given, and the server does not show whether it asks for one")]
        return [diagnosis.key(given, None, self.production)]

    def settings(self) -> list[Finding]:
        if self.server is None:
            return [unchecked("server", "Prefect Cloud's own database, UI and leases")]
        self.kind = diagnosis.database_of(self.server.driver, [p.template for p in self.pools.values()])
        return [
            diagnosis.database(self.kind, self.production),
            diagnosis.ui(self.server, self.client.url),
            diagnosis.leases(self.server, self.production),
        ]

    def last(self) -> list[Finding]:
        """What all the other answers show besides."""
        calls = self.client.calls
        seen = self.client.ahead is not None
        ahead = (self.client.now() - datetime.now(UTC)).total_seconds()
        return [
            diagnosis.clock(ahead) if seen else unchecked("clock", "no answer tells the server's time (Date)"),
            diagnosis.answers(calls.faults, sum(calls.by_endpoint.values()), self.kind),
        ]

    # -- what is released

    def release(self) -> list[Finding]:
        try:
            prepare.check_ledger(self.site)
            prepare.check_tenancy(self.site)
        except Refused as error:
            return [problem("release", str(error), "the address of this environment's own API")]
        owned = sum(not d.retired for d in self.deployed)
        return [diagnosis.release(self.site.ledger.newest(), self.live, owned, self.name)]

    def code(self) -> list[Finding]:
        return [diagnosis.code(self.live, self.deployed, self.environment.source, self.name)]

    def clone(self) -> list[Finding]:
        source = desired.source_in(self.environment, self.scope)
        if source.strategy not in ("git", "cached"):
            return [unchecked("clone", f"workers get the code by source.strategy {source.strategy}")]
        if self.live is None:
            return [unchecked("clone", f"nothing has been released to {self.name} yet")]
        url, commit, block = source.repository or "", self.live.commit, source.credentials
        if block is None:
            return [self._clone_without(url, commit)]
        found = prefect_api.secrets.read(self.client, [block])
        if not found:
            fix = f"create the block, or give the environment file its value: secrets: {{{block}: ...}}, then apply"
            return [problem("clone", f"there is no Secret block '{block}', which source.credentials names", fix)]
        fault = self.repository.fetches(url, commit, found[0].fields["value"].reveal(), ambient=False)
        return [diagnosis.clone(url, commit, fault, login=f" with the token of the block '{block}'")]

    def _clone_without(self, url: str, commit: str) -> Finding:
        """A worker has no credential helper, which this machine may have."""
        fault = self.repository.fetches(url, commit, None, ambient=False)
        only_here = fault is not None and self.repository.fetches(url, commit, None) is None
        return diagnosis.clone(url, commit, fault, only_here)

    def entrypoints(self) -> list[Finding]:
        """At the live commit, where this clone has it; else in the work tree."""
        with self._files() as (tree, folder, where):
            own = project.readable(self.repository, self.name)
            found, problems = project.examine(tree, self.name, self.variables, own)
            if found and not problems:
                problems = prepare.import_faults([found], "0" * 40, folder)
        number = len(found.declared) if found else 0
        return [diagnosis.entrypoints([str(p) for p in problems], number, where)]

    @contextmanager
    def _files(self) -> Iterator[tuple[Tree, Path, str]]:
        live = self._live_here()
        if live is None:
            yield Tree.working(self.repository.path), self.repository.path, "the work tree"
            return
        with self.repository.checkout(live) as folder:
            yield Tree.at(self.repository, live), folder, f"commit {live[:12]}"

    def _live_here(self) -> str | None:
        if not self.version:
            return None
        with suppress(DeployError):
            return self.live.commit if self.live and self.repository.knows(self.live.commit) else None
        return None

    # -- where it runs

    def places(self) -> list[Finding]:
        lines = [diagnosis.pool(n, t, self.pools.get(n), self.at, self.name) for n, t in self.declared.items()]
        return lines + diagnosis.queues(self.pools[name] for name in self.declared if name in self.pools)

    # -- what runs

    def schedules(self) -> list[Finding]:
        due = [d.id for d in self.deployed if d.scheduled]
        return [waiting.schedules(self.deployed, prefect_api.runs.provided(self.client, due, self.at), self.at)]

    def late(self) -> list[Finding]:
        at = self.at
        runs, whole = health.overdue(self.client, self.scope.tags, at - LATE)
        ours = [r for r in runs if r.deployment in self.by_id]
        return waiting.late(ours, whole, self.by_id, self.pools if ours else {}, at)

    def limits(self) -> list[Finding]:
        named = {self.scope.name(name) for name in self.environment.concurrency_limits}
        own: dict[str, Deployed] = {d.limit.name: d for d in self.deployed if d.limit}
        found: list[Limit] = health.limits(self.client, named)
        found += [d.limit for d in own.values() if d.limit]
        idle = self._idle([x for x in found if x.full], own)
        return waiting.limits(found, idle, {name: f"deployment {d.name}" for name, d in own.items()})

    def _idle(self, full: list[Limit], own: Mapping[str, Deployed]) -> set[str]:
        """Those that no run can hold: a deployment's own only its runs, any other whatever runs."""
        held = health.running(self.client, [own[x.name].id for x in full if x.name in own])
        anything = any(x.name not in own for x in full) and health.anything_runs(self.client)
        return {x.name for x in full if not (own[x.name].id in held if x.name in own else anything)}

    def failures(self) -> list[Finding]:
        runs, whole = health.failed(self.client, self.scope.tags, self.at - timedelta(days=1))
        ours = [r for r in runs if r.deployment in self.by_id]
        said = health.errors(self.client, ours[0].id) if ours else ""
        return [waiting.failures(ours, whole, said, self.by_id)]


LOOKS: tuple[tuple[str, Callable[[Visit], list[Finding]]], ...] = (
    ("key", Visit.key),
    ("versions", Visit.versions),
    ("server", Visit.settings),
    ("release", Visit.release),
    ("code", Visit.code),
    ("clone", Visit.clone),
    ("pools", Visit.places),
    ("schedules", Visit.schedules),
    ("late runs", Visit.late),
    ("limits", Visit.limits),
    ("failed runs", Visit.failures),
)
