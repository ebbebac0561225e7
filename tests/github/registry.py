"""A fake container registry, as far as the workflows ask one: which manifest has a tag."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

import httpx

USER, TOKEN, EXCHANGED = "ada", "ghs_of_the_job", "of_the_registry"


@dataclass
class FakeRegistry:
    """Speaks as ghcr.io does: a token is exchanged for another one. `auth`: bearer, basic or none."""

    url: str = ""
    auth: str = "bearer"
    tags: dict[str, bytes] = field(default_factory=dict)
    says: str | None = None
    """The digest of whatever is asked for; None: it does not say it."""
    failures: list[int] = field(default_factory=list)
    shown: bool = True
    gives: Any = EXCHANGED
    requests: list[str] = field(default_factory=list)

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(f"{request.method} {request.url.path}")
        if self.failures:
            return httpx.Response(self.failures.pop(0))
        basic = f"Basic {base64.b64encode(f'{USER}:{TOKEN}'.encode()).decode()}"
        given = request.headers.get("authorization")
        if request.url.path == "/token":
            assert dict(request.url.params) == {"service": "here", "scope": "repository:team/flows:pull"}
            return httpx.Response(200, json={"token": self.gives}) if given == basic else httpx.Response(403)
        wanted = {"bearer": f"Bearer {EXCHANGED}", "basic": basic, "none": given}[self.auth]
        if given != wanted:
            return httpx.Response(401, headers={"WWW-Authenticate": self.challenge()})
        return self.manifest(request)

    def challenge(self) -> str:
        bearer = f'Bearer realm="{self.url}/token",service="here",scope="repository:team/flows:pull"'
        return bearer if self.auth == "bearer" else 'Basic realm="here"'

    def manifest(self, request: httpx.Request) -> httpx.Response:
        assert "application/vnd.oci.image.index.v1+json" in request.headers["accept"]
        content = self.tags.get(request.url.path.removeprefix("/v2/team/flows/manifests/"))
        if not self.shown:
            return httpx.Response(403)
        if content is None:
            return httpx.Response(404)
        return httpx.Response(200, content=content, headers={"Docker-Content-Digest": self.says} if self.says else {})
