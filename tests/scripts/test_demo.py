"""`make demo` as a newcomer calls it: from a clone without a remote, with a dirty work tree."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.stack

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Demo:
    clone: Path
    before: str
    out: str
    err: str
    code: int


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True, text=True).stdout


def state_of(clone: Path) -> str:
    return git(clone, "status", "--porcelain") + git(clone, "for-each-ref") + git(clone, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The last commit of this repository, once through the whole demo."""
    clone = tmp_path_factory.mktemp("demo") / "prefect-platform"
    git(ROOT, "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone))
    git(clone, "remote", "remove", "origin")
    (clone / "README.md").write_text("not committed\n")
    before = state_of(clone)
    hostile = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_API_KEY": "pnu_of_a_real_workspace"}
    command = [sys.executable, "scripts/demo.py", "--end"]
    done = subprocess.run(
        command, cwd=clone, env={**os.environ, **hostile}, capture_output=True, text=True, check=False
    )
    return Demo(clone, before, done.stdout, done.stderr, done.returncode)


def test_the_demo_goes_all_the_way(demo: Demo) -> None:
    assert demo.code == 0, demo.out[-3000:] + demo.err[-3000:]
    for words in (
        "Release 1 of dev succeeded",
        "Release 1 of qa succeeded",
        "Release 2 of prod succeeded",
        "23 of 23 checks passed",
    ):
        assert words in demo.out
    assert "Release 3 of prod succeeded, rolling back release 2 to release 1" in demo.out
    assert "parameters.days_back" in demo.out and "365 -> 730" in demo.out


def test_the_demo_shows_what_is_where_and_the_address_of_each_ui(demo: Demo) -> None:
    table = demo.out.split("What is where")[1]
    assert [line.split()[0] for line in table.splitlines() if "/api" in line] == ["dev", "qa", "prod"]
    assert table.count("http://127.0.0.1:") == 6


def test_the_demo_says_that_it_deploys_the_commit_and_not_the_work_tree(demo: Demo) -> None:
    assert f"The demo deploys the commit {git(demo.clone, 'rev-parse', 'HEAD')[:12]}" in demo.out


def test_the_demo_leaves_the_repository_as_it_was(demo: Demo) -> None:
    assert state_of(demo.clone) == demo.before


def test_the_demo_ends_what_it_started(demo: Demo) -> None:
    command = [sys.executable, "scripts/local.py", "status", "--state", ".local/demo"]
    done = subprocess.run(command, cwd=demo.clone, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "nothing is up" in done.stderr


def test_the_sample_goes_through_all_three_work_pools(demo: Demo) -> None:
    query = """
        select work_pool.name, flow_run.state_type from flow_run
        join work_queue on work_queue.id = flow_run.work_queue_id join work_pool on work_pool.id = work_queue.work_pool_id
        where flow_run.state_type not in ('SCHEDULED')
    """
    with sqlite3.connect(demo.clone / ".local" / "demo" / "dev" / "prefect" / "prefect.db") as api:
        found = set(api.execute(query).fetchall())
    pools = ("dev-data-ingestion-pool", "dev-analytics-pool", "dev-maintenance-pool")
    assert found == {(pool, "COMPLETED") for pool in pools}


def test_the_demo_stores_real_prices_and_indicators(demo: Demo) -> None:
    with sqlite3.connect(demo.clone / ".local" / "demo" / "dev" / "warehouse.db") as warehouse:
        tables = [row[0] for row in warehouse.execute("select name from sqlite_master where type = 'table'")]
        counts = {name: warehouse.execute(f'select count(*) from "{name}"').fetchone()[0] for name in tables}
    assert counts["bars"] > 2000 and counts["indicators"] == counts["symbols"] == 5, json.dumps(counts)
