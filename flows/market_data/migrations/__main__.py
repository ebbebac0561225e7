"""`python -m flows.market_data.migrations`: the warehouse's tables, by hand. Flows upgrade them by themselves."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from flows.market_data import migrations
from flows.market_data.connection import engine_of

WAREHOUSE_VARIABLE = "WAREHOUSE_URL"


def main(arguments: Sequence[str] | None = None) -> int:
    words = parser().parse_args(arguments)
    url = words.url or os.environ.get(WAREHOUSE_VARIABLE)
    if not url:
        return complain(f"Where is the warehouse? Give --url, or set {WAREHOUSE_VARIABLE}.")
    try:
        engine = engine_of(url)
        try:
            run: Callable[[Engine, argparse.Namespace], int] = words.run
            return run(engine, words)
        finally:
            engine.dispose()
    except (ValueError, OSError) as error:
        return complain(str(error))
    except SQLAlchemyError as error:
        return complain(f"The warehouse does not answer as it should: {getattr(error, 'orig', None) or error}")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m flows.market_data.migrations", description="The warehouse's tables.")
    verbs = top.add_subparsers(required=True, metavar="VERB")
    for name, run, text in VERBS:
        verb = verbs.add_parser(name, help=text, description=text)
        verb.set_defaults(run=run)
        verb.add_argument("--url", help=f"the warehouse (default: the environment variable {WAREHOUSE_VARIABLE})")
        if name == "upgrade":
            verb.add_argument("revision", nargs="?", default=migrations.HEAD, help="default: the newest")
        if name == "downgrade":
            verb.add_argument("revision", help='what to go back to; "base" for no tables at all')
            verb.add_argument("--lose-rows", action="store_true", help="also drop tables that hold rows")
        if name == "revision":
            verb.add_argument("message", help="what it changes, for the file's name")
    return top


def upgrade(engine: Engine, words: argparse.Namespace) -> int:
    return say(f"The warehouse is at revision {migrations.upgrade(engine, words.revision)}.")


def downgrade(engine: Engine, words: argparse.Namespace) -> int:
    found = migrations.downgrade(engine, words.revision, words.lose_rows)
    return say(f"The warehouse is at revision {found or 'none'}.")


def there(engine: Engine) -> None:
    """To look is not to make: SQLite would make the file."""
    if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").is_file():
        raise ValueError(f"There is no file {engine.url.database}.")


def current(engine: Engine, _: argparse.Namespace) -> int:
    there(engine)
    return say(f"The warehouse is at revision {migrations.current(engine) or 'none'}; newest: {migrations.HEAD}.")


def check(engine: Engine, _: argparse.Namespace) -> int:
    there(engine)
    differences = migrations.drift(engine)
    if not differences:
        return say("The warehouse's tables are what the models say.")
    return complain("\n".join(["The warehouse's tables are not what the models say:", *differences]))


def revision(engine: Engine, words: argparse.Namespace) -> int:
    written = migrations.write_revision(engine, words.message)
    return say(f"Written: {written}. Read it, correct it, and set HEAD in migrations/__init__.py.")


VERBS = (
    ("upgrade", upgrade, "Bring the tables to a revision."),
    ("downgrade", downgrade, "Go back to an earlier revision; back up before."),
    ("current", current, "Say which revision the tables are at."),
    ("check", check, "Compare the tables with the models; 1 where they differ."),
    ("revision", revision, "Write a new migration from how the models differ from this warehouse."),
)


def say(text: str) -> int:
    print(text)
    return 0


def complain(text: str) -> int:
    print(text, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
