"""A deploy imports what flows import, and does not wait for what only a run uses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = {"pandas", "numpy", "massive", "urllib3", "yfinance", "curl_cffi", "exchange_calendars", "bokeh_sampledata"}


def test_providers_and_calendar_are_imported_without_what_they_work_with() -> None:
    wanted = "flows.market_data." + ", flows.market_data.".join(
        ("calendar", "quality", "providers.polygon", "providers.yahoo", "providers.sample")
    )
    code = f"import sys, {wanted}; print(*sys.modules)"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(done.stdout.split())
