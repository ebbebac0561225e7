"""Hooks that tell people of a run, with its link: `@flow(on_failure=[notify], on_crashed=[notify])`.

Where to is the Secret block `notify-url`, an address of Apprise: `slack://TokenA/TokenB/TokenC/#channel`,
`mailtos://user:password@host?to=team@example.com`, or one of its hundred others; several with a comma between. Without
the block nothing is sent. https://appriseit.com/services

Prefect's own way is a notification block (`SlackWebhook.load("team").notify(...)`, apprise inside), or no code at all: an
automation on `prefect.flow-run.Failed` under `automations` in the environment's file. It sees also the runs whose process is
gone with all its hooks, so for what must not be missed take that.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging.loggers import flow_run_logger
from prefect.utilities.urls import url_for

from flows.settings import secret

TARGET = "notify-url"


def notify(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A hook. It never raises: a notification that fails is a line in the log, and the run ends as it would have.

    Prefect itself catches and logs what a hook raises, with its traceback: and a traceback may show the address.
    """
    log = flow_run_logger(flow_run, flow)
    try:
        target = secret(TARGET)
        if target is None:
            log.info("Nobody is notified: there is no Secret block '%s'.", TARGET)
        elif send(target, subject(flow, flow_run, state), body(flow_run, state)):
            log.info("Notified of state %s.", state.name)
        else:
            log.warning("Could not notify of state %s: look at the Secret block '%s'.", state.name, TARGET)
    except Exception as error:
        log.warning(
            "Could not notify of state %s: %s.", state.name, type(error).__name__
        )  # its text may hold the address


def subject(flow: Flow[..., Any], run: FlowRun, state: State[Any]) -> str:
    return f"{flow.name} / {run.name}: {state.name}"


def body(run: FlowRun, state: State[Any]) -> str:
    """The state's message and the link. PREFECT_UI_URL says where people see the UI; without it, the API's host."""
    return "\n".join(part for part in (state.message, url_for("flow-run", run.id)) if part)


def send(target: str, title: str, text: str) -> bool:
    """Did it arrive everywhere? It gives up after some seconds, each: a hook holds up the end of its run."""
    from apprise import Apprise

    with unheard("apprise"):
        apprise = Apprise()
        return apprise.add(target) and bool(apprise.notify(title=title, body=text))


@contextmanager
def unheard(name: str) -> Iterator[None]:
    """Apprise logs what it can't read or reach, and that is the address with its password."""
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
