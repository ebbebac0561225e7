"""The platform on this machine, and what `make ha` does to it: shorter here, with fewer faults."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from inspect import isfunction
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from prefect.server.events.actions import ChangeFlowRunState
from prefect.server.events.schemas.automations import EventTrigger, Posture
from prefect.server.events.schemas.events import ReceivedEvent
from prefect.server.schemas import states as server_states
from pydantic import TypeAdapter

from scripts import ha, stack
from scripts.ha import Fault, Probe, Report, Trial
from scripts.stack import Stack, StackError

ROOT = Path(__file__).resolve().parents[2]
RUNS = 12
SILENT_AFTER = 60
"""Seconds. A run of half a second whose API was killed asks it again after 2, 4, 8 and 16 s, and is not silent because of that."""
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
    trial = Trial(platform, RUNS, 0.5, print, command=f"{sys.executable} -m prefect.engine")
    ha.set_up(trial, silent_after=SILENT_AFTER)
    return trial


@pytest.fixture(scope="module")
def ends_of_silent_runs(trial: Trial) -> dict[str, list[str]]:
    """The key of a pool -> the states of its run whose worker took it, started it, and is gone. Taken before any fault: where
    Redis has been restarted, it may take minutes (docs/high-availability.md)."""
    expected = {"ingestion": "AwaitingRetry", "maintenance": "Crashed"}
    trial.stack.stop(f"worker-{key}" for key in expected)
    runs = {key: silent_run(trial, key) for key in expected}
    for key, state in expected.items():
        with suppress(StackError):
            trial.wait_for(state, lambda: state in states(trial, runs[key]), 240)  # noqa: B023
    found = {key: states(trial, run) for key, run in runs.items()}
    for run in runs.values():
        trial.insist("DELETE", f"/flow_runs/{run}")
    stack.start_workers(trial.stack, expected)
    return found


@pytest.fixture(scope="module")
def outcome(trial: Trial, ends_of_silent_runs: object) -> Report:
    return ha.try_it(trial, FEWER, time.monotonic())


@pytest.mark.parametrize(
    "file",
    [
        "scripts/stack.py",
        "infra/compose/docker-compose.yml",
        "infra/helm/values/server.base.yaml",
        "infra/terraform/modules/platform/ecs.tf",
    ],
)
def test_what_an_automation_waits_for_outlives_the_rest_of_the_services(file: str) -> None:
    """After a restart of Redis one loop rests for up to 6.5 minutes, while another throws away what nobody has looked at."""
    [value] = re.findall(
        r"PREFECT_SERVER_EVENTS_EXPIRED_BUCKET_BUFFER\W+(?:value: \W*)?(\w+)", (ROOT / file).read_text()
    )
    assert TypeAdapter(timedelta).validate_python(value) >= timedelta(minutes=10)


@pytest.mark.stack
def test_no_run_is_lost_while_parts_of_the_platform_go_and_come_back(outcome: Report) -> None:
    assert outcome.good, ha.table(outcome)
    assert sum(outcome.states.values()) == RUNS
    assert outcome.states == {"Completed": RUNS}, ha.table(outcome)
    assert {"api-1", "redis", "postgres"} <= outcome.restarts.keys()


@pytest.mark.stack
def test_a_client_does_not_notice_that_one_of_two_replicas_is_gone(outcome: Report) -> None:
    [killed] = [one for one in outcome.away if one.fault == "kill -9 of an API replica"]
    # Requests that were under way; it takes 10 s and more to come back, in which some fifty are made. Where the whole machine
    # stands still for a while, each takes the five seconds that it has.
    assert killed.failed <= 3 + killed.seconds / 5
    assert "restart of PostgreSQL" in ha.table(outcome)


def silent_run(trial: Trial, key: str) -> str:
    body = {"parameters": {"number": 0, "seconds": 0}}
    run: str = trial.insist("POST", f"/deployments/{trial.deployments[key]}/create_flow_run", body)["id"]
    state = {"state": {"type": "RUNNING", "name": "Running"}, "force": True}
    trial.insist("POST", f"/flow_runs/{run}/set_state", state)
    return run


def states(trial: Trial, run: str) -> list[str]:
    found = trial.insist("GET", f"/flow_run_states/?flow_run_id={run}")
    return [one["name"] for one in sorted(found, key=lambda state: state["timestamp"])]


@pytest.mark.stack
def test_a_run_without_a_sign_of_life_crashes_and_is_tried_again_where_its_deployment_asks_for_it(
    ends_of_silent_runs: dict[str, list[str]],
) -> None:
    assert ends_of_silent_runs == {
        "ingestion": ["Scheduled", "Running", "Crashed", "AwaitingRetry"],
        "maintenance": ["Scheduled", "Running", "Crashed"],
    }


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


STATES = {name for name, one in vars(server_states).items() if isfunction(one) and name[0].isupper()}
ENDS = {"Completed", "Failed", "Crashed", "Cancelled"}
HEARTBEAT = "prefect.flow-run.heartbeat"  # flow_engine.py's


def trigger(name: str) -> EventTrigger:
    """As Prefect's services read it."""
    [found] = [one for one in yaml.safe_load(ha.AUTOMATIONS.read_text()) if one["name"] == name]
    assert found.get("enabled", True)
    return EventTrigger.model_validate(found["trigger"])


def event(name: str, tries: int = 1, *tags: str) -> ReceivedEvent:
    """As Prefect's API tells of a run's new state."""
    run = {"prefect.resource.id": f"prefect.flow-run.{uuid4()}", "prefect.run-count": str(tries)}
    related = [{"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"} for tag in tags]
    return ReceivedEvent.model_validate(
        {"id": uuid4(), "occurred": datetime.now(UTC), "event": name, "resource": run, "related": related}
    )


@pytest.mark.parametrize("name", ["crash-silent-runs", "crash-stuck-runs", "retry-crashed"])
def test_every_event_that_a_trigger_names_is_one_that_prefect_sends(name: str) -> None:
    found = trigger(name)
    assert found.after | found.expect <= {HEARTBEAT, *(f"prefect.flow-run.{state}" for state in STATES)}
    assert found.threshold == 1
    assert found.for_each == {"prefect.resource.id"}


def test_a_heartbeat_that_stays_away_crashes_a_run_unless_it_ended_or_waits() -> None:
    silent = trigger("crash-silent-runs")
    assert silent.posture == Posture.Proactive
    for began in ("prefect.flow-run.Running", "prefect.flow-run.Retrying", HEARTBEAT):
        assert silent.covers(event(began)) and silent.starts_after(began)
    for over in ENDS | {"Paused", "Suspended", "AwaitingRetry"}:
        assert silent.expects(f"prefect.flow-run.{over}")
    assert silent.expects(HEARTBEAT) and not silent.expects("prefect.flow-run.Running")


def test_a_run_that_stays_pending_crashes_unless_it_started_ended_or_waits() -> None:
    stuck = trigger("crash-stuck-runs")
    assert stuck.posture == Posture.Proactive
    assert stuck.covers(event("prefect.flow-run.Pending")) and stuck.starts_after("prefect.flow-run.Pending")
    for over in ENDS | {"Running", "Scheduled", "AwaitingConcurrencySlot"}:
        assert stuck.expects(f"prefect.flow-run.{over}")
    assert not stuck.expects("prefect.flow-run.Pending")


def test_a_crash_is_answered_at_once_where_the_tag_asks_for_it_until_the_third_try() -> None:
    retry = trigger("retry-crashed")
    assert retry.immediate and retry.expects("prefect.flow-run.Crashed")
    assert not any(retry.expects(f"prefect.flow-run.{state}") for state in STATES - {"Crashed"})
    crash = "prefect.flow-run.Crashed"
    assert all(retry.covers(event(crash, tries, "daily", ha.RETRIED)) for tries in range(ha.TRIES))
    assert not retry.covers(event(crash, ha.TRIES, ha.RETRIED))
    assert not retry.covers(event(crash, 1, "daily"))


@pytest.mark.parametrize(
    ("name", "state"),
    [("crash-silent-runs", "CRASHED"), ("crash-stuck-runs", "CRASHED"), ("retry-crashed", "SCHEDULED")],
)
def test_what_an_automation_does_is_a_change_of_the_runs_state(name: str, state: str) -> None:
    [found] = [one for one in yaml.safe_load(ha.AUTOMATIONS.read_text()) if one["name"] == name]
    [action] = [ChangeFlowRunState.model_validate(one) for one in found["actions"]]
    assert action.state.value == state and not action.force


def worker_settings() -> dict[str, dict[str, str]]:
    """Where workers are declared -> their environment."""
    compose = yaml.safe_load((ROOT / "infra/compose/docker-compose.yml").read_text())["services"]
    found = {name: one["environment"] for name, one in compose.items() if name.startswith("worker-")}
    for file in (ROOT / "infra/helm/values").glob("platform.*.yaml"):
        found[file.name] = yaml.safe_load(file.read_text())["workers"]["env"]
    declared = (ROOT / "infra/terraform/modules/platform/ecs.tf").read_text()
    [block] = re.findall(r"^  flow_environment = merge\(\{\n(.*?)^  \}", declared, re.MULTILINE | re.DOTALL)
    found["ecs.tf"] = dict(re.findall(r'^ +(\w+) += "(.*?)"', block, re.MULTILINE))
    return found


def test_workers_have_the_settings_that_the_automations_need_wherever_they_are_declared() -> None:
    found = worker_settings()
    assert {"worker-ingestion", "platform.qa.yaml", "platform.prod.yaml", "ecs.tf"} <= found.keys()
    assert {where: {name: env.get(name) for name in ha.SETTINGS} for where, env in found.items()} == dict.fromkeys(
        found, ha.SETTINGS
    )


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
