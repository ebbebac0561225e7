"""The verbs, as they are called: what each answers, refuses and writes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployer import loading
from deployer.errors import Exit
from tests.deployer import command as line
from tests.deployer.command import API, Command, main
from tests.fake_prefect import Recorded
from tests.repository import Repo, deployments, environment

command = line.command
loading_command = line.loading_command

PLAN = ["format", "environment", "commit", "ref", "base", "summary", "changes", "digest"]
SUMMARY = ["create", "update", "pause", "delete", "held", "unchanged"]


def of(plan: Any, kind: str = "deployment") -> list[tuple[str, str]]:
    return [(c["action"], c["name"]) for c in plan["changes"] if c["kind"] == kind]


def paths(plan: Any, name: str = "hello/hello") -> list[str]:
    return [f["path"] for c in plan["changes"] if c["name"] == name for f in c["fields"]]


# -- plan


def test_a_first_plan_has_the_keys_of_the_documented_json(command: Command) -> None:
    plan = command.done("plan", "--env", "dev", "--format", "json").json
    assert list(plan) == PLAN and list(plan["summary"]) == SUMMARY
    assert (plan["format"], plan["environment"], plan["ref"], plan["base"]) == (1, "dev", "HEAD", None)
    assert plan["commit"] == command.repo.head and re.fullmatch("[0-9a-f]{64}", plan["digest"])
    assert plan["summary"] == {"create": 2, "update": 0, "pause": 0, "delete": 0, "held": 0, "unchanged": 0}
    assert [(c["kind"], c["name"], c["action"]) for c in plan["changes"]] == [
        ("work_pool", "dev-alpha", "create"),
        ("deployment", "hello/hello", "create"),
    ]
    assert all(list(c) == ["kind", "name", "action", "fields"] for c in plan["changes"])
    assert all(list(f) == ["path", "before", "after", "held"] for c in plan["changes"] for f in c["fields"])


def test_a_later_plan_names_the_release_that_it_starts_from(command: Command) -> None:
    first = command.repo.head
    command.apply()
    command.change(parameters={"name": "moon"})
    plan = command.done("plan", "--env", "dev", "--format", "json").json
    assert plan["base"] == {"release": 1, "commit": first}
    (row,) = [f for c in plan["changes"] for f in c["fields"] if f["path"].startswith("parameters")]
    assert row == {"path": "parameters.name", "before": "world", "after": "moon", "held": False}


def test_a_plan_writes_nothing(command: Command) -> None:
    command.done("plan", "--env", "dev")
    assert command.fake.writes == []


def test_a_plan_for_people_ends_with_the_sentence(command: Command) -> None:
    last = command.done("plan", "--env", "dev").out.splitlines()[-1]
    assert last == "2 to create, 0 to update, 0 to pause, 0 to delete, 0 unchanged."


def test_the_same_plan_has_the_same_digest(command: Command) -> None:
    one, two = (command.done("plan", "--env", "dev", "--format", "json").json["digest"] for _ in range(2))
    command.change(parameters={"name": "moon"})
    assert one == two != command.done("plan", "--env", "dev", "--format", "json").json["digest"]


def test_a_dirty_work_tree_is_told_that_the_commit_counts(command: Command) -> None:
    command.repo.write({"flows/alpha/deployments.yaml": deployments(parameters={"name": "uncommitted"})})
    said = command.done("plan", "--env", "dev")
    assert "commit counts" in said.err and "uncommitted" not in said.out
    command.repo.git("checkout", "--quiet", ".")
    assert "commit counts" not in command.done("plan", "--env", "dev").err


def test_a_value_held_by_an_operator_is_shown_and_is_no_difference(command: Command) -> None:
    command.apply()
    with command.fake.backstage as client:
        client.patch(f"/deployments/{command.live()['hello']['id']}", json={"paused": True})
    said = command("plan", "--env", "dev", "--format", "json", "--detailed-exitcode")
    assert said.code == Exit.DONE and said.json["summary"]["held"] == 1
    assert "set by hand is held" in command.done("plan", "--env", "dev").out
    resumed = command("plan", "--env", "dev", "--resume", "--detailed-exitcode", "--format", "json")
    assert resumed.code == Exit.DIFFERENCES and paths(resumed.json) == ["paused"]


def test_a_plan_of_a_ref_that_is_not_allowed_warns_and_exits_0(command: Command) -> None:
    command.repo.branch("feature")
    command.repo.commit("Not merged")
    said = command.done("plan", "--env", "dev", "--format", "json")
    assert "refused by 'ref'" in said.err and "branch main" in said.err and "feature" in said.err
    assert said.json["summary"]["create"] == 2


def test_an_invalid_commit_writes_nothing_and_names_every_fault(command: Command) -> None:
    command.change(pool="alhpa", schedules=[{"cron": "61 * * * *"}])
    said = command("apply", "--env", "dev")
    assert said.code == Exit.INVALID and command.fake.writes == [] and said.out == ""
    assert "alhpa" in said.err and "61 * * * *" in said.err
    assert len(re.findall(r"^flows/alpha/deployments\.yaml:\d+: ", said.err, re.M)) == 2


# -- apply


def test_apply_adds_outcomes_release_and_seconds_to_the_plan(command: Command) -> None:
    said = command.done("apply", "--env", "dev", "--format", "json")
    assert list(said.json) == [*PLAN, "outcomes", "release", "seconds"]
    assert said.json["release"] == {"number": 1, "commit": command.repo.head, "result": "succeeded"}
    assert [(o["kind"], o["name"], o["action"], o["result"], o["error"]) for o in said.json["outcomes"]] == [
        ("work_pool", "dev-alpha", "create", "done", None),
        ("deployment", "hello/hello", "create", "done", None),
    ]
    assert said.json["seconds"] > 0


def test_a_second_apply_writes_nothing_and_makes_no_release(command: Command) -> None:
    command.apply()
    command.fake.forget()
    said = command.done("apply", "--env", "dev", "--format", "json")
    assert command.fake.writes == []
    assert (said.json["release"], said.json["outcomes"], said.json["changes"]) == (None, [], [])
    assert "nothing was written" in command.apply().out


def test_who_else_lives_on_the_api_is_asked_once_a_deploy(command: Command) -> None:
    command.apply()
    assert [request.path for request in command.fake.requests].count("/artifacts/latest/filter") == 1


def test_progress_is_on_standard_error_a_line_a_change(command: Command) -> None:
    said = command.done("apply", "--env", "dev", "--format", "json")
    assert "done    create work pool dev-alpha" in said.err and "done    create deployment hello/hello" in said.err


def test_people_see_the_plan_and_how_it_ended(command: Command) -> None:
    out = command.apply().out
    assert "+ create deployment hello/hello" in out and out.index("to create") < out.index("Release 1 of dev succeeded")


def test_a_release_says_who_made_it_and_where(command: Command) -> None:
    ours = {"GITHUB_SERVER_URL": "https://git.example.invalid", "GITHUB_REPOSITORY": "team/shop", "GITHUB_RUN_ID": "42"}
    command.done("apply", "--env", "dev", GITHUB_ACTOR="ada", GITHUB_TRIGGERING_ACTOR="bob", **ours)
    (release,) = command.releases()
    assert release["actor"] == "ada (re-run by bob)"
    assert release["run_url"] == "https://git.example.invalid/team/shop/actions/runs/42/attempts/1"


def test_a_commit_that_no_worker_can_clone_is_not_deployed(command: Command, tmp_path: Path) -> None:
    command.repo.git("clone", "--quiet", "--bare", str(command.repo.path), str(tmp_path / "remote.git"))
    remote = (tmp_path / "remote.git").as_uri()
    command.repo.commit("Elsewhere", {"environments/dev.yaml": environment(repository=remote, api=API)})
    said = command("apply", "--env", "dev")
    assert said.code == Exit.INVALID and "Push it first" in said.err and command.fake.writes == []
    command.repo.git("push", "--quiet", str(tmp_path / "remote.git"), "main")
    command.apply()


def test_another_owners_deployment_is_refused_and_adopted_when_asked(command: Command) -> None:
    command.apply()
    with command.fake.backstage as client:
        client.patch(f"/deployments/{command.live()['hello']['id']}", json={"tags": ["project:bakery", "env:dev"]})
    command.fake.forget()
    said = command("apply", "--env", "dev")
    assert said.code == Exit.REFUSED and "--adopt" in said.err and "project:bakery" in said.err
    assert command.fake.writes == []
    command.apply("dev", "--adopt")
    assert "project:shop" in command.live()["hello"]["tags"]


def test_an_empty_catalogue_needs_allow_removals(command: Command) -> None:
    command.apply()
    command.repo.commit("Nothing", {"flows/alpha/deployments.yaml": "[]\n"})
    said = command("apply", "--env", "dev")
    assert said.code == Exit.REFUSED and "--allow-removals" in said.err
    command.apply("dev", "--allow-removals")
    assert command.live()["hello"]["paused"] and "retired" in command.live()["hello"]["tags"]


def test_an_api_of_another_environment_is_refused(command: Command) -> None:
    command.apply()
    command.repo.tag("v1.0.0")
    said = command("apply", "--env", "prod", "--ref", "v1.0.0")
    assert said.code == Exit.REFUSED and "holds releases of dev" in said.err and "api.shared" in said.err
    assert command("status", "--env", "prod").code == Exit.REFUSED


# -- a saved plan


@pytest.fixture
def saved(command: Command, tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    said = command.done("plan", "--env", "dev", "--out", str(path))
    assert f"apply --env dev --plan {path}" in said.err
    command.fake.forget()
    return path


def test_a_saved_plan_is_applied_as_reviewed_also_when_main_has_moved_on(command: Command, saved: Path) -> None:
    reviewed = command.repo.head
    command.change(parameters={"name": "later"})
    said = command.done("apply", "--env", "dev", "--plan", str(saved), "--format", "json")
    assert said.json["digest"] == json.loads(saved.read_text())["digest"]
    assert said.json["release"]["commit"] == reviewed and command.live()["hello"]["parameters"] == {"name": "world"}


def test_a_plan_of_another_environment_is_refused(command: Command, saved: Path) -> None:
    said = command("apply", "--env", "prod", "--plan", str(saved))
    assert said.code == Exit.REFUSED and "a plan for dev, not for prod" in said.err and command.fake.writes == []


def test_a_plan_of_another_commit_is_refused(command: Command, saved: Path) -> None:
    command.change(parameters={"name": "later"})
    said = command("apply", "--env", "dev", "--plan", str(saved), "--ref", "main")
    assert said.code == Exit.REFUSED and "--ref main is another commit" in said.err and command.fake.writes == []


def test_a_plan_is_refused_when_the_live_state_has_moved(command: Command, saved: Path) -> None:
    with command.fake.backstage as client:
        client.post("/work_pools/", json={"name": "dev-alpha", "type": "process"})
    said = command("apply", "--env", "dev", "--plan", str(saved))
    assert said.code == Exit.REFUSED and "no longer what would be written" in said.err and command.fake.writes == []


def test_a_saved_plan_finishes_what_its_own_apply_began(command: Command, tmp_path: Path) -> None:
    """GitHub runs the failed job again with the plan of the first time."""
    path, two = str(tmp_path / "plan.json"), yaml.safe_load(deployments())
    command.repo.commit("Two", {"flows/alpha/deployments.yaml": yaml.safe_dump([*two, {**two[0], "name": "other"}])})
    command.done("plan", "--env", "dev", "--out", path)
    command.fake.fail("POST", "/deployments/$", before=422, skip=1)
    assert command("apply", "--env", "dev", "--plan", path).code == Exit.FAILED
    assert len(command.live()) == 1
    command.apply("dev", "--plan", path)
    assert command.releases()[0]["result"] == "succeeded" and set(command.live()) == {"hello", "other"}


@pytest.mark.parametrize(("env", "code"), [("dev", Exit.DONE), ("prod", Exit.REFUSED)])
def test_replan_takes_a_plan_that_moved_where_nobody_reviews_and_never_in_production(
    command: Command, tmp_path: Path, env: str, code: Exit
) -> None:
    path = str(tmp_path / "plan.json")
    command.repo.tag("v1")
    command.done("plan", "--env", env, "--out", path)
    with command.fake.backstage as client:
        client.post("/variables/", json={"name": "colour", "value": "red"})
        client.post("/work_pools/", json={"name": f"{env}-alpha", "type": "process"})
    said = command("apply", "--env", env, "--plan", path, "--replan")
    assert said.code == code, said.all
    assert ("this is planned anew" in said.err) == (env == "dev") == ("hello" in command.live())


def test_replan_without_a_saved_plan_is_a_usage_error(command: Command) -> None:
    said = command("apply", "--env", "dev", "--replan")
    assert said.code == Exit.INVALID and "--replan goes with --plan FILE" in said.err


def test_a_plan_whose_changes_are_live_already_has_nothing_left_to_do(command: Command, saved: Path) -> None:
    command.apply("dev", "--plan", str(saved))
    command.fake.forget()
    said = command.done("apply", "--env", "dev", "--plan", str(saved))
    assert command.fake.writes == [] and "0 to create, 0 to update" in said.out + said.err


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"adopt": false', '"adopt": true'),
        ('"allow_removals": false', '"allow_removals": true'),
        ('"preview": null', '"preview": "pr-1"'),
        ('"action": "create"', '"action": "delete"'),
        ('"ref": "HEAD"', '"ref": "main"'),
    ],
)
def test_an_altered_plan_is_refused(command: Command, saved: Path, before: str, after: str) -> None:
    text = saved.read_text()
    assert before in text
    saved.write_text(text.replace(before, after, 1))
    said = command("apply", "--env", "dev", "--plan", str(saved))
    assert said.code == Exit.REFUSED and "was altered" in said.err and command.fake.requests == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}', '{"format": 2, "seal": "x"}', "[" * 100_000])
def test_a_file_that_is_no_plan_is_named(command: Command, tmp_path: Path, text: str) -> None:
    (tmp_path / "nonsense.json").write_text(text)
    said = command("apply", "--env", "dev", "--plan", str(tmp_path / "nonsense.json"))
    assert said.code == Exit.INVALID and "nonsense.json is no plan" in said.err


def test_a_plan_that_is_not_there_is_named(command: Command, tmp_path: Path) -> None:
    said = command("apply", "--env", "dev", "--plan", str(tmp_path / "none.json"))
    assert said.code == Exit.INVALID and "none.json cannot be read" in said.err


@pytest.mark.parametrize("flag", ["--adopt", "--resume", "--allow-removals", "--preview=pr-1"])
def test_a_saved_plan_is_refused_with_options_that_it_was_made_without(
    command: Command, saved: Path, flag: str
) -> None:
    said = command("apply", "--env", "dev", "--plan", str(saved), flag)
    assert said.code == Exit.REFUSED and flag.replace("=", " ") in said.err and command.fake.writes == []


def test_a_saved_plan_brings_its_options(command: Command, tmp_path: Path) -> None:
    path = str(tmp_path / "plan.json")
    command.apply()
    command.done("plan", "--env", "dev", "--adopt", "--preview", "pr-1", "--out", path)
    command.apply("dev", "--plan", path, "--adopt")
    assert set(command.live()) == {"hello", "pr-1-hello"}


# -- production


def test_an_older_released_commit_is_a_rollback_in_production(command: Command) -> None:
    first = command.repo.tag("v1.0.0")
    command.apply("prod", "--ref", "v1.0.0")
    command.change(parameters={"name": "moon"})
    command.repo.tag("v1.1.0")
    command.apply("prod", "--ref", "v1.1.0")
    command.apply("prod", "--ref", "v1.0.0")
    newest = command.releases("prod")[0]
    assert (newest["number"], newest["commit"], newest["rollback_of"], newest["restores"]) == (3, first, 2, 1)
    assert command.live()["hello"]["parameters"] == {"name": "world"}


def test_an_older_never_released_commit_has_been_overtaken_in_production(command: Command) -> None:
    command.repo.tag("v1.0.0")
    command.change(parameters={"name": "moon"})
    command.repo.tag("v1.1.0")
    command.apply("prod", "--ref", "v1.1.0")
    command.fake.forget()
    said = command.done("apply", "--env", "prod", "--ref", "v1.0.0", "--format", "json")
    assert command.fake.writes == [] and said.json["release"] is None
    assert "a newer commit has overtaken it" in said.err
    assert command.live()["hello"]["parameters"] == {"name": "moon"}


def test_in_development_an_older_commit_is_deployed_like_any(command: Command) -> None:
    first = command.repo.head
    command.change(parameters={"name": "moon"})
    command.apply()
    command.apply("dev", "--ref", first)
    assert command.releases()[0]["restores"] is None
    assert command.live()["hello"]["parameters"] == {"name": "world"}


def test_forward_leaves_a_newer_commit_alone_in_development_too(command: Command, tmp_path: Path) -> None:
    """Of two merges the older one's pipeline may come last."""
    first, path = command.repo.head, str(tmp_path / "plan.json")
    command.done("plan", "--env", "dev", "--ref", first, "--only-forward", "--out", path)
    command.change(parameters={"name": "moon"})
    command.apply()
    command.fake.forget()
    said = command.done("apply", "--env", "dev", "--plan", path, "--replan")
    assert "a newer commit has overtaken it" in said.all and command.fake.writes == []
    assert command.live()["hello"]["parameters"] == {"name": "moon"}


def test_forward_goes_on_where_the_live_commit_is_unknown_to_this_clone(command: Command) -> None:
    """Somebody rewrote the branch that development deploys: that stops production only."""
    command.apply()
    command.repo.git("commit", "--amend", "--quiet", "--message", "Another first commit")
    command.repo.git("reflog", "expire", "--expire=now", "--all")
    command.repo.git("gc", "--quiet", "--prune=now")
    doubt = "whether this is older than what is live"
    assert doubt not in command.done("plan", "--env", "dev").out
    assert doubt in command.done("plan", "--env", "dev", "--only-forward").out
    assert doubt in command.apply("dev", "--only-forward").out
    assert command.live()["hello"]["version"] == command.repo.head
    command.change(parameters={"name": "moon"})
    assert doubt not in command.done("plan", "--env", "dev", "--only-forward").out


# -- drift


def test_where_the_ledger_is_gone_drift_says_so_instead_of_none(command: Command) -> None:
    command.apply()
    with command.fake.client() as client:
        for artifact in client.post("/artifacts/filter", json={}).json():
            client.delete(f"/artifacts/{artifact['id']}").raise_for_status()
    said = command("drift", "--env", "dev")
    assert said.code == Exit.INVALID and "its ledger is gone" in said.err


def test_drift_at_another_environments_api_is_refused(command: Command) -> None:
    command.apply()
    assert command("drift", "--env", "prod").code == Exit.REFUSED


def test_an_environment_without_a_release_has_not_drifted(command: Command) -> None:
    said = command("drift", "--env", "dev")
    assert said.code == Exit.DONE and "nothing to compare with" in said.err and said.out == ""


def test_drift_is_what_changed_since_the_last_release_and_not_what_was_committed(command: Command) -> None:
    command.apply()
    command.change(parameters={"name": "committed"})
    assert command("drift", "--env", "dev").code == Exit.DONE
    with command.fake.backstage as client:
        client.patch(f"/deployments/{command.live()['hello']['id']}", json={"parameters": {"name": "by hand"}})
    said = command("drift", "--env", "dev", "--format", "json")
    assert said.code == Exit.DIFFERENCES and list(said.json) == PLAN
    assert paths(said.json) == ["parameters.name"] and said.json["base"]["release"] == 1


def test_drift_writes_nothing_and_needs_no_commit(command: Command, tmp_path: Path) -> None:
    command.apply()
    command.fake.forget()
    other = Repo(tmp_path / "other", line.files(command.repo.url))
    assert main("drift", "--env", "dev", "--repo", str(other.path), variables=command.variables).code == Exit.DONE
    assert command.fake.writes == []


# -- rollback


@pytest.fixture
def three(command: Command) -> Command:
    """Releases 1 (v1), 2 and 3 of dev: world, moon, sun."""
    command.repo.tag("v1")
    command.apply()
    for name in ("moon", "sun"):
        command.change(parameters={"name": name})
        command.apply()
    return command


@pytest.mark.parametrize(("to", "restores"), [(None, 2), ("1", 1), ("v1", 1), ("main~1", 2), ("main~2", 1)])
def test_a_rollback_puts_a_release_back(three: Command, to: str | None, restores: int) -> None:
    three.done("rollback", "--env", "dev", "--reason", "It broke", *(["--to", to] if to else []))
    newest = three.releases()[0]
    assert (newest["number"], newest["restores"], newest["rollback_of"]) == (4, restores, 3)
    assert (newest["reason"], newest["result"]) == ("It broke", "succeeded")
    assert three.live()["hello"]["parameters"] == {"name": {1: "world", 2: "moon"}[restores]}


def test_a_rollback_takes_a_commit_whole_or_short(three: Command) -> None:
    first = three.releases()[-1]["commit"]
    three.done("rollback", "--env", "dev", "--reason", "x", "--to", first[:7])
    three.done("rollback", "--env", "dev", "--reason", "x", "--to", three.repo.head)
    assert [r["restores"] for r in three.releases()[:2]] == [3, 1]


def test_a_rollback_answers_as_apply_does(three: Command) -> None:
    said = three.done("rollback", "--env", "dev", "--reason", "x", "--format", "json")
    assert list(said.json) == [*PLAN, "outcomes", "release", "seconds"]
    assert said.json["release"] == {"number": 4, "commit": three.releases()[1 + 1]["commit"], "result": "succeeded"}


def test_a_rollback_needs_neither_the_commit_nor_a_loader(
    three: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployer.loading.open_loader", lambda checkout: pytest.fail("a flow was to be loaded"))
    other = Repo(tmp_path / "other", line.files(three.repo.url))
    said = main(*["rollback", "--env", "dev", "--reason", "x", "--repo"], str(other.path), variables=three.variables)
    assert said.code == Exit.DONE, said.err
    assert three.live()["hello"]["parameters"] == {"name": "moon"}


@pytest.mark.parametrize("to", ["99", "v9", "0" * 40])
def test_a_rollback_to_what_was_never_released_says_so(three: Command, to: str) -> None:
    three.fake.forget()
    said = three("rollback", "--env", "dev", "--reason", "x", "--to", to)
    assert said.code == Exit.INVALID and "never released" in said.err and "history --env dev" in said.err
    assert three.fake.writes == []


def test_a_rollback_can_be_seen_first_and_then_applied_as_it_was_seen(three: Command, tmp_path: Path) -> None:
    path = str(tmp_path / "plan.json")
    three.fake.forget()
    seen = three.done("rollback", "--env", "dev", "--reason", "It  broke", "--to", "v1", "--out", path)
    assert three.fake.writes == [] and "parameters.name" in seen.out and "--plan" in seen.err
    three.apply("dev", "--plan", path)
    newest = three.releases()[0]
    assert (newest["number"], newest["restores"], newest["reason"]) == (4, 1, "It broke")
    assert three.live()["hello"]["parameters"] == {"name": "world"}


def test_a_rollback_that_was_seen_is_refused_when_something_moved_meanwhile(three: Command, tmp_path: Path) -> None:
    path = str(tmp_path / "plan.json")
    three.done("rollback", "--env", "dev", "--reason", "x", "--to", "v1", "--out", path)
    with three.fake.client() as client:
        client.patch(f"/deployments/{three.live()['hello']['id']}", json={"parameters": {"name": "by hand"}})
    said = three("apply", "--env", "dev", "--plan", path)
    assert said.code == Exit.REFUSED and "no longer what would be written" in said.err
    assert three("apply", "--env", "dev", "--plan", path, "--ref", "main").code == Exit.REFUSED


def test_a_released_tag_that_moved_is_refused_and_its_commit_named(three: Command) -> None:
    three.change(parameters={"name": "mars"})
    first = three.repo.tag("v1.0.0")
    three.apply("dev", "--ref", "v1.0.0")
    three.change(parameters={"name": "venus"})
    three.repo.git("tag", "--force", "v1.0.0")
    said = three("apply", "--env", "dev", "--ref", "v1.0.0")
    assert said.code == Exit.REFUSED and f"v1.0.0 was released to dev as {first[:12]}" in said.err
    three.apply("dev", "--ref", "main")  # the same commit by its own name


def test_a_released_tag_that_moved_to_what_was_released_before_is_refused_in_production_too(command: Command) -> None:
    command.repo.tag("v1.0.0")
    command.apply("prod", "--ref", "v1.0.0")
    command.change(parameters={"name": "moon"})
    command.repo.tag("v1.1.0")
    command.apply("prod", "--ref", "v1.1.0")
    command.repo.git("tag", "--force", "v1.1.0", "v1.0.0")
    said = command("apply", "--env", "prod", "--ref", "v1.1.0")
    assert said.code == Exit.REFUSED and "A released tag does not move" in said.err
    command.apply("prod", "--ref", "v1.0.0")


def test_a_branch_of_which_a_tags_name_begins_alike_is_no_tag(three: Command) -> None:
    three.repo.git("tag", "main/backup")
    three.apply("dev", "--ref", "main")
    three.change(parameters={"name": "mars"})
    three.apply("dev", "--ref", "main")


def test_what_is_not_merged_can_be_planned_and_not_saved(command: Command, tmp_path: Path) -> None:
    command.apply()
    command.repo.branch("feature")
    command.change(parameters={"name": "moon"})
    said = command.done("plan", "--env", "dev", "--unmerged", "--format", "markdown")
    assert "Refused" not in said.out and "moon" in said.out
    path = tmp_path / "plan.json"
    assert command("plan", "--env", "dev", "--unmerged", "--out", str(path)).code == Exit.INVALID
    assert command("plan", "--env", "dev", "--out", str(path)).code == Exit.REFUSED
    assert not path.exists()


def test_a_commit_that_github_gives_by_its_sha_is_known_by_its_tag(command: Command) -> None:
    sha = command.repo.tag("v1.0.0")
    command.variables |= {"GITHUB_ACTIONS": "true", "GITHUB_SHA": sha, "GITHUB_REF": "refs/tags/v1.0.0"}
    command.apply("prod", "--ref", sha)
    assert command.releases("prod")[0]["ref"] == "refs/tags/v1.0.0"


def test_a_rollback_needs_a_reason(three: Command) -> None:
    said = three("rollback", "--env", "dev", "--reason", "  ")
    assert said.code == Exit.INVALID and "--reason" in said.err


def test_after_a_failed_deploy_a_rollback_goes_to_what_was_live_before_it(command: Command) -> None:
    command.apply()
    command.change(parameters={"name": "moon"})
    command.fake.fail("PATCH", "/deployments/", after=422)
    assert command("apply", "--env", "dev").code == Exit.FAILED
    assert command.live()["hello"]["parameters"] == {"name": "moon"}
    command.done("rollback", "--env", "dev", "--reason", "half done")
    newest = command.releases()[0]
    assert (newest["number"], newest["rollback_of"], newest["restores"]) == (3, 2, 1)
    assert command.live()["hello"]["parameters"] == {"name": "world"}


def test_the_first_release_has_nothing_before_it(command: Command) -> None:
    said = command("rollback", "--env", "dev", "--reason", "x")
    assert said.code == Exit.INVALID and "no successful release before" in said.err
    command.apply()
    assert command("rollback", "--env", "dev", "--reason", "x").code == Exit.INVALID


def test_a_failed_release_is_no_goal(command: Command) -> None:
    command.apply()
    command.change(parameters={"name": "moon"})
    command.fake.fail("PATCH", "/deployments/", before=422)
    assert command("apply", "--env", "dev").code == Exit.FAILED
    said = command("rollback", "--env", "dev", "--reason", "x", "--to", "2")
    assert said.code == Exit.INVALID and "release 2 ended as failed" in said.err
    command.done("rollback", "--env", "dev", "--reason", "x")
    assert command.releases()[0]["restores"] == 1


# -- status, history, target, schema


def test_status_of_one_environment_says_what_is_there(command: Command) -> None:
    command.apply()
    (row,) = command.done("status", "--env", "dev", "--format", "json").json["environments"]
    assert row["release"]["commit"] == command.repo.head and row["release"]["result"] == "succeeded"
    assert (row["deployments"], row["paused"], row["retired"], row["error"]) == (1, 0, 0, None)
    assert row["api"] == command.variables["PREFECT_API_URL"]


def test_status_counts_what_is_paused_and_what_is_retired(command: Command) -> None:
    other = {"name": "other", "entrypoint": "flows/alpha/hello.py:hello", "pool": "alpha"}
    command.repo.commit("Two", {"flows/alpha/deployments.yaml": deployments(other, paused=True)})
    command.apply()
    command.repo.commit("One", {"flows/alpha/deployments.yaml": deployments(paused=True)})
    command.apply()
    (row,) = command.done("status", "--env", "dev", "--format", "json").json["environments"]
    assert (row["deployments"], row["paused"], row["retired"]) == (1, 1, 1)


def test_status_of_all_says_which_cannot_be_reached_and_goes_on(command: Command) -> None:
    command.repo.commit("Elsewhere", {"environments/qa.yaml": environment("qa", api={"url": "${QA_URL}"})})
    command.apply()
    said = command.done("status", "--format", "json")
    rows = {row["environment"]: row for row in said.json["environments"]}
    assert list(rows) == ["dev", "prod", "qa"] and rows["dev"]["error"] is None
    assert "QA_URL" in rows["qa"]["error"] and "qa: " in said.err
    assert "holds releases of dev" in rows["prod"]["error"]


def test_status_fails_when_no_environment_answers(command: Command) -> None:
    assert command("status", PREFECT_API_URL="http://127.0.0.1:9/api").code == Exit.INVALID


def test_history_is_the_newest_first_and_as_long_as_asked_for(three: Command) -> None:
    releases = three.releases()
    assert [r["number"] for r in releases] == [3, 2, 1]
    assert all(r["result"] == "succeeded" and datetime.fromisoformat(r["started"]).tzinfo for r in releases)
    said = three.done("history", "--env", "dev", "--limit", "2", "--format", "json")
    assert [r["number"] for r in said.json["releases"]] == [3, 2]
    assert [row.split()[0] for row in three.done("history", "--env", "dev").out.splitlines()] == [
        "number",
        "3",
        "2",
        "1",
    ]


def test_history_of_nothing_says_so(command: Command) -> None:
    assert command.done("history", "--env", "dev").out == "dev: no release is recorded yet.\n"


@pytest.mark.parametrize(
    ("ref", "environments"),
    [("refs/heads/main", ["dev"]), ("refs/tags/v1.2.0", ["prod"]), ("refs/heads/other", []), ("refs/tags/main", [])],
)
def test_a_full_ref_has_its_environments(command: Command, ref: str, environments: list[str]) -> None:
    said = main("target", "--ref", ref, "--format", "json", "--repo", str(command.repo.path))
    assert said.json == {"format": 1, "ref": ref, "environments": environments, "images": {}}
    text = main("target", "--ref", ref, "--repo", str(command.repo.path)).out
    assert text == ("\n".join(environments) or f"{ref} deploys nowhere.") + "\n"


def test_a_short_ref_is_not_guessed_at(command: Command) -> None:
    said = command("target", "--ref", "v1.2.0")
    assert said.code == Exit.INVALID and "refs/tags/v1.2.0 for a tag" in said.err and said.out == ""


def test_schema_prints_what_is_committed(command: Command) -> None:
    folder = Path(line.__file__).parents[2] / "deployer" / "schemas"
    both = command.done("schema").json
    for kind in ("environment", "deployments"):
        assert command.done("schema", kind).out == (folder / f"{kind}.schema.json").read_text()
        assert command.done("schema", kind).json == both[kind]


# -- validate


def test_validate_starts_one_loader_for_all_environments(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    loaders: list[line.Hello] = []

    @contextmanager
    def open_loader(checkout: Path) -> Iterator[line.Hello]:
        loaders.append(line.Hello())
        yield loaders[-1]

    monkeypatch.setattr(loading, "open_loader", open_loader)
    assert "2 environments" in command.done("validate").out and len(loaders) == 1


def test_validate_tells_every_fault_of_every_file_at_once(command: Command) -> None:
    command.repo.write(
        {
            "environments/dev.yaml": environment(work_pols={}),
            "environments/prod.yaml": environment("prod", mode="prodution"),
            "flows/alpha/deployments.yaml": deployments(schedules=[{"cron": "nonsense"}], entrypoint="flows/none.py:f"),
        }
    )
    said = command("validate", "--static", "--format", "json")
    assert said.code == Exit.INVALID and not said.json["valid"]
    files = {p["file"] for p in said.json["problems"]}
    assert files == {"environments/dev.yaml", "environments/prod.yaml", "flows/alpha/deployments.yaml"}
    assert all(p["line"] for p in said.json["problems"])
    assert len(said.err.splitlines()) == len(said.json["problems"])
    assert "Did you mean 'work_pools'?" in said.err and "production" in said.err


def test_static_validation_needs_no_variables_and_validation_does(command: Command) -> None:
    path = str(command.repo.path)
    assert main("validate", "--static", "--repo", path).out == "2 environments and 1 deployment are valid: dev, prod.\n"
    said = main("validate", "--repo", path)
    assert said.code == Exit.INVALID and "PREFECT_API_URL" in said.err and "environments/prod.yaml" in said.err


def test_validate_looks_at_the_work_tree_or_at_a_commit(command: Command) -> None:
    command.repo.write({"flows/alpha/deployments.yaml": deployments(pool="nope")})
    assert command("validate", "--static").code == Exit.INVALID
    assert command("validate", "--static", "--ref", "HEAD").code == Exit.DONE
    command.repo.commit("Faulty")
    command.repo.write({"flows/alpha/deployments.yaml": deployments()})
    assert command("validate", "--static", "--ref", "HEAD").code == Exit.INVALID
    assert command("validate", "--static").code == Exit.DONE


def test_validate_of_one_environment_leaves_the_others_alone(command: Command) -> None:
    command.repo.write({"environments/prod.yaml": "name: [\n"})
    assert command("validate", "--static", "--env", "dev").code == Exit.DONE
    assert command("validate", "--static").code == Exit.INVALID


def test_validate_reports_nothing_to_validate(command: Command) -> None:
    command.repo.write({"environments/dev.yaml": None, "environments/prod.yaml": None})
    said = command("validate", "--static")
    assert said.code == Exit.INVALID and "no environments/*.yaml here" in said.err


def test_validate_imports_the_flows(loading_command: Command) -> None:
    broken = {"name": "broken", "entrypoint": "flows/alpha/broken.py:broken", "pool": "alpha"}
    loading_command.repo.write(
        {
            "flows/alpha/broken.py": "from prefect import flow\nimport nonsuch\n\n\n@flow\ndef broken():\n    pass\n",
            "flows/alpha/deployments.yaml": deployments(broken, parameters={"nmae": "typo"}),
        }
    )
    said = loading_command("validate", "--env", "dev", "--format", "json")
    assert said.code == Exit.INVALID and loading_command.fake.requests == []
    assert "nmae" in said.err and "nonsuch" in said.err and len(said.json["problems"]) == 2
    assert loading_command("validate", "--env", "dev", "--ref", "HEAD").code == Exit.DONE


# -- through the real loader


def test_validate_tells_what_one_environment_alone_gets_wrong(loading_command: Command) -> None:
    repo = loading_command.repo
    over = {"overrides": {"hello": {"parameters": {"count": "many"}}}}
    prod = environment("prod", mode="production", repository=repo.url, api=API, deployments=over)
    repo.write({"environments/prod.yaml": prod})
    said = loading_command("validate", "--format", "json").json
    assert [(p["file"], p["path"]) for p in said["problems"]] == [
        ("environments/prod.yaml", "deployments.overrides.hello.parameters.count")
    ]


def test_a_commit_is_deployed_by_prefects_own_deploy(loading_command: Command) -> None:
    command = loading_command
    command.apply()
    (step,) = command.live()["hello"]["pull_steps"]
    (clone,) = step.values()
    assert clone["commit_sha"] == command.repo.head and clone["repository"] == command.repo.url
    assert [s["slug"] for s in command.live()["hello"]["schedules"]] == ["evening"]
    assert command("plan", "--env", "dev", "--detailed-exitcode").code == Exit.DONE


# -- secrets

WAREHOUSE, PASSWORD = "postgresql://shop:t0psecret@db/x", "deployer:s3same"


def test_secrets_and_credentials_are_in_no_output_and_no_artifact(command: Command, tmp_path: Path) -> None:
    command.fake.auth = PASSWORD
    own = line.files(command.repo.url, secrets={"warehouse-url": "${WAREHOUSE_URL:-}"})
    command.repo.commit("Secrets", own)
    sent: list[Recorded] = []
    command.fake.on_request = sent.append
    variables = {
        "WAREHOUSE_URL": WAREHOUSE,
        "PREFECT_API_AUTH_STRING": PASSWORD,
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
    }
    said = ""
    for words in (
        *(["plan", "--format", form, "--out", str(tmp_path / "plan.json")] for form in ("text", "json", "markdown")),
        ["apply", "--format", "json"],
        ["drift"],
        ["status"],
        ["history"],
        ["rollback", "--reason", "x"],
    ):
        said += command(*words, "--env", "dev", **variables).all
    rotated = command("plan", "--env", "dev", **{**variables, "WAREHOUSE_URL": "n3w"}).all
    assert "value differs" in rotated
    masks = re.compile(r"^::add-mask::.*$", flags=re.M)  # what GitHub takes out of the log, and needs to know for that
    said, rotated = masks.sub("", said), masks.sub("", rotated)
    files = "".join(f.read_text() for f in tmp_path.iterdir() if f.is_file())
    elsewhere = json.dumps([r.json for r in sent if "block_documents" not in r.path])
    said, rotated = (re.sub("(?m)^::add-mask::.*$", "", text) for text in (said, rotated))  # GitHub shows none of these
    for secret in (WAREHOUSE, "t0psecret", PASSWORD, "s3same", "n3w"):
        assert secret not in said + rotated + files + elsewhere
    assert any(WAREHOUSE in json.dumps(r.json) for r in sent)
