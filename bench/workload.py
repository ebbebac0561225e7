"""What is deployed: a Git repository with as many deployments as asked for, described once for each way to deploy them."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bench.servers import clean_environment

POOL = "bench-pool"
PROJECT = "bench"
DEPLOYMENTS_A_FLOW = 4
FLOWS_A_FILE = 5

FLOW = '''
@flow(log_prints=True)
def flow_{number}(symbol: str, days_back: int = 1, incremental: bool = True, limits: dict[str, float] | None = None) -> int:
    """Fetches what is new of one symbol."""
    print(symbol, days_back, incremental, limits)
    return days_back
'''


@dataclass
class Workload:
    """A repository on disk, its deployments, and its newest commit."""

    path: Path
    deployments: list[dict[str, Any]]
    commits: list[str] = field(default_factory=list)

    @property
    def head(self) -> str:
        return self.commits[-1]

    @property
    def url(self) -> str:
        return self.path.as_uri()

    def commit(self) -> str:
        """One more commit, which touches no flow: like most."""
        number = len(self.commits) + 1
        (self.path / "CHANGES").write_text(f"{number}\n")
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", f"Commit {number}")
        self.commits.append(self._git("rev-parse", "HEAD"))
        (self.path / "prefect.yaml").write_text(prefect_yaml(self))
        return self.head

    def _git(self, *words: str) -> str:
        identity = ["-c", "user.name=Bench", "-c", "user.email=bench@example.invalid", "-c", "gc.auto=0"]
        done = subprocess.run(
            ["git", *identity, *words],
            cwd=self.path,
            env=clean_environment(self.path.parent),
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()


def make(path: Path, count: int) -> Workload:
    path.mkdir(parents=True)
    workload = Workload(path, [_deployment(i) for i in range(count)])
    workload._git("init", "--quiet", "--initial-branch=main")
    files = {".gitignore": "prefect.yaml\n__pycache__/\n", "environments/bench.yaml": ENVIRONMENT}
    for file in sorted({d["file"] for d in workload.deployments}):
        mine = [d for d in workload.deployments if d["file"] == file]
        numbers = sorted({d["flow"] for d in mine})
        files[file] = "from prefect import flow\n" + "".join(f"\n{FLOW.format(number=n)}" for n in numbers)
        files[f"{Path(file).parent}/deployments.yaml"] = yaml.safe_dump(
            [_declaration(d) for d in mine], sort_keys=False
        )
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    workload.commit()
    return workload


def _deployment(index: int) -> dict[str, Any]:
    """Each with a schedule of its own in the day, as catalogues have them."""
    flow = index // DEPLOYMENTS_A_FLOW
    folder = f"flows/domain_{flow // FLOWS_A_FILE:02}"
    minute = index * 7 % 1440
    return {
        "name": f"symbol-{index:03}",
        "flow": flow,
        "file": f"{folder}/flows.py",
        "entrypoint": f"{folder}/flows.py:flow_{flow}",
        "cron": f"{minute % 60} {minute // 60} * * *",
        "parameters": {"symbol": f"SYM{index}", "days_back": 1 + index % 5, "limits": {"high": 1.5, "low": 0.5}},
        "tags": ["bench", f"domain-{flow // FLOWS_A_FILE}"],
        "job_variables": {"env": {"LEVEL": "info"}} if index % 4 == 0 else {},
    }


ENVIRONMENT = f"""\
name: bench
project: {PROJECT}
mode: development
api: {{url: "${{PREFECT_API_URL}}"}}
refs: {{branches: [main]}}
source: {{strategy: git, repository: "${{REPOSITORY_URL}}"}}
work_pools:
  bench: {{name: {POOL}, type: process}}
"""


def _declaration(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": item["name"],
        "entrypoint": item["entrypoint"],
        "pool": "bench",
        "schedules": [{"slug": "daily", "cron": item["cron"], "timezone": "UTC"}],
        **{key: item[key] for key in ("parameters", "tags", "job_variables")},
    }


def prefect_yaml(workload: Workload) -> str:
    """The same deployments for `prefect deploy --all`."""
    clone = {"repository": workload.url, "commit_sha": workload.head}
    deployments = [
        {
            "name": item["name"],
            "version": workload.head,
            "entrypoint": item["entrypoint"],
            "tags": item["tags"],
            "parameters": item["parameters"],
            "schedules": [{"slug": "daily", "cron": item["cron"], "timezone": "UTC"}],
            "work_pool": {"name": POOL, "job_variables": item["job_variables"]},
        }
        for item in workload.deployments
    ]
    pull = [{"prefect.deployments.steps.git_clone": clone}]
    return yaml.safe_dump({"name": "bench", "pull": pull, "deployments": deployments}, sort_keys=False)


LOOP = """\
import json, sys
from prefect import flow
from prefect.runner.storage import GitRepository
from prefect.schedules import Cron

given = json.load(open(sys.argv[1]))
for item in given["deployments"]:
    source = GitRepository(url=given["url"], commit_sha=given["commit"])
    flow.from_source(source=source, entrypoint=item["entrypoint"]).deploy(
        name=item["name"],
        work_pool_name=given["pool"],
        version=given["commit"],
        tags=item["tags"],
        parameters=item["parameters"],
        job_variables=item["job_variables"],
        schedules=[Cron(item["cron"], timezone="UTC", slug="daily")],
        build=False,
        push=False,
        print_next_steps=False,
        ignore_warnings=True,
    )
"""


def loop_files(workload: Workload, folder: Path) -> list[str]:
    """The loop of `flow.from_source().deploy()` as a script, and what it is to deploy."""
    script, given = folder / "loop.py", folder / "loop.json"
    script.write_text(LOOP)
    described = {"url": workload.url, "commit": workload.head, "pool": POOL, "deployments": workload.deployments}
    given.write_text(json.dumps(described))
    return [str(script), str(given)]
