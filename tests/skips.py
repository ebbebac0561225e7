"""A pytest plugin: in CI a skipped test is a failed one, unless its reason stands in allowed_skips.txt.

Whoever skips a test everywhere should have to say so where reviewers look. pyproject.toml loads this.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

ALLOWED = Path(__file__).with_name("allowed_skips.txt")
IN_CI = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    """A worker process, one of several, is told by the one that started it: conftest.py clears the environment."""
    config.stash[IN_CI] = getattr(config, "workerinput", os.environ).get("CI") == "true"
    if config.stash[IN_CI]:
        config.pluginmanager.register(NoSilentSkips(allowed_reasons(ALLOWED.read_text())), "no-silent-skips")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["CI"] = str(node.config.stash[IN_CI]).lower()


def allowed_reasons(text: str) -> frozenset[str]:
    return frozenset(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))


class NoSilentSkips:
    def __init__(self, allowed: frozenset[str]) -> None:
        self.allowed = allowed

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        self.judge(report)
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        report = yield
        self.judge(report)
        return report

    def judge(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.skipped or hasattr(report, "wasxfail") or not isinstance(report.longrepr, tuple):
            return
        path, line, text = report.longrepr
        reason = text.removeprefix("Skipped: ")
        if reason in self.allowed:
            return
        report.outcome = "failed"
        report.longrepr = (
            f"{path}:{line}: skipped in CI: {reason}\nMake it run here, or list the reason in {ALLOWED.name}."
        )
