"""What a commit's own files may read and break: a branch that anybody can push must not see the deploy's variables."""

from __future__ import annotations

import pytest

from deployer.errors import Exit
from tests.deployer import command as line
from tests.deployer.command import Command

command = line.command
loading_command = line.loading_command

EVIL = "environments/dev.yaml"


@pytest.mark.parametrize("name", ["PREFECT_API_AUTH_STRING", "AWS_SECRET_ACCESS_KEY"])
@pytest.mark.parametrize(
    "where", ["deployments: {defaults: {job_variables: {X: '${%s}'}}}", "secrets: {mine: '${%s:-}'}"]
)
def test_a_commit_cannot_read_variables_that_the_checkouts_own_file_does_not(
    command: Command, name: str, where: str
) -> None:
    """A branch that anybody can push would see every variable of the deploy process."""
    own = (command.repo.path / EVIL).read_text()
    command.repo.branch("evil")
    command.repo.commit("Evil", {EVIL: f"{own}\n{where % name}\n"})
    command.repo.switch("main")
    for words in (("plan", "--ref", "evil"), ("apply", "--ref", "evil", "--preview", "pr-1")):
        said = command(words[0], "--env", "dev", *words[1:], **{name: "hunter2hunter2"})
        assert said.code == Exit.INVALID and f"the variable {name} is" in said.err
        assert "hunter2hunter2" not in said.all and "hunter2hunter2" not in str(command.fake.requests)


def test_the_apis_credential_is_for_the_api_alone(command: Command) -> None:
    own = (command.repo.path / EVIL).read_text()
    where = "deployments: {defaults: {job_variables: {X: '${PREFECT_API_AUTH_STRING}'}}}"
    command.repo.commit("Leak", {EVIL: f"{own}\n{where}\n"})
    said = command("plan", "--env", "dev", PREFECT_API_AUTH_STRING="ada:hunter2hunter2")
    assert said.code == Exit.INVALID and "is the API's credential, which nothing else may read" in said.err


def test_a_file_whose_name_has_a_line_break_is_told(command: Command) -> None:
    command.repo.commit("Odd", {"flows/a\nb/deployments.yaml": "[]\n"})
    said = command("plan", "--env", "dev")
    assert said.code == Exit.INVALID and "whose name has a line break" in said.err
