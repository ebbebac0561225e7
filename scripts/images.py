"""Build the images of infra/images/Dockerfile from the last commit, and label them with it.

    python scripts/images.py [server] [worker] [flows] [--prefix ghcr.io/team/prefect-platform-] [--tag TAG] [--dirty] [--network NAME]

What is built is the commit, not the work tree, which has to be clean so that nobody is surprised. PYTHON_IMAGE in the
environment is the base image, PIP_CONFIG_FILE a pip.conf for the build alone: neither is left in the image.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGETS = ("server", "worker", "flows")
PREFIX = "prefect-platform-"


class ImageError(Exception):
    """No image, in words."""


@dataclass(frozen=True)
class Docker:
    """A client that can build, and the environment that leads it to its engine."""

    program: str
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def run(self, *words: str, stdin: bytes | None = None) -> str:
        """What it printed. An error ends with the last lines of what it said."""
        command = [self.program, *words]
        environment = {**self.environment, "DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain"}
        done = subprocess.run(command, input=stdin, capture_output=True, env=environment, check=False)
        if done.returncode:
            said = (done.stderr + done.stdout).decode(errors="replace").strip().splitlines()[-12:]
            raise ImageError(
                f"`docker {' '.join(words[:3])} ...` ended with {done.returncode}:\n"
                + "\n".join(f"    {line}" for line in said)
            )
        return done.stdout.decode(errors="replace").strip()

    def answers(self) -> bool:
        command = [self.program, "version", "--format", "{{.Server.Version}}"]
        done = subprocess.run(command, capture_output=True, env=dict(self.environment), check=False, timeout=30)
        return done.returncode == 0


def client(environment: Mapping[str, str] | None = None) -> Docker | None:
    """The first `docker` of the PATH that can build with BuildKit: with buildx, or so old that it has BuildKit inside."""
    known = dict(os.environ if environment is None else environment)
    for folder in dict.fromkeys(known.get("PATH", os.defpath).split(os.pathsep)):
        if program := shutil.which("docker", path=folder):
            if _says(program, "buildx", "version", environment=known) is not None:
                return Docker(program, known)
            version = re.search(r"version (\d+)\.", _says(program, "--version", environment=known) or "")
            if version and int(version[1]) < 23:
                return Docker(program, known)
    return None


def _says(program: str, *words: str, environment: Mapping[str, str]) -> str | None:
    done = subprocess.run([program, *words], capture_output=True, text=True, env=dict(environment), check=False)
    return done.stdout if done.returncode == 0 else None


@dataclass(frozen=True)
class Content:
    """What goes into an image: the commit it is called by, and the files."""

    commit: str
    files: bytes | None
    """A tar of the commit; None: the work tree as it is."""


def content(root: Path, dirty: bool) -> Content:
    commit = git(root, "rev-parse", "--verify", "HEAD^{commit}").decode().strip()
    changed = git(root, "status", "--porcelain").decode().splitlines()
    if changed and not dirty:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise ImageError(
            f"{changed[0][3:]}{more} differ from the commit {commit[:12]}. Commit them, or build the work tree as it is with --dirty: "
            "its images are labelled so."
        )
    return (
        Content(f"{commit}-dirty", None) if changed else Content(commit, git(root, "archive", "--format=tar", commit))
    )


def git(root: Path, *words: str) -> bytes:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, check=False)
    if done.returncode:
        raise ImageError(f"`git {' '.join(words)}` failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def build(
    docker: Docker,
    root: Path,
    what: Content,
    target: str,
    name: str,
    *,
    base: str = "",
    pip_conf: Path | None = None,
    network: str = "",
) -> None:
    """One image. `base`: the Python image, the Dockerfile's own where it is empty. `network`: of its steps, else the builder's own."""
    words = ["build", "--file", "infra/images/Dockerfile", "--target", target, "--tag", name]
    words += ["--build-arg", f"COMMIT={what.commit}", "--build-arg", f"SOURCE={source(root)}"]
    words += ["--network", network] if network else []  # not every builder allows `host`
    words += ["--build-arg", f"PYTHON_IMAGE={base}"] if base else []
    words += ["--secret", f"id=pip.conf,src={pip_conf}"] if pip_conf else []
    if what.files is None:
        words[words.index("--file") + 1] = str(root / "infra/images/Dockerfile")
        docker.run(*words, str(root))
    else:
        docker.run(*words, "-", stdin=what.files)


def source(root: Path) -> str:
    """Where the code is from: the remote's address, without a credential in it."""
    done = subprocess.run(
        ["git", "-C", str(root), "remote", "get-url", "origin"], capture_output=True, text=True, check=False
    )
    return re.sub(r"//[^@/]*@", "//", done.stdout.strip()) if done.stdout.startswith(("https://", "git@")) else ""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="server, worker, flows; none named: all three")
    parser.add_argument("--prefix", default=PREFIX, help="what the image's name begins with (default: %(default)s)")
    parser.add_argument("--tag", default="", help="default: sha-<the commit's full SHA>; each is also tagged `latest`")
    parser.add_argument("--dirty", action="store_true", help="build the work tree, with changes that are not committed")
    parser.add_argument(
        "--network",
        default="",
        metavar="NAME",
        help="of the build's steps: `host`, where a package index is on this machine",
    )
    words = parser.parse_args(arguments)
    if unknown := set(words.targets) - set(TARGETS):
        parser.error(f"no target has the name {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    try:
        for line in build_all(words.targets or TARGETS, words.prefix, words.tag, words.dirty, words.network):
            print(line, flush=True)
        return 0
    except ImageError as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("images: interrupted", file=sys.stderr)
        return 130


def build_all(targets: Sequence[str], prefix: str, tag: str, dirty: bool, network: str = "") -> list[str]:
    """Build them; a line for each, with its size."""
    docker, what = found_client(), content(ROOT, dirty)
    configured = os.environ.get("PIP_CONFIG_FILE")
    lines = []
    for target in targets:
        name = f"{prefix}{target}:{tag or f'sha-{what.commit}'}"
        print(f"building {name}", file=sys.stderr, flush=True)
        build(
            docker,
            ROOT,
            what,
            target,
            name,
            base=os.environ.get("PYTHON_IMAGE", ""),
            pip_conf=Path(configured) if configured else None,
            network=network,
        )
        docker.run("tag", name, f"{prefix}{target}:latest")
        lines.append(f"{name}  {megabytes(docker, name)}")
    return lines


def found_client() -> Docker:
    docker = client()
    if docker is None:
        raise ImageError("no `docker` here can build with BuildKit. Install Docker, or its buildx plugin.")
    if not docker.answers():
        raise ImageError("no Docker engine answers. Start it, or set DOCKER_HOST; `docker version` says more.")
    return docker


def megabytes(docker: Docker, name: str) -> str:
    return f"{int(docker.run('image', 'inspect', '--format', '{{.Size}}', name)) // 1_000_000} MB"


if __name__ == "__main__":
    sys.exit(main())
