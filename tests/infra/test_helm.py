"""infra/helm: values held against what Prefect's charts take, our chart rendered and held against Kubernetes' schemas."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module, util
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from deployer.environment import WorkPool
from deployer.errors import InvalidInput
from infra.helm import releases
from infra.helm.official import KUBERNETES
from infra.helm.releases import HERE, Release
from infra.monitoring.exporter import command
from tests.infra.tools import ROOT, attempt, run

pytestmark = pytest.mark.infra

CHART = HERE / "chart"
ENVIRONMENTS = ("dev", "qa", "prod")
OFFICIAL = ("prefect-server", "prefect-worker")
TAG = "sha-" + "0" * 40


@cache
def facts(chart: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HERE / f"keys/{chart}.json").read_text())
    return found


@cache
def pools(environment: str, kind: str) -> dict[str, WorkPool]:
    """The environment's own pools, as if they were of this type."""
    return {key: p.model_copy(update={"type": kind}) for key, p in releases.pools_of(environment).items()}


def installed(environment: str, kind: str = "kubernetes") -> list[Release]:
    return list(releases.releases(environment, pools(environment, kind), TAG))


def read(file: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((HERE / "values" / file).read_text())
    return found


def merged(base: Any, over: Any) -> Any:
    """As helm does it: maps by key, everything else replaces."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    return {**base, **{key: merged(base.get(key), value) for key, value in over.items()}}


def values(release: Release) -> dict[str, Any]:
    """What helm would give the chart: all files of a release and its settings."""
    found: dict[str, Any] = {}
    for file in release.files:
        found = merged(found, read(file))
    for key, value in release.settings:
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        found = merged(found, nested)
    return found


def official(kind: str = "kubernetes") -> Iterator[tuple[str, Release]]:
    for environment in ENVIRONMENTS:
        yield from ((environment, r) for r in installed(environment, kind) if r.chart.startswith("prefect/"))


def server(environment: str) -> dict[str, Any]:
    return values(next(r for r in installed(environment) if r.name == "prefect-server"))


# -- the values of Prefect's charts


@pytest.mark.parametrize("kind", releases.TYPES)
def test_the_values_of_every_release_are_ones_that_prefects_charts_take(kind: str) -> None:
    for environment, release in official(kind):
        schema = facts(release.chart.removeprefix("prefect/"))["values"]
        errors = [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(values(release))]
        assert errors == [], f"{release.name} in {environment}"


@pytest.mark.parametrize(
    ("chart", "wrong", "message"),
    [
        ("prefect-server", {"server": {"replicaCout": 2}}, "'replicaCout' was unexpected"),
        ("prefect-server", {"ingres": {}}, "'ingres' was unexpected"),
        (
            "prefect-server",
            {"server": {"updateStrategy": {"rollingUpdate": {"maxSurge": 1}}}},
            "is not of type 'string'",
        ),
        ("prefect-worker", {"worker": {"config": {"workPools": "a"}}}, "'workPools' was unexpected"),
        ("prefect-worker", {"worker": {"podDisruptionBudget": 1}}, "is not of type 'object'"),
    ],
)
def test_a_value_that_prefects_charts_do_not_take_is_found(chart: str, wrong: dict[str, Any], message: str) -> None:
    (error,) = jsonschema.Draft7Validator(facts(chart)["values"]).iter_errors(wrong)
    assert message in error.message


def test_what_is_recorded_is_of_the_version_that_is_installed() -> None:
    for chart in OFFICIAL:
        assert facts(chart)["version"] == releases.CHARTS and len(facts(chart)["commit"]) == 40


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_database_and_redis_are_others_and_the_services_run_apart(environment: str) -> None:
    found = server(environment)
    assert [found[part]["enabled"] for part in ("postgresql", "redis", "sqlite")] == [False, False, False]
    assert (
        found["backgroundServices"]["runAsSeparateDeployment"]
        and found["backgroundServices"]["messaging"]["redis"]["host"]
    )


PLAIN = {"password", "authString", "connectionString", "username", "url", "apiKey", "token"}
"""Keys of the charts that would hold a secret itself."""


def test_secrets_are_named_and_never_written() -> None:
    for _, release in official():
        found = dict(leaves(values(release)))
        assert [path for path in found if path.split(".")[-1] in PLAIN] == []
        assert [path for path, value in found.items() if "://" in str(value) and "@" in str(value)] == []
    names = {value for path, value in leaves(server("prod")) if path.endswith(("existingSecret", "secretKeyRef.name"))}
    assert names == {"prefect-auth", "prefect-database", "prefect-redis"}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, path)
    else:
        yield path, value


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_ui_asks_the_host_that_the_ingress_serves_with_tls(environment: str) -> None:
    """`tls: true` alone makes no TLS without cert-manager: the chart leaves it out without a word."""
    found = server(environment)
    host = found["ingress"]["host"]["hostname"]
    assert found["server"]["uiConfig"]["prefectUiApiUrl"] == f"https://{host}/api"
    assert [entry["hosts"] for entry in found["ingress"]["extraTls"]] == [[host]]


def test_workers_ask_the_server_of_their_own_environment() -> None:
    for environment, release in official():
        if release.chart == "prefect/prefect-worker":
            url = values(release)["worker"]["selfHostedServerApiConfig"]["apiUrl"]
            assert url == f"http://prefect-server.prefect-{environment}.svc.cluster.local:4200/api"


def test_workers_of_one_namespace_do_not_take_each_others_objects() -> None:
    """The chart's own default gives all releases the same name."""
    accounts = {pod: facts("prefect-worker")["pods"][pod]["account"] for pod in facts("prefect-worker")["pods"]}
    assert accounts == {f"prefect-worker-{key}": f"prefect-worker-{key}" for key in pools("prod", "kubernetes")}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_node_can_be_drained_and_the_api_stays(environment: str) -> None:
    found, own = server(environment)["server"], values(installed(environment)[0])
    scaled = found.get("autoscaling", {"enabled": False})
    replicas = scaled["minReplicas"] if scaled["enabled"] else found["replicaCount"]
    assert replicas > own.get("podDisruptionBudgets", {"server": {}})["server"].get("minAvailable", 0)
    assert environment != "prod" or (replicas >= 2 and own["podDisruptionBudgets"]["server"]["minAvailable"] == 1)


def test_what_is_scaled_by_use_says_what_it_requests() -> None:
    """Without requests the chart leaves the autoscaler out."""
    found = server("prod")["server"]
    assert found["autoscaling"]["enabled"] and set(found["resources"]["requests"]) == {"cpu", "memory"}


def test_the_database_is_migrated_once_and_before_the_api_starts() -> None:
    """On a database without tables the API ends at once: with `helm --wait` a hook after it would never get its turn."""
    for environment in ENVIRONMENTS:
        assert server(environment)["migrations"] == {"enabled": False}
        assert [release.name for release in installed(environment)][:2] == ["prefect-platform", "prefect-server"]
        job = only(rendered(environment), "Job")
        assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
        assert job["spec"]["template"]["spec"]["containers"][0]["args"][-1].endswith("blocks.py")
        shared = {entry["name"]: entry.get("value") for entry in server(environment)["global"]["prefect"]["env"]}
        assert shared["PREFECT_SERVER_REGISTER_BLOCKS_ON_START"] == "false"


def test_the_worker_takes_the_argument_that_is_added() -> None:
    (argument,) = read("worker.base.yaml")["worker"]["extraArgs"]
    parameter = argument.removeprefix("--no-").replace("-", "_")
    functions = [
        n for n in ast.walk(ast.parse(source("prefect", "cli/worker.py"))) if isinstance(n, ast.AsyncFunctionDef)
    ]
    (start,) = [function for function in functions if function.name == "start"]
    (found,) = [a for a in [*start.args.args, *start.args.kwonlyargs] if a.arg == parameter]
    assert found.annotation and "bool" in ast.unparse(found.annotation)


def source(package: str, file: str) -> str:
    """Of an installed package, without importing it."""
    spec = util.find_spec(package)
    assert spec and spec.origin
    return (Path(spec.origin).parent / file).read_text()


# -- settings


@cache
def known_settings() -> set[str]:
    """Of Prefect and of the packages whose settings are set here."""
    names = import_module("prefect.settings.legacy")._get_valid_setting_names
    found: set[str] = set(names(import_module("prefect.settings").Settings))
    for module, settings in (
        ("prefect_redis.messaging", "RedisMessagingPublisherSettings"),
        ("prefect_redis.cleanup_queue", "RedisWorkerCleanupQueueSettings"),
        ("prefect_redis.client", "RedisMessagingSettings"),
        ("prefect_kubernetes.settings", "KubernetesSettings"),
    ):
        found |= names(getattr(import_module(module), settings))
    return {name.upper() for name in found}


def test_every_setting_is_one_that_prefect_reads() -> None:
    """A misspelt variable would do nothing, without a word."""
    written = {name for chart in OFFICIAL for pod in facts(chart)["pods"].values() for name in pod["env"]}
    for environment in ENVIRONMENTS:
        own = merged(yaml.safe_load((CHART / "values.yaml").read_text()), values(installed(environment)[0]))
        written |= set(own["workers"]["env"])
        for part in ("global.prefect", "server"):
            found: Any = server(environment)
            for key in part.split("."):
                found = found[key]
            written |= {entry["name"] for entry in found["env"]}
    assert {name for name in written if name.startswith("PREFECT_")} - known_settings() == set()


# -- our chart


@cache
def manifests(environment: str, *settings: str, kind: str = "kubernetes") -> str:
    words = installed(environment, kind)[0].command(environment)
    more = [word for setting in settings for word in ("--set", setting)]
    return run("helm", "template", *words[3:], *more)


def rendered(environment: str, *settings: str, kind: str = "kubernetes") -> list[dict[str, Any]]:
    return [found for found in yaml.safe_load_all(manifests(environment, *settings, kind=kind)) if found]


def only(objects: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    (found,) = [o for o in objects if o["kind"] == kind and name in o["metadata"]["name"]]
    return found


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and template of every pod that the objects make."""
    for found in objects:
        spec = found.get("spec", {}).get("jobTemplate", found).get("spec", {})
        if "template" in spec:
            yield found["metadata"]["name"], spec["template"]


VARIANTS = [
    (),
    ("backup.s3.bucket=",),
    ("backup.s3.bucket=", "backup.volume.accessMode=ReadWriteMany"),
    ("backup.enabled=false", "exporter.enabled=false", "migrations.enabled=false", "networkPolicies.enabled=false"),
    ("jobs.namespace=prefect-runs", "networkPolicies.monitoringFrom=null", "auth.secret="),
    ("networkPolicies.mailPorts={465,587}", "networkPolicies.ingressFrom[0].ipBlock.cidr=10.40.128.0/20"),
]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_chart_is_sound_for_every_environment(environment: str) -> None:
    words = installed(environment)[0].command(environment)
    run("helm", "lint", "--strict", CHART, *words[words.index("--values") :])


def test_what_the_chart_makes_is_valid_kubernetes_in_every_form() -> None:
    forms = [("dev", ()), ("qa", ()), *(("prod", settings) for settings in VARIANTS)]
    text = "\n---\n".join(manifests(environment, *settings) for environment, settings in forms)
    answer = run("kubernetes-validate", "-k", KUBERNETES, "--strict", "-", stdin=text)
    assert answer.count("passed") == sum(len(rendered(environment, *settings)) for environment, settings in forms)


def test_a_misspelt_key_of_kubernetes_is_found() -> None:
    text = manifests("prod").replace("concurrencyPolicy:", "concurencyPolicy:")
    answer = attempt("kubernetes-validate", "-k", KUBERNETES, "--strict", "-", stdin=text)
    assert answer.returncode and "concurencyPolicy" in answer.stdout + answer.stderr


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("exporter.prot=1", "'prot' not allowed"),
        ("exporter.port=70000", "maximum: got 70,000"),
        ("environment=Prod!", "does not match pattern"),
        ("backup.keep=0", "minimum: got 0"),
        ("backup.schedule=daily", "does not match pattern"),
        ("networkPolicies.ingresFrom=null", "'ingresFrom' not allowed"),
        ("networkPolicies.mailPorts={smtp}", "got string, want integer"),
        ("podDisruptionBudgets.server.maxUnavailable=1", "maxProperties"),
        ("workers.env.log-level=debug", "does not match pattern"),
        ("backup.s3.repository=", "backup.s3.repository is needed"),
    ],
)
def test_a_value_that_the_chart_does_not_take_is_refused(setting: str, message: str) -> None:
    words = installed("prod")[0].command("prod")
    answer = attempt("helm", "template", *words[3:], "--set", setting)
    assert answer.returncode and message in answer.stderr


def test_without_a_tag_the_chart_says_what_it_needs() -> None:
    answer = attempt("helm", "template", "prefect-platform", CHART)
    assert answer.returncode and "image.tag is needed: the tag of your server image" in answer.stderr


@pytest.mark.parametrize("settings", VARIANTS)
def test_no_pod_may_do_more_than_the_restricted_profile_allows(settings: tuple[str, ...]) -> None:
    for name, template in pods(rendered("prod", *settings)):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False, name
        for box in [*spec.get("initContainers", ()), *spec["containers"]]:
            context = box["securityContext"]
            assert context["readOnlyRootFilesystem"] and context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]} and box["resources"]["limits"]["memory"], name


EXPLAINED = {
    "CKV_K8S_15": "pull policy: a tag is a commit, and never moves",
    "CKV_K8S_43": "digest: backup.image may be one; our own tag is the commit",
}


def test_checkov_finds_nothing_that_is_not_explained(tmp_path: Path) -> None:
    (tmp_path / "prod.yaml").write_text(manifests("prod"))
    words = ("--framework", "kubernetes", "--skip-download", "--quiet", "--output", "json")
    answer = attempt("checkov", "--file", tmp_path / "prod.yaml", *words)
    assert {f["check_id"] for f in json.loads(answer.stdout)["results"]["failed_checks"]} == set(EXPLAINED)


def test_the_chart_makes_no_secret_and_names_those_of_the_other_releases() -> None:
    found = rendered("prod")
    assert not [o for o in found if o["kind"] == "Secret"]
    references = {value for path, value in leaves(found) if path.endswith("secretName")}
    assert not [path for path, _ in leaves(found) if "secretKeyRef" in path], "files do not show in a pod's description"
    assert references == {"prefect-auth", "prefect-database"}


# -- rights

VERBS = {"create": "create", "delete": "delete", "read": "get", "list": "list", "patch": "patch", "replace": "update"}


def calls(module: str) -> set[tuple[str, str]]:
    """(verb, resource) of every call of the Kubernetes API in a module of the installed worker, and what it watches."""
    text = source(*module.split(":"))
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and "_namespaced_" in node.attr:
            verb, _, resource = node.attr.partition("_namespaced_")
            found.add((VERBS[verb], "pods/log" if resource == "pod_log" else f"{resource}s"))
    watched = [resource for resource in ("pods", "jobs") if f'"{resource}",\n' in text and "kopf.on.event(" in text]
    return found | {(verb, resource) for resource in watched for verb in ("list", "watch")}


def test_the_workers_may_do_what_the_installed_worker_does_and_nothing_else() -> None:
    """Secrets are not among it: they are only touched with settings that are off, and references do without."""
    needed = calls("prefect_kubernetes:worker.py") | calls("prefect_kubernetes:observer.py")
    needed = {(verb, resource) for verb, resource in needed if resource != "secrets"}
    rules = only(rendered("prod"), "Role")["rules"]
    allowed = {(verb, resource) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    assert needed - allowed == set() and allowed - needed <= {("get", "jobs"), ("get", "pods")}
    assert "STORE_ENV_AS_SECRET" not in str(facts("prefect-worker")["pods"]) + manifests("prod")


def test_the_rights_go_to_the_workers_that_start_jobs() -> None:
    subjects = only(rendered("prod"), "RoleBinding")["subjects"]
    pods = facts("prefect-worker")["pods"]
    assert {s["name"] for s in subjects} == {pod["account"] for pod in pods.values()}
    assert {s["namespace"] for s in subjects} == {"prefect-prod"}


def test_a_worker_whose_process_the_runs_share_gets_none() -> None:
    assert not [o for o in rendered("prod", kind="process") if o["kind"] == "RoleBinding"]


def test_a_run_is_somebody_without_a_right_in_the_cluster() -> None:
    template = json.loads((ROOT / "infra/work-pools/kubernetes.json").read_text())["variables"]["properties"]
    account = only(rendered("prod"), "ServiceAccount", "prefect-jobs")
    assert template["service_account_name"]["default"] == account["metadata"]["name"]
    assert account["automountServiceAccountToken"] is False
    assert "prefect-jobs" not in str(
        [o for o in rendered("prod") if o["kind"] in ("RoleBinding", "ClusterRoleBinding")]
    )


def test_rights_and_runs_may_have_a_namespace_of_their_own() -> None:
    found = rendered("prod", "jobs.namespace=prefect-runs")
    for kind, name in (
        ("Role", ""),
        ("RoleBinding", ""),
        ("ServiceAccount", "prefect-jobs"),
        ("NetworkPolicy", "prefect-jobs"),
    ):
        assert only(found, kind, name)["metadata"]["namespace"] == "prefect-runs"
    assert {s["namespace"] for s in only(found, "RoleBinding")["subjects"]} == {"prefect-prod"}


# -- network policies

RUN = {"prefect.io/flow-run-id": "1", "app.kubernetes.io/managed-by": "prefect"}


def everybody(objects: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Every pod of an environment -> its labels: of Prefect's charts, of ours, and a run's."""
    found = {pod: facts(chart)["pods"][pod]["labels"] for chart in OFFICIAL for pod in facts(chart)["pods"]}
    return found | {name: template["metadata"]["labels"] for name, template in pods(objects)} | {"run": RUN}


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    def fits(rule: Mapping[str, Any]) -> bool:
        return rule["key"] in labels and (rule["operator"] == "Exists" or labels[rule["key"]] in rule["values"])

    wanted = selector.get("matchLabels", {})
    return wanted.items() <= labels.items() and all(fits(rule) for rule in selector.get("matchExpressions", ()))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_pod_has_one_policy_that_closes_it_both_ways(environment: str) -> None:
    objects = rendered(environment)
    policies = [o["spec"] for o in objects if o["kind"] == "NetworkPolicy"]
    for name, labels in everybody(objects).items():
        mine = [p for p in policies if selects(p["podSelector"], labels)]
        assert [sorted(p["policyTypes"]) for p in mine] == [["Egress", "Ingress"]], name


def test_the_api_lets_in_who_asks_it_and_nobody_else() -> None:
    objects = rendered("prod")
    (rule,) = only([o for o in objects if o["metadata"]["name"] == "prefect-server"], "NetworkPolicy")["spec"][
        "ingress"
    ]
    inside = [peer["podSelector"] for peer in rule["from"] if "podSelector" in peer]
    let_in = {name for name, labels in everybody(objects).items() if any(selects(s, labels) for s in inside)}
    assert let_in == {"run", "prefect-platform-exporter", *facts("prefect-worker")["pods"]}
    assert [port["port"] for port in rule["ports"]] == [4200]


def test_only_who_needs_the_database_reaches_it() -> None:
    objects = rendered("prod")
    reach = {o["metadata"]["name"]: o["spec"]["egress"] for o in objects if o["kind"] == "NetworkPolicy"}
    storage = {"ipBlock": {"cidr": "10.40.0.0/16"}}
    with_storage = {name for name, rules in reach.items() if any(storage in rule.get("to", ()) for rule in rules)}
    own = {"prefect-platform-backup", "prefect-platform-migrate"}
    assert with_storage == {"prefect-server", "prefect-server-services", *own}
    redis = {name for name, rules in reach.items() for rule in rules for port in rule["ports"] if port["port"] == 6379}
    assert redis == {"prefect-server", "prefect-server-services"}


@pytest.mark.parametrize("environment", ["qa", "prod"])
def test_the_examples_find_the_database_that_the_examples_of_terraform_make(environment: str) -> None:
    """Otherwise nothing started on EKS would reach it."""
    network = re.findall(
        r'^  cidr +?= "(.+)"', (ROOT / f"infra/terraform/environments/{environment}/main.tf").read_text(), re.M
    )
    assert [
        peer["ipBlock"]["cidr"] for peer in read(f"platform.{environment}.yaml")["networkPolicies"]["storage"]
    ] == network


def reach(objects: list[dict[str, Any]], port: int) -> dict[str, set[str]]:
    """Who may reach that port of what: the policy's name -> addresses; none: anywhere."""
    found: dict[str, set[str]] = {}
    for policy in (o for o in objects if o["kind"] == "NetworkPolicy"):
        for rule in policy["spec"]["egress"]:
            if port in [one["port"] for one in rule["ports"]]:
                peers = {peer["ipBlock"]["cidr"] for peer in rule.get("to", ()) if "ipBlock" in peer}
                found[policy["metadata"]["name"]] = peers
    return found


def test_whoever_has_a_role_reaches_the_agent_that_gives_it() -> None:
    """That of EKS Pod Identity, on each node: without it nobody reads a bucket where policies are enforced."""
    agent = {"169.254.170.23/32"}
    with_a_role = {"prefect-workers": agent, "prefect-jobs": agent, "prefect-platform-backup": agent}
    for environment in ("qa", "prod"):
        assert reach(rendered(environment), 80) == with_a_role
    assert reach(rendered("prod", "backup.s3.bucket="), 80).keys() == {"prefect-workers", "prefect-jobs"}
    assert reach(rendered("dev"), 80) == {}


def test_mail_leaves_from_where_notifications_are_sent_and_only_where_it_is_wanted() -> None:
    assert reach(rendered("prod"), 587) == {}
    objects = rendered("prod", "networkPolicies.mailPorts={465,587}")
    for port in (465, 587):
        assert reach(objects, port) == {
            "prefect-server-services": set(),
            "prefect-workers": set(),
            "prefect-jobs": set(),
        }


def test_a_load_balancer_outside_the_cluster_may_be_let_in() -> None:
    objects = rendered("prod", "networkPolicies.ingressFrom[0].ipBlock.cidr=10.40.128.0/20")
    policy = only([o for o in objects if o["metadata"]["name"] == "prefect-server"], "NetworkPolicy")
    assert policy["spec"]["ingress"][0]["from"][0] == {"ipBlock": {"cidr": "10.40.128.0/20"}}


def test_everybody_may_ask_for_names() -> None:
    for found in rendered("prod"):
        if found["kind"] == "NetworkPolicy":
            assert {(p["protocol"], p["port"]) for p in found["spec"]["egress"][0]["ports"]} == {
                ("UDP", 53),
                ("TCP", 53),
            }


def test_the_budget_is_of_the_api_servers_pods() -> None:
    objects = rendered("prod")
    selector = only(objects, "PodDisruptionBudget")["spec"]["selector"]
    assert [name for name, labels in everybody(objects).items() if selects(selector, labels)] == ["prefect-server"]
    assert not [o for o in rendered("dev") if o["kind"] == "PodDisruptionBudget"]


def test_the_services_of_the_exporter_and_its_monitor_find_it() -> None:
    objects = rendered("prod", "exporter.serviceMonitor.enabled=true", "exporter.serviceMonitor.server=basic")
    labels = everybody(objects)["prefect-platform-exporter"]
    service = only(objects, "Service")
    monitor = only(objects, "ServiceMonitor", "exporter")
    assert selects({"matchLabels": service["spec"]["selector"]}, labels)
    assert selects(monitor["spec"]["selector"], service["metadata"]["labels"])
    assert [e["port"] for e in monitor["spec"]["endpoints"]] == [p["name"] for p in service["spec"]["ports"]]


def labels_of_targets(monitor: Mapping[str, Any]) -> dict[str, str]:
    """Those that a target gets: at first its Service's name as the job, then what the monitor says."""
    found = {"job": "service"}
    for endpoint in monitor["spec"]["endpoints"]:
        assert all(set(rule) == {"targetLabel", "replacement"} for rule in endpoint["relabelings"])
        found |= {rule["targetLabel"]: rule["replacement"] for rule in endpoint["relabelings"]}
    return found


def test_the_monitors_give_their_targets_the_jobs_and_the_environment_that_the_alerts_go_by() -> None:
    switched_on = ("exporter.serviceMonitor.enabled=true", "exporter.serviceMonitor.server=basic")
    for environment in ENVIRONMENTS:
        monitors = [o for o in rendered(environment, *switched_on) if o["kind"] == "ServiceMonitor"]
        found = {o["metadata"]["name"]: labels_of_targets(o) for o in monitors}
        assert found == {
            "prefect-platform-exporter": {"job": "prefect-exporter", "environment": environment},
            "prefect-platform-server": {"job": "prefect-api", "environment": environment},
        }
    rules = (ROOT / "infra/monitoring/prometheus/rules/prefect.yml").read_text()
    assert {"prefect-exporter", "prefect-api"} <= set(
        re.findall(r"[\w-]+", " ".join(re.findall(r'job=~?"(.+?)"', rules)))
    )


def test_a_prometheus_of_its_own_needs_no_label_of_the_environment() -> None:
    found = rendered("prod", "exporter.serviceMonitor.enabled=true", "environment=")
    assert labels_of_targets(only(found, "ServiceMonitor")) == {"job": "prefect-exporter"}


def test_what_the_exporter_says_of_a_release_keeps_its_own_environment() -> None:
    """One API may hold several environments' releases."""
    (endpoint,) = only(rendered("prod", "exporter.serviceMonitor.enabled=true"), "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["honorLabels"] is True


def test_the_exporter_is_started_with_what_it_takes() -> None:
    """From where the server image keeps it, with arguments that it knows and the setting that it reads."""
    objects = rendered("prod", "backup.s3.bucket=", "backup.volume.accessMode=ReadWriteMany")
    (box,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert box["args"][:2] == ["python", "/opt/prefect-platform/infra/monitoring/exporter"]
    asked = command.parser().parse_args(box["args"][2:])
    assert asked.listen == "0.0.0.0:9464" and str(asked.backups) == "/backups"
    assert asked.backups_schedule == {"cron": "15 2 * * *", "timezone": "Etc/UTC"} and not asked.backups_cronjob
    assert {e["name"] for e in box["env"]} == {
        "HOME",
        "PREFECT_HOME",
        "PREFECT_API_URL",
        "PREFECT_API_AUTH_STRING_FILE",
    }


@pytest.mark.parametrize("env", ["dev", "prod"])
def test_of_backups_that_the_exporter_does_not_see_it_knows_the_cronjob(env: str) -> None:
    """In a bucket, or in a volume that one pod alone can mount."""
    objects = rendered(env)
    (box,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    asked = command.parser().parse_args(box["args"][2:])
    made = only(objects, "CronJob")["metadata"]
    assert asked.backups is None and asked.backups_cronjob == (made["namespace"], made["name"])


def test_images_run_as_the_user_that_they_were_made_for() -> None:
    made = (ROOT / "infra/images/Dockerfile").read_text()
    (uid,) = set(re.findall(r"^USER (\d+):", made, re.MULTILINE))
    used = {value for _, release in official() for path, value in leaves(values(release)) if path.endswith("runAsUser")}
    used |= {template["spec"]["securityContext"]["runAsUser"] for _, template in pods(rendered("prod"))}
    job = json.loads((ROOT / "infra/work-pools/kubernetes.json").read_text())["variables"]["properties"]
    assert used | {job["run_as_user"]["default"]} == {int(uid)}


# -- the commands


def test_the_pools_are_those_of_the_environment_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert releases.main(["prod", "--tag", TAG]) == 0
    commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    written = yaml.safe_load((ROOT / "environments/prod.yaml").read_text())["work_pools"]
    assert [words[3] for words in commands] == [
        "prefect-platform",
        "prefect-server",
        *(f"prefect-worker-{key}" for key in written),
    ]
    asked = [word for words in commands for word in words if word.startswith("worker.config.workPool=")]
    assert asked == [f"worker.config.workPool={pool['name']}" for pool in written.values()]
    for words in commands:
        assert all((ROOT / words[at + 1]).is_file() for at, word in enumerate(words) if word == "--values")


def test_no_worker_is_replaced_while_an_old_api_pod_serves() -> None:
    """A newer worker may ask an older server for what it does not know. `sh -e` stops where the server does not come up."""
    for environment in ENVIRONMENTS:
        waited = [release.name for release in installed(environment) if "--wait" in release.command(environment)]
        names = [release.name for release in installed(environment)]
        assert waited == ["prefect-server"] and all(
            "worker" in name for name in names[names.index("prefect-server") + 1 :]
        )


def test_nothing_that_is_waited_for_waits_for_a_hook_that_comes_after_it() -> None:
    """The server's pods are well only on a migrated database: its own chart would migrate after them, and never get there."""
    for environment in ENVIRONMENTS:
        assert server(environment)["migrations"]["enabled"] is False
        for found in rendered(environment):
            hook = found["metadata"].get("annotations", {}).get("helm.sh/hook")
            assert hook in (None, "pre-install,pre-upgrade"), found["metadata"]["name"]


def test_helm_waits_for_the_migration_longer_than_that_may_take() -> None:
    """By itself it gives a hook five minutes, and a large table takes more."""
    words = installed("prod")[0].command("prod")
    minutes = int(words[words.index("--timeout") + 1].removesuffix("m"))
    assert minutes * 60 > only(rendered("prod"), "Job")["spec"]["activeDeadlineSeconds"] >= 900


def test_helm_takes_every_word_that_is_printed() -> None:
    known = run("helm", "upgrade", "--help")
    for release in installed("prod"):
        assert all(f" {word} " in known for word in release.command("prod") if word.startswith("--"))


def test_a_pool_that_does_not_live_on_kubernetes_is_told() -> None:
    with pytest.raises(InvalidInput, match=r"analytics is of type ecs: .* There: kubernetes, process\."):
        list(releases.releases("prod", {"analytics": WorkPool(name="a", type="ecs")}, TAG))


def test_an_environment_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert releases.main(["prdo", "--tag", TAG]) == 1
    assert "Did you mean 'prod'?" in capsys.readouterr().err
