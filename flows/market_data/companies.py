"""What sources tell about companies, into the warehouse: the known facts into columns of their own, the rest as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

from sqlalchemy import Table
from sqlalchemy.engine import Connection, Engine

from flows.market_data.models import company_information, key_statistics, symbols
from flows.market_data.upserts import INSERTS, upsert_rows

Facts = Mapping[str, Any]
OTHER = "other"


def upsert_company_information(engine: Engine, source: str, facts: Mapping[str, Facts]) -> int:
    """A mapping of facts for each symbol; the newest answer replaces the one before. All or none.

    Names that the table has no column for go into `other`. Answers how many companies were new or different.
    """
    return _upsert(engine, company_information, facts, {"source": source})


def upsert_key_statistics(engine: Engine, source: str, facts: Mapping[str, Facts], day: date) -> int:
    """The figures of one day for each symbol, as above; other days' stay. `day` is for facts that don't say their own."""
    dated = {symbol: {**told, "day": told.get("day") or day} for symbol, told in facts.items()}
    return _upsert(engine, key_statistics, dated, {"source": source})


def add_symbols(connection: Connection, names: Iterable[str]) -> None:
    """In order: two loads at once that add the same ones must not wait for each other in a circle."""
    insert = INSERTS[connection.dialect.name](symbols).on_conflict_do_nothing()
    connection.execute(insert, [{"symbol": name} for name in sorted(names)])


def _upsert(engine: Engine, into: Table, facts: Mapping[str, Facts], same: Facts) -> int:
    if not facts:
        return 0
    with engine.begin() as connection:
        add_symbols(connection, facts)
        return upsert_rows(connection, into, [_row(into, told, {"symbol": s, **same}) for s, told in facts.items()])


def _row(into: Table, told: Facts, key: Facts) -> dict[str, Any]:
    """Every column, so that a fact that is no longer told does not stay."""
    known = {each.name: _value(told.get(each.name)) for each in into.columns if each.name not in (*key, OTHER)}
    rest = {name: _plain(value) for name, value in told.items() if name not in known and name not in key}
    return {**key, **known, OTHER: {name: value for name, value in rest.items() if value is not None} or None}


def _value(value: Any) -> Any:
    """NaN is no value."""
    return None if value != value else value


def _plain(value: Any) -> Any:
    """What JSON can say: dates as text."""
    return value.isoformat() if isinstance(value, date) else _value(value)
