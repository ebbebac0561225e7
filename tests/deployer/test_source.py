"""Each way for workers to get the code brings the commit's own, run through Prefect's own pull steps."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deployer.environment import Source
from deployer.source import code, folder_of
from tests.conftest import NOWHERE
from tests.repository import Repo

PULL = """
import asyncio, json, os, sys
from prefect.deployments.steps.core import run_steps
for steps in json.load(sys.stdin):
    print("DIRECTORY " + os.path.abspath(asyncio.run(run_steps(steps))["directory"]))
"""


def pull(*each: list[dict[str, Any]], **variables: str) -> list[Path]:
    """What a worker does before a run: the steps of each. Answers where the code is."""
    done = subprocess.run(
        [sys.executable, "-c", PULL],
        input=json.dumps(each),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PREFECT_API_URL": NOWHERE, **variables},  # else Prefect starts a server of its own
    )
    found = [
        Path(line.removeprefix("DIRECTORY ")) for line in done.stdout.splitlines() if line.startswith("DIRECTORY ")
    ]
    assert len(found) == len(each), done.stdout + done.stderr
    return found


@pytest.fixture
def commits(tmp_path: Path) -> tuple[Path, str, str]:
    """A repository with two commits, of which the second says `two`."""
    repo = Repo(tmp_path / "flows repo")
    repo.write({"version.txt": "one"})
    first = repo.commit("one")
    repo.write({"version.txt": "two"})
    return repo.path, first, repo.commit("two")


def test_a_cached_checkout_is_of_its_commit_and_made_once(commits: tuple[Path, str, str], tmp_path: Path) -> None:
    path, first, second = commits
    steps = {commit: code(Source(strategy="cached", repository=str(path)), commit).steps for commit in (first, second)}
    cache = tmp_path / "cache"
    one, two, again = pull(steps[first], steps[second], steps[first], PREFECT_CHECKOUTS=str(cache))
    assert [(place / "version.txt").read_text() for place in (one, two, again)] == ["one", "two", "one"]
    assert sorted(p.name for p in cache.iterdir()) == sorted(f"flows repo-{c}" for c in (first, second))


def test_runs_that_start_at_once_share_one_cached_checkout(commits: tuple[Path, str, str], tmp_path: Path) -> None:
    path, first, _ = commits
    steps = code(Source(strategy="cached", repository=str(path)), first).steps
    command = shlex.split(steps[0]["prefect.deployments.steps.run_shell_script"]["script"])
    variables = {**os.environ, "PREFECT_CHECKOUTS": str(tmp_path / "cache")}
    at_once = [subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    places = {one.communicate()[0] for one in at_once}
    assert places == {str(tmp_path / "cache" / f"flows repo-{first}")} and not any(one.returncode for one in at_once)
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [f"flows repo-{first}"]


def test_a_cached_checkout_gets_its_token_from_a_secret_block_and_by_the_environment() -> None:
    found = code(
        Source(strategy="cached", repository="https://git.example/a/b.git", credentials="github-token"), "a" * 40
    )
    step = found.steps[0]["prefect.deployments.steps.run_shell_script"]
    assert step["env"] == {"GIT_TOKEN": "{{ prefect.blocks.secret.github-token }}"}
    assert "github-token" not in step["script"] and "\n" not in step["script"]


def test_a_clone_has_the_commit_in_its_folders_name() -> None:
    found = code(Source(strategy="git", repository="https://git.example/team/flows.git"), "a" * 40)
    assert found.clone == {
        "url": "https://git.example/team/flows.git",
        "commit_sha": "a" * 40,
        "name": "flows-" + "a" * 40,
    }


def test_an_image_names_the_commit_and_its_folder() -> None:
    found = code(Source(strategy="image", image="ghcr.io/a/b:sha-{commit}", directory="/opt/flows"), "a" * 40)
    assert found.job_variables == {"image": "ghcr.io/a/b:sha-" + "a" * 40}
    assert found.steps == [{"prefect.deployments.steps.set_working_directory": {"directory": "/opt/flows"}}]


def test_a_local_folder_is_where_the_run_starts(tmp_path: Path) -> None:
    steps = code(Source(strategy="local", directory=str(tmp_path)), "a" * 40).steps
    assert steps == [{"prefect.deployments.steps.set_working_directory": {"directory": str(tmp_path)}}]


@pytest.mark.parametrize(
    ("url", "folder"),
    [("https://h/a/b.git", "b"), ("git@h:a/b.git", "b"), ("/x/y/", "y"), ("git@h:b", "b"), ("https://h/a/b.git/", "b")],
)
def test_the_folder_is_the_last_part_of_the_address(url: str, folder: str) -> None:
    assert folder_of(url) == folder
