"""So that it starts by the folder's name, from a checkout and in the image."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[3])

from infra.monitoring.exporter.command import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
