"""What the benchmark deploys is the same, whichever way it is described."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from bench import deploy, workload
from deployer import project
from deployer.project import Tree
from deployer.revision import Repository


def test_the_catalogue_and_prefects_own_file_describe_the_same_deployments(tmp_path: Path) -> None:
    made = workload.make(tmp_path / "repo", 45)
    variables = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "REPOSITORY_URL": made.url}
    contents, faults = project.contents(Tree.at(Repository.find(made.path), made.head), "bench", variables)
    assert contents and not faults
    ours = [d.declaration for d in contents.declared]
    theirs = yaml.safe_load((made.path / "prefect.yaml").read_text())["deployments"]
    assert len(ours) == len(theirs) == 45
    assert {d.name: (d.entrypoint, d.parameters, d.schedules[0].cron, d.tags, d.job_variables) for d in ours} == {
        d["name"]: (
            d["entrypoint"],
            d["parameters"],
            d["schedules"][0]["cron"],
            d["tags"],
            d["work_pool"]["job_variables"],
        )
        for d in theirs
    }


def test_a_new_commit_changes_what_prefect_is_told_and_leaves_a_clean_work_tree(tmp_path: Path) -> None:
    made = workload.make(tmp_path / "repo", 4)
    first = made.head
    second = made.commit()
    assert second != first
    assert {d["version"] for d in yaml.safe_load((made.path / "prefect.yaml").read_text())["deployments"]} == {second}
    status = subprocess.run(["git", "status", "--porcelain"], cwd=made.path, capture_output=True, text=True, check=True)
    assert status.stdout == ""


@pytest.mark.parametrize("words", [["--databases", "oracle"], ["--contenders", "magic"], ["--sizes", "many"]])
def test_wrong_words_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        deploy.parser().parse_args(words)
