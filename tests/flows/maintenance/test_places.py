"""A file is at its place whole or not at all: in a folder, and in S3."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flows.market_data.places import UNFINISHED, Place, digest_of, workshop

pytest_plugins = ["tests.flows.maintenance.s3"]

ROOT = Path(__file__).parents[3]


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return Place(str(tmp_path / "place"))
    return Place(f"{request.getfixturevalue('s3')}/a/prefix")


def test_what_was_written_is_read_listed_and_removed(place: Place) -> None:
    place.try_to_write()
    assert place.names() == []
    place.write("x=1/b.bin", b"one")
    place.write("x=1/b.bin", b"two")
    place.write("a.bin", b"")
    assert place.names() == ["a.bin", "x=1/b.bin"]
    assert (place.read("x=1/b.bin"), place.size("x=1/b.bin")) == (b"two", 3)
    place.remove("a.bin")
    place.remove("a.bin")
    assert not place.there("a.bin") and place.there("x=1/b.bin")


def test_what_is_missing_is_not_found(place: Place) -> None:
    with pytest.raises(FileNotFoundError):
        place.read("nothing.bin")


def test_a_file_of_this_machine_is_taken_as_it_is(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"some" * 1000)
    wanted = digest_of(file)
    place.take(file, "some.bin")
    assert not file.exists()
    assert place.digest("some.bin") == wanted
    place.fetch("some.bin", tmp_path / "back")
    assert digest_of(tmp_path / "back") == wanted


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a//b", "", "."])
def test_no_name_leads_out_of_a_place(name: str) -> None:
    for place in (Place("/place"), Place("s3://bucket/place")):
        with pytest.raises(ValueError, match="is not a file of"):
            place.write(name, b"")


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:hunter2@bucket/x",
        "s3://bucket/x?secret=hunter2",
        "ftp://me:hunter2@host/x",
        "s3://",
        "s3://B/x",
        "gs://b",
    ],
)
def test_a_place_that_cannot_be_is_refused_without_saying_its_key(url: str) -> None:
    with pytest.raises(ValueError, match="without a key or a question mark") as caught:
        Place(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["archive", "./archive", "", " ", "../archive"])
def test_a_folder_that_would_be_in_a_runs_own_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is no whole path: a run's own folder"):
        Place(url)


def test_the_keys_of_s3_are_in_no_representation() -> None:
    assert "hunter2" not in repr(Place("s3://bucket", {"secret": "hunter2"}))


def test_the_options_of_a_secret_do_without_the_aws_variables(
    s3: str, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    place = Place(s3, {"endpoint_url": s3_server, "key": "somebody", "secret": "hunter2"})
    place.write("a.bin", b"some")
    assert place.names() == ["a.bin"]


def test_what_is_sent_to_s3_and_arrives_otherwise_is_no_file(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, file = Place(s3), tmp_path / "file"
    file.write_bytes(b"some")
    monkeypatch.setattr(Place, "digest", lambda *_: "another")
    with pytest.raises(OSError, match="is not what was sent there"):
        place.take(file, "some.bin")
    assert place.names() == [] and file.exists()


def test_a_bucket_that_is_not_there_is_named(s3: str) -> None:
    with pytest.raises(ValueError, match="There is no such place as s3://no-such-bucket"):
        Place("s3://no-such-bucket/x").try_to_write()
    with pytest.raises(ValueError, match="There is no such place as s3://no-such-bucket"):
        Place("s3://no-such-bucket/x").names()


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"There is no such place as .*file"):
        Place(str(tmp_path / "file")).try_to_write()


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)  # root, who may everything, runs these tests too
    with pytest.raises(ValueError, match=r"No file can be written at .*: Permission denied"):
        Place(str(tmp_path / "place")).try_to_write()


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(str(tmp_path))
    place.write("a.bin", b"old")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        place.write("a.bin", b"new")
    assert place.read("a.bin") == b"old"
    assert list((tmp_path / UNFINISHED).iterdir()) == []


def test_what_a_killed_write_left_is_cleared_away_after_a_day(tmp_path: Path) -> None:
    place = Place(str(tmp_path))
    place.write("a.bin", b"")
    old, young = tmp_path / UNFINISHED / "old", tmp_path / UNFINISHED / "young"
    for left in (old, young):
        left.write_bytes(b"half")
    os.utime(old, (0, time.time() - 2 * 24 * 3600))
    place.try_to_write()
    assert (old.exists(), young.exists()) == (False, True)
    assert place.names() == ["a.bin"]


WORKING = """
import sys
from flows.market_data.places import Place, workshop
with workshop(Place(sys.argv[1])) as folder:
    (folder / "half").write_text("")
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_a_killed_runs_files_are_removed_by_the_next_and_a_living_ones_are_not(tmp_path: Path) -> None:
    words = [sys.executable, "-c", WORKING, str(tmp_path)]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        theirs = Path(other.stdout.readline().strip())
        with workshop(Place(str(tmp_path))) as mine:
            assert theirs.exists() and mine != theirs
        other.send_signal(signal.SIGKILL)
    with workshop(Place(str(tmp_path))) as mine:
        assert not theirs.exists() and mine.exists()
    assert not mine.exists()


def test_a_workshop_for_s3_is_among_the_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    with workshop(Place("s3://bucket")) as mine:
        assert mine.parent == tmp_path and mine.stat().st_mode & 0o777 == 0o700
