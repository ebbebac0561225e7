"""The benchmark's report: honest numbers in a fixed form, and one file that several benchmarks share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.machine import Cost
from bench.report import JUDGED, WANTED, Sample, line, merge, table, values, writes

SECONDS = {
    "prefect_deploy": {"create": 60.0, "new_sha": 50.0, "unchanged": 48.0},
    "loop": {"create": 70.0, "new_sha": 60.0, "unchanged": 60.0},
    "this_tool": {"create": 30.0, "new_sha": 12.5, "unchanged": 3.0},
    "bare": {"create": 20.0, "new_sha": 9.2, "unchanged": 2.0},
}
CALLS = {"GET /admin/version": 1, "POST /deployments/filter": 2, "PATCH /deployments/{id}": 200, "POST /artifacts/": 2}


def sample(contender: str = "this_tool", action: str = "new_sha", **changes: Any) -> Sample:
    stats = {"calls": CALLS, "retries": 3, "checkouts": 1, "peak_mb": {"parent": 60.0, "children": 120.0}}
    given: dict[str, Any] = {
        "database": "postgresql",
        "size": JUDGED,
        "round": 0,
        "seconds": SECONDS[contender][action],
        "stats": stats if contender == "this_tool" else {},
        **changes,
    }
    cost = Cost(given.pop("seconds"), cpu=1.0, peak_mb=100.0, server_cpu=9.0, foreign=0.1)
    return Sample(contender=contender, action=action, cost=cost, **given)


def samples(**changes: Any) -> list[Sample]:
    return [sample(contender, action, **changes) for contender, times in SECONDS.items() for action in times]


def test_a_factor_is_prefects_time_over_ours() -> None:
    found = values(samples(), 0.8)
    assert found["deploy.200.new_sha.times_faster_than_prefect_deploy"].value == 4.0
    assert found["deploy.200.unchanged.times_faster_than_a_loop"].value == 20.0
    assert found["deploy.200.new_sha.times_the_bare_calls_and_import"].value == 1.25


def test_of_several_rounds_the_median_counts() -> None:
    rounds = [sample(round=number, seconds=seconds) for number, seconds in enumerate((12.0, 90.0, 13.0))]
    assert values(rounds, 0.8)["deploy.200.new_sha.this_tool.seconds"].value == 13.0


def test_calls_and_memory_are_those_of_the_worst_round() -> None:
    worse = {"calls": {**CALLS, "PATCH /deployments/{id}": 201}, "retries": 3, "checkouts": 2}
    stats = {**worse, "peak_mb": {"parent": 61.0, "children": 119.0}}
    found = values([sample(), sample(round=1, stats=stats)], 0.8)
    assert found["deploy.200.new_sha.writes"].value == 203
    assert found["deploy.200.checkouts"].value == 2
    assert (found["deploy.200.peak_memory.parent"].value, found["deploy.200.peak_memory.loader"].value) == (61, 120)


def test_reads_are_no_writes() -> None:
    assert writes({"GET /admin/version": 9, "POST /deployments/filter": 9, "POST /artifacts/latest/filter": 9}) == 0
    assert writes({"POST /artifacts/": 1, "PATCH /deployments/{id}": 2, "DELETE /work_pools/{name}": 4}) == 7


def test_postgresql_has_the_plain_names_too_and_sqlite_has_its_own() -> None:
    found = values([*samples(), *samples(database="sqlite", seconds=5.0)], 0.8)
    name = "times_faster_than_prefect_deploy"
    assert found[f"deploy.200.new_sha.{name}"] == found[f"deploy.200.postgresql.new_sha.{name}"]
    assert found[f"deploy.200.sqlite.new_sha.{name}"].value == 1.0


def test_without_postgresql_there_are_no_plain_names() -> None:
    found = values(samples(database="sqlite"), 0.8)
    assert {name.split(".")[2] for name in found if name.startswith("deploy.200.")} == {"sqlite"}


@pytest.mark.parametrize("database", ["postgresql", "sqlite"])
def test_everything_that_is_wanted_is_measured(database: str) -> None:
    found = values(samples(database=database), 0.8)
    assert {f"deploy.200.{database}.{name}" for name in WANTED} <= {n for n, v in found.items() if v.wanted is not None}


def test_only_the_size_that_is_spoken_of_is_judged() -> None:
    assert all(v.wanted is None for v in values(samples(size=50), 0.8).values())


def test_what_falls_short_is_told_as_such() -> None:
    said = table(samples(), values(samples(), 0.8))
    assert "met    deploy.200.new_sha.times_faster_than_prefect_deploy: 4 x, wanted at least 4" in said
    slower = [s if s.contender != "this_tool" else sample(action=s.action, seconds=40.0) for s in samples()]
    said = table(slower, values(slower, 0.8))
    assert "SHORT  deploy.200.new_sha.times_faster_than_prefect_deploy: 1.25 x, wanted at least 4" in said
    assert "200 PATCH /deployments/{id}" in said and "3 retries" in said


def test_the_table_has_a_row_for_each_way_and_the_factor_beside_the_seconds() -> None:
    rows = table(samples(), values(samples(), 0.8)).splitlines()
    row = next(r for r in rows if r.startswith("this tool"))
    assert row.split() == ["this", "tool", "30.00", "s", "2.0x", "12.50", "s", "4.0x", "3.00", "s", "16.0x"]


def test_a_partial_run_tells_what_it_has() -> None:
    assert "deploy.200.new_sha.this_tool.seconds" in values([sample()], 0.8)
    assert "this tool" in table([sample()], values([sample()], 0.8))


def test_a_line_tells_how_busy_the_machine_was() -> None:
    assert "others 0.10 cores" in line(sample())
    elsewhere = Sample("sqlite", 50, 0, "bare", "create", Cost(1.0, 1.0, 0.0))
    assert line(elsewhere) == "SQLite, 50, the same calls, bare, first creation: 1.00 s"


# results.json


def test_each_name_has_a_value_what_is_wanted_what_is_better_and_a_unit(tmp_path: Path) -> None:
    merge(tmp_path / "results.json", values(samples(), 0.8))
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["deploy.200.new_sha.times_faster_than_prefect_deploy"] == {
        "value": 4.0,
        "wanted": 4,
        "better": "higher",
        "unit": "x",
    }
    assert all(set(entry) == {"value", "wanted", "better", "unit"} for entry in written.values())


def test_names_of_other_benchmarks_stay(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    other = {"value": 1, "wanted": 2, "better": "lower", "unit": "s"}
    stale = {"value": 0.1, "wanted": 4, "better": "higher", "unit": "x"}
    file.write_text(json.dumps({"ingest.rows": other, "deploy.200.new_sha.times_faster_than_prefect_deploy": stale}))
    merge(file, values(samples(), 0.8))
    written = json.loads(file.read_text())
    assert written["ingest.rows"] == other
    assert written["deploy.200.new_sha.times_faster_than_prefect_deploy"]["value"] == 4.0
