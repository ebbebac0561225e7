"""Upgrade a running platform to the Prefect of this repository: backup, migrate, restart one after the other, compare.

    python infra/upgrade/upgrade.py --backups DIR --restart COMMAND --restart COMMAND ...

or, where the database cannot be reached from here, with commands that run beside it:

    python infra/upgrade/upgrade.py --backup COMMAND --migrate COMMAND --restart COMMAND ...

A --restart restarts one part with the new version and waits until it is up: first each API replica, then the services, then the
workers. Nothing of it is special to Compose or Kubernetes. The database is --database, or
PREFECT_SERVER_DATABASE_CONNECTION_URL; the API PREFECT_API_URL, with PREFECT_API_KEY or PREFECT_API_AUTH_STRING.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from deployer.errors import DeployError, InvalidInput, Refused, VerificationFailed  # noqa: E402
from deployer.prefect_api import Client  # noqa: E402
from deployer.prefect_api.client import release  # noqa: E402
from infra.api import client  # noqa: E402
from infra.restore import inventory, restore  # noqa: E402

Step = tuple[str, Callable[[], None]]
"""What it is called, and what does it."""


def main(arguments: Sequence[str] | None = None) -> int:
    words = _parser().parse_args(arguments)
    try:
        with client(any_version=True) as api:
            upgrade(
                api,
                version("prefect"),
                backup=_backup(words),
                migrate=_migration(words),
                restarts=[(command, _command(command)) for command in words.restart],
                say=lambda line: print(line, flush=True),
            )
    except (DeployError, ValueError) as error:
        print(f"upgrade: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("upgrade: interrupted. What was done stays; the same command again does the rest.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--database", metavar="URL", default=os.environ.get(restore.DATABASE), help=f"default: {restore.DATABASE}"
    )
    before = parser.add_mutually_exclusive_group(required=True)
    before.add_argument("--backups", metavar="PLACE", help="a folder, or s3://bucket/prefix, for the backup before")
    before.add_argument(
        "--backup", metavar="COMMAND", help="makes the backup; the first line that it prints is taken for its name"
    )
    parser.add_argument(
        "--no-verify",
        action="store_true",
        help="don't try the backup: for a role that may not create the scratch database",
    )
    parser.add_argument(
        "--migrate", metavar="COMMAND", help="default: `prefect server database upgrade` of this environment"
    )
    parser.add_argument(
        "--restart",
        metavar="COMMAND",
        action="append",
        required=True,
        help="one part; as often as there are parts, in their order",
    )
    return parser


def _backup(words: argparse.Namespace) -> Callable[[], str]:
    if words.backup:
        return lambda: _made(words.backup)
    database = restore.plain(words.database)
    return lambda: restore.take(database, words.backups, not words.no_verify)


def _migration(words: argparse.Namespace) -> Callable[[], None]:
    if words.migrate:
        return _command(words.migrate)
    database = restore.plain(words.database)
    return lambda: restore.migrate(database)


def _made(command: str) -> str:
    """What it says of the backup that it made."""
    done = subprocess.run(command, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise InvalidInput(f"`{command}` ended with {done.returncode}. Nothing was changed.")
    said = [line for line in done.stdout.splitlines() if line.strip()]
    return said[0].strip() if said else f"the one that `{command}` made"


def _command(command: str) -> Callable[[], None]:
    def run() -> None:
        if code := subprocess.run(command, shell=True, stdin=subprocess.DEVNULL).returncode:
            raise InvalidInput(f"`{command}` ended with {code}.")

    return run


def upgrade(
    api: Client,
    wanted: str,
    backup: Callable[[], str],
    migrate: Callable[[], None],
    restarts: Sequence[Step],
    say: Callable[[str], None],
) -> None:
    """Runs go on meanwhile: there may be more of everything in the end, but nothing may be gone or different.

    The old replicas work on the new schema until it is their turn; Prefect's migrations of a minor version only add. Before
    the migration anything may fail without harm. After it the way back is the backup.
    """
    present = str(api.get("/admin/version"))
    if release(wanted) < release(present):
        raise Refused(
            f"The server is Prefect {present}, newer than {wanted}. There is no way down but to restore a backup."
        )
    before = inventory.read(api)
    say(f"Prefect {present} -> {wanted}: {inventory.sentence(before)}")
    saved = backup()
    say(f"backup: {saved}")
    for name, act in [("migrate", migrate), *restarts]:
        began = time.monotonic()
        try:
            act()
            _compare(before, inventory.read(api))
        except DeployError as error:
            raise VerificationFailed(f"{name}: {error} {_way_back(saved)}") from None
        say(f"{name}: done in {time.monotonic() - began:.1f} s, nothing is gone")
    if release(now := str(api.get("/admin/version"))) != release(wanted):
        raise VerificationFailed(f"The API still answers as Prefect {now}. Was every replica restarted?")
    say(f"Prefect {now}. All that was there is there.")


def _compare(before: inventory.Inventory, after: inventory.Inventory) -> None:
    if wrong := inventory.differences(before, after, more=True):
        raise VerificationFailed(f"{len(wrong)} things are not as they were: {'; '.join(wrong[:5])}.")


def _way_back(saved: str) -> str:
    return f"Mend it and run this again, or go back: the backup is {saved.partition(': ')[0]}, docs/upgrade-and-restore.md says how."


if __name__ == "__main__":
    sys.exit(main())
