"""The images: what their Dockerfiles are built from, and what runs first and again and again in every container."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from infra.images import entrypoint, health
from scripts import compose_test, images
from scripts.docker_engine import Engine
from scripts.images import ImageError
from scripts.stack import free_ports
from tests.infra.tools import ROOT, run
from tests.repository import Repo

ENTRYPOINT = ROOT / "infra/images/entrypoint.py"
DOCKERFILE = ROOT / "infra/images/Dockerfile"


# -- the files


@pytest.mark.infra
@pytest.mark.parametrize("file", ["infra/images/Dockerfile", "infra/compose/standins/Dockerfile"])
def test_hadolint_finds_nothing(file: str) -> None:
    assert run("hadolint", "--failure-threshold", "style", file) == ""


def test_the_wheel_of_the_flows_takes_every_kind_of_file_that_the_flows_have() -> None:
    patterns = tomllib.loads((ROOT / "infra/images/flows.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    tracked = images.git(ROOT, "ls-files", "flows").decode().split()
    others = [name for name in tracked if not name.endswith((".py", "/requirements.in"))]
    assert others
    assert [name for name in others if not any(fnmatch.fnmatch(Path(name).name, one) for one in patterns)] == []


def test_the_engines_wheel_has_no_flows_that_would_hide_a_commits_own() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["packages"]["find"]["include"] == ["deployer*"]


CLIENTS = {"bookworm": 15, "trixie": 17}
"""PostgreSQL's client of a Debian."""


def client_in_the_image() -> int:
    text = DOCKERFILE.read_text()
    assert re.search(r"apt-get install .* postgresql-client ", text), "the package of the Debian in it"
    [debian] = re.findall(r"^ARG PYTHON_IMAGE=.*-(\w+)$", text, re.M)
    return CLIENTS[debian]


@pytest.mark.parametrize(
    ("file", "version"),
    [
        ("infra/compose/docker-compose.yml", r"image: \$\{POSTGRES_IMAGE:-postgres:(\d+)"),
        ("infra/terraform/modules/database/variables.tf", r'variable "engine_version" \{[^}]*?default += "(\d+)'),
    ],
)
def test_no_server_that_comes_with_the_platform_is_newer_than_the_client_that_backs_it_up(
    file: str, version: str
) -> None:
    """pg_dump refuses a newer server. The chart's backups have an image of their own."""
    servers = {int(found) for found in re.findall(version, (ROOT / file).read_text())}
    [chart] = re.findall(r"image: postgres:(\d+)", (ROOT / "infra/helm/chart/values.yaml").read_text())
    assert servers and max(servers) <= min(client_in_the_image(), int(chart))


def exporter_in_the_image() -> Path:
    [copied] = re.findall(r"^COPY infra/monitoring/exporter (\S+)$", DOCKERFILE.read_text(), re.M)
    return Path(copied)


def test_the_exporter_starts_from_its_folder_as_in_the_image(tmp_path: Path) -> None:
    """Where no other module of this repository is beside it, and the engine is a package among others."""
    folder = tmp_path / exporter_in_the_image().relative_to("/")
    shutil.copytree(ROOT / "infra/monitoring/exporter", folder)
    (tmp_path / "site").mkdir()
    (tmp_path / "site/deployer").symlink_to(ROOT / "deployer")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "site")}
    bare = subprocess.run(
        [sys.executable, folder, "--once"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert bare.returncode == 1 and bare.stderr.startswith("exporter: ") and "PREFECT_API_URL" in bare.stderr


@pytest.mark.parametrize(
    "file",
    [
        "infra/compose/docker-compose.yml",
        "infra/helm/chart/templates/exporter.yaml",
        "infra/terraform/modules/platform/ecs.tf",
    ],
)
def test_who_starts_the_exporter_knows_where_the_image_has_it(file: str) -> None:
    assert re.findall(r"/opt/prefect-platform/[\w/]*exporter[\w.]*", (ROOT / file).read_text()) == [
        str(exporter_in_the_image())
    ]


# -- the entrypoint


def started(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What a command says that the entrypoint becomes."""
    command = [sys.executable, str(ENTRYPOINT), sys.executable, "-c", f"import os; {code}"]
    environment = {"PATH": os.environ["PATH"], **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text("p@ss/w:rd\n")
    return file


def test_a_setting_gets_what_its_file_holds(secret: Path) -> None:
    code = "print(os.environ['PREFECT_API_AUTH_STRING'], 'PREFECT_API_AUTH_STRING_FILE' in os.environ)"
    assert started(code, PREFECT_API_AUTH_STRING_FILE=str(secret)).stdout == "p@ss/w:rd False\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("admin:{file:SECRET}", "admin:p@ss/w:rd"),
        ("redis://:{file:SECRET}@redis:6379/0", "redis://:p%40ss%2Fw%3Ard@redis:6379/0"),
        ("{}", "{}"),
    ],
)
def test_a_secret_goes_into_the_middle_of_a_text_and_into_a_url_in_its_form(
    text: str, expected: str, secret: Path
) -> None:
    assert entrypoint.filled({"ANY": text.replace("SECRET", str(secret))}) == {"ANY": expected}


def test_a_setting_of_prefects_that_is_a_path_stays_one() -> None:
    given = {"PREFECT_API_SSL_CERT_FILE": "/etc/ssl/ca.pem", "POSTGRES_PASSWORD_FILE": "/run/secrets/x"}
    assert entrypoint.filled(given) == given


@pytest.mark.parametrize(("content", "said"), [(None, "No such file"), ("", "is empty")])
def test_a_secret_that_is_not_there_ends_the_start_and_names_the_variable_and_the_file(
    content: str | None, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_text(content)
    answer = started("print('ran')", PREFECT_API_KEY_FILE=str(file))
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "PREFECT_API_KEY_FILE" in answer.stderr and str(file) in answer.stderr and said in answer.stderr


def test_the_command_takes_the_entrypoints_place_with_its_exit_code() -> None:
    assert started("raise SystemExit(7)").returncode == 7


def test_a_command_that_is_not_there_is_a_sentence() -> None:
    answer = subprocess.run([sys.executable, ENTRYPOINT, "nowhere"], capture_output=True, text=True, check=False)
    assert answer.stderr == "entrypoint: nowhere: No such file or directory.\n"


# -- the health check


@pytest.fixture
def answering() -> Iterator[tuple[str, list[int]]]:
    """A server, and the statuses that it answers with from now on."""
    statuses: list[int] = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses[-1] if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/health", statuses
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (307, 0), (401, 1), (503, 1)])
def test_a_service_is_well_while_it_answers_below_400(status: int, code: int, answering: tuple[str, list[int]]) -> None:
    url, statuses = answering
    statuses.append(status)
    assert health.main([url]) == code


def test_a_service_that_does_not_answer_is_not_well(free_port: int) -> None:
    assert health.main([f"http://127.0.0.1:{free_port}/health"]) == 1


def test_a_worker_is_asked_at_its_own_port(
    answering: tuple[str, list[int]], monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setenv("PREFECT_WORKER_WEBSERVER_PORT", answering[0].split(":")[2].partition("/")[0])
    assert health.main(["worker"]) == 0
    monkeypatch.setenv("PREFECT_WORKER_WEBSERVER_PORT", str(free_port))
    assert health.main(["worker"]) == 1


def test_a_container_of_one_run_is_not_asked_for_a_workers_health(
    monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setenv("PREFECT_WORKER_WEBSERVER_PORT", str(free_port))
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "some")
    assert health.main(["worker"]) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's table of connections")
def test_connected_means_a_connection_that_stands(free_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert health.main(["connected", str(port)]) == 1  # it listens; nobody is connected
        with socket.create_connection(("127.0.0.1", port)):
            assert health.main(["connected", str(port)]) == 0
            assert health.main(["connected", str(port), str(free_port)]) == 1


@pytest.fixture
def free_port() -> int:
    return free_ports(1)[0]


# -- building


DOCKER = """\
case "$*" in
"buildx version") echo v0 ;;
"version "*) echo 28 ;;
"image inspect"*) echo 123456789 ;;
build*) echo "$@" >>calls; cat >>context ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A repository to build from, with a `docker` that notes what it is asked for."""
    repo = Repo(tmp_path / "repo", {"README.md": "committed\n"})
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "docker").write_text(f"#!/bin/sh\ncd {tmp_path}\n{DOCKER}")
    (tools / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(images, "ROOT", repo.path)
    return repo


def test_all_three_images_are_built_from_the_commit_and_labelled_with_it(
    checkout: Repo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert images.main([]) == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split("--target ")[1].split()[0] for call in calls] == ["server", "worker", "flows"]
    assert all(f"--build-arg COMMIT={checkout.head} " in call for call in calls)
    assert f"prefect-platform-flows:sha-{checkout.head}  123 MB" in capsys.readouterr().out
    assert b"committed\n" in (tmp_path / "context").read_bytes()


@pytest.mark.parametrize(("words", "network"), [([], []), (["--network", "host"], ["host"])])
def test_a_build_asks_for_no_network_that_a_builder_may_refuse_unless_it_is_told_to(
    words: list[str], network: list[str], checkout: Repo, tmp_path: Path
) -> None:
    assert images.main(["worker", *words]) == 0
    assert re.findall(r"--network (\S+)", (tmp_path / "calls").read_text()) == network


@pytest.mark.parametrize(("own", "networks"), [(True, ["host"] * 3), (False, [])])
def test_the_test_engine_alone_builds_in_this_machines_network(
    own: bool, networks: list[str], checkout: Repo, tmp_path: Path
) -> None:
    """It has no bridge."""
    docker = images.client()
    assert docker
    compose_test.build(Engine(docker, own), checkout.path, checkout.head)
    assert re.findall(r"--network (\S+)", (tmp_path / "calls").read_text()) == networks


def test_a_dirty_work_tree_is_refused_by_name(
    checkout: Repo, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    checkout.write({"README.md": "changed\n", "new.py": ""})
    assert images.main([]) == 1
    said = capsys.readouterr().err
    assert "README.md and 1 more differ from the commit" in said and "--dirty" in said
    assert not (tmp_path / "calls").exists()


def test_a_dirty_image_says_so_and_is_built_from_the_work_tree(checkout: Repo, tmp_path: Path) -> None:
    checkout.write({"README.md": "changed\n"})
    assert images.main(["worker", "--dirty"]) == 0
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert f"COMMIT={checkout.head}-dirty" in call and call.endswith(f" {checkout.path}")


def test_without_an_engine_the_build_says_what_is_missing(
    checkout: Repo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tools/docker").write_text('#!/bin/sh\n[ "$1" = buildx ]\n')
    with pytest.raises(ImageError, match="no Docker engine answers"):
        images.build_all(["server"], "x-", "", dirty=False)
    (tmp_path / "tools/docker").unlink()
    monkeypatch.setenv(
        "PATH", os.path.dirname(shutil.which("git") or "") if not shutil.which("docker") else str(tmp_path)
    )
    with pytest.raises(ImageError, match="can build with BuildKit"):
        images.found_client()


def test_a_credential_in_the_remotes_address_stays_out_of_the_label(checkout: Repo) -> None:
    checkout.git("remote", "add", "origin", "https://user:token@git.example.invalid/team/repo.git")
    assert images.source(checkout.path) == "https://git.example.invalid/team/repo.git"
