"""The connection below `yfinance`: each request waits for its turn, each answer is judged before it is used.

yfinance reads no status: a server's failure becomes "no data" or an error of its parser, and is remembered.
"""

from __future__ import annotations

import json
import threading
from typing import Any
from urllib.parse import urlsplit

from curl_cffi.requests import Response, Session
from curl_cffi.requests.exceptions import RequestException
from yfinance.data import YfData

from flows.market_data.providers import LIMITS, YAHOO, Turn, errors

NAME, LIMIT = YAHOO, LIMITS[YAHOO]
DATA = ("/v7/", "/v8/", "/v10/", "/ws/")  # the other paths are about cookies
FORMS = {"v7": "quoteResponse", "v8": "chart", "v10": "quoteSummary"}  # what an answer has that we use
COOKIE = (401, 403, 429)  # yfinance takes another cookie and asks once more
NO_BARS = "Data doesn't exist for startDate"


class NotFound(Exception):
    """404: an unknown symbol, or one that is not listed any more."""


class NoBars(Exception):
    """Yahoo knows the symbol, and has nothing in the range."""


class Wire(Session[Response]):
    def __init__(self, base: str | None, seconds: float, turn: Turn) -> None:
        super().__init__(impersonate="chrome")
        self.base, self.seconds, self.turn = base, seconds, turn
        self.this = threading.local()

    def begin(self) -> None:
        """A new question: a refusal gets its second chance."""
        self.this.refused = False

    def request(self, method: Any, url: str, *arguments: Any, **options: Any) -> Response:
        where = urlsplit(url).path
        self.turn()
        try:
            answer = super().request(method, self.at(url), *arguments, **{**options, "timeout": self.seconds})
        except RequestException as error:
            if where.startswith(DATA):
                raise errors.down(NAME, where, type(error).__name__) from None
            raise
        if where.startswith(DATA):
            self.judge(answer, where)
        return answer

    def at(self, url: str) -> str:
        """The same path on the base, if there is one in place of Yahoo's hosts."""
        if self.base is None:
            return url
        return self.base + urlsplit(url)._replace(scheme="", netloc="").geturl()

    def judge(self, answer: Response, where: str) -> None:
        """Let only a whole answer pass, and the first refusal, which another cookie may change."""
        status = answer.status_code
        if status == 200:
            whole(answer, where)
        elif status in COOKIE and not getattr(self.this, "refused", False):
            self.this.refused = True
        elif status == 404:
            raise NotFound
        elif status == 429:
            raise errors.busy(NAME, where, answer.headers.get("Retry-After"), LIMIT)
        elif status in COOKIE:
            raise errors.down(NAME, where, f"it turned us away twice, {status}, {errors.shortened(said(answer))}")
        elif status in errors.FAILED:
            raise errors.down(NAME, where, f"status {status}")
        elif NO_BARS in (told := said(answer)):
            raise NoBars
        else:
            raise errors.refused(NAME, where, f"{status}, {told}", "Ask for a range and interval that it has.")


def whole(answer: Response, where: str) -> None:
    """Raise BadAnswer unless it is JSON of the known form. A chart always has a result, if only to say what it is of."""
    if "Will be right back" in answer.text:
        raise errors.down(NAME, where, "it says that it will be right back")
    try:
        told = json.loads(answer.content)
    except ValueError:
        raise errors.bad(NAME, where, f"{len(answer.content):,} bytes that are no JSON") from None
    form = FORMS.get(where.split("/")[1])
    if form is None:
        return
    part = told.get(form) if isinstance(told, dict) else None
    if not isinstance(part, dict) or part.get("error") or (where.startswith("/v8/") and not part.get("result")):
        raise errors.bad(NAME, where, "not of the known form")


def said(answer: Response) -> str:
    """What Yahoo gives as the reason, else what it sent."""
    try:
        [part] = json.loads(answer.content).values()
        return str(part["error"]["description"])
    except (AttributeError, LookupError, TypeError, ValueError):
        return answer.text


def forget() -> None:
    """Let yfinance ask again what it remembers: it can't know that an answer was bad."""
    YfData.cache_get.cache_clear()
