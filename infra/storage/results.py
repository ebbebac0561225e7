"""Where results are kept: a bucket for qa and prod, a folder for dev; and for how long.

    python infra/storage/results.py block s3://bucket/results      # the block that workers name, made or brought up to date
    python infra/storage/results.py retain s3://bucket/results --days 30    # the bucket's own clean-up
    python infra/storage/results.py thin FOLDER --days 30          # the same for a folder; for cron

`block` asks PREFECT_API_URL, with PREFECT_API_KEY or PREFECT_API_AUTH_STRING. S3's key, region and endpoint come from the usual
AWS variables, or the machine's role: nothing secret is in the block. docs/high-availability.md says more.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from deployer.errors import DeployError, InvalidInput  # noqa: E402
from deployer.prefect_api import Client  # noqa: E402
from infra.api import client  # noqa: E402

KIND = "remote-file-system"
SECONDS_A_DAY = 86400
BUCKET = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(?P<prefix>[^?#@]*[^?#@/])/?")


def main(arguments: Sequence[str] | None = None) -> int:
    words = _parser().parse_args(arguments)
    try:
        print(words.verb(words))
    except DeployError as error:
        print(f"results: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    verbs = parser.add_subparsers(required=True, metavar="block | retain | thin")

    word = verbs.add_parser("block", help="make the storage block, or bring it up to date")
    word.add_argument("url", help="s3://bucket/prefix")
    word.add_argument("--name", default="results", help="of the block (default: %(default)s)")
    word.set_defaults(verb=_block)

    word = verbs.add_parser("retain", help="have the bucket delete results after some days; its other rules stay")
    word.add_argument("url", help="s3://bucket/prefix")
    word.set_defaults(verb=_retain)

    thinning = verbs.add_parser("thin", help="delete the results in a folder that are older")
    thinning.add_argument("folder", type=Path)
    thinning.set_defaults(verb=_thin)
    for one in (word, thinning):
        one.add_argument("--days", type=_days, required=True)
    return parser


def _days(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number of days from 1 on")
    return int(text)


def _block(words: argparse.Namespace) -> str:
    with client() as api:
        done = block(api, words.name, words.url)
    return f"{done} Workers use it by PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK={KIND}/{words.name}"


def _retain(words: argparse.Namespace) -> str:
    return retain(words.url, words.days)


def _thin(words: argparse.Namespace) -> str:
    return f"{thin(words.folder, words.days, time.time())} results deleted."


def block(api: Client, name: str, url: str) -> str:
    """Idempotent. The block says where, and no more: its settings would show a key to everybody."""
    _parts(url)
    wanted = {"basepath": url, "settings": {}}
    path = f"/block_types/slug/{KIND}/block_documents/name/{quote(name)}"
    there = api.find(path)
    if there and there["data"] == wanted:
        return f"{KIND}/{name} is as it should be: {url}."
    if there:
        api.patch(f"/block_documents/{there['id']}", {"data": wanted, "merge_existing_data": False})
        return f"{KIND}/{name} now is {url}; it was {there['data'].get('basepath')}."
    kind, schema = _schema(api)
    body = {"name": name, "data": wanted, "block_type_id": kind, "block_schema_id": schema}
    api.create("/block_documents/", body, lambda: api.find(path))
    return f"{KIND}/{name} is made: {url}."


def _schema(api: Client) -> tuple[str, str]:
    """Of the block type and of its newest schema. A server that never registered its blocks is asked to."""
    kind = api.find(f"/block_types/slug/{KIND}")
    if kind is None:
        api.request("POST", "/block_types/install_system_block_types")
        kind = api.get(f"/block_types/slug/{KIND}")
    wanted = {"block_schemas": {"block_type_id": {"any_": [kind["id"]]}}, "limit": 1}
    [schema] = api.request("POST", "/block_schemas/filter", wanted)
    return kind["id"], schema["id"]


def retain(url: str, days: int) -> str:
    """A rule of its own in the bucket's lifecycle; whoever keeps the bucket with Terraform writes it there instead."""
    import boto3  # type: ignore[import-untyped]
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

    bucket, prefix = _parts(url)
    rule = {
        "ID": f"prefect-results-{prefix.replace('/', '-')}",
        "Filter": {"Prefix": f"{prefix}/"},
        "Status": "Enabled",
        "Expiration": {"Days": days},
    }
    try:
        s3 = boto3.client("s3")
        rules = [*(one for one in _rules(s3, bucket) if one.get("ID") != rule["ID"]), rule]
        s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
    except (BotoCoreError, ClientError) as error:
        raise InvalidInput(f"S3 does not answer as it should: {error}") from None
    return f"{bucket} deletes what is under {prefix}/ after {days} days; {len(rules) - 1} other rules stay."


def _rules(s3: Any, bucket: str) -> list[dict[str, Any]]:
    from botocore.exceptions import ClientError

    try:
        found: list[dict[str, Any]] = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchLifecycleConfiguration":
            return []
        raise
    return found


def thin(folder: Path, days: int, now: float) -> int:
    """A folder of results and nothing else, PREFECT_LOCAL_STORAGE_PATH: they have no name of their own to be known by."""
    if not folder.is_dir():
        raise InvalidInput(f"There is no folder {folder}.")
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and not file.is_symlink()]
    old = [file for file in files if file.stat().st_mtime < now - days * SECONDS_A_DAY]
    for file in old:
        file.unlink(missing_ok=True)
    return len(old)


def _parts(url: str) -> tuple[str, str]:
    found = BUCKET.fullmatch(url)
    if not found:
        raise InvalidInput(f"{url!r}: expected s3://bucket/prefix, without a key in it.")
    return found["bucket"], found["prefix"]


if __name__ == "__main__":
    sys.exit(main())
