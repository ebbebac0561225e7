"""The command line in this process: a scratch repository, a fake API on a loopback port, and all that was said.

    said = command("plan", "--env", "dev", "--format", "json")
    assert said.code == Exit.DONE, said.err

No process is started to import flows: a stand-in answers for the loader, with `hello`'s own parameters. Tests that are
about loading ask for `loading_command` instead.
"""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from deployer import cli, loading
from deployer.prefect_api import Client, Retry
from tests.deployer.stage import StandIn
from tests.fake_prefect import FakePrefect
from tests.repository import HELLO, Repo, deployments, environment

API = {"url": "${PREFECT_API_URL}", "auth_string": "${PREFECT_API_AUTH_STRING:-}"}
TAKES = {
    "name": {"type": "string", "default": "x", "title": "name", "position": 0},
    "count": {"type": "integer", "default": 1, "title": "count", "position": 1},
}


@dataclass(frozen=True)
class Said:
    """What a command ended with, and what it said."""

    code: int
    out: str
    err: str

    @property
    def all(self) -> str:
        return self.out + self.err

    @property
    def json(self) -> Any:
        """Its result; fails unless that is one document and nothing else."""
        return json.loads(self.out)


@dataclass
class Command:
    """`command("verb", ...)` on the repository and the API. Keywords are variables beside its own."""

    repo: Repo
    fake: FakePrefect
    variables: dict[str, str] = field(default_factory=dict)

    def __call__(self, *words: str, **variables: str) -> Said:
        return main(*words, "--repo", str(self.repo.path), variables={**self.variables, **variables})

    def done(self, *words: str, **variables: str) -> Said:
        """The same, where anything but success would be a fault of the test's."""
        said = self(*words, **variables)
        assert said.code == 0, said.all
        return said

    def apply(self, env: str = "dev", *words: str) -> Said:
        return self.done("apply", "--env", env, *words)

    def change(self, **changes: Any) -> str:
        """Commit another catalogue; its SHA."""
        return self.repo.commit("Change", {"flows/alpha/deployments.yaml": deployments(**changes)})

    def releases(self, env: str = "dev") -> list[dict[str, Any]]:
        """Newest first."""
        releases: list[dict[str, Any]] = self.done("history", "--env", env, "--format", "json").json["releases"]
        return releases

    def live(self) -> dict[str, dict[str, Any]]:
        """The deployments on the API, by name."""
        with self.fake.backstage as client:
            return {d["name"]: d for d in client.post("/deployments/filter", json={}).json()}


def main(*words: str, variables: Mapping[str, str] | None = None) -> Said:
    out, err = io.StringIO(), io.StringIO()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = cli.main(list(words), variables or {})
    finally:
        signal.signal(signal.SIGTERM, handler)
    return Said(code, out.getvalue(), err.getvalue())


def files(repository: str, **more: Any) -> dict[str, str]:
    """dev takes main, prod takes version tags; one flow, one deployment."""
    prod = environment("prod", mode="production", branches=(), tags=("v*",), repository=repository, api=API, **more)
    return {
        "environments/dev.yaml": environment(repository=repository, api=API, **more),
        "environments/prod.yaml": prod,
        "flows/alpha/hello.py": HELLO,
        "flows/alpha/deployments.yaml": deployments(),
    }


class Hello(StandIn):
    """Its flows take `name` and `count`, as hello does."""

    def _answer(self, item: Mapping[str, Any]) -> dict[str, Any]:
        schema = {"title": "Parameters", "type": "object", "properties": TAKES}
        return {**super()._answer(item), "parameter_openapi_schema": schema}


@contextmanager
def _stand_in(checkout: Path) -> Iterator[StandIn]:
    yield Hello()


@pytest.fixture
def loading_command(tmp_path: Path, fake: FakePrefect, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """With the real loader, which takes seconds to import Prefect."""
    monkeypatch.setattr(Client.__init__, "__defaults__", (None, Retry(), lambda seconds: None))  # retries do not wait
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))  # there is nobody to verify; reading certificates takes longest
    path = tmp_path / "shop"
    repo = Repo(path, files(path.as_uri()))
    with fake.serve() as url:
        yield Command(repo, fake, {"PREFECT_API_URL": url})


@pytest.fixture
def command(loading_command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setattr(loading, "open_loader", _stand_in)
    return loading_command
