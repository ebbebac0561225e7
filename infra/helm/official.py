"""What Prefect's own charts take and make, recorded so that our values can be checked without them.

    git clone --branch 2026.8.18172642 https://github.com/PrefectHQ/prefect-helm
    python infra/helm/official.py prefect-helm

It renders both charts with the values of every environment, checks what comes out against the schemas of Kubernetes, and
writes keys/*.json: every key of the charts' values.yaml and values.schema.json with its type, and the labels, accounts and
settings of the pods, which the policies and budgets of our chart go by. The charts themselves are Prefect's, Apache-2.0.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))  # so that it runs from any folder

from infra.helm.releases import CHARTS, HERE, Release, pools_of, releases  # noqa: E402
from scripts.infra_setup import find  # noqa: E402

KUBERNETES = "1.33"
ENVIRONMENTS = ("dev", "qa", "prod")
PROSE = {"title", "description", "form", "default", "examples"}


# -- the keys


PASSED_ON = {
    "podSecurityContext": (
        "fsGroup",
        "fsGroupChangePolicy",
        "runAsGroup",
        "runAsNonRoot",
        "runAsUser",
        "seccompProfile",
    ),
    "containerSecurityContext": (
        "capabilities",
        "privileged",
        "runAsGroup",
        "runAsNonRoot",
        "runAsUser",
        "seccompProfile",
    ),
}
"""What the charts hand to Kubernetes as it is, documenting a part only; these are Kubernetes' own keys."""


def strict(default: Any, schema: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    """One schema of what values.yaml documents and what values.schema.json allows, closed where both list the keys."""
    plain = {key: _plain(value) for key, value in schema.items() if key not in PROSE and key != "properties"}
    described = schema.get("properties", {})
    if not isinstance(default, dict) or not default:
        if not described:
            return plain
        default = {}
    keys = {**default, **described, **dict.fromkeys(PASSED_ON.get(name, ()))}
    parts = {key: strict(default.get(key), described.get(key, {}), key) for key in keys}
    return {**plain, "properties": parts, "additionalProperties": False}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if k not in PROSE or isinstance(v, dict)}
    return [_plain(item) for item in value] if isinstance(value, list) else value


# -- what they make


def render(charts: Path, release: Release, environment: str) -> str:
    """The manifests of a release, by helm."""
    words = release.command(environment)[4:]
    if release.chart.startswith("prefect/"):
        at = words.index("--version")
        words = [str(charts / words[0].removeprefix("prefect/")), *words[1:at], *words[at + 2 :]]
    return run("helm", "template", release.name, *words)


def pods(manifests: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name, labels, service account and settings of every pod that the manifests make."""
    for found in yaml.safe_load_all(manifests):
        template = found and found.get("spec", {}).get("template")
        if template and "spec" in template:
            box = template["spec"]["containers"][0]
            yield (
                found["metadata"]["name"],
                {
                    "labels": {k: v for k, v in template["metadata"]["labels"].items() if "version" not in k},
                    "account": template["spec"]["serviceAccountName"],
                    "env": sorted(entry["name"] for entry in box["env"]),
                },
            )


def run(name: str, *words: str, stdin: str | None = None) -> str:
    program = find(name) or sys.exit(f"official: {name} is not here: make infra-setup")
    answer = subprocess.run([program, *words], cwd=ROOT, input=stdin, capture_output=True, text=True)
    if answer.returncode:
        sys.exit(f"official: {name} {' '.join(words)}\n{answer.stdout}{answer.stderr}")
    return answer.stdout


def every() -> Iterator[tuple[str, Release]]:
    """All releases of Prefect's charts, with the types of pools that run on Kubernetes."""
    for environment in ENVIRONMENTS:
        pools = pools_of(environment)
        for kind in ("process", "kubernetes"):
            typed = {key: pool.model_copy(update={"type": kind}) for key, pool in pools.items()}
            yield from (
                (environment, r) for r in releases(environment, typed, "sha-0") if r.chart.startswith("prefect/")
            )


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Record what Prefect's charts take and make.")
    parser.add_argument("checkout", type=Path, help="of PrefectHQ/prefect-helm")
    checkout: Path = parser.parse_args(words).checkout
    charts = checkout / "charts"
    commit = run("git", "-C", str(checkout), "rev-parse", "HEAD").strip()
    made: dict[str, Any] = {}
    for environment, release in every():
        name = release.chart.removeprefix("prefect/")
        if not (charts / name / "charts").is_dir():
            run("helm", "dependency", "build", str(charts / name))
        manifests = render(charts, release, environment)
        run("kubernetes-validate", "-k", KUBERNETES, "--strict", "-", stdin=manifests)
        made.setdefault(name, {}).update(pods(manifests))
        print(f"{release.name} in {environment}: valid", file=sys.stderr)
    for name, found in made.items():
        record(charts / name, commit, found)
    return 0


def record(chart: Path, commit: str, made: Mapping[str, Any]) -> None:
    schema = json.loads((chart / "values.schema.json").read_text())
    known = {
        "source": "https://github.com/PrefectHQ/prefect-helm (Apache-2.0)",
        "chart": chart.name,
        "version": CHARTS,
        "commit": commit,
        "pods": made,
        "values": strict(yaml.safe_load((chart / "values.yaml").read_text()), schema),
    }
    (HERE / "keys" / f"{chart.name}.json").write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
