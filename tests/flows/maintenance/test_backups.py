"""A backup counts when it was restored and is equal; it is of one moment, and the ones before it are safe."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, select, text

from flows.market_data import backups, warehouse
from flows.market_data.backups import BackupFailed, __main__, back_up, known, restore, thin
from flows.market_data.backups import postgresql as postgresql_backups
from flows.market_data.backups import sqlite as sqlite_backups
from flows.market_data.backups.contents import Rows, differences
from flows.market_data.migrations import drift
from flows.market_data.places import UNFINISHED, Place, digest_of
from tests.flows.frames import apple, bars

if TYPE_CHECKING:
    from tests.postgres import PostgreSQL

pytest_plugins = ["tests.postgres", "tests.flows.maintenance.s3"]

ROOT = Path(__file__).parents[3]
TABLES = 8


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """With 3,270 bars."""
    engine = warehouse.connect(url)
    warehouse.upsert_bars(engine, "AAPL", "sample", apple())
    yield engine
    engine.dispose()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(str(tmp_path / "backups"))


def empty(engine: Engine, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of another database, of the same kind, without a table."""
    if engine.dialect.name == "sqlite":
        return f"sqlite:///{tmp_path / 'restored.db'}"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.new_database()


def contents(url: str) -> list[Any]:
    engine = warehouse.connect(url)
    try:
        with engine.connect() as connection:
            return list(connection.execute(select(warehouse.bars).order_by(*warehouse.bars.primary_key)))
    finally:
        engine.dispose()


def test_a_backup_restored_is_the_warehouse_to_the_last_bit(
    engine: Engine, url: str, place: Place, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    backup = back_up(url, place)
    assert backup.verified and (len(backup.tables), backup.rows) == (TABLES, 3272)
    assert known(place) == [backup.name]
    again = empty(engine, request, tmp_path)
    assert restore(place.folder / backup.name, again) == backup.tables
    assert contents(again) == contents(url)
    restored = warehouse.connect(again)
    assert drift(restored) == []
    restored.dispose()


def test_a_backup_leaves_nothing_but_its_file(engine: Engine, url: str, place: Place) -> None:
    back_up(url, place)
    assert list((place.folder / UNFINISHED).iterdir()) == []
    assert databases(engine) == []
    [file] = [path for path in place.folder.iterdir() if path.is_file()]
    assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0  # all that is in the warehouse is in it


def databases(engine: Engine) -> list[str]:
    """Scratch databases."""
    if engine.dialect.name == "sqlite":
        return []
    with engine.connect() as connection:
        return list(connection.scalars(text("select datname from pg_database where datname like 'backup_check%'")))


def test_a_backup_into_s3_is_the_one_that_was_taken(engine: Engine, url: str, s3: str, tmp_path: Path) -> None:
    place = Place(f"{s3}/backups")
    backup = back_up(url, place)
    assert known(place) == [backup.name] and place.size(backup.name) == backup.size
    file = __main__.here(f"{place.url}/{backup.name}", tmp_path)
    assert digest_of(file)[:16] in backup.name


def test_a_backup_is_of_one_moment_while_others_write(engine: Engine, url: str, place: Place) -> None:
    """A writer adds bars all the time; a dump of another moment than what it is compared with would be refused."""
    end = threading.Event()
    wrote: list[int] = []

    def write() -> None:
        while not end.is_set():
            frame = bars({"time": datetime(2020, 1, 1, tzinfo=UTC) + timedelta(hours=len(wrote))})
            wrote.append(warehouse.upsert_bars(engine, "AAPL", "sample", frame))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        rows = [back_up(url, place).rows for _ in range(2)]
    finally:
        end.set()
        writer.join()
    assert 3272 <= rows[0] < rows[1] <= 3272 + len(wrote)


def test_a_copy_that_is_not_equal_is_thrown_away(
    engine: Engine, url: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = backups.KINDS[engine.dialect.name]
    tried = kind.tried
    monkeypatch.setattr(
        kind, "tried", lambda *given: {name: rows for name, rows in tried(*given).items() if "bars" not in name}
    )
    with pytest.raises(BackupFailed, match=r"not what was in the database: .*bars is missing\. It was thrown away"):
        back_up(url, place)
    assert known(place) == [] and list((place.folder / UNFINISHED).iterdir()) == []


@pytest.mark.parametrize("step", ["_create", "_restore", "contents"])
def test_an_interrupted_backup_drops_its_scratch_database(
    postgresql: PostgreSQL, place: Place, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    url = postgresql.new_database()
    engine = warehouse.connect(url)

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(postgresql_backups, step, interrupt)
    with pytest.raises(KeyboardInterrupt):
        back_up(url, place)
    assert known(place) == [] and databases(engine) == []
    assert list((place.folder / UNFINISHED).iterdir()) == []
    engine.dispose()


KILLED = """
import os, signal, sys
from flows.market_data import backups
from flows.market_data.backups import postgresql
from flows.market_data.migrations import drift
from flows.market_data.places import Place
postgresql._restore = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
backups.back_up(sys.argv[1], Place(sys.argv[2]))
"""


def test_what_a_killed_backup_left_is_gone_after_the_next(postgresql: PostgreSQL, place: Place) -> None:
    url = postgresql.new_database()
    engine = warehouse.connect(url)
    subprocess.run([sys.executable, "-c", KILLED, url, place.url], cwd=ROOT, check=False)
    assert len(databases(engine)) == 1 and known(place) == []
    assert len(list((place.folder / UNFINISHED).iterdir())) == 1
    backup = back_up(url, place)
    assert databases(engine) == [] and known(place) == [backup.name]
    assert list((place.folder / UNFINISHED).iterdir()) == []
    engine.dispose()


def test_postgresqls_own_command_restores_a_backup(postgresql: PostgreSQL, place: Place) -> None:
    """As docs/maintenance.md says it, for whoever has lost this repository."""
    url, again = postgresql.new_database(), postgresql.new_database()
    engine = warehouse.connect(url)
    warehouse.upsert_bars(engine, "AAPL", "sample", apple())
    engine.dispose()
    file = place.folder / back_up(url, place).name
    words = ["--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction", f"--dbname={again}", str(file)]
    subprocess.run([postgresql_backups.programs_for(0) / "pg_restore", *words], check=True)
    assert contents(again) == contents(url)


def test_one_backup_of_a_database_at_a_time(postgresql: PostgreSQL, place: Place) -> None:
    url = postgresql.new_database()
    with postgresql_backups.alone(url), pytest.raises(BackupFailed, match="Another backup of this database"):
        back_up(url, place)


def test_a_role_that_may_not_create_databases_is_told_what_to_do(postgresql: PostgreSQL, place: Place) -> None:
    url = postgresql.new_database()
    warehouse.connect(url).dispose()
    name = url.rpartition("/")[2]
    with warehouse.connect(url).begin() as connection:
        for statement in (
            f"create role reader_{name} login password 'hunter2'",
            f"grant usage on schema public to reader_{name}",
            f"grant select on all tables in schema public to reader_{name}",
            f"grant select on all sequences in schema public to reader_{name}",
        ):
            connection.execute(text(statement))
    reader = f"postgresql://reader_{name}:hunter2@127.0.0.1:{postgresql.port}/{name}"
    with pytest.raises(ValueError, match=rf"ALTER ROLE reader_{name} CREATEDB, or .* verify = false") as caught:
        back_up(reader, place)
    assert "hunter2" not in str(caught.value) and known(place) == []
    backup = back_up(reader, place, verify=False)
    assert not backup.verified and backup.name.endswith("-unverified.dump")


def test_a_dump_that_fails_says_why_without_the_password(postgresql: PostgreSQL, place: Place) -> None:
    url = postgresql.new_database()
    with warehouse.connect(url).begin() as connection:
        connection.execute(text("create role other; create table secret (x int); alter table secret owner to other"))
        connection.execute(text("create role weak login password 'hunter2'"))
    weak = f"postgresql://weak:hunter2@127.0.0.1:{postgresql.port}/{url.rpartition('/')[2]}"
    with pytest.raises(BackupFailed, match=r"pg_dump failed: .*permission denied") as caught:
        back_up(weak, place)
    assert "hunter2" not in repr(caught.value)
    assert known(place) == []


def test_the_password_is_no_argument_of_a_program(
    postgresql: PostgreSQL, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda words, **more: seen.append(words) or run(words, **more))  # type: ignore[func-returns-value]
    url = postgresql.new_database()
    warehouse.connect(url).dispose()
    back_up(url, place)
    programs = [Path(words[0]).name for words in seen if "--version" not in words]
    assert programs == ["pg_dump", "pg_restore"]
    assert postgresql.password not in str(seen)


def fake_programs(folder: Path, version: int) -> Path:
    for name in ("pg_dump", "pg_restore"):
        program = folder / name
        folder.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}.4 (Debian {version}.4-1)'\n")
        program.chmod(0o755)
    return folder


def test_the_programs_are_the_paths_where_they_are_new_enough_else_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path = fake_programs(tmp_path / "bin", 14)
    fake_programs(tmp_path / "9" / "bin", 9)
    newest = fake_programs(tmp_path / "17" / "bin", 17)
    monkeypatch.setenv("PATH", f"{on_path}:/usr/bin:/bin")
    monkeypatch.setattr(postgresql_backups, "FOLDERS", (f"{tmp_path}/*/bin",))
    assert postgresql_backups.programs_for(14) == on_path
    assert postgresql_backups.programs_for(15) == newest
    with pytest.raises(ValueError, match=r"PostgreSQL 18, .*that of 17 is too old\. .*postgresql-client-18"):
        postgresql_backups.programs_for(18)


def test_without_any_programs_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(postgresql_backups, "FOLDERS", ())
    with pytest.raises(ValueError, match=r"there is none on this machine\. Install PostgreSQL's client programs"):
        postgresql_backups.programs_for(16)


@pytest.fixture
def small(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'small.db'}"
    warehouse.connect(url).dispose()
    return url


def named(place: Place, *days: int, of: str = "", ending: str = "") -> list[str]:
    names = [f"{of}-201001{day:02}T033000Z-{day:016x}{ending}.sqlite" for day in days]
    for name in names:
        place.write(name, b"")
    return names


def test_only_the_newest_backups_of_this_database_are_kept(small: str, place: Place) -> None:
    mine = backups._of(backups._kind(small)[1])
    others = [*named(place, 1, of="small-00000000"), *named(place, 1, of="else")]
    place.write(f"{mine}.sqlite", b"a file of somebody's")
    good = named(place, 4, 1, 3, 2, of=mine)
    bad = named(place, 5, 6, 7, of=mine, ending="-unverified")
    assert thin(small, place, keep=2) == [good[1], good[3], bad[0]]
    left = [good[2], good[0], *bad[1:], *others, f"{mine}.sqlite"]
    assert place.names() == sorted(left)
    assert thin(small, place, keep=2) == []


def test_the_last_verified_backup_stays_however_many_others_there_are(small: str, place: Place) -> None:
    mine = backups._of(backups._kind(small)[1])
    [good], _ = named(place, 1, of=mine), named(place, 2, 3, of=mine, ending="-unverified")
    thin(small, place, keep=1)
    assert good in place.names()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("postgresql://me@a/warehouse", "postgresql://me@b/warehouse"),
        ("postgresql://me@a/warehouse", "postgresql://me@a:5433/warehouse"),
        ("sqlite:////a/warehouse.db", "sqlite:////b/warehouse.db"),
    ],
)
def test_two_databases_of_one_name_keep_their_backups_apart(
    one: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.market_data.connection._prepare_file", lambda _: None)
    assert backups._of(backups._kind(one)[1]) != backups._of(backups._kind(other)[1])


def test_a_backup_of_nothing_says_so(tmp_path: Path, place: Place) -> None:
    with pytest.raises(ValueError, match="in memory only"):
        back_up("sqlite://", place)
    with pytest.raises(ValueError, match=r"no database at .*nothing\.db"):
        back_up(f"sqlite:///{tmp_path}/nothing.db", place)
    assert known(place) == []


def test_a_database_in_wal_mode_is_one_file(small: str, place: Place, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "small.db") as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE 'odd \"name' (x)")
        database.execute("INSERT INTO \"odd \"\"name\" VALUES (1.5), (NULL), (x'ff'), (CAST(x'ff' AS TEXT))")
        database.commit()
        backup = back_up(small, place)
    database.close()
    assert backup.tables['odd "name'].rows == 4
    restored = restore(place.folder / backup.name, f"sqlite:///{tmp_path / 'again.db'}")
    assert restored == backup.tables


def test_a_broken_sqlite_file_is_no_backup(small: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = sqlite_backups._copy

    def and_break(source: Path, target: Path) -> None:
        copy(source, target)
        content = bytearray(target.read_bytes())
        content[-4096:] = b"\xff" * 4096
        target.write_bytes(content)

    monkeypatch.setattr(sqlite_backups, "_copy", and_break)
    with pytest.raises(BackupFailed, match=r"The backup (is broken|can't be restored)"):
        back_up(small, place)
    assert known(place) == []


def test_a_restore_into_a_database_that_is_not_empty_is_refused(engine: Engine, url: str, place: Place) -> None:
    backup = back_up(url, place)
    with pytest.raises(ValueError, match=r"a backup is put into (an empty database|a new file) only"):
        restore(place.folder / backup.name, url)


@pytest.mark.parametrize("ending", ["-journal", "-wal"])
def test_what_another_database_left_beside_is_not_taken_for_the_restored_ones(
    small: str, place: Place, tmp_path: Path, ending: str
) -> None:
    backup, target = back_up(small, place), tmp_path / "restored.db"
    Path(f"{target}{ending}").write_bytes(b"of another one")
    with pytest.raises(ValueError, match=f"restored.db{ending} belongs to a database that was here"):
        restore(place.folder / backup.name, f"sqlite:///{target}")
    assert not target.exists()


def test_a_damaged_backup_is_not_restored(engine: Engine, url: str, place: Place) -> None:
    file = place.folder / back_up(url, place).name
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is damaged"):
        restore(file, url)
    unnamed = file.rename(file.with_name(f"x{file.suffix}"))
    unnamed.write_bytes(b"nonsense" * 100)
    with pytest.raises(
        (ValueError, BackupFailed),
        match=r"file is not a database|not appear to be a valid archive|tables already|exists already",
    ):
        restore(unnamed, f"{url}2" if url.startswith("sqlite") else url)


def test_a_backup_of_another_kind_of_database_is_refused(small: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no backup for sqlite: expected a name that ends in \.sqlite"):
        restore(tmp_path / "x.dump", small)


def test_differences_are_told_by_table() -> None:
    one = {"a": Rows(1, "x"), "b": Rows(1_000, "x"), "c": Rows(1, "x"), "d": Rows(1, "x")}
    other = {"a": Rows(1, "x"), "b": Rows(999, "y"), "c": Rows(1, "y"), "e": Rows(1, "x")}
    told = "b has 999 rows instead of 1,000, c has other values, d is missing, e is not of it"
    assert differences(one, other) == told
    assert differences(one, one) == ""


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows.market_data.backups", *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_the_command_lists_and_restores(small: str, place: Place, tmp_path: Path) -> None:
    backup = back_up(small, place)
    assert command("list", place.url).stdout == f"{backup.name}\n"
    done = command("restore", f"{place.url}/{backup.name}", WAREHOUSE_URL=f"sqlite:///{tmp_path / 'again.db'}")
    assert (done.returncode, done.stdout) == (0, "Restored: 8 tables, 1 rows.\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["restore", "nothing.sqlite"], "Where to? Give --url, or set WAREHOUSE_URL."),
        (["restore", "nothing.sqlite", "--url", "sqlite:///x.db"], "There is no file nothing.sqlite."),
        (["restore", "x.dump", "--url", "postgresql://me:hunter2@127.0.0.1:9/db"], "There is no file x.dump."),
        (["list", "s3://key:hunter2@bucket"], "Files are kept in a folder or at s3://bucket/prefix"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("WAREHOUSE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    assert __main__.main(words) == 1
    told = capsys.readouterr().err
    assert told.startswith(message) and told.count("\n") == 1 and "hunter2" not in told
