"""What the set-up promises: a lock that names no host, one list of checks, and a .venv that is ready or not there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.skips import NoSilentSkips, allowed_reasons

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "requirements.txt").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


LOCKS = ["requirements.txt", "infra/images/server.txt", "infra/images/worker.txt", "infra/requirements.txt"]
LOCKS += ["infra/images/build.txt", "infra/upgrade/previous.txt"]
DECLARED = ["requirements.in", "flows/requirements.in", "infra/images/server.in", "infra/images/worker.in"]


def pins(lock: str = LOCK) -> list[tuple[Requirement, list[str]]]:
    """Each pin of a lock with its hashes."""
    entries = re.split(r"\n(?=\S)", re.sub(r"^\s*#.*$", "", lock, flags=re.M))
    pairs = [(entry.split("\\")[0], re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry)) for entry in entries]
    return [(Requirement(text), hashes) for text, hashes in pairs if text.strip()]


def declared() -> list[Requirement]:
    lines = [line.split("#")[0].strip() for file in DECLARED for line in (ROOT / file).read_text().splitlines()]
    return [Requirement(text) for text in (*PROJECT["dependencies"], *lines) if text and not text.startswith("-r ")]


# The lock


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_host(lock: str) -> None:
    assert not re.findall(r"://|--(?:extra-)?index|--find-links|\w@\w", (ROOT / lock).read_text())


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_is_one_exact_version_with_hashes(lock: str) -> None:
    found = pins((ROOT / lock).read_text())
    assert found
    assert [str(pin) for pin, hashes in found if not hashes] == []
    assert [str(pin) for pin, _ in found if not re.fullmatch(r"==[\w.+!]+", str(pin.specifier))] == []


@pytest.mark.parametrize("lock", ["infra/images/server.txt", "infra/images/worker.txt"])
def test_the_images_have_the_versions_that_the_tests_ran_on(lock: str) -> None:
    tested = {(pin.name, str(pin.specifier)) for pin, _ in pins()}
    assert {(pin.name, str(pin.specifier)) for pin, _ in pins((ROOT / lock).read_text())} <= tested


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_the_lock_holds_what_is_declared(requirement: Requirement) -> None:
    versions = [
        str(pin.specifier).removeprefix("==")
        for pin, _ in pins()
        if canonicalize_name(pin.name) == canonicalize_name(requirement.name)
    ]
    assert versions
    assert all(version in requirement.specifier for version in versions)


def test_no_dependency_is_declared_twice() -> None:
    names = [canonicalize_name(requirement.name) for requirement in declared()]
    assert sorted(names) == sorted(set(names))


@pytest.fixture
def lock_copy(tmp_path: Path) -> Path:
    """The repository as far as scripts/lock.py is concerned, without a .venv."""
    for name in (
        "pyproject.toml",
        "infra/images/build.in",
        "infra/requirements.in",
        "infra/upgrade/previous.in",
        "scripts/lock.py",
        *DECLARED,
        *LOCKS,
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def check_lock(root: Path, uv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    tools = executables(root / "tools", uv=uv)
    return subprocess.run(
        [sys.executable, root / "scripts/lock.py", "--check"],
        env={"PATH": f"{tools}:{os.defpath}", **environment},
        capture_output=True,
        text=True,
    )


UV_THAT_KEEPS_THE_LOCK = "exit 0"
UV_THAT_FINDS_A_NEW_PIN = 'while test "$1" != --output-file; do shift; done; echo "new==1" >>"$2"'
UV_WITHOUT_NETWORK = 'echo "error: Failed to fetch: somewhere" >&2; exit 2'
UV_WITHOUT_SOLUTION = 'echo "error: No solution found" >&2; exit 1'


def test_a_current_lock_passes_without_a_word(lock_copy: Path) -> None:
    answer = check_lock(lock_copy, UV_THAT_KEEPS_THE_LOCK, CI="true")
    assert (answer.returncode, answer.stdout) == (0, "")


def test_a_lock_that_misses_a_pin_fails_and_says_what_to_do(lock_copy: Path) -> None:
    answer = check_lock(lock_copy, UV_THAT_FINDS_A_NEW_PIN)
    assert answer.returncode == 1
    assert "Run `make lock`" in answer.stdout
    assert (lock_copy / "requirements.txt").read_text() == LOCK


def test_dependencies_that_contradict_each_other_fail_in_uvs_words(lock_copy: Path) -> None:
    answer = check_lock(lock_copy, UV_WITHOUT_SOLUTION)
    assert answer.returncode == 1
    assert "No solution found" in answer.stdout


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_a_lock_that_could_not_be_checked_says_so_and_fails_in_ci_only(lock_copy: Path, ci: str, code: int) -> None:
    answer = check_lock(lock_copy, UV_WITHOUT_NETWORK, CI=ci)
    assert answer.returncode == code
    assert "NOT CHECKED" in answer.stdout


def test_the_locked_uv_is_one_that_the_check_understands(lock_copy: Path) -> None:
    """The real uv, with an empty cache and a proxy that is not there: its words must be those that the check knows."""
    real = Path(sys.executable).parent / "uv"
    answer = check_lock(
        lock_copy,
        f'exec {real} "$@"',
        UV_CACHE_DIR=str(lock_copy / "cache"),
        UV_HTTP_RETRIES="0",
        ALL_PROXY="http://127.0.0.1:9",
    )
    assert "NOT CHECKED" in answer.stdout
    assert answer.returncode == 0


# The checks and the commands


def test_all_hooks_are_local_and_call_the_locked_tools() -> None:
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    for hook in repos[0]["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venv/bin/")
        assert (Path(sys.executable).parent / Path(hook["entry"].split()[0]).name).exists()


def targets() -> set[str]:
    (phony,) = re.findall(r"^\.PHONY: (.+)$", MAKEFILE.replace("\\\n", ""), flags=re.M)
    return set(phony.split()) - {"install"}  # a part of setup, not for typing


def test_help_lists_every_target_and_is_what_make_alone_does() -> None:
    help_text = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^make ([\w-]+) ", help_text, flags=re.M)) == targets()


def test_ci_runs_a_developers_own_commands() -> None:
    lines = (ROOT / ".ci/run").read_text().splitlines()
    assert lines[-4:] == ["make check", "make infra-check", "make test", "make test-stack"]
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_the_supported_pythons_are_the_same_everywhere() -> None:
    (names,) = re.findall(r"^PYTHONS := (.+)$", MAKEFILE, flags=re.M)
    supported = set(names.split())
    assert {c.rsplit(" ", 1)[1] for c in PROJECT["classifiers"] if "Python :: 3." in c} == supported
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert {f"3.{minor}" for minor in range(6, 30) if f"3.{minor}.0" in allowed} == supported
    assert f'OLDEST_PYTHON = "{min(supported)}"' in (ROOT / "scripts/lock.py").read_text()


# .venv, with a stand-in for uv that takes no time


def executables(directory: Path, **scripts: str) -> Path:
    directory.mkdir(exist_ok=True)
    for name, body in scripts.items():
        (directory / name).write_text(f"#!/bin/sh\n{body}\n")
        (directory / name).chmod(0o755)
    return directory


UV = """
echo "$1" >>calls
case "$1" in
venv) mkdir -p .venv/bin .venv/lib/python3.11/site-packages; ln -s "$(command -v python3)" .venv/bin/python ;;
pip) test ! -e broken ;;
esac
"""


class Clone:
    """A clone of which only the set-up is looked at; its PATH holds no Python and no uv but these."""

    def __init__(self, root: Path, **tools: str) -> None:
        self.root = root
        self.tools = executables(root / "tools", **tools)
        for name in ("make", "sh", "cmp", "cp", "rm", "ln", "mkdir"):
            (self.tools / name).symlink_to(shutil.which(name) or name)
        shutil.copy(ROOT / "Makefile", root)
        (root / "requirements.txt").write_text("one==1\n")

    def setup(self) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.tools)}
        return subprocess.run(["make", "setup"], cwd=self.root, env=environment, capture_output=True, text=True)

    def installations(self) -> int:
        return (self.root / "calls").read_text().split().count("pip")


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path, python3=f'exec {sys.executable} "$@"', uv=UV)


def test_setup_installs_once(clone: Clone) -> None:
    assert clone.setup().returncode == 0
    assert clone.setup().returncode == 0
    assert clone.installations() == 1


def test_a_flows_file_finds_its_package_in_the_environment_that_setup_makes(clone: Clone) -> None:
    clone.setup()
    assert (clone.root / ".venv/lib/python3.11/site-packages/this-checkout.pth").read_text() == f"{clone.root}\n"


def test_setup_installs_again_when_the_lock_has_changed(clone: Clone) -> None:
    clone.setup()
    (clone.root / "requirements.txt").write_text("one==2\n")
    assert clone.setup().returncode == 0
    assert clone.installations() == 2


def test_a_failed_installation_is_repeated(clone: Clone) -> None:
    (clone.root / "broken").touch()
    assert clone.setup().returncode != 0
    (clone.root / "broken").unlink()
    assert clone.setup().returncode == 0
    assert clone.installations() == 2


def test_an_environment_that_lost_its_python_is_made_anew(clone: Clone) -> None:
    clone.setup()
    (clone.root / ".venv/bin/python").unlink()
    (clone.root / ".venv/bin/python").symlink_to("/nowhere/python3")
    assert clone.setup().returncode == 0
    assert clone.installations() == 2


def test_a_python_that_is_too_old_is_passed_over(tmp_path: Path) -> None:
    old = 'test "$1" = -V && echo Python 3.9.18; exit 1'
    clone = Clone(tmp_path, python3=old, **{"python3.12": 'test "$1" = -V || echo chosen >&2; exit 0'}, uv=UV)
    assert "chosen" in clone.setup().stderr


def test_without_a_fitting_python_setup_says_what_is_needed_and_touches_nothing(tmp_path: Path) -> None:
    clone = Clone(tmp_path, python3='test "$1" = -V && echo Python 3.9.18; exit 1', uv=UV)
    (tmp_path / ".venv").mkdir()
    answer = clone.setup()
    assert answer.returncode != 0
    assert "python3 is Python 3.9.18" in answer.stderr
    assert "PYTHON=/path/to/" in answer.stderr
    assert (tmp_path / ".venv").exists()


# Skipped tests


def skipped(reason: str) -> pytest.TestReport:
    place = ("tests/test_x.py", 1, f"Skipped: {reason}")
    return pytest.TestReport("x", ("tests/test_x.py", 1, "x"), {}, "skipped", place, "call")


def test_in_ci_a_skip_fails_and_names_its_reason() -> None:
    report = skipped("no time")
    NoSilentSkips(frozenset()).judge(report)
    assert report.outcome == "failed"
    assert "no time" in str(report.longrepr)


def test_in_ci_a_listed_reason_may_skip() -> None:
    report = skipped("needs macOS")
    NoSilentSkips(allowed_reasons("# why\n\nneeds macOS\n")).judge(report)
    assert report.outcome == "skipped"


@pytest.mark.parametrize("processes", ["0", "2"])
@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_a_skip_is_a_failure_in_ci_only(tmp_path: Path, ci: str, code: int, processes: str) -> None:
    """Also where worker processes run the tests, and the environment was cleared before they started."""
    (tmp_path / "conftest.py").write_text(
        "import os, pytest\n\n@pytest.hookimpl(trylast=True)\ndef pytest_configure():\n    os.environ.pop('CI', None)\n"
    )
    (tmp_path / "test_one.py").write_text(
        "import pytest\n\ndef test_one():\n    pytest.skip('a reason nobody listed')\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "tests.skips", "-c", os.devnull, "-n", processes, str(tmp_path)]
    environment = {**os.environ, "CI": ci}
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert answer.returncode == code, answer.stdout
