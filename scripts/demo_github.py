"""The GitHub workflows of this repository, played on this machine: merge to dev, a candidate to QA, a release, a rollback.

`.github/workflows/` itself is run, by act instead of GitHub, against three Prefect APIs of this machine's own. The
repository it is called in stays as it is, and neither GitHub nor another Prefect API is met.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from deployer.render import status_text  # noqa: E402
from scripts import act, demo, local  # noqa: E402
from scripts.act import Act, Answer, Push  # noqa: E402
from scripts.demo import DemoError, Stage, say, step  # noqa: E402

# GitHub would run all of `make check` and `make test`. Here a few stand for them.
SHORTER = {"TESTS": "tests/flows/test_sample.py", "SKIP": "mypy,lock", "GIT_TERMINAL_PROMPT": "0"}
MAIN = "refs/heads/main"
REASON = "two years are too many"


@dataclass(frozen=True)
class Runner:
    """Runs a workflow as GitHub does for an event, with the variables and secrets of one environment only."""

    stage: Stage
    act: Act

    def push(self, ref: str, env: str) -> None:
        say(f"push {ref}")
        found = self.act.run("deploy.yml", Push(ref), job="deploy", **self.given(env))
        self.report("deploy.yml", found)

    def roll_back(self, env: str, to: str) -> None:
        say(f'Run workflow "rollback": environment {env}, to {to}, reason "{REASON}"')
        inputs = {"environment": env, "to": to, "reason": REASON}
        asked: dict[str, Any] = {"event": "workflow_dispatch", "job": "rollback", "inputs": inputs}
        self.report("rollback.yml", self.act.run("rollback.yml", Push(MAIN), **asked, **self.given(env)))

    def given(self, env: str) -> dict[str, Any]:
        known = local.env(env, self.stage.clone, self.stage.state)
        variables = {"PREFECT_API_URL": known["PREFECT_API_URL"], "REPOSITORY_URL": str(self.act.origin)}
        variables |= {} if env == "prod" else {"REPLAN": "true"}
        return {"variables": variables, "secrets": {"WAREHOUSE_URL": known["WAREHOUSE_URL"]}}

    def report(self, workflow: str, found: Answer) -> None:
        """A line a job, and what the deploying one said last."""
        for job, result in found.jobs.items():
            say(f"  {'ok' if result == 'success' else result:<8} {job}")
        for line in found.said("apply").splitlines():
            if line.startswith("Release "):
                say(f"  {line}")
        if found.code:
            raise DemoError(f"{workflow} failed:\n{last_of(found)}")


def last_of(found: Answer, lines: int = 25) -> str:
    return "\n".join(found.said().splitlines()[-lines:])


def main(arguments: Sequence[str] | None = None) -> int:
    return demo.perform("demo-github", str(__doc__), play, arguments)


def play(stage: Stage) -> None:
    act.program(Path(sys.prefix))
    head = demo.clone_head(stage)
    step("Start three Prefect APIs, and a worker for each of their pools")
    up = local.up(stage.clone, stage.state, port_base=0, say=say)
    runner = Runner(stage, Act(folder(stage, "runner"), publish(stage), SHORTER))

    step(f"A pull request is merged: {head[:12]} is pushed to main")
    runner.push(MAIN, "dev")

    step("A release candidate: the same commit goes to QA")
    tag(stage, "v1.0.0-rc1")
    runner.push("refs/tags/v1.0.0-rc1", "qa")

    step("A release: it goes to production")
    tag(stage, "v1.0.0")
    runner.push("refs/tags/v1.0.0", "prod")

    step("The next release changes one parameter")
    tag(stage, "v1.1.0", demo.change_a_parameter(stage))
    runner.push("refs/tags/v1.1.0", "prod")

    step("It was a mistake: the rollback workflow puts v1.0.0 back")
    runner.roll_back("prod", "v1.0.0")

    step("What is where")
    demo.write_variables(stage)
    say(status_text([stage.answer("status", name)["environments"][0] for name in demo.ENVIRONMENTS]))
    say("\nLook at it in Prefect's UI:")
    for one in up:
        say(f"  {one.name:<5} {one.ui_url}")


def publish(stage: Stage) -> Path:
    """The repository that workers and the runner clone: what GitHub is for a team. Its name is the project's."""
    origin = folder(stage, "origin") / f"{ROOT.name}.git"
    demo.run(["git", "clone", "--quiet", "--bare", str(stage.clone), str(origin)])
    stage.git("remote", "set-url", "origin", str(origin))
    return origin


def tag(stage: Stage, name: str, commit: str = "HEAD") -> None:
    stage.git("tag", name, commit)
    stage.git("push", "--quiet", "origin", "main", name)


def folder(stage: Stage, name: str) -> Path:
    made = stage.state / name
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    return made


if __name__ == "__main__":
    sys.exit(main())
