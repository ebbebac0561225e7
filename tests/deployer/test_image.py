"""The code of a commit in an image: which one is deployed, kept and put back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deployer import source
from deployer.environment import Source
from deployer.errors import Exit, InvalidInput
from tests.deployer import command as line
from tests.deployer.command import API, Command
from tests.repository import environment

command = line.command
loading_command = line.loading_command

IMAGE = "ghcr.io/team/flows:sha-{commit}"
ONE, TWO = ("sha256:" + digit * 64 for digit in "12")


def settings(image: str = IMAGE) -> dict[str, Any]:
    """Of an environment file."""
    return {
        "api": API,
        "source": {"strategy": "image", "image": image, "directory": "/opt/flows"},
        "work_pools": {"alpha": {"name": "alpha", "type": "docker"}},
    }


@pytest.fixture
def baked(command: Command) -> Command:
    """Both environments take their code from an image."""
    files = {
        "environments/dev.yaml": environment(**settings()),
        "environments/prod.yaml": environment("prod", mode="production", branches=(), tags=("v*",), **settings()),
    }
    command.repo.commit("In an image", files)
    return command


def live_image(command: Command) -> str:
    return str(command.live()["hello"]["job_variables"]["image"])


def test_a_deploy_by_digest_names_the_commit_and_pins_the_image(baked: Command) -> None:
    baked.apply("dev", "--image-digest", ONE)
    assert live_image(baked) == f"ghcr.io/team/flows:sha-{baked.repo.head}@{ONE}"


def test_without_a_digest_the_tag_is_deployed(baked: Command) -> None:
    baked.apply()
    assert live_image(baked) == f"ghcr.io/team/flows:sha-{baked.repo.head}"


@pytest.mark.parametrize("form", ["text", "markdown"])
def test_a_plan_tells_which_image_goes_out(baked: Command, form: str) -> None:
    words = ("plan", "--env", "dev", "--format", form, "--image-digest")
    told = f"ghcr.io/team/flows:sha-{baked.repo.head[:12]}@sha256:111111111111"
    assert told in baked.done(*words, ONE).out
    baked.apply("dev", "--image-digest", ONE)
    assert "image:" not in baked.done(*words, ONE).out
    head = baked.repo.commit("Newer", {"notes": "x"})
    said = baked.done(*words, TWO).out
    assert "commit" in said and f"ghcr.io/team/flows:sha-{head[:12]}@sha256:222222222222" in said


@pytest.mark.parametrize("form", ["text", "markdown"])
@pytest.mark.parametrize(("first", "then"), [(ONE, ""), ("", ONE)], ids=["lost", "gained"])
def test_a_plan_tells_that_an_image_is_pinned_no_longer_or_from_now_on(
    baked: Command, first: str, then: str, form: str
) -> None:
    baked.apply("dev", *(("--image-digest", first) if first else ()))
    baked.repo.commit("Newer", {"notes": "x"})
    said = baked.done("plan", "--env", "dev", "--format", form, *(("--image-digest", then) if then else ())).out
    assert "job_variables.image" in said and f"@{ONE}" in said


@pytest.mark.parametrize("form", ["text", "markdown"])
def test_two_digests_of_one_commit_can_be_told_apart_however_long_the_name(baked: Command, form: str) -> None:
    long = settings("ghcr.io/some-longer-organisation/market-data-platform-flows:sha-{commit}")
    baked.repo.commit("Long", {"environments/dev.yaml": environment(**long)})
    baked.apply("dev", "--image-digest", ONE)
    said = baked.done("plan", "--env", "dev", "--format", form, "--image-digest", TWO).out
    assert f"@{ONE}" in said and f"@{TWO}" in said


def test_another_digest_of_the_same_commit_is_a_difference_and_the_same_one_is_none(baked: Command) -> None:
    baked.apply("dev", "--image-digest", ONE)
    baked.apply("dev", "--image-digest", ONE)
    baked.apply("dev", "--image-digest", TWO)
    assert len(baked.releases()) == 2 and live_image(baked).endswith(TWO)


def test_a_saved_plan_keeps_its_digest_and_takes_no_other(baked: Command, tmp_path: Path) -> None:
    file = str(tmp_path / "plan.json")
    baked.done("plan", "--env", "dev", "--image-digest", ONE, "--out", file)
    said = baked("apply", "--env", "dev", "--plan", file, "--image-digest", TWO)
    assert said.code == Exit.REFUSED and f"made without --image-digest {TWO}" in said.err and baked.live() == {}
    baked.apply("dev", "--plan", file)
    assert live_image(baked).endswith(f"@{ONE}")


def test_a_plan_made_without_a_digest_takes_none(baked: Command, tmp_path: Path) -> None:
    file = str(tmp_path / "plan.json")
    baked.done("plan", "--env", "dev", "--out", file)
    assert baked("apply", "--env", "dev", "--plan", file, "--image-digest", ONE).code == Exit.REFUSED
    assert baked.live() == {}


def test_a_rollback_puts_the_digest_back_without_being_told(baked: Command) -> None:
    baked.apply("dev", "--image-digest", ONE)
    first = baked.repo.head
    baked.change(parameters={"name": "moon"})
    baked.apply("dev", "--image-digest", TWO)
    baked.done("rollback", "--env", "dev", "--reason", "wrong")
    assert live_image(baked) == f"ghcr.io/team/flows:sha-{first}@{ONE}"


def test_an_old_tags_pipeline_puts_the_recorded_digest_back_whatever_the_registry_says_now(baked: Command) -> None:
    baked.repo.tag("v1")
    baked.apply("prod", "--ref", "v1", "--image-digest", ONE)
    baked.change(parameters={"name": "moon"})
    baked.repo.tag("v2")
    baked.apply("prod", "--ref", "v2", "--image-digest", TWO)
    baked.apply("prod", "--ref", "v1", "--image-digest", TWO)
    assert live_image(baked).endswith(f"@{ONE}")


def test_a_preview_is_pinned_too(baked: Command) -> None:
    baked.apply()
    baked.apply("dev", "--preview", "pr-1", "--image-digest", ONE)
    assert baked.live()["pr-1-hello"]["job_variables"]["image"].endswith(f"@{ONE}")


def test_a_digest_is_only_for_images(command: Command) -> None:
    said = command("apply", "--env", "dev", "--image-digest", ONE)
    assert said.code == Exit.INVALID and "source.strategy image; here it is git" in said.err
    assert command.fake.writes == []


def test_an_image_that_is_pinned_already_takes_no_digest() -> None:
    pinned = Source(strategy="image", image=f"ghcr.io/a/b@{ONE}", directory="/opt/flows")
    with pytest.raises(InvalidInput, match="holds a digest already"):
        source.pinned(pinned, TWO)
    assert not source.needs_image(pinned)


@pytest.mark.parametrize("text", ["", "sha256:1", "1" * 64, f"{ONE}0", f"{ONE}\n", "sha512:" + "1" * 64])
def test_what_is_no_digest_is_not_taken_for_one(baked: Command, text: str) -> None:
    said = baked("plan", "--env", "dev", "--image-digest", text)
    assert said.code == Exit.INVALID and baked.fake.requests == []


def test_a_new_digest_with_a_new_commit_is_no_news(baked: Command) -> None:
    """So that a pull request's comment says `no changes`, although its own image is not built."""
    baked.apply("dev", "--image-digest", ONE)
    baked.repo.commit("Nothing", {"notes": "x"})
    for digest in ((), ("--image-digest", TWO)):
        said = baked.done("plan", "--env", "dev", "--unmerged", *digest).out
        assert "commit" in said and "job_variables" not in said


# -- target


def outputs(command: Command, ref: str, tmp_path: Path) -> dict[str, str]:
    file = tmp_path / "outputs"
    file.unlink(missing_ok=True)
    known = {"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": str(file), "GITHUB_REF": ref, "GITHUB_SHA": command.repo.head}
    command.done("target", "--ref", ref, **known)
    return dict(line.split("=", 1) for line in file.read_text().splitlines())


def test_a_refs_target_says_which_image_it_needs_and_who_may_build_it(baked: Command, tmp_path: Path) -> None:
    image = IMAGE.replace("{commit}", baked.repo.head)
    dev = outputs(baked, "refs/heads/main", tmp_path)
    assert (dev["needs-image"], dev["image"], dev["build"]) == ('["dev"]', image, "true")
    prod = outputs(baked, "refs/tags/v1", tmp_path)
    assert (prod["needs-image"], prod["image"], prod["build"]) == ('["prod"]', image, "false")
    none = outputs(baked, "refs/heads/other", tmp_path)
    assert (none["environments"], none["needs-image"], none["image"], none["build"]) == ("[]", "[]", "", "false")


def test_code_that_workers_clone_needs_no_image(command: Command, tmp_path: Path) -> None:
    found = outputs(command, "refs/heads/main", tmp_path)
    assert (found["environments"], found["needs-image"], found["build"]) == ('["dev"]', "[]", "false")


def test_a_ref_that_also_reaches_production_builds_nothing(baked: Command, tmp_path: Path) -> None:
    baked.repo.commit("Both", {"environments/dev.yaml": environment(tags=("v*",), **settings())})
    found = outputs(baked, "refs/tags/v1", tmp_path)
    assert (json.loads(found["needs-image"]), found["build"]) == (["dev", "prod"], "false")


def test_by_hand_the_refs_own_commit_names_the_image(baked: Command) -> None:
    commit = baked.repo.tag("v1")
    baked.change(parameters={"name": "moon"})
    images = [
        baked.done("target", "--ref", ref, "--format", "json").json["images"]
        for ref in ("refs/tags/v1", "refs/tags/v9")
    ]
    assert images == [{"prod": IMAGE.replace("{commit}", commit)}, {"prod": IMAGE}]


@pytest.mark.parametrize(
    ("image", "words"), [("${REGISTRY}/b:{commit}", "must be written out"), ("other/b:{commit}", "different images")]
)
def test_an_image_that_cannot_be_built_once_is_told(baked: Command, image: str, words: str) -> None:
    baked.repo.commit("Both", {"environments/dev.yaml": environment(tags=("v*",), **settings(image))})
    said = baked("target", "--ref", "refs/tags/v1")
    assert said.code == Exit.INVALID and words in said.err
