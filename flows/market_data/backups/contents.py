"""What is in a database: how many rows each table has, and a checksum of them. Two are equal, or it is said where not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Rows:
    """Of one table."""

    rows: int
    checksum: str


Contents = Mapping[str, Rows]
"""By table."""


class BackupFailed(RuntimeError):
    """There is no new backup; the ones before are untouched."""


def differences(expected: Contents, found: Contents) -> str:
    """In words; "" where there are none."""
    return ", ".join(
        _difference(name, expected.get(name), found.get(name))
        for name in sorted({*expected, *found})
        if expected.get(name) != found.get(name)
    )


def _difference(table: str, expected: Rows | None, found: Rows | None) -> str:
    if expected is None or found is None:
        return f"{table} is {'missing' if found is None else 'not of it'}"
    if expected.rows != found.rows:
        return f"{table} has {found.rows:,} rows instead of {expected.rows:,}"
    return f"{table} has other values"


def rows_of(tables: Contents) -> int:
    return sum(one.rows for one in tables.values())
