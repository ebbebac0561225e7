"""The nouns: what a plan counts, what its digest stands for, and what nobody sees."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, replace

import pytest

from deployer.errors import DeployError, Exit, InvalidInput, Problem, invalid
from deployer.model import ACTIONS, KINDS, Change, FieldChange, Hidden, canonical, digest, rows, same, shown
from tests.deployer.builders import A, B, deployment, live, planned, release, resource, spec

SECRET = Hidden("hunter2")


@pytest.mark.parametrize(
    "text", [repr(SECRET), str(SECRET), f"{SECRET}", f"{[SECRET]}", canonical({"x": [SECRET]}), str(shown((SECRET,)))]
)
def test_a_hidden_value_is_not_shown(text: str) -> None:
    assert "hunter2" not in text and "(hidden)" in text


def test_a_hidden_value_is_not_shown_in_a_plans_rows() -> None:
    plan = planned([resource("secret", "key", value=SECRET)], [live(resource("secret", "key", value=Hidden("old")))])
    assert "hunter2" not in json.dumps(rows(plan.changes)) + str(plan)
    assert [f.after.reveal() for f in planned([resource("secret", "key", value=SECRET)]).changes[0].fields] == [
        "hunter2"
    ]


def test_a_hidden_value_cannot_become_json_by_accident() -> None:
    with pytest.raises(TypeError):
        json.dumps({"x": SECRET})


def test_hidden_values_are_equal_to_their_like_and_have_one_hash() -> None:
    assert Hidden("hunter2") == SECRET != Hidden("hunter3")
    assert hash(SECRET) == hash(Hidden("something else"))
    assert SECRET != "hunter2" and copy.deepcopy(SECRET) == SECRET


def test_the_canonical_text_knows_no_order_of_keys() -> None:
    assert canonical({"b": 1, "a": [2, {"d": 3, "c": "ä"}]}) == '{"a":[2,{"c":"ä","d":3}],"b":1}'
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1}) != digest({"a": 2, "b": 2})


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        *(
            (1, 1.0, True),
            (True, True, True),
            (True, 1, False),
            (0, False, False),
            (None, False, False),
            ("1", 1, False),
        ),
        *(({"x": [1]}, {"x": [1.0]}, True), ({"x": [1]}, {"x": [True]}, False), ({"x": 1}, {}, False)),
        *(([1, 2], [2, 1], False), ([1], [1, 1], False), ([1], 1, False), ({}, [], False), ({"x": 1}, "x", False)),
    ],
)
def test_values_are_equal_as_json_is(one: object, other: object, equal: bool) -> None:
    assert same(one, other) is equal and same(other, one) is equal


def test_a_plans_summary_counts_every_action_and_what_is_unchanged() -> None:
    plan = planned([deployment(), deployment("new/new")], [live(deployment())])
    assert plan.summary == {"create": 1, "update": 0, "pause": 0, "delete": 0, "held": 0, "unchanged": 1}
    assert list(plan.summary) == [*ACTIONS, "unchanged"]


def test_a_plans_digest_stands_for_environment_commit_and_changes() -> None:
    plan = planned([deployment()])
    assert plan.digest == planned([deployment()]).digest and len(plan.digest) == 64
    for other in (replace(plan, environment="qa"), replace(plan, commit=B), replace(plan, changes=())):
        assert other.digest != plan.digest


def test_a_plans_digest_does_not_depend_on_the_words_of_the_ref_or_the_release_before() -> None:
    plan = planned([deployment()])
    assert replace(plan, ref="v1.0.0", base=None, notices=("x",), unchanged=5).digest == plan.digest


def test_held_fields_are_not_written() -> None:
    held = Change("deployment", "x/x", "held", (FieldChange("paused", True, False, held=True),))
    assert not held.touches("paused")
    assert replace(planned(), changes=(held,)).writes == ()


def test_a_change_touches_a_field_by_any_part_of_it_and_no_other_of_like_name() -> None:
    change = Change("deployment", "x/x", "update", (FieldChange("parameters.a.b", 1, 2),))
    assert change.touches("parameters") and change.touches("parameters.a")
    assert not change.touches("parameter") and not change.touches("param")


def test_a_specification_finds_a_resource_by_kind_and_name() -> None:
    found = spec(deployment(), resource("variable", "x", value=1)).by_key()
    assert found["variable", "x"] == {"value": 1} and ("deployment", "hello/hello") in found


def test_kinds_are_listed_so_that_what_others_need_comes_first() -> None:
    assert KINDS.index("work_pool") < KINDS.index("work_queue") < KINDS.index("deployment") < KINDS.index("automation")


def test_only_a_succeeded_release_has_succeeded() -> None:
    results = ("started", "failed", "interrupted", "unverified", "succeeded")
    assert [r for r in results if release(result=r).succeeded] == ["succeeded"]
    assert asdict(release(commit=A))["commit"] == A


# -- errors


def test_every_failure_has_an_exit_code_of_its_own_meaning() -> None:
    assert len({int(code) for code in Exit}) == len(Exit)
    assert InvalidInput("x").exit_code == 1 and DeployError("x").exit_code == 1


def test_a_problem_reads_as_file_line_key_and_message() -> None:
    assert str(Problem("a.yaml", 3, "x.y", "wrong.")) == "a.yaml:3: x.y: wrong."
    assert str(Problem("a.yaml", None, "", "wrong.")) == "a.yaml: wrong."


def test_problems_come_once_and_in_the_order_of_the_files() -> None:
    found = [
        Problem("b", 1, "x", "m"),
        Problem("a", 9, "x", "m"),
        Problem("a", None, "", "m"),
        Problem("b", 1, "x", "m"),
    ]
    error = invalid(found)
    assert str(error) == "3 problems found; nothing was touched."
    assert [(p.file, p.line) for p in error.problems] == [("a", None), ("a", 9), ("b", 1)]
    assert str(invalid(found[:1])).startswith("1 problem found")
