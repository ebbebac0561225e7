"""The local loop: Prefect's own serve() over the work tree's flows. No pool, no worker, schedules paused."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deployer.catalog import Declared
from deployer.environment import Api
from deployer.errors import Exit, InvalidInput, Refused
from deployer.prefect_api import Client, connect
from deployer.prefect_api.deployments import answers
from deployer.yamlfile import guess

TAG = "served-locally"


def serve(
    root: Path,
    declared: list[Declared],
    names: list[str],
    production: list[str],
    variables: Mapping[str, str],
    note: Callable[[str], None],
) -> Exit:
    """Serve the named deployments, or all, as `NAME-local`, until Ctrl-C. `production`: environments to keep away from."""
    known = [d.declaration.name for d in declared]
    for name in names:
        if name not in known:
            raise InvalidInput(f"There is no deployment '{name}'.{guess(name, known)} There are: {', '.join(known)}.")
    chosen = [d.declaration for d in declared if d.declaration.name in names or not names]
    if not chosen:
        raise InvalidInput("The catalogue declares no deployment; there is nothing to serve.")
    if not variables.get("PREFECT_API_URL"):
        raise InvalidInput(
            "PREFECT_API_URL is not set. Give the API to serve at, e.g. --env-file with the output of: scripts/local.py env dev"
        )
    _check_owner(variables, production)
    os.environ.update(
        {k: v for k, v in variables.items() if k.startswith("PREFECT_")}
        | {"PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false"}
    )
    os.chdir(root)
    sys.path.insert(0, str(root))

    from prefect import serve as prefect_serve
    from prefect.flows import load_flow_from_entrypoint

    flows: list[tuple[Any, Any]] = [
        (load_flow_from_entrypoint(d.entrypoint, use_placeholder_flow=False), d) for d in chosen
    ]
    served = [
        flow.to_deployment(
            name=f"{d.name}-local", parameters=d.parameters, tags=[*d.tags, TAG], description=d.description
        )
        for flow, d in flows
    ]
    note(
        f"Serving {', '.join(f'{d.name}-local' for d in chosen)} at {variables['PREFECT_API_URL']}; Ctrl-C ends it. Runs use the work tree as it is when this started."
    )
    prefect_serve(*served)
    return Exit.DONE


def _check_owner(variables: Mapping[str, str], production: list[str]) -> None:
    """Prefect would take over a deployment of the same name without a word."""
    api = Api(
        url=variables["PREFECT_API_URL"],
        key=variables.get("PREFECT_API_KEY", ""),
        auth_string=variables.get("PREFECT_API_AUTH_STRING", ""),
    )
    with Client(api) as client:
        connect(client)
        found = [name for name in production if answers(client, [f"env:{name}"], ())]
    if found:
        raise Refused(f"{api.url} holds deployments of {', '.join(found)}; serve is for a development API.")
