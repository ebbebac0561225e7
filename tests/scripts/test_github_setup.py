"""scripts/github_setup.py against a GitHub in memory: what it asks for, what it lets in, and when it stops."""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Callable
from fnmatch import translate
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployer.environment import Refs
from deployer.refs import matches
from scripts import github_setup as setup
from scripts.github_wanted import Options, Policy, Target, fnmatch_patterns, policies, targets
from tests.fake_prefect.serving import served

GOLDEN = Path(__file__).parent / "golden" / "github_setup"
TOKEN = "github_pat_of_a_test"
ROOT = "/repos/acme/shop"
ADDRESSES = [f"--variable={env}.PREFECT_API_URL=https://{env}.example/api" for env in ("dev", "qa", "prod")]
USUAL = ["--repository", "acme/shop", "--reviewers", "mona", "acme/release", *ADDRESSES]
Handler = Callable[..., tuple[int, Any]]


class FakeGitHub:
    """As much of GitHub as the script speaks with. Lists come two at a time."""

    def __init__(self, private: bool = False, plan: str | None = "enterprise") -> None:
        self.private, self.plan = private, plan
        self.environments: dict[str, dict[str, Any]] = {}
        self.policies: dict[str, dict[int, dict[str, str]]] = {}
        self.variables: dict[str, dict[str, str]] = {}
        self.secrets: dict[str, list[str]] = {}
        self.rulesets: dict[int, dict[str, Any]] = {}
        self.workflows = {"default_workflow_permissions": "write", "can_approve_pull_request_reviews": True}
        self.writes: list[dict[str, Any]] = []
        self.faults: list[tuple[str, str, str, httpx.Response]] = []
        self.number = 100
        self.pushed = True
        self.owner = "Organization"

    # -- how it is spoken with

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        fault = self._fault(request)
        if fault and fault[0] == "instead":
            return fault[1]
        answer = self._answer(request)
        return fault[1] if fault else answer

    def fail(self, method: str, path: str, answer: httpx.Response, when: str = "instead", times: int = 1) -> None:
        """`when`: "instead" of handling it, or "after" it was handled."""
        self.faults += [(method, path, when, answer)] * times

    def _fault(self, request: httpx.Request) -> tuple[str, httpx.Response] | None:
        for fault in self.faults:
            if fault[0] == request.method and re.search(fault[1], request.url.path):
                self.faults.remove(fault)
                return fault[2], fault[3]
        return None

    def _answer(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else {}
        if request.method != "GET":
            self.writes.append({"method": request.method, "path": request.url.path, "body": body})
        for pattern, handler in self._routes():
            if found := re.fullmatch(pattern, request.url.path):
                status, data = handler(request.method, body, *found.groups())
                return self._page(request, data) if request.method == "GET" else httpx.Response(status, json=data)
        return httpx.Response(404, json={"message": "Not Found"})

    def _page(self, request: httpx.Request, data: Any) -> httpx.Response:
        listed = data if isinstance(data, list) else next((v for v in data.values() if isinstance(v, list)), None)
        if listed is None or "per_page" not in request.url.params:
            return httpx.Response(200 if data else 404, json=data)
        page = int(request.url.params.get("page", 1))
        some = listed[2 * page - 2 : 2 * page]
        following = request.url.copy_set_param("page", page + 1)
        links = {"link": f'<{following}>; rel="next"'} if len(listed) > 2 * page else {}
        return httpx.Response(200, headers=links, json=some if isinstance(data, list) else {next(iter(data)): some})

    # -- what it knows

    def _routes(self) -> list[tuple[str, Handler]]:
        return [
            (ROOT, self._repository),
            (f"{ROOT}/branches/main", lambda *_: (200, {"name": "main"} if self.pushed else {})),
            ("/orgs/acme", lambda *_: (200, {"login": "acme"} | ({"plan": {"name": self.plan}} if self.plan else {}))),
            ("/user", lambda *_: (200, {"login": "Acme", "plan": {"name": "pro"}})),
            ("/orgs/acme/teams/release", lambda *_: (200, {"id": 7})),
            ("/users/mona", lambda *_: (200, {"id": 5})),
            ("/apps/github-actions", lambda *_: (200, {"id": 15368})),
            (f"{ROOT}/environments", lambda *_: (200, {"environments": list(self.environments.values())})),
            (f"{ROOT}/environments/([\\w-]+)", self._environment),
            (f"{ROOT}/environments/([\\w-]+)/deployment-branch-policies", self._policies),
            (f"{ROOT}/environments/([\\w-]+)/deployment-branch-policies/(\\d+)", self._policy),
            (f"{ROOT}/environments/([\\w-]+)/variables", self._variables),
            (f"{ROOT}/environments/([\\w-]+)/variables/(\\w+)", self._variables),
            (f"{ROOT}/environments/([\\w-]+)/secrets", self._secrets),
            (f"{ROOT}/actions/secrets", lambda *_: self._secrets("", {}, "")),
            (f"{ROOT}/rulesets", self._rulesets),
            (f"{ROOT}/rulesets/(\\d+)", self._ruleset),
            (f"{ROOT}/actions/permissions/workflow", self._workflows),
        ]

    def _repository(self, method: str, body: Any) -> tuple[int, Any]:
        owner = {"login": "acme", "type": self.owner}
        size = 12 if self.pushed else 0
        known = {"full_name": "acme/shop", "default_branch": "main", "private": self.private, "size": size}
        return 200, {**known, "owner": owner}

    def _environment(self, method: str, body: Any, name: str) -> tuple[int, Any]:
        limited = self.private and self.plan not in ("enterprise",)
        if limited and {"reviewers", "prevent_self_review", "wait_timer"} & set(body):
            said = "Failed to create the environment protection rule. Please ensure the billing plan supports the required reviewers protection rule."
            return 422, {"message": said}
        reviewers = [{"type": r["type"], "reviewer": {"id": r["id"]}} for r in body.get("reviewers", [])]
        rules: list[dict[str, Any]] = [{"type": "branch_policy"}]
        if reviewers:
            alone = body["prevent_self_review"]
            rules.append({"type": "required_reviewers", "prevent_self_review": alone, "reviewers": reviewers})
        if body.get("wait_timer"):
            rules.append({"type": "wait_timer", "wait_timer": body["wait_timer"]})
        branches, bypass = body["deployment_branch_policy"], body.get("can_admins_bypass", True)
        self.environments[name] = {"name": name, "protection_rules": rules, "can_admins_bypass": bypass}
        self.environments[name]["deployment_branch_policy"] = branches
        return 200, self.environments[name]

    def _policies(self, method: str, body: Any, name: str) -> tuple[int, Any]:
        there = self.policies.setdefault(name, {})
        if method == "GET":
            return 200, {"branch_policies": [{"id": number, **policy} for number, policy in there.items()]}
        assert body not in there.values(), "made twice"
        self.number += 1
        there[self.number] = body
        return 200, body

    def _policy(self, method: str, body: Any, name: str, number: str) -> tuple[int, Any]:
        del self.policies[name][int(number)]
        return 200, {}

    def _variables(self, method: str, body: Any, name: str, one: str = "") -> tuple[int, Any]:
        there = self.variables.setdefault(name, {})
        if method == "GET":
            return 200, {"variables": [{"name": key, "value": value} for key, value in there.items()]}
        if method == "DELETE":
            del there[one]
            return 204, {}
        assert (body["name"] in there) == (method == "PATCH") and (not one or one == body["name"])
        there[body["name"]] = body["value"]
        return 201, {}

    def _secrets(self, method: str, body: Any, name: str) -> tuple[int, Any]:
        return 200, {"secrets": [{"name": each} for each in self.secrets.get(name, [])]}

    def _rulesets(self, method: str, body: Any) -> tuple[int, Any]:
        if method == "GET":
            return 200, [{"id": number, "name": each["name"]} for number, each in self.rulesets.items()]
        assert body["name"] not in {each["name"] for each in self.rulesets.values()}, "made twice"
        self.number += 1
        self.rulesets[self.number] = {"id": self.number, **body}
        return 201, {}

    def _ruleset(self, method: str, body: Any, number: str) -> tuple[int, Any]:
        self.rulesets[int(number)] |= body
        return 200, self.rulesets[int(number)]

    def _workflows(self, method: str, body: Any) -> tuple[int, Any]:
        self.workflows |= body
        return 200, self.workflows


def run(github: FakeGitHub, *words: str, **environ: str) -> int:
    github.writes.clear()
    with served(github) as url:
        given = {"GITHUB_TOKEN": TOKEN, "GITHUB_API_URL": url, **environ}
        return setup.main(words, given, lambda seconds: None)


@pytest.fixture
def ready() -> FakeGitHub:
    """A repository that was set up."""
    return copy.deepcopy(_set_up())


@cache
def _set_up() -> FakeGitHub:
    github = FakeGitHub()
    assert run(github, *USUAL, "--apply") == 0
    return github


@cache
def target(name: str) -> Target:
    wanted = targets(setup.environment_files(), "main", Options())
    return next(found for found in wanted if found.name == name)


def state(github: FakeGitHub) -> list[Any]:
    policies = {name: list(each.values()) for name, each in github.policies.items()}
    rulesets = [{**each, "id": 0} for each in github.rulesets.values()]
    return [github.environments, policies, github.variables, rulesets, github.workflows]


def compare(name: str, writes: list[dict[str, Any]]) -> None:
    """With GOLDEN=write in the environment the files are written anew."""
    file = GOLDEN / f"{name}.json"
    if os.environ.get("GOLDEN") == "write":
        file.write_text("[\n" + ",\n".join(json.dumps(each) for each in writes) + "\n]\n")
    assert writes == json.loads(file.read_text())


# -- what it asks for


def test_an_empty_repository_is_asked_for_exactly_what_the_golden_file_says(ready: FakeGitHub) -> None:
    compare("empty", ready.writes)


def test_production_gets_its_reviewers_before_anything_else_is_written(ready: FakeGitHub) -> None:
    first = ready.writes[0]
    assert first["path"] == f"{ROOT}/environments/prod" and len(first["body"]["reviewers"]) == 2


def test_a_second_run_has_nothing_to_do(ready: FakeGitHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(ready, *USUAL, "--apply") == 0
    assert ready.writes == [] and "There is nothing to do." in capsys.readouterr().out


def test_the_first_push_is_not_refused_by_the_rules_for_pull_requests(capsys: pytest.CaptureFixture[str]) -> None:
    github = FakeGitHub()
    github.pushed = False
    assert run(github, *USUAL, "--apply") == 0
    assert [each["target"] for each in github.rulesets.values()] == ["tag"]
    assert "push, then run this again" in capsys.readouterr().out
    github.pushed = True
    assert run(github, *USUAL, "--apply") == 0
    assert [each["body"]["target"] for each in github.writes] == ["branch"]


def test_a_default_branch_that_the_token_may_not_see_is_not_taken_for_none(capsys: pytest.CaptureFixture[str]) -> None:
    github = FakeGitHub(private=True)
    github.fail("GET", "/branches/main$", httpx.Response(404, json={"message": "Not Found"}))
    assert "Contents: read" in stopped(capsys, github, *USUAL, "--apply")
    assert github.writes == []


def test_without_apply_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    github = FakeGitHub()
    assert run(github, *USUAL) == 0
    said = capsys.readouterr().out
    assert github.writes == [] and "+ prod: environment, 2 reviewers" in said and "--apply does it" in said


def test_what_was_changed_by_hand_is_put_back_and_nothing_else(ready: FakeGitHub) -> None:
    ready.environments["prod"]["protection_rules"] = []
    ready.environments["qa"]["deployment_branch_policy"] = None
    ready.policies["dev"] = {1: {"name": "*", "type": "branch"}}
    ready.variables["prod"]["PREFECT_API_URL"] = "https://elsewhere.example/api"
    for ruleset in ready.rulesets.values():
        ruleset["rules"] = [{"type": "deletion"}, {"type": "required_signatures"}]
    ready.policies["qa"] = {}
    assert run(ready, *USUAL, "--apply") == 0
    compare("changed", ready.writes)


def test_what_is_stricter_by_hand_stays(ready: FakeGitHub) -> None:
    main = next(each for each in ready.rulesets.values() if each["target"] == "branch")
    main["rules"].append({"type": "required_signatures"})
    next(r for r in main["rules"] if r["type"] == "pull_request")["parameters"]["required_approving_review_count"] = 3
    checks = next(r for r in main["rules"] if r["type"] == "required_status_checks")["parameters"]
    checks["required_status_checks"].append({"context": "licences"})
    assert run(ready, *USUAL, "--apply") == 0
    assert ready.writes == []


def test_of_each_setting_the_stricter_one_stays_when_another_is_looser(ready: FakeGitHub) -> None:
    tags, main = sorted(ready.rulesets.values(), key=lambda each: str(each["target"]), reverse=True)
    tags["conditions"]["ref_name"] = {"include": ["refs/tags/release-*"], "exclude": ["refs/tags/v0*"]}
    tags["bypass_actors"] = [{"actor_id": 7, "actor_type": "Team", "bypass_mode": "always"}]
    rules = {rule["type"]: rule for rule in main["rules"]}
    reviewed = {"required_approving_review_count": 3, "dismiss_stale_reviews_on_push": False}
    rules["pull_request"]["parameters"] |= {**reviewed, "require_last_push_approval": True, "allowed_merge_methods": []}
    checks = rules["required_status_checks"]["parameters"]
    checks |= {"strict_required_status_checks_policy": True, "required_status_checks": [{"context": "licences"}]}
    main["rules"] = [rule for kind, rule in rules.items() if kind != "deletion"] + [{"type": "required_signatures"}]
    assert run(ready, *USUAL, "--apply") == 0
    compare("stricter", ready.writes)
    assert run(ready, *USUAL, "--apply") == 0 and ready.writes == []


@pytest.mark.parametrize("exclude", ["refs/tags/v*", "refs/tags/v0*", "~ALL"])
def test_tags_that_were_excluded_by_hand_are_let_in_again(ready: FakeGitHub, exclude: str) -> None:
    (tags,) = [each for each in ready.rulesets.values() if each["target"] == "tag"]
    tags["conditions"]["ref_name"]["exclude"] = [exclude]
    assert run(ready, *USUAL, "--apply") == 0
    assert [each["body"]["conditions"]["ref_name"]["exclude"] for each in ready.writes] == [[]]


def test_a_gate_that_anybody_may_report_becomes_the_workflows_own(ready: FakeGitHub) -> None:
    (main,) = [each for each in ready.rulesets.values() if each["target"] == "branch"]
    checks = next(rule for rule in main["rules"] if rule["type"] == "required_status_checks")["parameters"]
    checks["required_status_checks"] = [{"context": "gate"}]
    assert run(ready, *USUAL, "--apply") == 0
    assert checks != (after := main["rules"][-1]["parameters"])
    assert after["required_status_checks"] == [{"context": "gate", "integration_id": 15368}]


def test_a_check_of_one_name_from_another_app_stays_beside_ours(ready: FakeGitHub) -> None:
    (main,) = [each for each in ready.rulesets.values() if each["target"] == "branch"]
    checks = next(rule for rule in main["rules"] if rule["type"] == "required_status_checks")["parameters"]
    both = [{"context": "gate", "integration_id": app} for app in (7, 15368)]
    checks["required_status_checks"] = both
    assert run(ready, *USUAL, "--apply") == 0 and ready.writes == []
    checks["required_status_checks"] = both[:1]
    assert run(ready, *USUAL, "--apply") == 0
    assert main["rules"][-1]["parameters"]["required_status_checks"] == both


def test_a_ruleset_without_rules_gets_them(ready: FakeGitHub) -> None:
    for ruleset in ready.rulesets.values():
        ruleset["rules"] = None
    assert run(ready, *USUAL, "--apply") == 0 and len(ready.writes) == 2
    assert run(ready, *USUAL, "--apply") == 0 and ready.writes == []


def test_rules_for_more_than_ours_and_in_another_order_are_no_difference(ready: FakeGitHub) -> None:
    for ruleset in ready.rulesets.values():
        ruleset["rules"].reverse()
        ruleset["conditions"]["ref_name"]["include"] = ["~ALL"]
    assert run(ready, *USUAL, "--apply") == 0 and ready.writes == []


def test_a_timer_and_a_ban_on_bypassing_outlive_a_change(ready: FakeGitHub) -> None:
    ready.environments["prod"]["protection_rules"] = [{"type": "wait_timer", "wait_timer": 30}]
    ready.environments["prod"]["can_admins_bypass"] = False
    assert run(ready, *USUAL, "--apply") == 0
    assert ready.writes[0]["body"]["wait_timer"] == 30 and ready.writes[0]["body"]["can_admins_bypass"] is False


def test_reviewers_that_are_not_named_again_stay(ready: FakeGitHub) -> None:
    assert run(ready, "--repository", "acme/shop", "--apply") == 0
    assert ready.writes == []


def test_qa_can_be_guarded_too() -> None:
    github = FakeGitHub()
    assert run(github, *USUAL, "--guard", "qa", "--apply") == 0
    guarded = [name for name, each in github.environments.items() if len(each["protection_rules"]) > 1]
    assert sorted(guarded) == ["prod", "qa"]


def test_variables_come_from_a_file_too_and_reach_the_plan_and_the_previews(tmp_path: Path) -> None:
    file = tmp_path / "setup.yaml"
    file.write_text("dev: {PREFECT_API_URL: https://dev.example/api, PREFECT_API_OPEN: true}")
    github = FakeGitHub()
    run(github, "--repository", "acme/shop", "--without-reviewers", "--variables", str(file), "--apply")
    wanted = {"PREFECT_API_URL": "https://dev.example/api", "PREFECT_API_OPEN": "true"}
    assert [github.variables[name] for name in ("dev-plan", "preview")] == [wanted] * 2
    assert github.variables["dev"] == {**wanted, "REPLAN": "true"} and github.variables["prod"] == {}


def replanning(github: FakeGitHub) -> set[str]:
    return {name for name, there in github.variables.items() if there.get("REPLAN") == "true"}


def test_a_plan_is_made_anew_only_where_nobody_has_approved_it(ready: FakeGitHub) -> None:
    assert replanning(ready) == {"dev", "qa"}
    ready.variables["prod"]["REPLAN"] = "true"
    assert run(ready, *USUAL, "--guard", "qa", "--apply") == 0
    assert replanning(ready) == {"dev"}
    assert run(ready, *USUAL, "--apply") == 0 and replanning(ready) == {"dev"}, "qa has its reviewers still"


# -- what the policies let in


def ruby_fnmatch(name: str, pattern: str) -> bool:
    """File.fnmatch with FNM_PATHNAME: `**/` is any folders or none, `*` stops at a slash."""
    parts = [translate(part).removesuffix(r"\Z").removesuffix(r"\z") for part in pattern.split("**/")]
    return bool(re.fullmatch("(?:.*/)?".join(part.replace(".*", "[^/]*") for part in parts), name))


def test_the_matcher_of_these_tests_is_rubys() -> None:
    assert ruby_fnmatch("v1.0.0", "v*") and ruby_fnmatch("refs/pull/7/merge", "refs/pull/*/merge")
    assert ruby_fnmatch("release/a", "release/**/*") and ruby_fnmatch("release/a/b", "release/**/*")
    assert not any(
        (ruby_fnmatch("v1/x", "v*"), ruby_fnmatch("mainly", "main"), ruby_fnmatch("release/a/b", "release/*"))
    )


def lets_in(environment: str, ref: str) -> bool:
    """A rule is held against the ref without refs/heads/ or refs/tags/; a pull request's has neither."""
    kind = "tag" if ref.startswith("refs/tags/") else "branch"
    name = re.sub("^refs/(heads|tags)/", "", ref)
    return any(policy.kind == kind and ruby_fnmatch(name, policy.pattern) for policy in target(environment).policies)


MAIN, PULL, RELEASE, CANDIDATE = "refs/heads/main", "refs/pull/7/merge", "refs/tags/v1.2.3", "refs/tags/v1.2.3-rc.1"
BRANCHES = ("refs/heads/release/2026.11", "refs/heads/release/a/b")
RUNS = [
    *(("deploy", MAIN, env) for env in ("dev", "dev-plan")),
    *(("deploy", ref, env) for ref in (*BRANCHES, CANDIDATE) for env in ("qa", "qa-plan")),
    *(("deploy", RELEASE, env) for env in ("prod", "prod-plan")),
    *(("rollback", MAIN, env) for env in ("dev", "qa", "prod", "dev-plan", "qa-plan", "prod-plan")),
    *(("drift", MAIN, env) for env in ("dev-plan", "qa-plan", "prod-plan")),
    *(("ci", PULL, "dev-plan"), ("preview", PULL, "preview"), ("preview, at night", MAIN, "preview")),
    *(("preview, after a merge", ref, "preview") for ref in (MAIN, *BRANCHES)),
]
FEATURE = "refs/heads/feature/x"
REFUSED = [
    *(
        (ref, env)
        for env in ("prod", "prod-plan")
        for ref in (FEATURE, PULL, *BRANCHES, "refs/tags/x1", "refs/heads/v1.2.3")
    ),
    *(
        (ref, env)
        for env in ("qa", "qa-plan")
        for ref in (FEATURE, PULL, RELEASE, "refs/heads/release", "refs/tags/main")
    ),
    *((ref, "dev") for ref in (FEATURE, PULL, RELEASE, *BRANCHES)),
    *((ref, env) for env in ("dev-plan", "preview") for ref in (FEATURE, RELEASE, "refs/pull/7/head")),
]


def test_what_must_run_is_let_in() -> None:
    assert [(workflow, ref, where) for workflow, ref, where in RUNS if not lets_in(where, ref)] == []


def test_what_must_not_deploy_is_kept_out() -> None:
    assert [(ref, where) for ref, where in REFUSED if lets_in(where, ref)] == []


IN_OTHER_WORDS = {
    "main": ["main"],
    "hotfix/*": ["hotfix/*"],
    "release/**": ["release/*", "release/**/*"],
    "v[0-9]+.[0-9]+.[0-9]+": ["v*"],
    "v[0-9]+.[0-9]+.[0-9]+-rc*": ["v*-rc*"],
    "**": ["*", "**/*"],
    "feature**": ["feature*", "feature*/**/*"],
    "**/x": ["**/x"],
    "a?b": ["*b"],
    "!x": [],
}


def test_a_workflows_pattern_is_said_in_an_environments_words() -> None:
    assert {pattern: fnmatch_patterns(pattern) for pattern in IN_OTHER_WORDS} == IN_OTHER_WORDS


NAMES = (
    "main",
    "x",
    "a/x",
    "v1.0.0",
    "v10.20.30-rc.4",
    "v1/x",
    "release/1",
    "release/a/b",
    "feature",
    "feature-1/a/b",
    "b",
)


def test_no_ref_is_lost_by_saying_it_so() -> None:
    fitting = [(name, pattern) for pattern in IN_OTHER_WORDS for name in NAMES if matches(name, [pattern])]
    assert len(fitting) > len(NAMES)
    assert [each for each in fitting if not any(ruby_fnmatch(each[0], p) for p in fnmatch_patterns(each[1]))] == []


def test_the_default_branch_gets_in_whatever_the_file_says() -> None:
    assert policies(Refs(tags=["v*"]), "trunk") == {Policy("branch", "trunk"), Policy("tag", "v*")}


def test_what_is_wider_than_the_file_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    run(FakeGitHub(), *USUAL)
    assert "prod: tags v[0-9]+.[0-9]+.[0-9]+ -> v*" in capsys.readouterr().out


# -- when it stops


def stopped(capsys: pytest.CaptureFixture[str], github: FakeGitHub, *words: str, **environ: str) -> str:
    """What it says, after it failed without a write."""
    assert run(github, *words, **environ) == 1
    said = capsys.readouterr()
    assert github.writes == [] and TOKEN not in said.out + said.err and "Traceback" not in said.err
    return said.err


@pytest.mark.parametrize(
    ("private", "plan", "words", "expected"),
    [
        (True, "free", USUAL, "plan is Free: environments have neither secrets nor branch policies"),
        (True, "team", USUAL, "only public repositories have required reviewers, so prod would be deployed to without"),
        (True, "free", ["--repository", "acme/shop", "--without-reviewers"], "plan is Free"),
        (False, "free", ["--repository", "acme/shop"], "prod has no reviewers"),
    ],
)
def test_it_stops_rather_than_leave_production_unguarded(
    capsys: pytest.CaptureFixture[str], private: bool, plan: str, words: list[str], expected: str
) -> None:
    assert expected in stopped(capsys, FakeGitHub(private, plan), *words, "--apply")


def test_a_persons_plan_is_looked_at_too(capsys: pytest.CaptureFixture[str]) -> None:
    github = FakeGitHub(private=True)
    github.owner = "User"
    assert "plan is Pro: on Free, Pro and Team" in stopped(capsys, github, *USUAL, "--apply")


def test_a_plan_that_cannot_be_seen_shows_when_the_first_environment_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    github = FakeGitHub(private=True, plan=None)
    assert run(github, *USUAL, "--apply") == 1
    assert "prod cannot have required reviewers" in capsys.readouterr().err
    assert len(github.writes) == 1 and github.environments == {}


@pytest.mark.parametrize("plan", ["team", None])
def test_without_reviewers_is_a_choice_that_sends_no_field_that_the_plan_lacks(plan: str | None) -> None:
    github = FakeGitHub(private=True, plan=plan)
    assert run(github, "--repository", "acme/shop", *ADDRESSES, "--without-reviewers", "--apply") == 0
    assert "prod" in github.environments


def test_an_api_without_an_address_fails_and_names_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    github = FakeGitHub()
    assert run(github, *USUAL[:-1], "--apply") == 1
    said = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in said] == ["prod", "prod-plan"]
    assert "scripts/github_setup.py --variable prod.PREFECT_API_URL=" in said[0]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--variable", "dev.PREFECT_API_URL="], "dev: PREFECT_API_URL is empty"),
        (["--variable", "dev.PREFECT_API_URL=https://me:word@x/api"], "holds a credential"),
        (["--variable", "dev.PREFECT_API_KEY=x"], "PREFECT_API_KEY is no variable"),
        (["--variable", "staging.PREFECT_API_URL=x"], "there is no environments/staging.yaml"),
        (["--variable", "dev.PREFECT_UI_URL=https://x\nREPLAN"], "holds a line break"),
        (["--guard", "staging"], "there is no environments/staging.yaml"),
        (["--variables", "/nowhere.yaml"], "/nowhere.yaml cannot be read"),
        (["--reviewers", "mona", "--without-reviewers"], "choose one"),
        (["--reviewers", *"abcdefg"], "6 reviewers at most"),
        (["--reviewers", "mona", "--approvals", "7"], "--approvals 7: GitHub takes 0 to 6"),
        (["--reviewers", "mona", "--approvals", "-1"], "--approvals -1: GitHub takes 0 to 6"),
        (["--reviewers", "nobody"], "GitHub knows no such user"),
        (["--reviewers", "acme/nobody"], "GitHub knows no such team"),
        (["--repository", "acme/other", "--reviewers", "mona"], "no repository acme/other"),
        (["--repository", "acme/a shop", "--reviewers", "mona"], "'acme/a shop' is not OWNER/NAME"),
        (["--reviewers", "a b/../c"], "GitHub knows no such team"),
    ],
)
def test_wrong_words_are_told(capsys: pytest.CaptureFixture[str], words: list[str], expected: str) -> None:
    assert expected in stopped(capsys, FakeGitHub(), "--repository", "acme/shop", *words, "--apply")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dev: {PREFECT_API_URL: [1]}", "expected environments, each with its variables"),
        ("- dev", "expected environments, each with its variables"),
        ("[" * 3000, "it is nested too deeply"),
    ],
    ids=["a list", "no mapping", "too deep"],
)
def test_a_file_of_something_else_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, expected: str
) -> None:
    (tmp_path / "setup.yaml").write_text(text)
    assert expected in stopped(capsys, FakeGitHub(), *USUAL, "--variables", str(tmp_path / "setup.yaml"))


def test_no_token_is_told_with_what_it_must_be_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    said = stopped(capsys, FakeGitHub(), *USUAL, GITHUB_TOKEN="")
    assert "GITHUB_TOKEN is not set" in said and "Administration and Environments: read and write" in said


def test_a_token_with_a_line_break_in_it_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert "GITHUB_TOKEN is no token" in stopped(capsys, FakeGitHub(), *USUAL, GITHUB_TOKEN="ghp_a\nX-Other: b")


def test_a_write_that_was_not_answered_is_no_failure_of_its_own(ready: FakeGitHub) -> None:
    github = FakeGitHub()
    github.fail("PUT", "/environments/prod$", httpx.Response(200, text='{"id": '), when="after")
    assert run(github, *USUAL, "--apply") == 0 and state(github) == state(ready)


def test_the_token_goes_over_https_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert "over https only" in stopped(capsys, FakeGitHub(), *USUAL, GITHUB_API_URL="http://github.example/api/v3")


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/environments$", "Actions: read"),
        ("GET", "/actions/secrets$", "Secrets: read"),
        ("GET", "/branches/main$", "Contents: read"),
        ("PUT", "/environments/prod$", "Administration: read and write"),
        ("POST", "/variables$", "Environments: read and write"),
        ("POST", "/rulesets$", "Administration: read and write"),
        ("PUT", "/permissions/workflow$", "Administration: read and write"),
    ],
)
def test_a_permission_that_lacks_is_one_sentence_that_names_it(
    capsys: pytest.CaptureFixture[str], method: str, path: str, expected: str
) -> None:
    github = FakeGitHub()
    github.fail(method, path, httpx.Response(403, json={"message": "Resource not accessible by personal access token"}))
    assert run(github, *USUAL, "--apply") == 1
    said = capsys.readouterr().err
    assert expected in said and said.count("\n") == 1 and TOKEN not in said


def test_a_token_that_is_not_accepted_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    github = FakeGitHub()
    github.fail("GET", ROOT, httpx.Response(401, json={"message": "Bad credentials"}))
    assert "does not accept GITHUB_TOKEN" in stopped(capsys, github, *USUAL, "--apply")


# -- when GitHub stumbles

LIMITED = httpx.Response(
    403, headers={"retry-after": "1"}, json={"message": "You have exceeded a secondary rate limit"}
)


@pytest.mark.parametrize("answer", [httpx.Response(502), LIMITED, httpx.Response(429, json={})])
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/rulesets$"), ("PUT", "/environments/prod$"), ("POST", "/policies$|/rulesets$")]
)
def test_a_stumble_is_tried_again(method: str, path: str, answer: httpx.Response, ready: FakeGitHub) -> None:
    github = FakeGitHub()
    github.fail(method, path, answer, times=2)
    assert run(github, *USUAL, "--apply") == 0
    assert not github.faults and state(github) == state(ready)


@pytest.mark.parametrize("path", ["/deployment-branch-policies$", "/variables$", "/rulesets$"])
def test_a_write_whose_answer_was_lost_is_not_made_twice(path: str, ready: FakeGitHub) -> None:
    github = FakeGitHub()
    github.fail("POST", path, httpx.Response(502), when="after")
    assert run(github, *USUAL, "--apply") == 0
    assert len(github.writes) == len(ready.writes) and not github.faults


def test_a_github_that_stays_away_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    github = FakeGitHub()
    github.fail("GET", "/rulesets$", httpx.Response(503), times=9)
    assert "GitHub does not answer" in stopped(capsys, github, *USUAL, "--apply")


def test_an_answer_of_something_else_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    github = FakeGitHub()
    github.fail("GET", "/rulesets$", httpx.Response(200, text="<html>Log in</html>"), times=9)
    assert "does not answer as GitHub does" in stopped(capsys, github, *USUAL, "--apply")


def test_a_limit_that_is_used_up_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    github = FakeGitHub()
    github.fail("GET", "/rulesets$", LIMITED, times=9)
    assert "rate limit is used up" in stopped(capsys, github, *USUAL, "--apply")


def test_changes_that_do_not_stay_are_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    github = FakeGitHub()
    github.fail("PUT", "/permissions/workflow$", httpx.Response(204), times=9)
    assert run(github, *USUAL, "--apply") == 1
    assert "still differs: ~ workflows" in capsys.readouterr().err


# -- secrets


def test_secrets_are_listed_by_name_with_the_command_for_each_that_lacks(
    ready: FakeGitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    ready.secrets = {"prod": ["PREFECT_API_KEY"], "prod-plan": ["PREFECT_API_KEY"]}
    capsys.readouterr()
    assert run(ready, *USUAL) == 0
    said = capsys.readouterr().out
    assert "  prod: PREFECT_API_KEY\n" in said and "gh secret set PREFECT_API_KEY --env prod " not in said
    assert (
        "gh secret set WAREHOUSE_URL --env prod --repo acme/shop" in said and "WAREHOUSE_URL --env preview" not in said
    )
    assert "gh secret set PREFECT_API_KEY --env preview --repo acme/shop  # or PREFECT_API_AUTH_STRING" in said


def test_a_secret_that_only_the_deploy_has_is_told(ready: FakeGitHub, capsys: pytest.CaptureFixture[str]) -> None:
    ready.secrets = {"qa": ["PREFECT_API_KEY", "WAREHOUSE_URL"], "qa-plan": ["PREFECT_API_KEY"]}
    run(ready, *USUAL)
    assert "! qa and qa-plan must have the same secrets" in capsys.readouterr().out


def test_a_secret_that_every_workflow_can_read_is_told(ready: FakeGitHub, capsys: pytest.CaptureFixture[str]) -> None:
    ready.secrets = {"": ["WAREHOUSE_URL", "OTHER"]}
    run(ready, *USUAL)
    assert "! The repository itself has WAREHOUSE_URL: a workflow of any branch" in capsys.readouterr().out


def test_the_repository_is_the_one_that_origin_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("https://github.com/acme/shop.git", "git@github.com:acme/shop", "ssh://git@github.com/acme/shop.git/"):
        monkeypatch.setattr("subprocess.run", lambda *_, said=url, **__: type("Done", (), {"stdout": said + "\n"}))
        assert setup.repository_of({}) == "acme/shop"
