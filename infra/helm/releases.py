"""The helm commands that install one environment on Kubernetes, with the pools of environments/NAME.yaml.

python infra/helm/releases.py prod --tag sha-<commit>              # prints them
python infra/helm/releases.py prod --tag sha-<commit> | sh -ex     # runs them
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from any folder

from deployer import desired, project  # noqa: E402
from deployer.environment import WorkPool  # noqa: E402
from deployer.errors import DeployError, InvalidInput  # noqa: E402

CHARTS = "2026.8.18172642"  # of Prefect's repository of charts, both; keys/ is made from the same
TYPES = ("kubernetes", "process")


@dataclass(frozen=True)
class Release:
    """What `helm upgrade --install` takes. `settings` are what no file can know."""

    name: str
    chart: str
    files: tuple[str, ...]
    settings: tuple[tuple[str, str | list[str]], ...]
    waits: tuple[str, ...] = ()

    def command(self, environment: str) -> list[str]:
        version = ["--version", CHARTS] if self.chart.startswith("prefect/") else []
        values = [word for file in self.files for word in ("--values", f"infra/helm/values/{file}")]
        texts = [word for key, value in self.settings for word in _setting(key, value)]
        words = ["helm", "upgrade", "--install", self.name, self.chart, *version]
        return [*words, *self.waits, "--namespace", f"prefect-{environment}", *values, *texts]


def _setting(key: str, value: str | list[str]) -> tuple[str, str]:
    if isinstance(value, str):
        return "--set-string", f"{key}={value}"
    return "--set-json", f"{key}={json.dumps(value, separators=(',', ':'))}"


def releases(environment: str, pools: dict[str, WorkPool], tag: str) -> Iterator[Release]:
    """In the order in which they are installed: rights first, then the API, then who asks it."""
    env = f"{environment}.yaml"
    # Where runs share the worker's process, they would share its rights as well: those pools get none.
    starts_jobs = [key for key, pool in pools.items() if pool.type == "kubernetes"]
    own = (("image.tag", tag), ("pools", starts_jobs))
    # Helm gives a hook five minutes, our migration has fifteen (migrations.timeoutSeconds).
    yield Release("prefect-platform", "infra/helm/chart", (f"platform.{env}",), own, ("--timeout", "16m"))
    server = ("server.base.yaml", f"server.{env}")
    image = (("global.prefect.image.prefectTag", tag),)
    # An older server does not understand newer workers: they come once no old replica serves any more.
    yield Release("prefect-server", "prefect/prefect-server", server, image, ("--wait", "--timeout", "10m"))
    for key, pool in pools.items():
        worker = ("worker.base.yaml", f"worker.{_type(key, pool)}.yaml", f"worker.{env}")
        named = (("worker.config.workPool", pool.name), ("worker.config.type", pool.type))
        tagged = ("worker.image.prefectTag", tag)
        yield Release(f"prefect-worker-{key}", "prefect/prefect-worker", worker, (*named, tagged))


def _type(key: str, pool: WorkPool) -> str:
    if pool.type not in TYPES:
        raise InvalidInput(
            f"The pool {key} is of type {pool.type}: its worker does not run on Kubernetes. There: {', '.join(TYPES)}."
        )
    return pool.type


def pools_of(environment: str) -> dict[str, WorkPool]:
    """By their keys, with the names that they have in Prefect."""
    found, _ = project.contents(project.Tree.working(ROOT), environment, None)
    if found is None:
        raise InvalidInput(f"environments/{environment}.yaml has faults; see: deploy.py validate --static")
    mine = found.environment
    scope = desired.Scope(mine.owner, environment, mine.api.shared)
    return {
        key: pool.model_copy(update={"name": desired.pool_name(scope, pool.name)})
        for key, pool in mine.work_pools.items()
    }


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Print the helm commands that install one environment.")
    parser.add_argument("environment", help="as in environments/NAME.yaml")
    parser.add_argument("--tag", required=True, help="of the images, such as sha-<commit>")
    asked = parser.parse_args(words)
    try:
        for release in releases(asked.environment, pools_of(asked.environment), asked.tag):
            print(shlex.join(release.command(asked.environment)))
    except DeployError as error:
        print(f"releases: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
