"""What starts by itself when a report was published: see its trigger in deployments.yaml."""

from __future__ import annotations

from prefect import flow, get_run_logger
from pydantic import BaseModel


class Published(BaseModel):
    """The event's payload. Prefect checks it like any other parameter, before the flow starts."""

    path: str
    day: str
    symbols: list[str]
    flow_run_id: str | None = None


@flow(flow_run_name="read {published.day}")
def on_report_published(published: Published) -> int:
    """Tell how many symbols a published report has: here a team would send it on, or load it elsewhere.

    Args:
        published: What the event says. The file is on the machine that wrote it: another one needs a bucket between.
    """
    get_run_logger().info("The report of %s has %s symbols.", published.day, len(published.symbols))
    return len(published.symbols)
