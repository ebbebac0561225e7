"""Every gauge, its meaning and its labels."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from prometheus_client import metrics

PREFIX = "prefect_platform_"
RUN = ("deployment", "pool", "state")
PLACE = ("project", "environment")
OTHER, NONE = "(other)", "(none)"

metrics.disable_created_metrics()  # type: ignore[no-untyped-call]  # a gauge more for each counter, which nobody asks for

GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    # the API, and this exporter
    "api_up": ("1 while the Prefect API answers, and takes the credentials.", ()),
    "api_failure": ("1 for each reason why something cannot be read now.", ("reason",)),
    "api_info": ("The version that the Prefect API says it is.", ("version",)),
    "reader_up": ("1 if what this reader reads was read at its last turn.", ("reader",)),
    "reader_seconds": ("How long the reader's last reading took.", ("reader",)),
    "reader_success_timestamp_seconds": ("When the reader last read all of it.", ("reader",)),
    "folded_deployments": ("Deployments beyond --max-deployments, which share the label (other).", ()),
    # runs
    "flow_runs": ("Flow runs that have not ended; SCHEDULED are those that are due.", RUN),
    "flow_runs_recent": ("Flow runs that ended in the window (--window), by their last state.", RUN),
    "deployment_last_run_failed": ("1 if the deployment's last run within 26 hours failed or crashed.", RUN[:2]),
    "flow_runs_late": ("Flow runs due for more than a minute that nobody started.", RUN[:2]),
    "flow_run_lateness_seconds": ("How long the latest of them is overdue.", RUN[:2]),
    # pools
    "work_pool_info": ("A work pool and its type.", ("pool", "type")),
    "work_pool_status": ("1 for the status that the pool has: READY, NOT_READY, PAUSED.", ("pool", "status")),
    "work_pool_slots": ("The pool's concurrency limit, if it has one.", ("pool",)),
    "work_pool_slots_used": ("Runs that take a slot of the pool's limit.", ("pool",)),
    "workers_online": ("Workers of the pool whose heartbeat is fresh.", ("pool",)),
    "worker_heartbeat_timestamp_seconds": ("The newest heartbeat of any worker of the pool; none: never.", ("pool",)),
    "work_queue_paused": ("1 while the queue is paused.", ("pool", "queue")),
    # deployments
    "deployments": ("Deployments of the pool.", ("pool", "paused")),
    "deployment_without_next_run": (
        "1 if an active schedule fires within a day and the server has made no run for it.",
        ("deployment", "pool"),
    ),
    "deployment_short_of_runs": (
        "1 if a schedule has runs ahead, and not as many as the server's scheduler keeps.",
        ("deployment", "pool"),
    ),
    # releases
    "release_info": ("The newest release.", (*PLACE, "commit", "ref", "result")),
    "release_number": ("The newest release's number.", PLACE),
    "release_result": ("1 for the newest release's result.", (*PLACE, "result")),
    "release_started_timestamp_seconds": ("When the newest release began.", PLACE),
    "release_seconds": ("How long the newest release took.", PLACE),
    "release_live_number": ("The number of the last release that succeeded.", PLACE),
    "release_live_timestamp_seconds": ("When the last release that succeeded began.", PLACE),
    "previews": ("Previews that live beside the environment.", PLACE),
    # drift
    "drift_changes": (
        "What differs from the last release, by kind; secrets' values are not compared.",
        (*PLACE, "kind"),
    ),
    "drift_compared": ("1 if live and release could be compared.", PLACE),
    # backups
    "backup_timestamp_seconds": ("When the newest backup was made; 0: there is none.", ("of",)),
    "backup_due_timestamp_seconds": ("When the one after it should be made.", ("of",)),
    "backup_cronjob_info": (
        "A CronJob whose backups the exporter does not see (--backups-cronjob).",
        ("namespace", "cronjob"),
    ),
    "backup_bytes": ("The size of the newest backup's file.", ("of",)),
    "backup_verified": ("1 if the newest backup was restored and compared.", ("of",)),
}

Sample = tuple[Any, ...]
"""A gauge's name, its value, and the values of its labels."""


def moment(text: str) -> datetime:
    at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return at if at.tzinfo else at.replace(tzinfo=UTC)
