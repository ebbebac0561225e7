"""Where files are kept: a folder of this machine, or `s3://bucket/prefix`. One code for both, by fsspec.

A file is there whole or not at all: on this machine it is written beside its place and moved there, in S3 a PUT is one step.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

UNFINISHED = ".unfinished"
"""The folder, in a place, of files that are being written. Hidden: readers of the place pass it by."""

SECONDS_TO_FINISH = 24 * 60 * 60  # of one file; what is older was left by a killed run
WORKSHOP = f"workshop-{os.getuid()}-"  # in a folder for temporary files there may be others' too
SECONDS_TO_BEGIN = 60  # between a folder and the lock on it
BLOCK = 8 * 2**20  # bytes
BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^?#@]*)?")


@dataclass(frozen=True)
class Place:
    """A folder or a bucket's prefix. It is made when the first file is put there.

    Args:
        url: A whole path, or `s3://bucket/prefix`. No key may be in it: it is shown in messages.
        options: Of fsspec's S3 file system, such as `endpoint_url`; what is not given comes from the usual AWS variables.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if "://" in self.url and not BUCKET.fullmatch(self.url):
            raise ValueError(
                "Files are kept in a folder or at s3://bucket/prefix, without a key or a question mark in it. "
                "S3's key comes from the AWS variables or from a Secret block."
            )
        if self.local and not _expanded(self.url).is_absolute():
            raise ValueError(
                f"{self.url!r} is no whole path: a run's own folder, where it would be, is thrown away after the run. "
                "Begin with / or ~, or give s3://bucket/prefix."
            )

    @property
    def local(self) -> bool:
        return not self.url.startswith("s3://")

    @property
    def folder(self) -> Path:
        return _expanded(self.url).absolute()

    @cached_property
    def files(self) -> Any:
        """fsspec's file system."""
        import fsspec

        if self.local:
            return fsspec.filesystem("file")
        return fsspec.filesystem("s3", **self.options, use_listings_cache=False)

    def at(self, name: str) -> str:
        """The whole name of a file of this place, for people and for fsspec."""
        if name.startswith("/") or any(part in ("", ".", "..") for part in name.split("/")):
            raise ValueError(f"{name!r} is not a file of {self.url}.")
        return str(self.folder / name) if self.local else f"{self.url.rstrip('/')}/{name}"

    def read(self, name: str) -> bytes:
        """FileNotFoundError where there is none."""
        return bytes(self.files.cat_file(self.at(name)))

    def write(self, name: str, content: bytes) -> None:
        if not self.local:
            self.files.pipe_file(self.at(name), content)
            return
        with self._unfinished(name) as part:
            part.write_bytes(content)
            self._finish(part, name)

    def take(self, file: Path, name: str) -> None:
        """Put a file of this machine here; afterwards it is gone from where it was. What arrived is compared with it."""
        if self.local:
            with self._unfinished(name) as part:
                shutil.move(file, part)
                self._finish(part, name)
            return
        wanted = digest_of(file)
        self.files.put_file(str(file), self.at(name))
        if self.digest(name) != wanted:
            self.remove(name)
            raise OSError(f"{self.at(name)} is not what was sent there. It was removed: try again.")
        file.unlink()

    def digest(self, name: str) -> str:
        """SHA-256 of what is in the file now, read anew."""
        with self.files.open(self.at(name), "rb") as stream:
            return _digest(stream)

    def fetch(self, name: str, file: Path) -> None:
        """Copy a file of this place to this machine."""
        self.files.get_file(self.at(name), str(file))

    def size(self, name: str) -> int:
        return int(self.files.info(self.at(name))["size"])

    def there(self, name: str) -> bool:
        return bool(self.files.exists(self.at(name)))

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self.files.rm_file(self.at(name))

    def names(self) -> list[str]:
        """Of all files here, in order; those that are being written aside. None of a folder that is not there yet."""
        root = self.files._strip_protocol(str(self.folder) if self.local else self.url.rstrip("/"))
        try:
            found = [str(path)[len(root) + 1 :] for path in self.files.find(root)]
        except FileNotFoundError as error:
            raise ValueError(f"There is no such place as {self.url}: {_reason(error)}.") from None
        return sorted(name for name in found if not name.startswith(UNFINISHED))

    def try_to_write(self) -> None:
        """Find out before the work if files can be put here; clear away what killed runs left unfinished."""
        name = f"{UNFINISHED}/{uuid4().hex}"
        try:
            self.write(name, b"")
            self.remove(name)
        except PermissionError as error:
            raise ValueError(f"No file can be written at {self.url}: {_reason(error)}.") from None
        except (FileNotFoundError, NotADirectoryError, FileExistsError) as error:
            raise ValueError(f"There is no such place as {self.url}: {_reason(error)}.") from None
        self._clear()

    def _clear(self) -> None:
        if not self.local:
            return  # a PUT that was broken off leaves nothing
        for left in (self.folder / UNFINISHED).iterdir():
            with suppress(FileNotFoundError):
                if left.is_file() and time.time() - left.stat().st_mtime > SECONDS_TO_FINISH:
                    left.unlink()

    @contextmanager
    def _unfinished(self, name: str) -> Iterator[Path]:
        """A name for the file until it is whole. On this machine, in the place itself: a move is one step there only."""
        part = self.folder / UNFINISHED / f"{uuid4().hex}-{Path(name).name[-100:]}"
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
        finally:
            part.unlink(missing_ok=True)

    def _finish(self, part: Path, name: str) -> None:
        _to_the_disk(part)
        there = Path(self.at(name))
        there.parent.mkdir(parents=True, exist_ok=True)
        part.replace(there)
        _to_the_disk(there.parent)


def digest_of(file: Path) -> str:
    with open(file, "rb") as stream:
        return _digest(stream)


def _digest(stream: Any) -> str:
    found = sha256()
    while block := stream.read(BLOCK):
        found.update(block)
    return found.hexdigest()


def _to_the_disk(path: Path) -> None:
    """A file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


@contextmanager
def workshop(beside: Place) -> Iterator[Path]:
    """A folder on this machine for files that are not whole yet, removed in the end. Those of killed runs are removed first.

    In the place itself where that is on this machine: it has the room, and a move from there is one step. Whoever lives
    holds a lock on its own folder, which the system takes back from the dead.
    """
    import fcntl

    parent = beside.folder / UNFINISHED if beside.local else Path(tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    mine = Path(tempfile.mkdtemp(prefix=WORKSHOP, dir=parent))
    descriptor = os.open(mine, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for left in parent.glob(f"{WORKSHOP}*"):
            if left != mine:
                _remove_if_left(left)
        yield mine
    finally:
        shutil.rmtree(mine, ignore_errors=True)
        os.close(descriptor)


def _remove_if_left(folder: Path) -> None:
    import fcntl

    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _has_just_begun(folder):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


def _has_just_begun(folder: Path) -> bool:
    return not any(folder.iterdir()) and time.time() - folder.stat().st_mtime < SECONDS_TO_BEGIN


def _expanded(path: str) -> Path:
    """`~` as the home of whoever runs this. That of nobody stays as it is, and is no whole path."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
