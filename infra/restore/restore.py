"""Back up Prefect's own database, and put a backup into a fresh platform.

    python infra/restore/restore.py backup DIR           # pg_dump, tried by restoring it
    python infra/restore/restore.py restore FILE         # a path or s3://bucket/prefix/name, into an empty database, brought to this Prefect's schema
    python infra/restore/restore.py settle [--write]     # when the API is up and before the workers are: what hangs, and ends it
    python infra/restore/restore.py inventory            # what the API holds, as JSON, to compare two platforms

The database is --database, or PREFECT_SERVER_DATABASE_CONNECTION_URL; the API PREFECT_API_URL, with PREFECT_API_KEY or
PREFECT_API_AUTH_STRING. docs/upgrade-and-restore.md has the order of things.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from deployer.errors import DeployError, InvalidInput  # noqa: E402
from deployer.prefect_api import Client  # noqa: E402
from infra.api import client  # noqa: E402
from infra.restore import inventory  # noqa: E402

DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
UNDER_WAY = ("RUNNING", "PENDING", "CANCELLING")
MESSAGE = "Was under way when the backup was taken"
SECONDS_OF_A_WORKER = 45  # it reports every 30
OVERDUE = "Was due between the backup and the restore"


def main(arguments: Sequence[str] | None = None) -> int:
    words = _parser().parse_args(arguments)
    try:
        words.verb(words)
    except (DeployError, ValueError) as error:
        print(f"restore: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    verbs = parser.add_subparsers(required=True, metavar="backup | restore | settle | inventory")

    word = verbs.add_parser("backup", help="a verified dump into a folder or s3://bucket/prefix")
    word.add_argument("place")
    word.add_argument("--no-verify", action="store_true", help="for a role that may not create the scratch database")
    word.set_defaults(verb=_backup)

    word = verbs.add_parser("restore", help="a dump into an empty database, then the migrations")
    word.add_argument("file", help="a path, or s3://bucket/prefix/name")
    word.set_defaults(verb=_restore)
    for one in verbs.choices.values():
        one.add_argument("--database", metavar="URL", default=os.environ.get(DATABASE), help=f"default: {DATABASE}")

    word = verbs.add_parser("settle", help="end what hangs since the backup; only says so without --write")
    word.add_argument("--write", action="store_true")
    word.add_argument("--skip-overdue", action="store_true", help="cancel the runs that were due meanwhile")
    word.set_defaults(verb=_settle)

    word = verbs.add_parser("inventory", help="what the API holds, as JSON")
    word.set_defaults(verb=_inventory)
    return parser


def _backup(words: argparse.Namespace) -> None:
    print(take(plain(words.database), words.place, not words.no_verify))


def _restore(words: argparse.Namespace) -> None:
    database = plain(words.database)
    with tempfile.TemporaryDirectory() as folder:
        print(put_back(fetched(words.file, Path(folder)), database))
    migrate(words.database)
    print(
        "The database has this Prefect's schema. Start the API alone, then `settle`, then the services and the workers."
    )


def _settle(words: argparse.Namespace) -> None:
    with client() as api:
        for line in settle(api, words.write, words.skip_overdue):
            print(line)


def _inventory(words: argparse.Namespace) -> None:
    with client() as api:
        print(json.dumps(inventory.read(api), indent=2, sort_keys=True))


# -- The database


def plain(url: str | None) -> str:
    """Prefect's URL as PostgreSQL's own programs take it: what asyncpg calls ssl is sslmode there."""
    if not url:
        raise InvalidInput(f"Which database? Give --database, or set {DATABASE}.")
    if not re.match(r"postgres(ql)?(\+\w+)?://", url):
        raise InvalidInput(
            "Only a PostgreSQL database is backed up here: its URL begins with postgresql://. For SQLite, copy the file."
        )
    return re.sub(r"([?&])ssl=", r"\1sslmode=", re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url))


def prefects(url: str) -> str:
    """Any URL of the database as Prefect takes it."""
    return re.sub(r"([?&])sslmode=", r"\1ssl=", plain(url).replace("postgresql:", "postgresql+asyncpg:", 1))


def take(url: str, place: str, verify: bool = True) -> str:
    """A dump, kept only if every table of it, restored into a scratch database, is what was in the database at its moment."""
    from flows.market_data import backups
    from flows.market_data.places import Place

    with _errors():
        found = backups.back_up(url, Place(place if "://" in place else str(Path(place).absolute())), verify)
    return f"{found.name}: {found.size / 1e6:,.1f} MB, {len(found.tables)} tables, {found.rows:,} rows"


def fetched(file: str, folder: Path) -> Path:
    """The file on this machine; one in S3 comes into the folder."""
    from flows.market_data.backups.__main__ import here

    with _errors():
        return here(file, folder)


def put_back(file: Path, url: str) -> str:
    """All or nothing, into an empty database. A dump of pg_dump's custom format, whoever made it."""
    from flows.market_data import backups

    refuse_a_newer_schema(file)
    with _errors():
        tables = backups.restore(file, url)
    return f"Restored: {len(tables)} tables, {sum(one.rows for one in tables.values()):,} rows."


def refuse_a_newer_schema(file: Path) -> None:
    """Before anything is written: the migrations only go up."""
    from flows.market_data.backups.postgresql import folders_of

    folder = next(folders_of("pg_restore"), None)
    if folder is None:
        raise InvalidInput("pg_restore is not on this machine: apt or brew install postgresql, as new as the server.")
    command = [str(folder / "pg_restore"), "--data-only", "--table=alembic_version", "--file=-", str(file)]
    told = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if told.returncode:
        raise InvalidInput(f"{file} is no dump of pg_dump's custom format: {told.stderr.strip().splitlines()[-1]}")
    found = re.search(r"^COPY .*alembic_version.*\n(\w+)$", told.stdout, re.MULTILINE)
    if not found:
        raise InvalidInput(f"{file} is no dump of a Prefect database: it holds no alembic_version.")
    if found[1] not in known_revisions():
        raise InvalidInput(
            f"{file} was made by a newer Prefect than this one, {version('prefect')}: its schema {found[1]} is unknown here. Restore it with that version."
        )


def known_revisions() -> set[str]:
    import prefect

    folder = Path(prefect.__file__).parent / "server/database/_migrations/versions/postgresql"
    texts = (file.read_text() for file in folder.glob("*.py"))
    return {found[1] for text in texts if (found := re.search(r"^revision(?:: str)? = ['\"](\w+)", text, re.MULTILINE))}


def migrate(url: str) -> None:
    """To the schema of the Prefect that runs this script."""
    command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
    done = subprocess.run(command, env={**os.environ, DATABASE: prefects(url)}, capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        raise InvalidInput(
            f"The migration to Prefect {version('prefect')} failed: {said[-1] if said else done.returncode}"
        )


@contextmanager
def _errors() -> Iterator[None]:
    """What PostgreSQL or S3 says, in one line and without the password."""
    from sqlalchemy.exc import SQLAlchemyError

    from flows.market_data.backups import BackupFailed

    try:
        yield
    except SQLAlchemyError as error:
        said = " ".join(str(getattr(error, "orig", None) or error).split())
        raise InvalidInput(f"The database does not answer as it should: {said}") from None
    except (BackupFailed, OSError, ValueError) as error:
        raise InvalidInput(str(error)) from None
    except Exception as error:
        if type(error).__module__.startswith("botocore"):  # imported only where S3 is asked
            raise InvalidInput(f"S3 does not answer as it should: {error}") from None
        raise


# -- The API


def settle(api: Client, write: bool, skip_overdue: bool = False) -> list[str]:
    """What the database believes and nobody does any more. No worker may be up: a run of its would be crashed, too.

    Runs under way become Crashed, and their deployments' tag `retry-crashed` has them tried again; those that were being
    cancelled become Cancelled. The slots of concurrency limits are freed: who held them was in Redis. Runs that are overdue start as soon as a worker comes.
    """
    refuse_workers(api)
    lines = []
    for run in _runs(api, UNDER_WAY):
        end = "Cancelled" if run["state_type"] == "CANCELLING" else "Crashed"  # Prefect lets it end in no other way
        lines.append(f"{run['name']} ({run['id']}) is {run['state_name']}: {end}")
        if write:
            _end(api, run, end, MESSAGE)
    for limit in api.pages("/v2/concurrency_limits/filter"):
        if limit["active_slots"]:
            lines.append(f"concurrency limit {limit['name']}: {limit['active_slots']} slots taken by nobody: freed")
            if write:
                api.patch(f"/v2/concurrency_limits/{limit['id']}", {"active_slots": 0})
    for run in _runs(api, ("SCHEDULED",), before=datetime.now(UTC)):
        lines.append(
            f"{run['name']} was due at {run['next_scheduled_start_time']}: {'cancelled' if skip_overdue else 'starts with a worker'}"
        )
        if write and skip_overdue:
            _end(api, run, "Cancelled", OVERDUE)
    return [*lines, _closing(len(lines), write)]


def _closing(count: int, write: bool) -> str:
    if not count:
        return "Nothing hangs."
    return f"{count} settled." if write else f"{count} to settle; nothing was written. --write does it."


def refuse_workers(api: Client) -> None:
    """By their last heartbeat: a restored database calls the old platform's workers online."""
    for pool in api.pages("/work_pools/filter"):
        for worker in api.pages(f"/work_pools/{quote(pool['name'])}/workers/filter"):
            beat = worker["last_heartbeat_time"]
            if beat and (api.now() - datetime.fromisoformat(beat)).total_seconds() < SECONDS_OF_A_WORKER:
                advice = "Stop all workers, and wait a minute: what they run does not hang."
                raise InvalidInput(f"The worker {worker['name']} of {pool['name']} is alive. {advice}")


def _runs(api: Client, states: Sequence[str], before: datetime | None = None) -> list[dict[str, Any]]:
    """All of them before the first is changed, or pages would shift."""
    wanted: dict[str, Any] = {"state": {"type": {"any_": list(states)}}}
    if before:
        wanted["next_scheduled_start_time"] = {"before_": before.isoformat()}
    return list(api.pages("/flow_runs/filter", {"flow_runs": wanted, "sort": "ID_DESC"}))


def _end(api: Client, run: dict[str, Any], name: str, message: str) -> None:
    state = {"type": name.upper(), "name": name, "message": message}
    answer = api.request("POST", f"/flow_runs/{run['id']}/set_state", {"state": state})
    if answer["status"] != "ACCEPT":
        why = (answer.get("details") or {}).get("reason") or answer["status"]
        raise InvalidInput(
            f"{run['name']} ({run['id']}) is {run['state_name']} and did not become {name}: {why} "
            "What was settled before it stays; run settle again."
        )


if __name__ == "__main__":
    sys.exit(main())
