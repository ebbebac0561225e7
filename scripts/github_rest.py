"""GitHub's REST API over the standard library: pages, another try where it helps, and what a refusal means.

Also for jobs that may write to GitHub, which install nothing: Python 3.10 is enough.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import re
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, NoReturn

TRIES = 5
LONGEST_PAUSE = 60.0  # seconds; the jobs that call this end after five minutes
PASSING = (500, 502, 503, 504)

REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w.-]+", re.ASCII)
TOKEN = re.compile(r"[!-~]+")

Json = dict[str, Any]
Look = Callable[[], "Json | None"]


class GitHubError(Exception):
    """What the operator can act on: what happened, where, what now. `what` was asked for, and GitHub answered with `status` and `said`."""

    def __init__(self, message: str, what: str = "", status: int | None = None, said: str = "") -> None:
        super().__init__(message)
        self.what, self.status, self.said = what, status, said


class Missing(GitHubError):
    """GitHub knows no such thing, or does not show it to this token."""


class Unprocessable(GitHubError):
    """GitHub does not take it: often since it is there already."""


class Refused(GitHubError):
    """The job's token lacks a permission."""


class Limited(GitHubError):
    """The token's rate limit is used up."""


class Unanswered(GitHubError):
    """However often it was asked for. A write may have happened."""


class Garbled(Unanswered):
    """Something answers, and not as GitHub does."""


class NoAnswer(Exception):
    """One try came to nothing."""


class _Again(Exception):
    """Worth another try. `lost`: the request may have been carried out, and only its answer is missing."""

    def __init__(self, why: str, kind: type[GitHubError] = Unanswered, seconds: float | None = None) -> None:
        super().__init__(why)
        self.kind, self.lost, self.seconds = kind, kind is not Limited, seconds


class Plain(urllib.request.HTTPErrorProcessor):
    """Every answer as it is: none is an exception, and no redirect takes the token elsewhere."""

    def http_response(self, request: Any, response: Any) -> Any:
        return response

    https_response = http_response


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    content: bytes


def send(
    method: str,
    url: str,
    headers: Mapping[str, str],
    data: bytes | None = None,
    timeout: float = 30.0,
    context: ssl.SSLContext | None = None,
    most: int | None = None,
) -> Answer:
    """One try. `most`: bytes that are read."""
    opener = urllib.request.build_opener(Plain, urllib.request.HTTPSHandler(context=context))
    try:
        request = urllib.request.Request(url, data, {"User-Agent": "prefect-platform", **headers}, method=method)
        with opener.open(request, timeout=timeout) as answer:
            return Answer(answer.status, answer.headers, answer.read(most))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoAnswer(type(getattr(error, "reason", error)).__name__) from None


@dataclass(frozen=True)
class GitHub:
    """Paths are the repository's own, `issues/7/comments`, or begin with a slash: `/users/mona`."""

    base: str
    repository: str
    token: str = field(repr=False)
    pause: Callable[[float], None] = time.sleep
    timeout: float = 30.0
    context: ssl.SSLContext | None = None
    """Whose certificates are trusted, if not those that Python knows."""

    def get(self, path: str = "") -> Json:
        return _object(self._ask("GET", self._url(path))[0])

    def patch(self, path: str, body: Json) -> Json:
        return _object(self._ask("PATCH", self._url(path), body)[0])

    def post(self, path: str, body: Json, look: Look) -> Json:
        """Creates once: where the answer to a try was lost, `look` says whether it came through."""
        try:
            return _object(self._ask("POST", self._url(path), body, look)[0])
        except Unprocessable:
            if found := look():
                return found
            raise

    def write(self, method: str, path: str, body: Json | None = None) -> None:
        """Once. Where its answer was lost, that is `Unanswered`, and only reading tells."""
        self._ask(method, self._url(path), body, once=True)

    def pages(self, path: str, under: str = "", **query: str) -> Iterator[Json]:
        """The items of all pages, in GitHub's order. `under`: the key that they stand under, if they are no bare list."""
        url: str | None = f"{self._url(path)}?{urllib.parse.urlencode({'per_page': 100, **query})}"
        while url:
            answer, headers = self._ask("GET", url)
            items = of(answer, under) if under else answer
            if not isinstance(items, list):
                raise GitHubError(f"GitHub's answer to GET {_path(url)} is not a list. Is GITHUB_API_URL right?")
            yield from (_object(item) for item in items)
            url = self._next(headers.get("Link") or "")

    def _next(self, link: str) -> str | None:
        found = re.search(r'<([^>]+)>;\s*rel="next"', link)
        if found and not found[1].startswith(f"{self.base}/"):
            raise GitHubError("GitHub's next page is at another address than GITHUB_API_URL; the token stays here.")
        return found[1] if found else None

    def _url(self, path: str) -> str:
        return self.base + (path if path.startswith("/") else f"/repos/{self.repository}/{path}".rstrip("/"))

    def _ask(
        self, method: str, url: str, body: Json | None = None, look: Look | None = None, once: bool = False
    ) -> tuple[Any, Message]:
        what = f"{method} {_path(url)}"
        for number in range(TRIES):
            try:
                answer = self._send(method, url, body)
                return (None if once else _data(answer)), answer.headers
            except _Again as again:
                why, kind, seconds = str(again), again.kind, 2.0**number if again.seconds is None else again.seconds
                if again.lost and once:
                    raise kind(f"{what}: {why}, and what came of it is not known.", what) from None
                if seconds > LONGEST_PAUSE:
                    raise kind(
                        f"{what}: {why} for another {seconds:.0f} s. Run the job again after that.", what
                    ) from None
                if number < TRIES - 1 or (again.lost and look):
                    self.pause(seconds)
                if again.lost and look and (found := look()):
                    return found, Message()
        raise kind(f"{what}: {why}, {TRIES} times. Run the job again later.", what)

    def _send(self, method: str, url: str, body: Json | None) -> Answer:
        headers = {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        data = None if body is None else json.dumps(body).encode()
        try:
            answer = send(method, url, headers, data, self.timeout, self.context)
        except NoAnswer as error:
            raise _Again(f"no answer ({error})") from None
        if not 200 <= answer.status < 300:
            _refuse(f"{method} {_path(url)}", answer)
        return answer


def connect(environ: Mapping[str, str], pause: Callable[[float], None], timeout: float = 30.0) -> GitHub:
    base = (environ.get("GITHUB_API_URL") or "https://api.github.com").rstrip("/")
    repository = environ.get("GITHUB_REPOSITORY", "")
    token = environ.get("GITHUB_TOKEN", "").strip()
    if not confidential(base):
        raise GitHubError("GITHUB_API_URL must begin with https://, or be on this machine: the token is sent there.")
    if not REPOSITORY.fullmatch(repository):
        raise GitHubError("GITHUB_REPOSITORY is not OWNER/NAME. GitHub sets it in every job; by hand, set it.")
    if not TOKEN.fullmatch(token):
        raise GitHubError(
            "GITHUB_TOKEN is not there, or no token. The step needs `env: GITHUB_TOKEN: ${{ github.token }}`."
        )
    return GitHub(base, repository, token, pause, timeout)


def confidential(base: str) -> bool:
    """Can nobody on the way read the token?"""
    try:
        parts = urllib.parse.urlsplit(base)
        host = parts.hostname or ""
        if parts.username or parts.query or not host:
            return False
        return parts.scheme == "https" or (
            parts.scheme == "http" and (host == "localhost" or ipaddress.ip_address(host).is_loopback)
        )
    except ValueError:
        return False


def of(answer: Json, *keys: str) -> Any:
    """answer[key][key]..., which GitHub promises."""
    value: Any = answer
    for key in keys:
        if not isinstance(value, dict) or value.get(key) is None:
            raise GitHubError(f"GitHub's answer has no '{'.'.join(keys)}'. Is GITHUB_API_URL right?")
        value = value[key]
    return value


def quoted(segment: str) -> str:
    return urllib.parse.quote(segment, safe="")


def _data(answer: Answer) -> Any:
    try:
        return json.loads(answer.content)
    except ValueError:
        raise _Again("the answer is not JSON", Garbled) from None


def _object(answer: Any) -> Json:
    if not isinstance(answer, dict):
        raise GitHubError("GitHub's answer is not an object. Is GITHUB_API_URL right?")
    return answer


def _path(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


WHAT_NOW = {
    401: "The token is not accepted; the step needs `env: GITHUB_TOKEN: ${{ github.token }}`.",
    403: "The token may not do that: see the job's `permissions` and the repository's settings.",
    404: "It is not there, or the token may not see it.",
    410: "It is gone, or switched off in the repository's settings.",
    422: "GitHub does not take it as it is.",
}


def _refuse(what: str, answer: Answer) -> NoReturn:
    """What an answer that is none means."""
    status, headers, message = answer.status, answer.headers, _message(answer.content)
    if status in PASSING:
        raise _Again(f"GitHub answers {status}")
    if status == 429 or (status == 403 and _limited(headers, message)):
        raise _Again("GitHub's rate limit is reached", Limited, _seconds(headers))
    if status == 403 and message.startswith("Resource not accessible"):
        needed = headers.get("X-Accepted-GitHub-Permissions") or ""
        lacks = f"{what}: the job's token lacks a permission{f' ({needed})' if needed else ''}."
        raise Refused(lacks, what, status, message)
    now = WHAT_NOW.get(status) or "Is GITHUB_REPOSITORY its present name, and GITHUB_API_URL right?"
    kind = {404: Missing, 422: Unprocessable}.get(status, GitHubError)
    raise kind(f"{what}: GitHub answers {status}{f', {message!r}' if message else ''}. {now}", what, status, message)


def _message(content: bytes) -> str:
    try:
        answer = json.loads(content)
        errors = [e.get("message") or e.get("code") if isinstance(e, dict) else e for e in answer.get("errors") or []]
        told = [str(text) for text in (answer.get("message"), *errors) if text]
        return " ".join("; ".join(told).split())[:300]
    except (ValueError, AttributeError, TypeError):
        return ""


def _limited(headers: Message, message: str) -> bool:
    return headers.get("X-RateLimit-Remaining") == "0" or "Retry-After" in headers or "rate limit" in message.lower()


def _seconds(headers: Message) -> float:
    """https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api: else a minute."""
    after, reset = headers.get("Retry-After") or "", headers.get("X-RateLimit-Reset") or ""
    if after.isdecimal():
        return float(after)
    if headers.get("X-RateLimit-Remaining") == "0" and reset.isdecimal():
        return max(1.0, float(reset) - time.time())
    return LONGEST_PAUSE
