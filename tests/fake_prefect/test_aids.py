"""What a test can do with the fake: look on, interfere, set the clock. How it answers is in test_fake_is_honest.py."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.fake_prefect import FakePrefect, Recorded


def names(fake: FakePrefect) -> list[str]:
    return [flow["name"] for flow in fake.backstage.post("/flows/filter").json()]


def test_requests_are_recorded_with_what_was_sent(fake: FakePrefect) -> None:
    fake.client().post("/flows/", json={"name": "a"})
    fake.client().get("/health")
    assert fake.requests == [
        Recorded("POST", "/flows/", {"name": "a"}, writes=True),
        Recorded("GET", "/health", None, writes=False),
    ]


def test_reads_by_post_are_no_writes(fake: FakePrefect) -> None:
    client = fake.client()
    for kind in ("flows", "deployments", "work_pools", "artifacts/latest", "v2/concurrency_limits", "flow_runs"):
        client.post(f"/{kind}/filter", json={})
    assert len(fake.requests) == 6
    assert fake.writes == []


def test_refused_writes_are_writes_too(fake: FakePrefect) -> None:
    fake.client().post("/flows/", json={"nope": 1})
    assert [str(request) for request in fake.writes] == ["POST /flows/"]


def test_forget_starts_a_new_record(fake: FakePrefect) -> None:
    fake.client().get("/health")
    fake.forget()
    assert fake.requests == []


def test_backstage_is_not_recorded_never_fails_and_needs_no_key(fake: FakePrefect) -> None:
    fake.auth = "user:pw"
    fake.fail("*", ".*", before=503, times=99)
    assert fake.backstage.post("/flows/", json={"name": "a"}).status_code == 201
    assert fake.requests == []


@pytest.mark.parametrize("how", [500, 503, 429])
def test_a_failure_before_the_work_leaves_nothing_behind(fake: FakePrefect, how: int) -> None:
    fault = fake.fail("POST", "/flows/$", before=how)
    assert [fake.client().post("/flows/", json={"name": "a"}).status_code for _ in range(2)] == [how, 201]
    assert fault.hits == 1


@pytest.mark.parametrize("how", [503, 502])
def test_a_failure_after_the_work_only_loses_the_answer(fake: FakePrefect, how: int) -> None:
    fake.fail("POST", "/flows/$", after=how)
    assert fake.client().post("/flows/", json={"name": "a"}).status_code == how
    assert names(fake) == ["a"]


def test_a_failure_can_say_when_to_come_back(fake: FakePrefect) -> None:
    fake.fail("GET", "/health", before=429, retry_after=2)
    assert fake.client().get("/health").headers["Retry-After"] == "2"


@pytest.mark.parametrize("lost", [False, True])
def test_a_connection_can_drop_before_and_after_the_work(fake: FakePrefect, lost: bool) -> None:
    fake.fail("POST", "/flows/$", after="drop") if lost else fake.fail("POST", "/flows/$", before="drop")
    with pytest.raises(httpx.RemoteProtocolError):
        fake.client().post("/flows/", json={"name": "a"})
    assert names(fake) == (["a"] if lost else [])


def test_a_request_can_take_longer_than_its_client_waits(fake: FakePrefect) -> None:
    fake.fail("POST", "/flows/$", after="timeout")
    with pytest.raises(httpx.ReadTimeout):
        fake.client().post("/flows/", json={"name": "a"})
    assert names(fake) == ["a"]


def test_a_failure_can_let_some_pass_and_hit_several(fake: FakePrefect) -> None:
    fake.fail("*", "/(health|ready)", before=503, skip=1, times=2)
    assert [fake.client().get(path).status_code for path in ("/health", "/ready", "/health", "/ready")] == [
        *(200, 503, 503, 200)
    ]


def test_a_failure_is_either_before_or_after(fake: FakePrefect) -> None:
    with pytest.raises(ValueError, match="either before or after"):
        fake.fail("GET", "/health")


def test_a_hook_sees_each_request_and_can_end_the_client_at_the_nth(fake: FakePrefect) -> None:
    def kill_at_the_second(request: Recorded) -> None:
        if len(fake.requests) == 2:
            raise KeyboardInterrupt

    fake.on_request = kill_at_the_second
    fake.client().post("/flows/", json={"name": "a"})
    with pytest.raises(KeyboardInterrupt):
        fake.client().post("/flows/", json={"name": "b"})
    assert names(fake) == ["a"]


def test_a_bearer_key_is_asked_for_when_there_is_one(fake: FakePrefect) -> None:
    fake.api_key = "pnu_secret"
    assert fake.client().get("/admin/version").status_code == 401
    assert fake.client().get("/admin/version", headers={"Authorization": "Bearer pnu_secret"}).json() == "3.8.8"


def test_the_version_can_be_another(fake: FakePrefect) -> None:
    fake.version = "3.7.0"
    assert fake.client().get("/admin/version").json() == "3.7.0"


def test_the_clock_stands_where_a_test_sets_it(fake: FakePrefect) -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    fake.now = noon
    first, second = (fake.backstage.post("/flows/", json={"name": name}).json()["created"] for name in "ab")
    assert first == "2026-03-01T12:00:00Z"
    assert noon < datetime.fromisoformat(second) < noon + timedelta(seconds=1)
    fake.now = None
    assert abs(fake.now - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_run_becomes_overdue_when_the_clock_passes_it(fake: FakePrefect) -> None:
    fake.now = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
    api = fake.backstage
    flow = api.post("/flows/", json={"name": "a"}).json()
    body = {"name": "d", "flow_id": flow["id"], "schedules": [{"schedule": {"cron": "* * * * *"}}]}
    deployment = api.post("/deployments/", json=body).json()
    api.post(f"/deployments/{deployment['id']}/schedule", json={})
    fake.now = datetime(2026, 3, 1, 12, 1, 30, tzinfo=UTC)
    api.patch(f"/deployments/{deployment['id']}", json={})
    left = api.post("/flow_runs/filter", json={}).json()
    assert [run["expected_start_time"] for run in left] == ["2026-03-01T12:01:00Z"]


def test_what_the_fake_does_not_play_is_no_missing_thing(fake: FakePrefect) -> None:
    answer = fake.client().get("/saved_searches/")
    assert answer.status_code == 501
    assert "The fake has no GET /saved_searches/" in answer.json()["detail"]


def test_an_async_client_gets_the_same_answers(fake: FakePrefect) -> None:
    async def version() -> str:
        async with httpx.AsyncClient(transport=fake.transport, base_url="http://fake/api") as client:
            return str((await client.get("/admin/version")).json())

    assert asyncio.run(version()) == "3.8.8"


def test_many_threads_make_one_flow_of_one_name(fake: FakePrefect) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: fake.client().post("/flows/", json={"name": "a"}), range(64)))
    assert sorted(answer.status_code for answer in answers) == [200] * 63 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_another_process_can_talk_to_it(fake: FakePrefect) -> None:
    code = "import httpx, sys; print(httpx.post(sys.argv[1] + '/flows/', json={'name': 'a'}).status_code)"
    with fake.serve() as url:
        done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "201"
    assert names(fake) == ["a"]


def test_served_it_drops_connections_and_keeps_clients_waiting(fake: FakePrefect) -> None:
    fake.fail("POST", "/flows/$", before="drop")
    fake.fail("POST", "/flows/$", after="timeout")
    with fake.serve() as url, httpx.Client(base_url=url, timeout=30) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            client.post("/flows/", json={"name": "a"})
        assert names(fake) == []
        with pytest.raises(httpx.ReadTimeout):
            client.post("/flows/", json={"name": "a"}, timeout=2)
        assert names(fake) == ["a"]
        assert client.post("/flows/", json={"name": "b"}).status_code == 201


def test_served_it_ends_with_its_block(fake: FakePrefect) -> None:
    with fake.serve() as url:
        assert httpx.get(f"{url}/health").json() is True
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")
