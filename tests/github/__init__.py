"""A fake of GitHub's REST API, as far as the workflows ask it: its state in plain dicts, its failures on request.

    with FakeGitHub() as github:
        main(["drift", ...], github.environ)
    assert [issue["title"] for issue in github.issues] == ["Drift in dev"]

It is strict where GitHub is: the token, the headers, the length of a body, pages of at most 100.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

import httpx

from tests.fake_prefect.serving import served

Json = dict[str, Any]
BOT: Json = {"login": "github-actions[bot]", "type": "Bot"}
PERSON: Json = {"login": "ada", "type": "User"}
LONGEST_BODY, LONGEST_NOTES = 65_536, 125_000
PER_PAGE = 30


@dataclass
class Fault:
    """`after`: the work is done and its answer is lost. "drop" ends the connection, "slow" never answers."""

    method: str
    path: str
    answer: httpx.Response | Literal["drop", "slow"]
    after: bool = False
    times: int = 1

    def strikes(self, method: str, path: str) -> bool:
        if self.times < 1 or self.method != method or not re.search(self.path, path):
            return False
        self.times -= 1
        return True

    def strike(self) -> httpx.Response:
        if isinstance(self.answer, httpx.Response):
            return self.answer
        raise (httpx.ReadTimeout if self.answer == "slow" else httpx.RemoteProtocolError)(self.answer)


def refused(permission: str) -> httpx.Response:
    message = {"message": "Resource not accessible by integration", "status": "403"}
    return httpx.Response(403, json=message, headers={"X-Accepted-GitHub-Permissions": permission})


def limited(
    status: int = 403, message: str = "You have exceeded a secondary rate limit.", **headers: str
) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json={"message": message}, headers=names)


@dataclass
class FakeGitHub:
    url: str = ""
    repository: str = "team/shop"
    token: str = "ghs_of_the_job"
    comments: list[Json] = field(default_factory=list)
    """Of issues and pull requests; each has the number of its own in `on`."""
    issues: list[Json] = field(default_factory=list)
    labels: list[Json] = field(default_factory=list)
    releases: list[Json] = field(default_factory=list)
    deployments: list[Json] = field(default_factory=list)
    """Each has its `statuses`."""
    pulls: dict[int, Json] = field(default_factory=dict)
    tags: dict[str, Json] = field(default_factory=dict)
    """Their names -> what they are at: {"type": "commit", "sha": ...}, or of an annotated tag {"type": "tag", ...}."""
    annotations: dict[str, Json] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ids, self._exit = count(1), ExitStack()

    def __enter__(self) -> FakeGitHub:
        self.url = self._exit.enter_context(served(self.handle))
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    @property
    def environ(self) -> dict[str, str]:
        """What GitHub tells a job."""
        return {
            "GITHUB_API_URL": self.url,
            "GITHUB_REPOSITORY": self.repository,
            "GITHUB_RUN_ID": "77",
            "GITHUB_SERVER_URL": "https://github.example",
            "GITHUB_TOKEN": self.token,
        }

    @property
    def writes(self) -> list[tuple[str, str]]:
        """The requests since the last look that may have changed something."""
        found = [(method, path) for method, path in self.requests if method != "GET"]
        self.requests.clear()
        return found

    def fail(self, method: str, path: str, answer: Any, *, after: bool = False, times: int = 1) -> None:
        """`path`: an expression; `answer`: a status, a response, "drop" or "slow"."""
        answer = httpx.Response(answer, text="<html>") if isinstance(answer, int) else answer
        self.faults.append(Fault(method, path, answer, after, times))

    def handle(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix(f"/repos/{self.repository}")
        self.requests.append((request.method, path))
        fault = next((f for f in self.faults if f.strikes(request.method, path)), None)
        if fault and not fault.after:
            return fault.strike()
        answer = self._answer(request, path)
        return fault.strike() if fault else answer

    def _answer(self, request: httpx.Request, path: str) -> httpx.Response:
        assert request.headers["accept"] == "application/vnd.github+json"
        assert request.headers["x-github-api-version"] and request.headers["user-agent"]
        if request.headers["authorization"] != f"Bearer {self.token}":
            return problem(401, "Bad credentials")
        if not request.url.path.startswith(f"/repos/{self.repository}"):
            return problem(404, "Not Found")
        body = json.loads(request.content) if request.content else {}
        for method, pattern, handler in self._routes():
            if request.method == method and (found := re.fullmatch(pattern, path)):
                return handler(request, body, *found.groups())
        return problem(404, "Not Found")

    def _routes(self) -> list[tuple[str, str, Callable[..., httpx.Response]]]:
        return [
            ("GET", "", lambda request, _: reply({"full_name": self.repository})),
            ("GET", r"/pulls/(\d+)", lambda request, _, number: found(self.pulls.get(int(number)))),
            ("GET", r"/issues/(\d+)/comments", self._list_comments),
            ("POST", r"/issues/(\d+)/comments", self._create_comment),
            ("PATCH", r"/issues/comments/(\d+)", lambda request, body, id: self._update(self.comments, "id", id, body)),
            ("GET", "/issues", self._list_issues),
            ("POST", "/issues", self._create_issue),
            (
                "PATCH",
                r"/issues/(\d+)",
                lambda request, body, number: self._update(self.issues, "number", number, body),
            ),
            ("GET", "/labels/([^/]+)", lambda request, _, name: found(one(self.labels, "name", name))),
            ("POST", "/labels", self._create_label),
            ("GET", "/git/ref/tags/(.+)", lambda request, _, tag: found(pointer(self.tags.get(tag)))),
            ("GET", "/git/tags/(.+)", lambda request, _, sha: found(pointer(self.annotations.get(sha)))),
            ("GET", "/releases", lambda request, _: page(request, self.releases)),
            ("GET", "/releases/tags/(.+)", self._release_of_tag),
            ("POST", "/releases", self._create_release),
            ("PATCH", r"/releases/(\d+)", lambda request, body, id: self._update(self.releases, "id", id, body)),
            ("GET", "/deployments", self._list_deployments),
            ("POST", "/deployments", self._create_deployment),
            ("GET", r"/deployments/(\d+)/statuses", self._list_statuses),
            ("POST", r"/deployments/(\d+)/statuses", self._create_status),
        ]

    # -- comments, issues and labels

    def comment(self, number: int, body: str, user: Json = BOT) -> Json:
        self.comments.append({"id": next(self._ids), "on": number, "body": body, "user": user})
        return self.comments[-1]

    def issue(self, body: str = "", user: Json = BOT, labels: tuple[str, ...] = ("drift",), **more: Any) -> Json:
        names = [{"name": name} for name in labels]
        number = next(self._ids)
        known = {"id": 1000 + number, "number": number, "title": "", "body": body, "user": user, "labels": names}
        self.issues.append({**known, "state": "open", **more})
        return self.issues[-1]

    def _list_comments(self, request: httpx.Request, _: Json, number: str) -> httpx.Response:
        return page(request, [c for c in self.comments if c["on"] == int(number)])

    def _create_comment(self, request: httpx.Request, body: Json, number: str) -> httpx.Response:
        return too_long(body) or reply(self.comment(int(number), body["body"]), 201)

    def _list_issues(self, request: httpx.Request, _: Json) -> httpx.Response:
        query = request.url.params
        wanted = set(query.get("labels", "").split(",")) - {""}
        issues = [i for i in self.issues if wanted <= {label["name"] for label in i["labels"]}]
        issues = [i for i in issues if query.get("state", "open") in (i["state"], "all")]
        return page(request, issues if query.get("direction") == "asc" else issues[::-1])

    def _create_issue(self, request: httpx.Request, body: Json) -> httpx.Response:
        known = [name for name in body.get("labels", []) if one(self.labels, "name", name)]
        return too_long(body) or reply(self.issue(body["body"], BOT, tuple(known), title=body["title"]), 201)

    def _create_label(self, request: httpx.Request, body: Json) -> httpx.Response:
        if one(self.labels, "name", body["name"]):
            return problem(422, "Validation Failed", "already_exists")
        self.labels.append(body)
        return reply(body, 201)

    def _update(self, items: list[Json], key: str, value: str, body: Json) -> httpx.Response:
        long, item = (
            too_long(body, LONGEST_NOTES if items is self.releases else LONGEST_BODY),
            one(items, key, int(value)),
        )
        if item and not long:
            item.update(body)
        return long or found(item)

    # -- releases

    def _release_of_tag(self, request: httpx.Request, _: Json, tag: str) -> httpx.Response:
        return found(one([r for r in self.releases if not r["draft"]], "tag_name", tag))

    def _create_release(self, request: httpx.Request, body: Json) -> httpx.Response:
        if one([r for r in self.releases if not r["draft"]], "tag_name", body["tag_name"]):
            return problem(422, "Validation Failed", "already_exists")
        if long := too_long(body, LONGEST_NOTES):
            return long
        notes = "What's Changed" if body.get("generate_release_notes") else ""
        known = {"id": next(self._ids), "draft": False, "body": notes, "author": BOT}
        self.releases.insert(0, {**known, **body})
        return reply(self.releases[0], 201)

    # -- deployments

    def _list_deployments(self, request: httpx.Request, _: Json) -> httpx.Response:
        keys = [key for key in ("sha", "task", "environment") if key in request.url.params]
        wanted = [d for d in self.deployments if all(d[key] == request.url.params[key] for key in keys)]
        return page(request, wanted[::-1])

    def _create_deployment(self, request: httpx.Request, body: Json) -> httpx.Response:
        self.deployments.append({"id": next(self._ids), "sha": body["ref"], "statuses": [], **body})
        return reply(self.deployments[-1], 201)

    def _list_statuses(self, request: httpx.Request, _: Json, id: str) -> httpx.Response:
        item = one(self.deployments, "id", int(id))
        return page(request, item["statuses"][::-1]) if item else problem(404, "Not Found")

    def _create_status(self, request: httpx.Request, body: Json, id: str) -> httpx.Response:
        item = one(self.deployments, "id", int(id))
        if not item:
            return problem(404, "Not Found")
        item["statuses"].append({"id": next(self._ids), **body})
        return reply(item["statuses"][-1], 201)


def one(items: list[Json], key: str, value: Any) -> Json | None:
    return next((item for item in items if item[key] == value), None)


def pointer(target: Json | None) -> Json | None:
    return target and {"object": target}


def reply(data: Any, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=data)


def found(item: Json | None) -> httpx.Response:
    return reply(item) if item else problem(404, "Not Found")


def problem(status: int, message: str, code: str = "") -> httpx.Response:
    return reply({"message": message, **({"errors": [{"code": code}]} if code else {})}, status)


def too_long(body: Json, most: int = LONGEST_BODY) -> httpx.Response | None:
    long = len(body.get("body") or "") > most
    return problem(422, "Validation Failed", f"body is too long (maximum is {most} characters)") if long else None


def page(request: httpx.Request, items: list[Json]) -> httpx.Response:
    size = min(int(request.url.params.get("per_page", PER_PAGE)), 100)
    number = int(request.url.params.get("page", 1))
    following = request.url.copy_set_param("page", number + 1)
    link = {"Link": f'<{following}>; rel="next", <{request.url}>; rel="last"'} if number * size < len(items) else {}
    return httpx.Response(200, json=items[(number - 1) * size : number * size], headers=link)
