"""What GitHub Actions wants to hear: groups, annotations, outputs, the step summary; and who runs there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from deployer.errors import Problem

MOST_ANNOTATIONS = 9
MOST_SUMMARY = 1_000_000
MOST_OF_STEP = 1_040_000
"""Bytes of all that a step adds: after the longest plan there is room to say how it ended."""

WHERE_VARIABLES_ARE = "In GitHub it is a variable of the environment: scripts/github_setup.py sets them all up."


def runs_here(variables: Mapping[str, str]) -> bool:
    return variables.get("GITHUB_ACTIONS") == "true"


def error_lines(problems: Iterable[Problem]) -> list[str]:
    """GitHub shows ten a step; the last one says how many more there are."""
    found = list(problems)
    lines = [
        f"::error file={_property(p.file)},line={p.line or 1}::{_data(_told(p))}" for p in found[:MOST_ANNOTATIONS]
    ]
    return lines + ([f"::error::and {len(found) - MOST_ANNOTATIONS} more"] if len(found) > MOST_ANNOTATIONS else [])


def _told(problem: Problem) -> str:
    """In a workflow, what an environment file misses is a variable or secret of GitHub's environment."""
    text = f"{problem.path}: {problem.message}" if problem.path else problem.message
    return f"{text} {WHERE_VARIABLES_ARE}" if problem.path == "api.url" and "variable" in problem.message else text


def error(message: str) -> str:
    return f"::error::{_data(message)}"


def mask(secret: str) -> str:
    """As it is: what is hidden must be the value itself."""
    return f"::add-mask::{_escaped(secret)}"


def harmless(message: str) -> str:
    """What a flow logs or a file holds is no command to GitHub."""
    return re.sub(r"(?m)^(\s*):(?=:)", r"\1: ", message).replace("##[", "## [")  # the second is the form of old


def _data(text: str) -> str:
    return _escaped(text.replace("##[", "## ["))


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def write_summary(variables: Mapping[str, str], markdown: str) -> str:
    """GitHub refuses a step's summary above 1 MiB whole, so it is cut. Answers why it could not be written, or nothing."""
    if path := variables.get("GITHUB_STEP_SUMMARY"):
        return _append(
            "GITHUB_STEP_SUMMARY", path, _cut(markdown, min(MOST_SUMMARY, MOST_OF_STEP - _size(path))) + "\n\n"
        )
    return ""


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def _cut(markdown: str, most: int) -> str:
    text = markdown.encode()
    return markdown if len(text) <= most else text[: max(0, most)].decode(errors="ignore") + "\n\n(cut)"


def write_outputs(variables: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    """Answers as `write_summary` does."""
    if path := variables.get("GITHUB_OUTPUT"):
        text = "".join(f"{key}={value}\n" for key, value in outputs.items() if "\n" not in value)
        return _append("GITHUB_OUTPUT", path, text)
    return ""


def _append(name: str, path: str, text: str) -> str:
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        return f"{name}: {path} cannot be written: {error.strerror}."
    return ""


def ref_of(variables: Mapping[str, str], commit: str) -> str:
    """The full ref of the run, if this is its commit; else nothing."""
    return variables.get("GITHUB_REF", "") if runs_here(variables) and variables.get("GITHUB_SHA") == commit else ""


def commit_of(variables: Mapping[str, str], ref: str) -> str:
    """The commit of the run, if it is for this ref; else nothing."""
    return variables.get("GITHUB_SHA", "") if runs_here(variables) and variables.get("GITHUB_REF") == ref else ""


def actor(variables: Mapping[str, str]) -> str:
    """Who triggered this run, and who ran it again."""
    first, again = variables.get("GITHUB_ACTOR", ""), variables.get("GITHUB_TRIGGERING_ACTOR", "")
    return f"{first} (re-run by {again})" if again and again != first else first


def run_url(variables: Mapping[str, str]) -> str:
    needed = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
    if not all(variables.get(key) for key in needed):
        return ""
    server, repository, run = (variables[key] for key in needed)
    return f"{server}/{repository}/actions/runs/{run}/attempts/{variables.get('GITHUB_RUN_ATTEMPT', '1')}"
