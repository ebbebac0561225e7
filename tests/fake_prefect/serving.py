"""The fake on a loopback port, for a client in another process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

Handle = Callable[[httpx.Request], httpx.Response]

LONGER_THAN_ANY_CLIENT_WAITS = 300


@contextmanager
def served(handle: Handle) -> Iterator[str]:
    closing = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(handle, closing))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(handle: Handle, closing: threading.Event) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body leave as one packet: two would wait for each other, 40 ms each time.
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_any(self) -> None:
            request = self._request()
            try:
                self._send(handle(request))
            except httpx.ReadTimeout:
                closing.wait(LONGER_THAN_ANY_CLIENT_WAITS)
                self.close_connection = True
            except httpx.TransportError:
                self.close_connection = True

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_any

        def _request(self) -> httpx.Request:
            content = self.rfile.read(int(self.headers.get("content-length") or 0))
            url = f"http://{self.headers['host']}{self.path}"
            return httpx.Request(self.command, url, headers=dict(self.headers.items()), content=content)

        def _send(self, response: httpx.Response) -> None:
            self.send_response(response.status_code)
            for name, value in response.headers.items():
                if name != "content-length":
                    self.send_header(name, value)
            if response.status_code != 204:
                self.send_header("content-length", str(len(response.content)))
            self.end_headers()
            self.wfile.write(response.content)
            self.wfile.flush()

        def log_message(self, format: str, *args: object) -> None:
            """Not on the test's stderr."""

    return Handler
