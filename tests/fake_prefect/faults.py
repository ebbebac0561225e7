"""Failures on request: before the fake does its work, or after it, when the answer gets lost."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

How = int | Literal["drop", "timeout"]


@dataclass
class Fault:
    """`before` or `after`: a status code to answer with, "drop" the connection, or let the client's time run out.

    With `after` the work was done and only its answer is lost.
    """

    method: str
    path: str
    before: How | None = None
    after: How | None = None
    times: int = 1
    skip: int = 0
    retry_after: float | None = None
    hits: int = 0

    def __post_init__(self) -> None:
        if (self.before is None) == (self.after is None):
            raise ValueError("a fault is either before or after the work")

    def strikes(self, method: str, path: str) -> bool:
        """Is it this request's turn; each question counts."""
        if self.hits >= self.times or self.method not in (method, "*") or not re.search(self.path, path):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.hits += 1
        return True
