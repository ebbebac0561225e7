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
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from deployer.errors import ApiRefused, DeployError
from deployer.prefect_api import automations
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
    client: Client
    names: frozenset[str]
    password: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    created: dict[str, str] = field(default_factory=dict)
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
        if path.startswith("/csrf-token"):
            return 404, {"detail": "Not Found"}
        name = body.get("name") if path == "/deployments/" and isinstance(body, dict) else None
        if path == "/deployments/" and name not in self.names:
            return 403, {"detail": f"the deployment '{name}' is not planned to be created"}
        if self.fatal:
            return 400, {"detail": str(self.fatal)}
        try:
            with self.lock:
                answer = self._request(method, path, body)
        except ApiRefused as error:
            if name:
                self.failed[name] = str(error)
            return error.status, {"detail": str(error)}
        except DeployError as error:
            self.fatal = error
            return 400, {"detail": str(error)}
        if name:
            self.created[name] = answer["id"]
        return (204 if answer is None else 201 if method == "POST" and not path.endswith("filter") else 200), answer

    def _request(self, method: str, path: str, body: Any) -> Any:
        """All but one of these calls may be repeated: a second automation would be one more."""
        if (method, path) == ("POST", "/automations/") and isinstance(body, dict) and "name" in body:
            return automations.send(self.client, body)
        return self.client.request(method, path, body)


@contextmanager
def open_relay(client: Client, names: frozenset[str]) -> Iterator[Relay]:
    relay = Relay(client, names)
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
