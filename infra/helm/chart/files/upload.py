"""The newest dump of FOLDER into the bucket, and out of the bucket what is older than the KEEP newest."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

NAMES = "prefect-*.dump"


def main() -> int:
    bucket, prefix = os.environ["BUCKET"], os.environ["PREFIX"].strip("/")
    dumps = sorted(Path(os.environ["FOLDER"]).glob(NAMES))
    if not dumps:
        print("upload: there is no dump; look at the container before this one.", file=sys.stderr)
        return 1
    client = import_module("boto3").client("s3", endpoint_url=os.environ.get("ENDPOINT") or None)  # it has no types
    store(client, bucket, prefix, dumps[-1])
    prune(client, bucket, prefix, int(os.environ["KEEP"]))
    return 0


def store(client: Any, bucket: str, prefix: str, dump: Path) -> None:
    key = f"{prefix}/{dump.name}"
    client.upload_file(str(dump), bucket, key)
    there, here = client.head_object(Bucket=bucket, Key=key)["ContentLength"], dump.stat().st_size
    if there != here:
        sys.exit(f"upload: s3://{bucket}/{key} has {there} bytes, the dump has {here}.")
    print(f"s3://{bucket}/{key}: {there} bytes")


def prune(client: Any, bucket: str, prefix: str, keep: int) -> None:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/prefect-")
    keys = sorted(item["Key"] for page in pages for item in page.get("Contents", []) if item["Key"].endswith(".dump"))
    for key in keys[: max(len(keys) - keep, 0)]:
        client.delete_object(Bucket=bucket, Key=key)
        print(f"s3://{bucket}/{key}: removed")


if __name__ == "__main__":
    sys.exit(main())
