"""A provider of the tests' own, on a loopback port: it answers what a test tells it to, and remembers the questions."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Answer:
    """An object is sent as JSON, text as it is. `cut` announces more bytes than it sends; `never` comes too late."""

    body: Any = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    never: bool = False

    @property
    def data(self) -> bytes:
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


@dataclass(frozen=True)
class Asked:
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]


@dataclass
class Web:
    """Answers by path, or by the path's beginning if it ends with `*`. Of several the last stays."""

    url: str = ""
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def on(self, path: str, *answers: Answer | Any) -> None:
        self.answers[path] = [one if isinstance(one, Answer) else Answer(one) for one in answers]

    def paths(self, beginning: str = "/") -> list[str]:
        return [one.path for one in self.asked if one.path.startswith(beginning)]

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        for path, answers in self.answers.items():
            if asked.path == path or (path.endswith("*") and asked.path.startswith(path[:-1])):
                return answers.pop(0) if len(answers) > 1 else answers[0]
        return Answer(f"nothing was planned at {asked.path}", 404)


@contextmanager
def serving() -> Iterator[Web]:
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            answer = web.answer(Asked(parts.path, query, dict(self.headers)))
            if answer.never:
                web.over.wait()
                return
            self.send_response(answer.status)
            for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.data) + 100 * answer.cut))
            self.end_headers()
            self.wfile.write(answer.data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    web.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield web
    finally:
        web.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
