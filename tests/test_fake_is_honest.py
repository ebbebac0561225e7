"""The fake Prefect API does what a real Prefect server does.

First whole conversations, held with both and compared field by field; then one promise a test, made by both.
Names differ from test to test, so that all of them share the one real server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.fake_prefect import FakePrefect

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


def hold(api: httpx.Client, talk: Callable[[Conversation, str], object], name: str) -> dict[str, Any]:
    conversation = Conversation(api)
    talk(conversation, name)
    return {
        f"{conversation.named(said)} -> {path}": value
        for said, note in conversation.notes
        for path, value in flat(note)
    }


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf by its path, so that a difference names its field."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not parts:
        yield path, value
    for name, part in parts:
        yield from flat(part, f"{path}.{name}")


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
    for change in (
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
    ):
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
    for change in (
        {},
        {"active": False},
        {"parameters": {"a": 3}, "slug": "b", "max_scheduled_runs": 2},
        {"active": True},
        {"slug": None, "max_scheduled_runs": None, "schedule": None},
        {"schedule": {"rrule": "FREQ=HOURLY"}},
        {"max_scheduled_runs": 200},
        {"nope": 1},
    ):
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
    ours, theirs = hold(fake.client(), talk, name), hold(real_api, talk, name)
    differing = [key for key in ours | theirs if ours.get(key, MISSING) != theirs.get(key, MISSING)]
    told = [f"{key}\n    fake {ours.get(key, MISSING)!r}, real {theirs.get(key, MISSING)!r}" for key in differing]
    assert not told, "\n".join(told)
