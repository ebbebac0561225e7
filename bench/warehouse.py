"""How fast bars are written into the warehouse, against what else one could do with the same frames.

500 symbols with 300 daily bars each, on a database of its own, in rounds: each contender starts with empty tables. The
other contenders get by without a frame where they can: the bare ones have their rows ready before the clock starts.
"""

from __future__ import annotations

import argparse
import gc
import io
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sqlalchemy import Engine, text

from bench import report, servers
from bench.report import Value
from flows.market_data import warehouse
from flows.market_data.upserts import upsert_statement

if TYPE_CHECKING:
    import pandas as pd

SYMBOLS, DAYS = 500, 300
ONE_IN = 20
"""Of the symbols one in so many is written row by row: that alone takes longer than all the rest."""

Frames = list[tuple[str, "pd.DataFrame"]]
COLUMNS = ["symbol", "source", "interval", *warehouse.BAR]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line for each number, and adds them all to the results."""
    top = argparse.ArgumentParser(prog="bench warehouse", description="Measure how fast bars are written.")
    top.add_argument("--databases", default="postgresql,sqlite", metavar="NAME,NAME", help="default: both")
    top.add_argument("--rounds", type=int, default=3, metavar="N", help="times everything is measured (default: 3)")
    top.add_argument("--results", type=Path, default=report.RESULTS, metavar="FILE", help="where names are added")
    words = top.parse_args(arguments)
    chosen = words.databases.split(",")
    if strange := set(chosen) - set(MEASURES):
        top.error(f"{', '.join(sorted(strange))}: expected {', '.join(MEASURES)}")
    if "postgresql" in chosen and servers.postgresql_programs() is None:
        print("PostgreSQL is not on this machine (apt install postgresql); it is left out.", file=sys.stderr)
        chosen.remove("postgresql")
    found = measure(chosen, words.rounds)
    print("\n".join(report.value_line(name, value) for name, value in found.items()))
    report.merge(words.results, found)
    return 0


def measure(databases: Sequence[str], rounds: int = 3) -> dict[str, Value]:
    """Names beginning `flows.upsert.`; medians of so many rounds."""
    found: dict[str, Value] = {}
    scratch = Path(tempfile.mkdtemp(prefix="bench-warehouse-"))
    try:
        for database in databases:
            (scratch / database).mkdir()
            with warehouse_on(database, scratch / database) as url:
                found |= MEASURES[database](url, rounds)
        found |= memory(scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return {f"flows.upsert.{name}": value for name, value in found.items()}


@contextmanager
def warehouse_on(database: str, folder: Path) -> Iterator[str]:
    if database == "sqlite":
        yield f"sqlite:///{folder / 'warehouse.db'}"
        return
    with servers.postgresql(folder / "postgresql") as (url, _):
        yield url.replace("+asyncpg", "")


def made_up(symbols: int = SYMBOLS, days: int = DAYS) -> Iterator[tuple[str, pd.DataFrame]]:
    """Frames of random walks; the same every time."""
    import numpy as np
    import pandas as pd

    time = pd.date_range("2012-01-02", periods=days, freq="B", tz="UTC")
    for number in range(symbols):
        rolled = np.random.default_rng(number)
        close = 100 * np.exp(np.cumsum(rolled.normal(0, 0.01, days)))
        prices = {"open": close * 0.999, "high": close * 1.01, "low": close * 0.99, "close": close}
        yield f"S{number:04}", pd.DataFrame({"time": time, **prices, "volume": rolled.integers(1_000, 1_000_000, days)})


def on_postgresql(url: str, rounds: int) -> dict[str, Value]:
    frames = list(made_up())
    ready, some = csv_of(frames), frames[::ONE_IN]
    engine = warehouse.connect(url)
    contenders: dict[str, Callable[[], object]] = {
        "seconds": lambda: warehouse.upsert_bars_of_many(engine, "bench", frames),
        "copy": lambda: copy_and_merge(engine, ready),
        "to_sql": lambda: to_sql(engine, some, row_by_row),
        "to_sql_executemany": lambda: to_sql(engine, some, executemany),
    }
    times = compete(engine, contenders, rounds)
    times["to_sql"] *= ONE_IN
    times["to_sql_executemany"] *= ONE_IN
    times["repeated"] = median(clocked(contenders["seconds"], engine) for _ in range(rounds))
    engine.dispose()
    ours = times["seconds"]
    return {
        **told("postgresql", times),
        "postgresql.times_faster_than_to_sql": Value(round(times["to_sql"] / ours, 2), "higher", "x", 10),
        "postgresql.times_faster_than_to_sql_executemany": Value(
            round(times["to_sql_executemany"] / ours, 2), "higher", "x"
        ),
        "postgresql.times_of_copy": Value(round(ours / times["copy"], 2), "lower", "x", 2),
    }


def on_sqlite(url: str, rounds: int) -> dict[str, Value]:
    frames = list(made_up())
    ready = [row for symbol, frame in frames for row in tuples(symbol, frame)]
    engine = warehouse.connect(url)
    contenders: dict[str, Callable[[], object]] = {
        "seconds": lambda: warehouse.upsert_bars_of_many(engine, "bench", frames),
        "executemany": lambda: bare_executemany(url.removeprefix("sqlite:///"), ready),
    }
    times = compete(engine, contenders, rounds)
    times["repeated"] = median(clocked(contenders["seconds"], engine) for _ in range(rounds))
    engine.dispose()
    ratio = round(times["seconds"] / times["executemany"], 2)
    return {**told("sqlite", times), "sqlite.times_of_executemany": Value(ratio, "lower", "x", 2)}


MEASURES: Mapping[str, Callable[[str, int], dict[str, Value]]] = {"postgresql": on_postgresql, "sqlite": on_sqlite}


def told(database: str, times: Mapping[str, float]) -> dict[str, Value]:
    """`seconds` is this project's own, `repeated` the same bars once more."""
    names = {name: "seconds" if name == "seconds" else f"{name}.seconds" for name in times}
    return {f"{database}.{names[name]}": Value(round(took, 2), "lower", "s") for name, took in times.items()}


def compete(engine: Engine, contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Medians of seconds; in each round another one begins. Ours is written last once more: its bars stay."""
    names, times = list(contenders), {name: list[float]() for name in contenders}
    for number in range(rounds):
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            empty(engine)
            times[name].append(clocked(contenders[name], engine))
    empty(engine)
    contenders["seconds"]()
    return {name: median(seconds) for name, seconds in times.items()}


def clocked(work: Callable[[], object], engine: Engine) -> float:
    gc.collect()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def empty(engine: Engine) -> None:
    """And nothing left of earlier rounds that a database would clean up while the next contender writes."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if engine.dialect.name == "postgresql":
            for statement in ("TRUNCATE bars, indicators", "VACUUM ANALYZE bars", "CHECKPOINT"):
                connection.execute(text(statement))
        else:
            for statement in ("DELETE FROM bars", "VACUUM"):
                connection.execute(text(statement))


# Each contender also adds the symbols: the bars need them.


def to_sql(engine: Engine, frames: Frames, method: Any) -> None:
    """pandas' own way; it cannot upsert by itself, so that every row goes through an upsert of ours."""
    with engine.begin() as connection:
        add_symbols(connection, [symbol for symbol, _ in frames])
        for symbol, frame in frames:
            rows = frame.assign(symbol=symbol, source="bench", interval="1d")
            rows.to_sql("bars", connection, if_exists="append", index=False, method=method)


def row_by_row(_table: Any, connection: Any, names: list[str], rows: Iterator[tuple[Any, ...]]) -> None:
    """A statement a row."""
    statement = upsert_statement(warehouse.bars, connection.dialect.name)
    for row in rows:
        connection.execute(statement, dict(zip(names, row, strict=True)))


def executemany(_table: Any, connection: Any, names: list[str], rows: Iterator[tuple[Any, ...]]) -> None:
    """All rows of a symbol with one call."""
    statement = upsert_statement(warehouse.bars, connection.dialect.name)
    connection.execute(statement, [dict(zip(names, row, strict=True)) for row in rows])


def copy_and_merge(engine: Engine, ready: bytes) -> None:
    """The least that PostgreSQL has to do: a COPY of finished text, and the same merge."""
    merge = upsert_statement(warehouse.bars, "postgresql").compile(dialect=engine.dialect)
    conflict = str(merge).partition("ON CONFLICT")[2]
    columns = ", ".join(f'"{name}"' for name in COLUMNS)
    with engine.begin() as connection:
        add_symbols(connection, [symbol for symbol, _ in made_up_names()])
        connection.exec_driver_sql(f"CREATE TEMPORARY TABLE bare AS SELECT {columns} FROM bars WITH NO DATA")
        cursor: Any = connection.connection.cursor()
        with cursor, cursor.copy(f"COPY bare ({columns}) FROM STDIN (FORMAT csv)") as copy:
            copy.write(ready)
        connection.exec_driver_sql(f"INSERT INTO bars ({columns}) SELECT {columns} FROM bare ON CONFLICT {conflict}")
        connection.exec_driver_sql("DROP TABLE bare")


def made_up_names() -> list[tuple[str, None]]:
    return [(f"S{number:04}", None) for number in range(SYMBOLS)]


def csv_of(frames: Frames) -> bytes:
    sink = io.StringIO()
    for symbol, frame in frames:
        frame.assign(symbol=symbol, source="bench", interval="1d")[COLUMNS].to_csv(sink, index=False, header=False)
    return sink.getvalue().encode()


def bare_executemany(path: str, ready: list[tuple[Any, ...]]) -> None:
    """sqlite3 and nothing else, on the same file, with finished tuples."""
    from sqlalchemy.dialects import sqlite

    marks = str(upsert_statement(warehouse.bars, "sqlite").compile(dialect=sqlite.dialect()))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA foreign_keys = ON")
        names = [(name, "2013-03-01 00:00:00.000000") for name in dict.fromkeys(row[0] for row in ready)]
        connection.executemany("INSERT INTO symbols VALUES (?, ?) ON CONFLICT DO NOTHING", names)
        connection.executemany(marks, ready)


def tuples(symbol: str, frame: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    """In the table's order."""
    texts = frame["time"].dt.strftime("%Y-%m-%d %H:%M:%S.%f").tolist()
    columns = [frame[name].tolist() for name in warehouse.BAR[1:]]
    return ((symbol, "bench", "1d", *row) for row in zip(texts, *columns, strict=True))


def add_symbols(connection: Any, names: list[str]) -> None:
    statement = text("INSERT INTO symbols (symbol, added) VALUES (:name, now()) ON CONFLICT DO NOTHING")
    connection.execute(statement, [{"name": name} for name in names])


def memory(scratch: Path) -> dict[str, Value]:
    """The peak of a process that writes so many symbols, frames made when their turn comes; on SQLite, file and all."""
    peaks = {count: peak(scratch / f"memory-{count}.db", count) for count in (SYMBOLS, 10 * SYMBOLS)}
    few, many = peaks.values()
    told = {f"memory.{count}.peak": Value(round(megabytes), "lower", "MB") for count, megabytes in peaks.items()}
    return {**told, "memory.times_of_ten_times_the_symbols": Value(round(many / few, 2), "lower", "x", 1.3)}


def peak(path: Path, symbols: int) -> float:
    done = subprocess.run(
        [sys.executable, __file__, "--write", f"sqlite:///{path}", str(symbols)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def write(url: str, symbols: int) -> None:
    """The process whose memory is told; fewer days, so that it does not take long."""
    warehouse.upsert_bars_of_many(warehouse.connect(url), "bench", made_up(symbols, 60))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak / 1024 if sys.platform == "linux" else peak / (1 << 20))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write(sys.argv[2], int(sys.argv[3]))
    else:
        sys.exit(main())
