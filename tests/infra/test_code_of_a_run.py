"""A run of each source imports the code of its own SHA and of nothing else, on a real worker, with today's flows in its way.

The worker's environment has a package `flows` installed: that of this repository, and in it a wrong copy of every module that
the runs import. Each commit's flow says where it and its helper came from, at once and from inside a function that imports late.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.infra.tools import ROOT
from tests.real.stage import Stage, scratch, until, worker
from tests.server import Server

pytestmark = pytest.mark.stack

WHERE = """\
import json
from pathlib import Path

from prefect import flow

from flows.shop import helper


@flow
def where(told: str):
    from flows.shop import late

    found = {name: [module.CODE, module.__file__] for name, module in (("helper", helper), ("late", late))}
    Path(told).write_text(json.dumps({"flow": ["CODE", __file__], **found}))
"""


def files(code: str) -> dict[str, str]:
    """The flows of a commit, which say that they are `code`."""
    module = f'CODE = "{code}"\n'
    return {
        "flows/__init__.py": "",
        "flows/shop/__init__.py": "",
        "flows/shop/where.py": WHERE.replace('CODE"', f'{code}"', 1),
        "flows/shop/helper.py": module,
        "flows/shop/late.py": module,
    }


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python with all that ours has, and a package `flows` besides."""
    home = tmp_path_factory.mktemp("trap")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    python = str(home / "bin/python")
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    (site / "ours.pth").write_text(sysconfig.get_path("purelib"))
    shutil.copytree(ROOT / "flows", site / "flows")
    for name, text in files("the trap").items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    caught = [python, "-c", "from flows.shop import helper; print(helper.CODE)"]
    assert subprocess.run(caught, capture_output=True, text=True, check=True, cwd=home).stdout.strip() == "the trap"
    return python


@pytest.fixture
def stage(real_server: Server, tmp_path: Path, unique: Callable[[str], str]) -> Iterator[Stage]:
    stage = scratch(real_server.url, tmp_path, unique("code"))
    yield stage
    stage.end()


def source(strategy: str, stage: Stage, folder: Path) -> dict[str, Any]:
    match strategy:
        case "image":
            return {"strategy": "image", "image": "registry.invalid/flows:sha-{commit}", "directory": str(folder)}
        case "local":
            return {"strategy": "local", "directory": str(folder)}
    return {"strategy": strategy, "repository": stage.repo.url}


def place(stage: Stage, commit: str, folder: Path) -> None:
    """What a new image, or a deploy by hand, does to the folder that the worker sees."""
    shutil.rmtree(folder, ignore_errors=True)
    stage.repo.git("worktree", "prune")
    stage.repo.git("worktree", "add", "--quiet", "--detach", str(folder), commit)


def run(stage: Stage, told: Path) -> dict[str, list[str]]:
    """Start a run of what is deployed, and wait for what it says."""
    told.unlink(missing_ok=True)
    deployment = stage.deployment("where")
    made = stage.ask("POST", f"/deployments/{deployment['id']}/create_flow_run", {"parameters": {"told": str(told)}})
    ended: dict[str, Any] = {}

    def has_ended() -> bool:
        ended.update(stage.ask("GET", f"/flow_runs/{made['id']}")["state"])
        return ended["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

    until(has_ended, 240)
    assert ended["type"] == "COMPLETED", ended["message"]
    assert made["deployment_version"] == deployment["version"]
    return dict(json.loads(told.read_text()))


@pytest.mark.parametrize("strategy", ["git", "cached", "image", "local"])
def test_a_run_imports_the_code_of_its_own_commit_and_of_nothing_else(
    strategy: str, stage: Stage, trap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deployed, deployed newer, rolled back: A, B, A."""
    baked = tmp_path / "opt/flows"
    stage.environment = {"source": source(strategy, stage, baked)}
    entry = stage.entry(name="where", entrypoint="flows/shop/where.py:where", parameters={"told": "nowhere"})
    commits = [stage.commit(entry, files=files(code)) for code in ("first", "second")]
    stage.apply(commits[0])
    with ExitStack() as stack:
        with monkeypatch.context() as patch:  # the deploys are made from an environment without `flows`, as always
            patch.setattr(sys, "executable", trap)
            stack.enter_context(worker(stage.url, stage.named("pool"), tmp_path / "worker"))
        for code, commit in (("first", commits[0]), ("second", commits[1]), ("first", commits[0])):
            place(stage, commit, baked)
            stage.apply(commit)
            found = run(stage, tmp_path / "told.json")
            assert {name: told for name, (told, _) in found.items()} == dict.fromkeys(("flow", "helper", "late"), code)
            homes = {str(Path(file).parents[2]) for _, file in found.values()}
            assert len(homes) == 1, found
            assert str(baked) in homes if strategy in ("image", "local") else commit in homes.pop()
