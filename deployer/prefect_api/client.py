"""HTTP to a Prefect API: pages, retries with backoff and jitter, and errors in words. No Prefect is imported: raw reads
are faster than its client's, and this process needs none of the rest."""

from __future__ import annotations

import importlib.metadata
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from deployer.environment import Api
from deployer.errors import ApiRefused, InvalidInput, Unreachable
from deployer.model import canonical

PAGE = 200
TIMEOUT = 15.0
RETRIED = frozenset({408, 429, 500, 502, 503, 504})
CONTROL = frozenset(map(chr, [*range(32), 127]))
CLOUD = re.compile(r"https?://api\.(\w+\.)?prefect\.cloud(/|$)")


@dataclass(frozen=True)
class Retry:
    """Full jitter between nothing and base * 2^n, capped; a Retry-After wins."""

    attempts: int = 8
    base: float = 0.2
    cap: float = 8.0

    def wait(self, attempt: int, after: str | None) -> float:
        if after and after.replace(".", "", 1).isdigit():
            return min(float(after), 60.0)
        return random.uniform(0, min(self.cap, self.base * 2**attempt))


@dataclass
class Calls:
    """What this client did, for people and for the benchmark."""

    by_endpoint: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, method: str, path: str, again: bool) -> None:
        plain = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "{id}", path.split("?")[0])
        plain = re.sub(r"(/name|/artifacts|/work_pools)/(?!filter|latest/|\{id\})[^/]+", r"\1/{name}", plain)
        with self.lock:
            self.by_endpoint[f"{method} {plain}"] += 1
            self.retries += again


class Client:
    """One API, for any number of threads. Every request goes through `request`, and only `prefect_api` holds a client."""

    def __init__(
        self,
        api: Api,
        transport: httpx.BaseTransport | None = None,
        retry: Retry = Retry(),
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        if re.match(r"[^/]*//[^/]*@", api.url):
            raise InvalidInput(
                "The API's address (api.url, PREFECT_API_URL) holds a credential, which would show wherever the address does. Give it as api.auth_string (PREFECT_API_AUTH_STRING) instead."
            )
        if not re.fullmatch(r"https?://[^/\s?#]+[^\s?#]*", api.url):
            raise InvalidInput(
                f"The API's address '{api.url}' is no http(s) URL. Set api.url (PREFECT_API_URL), e.g. http://127.0.0.1:4200/api."
            )
        if set(api.key + api.auth_string) & CONTROL or not api.key.isascii():
            raise InvalidInput(
                "The API's credential (api.key, api.auth_string) holds a character that none has, such as a line break in its middle. Was it pasted whole, and once?"
            )
        self.url = api.url.rstrip("/")
        self.cloud = bool(CLOUD.match(self.url))
        self.retry = retry
        self.hurried = threading.Event()
        self.sleep = sleep or self.hurried.wait
        self.calls = Calls()
        self.ahead: float | None = None
        headers = {"Accept": "application/json"}
        auth: tuple[str, str] | None = None
        if api.key:
            headers["Authorization"] = f"Bearer {api.key}"
        elif api.auth_string:
            user, _, password = api.auth_string.partition(":")
            auth = (user, password)
        try:
            self.http = httpx.Client(
                base_url=self.url,
                headers=headers,
                auth=auth,
                timeout=TIMEOUT,
                transport=transport,
                follow_redirects=False,
                trust_env=transport is None,
            )
            self.http.base_url.host.encode("idna")  # as the resolver does: a name may be too long for it
        except (httpx.InvalidURL, ValueError) as error:  # a ValueError is a proxy's too, from the environment
            raise InvalidInput(f"The API's address '{self.url}', or a proxy's, cannot be used: {error}.") from None
        self.csrf: dict[str, str] = {}
        self._early: dict[str, Future[list[Any]]] = {}

    def hurry(self) -> None:
        """From now on one try, and a short one: who interrupts does not wait, and GitHub kills after ten seconds."""
        self.hurried.set()
        self.http.timeout = httpx.Timeout(3.0)

    def close(self) -> None:
        self.http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def get(self, path: str) -> Any:
        return self.request("GET", path)

    def find(self, path: str) -> Any | None:
        """GET, None if there is no such thing."""
        try:
            return self.request("GET", path)
        except ApiRefused as error:
            if error.status == 404:
                return None
            raise

    def patch(self, path: str, body: Mapping[str, Any]) -> None:
        self.request("PATCH", path, body)

    def put(self, path: str, body: Mapping[str, Any]) -> None:
        self.request("PUT", path, body)

    def delete(self, path: str) -> None:
        """A thing that is gone already is as good as deleted: an earlier answer may have been lost."""
        try:
            self.request("DELETE", path)
        except ApiRefused as error:
            if error.status != 404:
                raise

    def create(self, path: str, body: Any, existing: Callable[[], Any | None]) -> Any:
        """POST. When an answer is lost, `existing` reads whether it happened after all, before the POST is repeated."""
        return self.request("POST", path, body, existing=existing)

    def pages(self, path: str, body: Mapping[str, Any] | None = None) -> Iterator[Any]:
        """Every item of a `/filter` endpoint, however many there are. The server answers 200 at most, and says nothing."""
        if asked := self._early.pop(canonical([path, body]), None):
            yield from asked.result()
        else:
            yield from self._pages(path, body)

    def early(self, path: str, body: Mapping[str, Any]) -> None:
        """Start reading all pages, for a caller who has to wait for something else. The next `pages` of the same takes them."""
        answer: Future[list[Any]] = Future()
        self._early[canonical([path, body])] = answer

        def read() -> None:
            try:
                answer.set_result(list(self._pages(path, body)))
            except BaseException as error:
                answer.set_exception(error)

        threading.Thread(target=read, daemon=True).start()

    def _pages(self, path: str, body: Mapping[str, Any] | None) -> Iterator[Any]:
        offset = 0
        while True:
            page = self.request("POST", path, {**(body or {}), "limit": PAGE, "offset": offset})
            yield from page
            if len(page) < PAGE:
                return
            offset += PAGE

    def now(self) -> datetime:
        """The server's clock, at most a second or two behind it and never before it: answers tell it in whole seconds, rounded down.
        This machine's own may be wrong, or set anew meanwhile."""
        if self.ahead is None:
            return datetime.now(UTC)
        return datetime.fromtimestamp(time.monotonic() + self.ahead, UTC)

    def request(
        self, method: str, path: str, body: Any = None, existing: Callable[[], Any | None] | None = None
    ) -> Any:
        attempt, fault = 0, ""
        while True:
            response, fault, lost = self._once(method, path, body, attempt > 0)
            if response is not None and response.status_code not in RETRIED:
                if response.status_code == 409 and existing and attempt and (found := existing()) is not None:
                    return found
                return self._answer(method, path, response)
            last = attempt + 1 == self.retry.attempts or self.hurried.is_set()
            if not last:
                after = response.headers.get("Retry-After") if response is not None else None
                self.sleep(self.retry.wait(attempt, after))
            if existing and lost and (found := existing()) is not None:
                return found
            attempt += 1
            self.calls.faults[fault] += 1
            reads = method == "GET" or path.endswith(("/filter", "/count"))
            if last and not reads and response is not None and response.status_code == 500:  # there, and cannot do this
                raise ApiRefused(f"{method} {path} failed in the server (500): {detail(response)}", 500)
            if last:
                tries = f"{attempt} {'try' if attempt == 1 else 'tries'}"
                raise Unreachable(
                    f"{self.url} did not answer {method} {path} in {tries}: {fault}. Is the server up, and not overloaded?"
                )

    def _once(self, method: str, path: str, body: Any, again: bool) -> tuple[httpx.Response | None, str, bool]:
        """One try: the response or None, the fault in words, and whether the server may have done it all the same."""
        self.calls.count(method, path, again)
        try:
            response = self.http.request(method, path, json=body, headers=self.csrf)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return None, f"no connection ({error or type(error).__name__})", False
        except (httpx.LocalProtocolError, httpx.UnsupportedProtocol):  # its text may hold a header's value
            raise InvalidInput(
                f"A request to {self.url} cannot be sent as HTTP. Check the address and the credential."
            ) from None
        except httpx.TransportError as error:
            return None, f"the connection broke ({error or type(error).__name__})", True
        except httpx.DecodingError:
            return None, "the answer is garbled", True
        except httpx.InvalidURL as error:
            raise InvalidInput(f"The API's address '{self.url}' cannot be used: {error}.") from None
        self._clock(response)
        return response, f"HTTP {response.status_code}", response.status_code >= 500

    def _clock(self, response: httpx.Response) -> None:
        try:
            said = parsedate_to_datetime(response.headers["Date"])
        except (KeyError, TypeError, ValueError):
            return
        ahead = said.timestamp() - time.monotonic()
        self.ahead = ahead if self.ahead is None else max(self.ahead, ahead)

    def _answer(self, method: str, path: str, response: httpx.Response) -> Any:
        status = response.status_code
        if 200 <= status < 300:
            return self._json(response)
        if status == 401:
            raise Unreachable(
                f"{self.url} refuses the credentials (401). Check api.key (PREFECT_API_KEY) or api.auth_string (PREFECT_API_AUTH_STRING).",
                status,
            )
        if status == 403 and "CSRF" not in response.text:
            raise Unreachable(
                f"{self.url} forbids {method} {path} (403). The key lacks the right, or belongs to another workspace.",
                status,
            )
        if 300 <= status < 400:
            raise Unreachable(
                f"{self.url} redirects to {response.headers.get('Location', 'somewhere else').split('?')[0]}. Give the final address of the API."
            )
        raise ApiRefused(f"{method} {path} was refused ({status}): {detail(response)}", status)

    def _json(self, response: httpx.Response) -> Any:
        if response.status_code == 204 or not response.content:
            return None
        try:
            return response.json()
        except (ValueError, RecursionError):
            raise Unreachable(
                f"{self.url} answers, but not as a Prefect API: {response.headers.get('Content-Type', 'no type')}. The address should end in /api."
            ) from None


def detail(response: httpx.Response) -> str:
    """The reason in a Prefect error, in one line."""
    try:
        body = response.json()
    except ValueError:
        return (response.text.strip().splitlines() or ["no reason given"])[0][:300]
    told = ("exception_detail", "detail", "exception_message")  # never the whole: it repeats what was sent, secrets too
    found = next((body[key] for key in told if body.get(key)), "no reason given") if isinstance(body, dict) else body
    if isinstance(found, list):
        found = "; ".join(
            f"{'.'.join(str(p) for p in e.get('loc', []))}: {e.get('msg')}" if isinstance(e, dict) else str(e)
            for e in found
        )
    return str(found).replace("\n", " ")[:500]


def connect(client: Client) -> str:
    """Is a Prefect API there, and one that this Prefect may talk to? Answers its version; the first call of every verb."""
    version = greet(client)
    ours = importlib.metadata.version("prefect")
    if version != CLOUDS and release(version)[:2] < release(ours)[:2]:
        raise Unreachable(
            f"The server at {client.url} is Prefect {version}, older than this client's {ours}: its answers may not fit. Upgrade the server first, or use the tool locked to {version}."
        )
    return version


CLOUDS = "cloud"
"""Prefect Cloud's version: it fits every client."""


def greet(client: Client) -> str:
    """Is a Prefect API there, of whatever version? Answers that."""
    if client.cloud:
        client.request("POST", "/work_pools/filter", {"limit": 1})
        return CLOUDS
    try:
        version = client.get("/admin/version")
    except ApiRefused as error:
        raise Unreachable(
            f"{client.url} answers, but not as a Prefect API (HTTP {error.status}). The address should end in /api."
        ) from None
    if not isinstance(version, str) or not re.match(r"\d+\.\d+", version):
        raise Unreachable(f"{client.url} answers, but not as a Prefect API. The address should end in /api.")
    _csrf(client)
    return version


def _csrf(client: Client) -> None:
    """Servers with CSRF protection want a token with each write."""
    name = "prefect-platform"
    try:
        answer = client.get(f"/csrf-token?client={name}")
    except ApiRefused:
        return
    if isinstance(answer, dict) and isinstance(answer.get("token"), str):
        client.csrf = {"Prefect-Csrf-Token": answer["token"], "Prefect-Csrf-Client": name}


def release(version: str) -> tuple[int, ...]:
    """`3.8.8+abc` -> (3, 8, 8); what follows the numbers does not count."""
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])
