"""Artifacts: every version of a key is kept, and a collection per key points at the latest."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from tests.fake_prefect.fields import dashed
from tests.fake_prefect.filters import Combined, Ids, Keys, NamesOrNot, Query, matches, page
from tests.fake_prefect.store import Row, Store
from tests.fake_prefect.wire import Answer, Body, Call, Route, refuse

ArtifactOrder = Literal["CREATED_DESC", "UPDATED_DESC", "ID_DESC", "KEY_DESC", "KEY_ASC"]
COPIED = ("key", "type", "description", "data", "metadata_", "flow_run_id", "task_run_id")


class ArtifactCreate(Body):
    key: Annotated[str, dashed("Artifact key")] | None = None
    type: str | None = None
    description: str | None = None
    data: Any = None
    metadata_: dict[str, str] | None = None
    flow_run_id: UUID | None = None
    task_run_id: UUID | None = None


class ArtifactUpdate(Body):
    data: Any = Field(default=None)
    description: str | None = None
    metadata_: dict[str, str] | None = None


class ArtifactFilter(Combined):
    id: Ids | None = None
    key: Keys | None = None
    flow_run_id: Ids | None = None
    type: NamesOrNot | None = None


class CollectionFilter(Combined):
    latest_id: Ids | None = None
    key: Keys | None = None
    flow_run_id: Ids | None = None
    type: NamesOrNot | None = None


class ArtifactQuery(Query):
    artifacts: ArtifactFilter | None = None
    sort: ArtifactOrder = "ID_DESC"


class CollectionQuery(Query):
    artifacts: CollectionFilter | None = None
    sort: ArtifactOrder = "ID_DESC"


def create(call: Call) -> Answer:
    artifact = call.store.artifacts.add(**call.body(ArtifactCreate).model_dump())
    _collect(call.store, artifact["key"])
    return Answer(201, artifact)


def find(call: Call) -> Answer:
    query = call.body(ArtifactQuery, optional=True)
    return Answer(200, page([row for row in call.store.artifacts.where() if matches(query.artifacts, row)], query))


def find_latest(call: Call) -> Answer:
    query = call.body(CollectionQuery, optional=True)
    rows = [row for row in call.store.artifact_collections.where() if matches(query.artifacts, row)]
    return Answer(200, page(rows, query))


def read(call: Call) -> Answer:
    return Answer(200, _artifact(call))


def read_latest(call: Call) -> Answer:
    """The collection in the shape of an artifact: its id is not the id of the artifact."""
    collection = call.store.artifact_collections.find(key=call.path["key"])
    if collection is None:
        raise refuse(404, "Artifact not found.")
    return Answer(200, {name: value for name, value in collection.items() if name != "latest_id"})


def update(call: Call) -> Answer:
    changes = call.body(ArtifactUpdate).sent()
    artifact = _artifact(call)
    call.store.artifacts.change(artifact, **changes)
    _collect(call.store, artifact["key"])
    return Answer(204)


def delete(call: Call) -> Answer:
    artifact = _artifact(call)
    call.store.artifacts.remove(artifact)
    _collect(call.store, artifact["key"])
    return Answer(204)


def _artifact(call: Call) -> Row:
    artifact = call.store.artifacts.get(call.id())
    if artifact is None:
        raise refuse(404, "Artifact not found.")
    return artifact


def _collect(store: Store, key: str | None) -> None:
    """Let the key's collection point at the newest artifact that is left."""
    if key is None:
        return
    versions = store.artifacts.where(key=key)
    collection = store.artifact_collections.find(key=key)
    if not versions:
        store.artifact_collections.remove(*([collection] if collection else []))
        return
    latest = max(versions, key=lambda row: row["created"])
    copied = {"latest_id": latest["id"]} | {name: latest[name] for name in COPIED}
    collection = collection or store.artifact_collections.add(created=latest["created"])
    collection.update(copied, updated=latest["updated"])


ROUTES = (
    Route("POST", "/artifacts/", create, writes=True),
    Route("POST", "/artifacts/filter", find),
    Route("POST", "/artifacts/latest/filter", find_latest),
    Route("GET", "/artifacts/{id}", read),
    Route("GET", "/artifacts/{key}/latest", read_latest),
    Route("PATCH", "/artifacts/{id}", update, writes=True),
    Route("DELETE", "/artifacts/{id}", delete, writes=True),
)
