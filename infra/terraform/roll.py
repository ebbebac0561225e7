#!/usr/bin/env python3
"""Bring an environment on ECS to its newest task definitions: migrate, then service after service, each watched to its end.

    terraform apply                                          # registers new task definitions, restarts nothing
    python infra/terraform/roll.py --cluster prefect-prod    # this; again after it failed, it goes on

Credentials and region come from where AWS's tools look for them. Needs boto3, which the project's .venv has.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import boto3  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

# Servers before their clients: a newer client can send what an older server refuses.
FIRST = ("api", "services", "exporter")
SECONDS = 10
LONGEST = 30 * 60


class Failed(Exception):
    """What happened, and what now."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--cluster", required=True, help="such as prefect-prod")
    parser.add_argument("--region", help="default: that of the credentials")
    asked = parser.parse_args()
    try:
        roll(boto3.client("ecs", region_name=asked.region), asked.cluster, print, time.sleep)
    except Failed as failure:
        print(f"roll: {failure}", file=sys.stderr)
        return 1
    except (BotoCoreError, ClientError) as error:
        print(
            f"roll: AWS refuses: {error}. What was rolled before stays; run it again once that is mended.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("roll: interrupted. What ECS was told to do goes on; run it again to watch the rest.", file=sys.stderr)
        return 130
    return 0


def roll(ecs: Any, cluster: str, say: Callable[[str], None], wait: Callable[[float], None]) -> None:
    services = {service["serviceName"]: service for service in described(ecs, cluster)}
    if "api" not in services:
        raise Failed(
            f"{cluster} has no service api. Is it the right cluster, region and account, and was Terraform applied?"
        )
    say("migrate: starts")
    migrate(ecs, cluster, services["api"]["networkConfiguration"], wait)
    say("migrate: done")
    for name in ordered(services):
        newest = ecs.describe_task_definition(taskDefinition=f"{cluster}-{name}")["taskDefinition"]["taskDefinitionArn"]
        revision = newest.rpartition(":")[2]
        say(f"{name}: revision {revision} starts")
        # Also when the revision is the same: new passwords are read at the start only.
        updated = ecs.update_service(cluster=cluster, service=name, taskDefinition=newest, forceNewDeployment=True)
        watch(ecs, cluster, name, primary(updated["service"])["id"], wait)
        say(f"{name}: revision {revision} runs")


def described(ecs: Any, cluster: str) -> list[dict[str, Any]]:
    arns = ecs.list_services(cluster=cluster, maxResults=100)["serviceArns"]
    groups = [arns[start : start + 10] for start in range(0, len(arns), 10)]  # ECS describes ten at a time
    return [found for group in groups for found in ecs.describe_services(cluster=cluster, services=group)["services"]]


def ordered(names: Iterable[str]) -> list[str]:
    return [name for name in FIRST if name in names] + sorted(set(names) - set(FIRST))


def migrate(ecs: Any, cluster: str, network: dict[str, Any], wait: Callable[[float], None]) -> None:
    """The one-off task that brings the database to the server's version. Nothing is rolled unless it ends well."""
    started = ecs.run_task(
        cluster=cluster, taskDefinition=f"{cluster}-migrate", launchType="FARGATE", networkConfiguration=network
    )
    if not started["tasks"]:
        raise Failed(f"migrate did not start: {started['failures'][0]['reason']}. Nothing was rolled.")
    arn = started["tasks"][0]["taskArn"]
    for _ in range(0, LONGEST, SECONDS):
        task = ecs.describe_tasks(cluster=cluster, tasks=[arn])["tasks"][0]
        if task["lastStatus"] == "STOPPED":
            break
        wait(SECONDS)
    else:
        raise Failed(
            f"migrate still runs after {LONGEST // 60} minutes ({arn}). Nothing was rolled; see the log group /{cluster}/migrate."
        )
    code = task["containers"][0].get("exitCode")
    if code != 0:
        why = f"ended with {code}" if code is not None else task.get("stoppedReason", "ended without a word")
        raise Failed(f"migrate failed: {why}. Nothing was rolled; see the log group /{cluster}/migrate.")


def watch(ecs: Any, cluster: str, name: str, deployment: str, wait: Callable[[float], None]) -> None:
    """Until ECS says that this deployment completed.

    This one, by its id: when it fails, ECS' circuit breaker starts another, which brings the old revision back and completes.
    """
    seen = False
    for _ in range(0, LONGEST, SECONDS):
        (service,) = ecs.describe_services(cluster=cluster, services=[name])["services"]
        ours = next((found for found in service["deployments"] if found["id"] == deployment), None)
        if ours is None and not seen:  # an answer from before the update: ECS is consistent in the end only
            wait(SECONDS)
            continue
        seen = True
        if ours is None or ours["status"] != "PRIMARY" or ours["rolloutState"] == "FAILED":
            raise Failed(
                f"{name} does not come up: {what_happened(service, ours)}; see the log group /{cluster}/{name}."
            )
        if ours["rolloutState"] == "COMPLETED":
            return
        wait(SECONDS)
    raise Failed(
        f"{name} is not done after {LONGEST // 60} minutes. ECS goes on; see its events and the log group /{cluster}/{name}."
    )


def what_happened(service: dict[str, Any], ours: dict[str, Any] | None) -> str:
    now = primary(service)
    reason = (ours or now).get("rolloutStateReason", "ECS gives no reason.")
    if now is ours:
        return f"{reason} ECS puts its last good revision back, if it has one"
    # ECS' own rollback, or somebody else's deployment: what its reason says.
    revision = now["taskDefinition"].rpartition(":")[2]
    return f"{reason} Another deployment has taken its place, of revision {revision} ({now['rolloutState']})"


def primary(service: dict[str, Any]) -> dict[str, Any]:
    """The deployment that ECS works towards."""
    found: dict[str, Any] = next(one for one in service["deployments"] if one["status"] == "PRIMARY")
    return found


if __name__ == "__main__":
    sys.exit(main())
