"""One environment's Compose stack, of a clone's files and of images built from it: up from nothing, asked and deployed to, and down again.

What a machine with dev, QA or prod has beside the checkout is made for the test: secrets by infra/compose/secrets.sh, a certificate
of its own for `localhost`, free ports.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts import images  # noqa: E402
from scripts.docker_engine import Engine, NoEngine  # noqa: E402
from scripts.infra_setup import find  # noqa: E402
from scripts.stack import free_ports  # noqa: E402

PROJECT = "prefect-compose-test"
TAG = "compose-test"
SECONDS_TO_COME_UP = 300
RESULTS = "remote-file-system/results"
OTHERS = ("slack-webhook-url", "pagerduty-routing-key", "smtp-password")
"""Secrets that `secrets.sh` asks for and cannot make."""

WORKERS = ("worker-ingestion", "worker-analytics", "worker-maintenance")


class TestError(Exception):
    """It does not work, in words."""

    __test__ = False


@dataclass(frozen=True)
class Stack:
    """The Compose project of one environment (dev, qa, prod)."""

    engine: Engine
    clone: Path
    env: str
    files: tuple[Path, ...]
    variables: Mapping[str, str]
    """What the environment's file (.env) would hold."""

    client: Mapping[str, str]
    """What a client's environment needs: PREFECT_API_URL, in qa and prod the password, in prod the certificate."""

    @property
    def api(self) -> str:
        return self.client["PREFECT_API_URL"]

    @property
    def auth(self) -> str:
        return self.client.get("PREFECT_API_AUTH_STRING", "")

    def compose(self, *words: str, check: bool = True) -> str:
        """Compose on this stack's files. An error ends with the last lines of what it said."""
        files = [f"--file={file}" for file in self.files]
        command = [*compose_program(self.engine), "--project-name", f"{PROJECT}-{self.env}", *files, *words]
        environment = {**clean_environment(), **self.engine.docker.environment, **self.variables, "NO_COLOR": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if check and done.returncode:
            said = "\n".join(f"    {line}" for line in done.stderr.strip().splitlines()[-10:])
            raise TestError(f"`docker compose {words[0]}` ended with {done.returncode}:\n{said}")
        return done.stdout

    def deploy(self, verb: str, *words: str) -> str:
        """A command of the engine's, as a user types it in the clone."""
        return self.call("scripts/deploy.py", verb, "--env", self.env, "--repo", str(self.clone), *words)

    def call(self, script: str, *words: str) -> str:
        command = [sys.executable, str(ROOT / script), *words]
        environment = {**clean_environment(), **self.client, "REPOSITORY_URL": str(self.clone)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            said = "\n".join(f"    {line}" for line in (done.stdout + done.stderr).strip().splitlines()[-15:])
            raise TestError(f"`{Path(script).name} {' '.join(words)}` ended with {done.returncode}:\n{said}")
        return done.stdout + done.stderr

    def ask(self, path: str, body: Any = None) -> Any:
        return json.loads(self.fetch(f"{self.api}{path}", body))

    def fetch(self, address: str, body: Any = None, auth: str | None = None) -> bytes:
        """Raises HTTPError, which is an OSError, where the answer is no success. `auth`: another than the stack's."""
        headers = {"Content-Type": "application/json"}
        if credentials := self.auth if auth is None else auth:
            headers["Authorization"] = f"Basic {base64.b64encode(credentials.encode()).decode()}"
        trusted = ssl.create_default_context(cafile=self.client.get("SSL_CERT_FILE"))
        opener = build_opener(ProxyHandler({}), HTTPSHandler(context=trusted))
        data = None if body is None else json.dumps(body).encode()
        with opener.open(Request(address, data, headers), timeout=30) as answer:
            return bytes(answer.read())

    def git(self, *words: str) -> str:
        author = ("-c", "user.name=Test", "-c", "user.email=test@localhost", "-c", "core.hooksPath=/dev/null")
        return images.git(self.clone, *author, *words).decode().strip()


# -- what it is made of


def describe(found: Engine, clone: Path, env: str, scratch: Path) -> Stack:
    """The stack of an environment, with what its machine would have written into `scratch`."""
    files = [clone / f"infra/compose/docker-compose{part}.yml" for part in ("", f".{env}")]
    named = {"SERVER_IMAGE": image("server"), "WORKER_IMAGE": image("worker"), "CHECKOUT": str(clone)}
    named |= {f"{name.upper()}_IMAGE": base for name, base in found.bases.items()}
    if env == "dev":
        ports = ports_for("API_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT", "GRAFANA_PORT")
        client = {"PREFECT_API_URL": f"http://127.0.0.1:{ports['API_PORT']}/api"}
        return Stack(found, clone, env, tuple(files), {**named, **ports}, client)
    secrets = make_secrets(clone, scratch / "secrets")
    cpus = str(min(4, os.cpu_count() or 1))
    named |= {"SECRETS": str(secrets), "RESULT_STORAGE_BLOCK": RESULTS, "POSTGRES_CPUS": cpus, "WORKER_CPUS": cpus}
    password = (secrets / "prefect-api-password").read_text()
    variables, client = _reached_as_prod(secrets) if env == "prod" else _reached_as_qa()
    client["PREFECT_API_AUTH_STRING"] = f"admin:{password}"
    return Stack(found, clone, env, (*files, commits_seen_by_workers(clone, scratch)), {**named, **variables}, client)


def _reached_as_qa() -> tuple[dict[str, str], dict[str, str]]:
    ports = ports_for("API_PORT", "GRAFANA_PORT")
    address = f"http://127.0.0.1:{ports['API_PORT']}"
    return {**ports, "PUBLIC_URL": address}, {"PREFECT_API_URL": f"{address}/api"}


def _reached_as_prod(secrets: Path) -> tuple[dict[str, str], dict[str, str]]:
    certificate = make_certificate(secrets)
    ports = ports_for("HTTPS_PORT", "HTTP_PORT", "GRAFANA_PORT")
    host = f"localhost:{ports['HTTPS_PORT']}"
    return {**ports, "PUBLIC_HOST": host}, {"PREFECT_API_URL": f"https://{host}/api", "SSL_CERT_FILE": str(certificate)}


def make_secrets(clone: Path, folder: Path) -> Path:
    subprocess.run([clone / "infra/compose/secrets.sh", folder], check=True, capture_output=True)
    for name in OTHERS:
        (folder / name).write_text("http://127.0.0.1:9/")  # alerts go nowhere from here
        (folder / name).chmod(0o444)
    return folder


def make_certificate(folder: Path) -> Path:
    """For `localhost`, signed by itself."""
    certificate, key = folder / "tls-certificate", folder / "tls-key"
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *words], check=True, capture_output=True)
    for file in (certificate, key):
        file.chmod(0o444)
    return certificate


def commits_seen_by_workers(clone: Path, scratch: Path) -> Path:
    """In place of a Git host: an overlay that shows the clone's commits at the same path in the workers, as dev does."""
    seen = [f"{clone}/.git:{clone}/.git:ro", f"{clone}/infra/compose/dev/gitconfig:/etc/gitconfig:ro"]
    overlay = scratch / "commits.yml"
    overlay.write_text(json.dumps({"services": {worker: {"volumes": seen} for worker in WORKERS}}))
    return overlay


def image(target: str) -> str:
    return f"{images.PREFIX}{target}:{TAG}"


def ports_for(*names: str) -> dict[str, str]:
    return dict(zip(names, map(str, free_ports(len(names))), strict=True))


# -- up and down


@contextmanager
def up(found: Engine, clone: Path, env: str, scratch: Path, say: Callable[[str], None]) -> Iterator[Stack]:
    """The stack from nothing, and back to nothing, whatever happens in between."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    stack = describe(found, clone, env, scratch)
    stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "5")  # of a try that was killed
    try:
        if found.own:
            say("not tried: grafana, for which there is no package in Debian")
        say(f"starting {', '.join(services(stack))}")
        start(stack, say)
        yield stack
    finally:
        say(f"taking {env} down")
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "10")
        found.docker.run("image", "prune", "--force")
        shutil.rmtree(scratch, ignore_errors=True)
        signal.signal(signal.SIGINT, before)


def start(stack: Stack, say: Callable[[str], None]) -> None:
    began = time.monotonic()
    words = ["up", "--detach", "--wait", "--wait-timeout", str(SECONDS_TO_COME_UP), "--no-build"]
    try:
        stack.compose(*words, *services(stack))
    except TestError as error:
        raise TestError(f"{error}\n{troubles(stack)}") from None
    say(f"  all healthy in {time.monotonic() - began:.0f} s")


def services(stack: Stack) -> list[str]:
    """All, but those of our own engine that nothing can stand in for."""
    without = {"grafana"} if stack.engine.own else set()
    return sorted(set(stack.compose("config", "--services").split()) - without)


def logs_by_pool(stack: Stack) -> dict[str, str]:
    """What the worker of each work pool has said."""
    found = json.loads(stack.compose("config", "--format", "json"))["services"]
    pools = {found[worker]["environment"]["WORK_POOL"]: worker for worker in WORKERS}
    return {pool: stack.compose("logs", "--no-log-prefix", worker) for pool, worker in pools.items()}


def troubles(stack: Stack) -> str:
    """The last words of every container that is not well."""
    rows = [json.loads(line) for line in stack.compose("ps", "--all", "--format", "json", check=False).splitlines()]
    sick = [
        row for row in rows if row["Health"] not in ("", "healthy") or (row["State"], row["ExitCode"]) == ("exited", 1)
    ]
    parts = [
        f"{row['Service']} is {row['Status']}:\n{stack.compose('logs', '--no-log-prefix', '--tail', '15', row['Service'], check=False)}"
        for row in sick
    ]
    return "\n".join(parts)


def compose_program(found: Engine) -> list[str]:
    environment = {**os.environ, **found.docker.environment}
    if images._says(found.docker.program, "compose", "version", environment=environment) is not None:
        return [found.docker.program, "compose"]
    program = find("docker-compose")
    if not program:
        raise NoEngine("Compose is not here. Run `make infra-setup`, or install Docker's compose plugin.")
    return [program]


def clean_environment() -> dict[str, str]:
    """Without the user's PREFECT_* variables: this never meets a real API."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "GITHUB_", "COMPOSE_"))}
