"""GitHub's filter patterns for branches and tags, so that the environment files mean what the workflows mean. Pure.

Source: GitHub's workflow syntax, "Filter pattern cheat sheet".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from deployer.environment import Environment, Refs


def matches(name: str, patterns: Iterable[str]) -> bool:
    """The last pattern that fits decides; `!` takes out again what an earlier one let in."""
    included = False
    for pattern in patterns:
        excludes = pattern.startswith("!")
        if _compiled(pattern[1:] if excludes else pattern).fullmatch(name):
            included = not excludes
    return included


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    """`*` any but /, `**` any, `?` and `+` as in regular expressions, `[]` a class, `\\` takes the next literally."""
    out, i = "", 0
    while i < len(pattern):
        char = pattern[i]
        if pattern.startswith("**/", i):
            out, i = out + "(?:.*/)?", i + 3
        elif pattern.startswith("**", i):
            out, i = out + ".*", i + 2
        elif char == "*":
            out, i = out + "[^/]*", i + 1
        elif char in "?+" and out:
            out, i = out + char, i + 1
        elif char == "[" and "]" in pattern[i + 1 :]:
            end = pattern.index("]", i + 1)
            out, i = out + "[" + pattern[i + 1 : end].replace("\\", "\\\\").replace("^", "\\^") + "]", end + 1
        elif char == "\\" and i + 1 < len(pattern):
            out, i = out + re.escape(pattern[i + 1]), i + 2
        else:
            out, i = out + re.escape(char), i + 1
    try:
        return re.compile(out)
    except re.error:
        return re.compile(re.escape(pattern))


def allows(refs: Refs, full_ref: str) -> bool:
    """May this Git ref (refs/heads/... or refs/tags/...) be deployed where `refs` stand?"""
    if full_ref.startswith("refs/heads/"):
        return matches(full_ref.removeprefix("refs/heads/"), refs.branches)
    if full_ref.startswith("refs/tags/"):
        return matches(full_ref.removeprefix("refs/tags/"), refs.tags)
    return False


def targets(environments: Iterable[Environment], full_ref: str) -> list[str]:
    return [e.name for e in environments if allows(e.refs, full_ref)]
