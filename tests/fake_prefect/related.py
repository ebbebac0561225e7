"""Filters across kinds: the deployments of these flows, the runs of these deployments."""

from __future__ import annotations

from typing import Literal

from tests.fake_prefect.filters import (
    AllTags,
    Combined,
    Filter,
    Ids,
    IdsOrNot,
    IdsOrNull,
    Is,
    Like,
    Names,
    NamesLike,
    NamesOrNot,
    NamesOrNull,
    Query,
    Tags,
    Times,
    TimesOrNull,
    matches,
)
from tests.fake_prefect.store import Row, Store

StateType = Literal[
    "SCHEDULED", "PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "CRASHED", "PAUSED", "CANCELLING"
]


class FlowFilter(Combined):
    id: IdsOrNot | None = None
    name: NamesLike | None = None
    tags: AllTags | None = None


class DeploymentFilter(Combined):
    id: IdsOrNot | None = None
    name: NamesLike | None = None
    flow_or_deployment_name: Like | None = None
    paused: Is | None = None
    tags: Tags | None = None
    work_queue_name: Names | None = None


class WorkPoolFilter(Combined):
    id: Ids | None = None
    name: Names | None = None
    type: Names | None = None


class QueueNames(Names):
    startswith_: list[str] | None = None


class WorkQueueFilter(Combined):
    id: Ids | None = None
    name: QueueNames | None = None


class StateTypes(Filter):
    any_: list[StateType] | None = None
    not_any_: list[StateType] | None = None


class StateFilter(Combined):
    type: StateTypes | None = None
    name: NamesOrNot | None = None


class FlowRunFilter(Combined):
    id: IdsOrNot | None = None
    name: NamesLike | None = None
    tags: Tags | None = None
    deployment_id: IdsOrNull | None = None
    work_queue_name: NamesOrNull | None = None
    state: StateFilter | None = None
    flow_version: Names | None = None
    start_time: TimesOrNull | None = None
    end_time: TimesOrNull | None = None
    expected_start_time: Times | None = None
    next_scheduled_start_time: Times | None = None
    idempotency_key: NamesOrNot | None = None


class RelatedQuery(Query):
    flows: FlowFilter | None = None
    flow_runs: FlowRunFilter | None = None
    deployments: DeploymentFilter | None = None
    work_pools: WorkPoolFilter | None = None
    work_pool_queues: WorkQueueFilter | None = None


def deployments(store: Store, query: RelatedQuery) -> list[Row]:
    return [row for row in store.deployments.where() if _wants_deployment(store, query, row)]


def flow_runs(store: Store, query: RelatedQuery) -> list[Row]:
    return [row for row in store.flow_runs.where() if _wants_run(store, query, row)]


def _wants_deployment(store: Store, query: RelatedQuery, row: Row) -> bool:
    runs = store.flow_runs.where(deployment_id=row["id"]) if query.flow_runs else []
    return (
        matches(query.deployments, _with_flow_name(store, row))
        and matches(query.flows, store.flows.get(row["flow_id"]))
        and (query.flow_runs is None or any(matches(query.flow_runs, run) for run in runs))
        and _wants_place(store, query, row)
    )


def _wants_run(store: Store, query: RelatedQuery, row: Row) -> bool:
    deployment = store.deployments.get(row["deployment_id"])
    return (
        matches(query.flow_runs, row)
        and matches(query.flows, store.flows.get(row["flow_id"]))
        and (
            query.deployments is None
            or (deployment is not None and matches(query.deployments, _with_flow_name(store, deployment)))
        )
        and _wants_place(store, query, row)
    )


def _wants_place(store: Store, query: RelatedQuery, row: Row) -> bool:
    """Is it in one of the wanted pools and queues."""
    if query.work_pools is None and query.work_pool_queues is None:
        return True
    queue = store.work_queues.get(row["work_queue_id"])
    pool = store.work_pools.get(queue["work_pool_id"]) if queue else None
    return bool(queue and pool and matches(query.work_pool_queues, queue) and matches(query.work_pools, pool))


def _with_flow_name(store: Store, row: Row) -> Row:
    """The one filter that looks at two names sees them on lines of their own."""
    flow = store.flows.get(row["flow_id"]) or {"name": ""}
    return {**row, "flow_or_deployment_name": f"{flow['name']}\n{row['name']}"}
