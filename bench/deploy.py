"""How fast a deploy is: this tool, `prefect deploy --all`, a loop of `.deploy()`, and the same calls bare.

    python -m bench deploy [--sizes 50,200] [--databases sqlite,postgresql] [--rounds 3]

On one running server a database, in one run. The measurements of one action follow each other, contender by contender,
in an order that turns from round to round. docs/performance.md says what is compared, and how.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import httpx

from bench import machine, report, servers, workload
from bench.contenders import CONTENDERS, Measured, Place, pages, send
from bench.report import ACTIONS, Sample

DATABASES = ("postgresql", "sqlite")
DISTURBED = 0.35
"""Cores that others may keep busy during a measurement; with more it is repeated, `--repeats` times at most."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for a quiet machine, and how often to repeat what was disturbed all the same."""

    seconds: float
    repeats: int


def main(arguments: Sequence[str] | None = None) -> int:
    words = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    databases = _available(words.databases)
    if not databases:
        return 1
    samples: list[Sample] = []
    scratch = Path(tempfile.mkdtemp(prefix="bench-deploy-"))
    try:
        imports = [_import_prefect(scratch, words.quiet) for _ in range(5)]
        for database in databases:
            for sample in _database(database, words, scratch / database):
                samples.append(sample)
                say(report.line(sample))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    found = report.values(samples, median(imports))
    print(report.table(samples, found), end="\n\n", flush=True)
    print(json.dumps({"values": {n: asdict(v) for n, v in found.items()}, "samples": [asdict(s) for s in samples]}))
    report.merge(words.results, found)
    say(f"Written to {words.results}.")
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="bench deploy", description="Measure how fast deploys are.")
    top.add_argument("--sizes", type=_numbers, default=[50, 200], metavar="N,N", help="deployments (default: 50,200)")
    top.add_argument("--databases", type=_databases, default=list(DATABASES), metavar="NAME,NAME", help="default: both")
    top.add_argument("--rounds", type=int, default=3, metavar="N", help="times everything is measured (default: 3)")
    top.add_argument(
        "--contenders", type=_contenders, default=list(CONTENDERS), metavar="NAME,NAME", help="default: all"
    )
    top.add_argument("--quiet", type=float, default=60, metavar="SECONDS", help="wait so long for a quiet machine")
    top.add_argument("--repeats", type=int, default=1, metavar="N", help="of a measurement that others disturbed")
    top.add_argument(
        "--results",
        type=Path,
        default=report.RESULTS,
        metavar="FILE",
        help="where names are added",
    )
    return top


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _databases(text: str) -> list[str]:
    return _known(text, DATABASES)


def _contenders(text: str) -> list[str]:
    return _known(text, tuple(CONTENDERS))


def _known(text: str, known: Sequence[str]) -> list[str]:
    names = text.split(",")
    if strange := set(names) - set(known):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(strange))}: expected {', '.join(known)}")
    return names


def _available(databases: list[str]) -> list[str]:
    if "postgresql" in databases and servers.postgresql_programs() is None:
        say(
            "PostgreSQL is not measured: no initdb on the PATH or in the usual folders (apt or brew install postgresql)."
        )
        return [d for d in databases if d != "postgresql"]
    return databases


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _import_prefect(scratch: Path, quiet: float) -> float:
    machine.wait_until_quiet(quiet)
    words = [sys.executable, "-c", "import prefect"]
    return machine.run(words, scratch, servers.clean_environment(scratch), ()).seconds


def _database(database: str, words: argparse.Namespace, scratch: Path) -> Iterator[Sample]:
    scratch.mkdir()
    patience = Patience(words.quiet, words.repeats)
    with ExitStack() as stack:
        server = stack.enter_context(servers.prefect_on(database, scratch))
        client = stack.enter_context(httpx.Client(base_url=server.url, timeout=120, trust_env=False))
        send(client, "POST", "/work_pools/", {"name": workload.POOL, "type": "process"})
        for size in words.sizes:
            folder = scratch / str(size)
            place = Place(workload.make(folder / "repo", size), server, folder)
            (folder / "empty").mkdir()
            _warm_up(client, place)
            for number in range(words.rounds):
                turned = (
                    words.contenders[number % len(words.contenders) :]
                    + words.contenders[: number % len(words.contenders)]
                )
                for name in turned:
                    for action, measured in _round(client, place, name, patience):
                        yield Sample(database, size, number, name, action, measured.cost, dict(measured.stats))


def _warm_up(client: httpx.Client, place: Place) -> None:
    """Everything once, unmeasured; and what was created, as the bodies of bare calls."""
    CONTENDERS["this_tool"](place, "create")
    place.bodies = [_body(client, d) for d in pages(client, "/deployments/filter")]
    clean(client)


def _body(client: httpx.Client, deployment: dict[str, Any]) -> dict[str, Any]:
    keys = (
        *(
            "name",
            "version",
            "entrypoint",
            "description",
            "pull_steps",
            "parameter_openapi_schema",
            "tags",
            "parameters",
        ),
        *("enforce_parameter_schema", "job_variables", "paused", "work_pool_name"),
    )
    flow = send(client, "GET", f"/flows/{deployment['flow_id']}")["name"]
    schedules = [{k: s[k] for k in ("schedule", "active", "slug", "parameters")} for s in deployment["schedules"]]
    return {"flow_name": flow, **{key: deployment[key] for key in keys}, "schedules": schedules}


def _round(client: httpx.Client, place: Place, name: str, patience: Patience) -> Iterator[tuple[str, Measured]]:
    """One contender, from an empty server on; each action checked for having done what it should."""
    before: dict[str, Callable[[], Any]] = {
        "create": lambda: clean(client),
        "new_sha": place.workload.commit,
        "unchanged": lambda: None,
    }
    for action in ACTIONS:
        for left in reversed(range(patience.repeats + 1)):
            before[action]()
            machine.wait_until_quiet(patience.seconds)
            measured = CONTENDERS[name](place, action)
            _check(client, place, name)
            if not left or (measured.cost.foreign or 0) <= DISTURBED:
                break
            say(f"  {report.CONTENDERS[name]}, {action}: others used {measured.cost.foreign:.2f} cores; once more")
        yield action, measured
    clean(client)


def _check(client: httpx.Client, place: Place, name: str) -> None:
    """All deployments are there, at the newest commit, each with its schedule."""
    found = list(pages(client, "/deployments/filter"))
    expected = {d["name"]: d["cron"] for d in place.workload.deployments}
    assert {d["name"]: d["schedules"][0]["schedule"]["cron"] for d in found} == expected, f"{name}: other deployments"
    assert all(len(d["schedules"]) == 1 for d in found), f"{name}: doubled schedules"
    stale = [d["name"] for d in found if d["version"] != place.workload.head]
    assert name == "bare" or not stale, f"{name}: not at {place.workload.head}: {stale[:5]}"


def clean(client: httpx.Client) -> None:
    """An empty server: flows go with their deployments and runs, and so does the record of releases."""
    for flow in list(pages(client, "/flows/filter")):
        send(client, "DELETE", f"/flows/{flow['id']}")
    for artifact in list(pages(client, "/artifacts/filter")):
        send(client, "DELETE", f"/artifacts/{artifact['id']}")
    assert not list(pages(client, "/deployments/filter"))


if __name__ == "__main__":
    sys.exit(main())
