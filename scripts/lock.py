"""Write requirements.txt from pyproject.toml and requirements.in, or check that it says the same as they do.

Needs uv, which .venv has. One lock for all supported Pythons, Linux and macOS, with hashes and without an index.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.txt"
DECLARED = ("pyproject.toml", "requirements.in")
OLDEST_PYTHON = "3.11"
WINDOWS_ONLY = "pywin32"
NO_NETWORK = ("error sending request", "Failed to fetch", "Could not connect", "dns error", "timed out")


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
    moved = [] if upgrade is None else ["--upgrade"] if upgrade == "all" else ["--upgrade-package", upgrade]
    return compile_lock(uv, LOCK, *moved, stderr=None).returncode


def check(uv: str) -> int:
    """Resolve once more with the present pins as preferences: what is declared decides whether they can stay."""
    with tempfile.TemporaryDirectory() as directory:
        again = Path(directory) / LOCK.name
        for network in (["--offline"], []):  # uv's cache is usually enough, and five times as fast
            shutil.copy(LOCK, again)
            answer = compile_lock(uv, again, *network)
            if answer.returncode == 0 and again.read_bytes() == LOCK.read_bytes():
                return 0
    if answer.returncode == 0:
        print(f"lock: {LOCK.name} is not what {' and '.join(DECLARED)} ask for. Run `make lock` and commit the result.")
        return 1
    print(answer.stderr.strip())
    if not any(sign in answer.stderr for sign in NO_NETWORK):
        print(f"lock: {' and '.join(DECLARED)} cannot be resolved; uv says why above.")
        return 1
    in_ci = os.environ.get("CI") == "true"
    print(f"lock: NOT CHECKED, no package index can be reached.{'' if in_ci else ' CI will check it.'}")
    return 1 if in_ci else 0


def compile_lock(
    uv: str, lock: Path, *options: str, stderr: int | None = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    command = [uv, "pip", "compile", "--quiet", "--universal", "--python-version", OLDEST_PYTHON, "--generate-hashes"]
    command += ["--no-header", "--no-emit-index-url", "--no-emit-package", WINDOWS_ONLY, "--output-file", str(lock)]
    return subprocess.run(
        [*command, *options, *DECLARED], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=stderr, text=True
    )


if __name__ == "__main__":
    sys.exit(main())
