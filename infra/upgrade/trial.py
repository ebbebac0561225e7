"""The upgrade, tried: a whole platform of the previous Prefect, upgraded while runs go on.

    python infra/upgrade/trial.py [--prepare]

The previous Prefect comes from infra/upgrade/previous.txt, into .local/; `--prepare` only installs it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from deployer.environment import Api  # noqa: E402
from deployer.errors import DeployError  # noqa: E402
from deployer.prefect_api import Client  # noqa: E402
from infra.restore import restore  # noqa: E402
from infra.upgrade.upgrade import Step, upgrade  # noqa: E402
from scripts import ha, stack  # noqa: E402
from scripts.stack import Stack, StackError  # noqa: E402

LOCK = ROOT / "infra/upgrade/previous.txt"
POOLS = {"ingestion": "up-ingestion"}
RUNS = 10


@dataclass(frozen=True)
class Outcome:
    before: str
    after: str
    states: list[str]
    """Of all runs in the end."""

    lost: list[str]
    plan: dict[str, Any]
    """What the new tool says is to be done after the upgrade."""

    releases: list[int]
    away: float
    """The longest time that a client had no good answer, in seconds."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--prepare", action="store_true", help="only install the previous Prefect")
    words = parser.parse_args(arguments)
    try:
        python = prepare()
        if not words.prepare:
            print(sentence(try_it(python, lambda line: print(line, flush=True))))
    except (StackError, DeployError) as error:
        print(f"trial: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("trial: interrupted; all that was started is ended", file=sys.stderr)
        return 130
    return 0


def previous() -> Path:
    """Its Python, there or not. A folder for each content of the lock."""
    return ROOT / ".local" / f"prefect-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}" / "bin/python"


def prepare() -> Path:
    """Installed beside its place and moved there, so that what is there is whole."""
    python = previous()
    if python.exists():
        return python
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if not uv:
        raise StackError("uv is neither in .venv nor on the PATH. Run `make setup`, then this again.")
    home = python.parent.parent
    shutil.rmtree(home, ignore_errors=True)
    for command in (
        [uv, "venv", "--quiet", "--python", sys.executable, str(home)],
        [
            uv,
            "pip",
            "install",
            "--quiet",
            "--compile-bytecode",
            "--python",
            str(python),
            "--require-hashes",
            "--only-binary",
            ":all:",
            "-r",
            str(LOCK),
        ],
    ):
        if subprocess.run(command).returncode:
            shutil.rmtree(home, ignore_errors=True)
            raise StackError("The previous Prefect could not be installed; uv says why above.")
    return python


def try_it(python: Path, say: Callable[[str], None]) -> Outcome:
    with stack.running(POOLS, python=str(python), settings=ha.SETTINGS, say=say) as platform:
        trial = ha.Trial(platform, RUNS, 2.0, say)
        ha.deploy(trial, None)
        stack.start_workers(platform, say=say)
        with ha.probing(trial) as probes, ha.asking(trial), client_of(platform) as api:
            before = str(api.get("/admin/version"))
            trial.wait_until_ended(0.2)
            trial.faults.append(("upgrade", time.time()))
            upgrade(
                api,
                version("prefect"),
                backup=lambda: restore.take(platform.database, str(platform.folder / "backups")),
                migrate=lambda: migrate(platform),
                restarts=restarts(platform),
                say=say,
            )
            after = str(api.get("/admin/version"))
            ha.wait_until_over(trial)
        runs = trial.all_runs()
        return Outcome(
            before,
            after,
            sorted(run["state_name"] for run in runs),
            ha.lost(trial, runs),
            tool(platform, "plan"),
            [one["number"] for one in tool(platform, "history")["releases"]],
            max(one.seconds for one in ha.away(probes, trial.faults)),
        )


def client_of(platform: Stack) -> Client:
    return Client(Api(url=platform.url, auth_string=platform.auth))


def migrate(platform: Stack) -> None:
    platform.python = sys.executable
    platform.prefect("server", "database", "upgrade", "-y")


def restarts(platform: Stack) -> list[Step]:
    """In the order of the runbook: a replica after the other, the services, the workers."""
    apis = [f"api-{n}" for n in range(1, platform.replicas + 1)]
    names = [*apis, "services", *(f"worker-{key}" for key in platform.pools)]
    return [(name, partial(restart, platform, name)) for name in names]


def restart(platform: Stack, name: str) -> None:
    platform.replace(name, sys.executable)
    if name.startswith("api-"):
        platform.wait_for_api(name)


def tool(platform: Stack, verb: str, repository: Path | None = None) -> Any:
    """What this repository's deploy.py says of it, as JSON."""
    repository = repository or platform.folder / "repository"
    words = ["--env", "ha", "--repo", str(repository), "--format", "json"]
    command = [sys.executable, str(ROOT / "scripts/deploy.py"), verb, *words]
    environment = {**platform.environment("deploy"), **platform.client}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise StackError(f"`deploy.py {verb}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def sentence(outcome: Outcome) -> str:
    return (
        f"Prefect {outcome.before} -> {outcome.after}: {len(outcome.states)} runs, {len(outcome.lost)} lost; the API was away for "
        f"{outcome.away:.1f} s at most; the runs are {', '.join(sorted(set(outcome.states)))}; the plan has {sum(v for k, v in outcome.plan['summary'].items() if k != 'unchanged')} "
        f"changes; releases {outcome.releases}."
    )


if __name__ == "__main__":
    sys.exit(main())
