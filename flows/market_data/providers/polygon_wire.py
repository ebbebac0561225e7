"""The connection below the client `massive`: each request waits for its turn, each answer is judged before it is used.

The client's own would ask a busy provider four times within a second, drop what it said about waiting, and take an
answer that is no JSON for the end of the data.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from massive import RESTClient
from urllib3 import BaseHTTPResponse, PoolManager
from urllib3.exceptions import HTTPError

from flows.market_data.providers import LIMITS, POLYGON, Turn, errors

NAME, LIMIT = POLYGON, LIMITS[POLYGON]
GOOD = ("OK", "DELAYED")  # delayed: the plan gives prices of fifteen minutes ago
ABOUT_THE_KEY = "Check the key in the Secret block 'polygon-api-key', and what its plan includes."


class NotFound(Exception):
    """404. What that means depends on what was asked."""


class Wire(PoolManager):
    def __init__(self, key: str, turn: Turn, **pool: Any) -> None:
        super().__init__(**pool)
        self.key, self.turn = key, turn

    def request(self, method: str, url: str, *arguments: Any, **options: Any) -> BaseHTTPResponse:
        where = urlsplit(url).path
        self.turn()
        try:
            answer = super().request(method, url, *arguments, **{**options, "retries": False})
        except HTTPError as error:
            raise errors.down(NAME, where, type(error).__name__) from None
        self.judge(answer, where)
        return answer

    def judge(self, answer: BaseHTTPResponse, where: str) -> None:
        """Let only a whole answer pass."""
        if answer.status == 200:
            whole(answer.data, where)
            return
        if answer.status == 404:
            raise NotFound
        if answer.status == 429:
            raise errors.busy(NAME, where, answer.headers.get("Retry-After"), LIMIT)
        if answer.status in errors.FAILED:
            raise errors.down(NAME, where, f"status {answer.status}")
        now = ABOUT_THE_KEY if answer.status in (401, 403) else "Ask for a range and interval that it has."
        raise errors.refused(NAME, where, f"{answer.status}, {self.said(answer.data)}", now)

    def said(self, body: bytes) -> str:
        """The provider's own words, in case they hold the key without it."""
        try:
            told = json.loads(body)
            text = str(told.get("error") or told.get("message") or told.get("status"))
        except (ValueError, AttributeError):
            text = body.decode(errors="replace")
        return text.replace(self.key, "…") if self.key else text


def whole(body: bytes, where: str) -> None:
    """Raise BadAnswer unless it is JSON of the known form that has all the results that it announces."""
    try:
        told = json.loads(body)
    except ValueError:
        raise errors.bad(NAME, where, f"{len(body):,} bytes that are no JSON") from None
    if not isinstance(told, dict) or told.get("status") not in GOOD:
        raise errors.bad(NAME, where, "no status that is known") from None
    announced, got = told.get("resultsCount") or 0, told.get("results") or []
    if not isinstance(got, list | dict) or len(got) < announced:
        raise errors.bad(NAME, where, f"{announced} results announced, and fewer sent")


class Pages:
    """Reads the client's answers. It would take a page without results for the last, even if that names a next one."""

    @staticmethod
    def loads(text: str) -> dict[str, Any]:
        return {"results": [], **json.loads(text)}


def client(key: str, base: str, timeout: float, turn: Turn) -> RESTClient:
    """The official client, over such a connection with the client's own settings: certificates, time-outs, sizes."""
    made = RESTClient(key, base=base, connect_timeout=timeout, read_timeout=timeout, custom_json=Pages)
    made.client = Wire(key, turn, **made.client.connection_pool_kw)
    return made
