"""The example's report, and the trigger that its event sets off, without a server."""

from __future__ import annotations

import textwrap
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from prefect.client.schemas.objects import FlowRun
from prefect.events.schemas.deployment_triggers import DeploymentEventTrigger
from prefect.exceptions import ParameterTypeError
from prefect.server.events.schemas.automations import EventTrigger
from prefect.server.events.schemas.events import ReceivedEvent, Resource
from prefect.settings import PREFECT_UI_URL, temporary_settings
from prefect.states import Failed
from prefect.utilities.schema_tools.hydration import HydrationContext, hydrate

from deployer import environment
from flows.examples import gathering, notifications, report
from flows.examples.follow_up import on_report_published
from flows.market_data.providers import sample

ROOT = Path(__file__).parents[3]
DECLARED = {one["name"]: one for one in yaml.safe_load((ROOT / "flows/examples/deployments.yaml").read_text())}
PAYLOAD = {"path": "/reports/it.md", "day": "2013-03-01", "symbols": ["IBM", "AAPL"], "flow_run_id": None}


def ibm() -> report.Closes:
    return report.closes(sample.fetch_bars("IBM", "1d", date(2013, 2, 1), date(2013, 3, 1)))


def test_the_statistics_are_those_of_ibms_real_closes() -> None:
    row = report.statistics("IBM", ibm())
    assert (row["last"], row["high"], row["low"]) == (202.91, 205.18, 197.51)
    assert row["week"] == round(202.91 / 201.09 - 1, 4)  # 2013-02-22, five trading days before


def test_less_than_a_week_of_prices_is_said_to_be_too_little() -> None:
    few = dict(list(ibm().items())[:5])
    with pytest.raises(ValueError, match=r"IBM has 5 closes; a week's change needs 6: take more days\."):
        report.statistics("IBM", few)


def test_the_report_has_the_best_week_first_and_what_failed_last() -> None:
    good = [{"symbol": name, "last": 1.0, "week": week, "error": ""} for name, week in (("A", -0.01), ("B", 0.05))]
    text = report.markdown([report.failed("NOPE", ValueError("no such symbol")), *good], "2013-03-01", "Prices")
    assert text.splitlines()[0] == "# Prices, 2013-03-01"
    assert text.splitlines()[-3:] == ["| B | 1.00 | +5.0% |", "| A | 1.00 | -1.0% |", "| NOPE | | no such symbol |"]
    assert report.best(good) == "B"


@pytest.mark.parametrize("cut", [1, 30, 66, 80])
def test_a_report_that_lost_its_end_is_not_whole(cut: int) -> None:
    text = report.signed("| IBM |\n", "key")
    report.check(text, ["IBM"])
    with pytest.raises(ValueError, match="not whole"):
        report.check(text[:-cut], ["IBM"])


def test_a_symbol_without_its_line_is_named() -> None:
    with pytest.raises(ValueError, match=r"It lacks AAPL, FB\."):
        report.check(report.signed("| IBM |\n", "key"), ["IBM", "AAPL", "FB"])


def test_a_signature_is_of_the_text_and_the_key() -> None:
    one = report.signature("text", "key")
    assert one not in (report.signature("text ", "key"), report.signature("text", "kez"))
    assert report.signed("text", "key") == f"text\nSignature: {one}\n"


def test_the_waits_between_tries_grow_and_vary() -> None:
    assert gathering.fetch.retries == 2
    assert gathering.fetch.retry_delay_seconds == [1, 2]
    assert gathering.fetch.retry_jitter_factor == 0.5


def test_a_notification_leads_to_the_run_in_the_ui_that_people_see() -> None:
    failed_run = FlowRun(flow_id=uuid4(), name="it")
    with temporary_settings({PREFECT_UI_URL: "https://prefect.example"}):
        body = notifications.body(failed_run, Failed(message="bad"))
    assert body == f"bad\nhttps://prefect.example/runs/flow-run/{failed_run.id}"


def test_what_an_environment_can_give_the_example_is_valid_there() -> None:
    page = (ROOT / "docs/examples.md").read_text()
    shown = textwrap.dedent(page[page.index("    concurrency_limits:") :].partition("\n\n")[0])
    dev = yaml.safe_load((ROOT / "environments/dev.yaml").read_text())
    variables = {"PREFECT_API_URL": "http://127.0.0.1:1/api", "REPOSITORY_URL": "https://git.example/team/flows.git"}
    found, problems = environment.load(yaml.safe_dump(dev | yaml.safe_load(shown)), "environments/dev.yaml", variables)
    assert not problems and found
    assert found.concurrency_limits.keys() == {"market-data-requests", "tag:market-data-request", "market-report"}
    assert gathering.fetch.tags == {"market-data-request"}


def received(**changes: Any) -> ReceivedEvent:
    resource = Resource({"prefect.resource.id": changes.pop("resource", "market-report.2013-03-01")})
    given: dict[str, Any] = {"event": "market-data.report.published", "payload": PAYLOAD, **changes}
    return ReceivedEvent(occurred=datetime.now(UTC), id=uuid4(), resource=resource, **given)


def trigger() -> Any:
    [declared] = DECLARED["on-report-published"]["triggers"]
    automation = DeploymentEventTrigger.model_validate(declared)
    automation.set_deployment_id(uuid4())
    return automation.as_automation()


@pytest.mark.parametrize(
    ("changes", "starts"),
    [({}, True), ({"event": "market-data.load.completed"}, False), ({"resource": "another.2013-03-01"}, False)],
)
def test_a_published_report_sets_the_trigger_off_and_nothing_else_does(changes: dict[str, Any], starts: bool) -> None:
    asked = EventTrigger.model_validate(trigger().trigger.model_dump())
    event = received(**changes)
    assert (asked.covers(event) and asked.expects(event.event)) is starts


def test_the_events_payload_becomes_the_flows_parameter() -> None:
    [action] = trigger().actions
    context = HydrationContext(render_jinja=True, jinja_context={"event": received()}, render_workspace_variables=False)
    parameters = on_report_published.validate_parameters(hydrate(action.parameters, context))
    assert on_report_published.fn(**parameters).message == "The report of 2013-03-01 has 2 symbols."


def test_a_payload_of_another_kind_is_refused() -> None:
    with pytest.raises(ParameterTypeError, match="symbols"):
        on_report_published.validate_parameters({"published": {"path": "x", "day": "2013-03-01"}})
