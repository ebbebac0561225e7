"""What every verb gets, and what several of them say."""

from __future__ import annotations

import getpass
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from deployer import __version__, github, prepare, project, render, stats
from deployer.apply import Author
from deployer.console import Console
from deployer.environment import Environment
from deployer.model import Plan
from deployer.prepare import Site
from deployer.project import Tree
from deployer.revision import Repository


@dataclass(frozen=True)
class Call:
    """The words of the command line, the repository, the variables, the streams."""

    words: Namespace
    variables: Mapping[str, str]
    console: Console
    reports: list[dict[str, Any]] = field(default_factory=list)
    """What was written to --report: once it is there, a later error does not replace it."""

    @cached_property
    def repository(self) -> Repository:
        return Repository.find(Path(self.words.repo))

    @cached_property
    def tree(self) -> Tree:
        """The tool's own checkout: where to deploy, and by which rules. What it makes a secret is hidden from here on."""
        found = Tree.working(self.repository.path)
        self.console.hide(project.hidden(found, self.variables))
        return found

    def environment(self, name: str) -> Environment:
        return project.load_environment(self.tree, name, self.variables)

    @contextmanager
    def site(self, name: str, preview: str | None = None, goes: bool = False) -> Iterator[Site]:
        """A preview that goes may be called as an environment that came after it, and waits for it."""
        names = () if goes else self.tree.environment_names()
        with prepare.open_site(self.environment(name), preview, names=names) as site:
            try:
                yield site
            finally:
                stats.write(self.variables, site.client)

    def author(self, reason: str = "") -> Author:
        actor = github.actor(self.variables) or _user()
        return Author(actor, github.run_url(self.variables), __version__, reason)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def show_plan(call: Call, found: Plan, title: str = "plan", told: Plan | None = None) -> None:
    """The result; guards and notices also where that is for machines. `told`: what people see in its place."""
    shown = told or found
    call.console.result(
        lambda: render.plan_text(shown, title),
        lambda: render.plan_markdown(shown, title),
        lambda: render.plan_data(found),
    )
    say_guards(call, found)


def say_guards(call: Call, found: Plan) -> None:
    if call.console.format != "text":
        for notice in found.notices:
            call.console.note(f"note: {notice}")
        for refusal in found.refusals:
            call.console.note(f"refused by '{refusal.guard}': {refusal.message}")
