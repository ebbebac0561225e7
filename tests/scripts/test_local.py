"""scripts/local.py: what it refuses and what it finds, without Prefect; then one real environment that many tests share."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from scripts import local, marked
from tests.server import free_port, patient_client

pytestmark = pytest.mark.stack

PROGRAM = Path(local.__file__)
DEV = """
name: dev
work_pools:
  ingestion: {name: dev-ingestion, type: process, concurrency_limit: 4}
  analytics: {name: dev analytics, type: process}
  cluster: {name: dev-cluster, type: kubernetes}
"""
QA = "{name: qa, work_pools: {ingestion: {name: qa-ingestion, type: process}}}"
SLEEP = "import time; print('awake', flush=True); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
LARGE = """
import socket, time
listener = socket.create_server(("127.0.0.1", 0))
memory = bytearray(200_000_000)
memory[::4096] = b"x" * len(memory[::4096])  # to give it back takes a moment, and the port is given back after it
print(listener.getsockname()[1], flush=True)
time.sleep(60)
"""


def repository(folder: Path, *files: str) -> Path:
    """A repository that declares these environments."""
    (folder / "environments").mkdir(parents=True)
    for number, content in enumerate(files or (DEV,)):
        (folder / "environments" / f"{number}.yaml").write_text(content)
    return folder


def until(ready: Callable[[], Any], seconds: float = 60) -> Any:
    """What `ready` says as soon as it says something."""
    deadline = time.monotonic() + seconds
    while not (found := ready()):
        assert time.monotonic() < deadline, f"still not so after {seconds} s"
        time.sleep(0.02)
    return found


def ends(pid: int) -> bool:
    """Has this child ended, or had somebody taken note of that already?"""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


@dataclass(frozen=True)
class Lab:
    """A repository, a state directory for it, and the program to call on them."""

    repo: Path
    state: Path
    variables: Mapping[str, str]

    def start(self, verb: str, *words: str, by: Sequence[str] = ()) -> subprocess.Popen[str]:
        places = ["--repo", str(self.repo), "--state", str(self.state)]
        command = [*by, sys.executable, str(PROGRAM), verb, *words, *places]
        return subprocess.Popen(
            command, env=self.variables, cwd=self.repo, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def call(self, verb: str, *words: str, by: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        with self.start(verb, *words, by=by) as process:
            output, errors = process.communicate(timeout=600)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def pids(self) -> dict[str, int]:
        return {f"{one.environment} {one.role}": one.pid for one in marked.find(self.state) if one.direct}

    @property
    def recorded(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.state / "state.json").read_text())["environments"]
        return content


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """With nothing running, and nothing left running afterwards."""
    found = Lab(repository(tmp_path / "repo"), tmp_path / "state", dict(os.environ))
    yield found
    local.down(found.repo, found.state)


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is nobody's business."""
    with subprocess.Popen([sys.executable, "-c", SLEEP], stdout=subprocess.DEVNULL) as process:
        yield process
        process.kill()


class Marked(NamedTuple):
    """A process that looks as if `up` had started it, or as if it descended from one of those; and its first line."""

    pid: int
    said: str


def begin(state: Path, role: str = "worker-x", code: str = SLEEP, direct: bool = True) -> Marked:
    mark = f"{marked.tag(state)}:dev:{role}"
    option = ["-X", f"local-prefect={mark}"] if direct else []
    command = [sys.executable, *option, "-c", code]
    process = subprocess.Popen(command, env={**os.environ, "LOCAL_PREFECT": mark}, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    with process.stdout:
        said = process.stdout.readline()
    process.returncode = 0  # whoever ends it takes note of its end
    return Marked(process.pid, said)


# -- What it reads


def test_environments_come_in_the_order_of_promotion(tmp_path: Path) -> None:
    files = [f"{{name: {name}, work_pools: {{}}}}" for name in ("extra", "prod", "dev", "qa", "a-test")]
    found = [one.name for one in local.environments(repository(tmp_path, *files))]
    assert found == ["dev", "qa", "prod", "a-test", "extra"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("work_pools: {}", "expected a `name`"),
        ("", "expected a `name`"),
        ("{name: dev, work_pools: [x]}", "expected a `name`"),
        ("{name: dev, work_pools: {x: {name: y}}}", "a `type`"),
        ("name: [", "0.yaml cannot be read"),
        ("name: ../dev", "cannot name a folder"),
    ],
)
def test_an_environment_file_that_is_no_use_is_named(tmp_path: Path, content: str, complaint: str) -> None:
    with pytest.raises(marked.LocalError, match=complaint):
        local.environments(repository(tmp_path, content))


def test_two_files_with_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(marked.LocalError, match="have the name dev"):
        local.environments(repository(tmp_path, DEV, DEV))


def test_a_repository_without_environments_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(marked.LocalError, match=r"environments holds no \*\.yaml"):
        local.up(tmp_path, tmp_path / "state")


def test_an_unknown_environment_is_answered_with_those_that_exist(lab: Lab) -> None:
    answer = lab.call("up", "production")
    assert answer.returncode == 1
    assert "No environment has the name production. There are: dev." in answer.stderr


# -- Ports


def test_a_taken_port_is_named_and_nothing_is_started(lab: Lab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        answer = lab.call("up", "--port-base", str(port))
        assert answer.returncode == 1
        assert f"dev: port {port} cannot be used" in answer.stderr
        assert "Nothing was started" in answer.stderr
        assert "Traceback" not in answer.stderr
        if shutil.which("lsof") or shutil.which("ss"):
            assert f"(pid {os.getpid()}) listens on it" in answer.stderr
    assert not lab.pids()
    assert local.status(lab.state) == []


def test_one_taken_port_frees_the_others_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        mine, theirs = free_port(), other.getsockname()[1]
        with pytest.raises(marked.LocalError, match=str(theirs)):
            local._listen({"dev": local.Entry(mine, []), "qa": local.Entry(theirs, [])})
        socket.create_server(("127.0.0.1", mine)).close()


def test_answers_are_not_held_back_by_40_ms() -> None:
    """Nagle's algorithm is off on each connection; asyncio only sees to that on sockets that it opens itself."""
    with local._listener(0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("port", ["80", "65530", "-1", "x"])
def test_a_port_that_can_not_be_is_a_wrong_argument(lab: Lab, port: str) -> None:
    answer = lab.call("up", f"--port-base={port}")
    assert answer.returncode == 2
    assert "expected 0 (any free ports) or a number" in answer.stderr


# -- Whose process is it


def test_a_number_that_is_somebody_elses_by_now_is_left_alone(lab: Lab, bystander: subprocess.Popen[bytes]) -> None:
    lab.state.mkdir()
    entry = local.Entry(free_port(), [], {"api": local.Started(bystander.pid, "before", "api.log")})
    local._write(lab.state, {"dev": entry})
    assert local.status(lab.state)[0].troubles[0] == "the API does not run"
    assert local.down(lab.repo, lab.state) == []
    assert bystander.poll() is None


def test_what_no_file_knows_of_is_ended_all_the_same(lab: Lab) -> None:
    process = begin(lab.state)
    assert not lab.state.exists()
    assert local.down(lab.repo, lab.state) == ["dev"]
    assert ends(process.pid)


def test_a_state_file_with_something_else_in_a_place_is_told(tmp_path: Path) -> None:
    entry = {"port": 4210, "pools": [1], "processes": {}}
    (tmp_path / "state.json").write_text(json.dumps({"environments": {"dev": entry}}))
    with pytest.raises(marked.LocalError, match="is not as it was written"):
        local.status(tmp_path)


@pytest.mark.parametrize("verb", [local.status, lambda state: local.up(local.ROOT, state)], ids=["status", "up"])
def test_a_file_in_place_of_the_state_directory_is_told(tmp_path: Path, verb: Callable[[Path], object]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(marked.LocalError, match=r"is no folder|cannot be made"):
        verb(tmp_path / "file")


def test_a_broken_state_file_does_not_keep_down_from_its_work(lab: Lab) -> None:
    process = begin(lab.state)
    lab.state.mkdir()
    (lab.state / "state.json").write_text("{")
    assert lab.call("status").stderr.startswith(f"local: {lab.state / 'state.json'} is not as it was written.")
    assert lab.call("down").stderr == "ended: dev\n"
    assert ends(process.pid)


def test_another_state_directory_s_processes_are_left_alone(lab: Lab, tmp_path: Path) -> None:
    theirs = begin(tmp_path / "state-of-another")
    assert local.down(lab.repo, lab.state) == []
    assert not ends(theirs.pid)
    assert local.down(lab.repo, tmp_path / "state-of-another") == ["dev"]


def test_down_ends_only_the_environments_that_it_is_given(lab: Lab) -> None:
    process = begin(lab.state)
    (lab.repo / "environments/qa.yaml").write_text(QA)
    assert local.down(lab.repo, lab.state, ["qa"]) == []
    assert not ends(process.pid)


def test_down_of_a_name_that_nobody_knows_is_a_typo(lab: Lab) -> None:
    answer = lab.call("down", "dve")
    assert answer.returncode == 1
    assert "No environment has the name dve. There are: dev." in answer.stderr


def test_a_process_that_will_not_end_is_killed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    process, said = begin(lab.state, code=STUBBORN), list[str]()
    monkeypatch.setattr(marked, "ENDING", [("worker", 2.0)])
    local.down(lab.repo, lab.state, say=said.append)
    assert ends(process.pid)
    assert said == [f"dev: worker-x (pid {process.pid}) does not end by itself: killing it"]


def test_a_port_is_free_again_as_soon_as_down_is_done(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marked, "PAUSE", 0.0001)
    for _ in range(5):
        process = begin(lab.state, role="api", code=LARGE)
        local.down(lab.repo, lab.state)
        local._listener(int(process.said)).close()


def test_runs_end_before_their_worker_and_the_api_last(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [
        begin(lab.state, direct=False).pid,
        begin(lab.state).pid,
        begin(lab.state, role="api").pid,
    ]
    order: list[int] = []
    kill = os.kill

    def noted(pid: int, number: int) -> None:
        order.append(pid)
        kill(pid, number)

    monkeypatch.setattr(os, "kill", noted)
    local.down(lab.repo, lab.state)
    assert order == expected


def test_both_ways_of_listing_processes_see_the_mark_in_command_and_environment(lab: Lab) -> None:
    """ps is for machines without /proc; the letters that make it show everything differ."""
    process, mark = begin(lab.state), f"{marked.tag(lab.state)}:dev:worker-x"
    listings = [marked._ps("-AE")] if sys.platform == "darwin" else [marked._ps("axe"), marked._proc()]
    for listing in listings:
        text = next(text for pid, since, text in listing if pid == process.pid and since)
        assert f"local-prefect={mark}" in text
        assert f"LOCAL_PREFECT={mark}" in text


def test_delete_leaves_what_up_did_not_make(lab: Lab) -> None:
    other = lab.state / "photos/prefect/holiday.jpg"
    other.parent.mkdir(parents=True)
    other.touch()
    home = lab.state / "dev"
    for part in ("prefect", "logs", "work"):
        (home / part).mkdir(parents=True)
    local.down(lab.repo, lab.state, delete=True)
    assert [path.name for path in lab.state.iterdir()] == ["photos"]
    assert other.exists()


def test_down_without_anything_up_is_fine(lab: Lab) -> None:
    answer = lab.call("down")
    assert (answer.returncode, answer.stderr) == (0, "nothing was running\n")
    assert not lab.state.exists()


def test_status_and_env_of_nothing_say_how_to_start(lab: Lab) -> None:
    for words in (["status"], ["env", "dev"]):
        answer = lab.call(*words)
        assert answer.returncode == 1
        assert "Start it: python scripts/local.py up" in answer.stderr


BUSY = """
import http.server
class Busy(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Busy.asked += 1
        self.send_response(503 if Busy.asked % 3 else 200)
        self.end_headers()
        self.wfile.write(b"true")
server = http.server.HTTPServer(("127.0.0.1", 0), Busy)
print(server.server_port, flush=True)
server.serve_forever()
"""


def test_an_api_that_is_busy_for_a_moment_is_up_all_the_same(lab: Lab) -> None:
    api = begin(lab.state, role="api", code=BUSY)
    lab.state.mkdir()
    local._write(lab.state, {"dev": local.Entry(int(api.said), [], {})})
    assert local.status(lab.state)[0].troubles == ()
    assert local.env("dev", lab.repo, lab.state)["PREFECT_API_URL"] == f"http://127.0.0.1:{int(api.said)}/api"


def test_a_second_up_or_down_waits_for_the_first_and_says_so(lab: Lab) -> None:
    said: list[str] = []
    lab.state.mkdir()
    with ThreadPoolExecutor() as threads, open(lab.state / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = threads.submit(local.down, lab.repo, lab.state, say=said.append)
        until(lambda: said)
        assert said == [f"another `up` or `down` is at work in {lab.state}: waiting for it"]
        assert not second.done()
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert second.result(10) == []


def test_what_it_prints_for_deploy_survives_a_shell(tmp_path: Path) -> None:
    values = {"REPOSITORY_URL": '/it\'s/a "path"/with $HOME', "PREFECT_API_URL": "http://127.0.0.1:1/api"}
    for kind, how in (("dotenv", "set -a; . ./file"), ("shell", ". ./file")):
        (tmp_path / "file").write_text(local.FORMATS[kind](values))
        show = f"{shlex.quote(sys.executable)} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
        answer = subprocess.run(["sh", "-c", f"{how}; {show}"], cwd=tmp_path, capture_output=True, check=True)
        assert values.items() <= json.loads(answer.stdout).items()
    assert json.loads(local.FORMATS["json"](values)) == values


# -- Interrupted


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_interrupted_up_ends_what_it_started(lab: Lab, number: signal.Signals, code: int) -> None:
    with lab.start("up", "--port-base", "0") as process:
        until(lab.pids)
        process.send_signal(number)
        _, errors = process.communicate(timeout=180)
    assert process.returncode == code
    assert "stopping: ending what was started" in errors
    assert "the API answers" not in errors  # it did not wait for that
    assert "Traceback" not in errors
    assert not marked.find(lab.state)
    assert local.status(lab.state) == []


def test_after_a_killed_up_down_ends_everything(lab: Lab) -> None:
    with lab.start("up", "--port-base", "0") as process:
        until(lab.pids)
        process.kill()
    assert lab.pids()
    assert lab.call("down").stderr.endswith("ended: dev\n")
    assert not marked.find(lab.state)
    assert local.status(lab.state) == []


def test_an_api_that_cannot_start_is_reported_with_the_end_of_its_log(lab: Lab) -> None:
    database = lab.state / "dev/prefect/prefect.db"
    database.parent.mkdir(parents=True)
    database.write_text("This is no database. " * 100)
    answer = lab.call("up", "--port-base", "0")
    assert answer.returncode == 1
    assert "dev: the API ended while it started. The end of" in answer.stderr
    assert "file is not a database" in answer.stderr
    assert not marked.find(lab.state)
    assert local.status(lab.state) == []


# -- A real environment, shared by all that follow


SECRET = "a-key-of-the-real-thing"
IN_THE_BACKGROUND = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]  # where a script's `up &` runs: Ctrl-C has no effect


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """dev is up, started from a shell that is set up for a real Prefect, and in a folder that is too."""
    folder = tmp_path_factory.mktemp("a folder with spaces")
    variables = {
        **os.environ,
        "HOME": str(folder / "home"),
        "PREFECT_API_URL": "http://127.0.0.1:9/api",
        "PREFECT_API_KEY": SECRET,
        "PREFECT_HOME": str(folder / "home/.prefect"),
        "PREFECT_PROFILES_PATH": str(folder / "home/profiles.toml"),
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PYTHONDONTWRITEBYTECODE": "1",
        "GIT_DIR": "/nowhere",
    }
    found = Lab(repository(folder / "repo", DEV, QA), folder / "state", variables)
    (found.repo / ".env").write_text(f"PREFECT_API_AUTH_STRING={SECRET}\n")
    (found.repo / "prefect.toml").write_text('[server]\nlogging_level = "DEBUG"\n')
    try:
        answer = found.call("up", "dev", "--port-base", "0", by=IN_THE_BACKGROUND)
        assert answer.returncode == 0, answer.stderr
        yield found
    finally:
        found.call("down", "--delete")
        assert not marked.find(found.state)
        assert not found.state.exists()


@pytest.fixture
def dev(shared: Lab) -> Lab:
    """As `shared`, whole again whatever the test before did."""
    assert shared.call("up", "dev").returncode == 0
    return shared


def api(lab: Lab, name: str = "dev") -> httpx.Client:
    return patient_client(lab.recorded[name]["api_url"])


def test_up_is_done_when_the_api_answers_and_every_process_pool_has_its_worker(dev: Lab) -> None:
    with api(dev) as client:
        assert client.get("/health").json() is True
        pools = {pool["name"]: pool["status"] for pool in client.post("/work_pools/filter", json={}).json()}
    assert pools == {"dev-ingestion": "READY", "dev analytics": "READY"}
    assert sorted(dev.pids()) == ["dev api", "dev worker-dev%20analytics", "dev worker-dev-ingestion"]


def test_a_worker_starts_when_the_one_before_has_created_its_pool(dev: Lab) -> None:
    """Pools that are created at the same time can block Prefect's SQLite for a minute."""
    with api(dev) as client:
        pools = sorted(client.post("/work_pools/filter", json={}).json(), key=lambda pool: pool["created"])
    first, second = (datetime.fromisoformat(pool["created"]).timestamp() for pool in pools)
    folder = dev.state / "dev/work" / f"worker-{pools[1]['name'].replace(' ', '%20')}"  # made for it, and never changed
    assert first < folder.stat().st_mtime < second


def test_the_ui_is_served_on_the_same_port_and_knows_its_api(dev: Lab) -> None:
    url = dev.recorded["dev"]["ui_url"]
    with httpx.Client(base_url=url, trust_env=False, follow_redirects=True) as client:
        assert "<html" in client.get("/dashboard", headers={"Accept": "text/html"}).text
        assert client.get("/ui-settings").json()["api_url"] == dev.recorded["dev"]["api_url"]


def test_another_site_s_page_may_not_use_the_api(dev: Lab) -> None:
    with api(dev) as client:
        for origin, allowed in (("https://example.com", None), (dev.recorded["dev"]["ui_url"],) * 2):
            asking = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            answer = client.options("/deployments/filter", headers=asking)
            assert answer.headers.get("access-control-allow-origin") == allowed


def test_nobody_but_this_machine_can_reach_it(dev: Lab) -> None:
    """Who listens on all addresses also listens on 127.0.0.2."""
    with pytest.raises(OSError):  # noqa: PT011
        socket.create_connection(("127.0.0.2", dev.recorded["dev"]["port"]), timeout=2)


def test_the_services_that_schedule_and_trigger_are_on(dev: Lab) -> None:
    with api(dev) as client:
        settings = client.get("/admin/settings").json()["server"]
    services = settings["services"]
    for name in ("scheduler", "late_runs", "triggers", "event_persister", "foreman"):
        assert services[name]["enabled"], name
    assert settings["analytics_enabled"] is False


def test_nothing_of_the_callers_prefect_gets_through(dev: Lab) -> None:
    listing = marked._ps("-AE") if sys.platform == "darwin" else marked._proc()
    ours = {one.pid for one in marked.find(dev.state)}
    texts = [text for pid, _, text in listing if pid in ours]
    assert len(texts) == 3
    for text in texts:
        assert SECRET not in text
        assert "127.0.0.1:9/" not in text
        assert "/nowhere" not in text
        assert "PYTHONDONTWRITEBYTECODE" not in text
    with api(dev) as client:
        assert client.get("/admin/settings").json()["server"]["logging_level"] == "WARNING"


def test_nothing_is_written_to_the_callers_home(dev: Lab) -> None:
    assert not list(dev.repo.parent.glob("home/.prefect*"))
    assert not list(dev.repo.parent.glob("home/*.toml"))


def test_a_second_up_says_that_it_runs_already_and_starts_nothing(dev: Lab) -> None:
    before = dev.pids()
    answer = dev.call("up", "dev")
    assert answer.returncode == 0
    assert answer.stderr.splitlines() == [
        "dev: no worker for dev-cluster, a pool of type kubernetes",
        f"dev: runs already, at {dev.recorded['dev']['ui_url']}",
    ]
    assert dev.pids() == before


def test_status_shows_where_everything_is(dev: Lab) -> None:
    answer = dev.call("status")
    assert answer.returncode == 0, answer.stderr
    url = dev.recorded["dev"]["ui_url"]
    assert answer.stdout.splitlines()[1].split(maxsplit=3) == ["dev", f"{url}/api", url, "dev-ingestion, dev analytics"]


def test_env_prints_what_deploy_needs(dev: Lab) -> None:
    answer = dev.call("env", "dev")
    assert answer.returncode == 0
    assert dict(line.split("=", 1) for line in answer.stdout.splitlines()) == {
        "PREFECT_API_URL": dev.recorded["dev"]["api_url"],
        "REPOSITORY_URL": f"'{dev.repo}'",
        "WAREHOUSE_URL": f"'sqlite:///{dev.state}/dev/warehouse.db'",
    }


def test_state_knows_each_process_by_number_and_start(dev: Lab) -> None:
    known = {(one["pid"], one["since"]) for one in dev.recorded["dev"]["processes"].values()}
    assert known == {(one.pid, one.since) for one in marked.find(dev.state)}


def last_heard_of(lab: Lab, pool: str) -> datetime:
    with api(lab) as client:
        [worker] = client.post(f"/work_pools/{pool}/workers/filter", json={}).json()
    return datetime.fromisoformat(worker["last_heartbeat_time"])


def test_a_worker_that_died_is_named_and_up_starts_only_that_one(dev: Lab) -> None:
    before, killed = dev.pids(), datetime.now(UTC)
    os.kill(before["dev worker-dev-ingestion"], signal.SIGKILL)
    until(lambda: "dev worker-dev-ingestion" not in dev.pids())
    found = dev.call("status")
    assert found.returncode == 1
    assert "dev: the worker of dev-ingestion does not run" in found.stderr
    assert "dev: 1 worker online" in dev.call("up", "dev").stderr
    assert last_heard_of(dev, "dev-ingestion") > killed  # the API had called the dead one online all the while
    after = dev.pids()
    assert after.keys() == before.keys()
    assert {role for role in after if after[role] != before[role]} == {"dev worker-dev-ingestion"}
    assert dev.call("status").returncode == 0


def test_an_api_that_died_is_named_and_up_starts_it_on_its_port_again(dev: Lab) -> None:
    before, port = dev.pids(), dev.recorded["dev"]["port"]
    os.kill(before["dev api"], signal.SIGKILL)
    until(lambda: "dev api" not in dev.pids())
    found = dev.call("status")
    assert found.returncode == 1
    assert "dev: the API does not run" in found.stderr
    assert dev.call("env", "dev").returncode == 1
    assert dev.call("up", "dev").returncode == 0
    assert dev.recorded["dev"]["port"] == port
    assert dev.pids()["dev api"] != before["dev api"]
    assert dev.call("status").returncode == 0


def test_a_worker_that_cannot_start_is_reported_and_what_ran_before_runs_on(dev: Lab) -> None:
    before, file = dev.pids(), dev.repo / "environments/0.yaml"
    file.write_text(DEV + "  wrong: {name: a/b, type: process}\n")  # a name that Prefect does not take
    answer = dev.call("up", "dev")
    file.write_text(DEV)
    assert answer.returncode == 1
    assert "dev: the worker of a/b ended while it started. The end of" in answer.stderr
    assert "Traceback" not in answer.stderr.partition("The end of")[0]
    assert dev.pids() == before
    assert dev.call("status").returncode == 0


def test_a_further_environment_comes_up_beside_with_an_api_of_its_own(dev: Lab) -> None:
    said: list[str] = []
    before = dev.pids()
    found = local.up(dev.repo, dev.state, port_base=0, say=said.append)
    assert [(one.name, one.online) for one in found] == [
        ("dev", ("dev-ingestion", "dev analytics")),
        ("qa", ("qa-ingestion",)),
    ]
    assert f"dev: runs already, at {dev.recorded['dev']['ui_url']}" in said
    assert before.items() < dev.pids().items()
    with api(dev, "qa") as client:
        assert [pool["name"] for pool in client.post("/work_pools/filter", json={}).json()] == ["qa-ingestion"]
        assert client.post("/block_types/filter", json={}).json()
    assert local.down(dev.repo, dev.state, ["qa"]) == ["qa"]
    assert dev.pids() == before


FLOW = """
import json, os, shutil, sys, time
from prefect import flow

@flow
def look_around(report: str) -> None:
    with open(report + ".part", "w") as file:
        json.dump({"python": sys.executable, "git": shutil.which("git"), "folder": os.getcwd(),
                   "temporary": os.environ["TMPDIR"], "home": os.environ["PREFECT_HOME"]}, file)
    os.replace(report + ".part", report)
    for _ in range(600):
        time.sleep(0.1)
"""


def start_run(client: httpx.Client, code: Path, report: Path) -> str:
    """A deployment of FLOW as `code` holds it, and a run of it that is due at once."""
    code.mkdir()
    (code / "look.py").write_text(FLOW)
    flow = client.post("/flows/", json={"name": "look-around"}).json()["id"]
    step = {"prefect.deployments.steps.set_working_directory": {"directory": str(code)}}
    deployment = {
        "name": "here",
        "flow_id": flow,
        "entrypoint": "look.py:look_around",
        "work_pool_name": "dev-ingestion",
        "pull_steps": [step],
        "parameters": {"report": str(report)},
    }
    made = client.post("/deployments/", json=deployment).raise_for_status().json()["id"]
    run = {"state": {"type": "SCHEDULED"}, "idempotency_key": "once"}
    return str(client.post(f"/deployments/{made}/create_flow_run", json=run).raise_for_status().json()["id"])


def test_a_run_starts_in_its_environment_and_down_lets_it_report_that_it_crashes(dev: Lab, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    with api(dev) as client:
        run = start_run(client, tmp_path / "code", report)
        until(report.exists, 180)
    found = json.loads(report.read_text())
    assert found["python"] == sys.executable
    assert found["git"] == shutil.which("git")
    assert found["temporary"] == str(dev.state / "dev/tmp")
    assert found["home"] == str(dev.state / "dev/prefect")
    assert [one.kind for one in marked.find(dev.state)].count("run") == 1

    assert dev.call("down").stderr == "ended: dev\n"
    assert not marked.find(dev.state)
    with sqlite3.connect(dev.state / "dev/prefect/prefect.db") as database:
        assert database.execute("SELECT state_type FROM flow_run").fetchall() == [("CRASHED",)], run
    database.close()
    assert not (dev.state / "dev/tmp").exists()
    assert dev.call("down").stderr == "nothing was running\n"
