"""Health, version, and what the server knows about types of workers."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

from tests.fake_prefect.wire import Answer, Call, Route, refuse

API_VERSION = "0.8.4"
WORKER_TYPES = "server/api/collections_data/views/aggregate-worker-metadata.json"


def health(call: Call) -> Answer:
    return Answer(200, True)


def ready(call: Call) -> Answer:
    return Answer(200, {"message": "OK"})


def api_version(call: Call) -> Answer:
    return Answer(200, API_VERSION)


def version(call: Call) -> Answer:
    return Answer(200, call.version)


def settings(call: Call) -> Answer:
    """Of its hundreds those that the deployer looks at; secrets as stars."""
    return Answer(200, {"server": call.store.settings})


def csrf_token(call: Call) -> Answer:
    raise refuse(422, "CSRF protection is disabled.")


def worker_types(call: Call) -> Answer:
    """The data file of the installed Prefect, read without importing it."""
    spec = find_spec("prefect")
    assert spec and spec.origin, "Prefect is not installed"
    types = json.loads((Path(spec.origin).parent / WORKER_TYPES).read_text())
    types["prefect"].pop("prefect-agent", None)
    return Answer(200, types)


ROUTES = (
    Route("GET", "/health", health),
    Route("GET", "/ready", ready),
    Route("GET", "/version", api_version),
    Route("GET", "/admin/version", version),
    Route("GET", "/admin/settings", settings),
    Route("GET", "/csrf-token", csrf_token),
    Route("GET", "/collections/views/aggregate-worker-metadata", worker_types),
)
