"""Write the locks from what is declared, or check that they say the same.

Needs uv, which .venv has. Each lock serves all supported Pythons, Linux and macOS, with hashes and without an index. What is in
requirements.txt too has the same version in the images' locks: the tests are run on what is shipped.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = "3.11"
WINDOWS_ONLY = "pywin32"
NO_NETWORK = ("error sending request", "Failed to fetch", "Could not connect", "dns error", "timed out")


@dataclass(frozen=True)
class Lock:
    """A lock, what it is made from, and the lock whose versions it has to keep to."""

    path: str
    declared: tuple[str, ...]
    constraint: str | None = None


MAIN = Lock("requirements.txt", ("pyproject.toml", "requirements.in"))
LOCKS = (
    MAIN,
    Lock("infra/images/server.txt", ("pyproject.toml", "infra/images/server.in"), MAIN.path),
    Lock("infra/images/worker.txt", ("pyproject.toml", "flows/requirements.in", "infra/images/worker.in"), MAIN.path),
    Lock("infra/images/build.txt", ("infra/images/build.in",)),
    Lock("infra/requirements.txt", ("infra/requirements.in",)),
    Lock("infra/upgrade/previous.txt", ("infra/upgrade/previous.in",)),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the lock is not current")
    parser.add_argument("--upgrade", metavar="NAME", help="move this pin to its newest version, or `all` of them")
    arguments = parser.parse_args()
    return check(uv()) if arguments.check else write(uv(), arguments.upgrade)


def uv() -> str:
    ours = ROOT / ".venv/bin/uv"
    found = str(ours) if ours.exists() else shutil.which("uv")
    if not found:
        sys.exit("lock: uv is neither in .venv nor on the PATH. Run `make setup`, then this again.")
    return found


def write(uv: str, upgrade: str | None) -> int:
    """In this order, as the images' locks follow the main one. The main one alone decides what moves there."""
    for lock in LOCKS:
        moved = [] if upgrade is None else ["--upgrade"] if upgrade == "all" else ["--upgrade-package", upgrade]
        answer = compile_lock(uv, lock, ROOT / lock.path, *moved, stderr=None)
        if answer.returncode:
            return answer.returncode
    return 0


def check(uv: str) -> int:
    with ThreadPoolExecutor() as pool:
        return max(pool.map(lambda lock: check_one(uv, lock), LOCKS))


def check_one(uv: str, lock: Lock) -> int:
    """Resolve once more with the present pins as preferences: what is declared decides whether they can stay."""
    there = ROOT / lock.path
    with tempfile.TemporaryDirectory() as directory:
        again = Path(directory) / there.name
        for network in (["--offline"], []):  # uv's cache is usually enough, and five times as fast
            again.write_bytes(there.read_bytes() if there.exists() else b"")
            answer = compile_lock(uv, lock, again, *network)
            if answer.returncode == 0 and there.exists() and again.read_bytes() == there.read_bytes():
                return 0
    if answer.returncode == 0:
        print(f"lock: {lock.path} is not what {listed(lock.declared)} ask for. Run `make lock` and commit the result.")
        return 1
    print(answer.stderr.strip())
    if not any(sign in answer.stderr for sign in NO_NETWORK):
        print(f"lock: {listed(lock.declared)} cannot be resolved; uv says why above.")
        return 1
    in_ci = os.environ.get("CI") == "true"
    print(f"lock: {lock.path} NOT CHECKED, no package index can be reached.{'' if in_ci else ' CI will check it.'}")
    return 1 if in_ci else 0


def listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def compile_lock(
    uv: str, lock: Lock, target: Path, *options: str, stderr: int | None = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    command = [uv, "pip", "compile", "--quiet", "--universal", "--python-version", OLDEST_PYTHON, "--generate-hashes"]
    command += ["--no-header", "--no-emit-index-url", "--no-emit-package", WINDOWS_ONLY, "--output-file", str(target)]
    command += ["--constraint", lock.constraint] if lock.constraint else []
    return subprocess.run(
        [*command, *options, *lock.declared], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=stderr, text=True
    )


if __name__ == "__main__":
    sys.exit(main())
