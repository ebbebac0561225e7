"""A stage for the engine: a fake API, an environment and a catalogue as plain data, and no process but this one.

    stage = Stage(fake)
    result = stage.apply(config(deployment("hello"), variables={"colour": "red"}))
    stage.plan(config(deployment("hello"))).writes        # what an apply would write now

Flows are not imported: StandIn answers in the loader's place, and creates through the relay as Prefect's deploy() does.
command.py has the same through the command line, on a scratch Git repository.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployer import loading, prepare
from deployer.apply import Author, Result, apply
from deployer.catalog import Declaration, Declared
from deployer.desired import LOADERS_PLACEHOLDER
from deployer.environment import Environment
from deployer.model import Plan, Release
from deployer.plan import Options
from deployer.prefect_api import Client, Retry
from deployer.prefect_api.relay import Relay
from deployer.prepare import Prepared, Site
from deployer.project import Contents
from deployer.revision import Revision
from deployer.yamlfile import Document
from tests.fake_prefect import FakePrefect

URL = "http://fake-prefect/api"
AUTHOR = Author("ada", "https://ci.example.invalid/runs/1", "0.1.0")
AT_ONCE = Retry(base=0.0)
A, B, C = "a" * 40, "b" * 40, "c" * 40


# -- what somebody wants


@dataclass(frozen=True)
class Config:
    """The catalogue, and what the environment file says beside the obligatory keys."""

    deployments: tuple[Mapping[str, Any], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    templates: Mapping[str, Any] = field(default_factory=dict)
    """Pool's key -> base job template, as read from its file."""

    def contents(self) -> Contents:
        blank = {
            "name": "dev",
            "mode": "development",
            "api": {"url": URL},
            "refs": {"branches": ["main"]},
            "source": {"strategy": "git", "repository": "https://git.example.invalid/team/scratch.git"},
            "work_pools": {"alpha": {"name": "dev-alpha", "type": "process"}},
        }
        environment = Environment.model_validate({**blank, **self.settings})
        document = Document("flows/alpha/deployments.yaml", list(self.deployments))
        found = [Declaration.model_validate(item) for item in self.deployments]
        declared = [Declared(item, document, index) for index, item in enumerate(found)]
        return Contents(environment, sorted(declared, key=lambda d: d.declaration.name), self.templates)


def config(*deployments: Mapping[str, Any], **settings: Any) -> Config:
    return Config(deployments, settings)


def deployment(name: str = "hello", **changes: Any) -> dict[str, Any]:
    return {"name": name, "entrypoint": f"flows/alpha/{name}.py:{name.replace('-', '_')}", "pool": "alpha", **changes}


# -- in place of the loader


class StandIn:
    """Answers as loader.py does. Its flows take any parameter, and bear the entrypoint's name."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Any]] = {}
        self.clone: Any = None
        self.steps: list[Any] = []

    def load(self, request: Any) -> dict[str, Any]:
        self.clone, self.steps = request.clone, request.steps
        self.items = {item["name"]: item for item in request.deployments}
        return {
            "deployments": {name: self._answer(item) for name, item in self.items.items()},
            "automations": {a["name"]: _automation(a) for a in request.automations},
        }

    def create(self, names: list[str], relay: Relay) -> dict[str, Any]:
        faults = {}
        for name in names:
            try:
                self._deploy(self.items[name], relay)
            except ValueError as error:
                faults[name] = str(error)
        return {"faults": faults}

    def _answer(self, item: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "flow_name": item["entrypoint"].rsplit(":", 1)[1].replace("_", "-"),
            "entrypoint": item["entrypoint"],
            "description": str(item["description"]),
            "pull_steps": [{"prefect.deployments.steps.git_clone": self.clone}] if self.clone else self.steps,
            "parameter_openapi_schema": {"title": "Parameters", "type": "object", "properties": {}},
            "parameters": item["parameters"],
            "job_variables": item["job_variables"],
            "triggers": [_trigger(t) for t in item["triggers"]],
        }

    def _deploy(self, item: Mapping[str, Any], relay: Relay) -> None:
        """The calls of `.deploy()` for a new deployment, in its order."""
        answer = self._answer(item)
        limit = item["concurrency_limit"]
        options = {k: v for k, v in limit.items() if k != "limit" and v is not None} if isinstance(limit, dict) else {}
        body = {
            **{k: answer[k] for k in ("entrypoint", "description", "pull_steps", "parameter_openapi_schema")},
            **{k: item[k] for k in ("version", "tags", "parameters", "job_variables", "work_pool_name", "paused")},
            "name": item["deployment_name"],
            "work_queue_name": item["work_queue_name"],
            "enforce_parameter_schema": item["enforce_parameter_schema"],
            "schedules": [_schedule(s) for s in item["schedules"]],
            "concurrency_limit": limit["limit"] if isinstance(limit, dict) else limit,
            "concurrency_options": options or None,
        }
        _asked(relay, "GET", f"/work_pools/{item['work_pool_name']}")
        flow = _asked(relay, "POST", "/flows/", {"name": answer["flow_name"]})
        made = _asked(relay, "POST", "/deployments/", {**body, "flow_id": flow["id"]})
        owner = f"prefect.deployment.{made['id']}"
        _asked(relay, "DELETE", f"/automations/owned-by/{owner}")
        for trigger in answer["triggers"]:
            trigger["actions"][0]["deployment_id"] = made["id"]
            _asked(relay, "POST", "/automations/", {**trigger, "owner_resource": owner})


def _asked(relay: Relay, method: str, path: str, body: Any = None) -> Any:
    status, answer = relay.forward(method, path, body)
    if status >= 400:
        raise ValueError(answer["detail"])
    return answer


def _schedule(item: Mapping[str, Any]) -> dict[str, Any]:
    kind = next(key for key in ("cron", "interval", "rrule") if item[key] is not None)
    extra = {"cron": "day_or", "interval": "anchor_date"}.get(kind)
    rule = {kind: item[kind], "timezone": item["timezone"] or (None if kind == "cron" else "UTC")}
    rule |= {extra: item[extra]} if extra and item[extra] is not None else {}
    return {"schedule": rule, **{key: item[key] for key in ("active", "slug", "parameters")}}


def _trigger(given: Mapping[str, Any]) -> dict[str, Any]:
    run = {"type": "run-deployment", "source": "selected", "deployment_id": LOADERS_PLACEHOLDER}
    action = {**run, "parameters": given.get("parameters")}
    event = {"posture": "Reactive", "expect": given["expect"], "match": given.get("match", {})}
    return _automation({**given, "trigger": event, "actions": [action]})


def _automation(given: Mapping[str, Any]) -> dict[str, Any]:
    """With the defaults that Prefect's own model fills in."""
    run = {"parameters": None, "job_variables": None, "schedule_after": 0.0}
    event = {"type": "event", "match_related": {}, "after": [], "for_each": [], "threshold": 1, "within": 0.0}
    return {
        "name": given["name"],
        "description": given.get("description", ""),
        "enabled": given.get("enabled", True),
        "tags": list(given.get("tags", [])),
        "trigger": {"match": {}, **event, **given["trigger"]},
        "actions": [{**run, **a} if a["type"] == "run-deployment" else dict(a) for a in given["actions"]],
        "actions_on_trigger": list(given.get("actions_on_trigger", [])),
        "actions_on_resolve": list(given.get("actions_on_resolve", [])),
    }


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """No process is started to import flows. Gives the checkouts for which one would have been."""
    opened: list[Path] = []

    @contextmanager
    def open_loader(checkout: Path) -> Iterator[StandIn]:
        opened.append(checkout)
        yield StandIn()

    monkeypatch.setattr(loading, "open_loader", open_loader)
    return opened


# -- the engine at work


class Killed(BaseException):
    """The process is gone: what runs on a failure does not run."""


class Wire(httpx.BaseTransport):
    """The way to the fake. `faults`: number of the request, from 1 on -> "503", "drop", "timeout" or "kill", with
    " after" when only the answer is lost."""

    def __init__(self, fake: FakePrefect, faults: Mapping[int, str] | None = None) -> None:
        self.fake = fake
        self.faults = dict(faults or {})
        self.count = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.count += 1
        request.read()
        how, _, after = self.faults.get(self.count, "").partition(" ")
        if not how:
            return self.fake.handle(request)
        if after:
            self.fake.handle(request)
        if how == "kill":
            raise Killed
        if how == "drop":
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.", request=request)
        if how == "timeout":
            raise httpx.ReadTimeout("timed out", request=request)
        return httpx.Response(int(how), json={"exception_message": "Service Unavailable"})


@dataclass
class Stage:
    """One project's environment on one fake API. Each method is a deploy of its own: nothing is kept between them."""

    fake: FakePrefect
    variables: Mapping[str, str] = field(default_factory=dict)
    recorded: bool = False
    """Create as from a recorded specification, and not through the loader."""
    preview: str | None = None
    at_a_time: int = 1
    """One after the other, so that the n-th request is the same one in every run."""

    @contextmanager
    def site(self, wanted: Config | None = None, faults: Mapping[int, str] | None = None) -> Iterator[Site]:
        environment = (wanted or Config()).contents().environment
        client = Client(environment.api, Wire(self.fake, faults), AT_ONCE, sleep=lambda seconds: None)
        with prepare.open_site(environment, self.preview, client) as site:
            yield site

    def prepare(self, site: Site, wanted: Config, commit: str, options: Options) -> Prepared:
        loader: Any = StandIn()
        found = wanted.contents()
        request = prepare._request(site, found, commit)
        spec = prepare.specify(loader, site.scope, found, request, commit)
        revision, history = Revision(commit, commit), site.ledger.history()
        prepared = prepare.from_specification(site, spec, revision, history, self.variables, options)
        if not self.recorded:
            prepared.loader = loader
            prepared.names = {r.name: name for r, name in prepare._names(spec, request)}
        return prepared

    def plan(self, wanted: Config, commit: str = A, **options: bool) -> Plan:
        with self.site(wanted) as site:
            return self.prepare(site, wanted, commit, Options(**options)).plan

    def apply(
        self, wanted: Config, commit: str = A, faults: Mapping[int, str] | None = None, **options: bool
    ) -> Result:
        with self.site(wanted, faults) as site:
            return apply(self.prepare(site, wanted, commit, Options(**options)), AUTHOR, at_a_time=self.at_a_time)

    def rollback(self, wanted: Config, number: int) -> Result:
        """As the verb does it, under the policy of `wanted`."""
        with self.site(wanted) as site:
            live, goal = site.ledger.live(), site.ledger.numbered(number)
            spec = site.ledger.specification(goal) if goal else None
            assert live and goal and spec
            revision, history = Revision(goal.commit, goal.ref), site.ledger.history()
            prepared = prepare.from_specification(site, spec, revision, history, self.variables, Options())
            prepared.restores, prepared.rollback_of = goal.number, live.number
            return apply(prepared, AUTHOR, at_a_time=self.at_a_time)

    def releases(self) -> list[Release]:
        """Newest first."""
        with self.site() as site:
            return list(site.ledger.releases())


# -- what is there afterwards


def state(fake: FakePrefect) -> dict[tuple[str, str], Any]:
    """Everything on the API in its own words, without ids and times: two states that do the same are equal."""
    with fake.backstage as client:
        flows = {f["id"]: f["name"] for f in _all(client, "/flows/filter")}
        deployments = _all(client, "/deployments/filter")
        pools = _all(client, "/work_pools/filter")
        queues = [(p["name"], q) for p in pools for q in _all(client, f"/work_pools/{p['name']}/queues/filter")]
        blocks = _all(client, "/block_documents/filter", {"include_secrets": True})
        limits = _all(client, "/v2/concurrency_limits/filter")
        automations = _all(client, "/automations/filter")
        variables = _all(client, "/variables/filter")
    names = {d["id"]: f"{flows[d['flow_id']]}/{d['name']}" for d in deployments}
    owned = {name for d in deployments if (name := (d["global_concurrency_limit"] or {}).get("name"))}
    found: dict[tuple[str, str], Any] = {("deployment", names[d["id"]]): _deployment_state(d) for d in deployments}
    for automation in automations:  # names are not unique: a doubled one must show
        found.setdefault(("automation", automation["name"]), []).append(_automation_state(automation, names))
    found |= {("variable", v["name"]): v["value"] for v in variables}
    found |= {("secret", b["name"]): b["data"]["value"] for b in blocks}
    found |= {("concurrency_limit", x["name"]): _picked(x, LIMIT) for x in limits if x["name"] not in owned}
    found |= {("work_pool", p["name"]): _picked(p, POOL) for p in pools}
    found |= {
        ("work_queue", f"{pool}/{q['name']}"): {**_picked(q, QUEUE), "description": q["description"] or ""}
        for pool, q in queues
    }
    for kind, name in found:
        if kind == "automation":
            found[kind, name].sort(key=repr)
    return found


LIMIT = ("limit", "slot_decay_per_second", "active")
POOL = ("type", "description", "concurrency_limit", "base_job_template", "is_paused")
QUEUE = ("description", "concurrency_limit", "priority", "is_paused")
DEPLOYMENT = (
    *("version", "description", "paused", "tags", "parameters", "job_variables", "entrypoint", "pull_steps"),
    *("parameter_openapi_schema", "enforce_parameter_schema", "work_pool_name", "work_queue_name", "path"),
)


def schedule_ids(fake: FakePrefect) -> set[str]:
    with fake.backstage as client:
        return {s["id"] for d in _all(client, "/deployments/filter") for s in d["schedules"]}


def _all(client: httpx.Client, path: str, body: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    while page := client.post(path, json={**(body or {}), "offset": len(rows)}).raise_for_status().json():
        rows += page
    return rows


def _picked(row: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: row[name] for name in names}


def _deployment_state(row: Mapping[str, Any]) -> dict[str, Any]:
    limit = row["global_concurrency_limit"]
    schedules = [
        {"slug": s["slug"], "active": s["active"], "parameters": s["parameters"], **_rule(s["schedule"])}
        for s in row["schedules"]
    ]
    return {
        **_picked(row, DEPLOYMENT),
        "tags": sorted(row["tags"]),
        "limit": limit and limit["limit"],
        "options": {"collision_strategy": "ENQUEUE", **_set(row["concurrency_options"])} if limit else None,
        "schedules": sorted(schedules, key=repr),
    }


def _set(options: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (options or {}).items() if value is not None}


def _rule(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """Without an anchor of the days in which these tests run, which the server made up; RRULE: goes without saying."""
    rule = {key: value.replace("RRULE:", "") if key == "rrule" else value for key, value in schedule.items()}
    if str(rule.get("anchor_date", "")) > "2025":
        del rule["anchor_date"]
    return rule


def _automation_state(row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    actions = [{**a, "deployment_id": names.get(a.get("deployment_id", ""))} for a in row["actions"]]
    return {
        **_picked(row, ("description", "enabled", "tags", "actions_on_trigger", "actions_on_resolve")),
        "trigger": {key: value for key, value in row["trigger"].items() if key != "id"},
        "actions": actions,
    }
