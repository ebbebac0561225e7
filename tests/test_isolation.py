"""No test can reach a real API or a home directory; the servers and repositories that tests start leave nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from hypothesis import settings

from tests.repository import Repo
from tests.server import free_port, real_prefect, start
from tests.skips import IN_CI


def test_the_home_of_a_test_is_new_and_empty(home: Path) -> None:
    assert Path.home() == home
    assert list(home.iterdir()) == []


def test_in_ci_a_property_is_tried_on_the_same_examples_at_every_run(pytestconfig: pytest.Config) -> None:
    assert settings.default
    assert settings.default.derandomize == pytestconfig.stash[IN_CI]
    assert settings.default.deadline is None


def test_no_setting_of_the_shell_gets_through() -> None:
    left = {
        name for name in os.environ if name.startswith(("PREFECT_", "GITHUB_", "GIT_DIR", "GIT_INDEX")) or name == "CI"
    }
    assert left == {"PREFECT_HOME", "PREFECT_PROFILES_PATH"}


def test_prefects_own_home_is_in_the_home_of_the_test(home: Path) -> None:
    code = "from prefect.settings import get_current_settings as s; print(s().home, s().profiles_path, s().api.url)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(home / ".prefect"), str(home / ".prefect/profiles.toml"), "None"]


@pytest.mark.parametrize("host", ["api.prefect.cloud", "192.0.2.1", "github.com"])
def test_nothing_beyond_this_machine_can_be_reached(host: str) -> None:
    with pytest.raises(httpx.ConnectError, match="may not leave this machine"):
        httpx.get(f"http://{host}/api/health", trust_env=False)


def test_nor_by_a_bare_socket() -> None:
    with socket.socket() as one, pytest.raises(ConnectionRefusedError, match="may not leave this machine"):
        one.connect(("192.0.2.1", 80))


def test_a_child_process_finds_a_dead_proxy_only() -> None:
    code = "import httpx; httpx.get('https://api.prefect.cloud', timeout=5)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ConnectError" in done.stderr
    assert "Connection refused" in done.stderr


def test_git_knows_a_test_author_and_nothing_of_the_machine(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "one")
    assert git("log", "--format=%an %ae").strip() == "Test test@example.invalid"
    assert "global" not in git("config", "--list", "--show-scope")


def test_a_scratch_repository_is_the_same_in_every_run(tmp_path: Path) -> None:
    one, two = Repo(tmp_path / "one"), Repo(tmp_path / "two")
    assert one.head == two.head
    assert one.commit("Change", {"a.txt": "a"}) != two.head
    assert two.git("status", "--porcelain") == ""


def test_a_scratch_repository_has_tags_and_branches(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "repo", {"a.txt": "a", "b.txt": "b"})
    first = repo.tag("v1.0.0", annotated=True)
    repo.branch("release/1")
    second = repo.commit("Remove b", {"b.txt": None})
    assert repo.git("ls-tree", "--name-only", second) == "a.txt"
    repo.switch("main")
    assert (repo.head, repo.git("rev-parse", "v1.0.0^{commit}")) == (first, first)


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    no_python = {"PYTHONHOME": "/nowhere"}
    with pytest.raises(RuntimeError, match=r"(?s)ended at once with 1:.*/nowhere"), real_prefect(tmp_path, no_python):
        pass


def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Also when that one is killed: then the system closes the pipe, as this test does."""
    process = start(tmp_path, free_port(), {})
    assert process.stdin
    process.stdin.close()
    assert process.wait(30) == -signal.SIGKILL
