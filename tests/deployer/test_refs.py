"""GitHub's filter patterns: what a workflow would start for, an environment takes."""

from __future__ import annotations

import pytest

from deployer.environment import Refs
from deployer.refs import allows, matches, targets
from tests.deployer.builders import environment

# The examples of GitHub's "Filter pattern cheat sheet": pattern -> names that fit, names that don't.
CHEAT_SHEET = [
    ("feature/*", ["feature/my-branch", "feature/your-branch"], ["feature/a/b", "feature", "xfeature/a"]),
    ("feature/**", ["feature/beta-a/my-branch", "feature/your-branch", "feature/mona/the/octocat"], ["feature"]),
    ("main", ["main"], ["mainly", "remain", "Main", "a/main"]),
    ("releases/mona-the-octocat", ["releases/mona-the-octocat"], ["releases/mona"]),
    ("*", ["main", "releases"], ["a/b"]),
    ("**", ["all/the/branches", "every/tag", "main"], []),
    ("*feature", ["mona-feature", "feature", "ver-10-feature"], ["feature-1", "a/feature"]),
    ("v2*", ["v2", "v2.0", "v2.9"], ["v3", "v2/a"]),
    ("v[12].[0-9]+.[0-9]+", ["v1.10.1", "v2.0.0"], ["v3.0.0", "v1.x.1", "v1.1", "v1.1.1-rc1"]),
    ("*.jsx?", ["page.js", "page.jsx"], ["page.jsxx", "a/page.js"]),
    ("**/README.md", ["README.md", "js/README.md", "a/b/README.md"], ["xREADME.md", "READMExmd"]),
    ("release/**-alpha", ["release/1-alpha", "release/a/b-alpha"], ["release/beta"]),
    ("v[0-9]+.[0-9]+.[0-9]+-rc*", ["v1.2.3-rc1", "v1.2.3-rc", "v10.20.30-rc.4"], ["v1.2.3", "v1.2-rc1", "vnext"]),
    (r"v1\.0\*", ["v1.0*"], ["v1.0", "v1x0*", "v1.0a"]),
    ("a.b", ["a.b"], ["axb"]),
    ("[abc", ["[abc"], ["a"]),
    ("+a", ["+a"], ["a", "aa"]),
    ("[^a]", ["^", "a"], ["b"]),
]


@pytest.mark.parametrize(("pattern", "fitting", "others"), CHEAT_SHEET)
def test_a_pattern_means_what_it_means_in_a_workflow(pattern: str, fitting: list[str], others: list[str]) -> None:
    assert [name for name in fitting if not matches(name, [pattern])] == []
    assert [name for name in others if matches(name, [pattern])] == []


def test_the_last_pattern_that_fits_decides() -> None:
    patterns = ["release/**", "!release/**-alpha", "release/1-alpha"]
    assert matches("release/2", patterns)
    assert not matches("release/2-alpha", patterns)
    assert matches("release/1-alpha", patterns)


def test_exclusions_alone_let_nothing_in() -> None:
    assert not matches("main", ["!release/**"])
    assert not matches("main", [])


@pytest.mark.parametrize("pattern", ["[z-a]", "a++b", "[]", "\\", "!", "[a-", "(", "a{2}", "**+", "???"])
def test_a_strange_pattern_is_no_crash(pattern: str) -> None:
    assert matches("main", [pattern, "main"])


def test_branches_and_tags_are_judged_by_their_own_patterns() -> None:
    refs = Refs(branches=["main"], tags=["v*"])
    assert allows(refs, "refs/heads/main") and allows(refs, "refs/tags/v1")
    assert not allows(refs, "refs/tags/main") and not allows(refs, "refs/heads/v1")
    assert not allows(refs, "refs/pull/1/merge") and not allows(refs, "main")


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("refs/heads/main", ["dev"]),
        ("refs/heads/release/1.2", ["qa"]),
        ("refs/tags/v1.2.3-rc1", ["qa"]),
        ("refs/tags/v1.2.3", ["prod"]),
        *(("refs/tags/vnext", []), ("refs/tags/v1", []), ("refs/heads/v1.2.3", []), ("refs/heads/feature/x", [])),
    ],
)
def test_main_goes_to_dev_releases_to_qa_and_their_tags_to_prod(ref: str, expected: list[str]) -> None:
    qa = {"branches": ["release/**"], "tags": ["v[0-9]+.[0-9]+.[0-9]+-rc*"]}
    prod = {"tags": ["v[0-9]+.[0-9]+.[0-9]+"]}
    found = [environment(), environment(name="qa", refs=qa), environment(name="prod", refs=prod)]
    assert targets(found, ref) == expected
