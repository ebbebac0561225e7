"""What starts by itself when a report was published: see its trigger in deployments.yaml."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import BaseModel


class Published(BaseModel):
    """The event's payload. Prefect checks it like any other parameter, before the flow starts."""

    path: str
    day: str
    symbols: list[str]
    flow_run_id: str | None = None


@flow
def on_report_published(published: Published | None = None) -> State:
    """Say what a published report has. Here a team would send it on, or load it elsewhere.

    Args:
        published: What the event says. The file is on the machine that wrote it: another one needs a bucket between. None:
            the run was started by hand, and there is nothing to read.
    """
    if published is None:
        return Completed(name="Skipped", message="No report was published: an event starts this flow.")
    return Completed(message=f"The report of {published.day} has {len(published.symbols)} symbols.")
