"""What we create is what `flow.from_source(...).deploy(...)` creates: every field that the API returns, ids and times aside."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from deployer.comparable import instant
from deployer.source import folder_of
from tests.real.stage import Stage
from tests.server import clean_environment

URL = "https://git.example.invalid/team/scratch.git"

TYPES = '''
"""Flows with parameters of many types."""

from datetime import date
from enum import Enum
from typing import Any, Literal, Optional

from prefect import flow
from pydantic import BaseModel


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class Window(BaseModel):
    """A span of days."""

    days: int = 1
    label: str | None = None


@flow
def many(
    count: int,
    share: float = 0.5,
    on: bool = True,
    name: Optional[str] = None,
    symbols: list[str] = ["AAPL"],
    weights: dict[str, float] | None = None,
    day: date = date(2026, 1, 31),
    side: Literal["buy", "sell"] = "buy",
    size: Size = Size.SMALL,
    window: Window = Window(),
    anything: Any = None,
):
    """Takes everything.

    In two paragraphs.
    """


@flow(name="renamed flow", description="Said in the decorator.")
def plain():
    pass


@flow
def undocumented(x=1):
    pass


@flow
def open_ended(first: int = 1, **rest):
    """Takes the rest."""
'''

AT = "flows/alpha/types_of_flows.py:"
ENTRIES: list[dict[str, Any]] = [
    {"name": "bare", "entrypoint": AT + "undocumented"},
    {"name": "renamed", "entrypoint": AT + "plain", "description": "Given | with *marks*, umlauts äöü, and\nlines"},
    {"name": "decorated", "entrypoint": AT + "plain"},
    {"name": "open", "entrypoint": AT + "open_ended", "parameters": {"first": 2, "second": [1, {"a": None}]}},
    {
        "name": "many",
        "entrypoint": AT + "many",
        "parameters": {
            "count": 3,
            "share": 0.25,
            "on": False,
            "name": None,
            "symbols": ["IBM", "MSFT"],
            "weights": {"IBM": 1.5},
            "day": "2026-02-28",
            "side": "sell",
            "size": "large",
            "window": {"days": 7, "label": "week"},
            "anything": [1, "two", None],
        },
        "tags": ["b", "a", "with space"],
        "job_variables": {"env": {"A": "1"}, "working_dir": "/tmp"},
        "queue": "urgent",
    },
    {"name": "partly", "entrypoint": AT + "many", "parameters": {"symbols": []}, "enforce_parameter_schema": False},
    {
        "name": "schedules",
        "entrypoint": AT + "undocumented",
        "schedules": [
            {"slug": "cron", "cron": "0 20 * * 1-5", "timezone": "America/Chicago", "parameters": {"x": 2}},
            {"slug": "both-days", "cron": "0 0 1 * 1", "day_or": False},
            {"slug": "off", "cron": "@daily", "active": False},
            {"slug": "interval", "interval": 900},
            {
                "slug": "anchored",
                "interval": 3600.5,
                "anchor_date": "2026-01-01T06:00:00+01:00",
                "timezone": "Europe/Berlin",
            },
            {"slug": "rule", "rrule": "FREQ=WEEKLY;BYDAY=MO;BYHOUR=6;BYMINUTE=0;BYSECOND=0", "timezone": "Asia/Tokyo"},
            {"slug": "dated", "rrule": "DTSTART:20260101T060000\nRRULE:FREQ=MONTHLY;COUNT=3"},
        ],
    },
    {
        "name": "slugless",
        "entrypoint": AT + "undocumented",
        "schedules": [{"cron": "0 1 * * *"}, {"interval": 60}, {"rrule": "FREQ=DAILY"}],
    },
    {"name": "limited", "entrypoint": AT + "undocumented", "concurrency_limit": 2, "paused": True},
    {
        "name": "cancelling",
        "entrypoint": AT + "undocumented",
        "concurrency_limit": {"limit": 1, "collision_strategy": "CANCEL_NEW", "grace_period_seconds": 600},
    },
    {
        "name": "triggered",
        "entrypoint": AT + "undocumented",
        "triggers": [
            {"expect": ["a.happened"], "match": {"prefect.resource.id": "a.*"}, "parameters": {"x": 5}},
            {
                "name": "NAME-silence",
                "posture": "Proactive",
                "expect": ["beat"],
                "within": 60,
                "threshold": 1,
                "enabled": False,
            },
            {
                "name": "NAME-both",
                "type": "compound",
                "require": "all",
                "within": 3600,
                "triggers": [{"type": "event", "expect": ["one"]}, {"type": "event", "expect": ["two"]}],
            },
        ],
    },
]

DIRECTLY = """
import json, sys
from datetime import datetime
from pathlib import Path
from prefect import flow
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.events import DeploymentTriggerTypes
from prefect.runner.storage import GitRepository
from prefect.schedules import Cron, Interval, RRule
from pydantic import TypeAdapter

given = json.load(sys.stdin)


class Here(GitRepository):
    destination = property(lambda self: Path(given["code"]))

    async def pull_code(self):
        pass


def schedule(s):
    more = {k: s[k] for k in ("slug", "active", "parameters", "timezone") if k in s}
    if "cron" in s:
        return Cron(s["cron"], day_or=s.get("day_or", True), **more)
    if "interval" in s:
        anchor = {"anchor_date": datetime.fromisoformat(s["anchor_date"])} if "anchor_date" in s else {}
        return Interval(s["interval"], **anchor, **more)
    return RRule(s["rrule"], **more)


for e in given["entries"]:
    limit = e.get("concurrency_limit")
    flow.from_source(Here(**given["storage"]), e["entrypoint"]).deploy(
        name=e["name"],
        work_pool_name=given["pool"],
        work_queue_name=e.get("queue"),
        version=given["storage"]["commit_sha"],
        tags=e["tags"],
        parameters=e.get("parameters"),
        job_variables=e.get("job_variables"),
        description=e.get("description"),
        concurrency_limit=ConcurrencyLimitConfig(**limit) if isinstance(limit, dict) else limit,
        paused=e.get("paused"),
        enforce_parameter_schema=e.get("enforce_parameter_schema", True),
        schedules=[schedule(s) for s in e.get("schedules", [])],
        triggers=TypeAdapter(list[DeploymentTriggerTypes]).validate_python(e.get("triggers", [])),
        build=False,
        push=False,
        print_next_steps=False,
        ignore_warnings=True,
    )
"""

ASIDE = {
    "id",
    "name",
    "created",
    "updated",
    "flow_id",
    "deployment_id",
    "work_queue_id",
    "last_polled",
    "created_by",
    "updated_by",
}
"""Ids, times and, since both ways live on one server side by side, the deployment's own name."""


def bare(value: Any, names: tuple[str, ...]) -> Any:
    """Without what differs between any two deployments."""
    if isinstance(value, dict):
        return {k: bare(v, names) for k, v in value.items() if k not in ASIDE}
    if isinstance(value, list):
        return [bare(v, names) for v in value]
    if isinstance(value, str):
        for name in names:
            value = value.replace(name, "NAME")
        value = value.replace("RRULE:", "")  # one notation of two
        return re.sub(r"^DTSTART:\d{8}T\d{6}Z?\n(?=FREQ=(WEEKLY|DAILY))", "", value)
    return value


def answers(stage: Stage, entry: dict[str, Any], name: str) -> dict[str, Any]:
    """All that the API says of one deployment, in an order of its own."""
    found = next(d for d in stage.ask("POST", "/deployments/filter", {"deployments": {"name": {"any_": [name]}}}))
    automations = stage.ask("GET", f"/automations/related-to/prefect.deployment.{found['id']}")
    flow = stage.ask("GET", f"/flows/{found['flow_id']}")
    anchors = {s["interval"]: s for s in entry.get("schedules", []) if "anchor_date" in s}
    for one in found["schedules"]:
        if "interval" in one["schedule"] and one["schedule"]["interval"] not in anchors:
            del one["schedule"]["anchor_date"]
        elif "interval" in one["schedule"]:
            one["schedule"]["anchor_date"] = instant(one["schedule"]["anchor_date"])
    text = json.dumps({**found, "automations": automations, "flow": flow["name"]}).replace(found["id"], "ID")
    plain = bare(json.loads(text), (name,))
    for key in ("schedules", "automations"):
        plain[key].sort(key=lambda one: json.dumps(one, sort_keys=True))
    return dict(plain, tags=sorted(tag for tag in plain["tags"] if not tag.startswith(("project:", "env:"))))


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Where two answers part, down to the value."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = sorted({*ours, *theirs})
        return [
            d for k in keys for d in differences(ours.get(k, "(missing)"), theirs.get(k, "(missing)"), f"{path}.{k}")
        ]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [d for i, pair in enumerate(zip(ours, theirs, strict=True)) for d in differences(*pair, f"{path}[{i}]")]
    return [] if ours == theirs else [f"{path}: {ours!r}, and Prefect: {theirs!r}"]


def named(value: Any, name: str) -> Any:
    return json.loads(json.dumps(value).replace("NAME", name))


def entries_of(stage: Stage) -> list[dict[str, Any]]:
    return [named({**e, "pool": "alpha", "name": stage.named(e["name"])}, stage.named(e["name"])) for e in ENTRIES]


def deploy_directly(stage: Stage, commit: str, prefix: str) -> None:
    """Each by Prefect's documented calls, in a process of its own."""
    entries = [named({**e, "name": prefix + e["name"], "tags": e.get("tags", [])}, prefix + e["name"]) for e in ENTRIES]
    storage = {"url": URL, "commit_sha": commit, "name": f"{folder_of(URL)}-{commit}"}
    given = {"entries": entries, "storage": storage, "pool": stage.named("pool"), "code": str(stage.repo.path)}
    variables = {**clean_environment(stage.repo.path.parent), "PREFECT_API_URL": stage.url}
    done = subprocess.run(
        [sys.executable, "-c", DIRECTLY],
        input=json.dumps(given),
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture
def both(stage: Stage) -> tuple[Stage, str]:
    """The same set twice: by our apply, and by Prefect directly, under a prefix."""
    pool = {"name": stage.named("pool"), "type": "process", "queues": {"urgent": {}}}
    stage.environment = {"work_pools": {"alpha": pool}}
    commit = stage.commit(*entries_of(stage), files={"flows/alpha/types_of_flows.py": TYPES})
    result = stage.apply()
    assert result.error is None, result.error
    prefix = f"direct-{stage.name}-"
    deploy_directly(stage, commit, prefix)
    return stage, prefix


def test_each_deployment_equals_what_prefects_own_deploy_makes(both: tuple[Stage, str]) -> None:
    stage, prefix = both
    theirs = {e["name"]: answers(stage, e, prefix + e["name"]) for e in ENTRIES}
    ours = {e["name"]: answers(stage, e, stage.named(e["name"])) for e in ENTRIES}
    assert differences(ours, theirs) == []

    for found in stage.deployments().values():
        for automation in stage.ask("GET", f"/automations/related-to/prefect.deployment.{found['id']}"):
            stage.ask("DELETE", f"/automations/{automation['id']}")
        stage.ask("DELETE", f"/deployments/{found['id']}")
    assert stage.apply().error is None
    again = {e["name"]: answers(stage, e, stage.named(e["name"])) for e in ENTRIES}
    assert differences(again, theirs) == []
