"""The warehouse's tables from release to release: nothing is lost, nothing is half done, on both databases."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Column, Double, Engine, Integer, MetaData, Table, inspect, text

from flows.market_data import migrations, warehouse
from flows.market_data.connection import engine_of
from flows.market_data.indicators import BARS_NEEDED
from flows.market_data.migrations.__main__ import main
from flows.market_data.models import Bar, Indicators, Symbol, metadata
from tests.flows.frames import LAST_DAY, LONG_AGO, apple, bars

pytest_plugins = ["tests.postgres"]

VERSIONS = sorted((Path(migrations.__file__).parent / "versions").glob("r*.py"))
REVISIONS = [path.name[1:5] for path in VERSIONS]
FIRST = [Symbol.__table__, Bar.__table__, Indicators.__table__]


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = engine_of(url)
    yield engine
    engine.dispose()


def tables(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names()) - {migrations.VERSIONS}


def test_revisions_are_numbers_in_order_and_the_last_is_head() -> None:
    assert [int(number) for number in REVISIONS] == list(range(1, len(REVISIONS) + 1))
    assert REVISIONS[-1] == migrations.HEAD


def test_an_empty_database_gets_every_table_that_the_models_have(engine: Engine) -> None:
    assert migrations.current(engine) == ""
    assert migrations.upgrade(engine) == migrations.HEAD
    assert tables(engine) == set(metadata.tables)
    assert migrations.drift(engine) == []


@pytest.mark.parametrize("revision", REVISIONS)
def test_from_each_revision_the_way_up_keeps_the_rows_and_ends_at_the_models(engine: Engine, revision: str) -> None:
    assert migrations.upgrade(engine, revision) == revision
    warehouse.upsert_bars(engine, "AAPL", "sample", bars({}, {}, {}))
    assert migrations.upgrade(engine) == migrations.HEAD
    assert migrations.drift(engine) == []
    assert len(warehouse.read_bars(engine, "sample", ["AAPL"], LONG_AGO, LAST_DAY)) == 3


@pytest.mark.parametrize("revision", ["base", *REVISIONS[:-1]])
def test_the_way_down_and_up_again_leaves_no_trace(engine: Engine, revision: str) -> None:
    migrations.upgrade(engine)
    assert migrations.downgrade(engine, revision) == revision.replace("base", "")
    assert (tables(engine) == set()) == (revision == "base")
    migrations.upgrade(engine)
    assert migrations.drift(engine) == []


def test_a_downgrade_that_would_lose_rows_is_refused_until_told(engine: Engine) -> None:
    migrations.upgrade(engine)
    warehouse.upsert_company_information(engine, "sample", {"AAPL": {"name": "Apple"}})
    with pytest.raises(ValueError, match=r"would drop company_information \(1 rows\)\. Nothing was changed"):
        migrations.downgrade(engine, "0001")
    assert migrations.current(engine) == migrations.HEAD
    assert migrations.downgrade(engine, "0001", lose_rows=True) == "0001"
    assert tables(engine) == {"symbols", "bars", "indicators"}


@pytest.mark.parametrize("made", [FIRST, FIRST[:1]], ids=["whole", "half made"])
def test_a_warehouse_from_before_there_were_migrations_is_taken_over(engine: Engine, made: list[Table]) -> None:
    metadata.create_all(engine, tables=made)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO symbols VALUES ('AAPL', '2013-03-01 12:00:00.000000')"))
    migrations.upgrade(engine)
    assert migrations.drift(engine) == []
    assert warehouse.upsert_bars(engine, "AAPL", "sample", apple()) == 3270
    assert warehouse.symbols_of(engine, "sample") == ["AAPL"]


def test_somebody_elses_table_of_the_same_name_is_refused_and_left_alone(engine: Engine) -> None:
    others = MetaData()
    Table("bars", others, Column("id", Integer, primary_key=True), Column("length", Double))
    others.create_all(engine)
    with pytest.raises(ValueError, match="tables of the warehouse's names that are not the warehouse's"):
        migrations.upgrade(engine)
    assert inspect(engine).get_table_names() == ["bars"]


def test_another_programs_tables_and_revision_do_not_matter(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('of another')"))
    assert migrations.upgrade(engine) == migrations.HEAD
    assert migrations.drift(engine) == []


def test_after_a_rollback_the_older_release_works_on_the_newer_warehouse(engine: Engine) -> None:
    migrations.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {migrations.VERSIONS} SET version_num = '9999'"))
    assert migrations.upgrade(engine) == "9999"
    assert warehouse.upsert_bars(engine, "AAPL", "sample", bars({})) == 1
    with pytest.raises(ValueError, match=r"can't be taken to the revision '0001'.*9999"):
        migrations.downgrade(engine, "0001")


def test_a_migration_that_fails_leaves_nothing_behind(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE load_runs (id INTEGER)"))  # in the way of the second revision
    with pytest.raises(Exception, match="load_runs"):
        migrations.upgrade(engine)
    assert tables(engine) == {"load_runs"}
    assert migrations.current(engine) == ""


@pytest.mark.parametrize("verb", ["current", "check"])
def test_to_look_at_a_file_that_is_not_there_does_not_make_it(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "typo" / "warehouse.db"
    assert main([verb, "--url", f"sqlite:///{file}"]) == 1
    assert "There is no file" in capsys.readouterr().err and not file.exists()


@pytest.mark.parametrize(
    ("statement", "seen"),
    [
        ("ALTER TABLE bars ADD COLUMN dividend FLOAT", "remove_column.*dividend"),
        ("ALTER TABLE indicators DROP COLUMN sma_20", "add_column.*sma_20"),
        ("DROP INDEX ix_load_runs_of", "add_index.*ix_load_runs_of"),
    ],
)
def test_drift_is_seen(engine: Engine, statement: str, seen: str) -> None:
    migrations.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text(statement))
    [difference] = migrations.drift(engine)
    assert re.search(seen, difference)


# Four processes, let go at once.
AT_ONCE = """
import os, sys
from alembic import command
from flows.market_data import warehouse
from tests.flows.frames import bars
waiting, go = os.pipe()
children = []
for number in range(4):
    children.append(os.fork())
    if not children[-1]:
        os.close(go)
        os.read(waiting, 1)
        warehouse.upsert_bars(warehouse.connect(sys.argv[1]), f"S{number}", "sample", bars({}, {}))
        os._exit(0)
os.close(go)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


def test_many_processes_that_start_at_once_make_one_warehouse(engine: Engine, url: str) -> None:
    subprocess.run([sys.executable, "-c", AT_ONCE, url], cwd=Path(__file__).parents[2], check=True)
    assert warehouse.symbols_of(engine, "sample") == ["S0", "S1", "S2", "S3"]
    assert migrations.drift(engine) == []


def test_many_threads_that_start_at_once_make_one_warehouse(url: str) -> None:
    together, errors = threading.Barrier(4), []

    def start(number: int) -> None:
        together.wait()
        try:
            engine = warehouse.connect(url)
            warehouse.upsert_bars(engine, f"S{number}", "sample", bars({}, {}))
            engine.dispose()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=start, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    engine = warehouse.connect(url)
    assert warehouse.symbols_of(engine, "sample") == ["S0", "S1", "S2", "S3"]
    assert migrations.drift(engine) == []
    engine.dispose()


def test_every_indicator_has_its_column() -> None:
    assert [column.name for column in Indicators.__table__.columns][4:] == list(BARS_NEEDED)


def test_the_command_goes_up_looks_and_goes_down(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    engine_of(url).connect().close()
    assert main(["current", "--url", url]) == 0
    assert main(["check", "--url", url]) == 1
    assert main(["upgrade", "--url", url]) == 0
    assert main(["check", "--url", url]) == 0
    assert main(["downgrade", "base", "--url", url]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        f"The warehouse is at revision none; newest: {migrations.HEAD}.",
        f"The warehouse is at revision {migrations.HEAD}.",
        "The warehouse's tables are what the models say.",
        "The warehouse is at revision none.",
    ]
    assert "add_table" in said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["upgrade"], "Give --url, or set WAREHOUSE_URL"),
        (["upgrade", "--url", "hunter2"], "expected something like sqlite:"),
        (["upgrade", "9999", "--url", "sqlite://"], "can't be taken to the revision '9999'"),
        (["current", "--url", "postgresql://me:hunter2@127.0.0.1:9/db"], "does not answer as it should"),
    ],
)
def test_what_a_user_gets_wrong_is_one_sentence(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 1
    said = capsys.readouterr().err
    assert re.search(message, said)
    assert "Traceback" not in said and "hunter2" not in said


def test_a_new_revision_is_written_from_what_the_models_have_more(engine: Engine, tmp_path: Path) -> None:
    migrations.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE company_information DROP COLUMN website"))
    folder = shutil.copytree(migrations.FOLDER, tmp_path / "migrations")
    path = migrations.write_revision(engine, "Add the website", folder)
    assert path == folder / "versions" / f"r{int(migrations.HEAD) + 1:04}_add_the_website.py"
    assert "batch_op.add_column(sa.Column('website', sa.Text(), nullable=True))" in path.read_text()
