"""Schedules, names, secrets, and faults that name the key, the expectation and the likely word."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field, ValidationError

from deployer import desired
from deployer.catalog import Declaration
from deployer.environment import ConcurrencyLimit, Environment, Limit, Overlay, Policy, WorkPool, WorkQueue
from deployer.errors import Problem
from deployer.fields import (
    MARKS,
    RETIRED,
    RETIRED_WHILE_PAUSED,
    STATES,
    Schedule,
    Strict,
    Tag,
    marks,
    read,
    secret_literals,
    twice,
)
from deployer.yamlfile import Document, parse
from tests.deployer.builders import SCOPE


def faults(model: type[Strict], text: str) -> list[tuple[str, str]]:
    """Path and message of every fault of a YAML text."""
    document = parse(text, "file.yaml")
    assert document.problems == ()
    return [(p.path, p.message) for p in read(model, document.data, document)[1]]


def fault(model: type[Strict], text: str) -> tuple[str, str]:
    found = faults(model, text)
    assert len(found) == 1, found
    return found[0]


# -- schedules


@pytest.mark.parametrize(
    "text",
    [
        *(
            "cron: '0 20 * * 1-5'",
            "cron: '*/5 * * * *'",
            "cron: '@daily'",
            "cron: '0 0 29 2 *'",
            "cron: '0 9 * jan-mar fri'",
        ),
        *(
            "interval: 60",
            "{interval: 0.5, anchor_date: 2026-01-01}",
            "{interval: 60, anchor_date: '2026-01-01T06:00:00Z'}",
        ),
        *("rrule: FREQ=DAILY", "rrule: 'RRULE:FREQ=WEEKLY;BYDAY=MO'", "{cron: '0 0 * * *', timezone: America/Chicago}"),
        'rrule: "DTSTART:20260101T000000\\nRRULE:FREQ=DAILY;INTERVAL=10\\nEXDATE:20260111T000000"',
    ],
)
def test_a_schedule_that_prefect_takes_is_taken(text: str) -> None:
    assert faults(Schedule, text) == []


@pytest.mark.parametrize(
    "cron",
    [
        "",
        "x",
        "* * * *",
        "60 * * * *",
        "0 25 * * *",
        "*/0 * * * *",
        "H * * * *",
        "R R * * *",
        "1,r * * * *",
        "R(1-5) * * * *",
    ],
)
def test_a_bad_cron_is_told_at_its_key(cron: str) -> None:
    path, message = fault(Schedule, f"cron: '{cron}'")
    assert path == "cron"
    assert message == f"'{cron}' is not a cron expression; five fields are expected, e.g. '0 20 * * 1-5'."


@pytest.mark.parametrize("cron", ["0 0 30 2 *", "0 0 31 4,6 *"])
def test_a_cron_for_a_day_that_never_comes_is_told(cron: str) -> None:
    assert fault(Schedule, f"cron: '{cron}'") == ("cron", f"'{cron}' never comes; there is no such day.")


@pytest.mark.parametrize(
    "rule",
    ["", "FREQ=DAYLY", "BYDAY=MO", "FREQ=WEEKLY;BYDAY=XX", "DTSTART:20240101T000000", "X:Y", "FREQ=DAILY;BYHOUR=25"],
)
def test_a_bad_recurrence_rule_is_told_at_its_key(rule: str) -> None:
    path, message = fault(Schedule, f"rrule: '{rule}'")
    assert path == "rrule"
    assert f"'{rule}' is not a recurrence rule (RFC 5545)" in message
    assert "__init__" not in message and "FREQ=WEEKLY;BYDAY=MO" in message


def test_a_start_in_a_time_zone_that_nobody_knows_is_told_and_no_warning_printed() -> None:
    text = 'rrule: "DTSTART:20260101T00 T\\nRRULE:FREQ=DAILY"'
    assert "is not a recurrence rule" in fault(Schedule, text)[1]


def test_a_recurrence_rule_that_would_hang_the_scheduler_is_told() -> None:
    assert "INTERVAL of 0" in fault(Schedule, "rrule: FREQ=DAILY;INTERVAL=0;COUNT=3")[1]


def test_a_recurrence_rule_longer_than_prefect_takes_is_told() -> None:
    dates = ",".join(["20260101T000000"] * 500)
    assert fault(Schedule, f"rrule: 'RDATE:{dates}'") == (
        "rrule",
        "an rrule has at most 6500 characters, this one 8005.",
    )


def test_a_bad_time_zone_is_told_with_a_guess() -> None:
    path, message = fault(Schedule, "{cron: '0 0 * * *', timezone: America/Chikago}")
    assert path == "timezone"
    assert "not a time zone" in message and "Did you mean 'America/Chicago'?" in message


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "01/02/2026", "20260101", "2026", "1"])
def test_a_bad_anchor_date_is_told(text: str) -> None:
    assert fault(Schedule, f"{{interval: 60, anchor_date: '{text}'}}")[0] == "anchor_date"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slug: s", "needs exactly one of cron, interval, rrule; has none."),
        ("{cron: '0 0 * * *', interval: 5}", "needs exactly one of cron, interval, rrule; has cron, interval."),
        ("{cron: '0 0 * * *', anchor_date: 2026-01-01}", "anchor_date goes with interval only."),
    ],
)
def test_a_schedule_has_one_rule_and_only_what_fits_it(text: str, message: str) -> None:
    assert fault(Schedule, text) == ("", message)


@pytest.mark.parametrize("interval", ["0", "-5", "315360001", "1.0e+300", "soon", "[60]"])
def test_an_interval_is_a_number_of_seconds_that_comes_to_pass(interval: str) -> None:
    assert fault(Schedule, f"interval: {interval}")[0] == "interval"


def test_every_fault_of_a_schedule_is_told_at_once() -> None:
    text = "{slug: A_b, cron: x, timezone: Mars, day_or: perhaps, params: {}}"
    assert [path for path, _ in faults(Schedule, text)] == ["slug", "cron", "timezone", "day_or", "params"]


# -- tags


@pytest.mark.parametrize("tag", [*(f"{mark}x" for mark in MARKS), *STATES])
def test_the_tags_that_a_deploy_sets_itself_are_not_for_files(tag: str) -> None:
    path, message = fault(Declaration, f"{{name: x, entrypoint: a.py:f, pool: a, tags: [fine, '{tag}']}}")
    assert path == "tags[1]" and message == f"'{tag}' is a tag that the deploy itself sets and reads; choose another."
    assert marks(tag)


def test_a_tag_of_blanks_is_none() -> None:
    path, message = fault(Declaration, "{name: x, entrypoint: a.py:f, pool: a, tags: [' ']}")
    assert (path, message) == ("tags[0]", "a tag of nothing but blanks; leave it out.")


def test_every_tag_that_a_deploy_sets_is_reserved() -> None:
    preview = desired.Scope("shop", "dev", preview="pr-1")
    for tag in (*SCOPE.tags, *preview.tags, RETIRED, RETIRED_WHILE_PAUSED):
        assert tag.startswith(MARKS) or tag in STATES


# -- faults in words


@pytest.mark.parametrize(
    ("model", "text", "path", "message"),
    [
        (WorkPool, "{name: a, type: process, tipe: x}", "tipe", "unknown key 'tipe'. Did you mean 'type'?"),
        (WorkPool, "{name: a}", "type", "missing; 'type' is needed here."),
        (WorkPool, "{name: a/b, type: process}", "name", "expected a name without / % & > <, got 'a/b'."),
        (WorkPool, "{name: a, type: 5}", "type", "expected text, got 5. Quote it to make it text."),
        (WorkPool, "{name: a, type: true}", "type", "expected text, got true. Quote it to make it text."),
        (WorkPool, "{name: a, type: [x]}", "type", "expected text, got a list."),
        (WorkPool, "{name: a, type: process, concurrency_limit: many}", "concurrency_limit", "expected a whole number, got 'many'."),
        (WorkPool, "{name: a, type: process, concurrency_limit: 1.5}", "concurrency_limit", "expected a whole number, got 1.5."),
        (WorkPool, "{name: a, type: process, concurrency_limit: true}", "concurrency_limit", "expected a whole number, got true."),
        (WorkPool, "{name: a, type: process, concurrency_limit: -1}", "concurrency_limit", "must be greater than or equal to 0, got -1."),
        (WorkPool, "{name: a, type: process, queues: []}", "queues", "expected keys and values, got a list."),
        (WorkPool, "{name: a, type: process, queues: {q: {prio: 1}}}", "queues.q.prio", "unknown key 'prio'. Did you mean 'priority'?"),
        (Limit, "{limit: 1, collision_strategy: ENQEUE}", "collision_strategy", "expected 'ENQUEUE' or 'CANCEL_NEW', got 'ENQEUE'. Did you mean 'ENQUEUE'?"),
    ],
)  # fmt: skip
def test_a_fault_says_what_was_expected(model: type[Strict], text: str, path: str, message: str) -> None:
    found = fault(model, text)
    assert found[0] == path and found[1].startswith(message)


SMALLEST = [
    *((WorkPool, "{name: a, type: b, concurrency_limit: %s}", 0), (WorkQueue, "{concurrency_limit: %s}", 0)),
    *((WorkQueue, "{priority: %s}", 1), (ConcurrencyLimit, "{limit: %s}", 0), (Limit, "{limit: %s}", 1)),
    *((Limit, "{limit: 1, grace_period_seconds: %s}", 60), (Overlay, "{concurrency_limit: %s}", 1)),
    *(
        (Declaration, "{name: x, entrypoint: a.py:f, pool: a, concurrency_limit: %s}", 1),
        (Policy, "{max_removals: %s}", 0),
    ),
]


@pytest.mark.parametrize(("model", "text", "smallest"), SMALLEST)
def test_a_number_has_a_smallest_value_and_no_smaller_one(model: type[Strict], text: str, smallest: int) -> None:
    assert faults(model, text % smallest) == []
    assert fault(model, text % (smallest - 1))[1].startswith("must be greater than or equal to")


def test_a_name_is_as_long_as_prefect_takes_and_no_longer() -> None:
    text = "{name: %s, entrypoint: a.py:f, pool: a}"
    assert faults(Declaration, text % ("x" * 200)) == []
    assert fault(Declaration, text % ("x" * 201))[0] == "name"


BASE = "name: x, entrypoint: a.py:f, pool: a"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("concurrency_limit: {limti: 3}", {"concurrency_limit.limit": "missing; 'limit'", "concurrency_limit.limti": "unknown key 'limti'. Did you mean 'limit'?"}),
        ("concurrency_limit: {limit: 0}", {"concurrency_limit.limit": "must be greater than or equal to 1, got 0."}),
        ("concurrency_limit: 0", {"concurrency_limit": "must be greater than or equal to 1, got 0."}),
        ("concurrency_limit: true", {"concurrency_limit": "expected a whole number, got true."}),
        ("concurrency_limit: [1]", {"concurrency_limit": "expected a whole number or keys and values, got a list."}),
        ("schedules: [{crn: x}]", {"schedules[0].crn": "unknown key 'crn'. Did you mean 'cron'?"}),
        ("smoke: {timeut: 3}", {"smoke.timeut": "unknown key 'timeut'. Did you mean 'timeout'?"}),
    ],
)  # fmt: skip
def test_where_several_forms_are_allowed_the_one_that_was_meant_is_judged(text: str, expected: dict[str, str]) -> None:
    found = dict(faults(Declaration, f"{{{BASE}, {text}}}"))
    assert found.keys() == expected.keys()
    assert [k for k in expected if not found[k].startswith(expected[k])] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("130%", "expected a share from 0% to 100%, or a number, got '130%'."),
        ("-1", "must be greater than or equal to 0, got -1."),
        ("{limit: 3}", "expected text or a whole number, got keys and values."),
        ("true", "expected a whole number, got true."),
    ],
)
def test_a_bad_max_removals_has_one_fault(text: str, message: str) -> None:
    found = [m for path, m in faults(Environment, f"policy: {{max_removals: {text}}}") if path.startswith("policy")]
    assert found == [message]


def test_a_long_value_is_not_told_whole() -> None:
    _, message = fault(Limit, f"limit: '{'x' * 5000}'")
    assert len(message) < 120


def test_faulty_parts_are_left_out_so_that_others_can_be_checked() -> None:
    document = parse(
        f"{{{BASE}, tags: [a, 5], queue: q, schedules: [{{cron: x}}, {{cron: '0 0 * * *'}}], zzz: 1}}", "f"
    )
    found, problems = read(Declaration, document.data, document)
    assert [p.path for p in problems] == ["schedules[0].cron", "tags[1]", "zzz"]
    assert found and (found.name, found.queue) == ("x", "q")
    assert found.tags == [] and found.schedules == []


class Shop(Strict):
    name: str
    limit: int = Field(ge=1)
    tags: list[Tag] = Field(default_factory=list)


def read_shop(data: Any, **more: Any) -> tuple[Shop | None, list[Problem]]:
    return read(Shop, data, Document("f", data), **more)


def test_without_a_key_that_it_needs_there_is_no_model_unless_something_stands_in() -> None:
    assert read_shop({"limit": 1})[0] is None
    found, problems = read_shop({"limit": 1}, stand_ins={"name": "unknown"})
    assert found and found.name == "unknown" and [p.path for p in problems] == ["name"]


def test_faults_of_variables_that_nobody_set_are_passed_over() -> None:
    data = {"name": "x", "limit": "${LIMIT}", "tags": ["${TAG}", "env:x"]}
    found, problems = read_shop(data, unresolved=[("limit",)], stand_ins={"limit": 1})
    assert [p.path for p in problems] == ["tags[1]"] and found


def test_what_is_no_mapping_is_one_fault() -> None:
    assert [p.message for p in read_shop(["x"])[1]] == ["expected keys and values, got a list."]


# -- things that are given twice


def test_items_that_share_their_name_are_told_with_the_first_ones_line() -> None:
    document = parse("- {slug: a}\n- {slug: b}\n- {slug: a}\n- {other: a}\n- 5\n", "f")
    assert twice(document.data, "slug", document, ()) == [
        Problem("f", 3, "[2].slug", "'a' is given twice (first in line 1).")
    ]


# -- secrets


GIVEN_AWAY = [
    *(
        "{password: hunter2}",
        "{db_password: hunter2}",
        "{API_KEY: abc}",
        "{api-keys: [abc]}",
        "{env: {PRIVATE_KEY: x}}",
    ),
    *("{x: ghp_0123456789abcdefghijABCDEFGHIJ}", "{x: 'Bearer pnu_0123456789abcdefghij'}", "{x: AKIA0123456789ABCDEF}"),
    *(
        "{x: 'postgres://ada:hunter2@db/prices'}",
        "[['redis://:hunter2@cache/0']]",
        "{x: '-----BEGIN RSA " + "PRIVATE KEY-----'}",  # in two parts, or this file looks as if it held one
    ),
    *("{x: 'see ${X:-ghp_0123456789abcdefghijABCDEFGHIJ}'}", "{token: '${T:-abc}'}"),
]
HARMLESS = [
    *("{password: ''}", "{x: hello}", "{tokens: 5}", "{password_file: /run/secrets/db}", "{secret_name: github}"),
    *("{password: '{{ prefect.blocks.secret.db }}'}", "{x: 'https://git.example/team/shop.git'}", "{key: abc}"),
    *("{x: 'postgres://ada@db/prices'}", "{token: how many words to keep}", "{x: '${NAME}'}", "[1, null, true]"),
]


@pytest.mark.parametrize("text", GIVEN_AWAY)
def test_a_literal_that_looks_like_a_secret_is_told_without_being_repeated(text: str) -> None:
    document = parse(text, "f")
    (problem,) = secret_literals(document.data, document, ())
    assert problem.message.startswith("looks like a secret.")
    assert not any(word in problem.message for word in ("hunter2", "abc", "0123456789", "BEGIN"))


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_is_let_through(text: str) -> None:
    document = parse(text, "f")
    assert secret_literals(document.data, document, ()) == []


def test_a_variable_that_would_be_shown_in_prefect_under_a_secrets_name_is_told() -> None:
    document = parse("env: {API_KEY: '${API_KEY}'}", "f")
    (problem,) = secret_literals(document.data, document, ())
    assert problem.path == "env.API_KEY" and "to everybody in Prefect" in problem.message


def test_what_was_read_is_frozen() -> None:
    found, _ = read_shop({"name": "x", "limit": 1})
    assert found
    with pytest.raises(ValueError, match="frozen"):
        found.name = "y"  # type: ignore[misc]


def test_an_rrule_until_a_moment_in_utc_is_refused_with_the_form_that_works() -> None:
    """The server would schedule nothing at all for such a deployment, not even by its other schedules."""
    with pytest.raises(ValidationError, match="write UNTIL=20300101T000000, in the schedule's own time zone"):
        Schedule.model_validate({"rrule": "FREQ=DAILY;BYHOUR=5;UNTIL=20300101T000000Z"})
    for until in ("20300101T000000", "20300101"):
        assert Schedule.model_validate({"rrule": f"FREQ=DAILY;BYHOUR=5;UNTIL={until}"}).rrule
