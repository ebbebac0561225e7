"""Bring the Compose dev stack up for real: build the images, deploy the last commit, run flows in the pools' workers, take all down.

Uses the Docker engine that runs; where none does, and this is root on Debian, starts one of its own (scripts/docker_engine.py). What
is tried is a scratch clone of the last commit. Images and wheels stay in .local/compose-test for the next time; nothing else does.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.request import ProxyHandler, Request, build_opener

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts import images  # noqa: E402
from scripts.docker_engine import Engine, NoEngine, engine  # noqa: E402
from scripts.images import Content, ImageError  # noqa: E402
from scripts.infra_setup import find  # noqa: E402

PROJECT = "prefect-compose-test"
TAG = "compose-test"
ENVIRONMENT = "environments/dev.yaml"
SECONDS_TO_COME_UP = 300
END_TO_END = "sample-end-to-end"
PROBE = "flows/examples/probe.py"
PROBE_TEXT = '''"""Says what it is. Only in the clone that compose_test.py makes."""

from prefect import flow


@flow(log_prints=True)
def probe() -> None:
    print("probe: as committed")
'''
PROBE_ENTRY = f"\n- {{name: probe, entrypoint: {PROBE}:probe, pool: analytics}}\n"


class TestError(Exception):
    """It does not work, in words."""

    __test__ = False


@dataclass(frozen=True)
class Stack:
    """The dev stack of a clone: its Compose project, and where its API is."""

    engine: Engine
    clone: Path
    variables: Mapping[str, str]

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.variables['API_PORT']}/api"

    def compose(self, *words: str, check: bool = True) -> str:
        """Compose on this stack's files. An error ends with the last lines of what it said."""
        files = [f"--file={self.clone}/infra/compose/docker-compose{part}.yml" for part in ("", ".dev")]
        command = [*compose_program(self.engine), "--project-name", PROJECT, *files, *words]
        environment = {**clean_environment(), **self.engine.docker.environment, **self.variables, "NO_COLOR": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if check and done.returncode:
            said = "\n".join(f"    {line}" for line in done.stderr.strip().splitlines()[-10:])
            raise TestError(f"`docker compose {words[0]}` ended with {done.returncode}:\n{said}")
        return done.stdout

    def deploy(self, verb: str, *words: str) -> str:
        """A command of the engine's, as a user types it in the clone."""
        tool = [
            sys.executable,
            str(ROOT / "scripts/deploy.py"),
            verb,
            "--env",
            "dev",
            "--repo",
            str(self.clone),
            *words,
        ]
        environment = {**clean_environment(), "PREFECT_API_URL": self.api, "REPOSITORY_URL": str(self.clone)}
        done = subprocess.run(tool, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            said = "\n".join(f"    {line}" for line in (done.stdout + done.stderr).strip().splitlines()[-15:])
            raise TestError(f"`deploy.py {verb} --env dev {' '.join(words)}` ended with {done.returncode}:\n{said}")
        return done.stdout + done.stderr

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.api}{path}", data, {"Content-Type": "application/json"})
        with build_opener(ProxyHandler({})).open(request, timeout=30) as answer:
            return json.load(answer)

    def git(self, *words: str) -> str:
        author = ("-c", "user.name=Test", "-c", "user.email=test@localhost", "-c", "core.hooksPath=/dev/null")
        return images.git(self.clone, *author, *words).decode().strip()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--state", type=Path, default=ROOT / ".local/compose-test", metavar="DIR", help="default: %(default)s"
    )
    state = parser.parse_args(arguments).state.resolve()
    signal.signal(signal.SIGTERM, _stop)
    began = time.monotonic()
    try:
        play(state)
        say(f"all of it in {time.monotonic() - began:.0f} s")
        return 0
    except NoEngine as error:
        print(f"compose-test: NOT TRIED: {error}", file=sys.stderr)
        return 1
    except (TestError, ImageError) as error:
        print(f"compose-test: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("compose-test: interrupted; everything was taken down", file=sys.stderr)
        return 130


def play(state: Path) -> None:
    with engine(state, say) as found, clone(state) as folder:
        commit = images.git(folder, "rev-parse", "HEAD").decode().strip()
        build(found, folder, commit)
        the_images_hold_what_they_say(found, folder, commit)
        with up(found, folder) as stack:
            deploys_and_runs(stack, commit)
            an_edit_is_seen_at_once(stack)
            the_rest_is_well(stack)


# -- what is tried


def the_images_hold_what_they_say(found: Engine, folder: Path, commit: str) -> None:
    """The labels' commit, nobody's root, a health check; flows in the flows' image only, all of them, and they import."""
    for target in images.TARGETS:
        told = json.loads(found.docker.run("image", "inspect", image(target)))[0]["Config"]
        labels = told["Labels"]
        if (labels["org.opencontainers.image.revision"], told["User"]) != (commit, "10001:10001") or not told[
            "Healthcheck"
        ]:
            raise TestError(
                f"the image {target} is of {labels}, for the user {told['User']}, checked by {told['Healthcheck']}."
            )
    for target in ("worker", "server"):
        inside(found, target, "import importlib.util as u; assert not u.find_spec('flows')")
    wanted = images.git(folder, "ls-tree", "-r", "--name-only", commit, "flows/").decode().split()
    there = inside(found, "flows", LISTED).split()
    if missing := {name for name in wanted if not name.endswith("requirements.in")} - set(there):
        raise TestError(f"the flows' image lacks {', '.join(sorted(missing))}.")
    names = inside(found, "flows", IMPORTED).split()
    say(f"the images hold what they say: {len(there)} files of flows, {len(names)} entrypoints import")


def inside(found: Engine, target: str, code: str) -> str:
    """What the code prints in a container as the platforms start it: no root, nothing writable but /tmp and the home."""
    words = ["--rm", "--network", "none", "--read-only", "--cap-drop", "ALL", "--workdir", "/opt"]
    words += ["--tmpfs", "/tmp", "--tmpfs", "/home/prefect:uid=10001,gid=10001"]
    return found.docker.run("run", *words, image(target), "python", "-c", code)


LISTED = """
from pathlib import Path
root = Path("/opt/flows")
print(*(p.relative_to(root) for p in (root / "flows").rglob("*") if p.is_file() and p.suffix != ".pyc"))
"""
IMPORTED = """
import os, yaml
from pathlib import Path
from prefect.flows import load_flow_from_entrypoint
os.chdir("/opt/flows")
for file in Path("flows").rglob("deployments.yaml"):
    for entry in yaml.safe_load(file.read_text()):
        print(load_flow_from_entrypoint(entry["entrypoint"]).name.replace(" ", "-"))
"""


def deploys_and_runs(stack: Stack, commit: str) -> None:
    """By the environment file as it is: the pools come from it, the code from a clone of the commit."""
    say(f"deploying {commit[:12]} to dev, into an empty Prefect")
    say(next(line for line in stack.deploy("apply").splitlines() if line.startswith("Release ")))
    say(f"running {END_TO_END}: it starts runs in all three pools")
    stack.deploy("run", END_TO_END)
    ran_in_its_worker(stack, commit)


def ran_in_its_worker(stack: Stack, commit: str) -> None:
    """Every deployment's run: it ended well, is of the commit, and the worker of its pool says that it took it."""
    runs = [run for run in stack.ask("/flow_runs/filter", {"sort": "START_TIME_ASC"}) if run["deployment_id"]]
    pools = {pool_of(stack, name): stack.compose("logs", "--no-log-prefix", name) for name in workers(stack)}
    for run in runs:
        pool, state, version = run["work_pool_name"], run["state_type"], run["deployment_version"]
        say(f"  {pool}: {run['name']} {state}, of commit {str(version)[:12]}")
        if (state, version) != ("COMPLETED", commit):
            raise TestError(f"expected COMPLETED and commit {commit}, found {state} and {version}.")
        if f"'{run['id']}'" not in pools[pool]:
            raise TestError(
                f"the worker of {pool} does not speak of the run {run['id']}. It says:\n{pools[pool][-1500:]}"
            )
    if missing := set(pools) - {run["work_pool_name"] for run in runs}:
        raise TestError(f"no run came to {', '.join(sorted(missing))}.")


def an_edit_is_seen_at_once(stack: Stack) -> None:
    """With `source: {strategy: local, ..., directory: /opt/flows}`: saved is enough, no commit and no deploy."""
    say("the same with the code from the mounted folder: commit, deploy, run, edit, run")
    environment, catalogue = stack.clone / ENVIRONMENT, stack.clone / "flows/examples/deployments.yaml"
    local = "source: {strategy: local, repository: '${REPOSITORY_URL}', directory: /opt/flows}\n"
    text = environment.read_text()
    environment.write_text(re.sub(r"(?m)^source:\n(?:[ #].*\n)+", lambda _: local, text))
    catalogue.write_text(catalogue.read_text() + PROBE_ENTRY)
    (stack.clone / PROBE).write_text(PROBE_TEXT)
    stack.git("add", ".")
    stack.git("commit", "--quiet", "--message", "Take the code from the mounted folder")
    stack.deploy("apply")
    before = stack.deploy("run", "probe")
    (stack.clone / PROBE).write_text(PROBE_TEXT.replace("as committed", "as edited"))
    after = stack.deploy("run", "probe")
    for text, output in (("probe: as committed", before), ("probe: as edited", after)):
        if text not in output:
            raise TestError(f"expected a run that prints '{text}'. It printed:\n{output}")
        say(f"  {text}")


def the_rest_is_well(stack: Stack) -> None:
    """Backup, restart, metrics: what nobody looks at until it is needed."""
    before = stack.compose("exec", "-T", "backup", "bash", "/opt/backup.sh", "once").strip()
    say(f"backup: {before.splitlines()[0]}")
    say("down and up again: what was deployed is still there")
    count = len(stack.ask("/deployments/filter", {}))
    stack.compose("down", "--timeout", "10")
    start(stack)
    if (found := len(stack.ask("/deployments/filter", {}))) != count or not count:
        raise TestError(f"there were {count} deployments before the restart, and there are {found} after it.")
    with build_opener(ProxyHandler({})).open(stack.api.removesuffix("api"), timeout=30) as page:
        if b"<title>Prefect" not in page.read():
            raise TestError("the API's address shows no UI.")
    if "secret" not in {one["slug"] for one in stack.ask("/block_types/filter", {})}:
        raise TestError("Prefect does not know the block type `secret`: `migrate` did not register any.")
    metrics = stack.compose("exec", "-T", "exporter", "python", "-c", METRICS)
    if "prefect_platform_api_up 1.0" not in metrics.splitlines():
        raise TestError(f"the exporter does not reach the API. It says:\n{metrics[:500]}")
    say("  the exporter reads the API")


METRICS = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9464/metrics').read().decode())"


# -- the stack


@contextmanager
def clone(state: Path) -> Iterator[Path]:
    """A clone of the last commit, as branch main, whatever branch or state the repository is in."""
    folder = state / "clone" / ROOT.name
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.parent.mkdir(parents=True)
    if images.git(ROOT, "status", "--porcelain"):
        say("your work tree has changes that are not committed: trying the last commit, without them")
    head = images.git(ROOT, "rev-parse", "--verify", "HEAD^{commit}").decode().strip()
    try:
        images.git(ROOT, "clone", "--quiet", "--no-tags", "--no-checkout", "--no-hardlinks", str(ROOT), str(folder))
        images.git(folder, "checkout", "--quiet", "-B", "main", head)
        yield folder
    finally:
        shutil.rmtree(folder.parent, ignore_errors=True)


def build(found: Engine, folder: Path, commit: str) -> None:
    what = Content(commit, images.git(folder, "archive", "--format=tar", commit))
    for target in images.TARGETS:
        began, name = time.monotonic(), image(target)
        base = found.bases.get("python", os.environ.get("PYTHON_IMAGE", ""))
        images.build(found.docker, folder, what, target, name, base=base, pip_conf=found.pip_conf)
        say(f"built {name} in {time.monotonic() - began:.0f} s, {images.megabytes(found.docker, name)}")


def image(target: str) -> str:
    return f"{images.PREFIX}{target}:{TAG}"


@contextmanager
def up(found: Engine, folder: Path) -> Iterator[Stack]:
    """The stack from nothing, and back to nothing, whatever happens in between."""
    stack = Stack(found, folder, settings(found, folder))
    stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "5")  # of a try that was killed
    try:
        if stack.engine.own:
            say("not tried: grafana, for which there is no package in Debian")
        say(f"starting {', '.join(services(stack))}")
        start(stack)
        yield stack
    finally:
        say("taking it down")
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "10")
        found.docker.run("image", "prune", "--force")
        signal.signal(signal.SIGINT, before)


def start(stack: Stack) -> None:
    began = time.monotonic()
    words = ["up", "--detach", "--wait", "--wait-timeout", str(SECONDS_TO_COME_UP), "--no-build"]
    try:
        stack.compose(*words, *services(stack))
    except TestError as error:
        raise TestError(f"{error}\n{troubles(stack)}") from None
    say(f"  all healthy in {time.monotonic() - began:.0f} s")


def settings(found: Engine, folder: Path) -> dict[str, str]:
    ports = dict(zip(("API_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT", "GRAFANA_PORT"), free_ports(4), strict=True))
    ours = {"SERVER_IMAGE": image("server"), "WORKER_IMAGE": image("worker"), "CHECKOUT": str(folder)}
    return {**ports, **ours, **{f"{name.upper()}_IMAGE": base for name, base in found.bases.items()}}


def free_ports(count: int) -> list[str]:
    """Ports that nobody listens on at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [str(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def services(stack: Stack) -> list[str]:
    """All, but those of our own engine that nothing can stand in for."""
    without = {"grafana"} if stack.engine.own else set()
    return sorted(set(stack.compose("config", "--services").split()) - without)


def workers(stack: Stack) -> list[str]:
    return [name for name in stack.compose("config", "--services").split() if name.startswith("worker-")]


def pool_of(stack: Stack, worker: str) -> str:
    found = json.loads(stack.compose("config", "--format", "json"))["services"][worker]
    return str(found["environment"]["WORK_POOL"])


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


def say(line: str) -> None:
    print(line, flush=True)


def _stop(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
