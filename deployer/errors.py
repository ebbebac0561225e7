"""Every failure that an operator can see, and the exit code of each.

A message says what happened, where, and what to do now. A traceback means a bug of ours (exit 70).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class Exit(IntEnum):
    """What a verb ends with. 3 and 5 belong to restoring and locking."""

    DONE = 0
    INVALID = 1
    DIFFERENCES = 2
    FAILED = 4
    REFUSED = 6
    UNVERIFIED = 7
    BUG = 70
    INTERRUPTED = 130


@dataclass(frozen=True, order=True)
class Problem:
    """One fault in one file: where it stands, what was expected, and a guess for a typo."""

    file: str
    line: int | None
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class DeployError(Exception):
    """A failure that the operator can act on. Subclasses fix the exit code."""

    exit_code: Exit = Exit.INVALID


class InvalidInput(DeployError):
    """Wrong files, names, values or usage. Nothing was touched."""

    def __init__(self, message: str, problems: Iterable[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class Unreachable(DeployError):
    """The API does not answer, or not as Prefect. Nothing was touched, or a write's fate is unknown.

    `status`: the HTTP status of an answer that shuts us out.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ApiRefused(DeployError):
    """The API answered a request with an error that repeating does not mend."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class WriteFailed(DeployError):
    """At least one write did not succeed; what was written stays."""

    exit_code = Exit.FAILED


class Refused(DeployError):
    """A guard says no. Nothing was written."""

    exit_code = Exit.REFUSED


class VerificationFailed(DeployError):
    """Everything was written, and the live state still differs from what was wanted."""

    exit_code = Exit.UNVERIFIED


class Interrupted(DeployError):
    """The operator or the runner stopped us."""

    exit_code = Exit.INTERRUPTED


def invalid(problems: Iterable[Problem]) -> InvalidInput:
    """One error for all problems of all files."""
    found = in_order(problems)
    return InvalidInput(f"{count(len(found), 'problem')} found; nothing was touched.", found)


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Each once, in the order of the files."""
    return tuple(sorted(set(problems), key=lambda p: (p.file, p.line or 0, p.path, p.message)))


def count(number: int, word: str, whole: bool = True) -> str:
    """`whole`: are these all?"""
    return f"{number}{'' if whole else ' or more'} {word}{'' if number == 1 and whole else 's'}"
