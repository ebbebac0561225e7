"""Scratch git repositories in the shape that the deploy engine works on.

repo = Repo(tmp_path / "repo")                        # environments/dev.yaml, one flow, one deployment; committed
sha = repo.commit("Slower", {"flows/alpha/deployments.yaml": deployments(schedules=[])})
repo.tag("v1.0.0")
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

HELLO = """\
from prefect import flow


@flow
def hello(name: str = "x", count: int = 1):
    for _ in range(count):
        print(f"hello {name}")
"""

# No hooks, no signatures, and no work in the background that outlives a test.
QUIET = ("-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false", "-c", "tag.gpgSign=false", "-c", "gc.auto=0")
FIRST_COMMIT = 1_700_000_000


def environment(
    name: str = "dev",
    *,
    mode: str = "development",
    branches: Sequence[str] = ("main",),
    tags: Sequence[str] = (),
    pools: Sequence[str] = ("alpha",),
    repository: str = "https://git.example.invalid/team/scratch.git",
    **more: Any,
) -> str:
    """The text of environments/NAME.yaml. `pools` are keys; the pool of `alpha` is called `dev-alpha`. `more`: other
    keys, which replace these."""
    data: dict[str, Any] = {
        "name": name,
        "mode": mode,
        "api": {"url": "${PREFECT_API_URL}"},
        "refs": {"branches": list(branches), "tags": list(tags)},
        "source": {"strategy": "git", "repository": repository},
        "work_pools": {pool: {"name": f"{name}-{pool}", "type": "process"} for pool in pools},
    }
    return yaml.safe_dump({**data, **more}, sort_keys=False)


def deployments(*others: Mapping[str, Any], **changes: Any) -> str:
    """The text of a deployments.yaml: `hello`, with these keys changed, and whatever others are given."""
    hello: dict[str, Any] = {
        "name": "hello",
        "entrypoint": "flows/alpha/hello.py:hello",
        "pool": "alpha",
        "schedules": [{"slug": "evening", "cron": "0 20 * * 1-5", "timezone": "America/Chicago"}],
        "parameters": {"name": "world"},
        "tags": ["greeting"],
    }
    return yaml.safe_dump([{**hello, **changes}, *map(dict, others)], sort_keys=False)


def default_files() -> dict[str, str]:
    return {
        "environments/dev.yaml": environment(),
        "flows/alpha/hello.py": HELLO,
        "flows/alpha/deployments.yaml": deployments(),
    }


class Repo:
    """A git repository at `path`, on branch main, with the files given (default: `default_files`) committed.

    Commits are a minute apart and by a fixed author: the same content has the same SHA in every run.
    """

    def __init__(self, path: Path, files: Mapping[str, str] | None = None) -> None:
        self.path = path
        self._commits = 0
        path.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main", "--template=")
        self.commit("First commit", default_files() if files is None else files)

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD")

    @property
    def url(self) -> str:
        """For cloning: a file URL, so that git does not take a short cut through the file system."""
        return self.path.as_uri()

    def write(self, files: Mapping[str, str | None]) -> None:
        """Change the work tree only; None removes a file."""
        for name, text in files.items():
            file = self.path / name
            if text is None:
                file.unlink()
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    def commit(self, message: str = "Change", files: Mapping[str, str | None] | None = None) -> str:
        """Write the files and commit the whole work tree; the new SHA."""
        self.write(files or {})
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.head

    def tag(self, name: str, at: str = "HEAD", *, annotated: bool = False) -> str:
        """Tag a commit; its SHA."""
        self.git("tag", *(["--annotate", "--message", name] if annotated else []), name, at)
        return self.git("rev-parse", f"{at}^{{commit}}")

    def branch(self, name: str, at: str = "HEAD") -> None:
        """Create the branch and switch to it."""
        self.git("switch", "--quiet", "--create", name, at)

    def switch(self, name: str) -> None:
        self.git("switch", "--quiet", *(["--detach"] if len(name) == 40 else []), name)

    def git(self, *arguments: str) -> str:
        """What git says on stdout; what it says on stderr if it fails."""
        if arguments[0] == "commit":
            self._commits += 1
        done = subprocess.run(
            ["git", *QUIET, *arguments], cwd=self.path, env=self._environment(), capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"git {' '.join(arguments)} failed in {self.path}:\n{done.stderr}")
        return done.stdout.strip()

    def _environment(self) -> dict[str, str]:
        who = {"NAME": "Test", "EMAIL": "test@example.invalid", "DATE": f"{FIRST_COMMIT + 60 * self._commits} +0000"}
        return {
            "PATH": os.environ["PATH"],
            "HOME": os.devnull,
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
            **{f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER") for part, value in who.items()},
        }
