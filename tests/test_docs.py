"""The documentation tells the truth: what it shows loads, and what exists is shown."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
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
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"^    make ([a-z-]+)|`make ([a-z-]+)", page.read_text(), re.MULTILINE)
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


def test_the_flow_that_is_shown_can_be_saved_declared_and_tested(tmp_path: Path) -> None:
    shown = blocks((ROOT / "docs" / "writing-a-flow.md").read_text())
    module, declared, test = (
        next(block for block in shown if words in block) for words in ("@flow", "- name: report-gaps", "def test_")
    )
    shutil.copytree(ROOT / "flows", tmp_path / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("environments", "infra/work-pools"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "flows/analytics/gaps.py").write_text(module)
    with open(tmp_path / "flows/analytics/deployments.yaml", "a") as catalogue:
        catalogue.write("\n" + declared)
    (tmp_path / "test_gaps.py").write_text(test)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    validate = [str(ROOT / "scripts/deploy.py"), "validate", "--static", "--repo", str(tmp_path)]
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    for command in (validate, ["-m", "pytest", "-q", "-p", "no:cacheprovider", "test_gaps.py"]):
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stdout + done.stderr
