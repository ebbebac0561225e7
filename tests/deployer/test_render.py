"""One plan, three forms: text for people, Markdown for summaries, JSON for machines, from the same rows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deployer import render
from deployer.errors import Problem, count
from deployer.model import Hidden, Plan
from tests.deployer.builders import A, B, deployment, live, outcome, planned, release, resource, schedule, spec

SENTENCE = "1 to create, 1 to update, 0 to pause, 0 to delete, 1 unchanged."


def mixed() -> Plan:
    """One to create, one to update, one held beside it, one unchanged; a notice."""
    known = resource("variable", "colour", value="red")
    moved = deployment(parameters={"x": 1}, schedules=[schedule()])
    now = live(deployment(parameters={"x": 0}, schedules=[schedule()]), paused=True)
    old = resource("variable", "old", value=1)
    past = spec(known, old, deployment(parameters={"x": 0}, schedules=[schedule()]))
    wanted = [known, moved, deployment("new/new", parameters={"y": [1, "ä"]}, schedules=[schedule()])]
    return planned(wanted, [live(known), live(old), now], past)


def refused() -> Plan:
    return planned([resource("work_pool", "p", type="process")], [live(resource("work_pool", "p", type="docker"))])


# -- JSON


def test_the_json_of_a_plan_has_exactly_these_keys() -> None:
    data = render.plan_data(mixed())
    assert list(data) == ["format", "environment", "commit", "ref", "base", "summary", "changes", "digest"]
    assert data["format"] == 1 and data["base"] == {"release": 7, "commit": A} and len(data["digest"]) == 64
    assert list(data["summary"]) == ["create", "update", "pause", "delete", "held", "unchanged"]
    assert [list(c) for c in data["changes"]] == [["kind", "name", "action", "fields"]] * 2
    assert all(list(f) == ["path", "before", "after", "held"] for c in data["changes"] for f in c["fields"])


def test_the_json_of_a_first_plan_has_no_base() -> None:
    assert render.plan_data(planned())["base"] is None


def test_one_row_an_object_and_held_fields_say_so() -> None:
    changes = {c["name"]: c for c in render.plan_data(mixed())["changes"]}
    assert changes["hello/hello"]["action"] == "update"
    assert {f["path"]: f["held"] for f in changes["hello/hello"]["fields"]} == {"parameters.x": False, "paused": True}


def test_the_json_of_an_apply_adds_outcomes_release_and_seconds() -> None:
    plan = mixed()
    data = render.apply_data(plan, [outcome(), outcome("new/new", "failed", "no")], release(), 1.23456)
    assert list(data) == [*render.plan_data(plan), "outcomes", "release", "seconds"]
    assert data["release"] == {"number": 8, "commit": A, "result": "succeeded"} and data["seconds"] == 1.235
    assert data["outcomes"][1] == {
        "kind": "deployment",
        "name": "new/new",
        "action": "update",
        "result": "failed",
        "error": "no",
    }
    assert render.apply_data(plan, [], None, 0)["release"] is None


def test_a_document_is_json_that_people_can_read_too() -> None:
    assert render.document({"b": "ä", "a": Hidden("x")}) == '{\n  "b": "ä",\n  "a": "(hidden)"\n}'


# -- text


def test_the_text_ends_with_one_sentence() -> None:
    assert render.plan_text(mixed()).splitlines()[-1] == SENTENCE == render.sentence(mixed())
    nothing = "0 to create, 0 to update, 0 to pause, 0 to delete, 0 unchanged."
    assert render.plan_text(planned()).splitlines()[-1] == nothing


def test_the_text_of_a_plan_reads_like_this() -> None:
    assert render.plan_text(mixed()).splitlines() == [
        "dev: plan for aaaaaaaaaaaa (main), compared with release 7 (aaaaaaaaaaaa)",
        "",
        "  ~ update deployment hello/hello",
        "      parameters.x  0 -> 1",
        "      paused        held at true (the repository says false)",
        "  + create deployment new/new",
        '      entrypoint: "flows/alpha/hello.py:hello"',
        '      parameters: {"y": [1, "ä"]}',
        "      schedules.evening: 0 20 * * * UTC",
        "      version: aaaaaaaaaaaa",
        '      work_pool: "dev-alpha"',
        "",
        "1 value set by hand is held; --resume takes it back.",
        "Note: variable old is no longer declared; kept (prune: pause).",
        SENTENCE,
    ]


def test_the_heading_says_when_there_was_no_release_and_leaves_out_a_ref_that_is_the_commit() -> None:
    plan = Plan("dev", A, A, None, (), 0)
    assert render.plan_text(plan).splitlines()[0] == "dev: plan for aaaaaaaaaaaa, no release before it"
    assert render.plan_text(plan, "drift").startswith("dev: drift for")


def test_a_moved_commit_is_one_row() -> None:
    plan = planned([deployment(commit=B)], [live(deployment())], spec(deployment()))
    lines = render.plan_text(plan).splitlines()
    assert lines[2:4] == ["  ~ update deployment hello/hello", "      commit  aaaaaaaaaaaa -> bbbbbbbbbbbb"]
    assert sum("->" in line for line in lines) == 1


def test_many_deployments_of_which_only_the_commit_moves_are_told_together() -> None:
    names = [f"f/d{i}" for i in range(7)]
    plan = planned([deployment(n, commit=B) for n in names], [live(deployment(n)) for n in names])
    lines = render.plan_text(plan).splitlines()
    assert "  ~ update 7 deployments: only the commit moves, aaaaaaaaaaaa -> bbbbbbbbbbbb" in lines
    assert "      and 2 more" in lines and len(lines) == 11
    assert "7 deployments: only the commit moves" in render.plan_markdown(plan)
    assert all(f"- {name}" in render.plan_markdown(plan) for name in names)


def test_two_deployments_of_which_only_the_commit_moves_are_told_one_by_one() -> None:
    names = ["f/a", "f/b"]
    plan = planned([deployment(n, commit=B) for n in names], [live(deployment(n)) for n in names])
    assert [line for line in render.plan_text(plan).splitlines() if line.startswith("  ~")] == [
        *("  ~ update deployment f/a", "  ~ update deployment f/b"),
    ]


def test_a_value_that_names_the_commit_among_other_changes_is_told_on_its_own() -> None:
    now = live(deployment(parameters={"x": f"{A} and more"}))
    plan = planned([deployment(commit=B, parameters={"x": "other"})], [now])
    assert [f.path for f in render.told(plan.changes[0])] == ["parameters.x", "commit"]


def test_refusals_are_told_by_name() -> None:
    assert "Refused by 'pool-type': work pool p is of type docker" in render.plan_text(refused())
    assert "> **Refused by `pool-type`**: work pool p" in render.plan_markdown(refused())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "(none)"),
        (A, "aaaaaaaaaaaa"),
        ("z" * 40, f'"{"z" * 40}"'),
        ("two\nlines \x1b[31m", '"two\\nlines \\u001b[31m"'),
        ({"b": 1, "a": True}, '{"a": true, "b": 1}'),
        (schedule(), "0 20 * * * UTC"),
        (schedule(active=False), "0 20 * * * UTC, paused"),
        (schedule(None, interval=60.0, parameters={"x": 1}), 'every 60 s UTC with {"x": 1}'),
        (Hidden("hunter2"), '"(hidden)"'),
    ],
)
def test_a_value_is_told_in_one_line(value: Any, text: str) -> None:
    assert render._brief(value) == text


def test_a_long_value_is_cut() -> None:
    assert len(render._brief("x" * 500)) == 90 and render._brief("x" * 500).endswith("...")


# -- Markdown


def test_the_markdown_of_a_plan_is_a_table_with_the_sentence_before_it_and_the_digest_behind() -> None:
    lines = render.plan_markdown(mixed()).splitlines()
    assert lines[0].startswith("### dev: plan for aaaaaaaaaaaa") and lines[2] == f"**{SENTENCE}**"
    assert "| | kind | name | field | before | after |" in lines
    assert "| update | deployment | hello/hello | parameters.x | `0` | `1` |" in lines
    assert "| | | | paused (held) | `true` | `false` |" in lines
    assert lines[-1] == f"Digest `{mixed().digest}`"


@pytest.mark.parametrize(
    ("hostile", "cell"),
    [
        ("a|b", '`"a\\|b"`'),
        ("a\nb", '`"a\\nb"`'),
        ("<script>", '`"<script>"`'),
        ("a`b", '`` "a`b" ``'),
        ("```", '```` "```" ````'),
    ],
)
def test_a_value_cannot_break_out_of_its_cell(hostile: str, cell: str) -> None:
    plan = planned([resource("variable", "x", value=hostile)], [live(resource("variable", "x", value=1))])
    assert f"| update | variable | x | value | `1` | {cell} |" in render.plan_markdown(plan).splitlines()


def test_a_name_cannot_break_out_of_its_cell() -> None:
    name = "a|b<script>\nc"
    plan = planned(
        [resource("automation", name, description="x")], [live(resource("automation", name, description="y"))]
    )
    assert "| update | automation | a\\|b&lt;script> c | description |" in render.plan_markdown(plan)


def test_every_form_tells_the_same_changes() -> None:
    plan = mixed()
    for form in (render.plan_text(plan), render.plan_markdown(plan), json.dumps(render.plan_data(plan))):
        assert all(change.name in form and change.action in form for change in plan.changes)


# -- secrets


@pytest.mark.parametrize("old", [None, "old password"])
def test_no_form_shows_a_secret(old: str | None) -> None:
    secret = resource("secret", "key", value=Hidden("hunter2"))
    plan = planned([secret], [live(secret, value=Hidden(old))] if old else [])
    release_ = release()
    forms = [
        *(render.plan_text(plan), render.plan_markdown(plan), render.document(render.plan_data(plan))),
        *(f(plan, [outcome("key")], release_, 1) for f in (render.apply_text, render.apply_markdown)),
    ]
    assert not [form for form in forms if "hunter2" in form or "old password" in form]


def test_a_changed_secret_says_that_it_differs_and_no_more() -> None:
    secret = resource("secret", "key", value=Hidden("new"))
    plan = planned([secret], [live(secret, value=Hidden("old"))])
    assert "      value  value differs" in render.plan_text(plan).splitlines()
    assert "| update | secret | key | value | value differs | |" in render.plan_markdown(plan).splitlines()
    assert render.plan_data(plan)["changes"][0]["fields"][0]["after"] == "(hidden)"


# -- apply


def test_an_apply_ends_with_what_became_of_it() -> None:
    text = render.apply_text(mixed(), [outcome(), outcome("new/new")], release(), 1.52)
    expected = "Release 8 of dev succeeded: 2 of 2 changes written in 1.5 s and proven: nothing is left to do."
    assert text == expected


def test_a_rollback_says_what_it_puts_back_for_what() -> None:
    text = render.apply_text(mixed(), [], release(9, restores=5, rollback_of=8), 1)
    assert text.startswith("Release 9 of dev succeeded, rolling back release 8 to release 5: 0 of 2 changes")


def test_an_apply_with_nothing_to_do_says_that_nothing_was_written() -> None:
    assert render.apply_text(planned(), [], None, 0.1) == "Nothing to do in dev; nothing was written."


def test_a_failed_apply_lists_what_failed() -> None:
    outcomes = [outcome(result="failed", error="no | way"), outcome("new/new")]
    markdown = render.apply_markdown(mixed(), outcomes, release(result="failed"), 1)
    assert "- deployment hello/hello: no \\| way" in markdown and "Release 8 of dev failed: 1 of 2" in markdown
    assert "- deployment new/new" not in markdown
    line = render.outcome_line(outcome(result="failed", error="no"))
    assert line == "failed  update deployment hello/hello: no"


# -- the ledger and the rest


def test_history_is_a_table_of_releases() -> None:
    rows = [
        release(9, restores=5, rollback_of=8, reason="broken"),
        release(8, commit=B, ref=B, result="failed", error="no"),
    ]
    lines = render.history_text("dev", rows).splitlines()
    assert lines[0].split() == ["number", "commit", "ref", "result", "started", "by", "changes"]
    assert lines[1].split()[:4] == ["9", "aaaaaaaaaaaa", "main", "succeeded"] and lines[1].endswith(
        "puts back 5, for 8: broken"
    )
    assert lines[2].split() == ["8", "bbbbbbbbbbbb", "failed", "2026-01-31T12:00:00+00:00", "ada", "3", "no"]
    assert len(render.history_markdown("dev", rows).splitlines()) == 4


def test_an_empty_history_says_so() -> None:
    assert render.history_text("dev", []) == "dev: no release is recorded yet."


def test_a_releases_data_leaves_out_what_only_ledgers_need() -> None:
    data = render.release_data(release(declares={"variable": ["x"]}))
    assert "declares" not in data and data["number"] == 8


def test_status_shows_an_unreachable_environment_in_its_row() -> None:
    blank: dict[str, Any] = dict.fromkeys(("api", "release", "deployments", "paused", "retired"))
    rows: list[dict[str, Any]] = [
        {"environment": "dev", "api": "http://x", "release": render.release_data(release()), "deployments": 3, "paused": 0, "retired": 1, "error": None},
        {"environment": "qa", **blank, "error": "no answer"},
        {"environment": "prod", **blank, "api": "http://y", "deployments": 0, "paused": 0, "retired": 0, "error": None},
    ]  # fmt: skip
    dev, qa, prod = render.status_rows(rows)
    assert dev == ["dev", "8", A[:12], "main", "succeeded", "2026-01-31T12:00:00+00:00", "3", "0", "1", "http://x"]
    assert qa == ["qa", "-", "-", "-", "no answer", "-", "-", "-", "-", "-"]
    assert prod[4:7] == ["none yet", "-", "0"]
    assert len(render.status_text(rows).splitlines()) == 4 and len(render.status_markdown(rows).splitlines()) == 5


def test_a_tables_columns_stand_below_each_other() -> None:
    assert render.table(["a", "b"], [["xxx", "y"], ["z", ""]]) == "a    b\nxxx  y\nz"


def test_problems_are_data_too() -> None:
    found = [Problem("f.yaml", 3, "a.b", "wrong.")]
    assert render.problems_data(found) == [{"file": "f.yaml", "line": 3, "path": "a.b", "message": "wrong."}]


def test_numbers_count_in_words() -> None:
    assert [count(n, "change") for n in (0, 1, 2)] == ["0 changes", "1 change", "2 changes"]
