"""Backups of the warehouse's whole database: taken, tried by restoring them, kept or thinned out, and restored.

Each database has its module, of one shape: `alone`, `dump`, `tried`, `restore`. A dump and what it is compared with
are of the same moment, also while others write.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import ModuleType

from sqlalchemy.engine import URL

from flows.market_data.backups import postgresql, sqlite
from flows.market_data.backups.contents import BackupFailed, Contents, differences, rows_of
from flows.market_data.connection import engine_of
from flows.market_data.models import now
from flows.market_data.places import Place, digest_of, workshop

__all__ = ["Backup", "BackupFailed", "back_up", "known", "restore", "thin"]

STAMP = "%Y%m%dT%H%M%SZ"
UNVERIFIED = "-unverified"
NAME = re.compile(
    r"(?P<of>.+-[0-9a-f]{8})-(?P<stamp>\d{8}T\d{6}Z)-(?P<digest>[0-9a-f]{16})(-unverified)?\.(dump|sqlite)"
)
KINDS: dict[str, ModuleType] = {"postgresql": postgresql, "sqlite": sqlite}


@dataclass(frozen=True)
class Backup:
    name: str
    size: int  # bytes
    tables: Contents
    verified: bool

    @property
    def rows(self) -> int:
        return rows_of(self.tables)


def back_up(url: str, place: Place, verify: bool = True) -> Backup:
    """Take one backup. It gets its name only when it was restored into a scratch database and found equal.

    Killed in between, it leaves no file that counts as a backup; what else is left, the next one removes.

    Args:
        verify: Without it the name ends in `-unverified`: for a role that may not create the scratch database.
    """
    kind, address = _kind(url)
    place.try_to_write()
    with workshop(place) as folder, kind.alone(url):
        file = folder / "backup"
        tables = kind.dump(url, file)
        file.chmod(0o600)  # all that is in the warehouse is in it
        if verify and (wrong := differences(tables, kind.tried(url, file))):
            raise BackupFailed(f"The backup is not what was in the database: {wrong}. It was thrown away.")
        name = _name(address, kind, digest_of(file), now(), verify)
        size = file.stat().st_size
        place.take(file, name)
    return Backup(name, size, tables, verify)


def thin(url: str, place: Place, keep: int) -> list[str]:
    """Delete all but the newest `keep` verified backups of this database, and all but the newest `keep` of the others.

    Only files that have the name of a backup of this database are looked at.
    """
    mine = _of(_kind(url)[1])
    found = [name for name in place.names() if (match := NAME.fullmatch(name)) and match["of"] == mine]
    bad = [name for name in found if UNVERIFIED in name]
    good = [name for name in found if name not in bad]
    old = [name for some in (good, bad) for name in sorted(some, key=_stamp)[: -max(keep, 1)]]
    for name in old:
        place.remove(name)
    return old


def known(place: Place) -> list[str]:
    """The names of all backups there, the oldest first."""
    return sorted((name for name in place.names() if NAME.fullmatch(name)), key=_stamp)


def restore(file: Path, url: str) -> Contents:
    """Put a backup into an empty database, all or nothing. Answers what is in there now."""
    kind, _ = _kind(url)
    if file.suffix != kind.SUFFIX:
        raise ValueError(
            f"{file.name} is no backup for {url.partition(':')[0]}: expected a name that ends in {kind.SUFFIX}."
        )
    if not file.is_file():
        raise ValueError(f"There is no file {file}.")
    match = NAME.fullmatch(file.name)
    if match and not digest_of(file).startswith(match["digest"]):
        raise ValueError(
            f"{file.name} is damaged: its content is not the one that its name tells. Take another backup."
        )
    found: Contents = kind.restore(url, file)
    return found


def _kind(url: str) -> tuple[ModuleType, URL]:
    engine = engine_of(url)
    engine.dispose()
    return KINDS[engine.dialect.name], engine.url


def _name(address: URL, kind: ModuleType, digest: str, moment: datetime, verified: bool) -> str:
    stamp = moment.astimezone(UTC).strftime(STAMP)
    return f"{_of(address)}-{stamp}-{digest[:16]}{'' if verified else UNVERIFIED}{kind.SUFFIX}"


def _of(address: URL) -> str:
    """The database's name for people, and enough of its address to tell two with one name apart."""
    where = [address.host, address.port, address.database]
    if address.drivername == "sqlite":
        where = [str(Path(address.database or "").absolute())]
    told = re.sub(r"[^A-Za-z0-9_]", "_", Path(address.database or "").stem)[:60] or "warehouse"
    return f"{told}-{sha256(repr(where).encode()).hexdigest()[:8]}"


def _stamp(name: str) -> tuple[str, str]:
    match = NAME.fullmatch(name)
    return (match["stamp"] if match else "", name)
