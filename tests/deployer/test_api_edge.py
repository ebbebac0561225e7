"""The edge to Prefect's API: pages, retries, lost answers, wrong addresses and keys; each told in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from deployer import prefect_api
from deployer.environment import Api
from deployer.errors import DeployError, Exit, InvalidInput, Unreachable
from deployer.prefect_api import Client, Retry, connect
from tests.deployer.stage import AT_ONCE, URL, B, Stage, Wire, config, deployment, state
from tests.fake_prefect import FakePrefect
from tests.server import free_port


def client(fake: FakePrefect, faults: Any = None, **api: Any) -> Client:
    return Client(Api(url=URL, **api), Wire(fake, faults), AT_ONCE, sleep=lambda seconds: None)


def answering(status: int, **answer: Any) -> Client:
    """A client of a server that answers everything in this one way."""
    transport = httpx.MockTransport(lambda request: httpx.Response(status, **answer))
    return Client(Api(url=URL), transport, AT_ONCE, sleep=lambda seconds: None)


# -- pages


def test_more_than_a_page_is_read_whole(fake: FakePrefect) -> None:
    with fake.backstage as backstage:
        for number in range(450):
            backstage.post("/variables/", json={"name": f"v{number:03}", "value": number})
    found = list(client(fake).pages("/variables/filter"))
    assert sorted(v["value"] for v in found) == list(range(450))
    assert len(fake.requests) == 3


def test_a_full_last_page_is_followed_by_an_empty_one(fake: FakePrefect) -> None:
    with fake.backstage as backstage:
        for number in range(200):
            backstage.post("/variables/", json={"name": f"v{number:03}", "value": number})
    assert len(list(client(fake).pages("/variables/filter"))) == 200


def test_deployments_and_their_flows_are_found_beyond_the_first_page(fake: FakePrefect) -> None:
    with fake.backstage as backstage:
        for number in range(230):
            flow = backstage.post("/flows/", json={"name": f"flow-{number}"}).json()
            body = {"name": "d", "flow_id": flow["id"], "tags": ["env:dev", "project:scratch"]}
            backstage.post("/deployments/", json=body).raise_for_status()
    stage = Stage(fake)
    with stage.site() as site:
        found = prefect_api.read(site.client, (), (), site.scope)
    assert {name for _, name in found} == {f"flow-{number}/d" for number in range(230)}


# -- retries


@pytest.mark.parametrize("how", ["408", "429", "500", "502", "503", "504", "drop", "timeout"])
def test_what_may_pass_is_tried_again(fake: FakePrefect, how: str) -> None:
    tried = client(fake, {1: how, 2: how})
    assert tried.get("/health") is True
    assert tried.calls.retries == 2


@pytest.mark.parametrize("status", [400, 404, 409, 422])
def test_what_repeating_does_not_mend_is_not_tried_again(fake: FakePrefect, status: int) -> None:
    tried = client(fake, {1: str(status)})
    with pytest.raises(DeployError, match=f"GET /health was refused \\({status}\\)"):
        tried.get("/health")
    assert tried.calls.retries == 0


def test_a_server_that_never_answers_is_given_up_after_some_tries() -> None:
    waits: list[float] = []
    transport = httpx.MockTransport(lambda request: httpx.Response(503))
    tried = Client(Api(url=URL), transport, Retry(attempts=4), sleep=waits.append)
    with pytest.raises(Unreachable, match=r"did not answer GET /health in 4 tries: HTTP 503\. Is the server up"):
        tried.get("/health")
    assert len(waits) >= 3


def test_waits_grow_and_are_never_the_same_for_two() -> None:
    retry = Retry(base=0.2, cap=8.0)
    for attempt in range(12):
        waits = {retry.wait(attempt, None) for _ in range(50)}
        assert all(0 <= wait <= min(8.0, 0.2 * 2**attempt) for wait in waits)
        assert len(waits) == 50
    assert max(retry.wait(10, None) for _ in range(200)) > 4


@pytest.mark.parametrize(("said", "waited"), [("3", 3.0), ("0.5", 0.5), ("7200", 60.0)])
def test_a_server_that_says_when_to_come_back_is_obeyed(fake: FakePrefect, said: str, waited: float) -> None:
    waits: list[float] = []
    fake.fail("GET", "/health", before=429, retry_after=float(said))
    with Client(Api(url=URL), fake.transport, Retry(), sleep=waits.append) as tried:
        tried.get("/health")
    assert waits == [waited]


@pytest.mark.parametrize("said", ["soon", "Wed, 21 Oct 2026 07:28:00 GMT", "", "-1"])
def test_a_retry_after_that_is_no_number_is_passed_over(said: str) -> None:
    assert 0 <= Retry().wait(0, said) <= 0.2


def test_no_call_waits_for_ever(fake: FakePrefect) -> None:
    assert client(fake).http.timeout == httpx.Timeout(15.0)


# -- an answer was lost after the server did it

TRIGGER = {"name": "after-load", "type": "event", "expect": ["load.done"]}
EVERYTHING = config(
    deployment("hello", schedules=[{"cron": "0 1 * * *"}, {"interval": 3600}], triggers=[TRIGGER], queue="fast"),
    deployment("bye", concurrency_limit=2),
    work_pools={"alpha": {"name": "dev-alpha", "type": "process", "queues": {"fast": {"concurrency_limit": 1}}}},
    variables={"colour": "red"},
    secrets={"token": "${TOKEN:-}"},
    concurrency_limits={"db": {"limit": 3}},
    automations=[
        {
            "name": "on-failure",
            "trigger": {"posture": "Reactive", "expect": ["prefect.flow-run.Failed"]},
            "actions": [{"type": "run-deployment", "deployment": "bye"}],
        }
    ],
)
CREATIONS = [
    *("/variables/$", "/block_documents/$", "/v2/concurrency_limits/$", "/work_pools/$", "/queues$"),
    *("/flows/$", "/deployments/$", "/automations/$", "/artifacts/$"),
]


def staged(fake: FakePrefect, recorded: bool = False) -> Stage:
    return Stage(fake, {"TOKEN": "value-of-the-token"}, recorded)


@pytest.mark.parametrize("recorded", [False, True], ids=["by deploy()", "from the record"])
@pytest.mark.parametrize("how", ["drop", 503])
@pytest.mark.parametrize("path", CREATIONS)
def test_a_creation_whose_answer_was_lost_is_not_done_twice(path: str, how: Any, recorded: bool) -> None:
    fake, other = FakePrefect(), FakePrefect()
    fault = fake.fail("POST", path, after=how, times=2)
    assert staged(fake, recorded).apply(EVERYTHING).error is None
    staged(other, recorded).apply(EVERYTHING)
    assert fault.hits > 0
    assert state(fake) == state(other)
    assert artifacts(fake) == 2


def artifacts(fake: FakePrefect) -> int:
    with fake.backstage as backstage:
        return len(backstage.post("/artifacts/filter", json={}).json())


@pytest.mark.parametrize("how", ["drop", 503])
def test_schedules_without_slugs_are_not_made_twice(fake: FakePrefect, how: Any) -> None:
    stage = Stage(fake)
    stage.apply(config(deployment(schedules=[{"cron": "0 1 * * *"}])))
    fault = fake.fail("POST", "/schedules$", after=how, times=2)
    more = [{"cron": "0 1 * * *"}, {"cron": "0 2 * * *"}, {"interval": 60}, {"interval": 60, "parameters": {"x": 1}}]
    assert stage.apply(config(deployment(schedules=more)), B).error is None
    assert fault.hits > 0
    assert len(state(fake)["deployment", "hello/hello"]["schedules"]) == 4


@pytest.mark.parametrize("how", ["drop", 503])
def test_a_deletion_whose_answer_was_lost_is_done(fake: FakePrefect, how: Any) -> None:
    stage = staged(fake)
    pruned = {"policy": {"prune": "delete", "max_removals": "100%"}}
    stage.apply(EVERYTHING)
    faults = [fake.fail("DELETE", path, after=how) for path in ("/deployments/", "/automations/", "/variables/")]
    assert stage.apply(config(**pruned), B, allow_removals=True).error is None
    assert [fault.hits for fault in faults] == [1, 1, 1]
    assert {kind for kind, _ in state(fake)} == {"work_pool", "work_queue"}


def test_a_conflict_after_a_lost_answer_is_our_own_earlier_try(fake: FakePrefect) -> None:
    """The first answer is lost, and the read before the second try still shows nothing, as behind a replica."""
    seen: list[str] = []

    def found() -> Any:
        seen.append("asked")
        return None if len(seen) == 1 else {"id": "ours"}

    tried = client(fake, {1: "drop after"})
    assert tried.create("/variables/", {"name": "colour", "value": 1}, found) == {"id": "ours"}


def test_a_conflict_at_the_first_try_is_somebody_else(fake: FakePrefect) -> None:
    with fake.backstage as backstage:
        backstage.post("/variables/", json={"name": "colour", "value": 1})
    with pytest.raises(DeployError, match="already exists"):
        client(fake).create("/variables/", {"name": "colour", "value": 2}, lambda: {"id": "theirs"})


# -- retries exhausted


def test_before_the_first_write_it_is_exit_1_and_nothing_is_touched(fake: FakePrefect) -> None:
    fake.fail("POST", "/work_pools/filter", before=503, times=99)
    with pytest.raises(Unreachable) as failure:
        Stage(fake).apply(config(deployment()))
    assert failure.value.exit_code == Exit.INVALID
    assert fake.writes == []


def test_a_release_that_cannot_be_announced_changes_nothing(fake: FakePrefect) -> None:
    fake.fail("POST", "/artifacts/$", before=503, times=99)
    with pytest.raises(Unreachable) as failure:
        Stage(fake).apply(config(deployment()))
    assert failure.value.exit_code == Exit.INVALID
    assert state(fake) == {}


@pytest.mark.parametrize("path", ["/variables/$", "/deployments/$", "/automations/$"])
def test_once_something_was_touched_it_is_exit_4(fake: FakePrefect, path: str) -> None:
    fake.fail("POST", path, before=503, times=999)
    result = staged(fake).apply(EVERYTHING)
    assert result.error and result.error.exit_code == Exit.FAILED
    assert "What was written stays" in str(result.error) and "did not answer" in str(result.error)
    assert result.release and result.release.result == "failed"


def test_a_look_between_two_writes_that_fails_is_exit_4_too(fake: FakePrefect) -> None:
    fake.fail("POST", "/deployments/filter", before=503, times=99, skip=1)
    result = staged(fake).apply(EVERYTHING)
    assert result.error and result.error.exit_code == Exit.FAILED
    assert "Stopped after" in str(result.error) and "did not answer" in str(result.error)


def test_a_proof_that_cannot_be_read_is_exit_7(fake: FakePrefect) -> None:
    fake.fail("POST", "/variables/filter", before=503, times=99, skip=1)
    result = staged(fake).apply(EVERYTHING)
    assert result.error and result.error.exit_code == Exit.UNVERIFIED
    assert "All changes were written, but not proven" in str(result.error)
    assert result.release and result.release.result == "unverified"


def test_a_dead_api_is_not_asked_again_for_each_deployment(fake: FakePrefect) -> None:
    fake.fail("POST", "/flows/$", before=503, times=999)
    many = [deployment(f"d{number}") for number in range(20)]
    result = Stage(fake).apply(config(*many))
    assert all(o.result == "failed" for o in result.outcomes if o.kind == "deployment")
    assert sum(str(r) == "POST /flows/" for r in fake.requests) == AT_ONCE.attempts


# -- the wrong address, the wrong key, the wrong server

HTML = {"text": "<!doctype html><html>", "headers": {"Content-Type": "text/html"}}
WRONG = [
    (200, HTML, "answers, but not as a Prefect API: text/html. The address should end in /api."),
    (200, {"json": {"detail": "hello"}}, "answers, but not as a Prefect API. The address should end in /api."),
    (404, {"json": {"detail": "Not Found"}}, "not as a Prefect API (HTTP 404). The address should end in /api."),
    (405, HTML, "not as a Prefect API (HTTP 405). The address should end in /api."),
    (301, {"headers": {"Location": "https://x/api"}}, "redirects to https://x/api. Give the final address of the API."),
    (401, {"json": {}}, "refuses the credentials (401). Check api.key (PREFECT_API_KEY) or api.auth_string"),
    (403, {"json": {"detail": "Forbidden"}}, "forbids GET /admin/version (403). The key lacks the right"),
    (200, {"json": "3.7.12"}, "is Prefect 3.7.12, older than this client's"),
    (200, {"json": "2.20.1"}, "is Prefect 2.20.1, older than this client's"),
    (503, {}, "did not answer GET /admin/version in 8 tries: HTTP 503. Is the server up, and not overloaded?"),
]


@pytest.mark.parametrize(("status", "answer", "sentence"), WRONG, ids=[w[2][:40] for w in WRONG])
def test_a_wrong_server_is_told_in_one_sentence(status: int, answer: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Unreachable) as failure:
        connect(answering(status, **answer))
    assert sentence in str(failure.value) and URL in str(failure.value)
    assert failure.value.exit_code == Exit.INVALID and "\n" not in str(failure.value)


@pytest.mark.parametrize("version", ["3.8.0", "3.8.8", "3.9.1", "4.0.0", "3.8.8+12.gabc"])
def test_a_server_of_this_version_or_newer_is_fine(version: str) -> None:
    assert connect(client(FakePrefect(version))) == version


def test_nobody_there_is_told_in_one_sentence() -> None:
    url = f"http://127.0.0.1:{free_port()}/api"
    with (
        Client(Api(url=url), retry=AT_ONCE, sleep=lambda seconds: None) as tried,
        pytest.raises(Unreachable, match=f"{url} did not answer GET /admin/version in 8 tries: no connection"),
    ):
        connect(tried)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:4200/api", "ftp://x/api", "http:///api", "prefect", "https:// x", "http://x/api?a=1"]
)
def test_an_address_that_is_none_is_an_error_and_no_server_is_started(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"is no http\(s\) URL. Set api.url \(PREFECT_API_URL\)"):
        Client(Api(url=url))


def test_a_trailing_slash_makes_no_difference(fake: FakePrefect) -> None:
    assert connect(Client(Api(url=URL + "/"), fake.transport)) == fake.version


def test_cloud_is_not_asked_for_its_version() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, json=[])

    url = "https://api.prefect.cloud/api/accounts/1/workspaces/2"
    assert connect(Client(Api(url=url, key="pnu_x"), httpx.MockTransport(answer))) == "cloud"
    assert asked == ["/api/accounts/1/workspaces/2/work_pools/filter"]


def test_the_token_of_a_server_with_csrf_protection_goes_with_each_call() -> None:
    seen: list[tuple[str | None, str | None]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.headers.get("Prefect-Csrf-Token"), request.headers.get("Prefect-Csrf-Client")))
        answers = {"/api/admin/version": "3.8.8", "/api/csrf-token": {"token": "t0k3n"}}
        return httpx.Response(200, json=answers.get(request.url.path, []))

    protected = Client(Api(url=URL), httpx.MockTransport(answer), AT_ONCE)
    connect(protected)
    protected.get("/anything")
    assert seen == [(None, None), (None, None), ("t0k3n", "prefect-platform")]


# -- credentials

KEY, AUTH = "pnu_0123456789abcdef", "ada:pa55word"
GIVEN = [{"key": KEY}, {"auth_string": AUTH}]


@pytest.mark.parametrize("given", GIVEN, ids=["key", "auth_string"])
def test_credentials_reach_the_server(fake: FakePrefect, given: dict[str, str]) -> None:
    fake.api_key, fake.auth = given.get("key"), given.get("auth_string")
    assert connect(client(fake, **given)) == fake.version
    with pytest.raises(Unreachable, match="401"):
        connect(client(fake))


@pytest.mark.parametrize("given", GIVEN, ids=["key", "auth_string"])
@pytest.mark.parametrize("status", [200, 301, 400, 401, 403, 404, 422, 503])
def test_no_error_tells_a_credential(status: int, given: dict[str, str]) -> None:
    echo: Callable[[httpx.Request], httpx.Response] = lambda request: httpx.Response(  # noqa: E731
        status, json={"exception_message": "no", "request_headers": dict(request.headers)}
    )
    tried = Client(Api(url=URL, **given), httpx.MockTransport(echo), AT_ONCE, sleep=lambda seconds: None)
    with pytest.raises(DeployError) as failure:
        connect(tried)
    said = f"{failure.value} {failure.value!r} {tried.calls}"
    assert KEY not in said and "pa55word" not in said


def test_a_credential_in_the_address_is_refused_unshown() -> None:
    with pytest.raises(InvalidInput, match=r"api\.auth_string") as failure:
        Client(Api(url="https://ada:pa55word@prefect.example.invalid/api"))
    assert "pa55word" not in str(failure.value)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"exception_detail": [{"loc": ["body", "name"], "msg": "too long", "input": "hush"}]}, "body.name: too long"),
        ({"exception_detail": "one fault", "request_body": "hush"}, "one fault"),
        ({"detail": "Block already exists"}, "Block already exists"),
        ({"exception_message": "Internal Server Error", "request_body": "hush"}, "Internal Server Error"),
        ({"request_body": {"value": "hush"}}, "no reason given"),
        ({"exception_detail": [{"input": "hush"}]}, ": None"),
        (["a", "b"], "a; b"),
    ],
)
def test_a_refusal_gives_the_servers_reason_and_not_what_was_sent(answer: Any, told: str) -> None:
    with pytest.raises(DeployError) as failure:
        answering(422, json=answer).get("/x")
    assert str(failure.value) == f"GET /x was refused (422): {told}"


def test_a_refusal_that_is_no_json_gives_its_first_line() -> None:
    with pytest.raises(DeployError, match=r"refused \(418\): I am a teapot$"):
        answering(418, text="I am a teapot\nand more").get("/x")


def test_a_credential_that_was_pasted_with_a_line_break_works() -> None:
    assert Api(url=f"{URL}\n", key=" pnu_key\r\n") == Api(url=URL, key="pnu_key")


@pytest.mark.parametrize("given", [{"key": "pnu_\nhunter"}, {"key": "schl\u00fcssel"}, {"auth_string": "u:\x00p"}])
def test_a_credential_that_cannot_be_sent_is_told_and_not_shown(given: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="holds a character that none has") as error:
        Client(Api(url=URL, **given))
    assert not any(part in str(error.value) for value in given.values() for part in value.split())


@pytest.mark.parametrize(
    "url", ["http://[::1/api", "http://127.0.0.1\n:4200/api", "http://a..b/api", f"http://{'a' * 64}/api"]
)
def test_an_address_that_is_none_is_told(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"cannot be used|is no http"):
        Client(Api(url=url))


@pytest.mark.parametrize("answer", [{}, [], None, {"token": 5}])
def test_a_strange_answer_to_the_question_for_a_token_is_as_good_as_none(answer: Any) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json="3.8.8" if request.url.path.endswith("version") else answer)

    tried = Client(Api(url=URL), httpx.MockTransport(handle), AT_ONCE, sleep=lambda seconds: None)
    assert connect(tried) == "3.8.8" and tried.csrf == {}


def test_what_the_server_cannot_do_is_told_of_that_change_and_the_others_go_on(fake: FakePrefect) -> None:
    """A 500 that stays is no API that is gone."""
    stage, wanted = Stage(fake), config(*(deployment(name) for name in ("a", "b", "c")))
    stage.apply(wanted)
    fake.fail("PATCH", "/deployments/[0-9a-f]{8}", before=500, times=AT_ONCE.attempts)
    result = stage.apply(wanted, B)
    assert [outcome.result for outcome in result.outcomes] == ["failed", "done", "done"]
    assert "failed in the server (500)" in str(result.error)
