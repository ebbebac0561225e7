"""The programs that check infra/. A test whose program is missing is skipped; in CI that is a failure (tests/skips.py)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scripts.infra_setup import find

ROOT = Path(__file__).parent.parent.parent


def tool(name: str) -> str:
    """The path of a program. Skips the test where there is none."""
    found = find(name)
    if not found:
        pytest.skip(f"{name} is not here (make infra-setup says how to get it)")
    return found


def run(name: str, *words: object, cwd: Path = ROOT, stdin: str | None = None) -> str:
    """What the tool printed. Fails the test with all that it said when it does not end with 0."""
    answer = attempt(name, *words, cwd=cwd, stdin=stdin)
    assert answer.returncode == 0, f"{name} {' '.join(map(str, words))}\n{answer.stdout}{answer.stderr}"
    return answer.stdout


def attempt(name: str, *words: object, cwd: Path = ROOT, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [tool(name), *map(str, words)]
    return subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, text=True)
