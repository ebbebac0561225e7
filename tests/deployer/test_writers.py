"""Several writes at a time: as many as the API bears, and nothing of what was written goes untold."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from deployer import writers
from deployer.environment import Api
from deployer.errors import Exit
from deployer.prefect_api import Client
from deployer.writers import several
from tests.deployer.stage import AT_ONCE, Stage, config, deployment, state
from tests.fake_prefect import FakePrefect

A, B = "a" * 40, "b" * 40
MANY = config(*(deployment(f"hello-{n:02}", schedules=[{"slug": "s", "cron": "0 1 * * *"}]) for n in range(20)))


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(Api(url="http://127.0.0.1/api"), httpx.MockTransport(lambda request: httpx.Response(204))) as client:
        yield client


class Gate:
    """Counts the jobs that are inside at once. Each waits until `together` are, or no more come."""

    def __init__(self, together: int) -> None:
        self.barrier = threading.Barrier(together)
        self.inside: set[int] = set()
        self.most = 0

    def job(self, number: int) -> Callable[[], int]:
        def pass_through() -> int:
            self.inside.add(number)
            self.most = max(self.most, len(self.inside))
            self.barrier.wait(timeout=10)
            self.inside.discard(number)
            return number

        return pass_through


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after many writes that went well."""
    monkeypatch.setattr(writers, "CLEAN", 0.1)


@pytest.mark.usefixtures("at_once")
def test_as_many_as_asked_for_are_at_work_together(client: Client) -> None:
    gate = Gate(together=3)
    first = [lambda: -1]
    assert sorted(several(client, [*first, *(gate.job(n) for n in range(9))], 3)) == list(range(-1, 9))
    assert gate.most == 3


def test_the_first_writes_go_one_at_a_time(client: Client) -> None:
    """SQLite would refuse some of several: whether it is one shows only by trying."""
    gate = Gate(together=1)
    list(several(client, (gate.job(n) for n in range(writers.CLEAN)), 4))
    assert gate.most == 1


@pytest.mark.usefixtures("at_once")
def test_after_a_call_that_had_to_be_repeated_one_writes_at_a_time(client: Client) -> None:
    """SQLite refuses writes that come together."""
    client.calls.count("PATCH", "/x", again=False)
    inside, most, lock = 0, list[int](), threading.Lock()

    def job() -> None:
        nonlocal inside
        with lock:
            inside += 1
            most.append(inside)
        client.calls.count("PATCH", "/x", again=True)
        with lock:
            inside -= 1

    jobs = iter([job] * 12)
    list(several(client, jobs, 4))
    assert len(most) == 12
    assert set(most[4:]) == {1}


def test_a_job_is_taken_only_when_it_can_begin(client: Client) -> None:
    """What is due soon is looked up then, and not when the first deployment is written."""
    taken: list[int] = []

    def jobs() -> Iterator[Callable[[], int]]:
        for number in range(6):
            taken.append(number)
            yield lambda number=number: number  # type: ignore[misc]

    answers = several(client, jobs(), 2)
    next(answers)
    assert len(taken) <= 4
    assert sorted(answers)[-1] == 5


@pytest.mark.usefixtures("at_once")
def test_what_was_written_when_an_interrupt_came_is_told(client: Client) -> None:
    began, go = threading.Semaphore(0), threading.Event()

    def write() -> str:
        began.release()
        go.wait(10)
        return "written"

    def jobs() -> Iterator[Callable[[], str]]:
        yield lambda: "first"
        yield write
        yield write
        began.acquire()
        began.acquire()
        go.set()
        raise KeyboardInterrupt

    told: list[str] = []

    def listen() -> None:
        for answer in several(client, jobs(), 4):
            told.append(answer)

    with pytest.raises(KeyboardInterrupt):
        listen()
    assert sorted(told) == ["first", "written", "written"]
    assert client.hurried.is_set()


def test_several_at_a_time_end_as_one_after_the_other() -> None:
    one, four = FakePrefect(), FakePrefect()
    for fake, at_a_time in ((one, 1), (four, 4)):
        for commit in (A, B):
            assert Stage(fake, at_a_time=at_a_time).apply(MANY, commit).error is None
    assert state(one) == state(four)
    assert Stage(four).plan(MANY, B).writes == ()


def test_one_that_fails_among_several_fails_alone() -> None:
    fake = FakePrefect()
    stage = Stage(fake, at_a_time=4)
    stage.apply(MANY, A)
    fake.fail("PATCH", "/deployments/", before=422)
    result = stage.apply(MANY, B)
    assert result.error and result.error.exit_code == Exit.FAILED
    assert sorted(outcome.result for outcome in result.outcomes) == ["done"] * 19 + ["failed"]
    assert stage.apply(MANY, B).error is None


def test_an_api_that_goes_away_ends_all_of_them() -> None:
    fake = FakePrefect()
    stage = Stage(fake, at_a_time=4)
    stage.apply(MANY, A)
    fake.fail("*", "/deployments/[0-9a-f]{8}", before="drop", times=9999)
    result = stage.apply(MANY, B)
    assert result.error and "Stopped after 0 of 20 changes" in str(result.error)
    assert AT_ONCE.attempts <= sum(r.method == "PATCH" for r in fake.requests if "/deployments/" in r.path) <= 4 * 8


def test_an_interrupt_while_several_write_is_recorded() -> None:
    """Ctrl-C reaches the main thread, while the others write."""
    fake = FakePrefect()
    stage = Stage(fake, at_a_time=4)
    stage.apply(MANY, A)
    count = 0

    def on_request(request: Any) -> None:
        nonlocal count
        count += request.method == "PATCH" and "/deployments/" in request.path
        if count == 5:
            fake.on_request = None
            signal.raise_signal(signal.SIGINT)

    fake.on_request = on_request
    result = stage.apply(MANY, B)
    assert result.error and result.error.exit_code == Exit.INTERRUPTED
    assert stage.releases()[0].result == "interrupted"
    assert stage.apply(MANY, B).error is None
    assert Stage(fake).plan(MANY, B).writes == ()
