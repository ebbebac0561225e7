"""The ways to deploy that are compared. Each is run as a whole process, as a pipeline would."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench import machine, workload
from bench.machine import Cost, Load
from bench.servers import Server, clean_environment
from bench.workload import Workload

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Place:
    """Where a contender works: one workload, one server, one scratch folder."""

    workload: Workload
    server: Server
    folder: Path
    bodies: list[dict[str, Any]] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        api = {"PREFECT_API_URL": self.server.url, "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false"}
        return {**clean_environment(self.folder), **api, "REPOSITORY_URL": self.workload.url}


@dataclass(frozen=True)
class Measured:
    """One action of one contender: what it cost, and what it did, where that is known."""

    cost: Cost
    stats: Mapping[str, Any] = field(default_factory=dict)


Contender = Callable[[Place, str], Measured]


def prefect_deploy(place: Place, action: str) -> Measured:
    words = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    return Measured(machine.run(words, place.workload.path, place.environment(), place.server.processes))


def loop(place: Place, action: str) -> Measured:
    words = [sys.executable, *workload.loop_files(place.workload, place.folder)]
    return Measured(machine.run(words, place.folder / "empty", place.environment(), place.server.processes))


def this_tool(place: Place, action: str) -> Measured:
    stats, trace = place.folder / "stats.json", place.folder / "git-trace.json"
    trace.unlink(missing_ok=True)
    words = [
        sys.executable,
        str(ROOT / "scripts/deploy.py"),
        "apply",
        "--env",
        "bench",
        "--repo",
        str(place.workload.path),
    ]
    noted = {"PREFECT_PLATFORM_STATS": str(stats), "GIT_TRACE2_EVENT": str(trace)}
    cost = machine.run(words, place.folder / "empty", {**place.environment(), **noted}, place.server.processes)
    return Measured(cost, {**json.loads(stats.read_text()), "checkouts": _checkouts(trace)})


def _checkouts(trace: Path) -> int:
    """How often Git wrote a commit's files to disk."""
    events = (json.loads(line) for line in trace.read_text().splitlines())
    return sum(
        e.get("name") in ("checkout-index", "clone", "checkout", "worktree") for e in events if e["event"] == "cmd_name"
    )


def bare(place: Place, action: str) -> Measured:
    """The server's own cost: the same calls in a loop, with nothing around them."""
    began, cpu, load = time.monotonic(), time.process_time(), Load(place.server.processes)
    steps = {"create": _bare_create, "new_sha": _bare_new_sha, "unchanged": _bare_unchanged}
    with httpx.Client(base_url=place.server.url, timeout=60, trust_env=False) as client:
        parts = steps[action](client, place)
    seconds, used = time.monotonic() - began, time.process_time() - cpu
    return Measured(load.cost(seconds, used, 0.0), parts)


def _bare_create(client: httpx.Client, place: Place) -> dict[str, float]:
    began = time.monotonic()
    for body in place.bodies:
        flow = send(client, "POST", "/flows/", {"name": body["flow_name"]})
        send(
            client,
            "POST",
            "/deployments/",
            {**{k: v for k, v in body.items() if k != "flow_name"}, "flow_id": flow["id"]},
        )
    writing = time.monotonic() - began
    _read(client)
    return {"writing": writing}


def _bare_new_sha(client: httpx.Client, place: Place) -> dict[str, float]:
    found = _read(client)
    clone = {"repository": place.workload.url, "commit_sha": place.workload.head}
    body = {"version": place.workload.head, "pull_steps": [{"prefect.deployments.steps.git_clone": clone}]}
    began = time.monotonic()
    for deployment in found:
        send(client, "PATCH", f"/deployments/{deployment['id']}", body)
    writing = time.monotonic() - began
    _read(client)
    return {"writing": writing}


def _bare_unchanged(client: httpx.Client, place: Place) -> dict[str, float]:
    _read(client)
    return {"writing": 0.0}


def _read(client: httpx.Client) -> list[dict[str, Any]]:
    found = list(pages(client, "/deployments/filter"))
    list(pages(client, "/flows/filter"))
    return found


def send(client: httpx.Client, method: str, path: str, body: Any = None) -> Any:
    """A call, repeated at once while the server says that it is busy (SQLite: locked)."""
    for _ in range(50):
        try:
            response = client.request(method, path, json=body)
        except httpx.RemoteProtocolError:
            continue
        if response.status_code < 500:
            response.raise_for_status()
            return response.json() if response.content else None
    raise RuntimeError(f"{method} {path}: {response.status_code} {response.text[:300]}")


def pages(client: httpx.Client, path: str, body: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    offset = 0
    while True:
        page = send(client, "POST", path, {**(body or {}), "limit": 200, "offset": offset})
        yield from page
        offset += 200
        if len(page) < 200:
            return


CONTENDERS: Mapping[str, Contender] = {
    "prefect_deploy": prefect_deploy,
    "loop": loop,
    "this_tool": this_tool,
    "bare": bare,
}
