"""What came of the batches, symbol by symbol, and what that means for the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.market_data import calendar
from flows.market_data.indicators import BARS_NEEDED
from flows.verdicts import too_many_failed

LINES = 200
"""Of symbols in the report: whoever lists artifacts is sent all of each."""


@dataclass(frozen=True)
class Outcome:
    """What came of a batch: a line of the report for each of its symbols, and how many rows were new or different."""

    symbols: Sequence[str]
    lines: Sequence[Mapping[str, Any]] = ()
    computed: int = 0
    changed: int = 0
    error: str = ""


def line(symbol: str, row: Mapping[str, Any], day: date) -> dict[str, Any]:
    """Of the report: how many bars there were, which indicators they are too few for, and the values."""
    if len(row) == 1:
        return {"symbol": symbol, "bars": row["bars"], "note": f"no bar on {day}"}
    missing = [name for name in BARS_NEEDED if row[name] is None]
    note = f"{row['bars']} bars are too few for {', '.join(missing)}" if missing else ""
    values = {name: None if row[name] is None else round(row[name], 6) for name in BARS_NEEDED}
    return {"symbol": symbol, "bars": row["bars"], "note": note, **values}


def report(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """A line a symbol: those of failed batches first, then those with a note."""
    failed = [
        {"symbol": one, "bars": None, "note": f"failed: {each.error}"}
        for each in outcomes
        if each.error
        for one in each.symbols
    ]
    lines = [dict(one) for each in outcomes for one in each.lines]
    return [*failed, *sorted(lines, key=lambda one: not one["note"])]


def publish(lines: Sequence[dict[str, Any]], source: str, day: date) -> None:
    """What there is to say of the first symbols; more would fill the log and slow down every list of artifacts."""
    noted = [one for one in lines if one["note"]]
    for one in noted[:LINES]:
        get_run_logger().warning("%s: %s", one["symbol"], one["note"])
    title = f"Indicators of `{source}` on {day}"
    if len(lines) > LINES:
        title += f": {LINES} of {len(lines):,} symbols. {len(noted):,} have a note; they come first."
        get_run_logger().info("%s", title)
    create_table_artifact(key="daily-indicators", table=list(lines[:LINES]), description=title)


def verdict(outcomes: Sequence[Outcome], day: date, max_failed_share: float) -> State:
    symbols = sum(len(one.symbols) for one in outcomes)
    failed = [symbol for one in outcomes if one.error for symbol in one.symbols]
    computed, changed = sum(one.computed for one in outcomes), sum(one.changed for one in outcomes)
    text = f"{computed:,} of {symbols:,} symbols computed for {day}: {changed:,} new or changed."
    if failed:
        text += f" Failed: {named(failed)}."
    if why := too_many_failed(len(failed), symbols, max_failed_share):
        return Failed(message=f"{text} {why}")
    if not computed:
        return Failed(message=f"{text} {nothing_on(day)}")
    return Completed(message=text)


def named(symbols: Sequence[str], at_most: int = 10) -> str:
    more = len(symbols) - at_most
    return ", ".join(symbols[:at_most]) + (f" and {more:,} more" if more > 0 else "")


def nothing_on(day: date) -> str:
    try:
        closed = not calendar.is_open(day)
    except ValueError:  # beyond what the calendar knows
        closed = False
    return f"The exchange was closed on {day}." if closed else f"No symbol has a bar on {day}."
