"""Start a run of a deployment by its catalogue name, follow its logs, and end as it ended."""

from __future__ import annotations

import json
import time
import uuid
from datetime import timedelta
from typing import Any

from deployer import render
from deployer.console import Console
from deployer.errors import Exit, InvalidInput
from deployer.fields import RETIRED
from deployer.model import Live
from deployer.prefect_api import runs
from deployer.prepare import Site, owned
from deployer.yamlfile import guess

LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}


def run(site: Site, name: str, given: list[str], timeout: float | None, console: Console) -> Exit:
    """Exit 0 when it completed, 4 when it ended otherwise or not within `timeout` seconds."""
    deployment = _find(site, name)
    parameters = _parameters(given, deployment)
    started = runs.start(site.client, deployment.id, parameters, f"prefect-platform {uuid.uuid4()}")
    url = f"{site.client.url.removesuffix('/api')}/runs/flow-run/{started['id']}"
    console.note(f"Run '{started['name']}' of {deployment.name}: {url}")
    last = started
    try:
        for event in runs.follow(
            site.client, started["id"], time.sleep, timedelta(seconds=timeout) if timeout else None
        ):
            if "log" in event:
                console.note(_line(event["log"]))
            else:
                last = event["state"]
                console.note(f"-- {last['state']['name']}{_where(last)}")
    except KeyboardInterrupt:
        console.note(f"The run goes on without us: {url}")
        raise
    data = {
        "id": last["id"],
        "name": last["name"],
        "deployment": deployment.name,
        "state": last["state"]["name"],
        "state_type": last["state_type"],
        "message": last["state"].get("message"),
        "url": url,
    }
    text = (
        f"Run '{data['name']}' of {deployment.name}: {data['state']}{'. ' + data['message'] if data['message'] else ''}"
    )
    if last["state_type"] not in runs.FINAL:
        console.note(
            f"It has not ended within {timeout:g} s and goes on. Is a worker online for the pool {deployment.fields['work_pool']}?"
        )
    console.result(lambda: text, lambda: f"**{text}**", lambda: {"format": render.FORMAT, "flow_run": data})
    return Exit.DONE if last["state_type"] == "COMPLETED" else Exit.FAILED


def _where(flow_run: dict[str, Any]) -> str:
    return (
        f" (pool {flow_run['work_pool_name']})"
        if flow_run.get("work_pool_name") and flow_run["state_type"] == "SCHEDULED"
        else ""
    )


def _line(log: dict[str, Any]) -> str:
    return f"{log['timestamp'][11:19]} {LEVELS.get(log['level'], log['level']):<8} {log['message']}"


def _find(site: Site, name: str) -> Live:
    # Of two of one name the one in use comes last, and counts.
    found = sorted(owned(site), key=lambda live: RETIRED not in live.fields["tags"])
    by_name = {live.name.split("/", 1)[1]: live for live in found}
    full = site.scope.name(name)
    if full not in by_name:
        known = sorted(by_name)
        raise InvalidInput(
            f"{site.environment.name} has no deployment '{full}'.{guess(full, known)} There are: {', '.join(known) or 'none; apply first'}."
        )
    return by_name[full]


def _parameters(given: list[str], deployment: Live) -> dict[str, Any]:
    """`k=v`: v is JSON where it reads as such, else text."""
    parameters: dict[str, Any] = {}
    properties = deployment.fields["parameter_openapi_schema"].get("properties", {})
    for word in given:
        key, sign, value = word.partition("=")
        if not sign or not key:
            raise InvalidInput(f"--param {word}: expected NAME=VALUE.")
        if properties and key not in properties:
            raise InvalidInput(
                f"--param {key}: the flow has no such parameter.{guess(key, properties)} It takes: {', '.join(properties)}."
            )
        parameters[key] = _value(key, value, properties.get(key, {}))
    return parameters


def _value(key: str, text: str, schema: dict[str, Any]) -> Any:
    if schema.get("type") == "string":
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    except RecursionError:
        raise InvalidInput(f"--param {key}: nested too deeply.") from None
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:
        raise InvalidInput(
            f"--param {key}: no request can hold NaN, Infinity or half a character (a surrogate). Give another value."
        ) from None
    return value
