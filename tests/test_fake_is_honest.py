"""The fake Prefect API does what a real Prefect server does.

First whole conversations, held with both and compared field by field; then one promise a test, made by both.
Names differ from test to test, so that all of them share the one real server.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fake_prefect import FakePrefect
from tests.repository import Repo
from tests.server import Server, clean_environment, patient_client, real_prefect

Json = dict[str, Any]
Unique = Callable[[str], str]

NOBODY = "11111111-1111-1111-1111-111111111111"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)|DTSTART:\d{8}T\d{6}")
# Measured or made up anew each time, or the request said back.
MISSING = "is missing"
VARIES = {"estimated_start_time_delta", "estimated_run_time", "total_run_time", "request_body", "input"}

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "default": "x"}, "count": {"type": "integer"}},
    "required": ["count"],
}
TEMPLATE = {
    "job_configuration": {"command": "{{ command }}", "env": "{{ env }}"},
    "variables": {"type": "object", "properties": {"command": {"type": "string"}, "env": {"type": "object"}}},
}
EVENT = {
    "type": "event",
    "posture": "Reactive",
    "expect": ["prefect.flow-run.Failed"],
    "match": {"prefect.resource.id": "prefect.flow-run.*"},
    "match_related": {"prefect.resource.role": "flow"},
    "for_each": ["prefect.resource.id"],
}


# --- conversations -----------------------------------------------------------------------------------------------


class Conversation:
    """Says things to an API and notes what it answers, with ids and times made comparable."""

    def __init__(self, api: httpx.Client) -> None:
        self.api = api
        self.notes: list[tuple[str, Any]] = []
        self._ids: dict[str, str] = {}

    def __call__(self, method: str, path: str, body: Any = None, briefly: bool = False) -> Any:
        """`briefly`: note the status only, where the wording of a refusal doesn't matter."""
        answer = self.api.request(method, path, **({} if body is None else {"json": body}))
        content = answer.json() if answer.content else None
        note = answer.status_code if briefly else [answer.status_code, self._comparable(content)]
        self.notes.append((f"{len(self.notes)} {method} {path} {body}", note))
        return content

    def _comparable(self, value: Any) -> Any:
        if isinstance(value, dict):
            pairs = sorted((name, part) for name, part in value.items() if name not in VARIES)
            return {name: self._comparable(part) for name, part in pairs}
        if isinstance(value, list):
            return [self._comparable(part) for part in value]
        return self.named(value) if isinstance(value, str) else value

    def named(self, text: str) -> str:
        text = UUID.sub(lambda found: self._ids.setdefault(found[0], f"id-{len(self._ids)}"), text)
        return TIME.sub("time", text)


def told(conversation: Conversation) -> dict[str, Any]:
    """Every leaf of every answer, by what was said and its path."""
    said = ((conversation.named(said), note) for said, note in conversation.notes)
    return {f"{what} -> {path}": value for what, note in said for path, value in flat(note)}


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf by its path, so that a difference names its field."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not parts:
        yield path, value
    for name, part in parts:
        yield from flat(part, f"{path}.{name}")


def differences(ours: Json, theirs: Json) -> str:
    """A line for each leaf in which the fake differs from the real server."""
    keys = [key for key in ours | theirs if ours.get(key, MISSING) != theirs.get(key, MISSING)]
    return "\n".join(f"{key}\n    fake {ours.get(key, MISSING)!r}, real {theirs.get(key, MISSING)!r}" for key in keys)


def about_the_server(say: Conversation, name: str) -> None:
    say("GET", "/health")
    say("GET", "/ready")
    say("GET", "/version")
    say("GET", "/admin/version")
    say("GET", "/csrf-token?client=me")
    say("GET", "/collections/views/aggregate-worker-metadata")
    say("GET", "/flows/not-an-id")
    say("POST", "/flows", {"name": name})


def about_flows(say: Conversation, name: str) -> None:
    flow = say("POST", "/flows/", {"name": name, "tags": ["a"]})
    say("POST", "/flows/", {"name": name, "tags": ["b"]})
    say("POST", "/flows/", {"name": "a/b", "nope": 1})
    say("POST", "/flows/", [])
    say("POST", "/flows/")
    say("GET", f"/flows/{flow['id']}")
    say("GET", f"/flows/{NOBODY}")
    say("GET", f"/flows/name/{name}")
    say("GET", f"/flows/name/not-{name}")
    say("POST", "/flows/filter", {"flows": {"name": {"any_": [name]}}})
    say("POST", "/flows/filter", {"flows": {"name": {"like_": name.upper()}}, "limit": 1, "unknown": True})
    say("POST", "/flows/filter", {"flows": {"tags": {"all_": ["a"]}, "id": {"any_": [flow["id"]]}}})
    say("POST", "/flows/filter", {"flows": {"name": {"any_": [name]}}, "limit": None, "offset": None, "sort": None})
    say("POST", "/flows/filter", {"flows": {"nme": {}}})
    say("POST", "/flows/filter", {"limit": 201})
    say("POST", "/flows/filter", {"limit": -1})
    say("POST", "/flows/filter", {"offset": -1})


def about_work_pools(say: Conversation, name: str) -> None:
    say("POST", "/work_pools/", {"name": name, "type": "process"})
    say("POST", "/work_pools/", {"name": name, "type": "process"})
    say("POST", "/work_pools/", {"name": "prefect-pool"})
    say("POST", "/work_pools/", {"name": ""})
    say("POST", "/work_pools/", {"name": f"{name}-x", "base_job_template": {"job_configuration": {"a": "{{ b }}"}}})
    say("PATCH", f"/work_pools/{name}", {"concurrency_limit": 3, "description": "d", "base_job_template": TEMPLATE})
    say("GET", f"/work_pools/{name}")
    say("PATCH", f"/work_pools/{name}", {"is_paused": True})
    say("POST", "/work_pools/filter", {"work_pools": {"name": {"any_": [name]}, "type": {"any_": ["process"]}}})
    say("PATCH", f"/work_pools/{name}", {"is_paused": False, "concurrency_limit": None})
    say("PATCH", f"/work_pools/{name}", {"type": "docker"})
    say("PATCH", f"/work_pools/{name}", {"base_job_template": {"a": 1}})
    say("PATCH", f"/work_pools/{name}", {"concurrency_limit": -1})
    say("GET", f"/work_pools/{name}")
    say("PATCH", f"/work_pools/not-{name}", {})
    say("DELETE", f"/work_pools/{name}")
    say("DELETE", f"/work_pools/{name}")
    say("DELETE", "/work_pools/prefect-pool")


def about_work_queues(say: Conversation, name: str) -> None:
    say("POST", "/work_pools/", {"name": name, "type": "process"})
    say("POST", f"/work_pools/{name}/queues", {"name": "first", "priority": 1})
    say("POST", f"/work_pools/{name}/queues", {"name": "first"})
    say("POST", f"/work_pools/{name}/queues", {"name": "third", "concurrency_limit": 2})
    say("POST", f"/work_pools/{name}/queues/filter", {})
    say("PATCH", f"/work_pools/{name}/queues/third", {"priority": 1, "is_paused": True, "description": "d"})
    say("POST", f"/work_pools/{name}/queues/filter", {"limit": 200})
    say("PATCH", f"/work_pools/{name}/queues/third", {"is_paused": False, "concurrency_limit": None})
    say("GET", f"/work_pools/{name}/queues/third")
    say("GET", f"/work_pools/{name}/queues/nope")
    say("GET", f"/work_pools/not-{name}/queues/nope")
    say("POST", f"/work_pools/{name}/queues/filter", {"work_queues": {"name": {"any_": ["first"]}}})
    say("POST", f"/work_pools/not-{name}/queues/filter", {})
    say("DELETE", f"/work_pools/{name}/queues/first")
    say("DELETE", f"/work_pools/{name}/queues/first")
    say("DELETE", f"/work_pools/{name}/queues/default")


def about_workers(say: Conversation, name: str) -> None:
    say("POST", "/work_pools/", {"name": name, "type": "process"})
    say("POST", f"/work_pools/{name}/workers/filter", {})
    say("POST", f"/work_pools/{name}/workers/heartbeat", {"name": "w", "heartbeat_interval_seconds": 30})
    say("POST", f"/work_pools/{name}/workers/heartbeat", {"name": "w", "heartbeat_interval_seconds": 60})
    say("POST", f"/work_pools/{name}/workers/filter", {})
    say("POST", f"/work_pools/{name}/workers/filter", {"workers": {"status": {"any_": ["OFFLINE"]}}})
    say("GET", f"/work_pools/{name}")
    say("POST", f"/work_pools/not-{name}/workers/heartbeat", {"name": "w"})
    say("DELETE", f"/work_pools/{name}/workers/w")
    say("DELETE", f"/work_pools/{name}/workers/w")


def about_concurrency_limits(say: Conversation, name: str) -> None:
    limit = say("POST", "/v2/concurrency_limits/", {"name": name, "limit": 5, "slot_decay_per_second": 0.5})
    say("POST", "/v2/concurrency_limits/", {"name": name, "limit": 5})
    say("POST", "/v2/concurrency_limits/", {"name": f"{name}/x", "limit": -5})
    say("GET", f"/v2/concurrency_limits/{name}")
    say("PATCH", f"/v2/concurrency_limits/{name}", {"limit": 6, "active": False})
    say("PATCH", f"/v2/concurrency_limits/{limit['id']}", {"slot_decay_per_second": 0})
    say("PATCH", f"/v2/concurrency_limits/{name}", {"limit": None})
    say("PATCH", f"/v2/concurrency_limits/{name}", {"nope": 1})
    say("PATCH", f"/v2/concurrency_limits/not-{name}", {"limit": 1})
    say("GET", f"/v2/concurrency_limits/{limit['id']}")
    say("GET", f"/v2/concurrency_limits/not-{name}")
    say("DELETE", f"/v2/concurrency_limits/{name}")
    say("DELETE", f"/v2/concurrency_limits/{name}")


def about_variables(say: Conversation, name: str) -> None:
    variable = say("POST", "/variables/", {"name": name, "value": "x", "tags": ["t"]})
    say("POST", "/variables/", {"name": name, "value": "y"})
    say("POST", "/variables/", {"name": f"{name}_json", "value": {"a": [1, 2.5, True, None]}})
    say("POST", "/variables/", {"name": f"{name}_null", "value": None})
    say("POST", "/variables/", {"name": "Not OK", "value": 1})
    say("POST", "/variables/", {"name": f"{name}_none"})
    say("POST", "/variables/filter", {"variables": {"name": {"any_": [name]}}})
    say("POST", "/variables/filter", {"variables": {"name": {"like_": name.upper()}}, "sort": "NAME_DESC"})
    say("POST", "/variables/filter", {"variables": {"id": {"any_": [variable["id"]]}, "tags": {"all_": ["t"]}}})
    say("POST", "/variables/filter", {"variables": {"value": {}}})
    say("GET", f"/variables/name/{name}")
    say("PATCH", f"/variables/name/{name}", {"value": ["z"]})
    say("PATCH", f"/variables/{variable['id']}", {"tags": []})
    say("PATCH", f"/variables/name/{name}_json", {"name": name})
    say("PATCH", f"/variables/name/not_{name}", {"value": 1})
    say("GET", f"/variables/{variable['id']}")
    say("DELETE", f"/variables/{variable['id']}")
    say("DELETE", f"/variables/name/{name}")


def about_secrets(say: Conversation, name: str) -> None:
    kind = say("GET", "/block_types/slug/secret")
    say("GET", "/block_types/slug/nope")
    say("POST", "/block_types/filter", {"block_types": {"slug": {"any_": ["secret"]}}})
    schema = say("POST", "/block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind["id"]]}}})[0]
    say("GET", f"/block_schemas/checksum/{schema['checksum']}", briefly=True)
    of_kind = {"block_type_id": kind["id"], "block_schema_id": schema["id"]}
    block = say("POST", "/block_documents/", {"name": name, "data": {"value": "hush"}, **of_kind})
    say("POST", "/block_documents/", {"name": name, "data": {"value": "hush"}, **of_kind})
    say("POST", "/block_documents/", {"name": "Not_OK", "data": {"value": "hush"}, **of_kind})
    say("POST", "/block_documents/", {"data": {"value": "hush"}, **of_kind})
    wanted = {"block_documents": {"name": {"any_": [name]}}, "block_types": {"slug": {"any_": ["secret"]}}}
    say("POST", "/block_documents/filter", wanted)
    say("POST", "/block_documents/filter", {**wanted, "include_secrets": True})
    say("GET", f"/block_documents/{block['id']}?include_secrets=true")
    say("GET", f"/block_types/slug/secret/block_documents/name/{name}")
    say("GET", f"/block_types/slug/secret/block_documents/name/not-{name}")
    say("PATCH", f"/block_documents/{block['id']}", {"data": {"value": "new"}, "block_schema_id": schema["id"]})
    say("PATCH", f"/block_documents/{NOBODY}", {"data": {"value": "new"}})
    say("DELETE", f"/block_documents/{block['id']}")
    say("DELETE", f"/block_documents/{block['id']}")
    say("GET", f"/block_documents/{block['id']}")


def about_automations(say: Conversation, name: str) -> None:
    plain = {"name": name, "trigger": EVENT, "actions": [{"type": "do-nothing"}]}
    starting = {"type": "run-deployment", "deployment_id": NOBODY, "parameters": {"a": 1}}
    first = say("POST", "/automations/", {**plain, "description": "d", "tags": ["t"], "enabled": False})
    say("GET", f"/automations/{first['id']}")
    owned = say("POST", "/automations/", {**plain, "owner_resource": f"prefect.deployment.{name}"})
    say("PUT", f"/automations/{owned['id']}", {**plain, "actions": [starting]})
    say("GET", f"/automations/{owned['id']}")
    say("GET", f"/automations/related-to/prefect.deployment.{name}")
    say("GET", f"/automations/related-to/prefect.deployment.not-{name}")
    say("PATCH", f"/automations/{first['id']}", {"enabled": True})
    say("PATCH", f"/automations/{first['id']}", {"name": "other"})
    say("PUT", f"/automations/{first['id']}", {"name": name})
    say("POST", "/automations/filter", {"automations": {"name": {"any_": [name]}}, "sort": "CREATED_DESC"})
    say("POST", "/automations/filter", {"automations": {"name": {"like_": name}}})
    say("DELETE", f"/automations/owned-by/prefect.deployment.{name}")
    say("DELETE", f"/automations/owned-by/prefect.deployment.{name}")
    say("GET", f"/automations/{owned['id']}")
    for method, body in (("DELETE", None), ("DELETE", None), ("PUT", plain), ("PATCH", {"enabled": True})):
        say(method, f"/automations/{first['id']}", body)


def about_triggers_and_actions(say: Conversation, name: str) -> None:
    quiet = {"type": "event", "posture": "Proactive", "expect": ["a"], "within": 30}
    patient = {"type": "event", "posture": "Proactive"}
    both = {"type": "compound", "require": "all", "within": 60, "triggers": [quiet, {**EVENT, "threshold": 3}]}
    actions: list[Json] = [
        {"type": "send-notification", "block_document_id": NOBODY, "body": "b"},
        {"type": "call-webhook", "block_document_id": NOBODY},
        {"type": "change-flow-run-state", "state": "FAILED"},
        {"type": "run-deployment", "source": "inferred"},
        {"type": "pause-deployment", "deployment_id": NOBODY},
        {"type": "resume-work-queue", "source": "inferred"},
        {"type": "pause-work-pool", "work_pool_id": NOBODY},
        {"type": "resume-automation", "source": "inferred"},
        *({"type": f"{verb}-flow-run"} for verb in ("cancel", "suspend", "resume", "delete")),
    ]
    say("POST", "/automations/", {"name": name, "trigger": both, "actions": actions})
    chain = {"type": "sequence", "within": None, "triggers": [patient]}
    say("POST", "/automations/", {"name": name, "trigger": chain, "actions": [], "actions_on_resolve": actions[:1]})
    for wrong in ({"type": "event"}, {**patient, "within": 3}, {**both, "triggers": [{"type": "nope"}]}):
        say("POST", "/automations/", {"name": name, "trigger": wrong, "actions": []}, briefly=True)
    for action in ({"type": "nope"}, {"type": "run-deployment"}, {"type": "send-notification"}):
        say("POST", "/automations/", {"name": name, "trigger": EVENT, "actions": [action]}, briefly=True)


def about_artifacts(say: Conversation, name: str) -> None:
    one = say("POST", "/artifacts/", {"key": name, "type": "markdown", "data": "# one", "metadata_": {"a": "b"}})
    two = say("POST", "/artifacts/", {"key": name, "type": "markdown", "data": "# two", "description": "d"})
    say("POST", "/artifacts/", {"key": f"{name}-table", "type": "table", "data": [{"a": 1}]})
    say("POST", "/artifacts/", {"type": "table", "data": {"a": 1}})
    say("POST", "/artifacts/", {"key": "Not_OK", "data": 1})
    say("POST", "/artifacts/filter", {"artifacts": {"key": {"any_": [name]}}, "sort": "CREATED_DESC"})
    say("POST", "/artifacts/filter", {"artifacts": {"key": {"like_": name}}, "sort": "UPDATED_DESC", "limit": 2})
    say("POST", "/artifacts/filter", {"artifacts": {"key": {"like_": name}, "type": {"any_": ["table"]}}})
    say("POST", "/artifacts/filter", {"artifacts": {"nope": {}}})
    say("POST", "/artifacts/latest/filter", {"artifacts": {"key": {"like_": f"{name}%"}}, "sort": "KEY_ASC"})
    say("GET", f"/artifacts/{name}/latest")
    say("GET", f"/artifacts/not-{name}/latest")
    say("GET", f"/artifacts/{one['id']}")
    say("PATCH", f"/artifacts/{two['id']}", {"data": "# two, mended"})
    say("PATCH", f"/artifacts/{two['id']}", {"key": "other"})
    say("GET", f"/artifacts/{name}/latest")
    say("DELETE", f"/artifacts/{two['id']}")
    say("GET", f"/artifacts/{name}/latest")
    say("DELETE", f"/artifacts/{two['id']}")
    say("PATCH", f"/artifacts/{two['id']}", {"data": 1})
    say("DELETE", f"/artifacts/{one['id']}")
    say("GET", f"/artifacts/{name}/latest")


def whole(flow_id: str, pool: str) -> Json:
    """A deployment with all that can be said about one."""
    return {
        "name": "whole",
        "flow_id": flow_id,
        "paused": True,
        "version": "f" * 40,
        "description": "d",
        "tags": ["b", "a"],
        "labels": {"owner": "me"},
        "parameters": {"count": 1},
        "parameter_openapi_schema": SCHEMA,
        "enforce_parameter_schema": True,
        "schedules": [
            {"schedule": {"cron": "0 20 * * 1-5", "timezone": "America/Chicago"}, "slug": "cron"},
            {"schedule": {"interval": 3600}, "slug": "interval", "active": False, "parameters": {"count": 2}},
            {"schedule": {"rrule": "FREQ=DAILY;COUNT=5", "timezone": "Europe/Berlin"}, "slug": "rrule"},
        ],
        "concurrency_limit": 2,
        "concurrency_options": {"collision_strategy": "CANCEL_NEW"},
        "work_pool_name": pool,
        "pull_steps": [{"prefect.deployments.steps.git_clone": {"repository": "r"}}],
        "entrypoint": "flows/a.py:b",
        "path": ".",
        "job_variables": {"env": {"A": "1"}},
    }


def about_deployments(say: Conversation, name: str) -> None:
    flow = say("POST", "/flows/", {"name": name})
    say("POST", "/work_pools/", {"name": name, "type": "process", "base_job_template": TEMPLATE})
    mine = {"flow_id": flow["id"]}
    say("POST", "/deployments/", {"name": "plain", **mine})
    body = whole(flow["id"], name)
    one = say("POST", "/deployments/", body)
    say("POST", "/deployments/", body)
    say("GET", f"/deployments/{one['id']}")
    say("GET", f"/deployments/name/{name}/whole")
    say("POST", "/deployments/filter", {"deployments": {"id": {"any_": [one["id"]]}}})
    say("POST", "/deployments/", {"name": "whole", "tags": ["x"], **mine})
    say("POST", "/deployments/", {"name": "queued", "work_pool_name": name, "work_queue_name": "new", **mine})
    say("GET", f"/work_pools/{name}/queues/new")
    say("POST", "/deployments/", {"name": "nulls", "pull_steps": None, "description": None, **mine})
    say("GET", f"/deployments/name/{name}/nope")
    say("GET", f"/deployments/{NOBODY}")
    say("DELETE", f"/deployments/{one['id']}")
    say("DELETE", f"/deployments/{one['id']}")


def about_wrong_deployments(say: Conversation, name: str) -> None:
    flow = say("POST", "/flows/", {"name": name})
    say("POST", "/work_pools/", {"name": name, "type": "process", "base_job_template": TEMPLATE})
    for wrong in (
        {"work_pool_name": "nope"},
        {"flow_id": NOBODY},
        {"nope": 1},
        {"concurrency_limit": 0},
        {"concurrency_limit": 1, "global_concurrency_limit_id": NOBODY},
        {"global_concurrency_limit_id": NOBODY},
        {"concurrency_options": {"collision_strategy": "CANCEL_NEW", "grace_period_seconds": 1}},
        {"job_variables": None},
        {"tags": None},
        {"work_pool_name": name, "job_variables": {"command": 1}},
        {"parameters": {"count": "x"}, "parameter_openapi_schema": SCHEMA, "enforce_parameter_schema": True},
        {"name": "a/b"},
        {"schedules": [{"active": True}]},
        {"schedules": [{"schedule": {"cron": "* * * * *"}, "slug": "s"}, {"schedule": {"interval": 1}, "slug": "s"}]},
    ):
        say("POST", "/deployments/", {"name": "d", "flow_id": flow["id"], **wrong})
    for schedule in (
        {"cron": "nope"},
        {"cron": "H * * * *"},
        {"cron": "* * * * *", "timezone": "Mars/Olympus"},
        {"interval": -1},
        {"rrule": "nope"},
        {"cron": "* * * * *", "interval": 60},
    ):
        body = {"name": "d", "flow_id": flow["id"], "schedules": [{"schedule": schedule}]}
        say("POST", "/deployments/", body, briefly=True)
    say("POST", "/deployments/filter", {"flows": {"name": {"any_": [name]}}})


def about_changing_deployments(say: Conversation, name: str) -> None:
    flow = say("POST", "/flows/", {"name": name})
    say("POST", "/work_pools/", {"name": name, "type": "process", "base_job_template": TEMPLATE})
    one = say("POST", "/deployments/", whole(flow["id"], name))
    path = f"/deployments/{one['id']}"
    changes: tuple[Json, ...] = (
        {},
        {"version": "B", "tags": ["z"], "paused": False},
        {"labels": {"a": "b"}},
        {"name": "other"},
        {"tags": None},
        {"schedules": None},
        {"parameters": {"unknown": 1}},
        {"parameters": None},
        {"description": None, "path": None, "entrypoint": None, "version": None},
        {"pull_steps": []},
        {"job_variables": None},
        {"job_variables": {}},
        {"work_pool_name": name, "job_variables": {"command": "c"}},
        {"concurrency_limit": 5},
        {"concurrency_limit": None},
        {"concurrency_options": None},
        {"concurrency_options": {"collision_strategy": "ENQUEUE", "grace_period_seconds": 60}},
        {"global_concurrency_limit_id": NOBODY},
        {"work_pool_name": None},
        {"work_pool_name": name},
        {"work_pool_name": name, "work_queue_name": "new"},
        {"work_queue_name": None},
        {"work_pool_name": "nope"},
        {"enforce_parameter_schema": None},
        {"parameter_openapi_schema": None},
        {"enforce_parameter_schema": False, "parameters": {"count": "x"}},
    )
    for change in changes:
        say("PATCH", path, change)
        say("GET", path)
    say("PATCH", f"/deployments/{NOBODY}", {})


def about_schedules(say: Conversation, name: str) -> None:
    flow = say("POST", "/flows/", {"name": name})
    one = say("POST", "/deployments/", {"name": "d", "flow_id": flow["id"]})
    path = f"/deployments/{one['id']}/schedules"
    anchored = {"interval": 60, "anchor_date": "2024-01-01T00:00:00+02:00"}
    hourly = {"schedule": {"cron": "0 * * * *"}, "slug": "a", "max_scheduled_runs": 4}
    first = say("POST", path, [hourly, {"schedule": anchored, "active": False}])[0]
    say("GET", path)
    for body in ([hourly], [], [{"active": True}], [{**hourly, "nope": 1}]):
        say("POST", path, body)
    changes: tuple[Json, ...] = (
        {},
        {"active": False},
        {"parameters": {"a": 3}, "slug": "b", "max_scheduled_runs": 2},
        {"active": True},
        {"slug": None, "max_scheduled_runs": None, "schedule": None},
        {"schedule": {"rrule": "FREQ=HOURLY"}},
        {"max_scheduled_runs": 200},
        {"nope": 1},
    )
    for change in changes:
        say("PATCH", f"{path}/{first['id']}", change)
        say("GET", path)
    say("PATCH", f"{path}/{NOBODY}", {"active": True})
    say("GET", f"/deployments/{NOBODY}/schedules")
    say("POST", f"/deployments/{NOBODY}/schedules", [hourly])
    say("DELETE", f"{path}/{first['id']}")
    say("DELETE", f"{path}/{first['id']}")
    say("GET", path)


def about_flow_runs(say: Conversation, name: str) -> None:
    flow = say("POST", "/flows/", {"name": name})
    say("POST", "/work_pools/", {"name": name, "type": "process"})
    one = say("POST", "/deployments/", {**whole(flow["id"], name), "tags": ["a"], "concurrency_limit": None})
    path = f"/deployments/{one['id']}"
    run = say("POST", f"{path}/create_flow_run", {"name": "mine", "parameters": {"count": 5}, "idempotency_key": "k"})
    say("POST", f"{path}/create_flow_run", {"idempotency_key": "k"})
    say("POST", f"{path}/create_flow_run", {"parameters": {"count": "x"}})
    say("POST", f"{path}/create_flow_run", {"nope": 1})
    say("POST", f"/deployments/{NOBODY}/create_flow_run", {})
    say("GET", f"/flow_runs/{run['id']}")
    for state in ("PENDING", "RUNNING"):
        say("POST", f"/flow_runs/{run['id']}/set_state", {"state": {"type": state}})
    say("POST", f"/flow_runs/{run['id']}/set_state", {"state": {"type": "COMPLETED", "message": "done"}})
    say("POST", f"/flow_runs/{run['id']}/set_state", {"state": {"type": "NOPE"}}, briefly=True)
    say("GET", f"/flow_runs/{run['id']}")
    say("POST", "/flow_runs/filter", {"deployments": {"id": {"any_": [one["id"]]}}})
    say("GET", f"/flow_runs/{NOBODY}")
    say("POST", f"/flow_runs/{NOBODY}/set_state", {"state": {"type": "RUNNING"}})
    say("DELETE", path)
    say("GET", f"/flow_runs/{run['id']}")
    say("DELETE", f"/flow_runs/{run['id']}")
    say("DELETE", f"/flow_runs/{run['id']}")


def about_scheduled_runs(say: Conversation, name: str) -> None:
    flow = say("POST", "/flows/", {"name": name})
    say("POST", "/work_pools/", {"name": name, "type": "process"})
    body = {**whole(flow["id"], name), "concurrency_limit": None}
    body["schedules"] = [{"schedule": {"cron": "0 20 * * 1-5", "timezone": "America/Chicago"}, "slug": "s"}]
    one = say("POST", "/deployments/", body)
    wanted = {"deployments": {"id": {"any_": [one["id"]]}}, "sort": "EXPECTED_START_TIME_ASC"}
    for times in ({}, {}, {"start_time": "2020-01-01T00:00:00Z", "max_runs": 2}, None):
        say("POST", f"/deployments/{one['id']}/schedule", times)
        for run in say("POST", "/flow_runs/filter", wanted, briefly=True):
            say.notes.append(("a run", sorted(name for name in run) + run["tags"] + [run["auto_scheduled"]]))
    say("POST", f"/deployments/{one['id']}/pause_deployment")
    say("POST", f"/deployments/{one['id']}/resume_deployment")
    say("GET", f"/deployments/{one['id']}")
    for verb in ("schedule", "pause_deployment", "resume_deployment"):
        say("POST", f"/deployments/{NOBODY}/{verb}")


CONVERSATIONS = (
    about_the_server,
    about_flows,
    about_work_pools,
    about_work_queues,
    about_workers,
    about_concurrency_limits,
    about_variables,
    about_secrets,
    about_automations,
    about_triggers_and_actions,
    about_artifacts,
    about_deployments,
    about_wrong_deployments,
    about_changing_deployments,
    about_schedules,
    about_flow_runs,
    about_scheduled_runs,
)


@pytest.mark.parametrize("talk", CONVERSATIONS, ids=lambda talk: talk.__name__)
def test_the_fake_and_a_real_server_answer_alike(
    talk: Callable[[Conversation, str], object], fake: FakePrefect, real_api: httpx.Client, unique: Unique
) -> None:
    name = unique("talk")
    ours, theirs = Conversation(fake.client()), Conversation(real_api)
    talk(ours, name)
    talk(theirs, name)
    assert differences(told(ours), told(theirs)) == ""


# --- Prefect's own client ----------------------------------------------------------------------------------------

PREFECT_DEPLOYS = """
import sys
from datetime import datetime, timedelta, timezone
from prefect import flow
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.events import DeploymentEventTrigger
from prefect.schedules import Cron, Interval, RRule

folder, pool = sys.argv[1:]
found = flow.from_source(source=folder, entrypoint="flows/alpha/hello.py:hello")
for _ in range(2):
    found.deploy(
        name="hello",
        work_pool_name=pool,
        version="f" * 40,
        description="d",
        tags=["a", "b"],
        parameters={"count": 2},
        job_variables={"env": {"A": "1"}},
        concurrency_limit=ConcurrencyLimitConfig(limit=2, collision_strategy="CANCEL_NEW"),
        schedules=[
            Cron("0 20 * * 1-5", timezone="America/Chicago", slug="cron"),
            Interval(timedelta(hours=1), anchor_date=datetime(2026, 1, 1, tzinfo=timezone.utc), slug="interval"),
            RRule("FREQ=DAILY;BYHOUR=8", timezone="Europe/Berlin", slug="rrule", active=False),
        ],
        triggers=[DeploymentEventTrigger(name="after", expect={"data.arrived"})],
        print_next_steps=False,
    )
"""


def test_prefects_own_deploy_makes_the_same_deployment(
    fake: FakePrefect, real_server: Server, real_api: httpx.Client, unique: Unique, tmp_path: Path, home: Path
) -> None:
    pool, repo = unique("pool"), Repo(tmp_path / "repo")

    def deployed(url: str, api: httpx.Client) -> dict[str, Any]:
        ok(api.post("/work_pools/", json={"name": pool, "type": "process", "base_job_template": TEMPLATE}))
        command = [sys.executable, "-c", PREFECT_DEPLOYS, str(repo.path), pool]
        environment = {**clean_environment(home), "PREFECT_API_URL": url}
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        say = Conversation(api)
        deployment = say("GET", "/deployments/name/hello/hello")
        say("GET", f"/automations/related-to/prefect.deployment.{deployment['id']}")
        return told(say)

    with fake.serve() as url:
        ours = deployed(url, fake.backstage)
    assert differences(ours, deployed(real_server.url, real_api)) == ""
    assert {request.method for request in fake.writes if request.path.startswith("/deployments/")} == {"POST", "PATCH"}


def test_the_settings_that_the_fake_tells_are_those_of_a_real_server(fake: FakePrefect, real_api: httpx.Client) -> None:
    ours, theirs = (api.get("/admin/settings").json()["server"] for api in (fake.client(), real_api))
    assert {part: {key: theirs[part][key] for key in keys} for part, keys in ours.items()} == ours


# --- who may ask --------------------------------------------------------------------------------------------------


def test_without_the_right_password_only_the_health_is_told(fake: FakePrefect, tmp_path: Path) -> None:
    def told_to(api: httpx.Client) -> list[tuple[int, Any]]:
        keys = [None, ("admin", "wrong"), ("admin", "right")]
        asked = [api.get(path, auth=key) for path in ("/health", "/ready", "/admin/version") for key in keys]
        asked.append(api.get("/admin/version", headers={"Authorization": "Bearer right"}))
        return [(answer.status_code, answer.json()) for answer in asked]

    fake.auth = "admin:right"
    with (
        real_prefect(tmp_path / "server", {"PREFECT_SERVER_API_AUTH_STRING": "admin:right"}) as server,
        patient_client(server.url) as real_api,
    ):
        assert told_to(fake.client()) == told_to(real_api)
    assert told_to(fake.client())[-4:] == [
        *([(401, {"exception_message": "Unauthorized"})] * 2),
        (200, "3.8.8"),
        (401, {"exception_message": "Unauthorized"}),
    ]


# --- promises: sending a deployment ------------------------------------------------------------------------------


def ok(answer: httpx.Response) -> Any:
    """The content of an answer that says yes."""
    assert answer.is_success, f"{answer.request.method} {answer.request.url} -> {answer.status_code} {answer.text}"
    return answer.json() if answer.content else None


def deploy(api: httpx.Client, flow_name: str, **fields: Any) -> Json:
    """Send a deployment `d` of a flow of that name. Paused, so that a real server's scheduler leaves its runs alone."""
    flow = ok(api.post("/flows/", json={"name": flow_name}))
    body = {"name": "d", "flow_id": flow["id"], "paused": True, **fields}
    return dict(ok(api.post("/deployments/", json=body)))


def patch(api: httpx.Client, deployment: Json, **fields: Any) -> None:
    ok(api.patch(f"/deployments/{deployment['id']}", json=fields))


def now(api: httpx.Client, deployment: Json) -> Json:
    """The deployment as it is now."""
    return dict(ok(api.get(f"/deployments/{deployment['id']}")))


def runs(api: httpx.Client, deployment: Json) -> list[Json]:
    wanted = {"deployments": {"id": {"any_": [deployment["id"]]}}, "sort": "EXPECTED_START_TIME_ASC"}
    return list(ok(api.post("/flow_runs/filter", json=wanted)))


def schedule(api: httpx.Client, deployment: Json, **times: Any) -> list[Json]:
    """Make the runs of its schedules now; the runs."""
    ok(api.post(f"/deployments/{deployment['id']}/schedule", json=times))
    return runs(api, deployment)


at = datetime.fromisoformat


def slugs(deployment: Json) -> list[str | None]:
    return [one["slug"] for one in deployment["schedules"]]


def every(minutes: int, **fields: Any) -> Json:
    return {"schedule": {"cron": f"*/{minutes} * * * *"}, **fields}


PAST = {"start_time": "2024-01-01T00:00:00Z", "end_time": "2024-01-01T01:00:00Z"}
FUTURE = {"start_time": "2040-01-01T00:00:00Z"}  # so far off that no run becomes due within a test


def test_sending_a_deployment_again_takes_over_the_one_that_is_there(api: httpx.Client, unique: Unique) -> None:
    name = unique("flow")
    first = deploy(api, name, tags=["theirs"])
    again = api.post("/deployments/", json={"name": "d", "flow_id": first["flow_id"], "tags": ["ours"]})
    assert again.status_code == 200
    assert (again.json()["id"], again.json()["tags"]) == (first["id"], ["ours"])


def test_sending_a_deployment_again_leaves_what_is_not_sent(api: httpx.Client, unique: Unique) -> None:
    name = unique("flow")
    deploy(api, name, description="d", tags=["a"], version="1", entrypoint="a.py:b")
    again = deploy(api, name, version="2")
    assert (again["description"], again["tags"], again["version"], again["entrypoint"]) == ("d", ["a"], "2", "a.py:b")


def test_sending_a_deployment_again_without_parameters_empties_them(api: httpx.Client, unique: Unique) -> None:
    name = unique("flow")
    deploy(api, name, parameters={"a": 1})
    assert deploy(api, name)["parameters"] == {}


def test_sending_a_deployment_again_without_labels_drops_them(api: httpx.Client, unique: Unique) -> None:
    name = unique("flow")
    assert "owner" in deploy(api, name, labels={"owner": "me"})["labels"]
    assert "owner" not in deploy(api, name)["labels"]


def test_sending_a_deployment_again_gives_its_schedules_new_ids(api: httpx.Client, unique: Unique) -> None:
    name = unique("flow")
    first, again = (deploy(api, name, schedules=[every(5, slug="s")])["schedules"] for _ in range(2))
    assert len(first) == len(again) == 1
    assert first[0]["id"] != again[0]["id"]


def test_sending_a_deployment_again_without_schedules_deletes_them(api: httpx.Client, unique: Unique) -> None:
    name = unique("flow")
    deploy(api, name, schedules=[every(5)])
    assert deploy(api, name)["schedules"] == []


def test_sending_a_deployment_again_forgets_its_future_runs(api: httpx.Client, unique: Unique) -> None:
    name = unique("flow")
    deployment = deploy(api, name, schedules=[every(5)])
    assert schedule(api, deployment, **FUTURE)
    deploy(api, name)
    assert runs(api, deployment) == []


def test_a_parameter_that_the_flow_does_not_have_is_accepted(api: httpx.Client, unique: Unique) -> None:
    checked = {"parameter_openapi_schema": SCHEMA, "enforce_parameter_schema": True}
    assert deploy(api, unique("flow"), parameters={"unknown": 1}, **checked)["parameters"] == {"unknown": 1}


def test_a_parameter_of_the_wrong_type_is_only_refused_if_the_sender_asks_for_the_check(
    api: httpx.Client, unique: Unique
) -> None:
    wrong = {"parameter_openapi_schema": SCHEMA, "parameters": {"count": "many"}}
    deployment = deploy(api, unique("flow"), **wrong)
    assert deployment["enforce_parameter_schema"] is True
    body = {"name": "e", "flow_id": deployment["flow_id"], "enforce_parameter_schema": True, **wrong}
    assert api.post("/deployments/", json=body).status_code == 422


def test_a_deployment_without_a_schema_is_answered_with_an_empty_one(api: httpx.Client, unique: Unique) -> None:
    assert deploy(api, unique("flow"))["parameter_openapi_schema"] == {}


def test_a_deployment_without_a_queue_goes_to_the_default_one(api: httpx.Client, unique: Unique) -> None:
    pool = unique("pool")
    ok(api.post("/work_pools/", json={"name": pool, "type": "process"}))
    deployment = deploy(api, unique("flow"), work_pool_name=pool, work_queue_name=None)
    assert (deployment["work_pool_name"], deployment["work_queue_name"]) == (pool, "default")


def test_a_deployment_creates_the_queue_that_it_names(api: httpx.Client, unique: Unique) -> None:
    pool = unique("pool")
    ok(api.post("/work_pools/", json={"name": pool, "type": "process"}))
    deploy(api, unique("flow"), work_pool_name=pool, work_queue_name="fast")
    assert ok(api.get(f"/work_pools/{pool}/queues/fast"))["priority"] == 2


def test_a_deployment_outlives_its_pool(api: httpx.Client, unique: Unique) -> None:
    pool = unique("pool")
    ok(api.post("/work_pools/", json={"name": pool, "type": "process"}))
    deployment = deploy(api, unique("flow"), work_pool_name=pool)
    ok(api.delete(f"/work_pools/{pool}"))
    left = now(api, deployment)
    assert (left["work_pool_name"], left["work_queue_name"], left["work_queue_id"]) == (None, None, None)


def test_job_variables_are_checked_against_the_template_of_the_pool(api: httpx.Client, unique: Unique) -> None:
    pool = unique("pool")
    ok(api.post("/work_pools/", json={"name": pool, "type": "process", "base_job_template": TEMPLATE}))
    deployment = deploy(api, unique("flow"), work_pool_name=pool)
    body = {"flow_id": deployment["flow_id"], "work_pool_name": pool, "job_variables": {"env": 1}}
    assert api.post("/deployments/", json={"name": "e", **body}).status_code == 422
    change = {"work_pool_name": pool, "job_variables": {"env": 1}}
    assert api.patch(f"/deployments/{deployment['id']}", json=change).status_code == 409


def test_job_variables_are_not_checked_when_the_pool_is_not_sent_with_them(api: httpx.Client, unique: Unique) -> None:
    pool = unique("pool")
    ok(api.post("/work_pools/", json={"name": pool, "type": "process", "base_job_template": TEMPLATE}))
    deployment = deploy(api, unique("flow"), work_pool_name=pool)
    patch(api, deployment, job_variables={"env": 1})
    assert now(api, deployment)["job_variables"] == {"env": 1}


# --- promises: limits --------------------------------------------------------------------------------------------


def test_a_concurrency_limit_comes_back_in_another_field(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"), concurrency_limit=2)
    assert deployment["concurrency_limit"] is None
    assert deployment["global_concurrency_limit"]["limit"] == 2
    assert deployment["global_concurrency_limit"]["name"] == f"deployment:{deployment['id']}"


def test_concurrency_options_gain_a_grace_period(api: httpx.Client, unique: Unique) -> None:
    options = deploy(api, unique("flow"), concurrency_options={"collision_strategy": "ENQUEUE"})["concurrency_options"]
    assert options == {"collision_strategy": "ENQUEUE", "grace_period_seconds": None}


def test_changing_a_limit_keeps_the_limit_and_its_id(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"), concurrency_limit=2)
    patch(api, deployment, concurrency_limit=3)
    limit = now(api, deployment)["global_concurrency_limit"]
    assert (limit["id"], limit["limit"]) == (deployment["global_concurrency_limit"]["id"], 3)


@pytest.mark.parametrize("again", ["sent", "patched"])
def test_a_null_limit_deletes_a_limit_that_others_share(api: httpx.Client, unique: Unique, again: str) -> None:
    shared, flow = unique("limit"), unique("flow")
    limit = ok(api.post("/v2/concurrency_limits/", json={"name": shared, "limit": 5}))
    deployment = deploy(api, flow, global_concurrency_limit_id=limit["id"])
    assert deployment["global_concurrency_limit"]["name"] == shared
    if again == "sent":
        deploy(api, flow, concurrency_limit=None)
    else:
        patch(api, deployment, concurrency_limit=None)
    assert api.get(f"/v2/concurrency_limits/{shared}").status_code == 404


def test_a_limit_that_is_not_sent_again_stays(api: httpx.Client, unique: Unique) -> None:
    flow = unique("flow")
    deploy(api, flow, concurrency_limit=2)
    assert deploy(api, flow)["global_concurrency_limit"]["limit"] == 2


def test_deleting_a_deployment_deletes_its_limit(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"), concurrency_limit=2)
    ok(api.delete(f"/deployments/{deployment['id']}"))
    assert api.get(f"/v2/concurrency_limits/deployment:{deployment['id']}").status_code == 404


def test_deleting_a_limit_detaches_its_deployments(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"), concurrency_limit=2)
    ok(api.delete(f"/v2/concurrency_limits/deployment:{deployment['id']}"))
    assert now(api, deployment)["global_concurrency_limit"] is None


# --- promises: schedules -----------------------------------------------------------------------------------------


def test_schedules_come_back_in_reverse(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"), schedules=[every(5, slug=slug) for slug in "abc"])
    assert slugs(deployment) == slugs(now(api, deployment)) == ["c", "b", "a"]


def test_the_schedule_that_was_changed_last_comes_first(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"), schedules=[every(5, slug=slug) for slug in "abc"])
    first = deployment["schedules"][-1]
    ok(api.patch(f"/deployments/{deployment['id']}/schedules/{first['id']}", json={"active": False}))
    assert slugs(now(api, deployment)) == ["a", "c", "b"]


def test_a_cron_schedule_gains_day_or(api: httpx.Client, unique: Unique) -> None:
    one = deploy(api, unique("flow"), schedules=[{"schedule": {"cron": "0 8 * * 1"}}])["schedules"][0]
    assert one["schedule"] == {"cron": "0 8 * * 1", "timezone": None, "day_or": True}


def test_an_interval_without_an_anchor_is_anchored_at_the_moment_of_sending(api: httpx.Client, unique: Unique) -> None:
    name = unique("flow")
    body = {"schedules": [{"schedule": {"interval": 3600}}]}
    first, again = (deploy(api, name, **body)["schedules"][0]["schedule"] for _ in range(2))
    assert (first["interval"], first["timezone"]) == (3600.0, "UTC")
    assert at(again["anchor_date"]) > at(first["anchor_date"])


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("FREQ=DAILY;BYHOUR=8", r"DTSTART:20200101T000000\nFREQ=DAILY;BYHOUR=8"),
        ("FREQ=MINUTELY;INTERVAL=7;COUNT=3", r"DTSTART:20200101T000000\nFREQ=MINUTELY;INTERVAL=7;COUNT=3"),
        ("FREQ=MINUTELY;INTERVAL=7", r"DTSTART:20[2-9]\d[01]\d[0-3]\dT\d{4}00\nFREQ=MINUTELY;INTERVAL=7"),
        ("DTSTART:20240101T080000\nFREQ=WEEKLY", r"DTSTART:20240101T080000\nFREQ=WEEKLY"),
    ],
)
def test_an_rrule_gains_a_start_and_a_zone(api: httpx.Client, unique: Unique, sent: str, kept: str) -> None:
    one = deploy(api, unique("flow"), schedules=[{"schedule": {"rrule": sent}}])["schedules"][0]["schedule"]
    assert re.fullmatch(kept, one["rrule"])
    assert one["timezone"] == "UTC"
    assert (one["rrule"].startswith("DTSTART:2020")) == ("2020" in kept)


def test_max_scheduled_runs_gets_lost_when_sent_with_the_deployment(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"), schedules=[every(5, max_scheduled_runs=4)])
    assert deployment["schedules"][0]["max_scheduled_runs"] is None
    path = f"/deployments/{deployment['id']}/schedules"
    assert ok(api.post(path, json=[every(5, max_scheduled_runs=4)]))[0]["max_scheduled_runs"] == 4


def test_changing_a_schedule_empties_the_parameters_that_are_not_sent(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"), schedules=[every(5, parameters={"a": 1})])
    one = deployment["schedules"][0]
    ok(api.patch(f"/deployments/{deployment['id']}/schedules/{one['id']}", json={"active": False}))
    assert now(api, deployment)["schedules"][0]["parameters"] == {}


def test_a_slug_can_be_given_and_changed_but_not_taken_away(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"), schedules=[every(5)])
    path = f"/deployments/{deployment['id']}/schedules/{deployment['schedules'][0]['id']}"
    ok(api.patch(path, json={"slug": "a"}))
    ok(api.patch(path, json={"slug": None}))
    assert slugs(now(api, deployment)) == ["a"]


def test_two_schedules_of_a_deployment_may_not_share_a_slug(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"), schedules=[every(5, slug="a"), every(5, slug="b")])
    path = f"/deployments/{deployment['id']}/schedules"
    assert api.post(path, json=[every(1, slug="a")]).status_code == 409
    b = deployment["schedules"][0]
    assert api.patch(f"{path}/{b['id']}", json={"slug": "a"}).status_code == 409
    assert sorted(map(str, slugs(now(api, deployment)))) == ["a", "b"]


def test_a_change_of_a_schedule_moves_its_time_and_not_the_deployments(api: httpx.Client, unique: Unique) -> None:
    before = deploy(api, unique("flow"), schedules=[every(5)])
    one = before["schedules"][0]
    ok(api.patch(f"/deployments/{before['id']}/schedules/{one['id']}", json={"active": False}))
    after = now(api, before)
    assert at(after["schedules"][0]["updated"]) > at(one["updated"])
    assert after["updated"] == before["updated"]


# --- promises: changing a deployment -----------------------------------------------------------------------------


def test_a_patch_changes_only_what_it_names(api: httpx.Client, unique: Unique) -> None:
    before = deploy(api, unique("flow"), tags=["a"], description="d", schedules=[every(5)])
    patch(api, before, version="2")
    after = now(api, before)
    assert after["version"] == "2"
    assert at(after["updated"]) > at(before["updated"])
    assert {**after, "version": None, "updated": None} == {**before, "version": None, "updated": None}


def test_labels_cannot_be_patched(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"))
    assert api.patch(f"/deployments/{deployment['id']}", json={"labels": {"a": "b"}}).status_code == 422


def test_a_patch_of_whatever_forgets_the_future_runs_of_schedules(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"), schedules=[every(5)])
    assert schedule(api, deployment, **FUTURE)
    patch(api, deployment)
    assert runs(api, deployment) == []


def test_a_patch_keeps_runs_that_are_overdue_or_were_started_by_somebody(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"), schedules=[every(30)])
    mine = ok(api.post(f"/deployments/{deployment['id']}/create_flow_run", json={}))
    overdue = [run["id"] for run in schedule(api, deployment, **PAST) if run["auto_scheduled"]]
    patch(api, deployment, description="d")
    assert [run["id"] for run in runs(api, deployment)] == [*overdue, mine["id"]]
    assert len(overdue) == 3


def test_a_patch_keeps_a_run_that_has_begun(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"), schedules=[every(5)])
    begun = schedule(api, deployment)[0]
    ok(api.post(f"/flow_runs/{begun['id']}/set_state", json={"state": {"type": "RUNNING"}, "force": True}))
    patch(api, deployment)
    assert [run["id"] for run in runs(api, deployment)] == [begun["id"]]


def test_a_wrong_parameter_changes_nothing(api: httpx.Client, unique: Unique) -> None:
    before = deploy(api, unique("flow"), parameter_openapi_schema=SCHEMA, parameters={"count": 1})
    answer = api.patch(f"/deployments/{before['id']}", json={"parameters": {"count": "many"}, "version": "2"})
    assert answer.status_code == 409
    assert now(api, before) == before


def test_a_new_schema_is_checked_against_the_old_parameters(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"), parameters={"name": "x"})
    schema = {"type": "object", "properties": {"name": {"type": "integer"}}}
    answer = api.patch(f"/deployments/{deployment['id']}", json={"parameter_openapi_schema": schema})
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith("Error updating deployment: Validation failed for field 'name'.")


def test_null_job_variables_leave_them_as_they_are(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"), job_variables={"env": {"A": "1"}})
    patch(api, deployment, job_variables=None)
    assert now(api, deployment)["job_variables"] == {"env": {"A": "1"}}


def test_a_null_pool_takes_the_deployment_out_of_it(api: httpx.Client, unique: Unique) -> None:
    pool = unique("pool")
    ok(api.post("/work_pools/", json={"name": pool, "type": "process"}))
    deployment = deploy(api, unique("flow"), work_pool_name=pool)
    patch(api, deployment, work_pool_name=None)
    assert now(api, deployment)["work_queue_id"] is None


def test_schedules_with_slugs_are_patched_by_slug_and_none_is_removed(api: httpx.Client, unique: Unique) -> None:
    before = deploy(api, unique("flow"), schedules=[every(5, slug="a"), every(5, slug="b")])
    patch(api, before, schedules=[every(10, slug="b"), every(15, slug="c")])
    after = {one["slug"]: one for one in now(api, before)["schedules"]}
    assert sorted(after) == ["a", "b", "c"]
    assert after["b"]["id"] == before["schedules"][0]["id"]
    assert after["b"]["schedule"]["cron"] == "*/10 * * * *"


def test_schedules_with_slugs_stay_when_none_are_sent(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"), schedules=[every(5, slug="a")])
    patch(api, deployment, schedules=[])
    assert slugs(now(api, deployment)) == ["a"]


def test_schedules_without_slugs_may_not_replace_those_with(api: httpx.Client, unique: Unique) -> None:
    before = deploy(api, unique("flow"), schedules=[every(5, slug="a")])
    answer = api.patch(f"/deployments/{before['id']}", json={"schedules": [every(10)], "version": "2"})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("Please provide a slug for each schedule")
    assert now(api, before) == before


@pytest.mark.parametrize("slug", [None, "a"])
def test_schedules_without_slugs_are_replaced_by_what_is_sent(
    api: httpx.Client, unique: Unique, slug: str | None
) -> None:
    before = deploy(api, unique("flow"), schedules=[every(5), every(10)])
    patch(api, before, schedules=[every(5, slug=slug)])
    after = now(api, before)["schedules"]
    assert [one["slug"] for one in after] == [slug]
    assert after[0]["id"] not in [one["id"] for one in before["schedules"]]


def test_a_renamed_slug_keeps_its_schedule_if_the_old_one_is_named(api: httpx.Client, unique: Unique) -> None:
    before = deploy(api, unique("flow"), schedules=[every(5, slug="old"), every(5, slug="other")])
    patch(api, before, schedules=[{"slug": "new", "replaces": "old"}])
    after = {one["slug"]: one["id"] for one in now(api, before)["schedules"]}
    assert after == {"new": before["schedules"][1]["id"], "other": before["schedules"][0]["id"]}


def test_two_schedules_may_swap_their_slugs(api: httpx.Client, unique: Unique) -> None:
    before = deploy(api, unique("flow"), schedules=[every(5, slug="a"), every(5, slug="b")])
    patch(api, before, schedules=[{"slug": "a", "replaces": "b"}, {"slug": "b", "replaces": "a"}])
    after = {one["slug"]: one["id"] for one in now(api, before)["schedules"]}
    assert after == {"a": before["schedules"][0]["id"], "b": before["schedules"][1]["id"]}


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        ([{"slug": "c"}], "Unable to create new"),
        ([{"slug": "b", "replaces": "a"}], "Cannot rename schedule from 'a' to 'b'"),
        ([{"slug": "c", "replaces": "a"}, {"slug": "d", "replaces": "a"}], "Multiple schedules have 'replaces'"),
    ],
)
def test_slugs_that_contradict_each_other_are_refused(
    api: httpx.Client, unique: Unique, sent: list[Json], complaint: str
) -> None:
    before = deploy(api, unique("flow"), schedules=[every(5, slug="a"), every(5, slug="b")])
    answer = api.patch(f"/deployments/{before['id']}", json={"schedules": sent})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(complaint)
    assert now(api, before) == before


# --- promises: runs that schedules make --------------------------------------------------------------------------


def test_scheduling_makes_three_runs_and_an_hour_of_them_at_least(api: httpx.Client, unique: Unique) -> None:
    seldom = deploy(api, unique("flow"), schedules=[{"schedule": {"cron": "0 0 1 * *"}}])
    often = deploy(api, unique("flow"), schedules=[every(10)])
    assert len(schedule(api, seldom)) == 3
    assert len(schedule(api, often)) in (6, 7)


def test_scheduling_again_makes_no_run_twice(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"), schedules=[every(20)])
    times = {"start_time": "2030-01-01T00:00:00Z"}
    first, again = (schedule(api, deployment, **times) for _ in range(2))
    assert [run["id"] for run in first] == [run["id"] for run in again]


def test_scheduling_from_before_a_patch_brings_back_what_it_took(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"), version="A", schedules=[every(20)])
    before = schedule(api, deployment, **FUTURE)
    patch(api, deployment, version="B")
    after = schedule(api, deployment, **FUTURE)
    assert [run["expected_start_time"] for run in after] == [run["expected_start_time"] for run in before]
    assert {run["deployment_version"] for run in before} == {"A"}
    assert {run["deployment_version"] for run in after} == {"B"}


def test_scheduling_obeys_its_bounds(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"), schedules=[every(20)])
    times = {"start_time": "2030-01-01T00:10:00Z", "end_time": "2030-01-01T01:00:00Z"}
    made = [run["expected_start_time"] for run in schedule(api, deployment, **times)]
    assert made == ["2030-01-01T00:20:00Z", "2030-01-01T00:40:00Z", "2030-01-01T01:00:00Z"]


def test_a_scheduled_run_says_where_it_comes_from(api: httpx.Client, unique: Unique) -> None:
    parameters, tags = {"a": 1, "b": 1}, ["t"]
    schedules = [every(30, slug="half", parameters={"b": 2})]
    deployment = deploy(api, unique("flow"), parameters=parameters, tags=tags, schedules=schedules)
    run = schedule(api, deployment)[0]
    one = deployment["schedules"][0]["id"]
    assert run["parameters"] == {"a": 1, "b": 2}
    assert run["tags"] == ["auto-scheduled", "t"]
    assert run["created_by"] == {"id": one, "type": "SCHEDULE", "display_value": "half"}
    assert run["idempotency_key"].startswith(f"scheduled {deployment['id']} {one} ")


def test_inactive_schedules_make_no_runs(api: httpx.Client, unique: Unique) -> None:
    assert schedule(api, deploy(api, unique("flow"), schedules=[every(5, active=False)])) == []


def test_scheduling_does_not_ask_whether_the_deployment_is_paused(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"), schedules=[every(5)])
    assert deployment["paused"] is True
    assert schedule(api, deployment)


def test_changing_a_schedule_forgets_future_runs_and_deleting_it_also_overdue_ones(
    api: httpx.Client, unique: Unique
) -> None:
    deployment = deploy(api, unique("flow"), schedules=[every(30)])
    schedule(api, deployment, **PAST)
    schedule(api, deployment, **FUTURE)
    path = f"/deployments/{deployment['id']}/schedules/{deployment['schedules'][0]['id']}"
    ok(api.patch(path, json={"active": True}))
    assert len(runs(api, deployment)) == 3
    ok(api.delete(path))
    assert runs(api, deployment) == []


def test_adding_a_schedule_touches_no_run(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"), schedules=[every(30)])
    before = schedule(api, deployment)
    ok(api.post(f"/deployments/{deployment['id']}/schedules", json=[every(5)]))
    assert [run["id"] for run in runs(api, deployment)] == [run["id"] for run in before]


def test_pausing_forgets_the_runs_of_schedules_and_resuming_makes_none(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"), schedules=[every(30)])
    schedule(api, deployment, **PAST)
    ok(api.post(f"/deployments/{deployment['id']}/pause_deployment"))
    assert now(api, deployment)["paused"] is True
    assert runs(api, deployment) == []


def test_a_deleted_deployment_takes_its_waiting_runs_along_and_leaves_the_others(
    api: httpx.Client, unique: Unique
) -> None:
    deployment = deploy(api, unique("flow"), schedules=[every(30)])
    started, waiting = (ok(api.post(f"/deployments/{deployment['id']}/create_flow_run", json={})) for _ in range(2))
    ok(api.post(f"/flow_runs/{started['id']}/set_state", json={"state": {"type": "RUNNING"}, "force": True}))
    schedule(api, deployment)
    ok(api.delete(f"/deployments/{deployment['id']}"))
    left = ok(api.post("/flow_runs/filter", json={"flow_runs": {"deployment_id": {"any_": [deployment["id"]]}}}))
    assert [run["id"] for run in left] == [started["id"]]
    assert api.get(f"/flow_runs/{waiting['id']}").status_code == 404


# On Python 3.13 Prefect uses another library for dates, and skipped hours go another way.
SPRING = (
    []
    if sys.version_info >= (3, 13)
    else [
        ({"cron": "30 2 * * *", "timezone": "Europe/Berlin"}, "2026-03-27T00:00:00Z"),
        ({"cron": "15 * * * *", "timezone": "Europe/Berlin"}, "2026-03-28T22:00:00Z"),
    ]
)


@pytest.mark.parametrize(
    ("schedule_", "start"),
    [
        ({"cron": "0 20 * * 1-5", "timezone": "America/Chicago"}, "2026-03-05T00:00:00Z"),
        ({"cron": "*/15 9-10 1,15 * 1"}, "2026-05-31T23:59:59.5Z"),
        ({"cron": "30 2 * * *", "timezone": "Europe/Berlin"}, "2026-10-23T00:00:00Z"),
        *SPRING,
        ({"cron": "15 * * * *", "timezone": "Europe/Berlin"}, "2026-10-24T22:00:00Z"),
        ({"cron": "0 9 1-7 * 1", "day_or": False}, "2026-06-01T00:00:00Z"),
        ({"cron": "0 0 * * 0"}, "2026-06-07T00:00:00Z"),
        ({"cron": "@daily"}, "2026-06-07T00:00:00Z"),
        (
            {"interval": 86400, "anchor_date": "2026-01-01T08:00:00+00:00", "timezone": "Europe/Berlin"},
            "2026-03-27T00:00:00Z",
        ),
        ({"interval": 5400, "anchor_date": "2026-01-01T08:00:00+00:00"}, "2026-03-27T00:00:00Z"),
        ({"interval": 93600, "anchor_date": "2027-01-01T08:00:00+02:00"}, "2026-03-27T00:00:00Z"),
        (
            {"rrule": "FREQ=WEEKLY;BYDAY=MO,FR;BYHOUR=8;BYMINUTE=0;BYSECOND=0", "timezone": "Europe/Berlin"},
            "2026-03-27T00:00:00Z",
        ),
        ({"rrule": "DTSTART:20260101T090000\nFREQ=MONTHLY;BYMONTHDAY=-1"}, "2026-03-27T00:00:00Z"),
        ({"rrule": "FREQ=HOURLY;INTERVAL=5"}, "2026-03-27T00:00:00Z"),
    ],
    ids=str,
)
def test_schedules_fire_at_the_same_times(
    fake: FakePrefect, real_api: httpx.Client, unique: Unique, schedule_: Json, start: str
) -> None:
    name, times = unique("flow"), {"start_time": start, "end_time": "2028-01-01T00:00:00Z", "min_runs": 9}
    fired = []
    for api in (fake.client(), real_api):
        made = schedule(api, deploy(api, name, schedules=[{"schedule": schedule_}]), **times)
        fired.append([(run["expected_start_time"], run["idempotency_key"].split(" ", 3)[3]) for run in made])
    assert fired[0] == fired[1]
    assert len(fired[0]) >= 9


# --- promises: runs that somebody starts -------------------------------------------------------------------------


def test_a_run_has_the_parameters_tags_and_version_of_its_deployment(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"), version="A", tags=["a"], parameters={"x": 1, "y": 1})
    path = f"/deployments/{deployment['id']}/create_flow_run"
    run = ok(api.post(path, json={"parameters": {"y": 2}, "tags": ["b"]}))
    assert (run["parameters"], sorted(run["tags"])) == ({"x": 1, "y": 2}, ["a", "b"])
    assert (run["deployment_version"], run["state_type"], run["auto_scheduled"]) == ("A", "SCHEDULED", False)


def test_a_run_with_a_wrong_parameter_is_refused(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"), parameter_openapi_schema=SCHEMA)
    path = f"/deployments/{deployment['id']}/create_flow_run"
    assert api.post(path, json={"parameters": {"count": "many"}}).status_code == 409
    assert api.post(path, json={}).status_code == 409  # count is required
    assert api.post(path, json={"parameters": {"count": 1}}).status_code == 201


def test_a_run_goes_through_its_states(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"))
    run = ok(api.post(f"/deployments/{deployment['id']}/create_flow_run", json={}))
    for state in ("PENDING", "RUNNING", "COMPLETED"):
        ok(api.post(f"/flow_runs/{run['id']}/set_state", json={"state": {"type": state}}))
    run = ok(api.get(f"/flow_runs/{run['id']}"))
    assert (run["state_type"], run["state_name"], run["run_count"]) == ("COMPLETED", "Completed", 1)
    assert at(run["start_time"]) <= at(run["end_time"])
    assert run["next_scheduled_start_time"] is None


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"state": {"type": {"any_": ["SCHEDULED"]}}}, 1),
        ({"state": {"type": {"any_": ["RUNNING"]}}}, 0),
        ({"state": {"type": {"not_any_": ["RUNNING"]}, "name": {"any_": ["Scheduled"]}}}, 1),
        ({"expected_start_time": {"after_": "2030-01-01T00:00:00Z", "before_": "2030-01-01T00:00:00Z"}}, 1),
        ({"expected_start_time": {"before_": "2029-12-31T23:59:59Z"}}, 0),
        ({"next_scheduled_start_time": {"after_": "2030-01-01T00:00:01Z"}}, 0),
        ({"next_scheduled_start_time": {"before_": "2030-01-02T00:00:00Z"}}, 1),
        ({"start_time": {"is_null_": True}, "tags": {"all_": ["auto-scheduled"]}}, 1),
        ({"deployment_id": {"is_null_": True}}, 0),
        ({"id": {"any_": []}}, 0),
        ({"operator": "or_", "id": {"any_": []}, "tags": {"any_": ["auto-scheduled"]}}, 1),
    ],
    ids=str,
)
def test_runs_are_found_by_state_and_time(api: httpx.Client, unique: Unique, wanted: Json, found: int) -> None:
    deployment = deploy(api, unique("flow"), schedules=[{"schedule": {"cron": "0 0 1 1 *"}}])
    schedule(api, deployment, start_time="2030-01-01T00:00:00Z", max_runs=1)
    query = {"deployments": {"id": {"any_": [deployment["id"]]}}, "flow_runs": wanted}
    assert len(ok(api.post("/flow_runs/filter", json=query))) == found


def test_the_logs_of_a_run_come_in_order(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"))
    run = ok(api.post(f"/deployments/{deployment['id']}/create_flow_run", json={}))
    line = {"name": "prefect", "flow_run_id": run["id"]}
    late = {**line, "level": 20, "message": "late", "timestamp": "2026-01-01T00:00:01Z"}
    early = {**line, "level": 40, "message": "early", "timestamp": "2026-01-01T00:00:00Z"}
    ok(api.post("/logs/", json=[late, early]))
    query = {"logs": {"flow_run_id": {"any_": [run["id"]]}}, "sort": "TIMESTAMP_ASC"}
    lines = ok(api.post("/logs/filter", json=query))
    assert [one["message"] for one in lines] == ["early", "late"]
    assert set(lines[0]) == {*early, "id", "created", "updated", "task_run_id"}


# --- promises: finding things ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"tags": {"all_": ["x", "y"]}}, ["both"]),
        ({"tags": {"any_": ["x", "z"]}}, ["both", "x"]),
        ({"tags": {"any_": []}}, []),
        ({"tags": {"all_": []}}, ["both", "none", "x"]),
        ({"tags": {"is_null_": True}}, ["none"]),
        ({"name": {"any_": ["x", "none"]}}, ["none", "x"]),
        ({"name": {"like_": "BOT"}}, ["both"]),
        ({"paused": {"eq_": False}}, []),
        ({"operator": "or_", "name": {"any_": ["none"]}, "tags": {"all_": ["y"]}}, ["both", "none"]),
        ({}, ["both", "none", "x"]),
    ],
    ids=str,
)
def test_deployments_are_found_by_name_and_tag(
    api: httpx.Client, unique: Unique, wanted: Json, found: list[str]
) -> None:
    flow = unique("flow")
    for name, tags in {"both": ["x", "y"], "x": ["x"], "none": []}.items():
        deploy(api, flow, name=name, tags=tags)
    query = {"flows": {"name": {"any_": [flow]}}, "deployments": wanted}
    assert [one["name"] for one in ok(api.post("/deployments/filter", json=query))] == found
    assert ok(api.post("/deployments/count", json=query)) == len(found)


def test_a_deployment_with_many_waiting_runs_counts_once(api: httpx.Client, unique: Unique) -> None:
    flow = unique("flow")
    some, none = (deploy(api, flow, name=name, schedules=[every(20)]) for name in ("some", "none"))
    assert len(schedule(api, some, start_time="2040-01-01T00:00:00Z", end_time="2040-01-01T01:00:00Z")) > 1
    late = {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": {"after_": "2039-12-31T00:00:00Z"}}
    query = {"deployments": {"id": {"any_": [some["id"], none["id"]]}}, "flow_runs": late}
    assert ok(api.post("/deployments/count", json=query)) == 1


def test_deployments_are_found_by_pool_and_by_either_name(api: httpx.Client, unique: Unique) -> None:
    pool, flow = unique("pool"), unique("flow")
    ok(api.post("/work_pools/", json={"name": pool, "type": "process"}))
    one = deploy(api, flow, work_pool_name=pool)
    for query in (
        {"work_pools": {"name": {"any_": [pool]}}},
        {"work_pools": {"name": {"any_": [pool]}}, "work_pool_queues": {"name": {"any_": ["default"]}}},
        {"deployments": {"flow_or_deployment_name": {"like_": flow.upper()}}, "flows": {"name": {"any_": [flow]}}},
    ):
        assert [found["id"] for found in ok(api.post("/deployments/filter", json=query))] == [one["id"]]


def test_lists_come_in_pages_of_200_at_most(api: httpx.Client, unique: Unique) -> None:
    stem = unique("many")
    for number in range(3):
        ok(api.post("/variables/", json={"name": f"{stem}_{number}", "value": number}))
    query = {"variables": {"name": {"like_": f"{stem}_"}}}
    pages = [ok(api.post("/variables/filter", json={**query, "limit": 2, "offset": at})) for at in (0, 2, 4)]
    assert [[one["value"] for one in page] for page in pages] == [[0, 1], [2], []]
    assert ok(api.post("/variables/filter", json={**query, "limit": 0})) == []
    assert api.post("/variables/filter", json={**query, "limit": 201}).status_code == 422


def test_a_sort_order_that_does_not_exist_is_refused(api: httpx.Client) -> None:
    for kind in ("deployments", "flows", "flow_runs", "variables", "artifacts", "automations", "logs"):
        assert api.post(f"/{kind}/filter", json={"sort": "SIDEWAYS_ASC"}).status_code == 422, kind


# --- promises: the other kinds -----------------------------------------------------------------------------------


def test_a_new_pool_has_a_default_queue(api: httpx.Client, unique: Unique) -> None:
    pool = ok(api.post("/work_pools/", json={"name": unique("pool"), "type": "process"}))
    queue = ok(api.get(f"/work_pools/{pool['name']}/queues/default"))
    assert (queue["id"], queue["priority"]) == (pool["default_queue_id"], 1)


def test_a_queue_that_takes_a_priority_moves_the_others_down(api: httpx.Client, unique: Unique) -> None:
    pool = unique("pool")
    ok(api.post("/work_pools/", json={"name": pool, "type": "process"}))
    for name in ("b", "c"):
        ok(api.post(f"/work_pools/{pool}/queues", json={"name": name, "priority": 1}))
    queues = ok(api.post(f"/work_pools/{pool}/queues/filter", json={}))
    assert {one["name"]: one["priority"] for one in queues} == {"c": 1, "b": 2, "default": 3}


def test_a_heartbeat_makes_a_pool_ready(api: httpx.Client, unique: Unique) -> None:
    pool = unique("pool")
    assert ok(api.post("/work_pools/", json={"name": pool, "type": "process"}))["status"] == "NOT_READY"
    ok(api.post(f"/work_pools/{pool}/workers/heartbeat", json={"name": "w"}))
    assert ok(api.get(f"/work_pools/{pool}"))["status"] == "READY"
    assert [one["status"] for one in ok(api.post(f"/work_pools/{pool}/workers/filter", json={}))] == ["ONLINE"]


@pytest.mark.parametrize(("length", "status"), [(4998, 201), (4999, 422)])
def test_a_variable_holds_5000_characters_of_json(api: httpx.Client, unique: Unique, length: int, status: int) -> None:
    body = {"name": unique("variable"), "value": "x" * length}
    assert api.post("/variables/", json=body).status_code == status


def secret(api: httpx.Client, name: str, value: Any) -> Json:
    kind = ok(api.get("/block_types/slug/secret"))
    query = {"block_schemas": {"block_type_id": {"any_": [kind["id"]]}}}
    schema = ok(api.post("/block_schemas/filter", json=query))[0]
    body = {"name": name, "data": {"value": value}, "block_type_id": kind["id"], "block_schema_id": schema["id"]}
    return dict(ok(api.post("/block_documents/", json=body)))


def test_a_secret_is_hidden_unless_it_is_asked_for(api: httpx.Client, unique: Unique) -> None:
    block = secret(api, unique("secret"), "hush")
    assert block["data"] == {"value": "********"}
    assert ok(api.get(f"/block_documents/{block['id']}?include_secrets=true"))["data"] == {"value": "hush"}


def test_a_secret_that_is_a_dict_is_shown_in_clear(api: httpx.Client, unique: Unique) -> None:
    block = secret(api, unique("secret"), {"password": "hush"})
    assert ok(api.get(f"/block_documents/{block['id']}"))["data"] == {"value": {"password": "hush"}}


def test_a_hidden_value_that_is_sent_back_changes_nothing(api: httpx.Client, unique: Unique) -> None:
    block = secret(api, unique("secret"), "hush")
    path = f"/block_documents/{block['id']}"
    ok(api.patch(path, json={"data": {"value": "********"}}))
    assert ok(api.get(f"{path}?include_secrets=true"))["data"] == {"value": "hush"}
    ok(api.patch(path, json={"data": {"value": "new"}}))
    assert ok(api.get(f"{path}?include_secrets=true"))["data"] == {"value": "new"}


def automate(api: httpx.Client, name: str, **fields: Any) -> Json:
    body = {"name": name, "trigger": EVENT, "actions": [{"type": "do-nothing"}], **fields}
    return dict(ok(api.post("/automations/", json=body)))


def test_two_automations_may_have_one_name(api: httpx.Client, unique: Unique) -> None:
    name = unique("automation")
    first, second = (automate(api, name) for _ in range(2))
    assert first["id"] != second["id"]


def test_the_id_of_a_trigger_is_new_at_each_write_and_stays_between(api: httpx.Client, unique: Unique) -> None:
    automation = automate(api, unique("automation"), trigger={**EVENT, "id": NOBODY})
    path = f"/automations/{automation['id']}"
    written = automation["trigger"]["id"]
    assert ok(api.get(path))["trigger"]["id"] == written != NOBODY
    ok(api.put(path, json={"name": "n", "trigger": automation["trigger"], "actions": []}))
    assert ok(api.get(path))["trigger"]["id"] not in (written, NOBODY)


def test_an_automation_that_is_put_keeps_what_is_not_sent(api: httpx.Client, unique: Unique) -> None:
    automation = automate(api, unique("automation"), description="d", enabled=False)
    path = f"/automations/{automation['id']}"
    ok(api.put(path, json={"name": "n", "trigger": EVENT, "actions": []}))
    after = ok(api.get(path))
    assert (after["name"], after["description"], after["enabled"]) == ("n", "d", False)


def test_a_deleted_deployment_leaves_its_automations_behind(api: httpx.Client, unique: Unique) -> None:
    deployment = deploy(api, unique("flow"))
    resource = f"prefect.deployment.{deployment['id']}"
    starting = {"type": "run-deployment", "deployment_id": deployment["id"]}
    mine = automate(api, unique("automation"), owner_resource=resource, actions=[starting])
    other = automate(api, unique("automation"), actions=[starting])
    ok(api.delete(f"/deployments/{deployment['id']}"))
    related = {one["id"] for one in ok(api.get(f"/automations/related-to/{resource}"))}
    assert related == {mine["id"], other["id"]}
    assert ok(api.delete(f"/automations/owned-by/{resource}")) is None
    assert [one["id"] for one in ok(api.get(f"/automations/related-to/{resource}"))] == [other["id"]]


def test_artifacts_with_one_key_keep_every_version(api: httpx.Client, unique: Unique) -> None:
    key = unique("artifact")
    for data in ("one", "two"):
        ok(api.post("/artifacts/", json={"key": key, "type": "markdown", "data": data}))
    query = {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC"}
    versions = ok(api.post("/artifacts/filter", json=query))
    assert [one["data"] for one in versions] == ["two", "one"]
    latest = ok(api.get(f"/artifacts/{key}/latest"))
    assert latest["data"] == "two"
    assert latest["id"] not in [one["id"] for one in versions]


def test_the_latest_artifact_of_a_key_follows_when_it_is_deleted(api: httpx.Client, unique: Unique) -> None:
    key = unique("artifact")
    ids = [ok(api.post("/artifacts/", json={"key": key, "data": data}))["id"] for data in ("one", "two")]
    ok(api.delete(f"/artifacts/{ids[1]}"))
    query = {"artifacts": {"key": {"any_": [key]}}}
    latest = ok(api.post("/artifacts/latest/filter", json=query))
    assert [(one["latest_id"], one["data"]) for one in latest] == [(ids[0], "one")]


@pytest.mark.parametrize("key", ["Release", "release_dev", "release/dev", "release.dev"])
def test_the_key_of_an_artifact_is_lower_case_digits_and_dashes(api: httpx.Client, key: str) -> None:
    assert api.post("/artifacts/", json={"key": key, "data": 1}).status_code == 422
