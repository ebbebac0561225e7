"""Previews: which there are; and removing one, with its deployments, their automations, its ledger, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

from deployer import ledger
from deployer.model import Change
from deployer.prefect_api import deployments
from deployer.prepare import Site, owned

MARK = "preview:"


def names(site: Site) -> list[str]:
    """Of this environment's: by the tags of their deployments, and by ledgers of which somebody deleted the deployments."""
    found = deployments.answers(site.client, site.scope.tags, ())
    tags = {tag for answer in found for tag in answer["tags"]}
    tagged = {tag.removeprefix(MARK) for tag in tags if tag.startswith(MARK)}
    return sorted(tagged | ledger.previews(site.client, site.scope))


def destroy(site: Site, note: Callable[[str], None]) -> list[str]:
    """Answers the names of the deleted deployments. A second time finds nothing, and is fine."""
    ours = sorted(owned(site), key=lambda live: live.name)
    for live in ours:
        deployments.delete(site.client, Change("deployment", live.name, "delete", (), {}, live))
        note(f"deleted {live.name}")
    site.ledger.forget()
    return [live.name for live in ours]
