"""Releases, as the ledgers on this API have them."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Iterator

from deployer.desired import Scope
from deployer.ledger import Ledger, parse
from deployer.model import Release
from deployer.prefect_api import Client, artifacts
from infra.monitoring.exporter.metrics import Sample, moment

RESULTS = ("started", "succeeded", "failed", "interrupted", "unverified")


def environments(client: Client) -> tuple[list[Release], Counts[tuple[str, str]]]:
    """Every environment's newest release, as the ledgers on this API have them, and how many previews live beside it."""
    newest, previews = [], Counts[tuple[str, str]]()
    for answer in artifacts.latest_of_each(client, "release-"):
        release = parse(answer["data"])
        if release and answer["key"] == f"release-{release.project}-{release.environment}":
            newest.append(release)
        elif release:
            previews[release.project, release.environment] += 1
    return newest, previews


def read_releases(client: Client) -> Iterator[Sample]:
    newest, previews = environments(client)
    for release in newest:
        place = (release.project, release.environment)
        yield "release_info", 1, *place, release.commit[:12], release.ref[:80], release.result
        yield "release_number", release.number, *place
        yield from (("release_result", release.result == result, *place, result) for result in RESULTS)
        yield "release_started_timestamp_seconds", moment(release.started).timestamp(), *place
        if release.seconds is not None:
            yield "release_seconds", release.seconds, *place
        live = release if release.succeeded else Ledger(client, Scope(*place)).live()
        if live:
            yield "release_live_number", live.number, *place
            yield "release_live_timestamp_seconds", moment(live.started).timestamp(), *place
        yield "previews", previews[place], *place
