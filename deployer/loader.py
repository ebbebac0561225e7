"""The process apart that imports flows at a commit, and answers with what `.deploy()` would send for them.

Run as a script, in isolation (`python -I loader.py CHECKOUT`): it imports Prefect, the checkout, and nothing of this
package, so that the flows of an old commit never meet today's modules. It has no API address, key or secret. One
JSON request a line on standard input, one JSON answer a line on what was standard output; flows print to stderr.

    {"op": "load", "clone": {...} | null, "steps": [...], "deployments": [{...}], "automations": [{...}]}
    {"op": "create", "api": {"url": ..., "auth_string": ...}, "names": [...]}
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

PLACEHOLDER = "00000000-0000-4000-8000-000000000000"
"""Stands for the id of a deployment that may not exist yet, inside its triggers."""

OWN = str(Path(__file__).resolve().parents[1])
"""Where this package is. The environment may have it on its path: what a commit does not have must be missed."""


def main() -> int:
    checkout = Path(sys.argv[1]).resolve()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    os.chdir(checkout)
    sys.path[:] = [str(checkout), *(path for path in sys.path if path != OWN)]
    session = Session(checkout)
    for line in sys.stdin:
        request = json.loads(line)
        answer = session.load(request) if request["op"] == "load" else session.create(request)
        answers.write(json.dumps(answer) + "\n")
    return 0


class Session:
    """Keeps the loaded flows between the two requests, so that creating needs no second import."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout
        self.loaded: dict[str, Any] = {}

    def load(self, request: dict[str, Any]) -> dict[str, Any]:
        import prefect

        no_guesses()
        no_repeats()
        storage = storage_of(request, self.checkout)
        flows: dict[str, Any] = {}
        answers: dict[str, Any] = {}
        for item in request["deployments"]:
            entrypoint = item["entrypoint"]
            if entrypoint not in flows:
                flows[entrypoint] = attempt(flow_of, storage, entrypoint)
            flow, faults = flows[entrypoint]
            if not faults:
                found, faults = attempt(self.specify, flow, item)
            answers[item["name"]] = {"faults": faults} if faults else found
        automations = {item["name"]: attempt(automation_of, item) for item in request["automations"]}
        return {
            "prefect": prefect.__version__,
            "deployments": answers,
            "automations": {
                name: {"faults": faults} if faults else found for name, (found, faults) in automations.items()
            },
        }

    def specify(self, flow: Any, item: dict[str, Any]) -> dict[str, Any]:
        """What Prefect would send for this deployment, or what is wrong with it."""
        faults = parameter_faults(flow, item["parameters"], "parameters")
        for index, schedule in enumerate(item["schedules"]):
            faults += parameter_faults(flow, schedule.get("parameters", {}), f"schedules[{index}].parameters")
        for index, trigger in enumerate(item["triggers"]):
            at, given = f"triggers[{index}].parameters", trigger.get("parameters") or {}
            faults += (
                parameter_faults(flow, given, at, filled_in) if isinstance(given, dict) else [no_mapping(given, at)]
            )
        if faults:
            return {"faults": faults}
        deployment = flow.to_deployment(**arguments(item))
        self.loaded[item["name"]] = (deployment, item["work_pool_name"])
        return payload(deployment)

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        """Prefect's `deploy()`, once for each pool. The API is a relay of the parent's, which holds the credentials."""
        from prefect.context import SyncClientContext
        from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY, PREFECT_API_URL, temporary_settings

        api = request["api"]
        pools: dict[str, list[str]] = {}
        for name in request["names"]:
            pools.setdefault(self.loaded[name][1], []).append(name)
        faults: dict[str, str] = {}
        settings = {PREFECT_API_URL: api["url"], PREFECT_API_AUTH_STRING: api["auth_string"]}
        with temporary_settings(settings, restore_defaults={PREFECT_API_KEY}), SyncClientContext.get_or_create():
            for pool, names in pools.items():
                faults |= self.deploy(pool, names)
        return {"faults": faults}

    def deploy(self, pool: str, names: list[str]) -> dict[str, str]:
        """`prefect.deploy(a, b, ...)` says nothing about failures but to answer fewer ids; asked one by one, it raises."""
        from prefect import deploy

        def send(chosen: list[str]) -> Any:
            deployments = [self.loaded[name][0] for name in chosen]
            return deploy(
                *deployments,
                work_pool_name=pool,
                build=False,
                push=False,
                print_next_steps_message=False,
                ignore_warnings=True,
            )

        ids, faults = attempt(send, names)
        if not faults and len(ids) == len(names):
            return {}
        alone = {name: attempt(send, [name])[1] for name in names}
        return {name: found[0]["message"] for name, found in alone.items() if found}


def flow_of(storage: Any, entrypoint: str) -> Any:
    """Prefect's own call, `flow.from_source(<repository at the commit>, entrypoint)`."""
    from prefect import flow

    return flow.from_source(storage, entrypoint)


@cache
def no_guesses() -> None:
    """Where a module does not import, Prefect guesses the flow from its syntax tree. That hides the fault, and drops
    annotations: with no guess, it raises what the module raised."""
    import prefect.flows

    prefect.flows.safe_load_flow_from_entrypoint = lambda entrypoint: None


@cache
def no_repeats() -> None:
    """For each deployment Prefect runs its flow's file again and derives the flow's schema again, and for each schedule it
    lists all time zones. At one commit and in one process that has one answer."""
    from prefect.deployments import runner
    from prefect.types import _datetime
    from prefect.utilities import importtools

    repeated = (importtools, "load_script_as_module"), (runner, "parameter_schema"), (_datetime, "available_timezones")
    for module, name in repeated:
        setattr(module, name, cache(getattr(module, name)))


def storage_of(request: dict[str, Any], checkout: Path) -> Any:
    """The code's place for workers. Here it is the checkout that all flows share: pulling does nothing."""
    from prefect.runner.storage import GitRepository

    if request["clone"] is None:
        return Shared(checkout, request["steps"])
    arguments = dict(request["clone"])
    block = arguments.pop("credentials", None)

    class SharedRepository(GitRepository):
        @property
        def destination(self) -> Path:
            return checkout

        async def pull_code(self) -> None:
            return None

        def to_pull_step(self) -> dict[str, Any]:
            step = super().to_pull_step()
            if block:
                step["prefect.deployments.steps.git_clone"]["credentials"] = {
                    "access_token": f"{{{{ prefect.blocks.secret.{block} }}}}"
                }
            return step

    return SharedRepository(**arguments)


class Shared:
    """A storage of Prefect's protocol for code that workers get by given steps."""

    pull_interval = None

    def __init__(self, checkout: Path, steps: list[dict[str, Any]]) -> None:
        self.destination = checkout
        self.steps = steps

    def set_base_path(self, path: Path) -> None:
        return None

    async def pull_code(self) -> None:
        return None

    def to_pull_step(self) -> Any:
        return self.steps

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shared) and other.steps == self.steps

    __hash__ = None  # type: ignore[assignment]


def arguments(item: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments that to_deployment() and deploy() share. A `simple` version: the checkout is no clone, and asking
    Git in vain for each deployment takes longer than the rest."""
    from prefect._internal.versioning import VersionType
    from prefect.client.schemas.objects import ConcurrencyLimitConfig

    limit = item["concurrency_limit"]
    return {
        "name": item["deployment_name"],
        "version": item["version"],
        "version_type": VersionType.SIMPLE,
        "tags": item["tags"],
        "parameters": item["parameters"],
        "description": item["description"],
        "job_variables": item["job_variables"],
        "work_queue_name": item["work_queue_name"],
        "concurrency_limit": ConcurrencyLimitConfig(**limit) if isinstance(limit, dict) else limit,
        "paused": item["paused"],
        "enforce_parameter_schema": item["enforce_parameter_schema"],
        "schedules": [schedule_of(s) for s in item["schedules"]],
        "triggers": triggers_of(item["triggers"]),
    }


def triggers_of(given: list[dict[str, Any]]) -> Any:
    if not given:
        return []
    from prefect.events import DeploymentTriggerTypes
    from pydantic import TypeAdapter

    return TypeAdapter(list[DeploymentTriggerTypes]).validate_python(given)


def schedule_of(given: dict[str, Any]) -> Any:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule

    timezone = given.get("timezone")
    zone = {"timezone": timezone} if timezone else {}
    if given.get("cron"):
        schedule: Any = CronSchedule(cron=given["cron"], day_or=given["day_or"], **zone)
    elif given.get("interval"):
        anchor = {"anchor_date": given["anchor_date"]} if given.get("anchor_date") else {}
        schedule = IntervalSchedule(interval=given["interval"], **anchor, **zone)
    else:
        schedule = RRuleSchedule(rrule=given["rrule"], **zone)
    return DeploymentScheduleCreate(
        schedule=schedule, active=given["active"], slug=given.get("slug"), parameters=given["parameters"]
    )


def payload(deployment: Any) -> dict[str, Any]:
    """What RunnerDeployment sends when it is applied, as JSON, with the flow's name for its id."""
    steps = deployment.storage.to_pull_step()
    dumped = deployment.model_dump(
        mode="json", include={"parameters", "schedules", "concurrency_options", "job_variables", "tags"}
    )
    return {
        "flow_name": deployment.flow_name,
        "entrypoint": deployment.entrypoint,
        "pull_steps": steps if isinstance(steps, list) else [steps],
        "description": described(deployment.description),
        "parameter_openapi_schema": json.loads(
            json.dumps(deployment._parameter_openapi_schema.model_dump(exclude_unset=True))
        ),
        "concurrency_limit": deployment.concurrency_limit,
        "triggers": [trigger_of(t) for t in deployment.triggers],
        **dumped,
    }


def described(description: str | None) -> str:
    """As Prefect's client sends it: a flow without a docstring gets the word None."""
    return str(description)


def trigger_of(trigger: Any) -> dict[str, Any]:
    from uuid import UUID

    trigger.set_deployment_id(UUID(PLACEHOLDER))
    return dict(trigger.as_automation().model_dump(mode="json"))


def automation_of(given: dict[str, Any]) -> dict[str, Any]:
    """The automation as Prefect's own model writes it: every default filled in."""
    from prefect.events.schemas.automations import AutomationCore

    return dict(AutomationCore.model_validate(given).model_dump(mode="json"))


def no_mapping(given: Any, at: str) -> dict[str, str]:
    return {"at": at, "message": f"expected a mapping of parameters, got {json.dumps(given)}."}


def parameter_faults(
    flow: Any, parameters: dict[str, Any], at: str, later: Callable[[Any], bool] = lambda value: False
) -> list[dict[str, str]]:
    """What the flow's signature does not take, and what has the wrong type: the checks of the server, before the server.
    `later`: is this value known only when a run starts?"""
    if not parameters:
        return []
    import difflib

    from prefect.utilities.schema_tools.validation import validate

    schema = flow.parameters.model_dump(exclude_unset=True)
    known = list(schema.get("properties", {}))
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature(flow).parameters.values())
    faults = []
    for key in parameters:
        if key not in known and not takes_any:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            faults.append(
                {
                    "at": f"{at}.{key}",
                    "message": f"the flow '{flow.name}' has no parameter '{key}'.{hint} It takes: {', '.join(known) or 'none'}.",
                }
            )
    given = {k: v for k, v in parameters.items() if k in known and not later(v)}
    for error in validate(given, schema, raise_on_error=False, ignore_required=True):
        where = ".".join([at, *(str(part) for part in error.absolute_path)])
        faults.append({"at": where, "message": f"{error.message} (the flow '{flow.name}' declares it so)."})
    return faults


def filled_in(value: Any) -> bool:
    """Does a trigger's parameter take something from the event? Its type is then that of the event's."""
    text = json.dumps(value)
    return "{{" in text or "__prefect_kind" in text


def signature(flow: Any) -> Any:
    import inspect

    return inspect.signature(flow.fn)


def attempt(work: Callable[..., Any], *given: Any) -> tuple[Any, list[dict[str, str]]]:
    """The result, or the fault in words: whatever a flow's module raises is an answer, not the end."""
    try:
        with quiet_exit():
            found = work(*given)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return None, [{"at": "", "message": reason(error)}]
    return (found, found.get("faults", [])) if isinstance(found, dict) else (found, [])


@contextmanager
def quiet_exit() -> Iterator[None]:
    """Keep a module's sys.exit() from ending the loader."""
    try:
        yield
    except SystemExit as error:
        raise RuntimeError(f"the module calls sys.exit({error.code})") from error


def reason(error: BaseException) -> str:
    """`ModuleNotFoundError: No module named 'x' (flows/a.py:3)`: the cause, and the line in the checkout that raised it."""
    cause = getattr(error, "user_exc", None) or error
    here = os.getcwd()
    frames = [f for f in traceback.extract_tb(cause.__traceback__) if f.filename.startswith(here)]
    place = f" ({os.path.relpath(frames[-1].filename, here)}:{frames[-1].lineno})" if frames else ""
    first = (str(cause) or type(cause).__name__).strip().splitlines()[0].replace(here + os.sep, "")
    return f"{type(cause).__name__}: {first}{place}"


if __name__ == "__main__":
    sys.exit(main())
