"""Reading ahead of need: what was asked for early is taken once, and fails where it is taken."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deployer.environment import Api
from deployer.errors import Unreachable
from deployer.prefect_api import Client, Retry
from tests.fake_prefect import FakePrefect

FLOWS = {"flows": {"name": {"any_": ["hello"]}}}


@pytest.fixture
def client(fake: FakePrefect) -> Iterator[Client]:
    with Client(
        Api(url="http://fake/api"), fake.transport, Retry(attempts=3, base=0.0), lambda seconds: None
    ) as client:
        client.create("/flows/", {"name": "hello"}, lambda: None)
        fake.forget()
        yield client


def names(client: Client) -> list[str]:
    return [flow["name"] for flow in client.pages("/flows/filter", FLOWS)]


def test_what_was_read_early_is_not_read_again(client: Client, fake: FakePrefect) -> None:
    client.early("/flows/filter", FLOWS)
    assert names(client) == ["hello"] and len(fake.requests) == 1


def test_what_was_read_early_is_taken_once_so_that_a_proof_reads_what_is_live(
    client: Client, fake: FakePrefect
) -> None:
    client.early("/flows/filter", FLOWS)
    assert names(client) == names(client) and len(fake.requests) == 2


def test_something_else_is_read_by_itself(client: Client, fake: FakePrefect) -> None:
    client.early("/flows/filter", {})
    assert names(client) == ["hello"] and len(list(client.pages("/flows/filter", {}))) == 1
    assert len(fake.requests) == 2


def test_a_failure_is_told_to_whoever_takes_the_answer(client: Client, fake: FakePrefect) -> None:
    fake.fail("POST", "/flows/filter", before=503, times=99)
    client.early("/flows/filter", FLOWS)
    with pytest.raises(Unreachable, match="3 tries"):
        names(client)
