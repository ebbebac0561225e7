"""The PostgreSQL that the tests start ends with them, whatever ends them."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bench.servers import postgresql_programs
from tests.postgres import REASON, answers, running

ROOT = Path(__file__).parents[2]

HOLDING = """
import sys
from tests.postgres import running
with running() as server:
    print(server.port, server.folder, flush=True)
    sys.stdin.read()
"""

pytestmark = pytest.mark.skipif(postgresql_programs() is None, reason=REASON)


def test_it_is_gone_afterwards_with_all_its_files() -> None:
    with running() as server:
        assert answers(server.port)
        assert server.folder.exists()
    assert not answers(server.port)
    assert not server.folder.exists()


def test_it_does_not_outlive_tests_that_are_killed() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout
        port, folder = process.stdout.readline().split()
        assert answers(int(port))
        process.send_signal(signal.SIGKILL)
    pause = threading.Event()
    while answers(int(port)) or Path(folder).exists():  # pytest's own time-out ends it
        pause.wait(0.05)
