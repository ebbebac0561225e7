"""The platform on this machine, and what `make ha` does to it: shorter here, with fewer faults."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import ha, stack
from scripts.ha import Fault, Probe, Report, Trial
from scripts.stack import Stack

ROOT = Path(__file__).resolve().parents[2]
RUNS = 12
SILENT_AFTER = 20  # seconds; a run of half a second has ended by then
FEWER = (
    Fault("kill -9 of an API replica", 0.1, ha.kill("api-1")),
    Fault("restart of Redis", 0.3, ha.restart("redis")),
    Fault("restart of PostgreSQL", 0.5, ha.restart("postgres")),
)


@pytest.fixture(scope="module")
def platform() -> Iterator[Stack]:
    try:
        stack.find_programs()
    except stack.StackError as error:
        pytest.skip(str(error))
    with stack.running(settings=ha.SETTINGS) as found:
        yield found


@pytest.fixture(scope="module")
def trial(platform: Stack) -> Trial:
    return Trial(platform, RUNS, 0.5, print, command=f"{sys.executable} -m prefect.engine")


@pytest.fixture(scope="module")
def outcome(trial: Trial) -> Report:
    return ha.try_it(trial, FEWER, time.monotonic(), silent_after=SILENT_AFTER)


@pytest.mark.stack
@pytest.mark.timeout(900)
def test_no_run_is_lost_while_parts_of_the_platform_go_and_come_back(outcome: Report) -> None:
    assert outcome.good, ha.table(outcome)
    assert sum(outcome.states.values()) == RUNS
    assert outcome.states == {"Completed": RUNS}, ha.table(outcome)
    assert {"api-1", "redis", "postgres"} <= outcome.restarts.keys()


@pytest.mark.stack
@pytest.mark.timeout(900)
def test_a_client_does_not_notice_that_one_of_two_replicas_is_gone(outcome: Report) -> None:
    [killed] = [one for one in outcome.away if one.fault == "kill -9 of an API replica"]
    assert killed.failed <= 3  # requests that were under way; it takes 10 s and more to come back
    assert "restart of PostgreSQL" in ha.table(outcome)


def silent_run(trial: Trial, key: str) -> str:
    """One whose worker took it, started it, and is gone."""
    trial.stack.stop([f"worker-{key}"])
    body = {"parameters": {"number": 0, "seconds": 0}}
    run: str = trial.insist("POST", f"/deployments/{trial.deployments[key]}/create_flow_run", body)["id"]
    state = {"state": {"type": "RUNNING", "name": "Running"}, "force": True}
    trial.insist("POST", f"/flow_runs/{run}/set_state", state)
    return run


def states(trial: Trial, run: str) -> list[str]:
    found = trial.insist("GET", f"/flow_run_states/?flow_run_id={run}")
    return [one["name"] for one in sorted(found, key=lambda state: state["timestamp"])]


@pytest.mark.stack
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("outcome")
def test_a_run_without_a_sign_of_life_crashes_and_is_tried_again_where_its_deployment_asks_for_it(trial: Trial) -> None:
    asks, does_not = silent_run(trial, "ingestion"), silent_run(trial, "maintenance")
    trial.wait_for("the retry", lambda: "AwaitingRetry" in states(trial, asks), 90)
    trial.wait_for("the crash", lambda: "Crashed" in states(trial, does_not), 90)
    assert states(trial, asks)[-2:] == ["Crashed", "AwaitingRetry"]
    assert states(trial, does_not)[-1] == "Crashed"


# -- Without a platform


def test_automations_yaml_is_what_an_environments_file_takes(tmp_path: Path) -> None:
    from deployer.environment import Automation

    declared = yaml.safe_load(ha.AUTOMATIONS.read_text())
    assert [Automation(**one).name for one in declared] == ["crash-silent-runs", "crash-stuck-runs", "retry-crashed"]
    [silent, _, retry] = declared
    assert silent["trigger"]["within"] >= 3 * int(ha.SETTINGS["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
    assert retry["trigger"]["match_related"]["prefect.resource.id"] == f"prefect.tag.{ha.RETRIED}"
    assert str(ha.TRIES - 1) in retry["trigger"]["match"]["prefect.run-count"]
    assert str(ha.TRIES) not in retry["trigger"]["match"]["prefect.run-count"]


def test_a_client_is_away_from_its_first_bad_answer_to_the_next_good_one() -> None:
    good = [Probe(at, True) for at in (1.0, 2.0, 5.5, 9.0)]
    bad = [Probe(at, False) for at in (3.0, 4.0, 8.0)]
    probes = sorted([*good, *bad], key=lambda probe: probe.at)
    found = ha.away(probes, [("first", 2.0), ("second", 7.0)])
    assert [(one.fault, one.seconds, one.failed) for one in found] == [("first", 2.5, 2), ("second", 1.0, 1)]


def run(state: str, count: int = 1, *tags: str) -> dict[str, Any]:
    return {"id": "1", "name": "n", "state_type": state, "state_name": state, "run_count": count, "tags": list(tags)}


@pytest.mark.parametrize(
    ("runs", "told"),
    [
        ([], "0: is not there"),
        ([run("RUNNING")], "0: n is RUNNING"),
        ([run("CRASHED", 1, ha.RETRIED)], "0: n crashed and was not tried again"),
        ([run("CRASHED", 3, ha.RETRIED)], None),
        ([run("CRASHED")], None),
        ([run("COMPLETED")], None),
        ([run("FAILED")], "0: n is FAILED"),
        ([run("FAILED", 1, ha.RETRIED)], "0: n is FAILED"),
        ([run("CANCELLED")], "0: n is CANCELLED"),
    ],
)
def test_a_run_is_lost_that_is_gone_or_failed_or_has_no_end_or_was_not_tried_again(
    runs: list[dict[str, Any]], told: str | None
) -> None:
    trial = Trial(None, 1, 1.0, print, asked={0: ("1", 0.0)})  # type: ignore[arg-type]
    assert ha.lost(trial, runs) == ([told] if told else [])


def test_a_failed_run_is_not_waited_for() -> None:
    trial = Trial(None, 1, 1.0, print, asked={0: ("1", 0.0)})  # type: ignore[arg-type]
    assert ha.under_way(trial, [run("FAILED")]) == []
    assert ha.under_way(trial, [run("RUNNING")]) == ["0: n is RUNNING"]


@pytest.mark.parametrize(
    ("lost", "twice", "told"),
    [
        ((), 0, ["No run was lost, failed or carried out twice."]),
        (("0: n is Failed",), 0, ["1 RUNS WERE LOST OR FAILED:", "0: n is Failed"]),
        ((), 2, ["2 RUNS WERE CARRIED OUT TWICE."]),
    ],
)
def test_a_trial_is_good_if_nothing_is_lost_and_nothing_is_carried_out_twice(
    lost: tuple[str, ...], twice: int, told: list[str]
) -> None:
    report = Report(3, {"Completed": 3}, lost, 0, 0, twice, (), 0.0, 0.0, 0.0, 0.0, {})
    assert report.good == (not lost and not twice)
    assert ha.table(report).splitlines()[-len(told) :] == told


SLEEPER = """
import signal, sys, threading
from pathlib import Path
sys.path.insert(0, {root!r})
from scripts.stack import Guardian, Kept, Part, Stack
folder = Path(sys.argv[1])
stack = Stack(folder, {{}}, 0, {{}}, Guardian(folder, remove=True))
kept = Kept(Part("sleeper", (sys.executable, "-c", "import time; time.sleep(600)"), {{}}), stack)
first = kept.process.pid
kept.process.kill()
with kept._change:
    kept._change.wait_for(lambda: kept.process.pid != first)
print(first, kept.process.pid, flush=True)
threading.Event().wait()
"""


def test_what_is_killed_is_started_again_and_all_ends_with_its_starter_however_that_ends(tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    folder.mkdir()
    command = [sys.executable, "-c", SLEEPER.format(root=str(ROOT)), str(folder)]
    starter = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert starter.stdout
    first, second = map(int, starter.stdout.readline().split())
    assert first != second
    os.kill(second, 0)
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    deadline = time.monotonic() + 30
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)


def test_missing_programs_are_named_with_the_way_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path=None: None if name == "nginx" else f"/usr/bin/{name}")
    with pytest.raises(stack.StackError, match=r"Not on this machine: nginx\. Install them: apt install"):
        stack.find_programs()


def test_a_folder_with_something_in_it_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(stack.StackError, match="is not empty"):
        stack.running(keep=tmp_path).__enter__()
