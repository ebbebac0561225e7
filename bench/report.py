"""Samples -> medians and ratios -> a table and names with values. Only `merge` touches a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.machine import Cost

ACTIONS = {"create": "first creation", "new_sha": "a new SHA", "unchanged": "nothing changed"}
CONTENDERS = {
    "prefect_deploy": "prefect deploy --all",
    "loop": "from_source().deploy() in a loop",
    "this_tool": "this tool",
    "bare": "the same calls, bare",
}
DATABASES = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}
PLAIN = "postgresql"
"""The database whose results also carry names without a database."""

RESULTS = Path(__file__).with_name("results.json")
"""All benchmarks add their names to it."""

JUDGED = 200
"""The number of deployments that what is wanted speaks of."""


@dataclass(frozen=True)
class Sample:
    """One measurement: what it cost, and what this tool said of itself."""

    database: str
    size: int
    round: int
    contender: str
    action: str
    cost: Cost
    stats: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Value:
    """One number, and what the project holds itself to: None where it is only told."""

    value: float
    better: str  # higher | lower
    unit: str
    wanted: float | None = None

    @property
    def met(self) -> bool | None:
        if self.wanted is None:
            return None
        return self.value >= self.wanted if self.better == "higher" else self.value <= self.wanted


WANTED: Mapping[str, Mapping[str, float]] = {
    "create.times_faster_than_prefect_deploy": {"postgresql": 1.5, "sqlite": 1.1},
    "new_sha.times_faster_than_prefect_deploy": {"postgresql": 4, "sqlite": 4},
    "unchanged.times_faster_than_prefect_deploy": {"postgresql": 15, "sqlite": 15},
    "unchanged.writes": {"postgresql": 0, "sqlite": 0},
    "new_sha.times_the_bare_calls_and_import": {"postgresql": 1.4, "sqlite": 1.4},
    "checkouts": {"postgresql": 1, "sqlite": 1},
    "peak_memory.parent": {"postgresql": 150, "sqlite": 150},
    "peak_memory.loader": {"postgresql": 150, "sqlite": 150},
}


def line(sample: Sample) -> str:
    """A measurement as it comes in."""
    cost = sample.cost
    what = f"{DATABASES[sample.database]}, {sample.size}, {CONTENDERS[sample.contender]}, {ACTIONS[sample.action]}"
    if cost.foreign is None or cost.server_cpu is None:
        return f"{what}: {cost.seconds:.2f} s"
    busy = f"processor: own {cost.cpu:.2f} s, servers {cost.server_cpu:.2f} s, others {cost.foreign:.2f} cores"
    return f"{what}: {cost.seconds:.2f} s ({busy})"


def values(samples: Sequence[Sample], import_prefect: float) -> dict[str, Value]:
    """Every name of this benchmark that the samples tell something about."""
    found = {"deploy.import_prefect.seconds": Value(round(import_prefect, 2), "lower", "s")}
    for database in dict.fromkeys(s.database for s in samples):
        for size in dict.fromkeys(s.size for s in samples if s.database == database):
            chosen = [s for s in samples if (s.database, s.size) == (database, size)]
            for name, value in _of_one(chosen, database, size, import_prefect).items():
                found[f"deploy.{size}.{database}.{name}"] = value
                if database == PLAIN:
                    found[f"deploy.{size}.{name}"] = value
    return found


def _of_one(samples: list[Sample], database: str, size: int, import_prefect: float) -> dict[str, Value]:
    """One database and size, without them in the names."""
    plain = {**_times(samples), **_ratios(samples, import_prefect), **_doings(samples)}
    if size != JUDGED:
        return plain
    wanted = {name: WANTED[name][database] for name in plain if name in WANTED}
    return {name: Value(v.value, v.better, v.unit, wanted.get(name)) for name, v in plain.items()}


def _times(samples: list[Sample]) -> dict[str, Value]:
    return {
        f"{action}.{contender}.seconds": Value(round(seconds, 2), "lower", "s")
        for action in ACTIONS
        for contender in CONTENDERS
        if (seconds := typical(samples, contender, action)) is not None
    }


def typical(samples: Iterable[Sample], contender: str, action: str) -> float | None:
    """The median of the seconds."""
    chosen = [s.cost.seconds for s in samples if (s.contender, s.action) == (contender, action)]
    return median(chosen) if chosen else None


def _ratios(samples: list[Sample], import_prefect: float) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for action in ACTIONS:
        ours = typical(samples, "this_tool", action)
        if ours is None:
            continue
        for contender, name in (("prefect_deploy", "prefect_deploy"), ("loop", "a_loop")):
            if theirs := typical(samples, contender, action):
                found[f"{action}.times_faster_than_{name}"] = Value(round(theirs / ours, 2), "higher", "x")
        if bare := typical(samples, "bare", action):
            found[f"{action}.times_the_bare_calls"] = Value(round(ours / bare, 2), "lower", "x")
            both = round(ours / (bare + import_prefect), 2)
            found[f"{action}.times_the_bare_calls_and_import"] = Value(both, "lower", "x")
    return found


def _doings(samples: list[Sample]) -> dict[str, Value]:
    """What this tool did, at its worst: calls and writes, checkouts, memory."""
    own = [s for s in samples if s.contender == "this_tool" and s.stats]
    found: dict[str, Value] = {}
    for action in ACTIONS:
        stats = [s.stats for s in own if s.action == action]
        if not stats:
            continue
        found[f"{action}.calls"] = Value(max(sum(s["calls"].values()) for s in stats), "lower", "calls")
        found[f"{action}.writes"] = Value(max(writes(s["calls"]) for s in stats), "lower", "calls")
        found[f"{action}.retries"] = Value(median(s["retries"] for s in stats), "lower", "calls")
    if own:
        loaded = [s.stats["peak_mb"]["children"] for s in own if s.stats["checkouts"]]
        found["checkouts"] = Value(max(s.stats["checkouts"] for s in own), "lower", "checkouts")
        found["peak_memory.parent"] = Value(max(s.stats["peak_mb"]["parent"] for s in own), "lower", "MB")
        if loaded:
            found["peak_memory.loader"] = Value(max(loaded), "lower", "MB")
    return found


def writes(calls: Mapping[str, int]) -> int:
    """Reads are GET, and POST to what ends in filter or count."""
    return sum(n for call, n in calls.items() if not call.startswith("GET ") and not call.endswith(("filter", "count")))


def table(samples: Sequence[Sample], found: Mapping[str, Value]) -> str:
    """For people: seconds by contender and action, what this tool called, and what was wanted."""
    parts = []
    for database, size in dict.fromkeys((s.database, s.size) for s in samples):
        chosen = [s for s in samples if (s.database, s.size) == (database, size)]
        parts.append("\n".join([*_seconds_table(chosen, database, size), "", *_calls_lines(chosen)]))
    rounds = len({s.round for s in samples})
    parts.append(
        f"Medians of {rounds} rounds. Importing Prefect: {found['deploy.import_prefect.seconds'].value:.2f} s."
    )
    judged = {name: value for name, value in found.items() if value.wanted is not None}
    if judged:
        parts.append("\n".join(_judgement(name, value) for name, value in judged.items()))
    return "\n\n".join(parts)


def _seconds_table(samples: list[Sample], database: str, size: int) -> list[str]:
    head = f"{f'{DATABASES[database]}, {size} deployments':<36}" + "".join(f"{title:>24}" for title in ACTIONS.values())
    rows = [head, "-" * len(head)]
    for contender, title in CONTENDERS.items():
        cells = [_cell(samples, contender, action) for action in ACTIONS]
        if any(cells):
            rows.append(f"{title:<36}" + "".join(f"{cell:>24}" for cell in cells))
    return rows


def _cell(samples: list[Sample], contender: str, action: str) -> str:
    """`12.10 s  4.3x`: the factor is that to `prefect deploy --all`."""
    seconds = typical(samples, contender, action)
    if seconds is None:
        return ""
    theirs = typical(samples, "prefect_deploy", action)
    factor = f"{theirs / seconds:.1f}x" if theirs and contender != "prefect_deploy" else ""
    return f"{seconds:.2f} s{factor:>8}"


def _calls_lines(samples: list[Sample]) -> list[str]:
    """This tool's calls by kind, from the last sample of each action."""
    own = {s.action: s.stats for s in samples if s.contender == "this_tool" and s.stats}
    lines = []
    for action, stats in own.items():
        calls = ", ".join(f"{n} {call}" for call, n in sorted(stats["calls"].items(), key=lambda c: (-c[1], c[0])))
        memory, loaded = stats["peak_mb"], stats["checkouts"]
        loader = f", loader {memory['children']:.0f} MB" if loaded else ""
        lines.append(
            f"{ACTIONS[action]}: {sum(stats['calls'].values())} calls, {stats['retries']} retries, "
            f"{loaded} checkouts, at most {memory['parent']:.0f} MB{loader}\n    {calls}"
        )
    return lines


def value_line(name: str, value: Value) -> str:
    """One number, with the judgement where something was wanted."""
    return _judgement(name, value) if value.wanted is not None else f"       {name}: {value.value:g} {value.unit}"


def _judgement(name: str, value: Value) -> str:
    sign = "at least" if value.better == "higher" else "at most"
    return f"{'met  ' if value.met else 'SHORT'}  {name}: {value.value:g} {value.unit}, wanted {sign} {value.wanted:g}"


def merge(path: Path, found: Mapping[str, Value]) -> None:
    """Add the names to the file; those of other benchmarks, and of what was not measured now, stay as they are."""
    known = json.loads(path.read_text()) if path.exists() else {}
    merged = {**known, **{name: asdict(value) for name, value in found.items()}}
    path.write_text(json.dumps(dict(sorted(merged.items())), indent=2) + "\n")
