"""Is the service of this container well? Exit code 0 or 1, and a line that says why.

health.py http://127.0.0.1:4200/api/ready   it answers, with a status below 400
health.py worker                            the worker's own health server says that it polls
health.py connected 5432 6379               something here holds a connection to each of these ports, wherever they are

No proxies, no packages: it runs every few seconds.
"""

from __future__ import annotations

import os
import sys
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

ESTABLISHED = "01"
SECONDS = 4


def main(words: list[str]) -> int:
    match words:
        case ["worker"]:
            if os.environ.get("PREFECT__FLOW_RUN_ID"):  # a container for one run, from the same image: not a service
                return 0
            port = os.environ.get("PREFECT_WORKER_WEBSERVER_PORT", "8080")
            return answers(f"http://127.0.0.1:{port}/health")
        case ["connected", *ports] if ports:
            return connected([int(port) for port in ports])
        case [url] if url.startswith("http://"):
            return answers(url)
    print(__doc__)
    return 2


def answers(url: str) -> int:
    where = urlsplit(url)
    connection = HTTPConnection(where.hostname or "", where.port or 80, timeout=SECONDS)
    try:
        connection.request("GET", f"{where.path}?{where.query}" if where.query else where.path or "/")
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        print(f"{url}: {error}")
        return 1
    finally:
        connection.close()
    print(f"{url}: {status}")
    return int(status >= 400)


def connected(ports: list[int], tables: tuple[str, ...] = ("/proc/net/tcp", "/proc/net/tcp6")) -> int:
    rows = [
        line.split() for table in tables if Path(table).exists() for line in Path(table).read_text().splitlines()[1:]
    ]
    remote = {int(row[2].rpartition(":")[2], 16) for row in rows if row[3] == ESTABLISHED}
    missing = [port for port in ports if port not in remote]
    print(f"no connection to port {', '.join(map(str, missing))}" if missing else "connected")
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
