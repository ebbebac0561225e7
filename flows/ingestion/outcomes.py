"""What came of a load, symbol by symbol, and what that means for the run. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from flows.ingestion.steps import Part, told


@dataclass(frozen=True)
class Outcome:
    """One symbol's result: good bars of all its series, how many were new or different, what was rejected and why."""

    symbol: str
    bars: int = 0
    changed: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    first: date | None = None
    last: date | None = None
    error: str = ""
    asked: bool = True

    @property
    def status(self) -> str:
        if self.error:
            return "failed"
        if not self.asked:
            return "up to date"
        return "loaded" if self.bars else "no bars"

    @property
    def row(self) -> dict[str, Any]:
        return {
            "symbol": self.symbol,
            "status": self.status,
            "first": str(self.first or ""),
            "last": str(self.last or ""),
            "bars": self.bars,
            "changed": self.changed,
            "rejected": told(dict(self.rejected)),
            "error": self.error,
        }


def outcome(symbol: str, parts: Sequence[Part], changed: int) -> Outcome:
    """What was loaded of one symbol, all its series together."""
    ends = [end for part in parts if len(part.bars) for end in (part.bars["time"].min(), part.bars["time"].max())]
    rejected = sum((Counter(part.rejected) for part in parts), Counter[str]())
    bars = sum(len(part.bars) for part in parts)
    first, last = (min(ends).date(), max(ends).date()) if ends else (None, None)
    return Outcome(symbol, bars, changed, rejected, first, last)


def loaded(outcomes: Sequence[Outcome]) -> list[str]:
    return [one.symbol for one in outcomes if one.bars]


def failed(outcomes: Sequence[Outcome]) -> list[str]:
    return [one.symbol for one in outcomes if one.error]


def sentence(outcomes: Sequence[Outcome]) -> str:
    missing = failed(outcomes)
    bars, changed = sum(one.bars for one in outcomes), sum(one.changed for one in outcomes)
    text = (
        f"{len(outcomes) - len(missing)} of {len(outcomes)} symbols loaded: {bars:,} bars, {changed:,} new or changed."
    )
    return f"{text} Failed: {', '.join(missing)}." if missing else text
