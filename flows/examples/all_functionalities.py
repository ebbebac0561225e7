"""Every feature of Prefect 3 in one flow, the weekly market report: what it is for, and what it trips you up with.

| where | what |
|---|---|
| here | subflows, runtime context, logging, pausing for an answer, run_deployment, own states, clean-up, hooks |
| gathering.py | retries, caching, persisted results, map and submit, limits, time-outs, progress, variables, async |
| publishing.py | transactions with rollback, Secret blocks, a lock, artifacts, events |
| notifications.py | hooks that notify: Slack, e-mail and others |
| follow_up.py | what an event starts |
| report.py | the report itself, without Prefect: what can be tested in a millisecond |

    python -m flows.examples.all_functionalities
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from prefect import Flow, flow, get_run_logger, pause_flow_run
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.input import RunInput
from prefect.runtime import deployment, flow_run
from prefect.states import Completed, Failed
from pydantic import Field, PositiveInt

from flows.examples import report
from flows.examples.gathering import Fault, gather, whole
from flows.examples.notifications import notify
from flows.examples.publishing import announce, publish
from flows.market_data.providers import sample
from flows.market_data.symbols import Symbol, chosen
from flows.parameters import Days

SECONDS_BETWEEN_LOOKS = 5
FullName = Annotated[str, Field(pattern="^[^/]+/[^/]+$")]


class Approval(RunInput):
    """What is asked of a person. The UI makes a form of it, and takes no answer that is not of these types."""

    approved: bool = Field(False, description="May the report go out?")
    reason: str = ""


def scratch_of(run_id: object) -> Path:
    """A folder that anyone finds who knows the run's id, in any process on the machine: also the clean-up after it."""
    return Path(tempfile.gettempdir()) / f"market-report-{run_id}"


# CLEAN-UP. Cancelling, or a machine that shuts down, sends SIGTERM. Prefect makes an exception of it in the main thread (no
# `Exception`: `except Exception` does not see it), so `with` and `finally` of the flow's own body run. Threads of a task
# runner are not interrupted, and after 30 s comes SIGKILL, which nobody hears.
@contextmanager
def scratch() -> Iterator[Path]:
    folder = scratch_of(flow_run.id)
    folder.mkdir(exist_ok=True)  # a run that is started again has the same id
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# Hence the same again as a hook. `on_cancellation` is run by what watches over the run, worker or `serve`: another process, which
# loads this file anew, knows the run's id, and nothing that the flow had in its variables. Ctrl-C, or SIGTERM to a run
# that nobody watches over, is no cancellation for Prefect but a crash: `on_crashed`.
def clean_up(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    shutil.rmtree(scratch_of(flow_run.id), ignore_errors=True)


# PAUSE for a person's answer. The process waits, and holds its worker's slot. For hours or days take `suspend_flow_run`: it needs a
# deployment, ends the process, and starts the flow again from its top when it is resumed, so what comes before must be
# cached. A time-out of the flow itself would count the waiting: hence `publish` has one, and the flow around it has none.
def approval_of(text: str, seconds: int) -> Approval:
    form = Approval.with_initial_data(description=f"{text}\n\nMay it go out?", approved=False)
    return pause_flow_run(wait_for_input=form, timeout=seconds, poll_interval=SECONDS_BETWEEN_LOOKS)


# RUN_DEPLOYMENT, because another deployment has its own pool, machine and limits; what needs none of these is a subflow. With
# `as_subflow` it stands under this run in the UI. `timeout=0` starts it and goes on: waiting needs a free slot in its pool,
# and if that is this run's own pool, and full, both wait for ever.
def start(name: str, parameters: dict[str, Any]) -> None:
    try:
        started = run_deployment(name, parameters=parameters, timeout=0, as_subflow=True)
    except ObjectNotFound:
        get_run_logger().info("There is no deployment '%s' here: nothing is started.", name)
        return
    get_run_logger().info("Started %s as %s.", name, started.name)  # type: ignore[union-attr]  # not async


# LOGGING: `print` is enough with `log_prints`, and is in the UI. The logger has levels, and fills in only what is shown.
def say_where() -> None:
    print(f"This is {flow_run.name}, of the deployment {deployment.name or '(none: called from Python)'}.")


# A NAME that says what the run is about. HOOKS: what is to happen after the run, however it ended. They see the run, not its
# variables, and what they raise is logged and does not change the state. There is `on_completion` too; but who is told of
# each success soon reads no message at all.
@flow(
    flow_run_name="market report of {days_back} days",
    log_prints=True,
    on_failure=[notify],
    on_crashed=[clean_up, notify],
    on_cancellation=[clean_up, notify],
)
def all_functionalities(
    symbols: list[Symbol] | None = None,
    days_back: Days = 90,
    approval: bool = False,
    approval_seconds: PositiveInt = 3600,
    then_run: FullName | None = "cleanup/cleanup",
    fail: Fault | None = None,
) -> State:
    """The weekly market report, of the sample's real prices: gather, ask, publish, tell. It shows each feature of Prefect.

    Args:
        symbols: Whose prices. Default: all five that the sample has.
        days_back: How many calendar days of prices are fetched, back from the sample's last day, 2013-03-01.
        approval: Wait for a person who approves the report, as in QA: the run is Paused, and the UI shows the form.
        approval_seconds: How long to wait for them. After that the run fails.
        then_run: A deployment to start at the end, "flow/deployment", with `dry_run`; none, where it does not exist.
        fail: See something fail: "once" and "timeout" the run survives, "provider" and "check" it does not.
    """
    say_where()
    names = chosen(symbols, sample.SYMBOLS)
    if not names:
        # OWN STATES: the type says what it means for Prefect, the name what it means for people.
        return Completed(name="Skipped", message="There are no symbols to report.")
    last = sample.today()
    gathered = gather(names, last - timedelta(days=days_back), last, fail)
    rows, (title, author) = gathered["rows"], gathered["words"]
    if not whole(rows):
        # A state that is returned is the run's: it fails, with a sentence instead of a traceback, and the hooks run.
        return Failed(message=f"None of {', '.join(names)} could be gathered: {rows[0]['error']}")
    with scratch() as folder:
        draft = folder / "draft.md"
        draft.write_text(report.markdown(rows, str(last), title))
        if approval and not (answer := approval_of(draft.read_text(), approval_seconds)).approved:
            return Completed(
                name="Rejected", message=f"The report stays here: {answer.reason or 'no reason was given'}."
            )
        path = publish(rows, gathered["picture"], title, author, str(last), fail)
    announce(path, str(last), whole(rows))
    if then_run:
        start(then_run, {"dry_run": True})
    return Completed(message=f"{len(whole(rows))} of {len(names)} symbols reported for {last}.")


if __name__ == "__main__":
    all_functionalities()
