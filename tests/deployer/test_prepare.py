"""From a ref to a plan: whose rules count, what needs no loading, and what stops a deploy before its first write."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from deployer import prepare, project, revision
from deployer.apply import Result, apply
from deployer.errors import DeployError, Exit, InvalidInput, Refused
from deployer.model import Plan
from deployer.plan import Options
from deployer.prefect_api import Client, pools
from deployer.prepare import Prepared
from deployer.project import Tree
from deployer.revision import Repository
from tests.deployer import stage
from tests.deployer.stage import AT_ONCE, AUTHOR, URL, Stage, Wire, config, deployment, state
from tests.fake_prefect import FakePrefect
from tests.repository import Repo, default_files, deployments, environment

loads = stage.stand_in
TOKEN = "value-of-the-token"


@dataclass
class Desk:
    """A repository and a fake API. `loads`: the checkouts for which flows would have been imported."""

    repo: Repo
    fake: FakePrefect
    loads: list[Path]
    variables: dict[str, str] = field(default_factory=lambda: {"PREFECT_API_URL": URL})

    @contextmanager
    def prepared(
        self, ref: str = "HEAD", env: str = "dev", preview: str | None = None, **options: Any
    ) -> Iterator[Any]:
        own = project.load_environment(Tree.working(self.repo.path), env, self.variables)
        client = Client(own.api, Wire(self.fake), AT_ONCE, sleep=lambda seconds: None)
        repository = Repository(self.repo.path)
        with (
            prepare.open_site(own, preview, client) as site,
            prepare.prepare(site, repository, repository.resolve(ref), self.variables, Options(**options)) as found,
        ):
            yield found

    def plan(self, *words: Any, **options: Any) -> Plan:
        with self.prepared(*words, **options) as found:
            planned: Plan = found.plan
            return planned

    def apply(self, *words: Any, **options: Any) -> Result:
        with self.prepared(*words, **options) as found:
            assert found.plan.refusals == ()
            result = apply(found, AUTHOR)
        assert result.error is None
        return result

    def environment(self, name: str = "dev", **more: Any) -> str:
        """Commit a changed environment file."""
        return self.repo.commit("Environment", {f"environments/{name}.yaml": environment(name, **more)})

    def catalogue(self, *others: Mapping[str, Any], **changes: Any) -> str:
        return self.repo.commit("Catalogue", {"flows/alpha/deployments.yaml": deployments(*others, **changes)})

    def fails(self, kind: type[DeployError], *words: Any, **options: Any) -> str:
        """Planning says no in one sentence, and wrote nothing."""
        self.fake.forget()
        with pytest.raises(kind) as failure:
            self.plan(*words, **options)
        assert self.fake.writes == []
        return str(failure.value)


@pytest.fixture
def desk(tmp_path: Path, fake: FakePrefect, loads: list[Path]) -> Desk:
    prod = environment("prod", mode="production", branches=("hotfix/**",), tags=("v*",))
    return Desk(Repo(tmp_path / "repo", {**default_files(), "environments/prod.yaml": prod}), fake, loads)


def live(fake: FakePrefect) -> dict[str, Any]:
    found: dict[str, Any] = state(fake)["deployment", "hello/hello"]
    return found


# -- what needs no loading


def test_a_commit_that_was_released_is_planned_from_its_record(desk: Desk) -> None:
    desk.apply()
    second = desk.catalogue(parameters={"name": "moon"})
    desk.apply()
    assert len(desk.loads) == 2
    desk.apply("HEAD~1")
    desk.apply(second)
    assert len(desk.loads) == 2
    assert live(desk.fake)["parameters"] == {"name": "moon"} and live(desk.fake)["version"] == second


def test_so_is_one_whose_release_failed(desk: Desk) -> None:
    desk.fake.fail("POST", "/work_pools/$", before=422)
    with desk.prepared() as found:
        assert apply(found, AUTHOR).error
    assert desk.apply().release and len(desk.loads) == 1


def test_with_other_variables_a_commit_is_loaded_again(desk: Desk) -> None:
    desk.environment(deployments={"defaults": {"parameters": {"name": "${WHO}"}}})
    desk.variables["WHO"] = "ada"
    desk.catalogue(parameters={})
    desk.apply()
    desk.variables["WHO"] = "bob"
    assert len(desk.loads) == 1 and desk.apply() and len(desk.loads) == 2
    assert live(desk.fake)["parameters"] == {"name": "bob"}


def test_a_secrets_value_is_not_part_of_what_was_recorded(desk: Desk) -> None:
    desk.environment(secrets={"token": "${TOKEN:-}"})
    for value in (TOKEN, "another-value", ""):
        desk.variables["TOKEN"] = value
        desk.plan() if value == "" else desk.apply()
    assert len(desk.loads) == 1
    assert state(desk.fake)["secret", "token"] == "another-value"


def test_a_recorded_commit_goes_where_todays_files_say(desk: Desk) -> None:
    """Where and how strictly is the checkout's business, so the record still fits under another policy."""
    first = desk.repo.head
    desk.apply()
    desk.environment(policy={"prune": "delete"}, branches=["main", "more"])
    with desk.prepared(first) as found:
        assert found.loader is None and found.site.environment.policy.prune == "delete"


def test_a_recorded_commit_whose_files_are_no_longer_valid_is_still_planned(desk: Desk) -> None:
    desk.environment(variables={"who": "${WHO}"})
    desk.variables["WHO"] = "ada"
    released = desk.repo.head
    desk.apply()
    desk.environment()
    del desk.variables["WHO"]
    with desk.prepared(released) as found:
        assert found.plan.writes == () and found.loader is None


# -- whose rules


def test_a_commit_cannot_loosen_its_own_guards(desk: Desk) -> None:
    """It brings the whole catalogue down, and a policy and refs that would let it."""
    desk.catalogue()
    desk.apply()
    desk.repo.branch("feature")
    desk.environment(branches=["**"], policy={"prune": "delete", "max_removals": "100%"})
    bold = desk.repo.commit("Bold", {"flows/alpha/deployments.yaml": "[]\n"})
    desk.repo.switch("main")
    found = desk.plan(bold)
    assert {r.guard for r in found.refusals} == {"ref", "empty-catalogue"}
    assert [c.action for c in found.writes] == ["pause"]


def test_a_commit_cannot_send_us_to_another_api(desk: Desk) -> None:
    desk.repo.branch("feature")
    desk.environment(api={"url": "http://evil.example.invalid/api", "key": "${PREFECT_API_KEY:-}"})
    elsewhere = desk.repo.head
    desk.repo.switch("main")
    with desk.prepared(elsewhere) as found:
        assert found.site.client.url == URL


def test_everything_else_is_the_commits_and_never_the_work_trees(desk: Desk) -> None:
    desk.repo.write({"flows/alpha/deployments.yaml": deployments(parameters={"name": "uncommitted"})})
    desk.apply()
    assert live(desk.fake)["parameters"] == {"name": "world"}


# -- refs


@pytest.mark.parametrize(
    ("env", "mark", "allowed"),
    [
        ("dev", None, True),
        ("prod", None, False),
        ("prod", "v1.0.0", True),
        ("prod", "w1.0.0", False),
    ],
)
def test_a_commit_goes_only_where_its_refs_let_it(desk: Desk, env: str, mark: str | None, allowed: bool) -> None:
    if mark:
        desk.repo.tag(mark)
    assert [r.guard for r in desk.plan("HEAD", env).refusals] == ([] if allowed else ["ref"])


def test_a_refused_ref_is_told_with_what_is_allowed_and_where_the_commit_is(desk: Desk) -> None:
    desk.repo.tag("w1", annotated=True)
    (refusal,) = desk.plan("HEAD", "prod").refusals
    assert "may not be deployed to prod, which takes branch hotfix/**, tag v*" in refusal.message
    assert refusal.message.endswith("the commit is on main, w1.")


def test_a_tag_that_points_elsewhere_does_not_let_a_commit_in(desk: Desk) -> None:
    desk.repo.tag("v1.0.0")
    desk.repo.commit("After the tag")
    assert [r.guard for r in desk.plan("HEAD", "prod").refusals] == ["ref"]


# -- production


@pytest.fixture
def prod(desk: Desk) -> Desk:
    """v1 and v3 were released to prod, v2 between them was not."""
    for version in ("v1", "v2", "v3"):
        desk.catalogue(parameters={"name": version})
        desk.repo.tag(version)
    desk.apply("v1", "prod")
    desk.apply("v3", "prod")
    return desk


def newest(desk: Desk) -> Any:
    with desk.prepared("v3", "prod") as found:
        return found.site.ledger.newest()


def test_an_older_released_commit_again_is_a_rollback_and_recorded_so(prod: Desk) -> None:
    loaded = len(prod.loads)
    prod.apply("v1", "prod")
    assert (newest(prod).rollback_of, newest(prod).restores) == (2, 1)
    assert live(prod.fake)["parameters"] == {"name": "v1"} and len(prod.loads) == loaded


def test_an_older_commit_that_was_never_released_is_overtaken_and_neither_loaded_nor_written(prod: Desk) -> None:
    loaded = len(prod.loads)
    prod.fake.forget()
    with prod.prepared("v2", "prod") as found:
        assert "a newer commit has overtaken it" in found.overtaken and found.plan.notices == (found.overtaken,)
        result = apply(found, AUTHOR)
    assert (result.release, result.outcomes, result.error) == (None, (), None)
    assert prod.fake.writes == [] and len(prod.loads) == loaded


def test_an_overtaken_commit_does_not_settle_somebody_elses_unfinished_release(prod: Desk) -> None:
    prod.fake.fail("PATCH", "/deployments/", before=422, times=9)
    prod.catalogue(parameters={"name": "v4"})
    prod.repo.tag("v4")
    with prod.prepared("v4", "prod") as found:
        assert apply(found, AUTHOR).error
    prod.fake.forget()
    with prod.prepared("v2", "prod") as found:
        assert apply(found, AUTHOR).release is None
    assert prod.fake.writes == []


def test_going_forward_again_after_a_rollback_is_no_rollback(prod: Desk) -> None:
    prod.apply("v1", "prod")
    prod.apply("v3", "prod")
    assert newest(prod).restores is None
    assert live(prod.fake)["parameters"] == {"name": "v3"}


def test_a_hotfix_beside_what_is_live_is_deployed(prod: Desk) -> None:
    prod.repo.branch("hotfix/1", at="v1")
    prod.catalogue(parameters={"name": "fixed"})
    prod.apply("hotfix/1", "prod")
    assert newest(prod).restores is None and live(prod.fake)["parameters"] == {"name": "fixed"}


def test_a_clone_that_does_not_know_the_live_commit_is_told_to_fetch_it(prod: Desk, tmp_path: Path) -> None:
    """Else a stale clone could take production back without noticing."""
    files = {**default_files(), "environments/prod.yaml": environment("prod", mode="production", tags=("v*",))}
    other = Desk(Repo(tmp_path / "rewritten", files), prod.fake, prod.loads)
    other.repo.tag("v9")
    said = other.fails(InvalidInput, "v9", "prod")
    assert "cannot be told from this clone. Fetch the whole history" in said
    other.repo.git("fetch", "--quiet", prod.repo.url, "v3")
    other.apply("v9", "prod")
    assert live(prod.fake)["version"] == other.repo.head


def test_development_takes_older_commits_as_they_come(desk: Desk) -> None:
    first = desk.repo.head
    desk.catalogue(parameters={"name": "moon"})
    desk.apply()
    with desk.prepared(first) as found:
        assert found.restores is None and found.overtaken is None and found.plan.writes


# -- who lives on this API


def test_an_api_of_another_environment_is_refused_and_nothing_is_written(desk: Desk) -> None:
    desk.apply()
    desk.repo.tag("v1")
    said = desk.fails(Refused, "v1", "prod")
    assert f"The API {URL} holds releases of dev; this is prod. Check api.url" in said


def test_a_shared_api_holds_both_under_names_of_their_own(desk: Desk) -> None:
    shared: dict[str, Any] = {"api": {"url": "${PREFECT_API_URL}", "shared": True}}
    desk.environment(variables={"colour": "blue"}, **shared)
    desk.environment("prod", mode="production", tags=("v*",), variables={"colour": "red"}, **shared)
    desk.repo.tag("v1")
    desk.apply()
    desk.apply("v1", "prod")
    there = state(desk.fake)
    assert {name for kind, name in there if kind == "deployment"} == {"hello/hello-dev", "hello/hello-prod"}
    assert {name for kind, name in there if kind == "variable"} == {"colour-dev", "colour-prod"}
    assert desk.plan().writes == () and desk.plan("v1", "prod").writes == ()


def test_both_have_to_say_that_they_share_it(desk: Desk) -> None:
    desk.environment("prod", mode="production", tags=("v*",), api={"url": "${PREFECT_API_URL}", "shared": True})
    desk.repo.tag("v1")
    desk.apply("v1", "prod")
    assert "holds releases of prod; this is dev" in desk.fails(Refused)


def test_what_another_projects_ledger_lists_is_not_ours_to_write(desk: Desk) -> None:
    pool = {"alpha": {"name": "dev-alpha", "type": "process"}}
    Stage(desk.fake).apply(config(deployment("oven"), project="bakery", work_pools=pool))
    (refusal,) = desk.plan().refusals
    assert refusal.guard == "ownership"
    assert "lists work pool dev-alpha (bakery-dev). Give ours other names." in refusal.message


# -- before the first write


def test_a_secret_in_what_everybody_may_read_stops_it(desk: Desk) -> None:
    desk.variables["TOKEN"] = TOKEN
    desk.environment(secrets={"token": "${TOKEN:-}"}, variables={"dsn": "db://${TOKEN}@host"})
    said = desk.fails(InvalidInput)
    assert "variable dsn holds the value of the secret 'token'" in said and TOKEN not in said


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"wokring_dir": "/srv"}, "the pool dev-alpha has no job variable 'wokring_dir'. Did you mean 'working_dir'?"),
        ({"stream_output": "perhaps"}, "job variable stream_output: 'perhaps' is not of type 'boolean'"),
    ],
)
def test_job_variables_that_do_not_fit_the_pool_stop_it(desk: Desk, given: dict[str, Any], fault: str) -> None:
    desk.catalogue(job_variables=given)
    said = desk.fails(InvalidInput)
    assert fault in said and said.endswith("Nothing was touched.")


def test_a_job_variable_that_is_filled_in_at_the_run_is_not_judged(desk: Desk) -> None:
    desk.catalogue(job_variables={"stream_output": "{{ prefect.variables.loud }}"})
    assert desk.plan().writes


TEMPLATE = {
    "job_configuration": {"command": "{{ command }}"},
    "variables": {"type": "object", "properties": {"command": {"type": "string"}}},
}


def test_job_variables_are_held_against_the_template_that_the_pool_will_have(desk: Desk) -> None:
    pool = {"name": "dev-alpha", "type": "process", "base_job_template": "infra/work-pools/process.json"}
    desk.repo.write({"infra/work-pools/process.json": json.dumps(TEMPLATE)})
    desk.environment(work_pools={"alpha": pool})
    desk.catalogue(job_variables={"working_dir": "/srv"})
    assert "1 problem found" in desk.fails(InvalidInput) and desk.loads == []
    desk.catalogue(job_variables={"command": "x"})
    desk.apply()
    assert state(desk.fake)["work_pool", "dev-alpha"]["base_job_template"] == TEMPLATE


def test_a_pool_whose_template_is_no_longer_declared_gets_its_types_own_back(desk: Desk) -> None:
    with Stage(FakePrefect()).site() as site:
        own = pools.default_template(site.client, "process")
    pool = {"name": "dev-alpha", "type": "process"}
    desk.repo.write({"infra/work-pools/process.json": json.dumps(TEMPLATE)})
    desk.environment(work_pools={"alpha": {**pool, "base_job_template": "infra/work-pools/process.json"}})
    desk.apply()
    desk.environment(work_pools={"alpha": pool})
    desk.apply()
    assert state(desk.fake)["work_pool", "dev-alpha"]["base_job_template"] == own
    assert desk.plan().writes == ()


@pytest.mark.parametrize("removed", [3, 4])
def test_a_tenth_of_the_catalogue_may_go_but_not_a_third(desk: Desk, removed: int) -> None:
    others = [deployment(f"d{n}", entrypoint="flows/alpha/hello.py:hello") for n in range(9)]
    desk.catalogue(*others)
    desk.apply()
    desk.catalogue(*others[removed:])
    found = desk.plan()
    assert [r.guard for r in found.refusals] == ([] if removed == 3 else ["removals"])
    if removed == 4:
        assert "4 of 10 deployments would go; policy.max_removals is 30%" in found.refusals[0].message
        assert desk.plan(allow_removals=True).refusals == ()


def test_nothing_is_written_by_planning_whatever_it_finds(desk: Desk) -> None:
    desk.apply()
    desk.catalogue({"name": "more", "entrypoint": "flows/alpha/hello.py:hello", "pool": "alpha"}, tags=["new"])
    desk.fake.forget()
    for options in ({}, {"adopt": True}, {"resume": True}, {"allow_removals": True}):
        assert desk.plan(**options).writes
    assert desk.fake.requests and desk.fake.writes == []


# -- can workers clone it


def published(desk: Desk) -> str | None:
    with desk.prepared() as found:
        return prepare.check_published(found, Repository(desk.repo.path), desk.variables)


def test_a_commit_that_the_remote_has_is_fine(desk: Desk) -> None:
    desk.environment(repository=desk.repo.url)
    assert published(desk) is None


def test_a_commit_that_a_branch_of_the_remote_reaches_is_fine(desk: Desk, tmp_path: Path) -> None:
    desk.repo.tag("v1", annotated=True)
    remote = tmp_path / "remote.git"
    desk.environment(repository=remote.as_uri())
    desk.repo.branch("later")
    desk.repo.commit("Later")
    desk.repo.git("clone", "--quiet", "--bare", desk.repo.url, str(remote))
    desk.repo.switch("main")
    desk.repo.git("push", "--quiet", str(remote), "--delete", "main", "v1")
    assert published(desk) is None


def test_an_address_is_no_option_of_git(desk: Desk, tmp_path: Path) -> None:
    """Whoever writes a commit's environment file would run a program beside the API's key."""
    desk.repo.git("remote", "add", "origin", desk.repo.url)
    repository, address = Repository(desk.repo.path), f"--upload-pack=touch {tmp_path / 'ran'};"
    assert repository.published(address, desk.repo.head, None) is None
    assert repository.fetches(address, desk.repo.head, None)
    assert not (tmp_path / "ran").exists()


def test_a_commit_that_was_not_pushed_stops_an_apply(desk: Desk, tmp_path: Path) -> None:
    remote = tmp_path / "remote.git"
    desk.repo.git("clone", "--quiet", "--bare", desk.repo.url, str(remote))
    desk.environment(repository=remote.as_uri())
    with pytest.raises(InvalidInput, match=f"Workers cannot clone {desk.repo.head[:12]}: .* Push it first"):
        published(desk)


def test_a_remote_that_cannot_be_asked_or_is_ahead_of_this_clone_is_only_said(desk: Desk, tmp_path: Path) -> None:
    ahead = Repo(tmp_path / "ahead")
    ahead.commit("Not here")
    for url in ((tmp_path / "none").as_uri(), ahead.url):
        desk.environment(repository=url)
        assert f"whether {url} has {desk.repo.head[:12]} cannot be told" in str(published(desk))


def test_a_remote_that_never_answers_does_not_hold_up_a_deploy(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revision, "PATIENCE", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        desk.environment(repository=f"git://127.0.0.1:{silent.getsockname()[1]}/shop.git")
        assert "cannot be told" in str(published(desk))


@pytest.mark.parametrize("strategy", [{"strategy": "local", "directory": "/srv/code"}])
def test_code_that_no_worker_clones_needs_no_remote(desk: Desk, strategy: dict[str, str]) -> None:
    desk.environment(source=strategy)
    assert published(desk) is None


def test_previews_are_for_development(desk: Desk) -> None:
    assert desk.fails(Refused, "HEAD", "prod", "pr-1").startswith("Previews live in development environments")


def test_every_refusal_has_its_exit_code() -> None:
    assert (Refused("x").exit_code, InvalidInput("x").exit_code) == (Exit.REFUSED, Exit.INVALID)


def test_a_prepared_plan_made_again_is_the_same_until_something_moves(desk: Desk) -> None:
    with desk.prepared() as found:
        prepared: Prepared = found
        assert prepared.again() == prepared.plan
