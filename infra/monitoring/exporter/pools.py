"""Work pools, their workers and queues."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

from deployer.prefect_api import Client
from infra.monitoring.exporter.metrics import Sample, moment

STATUSES = ("READY", "NOT_READY", "PAUSED")


def read_pools(client: Client) -> Iterator[Sample]:
    for pool in client.pages("/work_pools/filter"):
        name = pool["name"]
        yield "work_pool_info", 1, name, pool["type"]
        yield from (("work_pool_status", pool["status"] == status, name, status) for status in STATUSES)
        if pool["concurrency_limit"] is not None:
            yield "work_pool_slots", pool["concurrency_limit"], name
            yield "work_pool_slots_used", pool["active_slots"] or 0, name
        path = f"/work_pools/{quote(name)}"
        online = list(client.pages(f"{path}/workers/filter", {"workers": {"status": {"any_": ["ONLINE"]}}}))
        yield "workers_online", len(online), name
        newest = online or client.request("POST", f"{path}/workers/filter", {"limit": 1})
        if beats := [moment(worker["last_heartbeat_time"]) for worker in newest if worker["last_heartbeat_time"]]:
            yield "worker_heartbeat_timestamp_seconds", max(beats).timestamp(), name
        for queue in client.pages(f"{path}/queues/filter"):
            yield "work_queue_paused", queue["is_paused"], name, queue["name"]
