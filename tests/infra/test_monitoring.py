"""infra/monitoring: every rule fires when it should and only then, and no expression asks for a metric that nobody has."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any
from urllib.parse import urlparse

import httpx
import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from deployer.prefect_api.runs import FINAL
from infra.monitoring.exporter.metrics import GAUGES, PREFIX
from scripts.infra_setup import find
from tests.fake_prefect import FakePrefect
from tests.infra.test_exporter import everything, served
from tests.infra.tools import ROOT, attempt, run, tool
from tests.server import Server, clean_environment, free_port, patient_client, real_prefect

HOME = ROOT / "infra/monitoring"
RULES = HOME / "prometheus/rules/prefect.yml"
RULE_TESTS = sorted((HOME / "prometheus/tests").glob("*.yml"))
DASHBOARDS = sorted((HOME / "grafana/dashboards").glob("*.json"))
SEVERITIES = {"critical", "warning", "info"}
WORDS = {
    "and",
    "or",
    "unless",
    "bool",
    "by",
    "on",
    "without",
    "ignoring",
    "group_left",
    "group_right",
    "offset",
    "inf",
    "nan",
}
OF_OTHERS = {"up": {"job", "instance"}, "alertmanager_notifications_failed_total": {"integration", "reason"}} | {
    f"kube_cronjob_{name}": {"namespace", "cronjob"}  # of kube-state-metrics
    for name in ("status_last_schedule_time", "status_last_successful_time", "next_schedule_time", "spec_suspend")
}
OF_TARGETS = {"job", "instance", "environment"}

infra = pytest.mark.infra


# -- what there is


@cache
def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def panels() -> list[tuple[str, dict[str, Any]]]:
    return [(path.stem, panel) for path in DASHBOARDS for panel in json.loads(path.read_text())["panels"]]


def expressions() -> list[tuple[str, str]]:
    """Every PromQL expression of rules and dashboards, with the place where it stands; variables filled in."""
    found = [(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]
    found += [(f"{name}: {p['title']}", t["expr"]) for name, p in panels() for t in p.get("targets", ())]
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        found += [(f"{path.stem}: annotation", a["expr"]) for a in board["annotations"]["list"] if "expr" in a]
        for one in board["templating"]["list"]:
            found.append(
                (f"{path.stem}: ${one['name']}", one["definition"].removeprefix("label_values(").rsplit(",", 1)[0])
            )
    return [(place, filled(text)) for place, text in found]


def filled(text: str) -> str:
    text = text.replace("$__rate_interval", "2m").replace("$__range", "24h")
    return re.sub(r"\$\w+", ".*", text)


def metrics_of(text: str) -> list[tuple[str, set[str]]]:
    """The metrics that an expression asks for, each with the labels that it is chosen by."""
    text = re.sub(r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    found = []
    bare = re.sub(r'"[^"]*"', '""', text)
    for match in re.finditer(
        r"(?<![\w:.\"])([a-zA-Z_][\w:]*)\s*(\{[^}]*\})?(?!\s*\()(?![\w:])", re.sub(r"\[[^\]]*\]", "", bare)
    ):
        name, chosen = match.groups()
        if name not in WORDS:
            found.append((name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", chosen or ""))))
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the exporter answers to a scrape where everything is there."""
    return generate_latest(everything(FakePrefect(), tmp_path_factory.mktemp("backups")).registry).decode()


@pytest.fixture(scope="module")
def known(exported: str) -> dict[str, set[str]]:
    """Every metric that is scraped or recorded -> its labels."""
    found = dict(OF_OTHERS)
    for family in text_string_to_metric_families(exported):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    for names in recorded().values():
        found |= {name: {"event"} if name == "prefect_worker_channel_connections_total" else set() for name in names}
    return found | {rule["record"]: {rule["record"].partition(":")[0]} for rule in rules() if "record" in rule}


def recorded() -> dict[str, set[str]]:
    """Prefect's own metrics: of the server, of a worker."""
    lines = (line.split() for line in (HOME / "prefect_metrics.txt").read_text().splitlines() if line[0] != "#")
    found: dict[str, set[str]] = {}
    for who, name, _ in lines:
        found.setdefault(who, set()).add(name)
    return found


# -- names


@infra
def test_every_expression_asks_only_for_metrics_and_labels_that_exist(known: Mapping[str, set[str]]) -> None:
    faults = []
    for place, text in expressions():
        for name, labels in metrics_of(text):
            if name not in known:
                faults.append(f"{place}: nobody has {name}")
            elif unknown := labels - known[name] - OF_TARGETS:
                faults.append(f"{place}: {name} has no label {', '.join(sorted(unknown))}")
    assert faults == []


@infra
def test_a_metric_that_is_renamed_is_missed(known: Mapping[str, set[str]]) -> None:
    """Whatever gauge the exporter calls otherwise, unless nothing asks for it."""
    asked = {name for _, text in expressions() for name, _ in metrics_of(text)}
    unasked = {name for name in GAUGES if PREFIX + name not in asked}
    assert unasked == {"api_info", "reader_success_timestamp_seconds", "folded_deployments"}


@infra
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('sum by (pool) (rate(a_total{x=~"b{c}", y!="d"}[5m])) * 60', [("a_total", {"x", "y"})]),
        ("a:b:ratio > 0.5 and on (pool) c unless ignoring (d) e", [("a:b:ratio", set()), ("c", set()), ("e", set())]),
        ('absent(up{job="api"} == 1) or vector(0)', [("up", {"job"})]),
        ("time() - (a_seconds > 0) > 26 * 3600", [("a_seconds", set())]),
    ],
)
def test_the_names_in_an_expression_are_found(text: str, expected: list[tuple[str, set[str]]]) -> None:
    assert metrics_of(text) == expected


@infra
def test_the_exporters_answer_is_clean(exported: str) -> None:
    assert attempt_in("promtool", exported, "check", "metrics") == ""


def attempt_in(name: str, text: str, *words: str) -> str:
    """What the tool complains of."""
    answer = subprocess.run([tool(name), *words], input=text, capture_output=True, text=True)
    return answer.stdout + answer.stderr


@infra
def test_the_readme_lists_every_metric_of_the_exporter(exported: str) -> None:
    readme = (HOME / "README.md").read_text()
    own = {f.name for f in text_string_to_metric_families(exported) if f.name.startswith(PREFIX)}
    listed = {f"{PREFIX}{name}".removesuffix("_total") for name in re.findall(r"^\| `(\w+)` \|", readme, re.M)}
    assert own == listed


@infra
def test_no_metric_of_the_exporter_bears_a_name_of_prefects_own(exported: str) -> None:
    own = {f.name for f in text_string_to_metric_families(exported)}
    assert not {name for name in own if not name.startswith(PREFIX)}
    assert not {name for names in recorded().values() for name in names if name.startswith(PREFIX)}


# -- rules


@infra
def test_prometheus_takes_its_configuration_and_rules() -> None:
    run("promtool", "check", "config", HOME / "prometheus/prometheus.yml")
    run("promtool", "check", "rules", "--lint=all", "--lint-fatal", RULES)


@infra
def test_every_expression_of_the_dashboards_is_promql(tmp_path: Path) -> None:
    found = [{"record": f"e{index}", "expr": text} for index, (_, text) in enumerate(expressions())]
    path = tmp_path / "dashboards.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": found}]}))
    assert f"{len(found)} rules found" in run("promtool", "check", "rules", path)
    found[3]["expr"] += ")"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": found}]}))
    assert attempt("promtool", "check", "rules", path).returncode


@infra
def test_the_alerts_do_what_their_tests_say() -> None:
    run("promtool", "test", "rules", *RULE_TESTS)


@infra
def test_every_alert_is_tried_both_ways() -> None:
    tried: dict[str, set[bool]] = {}
    for path in RULE_TESTS:
        for case in yaml.safe_load(path.read_text())["tests"]:
            for one in case["alert_rule_test"]:
                tried.setdefault(one["alertname"], set()).add(bool(one["exp_alerts"]))
    assert tried == {rule["alert"]: {True, False} for rule in alerts()}


def never(rule: dict[str, Any]) -> None:
    rule["expr"] = f"({rule['expr']}) and on () vector(0) > 1"


def at_once(rule: dict[str, Any]) -> None:
    del rule["for"]


@infra
@pytest.mark.parametrize("change", [never, at_once])
def test_an_alert_that_never_fires_or_fires_at_once_fails_its_test(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    """All are sabotaged, and each must be missed."""
    whole = yaml.safe_load(RULES.read_text())
    for rule in (rule for group in whole["groups"] for rule in group["rules"] if "alert" in rule):
        change(rule)
    assert missed(tmp_path, whole) == {rule["alert"] for rule in alerts()}


def missed(folder: Path, changed: dict[str, Any]) -> set[str]:
    """The alerts whose tests fail with these rules."""
    for name in ("rules", "tests"):
        (folder / name).mkdir()
    (folder / "rules/prefect.yml").write_text(yaml.safe_dump(changed))
    copies = [shutil.copy(path, folder / "tests") for path in RULE_TESTS]
    answer = attempt("promtool", "test", "rules", *copies)
    return set(re.findall(r"alertname: (\w+),", answer.stdout + answer.stderr))


def mixing(text: str) -> str:
    """Without its environment: an expression that takes all of them for one."""
    return re.sub(r"\b(by|on|group_left) \(environment(?:, )?", r"\1 (", text)


@infra
def test_a_rule_that_mixes_two_environments_fails_its_test(tmp_path: Path) -> None:
    """In one Prometheus: dev's outage neither hides nor raises an alert of prod's."""
    whole = yaml.safe_load(RULES.read_text())
    changed = set()
    for rule in (rule for group in whole["groups"] for rule in group["rules"]):
        if (text := mixing(rule["expr"])) != rule["expr"]:
            rule["expr"] = text
            changed.add(rule.get("alert") or rule["record"])
    using = {rule["alert"] for rule in alerts() if any(name in rule["expr"] for name in changed if ":" in name)}
    assert missed(tmp_path, whole) == {name for name in changed if ":" not in name} | using - {"PrefectBackupUnwatched"}


@infra
def test_whatever_a_rule_compares_or_adds_up_it_does_by_environment() -> None:
    """A CronJob by its namespace, of which an environment has its own."""
    for rule in rules():
        clauses = re.findall(r"\b(?:by|on) \(([^)]*)\)", rule["expr"])
        bare = re.findall(r"\b(?:sum|min|max|count|group|avg) ?\(|\bignoring\b|\bwithout\b", rule["expr"])
        name = rule.get("alert") or rule["record"]
        assert not bare and not [one for one in clauses if not {"environment", "namespace"} & set(one.split(", "))], (
            name
        )


@infra
def test_a_target_of_others_is_no_concern_of_the_rules() -> None:
    """Each job that a rule or a dashboard asks for is one that our Prometheus scrapes, and is so called that no other is meant."""
    scraped = {
        one["job_name"] for one in yaml.safe_load((HOME / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    }
    asked = [(place, pattern) for place, text in expressions() for pattern in re.findall(r'job=~?"([^"]+)"', text)]
    assert asked
    for place, pattern in asked:
        assert all(any(re.fullmatch(one, job) for job in scraped) for one in pattern.split("|")), place
    assert not [place for place, text in expressions() if re.search(r"\bup\b(?!\{[^}]*job=)", text)]
    assert {job for job in scraped if not job.startswith("prefect-")} == {"prometheus", "alertmanager"}


@infra
def test_every_alert_says_how_bad_it_is_what_it_is_and_where_to_read_on() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in SEVERITIES, rule["alert"]
        assert rule["annotations"]["summary"].endswith(".") and len(rule["annotations"]["summary"]) < 140, rule["alert"]
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        text = (ROOT / page).read_text()
        section = next((s for s in re.split(r"^## ", text, flags=re.M) if slug(s.splitlines()[0]) == anchor), "")
        assert f"`{rule['alert']}`" in section, f"{page}#{anchor} says nothing of {rule['alert']}"


def slug(title: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


@infra
def test_what_the_alerts_page_links_to_is_there() -> None:
    for page in (HOME / "alerts.md", HOME / "README.md"):
        for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
            path, _, anchor = target.partition("#")
            text = (page.parent / path).resolve().read_text()
            assert not anchor or anchor in {slug(t) for t in re.findall(r"^#+ (.*)", text, re.M)}, target


# -- who hears of it


@infra
def test_that_a_channel_fails_is_told_by_two_and_never_silenced() -> None:
    path = HOME / "alertmanager/alertmanager.yml"
    words = ("severity=warning", "environment=prod", "alertname=AlertsUndelivered")
    assert run("amtool", "config", "routes", "test", f"--config.file={path}", *words).strip() == "email,slack"
    targets = [
        matcher for rule in yaml.safe_load(path.read_text())["inhibit_rules"] for matcher in rule["target_matchers"]
    ]
    named = [re.search('alertname=~?"(.*)"', matcher) for matcher in targets]
    assert not any(found and re.fullmatch(found[1], "AlertsUndelivered") for found in named)


@infra
def test_alertmanager_takes_its_configuration() -> None:
    assert "3 receivers" in run("amtool", "check-config", HOME / "alertmanager/alertmanager.yml")


@infra
@pytest.mark.parametrize(
    ("severity", "environment", "receivers"),
    [
        ("critical", "prod", "pagerduty,slack"),
        ("critical", "prefect-prod", "pagerduty,slack"),
        ("critical", "qa", "slack"),
        ("critical", "production-like-dev", "slack"),
        ("warning", "prod", "slack"),
        ("info", "prod", "email"),
    ],
)
def test_who_hears_of_what(severity: str, environment: str, receivers: str) -> None:
    path = HOME / "alertmanager/alertmanager.yml"
    words = (f"severity={severity}", f"environment={environment}", "alertname=X")
    assert run("amtool", "config", "routes", "test", f"--config.file={path}", *words).strip() == receivers


@infra
def test_no_secret_stands_in_the_configuration() -> None:
    text = (HOME / "alertmanager/alertmanager.yml").read_text() + (HOME / "prometheus/prometheus.yml").read_text()
    keys = re.findall(r"^\s*-?\s*(\w*(?:password|api_url|routing_key|service_key|token|credentials)\w*):", text, re.M)
    assert keys and all(key.endswith("_file") for key in keys)


@infra
@pytest.mark.parametrize("name", ["prefect.title", "prefect.text"])
def test_the_messages_can_be_rendered(name: str) -> None:
    text = f'{{{{ template "{name}" . }}}}'
    files = HOME / "alertmanager/templates/*.tmpl"
    assert run("amtool", "template", "render", f"--template.glob={files}", f"--template.text={text}").strip()


# -- what is seen


@infra
@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_one_that_grafana_takes(path: Path) -> None:
    board = json.loads(path.read_text())
    source = yaml.safe_load((HOME / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"][0]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids)) and board["uid"] == f"prefect-{path.stem}"
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            assert target["datasource"] == panel["datasource"] == {"type": source["type"], "uid": source["uid"]}
        refs = [target["refId"] for target in panel.get("targets", ())]
        assert len(refs) == len(set(refs)) and (refs or panel["type"] == "row"), panel["title"]
    declared = {one["name"] for one in board["templating"]["list"]}
    used = set(re.findall(r"\$(?!__)(\w+)", " ".join(t["expr"] for p in board["panels"] for t in p.get("targets", ()))))
    assert used == declared


@infra
@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_no_panel_lies_on_another(path: Path) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in json.loads(path.read_text())["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


@infra
def test_the_provisioning_is_for_these_dashboards() -> None:
    [provider] = yaml.safe_load((HOME / "grafana/provisioning/dashboards/prefect.yml").read_text())["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards" and not provider["allowUiUpdates"]
    assert {path.stem for path in DASHBOARDS} == {"platform", "deployments", "releases"}


# -- for real: processes


@contextmanager
def prometheus(folder: Path, address: str) -> Iterator[httpx.Client]:
    """A real Prometheus with our rules, which scrapes that address as its exporter every second."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": "prefect-exporter", "static_configs": [{"targets": [urlparse(address).netloc]}]}
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    words = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with running(folder, tool("prometheus"), *words) as client:
        yield client


@contextmanager
def running(folder: Path, *words: str) -> Iterator[httpx.Client]:
    """One of Prometheus' programs, on a port of its own, from when it is ready."""
    port = free_port()
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([*words, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            wait_until(lambda: answers(client, "/-/ready"), folder / "log")
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).status_code == 200
    except httpx.TransportError:
        return False


def query(client: httpx.Client, text: str) -> list[dict[str, Any]]:
    answer = client.get("/api/v1/query", params={"query": text}).json()
    assert answer["status"] == "success", f"{text}: {answer}"
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def wait_for(client: httpx.Client, text: str, log: Path) -> None:
    wait_until(lambda: query(client, text), log)


def wait_until(holds: Callable[[], object], log: Path, seconds: float = 120) -> None:
    end, pause = time.monotonic() + seconds, threading.Event()
    while not holds():
        assert time.monotonic() < end, log.read_text()
        pause.wait(0.2)


EMPTY = {
    "platform: Events that Prefect sent, per second",
    "platform: Worker channel: connections opened and lost, per minute",
    *(f"{path.stem}: annotation" for path in DASHBOARDS),
}
"""What other targets than the exporter tell, and the moment of a release."""


@pytest.mark.stack
def test_a_real_prometheus_answers_every_expression_from_a_real_scrape(fake: FakePrefect, tmp_path: Path) -> None:
    """Each panel finds something where there is everything."""
    (tmp_path / "backups").mkdir()
    platform = everything(fake, tmp_path / "backups")
    with (
        fake.serve() as url,
        served(url, "--backups", str(tmp_path / "backups")) as (_, address),
        prometheus(tmp_path, address) as client,
    ):
        finds = partial(wait_for, client, log=tmp_path / "log")
        finds("prefect_platform_drift_compared == 1")
        for count, state in enumerate(("COMPLETED", "FAILED"), start=1):  # a rate wants two values
            platform.run("nightly", "RUNNING", state)
            finds(f"sum(prefect_platform_flow_runs_finished_total) == {count}")
        finds("rate(prefect_platform_flow_run_duration_seconds_bucket[2m]) > 0")
        finds('ALERTS{alertname="PrefectLastRunFailed"}')
        finds('ALERTS{alertname="PrefectScheduleOverdue"}')
        empty = {place for place, text in expressions() if ": " in place and not query(client, text)}
    assert empty == EMPTY


class Inbox:
    """Slack, PagerDuty and a mail server in one: what they were sent, by name."""

    def __init__(self) -> None:
        self.got: dict[str, list[str]] = {"slack": [], "pagerduty": [], "email": []}

    def count(self) -> tuple[int, int, int]:
        return len(self.got["slack"]), len(self.got["pagerduty"]), len(self.got["email"])

    @contextmanager
    def served(self) -> Iterator[tuple[int, int]]:
        """On two ports: of HTTP, of SMTP."""
        inbox = self

        class Web(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                inbox.got[self.path.strip("/")].append(self.rfile.read(int(self.headers["content-length"])).decode())
                self.send_response(202 if "pagerduty" in self.path else 200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Not on the test's stderr."""

        class Mail(StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(b"220 here\r\n")
                for line in self.rfile:
                    word = line[:4].upper()
                    self.wfile.write(b"354 go on\r\n" if word == b"DATA" else b"250 OK\r\n")
                    if word == b"DATA":
                        inbox.got["email"].append(b"".join(iter(self.rfile.readline, b".\r\n")).decode())
                        self.wfile.write(b"250 OK\r\n")
                    if word == b"QUIT":
                        return

        with ThreadingHTTPServer(("127.0.0.1", 0), Web) as web, ThreadingTCPServer(("127.0.0.1", 0), Mail) as mail:
            for server in (web, mail):
                server.daemon_threads = True
                threading.Thread(target=server.serve_forever, daemon=True).start()
            yield web.server_address[1], int(mail.server_address[1])
            web.shutdown()
            mail.shutdown()


def told_to(config: dict[str, Any], folder: Path, web: int, mail: int) -> dict[str, Any]:
    """Our configuration, with the addresses of an inbox, no password, and no waiting."""
    (folder / "slack").write_text(f"http://127.0.0.1:{web}/slack")
    (folder / "key").write_text("key-of-the-service")
    own = {key: value for key, value in config["global"].items() if not key.startswith("smtp_auth")}
    own |= {"slack_api_url_file": str(folder / "slack"), "pagerduty_url": f"http://127.0.0.1:{web}/pagerduty"}
    own |= {"smtp_smarthost": f"127.0.0.1:{mail}", "smtp_require_tls": False}
    for receiver in config["receivers"]:
        for one in receiver.get("pagerduty_configs", ()):
            one["routing_key_file"] = str(folder / "key")
    for route in (config["route"], *config["route"]["routes"]):
        route["group_wait"] = "100ms"
    return {**config, "global": own, "templates": [str(HOME / "alertmanager/templates/*.tmpl")]}


@contextmanager
def alertmanager(folder: Path, config: dict[str, Any]) -> Iterator[httpx.Client]:
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
    program = find("alertmanager") or tool("prometheus-alertmanager")
    words = (f"--config.file={folder / 'alertmanager.yml'}", f"--storage.path={folder / 'data'}")
    with running(folder, program, *words, "--cluster.listen-address=") as client:
        yield client


def alert(name: str, severity: str, environment: str, **labels: str) -> dict[str, Any]:
    annotations = next(rule["annotations"] for rule in alerts() if rule["alert"] == name)
    return {
        "labels": {"alertname": name, "severity": severity, "environment": environment, **labels},
        "annotations": annotations,
    }


@pytest.mark.stack
def test_a_real_alertmanager_tells_pager_slack_and_mail(tmp_path: Path) -> None:
    inbox = Inbox()
    config = yaml.safe_load((HOME / "alertmanager/alertmanager.yml").read_text())
    with inbox.served() as (web, mail), alertmanager(tmp_path, told_to(config, tmp_path, web, mail)) as client:

        def send(*alerts: dict[str, Any]) -> None:
            client.post("/api/v2/alerts", json=list(alerts)).raise_for_status()

        send(alert("PrefectBackupMissing", "critical", "prod"))
        wait_until(lambda: inbox.count() == (1, 1, 0), tmp_path / "log")
        send(alert("PrefectBackupMissing", "critical", "qa"))
        wait_until(lambda: inbox.count() == (2, 1, 0), tmp_path / "log")
        send(alert("PrefectPoolFull", "info", "prod"))
        wait_until(lambda: inbox.count() == (2, 1, 1), tmp_path / "log")
        send(alert("PrefectApiDown", "critical", "qa"))
        wait_until(lambda: inbox.count() == (3, 1, 1), tmp_path / "log")
        send(alert("PrefectRunsLate", "warning", "qa", pool="p"), alert("PrefectRunsLate", "warning", "dev", pool="p"))
        wait_until(lambda: inbox.count() == (4, 1, 1), tmp_path / "log")
        silent = client.get("/api/v2/alerts", params={"inhibited": "true", "active": "false"}).json()
    assert [(one["labels"]["alertname"], one["labels"]["environment"]) for one in silent] == [("PrefectRunsLate", "qa")]
    assert "FIRING prod: PrefectBackupMissing" in inbox.got["slack"][0]
    assert "infra/monitoring/alerts.md#a-backup-is-too-old" in inbox.got["slack"][0]
    assert '"routing_key":"key-of-the-service"' in inbox.got["pagerduty"][0]
    assert "Subject: FIRING prod: PrefectPoolFull" in inbox.got["email"][0]


# -- a real server and a real worker

FLOW = """
from prefect import flow

@flow
def hello():
    pass
"""
NO_METRICS = {"PREFECT_CLIENT_METRICS_ENABLED": "false"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("server")
    with real_prefect(home, {"PREFECT_SERVER_METRICS_ENABLED": "true"}) as server:
        yield server


@pytest.fixture(scope="module")
def api(server: Server) -> Iterator[httpx.Client]:
    """With a pool whose runs are told not to serve metrics, as README.md says."""
    with patient_client(server.url) as client:
        client.post("/work_pools/", json={"name": "pool", "type": "process", "base_job_template": template(client)})
        yield client


def template(client: httpx.Client) -> dict[str, Any]:
    """Prefect's own for processes, with that default."""
    known = client.get("/collections/views/aggregate-worker-metadata").json()
    found: dict[str, Any] = known["prefect"]["process"]["default_base_job_configuration"]
    found["variables"]["properties"]["env"]["default"] = NO_METRICS
    return found


@pytest.fixture(scope="module")
def worker(server: Server, api: httpx.Client) -> Iterator[httpx.Client]:
    """A worker that serves its metrics; gives a client of those."""
    port = free_port()
    settings = {"PREFECT_API_URL": server.url, "PREFECT_CLIENT_METRICS_ENABLED": "true"}
    settings["PREFECT_CLIENT_METRICS_PORT"] = str(port)
    words = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "pool", "--type", "process"]
    with open(server.home / "worker.log", "wb") as log:
        process = subprocess.Popen(words, env={**clean_environment(server.home), **settings}, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
            wait_until(lambda: answers(client, "/metrics"), server.home / "worker.log", 240)
            yield client
    finally:
        process.terminate()
        process.wait(60)


def start(api: httpx.Client, name: str, **more: Any) -> str:
    """A run of a new deployment."""
    flow = api.post("/flows/", json={"name": name}).json()["id"]
    body = {"name": name, "flow_id": flow, "work_pool_name": "pool", **more}
    deployment = api.post("/deployments/", json=body).json()["id"]
    run = api.post(f"/deployments/{deployment}/create_flow_run", json={"state": {"type": "SCHEDULED"}})
    return str(run.json()["id"])


@pytest.mark.stack
def test_the_recorded_names_are_what_a_real_server_and_worker_answer(api: httpx.Client, worker: httpx.Client) -> None:
    assert recorded() == {"server": names(api.get("/metrics").text), "worker": names(worker.get("/metrics").text)}


def names(text: str) -> set[str]:
    return {name for name in re.findall(r"^# TYPE (\S+) ", text, re.M) if not name.endswith("_created")}


@pytest.mark.stack
def test_a_worker_that_serves_metrics_runs_flows_all_the_same(
    server: Server, api: httpx.Client, worker: httpx.Client, tmp_path: Path
) -> None:
    """Without the pool's default the run wants the worker's port, and crashes."""
    (tmp_path / "hello.py").write_text(FLOW)
    step = {"prefect.deployments.steps.set_working_directory": {"directory": str(tmp_path)}}
    more = {"pull_steps": [step], "entrypoint": "hello.py:hello", "job_variables": {"env": {"OF_ITS_OWN": "1"}}}
    run = start(api, "hello", **more)
    ended: list[str] = []

    def has_ended() -> bool:
        ended.append(api.get(f"/flow_runs/{run}").json()["state_type"])
        return ended[-1] in FINAL

    wait_until(has_ended, server.home / "worker.log", 240)
    assert ended[-1] == "COMPLETED"
    assert answers(worker, "/metrics")


@pytest.mark.stack
def test_the_exporter_reads_a_real_server(server: Server, api: httpx.Client) -> None:
    with served(server.url) as (_, address):
        run = start(api, "a")
        for state in ("PENDING", "RUNNING", "FAILED"):
            api.post(f"/flow_runs/{run}/set_state", json={"state": {"type": state}, "force": True}).raise_for_status()
        wanted = 'prefect_platform_deployment_last_run_failed{deployment="a/a",pool="pool"} 1.0'
        texts: list[str] = []

        def has_read_all() -> bool:
            texts.append(httpx.get(address, trust_env=False).text)
            return wanted in texts[-1] and set(re.findall(r"reader_up\{.*\} (\S+)", texts[-1])) == {"1.0"}

        wait_until(has_read_all, server.home / "server.log")
    assert 'prefect_platform_work_pool_info{pool="pool",type="process"} 1.0' in texts[-1]
