"""Planning: wanted, live and last released give a plan. First come the promises about owners, three ways and holds, one test a sentence."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import httpx
import pytest

from deployer import desired, prefect_api, prepare
from deployer.environment import Api, Policy
from deployer.errors import Refused
from deployer.ledger import Ledger
from deployer.merge import RULES, pair_schedules
from deployer.model import KINDS, Base, Change, Fields, Hidden, Live, Resource, Specification, rows
from deployer.plan import History, created_after, retired_after
from deployer.prefect_api import deployments
from deployer.prepare import Site
from deployer.render import plan_data
from deployer.source import Code
from tests.deployer import builders
from tests.deployer.builders import (
    OWNED,
    SCOPE,
    THEIRS,
    A,
    B,
    actions,
    change,
    declared,
    deployment,
    guards,
    live,
    planned,
    release,
    resource,
    schedule,
    spec,
    told,
    trigger,
)

DELETE, KEEP = Policy(prune="delete"), Policy(prune="keep")
RETIRED_TAGS = [*OWNED, "retired"]
QUEUE = resource("work_queue", "dev-alpha/slow", priority=2)
POOL = resource("work_pool", "dev-alpha", type="process")
LIMIT = resource("concurrency_limit", "api", limit=5, slot_decay_per_second=0.0, active=True)
VARIABLE = resource("variable", "colour", value="red")
SECRET = resource("secret", "key", value=Hidden("hunter2"))
LATE = resource("automation", "late", **trigger())
OTHERS = [VARIABLE, SECRET, LIMIT, POOL, QUEUE, LATE]


# -- ownership


def test_deployments_carry_the_tags_project_and_env_and_the_project_is_by_default_the_repository_urls_last_segment() -> (
    None
):
    for found, project in (
        (builders.environment(source={"repository": "https://git.example/team/Shop.git"}), "shop"),
        (builders.environment(project="bakery"), "bakery"),
    ):
        scope = desired.Scope(found.owner, found.name)
        (asked,) = desired.request(found, [declared(tags=["x"])], Code(), A, scope).deployments
        assert asked["tags"] == ["env:dev", f"project:{project}", "x"]


def test_an_existing_deployment_of_a_wanted_name_that_is_not_ours_stops_the_deploy_and_is_listed_and_adopt_takes_it_over() -> (
    None
):
    wanted = [deployment(), deployment("ahoi/ahoi"), deployment("new/new")]
    theirs = [live(deployment(), tags=THEIRS), live(deployment("ahoi/ahoi"), tags=["x"])]
    (refusal,) = planned(wanted, theirs).refusals
    assert Refused("").exit_code == 6 and refusal.guard == "ownership"
    assert "2 deployments of these names" in refusal.message and "--adopt" in refusal.message
    assert "hello/hello (env:dev, project:bakery)" in refusal.message and "ahoi/ahoi (no owner tags)" in refusal.message
    adopted = planned(wanted, theirs, adopt=True)
    assert adopted.refusals == () and told(adopted)["tags"] == (THEIRS, OWNED)
    assert told(adopted, "ahoi/ahoi")["tags"] == (["x"], sorted([*OWNED, "x"]))


def test_other_kinds_have_no_tags_they_are_ours_if_declared_never_if_another_environments_ledger_on_that_api_lists_them_deleted_only_if_our_ledger_says_that_we_created_them() -> (
    None
):
    there = live(VARIABLE, value="blue")
    assert actions(planned([VARIABLE], [there])) == {"colour": "update"}
    foreign = planned([VARIABLE], [there], foreign={VARIABLE.key: "shop-qa"})
    assert guards(foreign) == ["ownership"] and "variable colour (shop-qa)" in foreign.refusals[0].message
    assert guards(planned([VARIABLE], [there], foreign={VARIABLE.key: "shop-qa"}, adopt=True)) == ["ownership"]
    assert actions(planned([], [there], spec(VARIABLE), policy=DELETE)) == {}
    made = spec(VARIABLE, created=(VARIABLE.key,))
    assert actions(planned([], [there], made, policy=DELETE)) == {"colour": "delete"}
    assert actions(planned([], [there], made, policy=DELETE, foreign={VARIABLE.key: "shop-qa"})) == {}


def test_an_api_that_holds_another_environments_ledger_needs_api_shared_true() -> None:
    def check(**api: Any) -> None:
        found = builders.environment(api={"url": "http://127.0.0.1:1/api", **api})
        with prefect_api.Client(found.api) as client:
            book = Ledger(client, SCOPE)
            book.others = [release(environment="dev"), release(environment="qa")]
            prepare.check_tenancy(Site(found, SCOPE, client, book))

    check(shared=True)
    with pytest.raises(Refused, match=r"holds releases of qa; this is dev\. .*api\.shared: true") as caught:
        check()
    assert caught.value.exit_code == 6


# -- three ways


def test_what_the_last_release_set_what_the_repository_says_now_what_is_live() -> None:
    """Every mixture of the three, for one parameter. Released, wanted, live -> what it will be."""
    gone = None
    table = {
        (1, 1, 1): 1,
        (1, 1, 2): 1,  # changed by hand: the repository's value returns
        (1, 2, 1): 2,
        (1, 2, 3): 2,
        (1, gone, 1): gone,  # dropped from the repository
        (1, gone, 2): gone,
        (gone, gone, 1): 1,  # never ours
        (gone, 1, gone): 1,
        (gone, 1, 2): 1,
        (1, 1, gone): 1,
        (1, gone, gone): gone,
    }
    for (released, wanted, there), expected in table.items():
        before, want, now = ({} if v is gone else {"x": v} for v in (released, wanted, there))
        plan = planned(
            [deployment(parameters=want)], [live(deployment(parameters=now))], spec(deployment(parameters=before))
        )
        rows = {} if there == expected else {"parameters.x": (there, expected)}
        assert (told(plan) if plan.changes else {}) == rows, (released, wanted, there)


def test_tags_parameters_and_job_variables_merge_per_element_a_key_dropped_from_the_yaml_goes_back_to_prefects_default_one_that_the_repository_never_set_is_not_ours() -> (
    None
):
    released = deployment(tags=["ours", "old"], parameters={"a": 1, "old": 1}, job_variables={"a": 1, "old": 1})
    wanted = deployment(tags=["ours", "new"], parameters={"a": 2}, job_variables={"new": {"b": 1}})
    there = {"a": 1, "old": 1, "theirs": 1}
    now = live(released, tags=[*released.fields["tags"], "theirs"], parameters=there, job_variables=there)
    target = change(planned([wanted], [now], spec(released))).target
    assert target["parameters"] == {"a": 2, "theirs": 1}
    assert target["job_variables"] == {"new": {"b": 1}, "theirs": 1}
    assert target["tags"] == sorted([*OWNED, "ours", "new", "theirs"])


def test_slug_less_schedules_match_by_content() -> None:
    one, other = schedule(None), schedule(None, cron="0 6 * * *")
    now = live(deployment(schedules=[other, one]))
    assert planned([deployment(schedules=[one, other])], [now]).changes == ()
    moved = planned([deployment(schedules=[one, schedule(None, cron="0 7 * * *")])], [now])
    assert told(moved).keys() == {"schedules.(0 6 * * * UTC)", "schedules.(0 7 * * * UTC)"}


def test_what_prefect_adds_by_itself_an_intervals_anchor_date_ids_times_status_is_never_a_difference() -> None:
    wanted = [
        schedule("a", interval=60.0, anchor_date=None),
        schedule(None, interval=90.0, anchor_date=None),
        schedule("r", rrule="RRULE:FREQ=DAILY", dtstart=None),
    ]
    there = [{**s, "id": "8a1c"} for s in wanted]
    there[0]["anchor_date"] = there[1]["anchor_date"] = "2026-01-01T00:00:00+00:00"
    there[2]["dtstart"] = "DTSTART:20200101T000000"
    now = live(deployment(schedules=there), status="READY", updated="2026-01-01", last_polled=None)
    plan = planned([deployment(schedules=wanted)], [now], spec(deployment(schedules=wanted)))
    assert plan.changes == () and plan.unchanged == 1


# -- holds


def test_schedules_paused_sets_each_schedules_active_never_the_deployments_paused() -> None:
    found = builders.environment(deployments={"defaults": {"schedules": "paused"}})
    items = [{"slug": "a", "interval": 60}, {"slug": "b", "interval": 60}]
    (asked,) = desired.request(found, [declared(schedules=items)], Code(), A, SCOPE).deployments
    assert [s["active"] for s in asked["schedules"]] == [False, False]
    assert asked["paused"] is False


def test_active_and_paused_are_written_at_creation_and_when_the_repositorys_own_value_changes_otherwise_the_operators_live_value_wins_and_is_shown_as_held_resume_takes_it_back() -> (
    None
):
    off = deployment(paused=True, schedules=[schedule(active=False)])
    on = deployment(paused=False, schedules=[schedule(active=True)])
    assert change(planned([off])).target["paused"] is True  # at creation
    both = {"paused": (True, False), "schedules.evening.active": (False, True)}
    assert told(planned([on], [live(off)], spec(off))) == both  # the repository's own value changes
    held = planned([on], [live(off)], spec(on))
    assert told(held) == both and actions(held) == {"hello/hello": "held"} and held.writes == ()
    assert all(f.held for f in change(held).fields)
    resumed = planned([on], [live(off)], spec(on), resume=True)
    assert actions(resumed) == {"hello/hello": "update"} and told(resumed) == both


def test_a_removed_deployment_is_paused_and_tagged_retired_when_it_returns_it_is_un_paused_only_if_we_paused_it() -> (
    None
):
    was = deployment()
    for by_hand, mark, back in ((False, [], False), (True, ["retired-while-paused"], True)):
        gone = planned([], [live(was, paused=by_hand)], spec(was), allow_removals=True)
        target = change(gone).target
        assert actions(gone) == {"hello/hello": "pause"}
        assert told(gone).get("paused") == (None if by_hand else (False, True))
        assert target["paused"] is True and target["tags"] == sorted([*RETIRED_TAGS, *mark])
        returned = planned([was], [live(was, paused=True, tags=target["tags"])], spec(retired={was.name: was.fields}))
        assert change(returned).target["paused"] is back and change(returned).target["tags"] == OWNED
        assert told(returned)["paused"] == (True, False) and change(returned).touches("paused") is not back


def test_removed_non_deployments_are_kept_and_reported_automations_disabled_prune_delete_removes_what_we_created_a_deployments_automations_with_it() -> (
    None
):
    there = [live(r) for r in OTHERS]
    kept = planned([], there, spec(*OTHERS))
    assert actions(kept) == {"late": "pause"} and change(kept, "late").target["enabled"] is False
    assert sorted(n.split(" is no longer")[0] for n in kept.notices) == [
        *("concurrency limit api", "secret key", "variable colour", "work pool dev-alpha", "work queue dev-alpha/slow"),
    ]
    made = spec(*OTHERS, created=tuple(r.key for r in OTHERS))
    assert set(actions(planned([], there, made, policy=DELETE)).values()) == {"delete"}
    assert deleted_with("77") == ["/api/automations/88", "/api/deployments/77"]


def deleted_with(deployment_id: str) -> list[str]:
    """What is deleted together with a deployment that an automation runs, and another one only watches."""
    asked: list[str] = []
    action = {"type": "run-deployment", "deployment_id": deployment_id}
    related = [{"id": "88", "actions": [action]}, {"id": "99", "actions": [{"type": "send-notification"}]}]

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json=related)
        asked.append(request.url.path)
        return httpx.Response(204)

    with prefect_api.Client(Api(url="http://x/api"), httpx.MockTransport(answer)) as client:
        gone = Live("deployment", "hello/hello", deployment_id, live(deployment()).fields)
        deployments.delete(client, Change("deployment", "hello/hello", "delete", live=gone))
    return asked


# -- creating and leaving alone


def test_what_is_missing_is_created_with_all_its_fields() -> None:
    plan = planned([deployment(parameters={"x": 1}, schedules=[schedule()]), *OTHERS])
    assert {c.action for c in plan.changes} == {"create"} and plan.unchanged == 0
    assert change(plan).target == deployment(parameters={"x": 1}, schedules=[schedule()]).fields
    assert told(plan)["parameters"] == (None, {"x": 1})
    assert told(plan)["schedules.evening"][1] == {
        "slug": "evening",
        "timezone": "UTC",
        "active": True,
        "cron": "0 20 * * *",
    }


def test_what_is_as_it_should_be_is_unchanged() -> None:
    wanted = [deployment(parameters={"x": 1}, schedules=[schedule()], triggers={"t": trigger()}), *OTHERS]
    plan = planned(wanted, [live(r) for r in wanted], spec(*wanted))
    assert plan.changes == () and plan.refusals == () and plan.notices == () and plan.unchanged == 7


def test_a_deployment_of_another_owner_that_nobody_wants_is_left_alone() -> None:
    assert planned([], [live(deployment(), tags=THEIRS)]).changes == ()
    preview = [*OWNED, "preview:pr-1"]
    assert planned([], [live(deployment(), tags=preview)], policy=DELETE).changes == ()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", B),
        ("entrypoint", "flows/beta.py:f"),
        ("description", "Other."),
        ("parameter_openapi_schema", {"type": "array", "properties": {}}),
        ("enforce_parameter_schema", False),
        ("work_pool", "dev-beta"),
        ("work_queue", "slow"),
        ("concurrency_limit", 2),
        ("collision_strategy", "CANCEL_NEW"),
        ("grace_period_seconds", 60),
    ],
)
def test_a_field_that_differs_is_the_only_one_that_is_written(field: str, value: Any) -> None:
    plan = planned([deployment(**{field: value})], [live(deployment())])
    found = change(plan)
    assert found.touches(field) and not any(found.touches(other) for other in RULES["deployment"] if other != field)
    assert found.target == {**live(deployment()).fields, field: value}


def test_of_long_values_only_the_differing_leaves_are_told() -> None:
    plan = planned([deployment(commit=B)], [live(deployment())], spec(deployment()))
    path = "pull_steps.0.prefect.deployments.steps.git_clone.commit_sha"
    assert told(plan) == {"version": (A, B), path: (A, B)}


@pytest.mark.parametrize(
    ("field", "set_to", "default"),
    [
        ("work_queue", "slow", "default"),
        ("concurrency_limit", 3, None),
        ("collision_strategy", "CANCEL_NEW", "ENQUEUE"),
        ("grace_period_seconds", 90, None),
    ],
)
def test_an_optional_value_goes_back_to_prefects_default_if_we_set_it_and_stays_if_we_did_not(
    field: str, set_to: Any, default: Any
) -> None:
    now = live(deployment(), **{field: set_to})
    assert told(planned([deployment()], [now], spec(deployment(**{field: set_to})))) == {field: (set_to, default)}
    assert planned([deployment()], [now], spec(deployment())).changes == ()


@pytest.mark.parametrize(
    ("wanted", "now", "expected"),
    [
        (POOL, {"concurrency_limit": 3, "description": "x"}, {}),
        (resource("work_pool", "p", type="process", concurrency_limit=4), {"concurrency_limit": 3}, {"concurrency_limit": (3, 4)}),
        (resource("work_queue", "p/q", priority=2), {"priority": 5, "concurrency_limit": 1}, {"priority": (5, 2)}),
        (LIMIT, {"limit": 1, "slot_decay_per_second": 1.0}, {"limit": (1, 5), "slot_decay_per_second": (1.0, 0.0)}),
        (resource("variable", "x", value={"a": [1]}), {"value": {"a": [2], "b": 3}}, {"value.a": ([2], [1]), "value.b": (3, None)}),
        (resource("variable", "x", value=0), {"value": False}, {"value": (False, 0)}),
        (LATE, {"description": "by hand"}, {"description": ("by hand", "")}),
    ],
)  # fmt: skip
def test_every_kind_says_field_by_field_what_differs(
    wanted: Resource, now: dict[str, Any], expected: dict[str, tuple[Any, Any]]
) -> None:
    plan = planned([wanted], [live(wanted, **now)])
    assert (told(plan, wanted.name) if plan.changes else {}) == expected


def test_a_secrets_change_is_told_and_its_value_is_not() -> None:
    plan = planned([SECRET], [live(SECRET, value=Hidden("old password"))])
    text = json.dumps(plan_data(plan))
    assert actions(plan) == {"key": "update"} and change(plan, "key").target["value"].reveal() == "hunter2"
    assert "hunter2" not in text and "old password" not in text
    assert planned([SECRET], [live(SECRET)]).changes == ()


def test_the_digest_of_a_plan_does_not_depend_on_a_secrets_value() -> None:
    digests = {
        planned([resource("secret", "key", value=Hidden(v))], [live(SECRET, value=Hidden("x"))]).digest for v in "ab"
    }
    assert len(digests) == 1


# -- schedules


def test_a_changed_rule_keeps_the_schedule_of_that_slug() -> None:
    plan = planned([deployment(schedules=[schedule(cron="0 6 * * *")])], [live(deployment(schedules=[schedule()]))])
    assert told(plan) == {"schedules.evening.cron": ("0 20 * * *", "0 6 * * *")}


def test_a_schedule_that_nobody_declares_goes_also_one_that_was_added_by_hand() -> None:
    plan = planned([deployment()], [live(deployment(schedules=[schedule("by-hand")]))], spec(deployment()))
    assert told(plan).keys() == {"schedules.by-hand"} and change(plan).target["schedules"] == []


def test_a_renamed_slug_keeps_the_schedule_and_a_lost_one_does_not() -> None:
    old, renamed, bare = schedule("old"), schedule("new"), schedule(None)
    assert told(planned([deployment(schedules=[renamed])], [live(deployment(schedules=[old]))])) == {
        "schedules.new.slug": ("old", "new")
    }
    lost = planned([deployment(schedules=[bare])], [live(deployment(schedules=[old]))])
    assert told(lost).keys() == {"schedules.old", "schedules.(0 20 * * * UTC)"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (schedule("old"), schedule(None)),
        (schedule(None), schedule(None, cron="0 6 * * *")),
    ],
    ids=["the slug goes", "the rule of one without a slug"],
)
def test_an_operators_pause_stays_with_the_schedule_that_takes_its_place(before: Fields, after: Fields) -> None:
    paused = {**before, "active": False}
    wanted, past = deployment(schedules=[after]), spec(deployment(schedules=[before]))
    plan = planned([wanted], [live(deployment(schedules=[paused]))], past)
    assert [s["active"] for s in change(plan).target["schedules"]] == [False]
    assert [f.path.rpartition(".")[2] for f in change(plan).fields if f.held] == ["active"]
    resumed = planned([wanted], [live(deployment(schedules=[paused]))], past, resume=True)
    assert [s["active"] for s in change(resumed).target["schedules"]] == [True]


def test_each_live_schedule_is_taken_once() -> None:
    twins = [schedule(None), schedule(None)]
    pairs, gone = pair_schedules(twins, [schedule(None)])
    assert [have is None for _, have in pairs] == [False, True] and gone == []
    pairs, gone = pair_schedules([schedule(None)], twins)
    assert len(gone) == 1


def test_a_slug_is_a_stronger_sign_than_content() -> None:
    """`b` takes over what `a` did, and `a` does something new: both keep their own."""
    now = [schedule("a"), schedule("b", cron="0 6 * * *")]
    wanted = [schedule("a", cron="0 7 * * *"), schedule("b")]
    for order in permutations(now):
        pairs, gone = pair_schedules(wanted, list(order))
        assert [have["slug"] for _, have in pairs] == ["a", "b"] and gone == []


def test_a_schedule_may_change_its_kind() -> None:
    interval = schedule(interval=60.0, anchor_date=None)
    plan = planned([deployment(schedules=[interval])], [live(deployment(schedules=[schedule()]))])
    (target,) = change(plan).target["schedules"]
    assert "cron" not in target and target["interval"] == 60.0
    assert told(plan)["schedules.evening.cron"] == ("0 20 * * *", None)


def test_an_anchor_is_ours_only_while_the_repository_gives_one() -> None:
    given, none = (schedule(interval=60.0, anchor_date=a) for a in ("2026-01-01T00:00:00+00:00", None))
    there = live(deployment(schedules=[given]))
    path = "schedules.evening.anchor_date"
    other = schedule(interval=60.0, anchor_date="2027-01-01T00:00:00+00:00")
    assert told(planned([deployment(schedules=[other])], [there])).keys() == {path}
    assert planned([deployment(schedules=[none])], [there]).changes == ()
    assert told(planned([deployment(schedules=[none])], [there], spec(deployment(schedules=[given])))).keys() == {path}


def test_a_schedules_activity_is_remembered_by_its_slug_or_by_its_content() -> None:
    for slug in ("evening", None):
        on, off = schedule(slug, active=True), schedule(slug, active=False)
        held = planned(
            [deployment(schedules=[on])], [live(deployment(schedules=[off]))], spec(deployment(schedules=[on]))
        )
        assert actions(held) == {"hello/hello": "held"}
        switched = planned(
            [deployment(schedules=[on])], [live(deployment(schedules=[off]))], spec(deployment(schedules=[off]))
        )
        assert actions(switched) == {"hello/hello": "update"}


def test_a_schedules_activity_is_not_taken_from_one_that_does_the_same_under_a_slug() -> None:
    on, named_off = schedule(None, active=True), schedule("evening", active=False)
    turned = live(deployment(schedules=[{**on, "active": False}, {**named_off, "active": True}]))
    for past in permutations([on, named_off]):
        plan = planned([deployment(schedules=[on, named_off])], [turned], spec(deployment(schedules=list(past))))
        assert actions(plan) == {"hello/hello": "held"}


# -- triggers


def test_triggers_are_told_apart_by_name_and_those_of_others_stay() -> None:
    now = live(deployment(triggers={"a": trigger(), "old": trigger(), "theirs": trigger()}))
    past = spec(deployment(triggers={"a": trigger(), "old": trigger()}))
    wanted = deployment(triggers={"a": trigger(description="x"), "new": trigger()})
    plan = planned([wanted], [now], past)
    assert told(plan).keys() == {"triggers.a.description", "triggers.new", "triggers.old"}
    assert change(plan).target["triggers"].keys() == {"a", "new", "theirs"}


def test_a_trigger_that_was_switched_off_by_hand_is_held() -> None:
    wanted = deployment(triggers={"a": trigger()})
    now = live(deployment(triggers={"a": trigger(enabled=False)}))
    assert actions(planned([wanted], [now], spec(wanted))) == {"hello/hello": "held"}
    assert told(planned([wanted], [now], spec(wanted), resume=True)) == {"triggers.a.enabled": (False, True)}


# -- holds, more of them


@pytest.mark.parametrize("wanted", [LIMIT, LATE])
def test_a_limit_or_automation_that_was_switched_off_by_hand_is_held_too(wanted: Resource) -> None:
    switch = "active" if wanted is LIMIT else "enabled"
    plan = planned([wanted], [live(wanted, **{switch: False})], spec(wanted))
    assert actions(plan) == {wanted.name: "held"} and plan.summary["held"] == 1 and plan.summary["unchanged"] == 0


def test_held_fields_beside_updated_ones_count_as_an_update() -> None:
    plan = planned([deployment(commit=B)], [live(deployment(), paused=True)], spec(deployment()))
    assert actions(plan) == {"hello/hello": "update"} and plan.summary["held"] == 0
    assert [f.path for f in change(plan).fields if f.held] == ["paused"]
    assert change(plan).target["paused"] is True and not change(plan).touches("paused")


def test_without_a_record_of_ours_the_live_value_is_the_operators() -> None:
    assert actions(planned([deployment()], [live(deployment(), paused=True)])) == {"hello/hello": "held"}


def test_what_a_failed_release_may_have_set_counts_as_ours() -> None:
    now = live(deployment(parameters={"half": 1}))
    plan = planned([deployment()], [now], spec(deployment()), spec(deployment(parameters={"half": 1}), commit=B))
    assert told(plan) == {"parameters.half": (1, None)}


# -- retiring and returning


def test_a_retired_deployment_is_retired_once() -> None:
    assert planned([], [live(deployment(), tags=RETIRED_TAGS, paused=True)]).changes == ()


def test_a_returning_deployment_stays_paused_where_the_repository_says_so() -> None:
    was = deployment(paused=True)
    now = live(was, paused=True, tags=RETIRED_TAGS)
    assert told(planned([was], [now], spec(retired={was.name: was.fields}))) == {"tags": (RETIRED_TAGS, OWNED)}


def test_a_returning_deployment_remembers_what_was_ours() -> None:
    was = deployment(parameters={"old": 1})
    now = live(was, paused=True, tags=RETIRED_TAGS, parameters={"old": 1, "theirs": 2})
    plan = planned([deployment()], [now], spec(retired={was.name: was.fields}))
    assert change(plan).target["parameters"] == {"theirs": 2} and change(plan).target["paused"] is False


def history(*past: Specification) -> History:
    """The first of them succeeded, the others failed since."""
    return History(Base(1, "a" * 40) if past else None, past)


def test_the_fields_of_what_goes_are_kept_until_it_returns_or_is_deleted() -> None:
    was, now = deployment(parameters={"x": 1}), live(deployment(parameters={"x": 1}))
    gone = planned([], [now], spec(was), allow_removals=True)
    kept = retired_after(history(spec(was)), gone, [])
    assert kept == {was.name: was.fields}
    later = history(spec(retired=kept))
    assert retired_after(later, planned([VARIABLE]), [VARIABLE]) == kept
    back = planned([was], [live(was, paused=True, tags=RETIRED_TAGS)], spec(retired=kept))
    assert retired_after(later, back, [was]) == {}
    deleted = planned([], [live(was, paused=True, tags=RETIRED_TAGS)], spec(retired=kept), policy=DELETE)
    assert retired_after(later, deleted, []) == {}


def test_what_a_removal_switched_off_is_switched_on_again_at_the_return_and_what_somebody_else_did_is_not() -> None:
    was = deployment(triggers={"t": trigger()})
    gone = planned([], [live(was)], spec(was), allow_removals=True)
    assert change(gone).target["triggers"]["t"]["enabled"] is False
    kept = retired_after(history(spec(was)), gone, [])
    back = planned([was], [live(was, **change(gone).target)], spec(retired=kept))
    assert told(back)["triggers.t.enabled"] == (False, True)
    by_hand = planned([LATE], [live(LATE, enabled=False)], spec(LATE))
    assert actions(by_hand) == {"late": "held"}


def test_an_automation_that_its_removal_switched_off_is_switched_on_at_its_return() -> None:
    gone = planned([], [live(LATE)], spec(LATE))
    kept = retired_after(history(spec(LATE)), gone, [])
    back = planned([LATE], [live(LATE, enabled=False)], spec(retired=kept))
    assert told(back, "late") == {"enabled": (False, True)}


def test_a_queue_that_a_deployment_uses_does_not_go_away_under_it() -> None:
    made = spec(QUEUE, created=(QUEUE.key,))
    user = deployment(work_queue="slow")
    assert actions(planned([user], [live(user), live(QUEUE)], made, policy=DELETE)) == {}
    assert actions(planned([deployment()], [live(deployment()), live(QUEUE)], made, policy=DELETE)) == {
        QUEUE.name: "delete"
    }


def test_what_we_created_is_remembered_until_we_delete_it() -> None:
    first = created_after(history(), planned([VARIABLE, deployment()]))
    assert first == (VARIABLE.key,), "deployments carry tags instead"
    past = spec(VARIABLE, created=first)
    assert created_after(history(past), planned([VARIABLE], [live(VARIABLE)], past)) == first
    gone = planned([], [live(VARIABLE)], past, policy=DELETE)
    assert created_after(history(past), gone) == ()


def test_what_we_created_and_kept_is_deleted_when_the_policy_turns_to_that() -> None:
    later = spec(created=(VARIABLE.key,))
    assert planned([], [live(VARIABLE)], later).changes == ()
    assert actions(planned([], [live(VARIABLE)], later, policy=DELETE)) == {"colour": "delete"}


# -- prune


def test_prune_keep_leaves_everything_and_says_so() -> None:
    was = [deployment(), *OTHERS]
    plan = planned([], [live(r) for r in was], spec(*was, created=tuple(r.key for r in was)), policy=KEEP)
    assert plan.changes == () and len(plan.notices) == len(was)
    assert all("is no longer declared; kept" in notice for notice in plan.notices)


def test_prune_delete_deletes_owned_deployments_retired_ones_too() -> None:
    there = [live(deployment()), live(deployment("old/old"), tags=RETIRED_TAGS, paused=True)]
    plan = planned([], there, policy=DELETE, allow_removals=True)
    assert actions(plan) == {"hello/hello": "delete", "old/old": "delete"}


def test_what_exists_and_was_never_ours_is_not_spoken_of() -> None:
    assert planned([], [live(VARIABLE)]).notices == ()


def test_an_automation_that_is_off_already_is_not_switched_off_again() -> None:
    plan = planned([], [live(LATE, enabled=False)], spec(LATE))
    assert plan.changes == () and plan.notices == ()


def test_a_secret_without_a_value_is_neither_written_nor_removed() -> None:
    plan = planned([], [live(SECRET)], spec(secrets={"key": "${KEY}"}), unmanaged=[SECRET.key], policy=DELETE)
    assert plan.changes == () and plan.notices == ()


def test_a_secret_that_is_no_longer_declared_is_kept_and_reported() -> None:
    plan = planned([], [live(SECRET)], spec(secrets={"key": "${KEY}"}))
    assert plan.notices == ("secret key is no longer declared; kept (prune: pause).",)


# -- guards


def owned(number: int) -> list[Live]:
    return [live(deployment(f"f/d{i}")) for i in range(number)]


def removing(count: int, of: int, most: str | int, allow_removals: bool = False) -> list[str]:
    wanted = [deployment(f"f/d{i}") for i in range(count, of)]
    return guards(planned(wanted, owned(of), policy=Policy(max_removals=most), allow_removals=allow_removals))


@pytest.mark.parametrize(
    ("count", "of", "most", "refused"),
    [
        (3, 10, "30%", False),
        (4, 10, "30%", True),
        (8, 9, "30%", False),  # few: no share of few is many
        (6, 20, "30%", False),
        (7, 20, "30%", True),
        (29, 100, "29%", False),  # not a matter of floating point
        (30, 100, "29%", True),
        (1, 10, "0%", True),
        (9, 10, "100%", False),
        (2, 10, 2, False),
        (3, 10, 2, True),
        (1, 10, 0, True),
        (0, 10, 0, False),
    ],
)
def test_more_removals_than_the_policy_allows_are_refused(count: int, of: int, most: str | int, refused: bool) -> None:
    assert removing(count, of, most) == (["removals"] if refused else [])
    assert removing(count, of, most, allow_removals=True) == []


def test_a_refused_removal_tells_the_numbers_the_threshold_and_the_way_on() -> None:
    (refusal,) = planned([deployment("f/d0")], owned(10)).refusals
    expected = "9 of 10 deployments would go; policy.max_removals is 30%. If that is meant: --allow-removals."
    assert refusal.message == expected


def test_retired_deployments_count_neither_as_owned_nor_as_removed() -> None:
    retired = [live(deployment(f"f/r{i}"), tags=RETIRED_TAGS, paused=True) for i in range(50)]
    wanted = [deployment(f"f/d{i}") for i in range(4, 10)]
    assert guards(planned(wanted, [*owned(10), *retired])) == ["removals"]
    assert guards(planned(wanted, [*owned(9), *retired], policy=DELETE)) == []


def test_an_empty_catalogue_is_refused_however_few_would_go() -> None:
    (refusal,) = planned([VARIABLE], owned(2)).refusals
    assert refusal.guard == "empty-catalogue"
    assert (
        "declares no deployment, and 2 deployments would go" in refusal.message
        and "--allow-removals" in refusal.message
    )
    assert planned([VARIABLE], owned(1), allow_removals=True).refusals == ()


def test_an_empty_catalogue_where_nothing_is_lost_is_fine() -> None:
    assert planned([VARIABLE]).refusals == ()
    assert planned([VARIABLE], owned(3), policy=KEEP).refusals == ()


def test_a_pool_of_another_type_is_refused() -> None:
    (refusal,) = planned([POOL], [live(POOL, type="docker")]).refusals
    assert refusal.guard == "pool-type"
    assert refusal.message.startswith("work pool dev-alpha is of type docker, not process; a type cannot change.")


def test_adopting_drops_other_owners_and_previews_tags_and_keeps_the_rest() -> None:
    now = live(deployment(), tags=[*THEIRS, "preview:pr-1", "retired", "theirs"])
    assert change(planned([deployment()], [now], adopt=True)).target["tags"] == sorted([*OWNED, "theirs"])


# -- the plan itself


def test_what_others_need_comes_first_and_goes_last() -> None:
    wanted = [resource(kind, f"new {kind}", type="x", value=Hidden("x")) for kind in KINDS if kind != "deployment"]
    there = [live(resource(r.kind, f"old {r.kind}", enabled=True)) for r in OTHERS]
    past = spec(
        *(Resource(found.kind, found.name, found.fields) for found in there), created=tuple(f.key for f in there)
    )
    plan = planned([*wanted, deployment()], [*reversed(there), live(deployment("old/old"))], past, policy=DELETE)
    made = [c.kind for c in plan.changes if c.action == "create"]
    gone = [c.kind for c in plan.changes if c.action == "delete"]
    assert made == list(KINDS) and gone == list(reversed(KINDS))
    assert [c.action for c in plan.changes] == ["create"] * len(made) + ["delete"] * len(gone)


def test_within_a_kind_changes_come_by_name() -> None:
    wanted = [deployment(f"f/{name}") for name in "cab"]
    assert [c.name for c in planned(wanted).changes] == ["f/a", "f/b", "f/c"]


def test_the_same_values_give_the_same_plan_whatever_their_order() -> None:
    wanted = [deployment(f"f/{n}", parameters={"y": 1, "x": 2}, schedules=[schedule()]) for n in "ab"]
    there = [live(deployment(f"f/{n}")) for n in "ac"]
    plans = [planned(w, t, policy=DELETE) for w in (wanted, wanted[::-1]) for t in (there, there[::-1])]
    assert len({plan.digest for plan in plans}) == 1 and plans[0].changes == plans[3].changes


def test_the_digest_holds_no_times_and_no_ids() -> None:
    one, other = (
        Live("deployment", "hello/hello", id, live(deployment(B)).fields, {"updated": when, "schedules": [id]})
        for id, when in (("1", "2026-01-01"), ("2", "2027-01-01"))
    )
    plans = [planned([deployment()], [now]) for now in (one, other)]
    assert plans[0].digest == plans[1].digest


def test_a_plan_says_what_it_starts_from() -> None:
    assert planned().base is None
    base = planned([], [], spec(commit=B)).base
    assert base and (base.release, base.commit) == (7, B)


def test_every_kind_has_rules_and_every_rule_a_field_that_is_read() -> None:
    assert set(RULES) == set(KINDS)
    there = {
        "deployment": deployment(),
        "work_pool": POOL,
        "work_queue": QUEUE,
        "automation": LATE,
        "concurrency_limit": LIMIT,
    }
    for kind, found in there.items():
        assert set(RULES[kind]) <= set(live(found).fields), kind


def test_after_what_a_plan_does_there_is_nothing_left_to_do() -> None:
    released = [deployment(parameters={"old": 1}, schedules=[schedule("a")], triggers={"t": trigger()}), *OTHERS]
    wanted = [
        deployment(
            commit=B, parameters={"x": 1}, schedules=[schedule("b"), schedule(None, interval=5.0, anchor_date=None)]
        ),
        resource("variable", "colour", value="blue"),
        deployment("new/new", commit=B, concurrency_limit=2),
    ]
    first = planned(wanted, [live(r) for r in released], spec(*released), commit=B)
    after = {r.key: live(r) for r in released}
    after |= {
        c.key: Live(c.kind, c.name, "id", {**builders.FILLED_IN.get(c.kind, {}), **c.target}) for c in first.writes
    }
    second = planned(wanted, after.values(), spec(*wanted, commit=B), commit=B)
    assert first.writes != () and second.writes == () and rows(second.changes) == []
