"""The process that imports a commit's flows: it sees nothing of ours, and nothing that a module does upsets us."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from deployer import loading
from deployer.errors import InvalidInput
from deployer.loading import Loader
from deployer.prefect_api import deployments
from deployer.revision import Repository
from tests.real.stage import Stage

ROOT = Path(__file__).resolve().parents[2]
SECRETS = {"PREFECT_API_AUTH_STRING": "admin:auth-string-value", "WAREHOUSE_URL": "postgresql://u:warehouse-value@h/db"}
PROFILE = "profile-key-value"

SPY = """
import json, os, pathlib
from prefect import flow
from prefect.settings import get_current_settings

def text(path):
    try:
        return pathlib.Path(path).read_bytes().decode(errors="replace")
    except OSError as error:
        return f"refused: {error.strerror}"

def below(folder):
    return {str(p): text(p) for p in pathlib.Path(folder).rglob("*") if p.is_file()} if folder else {}

found = {
    "environment": dict(os.environ),
    "home": below(os.path.expanduser("~")),
    "prefect home": below(os.environ.get("PREFECT_HOME")),
    "settings": str(get_current_settings().model_dump(mode="json", context={"include_secrets": True})),
    "descriptors": [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}")],
    "parent's environment": text(f"/proc/{os.getppid()}/environ"),
    "parent's words": text(f"/proc/{os.getppid()}/cmdline"),
    "parent's memory": text(f"/proc/{os.getppid()}/maps"),
}
pathlib.Path(REPORT).write_text(json.dumps(found))

@flow
def hello(name: str = "x", count: int = 1):
    pass
"""

PLAIN = "from prefect import flow\n\n\n@flow\ndef hello(name: str = 'x', count: int = 1):\n    pass\n"


def spied(stage: Stage, tmp_path: Path) -> tuple[str, subprocess.CompletedProcess[str]]:
    """A commit whose flow looks around while it is imported, planned by the command line with secrets all about it."""
    report = tmp_path / "report.json"
    stage.environment = {
        "api": {"url": "${PREFECT_API_URL}", "auth_string": "${PREFECT_API_AUTH_STRING}"},
        "secrets": {f"{stage.name}-url": "${WAREHOUSE_URL}"},
    }
    stage.commit(stage.entry(), files={"flows/alpha/flows.py": SPY.replace("REPORT", repr(str(report)))})
    home = tmp_path / "home of an operator"
    (home / ".prefect").mkdir(parents=True)
    (home / ".prefect/profiles.toml").write_text(f'active = "real"\n[profiles.real]\nPREFECT_API_KEY = "{PROFILE}"\n')
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/deploy.py"), "plan", "--env", "dev", "--repo", str(stage.repo.path)],
        env={**inherited, **SECRETS, "PREFECT_API_URL": stage.url, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return report.read_text(), done


@pytest.mark.skipif(sys.platform != "linux", reason="looks through /proc")
def test_a_hostile_flow_finds_no_address_key_or_secret_in_its_environment_files_or_parent(
    stage: Stage, tmp_path: Path
) -> None:
    seen, done = spied(stage, tmp_path)
    for value in (*SECRETS.values(), "auth-string-value", "warehouse-value", PROFILE, stage.url):
        assert value not in seen
        assert value not in done.stdout
    assert '"parent\'s environment": "refused: Permission denied"' in seen


GRASPING = """
import json, os, pathlib
import httpx
import prefect
from prefect import flow
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL

own = prefect.deploy
ATTEMPTS = [
    ("POST", "/block_documents/filter", {"include_secrets": True}),
    ("POST", "/variables/filter", {}),
    ("POST", "/deployments/filter", {}),
    ("POST", "/deployments/", {"name": "another", "flow_id": VICTIM}),
    ("PATCH", "/deployments/" + VICTIM, {"paused": True}),
    ("DELETE", "/deployments/" + VICTIM, None),
    ("POST", "/deployments/" + VICTIM + "/create_flow_run", {}),
    ("POST", "/work_pools/", {"name": "another", "type": "process"}),
    ("POST", "/artifacts/", {"key": "release-x", "data": "forged"}),
    ("POST", "/automations/", {"name": "another", "actions": [{"type": "do-nothing"}]}),
    ("GET", "/admin/settings", None),
]

def grasp(*deployments, **more):
    user, _, password = PREFECT_API_AUTH_STRING.value().partition(":")
    with httpx.Client(base_url=PREFECT_API_URL.value(), auth=(user, password), trust_env=False) as api:
        statuses = [api.request(method, path, json=body).status_code for method, path, body in ATTEMPTS]
    seen = {"statuses": statuses, "url": PREFECT_API_URL.value(), "environment": dict(os.environ)}
    pathlib.Path(REPORT).write_text(json.dumps(seen))
    return own(*deployments, **more)

prefect.deploy = grasp

@flow
def hello(name: str = "x", count: int = 1):
    pass
"""


def test_while_creating_a_hostile_flow_reaches_nothing_but_the_planned_creations(stage: Stage, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    stage.release(stage.entry(name="victim"))
    victim = stage.deployment("victim")
    module = GRASPING.replace("REPORT", repr(str(report))).replace("VICTIM", repr(victim["id"]))
    entry = stage.entry(entrypoint="flows/alpha/grasping.py:hello")
    stage.commit(stage.entry(name="victim"), entry, files={"flows/alpha/grasping.py": module})
    stage.wire.forget()
    assert stage.apply().error is None
    seen = json.loads(report.read_text())
    assert seen["statuses"] == [403] * 11
    assert stage.url not in json.dumps(seen)
    assert stage.deployments().keys() == {"victim", "hello"}
    created = [path for method, path in stage.wire.writes if path in ("/deployments/", "/automations/", "/work_pools/")]
    assert created == ["/deployments/"]


def faults_of(stage: Stage, module: str) -> str:
    """What planning a commit with this module says."""
    stage.commit(stage.entry(), files={"flows/alpha/flows.py": module})
    with pytest.raises(InvalidInput) as caught:
        stage.plan()
    assert stage.wire.writes == []
    return "\n".join([str(caught.value), *map(str, caught.value.problems)])


def test_every_module_that_does_not_import_is_told_with_its_line_and_its_reason(stage: Stage) -> None:
    broken = {
        "flows/alpha/missing.py": "import pandas_of_tomorrow\n",
        "flows/alpha/tools.py": "import deployer.errors\n",  # this tool's own: no worker has it
        "flows/alpha/syntax.py": "def broken(:\n",
        "flows/alpha/leaves.py": "import sys\nsys.exit(3)\n",
        "flows/alpha/raises.py": "\n\nraise ValueError('no database here')\n",
        "flows/alpha/noflow.py": "def hello():\n    pass\n",
        "flows/alpha/nothing.py": "",
    }
    entries = [stage.entry(name=Path(p).stem, entrypoint=f"{p}:hello") for p in broken]
    stage.commit(stage.entry(), *entries, files=broken)
    with pytest.raises(InvalidInput) as caught:
        stage.plan()
    told = {p.path + " " + p.message for p in caught.value.problems}
    assert len(told) == len(broken) and all(p.file == "flows/alpha/deployments.yaml" for p in caught.value.problems)
    for words in (
        "No module named 'pandas_of_tomorrow' (flows/alpha/missing.py:1)",
        "No module named 'deployer'",
        "SyntaxError",
        "sys.exit(3)",
        "ValueError: no database here (flows/alpha/raises.py:3)",
        "is not a flow",
        "nothing.py",
    ):
        assert any(words in one for one in told), (words, told)
    assert stage.wire.writes == []


def test_a_module_that_ends_the_process_is_told_with_its_exit_code(stage: Stage) -> None:
    assert "ended by itself (exit 7)" in faults_of(stage, "import os\nos._exit(7)\n")


def test_a_module_that_never_ends_importing_is_given_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "PATIENCE", 12.0)  # it has to import Prefect first
    assert "has not finished importing" in faults_of(stage, "import threading\nthreading.Event().wait()\n")


def test_a_module_that_closes_every_stream_and_waits_is_given_up(stage: Stage) -> None:
    code = """
import os, threading
for number in range(1, 20):
    try:
        os.close(number)
    except OSError:
        pass
threading.Event().wait()
"""
    assert "The loader ended by itself" in faults_of(stage, code)


def test_a_module_cannot_answer_in_the_loaders_place(stage: Stage) -> None:
    code = """
import os
for number in range(3, 20):
    try:
        os.write(number, b'{"deployments": {}}\\n')
    except OSError:
        pass
"""
    assert "is no answer" in faults_of(stage, code)


def test_a_module_that_never_ends_printing_is_given_up_and_fills_no_disk(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "PATIENCE", 12.0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with watched(tmp_path) as largest:
        said = faults_of(stage, "while True:\n    print('again and again')\n")
    assert "has not finished importing" in said and said.endswith("again and again")
    assert 0 < max(largest) < 10_000_000


@contextmanager
def watched(folder: Path) -> Iterator[list[int]]:
    """The size of the largest file below, looked at all the time."""
    sizes, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(0.2):
            for path in folder.rglob("*"):
                with suppress(OSError):
                    sizes.append(path.stat().st_size)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield sizes
    finally:
        over.set()
        thread.join()


def test_what_a_module_prints_upsets_nothing(stage: Stage) -> None:
    noise = "import os, sys\nprint('{}' * 100_000)\nos.write(1, b'[1]\\n')\nprint('x' * 1_000_000, file=sys.stderr)\n"
    stage.commit(stage.entry(), files={"flows/alpha/flows.py": noise + PLAIN})
    assert "deployment" in {c.kind for c in stage.plan().writes}


def test_the_flows_of_a_commit_never_meet_those_of_the_work_tree(stage: Stage) -> None:
    module = "from flows.beta.number import NUMBER\n" + PLAIN.replace("count: int = 1", "count: int = NUMBER")
    files = {"flows/__init__.py": "", "flows/beta/__init__.py": "", "flows/beta/counting.py": module}
    entry = stage.entry(entrypoint="flows/beta/counting.py:hello")
    first = stage.commit(entry, files={**files, "flows/beta/number.py": "NUMBER = 1\n"})
    stage.commit(entry, files={**files, "flows/beta/number.py": "NUMBER = 2\n"})
    schema = next(c for c in stage.plan(first).writes if c.kind == "deployment").target["parameter_openapi_schema"]
    assert schema["properties"]["count"]["default"] == 1


def test_one_checkout_and_one_loader_serve_all_flows(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"checkouts": 0, "loaders": 0}
    checkout, opened = Repository.checkout, loading.open_loader

    def counted(name: str, original: Any) -> Any:
        @contextmanager
        def wrapper(*given: Any) -> Iterator[Any]:
            counts[name] += 1
            with original(*given) as found:
                yield found

        return wrapper

    monkeypatch.setattr(Repository, "checkout", counted("checkouts", checkout))
    monkeypatch.setattr(loading, "open_loader", counted("loaders", opened))
    stage.release(*(stage.entry(name=f"hello-{n}") for n in range(12)))
    assert counts == {"checkouts": 1, "loaders": 1}


def test_a_released_commit_is_planned_and_put_back_without_its_flows_or_their_dependencies(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dependency = tmp_path / "dependency"
    dependency.write_text("here")
    old = stage.commit(stage.entry(), files={"flows/alpha/flows.py": f"open({str(dependency)!r})\n{PLAIN}"})
    stage.apply()
    stage.release(stage.entry(parameters={"count": 2}))
    dependency.unlink()

    def refused(checkout: Path) -> Loader:
        raise AssertionError("no flow may be loaded")

    monkeypatch.setattr(loading, "open_loader", refused)
    result = stage.apply(old)
    assert result.error is None and stage.deployment()["version"] == old
    with stage.site() as site:
        gone = next(iter(deployments.answers(site.client, site.scope.tags, ())))
        site.client.delete(f"/deployments/{gone['id']}")
    assert stage.apply(old).error is None and stage.deployment()["version"] == old
