"""What Prefect answers and what was sent, in one form: differences that mean nothing are gone."""

from __future__ import annotations

from typing import Any

import pytest

from deployer import comparable
from tests.deployer.builders import schedule, trigger


def answered(rule: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A schedule as the API gives it."""
    times = {"id": "8a1c", "created": "2026-01-01T00:00:00Z", "updated": "2026-01-02T00:00:00Z", "deployment_id": "77"}
    return {**times, "schedule": rule, "active": True, "slug": None, "parameters": {}, "replaces": None, **changes}


def test_a_cron_schedule_is_its_slug_rule_zone_activity_and_parameters() -> None:
    found = comparable.schedule(answered({"cron": "0 20 * * *", "timezone": "UTC", "day_or": True}, slug="evening"))
    assert found == schedule("evening")


def test_what_prefect_fills_in_is_no_difference() -> None:
    sent = {"slug": "s", "schedule": {"cron": "0 20 * * *"}, "active": True}
    back = answered({"cron": "0 20 * * *", "timezone": None, "day_or": True}, slug="s", parameters=None)
    assert comparable.schedule(sent) == comparable.schedule(back)
    sent = {"slug": "s", "schedule": {"interval": 60}, "active": True}
    back = answered({"interval": 60.0, "timezone": "UTC", "anchor_date": None}, slug="s")
    assert comparable.schedule(sent) == comparable.schedule(back)


def test_whole_and_fractional_seconds_of_an_interval_are_equal() -> None:
    one, other = ({"interval": n, "anchor_date": None, "timezone": None} for n in (60, 60.0))
    assert comparable.schedule(answered(one)) == comparable.schedule(answered(other))


@pytest.mark.parametrize(
    "text", ["2026-01-01T06:00:00Z", "2026-01-01T06:00:00+00:00", "2026-01-01T00:00:00-06:00", "2026-01-01T06:00:00"]
)
def test_one_moment_is_one_text(text: str) -> None:
    assert comparable.instant(text) == "2026-01-01T06:00:00+00:00"
    assert comparable.instant(None) is None


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("FREQ=DAILY", ("RRULE:FREQ=DAILY", None)),
        ("RRULE:FREQ=DAILY", ("RRULE:FREQ=DAILY", None)),
        ("DTSTART:20200101T000000\nRRULE:FREQ=DAILY", ("RRULE:FREQ=DAILY", "DTSTART:20200101T000000")),
        ("DTSTART:20200101T000000\\nFREQ=DAILY", ("RRULE:FREQ=DAILY", "DTSTART:20200101T000000")),
        ("dtstart;TZID=UTC:20200101T000000\nFREQ=DAILY", ("RRULE:FREQ=DAILY", "dtstart;TZID=UTC:20200101T000000")),
        (
            "RRULE:FREQ=DAILY\nEXDATE;TZID=America/Chicago:20260101T000000\nRDATE:20260102T000000",
            ("RRULE:FREQ=DAILY\nEXDATE;TZID=America/Chicago:20260101T000000\nRDATE:20260102T000000", None),
        ),
    ],
)
def test_a_recurrence_rule_stands_apart_from_its_start(rule: str, expected: tuple[str, str | None]) -> None:
    found = comparable.recurrence(rule)
    assert (found["rrule"], found["dtstart"]) == expected


def test_schedules_come_in_one_order_whatever_the_servers() -> None:
    rules = [answered({"cron": f"{n} 0 * * *"}, slug=slug) for n, slug in ((3, None), (1, "b"), (2, "a"), (4, None))]
    assert comparable.schedules(rules) == comparable.schedules(reversed(rules))


def test_the_content_of_a_schedule_leaves_out_its_slug_its_anchor_and_whether_it_is_active() -> None:
    one = schedule("a", interval=60.0, anchor_date="2026-01-01T00:00:00+00:00", active=True)
    other = schedule(None, interval=60.0, anchor_date=None, active=False)
    assert comparable.content(one) == comparable.content(other)
    assert comparable.content(one) != comparable.content({**other, "timezone": "America/Chicago"})
    assert comparable.content(one) != comparable.content({**other, "parameters": {"x": 1}})


def test_a_schedule_is_called_by_its_slug_or_by_what_it_does() -> None:
    assert comparable.schedule_key(schedule("evening")) == "evening"
    assert comparable.schedule_key(schedule(None)) == "(0 20 * * * UTC)"
    assert comparable.schedule_key(schedule(None, interval=60.0)) == "(every 60.0 s UTC)"
    assert comparable.schedule_key(schedule(None, parameters={"x": 1})) == '(0 20 * * * UTC {"x": 1})'


def test_a_placeholder_is_the_same_on_every_machine_and_in_every_version() -> None:
    """Records of old releases hold it."""
    assert comparable.placeholder("hello") == "e32e17ba-0dd4-569b-aea4-31a8369a697b"
    assert comparable.placeholder("ahoi") != comparable.placeholder("hello")


def test_ids_are_replaced_wherever_they_stand_and_all_at_once() -> None:
    value = {"match": {"id": "prefect.deployment.AAA"}, "actions": [{"deployment_id": "BBB"}], "n": 1}
    expected = {"match": {"id": "prefect.deployment.BBB"}, "actions": [{"deployment_id": "AAA"}], "n": 1}
    assert comparable.with_ids(value, {"AAA": "BBB", "BBB": "AAA"}) == expected
    assert comparable.with_ids(value, {}) == value


def test_an_automation_is_what_its_owner_chose() -> None:
    answer = {"id": "1", "created": "2026", "updated": "2026", "owner_resource": "x", "name": "late", **trigger()}
    answer["trigger"] = {**answer["trigger"], "id": "new at each read", "within": None}
    assert comparable.automation(answer) == trigger()


def test_sets_and_lone_labels_of_a_trigger_have_one_form() -> None:
    labels = {"prefect.resource.id": "prefect.deployment.x", "kind": ["b", "a"]}
    one = trigger(trigger={"match": labels, "expect": ["b", "a"], "for_each": [], "after": ["z", "y"]})
    expected = {
        "match": {"prefect.resource.id": "prefect.deployment.x", "kind": ["a", "b"]},
        "expect": ["a", "b"],
        "for_each": [],
        "after": ["y", "z"],
    }
    assert comparable.automation(one)["trigger"] == expected


def test_the_order_of_actions_matters() -> None:
    actions = [{"type": "b"}, {"type": "a"}]
    assert comparable.automation(trigger(actions=actions))["actions"] == actions
