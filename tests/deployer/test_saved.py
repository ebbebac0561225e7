"""A plan in a file is applied as it was reviewed, or refused."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployer import saved
from deployer.errors import InvalidInput, Refused
from deployer.model import Resource, digest
from deployer.plan import Options
from tests.deployer.builders import A, B, deployment, live, planned

PLAN = planned([deployment()])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    saved.write(path, PLAN, Options(resume=True), "pr-1")
    return path


def edit(file: Path, change: Callable[[dict[str, Any]], Any], seal: bool = False) -> None:
    data = json.loads(file.read_text())
    change(data)
    if seal:
        data["seal"] = digest({key: value for key, value in data.items() if key != "seal"})
    file.write_text(json.dumps(data))


def test_what_is_read_is_what_was_written(file: Path) -> None:
    found = saved.read(file)
    assert found == saved.SavedPlan("dev", A, "main", PLAN.digest, Options(resume=True), "pr-1")


def test_nothing_else_is_left_beside_the_file(file: Path) -> None:
    saved.write(file, planned(), Options(), None)
    assert [path.name for path in file.parent.iterdir()] == ["plan.json"]
    assert saved.read(file).digest == planned().digest


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(commit="b" * 40),
        lambda data: data.update(environment="prod"),
        lambda data: data.update(preview=None),
        lambda data: data["options"].update(allow_removals=True),
        lambda data: data["changes"][0].update(action="delete"),
        lambda data: data["changes"].clear(),
        lambda data: data.update(digest="0" * 64),
        lambda data: data.update(seal="0" * 64),
        lambda data: data.update(more=1),
    ],
)
def test_an_altered_file_is_refused(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    edit(file, change)
    with pytest.raises(Refused, match=r"was altered after it was written\. Plan again, and review again"):
        saved.read(file)


def test_changes_that_do_not_fit_the_digest_are_refused_also_under_a_right_seal(file: Path) -> None:
    edit(file, lambda data: data["changes"].clear(), seal=True)
    with pytest.raises(Refused, match="was altered"):
        saved.read(file)


def test_a_file_laid_out_differently_is_the_same_plan(file: Path) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()), sort_keys=True))
    assert saved.read(file).digest == PLAN.digest


@pytest.mark.parametrize(
    "text",
    ["", "no JSON", "[]", "5", "null", "{}", '{"format": 2, "seal": "x"}', "\xff", "[" * 100_000, '{"a": "\\ud800"}'],
)
def test_a_file_that_is_no_plan_is_told_with_the_way_to_one(tmp_path: Path, text: str) -> None:
    file = tmp_path / "plan.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidInput, match=r"is no plan.*plan --env E --out"):
        saved.read(file)


@pytest.mark.parametrize("lost", ["options", "preview", "ref", "image_digest"])
def test_a_sealed_file_without_a_part_of_a_plan_is_told(file: Path, lost: str) -> None:
    edit(file, lambda data: data.pop(lost), seal=True)
    with pytest.raises(InvalidInput, match="is no plan that this version wrote"):
        saved.read(file)


@pytest.mark.parametrize(
    "strange",
    [
        {"commit": 5},
        {"ref": None},
        {"preview": ["pr-1"]},
        {"changes": "all"},
        {"changes": [{"kind": "variable"}]},
        {"rollback": {"release": "7", "reason": "x"}},
    ],
    ids=str,
)
def test_a_sealed_file_with_something_else_in_a_place_is_told(file: Path, strange: dict[str, Any]) -> None:
    def change(data: dict[str, Any]) -> None:
        data.update(strange)
        data["digest"] = digest({key: data[key] for key in ("environment", "commit", "changes")})

    edit(file, change, seal=True)
    with pytest.raises(InvalidInput, match="is no plan that this version wrote"):
        saved.read(file)


def test_options_of_another_version_are_told(file: Path) -> None:
    edit(file, lambda data: data["options"].update(force=True), seal=True)
    with pytest.raises(InvalidInput, match="is no plan that this version wrote"):
        saved.read(file)


def test_a_missing_file_is_told_with_the_way_to_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"cannot be read: No such file or directory\. Make one with: plan"):
        saved.read(tmp_path / "gone.json")


@pytest.mark.parametrize("path", [".", "/", "..", "missing/plan.json"])
def test_a_place_that_takes_no_file_is_told(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match="The plan cannot be written to"):
        saved.write(Path(path), PLAN, Options(), None)


def test_the_plan_made_now_must_be_the_one_that_was_reviewed(file: Path) -> None:
    found = saved.read(file)
    saved.check(found, planned([deployment()]))
    moved = planned([deployment()], [live(deployment(), version="old")])
    with pytest.raises(
        Refused, match=r"no longer what would be written: now 0 to create, 1 to update.* Nothing was written"
    ):
        saved.check(found, moved)


def test_a_plan_applied_already_by_another_pipeline_is_nothing_to_refuse(file: Path) -> None:
    saved.check(saved.read(file), planned([deployment()], [live(deployment())]))


def test_what_a_begun_apply_left_undone_needs_no_second_review(file: Path) -> None:
    saved.write(file, planned([deployment("a/a"), deployment("b/b")]), Options(), None)
    reviewed = saved.read(file)
    rest = planned([deployment("a/a"), deployment("b/b")], [live(deployment("a/a"))])
    saved.check(reviewed, rest, {reviewed.digest})
    with pytest.raises(Refused, match="no longer what would be written"):
        saved.check(reviewed, rest, {"another plan's"})


@pytest.mark.parametrize(
    "wanted",
    [
        [deployment("a/a"), deployment("b/b", description="Another one.")],
        [deployment("a/a"), deployment("b/b"), deployment("c/c")],
    ],
)
def test_what_was_not_in_the_reviewed_plan_is_refused_also_after_a_begun_apply(
    file: Path, wanted: list[Resource]
) -> None:
    saved.write(file, planned([deployment("a/a"), deployment("b/b")]), Options(), None)
    reviewed = saved.read(file)
    with pytest.raises(Refused, match="no longer what would be written"):
        saved.check(reviewed, planned(wanted, [live(deployment("a/a"))]), {reviewed.digest})


def test_what_somebody_made_by_hand_since_the_begun_apply_is_not_overwritten(file: Path) -> None:
    limit = Resource("concurrency_limit", "lock", {"limit": 1, "active": True, "slot_decay_per_second": 0.0})
    saved.write(file, planned([deployment("a/a"), limit]), Options(), None)
    reviewed = saved.read(file)
    saved.check(reviewed, planned([deployment("a/a"), limit], [live(deployment("a/a"))]), {reviewed.digest})
    theirs = [live(deployment("a/a")), live(limit, limit=50)]
    with pytest.raises(Refused, match="no longer what would be written"):
        saved.check(reviewed, planned([deployment("a/a"), limit], theirs), {reviewed.digest})


def test_a_deployment_that_was_created_without_its_trigger_is_a_part_of_what_was_reviewed(file: Path) -> None:
    trigger = {"on-load": {"enabled": True, "expect": ["load.done"]}}
    saved.write(file, planned([deployment("a/a", triggers=trigger)]), Options(), None)
    reviewed = saved.read(file)
    half = planned([deployment("a/a", triggers=trigger)], [live(deployment("a/a", triggers={}))])
    assert [f.path for f in half.writes[0].fields] == ["triggers.on-load"]
    saved.check(reviewed, half, {reviewed.digest})
    other = {"on-load": {"enabled": True, "expect": ["another.event"]}}
    moved = planned([deployment("a/a", triggers=other)], [live(deployment("a/a", triggers={}))])
    with pytest.raises(Refused, match="no longer what would be written"):
        saved.check(reviewed, moved, {reviewed.digest})


def test_a_value_that_somebody_changed_since_the_begun_apply_is_refused(file: Path) -> None:
    """Another `before` than the one that the reviewer saw."""
    wanted = [deployment("a/a"), deployment("b/b")]
    old = [live(deployment("a/a", commit=B)), live(deployment("b/b", commit=B))]
    saved.write(file, planned(wanted, old), Options(), None)
    reviewed = saved.read(file)
    saved.check(reviewed, planned(wanted, [live(wanted[0]), old[1]]), {reviewed.digest})
    moved = live(deployment("b/b", commit=B), version="by hand")
    with pytest.raises(Refused, match="no longer what would be written"):
        saved.check(reviewed, planned(wanted, [live(wanted[0]), moved]), {reviewed.digest})


def test_a_device_is_not_replaced_by_a_file(file: Path, tmp_path: Path) -> None:
    """As root that would take /dev/stdout away from everybody."""
    device = tmp_path / "device"
    os.mkfifo(device)
    with pytest.raises(InvalidInput, match="no ordinary file"):
        saved.write(device, PLAN, Options(), None)
    assert stat.S_ISFIFO(device.stat().st_mode)
