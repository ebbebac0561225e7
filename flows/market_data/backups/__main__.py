"""`python -m flows.market_data.backups`: the backups, by hand. The flow `database_backup` takes them."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from flows.market_data import backups
from flows.market_data.backups.contents import rows_of
from flows.market_data.places import Place

WAREHOUSE_VARIABLE = "WAREHOUSE_URL"


def main(arguments: Sequence[str] | None = None) -> int:
    words = parser().parse_args(arguments)
    try:
        return listed(words.place) if words.verb == "list" else restored(words.file, words.url)
    except SQLAlchemyError as error:
        return complain(f"The database does not answer as it should: {getattr(error, 'orig', None) or error}")
    except (ValueError, backups.BackupFailed, OSError) as error:
        return complain(str(error))
    except Exception as error:
        if type(error).__module__.startswith("botocore"):  # imported only where S3 is asked
            return complain(f"S3 does not answer as it should: {error}")
        raise


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m flows.market_data.backups", description="The warehouse's backups.")
    verbs = top.add_subparsers(required=True, metavar="VERB", dest="verb")
    text = "Name all backups in a place, the oldest first."
    listing = verbs.add_parser("list", help=text, description=text)
    listing.add_argument("place", help="a folder, or s3://bucket/prefix; S3's key from the AWS variables")
    text = "Put a backup into an empty database."
    restoring = verbs.add_parser("restore", help=text, description=text)
    restoring.add_argument("file", help="a path, or s3://bucket/prefix/name")
    restoring.add_argument("--url", help=f"the empty database (default: the environment variable {WAREHOUSE_VARIABLE})")
    return top


def listed(place: str) -> int:
    names = backups.known(Place(place if "://" in place else str(Path(place).absolute())))
    print("\n".join(names) or f"There are no backups at {place}.")
    return 0


def restored(file: str, url: str | None) -> int:
    url = url or os.environ.get(WAREHOUSE_VARIABLE)
    if not url:
        return complain(f"Where to? Give --url, or set {WAREHOUSE_VARIABLE}.")
    with tempfile.TemporaryDirectory() as folder:
        tables = backups.restore(here(file, Path(folder)), url)
    print(f"Restored: {len(tables)} tables, {rows_of(tables):,} rows.")
    return 0


def here(file: str, folder: Path) -> Path:
    """The file on this machine."""
    if not file.startswith("s3://"):
        return Path(file)
    where, _, name = file.rpartition("/")
    try:
        Place(where).fetch(name, folder / name)
    except FileNotFoundError:
        raise ValueError(f"There is no file {file}.") from None
    return folder / name


def complain(text: str) -> int:
    print(text, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
