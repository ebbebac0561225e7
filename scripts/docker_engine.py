"""A Docker engine to try things on: the one that runs, else one of our own that is gone afterwards.

Our own needs root and `dockerd`, and nothing from a registry of images: what our images are made from and stand beside is
built here from Debian's packages (infra/compose/standins). Its layers and the wheels stay under .local, for the next time.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from scripts import images
from scripts.images import Docker, ImageError

ROOT = Path(__file__).resolve().parent.parent
STANDINS = ROOT / "infra/compose/standins"
STANDIN = "prefect-platform-standin"
LOCKS = ("infra/images/build.txt", "infra/images/server.txt", "infra/images/worker.txt")
SECONDS_TO_START = 60

Say = Callable[[str], None]


class NoEngine(ImageError):
    """There is no Docker engine, and none can be started here."""


@dataclass(frozen=True)
class Engine:
    """A running engine, and what builds on it need."""

    docker: Docker
    own: bool
    bases: dict[str, str] = field(default_factory=dict)
    """Of our own alone: the stand-in for each public image."""
    pip_conf: Path | None = None

    @property
    def build_network(self) -> str:
        """Ours has no bridge, and its packages are served by this machine. Another's builder may refuse `host`."""
        return "host" if self.own else ""


@contextmanager
def engine(state: Path, say: Say) -> Iterator[Engine]:
    """The engine that DOCKER_HOST or the usual socket leads to, else our own, as long as this lasts."""
    found = images.client()
    if found is None:
        raise NoEngine(
            "no `docker` here can build with BuildKit. Install Docker (apt install docker.io), or its buildx plugin."
        )
    if found.answers():
        say("a Docker engine runs: using it")
        configured = os.environ.get("PIP_CONFIG_FILE")
        yield Engine(found, own=False, pip_conf=Path(configured) if configured else None)
        return
    if host := found.environment.get("DOCKER_HOST"):
        raise NoEngine(f"no Docker engine answers at DOCKER_HOST, {host}. Start it, or unset DOCKER_HOST.")
    with _own(found, state, say) as docker:
        bases = standins(docker, state, say)
        with _wheels(docker, state, say) as pip_conf:
            yield Engine(docker, True, bases, pip_conf)


# -- our own engine

# It ends when its standard input does, also when we are killed; dockerd then stops its containers.
LEASHED = """
import os, signal, subprocess, sys, threading
engine = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
def end_with_the_parent():
    while os.read(0, 1):
        pass
    engine.send_signal(signal.SIGTERM)
    try:
        engine.wait(60)
    except subprocess.TimeoutExpired:
        engine.kill()
    os._exit(0)
threading.Thread(target=end_with_the_parent).start()
engine.wait()
os._exit(engine.returncode)
"""


@contextmanager
def _own(client: Docker, state: Path, say: Say) -> Iterator[Docker]:
    if lacking := _lacking():
        raise NoEngine(f"no Docker engine runs, and one of our own cannot be started here: {lacking}.")
    state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix="engine-", ignore_cleanup_errors=True
    ) as short:  # a socket's path has to be short
        docker = Docker(
            client.program, {**client.environment, "DOCKER_HOST": f"unix://{short}/socket", "DOCKER_CONFIG": short}
        )
        say("no Docker engine runs: starting one of our own")
        process = _start(short, state)
        try:
            _wait(docker, process, state / "dockerd.log")
            _clear(docker)  # of a try that was killed: what was to be restarted came back with the engine
            yield docker
        finally:
            with suppress(ImageError), _deaf_to_ctrl_c():
                _clear(docker)
            say("ending the engine")
            _end(process)


def _lacking() -> str:
    if platform.system() != "Linux":
        return "that takes Linux"
    if os.geteuid() != 0:
        return "that takes root"
    missing = [name for name in ("dockerd", "debootstrap", "iptables") if not _program(name)]
    return f"{' and '.join(missing)} not here (apt install docker.io debootstrap iptables)" if missing else ""


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def _start(short: str, state: Path) -> subprocess.Popen[bytes]:
    """No bridge of its own, no firewall rules: containers meet on Compose's networks, and their ports come by a proxy."""
    options = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--ip-forward=false"]
    places = {"data-root": state / "docker", "exec-root": f"{short}/exec", "pidfile": f"{short}/pid"}
    command = [str(_program("dockerd")), *options, *(f"--{name}={place}" for name, place in places.items())]
    with (state / "dockerd.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", LEASHED, *command, f"--host=unix://{short}/socket", "--log-level=warn"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us, who then end it
        )


def _wait(docker: Docker, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline, pause = time.monotonic() + SECONDS_TO_START, threading.Event()
    while not docker.answers():
        if process.poll() is not None or time.monotonic() > deadline:
            tail = "\n".join(f"    {line}" for line in log.read_text(errors="replace").splitlines()[-8:])
            raise NoEngine(f"no Docker engine runs, and our own did not start. The end of {log}:\n{tail}")
        pause.wait(0.2)


def _clear(docker: Docker) -> None:
    """No container and no network: what is left of an engine that ends with some stays on the machine."""
    if containers := docker.run("ps", "--all", "--quiet").split():
        docker.run("rm", "--force", "--volumes", *containers)
    docker.run("network", "prune", "--force")


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin
    process.stdin.close()
    with _deaf_to_ctrl_c():
        process.wait()


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """What cleans up is not to be broken off half way."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# -- what public images hold, from Debian's packages


def standins(docker: Docker, state: Path, say: Say) -> dict[str, str]:
    """The stand-ins' names. A change of what they are made from makes them anew."""
    suite = _suite()
    parts = b"".join(file.read_bytes() for file in sorted(STANDINS.iterdir())) + suite.encode()
    key = hashlib.sha256(parts).hexdigest()[:12]
    names = {name: f"{STANDIN}-{name}:{key}" for name in _targets()}
    debian = f"{STANDIN}-debian:{suite}"
    for name, image in names.items():
        if _is_there(docker, image):
            continue
        if not _is_there(docker, debian):
            say(f"making a Debian {suite} from its packages (once)")
            _debootstrap(docker, suite, debian, state)
        say(f"making a stand-in for the image {name} (once)")
        words = ["--network", "host", "--build-arg", f"DEBIAN={debian}", "--target", name, "--tag", image]
        docker.run("build", "--quiet", *words, str(STANDINS))
    return names


def _targets() -> list[str]:
    words = [line.split() for line in (STANDINS / "Dockerfile").read_text().splitlines() if line.startswith("FROM ")]
    return [last for *_, last in words if last != "debian"]


def _suite() -> str:
    """This machine's own release, so that the wheels that pip finds here fit there."""
    with suppress(OSError):
        release = platform.freedesktop_os_release()
        if release.get("ID") == "debian" and release.get("VERSION_CODENAME"):
            return release["VERSION_CODENAME"]
    raise NoEngine(
        "images to stand in for the public ones can only be made on Debian. Start a Docker engine that can pull."
    )


def _is_there(docker: Docker, image: str) -> bool:
    return bool(docker.run("image", "ls", "--quiet", image))


def _debootstrap(docker: Docker, suite: str, image: str, state: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="debian-", dir=state) as folder:
        command = [str(_program("debootstrap")), "--variant=minbase", "--include=ca-certificates", suite, folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoEngine(f"debootstrap failed: {(done.stdout + done.stderr).strip().splitlines()[-1]}")
        with subprocess.Popen(["tar", "-C", folder, "-c", "."], stdout=subprocess.PIPE) as tar:
            command = [docker.program, "import", "-", image]
            subprocess.run(
                command, stdin=tar.stdout, env=dict(docker.environment), check=True, stdout=subprocess.DEVNULL
            )


# -- packages: downloaded once by this machine's own pip, with its configuration, and served to the builds


@contextmanager
def _wheels(docker: Docker, state: Path, say: Say) -> Iterator[Path]:
    """A pip.conf that finds what the locks name. The builds get nothing else of this machine's configuration."""
    folder = state / "wheels"
    stamp, wanted = folder / "made-from", "".join(_digest(ROOT / lock) for lock in LOCKS)
    if not stamp.exists() or stamp.read_text() != wanted:
        say("downloading the locked packages (once a lock)")
        _download(folder)
        stamp.write_text(wanted)
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, tempfile.TemporaryDirectory() as scratch:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        conf = Path(scratch, "pip.conf")
        conf.write_text(f"[global]\nno-index = true\nfind-links = http://127.0.0.1:{server.server_port}/\n")
        try:
            yield conf
        finally:
            server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def _download(folder: Path) -> None:
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if not uv:
        raise NoEngine("uv is not here, which gets pip for the downloads. Run `make setup`.")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pip-") as scratch:
        _call([uv, "venv", "--quiet", "--seed", "--python", "/usr/bin/python3", scratch])
        for lock in LOCKS:
            words = [
                "--no-deps",
                "--require-hashes",
                "--only-binary",
                ":all:",
                "--dest",
                folder,
                "--requirement",
                ROOT / lock,
            ]
            _call([f"{scratch}/bin/pip", "download", "--quiet", *words])


def _call(command: Sequence[object]) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join(f"    {line}" for line in done.stderr.strip().splitlines()[-5:])
        raise NoEngine(f"`{Path(str(command[0])).name} {command[1]}` failed:\n{said}")


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
