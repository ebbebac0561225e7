"""scripts/github.py image against a real container registry: Debian's docker-registry, with a password."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from scripts import github

pytestmark = pytest.mark.stack

REASON = "docker-registry is not on this machine (apt install docker-registry)"
USER, PASSWORD = "ada", "word"
HASHED = "$2a$05$abcdefghijklmnopqrstuuQDoL5Sa/TtfS/XN4AY/jgq.HBbO1BTu"  # of PASSWORD; it knows bcrypt only
KIND = "application/vnd.oci.image.manifest.v1+json"
CONFIG = """\
version: 0.1
log: {{level: info}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "127.0.0.1:0"}}
auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}
"""


@dataclass(frozen=True)
class Registry:
    host: str

    def push(self, tag: str, note: str = "") -> str:
        """An image without a layer. Answers its digest."""
        with httpx.Client(base_url=f"http://{self.host}/v2/team/flows", auth=(USER, PASSWORD)) as http:
            config = b"{}"
            held = f"sha256:{hashlib.sha256(config).hexdigest()}"
            place = http.post("/blobs/uploads/").raise_for_status().headers["location"]
            http.put(httpx.URL(place).copy_merge_params({"digest": held}), content=config).raise_for_status()
            described = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": held, "size": len(config)}
            manifest = {"schemaVersion": 2, "mediaType": KIND, "config": described, "layers": []}
            content = json.dumps({**manifest, "annotations": {"note": note}}).encode()
            http.put(f"/manifests/{tag}", content=content, headers={"Content-Type": KIND}).raise_for_status()
        return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("registry")
    (folder / "htpasswd").write_text(f"{USER}:{HASHED}\n")
    (folder / "config.yml").write_text(CONFIG.format(folder=folder))
    program = shutil.which("docker-registry") or pytest.skip(REASON)
    command = [program, "serve", str(folder / "config.yml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout
        listening = (re.search(r"listening on (127\.0\.0\.1:\d+)", line) for line in server.stdout)
        yield Registry(next(found for found in listening if found)[1])
        server.terminate()


def look(registry: Registry, tmp_path: Path, tag: str, build: str = "false", password: str = PASSWORD) -> str:
    """The step's output; empty where it fails."""
    output = tmp_path / "output"
    output.write_text("")
    environ = {"GITHUB_OUTPUT": str(output), "REGISTRY_USERNAME": USER, "REGISTRY_PASSWORD": password}
    words = ["image", "--image", f"{registry.host}/team/flows:{tag}", "--build", build]
    assert github.main(words, environ, lambda seconds: None) == (not output.read_text())
    return output.read_text()


def test_production_takes_what_was_pushed_and_nothing_that_was_not(registry: Registry, tmp_path: Path) -> None:
    digest = registry.push("sha-one")
    assert look(registry, tmp_path, "sha-one") == f"digest={digest}\n"
    assert look(registry, tmp_path, "sha-two") == ""


def test_what_is_there_is_not_built_again_and_what_is_not_is(registry: Registry, tmp_path: Path) -> None:
    digest = registry.push("sha-three")
    assert look(registry, tmp_path, "sha-three", "true") == f"digest={digest}\n"
    assert look(registry, tmp_path, "sha-four", "true") == "digest=\n"


def test_a_tag_that_is_pushed_again_has_another_digest(registry: Registry, tmp_path: Path) -> None:
    """Which is why a deploy is pinned by the digest."""
    before, after = registry.push("sha-five"), registry.push("sha-five", "again")
    assert look(registry, tmp_path, "sha-five") == f"digest={after}\n" != f"digest={before}\n"


def test_a_wrong_password_is_no_missing_image(registry: Registry, tmp_path: Path) -> None:
    registry.push("sha-seven")
    assert look(registry, tmp_path, "sha-seven", password="wrong") == ""
