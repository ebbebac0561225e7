"""Which digest a container registry has under a tag, over the standard library.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md, and for tokens
https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scripts.github_rest import PASSING, TRIES, Answer, GitHubError, NoAnswer, confidential, send

GITHUBS = "ghcr.io"
HOSTS = {"docker.io": "registry-1.docker.io"}
MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
MOST_READ = 4_194_304  # bytes of a manifest: the least that every registry must take


class NotShown(GitHubError):
    """The registry wants other credentials. Of an image that was never pushed, some say so too."""


@dataclass(frozen=True)
class Image:
    registry: str
    name: str
    tag: str

    def __str__(self) -> str:
        return f"{self.registry}/{self.name}:{self.tag}"

    @property
    def base(self) -> str:
        host = HOSTS.get(self.registry, self.registry)
        return f"http://{host}" if confidential(f"http://{host}") else f"https://{host}"

    @property
    def manifest(self) -> str:
        return f"{self.base}/v2/{self.name}/manifests/{self.tag}"


def parse(text: str) -> Image:
    """`ghcr.io/team/flows:sha-...`, with its registry."""
    part = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
    host = r"[A-Za-z0-9.-]+\.[A-Za-z0-9.-]+(?::\d+)?|localhost(?::\d+)?"
    found = re.fullmatch(rf"({host})/({part}(?:/{part})*):([A-Za-z0-9_][\w.-]{{0,127}})", text, re.ASCII)
    if not found:
        raise GitHubError(
            f"source.image comes to {text!r}, which is no image like ghcr.io/team/flows:sha-..., in small letters."
        )
    return Image(*found.groups())


def digest(image: Image, environ: Mapping[str, str], pause: Callable[[float], None]) -> str:
    """`sha256:...`; empty: there is no such tag."""
    answer = _manifest(image, environ, pause)
    if answer.status == 404:
        return ""
    found = f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
    told = answer.headers.get("Docker-Content-Digest") or found  # a registry may leave it out
    if told != found:
        raise GitHubError(f"{image.registry} gives {image} the digest {told!r}, and what it sends has {found}.")
    return found


def _manifest(image: Image, environ: Mapping[str, str], pause: Callable[[float], None]) -> Answer:
    headers = {"Accept": ", ".join(MANIFESTS)}
    answer = _ask(image.manifest, headers, pause)
    if answer.status == 401:
        headers |= _authorization(answer.headers.get("WWW-Authenticate") or "", image, environ, pause)
        answer = _ask(image.manifest, headers, pause)
    if answer.status in (401, 403):
        raise NotShown(f"{image.registry} does not show {image} to this job ({answer.status}).")
    if answer.status not in (200, 404):
        raise GitHubError(f"{image.registry} answers {answer.status} when asked for {image}. Is it a registry?")
    return answer


def _authorization(
    challenge: str, image: Image, environ: Mapping[str, str], pause: Callable[[float], None]
) -> dict[str, str]:
    """What the registry asks for: the credentials themselves, or a token that they are exchanged for."""
    known = _basic(image.registry, environ)
    if challenge.lower().startswith("basic"):
        return known
    said = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = said.get("realm", "")
    if not challenge.lower().startswith("bearer") or not confidential(realm):
        raise GitHubError(f"{image.registry} asks for credentials in a way that is not known here. Is it a registry?")
    wanted = {"service": said.get("service", ""), "scope": said.get("scope") or f"repository:{image.name}:pull"}
    answer = _ask(f"{realm}?{urllib.parse.urlencode(wanted)}", known, pause)
    if answer.status in (401, 403):
        raise NotShown(f"{image.registry} does not show {image} to this job ({answer.status}, at its token's door).")
    try:
        data = json.loads(answer.content)
        token = data.get("token") or data["access_token"]
    except (ValueError, KeyError, AttributeError):
        raise GitHubError(f"{image.registry} gives no token ({answer.status}). Is it a registry?") from None
    if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):  # no header can hold another
        raise GitHubError(f"{image.registry} gives a token that is none ({answer.status}). Is it a registry?")
    return {"Authorization": f"Bearer {token}"}


def _basic(registry: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The job's token is for GitHub's own registry only."""
    user, password = environ.get("REGISTRY_USERNAME", ""), environ.get("REGISTRY_PASSWORD", "").strip()
    if not password and registry == GITHUBS:
        user, password = environ.get("GITHUB_ACTOR", ""), environ.get("GITHUB_TOKEN", "").strip()
    if not password:
        return {}
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


def _ask(url: str, headers: Mapping[str, str], pause: Callable[[float], None]) -> Answer:
    for number in range(TRIES):
        answer = _once(url, headers)
        if answer and answer.status not in (429, *PASSING):
            return answer
        if number < TRIES - 1:
            pause(2.0**number)
    host = urllib.parse.urlsplit(url).netloc
    raise GitHubError(
        f"{host} does not answer ({f'status {answer.status}' if answer else 'no connection'}, {TRIES} times). Run the job again later."
    )


def _once(url: str, headers: Mapping[str, str]) -> Answer | None:
    try:
        return send("GET", url, headers, most=MOST_READ)
    except NoAnswer:
        return None
