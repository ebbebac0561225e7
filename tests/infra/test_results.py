"""Results: a worker writes one to S3 as JSON, others read it; the block, the bucket's rule and a folder are kept in order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer.environment import Api
from deployer.errors import InvalidInput
from deployer.prefect_api import Client
from infra.storage import results
from tests.real.stage import until, worker
from tests.server import Server, clean_environment

pytest_plugins = ["tests.flows.maintenance.s3"]

DAY = 86400

FLOW = """
from prefect import flow


@flow(persist_result=True)
def prices():
    return {"AAPL": [1.5, 2.5], "days": 2}
"""

READER = """
import sys
from prefect.client.orchestration import get_client

with get_client(sync_client=True) as client:
    print(client.read_flow_run(sys.argv[1]).state.result())
"""


@pytest.fixture
def api(real_server: Server) -> Iterator[Client]:
    with Client(Api(url=real_server.url)) as client:
        yield client


def settings_of(block: str) -> dict[str, str]:
    """What infra/compose gives its workers, and the AWS variables of the test's bucket."""
    aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return {
        **aws,
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        "PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK": f"remote-file-system/{block}",
    }


def deployed(api: Client, folder: Path, pool: str, settings: dict[str, str]) -> str:
    folder.mkdir()
    (folder / "prices.py").write_text(FLOW)
    flow = api.request("POST", "/flows/", {"name": "prices"})
    api.request("POST", "/work_pools/", {"name": pool, "type": "process", "base_job_template": template()})
    body = {
        "name": pool,
        "flow_id": flow["id"],
        "work_pool_name": pool,
        "entrypoint": "prices.py:prices",
        "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}],
        "job_variables": {"env": settings},
    }
    made: str = api.request("POST", "/deployments/", body)["id"]
    return made


def template() -> dict[str, Any]:
    from prefect.workers.process import ProcessWorker

    return ProcessWorker.get_default_base_job_template()


@pytest.mark.stack
def test_a_workers_result_is_json_in_the_bucket_and_another_process_reads_it(
    api: Client, real_server: Server, s3: str, tmp_path: Path
) -> None:
    import s3fs

    results.block(api, "results", f"{s3}/results")
    deployment = deployed(api, tmp_path / "code", "results-pool", settings_of("results"))
    run = api.request("POST", f"/deployments/{deployment}/create_flow_run", {})["id"]
    with worker(real_server.url, "results-pool", tmp_path / "worker") as log:
        until(lambda: api.get(f"/flow_runs/{run}")["state_type"] in ("COMPLETED", "FAILED", "CRASHED"), 240)
    assert api.get(f"/flow_runs/{run}")["state_type"] == "COMPLETED", log.read_text()

    [file] = s3fs.S3FileSystem(use_listings_cache=False).find(f"{s3}/results")
    assert json.loads(s3fs.S3FileSystem().cat(file)) == {"AAPL": [1.5, 2.5], "days": 2}

    environment = {**clean_environment(tmp_path), **settings_of("results"), "PREFECT_API_URL": real_server.url}
    told = subprocess.run([sys.executable, "-c", READER, run], env=environment, capture_output=True, text=True)
    assert told.stdout.strip() == "{'AAPL': [1.5, 2.5], 'days': 2}", told.stderr


@pytest.mark.stack
def test_the_block_is_made_once_changed_where_it_differs_and_holds_no_key(api: Client) -> None:
    assert "is made" in results.block(api, "idem", "s3://bucket/results")
    assert "is as it should be" in results.block(api, "idem", "s3://bucket/results")
    assert "it was s3://bucket/results" in results.block(api, "idem", "s3://bucket/others")
    [found] = api.request("POST", "/block_documents/filter", {"block_documents": {"name": {"any_": ["idem"]}}})
    assert found["data"] == {"basepath": "s3://bucket/others", "settings": {}}


@pytest.mark.parametrize("url", ["s3://bucket", "s3://key:secret@bucket/results", "/results", "s3://bucket/a?b"])
def test_a_place_that_is_no_bucket_with_a_prefix_is_refused_before_the_api_is_asked(url: str) -> None:
    with (
        Client(Api(url="http://127.0.0.1:9/api")) as api,
        pytest.raises(InvalidInput, match="expected s3://bucket/prefix"),
    ):
        results.block(api, "results", url)


def rules_of(bucket: str) -> dict[str, Any]:
    import boto3  # type: ignore[import-untyped]

    found = boto3.client("s3").get_bucket_lifecycle_configuration(Bucket=bucket.removeprefix("s3://"))
    return {rule["ID"]: rule for rule in found["Rules"]}


def test_the_buckets_rule_is_set_once_and_the_rules_of_others_stay(s3: str) -> None:
    results.retain(f"{s3}/archive", 365)
    results.retain(f"{s3}/results", 30)
    results.retain(f"{s3}/results", 7)
    rules = rules_of(s3)
    assert len(rules) == 2
    assert rules["prefect-results-results"]["Expiration"] == {"Days": 7}
    assert rules["prefect-results-results"]["Filter"] == {"Prefix": "results/"}
    assert rules["prefect-results-archive"]["Expiration"] == {"Days": 365}


def test_only_old_results_leave_a_folder(tmp_path: Path) -> None:
    for name, day in {"old": 1000, "below/older": 900, "new": 1010}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
        os.utime(tmp_path / name, (day * DAY, day * DAY))
    assert results.thin(tmp_path, 30, 1031 * DAY) == 2
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["new"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert results.main(["thin", str(tmp_path / "nowhere"), "--days", "30"]) == 1
    assert f"There is no folder {tmp_path / 'nowhere'}" in capsys.readouterr().err
