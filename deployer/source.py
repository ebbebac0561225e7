"""How workers get the code of one commit: the pull steps of every deployment, by strategy. Pure."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Any

from deployer.environment import Source
from deployer.errors import InvalidInput

STEPS = "prefect.deployments.steps"


@dataclass(frozen=True)
class Code:
    """Where a commit's code is for a worker. `clone` are the arguments of Prefect's GitRepository; else `steps` say it all."""

    clone: dict[str, Any] | None = None
    steps: list[dict[str, Any]] = field(default_factory=list)
    job_variables: dict[str, Any] = field(default_factory=dict)


def code(source: Source, commit: str) -> Code:
    return _STRATEGIES[source.strategy](source, commit)


def _git(source: Source, commit: str) -> Code:
    """A clone for each run. The folder's name holds the commit: with a persistent working directory Prefect 3.8 keeps
    running the old code in a folder of the same name."""
    url = source.repository or ""
    clone: dict[str, Any] = {"url": url, "commit_sha": commit, "name": f"{folder_of(url)}-{commit}"}
    if source.credentials:
        clone["credentials"] = source.credentials
    return Code(clone=clone)


def _cached(source: Source, commit: str) -> Code:
    """One checkout for each commit and machine: cloned aside, then renamed, so that two runs at once do not meet."""
    url = source.repository or ""
    script = _CACHED.format(url=shlex.quote(url), commit=commit, folder=shlex.quote(f"{folder_of(url)}-{commit}"))
    run: dict[str, Any] = {"id": "checkout", "script": f"bash -c {shlex.quote(script)}", "stream_output": False}
    if source.credentials:
        run["env"] = {"GIT_TOKEN": f"{{{{ prefect.blocks.secret.{source.credentials} }}}}"}
    return Code(
        steps=[
            {f"{STEPS}.run_shell_script": run},
            {f"{STEPS}.set_working_directory": {"directory": "{{ checkout.stdout }}"}},
        ]
    )


_CACHED = """
set -eu
cache="${{PREFECT_CHECKOUTS:-$HOME/.cache/prefect-checkouts}}"; there="$cache/"{folder}
if [ ! -d "$there" ]; then mkdir -p "$cache"; new=$(mktemp -d "$cache/.new-XXXXXX"); trap 'rm -rf "$new"' EXIT
if [ -n "${{GIT_TOKEN:-}}" ]; then basic=$(printf "x-access-token:%s" "$GIT_TOKEN" | base64 | tr -d "\\n")
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=http.extraHeader GIT_CONFIG_VALUE_0="Authorization: Basic $basic"; fi
git clone --quiet --filter=blob:none --no-checkout {url} "$new/code" >&2
git -C "$new/code" checkout --quiet --detach {commit} >&2
unset GIT_CONFIG_COUNT GIT_CONFIG_KEY_0 GIT_CONFIG_VALUE_0
mv "$new/code" "$new/"{folder}; mv "$new/"{folder} "$cache/" 2>/dev/null || [ -d "$there/.git" ]; fi
printf %s "$there"
""".strip().replace("\n", "; ")
"""One line: Prefect runs each line of a script as a command of its own. `mv` into the cache, not onto the folder: where
another run was faster, it fails instead of nesting one checkout in the other."""


def _image(source: Source, commit: str) -> Code:
    """The code is baked in; the image's tag or digest pins it."""
    return Code(
        steps=[{f"{STEPS}.set_working_directory": {"directory": source.directory}}],
        job_variables={"image": image_of(source, commit)},
    )


def image_of(source: Source, commit: str) -> str:
    return (source.image or "").replace("{commit}", commit)


def needs_image(source: Source) -> bool:
    """Is there an image for each commit?"""
    return source.strategy == "image" and "{commit}" in (source.image or "")


def pinned(source: Source, digest: str) -> Source:
    """The image by its digest as well: a tag can be pushed again, and then names another one."""
    if source.strategy != "image":
        raise InvalidInput(
            f"--image-digest is for source.strategy image; here it is {source.strategy}. Leave it out. Nothing was touched."
        )
    if "@" in (source.image or ""):
        raise InvalidInput(
            f"source.image holds a digest already: {source.image}. Leave out --image-digest. Nothing was touched."
        )
    return source.model_copy(update={"image": f"{source.image}@{digest}"})


def _local(source: Source, commit: str) -> Code:
    """A folder on the worker's machine, as it is when a run starts: not pinned to a commit."""
    return Code(steps=[{f"{STEPS}.set_working_directory": {"directory": source.directory}}])


_STRATEGIES = {"git": _git, "cached": _cached, "image": _image, "local": _local}


def folder_of(url: str) -> str:
    """The folder that Prefect clones into: the last part of the URL."""
    return url.rstrip("/").replace(":", "/").rsplit("/", 1)[-1].removesuffix(".git") or "code"
