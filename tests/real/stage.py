"""One environment of one scratch repository on a real server, driven without the command line, with every call counted.

stage.release(entry(schedules=[...]))      # commits these deployments.yaml entries and applies the commit
stage.nothing_left()                       # a second plan is empty, a second apply writes nothing and keeps what is live
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deployer import prepare, project
from deployer.apply import Author, Result, apply
from deployer.environment import Environment
from deployer.model import Plan
from deployer.plan import Options
from deployer.prefect_api import Client
from deployer.prepare import Prepared, Site
from deployer.project import Tree
from deployer.revision import Repository
from tests.repository import Repo
from tests.server import LEASHED, clean_environment, patient_client

FLOWS = '''\
"""Flows of many shapes; nothing here runs."""

from prefect import flow


@flow
def hello(name: str = "x", count: int = 1):
    """Greets."""


@flow
def other(name: str = "x", count: int = 1):
    pass
'''

PLAIN = Options()
READS = ("/filter", "/count", "/csrf-token")
"""Endings of POST endpoints that only read."""

Change = Callable[[httpx.Request], httpx.Response | None]


class Wire(httpx.BaseTransport):
    """Between the client and the server: notes every request, and lets a test answer in the server's place.

    `before` may answer instead of the server, `after` only learns that the server has answered. A request that is made again,
    because SQLite was locked, is noted once.
    """

    def __init__(self, before: Change = lambda request: None, after: Callable[[httpx.Request], None] = lambda r: None):
        self.requests: list[tuple[str, str]] = []
        self.before = before
        self.after = after
        self._unanswered: list[tuple[str, str]] = []
        self._server = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        call = request.method, request.url.path.removeprefix("/api")
        try:
            self._unanswered.remove(call)
        except ValueError:
            self.requests.append(call)
        if answer := self.before(request):
            return answer
        try:
            answer = self._server.handle_request(request)
            answer.read()
        except httpx.TransportError:
            self._unanswered.append(call)
            raise
        if answer.status_code == 503:
            self._unanswered.append(call)
        self.after(request)
        return answer

    def forget(self) -> None:
        """What was noted until now."""
        self.requests.clear()
        self._unanswered.clear()

    @property
    def writes(self) -> list[tuple[str, str]]:
        return [(m, path) for m, path in self.requests if m != "GET" and not (m == "POST" and path.endswith(READS))]

    def close(self) -> None:
        self._server.close()


def entry(**changes: Any) -> dict[str, Any]:
    """One entry of a deployments.yaml."""
    return {"name": "hello", "entrypoint": "flows/alpha/flows.py:hello", "pool": "alpha", **changes}


@dataclass
class Stage:
    url: str
    repo: Repo
    name: str
    """Unique on the server: the project, the start of every pool's and deployment's name."""

    variables: dict[str, str] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    wire: Wire = field(default_factory=Wire)

    def entry(self, **changes: Any) -> dict[str, Any]:
        return entry(**{**changes, "name": self.named(changes.get("name", "hello"))})

    def named(self, name: str) -> str:
        return f"{self.name}-{name}"

    def commit(self, *entries: Mapping[str, Any], files: Mapping[str, str] | None = None) -> str:
        texts = {
            "environments/dev.yaml": yaml.safe_dump(self._environment(), sort_keys=False),
            "flows/alpha/deployments.yaml": yaml.safe_dump([dict(e) for e in entries], sort_keys=False),
            "flows/alpha/flows.py": FLOWS,
        }
        return self.repo.commit(files={**texts, **(files or {})})

    def _environment(self) -> dict[str, Any]:
        base: dict[str, Any] = {
            "name": "dev",
            "mode": "development",
            "project": self.name,
            "api": {"url": "${PREFECT_API_URL}"},
            "refs": {"branches": ["main"]},
            "source": {"repository": "https://git.example.invalid/team/scratch.git"},
            "work_pools": {
                "alpha": {"name": self.named("pool"), "type": "process", "queues": {"fast": {}}},
                "beta": {"name": self.named("pool-b"), "type": "process", "queues": {"fast": {}}},
            },
        }
        return {**base, **self.environment}

    @property
    def known(self) -> dict[str, str]:
        return {"PREFECT_API_URL": self.url, **self.variables}

    @contextmanager
    def site(self) -> Iterator[Site]:
        tree = Tree.working(self.repo.path)
        found: Environment = project.load_environment(tree, "dev", self.known)
        client = Client(found.api, transport=self.wire)
        with prepare.open_site(found, client=client) as site:
            yield site

    def carry_out(self, prepared: Prepared) -> Result:
        assert not prepared.plan.refusals, prepared.plan.refusals
        return apply(prepared, Author("test", "", "0"))

    @contextmanager
    def prepared(self, ref: str = "HEAD", options: Options = PLAIN) -> Iterator[Prepared]:
        repository = Repository.find(self.repo.path)
        with (
            self.site() as site,
            prepare.prepare(site, repository, repository.resolve(ref), self.known, options) as found,
        ):
            yield found

    def plan(self, ref: str = "HEAD", **options: bool) -> Plan:
        with self.prepared(ref, Options(**options)) as found:
            return found.plan

    def apply(self, ref: str = "HEAD", **options: bool) -> Result:
        with self.prepared(ref, Options(**options)) as found:
            return self.carry_out(found)

    def release(self, *entries: Mapping[str, Any], **options: bool) -> Plan:
        """Commit these entries, apply the commit; the plan that was applied."""
        self.commit(*entries)
        with self.prepared(options=Options(**options)) as found:
            result = self.carry_out(found)
            assert result.error is None, result.error
            return found.plan

    def nothing_left(self) -> None:
        """After an apply: the plan is empty, another apply writes nothing, and what is live stays as it is."""
        before = self.everything()
        self.wire.forget()
        with self.prepared() as found:
            assert found.plan.writes == ()
            result = self.carry_out(found)
        assert (result.error, result.outcomes, result.release) == (None, (), None)
        assert self.wire.writes == []
        assert self.everything() == before

    # -- what is live, as the server tells it

    @property
    def api(self) -> httpx.Client:
        return patient_client(self.url)

    def end(self) -> None:
        """Leave nothing behind that the server's scheduler would go on making runs for."""
        for deployment in self.deployments().values():
            self.ask("DELETE", f"/deployments/{deployment['id']}")

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        with self.api as api:
            answer = api.request(method, path, json=body)
        assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def deployments(self) -> dict[str, dict[str, Any]]:
        """All of this stage, by name without the stage's prefix."""
        found = self.ask("POST", "/deployments/filter", {"deployments": {"tags": {"all_": [f"project:{self.name}"]}}})
        return {d["name"].removeprefix(f"{self.name}-"): d for d in found}

    def deployment(self, name: str = "hello") -> dict[str, Any]:
        return self.deployments()[name]

    def schedules(self, name: str = "hello") -> dict[str, dict[str, Any]]:
        """By slug; those without one by their rule."""
        return {s["slug"] or _rule(s["schedule"]): s for s in self.deployment(name)["schedules"]}

    def automations(self, name: str = "hello") -> dict[str, dict[str, Any]]:
        found = self.ask("GET", f"/automations/related-to/prefect.deployment.{self.deployment(name)['id']}")
        return {a["name"]: a for a in found}

    def runs(self, name: str = "hello") -> list[dict[str, Any]]:
        """Scheduled runs, by time."""
        return runs_of(self.ask, self.deployment(name)["id"])

    def run_at(self, moment: datetime, name: str = "hello") -> dict[str, Any]:
        return next(run for run in self.runs(name) if at(run) == moment)

    def make_runs(self, since: datetime, until: datetime, name: str = "hello") -> None:
        """Those of the past are late ones, as if no worker had been there."""
        span = {"start_time": since.isoformat(), "end_time": until.isoformat()}
        self.ask("POST", f"/deployments/{self.deployment(name)['id']}/schedule", span)

    def begin(self, run: Mapping[str, Any], state: str = "RUNNING", name: str | None = None) -> None:
        """As a worker does: PENDING when it takes the run, up to its prefetch time ahead."""
        body = {"state": {"type": state, "name": name or state.capitalize()}, "force": True}
        self.ask("POST", f"/flow_runs/{run['id']}/set_state", body)

    def everything(self) -> dict[str, Any]:
        """All fields of all deployments but the times at which a server or a scheduler looked at them."""
        moving = ("updated", "last_polled", "status")
        return {name: {k: v for k, v in d.items() if k not in moving} for name, d in self.deployments().items()}


def at(run: Mapping[str, Any]) -> datetime:
    """When a run is due."""
    return datetime.fromisoformat(run["expected_start_time"].replace("Z", "+00:00"))


def runs_of(ask: Callable[..., Any], deployment: str) -> list[dict[str, Any]]:
    body = {"flow_runs": {"deployment_id": {"any_": [deployment]}}, "sort": "EXPECTED_START_TIME_ASC"}
    found: list[dict[str, Any]] = []
    while page := ask("POST", "/flow_runs/filter", {**body, "limit": 200, "offset": len(found)}):
        found += page
    return found


def _rule(schedule: Mapping[str, Any]) -> str:
    return str(next(schedule[key] for key in ("cron", "interval", "rrule") if schedule.get(key)))


def paths(plan: Plan, kind: str = "deployment") -> Sequence[str]:
    """The fields that a plan writes, of one kind."""
    return [f.path for c in plan.changes if c.kind == kind for f in c.fields if not f.held]


@contextmanager
def worker(url: str, pool: str, folder: Path) -> Iterator[Path]:
    """A real process worker of the pool, polling every second; its log. It ends with this process, however that ends."""
    folder.mkdir(parents=True)
    log = folder / "worker.log"
    settings = {"PREFECT_API_URL": url, "PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_RUNNER_HEARTBEAT_FREQUENCY": "30"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", LEASHED, "worker", "start", "--pool", pool, "--type", "process", "--name", pool],
            env={**clean_environment(folder), **settings},
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until(lambda: _online(url, pool) or (process.poll() is not None and pytest.fail(log.read_text())), 240)
        yield log
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(15)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _online(url: str, pool: str) -> bool:
    with patient_client(url) as api:
        answer = api.post(f"/work_pools/{pool}/workers/filter", json={})
    return answer.status_code == 200 and any(w["status"] == "ONLINE" for w in answer.json())


def until(true: Callable[[], object], seconds: float) -> None:
    """Look again and again until something holds."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        threading.Event().wait(0.2)


def scratch(server_url: str, folder: Path, name: str, **environment: Any) -> Stage:
    repo = Repo(folder / "repo", {"README.md": "scratch\n"})
    return Stage(server_url, repo, name, environment=environment)
