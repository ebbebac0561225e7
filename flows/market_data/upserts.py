"""Many rows into a table at once: new ones inserted, different ones replaced, equal ones left alone.

Frames go through column by column, never row by row. PostgreSQL copies them into a temporary table and merges that;
SQLite gets its driver's own executemany. Both count what was new or different, and both do it inside the caller's
transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cache
from itertools import repeat
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import BigInteger, Column, Double, Insert, Select, Table, bindparam, column, or_, select, table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from flows.market_data.models import UtcTime

if TYPE_CHECKING:
    import pandas as pd

BATCH = 50_000
"""Rows that are in memory in a second form at once, and the rows of a transaction that holds many symbols."""

STAGING = "staging_of_an_upsert"
COUNTED = {"preserve_rowcount": True}
INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def upsert(connection: Connection, into: Table, frame: pd.DataFrame, same: Mapping[str, str]) -> int:
    """Write a frame whose columns are the table's, without those that are the `same` for every row.

    Of two rows with one key the last counts. NaN and NaT are NULL. Answers how many rows were new or different.
    """
    keys = [name for name in frame.columns if into.c[name].primary_key]
    rows = frame[~frame.duplicated(keys, keep="last")]
    if rows.empty:
        return 0
    write = _copy_and_merge if connection.dialect.name == "postgresql" else _executemany
    return write(connection, into, rows, same)


def upsert_rows(connection: Connection, into: Table, rows: Sequence[Mapping[str, Any]]) -> int:
    """The same for a few rows that are there as mappings, all with the same columns."""
    if not rows:
        return 0
    statement = upsert_statement(into, connection.dialect.name, names=tuple(rows[0]))
    return connection.execute(statement, rows, execution_options=COUNTED).rowcount


def upsert_statement(
    into: Table, dialect: str, names: Sequence[str] | None = None, rows: Select[Any] | None = None
) -> Insert:
    """Insert by primary key; on conflict write only rows that differ, so that the row count leaves out equal ones.

    `names` are the columns that are written (default: all), `rows` is where from (default: parameters).
    """
    names = names or [each.name for each in into.columns]
    insert = INSERTS[dialect](into)
    if rows is not None:
        insert = insert.from_select(names, rows)
    changed = {name: insert.excluded[name] for name in names if not into.c[name].primary_key}
    differs = or_(*(into.c[name].is_distinct_from(value) for name, value in changed.items()))
    statement: Insert = insert.on_conflict_do_update(index_elements=list(into.primary_key), set_=changed, where=differs)
    return statement


def in_batches(frames: Iterable[tuple[str, pd.DataFrame]], rows: int) -> Iterator[dict[str, pd.DataFrame]]:
    """Whole symbols together until they have so many rows. Only one batch is in memory, if `frames` are made late."""
    batch: dict[str, pd.DataFrame] = {}
    held = 0
    for symbol, frame in frames:
        if symbol in batch or (batch and held + len(frame) > rows):
            yield batch
            batch, held = {}, 0
        batch[symbol] = frame
        held += len(frame)
    if batch:
        yield batch


def _copy_and_merge(connection: Connection, into: Table, frame: pd.DataFrame, same: Mapping[str, str]) -> int:
    """The staging table has no constraints: a broken row fails in the merge, with the same error as on SQLite."""
    names = ", ".join(f'"{name}"' for name in frame.columns)
    connection.exec_driver_sql(f'CREATE TEMPORARY TABLE {STAGING} AS SELECT {names} FROM "{into.name}" WITH NO DATA')
    _copy(connection, f"COPY {STAGING} ({names}) FROM STDIN (FORMAT csv)", (_csv(into, part) for part in _parts(frame)))
    merge = _merge(into, tuple(frame.columns), tuple(same))
    changed = connection.execute(merge, same, execution_options=COUNTED).rowcount
    connection.exec_driver_sql(f"DROP TABLE {STAGING}")
    return changed


def _copy(connection: Connection, statement: str, texts: Iterable[memoryview]) -> None:
    """SQLAlchemy knows no COPY."""
    with _driver(connection, statement) as cursor, cursor.copy(statement) as copy:
        for text in texts:
            copy.write(text)


@contextmanager
def _driver(connection: Connection, statement: str) -> Iterator[Any]:
    """The driver's own cursor, in the same transaction; its errors are made SQLAlchemy's."""
    driver: Any = connection.dialect.dbapi
    with closing(connection.connection.cursor()) as cursor:
        try:
            yield cursor
        except driver.Error as error:
            raise DBAPIError.instance(statement, None, error, driver.Error, dialect=connection.dialect) from error


@cache
def _merge(into: Table, names: tuple[str, ...], same: tuple[str, ...]) -> Insert:
    staged = [*(bindparam(name, type_=into.c[name].type) for name in same), *(column(name) for name in names)]
    return upsert_statement(into, "postgresql", [*same, *names], select(*staged).select_from(table(STAGING)))


def _csv(into: Table, frame: pd.DataFrame) -> memoryview:
    """NULL is nothing at all, an empty text is two quotes; floats come back to the last bit."""
    import pyarrow as pa
    from pyarrow import csv

    arrays = [_arrow(values(into.c[name], frame[name])) for name in frame.columns]
    sink = pa.BufferOutputStream()
    csv.write_csv(pa.table(arrays, list(frame.columns)), sink, csv.WriteOptions(include_header=False))
    return memoryview(sink.getvalue())


def _arrow(found: Any) -> Any:
    import pyarrow as pa

    return pa.array(found, pa.timestamp("us", "UTC") if found.dtype.kind == "M" else None, from_pandas=True)


def _executemany(connection: Connection, into: Table, frame: pd.DataFrame, same: Mapping[str, str]) -> int:
    names = [each.name for each in into.columns if each.name in same or each.name in frame]
    statement = _sqlite_statement(into, tuple(names))
    changed = 0
    for part in _parts(frame):
        columns = (repeat(same[n], len(part)) if n in same else _sqlite_list(values(into.c[n], part[n])) for n in names)
        with _driver(
            connection, statement
        ) as cursor:  # SQLAlchemy would want a list of rows: slower, and all in memory
            changed += cursor.executemany(statement, zip(*columns, strict=True)).rowcount
    return changed


@cache
def _sqlite_statement(into: Table, names: tuple[str, ...]) -> str:
    """With a question mark for each column, in the table's order."""
    return str(upsert_statement(into, "sqlite", names).compile(dialect=sqlite.dialect(), column_keys=names))


def _sqlite_list(found: Any) -> Any:
    """As SQLAlchemy writes it: a moment as `2010-01-04 14:30:00.000000`. NaN is NULL to the driver."""
    import numpy as np

    if found.dtype.kind != "M":
        return found.tolist()
    texts = np.datetime_as_string(found, unit="us")
    texts.view("U1").reshape(len(texts), -1)[:, len("2010-01-04")] = " "
    return np.where(np.isnat(found), cast(Any, None), texts).tolist()


def _parts(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    return (frame[start : start + BATCH] for start in range(0, len(frame), BATCH))


def values(of: Column[Any], series: pd.Series) -> Any:
    """A frame's column as the table's type wants it: float64 with NaN, int64, datetime64[us] in UTC, or objects."""
    import numpy as np

    if isinstance(of.type, UtcTime):
        return moments(series).dt.tz_localize(None).to_numpy("datetime64[us]")
    if isinstance(of.type, Double):
        return series.to_numpy(float, na_value=np.nan)
    if isinstance(of.type, BigInteger):
        return _whole(series)
    return series.to_numpy(object)


def _whole(series: pd.Series) -> Any:
    """Whole numbers. What is none, or not finite, becomes None, which the database refuses where it must."""
    import numpy as np

    if series.dtype.kind in "iu":
        return series.to_numpy("int64")
    found = np.rint(series.to_numpy(float, na_value=np.nan))
    if np.isfinite(found).all():
        return found.astype("int64")
    return np.array([int(number) if np.isfinite(number) else None for number in found], dtype=object)


def moments(times: pd.Series) -> pd.Series:
    """In UTC. A time without a zone could be anybody's."""
    import pandas as pd

    if not isinstance(times.dtype, pd.DatetimeTZDtype):
        for time in times:
            if getattr(time, "tzinfo", None) is None:
                raise ValueError(f"The time {time} has no time zone; the warehouse takes times in UTC.")
    return pd.to_datetime(times, utc=True)
