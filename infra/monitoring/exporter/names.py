"""Names of deployments, of which a bounded number become labels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from deployer.prefect_api import Client
from infra.monitoring.exporter.metrics import NONE, OTHER


class Names:
    """Deployments' ids -> flow/deployment. No more than `most` are told apart, however many come and go."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.known: dict[str, str] = {}
        self.labels: set[str] = set()
        self.folded: set[str] = set()

    def learn(self, client: Client, found: Iterable[Mapping[str, Any]], flows: Mapping[str, str] | None = None) -> None:
        found = list(found)
        if flows is None:
            ids = sorted({d["flow_id"] for d in found})
            flows = {f["id"]: f["name"] for f in client.pages("/flows/filter", {"flows": {"id": {"any_": ids}}})}
        self.known |= {d["id"]: f"{flows.get(d['flow_id'], NONE)}/{d['name']}" for d in found}

    def look_up(self, client: Client, ids: Collection[str]) -> None:
        """Those that came since the deployments were read last."""
        missing = sorted(set(ids) - self.known.keys())
        for start in range(0, len(missing), 200):
            body = {"deployments": {"id": {"any_": missing[start : start + 200]}}}
            self.learn(client, client.pages("/deployments/filter", body))

    def keep(self, ids: Collection[str]) -> set[str]:
        """Forget all others. Answers the labels that are free again."""
        self.known = {id: name for id, name in self.known.items() if id in ids}
        gone = self.labels - set(self.known.values())
        self.labels -= gone
        self.folded.clear()
        return gone

    def label(self, id: str | None) -> str:
        name = self.known.get(id or "", NONE)
        if name == NONE or name in self.labels:
            return name
        if len(self.labels) >= self.most:
            self.folded.add(name)
            return OTHER
        self.labels.add(name)
        return name
