"""What is remembered of each release, in the API that it was made on."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from deployer import ledger
from deployer.desired import Scope
from deployer.environment import Api
from deployer.errors import InvalidInput
from deployer.ledger import Ledger
from deployer.model import Resource, Specification
from deployer.prefect_api import Client, artifacts
from tests.deployer.builders import release, spec
from tests.deployer.stage import AT_ONCE, URL, A, B, C, Config, Killed, Stage, config, deployment, state
from tests.fake_prefect import FakePrefect, Recorded

SHOP = Scope("shop", "dev")
HELLO = config(deployment("hello"))


def versions(fake: FakePrefect, start: str = "") -> list[dict[str, Any]]:
    """All artifacts, oldest first."""
    with fake.backstage as client:
        found = client.post("/artifacts/filter", json={"sort": "CREATED_DESC"}).json()
    return [a for a in reversed(found) if a["key"].startswith(start)]


def book(fake: FakePrefect, *results: str, scope: Scope = SHOP) -> Ledger:
    """A ledger with one release a result, each with a specification of its own; "succeeded<2" put back release 2."""
    written = reread(fake, scope)
    for number, text in enumerate(results, 1):
        result, _, restores = text.partition("<")
        identity = written.write_specification(spec(commit=f"{number:040}"))
        more = {"restores": int(restores)} if restores else {}
        written.start(release(number, result=result, specification=identity, commit=f"{number:040}", **more))
    return reread(fake, scope)


def reread(fake: FakePrefect, scope: Scope = SHOP) -> Ledger:
    """As another deploy finds it."""
    return Ledger(Client(Api(url=URL), fake.transport, AT_ONCE, sleep=lambda seconds: None), scope)


# -- when it is written


def test_a_release_is_written_as_started_before_the_first_change_and_as_its_result_after_the_last(
    fake: FakePrefect,
) -> None:
    Stage(fake).apply(HELLO)
    told = [str(r) for r in fake.writes]
    assert told[:2] == ["POST /artifacts/", "POST /artifacts/"]
    assert re.fullmatch(r"PATCH /artifacts/[0-9a-f-]{36}", told[-1])
    assert not any("artifacts" in path for path in told[2:-1])
    assert "Release 1: started" in fake.writes[1].json["data"]
    assert "Release 1: succeeded" in fake.writes[-1].json["data"]


def test_keys_name_the_project_the_environment_and_the_content(fake: FakePrefect) -> None:
    Stage(fake).apply(HELLO)
    spec_key, release_key = [a["key"] for a in versions(fake)]
    assert release_key == "release-scratch-dev"
    assert re.fullmatch(r"spec-scratch-dev-[0-9a-f]{32}", spec_key)


def test_a_preview_has_a_ledger_of_its_own(fake: FakePrefect) -> None:
    Stage(fake).apply(HELLO)
    Stage(fake, preview="pr-1").apply(HELLO)
    assert [a["key"] for a in versions(fake, "release-")] == ["release-scratch-dev", "release-scratch-dev-pr-1"]
    assert [r.number for r in Stage(fake).releases()] == [1]


def test_nothing_to_do_writes_nothing(fake: FakePrefect) -> None:
    stage = Stage(fake)
    stage.apply(HELLO)
    fake.forget()
    assert stage.apply(HELLO).release is None
    assert fake.writes == []


def test_a_specification_is_written_once_per_content(fake: FakePrefect) -> None:
    stage = Stage(fake)
    for commit in (A, B, A, B, A):
        assert stage.apply(HELLO, commit).error is None
    assert len(versions(fake, "release-")) == 5
    assert len(versions(fake, "spec-")) == 2


def test_a_release_says_who_from_where_what_and_how_it_went(fake: FakePrefect) -> None:
    Stage(fake).apply(HELLO)
    (found,) = Stage(fake).releases()
    assert (found.number, found.commit, found.ref, found.result) == (1, A, A, "succeeded")
    assert (found.actor, found.run_url, found.tool_version) == ("ada", "https://ci.example.invalid/runs/1", "0.1.0")
    assert found.summary == {"create": 2, "update": 0, "pause": 0, "delete": 0, "held": 0, "unchanged": 0}
    assert len(found.digest) == 64 and found.seconds is not None and found.seconds > 0
    assert found.declares == {"work_pool": ["dev-alpha"]}


def test_a_release_lists_triggers_so_that_no_other_environment_takes_one_for_its_automation(fake: FakePrefect) -> None:
    trigger = {"name": "after-load", "type": "event", "expect": ["load.done"]}
    Stage(fake).apply(config(deployment("a", triggers=[trigger]), deployment("b", triggers=[trigger])))
    (found,) = Stage(fake).releases()
    assert found.declares == {"automation": ["after-load"], "work_pool": ["dev-alpha"]}


def test_numbers_count_up_also_over_failures(fake: FakePrefect) -> None:
    stage = Stage(fake)
    stage.apply(HELLO)
    fake.fail("PATCH", "/deployments/", before=422)
    stage.apply(HELLO, B)
    stage.apply(HELLO, C)
    assert [(r.number, r.result) for r in stage.releases()] == [(3, "succeeded"), (2, "failed"), (1, "succeeded")]


def test_a_release_that_was_recorded_since_the_planning_is_not_numbered_twice(fake: FakePrefect) -> None:
    stage = Stage(fake)
    with stage.site(HELLO) as site:
        slow = site.ledger
        assert slow.newest() is None
        stage.apply(HELLO)
        assert slow.next_number() == 2


def test_an_answer_lost_at_the_start_is_not_taken_for_another_deploys_release(fake: FakePrefect) -> None:
    """Two start at once and read the same newest number: each must finish its own entry."""
    ours, theirs = release(5, actor="ada", result="started"), release(5, actor="bob", result="started")
    theirs_id = reread(fake).start(theirs)
    fake.fail("POST", "/artifacts/$", before=503)
    assert reread(fake).start(ours) != theirs_id
    assert [ledger.parse(a["data"]) for a in versions(fake)] == [theirs, ours]


# -- what crashes and failures leave


def killed(stage: Stage, wanted: Config, commit: str, at: str) -> None:
    """The process is gone when it sends the first request that looks so."""

    def on_request(request: Recorded) -> None:
        if re.search(at, str(request)):
            raise Killed

    stage.fake.on_request = on_request
    with pytest.raises(Killed):
        stage.apply(wanted, commit)
    stage.fake.on_request = None


def test_a_killed_deploy_leaves_started_and_what_it_may_have_set(fake: FakePrefect) -> None:
    stage = Stage(fake)
    stage.apply(HELLO)
    killed(stage, config(deployment("hello", parameters={"x": 1})), B, at="PATCH /deployments/")
    with stage.site() as site:
        newest = site.ledger.newest()
        assert newest and (newest.number, newest.result, newest.seconds) == (2, "started", None)
        assert site.ledger.specification(newest) is not None


def test_what_a_failed_release_set_is_known_to_the_next_plan(fake: FakePrefect) -> None:
    """It added a tag and a parameter, then failed: they are ours, and go when the next commit does not want them."""
    stage = Stage(fake)
    stage.apply(HELLO)
    fake.fail("POST", "/automations/$", before=422)
    trigger = {"name": "t", "type": "event", "expect": ["x"]}
    stage.apply(config(deployment("hello", tags=["new"], parameters={"x": 1}), deployment("z", triggers=[trigger])), B)
    assert stage.releases()[0].result == "failed"
    assert "new" in state(fake)["deployment", "hello/hello"]["tags"]
    stage.apply(HELLO, C, allow_removals=True)
    there = state(fake)["deployment", "hello/hello"]
    assert "new" not in there["tags"] and there["parameters"] == {}


def test_history_starts_at_the_last_success_and_counts_what_failed_since(fake: FakePrefect) -> None:
    history = book(fake, "succeeded", "succeeded", "failed", "started", "interrupted", "unverified").history()
    assert history.base and (history.base.release, history.base.commit) == (2, f"{2:040}")
    assert [s.commit for s in history.specifications] == [f"{n:040}" for n in (2, 3, 4, 5, 6)]


def test_before_any_success_history_has_no_base(fake: FakePrefect) -> None:
    history = book(fake, "failed", "started").history()
    assert history.base is None and len(history.specifications) == 2


def test_a_specification_that_somebody_deleted_is_done_without(fake: FakePrefect) -> None:
    found = book(fake, "succeeded", "failed")
    with fake.backstage as client:
        client.delete(f"/artifacts/{versions(fake, 'spec-')[1]['id']}")
    assert [s.commit for s in found.history().specifications] == [f"{1:040}"]


def test_an_apply_that_finds_an_unfinished_release_done_records_that(fake: FakePrefect) -> None:
    """Killed between its last change and its result: nothing is left to write, but the record would stay wrong."""
    stage = Stage(fake)
    killed(stage, HELLO, A, at="PATCH /artifacts/")
    assert stage.releases()[0].result == "started" and stage.plan(HELLO).writes == ()
    result = stage.apply(HELLO)
    assert result.release and (result.release.number, result.release.result) == (2, "succeeded")
    assert stage.apply(HELLO).release is None


# -- where a rollback goes


@pytest.mark.parametrize(
    ("results", "goal"),
    [
        ([], None),
        (["succeeded"], None),
        (["succeeded", "succeeded"], 1),
        (["succeeded", "failed", "succeeded"], 1),
        (["succeeded", "succeeded", "succeeded"], 2),
        (["succeeded", "succeeded", "succeeded", "succeeded<2"], 1),  # a second one goes further back
        (["succeeded", "succeeded", "succeeded", "succeeded<2", "succeeded<1"], None),
        (["succeeded", "succeeded", "succeeded<1", "succeeded"], 3),  # not to 2, which was taken out
        (["succeeded", "succeeded", "succeeded<1", "succeeded", "succeeded<3"], None),  # 3 was 1
        (["succeeded", "succeeded", "failed"], 2),  # from a failure to what was live before it
        (["succeeded", "succeeded", "started"], 2),
        (["succeeded", "succeeded", "unverified", "interrupted"], 2),
        (["succeeded", "succeeded", "failed<1"], 1),  # a rollback that failed is tried again
        (["failed"], None),
    ],
)
def test_the_default_rollback_goes_to(fake: FakePrefect, results: list[str], goal: int | None) -> None:
    found = book(fake, *results).before_live()
    assert (found.number if found else None) == goal


def test_a_release_of_the_same_content_is_no_step_back(fake: FakePrefect) -> None:
    written = reread(fake)
    one, two = (written.write_specification(spec(commit=c)) for c in (A, B))
    for number, identity in enumerate([one, two, two], 1):
        written.start(release(number, specification=identity))
    found = reread(fake).before_live()
    assert found and found.number == 1


def test_the_live_release_is_the_last_that_succeeded(fake: FakePrefect) -> None:
    found = book(fake, "succeeded", "succeeded", "failed", "unverified", "started")
    live, newest = found.live(), found.newest()
    assert live and live.number == 2
    assert newest and newest.number == 5


def test_a_commit_is_found_only_where_it_succeeded(fake: FakePrefect) -> None:
    found = book(fake, "succeeded", "failed")
    assert found.of_commit(f"{1:040}") is not None
    assert found.of_commit(f"{2:040}") is None


def test_a_plan_was_begun_by_releases_that_ended_early_and_not_by_one_that_may_be_at_work(fake: FakePrefect) -> None:
    written = reread(fake)
    written.start(release(1, digest="one", result="failed"))
    written.start(release(2, digest="two", commit=B, result="failed"))
    written.start(release(3, digest="three", commit=B, result="interrupted"))
    assert reread(fake).begun() == {"two", "three"}
    written.start(release(4, digest="four", commit=B, result="started"))
    assert reread(fake).begun() == set()


@pytest.mark.parametrize("last", [{"result": "succeeded"}, {"restores": 1, "result": "failed"}])
def test_what_came_since_ends_a_begun_plan(fake: FakePrefect, last: dict[str, Any]) -> None:
    """A success, or a rollback that failed: the deploy before it must not come back without a review."""
    written = reread(fake)
    written.start(release(1, digest="one", result="failed"))
    written.start(release(2, digest="two", **last))
    assert "one" not in reread(fake).begun()


# -- the record in the Markdown

ODD = [
    "-->",
    "--> <!-- record {} -->",
    "a | b \\| c",
    "two\nlines\r\nand\ttab",
    "<script>alert(1)</script>",
    "`code` ~~~ ``` # *",
    '"quotes" and \\backslash\\',
    "ünïcode ✓ \u2028 \x00 end",
    "{}",
    "x" * 5000,
]


@pytest.mark.parametrize("text", ODD)
def test_a_record_survives_any_text(text: str) -> None:
    given = release(reason=text, ref=text, actor=text, error=text, run_url=text, declares={"variable": [text]})
    told = ledger.markdown(given)
    assert ledger.parse(told) == given
    assert told.count("<!--") == 1 and told.split("<!--")[1].count("-->") == 1


@pytest.mark.parametrize("text", ODD)
def test_the_table_of_a_release_keeps_its_form(text: str) -> None:
    told = ledger.markdown(release(reason=text)).split("<!--")[0]
    row = next(line for line in told.splitlines() if line.startswith("| reason"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 3 and row.endswith(" |") and "<script" not in row


def test_a_release_reads_well_in_prefects_ui() -> None:
    told = ledger.markdown(release(9, rollback_of=8, restores=7, reason="prices were wrong", seconds=12.34))
    for line in ("## Release 9: succeeded", "| rolls back | release 8 |", "| puts back | release 7 |"):
        assert line in told.splitlines()
    assert "| took | 12.3 s |" in told and "| reason | prices were wrong |" in told
    assert "| changes | 1 create, 2 update, 3 held, 4 unchanged |" in told


STRANGE: list[dict[str, Any]] = [
    *({"number": "9"}, {"project": 1}, {"commit": "--help"}, {"seconds": "1"}, {"started": 5}, {"restores": "7"}),
    *({"error": ["x"]}, {"summary": {"create": "1"}}, {"declares": {"variable": "colour"}}, {"rollback_of": True}),
]


@pytest.mark.parametrize(
    "data",
    [
        None,
        "",
        "# Notes",
        {"a": 1},
        ["x"],
        "<!-- record {not json} -->",
        "<!-- record {} -->",
        '<!-- record {"number": 1} -->',
        "<!-- record [1] -->",
        *(f"<!-- record {json.dumps({**vars(release(9)), **part})} -->" for part in STRANGE),
    ],
)
def test_what_is_no_record_of_ours_is_passed_over(fake: FakePrefect, data: Any) -> None:
    assert ledger.parse(data) is None
    stage = Stage(fake)
    stage.apply(HELLO)
    with fake.backstage as client:
        body = {"key": "release-scratch-dev", "type": "markdown", "data": data}
        client.post("/artifacts/", json=body).raise_for_status()
    assert [r.number for r in stage.releases()] == [1]
    result = stage.apply(HELLO, B)
    assert result.error is None and result.release and result.release.number == 2


def test_a_record_of_a_later_version_with_more_in_it_is_read() -> None:
    told = ledger.markdown(release()).replace('{"actor"', '{"later": {"x": 1}, "actor"')
    assert "later" in told and ledger.parse(told) == release()


def test_a_record_of_an_earlier_version_with_less_in_it_is_read() -> None:
    record = {k: v for k, v in vars(release()).items() if k not in ("tool_version", "digest", "actor", "run_url")}
    found = ledger.parse(f"<!-- record {json.dumps(record)} -->")
    assert found and (found.number, found.actor, found.digest) == (8, "", "")


# -- how it is read


def test_5000_releases_are_read_page_by_page_and_no_further_than_needed(fake: FakePrefect) -> None:
    told = ledger.markdown(release(1)).replace('"number": 1', '"number": NUMBER')
    for number in range(1, 5001):
        with_number = told.replace("NUMBER", str(number))
        fake._store.artifacts.add(key="release-shop-dev", type="markdown", data=with_number, description="")
    found = reread(fake)
    fake.forget()
    newest = found.newest()
    assert newest and newest.number == 5000 and len(fake.requests) == 1
    assert found.numbered(4900) and len(fake.requests) == 1
    oldest = found.numbered(1)
    assert oldest and oldest.number == 1 and len(fake.requests) == 25
    assert len(list(found.releases())) == 5000


def test_who_else_lives_here_is_read_from_the_newest_of_each_ledger(fake: FakePrefect) -> None:
    for scope, names in ((Scope("bakery", "dev"), ["oven"]), (Scope("shop", "qa"), ["till"]), (SHOP, ["ours"])):
        for number, name in enumerate(["old", *names], 1):
            own = {"project": scope.project, "environment": scope.environment, "declares": {"variable": [name]}}
            reread(fake, scope).start(release(number, **own))
    assert ledger.foreign(reread(fake).others) == {("variable", "oven"): "bakery-dev", ("variable", "till"): "shop-qa"}


def test_forgetting_takes_one_ledger_away_and_no_other(fake: FakePrefect) -> None:
    for preview in (None, "pr-1", "pr-11"):
        Stage(fake, preview=preview).apply(HELLO)
    with Stage(fake, preview="pr-1").site() as site:
        site.ledger.forget()
    keys = {a["key"].rsplit("-", 1)[0] if a["key"].startswith("spec") else a["key"] for a in versions(fake)}
    assert keys == {"release-scratch-dev", "spec-scratch-dev", "release-scratch-dev-pr-11", "spec-scratch-dev-pr-11"}


def test_forgetting_leaves_what_another_environment_keeps_under_the_same_name(fake: FakePrefect) -> None:
    preview = Scope("shop", "dev", preview="eu")
    for env, scope in (("dev", preview), ("dev-eu", Scope("shop", "dev-eu"))):
        written = reread(fake, scope)
        identity = written.write_specification(replace(spec(), environment=env))
        written.start(release(project="shop", environment=env, specification=identity))
    found = reread(fake, preview).strange()
    assert found and found.environment == "dev-eu"
    reread(fake, preview).forget()
    (kept,) = versions(fake, "release-")
    assert "of shop in dev-eu" in kept["description"]
    assert [ledger.owner_of(a["data"]) for a in versions(fake, "spec-")] == [("shop", "dev-eu")]


# -- specifications


def test_a_specification_comes_back_as_it_went() -> None:
    given = Specification(
        "shop",
        "dev",
        A,
        "inputs",
        (Resource("variable", "colour", {"value": {"a": [1, None, "ü"]}}), Resource("work_pool", "p", {})),
        secrets={"token": "${TOKEN:-}"},
        retired={"a/b": {"tags": ["x"]}},
        created=(("variable", "colour"),),
    )
    assert ledger.load_specification(json.dumps(ledger.dump_specification(given))) == given


@pytest.mark.parametrize("change", [{"commit": B}, {"resources": []}, {"resources": [{}]}, {"more": 1}], ids=str)
def test_a_specification_that_was_changed_is_not_put_back(fake: FakePrefect, change: dict[str, Any]) -> None:
    Stage(fake).apply(HELLO)
    (written,) = versions(fake, "spec-")
    with fake.backstage as client:
        data = json.dumps({**json.loads(written["data"]), **change})
        client.patch(f"/artifacts/{written['id']}", json={"data": data}).raise_for_status()
    with pytest.raises(InvalidInput, match=r"cannot be read: .* somebody changed it"):
        Stage(fake).plan(HELLO)


def test_neither_record_nor_specification_holds_a_secret(fake: FakePrefect) -> None:
    stage = Stage(fake, {"TOKEN": "hunter2-hunter2"})
    assert stage.apply(config(deployment("hello"), secrets={"token": "${TOKEN:-}"})).error is None
    told = json.dumps(versions(fake))
    assert state(fake)["secret", "token"] == "hunter2-hunter2"
    assert "hunter2" not in told and "${TOKEN:-}" in told


def test_the_newest_version_of_a_specification_counts(fake: FakePrefect) -> None:
    """Should two deploys write the same one at once: their contents are equal, by their very key."""
    found = reread(fake)
    identity = found.write_specification(spec())
    key, data = f"spec-shop-dev-{identity}", json.dumps(ledger.dump_specification(spec()))
    artifacts.post(found.client, key, "json", data, "", lambda a: False)
    assert reread(fake).specification(release(specification=identity)) == spec()


@pytest.mark.parametrize("data", ["{", "[]", "{}", "null", '{"format": 2}', '{"format": 1}'])
def test_a_specification_that_cannot_be_read_is_told_with_its_key(fake: FakePrefect, data: str) -> None:
    found = book(fake, "succeeded")
    (there,) = versions(fake, "spec-")
    with fake.backstage as client:
        client.patch(f"/artifacts/{there['id']}", json={"data": data}).raise_for_status()
    with pytest.raises(InvalidInput, match=f"of release 1 .*{there['key']}.* cannot be read"):
        found.history()
