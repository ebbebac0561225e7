"""A team's repository in small: this project's tool and workflows, three deployments, one test; and three Prefect APIs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from prefect.blocks.system import Secret
from prefect.settings import PREFECT_API_URL, temporary_settings

from scripts import local
from scripts.act import REPOSITORY, Act, Answer, PullRequest, Push
from tests.github import FakeGitHub
from tests.repository import QUIET
from tests.server import patient_client
from tests.workflows import githost
from tests.workflows.githost import GitHost

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ("dev", "qa", "prod")
TAKEN = (".ci", ".github", "deployer", "scripts", "environments", "infra/work-pools")
FILES = (".pre-commit-config.yaml", ".gitignore", "Makefile", "CHANGELOG.md", "pyproject.toml", "requirements.txt")
TOKEN = "ghs_of_the_workers"

SHOW = '''\
"""Says which commit's code it is."""

import subprocess
from pathlib import Path

from prefect import flow


@flow(log_prints=True)
def show(word: str = "hello") -> None:
    here = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    print(f"{word} from {subprocess.run(here, capture_output=True, text=True, check=True).stdout.strip()}")
'''
TEST = "def test_a_sum_is_right() -> None:\n    assert 1 + 1 == 2\n"


@dataclass(frozen=True)
class Team:
    """The repository that everybody pushes to, the APIs that it deploys to, GitHub's runner and GitHub's own API."""

    folder: Path
    work: Path
    apis: Mapping[str, str]
    host: GitHost
    act: Act
    github: FakeGitHub

    def git(self, *words: str) -> str:
        done = subprocess.run(["git", *QUIET, "-C", str(self.work), *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def change(self, message: str, files: Mapping[str, str]) -> str:
        """Commit these files on the branch, push it, and answer the SHA."""
        for name, text in files.items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        self.git("push", "--quiet", "origin", "HEAD")
        return self.git("rev-parse", "HEAD")

    def tag(self, name: str, commit: str = "HEAD") -> None:
        self.git("tag", name, commit)
        self.git("push", "--quiet", "origin", name)
        self.github.tags[name] = {"type": "commit", "sha": self.git("rev-parse", commit)}

    def variables(self, env: str) -> dict[str, str]:
        """The variables of GitHub's environment."""
        replan = {} if env == "prod" else {"REPLAN": "true"}
        return {"PREFECT_API_URL": self.apis[env], "REPOSITORY_URL": self.host.url("flows.git"), **replan}

    def run(self, workflow: str, what: Push | PullRequest, env: str, **more: Any) -> Answer:
        """With the variables and secrets of one of GitHub's environments, and nobody else's."""
        variables = {**self.variables(env), **(more.pop("variables", None) or {})}
        secrets = {"WAREHOUSE_URL": f"sqlite:////nowhere/{env}.db", "GITHUB_TOKEN": self.github.token}
        environment = {"GITHUB_API_URL": self.github.url, **more.pop("environment", {})}
        return self.act.run(workflow, what, variables=variables, secrets=secrets, environment=environment, **more)

    def push(self, ref: str, env: str, *, variables: Mapping[str, str] | None = None, **more: str) -> Answer:
        return self.run("deploy.yml", Push(ref), env, job="release", variables=variables, environment=more)

    def roll_back(self, env: str, to: str, reason: str) -> Answer:
        inputs = {"environment": env, "to": to, "reason": reason}
        main = Push("refs/heads/main")
        return self.run("rollback.yml", main, env, event="workflow_dispatch", inputs=inputs, job="record")

    def pull_request(self, workflow: str, pull: PullRequest, **more: str) -> Answer:
        """One that GitHub knows of; the variables are dev's, whose API wants no credential."""
        head = self.git("rev-parse", f"origin/{pull.branch}")
        state = "closed" if pull.action == "closed" else "open"
        labels = [{"name": name} for name in pull.labels]
        self.github.pulls[pull.number] = {"state": state, "labels": labels, "head": {"sha": head}}
        variables = {"PREFECT_API_OPEN": "true", **more}
        return self.run(workflow, pull, "dev", event="pull_request", variables=variables)

    def look_for_drift(self) -> Answer:
        main = Push("refs/heads/main")
        return self.run("drift.yml", main, "dev", event="schedule", matrix={"environment": "dev"})

    def deploy(self, verb: str, env: str, *words: str) -> subprocess.CompletedProcess[str]:
        """The same tool by hand, from the work tree."""
        command = [sys.executable, str(self.work / "scripts/deploy.py"), verb, "--env", env, *words]
        environment = {**os.environ, **self.variables(env)}
        return subprocess.run(command, cwd=self.work, env=environment, capture_output=True, text=True, check=False)

    def releases(self, env: str) -> list[dict[str, Any]]:
        """Newest first."""
        found: list[dict[str, Any]] = json.loads(self.deploy("history", env, "--format", "json").stdout)["releases"]
        return found

    def records(self, env: str) -> int:
        """How many the ledger has: releases, begun or done, and specifications."""
        return len(self.listed(env, "artifacts"))

    def live(self, env: str) -> set[tuple[str, str]]:
        """Name and version of every deployment there is."""
        return {(one["name"], one["version"]) for one in self.deployments(env)}

    def deployments(self, env: str) -> list[dict[str, Any]]:
        return self.listed(env, "deployments")

    def listed(self, env: str, kind: str) -> list[dict[str, Any]]:
        with patient_client(self.apis[env]) as api:
            found: list[dict[str, Any]] = api.post(f"/{kind}/filter", json={}).raise_for_status().json()
        return found


@contextmanager
def team(folder: Path) -> Iterator[Team]:
    work, home = folder / "work", folder / "home"
    home.mkdir()
    with githost.serving(folder, TOKEN) as host, FakeGitHub(repository=REPOSITORY) as github:
        (home / ".gitconfig").write_text(f"[http]\n    sslCAInfo = {host.certificate}\n")
        before = os.environ["HOME"]
        os.environ["HOME"] = str(home)  # of workers and steps: their git must know the certificate
        make_repository(folder, work)
        try:
            up = local.up(work, folder / "local", port_base=0)
            apis = {one.name: one.api_url for one in up}
            for api in apis.values():
                with temporary_settings({PREFECT_API_URL: api}):
                    Secret(value=TOKEN).save("github-token")
            steps = folder / "steps"
            steps.mkdir()
            act = Act(steps, folder / "flows.git", {"TESTS": "tests", "SKIP": skipped(), "GIT_TERMINAL_PROMPT": "0"})
            yield Team(folder, work, apis, host, act, github)
        finally:
            local.down(work, folder / "local")
            os.environ["HOME"] = before


def make_repository(folder: Path, work: Path) -> None:
    """A bare one, and a clone of it to work in; both have one commit."""
    for name in TAKEN:
        shutil.copytree(ROOT / name, work / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, work / name)
    for file in (work / "environments").glob("*.yaml"):
        file.write_text(yaml.safe_dump(smaller(yaml.safe_load(file.read_text())), sort_keys=False))
    declared = [{"name": f"show-{n}", "entrypoint": "flows/show.py:show", "pool": "ingestion"} for n in (1, 2, 3)]
    files = {
        "flows/__init__.py": "",
        "flows/show.py": SHOW,
        "flows/deployments.yaml": yaml.safe_dump(declared),
        "tests/__init__.py": "",
        "tests/skips.py": (ROOT / "tests/skips.py").read_text(),
        "tests/allowed_skips.txt": "",
        "tests/test_sums.py": TEST,
    }
    for name, text in files.items():
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_text(text)
    for words in (
        ["init", "--quiet", "--bare", "--initial-branch=main", str(folder / "flows.git")],
        ["init", "--quiet", "--initial-branch=main", str(work)],
        ["-C", str(work), "add", "--all"],
        ["-C", str(work), "commit", "--quiet", "--message", "The first one"],
        ["-C", str(work), "remote", "add", "origin", str(folder / "flows.git")],
        ["-C", str(work), "push", "--quiet", "origin", "main"],
    ):
        subprocess.run(
            ["git", *QUIET, "-c", "user.name=Ada", "-c", "user.email=ada@example.invalid", *words], check=True
        )


def smaller(environment: dict[str, Any]) -> dict[str, Any]:
    """One pool, no overlays, and credentials for the clones."""
    pools = {"ingestion": environment["work_pools"]["ingestion"]}
    source = {**environment["source"], "credentials": "github-token"}
    dropped = ("concurrency_limits", "deployments", "automations")
    kept = {key: value for key, value in environment.items() if key not in dropped}
    return {**kept, "work_pools": pools, "source": source}


def skipped() -> str:
    """All hooks of `make check` but one: the others look at the whole project."""
    [repository] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    return ",".join(hook["id"] for hook in repository["hooks"] if hook["id"] != "check-yaml")
