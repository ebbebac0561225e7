"""Every declared entrypoint loads as a worker loads it: from a clone, by its path, with nothing of this checkout in reach."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DECLARED: list[dict[str, Any]] = [
    item for file in sorted(ROOT.glob("flows/**/deployments.yaml")) for item in yaml.safe_load(file.read_text())
]

AS_A_WORKER = """
import json, sys
from prefect.flows import load_flow_from_entrypoint
for declared in json.loads(sys.argv[1]):
    flow = load_flow_from_entrypoint(declared["entrypoint"])
    flow.validate_parameters(declared["parameters"])
    print(flow.name, sys.modules["flows"].__file__)
print(*sys.modules)
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("worker") / "clone"
    shutil.copytree(ROOT / "flows", folder / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def loaded(clone: Path) -> list[list[str]]:
    """A line for each declared flow: its name, and where its package `flows` came from. The last line: all modules."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", AS_A_WORKER, json.dumps(DECLARED)],
        cwd=clone,
        env={**kept, "PYTHONSAFEPATH": "1"},  # as in a worker: only Prefect puts the clone on the path
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def test_a_worker_finds_each_flow_in_its_clone_and_the_declared_parameters_fit(
    loaded: list[list[str]], clone: Path
) -> None:
    package = str(clone / "flows" / "__init__.py")
    assert loaded[:-1] == [[declared["name"], package] for declared in DECLARED]


def test_a_deploy_does_not_wait_for_what_only_a_run_uses(loaded: list[list[str]]) -> None:
    assert "prefect" in loaded[-1]
    late = {"pandas", "numpy", "pyarrow", "talib", "bokeh_sampledata", "exchange_calendars"}
    late |= {"massive", "yfinance", "curl_cffi", "alembic", "psycopg"}
    late |= {"matplotlib", "apprise", "s3fs"}
    assert not late & set(loaded[-1])
