"""Several writes at a time, as long as the API bears it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from deployer.prefect_api import Client

T = TypeVar("T")

MOST = 4
"""One server's processor is busy with two; replicas behind one address take more."""

CLEAN = 8
"""So many writes in a row without a repetition allow one more at a time."""


def several(client: Client, jobs: Iterable[Callable[[], T]], most: int) -> Iterator[T]:
    """The jobs' results as they come. It begins with one at a time, and ends with `most` where all goes well.

    From the first call on that had to be repeated it is one at a time again: a server on SQLite refuses writes that come together,
    and one that is told to slow down wants less. Each job is taken when it can begin. After an interrupt or a failure no
    further one begins, and those that run are waited for: what they wrote is told.
    """
    if most == 1:
        yield from (job() for job in jobs)
        return
    before, begun = client.calls.retries, 0
    running: set[Future[T]] = set()
    with ThreadPoolExecutor(most) as pool:
        try:
            for job in jobs:
                while len(running) >= (min(most, 1 + begun // CLEAN) if client.calls.retries == before else 1):
                    yield from _finished(running)
                running.add(pool.submit(job))
                begun += 1
            while running:
                yield from _finished(running)
        except GeneratorExit:
            raise
        except BaseException as stop:
            if isinstance(stop, KeyboardInterrupt):
                client.hurry()
            yield from [job.result() for job in wait(running).done if not job.exception()]
            raise


def _finished(running: set[Future[T]]) -> list[T]:
    done = wait(running, return_when=FIRST_COMPLETED).done
    running -= done
    return [job.result() for job in done]
