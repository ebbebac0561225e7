"""High availability, tried: a hundred runs while parts of the platform are killed and restarted, and what became of them.

    python scripts/ha.py [--runs N] [--json FILE] [--keep DIR]

On a stack of its own (scripts/stack.py), deployed to by scripts/deploy.py, with the automations of infra/ha/automations.yaml.
Exit code 0: every run reached a final state, those that crashed were tried again where their deployment asks for it, none
failed and none was carried out twice.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any, NoReturn

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts import marked, stack  # noqa: E402
from scripts.stack import Stack, StackError  # noqa: E402

AUTOMATIONS = ROOT / "infra/ha/automations.yaml"
RETRIED = "retry-crashed"  # the tag that asks for it
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
TRIES = 3
PAGE = 200
PACE = 0.25  # seconds between two runs' times
PATIENCE = 1200  # seconds that the runs may take
# What runs need to live through it. 30 seconds is the least, and the default 180. While Redis restarts the API answers some
# changes of state with 500, which Prefect's client takes as final if it is not told otherwise.
SETTINGS = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30", "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500"}

FLOW = '''\
"""A run that takes a while, and notes in a book when it began and when it was through."""

import os
import time

from prefect import flow
from prefect.runtime import flow_run


@flow
def nap(number: int, seconds: float):
    note("began", number)
    time.sleep(seconds)
    note("ended", number)


def note(what: str, number: int) -> None:
    with open(os.environ["HA_BOOK"], "a") as book:
        book.write(f"{what} {number} {time.time():.3f}\\n")
'''


@dataclass(frozen=True)
class Fault:
    """What is done to the platform, after which share of the runs has ended, and when it counts as mended."""

    name: str
    after: float
    act: Callable[[Trial], None]


@dataclass(frozen=True)
class Away:
    """How long a client had no good answer."""

    fault: str
    seconds: float
    failed: int
    """requests without a good answer"""


@dataclass(frozen=True)
class Report:
    runs: int
    states: Mapping[str, int]
    lost: tuple[str, ...]
    """Runs without a final state, crashed ones that should have been tried again, and failed ones."""

    retried: int
    unfinished: int
    """Bodies that began and never ended: what the faults cut off."""

    twice: int
    """Runs whose body was carried to its end more than once."""

    away: tuple[Away, ...]
    longest_delay: float
    """Seconds from a run's time to its first start."""

    longest_run: float
    """Seconds from a run's time to its last end."""

    start_seconds: float
    seconds: float
    restarts: Mapping[str, int]

    @property
    def good(self) -> bool:
        return not self.lost and not self.twice


def main(arguments: Sequence[str] | None = None) -> int:
    signal.signal(signal.SIGTERM, _stop)
    words = _parser().parse_args(arguments)
    began = time.monotonic()
    try:
        with stack.running(settings=SETTINGS, keep=words.keep, say=_progress) as platform:
            trial = Trial(platform, words.runs, words.seconds, _progress)
            set_up(trial)
            report = try_it(trial, FAULTS, began)
    except (StackError, marked.LocalError) as error:
        print(f"ha: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ha: interrupted; all that was started is ended", file=sys.stderr)
        return 130
    if words.json:
        words.json.write_text(json.dumps(asdict(report), indent=2) + "\n")
    print(table(report))
    return 0 if report.good else 1


def _stop(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _progress(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {line}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--runs", type=int, default=100, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=2.0, metavar="S", help="each sleeps so long (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="run in this new folder, and keep its logs")
    return parser


# -- The trial


@dataclass
class Trial:
    """One stack, its runs, and what is noted about them."""

    stack: Stack
    runs: int
    seconds: float
    say: marked.Say
    command: str | None = None
    """Of a run. `python -m prefect.engine` spares it the two processes that Prefect's own prepares it with."""

    deployments: dict[str, str] = field(default_factory=dict)
    """The key of a pool -> the deployment's id."""

    asked: dict[int, tuple[str, float]] = field(default_factory=dict)
    """The number of a run -> its id, and its time."""

    faults: list[tuple[str, float]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def book(self) -> Path:
        return self.stack.folder / "book"

    def insist(self, method: str, path: str, body: object = None, seconds: float = 120) -> Any:
        """As Prefect's client does: once more where there is no good answer."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.stack.request(method, path, body)
            except (OSError, HTTPException, ValueError) as error:
                if time.monotonic() > deadline or self.over.wait(0.3):
                    raise StackError(f"The API gave no good answer for {seconds:.0f} s: {error}") from None

    def all_runs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            body = {"sort": "ID_DESC", "limit": PAGE, "offset": len(found)}
            page = self.insist("POST", "/flow_runs/filter", body)
            found += page
            if len(page) < PAGE:
                return found

    def wait_for(self, what: str, ready: Callable[[], object], seconds: float = PATIENCE) -> None:
        self.stack.wait(what, ready, seconds=seconds, pause=0.5)

    def wait_until_ended(self, share: float) -> None:
        self.wait_for(f"{share:.0%} of the runs have ended", lambda: ended(self) >= share * self.runs)


def set_up(trial: Trial, silent_after: int | None = None) -> None:
    """Deploy to the trial's stack, and start its workers.

    Args:
        silent_after: So many seconds without a sign make a running run Crashed; default: what automations.yaml says.
    """
    deploy(trial, silent_after)
    stack.start_workers(trial.stack, say=trial.say)


def try_it(trial: Trial, faults: Sequence[Fault], began: float) -> Report:
    """Let the runs and the faults loose. `began`: when the stack was asked for, on the monotonic clock."""
    start_seconds = time.monotonic() - began
    with probing(trial) as probes, asking(trial):
        break_things(trial, faults)
        wait_until_over(trial)
    return report(trial, probes, start_seconds, time.monotonic() - began)


def deploy(trial: Trial, silent_after: int | None) -> None:
    """By scripts/deploy.py, from a scratch repository: pools, deployments and automations."""
    repository = trial.stack.folder / "repository"
    for name, text in files(trial, repository, silent_after).items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(text)
    git = [
        "git",
        "-C",
        str(repository),
        "-c",
        "user.name=HA",
        "-c",
        "user.email=ha@localhost",
        "-c",
        "core.hooksPath=/dev/null",
    ]
    environment = {**trial.stack.environment("deploy"), **trial.stack.client, "GIT_CONFIG_GLOBAL": os.devnull}
    tool = [trial.stack.python, str(ROOT / "scripts/deploy.py"), "apply", "--env", "ha", "--repo", str(repository)]
    for command in ([*git, "init", "-q", "-b", "main"], [*git, "add", "-A"], [*git, "commit", "-qm", "Trial"], tool):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise StackError(f"`{' '.join(command)}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    trial.say(done.stdout.strip().splitlines()[-1])
    for found in trial.insist("POST", "/deployments/filter", {}):
        trial.deployments[found["name"].removeprefix("nap-")] = found["id"]


def files(trial: Trial, repository: Path, silent_after: int | None) -> dict[str, str]:
    """The runs of maintenance ask for no retry: a crash of theirs is reported, and stays."""
    keys = list(trial.stack.pools)
    entries = [
        {
            "name": f"nap-{key}",
            "entrypoint": "flows/trial/nap.py:nap",
            "pool": key,
            "tags": [] if key == keys[-1] else [RETRIED],
            "job_variables": {
                "env": {"HA_BOOK": str(trial.book)},
                **({"command": trial.command} if trial.command else {}),
            },
        }
        for key in keys
    ]
    automations = yaml.safe_load(AUTOMATIONS.read_text())
    for one in automations:
        if silent_after and one["name"] == "crash-silent-runs":
            one["trigger"]["within"] = silent_after
    environment = {
        "name": "ha",
        "mode": "development",
        "project": "ha",
        "api": {"url": "${PREFECT_API_URL}", "auth_string": "${PREFECT_API_AUTH_STRING}"},
        "refs": {"branches": ["main"]},
        "source": {"strategy": "local", "directory": str(repository)},
        "work_pools": {k: {"name": v, "type": "process", "concurrency_limit": 3} for k, v in trial.stack.pools.items()},
        "automations": automations,
    }
    return {
        "flows/trial/nap.py": FLOW,
        "flows/trial/deployments.yaml": yaml.safe_dump(entries, sort_keys=False),
        "environments/ha.yaml": yaml.safe_dump(environment, sort_keys=False),
    }


@contextmanager
def asking(trial: Trial) -> Iterator[None]:
    thread = threading.Thread(target=ask_for_runs, args=(trial,))
    thread.start()
    try:
        yield
    finally:
        trial.over.set()
        thread.join()


def ask_for_runs(trial: Trial) -> None:
    """One after the other, over the pools in turn. The idempotency key makes one of each, however often it is asked for."""
    keys = list(trial.deployments)
    for number in range(trial.runs):
        body = {"parameters": {"number": number, "seconds": trial.seconds}, "idempotency_key": f"ha-{number}"}
        since = time.time()
        try:
            made = trial.insist(
                "POST", f"/deployments/{trial.deployments[keys[number % len(keys)]]}/create_flow_run", body
            )
        except StackError:
            return  # it then counts as lost
        trial.asked[number] = (made["id"], since)
        if trial.over.wait(PACE):
            return


def break_things(trial: Trial, faults: Sequence[Fault]) -> None:
    for fault in faults:
        trial.wait_until_ended(fault.after)
        trial.say(f"{ended(trial)} of {trial.runs} runs have ended: {fault.name}")
        trial.faults.append((fault.name, time.time()))
        fault.act(trial)


def ended(trial: Trial) -> int:
    return int(trial.insist("POST", "/flow_runs/count", {"flow_runs": {"state": {"type": {"any_": list(FINAL)}}}}))


def wait_until_over(trial: Trial) -> None:
    """Or until patience ends: the report then says which are lost."""
    trial.say("waiting for the last runs")
    try:
        trial.wait_for("all runs have ended", lambda: not under_way(trial, trial.all_runs()))
    except StackError as error:
        trial.say(str(error))


def under_way(trial: Trial, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What may still become good."""
    return _told(trial, runs, _unfinished)


def lost(trial: Trial, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    return _told(trial, runs, _trouble)


def _told(
    trial: Trial, runs: Sequence[Mapping[str, Any]], judge: Callable[[Mapping[str, Any] | None], str]
) -> list[str]:
    there = {run["id"]: run for run in runs}
    told = {number: judge(there.get(trial.asked.get(number, ("", 0.0))[0])) for number in range(trial.runs)}
    return [f"{number}: {text}" for number, text in told.items() if text]


def _trouble(run: Mapping[str, Any] | None) -> str:
    """`nap` never raises and nobody cancels: a run that ends so was broken by a fault."""
    if run and run["state_type"] in ("FAILED", "CANCELLED"):
        return f"{run['name']} is {run['state_name']}"
    return _unfinished(run)


def _unfinished(run: Mapping[str, Any] | None) -> str:
    if run is None:
        return "is not there"
    if run["state_type"] not in FINAL:
        return f"{run['name']} is {run['state_name']}"
    if run["state_type"] == "CRASHED" and RETRIED in run["tags"] and run["run_count"] < TRIES:
        return f"{run['name']} crashed and was not tried again"
    return ""


# -- Faults


def kill(name: str) -> Callable[[Trial], None]:
    return lambda trial: trial.stack.kept[name].kill()


def kill_at_work(key: str) -> Callable[[Trial], None]:
    """A worker with all its runs, as a container or a machine goes: when there is one in the middle of its work."""

    def act(trial: Trial) -> None:
        body = {
            "flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}},
            "work_pools": {"name": {"any_": [trial.stack.pools[key]]}},
        }
        trial.wait_for(f"{key} runs something", lambda: trial.insist("POST", "/flow_runs/count", body), 60)
        trial.stack.kept[f"worker-{key}"].kill()

    return act


def restart(name: str) -> Callable[[Trial], None]:
    """Asked to end, as by `docker compose restart`, and started again."""
    return lambda trial: trial.stack.kept[name].ask_to_end()


FAULTS = (
    Fault("kill -9 of an API replica", 0.08, kill("api-1")),
    Fault("kill -9 of the services", 0.22, kill("services")),
    Fault("restart of Redis", 0.36, restart("redis")),
    Fault("kill -9 of a worker, runs retried", 0.50, kill_at_work("ingestion")),
    Fault("kill -9 of a worker, not retried", 0.60, kill_at_work("maintenance")),
    Fault("restart of PostgreSQL", 0.70, restart("postgres")),
)


# -- What a client sees meanwhile


@dataclass(frozen=True)
class Probe:
    at: float
    good: bool


@contextmanager
def probing(trial: Trial) -> Iterator[list[Probe]]:
    """A question to the database by way of nginx and an API, five times a second, as long as the `with` lasts."""
    probes: list[Probe] = []
    over = threading.Event()

    def probe() -> None:
        while not over.is_set():
            at = time.time()
            try:
                trial.stack.request("POST", "/deployments/count", {}, seconds=5)
                probes.append(Probe(time.time(), True))
            except (OSError, HTTPException, ValueError):
                probes.append(Probe(at, False))
            over.wait(max(0.0, 0.2 - (time.time() - at)))

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield probes
    finally:
        over.set()
        thread.join()


def away(probes: Sequence[Probe], faults: Sequence[tuple[str, float]]) -> tuple[Away, ...]:
    """For each fault, until the next: the longest time from the first bad answer to the next good one."""
    ends = [at for _, at in faults[1:]] + [float("inf")]
    return tuple(
        Away(name, *_longest([probe for probe in probes if since <= probe.at < until]))
        for (name, since), until in zip(faults, ends, strict=True)
    )


def _longest(probes: Sequence[Probe]) -> tuple[float, int]:
    longest, first, failed = 0.0, None, 0
    for probe in probes:
        if not probe.good:
            first, failed = first if first is not None else probe.at, failed + 1
        elif first is not None:
            longest, first = max(longest, probe.at - first), None
    return longest, failed


# -- The report


def report(trial: Trial, probes: Sequence[Probe], start_seconds: float, seconds: float) -> Report:
    runs = trial.all_runs()
    began, done = _book(trial)
    delays = [first[0] - trial.asked[number][1] for number, first in began.items()]
    lengths = [last[-1] - trial.asked[number][1] for number, last in done.items()]
    return Report(
        runs=trial.runs,
        states=dict(Counter(run["state_name"] for run in runs)),
        lost=tuple(lost(trial, runs)),
        retried=sum(was_retried(trial, run) for run in runs),
        unfinished=sum(map(len, began.values())) - sum(map(len, done.values())),
        twice=sum(len(times) > 1 for times in done.values()),
        away=away(probes, trial.faults),
        longest_delay=max(delays, default=0.0),
        longest_run=max(lengths, default=0.0),
        start_seconds=start_seconds,
        seconds=seconds,
        restarts={name: kept.restarts for name, kept in trial.stack.kept.items() if kept.restarts},
    )


def was_retried(trial: Trial, run: Mapping[str, Any]) -> bool:
    """By the automation. A run that crashed before it started has counted no try."""
    states = trial.insist("GET", f"/flow_run_states/?flow_run_id={run['id']}")
    return any(state["name"] == "AwaitingRetry" for state in states)


def _book(trial: Trial) -> tuple[dict[int, list[float]], dict[int, list[float]]]:
    """By number: when the body began, and when it was through."""
    found: dict[str, dict[int, list[float]]] = {"began": {}, "ended": {}}
    for line in trial.book.read_text().splitlines() if trial.book.exists() else []:
        what, number, at = line.split()
        found[what].setdefault(int(number), []).append(float(at))
    return found["began"], found["ended"]


def table(report: Report) -> str:
    rows = [(one.fault, f"{one.seconds:.1f} s", f"{one.failed}") for one in report.away]
    width = max([len(fault) for fault, _, _ in rows] + [len("FAULT")])
    lines = [f"{'FAULT':<{width}}  API AWAY  BAD ANSWERS", *(f"{a:<{width}}  {b:>8}  {c:>11}" for a, b, c in rows), ""]
    states = ", ".join(f"{count} {name}" for name, count in sorted(report.states.items()))
    lines += [
        f"{report.runs} runs: {states}.",
        f"{report.retried} of them were tried again; {report.unfinished} were cut off in the middle, {report.twice} carried out twice.",
        f"Longest wait for a start {report.longest_delay:.0f} s, for an end {report.longest_run:.0f} s.",
        f"Started again: {', '.join(f'{name} {count} times' if count > 1 else name for name, count in report.restarts.items()) or 'nothing'}.",
        f"{report.seconds:.0f} s in all, {report.start_seconds:.0f} s of it until the platform was up.",
        *verdict(report),
    ]
    return "\n".join(lines)


def verdict(report: Report) -> list[str]:
    if report.good:
        return ["No run was lost, failed or carried out twice."]
    lost = [f"{len(report.lost)} RUNS WERE LOST OR FAILED:", *report.lost] if report.lost else []
    return [*lost, *([f"{report.twice} RUNS WERE CARRIED OUT TWICE."] if report.twice else [])]


if __name__ == "__main__":
    sys.exit(main())
