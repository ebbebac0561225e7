"""Run the GitHub workflows on this machine: by act (nektosact.com), without containers, on a throwaway clone.

What act does not do is left to static tests: the filters of `on:`, permissions, the secrets and reviewers of GitHub's
environments, concurrency. Actions from elsewhere are stood in for: artifacts are kept in a folder, and Python, uv and the
checkout are there already. act knows no key of the last two years, and would fetch a checkout that names its ref; `form`
takes out exactly those.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

UNKNOWN = ("deployment: ", "queue: ", "ref: ")
"""Keys that act refuses or that make it ask GitHub, each on a line of its own in the workflows."""

REPOSITORY = "team/flows"
USES = re.compile(r"uses: ([\w-]+/[\w-]+@[0-9a-f]{40})")
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE")

NOTHING = """
name: stands in
runs: {using: composite, steps: [{run: "true", shell: bash}]}
"""
UPLOAD = """
name: upload
inputs:
  name: {default: artifact}
  path: {required: true}
  if-no-files-found: {default: warn}
  retention-days: {default: ""}
  overwrite: {default: ""}
runs:
  using: composite
  steps:
    - shell: bash
      env: {NAME: "${{ inputs.name }}", FILES: "${{ inputs.path }}"}
      run: |
        rm -rf "$ARTIFACTS/$NAME" && mkdir -p "$ARTIFACTS/$NAME"
        while read -r file; do [ ! -f "$file" ] || cp "$file" "$ARTIFACTS/$NAME/"; done <<< "$FILES"
"""
DOWNLOAD = """
name: download
inputs: {name: {default: artifact}, path: {default: "."}}
runs:
  using: composite
  steps:
    - shell: bash
      env: {NAME: "${{ inputs.name }}", TO: "${{ inputs.path }}"}
      run: mkdir -p "$TO" && cp "$ARTIFACTS/$NAME"/* "$TO/"
"""
BUILD = """
name: build
inputs: {context: {required: true}, file: {required: true}, target: {}, build-args: {}, tags: {required: true}, push: {}}
outputs: {digest: {value: "${{ steps.build.outputs.digest }}"}}
runs:
  using: composite
  steps:
    - id: build
      shell: bash
      env: {OF: "${{ inputs.tags }} ${{ inputs.target }} ${{ inputs.build-args }}"}
      run: |
        echo "built $OF"
        echo "digest=sha256:$(printf %s "$OF" | sha256sum | cut -d " " -f 1)" >> "$GITHUB_OUTPUT"
"""
"""No image is built: its digest is of what it would be built from."""
STAND_INS = {
    "nothing": NOTHING,
    "upload-artifact": UPLOAD,
    "download-artifact": DOWNLOAD,
    "build-push-action": BUILD,
}


class ActError(Exception):
    """A workflow cannot be run here, in words."""


@dataclass(frozen=True)
class Line:
    """What one job said, or what act says of it."""

    job: str
    text: str
    step: str
    result: str  # of a whole job: success, failure or skipped; else empty


@dataclass(frozen=True)
class Answer:
    """What became of a workflow."""

    code: int
    lines: Sequence[Line]

    @property
    def jobs(self) -> dict[str, str]:
        """Every job that ran, and its result."""
        return {line.job: line.result for line in self.lines if line.result}

    def said(self, job: str = "") -> str:
        return "\n".join(line.text for line in self.lines if job in line.job)


@dataclass(frozen=True)
class Push:
    """A branch or tag that was pushed."""

    ref: str

    def event(self, commit: str) -> dict[str, Any]:
        known = {"repository": {"default_branch": "main", "full_name": REPOSITORY}, "deleted": False}
        return {"ref": self.ref, "after": commit, **known}


@dataclass(frozen=True)
class PullRequest:
    """One of a branch of this repository. `by_main`: for a job that checks the default branch out, and not the pull request."""

    number: int
    branch: str
    action: str = "synchronize"
    labels: tuple[str, ...] = ()
    label: str = ""
    by_main: bool = False

    @property
    def ref(self) -> str:
        return "refs/heads/main" if self.by_main else f"refs/heads/{self.branch}"

    def event(self, commit: str) -> dict[str, Any]:
        head = {"sha": commit, "ref": self.branch, "repo": {"full_name": REPOSITORY}}
        labels = [{"name": name} for name in self.labels]
        pull = {"number": self.number, "head": head, "base": {"ref": "main"}, "labels": labels}
        known = {"repository": {"default_branch": "main", "full_name": REPOSITORY}, "label": {"name": self.label}}
        return {"action": self.action, "number": self.number, "pull_request": pull, **known}


@dataclass(frozen=True)
class Act:
    """Where the clones, artifacts and stand-ins lie, and which repository is cloned."""

    folder: Path
    origin: Path
    environment: Mapping[str, str] = field(default_factory=dict)  # for every step
    python: Path = Path(sys.prefix)

    def run(
        self,
        workflow: str,
        push: Push | PullRequest,
        *,
        event: str = "push",
        variables: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        inputs: Mapping[str, str] | None = None,
        job: str = "",
        matrix: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Answer:
        """Run a workflow as GitHub would for this event: on a clone of its own, with only these variables and secrets."""
        clone, commit = self._clone(push.ref)
        files = {
            "event.json": json.dumps({**push.event(commit), "inputs": dict(inputs or {})}),
            "vars": lines_of(variables or {}),
            "secrets": lines_of(secrets or {}),
        }
        for name, text in files.items():
            (self.folder / name).write_text(text)
        (self.folder / "secrets").chmod(0o600)
        words = [str(program(self.python)), event, "--eventpath", str(self.folder / "event.json")]
        words += ["--workflows", f".github/workflows/{workflow}", "--json", *self._options(clone)]
        words += ["--var-file", str(self.folder / "vars"), "--secret-file", str(self.folder / "secrets")]
        words += ["--job", job] if job else []
        words += [word for key, value in (matrix or {}).items() for word in ("--matrix", f"{key}:{value}")]
        for name, value in {**self.environment, **(environment or {}), "ARTIFACTS": str(self.folder / "kept")}.items():
            words += ["--env", f"{name}={value}"]
        try:
            done = subprocess.run(words, cwd=clone, env=self._shell(), capture_output=True, text=True, check=False)
        finally:
            (self.folder / "secrets").unlink()
            shutil.rmtree(clone, ignore_errors=True)
        return Answer(
            done.returncode, [*told(done.stdout), *(Line("", text, "", "") for text in done.stderr.splitlines())]
        )

    def _clone(self, ref: str) -> tuple[Path, str]:
        """As GitHub's runner has it: the commit that was pushed, all history, a remote on github.com, the environment."""
        clone = self.folder / "clone"
        shutil.rmtree(clone, ignore_errors=True)
        # --no-local: packed, as by a network. act copies the clone for every job, and loose objects are thousands of files.
        git(self.folder, "clone", "--quiet", "--no-local", str(self.origin), str(clone))
        name = ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
        git(clone, "checkout", "--quiet", name)
        git(clone, "remote", "set-url", "origin", f"https://github.com/{REPOSITORY}.git")
        for file in (clone / ".github" / "workflows").glob("*.yml"):
            file.write_text(form(file.read_text()))
        link_environment(clone, self.python)
        return clone, git(clone, "rev-parse", "HEAD")

    def _options(self, clone: Path) -> Iterator[str]:
        yield from ("--platform", "ubuntu-24.04=-self-hosted", "--no-cache-server", "--defaultbranch", "main")
        yield "--use-gitignore=false"  # else .venv would be left out
        for name, text in STAND_INS.items():
            folder = self.folder / "actions" / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "action.yml").write_text(text.lstrip())
        for action in sorted(used(clone)):
            found = next((name for name in STAND_INS if f"/{name}@" in action), "nothing")
            yield from ("--local-repository", f"{action}={self.folder / 'actions' / found}")

    def _shell(self) -> dict[str, str]:
        """Not the caller's own: what it has must not reach a step."""
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        return {**kept, "XDG_CACHE_HOME": str(self.folder / "cache")}


def program(python: Path) -> Path:
    found = python / "bin" / "act"
    if not found.exists():
        raise ActError("act is not in the environment: run `make setup`.")
    return found


def form(workflow: str) -> str:
    """The workflow without the keys that act does not know."""
    return "".join(line for line in workflow.splitlines(keepends=True) if not line.lstrip().startswith(UNKNOWN))


def used(clone: Path) -> set[str]:
    """Every action from elsewhere: owner/name@commit."""
    return {action for file in (clone / ".github").rglob("*.yml") for action in USES.findall(file.read_text())}


def link_environment(clone: Path, python: Path) -> None:
    """What `make setup` would make, without making it: the environment that this process runs in."""
    venv = clone / ".venv"
    venv.mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (venv / name).symlink_to(python / name)
    shutil.copy(clone / "requirements.txt", venv / "requirements.txt")


def lines_of(values: Mapping[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in values.items())


def told(output: str) -> Iterator[Line]:
    for text in output.splitlines():
        try:
            found = json.loads(text)
        except ValueError:
            yield Line("", text, "", "")
            continue
        job = str(found.get("job", "")).split("/", 1)[-1].strip()
        yield Line(
            job, str(found.get("msg", "")).rstrip("\n"), str(found.get("step", "")), str(found.get("jobResult", ""))
        )


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ActError(f"`git {words[0]}` failed: {done.stderr.strip().splitlines()[-1:] or done.returncode}")
    return done.stdout.strip()
