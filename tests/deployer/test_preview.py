"""A preview is a copy beside the environment: it touches nothing else, and goes without a trace."""

from __future__ import annotations

from typing import Any

import pytest

from deployer.errors import Exit
from tests.deployer import command as line
from tests.deployer.command import API, Command
from tests.deployer.stage import state
from tests.repository import deployments, environment

command = line.command
loading_command = line.loading_command

PREVIEW = ("--env", "dev", "--preview", "pr-1")


@pytest.fixture
def beside(command: Command) -> Command:
    """dev is deployed, with a variable and an automation; a branch wants another parameter and another variable."""
    settings: dict[str, Any] = {"repository": command.repo.url, "api": API}
    command.repo.commit("Settings", {"environments/dev.yaml": environment(variables={"colour": "red"}, **settings)})
    command.apply()
    command.repo.branch("feature")
    command.repo.commit("Blue", {"environments/dev.yaml": environment(variables={"colour": "blue"}, **settings)})
    trigger = {"name": "on-paid", "expect": ["order.paid"]}
    command.change(parameters={"name": "preview"}, triggers=[trigger])
    return command


def test_a_preview_is_a_copy_under_its_prefix_with_paused_schedules(beside: Command) -> None:
    beside.done("apply", *PREVIEW)
    copy = beside.live()["pr-1-hello"]
    assert copy["parameters"] == {"name": "preview"} and "preview:pr-1" in copy["tags"]
    assert [s["active"] for s in copy["schedules"]] == [False]
    assert copy["work_pool_name"] == "dev-alpha"
    with beside.fake.backstage as client:
        assert [a["enabled"] for a in client.post("/automations/filter", json={}).json()] == [False]


def test_a_preview_leaves_everything_else_as_it_was(beside: Command) -> None:
    before = state(beside.fake)
    beside.done("apply", *PREVIEW)
    after = state(beside.fake)
    assert {key: after[key] for key in before} == before
    assert {kind for kind, _ in set(after) - set(before)} == {"deployment", "automation"}


def test_a_destroyed_preview_leaves_no_trace_and_touches_nothing_else(beside: Command) -> None:
    with beside.fake.backstage as client:
        before = state(beside.fake), client.post("/artifacts/latest/filter", json={}).json()
    beside.done("apply", *PREVIEW)
    said = beside.done("destroy", *PREVIEW, "--format", "json")
    assert said.json == {"format": 1, "environment": "dev", "preview": "pr-1", "deleted": ["hello/pr-1-hello"]}
    assert "deleted hello/pr-1-hello" in said.err
    with beside.fake.backstage as client:
        assert (state(beside.fake), client.post("/artifacts/latest/filter", json={}).json()) == before


def test_previews_are_listed_by_name_until_they_are_destroyed(beside: Command) -> None:
    beside.apply("dev", *PREVIEW[2:])
    assert beside.done("previews", "--env", "dev", "--format", "json").json["previews"] == [PREVIEW[-1]]
    beside.done("destroy", *PREVIEW)
    assert beside.done("previews", "--env", "dev").out == "dev has no preview.\n"


def delete_by_hand(beside: Command, name: str) -> None:
    with beside.fake.backstage as client:
        client.delete(f"/deployments/{beside.live()[name]['id']}").raise_for_status()


def test_a_preview_whose_deployments_somebody_deleted_is_still_listed_and_leaves_no_trace(beside: Command) -> None:
    with beside.fake.backstage as client:
        before = client.post("/artifacts/latest/filter", json={}).json()
        beside.done("apply", *PREVIEW)
        delete_by_hand(beside, "pr-1-hello")
        assert beside.done("previews", "--env", "dev", "--format", "json").json["previews"] == ["pr-1"]
        beside.done("destroy", *PREVIEW)
        assert beside.done("previews", "--env", "dev", "--format", "json").json["previews"] == []
        assert client.post("/artifacts/latest/filter", json={}).json() == before


def test_the_ledger_of_a_project_that_is_called_as_a_preview_is_none(beside: Command) -> None:
    """Project `shop`, environment `dev`: a project `shop-dev` writes release-shop-dev-qa."""
    with beside.fake.backstage as client:
        (own,) = (a for a in client.post("/artifacts/latest/filter", json={}).json() if a["key"] == "release-shop-dev")
        record = own["data"].replace('"project": "shop"', '"project": "shop-dev"').replace('"dev"', '"qa"')
        client.post("/artifacts/", json={"key": "release-shop-dev-qa", "type": "markdown", "data": record})
    assert beside.done("previews", "--env", "dev", "--format", "json").json["previews"] == []


@pytest.mark.parametrize("deleted", [0, 1])
def test_a_preview_that_is_gone_half_way_is_still_listed(beside: Command, deleted: int) -> None:
    """Stopped after so many artifacts of its ledger."""
    beside.done("apply", *PREVIEW)
    beside.fake.fail("DELETE", "/artifacts/", before=403, skip=deleted)
    assert beside("destroy", *PREVIEW).code != Exit.DONE
    assert beside.done("previews", "--env", "dev", "--format", "json").json["previews"] == ["pr-1"]
    beside.done("destroy", *PREVIEW)
    assert beside.done("previews", "--env", "dev", "--format", "json").json["previews"] == []


def test_destroying_twice_is_fine(beside: Command) -> None:
    beside.done("apply", *PREVIEW)
    beside.done("destroy", *PREVIEW)
    beside.fake.forget()
    assert "0 deployments deleted" in beside.done("destroy", *PREVIEW).out
    assert beside.fake.writes == []


def test_one_preview_goes_and_the_other_stays(beside: Command) -> None:
    beside.done("apply", *PREVIEW)
    beside.done("apply", "--env", "dev", "--preview", "pr-12")
    beside.done("destroy", *PREVIEW)
    assert set(beside.live()) == {"hello", "pr-12-hello"}
    assert beside.done("plan", "--env", "dev", "--preview", "pr-12", "--format", "json").json["base"]["release"] == 1


def test_the_environment_does_not_see_its_previews(beside: Command) -> None:
    beside.done("apply", *PREVIEW)
    assert [r["number"] for r in beside.releases()] == [1]
    assert beside("drift", "--env", "dev").code == Exit.DONE
    (row,) = beside.done("status", "--env", "dev", "--format", "json").json["environments"]
    assert row["deployments"] == 1
    beside.repo.switch("main")
    assert beside("plan", "--env", "dev", "--detailed-exitcode").code == Exit.DONE


def test_a_second_apply_of_a_preview_writes_nothing(beside: Command) -> None:
    beside.done("apply", *PREVIEW)
    beside.fake.forget()
    beside.done("apply", *PREVIEW)
    assert beside.fake.writes == []


def test_a_preview_follows_its_branch(beside: Command) -> None:
    beside.done("apply", *PREVIEW)
    other = {"name": "other", "entrypoint": "flows/alpha/hello.py:hello", "pool": "alpha"}
    beside.repo.commit("Other", {"flows/alpha/deployments.yaml": deployments(other, parameters={"name": "again"})})
    beside.done("apply", *PREVIEW)
    assert beside.live()["pr-1-hello"]["parameters"] == {"name": "again"}
    assert set(beside.live()) == {"hello", "pr-1-hello", "pr-1-other"}


def test_a_preview_takes_any_branch_where_the_environment_does_not(beside: Command) -> None:
    assert beside("apply", "--env", "dev").code == Exit.REFUSED
    assert beside("apply", *PREVIEW).code == Exit.DONE


@pytest.mark.parametrize("words", [("plan",), ("apply",), ("destroy",), ("run", "hello")], ids=lambda words: words[0])
def test_there_are_no_previews_in_production(command: Command, words: tuple[str, ...]) -> None:
    said = command(*words, "--env", "prod", "--preview", "pr-1")
    assert said.code == Exit.REFUSED and "Previews live in development" in said.err
    assert command.fake.requests == []


@pytest.mark.parametrize("verb", ["plan", "apply"])
def test_a_preview_needs_its_environments_pools(command: Command, verb: str) -> None:
    said = command(verb, *PREVIEW)
    assert said.code == Exit.INVALID and "no work pool dev-alpha" in said.err and "apply --env dev first" in said.err
    assert command.fake.writes == []


def test_a_preview_runs_by_its_catalogue_name(beside: Command) -> None:
    beside.done("apply", *PREVIEW)
    said = beside("run", *PREVIEW, "hello", "--timeout", "0.1", "--format", "json")
    assert said.json["flow_run"]["deployment"] == "hello/pr-1-hello"


def two_of_one_name(command: Command) -> None:
    """The environments dev and dev-eu share an API; dev's preview `eu` would have the second one's ledger."""
    settings: dict[str, Any] = {"repository": command.repo.url, "api": {**API, "shared": True}}
    files = {f"environments/{name}.yaml": environment(name, **settings) for name in ("dev", "dev-eu")}
    command.repo.commit("Share", files)
    command.apply("dev-eu")


@pytest.mark.parametrize("verb", ["plan", "apply", "destroy"])
@pytest.mark.parametrize("known", [True, False], ids=["by its file", "by its releases"])
def test_a_preview_that_would_share_an_environments_ledger_is_refused(command: Command, verb: str, known: bool) -> None:
    two_of_one_name(command)
    if not known:
        command.repo.commit("Leave", {"environments/dev-eu.yaml": None})
    before = state(command.fake), command.fake.backstage.post("/artifacts/filter", json={}).json()
    command.fake.forget()
    said = command(verb, "--env", "dev", "--preview", "eu")
    assert said.code == Exit.REFUSED and "Give the preview another name" in said.err
    assert command.fake.writes == []
    assert (state(command.fake), command.fake.backstage.post("/artifacts/filter", json={}).json()) == before


@pytest.fixture
def late(command: Command) -> Command:
    """dev has a preview `eu`; an environment dev-eu comes after it, and would have the preview's ledger."""
    settings: dict[str, Any] = {"repository": command.repo.url, "api": {**API, "shared": True}}
    command.repo.commit("Share", {"environments/dev.yaml": environment(**settings)})
    command.apply()
    command.done("apply", "--env", "dev", "--preview", "eu")
    command.repo.commit("Come", {"environments/dev-eu.yaml": environment("dev-eu", **settings)})
    return command


@pytest.mark.parametrize("verb", ["plan", "apply", "drift", "history"])
def test_an_environment_whose_ledger_a_preview_has_is_refused(late: Command, verb: str) -> None:
    late.fake.forget()
    said = late(verb, "--env", "dev-eu")
    assert said.code == Exit.REFUSED and "(destroy --env dev --preview eu)" in said.err
    assert late.fake.writes == []


def test_an_environment_comes_when_the_preview_of_its_name_is_gone(late: Command) -> None:
    late.done("destroy", "--env", "dev", "--preview", "eu")
    late.apply("dev-eu")
    assert [r["number"] for r in late.releases("dev-eu")] == [1]
    assert set(late.live()) == {"hello-dev", "hello-dev-eu"}


def test_an_environment_whose_ledger_another_project_has_is_refused(late: Command) -> None:
    """Project `shop`, environment `dev-eu`; and project `shop-dev`, environment `eu`."""
    own = environment("eu", repository=late.repo.url, api={**API, "shared": True}, project="shop-dev")
    late.repo.commit("Name", {"environments/eu.yaml": own})
    said = late("apply", "--env", "eu")
    assert said.code == Exit.REFUSED and "Give one of the two another name" in said.err


def test_the_doctor_says_that_a_preview_has_an_environments_ledger(late: Command) -> None:
    said = late("doctor", "--env", "dev-eu", "--format", "json")
    (found,) = (f for f in said.json["checks"] if f["check"] == "release")
    assert found["state"] == "problem" and "destroy --env dev --preview eu" in found["seen"]
