"""From a commit to a run on a worker and back, by the command that people and pipelines type."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.real.stage import Stage, worker
from tests.server import clean_environment

ROOT = Path(__file__).resolve().parents[2]
SECRET = "value-that-nobody-may-see"

VERSIONED = """
from prefect import flow


@flow(log_prints=True)
def hello(name: str = "x", count: int = 1):
    print(f"this is version {VERSION} for {{name}}")
"""

PLAN = {"format", "environment", "commit", "ref", "base", "summary", "changes", "digest"}
COUNTS = {"create", "update", "pause", "delete", "held", "unchanged"}


@dataclass
class Done:
    """One call of the command: how it ended, and its two streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Shell:
    """scripts/deploy.py in the repository of a stage. Keeps all that was ever said."""

    stage: Stage
    folder: Path
    said: list[str] = field(default_factory=list)

    def __call__(self, verb: str, *words: str, env: str = "dev", **variables: str) -> Done:
        known = {**self.stage.known, **variables}
        command = [sys.executable, str(ROOT / "scripts/deploy.py"), verb, "--env", env, *words]
        done = subprocess.run(
            command,
            cwd=self.stage.repo.path,
            env={**clean_environment(self.folder), **known},
            capture_output=True,
            text=True,
            check=False,
        )
        self.said += [done.stdout, done.stderr]
        assert "Traceback" not in done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def data(self, verb: str, *words: str, code: int = 0, **more: str) -> Any:
        """The one JSON document on standard output."""
        done = self(verb, *words, "--format", "json", **more)
        assert done.code == code, done.err
        return done.json


@pytest.fixture
def shell(stage: Stage, tmp_path: Path) -> Shell:
    stage.environment["source"] = {"repository": "${REPOSITORY_URL}"}
    stage.variables["REPOSITORY_URL"] = stage.repo.url
    stage.repo.git("config", "uploadpack.allowFilter", "true")
    home = tmp_path / "home"
    home.mkdir()
    return Shell(stage, home)


def version(number: int) -> dict[str, str]:
    return {"flows/alpha/flows.py": VERSIONED.replace("{VERSION}", str(number)).replace("{{", "{").replace("}}", "}")}


@pytest.mark.stack
def test_a_commit_travels_to_a_worker_and_back(shell: Shell, stage: Stage, tmp_path: Path) -> None:
    stage.environment["secrets"] = {stage.named("token"): "${TOKEN:-}"}
    stage.variables["TOKEN"] = SECRET
    name = stage.named("hello")
    schedule = {"slug": "noon", "cron": "0 12 * * *"}

    first = stage.commit(stage.entry(schedules=[schedule]), files=version(1))
    done = shell.data("apply")
    assert done.keys() == PLAN | {"outcomes", "release", "seconds"}
    assert done["summary"].keys() == COUNTS and done["summary"]["create"] == 6
    assert (done["commit"], done["base"]) == (first, None)
    assert done["release"] == {"number": 1, "commit": first, "result": "succeeded"}
    assert {o["result"] for o in done["outcomes"]} == {"done"}

    with worker(stage.url, stage.named("pool"), tmp_path / "worker"):
        ran = shell("run", name, "--param", "name=Ada", "--timeout", "240", "--format", "json")
        assert (ran.code, ran.json["flow_run"]["state_type"]) == (0, "COMPLETED"), ran.err
        assert "this is version 1 for Ada" in ran.err

        second = stage.commit(stage.entry(schedules=[{**schedule, "cron": "30 12 * * *"}]), files=version(2))
        plan = shell.data("plan", "--detailed-exitcode", code=2)
        assert plan.keys() == PLAN
        assert plan["base"] == {"release": 1, "commit": first}
        [change] = plan["changes"]
        assert change.keys() == {"kind", "name", "action", "fields"}
        assert (change["kind"], change["name"], change["action"]) == ("deployment", f"hello/{name}", "update")
        cron = {"path": "schedules.noon.cron", "before": "0 12 * * *", "after": "30 12 * * *", "held": False}
        assert cron in change["fields"]

        saved = tmp_path / "plan.json"
        assert shell("plan", "--out", str(saved)).out.endswith(
            "0 to create, 1 to update, 0 to pause, 0 to delete, 5 unchanged.\n"
        )
        stage.commit(stage.entry(), files=version(3))
        done = shell.data("apply", "--plan", str(saved))
        assert (done["commit"], done["digest"]) == (second, json.loads(saved.read_text())["digest"])
        assert "Nothing to do" in shell("apply", "--plan", str(saved)).out
        saved.write_text(saved.read_text().replace("30 12", "31 12"))
        assert shell("apply", "--plan", str(saved)).code == 6

        done = shell.data("rollback", "--reason", "the second one is wrong")
        assert done["release"] == {"number": 3, "commit": first, "result": "succeeded"}
        assert stage.schedules()["noon"]["schedule"]["cron"] == "0 12 * * *"
        ran = shell("run", name, "--timeout", "240")
        assert ran.code == 0 and "this is version 1 for x" in ran.err

    assert shell("drift").code == 0
    stage.ask(
        "PATCH",
        f"/deployments/{stage.deployment()['id']}",
        {"parameters": {"name": "by hand"}, "description": "By hand."},
    )
    drift = shell.data("drift", code=2)
    assert [f["path"] for f in drift["changes"][0]["fields"]] == ["description"]
    shell.data("apply", "--ref", second)
    assert (shell("drift").code, stage.deployment()["parameters"]) == (0, {"name": "by hand"})

    releases = shell.data("history")["releases"]
    kept = [[r[key] for key in ("number", "commit", "result", "rollback_of", "restores", "reason")] for r in releases]
    assert kept == [
        [4, second, "succeeded", None, None, ""],
        [3, first, "succeeded", 2, 1, "the second one is wrong"],
        [2, second, "succeeded", None, None, ""],
        [1, first, "succeeded", None, None, ""],
    ]
    assert shell.data("apply", "--ref", second) == {
        **shell.data("plan", "--ref", second),
        "outcomes": [],
        "release": None,
        "seconds": ANY,
    }
    assert_secret_nowhere(shell, tmp_path)


class Anything:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


ANY = Anything()


def assert_secret_nowhere(shell: Shell, folder: Path) -> None:
    """Not in what was said, in no artifact, variable, run or deployment, and in no file."""
    stage = shell.stage
    secret = stage.ask(
        "POST",
        "/block_documents/filter",
        {"block_documents": {"name": {"any_": [stage.named("token")]}}, "include_secrets": True},
    )
    assert secret[0]["data"]["value"] == SECRET
    kinds = ("artifacts", "variables", "flow_runs", "deployments", "logs", "work_pools")
    told = [json.dumps(stage.ask("POST", f"/{kind}/filter", {})) for kind in kinds]
    files = [path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [text for text in (*shell.said, *told, *files) if SECRET in text] == []


def test_a_secret_that_changed_is_told_without_its_value(shell: Shell, stage: Stage) -> None:
    stage.environment["secrets"] = {stage.named("token"): "${TOKEN:-}"}
    stage.commit(stage.entry())
    shell.data("apply", TOKEN="the-first-value")
    plan = shell.data("plan", TOKEN="the-second-value")
    [field] = plan["changes"][0]["fields"]
    assert field["before"] == field["after"]
    assert shell("plan").out.endswith("unchanged.\n")
    assert not any("-value" in text for text in shell.said)


def test_a_preview_comes_and_goes_and_touches_nothing_else(shell: Shell, stage: Stage) -> None:
    stage.commit(stage.entry(schedules=[{"slug": "noon", "cron": "0 12 * * *"}]))
    shell.data("apply")
    before = stage.everything()
    stage.repo.branch("feature")
    stage.commit(stage.entry(schedules=[{"slug": "noon", "cron": "1 12 * * *"}]), stage.entry(name="more"))
    assert shell("apply").code == 6
    done = shell.data("apply", "--preview", "pr-7")
    assert {c["name"] for c in done["changes"]} == {f"hello/pr-7-{stage.named(n)}" for n in ("hello", "more")}
    preview = stage.everything()[f"pr-7-{stage.named('hello')}"]
    assert [s["active"] for s in preview["schedules"]] == [False] and "preview:pr-7" in preview["tags"]
    assert {k: v for k, v in stage.everything().items() if k in before} == before
    assert shell("drift").code == 0
    gone = shell.data("destroy", "--preview", "pr-7")
    assert sorted(gone["deleted"]) == sorted(c["name"] for c in done["changes"])
    assert stage.everything() == before
    assert shell.data("destroy", "--preview", "pr-7")["deleted"] == []


def test_a_deployment_of_others_is_refused_until_it_is_adopted(shell: Shell, stage: Stage) -> None:
    flow = stage.ask("POST", "/flows/", {"name": "hello"})
    theirs = {"name": stage.named("hello"), "flow_id": flow["id"], "tags": ["theirs"], "parameters": {"count": 5}}
    made = stage.ask("POST", "/deployments/", theirs)
    stage.commit(stage.entry(parameters={"name": "ours"}))
    refused = shell("apply")
    assert refused.code == 6 and f"hello/{stage.named('hello')}" in refused.err and "--adopt" in refused.err
    assert stage.ask("GET", f"/deployments/{made['id']}")["tags"] == ["theirs"]
    shell.data("apply", "--adopt")
    ours = stage.deployment()
    assert ours["id"] == made["id"]
    assert set(ours["tags"]) == {"theirs", "env:dev", f"project:{stage.name}"}
    assert ours["parameters"] == {"name": "ours", "count": 5}
    stage.nothing_left()


@pytest.fixture
def two(shell: Shell) -> Iterator[Shell]:
    """A second environment, whose ledger goes afterwards: it would be a stranger to all other tests."""
    yield shell
    for start in ("release", "spec"):
        like = {"artifacts": {"key": {"like_": f"{start}-{shell.stage.name}-qa%"}}}
        for artifact in shell.stage.ask("POST", "/artifacts/filter", like):
            shell.stage.ask("DELETE", f"/artifacts/{artifact['id']}")


def test_two_environments_share_an_api_when_both_say_so(two: Shell, stage: Stage) -> None:
    def commit(shared: bool) -> None:
        stage.environment["api"] = {"url": "${PREFECT_API_URL}", "shared": shared}
        stage.commit(stage.entry())
        text = (stage.repo.path / "environments/dev.yaml").read_text()
        pools = text.replace("name: dev", "name: qa").replace(stage.named("pool"), stage.named("pool-of-qa"))
        stage.repo.commit(files={"environments/qa.yaml": pools})

    commit(shared=False)
    two.data("apply")
    strange = two("apply", env="qa")
    assert strange.code == 6 and "holds releases of" in strange.err and "shared: true" in strange.err
    commit(shared=True)
    two.data("apply", "--allow-removals")
    before = stage.everything()
    two.data("apply", env="qa")
    assert {n for n, d in stage.deployments().items() if not d["paused"]} == {"hello-dev", "hello-qa"}
    assert {name: d for name, d in stage.everything().items() if name in before} == before
    for env in ("dev", "qa"):
        assert two.data("plan", "--detailed-exitcode", env=env)["changes"] == []


@pytest.mark.parametrize(
    ("words", "variables", "code", "said"),
    [
        (["plan", "--ref", "nowhere"], {}, 1, "'nowhere' names no commit"),
        (["apply"], {"PREFECT_API_URL": ""}, 1, "PREFECT_API_URL is empty"),
        (["rollback", "--reason", "x"], {}, 1, "no successful release"),
        (["run", "nothing"], {}, 1, "has no deployment"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(
    shell: Shell, stage: Stage, words: list[str], variables: dict[str, str], code: int, said: str
) -> None:
    stage.commit(stage.entry())
    done = shell(*words, **variables)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert stage.deployments() == {}
