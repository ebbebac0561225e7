#!/usr/bin/env bash
# One dump of Prefect's database into FOLDER, whole or not at all; the KEEP newest stay. The URL in DATABASE_URL_FILE may be
# Prefect's own, with SQLAlchemy's driver and asyncpg's word for TLS in it.
set -euo pipefail
: "${DATABASE_URL_FILE:?is not set}" "${FOLDER:?is not set}" "${KEEP:?is not set}"
url=$(sed -E 's#^(postgres(ql)?)\+[a-z0-9]+://#\1://#; s#([?&])ssl=#\1sslmode=#' "$DATABASE_URL_FILE")
# The password goes by the environment: what stands in the command everybody on the machine may see. In a URL it is percent-encoded.
credentials='^([a-z]+://[^:/@]*):([^/@]*)@(.*)$'
if [[ $url =~ $credentials ]]; then
    url="${BASH_REMATCH[1]}@${BASH_REMATCH[3]}"
    encoded=${BASH_REMATCH[2]//\\/\\\\}
    PGPASSWORD=$(printf '%b' "${encoded//%/\\x}")
    export PGPASSWORD
fi
file="$FOLDER/prefect-$(date -u +%Y%m%dT%H%M%SZ).dump"
part=$(mktemp "$FOLDER/.part.XXXXXX")   # its own: another dump may be under way on the same volume
trap 'rm -f "$part"' EXIT
pg_dump --format=custom --no-password --file="$part" --dbname="$url"
pg_restore --list "$part" >/dev/null   # a file that broke off has no readable list
mv "$part" "$file"
find "$FOLDER" -maxdepth 1 -name '.part*' -mtime +0 -delete   # of a job that was killed
echo "$file: $(stat -c %s "$file") bytes"
find "$FOLDER" -maxdepth 1 -name 'prefect-*.dump' | sort -r | tail -n "+$((KEEP + 1))" | while read -r old; do
    rm "$old"
    echo "$old: removed"
done
