"""The scripts of the chart's backup: a dump whole or not at all, in the bucket with the right size, and old ones gone."""

from __future__ import annotations

import os
import runpy
import subprocess
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from bench.servers import postgresql_programs
from tests.infra.tools import ROOT

if TYPE_CHECKING:
    from tests.postgres import PostgreSQL

pytest_plugins = ["tests.postgres"]

FILES = ROOT / "infra/helm/chart/files"
URL = "postgresql+asyncpg://prefect:secret@db:5432/prefect?ssl=require"

# Stand-ins that write down what they were asked, and a dump.
PG_DUMP = """#!/usr/bin/env bash
printf '%s\\n' "$@" >"$ASKED"
printf '%s' "${PGPASSWORD-}" >"$ASKED.password"
for word in "$@"; do case $word in --file=*) echo "${CONTENT-dump}" >"${word#--file=}" ;; esac; done
exit "${FAILS:-0}"
"""
PG_RESTORE = """#!/usr/bin/env bash
grep -q dump "$2"
"""


def dump(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    for name, text in (("pg_dump", PG_DUMP), ("pg_restore", PG_RESTORE)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    own = {"PATH": path, "ASKED": str(folder / "asked"), "FOLDER": str(folder), "KEEP": "2"}
    url = folder / "url"
    url.write_text(settings.pop("URL", URL))
    own |= {"DATABASE_URL_FILE": str(url)}
    return subprocess.run(["bash", FILES / "dump.sh"], env={**own, **settings}, capture_output=True, text=True)


def dumps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*prefect-*"))


@pytest.mark.infra
def test_prefects_own_url_becomes_one_that_postgresql_reads(tmp_path: Path) -> None:
    assert dump(tmp_path).returncode == 0
    asked = (tmp_path / "asked").read_text().split()
    assert "--dbname=postgresql://prefect@db:5432/prefect?sslmode=require" in asked and "--no-password" in asked


@pytest.mark.infra
@pytest.mark.parametrize("password", ["secret", r"p@s/s:%20\x41\n'$(id) ", "%"])
def test_the_password_stands_in_no_command(tmp_path: Path, password: str) -> None:
    url = f"postgresql+asyncpg://prefect:{quote(password, safe='')}@db/prefect"
    assert dump(tmp_path, URL=url).returncode == 0
    assert "--dbname=postgresql://prefect@db/prefect" in (tmp_path / "asked").read_text().splitlines()
    assert (tmp_path / "asked.password").read_text() == password


@pytest.mark.infra
def test_a_url_without_a_password_stays_as_it_is(tmp_path: Path) -> None:
    assert dump(tmp_path, URL="postgresql://prefect@db:5432/prefect").returncode == 0
    assert "--dbname=postgresql://prefect@db:5432/prefect" in (tmp_path / "asked").read_text().split()
    assert (tmp_path / "asked.password").read_text() == ""


@pytest.mark.infra
@pytest.mark.parametrize("settings", [{"FAILS": "1"}, {"CONTENT": "half"}])
def test_a_dump_that_broke_off_is_none(tmp_path: Path, settings: dict[str, str]) -> None:
    assert dump(tmp_path, **settings).returncode != 0
    assert dumps(tmp_path) == [] and not list(tmp_path.glob(".part*"))


@pytest.mark.infra
def test_a_dump_leaves_that_of_another_alone(tmp_path: Path) -> None:
    (tmp_path / ".part").write_text("half")
    (tmp_path / ".part.other").write_text("half")
    assert dump(tmp_path).returncode == 0
    assert {path.name for path in tmp_path.glob(".part*")} == {".part", ".part.other"} and len(dumps(tmp_path)) == 1


@pytest.mark.infra
def test_a_dump_that_broke_off_takes_no_older_one_along(tmp_path: Path) -> None:
    old = [f"prefect-2026010{day}T000000Z.dump" for day in (1, 2, 3)]
    for name in old:
        (tmp_path / name).write_text("dump")
    dump(tmp_path, FAILS="1")
    assert dumps(tmp_path) == old


@pytest.mark.infra
def test_the_newest_stay_and_other_files_too(tmp_path: Path) -> None:
    for name in ("prefect-20260101T000000Z.dump", "prefect-20260102T000000Z.dump", "prefect-notes.txt"):
        (tmp_path / name).write_text("dump")
    answer = dump(tmp_path)
    kept = dumps(tmp_path)
    assert len(kept) == 3 and kept[0] == "prefect-20260102T000000Z.dump" and "prefect-notes.txt" in kept
    assert "prefect-20260101T000000Z.dump: removed" in answer.stdout and "secret" not in answer.stdout + answer.stderr


@pytest.mark.infra
def test_a_missing_setting_is_named(tmp_path: Path) -> None:
    answer = subprocess.run(
        ["bash", FILES / "dump.sh"], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True
    )
    assert answer.returncode and "DATABASE_URL_FILE: is not set" in answer.stderr


def upload(folder: Path, patch: pytest.MonkeyPatch, **settings: str) -> Any:
    own = {"FOLDER": str(folder), "BUCKET": "backups", "PREFIX": "prefect/", "KEEP": "2"}
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**own, **keys, **settings}.items():
        patch.setenv(name, value)
    return runpy.run_path(str(FILES / "upload.py"))["main"]()


@pytest.mark.infra
def test_the_newest_dump_goes_to_the_bucket_and_old_ones_go_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prefect-20260103T000000Z.dump").write_bytes(b"three")
    with import_module("moto").mock_aws():
        assert upload_to_a_bucket(tmp_path, monkeypatch) == {
            "other/prefect-1.dump",
            "prefect/prefect-20260102T000000Z.dump",
            "prefect/prefect-20260103T000000Z.dump",
        }
    assert "s3://backups/prefect/prefect-20260103T000000Z.dump: 5 bytes" in capsys.readouterr().out


def upload_to_a_bucket(folder: Path, patch: pytest.MonkeyPatch) -> set[str]:
    client = import_module("boto3").client(
        "s3", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    client.create_bucket(Bucket="backups")
    for day in (1, 2):
        client.put_object(Bucket="backups", Key=f"prefect/prefect-2026010{day}T000000Z.dump", Body=b"old")
    client.put_object(Bucket="backups", Key="other/prefect-1.dump", Body=b"not ours")
    assert upload(folder, patch) == 0
    return {item["Key"] for item in client.list_objects_v2(Bucket="backups")["Contents"]}


@pytest.mark.infra
def test_without_a_dump_nothing_is_uploaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert upload(tmp_path, monkeypatch) == 1
    assert "there is no dump" in capsys.readouterr().err


@pytest.mark.stack
def test_a_dump_of_a_real_database_can_be_restored(tmp_path: Path, postgresql: PostgreSQL) -> None:
    import psycopg

    programs = postgresql_programs()
    source, target = postgresql.new_database(), postgresql.new_database()
    with psycopg.connect(source) as connection:
        connection.execute("CREATE TABLE run AS SELECT n FROM generate_series(1, 100) n")
    url = tmp_path / "url"
    url.write_text(source.replace("postgresql:", "postgresql+asyncpg:"))
    settings = {"FOLDER": str(tmp_path), "KEEP": "2", "DATABASE_URL_FILE": str(url)}
    environment = {**settings, "PATH": f"{programs}:{os.environ['PATH']}"}
    subprocess.run(["bash", FILES / "dump.sh"], env=environment, check=True)
    (made,) = tmp_path.glob("prefect-*.dump")
    subprocess.run([f"{programs}/pg_restore", "--no-owner", f"--dbname={target}", made], check=True)
    with psycopg.connect(target) as connection:
        assert connection.execute("SELECT count(*), sum(n) FROM run").fetchone() == (100, 5050)
