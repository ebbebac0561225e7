"""Put secrets from files into the settings that hold them, then become the command.

NAME_FILE=/run/secrets/x            NAME gets the file's content
NAME=a://b:{file:/run/secrets/x}@c  the content in the middle of a text, fit for a URL where the text is one

Only for PREFECT_ settings, in this process and what it starts: nothing is written anywhere.
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
    found = dict(variables)
    for name, value in variables.items():
        if not name.startswith(PREFIX):
            continue
        if name.endswith(SUFFIX) and not name.endswith(PREFECTS_OWN):
            found[name.removesuffix(SUFFIX)] = content(name, value)
            del found[name]
        else:
            found[name] = PLACEHOLDER.sub(lambda match, name=name, value=value: inside(name, value, match[1]), value)
    return found


def inside(name: str, text: str, path: str) -> str:
    return quote(content(name, path), safe="") if "://" in text else content(name, path)


def content(name: str, path: str) -> str:
    try:
        found = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        sys.exit(f"entrypoint: {name} names the file {path}: {error.strerror}. Mount the secret there, readable for uid {os.getuid()}.")
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
