"""What the environment's things are called in Prefect, for runs whose environment shares its API with others."""

from __future__ import annotations

import re

from prefect.runtime import deployment, flow_run

ENVIRONMENT_TAG = "env:"


def own(name: str) -> str:
    """The name of a variable, Secret block or limit as the deploy wrote it: with `-<env>` at the end where `api.shared` is
    set, which the run's deployment shows by its own name. Outside of a deployment it is the name as it stands."""
    environment = next((tag.removeprefix(ENVIRONMENT_TAG) for tag in tags() if tag.startswith(ENVIRONMENT_TAG)), "")
    shared = environment and str(deployment.name or "").endswith(f"-{environment}")
    return f"{name}-{environment}" if shared and environment not in re.split("[-_]", name) else name


def tags() -> list[str]:
    """Of the run, which has those of its deployment. A run without a deployment is of no environment: nothing is asked."""
    return list(flow_run.tags or []) if deployment.name else []
