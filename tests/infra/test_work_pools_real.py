"""A real server keeps the base job templates as they are, so that a second plan is empty, and asks runs for what is required."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.infra.test_work_pools import FOLDER, REQUIRED, TYPES, template
from tests.infra.tools import ROOT
from tests.repository import Repo, default_files, environment
from tests.server import Server, patient_client, real_prefect

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with real_prefect(tmp_path_factory.mktemp("server")) as running:
        yield running


def repository(path: Path) -> Repo:
    """A pool of each type with our template, and a deployment in each."""
    remote = path / "remote.git"
    pools = {kind: {"name": kind, "type": kind, "base_job_template": f"pools/{kind}.json"} for kind in TYPES}
    entrypoint = "flows/alpha/hello.py:hello"
    items = [{"name": k, "entrypoint": entrypoint, "pool": k, "job_variables": REQUIRED[k]} for k in TYPES]
    files = {f"pools/{kind}.json": (FOLDER / f"{kind}.json").read_text() for kind in TYPES}
    files["environments/dev.yaml"] = environment(work_pools=pools, repository=remote.as_uri())
    files["flows/alpha/deployments.yaml"] = yaml.safe_dump(items)
    repo = Repo(path / "repo", {**default_files(), **files})
    repo.git("clone", "--quiet", "--bare", str(repo.path), str(remote))
    return repo


def deploy(repo: Repo, server: Server, *words: str) -> None:
    own = {"PATH": os.environ["PATH"], "HOME": str(server.home), "PREFECT_API_URL": server.url}
    command = [sys.executable, str(ROOT / "scripts/deploy.py"), *words, "--env", "dev", "--repo", str(repo.path)]
    answer = subprocess.run(command, env=own, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_templates_are_kept_as_they_are_and_runs_get_what_they_require(tmp_path: Path, server: Server) -> None:
    repo = repository(tmp_path)
    deploy(repo, server, "apply")
    deploy(repo, server, "plan", "--detailed-exitcode")
    with patient_client(server.url) as client:
        for kind in TYPES:
            assert client.get(f"/work_pools/{kind}").json()["base_job_template"] == template(kind)
            deployment = client.get(f"/deployments/name/hello/{kind}").json()["id"]
            assert client.post(f"/deployments/{deployment}/create_flow_run", json={}).status_code == 201
            client.patch(f"/deployments/{deployment}", json={"job_variables": {}})
            without = client.post(f"/deployments/{deployment}/create_flow_run", json={})
            assert without.status_code == (422 if REQUIRED[kind] else 201)
