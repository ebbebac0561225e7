"""What can go wrong between a provider and us. No message holds a key: paths come without their query."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

FAILED = frozenset({408, 499, *range(500, 600)})  # statuses that tell of the server, not of the request
SHOWN = 200  # characters of what a provider said


class ProviderError(Exception):
    """Something about a provider that an operator can do something about."""


class UnknownSymbol(ProviderError, ValueError):
    """The provider has no such symbol, or had none in those days. Trying again won't help."""


class Refused(ProviderError, ValueError):
    """The provider has it, but not for us: key, plan, range, interval. Trying again won't help."""


class ProviderBusy(ProviderError):
    """Too many requests. Try again, after `retry_after` seconds if the provider said so."""

    retry_after: float | None = None


class ProviderDown(ProviderError):
    """The provider failed, was not reached, or took too long. Try again later."""


class BadAnswer(ProviderError):
    """An answer that is cut off or malformed. Try again; if it stays, the provider has changed its format."""


def unknown(provider: str, symbol: str, when: str = "") -> UnknownSymbol:
    return UnknownSymbol(
        f"The provider '{provider}' knows no symbol '{symbol}'{when}. Is it spelt right, and was it listed then?"
    )


def busy(provider: str, where: str, retry_after: str | None, limit: str) -> ProviderBusy:
    seconds = seconds_of(retry_after)
    waiting = "a while" if seconds is None else f"{seconds:.0f} s"
    error = ProviderBusy(
        f"The provider '{provider}' had too many requests (429 from {where}). Try again after {waiting}; "
        f"if it happens often, lower the concurrency limit '{limit}'."
    )
    error.retry_after = seconds
    return error


def down(provider: str, where: str, why: str) -> ProviderDown:
    return ProviderDown(f"The provider '{provider}' failed at {where}: {why}. Try again later.")


def bad(provider: str, where: str, why: str) -> BadAnswer:
    return BadAnswer(
        f"The provider '{provider}' gave a bad answer at {where}: {why}. Try again; if it stays, its format has changed."
    )


def refused(provider: str, where: str, said: str, now: str) -> Refused:
    return Refused(f"The provider '{provider}' refused {where}: {shortened(said)}. {now}")


def shortened(said: str) -> str:
    """One line of what a provider said, without its full stop."""
    line = " ".join(said.split()).rstrip(".")
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"


def seconds_of(retry_after: str | None) -> float | None:
    """The header Retry-After: seconds, or the moment until which to wait; None if it is missing or neither."""
    try:
        return max(0.0, float(retry_after or ""))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(retry_after or "")
    except ValueError:
        return None
    return max(0.0, (until.astimezone(UTC) - datetime.now(UTC)).total_seconds())
