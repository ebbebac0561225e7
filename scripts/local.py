"""A Prefect API for each environment of a repository, on this machine, with a worker for each process pool. No Docker.

    python scripts/local.py up | status | down | env ENV

Everything listens on 127.0.0.1 only and keeps its files in .local/; docs/local.md says more.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn
from urllib.parse import quote

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts import marked  # noqa: E402
from scripts.marked import API, PAUSE, LocalError, Process, Say, silent  # noqa: E402

HOST = "127.0.0.1"
PORT_BASE = 4210
PORT_STEP = 10
USUAL_ORDER = ("dev", "qa", "prod")  # so that their ports stay the same, whatever else is declared

WORKER_NAME = "local"
SECONDS_TO_START = 180  # for a slow machine that compiles Prefect on the way; usually it takes 4 to 12
SECONDS_TO_ANSWER = 15

# What a child may know of the shell that called `up`. No PREFECT_* (a real API's address and key!), no PYTHON* (slower
# starts, foreign modules), no GIT_* (a hook's GIT_DIR).
KEPT = (
    *("HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "SSH_AUTH_SOCK"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"),
)
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",  # whoever misses the API must not start one of its own
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_CLI_COLORS": "false",
    "PREFECT_LOGGING_COLORS": "false",
    "PYTHONUNBUFFERED": "1",  # so that a log's last lines are there when they are wanted
}
# A run starts within 4 s of its time. Asking every 2 s costs three idle APIs a third more.
PROMPT = {"PREFECT_WORKER_QUERY_SECONDS": "3"}


# -- What the repository declares


@dataclass(frozen=True)
class Environment:
    """Of one file in environments/: the name, and the type of each work pool."""

    name: str
    pools: Mapping[str, str]


def environments(repo: Path) -> list[Environment]:
    """dev, qa and prod first, then by name."""
    found = [_environment(file) for file in sorted((repo / "environments").glob("*.yaml"))]
    if not found:
        raise LocalError(f"No environment is declared: {repo / 'environments'} holds no *.yaml file.")
    names = [environment.name for environment in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise LocalError(f"Several files in {repo / 'environments'} have the name {', '.join(sorted(twice))}.")
    order = [*USUAL_ORDER, *sorted(set(names) - set(USUAL_ORDER))]
    return sorted(found, key=lambda environment: order.index(environment.name))


def _environment(file: Path) -> Environment:
    import yaml  # not at the top: where it is missing, `up` has a sentence to say

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        pools = (content.get("work_pools") or {}).values()
        found = Environment(str(content["name"]), {str(pool["name"]): str(pool["type"]) for pool in pools})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LocalError(f"{file} cannot be read: {' '.join(str(error).split())}") from None
    except (AttributeError, KeyError, TypeError):
        raise LocalError(f"{file}: expected a `name`, and a `name` and a `type` for each of `work_pools`.") from None
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", found.name):
        raise LocalError(f"{file}: {found.name!r} cannot name a folder. Use letters, digits, - and _.")
    return found


def _chosen(declared: Sequence[Environment], names: Sequence[str]) -> list[Environment]:
    known = [environment.name for environment in declared]
    if unknown := [name for name in names if name not in known]:
        raise LocalError(f"No environment has the name {', '.join(unknown)}. There are: {', '.join(known)}.")
    return [environment for environment in declared if not names or environment.name in names]


# -- The state directory: what should be running is written down before it runs


@dataclass(frozen=True)
class Started:
    """A process as it was started. The time tells it from a later one with the same number."""

    pid: int
    since: str
    log: str


@dataclass
class Entry:
    """An environment that should be up."""

    port: int
    pools: list[str]
    processes: dict[str, Started] = field(default_factory=dict)

    @property
    def ui_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def api_url(self) -> str:
        return f"{self.ui_url}/api"

    @property
    def workers(self) -> dict[str, str]:
        """The role of each worker, and its pool."""
        return {f"worker-{quote(pool, safe='')}": pool for pool in self.pools}

    @property
    def titles(self) -> dict[str, str]:
        """The role of each process that should run, and what to call it."""
        return {API: "the API", **{role: f"the worker of {pool}" for role, pool in self.workers.items()}}


def _read(state: Path) -> dict[str, Entry]:
    try:
        content = json.loads((state / "state.json").read_text(encoding="utf-8"))
        return {name: _entry(**entry) for name, entry in content["environments"].items()}
    except FileNotFoundError:
        return {}
    except NotADirectoryError:
        raise LocalError(f"{state} is no folder. Give one with --state DIR.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        advice = "Delete it: `down` finds what runs without it."
        raise LocalError(f"{state / 'state.json'} is not as it was written. {advice}") from None


def _entry(port: int, pools: list[str], processes: dict[str, dict[str, Any]], **urls: str) -> Entry:
    if not isinstance(port, int) or not all(isinstance(pool, str) for pool in pools):
        raise TypeError("somebody changed it")
    return Entry(port, pools, {role: Started(**started) for role, started in processes.items()})


def _write(state: Path, entries: Mapping[str, Entry]) -> None:
    content = {name: {"api_url": one.api_url, "ui_url": one.ui_url, **asdict(one)} for name, one in entries.items()}
    new = state / "state.json.new"
    new.write_text(json.dumps({"environments": content}, indent=2) + "\n", encoding="utf-8")
    new.replace(state / "state.json")


@contextmanager
def _locked(state: Path, say: Say) -> Iterator[None]:
    """One `up` or `down` at a time, the next one waits. The system lets go of the lock when we are killed."""
    while True:
        try:
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise LocalError(
                f"The folder {state} cannot be made: {error.strerror}. Give another with --state DIR."
            ) from None
        with open(state / "lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"another `up` or `down` is at work in {state}: waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):  # the `down --delete` that we waited for took it away: once more
                if os.path.samestat(os.fstat(lock.fileno()), (state / "lock").stat()):
                    yield
                    return


def _home(state: Path, name: str) -> Path:
    return state / name


def _log(state: Path, name: str, role: str) -> Path:
    return _home(state, name) / "logs" / f"{role}.log"


def _tail(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    last = "\n".join(f"    {line}" for line in text.splitlines()[-15:])
    return f"The end of {log}:\n{last}" if last else f"{log} is empty."


def _child_environment(home: Path, mark: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    direct = ",".join(filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), HOST, "localhost"]))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {
        **kept,
        **QUIET,
        **({"VIRTUAL_ENV": sys.prefix} if sys.prefix != sys.base_prefix else {}),
        "PATH": path,
        "NO_PROXY": direct,
        "no_proxy": direct,
        "LOCAL_PREFECT": mark,
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_PROFILES_PATH": str(home / "prefect/profiles.toml"),
    }


# -- The API of an environment


def _ask(port: int, path: str, body: Mapping[str, object] | None = None, seconds: float = 3) -> Any:
    """What the API answers; None if it has no good answer, or none at all."""
    method, content = ("GET", None) if body is None else ("POST", json.dumps(body))
    with (
        suppress(OSError, HTTPException, ValueError),
        closing(HTTPConnection(HOST, port, timeout=seconds)) as connection,
    ):
        connection.request(method, f"/api{path}", content, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return json.loads(answer.read()) if answer.status == 200 else None
    return None


def _insist(port: int, path: str, body: Mapping[str, object] | None = None) -> Any:
    """As `_ask`, of an API that is up: for a moment it may be too busy, or its database locked."""
    deadline = time.monotonic() + SECONDS_TO_ANSWER
    while (found := _ask(port, path, body)) is None and time.monotonic() < deadline:
        time.sleep(PAUSE)
    return found


def _answers(port: int, seconds: float) -> bool:
    return _ask(port, "/health", seconds=seconds) is True


def _is_well(port: int) -> bool:
    return _insist(port, "/health") is True


def _is_online(port: int, pool: str, since: datetime | None = None, ask: Callable[..., Any] = _ask) -> bool:
    """Has the pool's worker reported (since then)? The API calls it online for a while after it is gone."""
    found = ask(port, f"/work_pools/{quote(pool, safe='')}/workers/filter", {}) or []
    ours = [one for one in found if one["name"] == WORKER_NAME and one["status"] == "ONLINE"]
    return any(since is None or datetime.fromisoformat(one["last_heartbeat_time"]) >= since for one in ours)


# -- up


def up(
    repo: Path, state: Path, names: Sequence[str] = (), port_base: int = PORT_BASE, say: Say = silent
) -> list[Status]:
    """Start what is missing of these environments (none named: all), wait until it is ready, and say what there is.

    Whatever ends this early, an error or Ctrl-C, also ends what it had started, and nothing else.
    `port_base` 0 takes free ports.
    """
    if not importlib.util.find_spec("prefect"):
        raise LocalError(f"Prefect is not installed for {sys.executable}. Run `make setup`, then use .venv/bin/python.")
    state = state.resolve()
    declared = environments(repo)
    wanted = _chosen(declared, names)
    for environment in wanted:
        for pool in [pool for pool, kind in environment.pools.items() if kind != "process"]:
            say(f"{environment.name}: no worker for {pool}, a pool of type {environment.pools[pool]}")
    with _locked(state, say), _heeding_ctrl_c():
        before, running = _read(state), marked.running(state)
        entries = dict(before)
        for environment in wanted:
            old = before.get(environment.name) if environment.name in {name for name, _ in running} else None
            port = port_base + PORT_STEP * declared.index(environment) if port_base else 0
            entries[environment.name] = _entry_for(environment, port, old)
        listeners = _listen({one.name: entries[one.name] for one in wanted if (one.name, API) not in running})
        try:
            _Start(state, entries, running, listeners, say).run([environment.name for environment in wanted])
        except BaseException:
            left = {
                name: entries[name] for name, _ in marked.running(state) if name in entries
            }  # none, if all went well
            _write(state, {**left, **before})
            raise
    return [_well(environment.name, entries[environment.name]) for environment in wanted]


@contextmanager
def _heeding_ctrl_c() -> Iterator[None]:
    """For our children: those of a script's `up &` would ignore it, and a worker that is asked to end sends it itself."""
    ignored = (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread()
    )
    if ignored:
        signal.signal(signal.SIGINT, lambda number, frame: None)  # here it stays without effect
    try:
        yield
    finally:
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _entry_for(environment: Environment, port: int, old: Entry | None) -> Entry:
    """What runs already keeps its port: its workers know no other."""
    pools = [pool for pool, kind in environment.pools.items() if kind == "process"]
    return Entry(old.port, pools, dict(old.processes)) if old else Entry(port, pools)


def _well(name: str, entry: Entry) -> Status:
    return Status(name, entry.api_url, entry.ui_url, tuple(entry.pools), ())


def _listen(entries: Mapping[str, Entry]) -> dict[str, socket.socket]:
    """Take all ports before anything is started, so that nobody comes in between; an entry's 0 becomes a free one."""
    taken: list[str] = []
    listeners: dict[str, socket.socket] = {}
    for name, entry in entries.items():
        try:
            listeners[name] = _listener(entry.port)
            entry.port = listeners[name].getsockname()[1]
        except OSError as error:
            taken.append(f"{name}: port {entry.port} cannot be used: {_holder(entry.port) or error.strerror}.")
    if taken:
        _close(listeners)
        advice = "Free it, or choose others: `down`, then `up --port-base N` (0: any that are free)."
        raise LocalError("\n".join([*taken, f"Nothing was started. {advice}"]))
    return listeners


def _listener(port: int) -> socket.socket:
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit this one. On a socket that it was handed asyncio does not set it, and each answer would
        # then take 40 ms more.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((HOST, port))
        listener.listen(1024)
    except OSError:
        listener.close()
        raise
    return listener


def _close(listeners: Mapping[str, socket.socket]) -> None:
    for listener in listeners.values():
        listener.close()


def _holder(port: int) -> str | None:
    """Who listens on the port, if one of the usual tools is there to tell."""
    lsof = ["lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fpc"], r"p(?P<pid>\d+)\nc(?P<name>.+)"
    ss = ["ss", "-Hltnp", f"sport = :{port}"], r'\("(?P<name>[^"]+)",pid=(?P<pid>\d+)'
    for command, pattern in (lsof, ss):
        with suppress(OSError, subprocess.TimeoutExpired):
            answer = subprocess.run(command, capture_output=True, text=True, timeout=5)
            if found := re.search(pattern, answer.stdout):
                return f"{found['name']} (pid {found['pid']}) listens on it"
    return None


class _Start:
    """One call of `up`: all environments side by side, of each the API first, then the workers."""

    def __init__(
        self,
        state: Path,
        entries: dict[str, Entry],
        running: set[tuple[str, str]],
        listeners: dict[str, socket.socket],
        say: Say,
    ) -> None:
        self.state, self.entries, self.running, self.listeners, self.say = state, entries, running, listeners, say
        # What this call starts, from before it is there; then with its number.
        self.started: dict[tuple[str, str], int | None] = {}
        self.writing = threading.Lock()
        self.stopping = threading.Event()
        # A new database costs a core 6 s. As many at a time as there are cores; who comes later copies the first.
        self.making = threading.Semaphore(os.cpu_count() or 1)
        self.template = state / f"new-{version('prefect')}.db"

    def run(self, names: Sequence[str]) -> None:
        threads = ThreadPoolExecutor(len(names))
        try:
            _write(self.state, self.entries)
            for done in as_completed([threads.submit(self.bring_up, name) for name in names]):
                done.result()
        except BaseException:
            self.say("stopping: ending what was started")
            self.stopping.set()
            self.end_started()  # the threads wait for these
            threads.shutdown()
            self.end_started()  # what a thread was just about to start
            raise
        finally:
            threads.shutdown()
            _close(self.listeners)

    def end_started(self) -> None:
        marked.end(self.state, lambda one: (one.environment, one.role) in self.started)

    def bring_up(self, name: str) -> None:
        entry = self.entries[name]
        missing = {role for role in entry.titles if (name, role) not in self.running}
        if not missing:
            self.say(f"{name}: runs already, at {entry.ui_url}")
        began = time.monotonic()
        if API in missing:
            self.start_api(name, entry)
            self.say(f"{name}: the API answers at {entry.api_url} ({time.monotonic() - began:.1f} s)")
        else:
            self.wait_for_api(name, entry)
        began = time.monotonic()
        self.start_workers(name, entry, missing - {API})
        if workers := len(missing - {API}):
            self.say(f"{name}: {workers} worker{'s'[: workers > 1]} online ({time.monotonic() - began:.1f} s)")

    def start_api(self, name: str, entry: Entry) -> None:
        database = _home(self.state, name) / "prefect/prefect.db"
        new = not database.exists()
        with self.making if new else nullcontext():
            if new and self.template.exists():
                _copy_database(self.template, database)
            self.spawn_api(name, entry)
            self.wait_for_api(name, entry)
            if new and not self.template.exists():
                _copy_database(database, self.template)

    def wait_for_api(self, name: str, entry: Entry) -> None:
        self.wait(name, API, "does not answer", lambda seconds: _answers(entry.port, seconds))

    def start_workers(self, name: str, entry: Entry, missing: set[str]) -> None:
        """All at once, but one by one where a worker has to create its pool first.

        Several that do so lock each other out of the SQLite database, and the API then may stand still for a minute.
        """
        now = datetime.now(UTC)
        for role, pool in entry.workers.items():
            if role in missing:
                is_new = _ask(entry.port, f"/work_pools/{quote(pool, safe='')}") is None
                self.spawn_worker(name, role, entry)
                if is_new:
                    self.wait_for_worker(name, role, entry.port, pool, now)
        for role, pool in entry.workers.items():
            self.wait_for_worker(name, role, entry.port, pool, now if role in missing else None)

    def wait_for_worker(self, name: str, role: str, port: int, pool: str, since: datetime | None) -> None:
        self.wait(name, role, "is not online", lambda _: _is_online(port, pool, since))

    def spawn_api(self, name: str, entry: Entry) -> None:
        """What `prefect server start --background` runs, on a socket that listens already: who connects now, waits."""
        listener = self.listeners[name]
        settings = {
            "PREFECT__SERVER_FINAL": "1",
            "PREFECT_SERVER_API_HOST": HOST,
            "PREFECT_SERVER_API_PORT": str(entry.port),
            # No other site's page may use the API from a browser here: it starts programs on this machine.
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"{entry.ui_url},http://localhost:{entry.port}",
        }
        command = ["uvicorn", "--factory", "prefect.server.api.server:create_app", "--fd", str(listener.fileno())]
        self.spawn(name, API, [*command, "--log-level", "warning", "--no-access-log"], settings, [listener.fileno()])
        listener.close()  # only the API holds it now: when that ends, whoever waits for its answer learns so

    def spawn_worker(self, name: str, role: str, entry: Entry) -> None:
        temporary = _home(self.state, name) / "tmp"  # where runs clone their code
        temporary.mkdir(parents=True, exist_ok=True)
        settings = {**PROMPT, "PREFECT_API_URL": entry.api_url, "TMPDIR": str(temporary)}
        command = ["prefect", "worker", "start", "--pool", entry.workers[role], "--name", WORKER_NAME]
        self.spawn(name, role, [*command, "--type", "process", "--install-policy", "never"], settings)

    def spawn(
        self, name: str, role: str, module: Sequence[str], settings: Mapping[str, str], descriptors: Sequence[int] = ()
    ) -> None:
        """`python -m MODULE` in a session and a folder of its own: it outlives us, and reads no prefect.toml or .env."""
        home, log = _home(self.state, name), _log(self.state, name, role)
        folder = home / "work" / role
        for needed in (folder, home / "prefect", log.parent):
            needed.mkdir(parents=True, exist_ok=True)
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        mark = f"{marked.tag(self.state)}:{name}:{role}"
        self.started[name, role] = None
        if self.stopping.is_set():
            raise LocalError("interrupted")
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-X", f"local-prefect={mark}", "-m", *module],
                cwd=folder,
                env={**_child_environment(home, mark), **settings},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=descriptors,
                start_new_session=True,
            )
        process.returncode = 0  # it may well outlive this object, which must not warn of it
        self.started[name, role] = process.pid
        since = next((one.since for one in marked.find(self.state) if one.pid == process.pid), "")
        with self.writing:
            self.entries[name].processes[role] = Started(process.pid, since, str(log))
            _write(self.state, self.entries)

    def wait(self, name: str, role: str, trouble: str, ready: Callable[[float], bool]) -> None:
        """Until it is ready; `ready` gets the seconds that are left."""
        deadline = time.monotonic() + SECONDS_TO_START
        titles = self.entries[name].titles
        while not ready(max(deadline - time.monotonic(), PAUSE)):
            if self.stopping.wait(PAUSE):
                raise LocalError("interrupted")
            for one, title in titles.items():
                if (pid := self.started.get((name, one))) and marked.has_ended(pid):
                    raise LocalError(f"{name}: {title} ended while it started. {_tail(_log(self.state, name, one))}")
            if time.monotonic() > deadline:
                log = _log(self.state, name, role)
                raise LocalError(f"{name}: {titles[role]} {trouble} after {SECONDS_TO_START} s. {_tail(log)}")


def _copy_database(source: Path, target: Path) -> None:
    """All of it or nothing, also while the source is in use."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{threading.get_ident()}")
    with closing(sqlite3.connect(source)) as original, closing(sqlite3.connect(part)) as copy:
        original.backup(copy)
    part.replace(target)


# -- status, down, env


@dataclass(frozen=True)
class Status:
    """An environment that should be up: where it is, the pools whose worker is online, and what is wrong."""

    name: str
    api_url: str
    ui_url: str
    online: tuple[str, ...]
    troubles: tuple[str, ...]


def status(state: Path) -> list[Status]:
    """Every environment that was brought up, and not down since."""
    state = state.resolve()
    running = marked.running(state)
    return [
        _status(state, name, entry, {role for role in entry.titles if (name, role) in running})
        for name, entry in _read(state).items()
    ]


def _status(state: Path, name: str, entry: Entry, running: set[str]) -> Status:
    workers = {role: pool for role, pool in entry.workers.items() if role in running}
    answers = API in running and _is_well(entry.port)
    online = [pool for pool in workers.values() if answers and _is_online(entry.port, pool, ask=_insist)]
    ended = [f"{title} does not run" for role, title in entry.titles.items() if role not in running]
    mute = ["the API runs, but does not answer"] if API in running and not answers else []
    offline = [f"the worker of {pool} runs, but is not online" for pool in workers.values() if pool not in online]
    troubles = [*ended, *mute, *(offline if answers else [])]
    logs = [f"see {_home(state, name) / 'logs'}"] if troubles else []
    return Status(name, entry.api_url, entry.ui_url, tuple(online), (*troubles, *logs))


def down(repo: Path, state: Path, names: Sequence[str] = (), delete: bool = False, say: Say = silent) -> list[str]:
    """End what `up` started for these environments (none named: all), whatever became of that `up`. Which had run?

    The databases stay, unless they are to be deleted. The repository only tells which names there are.
    """
    state = state.resolve()
    if strangers := [name for name in names if not _home(state, name).is_dir()]:
        _chosen(environments(repo), strangers)

    def chosen(one: Process) -> bool:
        return not names or one.environment in names

    running = sorted({one.environment for one in marked.find(state) if chosen(one)})
    if running or state.exists():
        with _locked(state, say):
            marked.end(state, chosen, say)
            entries = _read(state) if names else {}
            _write(state, {name: entry for name, entry in entries.items() if name not in names})
            for home in _homes(state):
                if not names or home.name in names:
                    shutil.rmtree(home if delete else home / "tmp", ignore_errors=True)
            if delete and not names:
                _delete_the_rest(state)
    return running


def _homes(state: Path) -> list[Path]:
    """Only folders that `up` made, in case somebody's state directory holds other things."""
    return [home for home in state.iterdir() if all((home / part).is_dir() for part in ("prefect", "logs", "work"))]


def _delete_the_rest(state: Path) -> None:
    for file in [state / "state.json", *state.glob("new-*.db*"), state / "lock"]:
        file.unlink(missing_ok=True)
    with suppress(OSError):  # what is not ours keeps the folder
        state.rmdir()


def env(name: str, repo: Path, state: Path) -> dict[str, str]:
    """What `deploy.py` has to know to deploy this repository to an environment that is up here."""
    state = state.resolve()
    entry = _read(state).get(name)
    if entry is None or (name, API) not in marked.running(state) or not _is_well(entry.port):
        raise LocalError(f"{name} is not up. Start it: python scripts/local.py up {name}")
    return {
        "PREFECT_API_URL": entry.api_url,
        "REPOSITORY_URL": str(repo.resolve()),
        "WAREHOUSE_URL": f"sqlite:///{_home(state, name) / 'warehouse.db'}",
    }


# -- The command line


def main(arguments: Sequence[str] | None = None) -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _stop)
    words = _parser().parse_args(arguments)
    words.state = words.state or words.repo / ".local"
    try:
        return int(words.verb(words))
    except LocalError as error:
        _progress(f"local: {error}")
        return 1
    except KeyboardInterrupt:
        _progress("local: interrupted")
        return 130


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _progress(line: str) -> None:
    sys.stderr.write(f"{line}\n")  # in one piece: several threads report
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--repo", type=Path, default=ROOT, metavar="DIR", help="the repository (default: this one)")
    common.add_argument("--state", type=Path, metavar="DIR", help="where everything is kept (default: .local in it)")
    parser = argparse.ArgumentParser(
        description="Prefect APIs and workers on this machine, an API for each environment."
    )
    verbs = parser.add_subparsers(required=True, metavar="up | status | down | env")

    word = verbs.add_parser("up", parents=[common], help="start what is missing, and wait until it is ready")
    word.add_argument("names", nargs="*", metavar="ENV", help="default: all of environments/*.yaml")
    word.add_argument("--port-base", type=_port, default=PORT_BASE, metavar="N", help="%(default)s; 0: any free ports")
    word.set_defaults(verb=_up)

    word = verbs.add_parser("status", parents=[common], help="what is up; exit code 1 if anything of it is not well")
    word.set_defaults(verb=_show)

    word = verbs.add_parser("down", parents=[common], help="end what `up` started, also after a crash")
    word.add_argument("names", nargs="*", metavar="ENV", help="default: all")
    word.add_argument("--delete", action="store_true", help="delete the databases and logs as well")
    word.set_defaults(verb=_down)

    word = verbs.add_parser("env", parents=[common], help="print what deploy.py needs: for --env-file, or to source")
    word.add_argument("name", metavar="ENV")
    word.add_argument("--format", choices=FORMATS, default="dotenv")
    word.set_defaults(verb=_env)
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or not (text == "0" or 1024 <= int(text) <= 65000):
        raise argparse.ArgumentTypeError(f"{text}: expected 0 (any free ports) or a number from 1024 to 65000")
    return int(text)


def _up(words: argparse.Namespace) -> int:
    print(_table(up(words.repo, words.state, words.names, words.port_base, _progress)))
    return 0


def _show(words: argparse.Namespace) -> int:
    found = status(words.state)
    if not found:
        raise LocalError("nothing is up. Start it: python scripts/local.py up")
    print(_table(found))
    troubles = [f"{one.name}: {'; '.join(one.troubles)}" for one in found if one.troubles]
    if troubles:
        raise LocalError("\n".join([*troubles, "Start what is missing: python scripts/local.py up"]))
    return 0


def _down(words: argparse.Namespace) -> int:
    ended = down(words.repo, words.state, words.names, words.delete, _progress)
    _progress(f"ended: {', '.join(ended)}" if ended else "nothing was running")
    return 0


def _env(words: argparse.Namespace) -> int:
    print(FORMATS[words.format](env(words.name, words.repo, words.state)))
    return 0


FORMATS: dict[str, Callable[[Mapping[str, str]], str]] = {
    "dotenv": lambda found: "\n".join(f"{key}={shlex.quote(value)}" for key, value in found.items()),
    "shell": lambda found: "\n".join(f"export {key}={shlex.quote(value)}" for key, value in found.items()),
    "json": lambda found: json.dumps(found, indent=2),
}


def _table(rows: Sequence[Status]) -> str:
    head = ("ENVIRONMENT", "API", "UI", "WORKERS ONLINE")
    cells = [head, *((one.name, one.api_url, one.ui_url, ", ".join(one.online) or "none") for one in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


if __name__ == "__main__":
    sys.exit(main())
