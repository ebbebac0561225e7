"""What is typed, and serving until the end."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import croniter
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest, start_http_server

from deployer.environment import Api
from deployer.errors import DeployError
from deployer.prefect_api import Client, Retry
from infra.monitoring.exporter.backups import Backups
from infra.monitoring.exporter.reading import Exporter, log, make, works


def main(words: list[str] | None = None) -> int:
    asked = parser().parse_args(words)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    registry = CollectorRegistry()
    try:
        api = Api(
            url=given("PREFECT_API_URL"), key=given("PREFECT_API_KEY"), auth_string=given("PREFECT_API_AUTH_STRING")
        )
        client = Client(api, retry=Retry(attempts=3))
    except (DeployError, OSError) as error:
        print(f"exporter: {error}", file=sys.stderr)
        return 1
    window = timedelta(seconds=asked.window)
    backups = Backups(asked.backups, asked.backups_schedule, asked.backups_cronjob)
    exporter = make(client, registry, asked.interval, window, backups, asked.max_deployments)
    if asked.once:
        exporter.turn()
        print(generate_latest(registry).decode(), end="")
        return 0 if all(map(works, exporter.readers)) else 1
    return serve(exporter, registry, asked.listen)


def serve(exporter: Exporter, registry: CollectorRegistry, listen: str) -> int:
    host, _, port = listen.rpartition(":")
    ProcessCollector(registry=registry)
    try:
        server, thread = start_http_server(int(port), host or "0.0.0.0", registry)
    except (OSError, ValueError) as error:
        print(f"exporter: cannot listen on {listen}: {error}", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: exporter.stopped.set())
    print(f"Serving http://{host or '0.0.0.0'}:{server.server_port}/metrics", file=sys.stderr, flush=True)
    threading.Thread(target=exporter.run, daemon=True).start()  # may be waiting for the API when it is time to go
    exporter.stopped.wait()
    server.shutdown()
    server.server_close()
    thread.join()
    return 0


def given(name: str) -> str:
    """A variable's value, or what stands in the file that NAME_FILE names."""
    path = os.environ.get(f"{name}_FILE")
    return Path(path).read_text().strip() if path else os.environ.get(name, "")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="exporter",
        description="Metrics of a Prefect API for Prometheus. Reads PREFECT_API_URL, PREFECT_API_KEY and PREFECT_API_AUTH_STRING, or the files that the same names with _FILE give.",
    )
    made.add_argument("--listen", default="0.0.0.0:9464", metavar="HOST:PORT", help="default: %(default)s")
    made.add_argument(
        "--interval",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="between readings of runs and pools; default: %(default)s",
    )
    made.add_argument(
        "--window",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="for how long ended runs are recent; default: %(default)s",
    )
    made.add_argument(
        "--max-deployments", type=int, default=500, metavar="N", help="told apart by label; default: %(default)s"
    )
    made.add_argument(
        "--backups", type=Path, metavar="DIR", help="where the backups of Prefect's own database are written"
    )
    made.add_argument(
        "--backups-schedule",
        type=_schedule,
        default="86400",
        metavar="WHEN",
        help="how often: seconds, or five fields of cron and a time zone, such as '15 2 * * * Etc/UTC'; default: %(default)s",
    )
    made.add_argument(
        "--backups-cronjob",
        type=_cronjob,
        metavar="NAMESPACE/NAME",
        help="the CronJob that makes them where no folder has them, for a rule",
    )
    made.add_argument("--once", action="store_true", help="read once, print, end")
    return made


def _cronjob(text: str) -> tuple[str, str]:
    namespace, _, name = text.partition("/")
    if not namespace or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not a namespace and a name, such as prefect-prod/backup")
    return namespace, name


def _schedule(text: str) -> dict[str, Any]:
    """What Prefect would call it, without an anchor."""
    cron, _, zone = text.rpartition(" ")
    with suppress(ValueError):
        if (seconds := float(text)) > 0:
            return {"interval": seconds}
    with suppress(ValueError, ZoneInfoNotFoundError):
        if croniter.is_valid(cron) and ZoneInfo(zone):
            return {"cron": cron, "timezone": zone}
    raise argparse.ArgumentTypeError(f"{text!r} is neither seconds nor cron's fields and a time zone")
