"""Bars that leave the warehouse for files: a Parquet file for a year of one symbol, of one source and interval.

`source=NAME/interval=1d/year=2012/symbol=AAPL.parquet`, in columns symbol, time (UTC), open, high, low, close, volume: what
pandas, pyarrow, DuckDB or Spark read as they are, as one table. Each file also says what it is, so that an archive
whose ledger was lost can still be put back.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from string import ascii_lowercase, ascii_uppercase, digits
from typing import TYPE_CHECKING
from urllib.parse import unquote

from sqlalchemy.engine import Engine

from flows.market_data.ledger import (
    Archived,
    Year,
    archived_years,
    checksum,
    delete_archived,
    mark_verified,
    read_year,
    record_archive,
    restore_archived,
)
from flows.market_data.models import now
from flows.market_data.places import Place
from flows.market_data.reading import BAR

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN = ""  # the checksum of a file of which only the name was looked at


class Damaged(ValueError):
    """A file of the archive is not there, or does not hold what was archived in it."""


@dataclass(frozen=True)
class Moved:
    """What came of a year. `written` is false where the file was there already, as it should be."""

    year: Year
    path: str
    rows: int
    written: bool


def path_of(source: str, interval: str, symbol: str, year: int) -> str:
    """The file's name in the archive. No symbol leads out of its folder, and no two share a file, also where capitals and
    small letters are the same to the file system."""
    folders = f"source={_safe(source, ascii_lowercase)}/interval={_safe(interval, ascii_lowercase)}/year={year:04}"
    return f"{folders}/symbol={_safe(symbol, ascii_uppercase)}.parquet"


def _safe(text: str, letters: str) -> str:
    """As in a URL: all but these letters, digits and a few signs as % and two digits a byte."""
    kept = f"{letters}{digits}.-_"
    return "".join(c if c in kept else "".join(f"%{byte:02X}" for byte in c.encode()) for c in text)


def archive_year(engine: Engine, place: Place, year: Year) -> Moved:
    """Write the file, note it, read it back, delete the bars: each only after the one before, and each can be repeated.

    A file never loses a bar. What an earlier one has and the warehouse has no more is put back first, so that the new
    one has both; where both have a bar, the warehouse's is newer.

    Raises:
        Damaged: The file can't be read back, or an earlier one can't, which may have bars that nothing else has.
        ChangedMeanwhile: Somebody wrote bars of this year meanwhile. Nothing was deleted: try again.
    """
    key = year.source, year.interval, year.symbol, year.year
    frame = read_year(engine, *key)
    noted = known(engine, place, *key)
    if frame.empty:  # an earlier try did it, or another run
        return Moved(year, path_of(*key), noted.rows if noted else 0, written=False)
    if noted and checksum(frame) != noted.checksum:
        _put_back(engine, place, noted)
        frame = read_year(engine, *key)
    fits = noted is not None and checksum(frame) == noted.checksum and _holds(place, noted)
    there = noted if noted and fits else write(engine, place, year, frame)
    delete_archived(engine, mark_verified(engine, replace(there, deleted=None)))
    return Moved(year, there.path, there.rows, written=not fits)


def write(engine: Engine, place: Place, year: Year, frame: pd.DataFrame) -> Archived:
    """A file of these bars, noted and read back."""
    path = path_of(year.source, year.interval, year.symbol, year.year)
    facts = (year.source, year.interval, year.symbol, year.year, path, len(frame), checksum(frame))
    noted = Archived(*facts, written=now())
    place.write(path, as_parquet(frame, noted))
    record_archive(engine, noted)
    read(place, noted)
    return noted


def known(engine: Engine, place: Place, source: str, interval: str, symbol: str, year: int) -> Archived | None:
    """The file of this year: by the ledger, else by what the file says of itself; then the ledger has it, too."""
    path = path_of(source, interval, symbol, year)
    for noted in archived_years(engine, source, interval, symbol):
        if noted.path == path:
            return noted
    return meet(engine, place, path) if place.there(path) else None


def _put_back(engine: Engine, place: Place, noted: Archived) -> None:
    """The bars that only the file has. A file of which nothing was deleted yet has none, if it can't be read."""
    try:
        frame = read(place, noted)
    except Damaged as error:
        if noted.deleted is not None:
            raise Damaged(
                f"{error} It held bars of {noted.year} that the warehouse no longer has, so it is not written over. "
                "Put the file back from a copy, or delete its line from archive_ledger; then try again."
            ) from None
        _put_back_unnoted(engine, place, noted.path)
    else:
        restore_archived(engine, noted, frame)


def _put_back_unnoted(engine: Engine, place: Place, path: str) -> None:
    """The same of a file that was written, but not noted any more: the run was killed in between."""
    with suppress(Damaged):
        found = meet(engine, place, path)
        restore_archived(engine, found, read(place, found))


def meet(engine: Engine, place: Place, path: str) -> Archived:
    """A file that the ledger does not know: now it does, by what the file says of itself."""
    found = introduce(place, path)
    if path != path_of(found.source, found.interval, found.symbol, found.year):
        raise Damaged(f"{place.at(path)} is not a file of this archive. Move it away, and try again.")
    record_archive(engine, found)
    return found


def _holds(place: Place, noted: Archived) -> bool:
    try:
        read(place, noted)
    except Damaged:
        return False
    return True


def read(place: Place, noted: Archived) -> pd.DataFrame:
    """The file's bars, compared with the ledger's checksum: time, open, high, low, close, volume."""
    frame = _parsed(place, noted.path)[0]
    if checksum(frame) != noted.checksum:
        raise Damaged(f"{place.at(noted.path)} does not hold the {noted.rows:,} bars that were archived in it.")
    return frame


def introduce(place: Place, path: str) -> Archived:
    """What a file says of itself. Damaged if that is not true."""
    frame, facts = _parsed(place, path)
    try:
        source, interval, symbol = (facts[name] for name in ("source", "interval", "symbol"))
        written = datetime.fromisoformat(facts["written"])
        found = Archived(source, interval, symbol, int(facts["year"]), path, len(frame), facts["checksum"], written)
    except (KeyError, ValueError):
        raise Damaged(f"{place.at(path)} was not written by this archive. Move it away, and try again.") from None
    if checksum(frame) != found.checksum:
        raise Damaged(f"{place.at(path)} does not hold the bars that were archived in it.")
    return found


def _parsed(place: Place, path: str) -> tuple[pd.DataFrame, dict[str, str]]:
    """Anything can be in a file. That the place does not answer is another error, and not the file's fault."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        content = place.read(path)
    except FileNotFoundError:
        raise Damaged(f"{place.at(path)} is missing.") from None
    try:
        table = parquet.read_table(pa.BufferReader(content), columns=BAR, partitioning=None)
        frame = table.to_pandas(types_mapper=None)[BAR]
        checksum(frame)  # of times and numbers: it fails where they are none
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise Damaged(f"{place.at(path)} can't be read: {_first_line(error)}") from None
    facts = table.schema.metadata or {}
    return frame, {key.decode(errors="replace"): value.decode(errors="replace") for key, value in facts.items()}


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def as_parquet(frame: pd.DataFrame, noted: Archived) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    moments = pa.timestamp("us", "UTC")
    numbers = {name: pa.int64() if name == "volume" else pa.float64() for name in BAR[1:]}
    columns = {
        "symbol": pa.array([noted.symbol] * len(frame)).dictionary_encode(),
        "time": pa.array(frame["time"].dt.as_unit("us"), moments),
        **{name: pa.array(frame[name], kind) for name, kind in numbers.items()},
    }
    facts = {name: str(getattr(noted, name)) for name in ("source", "interval", "symbol", "year", "checksum")}
    table = pa.table(columns).replace_schema_metadata({**facts, "written": noted.written.isoformat()})
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def look(place: Place, noted: Archived) -> Archived:
    """The file of this year, read and compared; nothing else happens."""
    if noted.checksum == UNKNOWN:
        return introduce(place, noted.path)
    read(place, noted)
    return noted


def restore_year(engine: Engine, place: Place, noted: Archived) -> int:
    """Put the bars back that the warehouse does not have, and answer how many. The file stays, for the next archive run."""
    noted = introduced(engine, place, noted)
    return restore_archived(engine, noted, read(place, noted))


def found_in(engine: Engine, place: Place) -> list[Archived]:
    """All files of the archive: the ledger's, and those in the place that the ledger does not know, by their names."""
    listed = archived_years(engine)
    paths = {noted.path for noted in listed}
    strangers = (_by_name(path) for path in place.names() if path not in paths)
    return [*listed, *(stranger for stranger in strangers if stranger)]


def _by_name(path: str) -> Archived | None:
    """What a file's name says of it; its checksum is still in the file only."""
    parts = path.removesuffix(".parquet").split("/")
    keys = ["source", "interval", "year", "symbol"]
    pairs = [part.partition("=") for part in parts]
    if [key for key, _, _ in pairs] != keys or not path.endswith(".parquet"):
        return None
    source, interval, year, symbol = (unquote(value) for _, _, value in pairs)
    if not year.isdigit() or path_of(source, interval, symbol, int(year)) != path:
        return None
    return Archived(source, interval, symbol, int(year), path, 0, UNKNOWN, datetime(1, 1, 1, tzinfo=UTC))


def introduced(engine: Engine, place: Place, noted: Archived) -> Archived:
    """The same, by the ledger: what it did not know yet is what the file says of itself."""
    return meet(engine, place, noted.path) if noted.checksum == UNKNOWN else noted
