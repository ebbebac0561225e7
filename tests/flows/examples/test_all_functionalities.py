"""Each feature that the example shows does what its comment says, on a temporary server."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from PIL import Image
from prefect import flow
from prefect.blocks.system import Secret
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, State
from prefect.events import Event
from prefect.events.clients import AssertingEventsClient
from prefect.events.worker import EventsWorker
from prefect.exceptions import FlowPauseTimeout
from prefect.filesystems import RemoteFileSystem
from prefect.settings import get_current_settings
from prefect.states import Failed
from prefect.variables import Variable

from flows.examples import all_functionalities as example
from flows.examples import gathering, notifications, publishing, report
from flows.examples.all_functionalities import all_functionalities
from flows.maintenance.cleanup import cleanup
from flows.market_data.providers import sample
from tests.flows.test_runs import prefect, run  # noqa: F401  # a fixture: the server

ROOT = Path(__file__).parents[3]
FIRST, LAST = date(2013, 1, 2), date(2013, 3, 1)
KEY = "k3y-that-nobody-sees"


class Kept(logging.Handler):
    """What is logged, tracebacks included."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@contextmanager
def logs() -> Iterator[Kept]:
    kept = Kept()
    logging.getLogger("prefect").addHandler(kept)
    try:
        yield kept
    finally:
        logging.getLogger("prefect").removeHandler(kept)


@contextmanager
def listening() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Whom a notification can reach: an address for apprise, and what came."""
    came: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"json://me:hunter2@127.0.0.1:{server.server_address[1]}/", came
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results in a folder of the test's own, and no waiting between tries."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gathering.fetch, "retry_delay_seconds", 0)
    monkeypatch.setattr(example, "SECONDS_BETWEEN_LOOKS", 0.05)


@dataclass
class Reported:
    """One run that shows most: every first request fails, one symbol does not exist, a key, a title, a follow-up."""

    state: State
    folder: Path
    logs: str
    sent: list[dict[str, Any]]
    events: list[Event]
    artifacts: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> UUID:
        found = self.state.state_details.flow_run_id
        assert found
        return found


@pytest.fixture(scope="module")
def reported(prefect: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reported]:  # noqa: F811
    folder = tmp_path_factory.mktemp("worker")
    with pytest.MonkeyPatch.context() as patch, logs() as kept, listening() as (target, sent):
        patch.chdir(folder)
        patch.setattr(gathering.fetch, "retry_delay_seconds", 0)
        events = EventsWorker.instance(AssertingEventsClient)
        patch.setattr(EventsWorker, "instance", lambda *_: events)
        Variable.set("report_title", "Prices of the week", overwrite=True)
        Secret(value=KEY).save(publishing.KEY)
        Secret(value=target).save(notifications.TARGET)
        with get_client(sync_client=True) as client:
            client.create_deployment(client.create_flow(cleanup), name="cleanup")
            state = run(all_functionalities, symbols=["IBM", "NOPE", "AAPL"], fail="once")
            events.wait_until_empty()
            seen = AssertingEventsClient.last.events if AssertingEventsClient.last else []
            found = Reported(state, folder, kept.text, sent, [one for one in seen if one.event == publishing.PUBLISHED])
            found.artifacts = {str(one.key): one for one in client.read_artifacts()}
        events.drain()
        Secret.delete(publishing.KEY)
        Secret.delete(notifications.TARGET)
        Variable.unset("report_title")
        yield found


def test_a_request_that_failed_is_tried_again_and_a_wrong_symbol_is_not(reported: Reported) -> None:
    assert reported.state.message == "2 of 3 symbols reported for 2013-03-01."
    rows = {row["symbol"]: row for row in json.loads(reported.artifacts["market-report-table"].data)}
    assert rows["IBM"]["error"] == rows["AAPL"]["error"] == ""
    assert "has no symbol 'NOPE'" in rows["NOPE"]["error"]
    assert reported.logs.count('fail, try 1.") - Retry 1/2 will start') == 3
    assert "Retry 2/2" not in reported.logs


def test_tries_come_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    state = gathering.fetch("IBM", FIRST, LAST, "provider", return_state=True)
    assert state.is_failed()
    assert "told to fail, try 3." in str(state.message)


def test_a_result_is_a_json_file_and_the_next_run_reads_it(reported: Reported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(reported.folder)
    files = {json.loads(json.loads(one.read_text())["result"])["symbol"]: one for one in results(reported.folder)}
    assert files.keys() == {"IBM", "AAPL"}
    kept_until = datetime.fromisoformat(json.loads(files["IBM"].read_text())["metadata"]["expiration"])
    assert timedelta(hours=23) < kept_until - datetime.now(UTC) < timedelta(days=1)
    files["IBM"].write_text(files["IBM"].read_text().replace('\\"symbol\\": \\"IBM\\"', '\\"symbol\\": \\"read\\"'))
    closes = gathering.fetch.fn("IBM", date(2012, 12, 1), LAST)
    again = gathering.summarise.with_options(result_storage=gathering.storage())
    state = again("IBM", closes, return_state=True)
    assert (state.name, state.result()["symbol"]) == ("Cached", "read")
    assert again("IBM", {**closes, "2013-03-01": 1.0}, return_state=True).name == "Completed"


def results(folder: Path) -> list[Path]:
    return [one for one in (folder / "results").iterdir() if one.suffix != ".md"]


def test_results_go_to_the_bucket_that_a_storage_block_names(monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    bucket = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    bucket.start()
    settings = {"client_kwargs": {"endpoint_url": "http://{}:{}".format(*bucket.get_host_and_port())}}
    try:
        S3FileSystem(**settings).mkdir("reports")
        RemoteFileSystem(basepath="s3://reports/results", settings=settings).save("results")
        Variable.set(gathering.STORAGE, "remote-file-system/results")
        names = []
        for _ in range(2):
            task = gathering.summarise.with_options(result_storage=gathering.storage())
            names.append(task("IBM", gathering.fetch.fn("IBM", FIRST, LAST), return_state=True).name)
        assert names == ["Completed", "Cached"]
        [key] = S3FileSystem(**settings).ls("reports/results")
        assert b'\\"symbol\\": \\"IBM\\"' in S3FileSystem(**settings).cat(key)
    finally:
        Variable.unset(gathering.STORAGE)
        bucket.stop()


def test_the_report_and_its_artifacts_can_be_seen(reported: Reported) -> None:
    found = reported.artifacts
    assert {key: found[key].type for key in found} == {
        "market-report": "markdown",
        "market-report-table": "table",
        "market-report-progress": "progress",
        "market-report-link": "markdown",
        "market-report-chart": "image",
    }
    assert found["market-report-progress"].data == 100
    assert found["market-report"].data == (reported.folder / "results/market-report.md").read_text()
    assert found["market-report"].data.startswith("# Prices of the week, 2013-03-01\n")  # the variable's
    assert "(https://finance.yahoo.com/quote/IBM)" in found["market-report-link"].data


def test_the_picture_is_inside_of_its_address_and_small(reported: Reported) -> None:
    start, _, data = str(reported.artifacts["market-report-chart"].data).partition(",")
    assert start == "data:image/png;base64"
    picture = Image.open(BytesIO(b64decode(data)))
    picture.load()
    assert (picture.format, picture.size) == ("PNG", (512, 256))
    assert len(data) < 50_000


def test_the_key_signs_the_report_and_is_nowhere_to_be_seen(reported: Reported) -> None:
    text, _, signature = (reported.folder / "results/market-report.md").read_text().rpartition("\nSignature: ")
    assert signature.strip() == report.signature(text, KEY)
    files = "".join(one.read_text() for one in (reported.folder / "results").iterdir())
    artifacts = "".join(str(one.data) for one in reported.artifacts.values())
    assert "Finished in state" in reported.logs and "hunter2" not in reported.logs
    assert KEY not in reported.logs + files + artifacts


def test_print_and_the_runtime_context_are_in_the_log(reported: Reported) -> None:
    assert "This is market report of 90 days, of the deployment (none: called from Python)." in reported.logs
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(reported.id).name == "market report of 90 days"


def test_another_deployment_is_started_under_this_run(reported: Reported) -> None:
    with get_client(sync_client=True) as client:
        [child] = [one for one in client.read_flow_runs() if one.deployment_id]
        parents = FlowRunFilter(id=FlowRunFilterId(any_=[reported.id]))
        tasks = client.read_task_runs(flow_run_filter=parents)
    assert child.parameters == {"dry_run": True}
    assert child.state and child.state.is_scheduled()
    assert child.parent_task_run_id in {one.id for one in tasks}


def test_an_event_tells_what_was_published(reported: Reported) -> None:
    [event] = reported.events
    assert event.resource.id == "market-report.2013-03-01"
    assert event.payload == {
        "path": str(reported.folder / "results/market-report.md"),
        "day": "2013-03-01",
        "symbols": ["IBM", "AAPL"],
        "flow_run_id": str(reported.id),
    }


@pytest.mark.parametrize("before", ["last week's report", None])
def test_a_report_that_is_not_whole_is_undone(before: str | None, tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    if before:
        path.write_text(before)
    text = report.signed("| IBM |\n| AAPL |\n", "key")
    with pytest.raises(ValueError, match=r"not whole\. It lacks"):
        publishing.replace(path, text, ["IBM", "AAPL"], "check")
    assert (path.read_text() if path.exists() else None) == before
    publishing.replace(path, text, ["IBM", "AAPL"], None)
    assert path.read_text() == text


def test_a_failure_is_told_with_the_runs_link_and_a_success_is_not(reported: Reported) -> None:
    assert reported.sent == []
    with listening() as (target, sent):
        Secret(value=target).save(notifications.TARGET)
        try:
            state = run(all_functionalities, symbols=["IBM"], fail="provider")
        finally:
            Secret.delete(notifications.TARGET)
    assert state.message == "None of IBM could be gathered: The provider 'sample' is told to fail, try 3."
    [message] = sent
    assert message["title"] == "all-functionalities / market report of 90 days: Failed"
    link = f"/runs/flow-run/{state.state_details.flow_run_id}"
    assert message["message"].startswith(str(state.message)) and message["message"].endswith(link)


@pytest.mark.parametrize("target", ["json://me:hunter2@127.0.0.1:9/", "slack://hunter2", "nonsense://hunter2@x"])
def test_a_notification_that_fails_is_a_line_in_the_log_without_the_address(
    target: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    Secret(value=target).save(notifications.TARGET)
    with logs() as kept:
        notifications.notify(all_functionalities, FlowRun(flow_id=UUID(int=1), name="it"), Failed(message="bad"))
    Secret.delete(notifications.TARGET)
    assert "Could not notify of state Failed" in kept.text
    assert "hunter2" not in kept.text + caplog.text + "".join(capfd.readouterr())


def test_without_a_target_nobody_is_notified() -> None:
    with logs() as kept:
        notifications.notify(all_functionalities, FlowRun(flow_id=UUID(int=1), name="it"), Failed())
    assert "Nobody is notified: there is no Secret block 'notify-url'." in kept.text


@flow
def asking(seconds: int) -> str:
    answer = example.approval_of("A report.", seconds)
    return f"{answer.approved}: {answer.reason}"


@contextmanager
def answering(**answer: Any) -> Iterator[None]:
    """A person who sees that a run is paused, and fills in its form."""
    over = threading.Event()

    def answered(client: SyncPrefectClient) -> bool:
        for one in client.read_flow_runs():
            path = {"id": one.id}
            if one.state and one.state.is_paused():  # its form may come a moment later
                found = client.request("POST", "/flow_runs/{id}/input/filter", path_params=path, json={"prefix": ""})
                if found.json():
                    client.resume_flow_run(one.id, run_input=answer)
                    return True
        return False

    def person() -> None:
        with get_client(sync_client=True) as client:
            while not over.wait(0.05) and not answered(client):
                pass

    with ThreadPoolExecutor(1) as threads:
        there = threads.submit(person)
        try:
            yield
        finally:
            over.set()
            there.result()  # what went wrong with it says more than that nobody answered


def test_a_paused_run_goes_on_with_the_answer() -> None:
    with answering(approved=True, reason="fine"):
        assert asking(120) == "True: fine"


def test_a_run_that_nobody_answers_fails() -> None:
    with pytest.raises(FlowPauseTimeout):
        asking(1)


def test_a_report_that_is_rejected_is_not_published(tmp_path: Path) -> None:
    with answering(approved=False, reason="too early"):
        state = run(all_functionalities, symbols=["IBM"], approval=True, approval_seconds=30)
    assert state.is_completed()
    assert (state.name, state.message) == ("Rejected", "The report stays here: too early.")
    assert not (tmp_path / "results/market-report.md").exists()


def test_a_run_without_work_is_skipped_by_name() -> None:
    state = run(all_functionalities, symbols=[])
    assert state.is_completed() and state.name == "Skipped"


def test_a_picture_that_takes_too_long_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gathering.draw.with_options(timeout_seconds=0.1)({}, "timeout", return_state=True).name == "TimedOut"
    with logs() as kept:
        assert flow(gathering.picture)({"IBM": {"2013-03-01": 1.0}}, "timeout") is None
    assert "The report goes without its picture: TimedOut" in kept.text


def test_a_flow_that_takes_too_long_is_timed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*_: Any) -> None:
        while not threading.Event().wait(0.01):
            pass

    monkeypatch.setattr(publishing, "replace", endless)
    state = run(publishing.publish.with_options(timeout_seconds=0.5), **nothing())
    assert state.is_failed() and state.name == "TimedOut"


def nothing() -> dict[str, Any]:
    return {"rows": [], "picture": None, "title": "T", "author": "A", "day": "2013-03-01"}


@contextmanager
def limit(name: str, **changes: Any) -> Iterator[Callable[[], int]]:
    """A global limit of 1 for as long as it is needed. Answers how many of its slots are taken."""
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1, **changes))
        try:
            yield lambda: client.read_global_concurrency_limit_by_name(name).active_slots
        finally:
            client.delete_global_concurrency_limit_by_name(name)


def test_a_publication_holds_its_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    with limit("market-report") as taken:
        monkeypatch.setattr(publishing, "replace", lambda *_: held.append(taken()))
        monkeypatch.setattr(publishing, "show", lambda *_: None)
        publishing.publish(**nothing())
        assert held == [1] and taken() == 0


def test_each_request_takes_its_turn() -> None:
    with limit("market-data-requests", slot_decay_per_second=0.001) as taken:
        assert taken() == 0
        gathering.fetch("IBM", FIRST, LAST)
        assert taken() == 1  # it comes back by itself, in a quarter of an hour


@flow
def two_fetches() -> None:
    gathering.fetch.map(["IBM", "AAPL"], FIRST, LAST).result()


def test_a_tags_limit_is_the_global_one_of_that_name_and_tasks_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, most = threading.Semaphore(1), []

    def fetch_bars(*arguments: Any, **options: Any) -> Any:
        most.append(at_once.acquire(blocking=False))
        try:
            return original(*arguments, **options)
        finally:
            at_once.release()

    original = sample.fetch_bars
    monkeypatch.setattr(sample, "fetch_bars", fetch_bars)
    with limit("tag:market-data-request"), get_client(sync_client=True) as client:
        assert client.read_concurrency_limit_by_tag("market-data-request").concurrency_limit == 1
        two_fetches()
    assert most == [True, True]


def test_a_run_that_is_terminated_leaves_nothing_behind(tmp_path: Path) -> None:
    with listening() as (target, sent):
        Secret(value=target).save(notifications.TARGET)
        process = subprocess.Popen(
            [sys.executable, "-c", WAITS],
            env={
                **os.environ,
                "PREFECT_API_URL": str(get_current_settings().api.url),
                "PYTHONPATH": str(ROOT),
                "TMPDIR": str(tmp_path),
            },
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        assert process.stderr
        try:
            assert any("Pausing flow" in line for line in process.stderr)
            [folder] = tmp_path.glob("market-report-*")
            assert (folder / "draft.md").exists()
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
        finally:
            process.kill()
            Secret.delete(notifications.TARGET)
    assert not folder.exists()
    assert [message["title"].rpartition(": ")[2] for message in sent] == ["Crashed"]


WAITS = """
from flows.examples import all_functionalities, gathering
gathering.picture = lambda *_: None  # saves two seconds
all_functionalities.all_functionalities(symbols=["IBM"], approval=True, approval_seconds=30)
"""


def test_what_a_cancelled_run_left_is_found_by_its_id() -> None:
    assert all_functionalities.on_cancellation_hooks == [example.clean_up, notifications.notify]
    cancelled = FlowRun(flow_id=UUID(int=1))
    folder = example.scratch_of(cancelled.id)
    folder.mkdir()
    try:
        example.clean_up(all_functionalities, cancelled, Failed())
        assert not folder.exists()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert folder.parent == Path(tempfile.gettempdir())
