"""The one module that writes to a stream: results on standard output, everything else on standard error."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

from deployer import github, render
from deployer.errors import DeployError, InvalidInput, Problem
from deployer.model import Outcome

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""All that moves the cursor or turns the text, but for the ends of our own lines and tabs."""

COLOURS = {"+": "32", "~": "33", "-": "31", "=": "36"}


@dataclass(frozen=True)
class Console:
    format: str
    variables: Mapping[str, str]

    @property
    def in_github(self) -> bool:
        return github.runs_here(self.variables)

    def result(self, text: Callable[[], str], markdown: Callable[[], str], data: Callable[[], Any]) -> None:
        """One result, in the format that was asked for; in GitHub Actions also in the step's summary."""
        forms: dict[str, Callable[[], str]] = {
            "text": lambda: _coloured(self._plain(text())),
            "markdown": lambda: self._plain(markdown()),
            "json": lambda: render.document(data()),
        }
        _say(forms[self.format](), sys.stdout)
        if self.in_github:
            self._missed(github.write_summary(self.variables, markdown()))

    def document(self, data: Any) -> None:
        """A result that has one form only."""
        _say(render.document(data), sys.stdout)

    def before(self, plan: str) -> None:
        """What is about to be written: a result for people, and progress where the result is for machines."""
        if self.format == "text":
            _say(_coloured(self._plain(plan)), sys.stdout)
        else:
            self.note(plan.splitlines()[-1])

    def outputs(self, **outputs: str) -> None:
        if self.in_github:
            self._missed(github.write_outputs(self.variables, outputs))

    def _missed(self, fault: str) -> None:
        if fault:
            self.note(f"note: {fault}")

    def hide(self, values: Iterable[str]) -> None:
        """GitHub shows them as *** from here on: also a part of one of its own secrets, and what came from elsewhere."""
        if self.in_github:
            for value in sorted(values):
                self.command(github.mask(value))

    def note(self, message: str) -> None:
        _say(self._plain(message), sys.stderr)

    def _plain(self, text: str) -> str:
        """Names, reasons and exceptions are others' words: none of them may move the cursor, or speak to GitHub."""
        shown = CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
        return github.harmless(shown) if self.in_github else shown

    def command(self, line: str) -> None:
        """To GitHub, which hears what begins with two colons."""
        _say(line, sys.stderr)

    def problems(self, problems: tuple[Problem, ...]) -> None:
        for problem in problems:
            self.note(str(problem))
        if self.in_github:
            self.command("\n".join(github.error_lines(problems)))

    def fault(self, message: str, annotation: str = "") -> None:
        """What is none of the operator's: wrong words, or a bug."""
        self.note(message)
        if self.in_github:
            self.command(github.error(annotation or message))

    def error(self, error: DeployError, annotated: bool = False) -> None:
        """`annotated`: its problems stand at their files already, and GitHub shows ten annotations at most."""
        self.note(f"error: {error}")
        if self.in_github:
            if not annotated:
                self.command(github.error(str(error)))
            self._missed(github.write_summary(self.variables, render.error_markdown(error)))

    @contextmanager
    def progress(self, total: int, title: str) -> Iterator[Callable[[Outcome], None]]:
        """A bar on a terminal, a line a change elsewhere, folded into a group in GitHub Actions."""
        if total and sys.stderr.isatty() and not self.in_github:
            with _bar(total, title) as step:
                yield step
            return
        if self.in_github:
            self.command(f"::group::{title}")
        try:
            yield lambda outcome: self.note(render.outcome_line(outcome))
        finally:
            if self.in_github:
                self.command("::endgroup::")


def _say(text: str, stream: TextIO | None) -> None:
    """A reader that has enough (`2>&1 | head`) must neither stop a deploy half-way nor hide how it ended."""
    if stream is None:  # closed by whoever started us
        return
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # or Python fails once more when it ends
        if stream is sys.stdout:
            raise InvalidInput(f"The result cannot be written to standard output: {error.strerror}.") from None


@contextmanager
def _bar(total: int, title: str) -> Iterator[Callable[[Outcome], None]]:
    from rich.console import Console as Rich
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Rich(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)

        def step(outcome: Outcome) -> None:
            if outcome.result == "failed":
                bar.console.print(render.outcome_line(outcome), markup=False, highlight=False)
            bar.advance(task)

        yield step


def _coloured(text: str) -> str:
    """The plan's signs in colour, on a terminal that wants it."""
    if not sys.stdout or not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return "\n".join(_line(line) for line in text.splitlines())


def _line(line: str) -> str:
    sign = line[2:3] if line.startswith("  ") and line[3:4] == " " else ""
    return f"\x1b[{COLOURS[sign]}m{line}\x1b[0m" if sign in COLOURS else line
