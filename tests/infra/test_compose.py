"""The Compose files as Compose itself renders them: what each environment has, what is missing, who can reach what."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from bench.servers import postgresql_programs
from infra.images import entrypoint
from infra.monitoring.exporter import command
from infra.storage import results
from tests.infra.tools import ROOT, attempt, run, tool

if TYPE_CHECKING:
    from tests.postgres import PostgreSQL

pytest_plugins = ["tests.postgres"]
pytestmark = pytest.mark.infra

COMPOSE = ROOT / "infra/compose"
DOCKERFILE = ROOT / "infra/images/Dockerfile"
ENVIRONMENTS = ("dev", "qa", "prod")
GIVEN = {
    "SERVER_IMAGE": "registry.invalid/server@sha256:" + "1" * 64,
    "WORKER_IMAGE": "registry.invalid/worker@sha256:" + "2" * 64,
    "SECRETS": "/srv/prefect-platform",
    "PUBLIC_URL": "https://prefect-qa.example.com",
    "PUBLIC_HOST": "prefect.example.com",
    "RESULT_STORAGE_BLOCK": "remote-file-system/results",
}
ONCE = "migrate"
PREFECTS = ("api", "services", "exporter", "worker-ingestion", "worker-analytics", "worker-maintenance")


def compose(env: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Compose on an environment's files, with these variables and nothing of the shell's."""
    files = [f"--file={COMPOSE}/docker-compose{part}.yml" for part in ("", f".{env}")]
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PWD": str(ROOT), **variables}
    command = [tool("docker-compose"), *files, "--env-file=/dev/null", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@cache
def text_of(env: str) -> str:
    answer = compose(env, "config", "--format", "json", **({} if env == "dev" else GIVEN))
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def rendered(env: str) -> dict[str, Any]:
    return dict(json.loads(text_of(env)))


def services(env: str) -> dict[str, dict[str, Any]]:
    return dict(rendered(env)["services"])


@pytest.fixture(params=ENVIRONMENTS)
def env(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# -- what every service has


def test_every_service_is_checked_limited_restarted_and_hardened(env: str) -> None:
    for name, service in services(env).items():
        assert name == ONCE or service["healthcheck"]["test"], name
        assert service["restart"] == ("no" if name == ONCE else "unless-stopped"), name
        limits = service["deploy"]["resources"]["limits"]
        assert limits["cpus"] and int(limits["memory"]) >= 2**27 and limits["pids"], name
        assert (service["read_only"], service["cap_drop"], service["init"]) == (True, ["ALL"], True), name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert int(service["user"].split(":")[0]) > 0, name
        assert service["logging"]["options"]["max-size"], name


def test_the_linter_finds_only_what_is_meant(env: str, tmp_path: Path) -> None:
    """Tags instead of digests, in dev our own images' `latest`, and the two ports of prod's nginx for everybody."""
    file = tmp_path / "docker-compose.yml"
    file.write_text(yaml.safe_dump(rendered(env)))
    found = attempt("compose-lint", "--format", "json", file)
    rows = [(row["rule_id"], row["service"]) for row in json.loads(found.stdout)["findings"]]
    meant = {("CL-0005", "nginx")} | {(rule, name) for rule in ("CL-0004", "CL-0019") for name in services(env)}
    assert rows and set(rows) <= meant, sorted(set(rows) - meant)


def test_what_needs_another_service_waits_until_that_is_well(env: str) -> None:
    found = services(env)
    for name, service in found.items():
        for other, told in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other == ONCE else "service_healthy"
            assert told["condition"] == wanted, (name, other)
    assert {"postgres", "redis"} <= set(found[ONCE]["depends_on"])
    assert ONCE in found["api"]["depends_on"] and ONCE in found["services"]["depends_on"]
    assert all("api" in found[name]["depends_on"] for name in PREFECTS[2:])


def test_the_file_that_a_service_mounts_is_in_the_repository(env: str) -> None:
    sources = [
        mount["source"] for s in services(env).values() for mount in s.get("volumes", []) if mount["type"] == "bind"
    ]
    ours = [source for source in sources if source.startswith(str(COMPOSE.parent))]
    assert ours
    assert [source for source in ours if "/monitoring/" not in source and not Path(source).exists()] == []


# -- pools, networks, volumes


def test_there_is_a_worker_for_each_pool_of_the_environment_file_and_none_besides(env: str) -> None:
    pools = yaml.safe_load((ROOT / f"environments/{env}.yaml").read_text())["work_pools"]
    wanted = {f"worker-{key}": pool["name"] for key, pool in pools.items() if pool["type"] == "process"}
    found = {n: s["environment"]["WORK_POOL"] for n, s in services(env).items() if n.startswith("worker-")}
    assert found == wanted


def test_a_worker_never_makes_its_pool_and_reports_its_health(env: str) -> None:
    for name, service in services(env).items():
        if name.startswith("worker-"):
            command = " ".join(service["command"])
            assert "--no-create-pool-if-not-found" in command and "--with-healthcheck" in command
            assert '--pool "$$WORK_POOL"' in command and "--type process" in command


def test_environments_on_one_machine_share_no_volume_and_no_network() -> None:
    for kind in ("volumes", "networks"):
        names = [found["name"] for env in ENVIRONMENTS for found in rendered(env)[kind].values()]
        assert len(names) == len(set(names)) >= 3 * 3


def test_only_the_servers_and_the_backup_reach_the_storage_and_it_reaches_nothing(env: str) -> None:
    networks = rendered(env)["networks"]
    assert networks["storage"]["internal"] and networks["warehouse"]["internal"]
    inside = {name for name, service in services(env).items() if "storage" in service["networks"]}
    assert inside == {"postgres", "redis", "migrate", "api", "services", "backup"}
    assert set(services(env)["postgres"]["networks"]) == {"storage", "warehouse"}


def test_what_automations_send_can_leave_from_the_services(env: str) -> None:
    networks = rendered(env)["networks"]
    assert [name for name in services(env)["services"]["networks"] if not networks[name].get("internal")] == [
        "webhooks"
    ]
    assert [name for name, service in services(env).items() if "webhooks" in service["networks"]] == ["services"]


# -- secrets


def placeholders(service: Mapping[str, Any]) -> set[str]:
    return set(entrypoint.PLACEHOLDER.findall(json.dumps(service.get("environment", {}))))


def test_every_secret_that_a_setting_asks_for_is_mounted_where_it_looks(env: str) -> None:
    asked = {name: placeholders(service) for name, service in services(env).items()}
    for name, files in asked.items():
        mounted = {secret["target"] for secret in services(env)[name].get("secrets", [])}
        assert files <= mounted, name
    assert all(asked[name] for name in ("migrate", "api", "services", "worker-ingestion"))


def test_no_password_stands_in_what_docker_shows(env: str) -> None:
    for name, service in services(env).items():
        shown = {k: v for k, v in service.get("environment", {}).items() if v and re.search("PASSWORD|AUTH|_URL", k)}
        loose = {
            k: v for k, v in shown.items() if not k.endswith(("_FILE", "__FILE")) and "://:" in v.replace("{file:", "")
        }
        assert all("{file:" in value for value in loose.values()), name
        assert not [v for v in shown.values() if re.search(r"://[^:/]*:(?!\{file:)[^/@{]+@", v)], name


@pytest.mark.parametrize("env", ["qa", "prod"])
def test_no_secret_of_qa_and_prod_has_a_default(env: str) -> None:
    assert {Path(secret["file"]).parent for secret in rendered(env)["secrets"].values()} == {Path(GIVEN["SECRETS"])}


@pytest.mark.parametrize("env", ["qa", "prod"])
def test_what_is_missing_is_named_and_is_what_the_example_leaves_empty(env: str) -> None:
    answer = compose(env, "config", "--quiet")
    assert answer.returncode != 0
    missing = set(re.findall(r"required variable (\w+) is missing a value: set \1 to", answer.stderr))
    example = (COMPOSE / f".env.{env}.example").read_text()
    assert missing == set(re.findall(r"^(\w+)=$", example, flags=re.M))
    assert "RESULT_STORAGE_BLOCK" in missing and "SECRETS" in missing


def test_the_examples_name_only_variables_that_the_files_read(env: str) -> None:
    texts = [(COMPOSE / f"docker-compose{part}.yml").read_text() for part in ("", f".{env}")]
    read = {name for text in texts for name in re.findall(r"\$\{(\w+)|^ +([A-Z_]+):(?: #.*)?$", text, flags=re.M)}
    told = set(re.findall(r"^(?:# )?([A-Z_]+)=", (COMPOSE / f".env.{env}.example").read_text(), flags=re.M))
    assert told - {name for pair in read for name in pair} <= {"PREFECT_API_URL", "REPOSITORY_URL"}


@pytest.mark.parametrize("env", ["qa", "prod"])
def test_whoever_speaks_with_the_api_has_its_credential(env: str) -> None:
    found = {name: services(env)[name]["environment"] for name in PREFECTS}
    expected = "admin:{file:/run/secrets/prefect-api-password}"
    server = {name: found[name].get("PREFECT_SERVER_API_AUTH_STRING") for name in ("api", "services")}
    assert set(server.values()) == {expected}
    assert {found[name].get("PREFECT_API_AUTH_STRING") for name in PREFECTS[2:]} == {expected}


def test_dev_asks_for_no_credential() -> None:
    assert not [name for name, s in services("dev").items() if "AUTH_STRING" in json.dumps(s.get("environment", {}))]


# -- what differs


@pytest.mark.parametrize(
    ("env", "address"),
    [
        ("dev", "http://127.0.0.1:4200/api"),
        ("qa", "https://prefect-qa.example.com/api"),
        ("prod", "https://prefect.example.com/api"),
    ],
)
def test_the_ui_asks_the_api_where_a_browser_finds_it(env: str, address: str) -> None:
    assert services(env)["api"]["environment"]["PREFECT_SERVER_UI_API_URL"] == address
    assert services(env)["worker-ingestion"]["environment"]["PREFECT_UI_URL"] + "/api" == address


def test_only_nginx_in_prod_can_be_reached_from_outside(env: str) -> None:
    published = {(name, p.get("host_ip")) for name, s in services(env).items() for p in s.get("ports", [])}
    assert {name for name, host in published if host != "127.0.0.1"} == ({"nginx"} if env == "prod" else set())
    assert ("api", "127.0.0.1") in published or env == "prod"


def test_what_two_apis_would_do_at_once_is_done_before_them(env: str) -> None:
    settings = services(env)["api"]["environment"]
    assert settings["PREFECT_SERVER_DATABASE_MIGRATE_ON_START"] == "false"
    assert settings["PREFECT_SERVER_REGISTER_BLOCKS_ON_START"] == "false"
    command = " ".join(services(env)[ONCE]["command"])
    assert re.search(r"database upgrade --yes && exec python \S+/blocks.py", command)


def wanted_of_servers() -> dict[str, str]:
    """The settings that docs/high-availability.md asks of each API and of the services."""
    text = (ROOT / "docs/high-availability.md").read_text()
    return dict(re.findall(r"(?<=\s)(PREFECT_(?:SERVER|REDIS)_\w+)=(\S+)", text.split("## ")[1]))


def test_the_servers_share_by_redis_what_they_have_to_share(env: str) -> None:
    wanted = wanted_of_servers()
    assert len(wanted) == 11
    for name in ("api", "services"):
        settings = services(env)[name]["environment"]
        for key, value in wanted.items():
            begin = value.removesuffix("...")
            assert settings[key] == value or (begin != value and settings[key].startswith(begin)), (name, key)
        urls = {key: value for key, value in settings.items() if value.startswith("redis:")}
        assert len(urls) == 3 and all(":{file:/run/secrets/redis-password}@redis:6379/" in url for url in urls.values())
        database = settings["PREFECT_SERVER_DATABASE_CONNECTION_URL"]
        assert database.endswith("prefect:{file:/run/secrets/postgres-password}@postgres:5432/prefect")


def test_the_apis_run_no_services_and_the_services_run_alone(env: str) -> None:
    api, background = (services(env)[name] for name in ("api", "services"))
    assert api["command"] == ["prefect", "server", "start", "--host", "0.0.0.0", "--no-services"]
    assert background["command"] == ["prefect", "server", "services", "start"]
    assert background["deploy"].get("replicas", 1) == 1


def test_workers_repeat_a_500_and_send_heartbeats(env: str) -> None:
    for name in ("worker-ingestion", "worker-analytics", "worker-maintenance"):
        settings = services(env)[name]["environment"]
        assert settings["PREFECT_CLIENT_RETRY_EXTRA_CODES"] == "500"
        assert settings["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"


def volumes(service: Mapping[str, Any]) -> dict[str, str]:
    """What lasts: the volume that is mounted at each place."""
    return {m["target"]: m["source"] for m in service.get("volumes", []) if m["type"] == "volume"}


def test_who_watches_the_backups_knows_how_often_they_are_made(env: str) -> None:
    given = {**({} if env == "dev" else GIVEN), "BACKUP_EVERY_SECONDS": "3600"}
    found = json.loads(compose(env, "config", "--format", "json", **given).stdout)["services"]
    asked = command.parser().parse_args(found["exporter"]["command"][2:])
    assert asked.backups_schedule == {"interval": float(found["backup"]["environment"]["EVERY_SECONDS"])}
    assert asked.listen == "0.0.0.0:9464" and asked.backups_schedule["interval"] == 3600


def test_what_has_to_last_is_in_a_volume(env: str) -> None:
    found = services(env)
    backup_service = found["backup"]
    folder = backup_service["environment"]["BACKUPS"]
    assert volumes(backup_service)[folder] == "backups" and volumes(found["exporter"])["/backups"] == "backups"
    assert volumes(found["postgres"]) == {"/var/lib/postgresql/data": "postgres"}
    assert volumes(found["redis"]) == {"/data": "redis"}
    results_folder = found["worker-ingestion"]["environment"]["PREFECT_LOCAL_STORAGE_PATH"]
    assert all(volumes(one)[results_folder] == "results" for name, one in found.items() if name.startswith("worker-"))
    for service in found.values():
        held_in_memory = {place.split(":")[0] for place in service.get("tmpfs", [])}
        assert not held_in_memory & volumes(service).keys()


def test_the_first_start_makes_the_warehouse(env: str) -> None:
    mounts = {m["target"]: m["source"] for m in services(env)["postgres"]["volumes"] if m["type"] == "bind"}
    assert mounts == {"/docker-entrypoint-initdb.d/warehouse.sh": str(COMPOSE / "postgres/warehouse.sh")}


def test_nginx_hands_on_to_a_port_of_the_stack_and_keeps_websockets() -> None:
    text = re.sub(r"#.*", "", (COMPOSE / "nginx/nginx.conf").read_text())
    (variable, name, port) = re.findall(r"set (\$\w+) http://([\w-]+):(\d+);", text)[0]
    assert re.findall(r"proxy_pass (\S+);", text) == [variable]
    found = services("prod")
    assert f":{port}/" in found[name]["healthcheck"]["test"][-1]
    assert found[name]["networks"].keys() & found["nginx"]["networks"].keys()
    headers = dict(re.findall(r"proxy_set_header (\S+) (\S+);", text))
    assert headers["Upgrade"] == "$http_upgrade" and headers["Connection"] == "$connection_upgrade"
    assert "proxy_http_version 1.1;" in text and re.search(
        r"map \$http_upgrade \$connection_upgrade {\s+default upgrade;", text
    )
    listening = set(re.findall(r"listen (\d+)", text))
    assert {str(one["target"]) for one in found["nginx"]["ports"]} == listening


def test_prod_has_two_apis_and_nothing_that_keeps_them_from_being_two() -> None:
    api = services("prod")["api"]
    assert api["deploy"]["replicas"] == 2
    assert "ports" not in api and "container_name" not in api
    assert services("prod")["nginx"]["networks"].keys() & api["networks"].keys()


def test_qa_is_smaller_than_prod_and_no_service_larger() -> None:
    def sizes(env: str) -> dict[str, tuple[float, int]]:
        limits = {name: s["deploy"]["resources"]["limits"] for name, s in services(env).items()}
        return {name: (float(one["cpus"]), int(one["memory"])) for name, one in limits.items()}

    qa, prod = sizes("qa"), sizes("prod")
    assert all(qa[name][0] <= prod[name][0] and qa[name][1] <= prod[name][1] for name in qa)
    assert sum(memory for _, memory in qa.values()) < sum(memory for _, memory in prod.values()) / 2


def test_dev_sees_the_commits_and_the_flows_of_the_checkout() -> None:
    mounts = {m["target"]: m for m in services("dev")["worker-analytics"]["volumes"]}
    assert mounts["/opt/flows/flows"]["source"] == f"{ROOT}/flows"
    assert mounts[f"{ROOT}/.git"]["source"] == f"{ROOT}/.git"
    assert mounts["/opt/flows/flows"]["read_only"]
    for target in ("/opt/flows/flows", f"{ROOT}/.git"):  # a folder that is not there is an error, and not made by root
        assert mounts[target]["bind"] == {"create_host_path": False}


def test_dev_is_built_by_any_builder() -> None:
    """One in a container refuses `network: host`, unless somebody entitled it to that."""
    builds = [service["build"] for service in services("dev").values() if "build" in service]
    assert len(builds) == 7 and not [build for build in builds if "network" in build or "entitlements" in build]


def test_metrics_bear_the_environments_plain_name(env: str) -> None:
    assert services(env)["prometheus"]["environment"]["ENVIRONMENT"] == env


def test_results_are_json_and_in_qa_and_prod_in_a_block(env: str) -> None:
    settings = services(env)["worker-ingestion"]["environment"]
    assert settings["PREFECT_RESULTS_DEFAULT_SERIALIZER"] == "json"
    assert settings.get("PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK") == (
        None if env == "dev" else "remote-file-system/results"
    )


def test_the_ui_is_unpacked_where_the_api_can_write(env: str) -> None:
    """Elsewhere the API starts without one: its own files are read-only."""
    [folder] = re.findall(r"^ENV PREFECT_SERVER_UI_STATIC_DIRECTORY=(\S+)", DOCKERFILE.read_text(), flags=re.M)
    places = [Path(place.split(":")[0]) for place in services(env)["api"]["tmpfs"]]
    assert any(Path(folder).is_relative_to(place) for place in places)


@pytest.mark.parametrize("env", ["qa", "prod"])
def test_the_results_block_is_the_one_that_the_repositorys_tool_makes(env: str) -> None:
    answer = compose(env, "config", "--quiet")
    assert f"such as {results.KIND}/results" in answer.stderr
    assert f"{results.KIND}/results" in (COMPOSE / f".env.{env}.example").read_text()
    assert "infra/storage/results.py block s3://" in (COMPOSE / "README.md").read_text()


@pytest.mark.parametrize("env", ["qa", "prod"])
def test_the_workers_find_the_key_to_the_bucket_and_where_it_is(env: str) -> None:
    place = {"AWS_DEFAULT_REGION": "eu-central-1", "AWS_ENDPOINT_URL": "https://minio.example.com"}
    answer = compose(env, "config", "--format", "json", **GIVEN, **place)
    found = json.loads(answer.stdout)["services"]
    for worker in (service for name, service in found.items() if name.startswith("worker-")):
        settings = worker["environment"]
        assert {name: settings[name] for name in place} == place
        assert settings["AWS_SHARED_CREDENTIALS_FILE"] in {one["target"] for one in worker["secrets"]}


def test_the_file_for_the_buckets_key_reads_as_none_until_it_is_filled_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(str(COMPOSE / "secrets.sh"), tmp_path / "secrets")
    file = tmp_path / "aws"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))

    def profiles() -> Any:
        return import_module("botocore.session").Session().full_config["profiles"]

    file.write_text((tmp_path / "secrets/aws-credentials").read_text())
    assert profiles() == {}
    file.write_text(re.sub(r"(?m)^# (?=\[|aws_)", "", file.read_text()).replace(" = ", " = key"))
    assert profiles() == {"default": {"aws_access_key_id": "key", "aws_secret_access_key": "key"}}


# -- what runs in them


def redis(folder: Path, password: str) -> subprocess.CompletedProcess[str]:
    """The service's own command, with a `redis-server` that shows the configuration it was given."""
    (folder / "redis-server").write_text('#!/bin/sh\n[ "$*" = - ] && cat\n')
    (folder / "redis-server").chmod(0o755)
    (folder / "redis-password").write_text(password)
    *words, script = (word.replace("$$", "$") for word in services("prod")["redis"]["command"])
    environment = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    command = [*words, script.replace("/run/secrets", str(folder))]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_redis_asks_for_the_password_keeps_all_and_forgets_nothing(tmp_path: Path) -> None:
    lines = redis(tmp_path, "a$b`c#d\n").stdout.splitlines()
    assert {"requirepass a$b`c#d", "appendonly yes", "maxmemory-policy noeviction", "dir /data"} == set(lines)
    assert "redis:/data" in [f"{m['source']}:{m['target']}" for m in services("prod")["redis"]["volumes"]]


@pytest.mark.parametrize("password", ["", "two words", 'a"quote', "a'quote", "back\\slash", "two\nlines", "a\ttab"])
def test_a_password_that_redis_would_print_is_refused_before_it_starts(tmp_path: Path, password: str) -> None:
    answer = redis(tmp_path, password)
    assert answer.returncode == 1 and answer.stdout == ""
    assert (
        answer.stderr.startswith("redis: the secret redis-password is empty or has") and answer.stderr.count("\n") == 1
    )
    assert not password or password not in answer.stderr


def test_nginx_takes_its_configuration(tmp_path: Path) -> None:
    key, certificate = tmp_path / "tls-key", tmp_path / "tls-certificate"
    names = ["-subj", "/CN=localhost", "-days", "2", "-keyout", key, "-out", certificate]
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *names)
    text = (COMPOSE / "nginx/nginx.conf").read_text().replace("/tmp/", f"{tmp_path}/")
    (tmp_path / "nginx.conf").write_text(text.replace("/run/secrets/", f"{tmp_path}/"))
    assert "test is successful" in attempt("nginx", "-t", "-p", tmp_path, "-c", tmp_path / "nginx.conf").stderr


def test_the_secrets_are_made_once_and_can_be_read_by_the_containers_users(tmp_path: Path) -> None:
    folder = tmp_path / "platform/prod"
    first = run(str(COMPOSE / "secrets.sh"), folder)
    made = {file.name: file.read_text() for file in folder.iterdir()}
    missing = set(re.findall(r"^([a-z-]+): MISSING", first, flags=re.M))
    assert set(made) | missing == set(rendered("prod")["secrets"]) and not set(made) & missing
    passwords = [text for name, text in made.items() if name != "aws-credentials"]
    assert all(len(text) == 48 for text in passwords) and len(set(passwords)) == 5
    assert (folder.parent.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o755, 0o700)
    assert {f.stat().st_mode & 0o777 for f in folder.iterdir()} == {0o444}
    assert first.count("made") == 6 and run(str(COMPOSE / "secrets.sh"), folder).count("kept") == 6
    assert {file.name: file.read_text() for file in folder.iterdir()} == made


@pytest.mark.parametrize("name", ["postgres-password", "slack-webhook-url", "tls-key"])
@pytest.mark.parametrize("text", ["", "none", " None \n", "\n"])
def test_what_is_no_secret_is_refused_and_left_as_it_is(tmp_path: Path, name: str, text: str) -> None:
    """A channel called `none` would swallow alerts; another password than the database's would lock everybody out."""
    (tmp_path / name).write_text(text)
    answer = attempt(str(COMPOSE / "secrets.sh"), tmp_path)
    assert answer.returncode == 1 and f"{name}: " not in answer.stdout
    [line] = answer.stderr.splitlines()
    assert line.startswith(f"{tmp_path / name} is empty or says 'none', which is no secret. Write ")
    assert (tmp_path / name).read_text() == text and (tmp_path / "redis-password").exists()


def test_a_channel_that_was_taken_out_asks_for_no_secret(tmp_path: Path) -> None:
    """Compose mounts its file all the same."""
    for part in ("compose", "monitoring/alertmanager"):
        (tmp_path / part).mkdir(parents=True)
    script = shutil.copy(COMPOSE / "secrets.sh", tmp_path / "compose")
    written = (ROOT / "infra/monitoring/alertmanager/alertmanager.yml").read_text()
    kept = [line for line in written.splitlines() if "pagerduty-routing-key" not in line]
    (tmp_path / "monitoring/alertmanager/alertmanager.yml").write_text("\n".join(kept))
    out = run(str(script), tmp_path / "prod")
    assert "pagerduty-routing-key: not needed" in out and "slack-webhook-url: MISSING" in out
    assert (tmp_path / "prod/pagerduty-routing-key").read_text() == "unused\n"


def test_what_the_containers_mount_of_a_private_checkout_can_be_read_by_their_users(tmp_path: Path) -> None:
    """Of one that was cloned with a umask of 077. What is mounted nowhere stays private."""
    copy = tmp_path / "infra"
    for part in ("compose", "monitoring"):
        shutil.copytree(COMPOSE.parent / part, copy / part)
    for path in (copy, *copy.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o077)
    run(str(copy / "compose/secrets.sh"), tmp_path / "prod")
    binds = [m for s in services("prod").values() for m in s.get("volumes", []) if m["type"] == "bind"]
    places = {copy / Path(mount["source"]).relative_to(COMPOSE.parent) for mount in binds}
    assert len(places) == 7
    for path in (inside for place in places for inside in (place, *place.rglob("*"))):
        wanted = 0o005 if path.is_dir() else 0o004
        assert path.stat().st_mode & wanted == wanted, path
    assert (copy / "compose/README.md").stat().st_mode & 0o077 == 0


def test_what_is_told_to_write_into_the_platforms_folder_is_told_to_do_so_as_root() -> None:
    """secrets.sh makes it, for root: nobody else writes there, nor sees which files match a `*`."""
    texts = [(COMPOSE / name).read_text() for name in ("README.md", ".env.qa.example", ".env.prod.example")]
    lines = [line.strip(" #") for text in texts for line in text.splitlines()]
    written = [line for line in lines if re.match(r"(sudo )?(cp|mv|install|chmod) .*/srv/", line)]
    assert len(written) == 5 and all(re.match("sudo install -m [46]44 ", line) for line in written)
    assert not any("*" in line for line in written)


@pytest.mark.stack
def test_the_warehouses_user_has_its_database_may_make_one_and_sees_no_other(
    postgresql: PostgreSQL, tmp_path: Path
) -> None:
    import psycopg

    (tmp_path / "password").write_text("its-own")
    path = f"{postgresql_programs()}{os.pathsep}{os.environ['PATH']}"
    server = {"PGHOST": "127.0.0.1", "PGPORT": str(postgresql.port), "PGPASSWORD": postgresql.password, "PATH": path}
    image = {"POSTGRES_USER": "tester", "POSTGRES_DB": "postgres", "WAREHOUSE_PASSWORD_FILE": f"{tmp_path}/password"}
    with psycopg.connect(postgresql.url(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE prefect")
        try:
            subprocess.run(["sh", COMPOSE / "postgres/warehouse.sh"], env={**server, **image}, check=True)
            its = f"postgresql://warehouse:its-own@127.0.0.1:{postgresql.port}"
            with psycopg.connect(f"{its}/warehouse", autocommit=True) as connection:
                connection.execute("CREATE TABLE price (close float)")
                connection.execute("CREATE DATABASE scratch")  # as the flow database-backup does
                connection.execute("DROP DATABASE scratch")
            with pytest.raises(psycopg.OperationalError, match="permission denied"):
                psycopg.connect(f"{its}/prefect")
        finally:
            for what in ("DATABASE warehouse", "DATABASE prefect", "ROLE warehouse"):
                admin.execute(f"DROP {what}".encode())


PG_DUMP = """#!/bin/sh
for word; do case $word in --file=*) f=${word#--file=} ;; esac; done
printf '%s' "${CONTENT-dump}" >>"$f"
[ -z "${WAITS:-}" ] || { echo begun >"$WAITS"; read -r _ <"$WAITS"; }
exit ${DUMP_FAILS:-0}
"""
PG_RESTORE = """#!/bin/sh
[ "$1" = --list ] && [ "$(cat "$2")" = dump ]
"""


@pytest.fixture
def backups(tmp_path: Path) -> Iterator[Path]:
    """A folder for backups, and a `pg_dump` that writes what it is told, waits if it is told to, or breaks off half way."""
    folder, tools = tmp_path / "backups", tmp_path / "tools"
    folder.mkdir()
    tools.mkdir()
    for name, text in (("pg_dump", PG_DUMP), ("pg_restore", PG_RESTORE)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (tmp_path / "password").write_text("x")
    yield folder
    shutil.rmtree(folder)


def backup(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(COMPOSE / "backup.sh"), *words]
    return subprocess.run(command, env=told(folder, **variables), capture_output=True, text=True, check=False)


def told(folder: Path, **variables: str) -> dict[str, str]:
    home = folder.parent
    given = {"BACKUPS": str(folder), "PASSWORD_FILE": f"{home}/password", "KEEP_DAYS": "3", "EVERY_SECONDS": "3600"}
    return {"PATH": f"{home}/tools{os.pathsep}{os.environ['PATH']}", **given, **variables}


def aged(folder: Path, days: float) -> Path:
    file = folder / f"prefect-{days}.dump"
    file.write_text("old")
    os.utime(file, (time.time() - days * 86400,) * 2)
    return file


def test_a_dump_that_breaks_off_never_counts_as_a_backup(backups: Path) -> None:
    assert backup(backups, "once", DUMP_FAILS="1").returncode == 1
    assert list(backups.glob("prefect-*")) == []
    assert backup(backups, "check").returncode == 1


def test_a_dump_that_cannot_be_read_is_none_and_leaves_nothing(backups: Path) -> None:
    assert backup(backups, "once", CONTENT="half").returncode == 1
    assert list(backups.iterdir()) == []


def test_two_backups_at_once_are_two_whole_ones(backups: Path) -> None:
    gate = backups.parent / "gate"
    os.mkfifo(gate)
    command = ["bash", str(COMPOSE / "backup.sh"), "once"]
    with subprocess.Popen(command, env=told(backups, WAITS=str(gate)), stdout=subprocess.DEVNULL) as first:
        assert gate.read_text() == "begun\n"  # it has written, and not yet ended
        assert backup(backups, "once").returncode == 0
        aside = backups.parent / "second"
        next(backups.glob("prefect-*")).rename(aside)  # should both have the name of one second
        gate.write_text("go\n")
        assert first.wait(30) == 0
    assert [file.read_text() for file in (aside, *backups.iterdir())] == ["dump", "dump"]


def test_the_part_of_a_dump_that_was_killed_goes_after_a_day(backups: Path) -> None:
    for name, days in ((".part.killed", 3), (".part.running", 0)):
        (backups / name).write_text("half")
        os.utime(backups / name, (time.time() - days * 86400,) * 2)
    assert backup(backups, "once").returncode == 0
    assert [file.name for file in backups.glob(".part*")] == [".part.running"]


def test_a_service_whose_dump_breaks_off_says_so_and_goes_on_without_a_backup(backups: Path) -> None:
    command = ["bash", str(COMPOSE / "backup.sh")]
    with subprocess.Popen(command, env=told(backups, DUMP_FAILS="1"), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr and process.stderr.readline() == "the backup failed; once more in a minute\n"
        assert process.poll() is None
        process.terminate()
        assert process.wait(30) == 0
    assert list(backups.glob("prefect-*")) == []


def test_a_backup_is_young_until_two_of_its_intervals_have_passed(backups: Path) -> None:
    assert backup(backups, "once").returncode == 0
    assert backup(backups, "check").returncode == 0
    (file,) = backups.glob("prefect-*.dump")
    os.utime(file, (time.time() - 7300,) * 2)
    answer = backup(backups, "check")
    assert answer.returncode == 1 and str(file) in answer.stdout


@contextmanager
def backup_service(folder: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    command, pipe = ["bash", str(COMPOSE / "backup.sh")], subprocess.PIPE
    environment = told(folder, **variables)
    with subprocess.Popen(
        command, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        try:
            yield process
            process.terminate()
            assert process.wait(30) == 0
        finally:
            with suppress(ProcessLookupError):  # where the test failed, its dump may wait for ever
                os.killpg(process.pid, signal.SIGKILL)


def test_a_service_is_well_while_its_dump_is_being_written_and_not_when_that_hangs(backups: Path) -> None:
    """A large database's takes longer than the health check's patience, and after two days' stop there is no young one."""
    aged(backups, 2.5)
    assert backup(backups, "check").returncode == 1
    gate = backups.parent / "gate"
    os.mkfifo(gate)
    with backup_service(backups, WAITS=str(gate)) as process:
        assert gate.read_text() == "begun\n"
        assert backup(backups, "check").returncode == 0
        (part,) = backups.glob(".part.*")
        os.utime(part, (time.time() - 700,) * 2)
        assert backup(backups, "check").returncode == 1
        gate.write_text("go\n")
        assert process.stdout and "4 bytes" in process.stdout.readline()
    assert backup(backups, "check").returncode == 0 and not list(backups.glob(".part.*"))


def test_a_dump_that_is_tried_again_counts_only_when_it_is_whole(backups: Path) -> None:
    with backup_service(backups, DUMP_FAILS="1") as process:
        assert process.stderr and "failed" in process.stderr.readline()
        (backups / ".part.again").write_text("half")
        assert backup(backups, "check").returncode == 1
    gate = backups.parent / "gate"
    os.mkfifo(gate)
    with backup_service(backups, WAITS=str(gate)):  # a new container: nothing has failed there yet
        assert gate.read_text() == "begun\n" and backup(backups, "check").returncode == 0
        gate.write_text("go\n")


def test_old_backups_go_after_a_new_one_and_never_before(backups: Path) -> None:
    old, young = aged(backups, 9), aged(backups, 1)
    assert backup(backups, "once", DUMP_FAILS="1").returncode == 1
    assert old.exists()
    assert backup(backups, "once").returncode == 0
    assert young.exists() and not old.exists()


def test_the_stand_ins_cover_every_public_image_but_grafanas(env: str) -> None:
    """So that `make compose-test` without a registry tries all that can be tried, and says what it left out."""
    from scripts.docker_engine import _targets

    public = {name for name, service in services(env).items() if name not in (*PREFECTS, ONCE, "backup")}
    assert public - set(_targets()) == {"grafana"}


def test_compose_test_says_in_a_sentence_that_there_is_no_engine(tmp_path: Path) -> None:
    (tmp_path / "docker").write_text('#!/bin/sh\n[ "$1" = buildx ]\n')
    (tmp_path / "docker").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "DOCKER_HOST": "unix:///nowhere",
    }
    command = [sys.executable, f"{ROOT}/scripts/compose_test.py", f"--state={tmp_path}/state"]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert answer.stderr.startswith(
        "compose-test: NOT TRIED: no Docker engine answers at DOCKER_HOST, unix:///nowhere."
    )
