"""Git: a ref becomes one commit; is it allowed here; what does its tree hold; a checkout of it, shared by all flows."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from deployer.environment import Refs
from deployer.errors import InvalidInput
from deployer.refs import allows

SHA = re.compile(r"[0-9a-f]{40}")


TRUST = "; if you trust its owner: git config --global --add safe.directory DIR"


@dataclass(frozen=True)
class Revision:
    """A commit, and the words in which it was asked for."""

    commit: str
    ref: str


@dataclass(frozen=True)
class Repository:
    path: Path

    @classmethod
    def find(cls, path: Path) -> Repository:
        """The repository that `path` lies in."""
        if not path.is_dir():
            raise InvalidInput(f"There is no folder {path}. Give the repository with --repo DIR.")
        done = _git(path, "rev-parse", "--show-toplevel", check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().partition("\n")[0].removeprefix("fatal: ")
            if said.startswith("not a git repository"):
                raise InvalidInput(f"{path} is no Git repository. Run in one, or give it with --repo DIR.")
            raise InvalidInput(
                f"Git cannot work in {path.absolute()}: {said}{TRUST if 'dubious ownership' in said else ''}."
            )
        return cls(Path(done.stdout.decode().strip()))

    def git(self, *words: str, check: bool = True, env: Mapping[str, str] | None = None) -> str:
        return _git(self.path, *words, check=check, env=env).stdout.decode(errors="surrogateescape")

    def resolve(self, ref: str) -> Revision:
        """Branch, tag or SHA -> its commit. A tag wins over a branch of the same name, as in Git; origin's branches count."""
        if ref.startswith("-") or not ref.strip():
            raise InvalidInput(f"'{ref}' is no Git ref.")
        for candidate in (ref, f"refs/remotes/origin/{ref}"):
            found = self.git(
                "rev-parse", "--verify", "--quiet", "--end-of-options", f"{candidate}^{{commit}}", check=False
            ).strip()
            if SHA.fullmatch(found):
                return Revision(found, ref)
        hint = " Was it fetched?"
        if self.shallow():
            hint = " The clone is shallow; fetch the whole history (fetch-depth: 0)."
        elif ref == "HEAD":
            hint = " Nothing was committed yet."
        raise InvalidInput(f"'{ref}' names no commit in {self.path}.{hint}")

    def has_tag(self, name: str) -> bool:
        return not _git(self.path, "show-ref", "--verify", "--quiet", f"refs/tags/{name}", check=False).returncode

    def shallow(self) -> bool:
        return self.git("rev-parse", "--is-shallow-repository", check=False).strip() == "true"

    def dirty(self) -> bool:
        """Does the work tree hold anything that HEAD does not?"""
        return bool(self.git("status", "--porcelain", "--untracked-files=normal").strip())

    def knows(self, commit: str) -> bool:
        return not _git(self.path, "cat-file", "-e", f"{commit}^{{commit}}", check=False).returncode

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Is `older` reached from `newer`? Both must be known; a commit is no ancestor of itself here."""
        if older == newer:
            return False
        return not _git(self.path, "merge-base", "--is-ancestor", older, newer, check=False).returncode

    def refs_of(self, commit: str) -> list[str]:
        """Branches (local, and origin's by their own name) that reach the commit, and tags that name it."""
        branches = self.git(
            "for-each-ref", f"--contains={commit}", "--format=%(refname)", "refs/heads", "refs/remotes/origin"
        )
        tags = self.git("for-each-ref", f"--points-at={commit}", "--format=%(refname)", "refs/tags")
        named = [name.replace("refs/remotes/origin/", "refs/heads/", 1) for name in branches.split()]
        return sorted({name for name in named if name != "refs/heads/HEAD"}) + sorted(tags.split())

    def allowed_by(self, commit: str, refs: Refs) -> str | None:
        """The first ref that lets this commit in, or None."""
        return next((ref for ref in self.refs_of(commit) if allows(refs, ref)), None)

    def paths(self, commit: str) -> frozenset[str]:
        return frozenset(p for p in self.git("ls-tree", "-r", "-z", "--name-only", commit).split("\0") if p)

    def read(self, commit: str, paths: list[str]) -> dict[str, str]:
        """Text of files at the commit, in one call of Git; missing ones are left out."""
        if not paths:
            return {}
        if broken := next((path for path in paths if "\n" in path), None):
            raise InvalidInput(f"The commit holds a file whose name has a line break, {broken!r}. Rename it.")
        asked = "".join(f"{commit}:{path}\n" for path in paths).encode()
        out = _git(self.path, "cat-file", "--batch", stdin=asked).stdout
        texts: dict[str, str] = {}
        at = 0
        for path in paths:
            end = out.index(b"\n", at)
            header, at = out[at:end], end + 1
            if header.endswith(b" missing"):
                continue
            size = int(header.rsplit(b" ", 1)[1])
            texts[path] = out[at : at + size].decode(errors="replace")
            at += size + 1
        return texts

    @contextmanager
    def checkout(self, commit: str) -> Iterator[Path]:
        """The commit's files in a folder of their own, without touching the work tree, the index or .git."""
        with tempfile.TemporaryDirectory(prefix="prefect-platform-") as scratch:
            tree = Path(scratch, "tree")
            tree.mkdir()
            env = {"GIT_INDEX_FILE": str(Path(scratch, "index"))}
            self.git("read-tree", commit, env=env)
            self.git("checkout-index", "--all", "--quiet", f"--prefix={tree}/", env=env)
            yield tree

    def published(self, url: str, commit: str, token: str | None) -> bool | None:
        """Can a worker clone the commit from `url`? None: it cannot be told (no credentials, no network, or the remote has commits that this clone does not know)."""
        words = ("ls-remote", "--quiet", "--", url)
        done = _git(self.path, *words, check=False, env=_credentials(url, token), patience=PATIENCE)
        if done.returncode:
            return None
        tips = [line.split("\t")[0] for line in done.stdout.decode(errors="replace").splitlines()]
        if commit in tips:
            return True
        known = self._known(tips)
        if self._reached(commit, known):
            return True
        return False if set(tips) <= known and not self.shallow() else None

    def _known(self, objects: list[str]) -> set[str]:
        """Those that lead to commits of this clone, in one call of Git: a remote may have thousands of refs."""
        asked = "".join(f"{name}^{{commit}}\n" for name in objects).encode()
        said = _git(self.path, "cat-file", "--batch-check=%(objecttype)", stdin=asked).stdout.decode().splitlines()
        return {name for name, kind in zip(objects, said, strict=True) if kind == "commit"}

    def _reached(self, commit: str, tips: set[str]) -> bool:
        asked = "\n".join([commit, *(f"^{tip}" for tip in sorted(tips))]) + "\n"
        said = _git(self.path, "rev-list", "--max-count=1", "--stdin", check=False, stdin=asked.encode())
        return not said.returncode and not said.stdout.strip()

    def fetches(self, url: str, commit: str, token: str | None, ambient: bool = True) -> str | None:
        """Fetch the commit from `url` as a worker does, but no file of it. None: it can be done; else what Git said.

        `ambient`: with this machine's own credential helpers too.
        """
        bare = () if ambient else ("-c", "credential.helper=")
        with tempfile.TemporaryDirectory(prefix="prefect-platform-") as scratch:
            _git(Path(scratch), "init", "--quiet", "--bare")
            _git(Path(scratch), "remote", "add", "--", "origin", url)
            words = ("fetch", "--quiet", "--no-tags", "--depth=1", "--filter=tree:0", "origin", commit)
            ssh = os.environ.get("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=10")
            env = {"GIT_SSH_COMMAND": ssh, **_credentials(url, token)}
            done = _git(Path(scratch), *bare, *words, check=False, env=env, patience=PATIENCE)
        said = done.stderr.decode(errors="replace").strip().splitlines()
        return (said[-1] if said else "Git does not say why") if done.returncode else None


PATIENCE = 30.0
"""Seconds for a remote to answer in."""


def _credentials(url: str, token: str | None) -> dict[str, str]:
    """A token travels to Git by the environment only: arguments show in every process list."""
    if not token or not url.startswith("https://"):
        return {}
    import base64

    basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"http.{url}.extraHeader",
        "GIT_CONFIG_VALUE_0": f"Authorization: Basic {basic}",
    }


def _git(
    path: Path,
    *words: str,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    patience: float | None = None,
) -> subprocess.CompletedProcess[bytes]:
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    own = {k: v for k, v in os.environ.items() if k not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")}
    line, whole = ["git", "-C", str(path), *words], {**own, **quiet, **(env or {})}
    try:
        if patience is None:
            done = subprocess.run(line, capture_output=True, env=whole, input=stdin, check=False)
        else:
            done = _within(patience, line, whole)
    except subprocess.TimeoutExpired as late:
        return subprocess.CompletedProcess(late.args, 124, b"", f"no answer within {patience:g} s".encode())
    except FileNotFoundError:
        raise InvalidInput("git is not installed, or not on the PATH.") from None
    if check and done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise InvalidInput(f"git {words[0]} failed in {path}: {said[-1] if said else 'no message'}")
    return done


def _within(patience: float, line: list[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[bytes]:
    """Git leaves the network to a child, which has the token too: when time is up, or somebody interrupts, both go."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        line, env=env, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True
    ) as process:
        try:
            out, err = process.communicate(timeout=patience)
        except BaseException:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=1)  # until the last of them has let go
            raise
    return subprocess.CompletedProcess(line, process.returncode, out, err)
