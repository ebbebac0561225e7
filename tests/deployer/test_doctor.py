"""doctor, as it is called: what it looks at, what it makes of a fault, and what it never does."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployer import doctor, project, revision
from deployer.environment import Environment
from deployer.errors import Exit
from deployer.finding import STATES, Finding
from deployer.prefect_api import Client
from deployer.project import Tree
from deployer.revision import Repository
from tests.deployer import command as line
from tests.deployer.command import API, Command
from tests.fake_prefect import FakePrefect
from tests.repository import deployments, environment

command = line.command
loading_command = line.loading_command


@pytest.fixture
def well(command: Command) -> Command:
    """Released, with a worker that calls, and runs ahead."""
    command.apply()
    with command.fake.backstage as api:
        api.post("/work_pools/dev-alpha/workers/heartbeat", json={"name": "one"})
        api.post(f"/deployments/{command.live()['hello']['id']}/schedule", json={})
    command.fake.forget()
    return command


LOCK = {"lock": {"limit": 1}}


def look(command: Command, env: str = "dev", code: int = Exit.DIFFERENCES, **variables: str) -> dict[str, Any]:
    """Check -> what it found; the one of several that needs most."""
    said = command("doctor", "--env", env, "--format", "json", **variables)
    assert said.code == code, said.all
    rows = sorted(said.json["checks"], key=lambda row: ["not checked", "ok", "warning", "problem"].index(row["state"]))
    return {row["check"]: row for row in rows}


def tell(command: Command, method: str, path: str, body: Any) -> Any:
    """What happens there without us."""
    with command.fake.backstage as api:
        answer = api.request(method, path, json=body).raise_for_status()
    return answer.json() if answer.content else None


TROUBLES = (Path(__file__).parents[2] / "docs/troubleshooting.md").read_text()


def test_every_check_is_explained_where_troubles_are(well: Command) -> None:
    tell(well, "PATCH", "/work_pools/dev-alpha/queues/default", {"is_paused": True})
    named = {
        check.replace("dev-alpha/default", "POOL/NAME").replace("dev-alpha", "NAME") for check in look(well, code=0)
    }
    explained = set(re.findall("`([a-z][a-zA-Z/ ]*)`", TROUBLES.partition("## Symptoms")[0]))
    assert not named - explained and "queue POOL/NAME" in named


@pytest.mark.parametrize(
    "anchor",
    [
        *("late-runs", "pool-not-ready", "api-down", "failed-runs"),
        *("backup-too-old", "drift", "exporter-blind", "overdue-schedules"),
    ],
)
def test_what_alerts_link_to_is_a_section(anchor: str) -> None:
    headings = [line.removeprefix("## ") for line in TROUBLES.splitlines() if line.startswith("## ")]
    assert anchor in [heading.lower().replace(" ", "-") for heading in headings]


# -- what it says


def test_an_environment_that_is_well_has_nothing_but_ok_and_exits_0(well: Command) -> None:
    said = well.done("doctor", "--env", "dev")
    assert said.out.startswith("dev: doctor for http://127.0.0.1:")
    assert said.out.splitlines()[-1] == "0 problems, 0 warnings, 17 ok, 0 not checked."
    assert "pool dev-alpha  READY, 1 worker, heard " in said.out


def test_it_writes_nothing(well: Command) -> None:
    well.done("doctor", "--env", "dev")
    assert well.fake.requests and well.fake.writes == []


def test_it_takes_a_few_requests(well: Command) -> None:
    well.done("doctor", "--env", "dev")
    assert len(well.fake.requests) <= 15


def test_its_json_has_the_documented_keys(well: Command) -> None:
    said = well.done("doctor", "--env", "dev", "--format", "json").json
    assert list(said) == ["format", "environment", "api", "summary", "checks"]
    assert list(said["summary"]) == list(STATES) and said["summary"]["ok"] == len(said["checks"])
    assert all(list(row) == ["check", "state", "seen", "fix"] for row in said["checks"])


def test_its_markdown_is_a_table_with_the_fix_beside_each_problem(command: Command) -> None:
    said = command("doctor", "--env", "dev", "--format", "markdown")
    assert said.code == Exit.DIFFERENCES
    assert "| problem | pool dev-alpha | there is no such pool | deploy.py apply --env dev |" in said.out


# -- where it cannot look


def test_where_the_api_is_down_it_still_imports_the_entrypoints_and_exits_1(command: Command) -> None:
    found = look(command, code=Exit.INVALID, PREFECT_API_URL="http://127.0.0.1:9/api")
    assert found["api"]["state"] == "problem" and "no connection" in found["api"]["seen"]
    assert found["entrypoints"]["seen"] == "1 deployment of the work tree can be imported here"
    assert {row["state"] for name, row in found.items() if name not in ("api", "entrypoints")} == {"not checked"}


def test_a_wrong_key_is_named_with_the_variables_that_hold_it(well: Command) -> None:
    well.fake.auth = "admin:secret"
    found = look(well, code=Exit.INVALID, PREFECT_API_AUTH_STRING="admin:wrong")
    assert (found["api"]["state"], found["key"]["state"]) == ("ok", "problem")
    assert "(401)" in found["key"]["seen"] and "PREFECT_API_AUTH_STRING" in found["key"]["fix"]
    assert "wrong" not in str(found) and well.fake.writes == []
    assert look(well, code=Exit.DONE, PREFECT_API_AUTH_STRING="admin:secret")["key"]["state"] == "ok"


@pytest.mark.parametrize("how", [503, 500, 403, 404, 422])
def test_a_look_that_fails_does_not_stop_the_others(well: Command, how: int) -> None:
    well.fake.fail("POST", "/work_pools/filter", before=how, times=99)
    well.fake.fail("GET", "/admin/settings", before=how, times=99)
    found = look(well, code=Exit.DONE)
    assert {name for name, row in found.items() if row["state"] == "not checked"} == {"key", "server", "pools"}
    assert "/work_pools/filter" in found["pools"]["seen"]
    assert (found["limits"]["state"], found["failed runs"]["state"]) == ("ok", "ok")


def test_once_the_api_is_gone_nothing_is_asked_twice(well: Command) -> None:
    well.fake.fail("*", "/flow_runs/filter|/v2/", before="drop", times=99)
    well.repo.write({"environments/dev.yaml": environment(api=API, repository=well.repo.url, concurrency_limits=LOCK)})
    look(well, code=Exit.DONE)
    asked = [request.path for request in well.fake.requests]
    assert asked.count("/flow_runs/filter") == 4 + 1 and asked.count("/v2/concurrency_limits/filter") == 1


def test_a_server_that_answers_in_another_form_is_told_and_no_bug(well: Command) -> None:
    del well.fake.settings["ui"]
    found = look(well, code=Exit.DONE)
    assert found["server"]["state"] == "not checked" and "another form than expected" in found["server"]["seen"]


class Odd(httpx.BaseTransport):
    """To the fake; in each thing that a path answers some fields are others."""

    def __init__(self, fake: FakePrefect, path: str, fields: Any) -> None:
        self.fake, self.path, self.fields = fake, path, fields

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        answer = self.fake.handle(request)
        if answer.status_code >= 300 or not request.url.path.endswith(self.path):
            return answer
        odd = [{**one, **self.fields} if isinstance(self.fields, dict) else self.fields for one in answer.json()]
        return httpx.Response(200, json=odd)


@pytest.mark.parametrize(
    ("path", "fields", "checks"),
    [
        ("/workers/filter", "text", {"pools"}),
        ("/workers/filter", {"last_heartbeat_time": 5}, {"pools"}),
        ("/queues/filter", {"last_polled": 5}, {"pools"}),
        ("/deployments/filter", {"updated": None}, {"release", "code", "pools", "schedules"}),
        ("/flow_runs/filter", {"expected_start_time": None}, {"late runs"}),
        ("/flow_runs/filter", {"state": "text"}, {"late runs"}),
        ("/flow_runs/filter", "text", {"late runs"}),
    ],
)
def test_an_odd_answer_is_told_where_it_was_met(well: Command, path: str, fields: Any, checks: set[str]) -> None:
    late(well)
    found = examine(well, "http://fake-prefect/api", Odd(well.fake, path, fields))
    odd = {check for check, finding in found.items() if "in another form than expected" in finding.seen}
    assert odd >= checks and {found[check].state for check in odd} == {"not checked"}
    assert found["versions"].state == "ok" and found["entrypoints"].state == "ok"


def test_a_worker_that_never_called_is_not_the_one_heard_last(well: Command) -> None:
    found = examine(well, "http://fake-prefect/api", Odd(well.fake, "/workers/filter", {"last_heartbeat_time": None}))
    assert "no worker has ever called" in found["pool dev-alpha"].seen


class Dateless(Odd):
    """Its answers do not tell the time."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = super().handle_request(request)
        answer.headers.pop("Date", None)
        return answer


def test_a_clock_that_was_not_seen_is_not_said_to_agree(well: Command) -> None:
    found = examine(well, "http://fake-prefect/api", Dateless(well.fake, "nowhere", {}))
    assert found["clock"] == Finding("clock", "not checked", "no answer tells the server's time (Date)")


def test_a_key_that_nobody_gave_is_not_said_to_be_accepted(well: Command) -> None:
    well.fake.fail("GET", "/admin/settings", before=403, times=99)
    assert look(well, code=Exit.DONE)["key"]["state"] == "not checked"
    assert look(well, code=Exit.DONE, PREFECT_API_AUTH_STRING="admin:secret")["key"]["seen"] == "accepted"


def test_requests_that_had_to_be_repeated_are_told(well: Command) -> None:
    well.fake.fail("POST", "/filter", before=503, times=2)
    well.fake.fail("GET", "/admin/settings", before="drop")
    found = look(well, code=Exit.DONE)["answers"]
    assert found["state"] == "warning" and found["seen"].startswith("3 of 16 requests had to be repeated")
    assert "HTTP 503 (2 times)" in found["seen"] and "the connection broke" in found["seen"]
    assert "PostgreSQL" in found["fix"]


def test_an_older_server_is_looked_at_all_the_same(well: Command) -> None:
    well.fake.version = "3.7.0"
    found = look(well)
    assert found["versions"]["state"] == "problem" and found["late runs"]["state"] == "ok"


# -- the server


def test_a_ui_that_sends_browsers_to_0_0_0_0_is_a_problem(well: Command) -> None:
    well.fake.settings["ui"] = {"enabled": True, "api_url": "http://0.0.0.0:4200/api"}
    found = look(well)["ui"]
    assert found["state"] == "problem"
    assert found["fix"].startswith(f"PREFECT_SERVER_UI_API_URL={well.variables['PREFECT_API_URL']} ")
    well.fake.settings["ui"]["enabled"] = False
    assert look(well, code=Exit.DONE)["ui"]["seen"] == "the server serves none"


def test_sqlite_behind_a_production_environment_is_a_problem(command: Command) -> None:
    command.repo.tag("v1.0.0")
    command.apply("prod", "--ref", "v1.0.0")
    found = look(command, "prod")
    assert found["database"]["state"] == "problem" and "SQLite" in found["database"]["seen"]
    assert (found["key"]["state"], found["leases"]["state"]) == ("warning", "warning")


class Elsewhen(httpx.BaseTransport):
    """To the fake, whose clock is an hour ahead; `prefix` is cut off the paths."""

    def __init__(self, fake: FakePrefect, prefix: str = "") -> None:
        self.fake, self.prefix = fake, prefix

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        path = request.url.path.replace(self.prefix, "") if self.prefix else request.url.path
        answer = self.fake.handle(
            httpx.Request(request.method, request.url.copy_with(path=path), content=request.content)
        )
        answer.headers["Date"] = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
        return answer


def examine(command: Command, url: str, transport: httpx.BaseTransport) -> dict[str, Finding]:
    found: Environment = project.load_environment(
        Tree.working(command.repo.path), "dev", {**command.variables, "PREFECT_API_URL": url}
    )
    client = Client(found.api, transport=transport)
    return {f.check: f for f in doctor.examine(found, Repository(command.repo.path), command.variables, client)}


def test_clocks_that_differ_are_told_and_the_servers_own_counts(well: Command) -> None:
    found = examine(well, "http://fake-prefect/api", Elsewhen(well.fake))
    assert found["clock"].state == "warning" and "60 min ahead of" in found["clock"].seen
    assert "its last worker was heard 60 min ago" in found["pool dev-alpha"].seen


def test_of_prefect_cloud_nobody_asks_its_settings(well: Command) -> None:
    place = "/accounts/1/workspaces/2"
    found = examine(well, f"https://api.prefect.cloud/api{place}", Elsewhen(well.fake, place))
    assert (found["versions"].seen, found["key"].state, found["server"].state) == ("Prefect Cloud", "ok", "not checked")
    assert found["release"].state == "ok"


# -- what is released


def test_an_environment_that_was_never_released_has_no_code_to_look_at(command: Command) -> None:
    found = look(command)
    assert [found[check]["state"] for check in ("release", "code", "clone")] == ["not checked"] * 3


def test_the_api_of_another_environment_is_told(well: Command) -> None:
    found = look(well, "prod")
    assert found["release"]["state"] == "problem" and "holds releases of dev" in found["release"]["seen"]


def test_a_deployment_put_back_by_hand_is_stale_code(well: Command) -> None:
    tell(well, "PATCH", f"/deployments/{well.live()['hello']['id']}", {"version": "b" * 40})
    found = look(well)["code"]
    assert found["state"] == "problem" and "hello/hello" in found["seen"]


def test_after_a_rollback_the_advice_keeps_what_it_put_back(well: Command) -> None:
    well.change(parameters={"name": "moon"})
    well.apply()
    well.done("rollback", "--env", "dev", "--reason", "moon is bad")
    tell(well, "PATCH", f"/deployments/{well.live()['hello']['id']}", {"version": "by hand"})
    advice = look(well)["code"]["fix"].partition(", then ")[2]
    well.done(*advice.split())
    assert well.live()["hello"]["parameters"] != {"name": "moon"}
    assert look(well, code=Exit.DONE)["code"]["state"] == "ok"


def test_a_previews_deployments_are_not_the_environments(well: Command) -> None:
    well.change(parameters={"name": "moon"})
    well.apply("dev", "--preview", "pr-1")
    assert look(well, code=Exit.DONE)["code"]["seen"].startswith("1 deployment at ")


def test_a_commit_that_was_never_pushed_cannot_be_cloned(well: Command, tmp_path: Path) -> None:
    well.repo.git("init", "--quiet", "--bare", str(tmp_path / "shop.git"))
    remote = (tmp_path / "shop.git").as_uri()
    well.repo.write({"environments/dev.yaml": environment(repository=remote, api=API)})
    found = look(well)["clone"]
    assert found["state"] == "problem" and remote in found["seen"] and well.repo.head[:12] in found["seen"]


def test_a_source_whose_secret_block_is_not_there_cannot_be_cloned(well: Command) -> None:
    source = {"strategy": "git", "repository": well.repo.url, "credentials": "github-token"}
    well.repo.write({"environments/dev.yaml": environment(api=API, source=source)})
    assert "no Secret block 'github-token'" in look(well)["clone"]["seen"]


def test_the_token_that_is_tried_is_the_blocks_own(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[Any, ...]] = []
    monkeypatch.setattr(Repository, "fetches", lambda self, *given, ambient: tried.append((*given, ambient)))
    source = {"strategy": "git", "repository": command.repo.url, "credentials": "github-token"}
    kept: dict[str, Any] = {"secrets": {"github-token": "${TOKEN:-}"}, "source": source}
    command.repo.commit("Private", {"environments/dev.yaml": environment(api=API, **kept)})
    command.done("apply", "--env", "dev", TOKEN="t0p-secret")
    said = command("doctor", "--env", "dev")
    assert tried == [(command.repo.url, command.repo.head, "t0p-secret", False)]
    assert "with the token of the block 'github-token'" in said.out and "t0p-secret" not in said.all


@pytest.fixture
def private() -> Iterator[str]:
    """The address of a repository that wants a password."""

    class Closed(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Not on the test's stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Closed)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/shop.git"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("ambient", [True, False])
def test_this_machines_own_credentials_are_tried_only_when_asked_for(
    command: Command, tmp_path: Path, private: str, monkeypatch: pytest.MonkeyPatch, ambient: bool
) -> None:
    helper = {"COUNT": "1", "KEY_0": "credential.helper", "VALUE_0": f"!touch {tmp_path}/asked; :"}
    for name, value in helper.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    assert Repository(command.repo.path).fetches(private, "a" * 40, None, ambient=ambient)
    assert (tmp_path / "asked").exists() == ambient


def test_a_remote_that_never_answers_leaves_no_process_behind(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git's child has the token in its environment."""
    over, before = threading.Event(), []

    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            before.append(processes())
            over.wait(60)

        def log_message(self, format: str, *args: object) -> None:
            pass

    monkeypatch.setattr(revision, "PATIENCE", 6.0)
    with ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/shop.git"
        try:
            said = Repository(command.repo.path).fetches(url, "a" * 40, None, ambient=False)
            after = processes()
        finally:
            over.set()
            server.shutdown()
    assert said == "no answer within 6 s"
    assert url in before[0] and url not in after


def processes() -> str:
    return subprocess.run(["ps", "-axww", "-o", "args="], capture_output=True, text=True, check=True).stdout


def test_an_entrypoint_that_is_not_there_is_named_with_its_line(command: Command) -> None:
    command.repo.write({"flows/alpha/deployments.yaml": deployments(entrypoint="flows/alpha/gone.py:hello")})
    found = look(command)["entrypoints"]
    assert found["state"] == "problem" and "flows/alpha/deployments.yaml:2" in found["seen"]


# -- where and what runs


def test_a_worker_that_fell_silent_is_told_with_its_silence(well: Command) -> None:
    tell(well, "PATCH", "/work_pools/dev-alpha", {"description": "touched"})
    well.fake.now = datetime.now(UTC) - timedelta(minutes=10)
    tell(well, "POST", "/work_pools/dev-alpha/workers/heartbeat", {"name": "one"})
    well.fake.now = None
    found = look(well)["pool dev-alpha"]
    assert found["state"] == "problem" and "heard 10 min ago" in found["seen"]
    assert "prefect worker start --pool dev-alpha --type process" in found["fix"]
    tell(well, "POST", "/work_pools/dev-alpha/workers/heartbeat", {"name": "two"})
    assert look(well, code=Exit.DONE)["pool dev-alpha"]["seen"].startswith("READY, 1 worker, heard ")


def test_paused_pools_and_queues_are_told(well: Command) -> None:
    tell(well, "PATCH", "/work_pools/dev-alpha", {"is_paused": True})
    tell(well, "PATCH", "/work_pools/dev-alpha/queues/default", {"is_paused": True})
    found = look(well, code=Exit.DONE)
    assert found["pool dev-alpha"]["fix"] == "prefect work-pool resume dev-alpha"
    assert found["queue dev-alpha/default"]["fix"] == "prefect work-queue resume default --pool dev-alpha"


def late(command: Command, minutes: float = 60) -> None:
    """A run that was due then."""
    due = datetime.now(UTC) - timedelta(minutes=minutes)
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due.isoformat()}}
    tell(command, "POST", f"/deployments/{command.live()['hello']['id']}/create_flow_run", {"state": state})


def test_late_runs_that_no_worker_asks_for_are_told_with_their_queue(well: Command) -> None:
    late(well)
    found = look(well)["late runs"]
    assert "no worker asks the queue dev-alpha/default" in found["seen"] and "--work-queue default" in found["fix"]


def test_a_run_is_not_late_before_a_worker_could_have_asked_for_it(well: Command) -> None:
    late(well, minutes=0.5)
    assert look(well, code=Exit.DONE)["late runs"]["seen"] == "none"


def test_late_runs_behind_a_paused_pool_are_a_problem(well: Command) -> None:
    late(well)
    tell(well, "PATCH", "/work_pools/dev-alpha", {"is_paused": True})
    found = look(well)["late runs"]
    assert found["seen"] == "1 run of hello/hello, the oldest due 60 min ago: the pool dev-alpha is paused"


def test_a_deployments_own_limit_is_held_by_its_own_runs_only(command: Command) -> None:
    second = {"name": "other", "entrypoint": "flows/alpha/hello.py:hello", "pool": "alpha"}
    catalogue = deployments(second, concurrency_limit=1)
    command.repo.commit("Two", {"flows/alpha/deployments.yaml": catalogue})
    command.apply()
    [limit] = tell(command, "POST", "/v2/concurrency_limits/filter", {})
    tell(command, "PATCH", f"/v2/concurrency_limits/{limit['id']}", {"active_slots": 1})
    running(command, "other")
    assert "deployment hello/hello: 1 of 1 taken" in look(command)["limits"]["seen"]
    running(command, "hello")
    assert look(command)["limits"]["seen"] == "1 limit, none held by a dead run; full: deployment hello/hello"


def running(command: Command, name: str) -> None:
    run = tell(command, "POST", f"/deployments/{command.live()[name]['id']}/create_flow_run", {})
    tell(command, "POST", f"/flow_runs/{run['id']}/set_state", {"state": {"type": "RUNNING"}})


def test_a_lock_without_a_run_is_stuck_and_one_with_a_run_is_not(command: Command) -> None:
    declared = environment(api=API, repository=command.repo.url, concurrency_limits=LOCK)
    command.repo.commit("Lock", {"environments/dev.yaml": declared})
    command.apply()
    tell(command, "PATCH", "/v2/concurrency_limits/lock", {"active_slots": 1})
    found = look(command)["limits"]
    assert found["state"] == "problem" and "prefect gcl update lock --active-slots 0" in found["fix"]
    running(command, "hello")
    assert look(command)["limits"] == {
        "check": "limits",
        "state": "ok",
        "fix": "",
        "seen": "1 limit, none held by a dead run; full: lock",
    }


def test_failed_runs_of_the_last_day_are_told_with_the_newest(well: Command) -> None:
    run = tell(well, "POST", f"/deployments/{well.live()['hello']['id']}/create_flow_run", {})
    failed = {"type": "FAILED", "message": "no such table: bars"}
    tell(well, "POST", f"/flow_runs/{run['id']}/set_state", {"state": failed})
    found = look(well, code=Exit.DONE)["failed runs"]
    assert found["state"] == "warning" and "no such table: bars" in found["seen"]


def test_a_scheduler_that_makes_no_runs_is_told(command: Command) -> None:
    command.fake.now = datetime.now(UTC) - timedelta(minutes=10)
    command.apply()
    command.fake.now = None
    found = look(command)["schedules"]
    assert found["state"] == "problem" and "scheduler does not work" in found["seen"]
