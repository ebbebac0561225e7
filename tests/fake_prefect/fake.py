"""FakePrefect: takes requests to the functions that answer them, and helps a test to look on and to interfere."""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from tests.fake_prefect import (
    artifacts,
    automations,
    blocks,
    concurrency_limits,
    deployment_runs,
    deployments,
    flow_runs,
    flows,
    logs,
    root,
    schedules,
    variables,
    work_pools,
    work_queues,
    workers,
)
from tests.fake_prefect.faults import Fault, How
from tests.fake_prefect.serving import served
from tests.fake_prefect.store import Store
from tests.fake_prefect.wire import Answer, Call, Refusal, Route

# Every endpoint of the fake; which of them write is decided here and not by their verbs.
ROUTES: tuple[Route, ...] = (
    *root.ROUTES,
    *flows.ROUTES,
    *deployments.ROUTES,
    *deployment_runs.ROUTES,
    *schedules.ROUTES,
    *flow_runs.ROUTES,
    *logs.ROUTES,
    *work_pools.ROUTES,
    *work_queues.ROUTES,
    *workers.ROUTES,
    *concurrency_limits.ROUTES,
    *variables.ROUTES,
    *blocks.ROUTES,
    *automations.ROUTES,
    *artifacts.ROUTES,
)
OPEN = ("/health", "/ready")
BASE_URL = "http://fake-prefect/api"


@dataclass(frozen=True)
class Recorded:
    """One request as it came in; `path` without the leading /api."""

    method: str
    path: str
    json: Any
    writes: bool

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class FakePrefect:
    """A Prefect server in memory. Give `transport` to an httpx client, or `serve()` it to another process.

    `requests`, `writes`    what came in so far, and which of it would change something; `forget()` starts anew
    `fail(...)`             let requests fail, before or after they did their work
    `on_request`            called with each `Recorded` request before it is answered; what it raises reaches the client
    `now`                   the time of the server; set it to stop the clock, None lets it run again
    `version`               what the server says that it is
    `settings`              what it says of its own settings, those that the deployer looks at
    `auth`, `api_key`       when set, requests without that "user:password" or bearer key get 401
    `backstage`             an httpx client to prepare and inspect: not recorded, never failing, no key needed
    """

    def __init__(self, version: str = "3.8.8") -> None:
        self.version = version
        self.auth: str | None = None
        self.api_key: str | None = None
        self.on_request: Callable[[Recorded], object] | None = None
        self.requests: list[Recorded] = []
        self._faults: list[Fault] = []
        self._store = Store()
        self._lock = threading.RLock()
        blocks.install(self._store, version)

    @property
    def now(self) -> datetime:
        return self._store.clock.read()

    @now.setter
    def now(self, now: datetime | None) -> None:
        self._store.clock.set(now)

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        return self._store.settings

    @property
    def writes(self) -> list[Recorded]:
        return [request for request in self.requests if request.writes]

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self.handle)

    @property
    def backstage(self) -> httpx.Client:
        return httpx.Client(base_url=BASE_URL, transport=httpx.MockTransport(self._work))

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=BASE_URL, transport=self.transport)

    def forget(self) -> None:
        self.requests.clear()

    def fail(
        self,
        method: str,
        path: str,
        *,
        before: How | None = None,
        after: How | None = None,
        times: int = 1,
        skip: int = 0,
        retry_after: float | None = None,
    ) -> Fault:
        """Let the next `times` requests of that method ("*": any) and path (a regular expression, found anywhere)
        fail, after `skip` that pass. How: a status code, "drop" or "timeout". `before` the work, or `after` it:
        then the work was done and only its answer is lost."""
        fault = Fault(method, path, before, after, times, skip, retry_after)
        self._faults.append(fault)
        return fault

    @contextmanager
    def serve(self) -> Iterator[str]:
        """The fake on a loopback port, for as long as the `with` lasts; gives the URL of its API."""
        with served(self.handle) as url:
            yield f"{url}/api"

    def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer one request, or fail as a test asked for."""
        with self._lock:
            recorded = self._record(request)
            fault = next((one for one in self._faults if one.strikes(recorded.method, recorded.path)), None)
        if self.on_request:
            self.on_request(recorded)
        if not self._allowed(request, recorded.path):
            return _response(Answer(401, {"exception_message": "Unauthorized"}))
        if fault and fault.before is not None:
            return _failure(fault.before, fault, request)
        response = self._work(request)
        return response if fault is None or fault.after is None else _failure(fault.after, fault, request)

    def _record(self, request: httpx.Request) -> Recorded:
        route, _ = _find(request)
        writes = route.writes if route else request.method != "GET"
        recorded = Recorded(request.method, _path(request), _json(request), writes)
        self.requests.append(recorded)
        return recorded

    def _allowed(self, request: httpx.Request, path: str) -> bool:
        given = request.headers.get("authorization")
        if self.auth and path not in OPEN and given != f"Basic {b64encode(self.auth.encode()).decode()}":
            return False
        return not (self.api_key and path not in OPEN and given != f"Bearer {self.api_key}")

    def _work(self, request: httpx.Request) -> httpx.Response:
        route, parts = _find(request)
        if route is None:
            return _response(_unknown(request))
        call = Call(self._store, self.version, parts, dict(request.url.params), request.content)
        with self._lock:
            try:
                return _response(route.answer(call))
            except Refusal as refusal:
                return _response(refusal.answer)


def _find(request: httpx.Request) -> tuple[Route | None, Mapping[str, str]]:
    for route in ROUTES:
        parts = route.match(_path(request)) if route.method == request.method else None
        if parts is not None:
            return route, parts
    return None, {}


def _path(request: httpx.Request) -> str:
    return request.url.path.removeprefix("/api")


def _json(request: httpx.Request) -> Any:
    try:
        return json.loads(request.content) if request.content else None
    except ValueError:
        return request.content.decode(errors="replace")


def _unknown(request: httpx.Request) -> Answer:
    """As the real server: a missing slash at the end is put right, an id that is none is not found.

    What the fake does not play at all must not look like a deployment that is not there."""
    path = _path(request)
    other = path.removesuffix("/") if path.endswith("/") else f"{path}/"
    if any(route.match(other) is not None for route in ROUTES if route.method == request.method):
        return Answer(307, headers={"location": str(request.url.copy_with(path=f"/api{other}"))})
    if any(_alike(route.path, path) for route in ROUTES if route.method == request.method):
        return Answer(404, {"detail": "Not Found"})
    return Answer(501, {"detail": f"The fake has no {request.method} {path}: add it to tests/fake_prefect."})


def _alike(pattern: str, path: str) -> bool:
    parts, names = path.split("/"), pattern.split("/")
    same_length = len(parts) == len(names)
    return same_length and all(name.startswith("{") or name == part for name, part in zip(names, parts, strict=False))


def _failure(how: How, fault: Fault, request: httpx.Request) -> httpx.Response:
    if how == "drop":
        raise httpx.RemoteProtocolError("Server disconnected without sending a response.", request=request)
    if how == "timeout":
        raise httpx.ReadTimeout("timed out", request=request)
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    return _response(Answer(how, {"exception_message": httpx.codes.get_reason_phrase(how)}, headers))


def _response(answer: Answer) -> httpx.Response:
    headers = {"content-type": "application/json", **answer.headers}
    return httpx.Response(answer.status, content=answer.encoded(), headers=headers)
