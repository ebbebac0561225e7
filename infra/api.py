"""The Prefect API that the scripts of this folder speak with: the environment's, as Prefect's own commands take it."""

from __future__ import annotations

import os

from deployer.environment import Api
from deployer.errors import InvalidInput
from deployer.prefect_api import Client, connect


def client(any_version: bool = False) -> Client:
    """Of an API that answers, and whose answers are known; before an upgrade it is an older one."""
    found = {name: os.environ.get(f"PREFECT_API_{name}", "") for name in ("URL", "KEY", "AUTH_STRING")}
    if not found["URL"]:
        raise InvalidInput(
            "Which API? Set PREFECT_API_URL, and PREFECT_API_KEY or PREFECT_API_AUTH_STRING if it asks for one."
        )
    api = Client(Api(url=found["URL"], key=found["KEY"], auth_string=found["AUTH_STRING"]))
    if not any_version:
        connect(api)
    return api
