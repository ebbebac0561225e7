"""A whole Prefect platform on this machine without Docker: what infra/compose runs as containers, as plain processes.

PostgreSQL, Redis, the migration, API replicas, the background services, nginx in front and a worker for each pool, on free
ports of 127.0.0.1, in one folder. Whatever ends unasked is started again, as `restart: unless-stopped` does for containers.
`make ha`, the upgrade and the restore are tried on it.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts import marked  # noqa: E402

HOST = "127.0.0.1"
USER = "prefect"
DATABASE = "prefect"
POOLS = {"ingestion": "ha-ingestion", "analytics": "ha-analytics", "maintenance": "ha-maintenance"}
SECONDS_TO_START = 180  # for a machine that does much else; usually it takes 5 to 15
SECONDS_TO_END = 15
PAUSE_BEFORE_RESTART = 0.5
MARK = "LOCAL_PREFECT"

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_CLI_COLORS": "false",
    "PREFECT_LOGGING_COLORS": "false",
    "PYTHONUNBUFFERED": "1",
}

NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/logs/nginx-error.log;
{user}
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/nginx/body;
    proxy_temp_path {folder}/nginx/proxy;
    fastcgi_temp_path {folder}/nginx/fastcgi;
    uwsgi_temp_path {folder}/nginx/uwsgi;
    scgi_temp_path {folder}/nginx/scgi;
    client_max_body_size 50m;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    # max_fails=0: counted failures would take the last replica out when one websocket of it breaks, as Redis's restart does.
    upstream api {{
        {servers}
        keepalive 16;
    }}
    server {{
        listen {host}:{port};
        location / {{
            proxy_pass http://api;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_connect_timeout 2s;
            proxy_read_timeout 300s;
            # A request that a replica may have carried out already is not sent to the other one: the client asks again.
            proxy_next_upstream error timeout http_502 http_503;
            proxy_next_upstream_tries 2;
        }}
    }}
}}
"""


class StackError(Exception):
    """What the operator can act on: what happened, where, what now."""


@dataclass(frozen=True)
class Part:
    """One process: how it is started, and with which signal it ends well."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    end: signal.Signals = signal.SIGTERM
    user: str | None = None


class Kept:
    """A part that is kept running: started again, after a moment, whenever it ends unasked."""

    def __init__(self, part: Part, stack: Stack) -> None:
        self.part, self.stack = part, stack
        self.restarts = -1
        self.process: subprocess.Popen[bytes] | None = None
        self._change = threading.Condition()
        self._wanted = True
        self._thread = threading.Thread(target=self._keep, name=part.name, daemon=True)
        self._thread.start()
        with self._change:
            self._change.wait_for(lambda: self.process or not self._thread.is_alive(), SECONDS_TO_START)

    def _keep(self) -> None:
        while True:
            with self._change:
                if not self._wanted:
                    return
                self.process = self.stack.spawn(self.part)
                self.restarts += 1
                self._change.notify_all()
            self.process.wait()
            self.stack.guardian.forget(self.process.pid)
            with self._change:
                self._change.wait_for(lambda: not self._wanted, PAUSE_BEFORE_RESTART)

    def kill(self) -> None:
        """As the kernel does when memory is short, or a machine that goes away: with all that it started."""
        with self._change:  # it is started again afterwards, or its successor would be killed as well
            if self.process:
                self.process.kill()
            self.stack.kill_marked(self.part.name)

    def ask_to_end(self) -> None:
        """It is started again."""
        if self.process:
            self.process.send_signal(self.part.end)

    def stop(self) -> None:
        """For good."""
        with self._change:
            self._wanted = False
            self._change.notify_all()
        if self.process and self.process.poll() is None:
            self.process.send_signal(self.part.end)
            try:
                self.process.wait(SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self._thread.join()
        self.stack.kill_marked(self.part.name)


class Guardian:
    """A process that outlives us when we are killed, ends what we started, and removes the folder.

    It is told each number, because PostgreSQL and nginx overwrite the environment that the mark is in.
    """

    def __init__(self, folder: Path, remove: bool) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), "guard", str(folder), str(int(remove))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        self._writing = threading.Lock()

    def note(self, pid: int) -> None:
        self._say(f"+{pid}")

    def forget(self, pid: int) -> None:
        self._say(f"-{pid}")

    def _say(self, line: str) -> None:
        assert self._process.stdin
        with self._writing, suppress(OSError, ValueError):
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()

    def release(self) -> None:
        assert self._process.stdin
        with self._writing:
            self._process.stdin.close()
        self._process.wait()


def guard(folder: Path, remove: bool) -> None:
    """Until whoever started us is gone; then end what is left, gently first: PostgreSQL would leave shared memory."""
    left: set[int] = set()
    for line in sys.stdin:
        (left.add if line[0] == "+" else left.discard)(int(line[1:]))
    for number in (signal.SIGINT, signal.SIGKILL):
        for pid in left:
            with suppress(ProcessLookupError):
                os.killpg(pid, number)
        deadline = time.monotonic() + 5
        while left and time.monotonic() < deadline:
            left = {pid for pid in left if _group_is_there(pid)}
            time.sleep(0.05)
    _kill_marked(folder, lambda _: True)
    if remove:
        shutil.rmtree(folder, ignore_errors=True)


def _group_is_there(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.killpg(pid, 0)
        return True
    return False


def _kill_marked(folder: Path, chosen: Callable[[marked.Process], bool]) -> None:
    """Until none is found: one that was just starting may have started another."""
    while found := [one for one in marked.find(folder) if chosen(one)]:
        for one in found:
            with suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGKILL)
        time.sleep(0.02)


@dataclass
class Stack:
    """The running platform. Its parts: postgres, redis, api-1 ..., services, nginx, worker-KEY ..."""

    folder: Path
    pools: Mapping[str, str]
    replicas: int
    programs: Mapping[str, str]
    guardian: Guardian
    python: str = sys.executable
    settings: Mapping[str, str] = field(default_factory=dict)
    password: str = field(default_factory=lambda: secrets.token_urlsafe(16), repr=False)
    ports: dict[str, int] = field(default_factory=dict)
    kept: dict[str, Kept] = field(default_factory=dict)

    # -- addresses

    @property
    def ui_url(self) -> str:
        return f"http://{HOST}:{self.ports['nginx']}"

    @property
    def url(self) -> str:
        """Of the API, as its clients have it: through nginx."""
        return f"{self.ui_url}/api"

    @property
    def auth(self) -> str:
        return f"admin:{self.password}"

    @property
    def database(self) -> str:
        """The URL of Prefect's database, for psycopg and PostgreSQL's own programs."""
        return f"postgresql://{USER}:{self.password}@{HOST}:{self.ports['postgres']}/{DATABASE}"

    @property
    def client(self) -> dict[str, str]:
        """What a client's environment needs."""
        return {"PREFECT_API_URL": self.url, "PREFECT_API_AUTH_STRING": self.auth}

    @property
    def server(self) -> dict[str, str]:
        """What makes several replicas, and services apart from them, one server."""
        redis = f"redis://:{self.password}@{HOST}:{self.ports['redis']}"
        return {
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": self.database.replace("postgresql:", "postgresql+asyncpg:", 1),
            "PREFECT_SERVER_DATABASE_MIGRATE_ON_START": "false",
            "PREFECT_SERVER_EVENTS_MESSAGING_BROKER": "prefect_redis.messaging",
            "PREFECT_SERVER_EVENTS_MESSAGING_CACHE": "prefect_redis.messaging",
            "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
            "PREFECT_SERVER_EVENTS_EXPIRED_BUCKET_BUFFER": "PT15M",  # docs/high-availability.md
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
            "PREFECT_SERVER_WORKER_CHANNEL_CLEANUP_QUEUE_STORAGE": "prefect_redis.cleanup_queue",
            "PREFECT_REDIS_MESSAGING_URL": f"{redis}/0",
            "PREFECT_REDIS_WORKER_CLEANUP_QUEUE_URL": f"{redis}/0",
            "PREFECT_SERVER_DOCKET_URL": f"{redis}/1",
            "PREFECT_SERVER_API_AUTH_STRING": self.auth,
            "PREFECT_API_AUTH_STRING": self.auth,
        }

    # -- starting

    def start(self, names: Iterable[str]) -> None:
        for name in names:
            self.kept[name] = Kept(self.part(name), self)

    def replace(self, name: str, python: str) -> None:
        """The same part from another environment of Python, as a new image would be."""
        self.kept.pop(name).stop()
        self.python = python
        self.start([name])

    def part(self, name: str) -> Part:
        kind, _, which = name.partition("-")
        return {
            "postgres": self._postgres,
            "redis": self._redis,
            "api": self._api,
            "services": self._services,
            "nginx": self._nginx,
            "worker": self._worker,
        }[kind](name, which)

    def _postgres(self, name: str, _: str) -> Part:
        home = self.folder / "postgres"
        listen = ("-c", f"listen_addresses={HOST}", "-c", "max_connections=200")
        command = (self.programs["postgres"], "-D", str(home / "data"), "-p", str(self.ports[name]), "-k", str(home))
        return Part(name, (*command, *listen), {}, signal.SIGINT, postgres_user())

    def _redis(self, name: str, _: str) -> Part:
        return Part(name, (self.programs["redis-server"], str(self.folder / "redis/redis.conf")), {})

    def _nginx(self, name: str, _: str) -> Part:
        command = (
            self.programs["nginx"],
            "-p",
            str(self.folder / "nginx"),
            "-c",
            str(self.folder / "nginx/nginx.conf"),
        )
        return Part(name, command, {})

    def _api(self, name: str, which: str) -> Part:
        words = ("server", "start", "--no-services", "--host", HOST, "--port", str(self.ports[name]))
        blocks = {"PREFECT_SERVER_REGISTER_BLOCKS_ON_START": str(which == "1").lower()}
        return self._prefect(name, words, {**self.server, **blocks})

    def _services(self, name: str, _: str) -> Part:
        return self._prefect(name, ("server", "services", "start"), self.server)

    def _worker(self, name: str, which: str) -> Part:
        pool = ("--pool", self.pools[which], "--type", "process", "--name", name, "--install-policy", "never")
        polling = {"PREFECT_WORKER_QUERY_SECONDS": "3", "PREFECT_WORKER_PREFETCH_SECONDS": "3"}
        temporary = self.folder / "tmp"
        temporary.mkdir(exist_ok=True)
        words = ("worker", "start", *pool, "--no-create-pool-if-not-found")
        return self._prefect(name, words, {**self.client, **polling, "TMPDIR": str(temporary)})

    def _prefect(self, name: str, words: Sequence[str], settings: Mapping[str, str]) -> Part:
        return Part(name, (self.python, "-m", "prefect", *words), {**settings, **self.settings})

    def spawn(self, part: Part) -> subprocess.Popen[bytes]:
        """In a session and a folder of its own, so that it reads no prefect.toml or .env, with its log appended."""
        work = self.folder / "work" / part.name
        for folder in (work, self.folder / "logs"):
            folder.mkdir(parents=True, exist_ok=True)
        with open(self.log(part.name), "ab") as log:
            process = subprocess.Popen(
                part.command,
                cwd=self.folder if part.user else work,
                env={**self.environment(part.name), **part.environment},
                user=part.user,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.guardian.note(process.pid)
        return process

    def environment(self, role: str) -> dict[str, str]:
        """Nothing of the caller's shell but where programs are: no PREFECT_*, no PYTHON*, no proxy."""
        kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TMPDIR") if name in os.environ}
        home = self.folder / "home" / role
        (home / ".prefect").mkdir(parents=True, exist_ok=True)
        return {
            **kept,
            **QUIET,
            "PATH": os.pathsep.join([str(Path(self.python).parent), os.environ.get("PATH", os.defpath)]),
            "HOME": str(home),
            "PREFECT_HOME": str(home / ".prefect"),
            MARK: f"{marked.tag(self.folder)}:stack:{role}",
        }

    def prefect(self, *words: str, settings: Mapping[str, str] | None = None) -> str:
        """Run `prefect WORDS` to its end beside the server, with the server's settings; what it said."""
        environment = {**self.environment("command"), **self.server, **self.settings, **(settings or {})}
        done = subprocess.run(
            [self.python, "-m", "prefect", *words], env=environment, cwd=self.folder, capture_output=True, text=True
        )
        if done.returncode:
            raise StackError(f"`prefect {' '.join(words)}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    # -- looking at it, and waiting

    def log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def tail(self, name: str) -> str:
        log = self.log(name)
        lines = log.read_text(errors="replace").splitlines()[-15:] if log.exists() else []
        return "\n".join([f"The end of {log}:", *(f"    {line}" for line in lines)])

    def ask(self, path: str, body: Mapping[str, object] | None = None, port: int | None = None) -> Any:
        """What the API answers; None if it has no good answer, or none at all."""
        with suppress(OSError, HTTPException, ValueError):
            return self.request("GET" if body is None else "POST", path, body, port)
        return None

    def request(self, method: str, path: str, body: object = None, port: int | None = None, seconds: float = 10) -> Any:
        """Raises OSError or HTTPException where there is no answer, or none that is a success."""
        connection = HTTPConnection(HOST, port or self.ports["nginx"], timeout=seconds)
        credentials = base64.b64encode(self.auth.encode()).decode()
        headers = {"Authorization": f"Basic {credentials}", "Content-Type": "application/json"}
        try:
            connection.request(method, f"/api{path}", None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise HTTPException(f"{method} {path}: {answer.status} {content[:300]!r}")
        return json.loads(content) if content else None

    def wait(
        self,
        what: str,
        ready: Callable[[], object],
        name: str | None = None,
        seconds: float = SECONDS_TO_START,
        pause: float = 0.1,
    ) -> None:
        deadline, resting = time.monotonic() + seconds, threading.Event()
        while not ready():
            if name and self.kept[name].restarts > 2:
                raise StackError(f"{name} ends again and again. {self.tail(name)}")
            if time.monotonic() > deadline:
                raise StackError(f"{what}: not within {seconds:.0f} s. {self.tail(name) if name else ''}")
            resting.wait(pause)

    def wait_for_api(self, name: str) -> None:
        port = self.ports[name]
        self.wait(f"{name} answers", lambda: self.ask("/ready", port=port) is not None, name)

    def wait_for_worker(self, key: str) -> None:
        self.wait(f"the worker of {self.pools[key]} is online", lambda: self.is_online(key), f"worker-{key}")

    def is_online(self, key: str) -> bool:
        found = self.ask(f"/work_pools/{quote(self.pools[key])}/workers/filter", {}) or []
        return any(one["status"] == "ONLINE" for one in found)

    def version(self, name: str) -> str:
        return str(self.request("GET", "/admin/version", port=self.ports[name]))

    # -- ending

    def kill_marked(self, role: str) -> None:
        _kill_marked(self.folder, lambda one: one.role == role)

    def stop(self, names: Iterable[str]) -> None:
        for name in names:
            if kept := self.kept.pop(name, None):
                kept.stop()

    def end(self) -> None:
        """Clients before servers, and both before what they store in."""
        order = ("worker", "nginx", "services", "api", "redis", "postgres")
        for kind in order:
            names = [name for name in self.kept if name.partition("-")[0] == kind]
            threads = [threading.Thread(target=self.kept[name].stop) for name in names]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.kept.clear()


@contextmanager
def running(
    pools: Mapping[str, str] = POOLS,
    replicas: int = 2,
    python: str = sys.executable,
    settings: Mapping[str, str] | None = None,
    keep: Path | None = None,
    serve: bool = True,
    say: marked.Say = marked.silent,
) -> Iterator[Stack]:
    """All but the workers, which need their pools: `start_workers` when a deploy has made those.

    `keep` keeps everything in this folder; else it is a temporary one that goes away. `settings` are Prefect's, for all parts.
    Without `serve` only PostgreSQL and Redis, and an empty database.
    """
    programs = find_programs()
    folder = _folder(keep)
    guardian = Guardian(folder, remove=keep is None)
    stack = Stack(folder, dict(pools), replicas, programs, guardian, python, dict(settings or {}))
    try:
        start_storage(stack)
        if serve:
            start_server(stack, say)
        yield stack
    finally:
        stack.end()
        guardian.release()


def _folder(keep: Path | None) -> Path:
    """A short path: PostgreSQL's socket is in it, and such a path has 107 characters at most."""
    if keep is None:
        folder = Path(tempfile.mkdtemp(prefix="prefect-stack-"))
    else:
        folder = keep.resolve()
        if folder.exists() and any(folder.iterdir()):
            raise StackError(f"{folder} is not empty: name a new folder, or remove it.")
        folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)  # the user postgres passes through
    return folder


def find_programs() -> dict[str, str]:
    from flows.market_data.backups.postgresql import folders_of

    folder = next(iter(folders_of("initdb")), None)
    found = {name: str(folder.joinpath(name).resolve()) if folder else None for name in ("initdb", "postgres")}
    for name in ("redis-server", "nginx"):
        found[name] = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))
    if missing := [name for name, path in found.items() if path is None]:
        advice = "apt install postgresql redis-server nginx-light, or brew install postgresql redis nginx"
        raise StackError(f"Not on this machine: {', '.join(missing)}. Install them: {advice}.")
    return {name: path for name, path in found.items() if path}


def postgres_user() -> str | None:
    """PostgreSQL refuses to run as root."""
    return "postgres" if os.geteuid() == 0 else None


def start_storage(stack: Stack) -> None:
    """PostgreSQL and Redis, both with all that makes them keep what they have confirmed."""
    names = ["postgres", "redis", "nginx", *(f"api-{n}" for n in range(1, stack.replicas + 1))]
    stack.ports = dict(zip(names, free_ports(len(names)), strict=True))
    _prepare_postgres(stack)
    _prepare_redis(stack)
    stack.start(["postgres", "redis"])
    stack.wait("PostgreSQL is ready", lambda: postgres_is_ready(stack), "postgres")
    stack.wait("Redis is ready", lambda: redis_is_ready(stack), "redis")
    _psql(stack, f"CREATE DATABASE {DATABASE}")


def _prepare_postgres(stack: Stack) -> None:
    home, user = stack.folder / "postgres", postgres_user()
    home.mkdir()
    secret = home / "password"
    secret.write_text(stack.password)
    if user:
        for path in (home, secret):
            shutil.chown(path, user)
    words = [
        "-D",
        str(home / "data"),
        "-U",
        USER,
        "-A",
        "scram-sha-256",
        f"--pwfile={secret}",
        "-E",
        "UTF8",
        "--locale=C",
    ]
    subprocess.run(
        [stack.programs["initdb"], *words, "--no-sync"],
        user=user,
        cwd=home,
        env=stack.environment("postgres"),
        check=True,
        capture_output=True,
    )
    secret.unlink()


def _prepare_redis(stack: Stack) -> None:
    """Its append-only file is what queued events and leases survive a restart in."""
    home = stack.folder / "redis"
    home.mkdir()
    lines = [f"bind {HOST}", f"port {stack.ports['redis']}", f"requirepass {stack.password}", f"dir {home}"]
    file = home / "redis.conf"
    file.write_text("\n".join([*lines, "appendonly yes", "appendfsync everysec", 'save ""', ""]))
    file.chmod(0o600)


def _prepare_nginx(stack: Stack) -> None:
    (stack.folder / "nginx").mkdir(exist_ok=True)
    (stack.folder / "logs").mkdir(exist_ok=True)
    apis = [f"server {HOST}:{stack.ports[f'api-{n}']} max_fails=0;" for n in range(1, stack.replicas + 1)]
    text = NGINX.format(
        folder=stack.folder,
        host=HOST,
        port=stack.ports["nginx"],
        servers=" ".join(apis),
        user="user root;" if os.geteuid() == 0 else "",
    )
    (stack.folder / "nginx/nginx.conf").write_text(text)


def start_server(stack: Stack, say: marked.Say = marked.silent) -> None:
    """The migration once, then the replicas, the services and nginx."""
    began = time.monotonic()
    stack.prefect("server", "database", "upgrade", "-y")
    say(f"the database is migrated ({time.monotonic() - began:.1f} s)")
    _prepare_nginx(stack)
    apis = [f"api-{n}" for n in range(1, stack.replicas + 1)]
    stack.start([*apis, "services", "nginx"])
    for name in apis:
        stack.wait_for_api(name)
    stack.wait("nginx answers", lambda: stack.ask("/health"), "nginx")
    say(f"{len(apis)} API replicas answer behind {stack.ui_url} ({time.monotonic() - began:.1f} s)")


def start_workers(stack: Stack, keys: Iterable[str] | None = None, say: marked.Say = marked.silent) -> None:
    began, chosen = time.monotonic(), list(stack.pools if keys is None else keys)
    stack.start(f"worker-{key}" for key in chosen)
    for key in chosen:
        stack.wait_for_worker(key)
    say(f"{len(chosen)} workers are online ({time.monotonic() - began:.1f} s)")


def postgres_is_ready(stack: Stack) -> bool:
    """A password is asked for, so an error that is about anything else than a connection means: it listens."""
    status = stack.folder / "postgres/data/postmaster.pid"
    with suppress(OSError):
        return "ready" in status.read_text()
    return False


def redis_is_ready(stack: Stack) -> bool:
    with suppress(OSError), socket.create_connection((HOST, stack.ports["redis"]), 2) as connection:
        connection.sendall(f"AUTH {stack.password}\r\nPING\r\n".encode())
        connection.settimeout(2)
        return b"PONG" in connection.recv(100) or b"PONG" in connection.recv(100)
    return False


def _psql(stack: Stack, statement: str) -> None:
    import psycopg

    address = stack.database.rsplit("/", 1)[0] + "/postgres"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(statement.encode())


def free_ports(count: int) -> list[int]:
    """All held until all are known, so that none is given twice.

    Below those that the system gives to outgoing connections: one of these would take a port while nobody listens there, before
    its part has started or while it starts again.
    """
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            port = 10_000 + secrets.randbelow(22_000)
            with suppress(OSError):
                held.enter_context(socket.socket()).bind((HOST, port))
                found.append(port)
    return found


if __name__ == "__main__" and sys.argv[1:2] == ["guard"]:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    guard(Path(sys.argv[2]), sys.argv[3] == "1")
