"""The relay lends the loader what creating the planned deployments needs, and not a call more."""

from __future__ import annotations

import socket
import threading
from base64 import b64encode
from collections.abc import Iterator

import httpx
import pytest

from deployer.environment import Api
from deployer.prefect_api import Client, Retry
from deployer.prefect_api.relay import Relay, open_relay
from tests.fake_prefect import FakePrefect

KEY = "pnu_s3same"


@pytest.fixture
def client(fake: FakePrefect) -> Iterator[Client]:
    fake.api_key = KEY
    api = Api(url="http://fake-prefect/api", key=KEY)
    with Client(api, fake.transport, Retry(attempts=3, base=0.0), lambda seconds: None) as client:
        yield client


@pytest.fixture
def relay(client: Client, fake: FakePrefect) -> Iterator[Relay]:
    with open_relay(client, frozenset({"hello/hello"})) as relay:
        fake.forget()
        yield relay


@pytest.fixture
def loader(relay: Relay) -> Iterator[httpx.Client]:
    """What the loader has in its hands."""
    with httpx.Client(base_url=relay.access["url"], auth=("relay", relay.password), trust_env=False) as client:
        yield client


def flow(loader: httpx.Client) -> str:
    return str(loader.post("/flows/", json={"name": "hello"}).raise_for_status().json()["id"])


def test_a_planned_deployment_is_created_with_credentials_that_the_loader_does_not_have(
    relay: Relay, loader: httpx.Client, fake: FakePrefect
) -> None:
    made = loader.post("/deployments/", json={"name": "hello", "flow_id": flow(loader)})
    assert made.status_code == 201 and set(relay.created) == {"hello"}
    assert KEY not in repr(relay.access) + made.text + str(made.headers)
    with fake.backstage as backstage:
        assert [d["name"] for d in backstage.post("/deployments/filter", json={}).json()] == ["hello"]


def test_another_name_is_refused_and_never_sent(relay: Relay, loader: httpx.Client, fake: FakePrefect) -> None:
    refused = loader.post("/deployments/", json={"name": "other", "flow_id": flow(loader)})
    assert refused.status_code == 403 and "'other' is not planned" in refused.json()["detail"]
    assert [str(r) for r in fake.requests] == ["POST /flows/"] and not relay.created


@pytest.mark.parametrize("body", [[], "hello", {}, {"name": ["hello"]}, {"name": None}, None])
def test_a_body_that_is_no_deployment_is_refused(loader: httpx.Client, fake: FakePrefect, body: object) -> None:
    assert loader.post("/deployments/", json=body).status_code in (400, 403)
    assert fake.requests == []


ID = "0f1e2d3c-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/block_documents/"),
        ("POST", "/block_documents/filter"),
        ("POST", "/deployments/filter"),
        ("POST", "/variables/"),
        ("POST", "/artifacts/"),
        ("DELETE", f"/deployments/{ID}"),
        ("PATCH", f"/deployments/{ID}"),
        ("PUT", "/work_pools/alpha"),
        ("DELETE", "/work_pools/alpha"),
        ("POST", "/work_pools/"),
        ("POST", f"/deployments/{ID}/create_flow_run"),
        ("DELETE", f"/automations/{ID}"),
        ("DELETE", "/automations/owned-by/prefect.deployment.x"),
        ("GET", "/work_pools/../block_documents/filter"),
        ("GET", "/work_pools/..%2fblock_documents"),
        ("GET", "/work_pools/alpha?x=1"),
        ("POST", "/work_pools/..%2f..%2fvariables/workers/filter"),
        ("POST", "/deployments//"),
        ("POST", "/deployments/?name=hello"),
        ("HEAD", "/admin/version"),
        ("OPTIONS", "/deployments/"),
    ],
)
def test_what_creating_does_not_need_is_refused_and_never_sent(
    relay: Relay, fake: FakePrefect, method: str, path: str
) -> None:
    """Spoken by hand: a client would tidy the path up."""
    assert raw(relay, method, path) in (b"401", b"403", b"501")
    assert fake.requests == []


def raw(relay: Relay, method: str, path: str) -> bytes:
    word = b64encode(f"relay:{relay.password}".encode()).decode()
    lines = [f"{method} /api{path} HTTP/1.1", "Host: relay", f"Authorization: Basic {word}", "Connection: close"]
    with socket.create_connection(("127.0.0.1", relay.port)) as connection:
        connection.sendall("\r\n".join([*lines, "Content-Length: 16", "", '{"name":"hello"}']).encode())
        return connection.makefile("rb").readline().split()[1]


@pytest.mark.parametrize("auth", [None, ("relay", ""), ("relay", "wrong"), ("other", "wrong"), ("relay", "ü")])
def test_without_the_password_of_this_relay_nothing_goes(
    relay: Relay, fake: FakePrefect, auth: tuple[str, str] | None
) -> None:
    answer = httpx.post(f"{relay.access['url']}/flows/", auth=auth, json={"name": "hello"}, trust_env=False)
    assert answer.status_code == 401 and fake.requests == []


def test_a_header_that_is_no_text_is_refused_too(relay: Relay, fake: FakePrefect) -> None:
    headers = {b"Authorization": "Basic ü".encode()}
    answer = httpx.post(f"{relay.access['url']}/flows/", headers=headers, json={"name": "x"}, trust_env=False)
    assert answer.status_code == 401 and fake.requests == []


def test_each_relay_has_a_password_of_its_own(client: Client, relay: Relay) -> None:
    with open_relay(client, frozenset()) as other:
        assert len(relay.password) > 24 and other.password != relay.password
        url = f"{other.access['url']}/admin/version"
        assert httpx.get(url, auth=("relay", relay.password), trust_env=False).status_code == 401


def test_it_listens_on_this_machine_only_and_for_the_time_of_creating(client: Client) -> None:
    with open_relay(client, frozenset()) as relay:
        assert relay.access["url"] == f"http://127.0.0.1:{relay.port}/api"
    with pytest.raises(httpx.ConnectError):
        httpx.get(relay.access["url"], trust_env=False)


def test_a_refusal_of_the_api_is_kept_with_the_deployments_name(
    relay: Relay, loader: httpx.Client, fake: FakePrefect
) -> None:
    answer = loader.post("/deployments/", json={"name": "hello", "flow_id": flow(loader), "work_pool_name": "none"})
    assert answer.status_code == 404 and "none" in answer.json()["detail"]
    assert set(relay.failed) == {"hello"} and not relay.created


def test_a_second_try_that_succeeds_takes_the_refusal_of_the_first_back(
    relay: Relay, loader: httpx.Client, fake: FakePrefect
) -> None:
    """Where one of several fails, all are asked for again one by one."""
    fake.fail("POST", "/deployments/$", before=422)
    body = {"name": "hello", "flow_id": flow(loader)}
    assert [loader.post("/deployments/", json=body).status_code for _ in range(2)] == [422, 201]
    assert set(relay.created) == {"hello"} and not relay.failed


def test_when_the_api_is_gone_the_rest_is_not_tried(relay: Relay, loader: httpx.Client, fake: FakePrefect) -> None:
    fake.fail("POST", "/flows/", before=503, times=99)
    first = loader.post("/flows/", json={"name": "hello"})
    asked = len(fake.requests)
    second = loader.post("/flows/", json={"name": "hello"})
    assert (first.status_code, second.status_code) == (400, 400)
    assert relay.fatal and "3 tries" in str(relay.fatal) and len(fake.requests) == asked == 3


def test_a_call_that_the_server_missed_is_repeated(loader: httpx.Client, fake: FakePrefect) -> None:
    fault = fake.fail("POST", "/flows/", before=503)
    assert flow(loader) and fault.hits == 1


def trigger(id: str, **changes: object) -> dict[str, object]:
    """An automation as `.deploy()` sends it for a trigger of the deployment."""
    on = {"type": "event", "posture": "Reactive", "expect": ["order.paid"], "threshold": 1, "within": 0}
    run = {"type": "run-deployment", "source": "selected", "deployment_id": id}
    return {"name": "on-paid", "trigger": on, "actions": [run], "owner_resource": f"prefect.deployment.{id}", **changes}


def test_an_automation_whose_answer_got_lost_is_not_made_twice(loader: httpx.Client, fake: FakePrefect) -> None:
    id = loader.post("/deployments/", json={"name": "hello", "flow_id": flow(loader)}).json()["id"]
    fake.fail("POST", "/automations/$", after="drop")
    assert loader.post("/automations/", json=trigger(id)).status_code == 201
    with fake.backstage as backstage:
        assert len(backstage.post("/automations/filter", json={}).json()) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"owner_resource": f"prefect.deployment.{ID}"},
        {"owner_resource": None},
        {"actions": [{"type": "run-deployment", "source": "selected", "deployment_id": ID}]},
        {"actions": [{"type": "do-nothing"}]},
        {"actions": []},
        {"actions": ["run-deployment"]},
        {"actions": None},
        {"actions_on_trigger": [{"type": "pause-automation"}]},
        {"actions_on_resolve": [{"type": "pause-automation"}]},
    ],
    ids=str,
)
def test_an_automation_that_is_no_trigger_of_what_was_created_is_refused(
    loader: httpx.Client, fake: FakePrefect, changes: dict[str, object]
) -> None:
    id = loader.post("/deployments/", json={"name": "hello", "flow_id": flow(loader)}).json()["id"]
    fake.forget()
    assert loader.post("/automations/", json=trigger(id, **changes)).status_code == 403
    assert fake.requests == []


def test_a_planned_name_under_another_flow_is_refused(loader: httpx.Client, fake: FakePrefect) -> None:
    assert loader.post("/flows/", json={"name": "other"}).status_code == 403
    assert loader.post("/deployments/", json={"name": "hello", "flow_id": ID}).status_code == 403
    assert fake.requests == []


def test_many_may_ask_at_once(loader: httpx.Client) -> None:
    answers: list[int] = []

    def ask() -> None:
        answers.append(loader.post("/flows/", json={"name": "hello"}).status_code)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [201] * 8


def test_what_is_no_json_is_refused(loader: httpx.Client, fake: FakePrefect) -> None:
    assert loader.post("/flows/", content=b"{").status_code == 400
    assert fake.requests == []
