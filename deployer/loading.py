"""The parent's side of the loader: start it with nothing to steal, ask it, end it."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from deployer.desired import Request
from deployer.errors import InvalidInput
from deployer.prefect_api.relay import Relay

SCRIPT = Path(__file__).with_name("loader.py")
KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""All that a flow's module may see of our process environment."""


class Loader:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def load(self, request: Request) -> dict[str, Any]:
        return self._ask({"op": "load", **request.__dict__})

    def create(self, names: list[str], relay: Relay) -> dict[str, Any]:
        return self._ask({"op": "create", "api": relay.access, "names": names})

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        if not line:
            raise InvalidInput(
                f"The loader ended by itself (exit {self.process.wait()}) while importing the flows. {self._last_words()}"
            )
        return dict(json.loads(line))

    def _last_words(self) -> str:
        errors = (
            Path(str(self.process.args[-1])) if isinstance(self.process.args, list) else None
        )  # the log's path is its last argument
        said = errors.read_text(errors="replace").strip().splitlines()[-3:] if errors and errors.exists() else []
        return f"It said last: {' / '.join(said)}" if said else "A module may call os._exit()."


@contextmanager
def open_loader(checkout: Path) -> Iterator[Loader]:
    """A loader for one checkout, in a home of its own. What flows print goes to a file, shown when the loader dies."""
    with tempfile.TemporaryDirectory(prefix="prefect-loader-") as home:
        log = Path(home, "log")
        with log.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-I", "-B", str(SCRIPT), str(checkout), str(log)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment(home),
                close_fds=True,
                start_new_session=True,
                preexec_fn=_drop_privileges if sys.platform == "linux" else None,
            )
        try:
            yield Loader(process)
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """Its standard input's end is its sign to go; whatever does not, is ended with all its children."""
    assert process.stdin and process.stdout
    with suppress(BrokenPipeError):
        process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=3)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, 9)
    process.wait()
    process.stdout.close()


def environment(home: str) -> dict[str, str]:
    """No API address, key or secret, and no profile of the user's: an empty home, and Prefect kept from starting a server."""
    kept = {key: os.environ[key] for key in KEPT if key in os.environ}
    return {
        **kept,
        "HOME": home,
        "PREFECT_HOME": f"{home}/.prefect",
        "PREFECT_PROFILES_PATH": f"{home}/profiles.toml",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "PREFECT_CLI_PROMPT": "false",
        "DO_NOT_TRACK": "1",
    }


PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 4, 24, 38


def hide_from_children() -> None:
    """On Linux, keep processes of the same user from reading this one's environment and memory (/proc/PID/environ)."""
    if sys.platform == "linux":
        _libc().prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


LIBC = _libc() if sys.platform == "linux" else None
NO_CAPABILITIES = (ctypes.c_uint32 * 6)()
CAPABILITIES_HEADER = (ctypes.c_uint32 * 2)(0x20080522, 0)


def _drop_privileges() -> None:
    """Between fork and exec: root without capabilities cannot read its parent's environment either."""
    assert LIBC
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for capability in range(64):
        LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    LIBC.capset(CAPABILITIES_HEADER, NO_CAPABILITIES)
