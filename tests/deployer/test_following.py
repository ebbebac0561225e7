"""`run`: started by its catalogue name, followed by its logs, ended as it ended."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import Any

import pytest

from deployer.errors import Exit
from tests.deployer import command as line
from tests.deployer.command import Command, Said
from tests.fake_prefect import Recorded

command = line.command
loading_command = line.loading_command


@pytest.fixture
def deployed(command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    command.apply()
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    return command


def work(command: Command, *states: str, late: int = -1) -> None:
    """A worker takes the run a state further each time that somebody asks for it, with a line in its log.

    With late=1 each line is older than the one before it, as when two processes send them in batches.
    """
    left = list(states)

    def on_request(request: Recorded) -> None:
        if request.method == "GET" and request.path.startswith("/flow_runs/") and left:
            run = request.path.removeprefix("/flow_runs/")
            kind = left.pop(0)
            with command.fake.backstage as client:
                moved = {"state": {"type": kind, "name": kind.title(), "message": f"It is {kind}."}, "force": True}
                client.post(f"/flow_runs/{run}/set_state", json=moved).raise_for_status()
                told = {"name": "flow", "level": 20, "message": f"now {kind}", "flow_run_id": run}
                told["timestamp"] = f"2026-01-01T12:00:{30 + late * len(left)}Z"
                client.post("/logs/", json=[told]).raise_for_status()

    command.fake.on_request = on_request


def run(command: Command, *words: str) -> Said:
    return command("run", "--env", "dev", "hello", *words)


def given(command: Command) -> Any:
    (body,) = [r.json for r in command.fake.requests if r.path.endswith("/create_flow_run")]
    return body["parameters"]


def test_a_completed_run_exits_0_and_is_the_result(deployed: Command) -> None:
    work(deployed, "PENDING", "RUNNING", "COMPLETED")
    said = run(deployed, "--format", "json")
    assert said.code == Exit.DONE, said.err
    found = said.json["flow_run"]
    assert list(said.json) == ["format", "flow_run"]
    assert list(found) == ["id", "name", "deployment", "state", "state_type", "message", "url"]
    assert (found["deployment"], found["state_type"], found["message"]) == (
        "hello/hello",
        "COMPLETED",
        "It is COMPLETED.",
    )
    assert found["url"] == f"{deployed.variables['PREFECT_API_URL'].removesuffix('/api')}/runs/flow-run/{found['id']}"


def test_logs_and_states_are_progress(deployed: Command) -> None:
    work(deployed, "RUNNING", "COMPLETED")
    said = run(deployed)
    assert said.out.startswith("Run '") and said.out.endswith("of hello/hello: Completed. It is COMPLETED.\n")
    assert re.findall("INFO     now (.*)", said.err) == ["RUNNING", "COMPLETED"]
    assert "-- Running" in said.err and "-- Completed" in said.err


def test_each_line_is_told_once_also_one_that_comes_late(deployed: Command) -> None:
    work(deployed, "PENDING", "RUNNING", "COMPLETED", late=1)
    assert re.findall("now (.*)", run(deployed).err) == ["PENDING", "RUNNING", "COMPLETED"]


def tell(command: Command, later: dict[int, tuple[str, dict[str, Any]]]) -> list[int]:
    """The run completes at once, and its lines come after so many seconds. How often it was asked for, one a second."""
    asked = [0]

    def on_request(request: Recorded) -> None:
        if request.method == "GET" and request.path.startswith("/flow_runs/"):
            run = request.path.removeprefix("/flow_runs/")
            asked[0] += 1
            with command.fake.backstage as client:
                if asked[0] == 1:
                    client.post(f"/flow_runs/{run}/set_state", json={"state": {"type": "COMPLETED"}, "force": True})
                if line := later.get(asked[0]):
                    log = {"name": "flow", "level": 20, "flow_run_id": run, "timestamp": "2026-01-01T12:00:00Z"}
                    client.post("/logs/", json=[{**log, "message": line[0], **line[1]}]).raise_for_status()

    command.fake.on_request = on_request
    return asked


def test_the_last_lines_are_waited_for_while_the_run_may_still_send_them(deployed: Command) -> None:
    asked = tell(deployed, {10: ("at last", {}), 12: ("Finished in state Completed()", {})})
    said = run(deployed)
    assert "at last" in said.err and "Finished in state" in said.err
    assert asked == [13]


def test_a_task_that_finished_is_not_the_end_of_the_run(deployed: Command) -> None:
    task = {"task_run_id": "00000000-0000-0000-0000-000000000001"}
    tell(deployed, {2: ("Finished in state Completed()", task), 6: ("more of the flow", {})})
    assert "more of the flow" in run(deployed).err


def test_a_run_that_never_says_that_it_finished_is_waited_for_a_quarter_of_a_minute(deployed: Command) -> None:
    asked = tell(deployed, {})
    assert run(deployed).code == Exit.DONE
    assert asked == [16]


@pytest.mark.parametrize("ended", ["FAILED", "CRASHED", "CANCELLED"])
def test_a_run_that_ends_otherwise_exits_4(deployed: Command, ended: str) -> None:
    work(deployed, "RUNNING", ended)
    said = run(deployed, "--format", "json")
    assert said.code == Exit.FAILED and said.json["flow_run"]["state_type"] == ended


def test_a_run_that_takes_too_long_goes_on_and_exits_4(deployed: Command) -> None:
    said = run(deployed, "--timeout", "2", "--format", "json")
    assert said.code == Exit.FAILED and said.json["flow_run"]["state_type"] == "SCHEDULED"
    assert "has not ended within 2 s" in said.err and "a worker online for the pool dev-alpha?" in said.err


def test_ctrl_c_leaves_the_run_and_says_where_it_is(deployed: Command) -> None:
    def on_request(request: Recorded) -> None:
        if request.path == "/logs/filter":
            os.kill(os.getpid(), signal.SIGINT)

    deployed.fake.on_request = on_request
    said = run(deployed)
    assert said.code == Exit.INTERRUPTED and said.out == ""
    assert "goes on without us: http://127.0.0.1" in said.err


@pytest.mark.parametrize(
    ("word", "parameters"),
    [
        ("count=3", {"count": 3}),
        ("name=moon", {"name": "moon"}),
        ("name=3", {"name": "3"}),
        ('name={"a": 1}', {"name": '{"a": 1}'}),
        ("name=a=b", {"name": "a=b"}),
        ("name=", {"name": ""}),
        ("count=null", {"count": None}),
    ],
)
def test_a_parameter_is_json_or_text(deployed: Command, word: str, parameters: dict[str, Any]) -> None:
    work(deployed, "COMPLETED")
    run(deployed, "--param", word)
    assert given(deployed) == parameters


def test_several_parameters_go_together(deployed: Command) -> None:
    work(deployed, "COMPLETED")
    run(deployed, "--param", "name=moon", "--param", "count=2")
    assert given(deployed) == {"name": "moon", "count": 2}


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "[1e999]", '"\\ud800"', "[" * 100_000], ids=lambda v: v[:9])
def test_a_parameter_that_no_request_can_hold_is_told(deployed: Command, value: str) -> None:
    deployed.fake.forget()
    said = deployed("run", "--env", "dev", "hello", "--param", f"count={value}")
    assert said.code == Exit.INVALID and "--param count: " in said.err
    assert deployed.fake.writes == []


@pytest.mark.parametrize("word", ["count", "=3", ""])
def test_what_is_no_parameter_starts_nothing(deployed: Command, word: str) -> None:
    deployed.fake.forget()
    said = run(deployed, "--param", word)
    assert said.code == Exit.INVALID and f"--param {word}: expected NAME=VALUE" in said.err
    assert deployed.fake.writes == []


def test_an_unknown_parameter_is_answered_with_a_guess(deployed: Command) -> None:
    deployed.fake.forget()
    said = run(deployed, "--param", "nmae=x")
    assert said.code == Exit.INVALID and deployed.fake.writes == []
    assert "Did you mean 'name'?" in said.err and "It takes: name, count." in said.err


def test_a_parameter_of_the_wrong_type_is_refused_in_words(deployed: Command) -> None:
    said = run(deployed, "--param", "count=many")
    assert said.code == Exit.INVALID and "count" in said.err and "Traceback" not in said.err and said.out == ""


def test_an_unknown_deployment_is_answered_with_a_guess(deployed: Command) -> None:
    said = deployed("run", "--env", "dev", "helo")
    assert said.code == Exit.INVALID and "Did you mean 'hello'?" in said.err and "There are: hello." in said.err


def test_before_the_first_apply_there_is_nothing_to_run(command: Command) -> None:
    said = run(command)
    assert said.code == Exit.INVALID and "apply first" in said.err and command.fake.writes == []


def test_a_lost_answer_starts_no_second_run(deployed: Command) -> None:
    deployed.fake.fail("POST", "create_flow_run", after="drop")
    work(deployed, "COMPLETED")
    assert run(deployed).code == Exit.DONE
    with deployed.fake.backstage as client:
        runs = client.post("/flow_runs/filter", json={}).json()
    assert len([r for r in runs if not r["auto_scheduled"]]) == 1, json.dumps(runs)
