"""What a verb cost, for the benchmark: its calls, and its memory and that of its loader."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from deployer.prefect_api import Client

VARIABLE = "PREFECT_PLATFORM_STATS"


def write(variables: Mapping[str, str], client: Client) -> None:
    """Into the file that the variable names; without it, nowhere."""
    if not variables.get(VARIABLE):
        return
    found = {
        "calls": dict(client.calls.by_endpoint),
        "retries": client.calls.retries,
        "peak_mb": {"parent": _peak(resource.RUSAGE_SELF), "children": _peak(resource.RUSAGE_CHILDREN)},
    }
    with suppress(OSError):  # a deploy never fails for its own statistics
        Path(variables[VARIABLE]).write_text(json.dumps(found, indent=2) + "\n")


def _peak(who: int) -> float:
    """Of the largest process. Linux counts in kB, macOS in bytes."""
    return round(resource.getrusage(who).ru_maxrss / (1 << 10 if sys.platform == "linux" else 1 << 20), 1)
