"""The one entry point: `python scripts/deploy.py VERB ...`. All of it is in deployer/cli.py."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from deployer.cli import main

if __name__ == "__main__":
    sys.exit(main())
