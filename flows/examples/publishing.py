"""The report goes out, whole or not at all: transactions, persisted files, secrets, artifacts, events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.concurrency.sync import concurrency
from prefect.events import emit_event
from prefect.runtime import flow_run
from prefect.transactions import Transaction, transaction

from flows.examples import report
from flows.examples.gathering import RESULTS, Fault
from flows.naming import own
from flows.settings import secret

KEY = "report-signing-key"
PUBLISHED = "market-data.report.published"


# A SECRET is loaded where it is used. A flow's parameters stand in the UI, and what a task returns may be persisted: so the key
# stays in here, and only the signed text comes out.
@task(cache_policy=NO_CACHE)
def sign(text: str) -> str:
    key = secret(KEY)
    if key is None:
        return f"{text}\nSignature: none, there is no Secret block '{KEY}'.\n"
    return report.signed(text, key)


# NO_CACHE matters here: a task whose result comes from the cache is not run, and its rollback hook isn't either.
@task(task_run_name="write {path.name}", cache_policy=NO_CACHE)
def write(path: Path, text: str, fault: Fault | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text[: len(text) // 2] if fault == "check" else text)


@write.on_rollback
def restore(publication: Transaction) -> None:
    """The reader has last week's report again. The hook gets the task's own transaction, which asks the one around it."""
    path, before = publication.get("path"), publication.get("before")
    if before is None:
        path.unlink(missing_ok=True)
    else:
        path.write_text(before)


@task(task_run_name="check {path.name}", cache_policy=NO_CACHE)
def check(path: Path, symbols: Sequence[str]) -> None:
    report.check(path.read_text(), symbols)


# A TRANSACTION, because what several tasks have done is undone if a later one fails. The hooks run in reverse order, in this
# process: they undo what failed, not what was killed. Where the store has something better (a database's own transaction, one
# file by `os.replace`), take that; this is for what has not, and for several stores together.
# Only what is called inside of it belongs to it: a task that is submitted must be waited for in here.
def replace(path: Path, text: str, symbols: Sequence[str], fault: Fault | None) -> None:
    with transaction() as publication:
        publication.set("path", path)
        publication.set("before", path.read_text() if path.exists() else None)
        write(path, text, fault)
        check(path, symbols)


# A flow has a TIME-OUT too: TimedOut is a Failed state, so hooks and transactions see a failure.
@flow(flow_run_name="publish {day}", timeout_seconds=600)
def publish(
    rows: list[dict[str, Any]], picture: str | None, title: str, author: str, day: str, fault: Fault | None = None
) -> Path:
    """Sign, write, check and show the report. Answers where it is. Raises ValueError if it is not whole, and nothing changed."""
    text = sign(f"{report.markdown(rows, day, title)}\nBy {author}.\n")
    path = RESULTS.absolute() / "market-report.md"
    # A GLOBAL LIMIT of 1 is a lock across all runs and machines. Its lease is renewed while the `with` lasts, and runs out if this
    # process is killed: nobody waits for ever.
    with concurrency(own("market-report"), occupy=1, lease_duration=60):
        replace(path, text, [row["symbol"] for row in rows], fault)
    show(rows, text, picture, day)
    return path


# ARTIFACTS, because people look at the UI, not at a log. The same key again is a new version of it, with its history.
# What you give is kept in Prefect's database, whole, for each version: keep it small.
def show(rows: Sequence[Mapping[str, Any]], text: str, picture: str | None, day: str) -> None:
    create_table_artifact([dict(row) for row in rows], key="market-report-table", description=f"Statistics of {day}")
    create_markdown_artifact(text, key="market-report", description=f"The report of {day}")
    symbol = report.best(rows)
    link = f"https://finance.yahoo.com/quote/{symbol}"
    create_link_artifact(link, link_text=f"More about {symbol}", key="market-report-link", description="The best week")
    if picture:
        # An image artifact is an address and no more: the UI makes it the `src` of an `<img>`, so a small picture can be
        # inside of it (`data:`), with nothing to store or to let people see. The UI also prints the address: a large picture
        # belongs into a bucket, and here the link to it.
        create_image_artifact(picture, key="market-report-chart", description=f"Closes until {day}")


# AN EVENT, because whoever is interested can start from it, and this flow need not know them. Who: the `triggers` in
# deployments.yaml. It is sent from a thread in the background, and never fails the run.
def announce(path: Path, day: str, symbols: Sequence[str]) -> None:
    payload = {"path": str(path), "day": day, "symbols": list(symbols), "flow_run_id": flow_run.id}
    emit_event(PUBLISHED, resource={"prefect.resource.id": f"market-report.{day}"}, payload=payload)
