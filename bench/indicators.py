"""How fast indicators are computed, against TA-Lib alone, and how much memory a run takes for few symbols and for many.

500 symbols with 300 daily bars each. TA-Lib is called on arrays that are in memory already; what is measured of this
project begins with the bars as the warehouse gives them, and ends with a frame of all values. What a run does besides, the day's rows as
JSON and the fingerprint of the bars, is in the runs whose memory and time are told.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from math import sqrt
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import report, servers
from bench.report import Value
from bench.warehouse import DAYS, SYMBOLS, made_up
from flows.market_data import indicators, warehouse

if TYPE_CHECKING:
    import pandas as pd

MANY = 10 * SYMBOLS
DAYS_BACK = 450
"""So many calendar days hold all the bars."""

Arrays = list[tuple[Any, ...]]
"""Of each symbol: high, low, close."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line for each number, and adds them all to the results."""
    top = argparse.ArgumentParser(prog="bench indicators", description="Measure how indicators are computed.")
    top.add_argument("--rounds", type=int, default=15, metavar="N", help="times everything is computed (default: 15)")
    top.add_argument("--no-memory", action="store_true", help="leave out the runs whose memory is told: two minutes")
    top.add_argument("--results", type=Path, default=report.RESULTS, metavar="FILE", help="where names are added")
    words = top.parse_args(arguments)
    found = speed(words.rounds) | ({} if words.no_memory else memory())
    print("\n".join(report.value_line(name, value) for name, value in found.items()))
    report.merge(words.results, found)
    return 0


# Speed


def speed(rounds: int = 15) -> dict[str, Value]:
    """Names beginning `flows.indicators.`; medians of so many rounds."""
    bars = all_bars()
    arrays = [tuple(frame[name].to_numpy() for name in ("high", "low", "close")) for _, frame in made_up()]
    contenders: dict[str, Callable[[], object]] = {
        "seconds": lambda: indicators.compute(bars),
        "talib.seconds": lambda: bare_talib(arrays),
    }
    times = compete(contenders, rounds)
    ratio = Value(round(times["seconds"] / times["talib.seconds"], 2), "lower", "x", 3)
    told = {name: Value(round(seconds, 4), "lower", "s") for name, seconds in times.items()}
    return {f"flows.indicators.{name}": value for name, value in {**told, "times_of_talib": ratio}.items()}


def all_bars() -> pd.DataFrame:
    """As the warehouse gives them: one frame, by symbol and time."""
    import pandas as pd

    return pd.concat([frame.assign(symbol=symbol) for symbol, frame in made_up()], ignore_index=True)


def compete(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Medians of seconds, one after the other in each round; a first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, work in contenders.items():
            gc.collect()
            began = time.perf_counter()
            work()
            if number:
                times[name].append(time.perf_counter() - began)
    return {name: median(seconds) for name, seconds in times.items()}


def bare_talib(arrays: Arrays) -> list[tuple[Any, ...]]:
    """The same sixteen, by TA-Lib and nothing else: no frame, no order, no bar left out."""
    import talib

    return [
        (
            *(talib.ROCP(close, days) for days in (1, 5, 20)),
            talib.STDDEV(talib.LN(talib.ROCR(close, 1)), 20, sqrt(252 * 20 / 19)),
            *(talib.SMA(close, days) for days in (20, 50, 200)),
            talib.BBANDS(close, 20, 2.0, 2.0),
            *(talib.EMA(close, days) for days in (12, 26)),
            talib.MACD(close, 12, 26, 9),
            talib.RSI(close, 14),
            talib.ATR(high, low, close, 14),
        )
        for high, low, close in arrays
    ]


# Memory


def memory() -> dict[str, Value]:
    """Names beginning `flows.memory.`: the peak of a process that runs the whole flow, and how long it took; on SQLite."""
    scratch = Path(tempfile.mkdtemp(prefix="bench-indicators-"))
    try:
        with servers.prefect_on("sqlite", scratch) as server:
            runs = {count: run_of(scratch / str(count), server.url, count) for count in (SYMBOLS, MANY)}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    told: dict[str, Value] = {}
    for count, (peak, seconds) in runs.items():
        told[f"{count}.peak"] = Value(round(peak), "lower", "MB")
        told[f"{count}.seconds"] = Value(round(seconds, 1), "lower", "s")
    ratio = Value(round(runs[MANY][0] / runs[SYMBOLS][0], 2), "lower", "x", 1.3)
    return {f"flows.memory.{name}": value for name, value in {**told, "times_of_ten_times_the_symbols": ratio}.items()}


def run_of(folder: Path, api: str, symbols: int) -> tuple[float, float]:
    """A warehouse of its own with so many symbols, and a process for the run: its peak in MB, its seconds."""
    folder.mkdir()
    url = f"sqlite:///{folder / 'warehouse.db'}"
    engine = warehouse.connect(url)
    warehouse.upsert_bars_of_many(engine, "sample_adjusted", made_up(symbols, DAYS))
    engine.dispose()
    told = {"PREFECT_API_URL": api, "WAREHOUSE_URL": url, "PREFECT_LOGGING_LEVEL": "ERROR"}
    done = subprocess.run(
        [sys.executable, str(Path(__file__)), "--run", str(symbols)],
        env={**servers.clean_environment(folder), **told},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    peak, seconds = done.stdout.split()
    return float(peak), float(seconds)


def run(symbols: int) -> None:
    """In the process whose memory is told. A run that does not compute all of them has no number."""
    from flows.analytics.indicators import daily_indicators

    began = time.perf_counter()
    state: Any = daily_indicators(days_back=DAYS_BACK, provider="sample", return_state=True)
    seconds = time.perf_counter() - began
    if not str(state.message).startswith(f"{symbols:,} of {symbols:,} symbols computed"):
        sys.exit(f"bench indicators: {state.message}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak / 1024 if os.uname().sysname == "Linux" else peak / (1 << 20), seconds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run(int(sys.argv[2]))
    else:
        sys.exit(main())
