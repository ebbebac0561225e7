"""The releases, kept as artifacts in the API that they were made on.

`release-<project>-<env>`: one small Markdown version a release. `spec-<project>-<env>-<digest>`: what it applied, whole, as
JSON, once per content. The Markdown is for people; a comment in it holds the same record for this module.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from itertools import islice, takewhile
from typing import Any

from deployer.desired import Scope
from deployer.errors import InvalidInput
from deployer.model import Base, Key, Release, Resource, Specification, canonical, digest
from deployer.plan import History
from deployer.prefect_api import Client, artifacts

RECORD = re.compile(r"<!-- record (\{.*\}) -->")
FORMAT = 1


class Ledger:
    """One environment's releases on one API, newest first, read as far as somebody asks."""

    def __init__(self, client: Client, scope: Scope) -> None:
        self.client = client
        self.scope = scope
        self.key = f"release-{scope.ledger}"
        self._read: list[tuple[str, Release]] = []
        self._rest: Iterator[dict[str, Any]] = artifacts.newest_first(client, self.key)
        self._specs: dict[str, Specification] = {}

    def releases(self) -> Iterator[Release]:
        """Newest first."""
        index = 0
        while True:
            while index >= len(self._read):
                answer = next(self._rest, None)
                if answer is None:
                    return
                if release := parse(answer["data"]):
                    self._read.append((answer["id"], release))
            yield self._read[index][1]
            index += 1

    def newest(self) -> Release | None:
        return next(self.releases(), None)

    def live(self) -> Release | None:
        """The last one that succeeded."""
        return next((r for r in self.releases() if r.succeeded), None)

    def begun(self) -> set[str]:
        """The digests of the plans that the newest releases began and did not finish, one deploy of one commit tried again and
        again. A release that says `started` may be at work at this moment."""
        newest = self.newest()
        if newest is None:
            return set()
        one = (newest.commit, newest.restores)
        tried = takewhile(lambda r: r.ended_early and (r.commit, r.restores) == one, self.releases())
        return {release.digest for release in tried}

    def next_number(self) -> int:
        """Looked up afresh: another deploy may have recorded a release since this one was planned."""
        answer = artifacts.latest(self.client, self.key)
        known = (self.newest(), parse(answer["data"]) if answer else None)
        return max((r.number for r in known if r), default=0) + 1

    def numbered(self, number: int) -> Release | None:
        return next((r for r in self.releases() if r.number == number), None)

    def of_commit(self, commit: str) -> Release | None:
        """The newest successful release of a commit."""
        return next((r for r in self.releases() if r.succeeded and r.commit == commit), None)

    def before_live(self) -> Release | None:
        """Where a rollback goes. From a release that did not succeed: to the last one that did, or where it was going
        back to itself. Else to the newest successful one before; after a rollback, before the one that it put back: a
        second rollback goes further back, not forward to what was just taken out."""
        newest, live = self.newest(), self.live()
        if newest is None or live is None:
            return None
        if not newest.succeeded:
            return self.numbered(newest.restores) if newest.restores else live
        origin = self._origin(live).number
        return next(
            (r for r in self.releases() if r.succeeded and r.number < origin and r.specification != live.specification),
            None,
        )

    def _origin(self, release: Release) -> Release:
        """The release that first brought what this one put back."""
        while release.restores and (restored := self.numbered(release.restores)):
            release = restored
        return release

    def history(self) -> History:
        """The base of the next plan: the last success, and what failed releases since may have set."""
        since: list[Release] = []
        for release in self.releases():
            if release.succeeded:
                found = [release, *reversed(since)]
                return History(Base(release.number, release.commit), self._known(found))
            since.append(release)
        return History(None, self._known(list(reversed(since))))

    def _known(self, releases: list[Release]) -> tuple[Specification, ...]:
        return tuple(spec for r in releases if (spec := self.specification(r)))

    def specification(self, release: Release) -> Specification | None:
        if release.specification not in self._specs:
            answer = artifacts.latest(self.client, self._spec_key(release.specification))
            if answer is None:
                return None
            try:
                self._specs[release.specification] = load_specification(answer["data"], release.specification)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise InvalidInput(
                    f"The specification of release {release.number} at {self.client.url} ({answer['key']}) cannot be read: "
                    "another version of this tool wrote it, or somebody changed it. Use the newest tool, or delete that artifact to go on without it."
                ) from None
        return self._specs[release.specification]

    def _spec_key(self, identity: str) -> str:
        return f"spec-{self.scope.ledger}-{identity}"

    def write_specification(self, spec: Specification) -> str:
        """Once per content. Answers its identity."""
        data = dump_specification(spec)
        identity = identity_of(data)
        key = self._spec_key(identity)
        if artifacts.latest(self.client, key) is None:
            text = f"What release of {spec.commit[:12]} sets in {spec.environment}, without secret values."
            artifacts.post(self.client, key, "json", json.dumps(data), text, lambda a: a["key"] == key)
        self._specs[identity] = spec
        return identity

    def start(self, release: Release) -> str:
        """Write it as started. Answers the artifact's id."""
        text = f"Release {release.number} of {release.project} in {release.environment}"
        return artifacts.post(
            self.client,
            self.key,
            "markdown",
            markdown(release),
            text,
            lambda a: parse(a["data"]) == release,
        )

    def finish(self, artifact: str, release: Release) -> None:
        artifacts.patch(self.client, artifact, markdown(release))

    def forget(self) -> None:
        """All of it; for previews, which are meant to go. The releases last: by them it is found again if this is stopped."""
        for answer in artifacts.latest_of_each(self.client, self._spec_key("")):
            if not re.fullmatch(re.escape(self._spec_key("")) + "[0-9a-f]{32}", answer["key"]):
                continue  # of a preview whose name only starts as this one's
            if self._others(owner_of(answer["data"])):
                continue
            for version in list(artifacts.newest_first(self.client, answer["key"])):
                artifacts.delete(self.client, version["id"])
        for answer in list(artifacts.newest_first(self.client, self.key)):
            release = parse(answer["data"])
            if not self._others((release.project, release.environment) if release else None):
                artifacts.delete(self.client, answer["id"])

    def strange(self) -> Release | None:
        """A release of another environment, the name of whose ledger ends as this one's does. An environment's ledger may be
        long: there the newest tells."""
        looked = self.releases() if self.scope.preview else islice(self.releases(), 1)
        return next((r for r in looked if self._others((r.project, r.environment))), None)

    @cached_property
    def others(self) -> list[Release]:
        """The newest release of every other ledger on this API: who else lives here, and what they list."""
        found = (parse(a["data"]) for a in artifacts.latest_of_each(self.client, "release-"))
        return [r for r in found if r and self._others((r.project, r.environment))]

    def _others(self, owner: tuple[str, str] | None) -> bool:
        return owner not in (None, (self.scope.project, self.scope.environment))


def previews(client: Client, scope: Scope) -> set[str]:
    """The names of this environment's previews that have a ledger. Another project's may begin as this one's do."""
    start = f"release-{scope.ledger}-"
    found = ((a["key"].removeprefix(start), parse(a["data"])) for a in artifacts.latest_of_each(client, start))
    return {name for name, r in found if r and (r.project, r.environment) == (scope.project, scope.environment)}


def foreign(releases: list[Release]) -> dict[Key, str]:
    """Resources without tags that other ledgers list -> whose they are."""
    return {
        (kind, name): f"{r.project}-{r.environment}"
        for r in releases
        for kind, names in r.declares.items()
        for name in names
    }


def declares(spec: Specification) -> dict[str, list[str]]:
    """What a release lists of the kinds that carry no owner's tags."""
    keys = [r.key for r in spec.resources if r.kind != "deployment"] + [("secret", name) for name in spec.secrets]
    keys += [("automation", name) for r in spec.resources for name in r.fields.get("triggers", ())]
    kinds = sorted({kind for kind, _ in keys})
    return {kind: sorted({name for k, name in keys if k == kind}) for kind in kinds}


def markdown(release: Release) -> str:
    """For people in Prefect's UI, with the record for machines in a comment."""
    record = {k: v for k, v in asdict(release).items() if v not in (None, "", {})}
    text = json.dumps({"format": FORMAT, **record}, sort_keys=True).replace("--", "-\\u002d")
    counts = ", ".join(f"{count} {action}" for action, count in release.summary.items() if count) or "nothing"
    lines = [
        f"## Release {release.number}: {release.result}",
        "",
        "| | |",
        "|---|---|",
        f"| commit | `{release.commit}` |",
        f"| ref | {_cell(release.ref)} |",
        f"| by | {_cell(release.actor)} |",
        f"| started | {release.started} |",
        f"| changes | {counts} |",
    ]
    lines += [f"| took | {release.seconds:.1f} s |"] if release.seconds is not None else []
    lines += [f"| rolls back | release {release.rollback_of} |"] if release.rollback_of else []
    lines += [f"| puts back | release {release.restores} |"] if release.restores else []
    lines += [f"| reason | {_cell(release.reason)} |"] if release.reason else []
    lines += [f"| run | {_cell(release.run_url)} |"] if release.run_url else []
    lines += [f"| error | {_cell(release.error)} |"] if release.error else []
    return "\n".join([*lines, "", f"<!-- record {text} -->"])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def parse(text: Any) -> Release | None:
    """The record in an artifact's Markdown; None for what is none of ours."""
    found = RECORD.search(text) if isinstance(text, str) else None
    if not found:
        return None
    try:
        record = json.loads(found.group(1))
    except (ValueError, RecursionError):
        return None
    known: Mapping[str, Any] = {name: record[name] for name in Release.__dataclass_fields__ if name in record}
    blank: dict[str, Any] = {
        "ref": "",
        "actor": "",
        "run_url": "",
        "tool_version": "",
        "digest": "",
        "specification": "",
        "summary": {},
        "seconds": None,
    }
    try:
        release = Release(**{**blank, **known})
    except TypeError:
        return None
    return release if _whole(release) else None


TEXTS = (
    *("project", "environment", "commit", "ref", "actor", "run_url", "tool_version"),
    *("digest", "specification", "started", "result", "reason", "error"),
)


def _whole(release: Release) -> bool:
    """Whoever can write artifacts can write anything into one: what goes on from here is of the types that it should be."""
    numbers = (release.number, release.rollback_of or 0, release.restores or 0, *_values(release.summary))
    return (
        all(isinstance(getattr(release, name), str) for name in TEXTS)
        and all(type(number) is int for number in numbers)
        and isinstance(release.seconds, int | float | None)
        and re.fullmatch("[0-9a-f]{40}", release.commit) is not None
        and all(
            isinstance(names, list) and all(isinstance(n, str) for n in names) for names in _values(release.declares)
        )
    )


def _values(mapping: Any) -> list[Any]:
    """None, which is neither a number nor a list, for what is no mapping."""
    return list(mapping.values()) if isinstance(mapping, Mapping) else [None]


def dump_specification(spec: Specification) -> dict[str, Any]:
    return {
        "format": FORMAT,
        **{k: getattr(spec, k) for k in ("project", "environment", "commit", "inputs")},
        "resources": [{"kind": r.kind, "name": r.name, "fields": dict(r.fields)} for r in spec.resources],
        "secrets": dict(spec.secrets),
        "retired": {name: dict(fields) for name, fields in spec.retired.items()},
        "created": [list(key) for key in spec.created],
    }


def owner_of(data: Any) -> tuple[str, str] | None:
    """Whose specification this is, project and environment; None for what cannot be read."""
    try:
        record = json.loads(data) if isinstance(data, str) else data
        return record["project"], record["environment"]
    except (ValueError, KeyError, TypeError):
        return None


def identity_of(record: Mapping[str, Any]) -> str:
    return digest(record)[:32]


def load_specification(data: Any, identity: str | None = None) -> Specification:
    """`identity`: what it was written as; another content is none of ours."""
    record = json.loads(data) if isinstance(data, str) else data
    if identity and identity_of(record) != identity:
        raise ValueError("changed")
    if record["format"] != FORMAT:
        raise ValueError(f"format {record['format']}")
    return Specification(
        record["project"],
        record["environment"],
        record["commit"],
        record["inputs"],
        tuple(Resource(r["kind"], r["name"], r["fields"]) for r in record["resources"]),
        secrets=record["secrets"],
        retired=record["retired"],
        created=tuple((kind, name) for kind, name in record["created"]),
    )


def same_content(one: Specification, other: Specification) -> bool:
    return canonical(dump_specification(replace(one, retired={}, created=()))) == canonical(
        dump_specification(replace(other, retired={}, created=()))
    )
