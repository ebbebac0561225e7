"""scripts/github.py image against a fake registry: which digest a tag has, and what it means that it has none."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts import github as program
from scripts import github_registry as registry
from scripts.github_rest import GitHubError
from tests.fake_prefect.serving import served
from tests.github.registry import EXCHANGED, TOKEN, USER, FakeRegistry

COMMIT = "a" * 40
MANIFEST = b'{"schemaVersion": 2}'
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"


@pytest.fixture(scope="module")
def there() -> Iterator[list[FakeRegistry]]:
    fakes: list[FakeRegistry] = []
    with served(lambda request: fakes[-1].handle(request)) as url:
        fakes.append(FakeRegistry(url))
        yield fakes


@pytest.fixture
def fake(there: list[FakeRegistry]) -> FakeRegistry:
    there.append(FakeRegistry(there[0].url, tags={f"sha-{COMMIT}": MANIFEST}, says=DIGEST))
    return there[-1]


Look = Callable[..., tuple[int, str, str]]


@pytest.fixture
def look(fake: FakeRegistry, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Look:
    """The exit code, what was said, and the step's output."""

    def call(tag: str = f"sha-{COMMIT}", build: str = "false", **environ: str) -> tuple[int, str, str]:
        output = tmp_path / "output"
        output.write_text("")
        known = {"GITHUB_OUTPUT": str(output), "REGISTRY_USERNAME": USER, "REGISTRY_PASSWORD": TOKEN}
        words = ["image", "--image", f"{fake.url.removeprefix('http://')}/team/flows:{tag}", "--build", build]
        code = program.main(words, {**known, **environ}, lambda seconds: None)
        said = "".join(capfd.readouterr())
        assert TOKEN not in said and EXCHANGED not in said and "Traceback" not in said
        return code, said, output.read_text()

    return call


@pytest.mark.parametrize("auth", ["bearer", "basic", "none"])
@pytest.mark.parametrize("build", ["true", "false"])
def test_an_image_that_is_there_is_taken(fake: FakeRegistry, look: Look, auth: str, build: str) -> None:
    fake.auth = auth
    assert look(build=build) == (0, look()[1], f"digest={DIGEST}\n")


def test_a_registry_need_not_say_the_digest_but_must_not_say_a_wrong_one(fake: FakeRegistry, look: Look) -> None:
    fake.says = None
    assert look()[2] == f"digest={DIGEST}\n"
    fake.says = f"sha256:{'0' * 64}"
    code, said, output = look()
    assert (code, output) == (1, "") and "and what it sends has sha256:" in said


def test_an_image_that_is_not_there_is_to_be_built(look: Look) -> None:
    code, said, output = look(tag="sha-other", build="true")
    assert (code, output) == (0, "digest=\n") and "is not there yet" in said


def test_production_fails_without_its_image_and_says_what_to_do(look: Look) -> None:
    code, said, output = look(tag="sha-other")
    assert (code, output) == (1, "") and said.count("::error::") == 1
    assert "For production none is built" in said and "Deploy the commit to an environment that builds it" in said


@pytest.mark.parametrize("environ", [{}, {"REGISTRY_PASSWORD": "wrong"}, {"REGISTRY_PASSWORD": ""}])
def test_an_image_that_is_not_shown_stops_production_and_is_built_elsewhere(
    fake: FakeRegistry, look: Look, environ: dict[str, str]
) -> None:
    fake.shown = bool(environ)
    code, said, output = look(**environ)
    assert (code, output) == (1, "") and "packages: read" in said and "::error::" in said
    code, said, output = look(build="true", **environ)
    assert (code, output) == (0, "digest=\n") and "::error::" not in said and "taken for not there" in said


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_stumble_is_tried_again(fake: FakeRegistry, look: Look, status: int) -> None:
    fake.failures = [status] * 2
    assert look()[2] == f"digest={DIGEST}\n" and len(fake.requests) == 5


def test_a_registry_that_stays_away_fails_and_nothing_is_built_for_that(fake: FakeRegistry, look: Look) -> None:
    fake.failures = [503] * 5
    code, said, output = look(build="true")
    assert (code, output) == (1, "") and "does not answer (status 503, 5 times)" in said


@pytest.mark.parametrize("status", [301, 400, 418])
def test_what_is_no_registry_is_told(fake: FakeRegistry, look: Look, status: int) -> None:
    fake.failures = [status]
    code, said, output = look(build="true")
    assert (code, output) == (1, "") and f"answers {status}" in said


def test_credentials_are_sent_to_no_address_where_others_could_read_them(fake: FakeRegistry, look: Look) -> None:
    fake.url, before = "http://registry.example", fake.url
    image = registry.parse(f"{before.removeprefix('http://')}/team/flows:x")
    known = {"REGISTRY_USERNAME": USER, "REGISTRY_PASSWORD": TOKEN}
    with pytest.raises(GitHubError, match="in a way that is not known here"):
        registry.digest(image, known, lambda seconds: None)


@pytest.mark.parametrize("token", [f"{EXCHANGED}\r\n", f"{EXCHANGED} x", "t\u00f6ken", ["a"], 7])
def test_a_token_that_no_header_can_hold_is_told_and_not_shown(fake: FakeRegistry, look: Look, token: object) -> None:
    fake.gives = token
    code, said, output = look(build="true")
    assert (code, output) == (1, "") and "gives a token that is none (200). Is it a registry?" in said


def test_githubs_token_is_for_githubs_registry_only() -> None:
    job = {"GITHUB_ACTOR": "ada", "GITHUB_TOKEN": TOKEN}
    assert registry._basic("registry.example", job) == {} != registry._basic("ghcr.io", job)
    own = {**job, "REGISTRY_USERNAME": "me", "REGISTRY_PASSWORD": "word"}
    given = {registry._basic(host, own)["Authorization"] for host in ("ghcr.io", "registry.example")}
    assert given == {f"Basic {base64.b64encode(b'me:word').decode()}"}


def test_a_registry_elsewhere_is_spoken_with_over_https() -> None:
    addresses = {name: registry.parse(f"{name}/a/b:c").manifest for name in ("ghcr.io", "docker.io", "127.0.0.1:5000")}
    assert addresses == {
        "ghcr.io": "https://ghcr.io/v2/a/b/manifests/c",
        "docker.io": "https://registry-1.docker.io/v2/a/b/manifests/c",
        "127.0.0.1:5000": "http://127.0.0.1:5000/v2/a/b/manifests/c",
    }


@pytest.mark.parametrize(
    "text",
    ["flows", "team/flows:x", "ghcr.io/Team/flows:x", "ghcr.io/team/flows", "ghcr.io/a/../b:x", "ghcr.io/a:x\ny"],
)
def test_what_is_no_image_is_not_asked_for(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert program.main(["image", "--image", text, "--build", "true"], {}) == 1
    said = capfd.readouterr().out
    assert said.count("::error::source.image comes to ") == 1 and "is no image like ghcr.io/team/flows:sha-" in said
