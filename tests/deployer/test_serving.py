"""`serve`: the local loop, at a development API that was named, and nowhere else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deployer.errors import Exit
from tests.deployer import command as line
from tests.deployer.command import Command, main
from tests.fake_prefect import Recorded
from tests.repository import deployments

command = line.command
loading_command = line.loading_command

ROOT = Path(__file__).parents[2]


def test_serve_needs_an_api_and_starts_none(command: Command) -> None:
    said = main("serve", "--repo", str(command.repo.path))
    assert said.code == Exit.INVALID and "PREFECT_API_URL is not set" in said.err and said.out == ""


def test_an_unknown_name_is_answered_with_a_guess(command: Command) -> None:
    said = command("serve", "helo")
    assert said.code == Exit.INVALID and "Did you mean 'hello'?" in said.err and command.fake.requests == []


def test_a_faulty_catalogue_is_told_and_nothing_served(command: Command) -> None:
    command.repo.write({"flows/alpha/deployments.yaml": deployments(entrypoint="flows/none.py:none")})
    said = command("serve")
    assert said.code == Exit.INVALID and "flows/none.py" in said.err and command.fake.requests == []


def test_an_empty_catalogue_has_nothing_to_serve(command: Command) -> None:
    command.repo.write({"flows/alpha/deployments.yaml": "[]\n"})
    said = command("serve")
    assert said.code == Exit.INVALID and "nothing to serve" in said.err


def test_an_api_that_does_not_answer_is_told(command: Command) -> None:
    said = command("serve", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert said.code == Exit.INVALID and "Is the server up" in said.err


def test_a_production_api_is_refused(command: Command) -> None:
    command.repo.tag("v1.0.0")
    command.apply("prod", "--ref", "v1.0.0")
    command.fake.forget()
    said = command("serve")
    assert said.code == Exit.REFUSED and "holds deployments of prod" in said.err and command.fake.writes == []


def test_a_production_api_is_refused_whatever_the_environment_is_called(command: Command) -> None:
    text = (command.repo.path / "environments/prod.yaml").read_text()
    live = text.replace("name: prod", "name: live", 1)
    command.repo.commit("Rename", {"environments/prod.yaml": None, "environments/live.yaml": live})
    command.repo.tag("v1.0.0")
    command.apply("live", "--ref", "v1.0.0")
    command.fake.forget()
    assert command("serve").code == Exit.REFUSED and command.fake.writes == []


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_serve_offers_the_work_tree_until_it_is_told_to_end(command: Command, end: signal.Signals) -> None:
    """As a process: Prefect's serve() wants the main thread, and the working directory."""
    command.apply()
    before = command.live()["hello"]
    served: list[str] = []
    environment = {**os.environ, **command.variables}
    words = [sys.executable, str(ROOT / "scripts/deploy.py"), "serve", "hello", "--repo", str(command.repo.path)]
    process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def on_request(request: Recorded) -> None:
        if request.path == "/deployments/get_scheduled_flow_runs":
            served.append(request.path)
            process.send_signal(end)

    command.fake.on_request = on_request
    out, err = process.communicate(timeout=60)
    assert served, err
    found = command.live()
    assert set(found) == {"hello", "hello-local"} and "served-locally" in found["hello-local"]["tags"]
    assert found["hello-local"]["schedules"] == [] and "env:dev" not in found["hello-local"]["tags"]
    assert found["hello"]["updated"] == before["updated"]
    assert "Serving hello-local at" in err
    assert process.returncode == 0, out + err
