"""Put secrets from files into the variables that hold them, then become the command.

PREFECT_X_FILE=/run/secrets/x       PREFECT_X gets the file's content
X=a://b:{file:/run/secrets/x}@c     the content in the middle of a text, fit for a URL where the text is one

In this process and what it starts: nothing is written anywhere, and `docker inspect` shows the names of files alone.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

PREFIX, SUFFIX = "PREFECT_", "_FILE"
PREFECTS_OWN = ("_CERT_FILE", "_CA_FILE", "_KEY_FILE")  # settings that are paths, and stay so
PLACEHOLDER = re.compile(r"\{file:([^}]+)\}")


def filled(variables: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in variables.items():
        if name.startswith(PREFIX) and name.endswith(SUFFIX) and not name.endswith(PREFECTS_OWN):
            found[name.removesuffix(SUFFIX)] = content(name, value)
        else:
            found[name] = inside(name, value)
    return found


def inside(name: str, text: str) -> str:
    def put(match: re.Match[str]) -> str:
        secret = content(name, match[1])
        return quote(secret, safe="") if "://" in text else secret

    return PLACEHOLDER.sub(put, text)


def content(name: str, path: str) -> str:
    try:
        found = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        sys.exit(
            f"entrypoint: {name} names the file {path}: {error.strerror}. Mount the secret there, readable for uid {os.getuid()}."
        )
    if not found:
        sys.exit(f"entrypoint: {name} names the file {path}, which is empty. Write the secret into it.")
    return found


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit("entrypoint: no command was given.")
    try:
        os.execvpe(sys.argv[1], sys.argv[1:], filled(os.environ))
    except OSError as error:
        sys.exit(f"entrypoint: {sys.argv[1]}: {error.strerror}.")
