"""Code that comes in an image, through deploy.yml itself: built once for a commit, only looked up for production."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
import yaml

from scripts.act import Act
from tests.fake_prefect import FakePrefect
from tests.fake_prefect.serving import served
from tests.github import FakeGitHub
from tests.github.registry import FakeRegistry
from tests.workflows.githost import GitHost
from tests.workflows.scenario import TOKEN, Team, make_repository, skipped

pytestmark = pytest.mark.stack

MANIFEST = b"of another build"
KNOWN = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"


@pytest.fixture(scope="module")
def registry() -> Iterator[FakeRegistry]:
    found = FakeRegistry(auth="none")
    with served(found.handle) as found.url:
        yield found


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, registry: FakeRegistry) -> Iterator[Team]:
    """One fake API for dev and prod. act builds no image, but says so, and a digest."""
    folder = tmp_path_factory.mktemp("team")
    make_repository(folder, folder / "work")
    (folder / "steps").mkdir()
    act = Act(folder / "steps", folder / "flows.git", {"TESTS": "tests", "SKIP": skipped()})
    with FakePrefect().serve() as url, FakeGitHub(repository="team/flows") as github:
        nobody = GitHost(folder, TOKEN, folder / "certificate.pem")
        found = Team(folder, folder / "work", {"dev": url, "prod": url}, nobody, act, github)
        files = (folder / "work/environments").glob("*.yaml")
        found.change("In an image", {f"environments/{file.name}": baked(file.read_text(), registry) for file in files})
        yield found


def baked(environment: str, registry: FakeRegistry) -> str:
    image = f"{registry.url.removeprefix('http://')}/team/flows:sha-{{commit}}"
    source = {"strategy": "image", "image": image, "directory": "/opt/flows"}
    pools = {"ingestion": {"name": "flows", "type": "docker"}}
    return yaml.safe_dump({**yaml.safe_load(environment), "source": source, "work_pools": pools})


def images(team: Team) -> set[str]:
    """Of what is live: without the registry's address."""
    found = team.deployments("dev")
    return {one["job_variables"]["image"].partition("/")[2] for one in found}


def test_a_push_builds_the_commits_image_and_deploys_exactly_that_one(team: Team, registry: FakeRegistry) -> None:
    answer = team.push("refs/heads/main", "dev")
    assert answer.code == 0 and {"image", "build"} <= set(answer.jobs), answer.said()
    commit = team.git("rev-parse", "HEAD")
    name = f"{registry.url.removeprefix('http://')}/team/flows:sha-{commit}"
    of = f"{name} flows COMMIT={commit}\nSOURCE=https://github.com/team/flows\n"
    assert f"built {name} flows" in answer.said("build")
    assert images(team) == {f"team/flows:sha-{commit}@sha256:{hashlib.sha256(of.encode()).hexdigest()}"}


def test_an_image_that_is_there_is_deployed_without_a_build(team: Team, registry: FakeRegistry) -> None:
    commit = team.change("Another", {"notes": "one\n"})
    registry.tags[f"sha-{commit}"] = MANIFEST
    answer = team.push("refs/heads/main", "dev")
    assert answer.code == 0 and "image" in answer.jobs and "build" not in answer.jobs, answer.said()
    assert images(team) == {f"team/flows:sha-{commit}@{KNOWN}"}


def test_production_without_an_image_fails_with_one_annotation_and_writes_nothing(team: Team) -> None:
    team.change("Never built", {"notes": "two\n"})
    team.tag("v1.0.0")
    before = images(team)
    answer = team.push("refs/tags/v1.0.0", "prod")
    assert answer.code != 0 and answer.jobs["image"] == "failure" and "build" not in answer.jobs
    [error] = [line.text for line in answer.lines if "::error" in line.text]
    assert "There is no image" in error and "Deploy the commit to an environment that builds it" in error
    assert not [job for job in answer.jobs if "deploy-environment" in job] and images(team) == before
