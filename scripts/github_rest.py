"""GitHub's REST API over the standard library: pages, another try where it helps, and what a refusal means.

For jobs that may write to GitHub, which install nothing: Python 3.10 is enough.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, NoReturn

TRIES = 5
LONGEST_PAUSE = 60.0  # seconds; the jobs that call this end after five minutes
PASSING = (502, 503, 504)

Json = dict[str, Any]
Look = Callable[[], "Json | None"]


class GitHubError(Exception):
    """What the operator can act on: what happened, where, what now."""


class Missing(GitHubError):
    """GitHub knows no such thing, or does not show it to this token."""


class Unprocessable(GitHubError):
    """GitHub does not take it: often since it is there already."""


class Refused(GitHubError):
    """The job's token lacks a permission."""


class _Again(Exception):
    """Worth another try. `lost`: the request may have been carried out, and only its answer is missing."""

    def __init__(self, why: str, lost: bool, seconds: float | None = None) -> None:
        super().__init__(why)
        self.lost, self.seconds = lost, seconds


class Plain(urllib.request.HTTPErrorProcessor):
    """Every answer as it is: none is an exception, and no redirect takes the token elsewhere."""

    def http_response(self, request: Any, response: Any) -> Any:
        return response

    https_response = http_response


@dataclass(frozen=True)
class GitHub:
    """Paths are the repository's own: `issues/7/comments`."""

    base: str
    repository: str
    token: str = field(repr=False)
    pause: Callable[[float], None] = time.sleep
    timeout: float = 30.0

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

    def pages(self, path: str, **query: str) -> Iterator[Json]:
        """The items of all pages, in GitHub's order."""
        url: str | None = f"{self._url(path)}?{urllib.parse.urlencode({**query, 'per_page': 100})}"
        while url:
            items, headers = self._ask("GET", url)
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
        return f"{self.base}/repos/{self.repository}/{path}".rstrip("/")

    def _ask(self, method: str, url: str, body: Json | None = None, look: Look | None = None) -> tuple[Any, Message]:
        for number in range(TRIES):
            try:
                return self._once(method, url, body)
            except _Again as again:
                why, seconds = str(again), 2.0**number if again.seconds is None else again.seconds
                if seconds > LONGEST_PAUSE:
                    raise GitHubError(
                        f"{method} {_path(url)}: {why} for another {seconds:.0f} s. Run the job again after that."
                    ) from None
                if number < TRIES - 1 or (again.lost and look):
                    self.pause(seconds)
                if again.lost and look and (found := look()):
                    return found, Message()
        raise GitHubError(f"{method} {_path(url)}: {why}, {TRIES} times. Run the job again later.")

    def _once(self, method: str, url: str, body: Json | None) -> tuple[Any, Message]:
        headers = {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json",
            "User-Agent": "prefect-platform",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with urllib.request.build_opener(Plain).open(request, timeout=self.timeout) as answer:
                status, said, content = answer.status, answer.headers, answer.read()
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            why = getattr(error, "reason", error)
            raise _Again(f"no answer ({type(why).__name__})", lost=True) from None
        if not 200 <= status < 300:
            _refuse(f"{method} {_path(url)}", status, said, content)
        try:
            return json.loads(content), said
        except ValueError:
            raise _Again("the answer is not JSON", lost=True) from None


def connect(environ: Mapping[str, str], pause: Callable[[float], None], timeout: float = 30.0) -> GitHub:
    base = (environ.get("GITHUB_API_URL") or "https://api.github.com").rstrip("/")
    repository = environ.get("GITHUB_REPOSITORY", "")
    token = environ.get("GITHUB_TOKEN", "").strip()
    if not confidential(base):
        raise GitHubError("GITHUB_API_URL must begin with https://, or be on this machine: the token is sent there.")
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", repository, re.ASCII):
        raise GitHubError("GITHUB_REPOSITORY is not OWNER/NAME. GitHub sets it in every job; by hand, set it.")
    if not re.fullmatch(r"[!-~]+", token):
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


def _refuse(what: str, status: int, headers: Message, content: bytes) -> NoReturn:
    """What an answer that is none means."""
    message = _message(content)
    if status in PASSING:
        raise _Again(f"GitHub answers {status}", lost=True)
    if status == 429 or (status == 403 and _limited(headers, message)):
        raise _Again("GitHub's rate limit is reached", lost=False, seconds=_seconds(headers))
    if status == 403 and message.startswith("Resource not accessible"):
        needed = headers.get("X-Accepted-GitHub-Permissions") or ""
        raise Refused(f"{what}: the job's token lacks a permission{f' ({needed})' if needed else ''}.")
    now = WHAT_NOW.get(status) or "Is GITHUB_REPOSITORY its present name, and GITHUB_API_URL right?"
    kind = {404: Missing, 422: Unprocessable}.get(status, GitHubError)
    raise kind(f"{what}: GitHub answers {status}{f', {message!r}' if message else ''}. {now}")


def _message(content: bytes) -> str:
    try:
        answer = json.loads(content)
        reasons = [str(e.get("message") or e.get("code")) for e in answer.get("errors") or [] if isinstance(e, dict)]
        return " ".join("; ".join([str(answer.get("message") or ""), *reasons]).split())[:300]
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
