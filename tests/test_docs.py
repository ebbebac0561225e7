"""The documentation tells the truth: what it shows loads, and what exists is shown."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from deployer import catalog, environment
from deployer.cli import parser
from deployer.errors import Exit
from deployer.fields import Strict
from deployer.model import KINDS

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
COMMAND_LINE = (ROOT / "docs" / "command-line.md").read_text()
FILES = (ROOT / "docs" / "files.md").read_text()


def blocks(text: str) -> list[str]:
    """The indented code blocks of a Markdown text, without their indentation."""
    return [textwrap.dedent(found) for found in re.findall(r"(?:^    .*\n(?:\s*\n(?=    ))?)+", text, re.MULTILINE)]


def verbs() -> list[str]:
    actions = [a for a in parser()._actions if a.dest == "verb"]
    return list(actions[0].choices or ())


@pytest.mark.parametrize("verb", verbs())
def test_every_verb_is_in_the_reference(verb: str) -> None:
    assert re.search(rf"^\| `{verb}[ `]", COMMAND_LINE, re.MULTILINE)


@pytest.mark.parametrize("verb", verbs())
def test_every_option_of_a_verb_is_in_the_reference(verb: str) -> None:
    actions = [a for a in parser()._actions if a.dest == "verb"]
    choices = actions[0].choices
    assert isinstance(choices, dict)
    options = {word for a in choices[verb]._actions for word in a.option_strings if word.startswith("--")}
    assert not [option for option in options - {"--help"} if option not in COMMAND_LINE]


@pytest.mark.parametrize("code", list(Exit))
def test_every_exit_code_is_in_the_reference(code: Exit) -> None:
    assert f"| {int(code)} |" in COMMAND_LINE


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_in_the_reference(kind: str) -> None:
    assert f"`{kind}`" in COMMAND_LINE


def test_the_environment_file_that_is_shown_loads() -> None:
    text = next(b for b in blocks(FILES) if b.startswith("name: dev"))
    variables = {"PREFECT_API_URL": "http://127.0.0.1:1/api", "REPOSITORY_URL": "https://git.example/team/flows.git"}
    found, problems = environment.load(text, "environments/dev.yaml", variables)
    assert not problems and found


def test_the_catalogue_that_is_shown_loads() -> None:
    text = next(b for b in blocks(FILES) if b.startswith("- name:"))
    paths = frozenset({"flows/ingestion/sample.py"})
    found, problems = catalog.load({"flows/ingestion/deployments.yaml": text}, paths)
    assert not problems and len(found) == 1


@pytest.mark.parametrize(
    "model", [environment.Environment, environment.Policy, catalog.Declaration, environment.Source]
)
def test_every_key_is_in_the_reference(model: type[Strict]) -> None:
    assert not [key for key in model.model_fields if not re.search(rf"\b{key}\b", FILES)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()) if "://" not in link]
    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_shown_is_one(page: Path) -> None:
    shown = re.findall(r"(?:scripts/deploy\.py|`deploy\.py) ([a-z]+)\b", page.read_text())
    assert not [verb for verb in shown if verb not in verbs()]
    targets = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"^    make ([a-z]+)|`make ([a-z]+)", page.read_text(), re.MULTILINE)
    assert not [a or b for a, b in named if (a or b) not in targets]


def test_every_module_of_the_pipeline_is_in_the_engines_table_of_contents() -> None:
    import deployer

    told = deployer.__doc__ or ""
    steps = [
        "environment",
        "catalog",
        "project",
        "revision",
        "source",
        "loading",
        "desired",
        "prefect_api",
        "ledger",
        "plan",
        "prepare",
        "render",
        "apply",
        "cli",
    ]
    assert not [s for s in steps if not re.search(rf"^    {s} ", told, re.MULTILINE)]
