"""Deployments, and whether their schedules have the runs that the server makes in advance."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from deployer.prefect_api import Client, runs
from infra.monitoring.exporter.metrics import NONE, Sample
from infra.monitoring.exporter.names import Names
from infra.monitoring.exporter.schedules import Scheduler, fires, reached

GRACE = timedelta(minutes=3)
"""What should have been made so long ago: the server's scheduler comes by every minute."""


@dataclass
class Deployments:
    names: Names
    forget: Callable[[Collection[str]], None]

    def __call__(self, client: Client) -> Iterator[Sample]:
        found = list(client.pages("/deployments/filter"))
        self.names.learn(client, found, {flow["id"]: flow["name"] for flow in client.pages("/flows/filter")})
        self.forget(self.names.keep({d["id"] for d in found}))
        counts = Counts((d["work_pool_name"] or NONE, str(d["paused"]).lower()) for d in found)
        yield from (("deployments", count, *labels) for labels, count in counts.items())
        now = client.now()
        expected = [d for d in found if not d["paused"] and fires(d, now)]
        have = runs.provided(client, [d["id"] for d in expected], now)
        yield from self._each("deployment_without_next_run", expected, {d["id"] for d in expected} - have)
        yield from self._short(client, [d for d in found if not d["paused"]], now)

    def _short(self, client: Client, unpaused: Collection[Mapping[str, Any]], now: datetime) -> Iterator[Sample]:
        """What shows a scheduler that stopped while those whose turn has not come yet have all their runs."""
        scheduler = Scheduler.of(client)
        if not scheduler:
            return
        edges = {d["id"]: edge for d in unpaused if (edge := scheduler.edge(d, now - GRACE))}
        behind = sorted(set(edges) - reached(client, edges))
        judged = [d for d in unpaused if d["id"] in edges]
        yield from self._each("deployment_short_of_runs", judged, runs.provided(client, behind, now))

    def _each(self, name: str, judged: Iterable[Mapping[str, Any]], faulty: Collection[str]) -> Iterator[Sample]:
        """One for those that share their labels: 1 if any of them is faulty."""
        counts: Counts[tuple[str, str]] = Counts()
        for d in judged:
            counts[self.names.label(d["id"]), d["work_pool_name"] or NONE] += d["id"] in faulty
        yield from ((name, count > 0, *labels) for labels, count in counts.items())
