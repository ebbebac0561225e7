"""What differs from the last release."""

from __future__ import annotations

import logging
from collections import Counter as Counts
from collections.abc import Iterator

from deployer import prepare
from deployer.desired import Scope
from deployer.environment import Environment
from deployer.errors import DeployError, Unreachable
from deployer.ledger import Ledger
from deployer.model import KINDS
from deployer.plan import Options
from deployer.prefect_api import Client
from deployer.prepare import Site
from deployer.revision import Revision
from infra.monitoring.exporter.metrics import Sample
from infra.monitoring.exporter.releases import environments

log = logging.getLogger("exporter")


class Drift:
    """As `deploy.py drift` does without the variables of secrets, and with the default policy."""

    def __init__(self) -> None:
        self.told: set[str] = set()

    def __call__(self, client: Client) -> Iterator[Sample]:
        """While a release is being made, there is nothing to compare."""
        for newest in environments(client)[0]:
            place = (newest.project, newest.environment)
            changed = None if newest.result == "started" else self._changed(client, Scope(*place))
            yield "drift_compared", changed is not None, *place
            if changed is not None:
                yield from (("drift_changes", changed[kind], *place, kind) for kind in KINDS)

    def _changed(self, client: Client, scope: Scope) -> Counts[str] | None:
        try:
            return drift(client, scope)
        except Unreachable:
            raise
        except DeployError as error:
            if str(error) not in self.told:
                log.warning("Drift of %s cannot be told: %s", scope.environment, error)
            self.told.add(str(error))
            return None


def drift(client: Client, scope: Scope) -> Counts[str] | None:
    """What a plan of the last successful release would write, by kind; None where its specification is not on record."""
    ledger = Ledger(client, scope)
    live = ledger.live()
    spec = ledger.specification(live) if live else None
    if live is None or spec is None:
        return None
    site = Site(_environment(client.url, scope), scope, client, ledger)
    revision = Revision(live.commit, live.ref)
    found = prepare.from_specification(site, spec, revision, ledger.history(), {}, Options())
    return Counts(change.kind for change in found.plan.writes)


def _environment(url: str, scope: Scope) -> Environment:
    """What a comparison asks of an environment file: whose it is. The rest stands in the ledger."""
    nowhere = {"strategy": "local", "directory": "/"}
    return Environment.model_validate(
        {"name": scope.environment, "project": scope.project, "mode": "production", "api": {"url": url}, "refs": {}}
        | {"source": nowhere, "work_pools": {}}
    )
