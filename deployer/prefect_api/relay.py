"""A loopback address through which the loader's `.deploy()` reaches the API, for the time of creating.

The loader runs the repository's code, and so gets no credentials: the relay adds them. It lets through only what
creating the planned deployments needs, notes what became of each, and retries as all our calls do.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from deployer.errors import ApiRefused, DeployError
from deployer.prefect_api import automations, deployments
from deployer.prefect_api.client import Client

UUID = "[0-9a-f-]{36}"
NAME = r"(?!\.)(?:[^/?#%]|%(?!2[EFef])[0-9A-Fa-f]{2})+"
"""One part of a path, that also stays one where a proxy decodes it or resolves its dots."""
ALLOWED = [
    ("GET", re.compile(r"/csrf-token(\?.*)?")),
    ("GET", re.compile(r"/admin/version")),
    ("GET", re.compile(rf"/work_pools/{NAME}")),
    ("POST", re.compile(rf"/work_pools/{NAME}/workers/filter")),
    ("POST", re.compile(r"/flows/")),
    ("GET", re.compile(rf"/deployments/name/{NAME}/{NAME}")),
    ("POST", re.compile(r"/deployments/")),
    ("POST", re.compile(r"/automations/")),
    ("DELETE", re.compile(rf"/automations/owned-by/prefect\.deployment\.{UUID}")),
]
"""What `.deploy()` calls for a new deployment, and no more."""


@dataclass
class Relay:
    """`names` (flow/deployment) are to be created; those `taken` were there already when the relay opened."""

    client: Client
    names: frozenset[str]
    taken: frozenset[str] = frozenset()
    password: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    made: dict[tuple[str, str], Any] = field(default_factory=dict)
    triggered: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    fatal: DeployError | None = None
    port: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def access(self) -> dict[str, str]:
        return {"url": f"http://127.0.0.1:{self.port}/api", "auth_string": f"relay:{self.password}"}

    def permits(self, header: str | None) -> bool:
        expected = "Basic " + base64.b64encode(f"relay:{self.password}".encode()).decode()
        return header is not None and secrets.compare_digest(header.encode(), expected.encode())

    def forward(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """One call, as the client of this process makes it. Answers status and JSON."""
        if not any(m == method and pattern.fullmatch(path) for m, pattern in ALLOWED):
            return 403, {"detail": f"{method} {path} is not part of creating a deployment"}
        name = str(body.get("name")) if isinstance(body, dict) else ""
        with self.lock:
            if method == "POST" and (fault := self._unplanned(path, body, name)):
                return 403, {"detail": fault}
            return self._known(method, path, name) or self._asked(method, path, body, name)

    def _unplanned(self, path: str, body: Any, name: str) -> str | None:
        """Why a write is none of the planned creations: a module may have put its own words into `.deploy()`'s mouth."""
        if path == "/flows/" and not any(planned.startswith(f"{name}/") for planned in self.names):
            return f"the flow '{name}' has no deployment that is planned to be created"
        if path == "/deployments/" and name not in self.planned:
            return f"the deployment '{name}' is not planned to be created"
        if path == "/deployments/" and f"{self._flow(body.get('flow_id'))}/{name}" not in self.names:
            return f"the deployment '{name}' is planned for another flow"
        if path == "/automations/" and not self._triggers(body):
            return "an automation has to be a trigger of a deployment that was just created"
        return None

    def _flow(self, id: Any) -> str | None:
        return next((name for (path, name), made in self.made.items() if path == "/flows/" and made["id"] == id), None)

    def _triggers(self, body: Any) -> bool:
        """Does an automation run a deployment of ours, belong to it, and do no more?"""
        if not isinstance(body, dict) or body.get("actions_on_trigger") or body.get("actions_on_resolve"):
            return False
        actions = body.get("actions")
        if not isinstance(actions, list) or not all(isinstance(action, dict) for action in actions):
            return False
        owner = str(body.get("owner_resource")).removeprefix("prefect.deployment.")
        ours = {made["id"] for (path, _), made in self.made.items() if path == "/deployments/"}
        return owner in ours and automations.runs_deployment(body, owner)

    @cached_property
    def planned(self) -> frozenset[str]:
        return frozenset(name.split("/", 1)[1] for name in self.names - self.taken)

    @property
    def created(self) -> set[str]:
        return {name for path, name in self.made if path == "/deployments/"}

    def _known(self, method: str, path: str, name: str) -> tuple[int, Any] | None:
        """What needs no call, or no second one: for a new deployment `.deploy()` makes four, and creates with one of them."""
        if path.startswith("/csrf-token"):
            return 404, {"detail": "Not Found"}
        if path.startswith("/deployments/name/"):
            return self._looked_up(unquote(path.removeprefix("/deployments/name/")))
        if method == "DELETE" and path not in self.triggered:
            return 204, None
        return (201, self.made[path, name]) if (path, name) in self.made else None

    def _looked_up(self, name: str) -> tuple[int, Any]:
        if name not in self.taken:
            return 404, {"detail": "Deployment not found"}
        reason = f"{name} is there by now, and was not when this was planned: plan again"
        self.failed[name.split("/", 1)[1]] = reason
        return 403, {"detail": reason}

    def _asked(self, method: str, path: str, body: Any, name: str) -> tuple[int, Any]:
        if self.fatal:
            return 400, {"detail": str(self.fatal)}
        try:
            answer = self._request(method, path, body)
        except ApiRefused as error:
            if path == "/deployments/":
                self.failed[name] = str(error)
            return error.status, {"detail": str(error)}
        except DeployError as error:
            self.fatal = error
            return 400, {"detail": str(error)}
        if path in ("/flows/", "/deployments/"):
            self.made[path, name] = answer
        if path == "/deployments/":
            self.failed.pop(name, None)
        return (204 if answer is None else 201 if method == "POST" and not path.endswith("filter") else 200), answer

    def _request(self, method: str, path: str, body: Any) -> Any:
        """All but one of these calls may be repeated: a second automation would be one more."""
        if (method, path) == ("POST", "/automations/") and isinstance(body, dict) and "name" in body:
            self.triggered.add(f"/automations/owned-by/{body.get('owner_resource')}")
            return automations.send(self.client, body)
        return self.client.request(method, path, body)


@contextmanager
def open_relay(client: Client, names: frozenset[str]) -> Iterator[Relay]:
    there, flows = deployments.named(client, sorted(names))
    relay = Relay(client, names, frozenset(f"{flows[a['flow_id']]}/{a['name']}" for a in there))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(relay))
    server.daemon_threads = True
    relay.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield relay
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(relay: Relay) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = (
            1 << 16
        )  # headers and body in one packet: in two, the other side waits 40 ms before it takes the second

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(length)
            if not relay.permits(self.headers.get("Authorization")) or not self.path.startswith("/api/"):
                return self._send(401, {"detail": "no access"})
            try:
                body = json.loads(raw) if raw else None
            except ValueError:
                return self._send(400, {"detail": "not JSON"})
            self._send(*relay.forward(self.command, self.path.removeprefix("/api"), body))
            return None

        do_GET = do_POST = do_DELETE = do_PATCH = do_PUT = _serve

        def _send(self, status: int, answer: Any) -> None:
            data = b"" if status == 204 else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            return None

    return Handler
