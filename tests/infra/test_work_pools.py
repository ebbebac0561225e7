"""The base job templates of infra/work-pools, held against the installed workers and rendered for every deployment."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import jsonschema
import pytest

from deployer import desired, project, source
from deployer.project import Tree
from deployer.template import unfit
from infra.helm.official import KUBERNETES
from tests.infra.tools import ROOT, run

pytestmark = pytest.mark.infra

FOLDER = ROOT / "infra/work-pools"
TYPES = sorted(path.stem for path in FOLDER.glob("*.json"))
IMAGE = "ghcr.io/team/flows:sha-" + "0" * 40

LEFT_OUT: dict[str, dict[str, str]] = {
    "process": {},
    "docker": {
        "privileged": "no run needs the whole machine: it is fixed to false",
        "container_create_kwargs": "what it takes is spelled out: limits, user, capabilities, scratch space",
    },
    "kubernetes": {"cluster_config": "the worker runs in the cluster, under its own service account"},
    "ecs": {"aws_credentials": "the worker has a role; a key in a block would be readable by every flow"},
}
"""Variables of the worker's own template that ours lacks on purpose, and why."""

DEPRECATED = {"ecs": {"stream_output", "task_start_timeout_seconds", "task_watch_poll_interval"}}
"""Left out of the job's configuration as well: the worker itself calls them unused."""


def template(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{kind}.json").read_text())
    return found


@cache
def workers() -> dict[str, Any]:
    """The installed workers' classes, by the type of their pools. By name, because most have no types of their own."""
    homes = {
        "prefect.workers.process": "ProcessWorker",
        "prefect_docker.worker": "DockerWorker",
        "prefect_kubernetes.worker": "KubernetesWorker",
        "prefect_aws.workers.ecs_worker": "ECSWorker",
    }
    found = [getattr(import_module(module), name) for module, name in homes.items()]
    return {worker.type: worker for worker in found}


def upstream(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = workers()[kind].get_default_base_job_template()
    return found


def placeholders(value: Any) -> set[str]:
    from prefect.utilities.templating import find_placeholders

    return {found.name for found in find_placeholders(value)}


# -- against the installed workers


def test_there_is_a_template_for_each_type_of_pool() -> None:
    assert sorted(workers()) == TYPES


@pytest.mark.parametrize("kind", TYPES)
def test_a_template_has_all_that_the_workers_own_has_but_what_is_left_out_on_purpose(kind: str) -> None:
    ours, theirs = template(kind), upstream(kind)
    left_out = set(LEFT_OUT[kind])
    assert set(theirs["variables"]["properties"]) - set(ours["variables"]["properties"]) == left_out
    gone = set(theirs["job_configuration"]) - set(ours["job_configuration"])
    assert gone == (left_out | DEPRECATED.get(kind, set())) - set(ours["job_configuration"])


@pytest.mark.parametrize("kind", TYPES)
def test_a_template_sets_nothing_that_the_worker_does_not_read(kind: str) -> None:
    """Pydantic drops what it does not know without a word: a key that is gone upstream would do nothing."""
    known = set(workers()[kind].job_configuration.model_fields)
    assert set(template(kind)["job_configuration"]) <= known


@pytest.mark.parametrize("kind", TYPES)
def test_every_placeholder_is_a_variable_and_every_variable_is_used(kind: str) -> None:
    found = template(kind)
    assert placeholders(found["job_configuration"]) == set(found["variables"]["properties"])


@pytest.mark.parametrize("kind", TYPES)
def test_every_variable_says_what_it_is_and_its_default_fits(kind: str) -> None:
    schema = template(kind)["variables"]
    jsonschema.Draft202012Validator.check_schema(schema)
    for name, rules in schema["properties"].items():
        assert rules["description"] and ("$ref" in str(rules) or rules["title"]), name
    defaults = {name: rules["default"] for name, rules in schema["properties"].items() if "default" in rules}
    jsonschema.validate(defaults, {**schema, "required": []})


REQUIRED: dict[str, dict[str, Any]] = {
    "process": {},
    "docker": {"image": IMAGE},
    "kubernetes": {"image": IMAGE, "namespace": "prefect-dev"},
    "ecs": {
        "image": IMAGE,
        "execution_role_arn": "arn:aws:iam::1:role/start",
        "cluster": "prefect",
        "vpc_id": "vpc-1",
        "network_configuration": {
            "subnets": ["subnet-1"],
            "securityGroups": ["sg-1"],
            "assignPublicIp": "DISABLED",
        },
    },
}
"""What no default can know. `validate` tells which deployment lacks it; without it the run would fail, or start elsewhere."""


@pytest.mark.parametrize("kind", TYPES)
def test_a_deployment_has_to_bring_only_what_no_default_can_know(kind: str) -> None:
    found = template(kind)
    assert found["variables"].get("required", []) == list(REQUIRED[kind])
    assert unfit("p", found, REQUIRED[kind]) == [] and len(unfit("p", found, {})) == len(REQUIRED[kind])


@pytest.mark.parametrize("kind", TYPES)
def test_prefects_server_takes_the_template_and_its_defaults(kind: str) -> None:
    found, tools = template(kind), import_module("prefect.utilities.schema_tools")
    import_module("prefect.server.schemas.actions").WorkPoolCreate(name="p", type=kind, base_job_template=found)
    tools.is_valid_schema(found["variables"], preprocess=False)
    rules = found["variables"]["properties"]
    given = {name: rule["default"] for name, rule in rules.items() if "default" in rule} | REQUIRED[kind]
    tools.validate(given, found["variables"], raise_on_error=True, preprocess=True)


def test_ecs_refuses_to_write_logs_without_a_role_for_it() -> None:
    """Why the template requires the role: without it the worker would fail each run."""
    with pytest.raises(ValueError, match="execution_role_arn"):
        configure("ecs", {"execution_role_arn": None})


# -- rendered


def deployments() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Environment, name and job variables of every deployment, as the deploy would send them."""
    tree = Tree.working(ROOT)
    for name in tree.environment_names():
        found, problems = project.examine(tree, name, None)
        assert found and not problems
        environment = found.environment
        code = source.code(environment.source, "0" * 40)
        asked = desired.request(environment, found.declared, code, "0" * 40, desired.Scope("project", name))
        yield from ((name, item["name"], item["job_variables"]) for item in asked.deployments)


EVERY = list(deployments())


def configure(kind: str, given: Mapping[str, Any], name: str = "hello", changed: Any = None) -> Any:
    """What the worker makes of a template and a deployment's job variables, ready to be submitted."""
    from prefect.client.schemas.objects import Flow, FlowRun, WorkPool
    from prefect.client.schemas.responses import DeploymentResponse

    base = changed or template(kind)
    values = {**REQUIRED[kind], **given}
    client: Any = object()  # no block or variable is referred to: nothing may be asked
    configuration = asyncio.run(workers()[kind].job_configuration.from_template_and_values(base, values, client=client))
    flow = Flow(id=uuid4(), name=name, labels={})
    deployment = DeploymentResponse(id=UUID(int=1), name=name, flow_id=flow.id, labels={})
    flow_run = FlowRun(id=UUID(int=2), name="able-stag", flow_id=flow.id, deployment_id=deployment.id)
    pool = WorkPool(id=uuid4(), name="pool", type=kind, base_job_template=base, default_queue_id=uuid4())
    configuration.prepare_for_flow_run(flow_run, deployment, flow, pool, "worker", worker_id=UUID(int=3))
    return configuration, flow_run


def manifest(given: Mapping[str, Any], name: str = "hello", changed: Any = None) -> dict[str, Any]:
    configuration, _ = configure("kubernetes", given, name, changed)
    found: dict[str, Any] = configuration.job_manifest
    return found


def created(job: dict[str, Any]) -> dict[str, Any]:
    """As the cluster keeps it: named, and without two keys of a Job that Prefect insists on having in the pod, where
    Kubernetes drops them with a warning."""
    kept = copy.deepcopy(job)
    kept["metadata"]["name"] = kept["metadata"].pop("generateName") + "x2v9k"
    pod = kept["spec"]["template"]["spec"]
    assert (pod.pop("parallelism"), pod.pop("completions")) == (1, 1)
    return kept


def validate_manifests(jobs: list[dict[str, Any]], folder: Path) -> None:
    file = folder / "jobs.yaml"
    file.write_text("\n---\n".join(json.dumps(job) for job in jobs))
    run("kubernetes-validate", "-k", KUBERNETES, "--strict", file)


def test_a_job_manifest_of_every_deployment_is_valid_kubernetes(tmp_path: Path) -> None:
    jobs = [created(manifest(given, name)) for _, name, given in EVERY]
    assert len(jobs) > 20
    validate_manifests(jobs, tmp_path)


def test_prefect_refuses_a_job_without_the_two_misplaced_keys() -> None:
    """Once it no longer does, the template can lose them."""
    changed = template("kubernetes")
    del changed["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]["parallelism"]
    with pytest.raises(ValueError, match=r"missing required attributes at .*/parallelism"):
        manifest({}, changed=changed)


def test_a_misspelt_key_of_the_manifest_is_found(tmp_path: Path) -> None:
    changed = template("kubernetes")
    spec = changed["job_configuration"]["job_manifest"]["spec"]
    spec["ttlSecondsAfterFinish"] = spec.pop("ttlSecondsAfterFinished")
    with pytest.raises(AssertionError, match="ttlSecondsAfterFinish"):
        validate_manifests([created(manifest({})), created(manifest({}, changed=changed))], tmp_path)


def test_a_job_is_limited_confined_and_cleaned_up() -> None:
    spec = manifest({})["spec"]
    pod, box = spec["template"]["spec"], spec["template"]["spec"]["containers"][0]
    assert spec["ttlSecondsAfterFinished"] == 86400 and spec["backoffLimit"] == 0
    assert (
        set(box["resources"]["limits"]) == set(box["resources"]["requests"]) == {"cpu", "memory", "ephemeral-storage"}
    )
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
    assert pod["serviceAccountName"] == "prefect-jobs" and pod["automountServiceAccountToken"] is False
    assert box["securityContext"]["readOnlyRootFilesystem"] and box["securityContext"]["capabilities"] == {
        "drop": ["ALL"]
    }
    assert not box["securityContext"]["allowPrivilegeEscalation"]


def test_a_job_starts_where_it_can_write() -> None:
    """With a read-only root the code's clone and Prefect's home need a place."""
    box = manifest({})["spec"]["template"]["spec"]["containers"][0]
    home = {entry["name"]: entry.get("value") for entry in box["env"]}["HOME"]
    assert box["volumeMounts"] == [{"name": "scratch", "mountPath": home}] and box["workingDir"] == home


def test_every_job_variable_reaches_the_manifest() -> None:
    given = {
        "cpu_limit": "2",
        "memory_limit": "4Gi",
        "service_account_name": "loader",
        "image_pull_policy": "Always",
        "finished_job_ttl": 60,
        "active_deadline_seconds": 3600,
        "env": {"LOG_LEVEL": "debug"},
        "env_from": [{"secretRef": {"name": "market-data"}}],
        "node_selector": {"disk": "fast"},
        "image_pull_secrets": [{"name": "registry"}],
    }
    assert unfit("p", template("kubernetes"), {**REQUIRED["kubernetes"], **given}) == []
    text = json.dumps(manifest(given))
    assert [part for value in given.values() if (part := json.dumps(value)[1:-1]) not in text and part != "LOG"] == [
        '"LOG_LEVEL": "debug"'
    ]
    box = manifest(given)["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "LOG_LEVEL", "value": "debug"} in box["env"]
    assert {"name": "HOME", "value": "/tmp"} in box["env"]


@pytest.mark.parametrize(
    "given",
    [
        {"cpu_limit": "two"},
        {"memory_request": "1 Gi"},
        {"run_as_user": 0},
        {"image_pull_policy": "Sometimes"},
        {"finished_job_ttl": -1},
        {"image_pull_secrets": ["registry"]},
    ],
)
def test_a_job_variable_that_kubernetes_would_refuse_is_refused_before(given: dict[str, Any]) -> None:
    ((path, _),) = unfit("p", template("kubernetes"), {**REQUIRED["kubernetes"], **given})
    assert path[0] in given


class Cluster:
    """Stands in for the cluster's API: keeps the Jobs that it is asked to create."""

    def __init__(self) -> None:
        self.jobs: list[dict[str, Any]] = []

    async def create_namespaced_job(self, namespace: str, body: dict[str, Any]) -> None:
        self.jobs.append(body)


def test_a_job_gets_the_apis_password_by_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the two settings that Prefect's chart makes of basicAuth.existingSecret."""
    for name, value in (("NAME", "prefect-auth"), ("KEY", "auth-string")):
        monkeypatch.setenv(f"PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_{name}", value)
    settings = import_module("prefect.settings")
    with settings.temporary_settings({settings.PREFECT_API_AUTH_STRING: "admin:not-for-all-eyes"}):
        configuration, _ = configure("kubernetes", {})
    cluster = Cluster()
    monkeypatch.setattr(import_module("prefect_kubernetes.worker"), "BatchV1Api", lambda client: cluster)
    worker: Any = object.__new__(workers()["kubernetes"])
    asyncio.run(worker._create_job(configuration, None))
    (job,) = cluster.jobs
    entries = {e["name"]: e for e in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    reference = {"secretKeyRef": {"name": "prefect-auth", "key": "auth-string"}}
    assert entries["PREFECT_API_AUTH_STRING"] == {"name": "PREFECT_API_AUTH_STRING", "valueFrom": reference}
    assert "not-for-all-eyes" not in json.dumps(job)


def test_docker_takes_the_container_of_every_deployment() -> None:
    create_arguments = import_module("docker.models.containers")._create_container_args
    for _, name, given in EVERY:
        configuration, _ = configure("docker", given, name)
        settings = workers()["docker"]._build_container_settings(None, NoDocker(), configuration)
        taken = create_arguments({**settings, "version": "1.45"})  # refuses what it does not know
        limits = taken["host_config"]
        assert (limits["NanoCpus"], limits["Memory"], limits["ReadonlyRootfs"]) == (10**9, 2**30, True)
        assert limits["CapDrop"] == ["ALL"] and limits["AutoRemove"] and taken["user"] == "10001:10001"
        assert taken["environment"]["HOME"] == taken["working_dir"] == "/tmp"


class NoDocker:
    """Only asked for its version."""

    def version(self) -> dict[str, str]:
        return {"Version": "28.0.0"}


def test_aws_takes_the_task_of_every_deployment() -> None:
    """Parameters are checked by boto's own model of the API, unknown ones too."""
    service = import_module("botocore.session").get_session().get_service_model("ecs")
    validate = import_module("botocore.validate").ParamValidator().validate
    shapes = {name: service.operation_model(name).input_shape for name in ("RegisterTaskDefinition", "RunTask")}
    for _, name, given in EVERY:
        definition, request = task(given, name)
        for operation, parameters in (("RegisterTaskDefinition", definition), ("RunTask", request)):
            report = validate(parameters, shapes[operation])
            assert not report.has_errors(), report.generate_report()
        assert (definition["cpu"], definition["memory"], definition["networkMode"]) == ("512", "1024", "awsvpc")
        assert definition["containerDefinitions"][0]["logConfiguration"]["logDriver"] == "awslogs"
        assert request["overrides"]["containerOverrides"][0]["name"] == "prefect"


def task(given: Mapping[str, Any], name: str = "hello") -> tuple[dict[str, Any], dict[str, Any]]:
    """The task definition and the request to run it, as the ECS worker prepares both."""
    configuration, flow_run = configure("ecs", given, name)
    configuration.aws_credentials = Account(configuration)
    worker: Any = object.__new__(workers()["ecs"])
    worker._work_pool_name, worker._logger = "pool", logging.getLogger("test")
    definition = worker._prepare_task_definition(configuration, "eu-central-1", flow_run)
    return definition, worker._prepare_task_run_request(configuration, definition, "arn:task", True)


class Account:
    """Stands in for AWS: there is one VPC, the pool's, with the pool's subnets and a public one."""

    def __init__(self, configuration: Any) -> None:
        self.vpc = configuration.vpc_id
        self.subnets = [*configuration.network_configuration.get("subnets", []), "subnet-public"]

    def get_client(self, name: str) -> Account:
        return self

    def describe_vpcs(self, **_: Any) -> dict[str, Any]:
        return {"Vpcs": [{"VpcId": self.vpc}]}

    def describe_subnets(self, **_: Any) -> dict[str, Any]:
        return {"Subnets": [{"SubnetId": name} for name in self.subnets]}


def test_without_its_network_an_ecs_run_would_start_anywhere_in_the_vpc_and_in_public() -> None:
    """Why the template requires it, and with it the VPC: the worker takes neither alone."""
    _, request = task({"network_configuration": {}})
    assert request["networkConfiguration"]["awsvpcConfiguration"] == {
        "subnets": ["subnet-public"],
        "securityGroups": [],
        "assignPublicIp": "ENABLED",
    }
    _, request = task({})
    assert request["networkConfiguration"]["awsvpcConfiguration"] == REQUIRED["ecs"]["network_configuration"]
    with pytest.raises(ValueError, match="vpc_id"):
        task({"vpc_id": None})


def test_an_ecs_task_takes_secrets_from_aws_and_none_in_clear() -> None:
    secret = {"name": "WAREHOUSE_URL", "valueFrom": "arn:aws:secretsmanager:eu-central-1:1:secret:warehouse"}
    settings = import_module("prefect.settings")
    with settings.temporary_settings({settings.PREFECT_API_AUTH_STRING: "admin:not-for-all-eyes"}):
        definition, request = task({"secrets": [secret], "prefect_api_auth_string_secret_arn": "arn:auth"})
    assert definition["containerDefinitions"][0]["secrets"] == [
        secret,
        {"name": "PREFECT_API_AUTH_STRING", "valueFrom": "arn:auth"},
    ]
    assert "PREFECT_API_AUTH_STRING" not in json.dumps(request)
    assert "not-for-all-eyes" not in json.dumps([definition, request])


def test_a_process_of_every_deployment_starts() -> None:
    for _, name, given in EVERY:
        configuration, _ = configure("process", given, name)
        assert configuration.command and configuration.env["PREFECT__FLOW_RUN_ID"] == str(UUID(int=2))


@pytest.mark.parametrize("kind", ["process", "docker"])
def test_a_run_does_not_want_the_workers_port_for_metrics(kind: str) -> None:
    """It inherits the worker's settings, and could not serve the same port of the same network."""
    settings = import_module("prefect.settings")
    with settings.temporary_settings({settings.PREFECT_CLIENT_METRICS_ENABLED: True}):
        configuration, _ = configure(kind, {"env": {"LOG_LEVEL": "debug"}})
    assert configuration.env["PREFECT_CLIENT_METRICS_ENABLED"] == "false" and configuration.env["LOG_LEVEL"] == "debug"
