#!/usr/bin/env bash
# A dump of Prefect's database every EVERY_SECONDS, in the volume `backups`; those older than KEEP_DAYS go, the newest never.
#     backup.sh          for ever
#     backup.sh once     one dump, now
#     backup.sh check    is the newest young enough? (the health check)
set -euo pipefail
folder=${BACKUPS:-/backups}

newest() { find "$folder" -maxdepth 1 -name 'prefect-*.dump' | sort | tail -n 1; }

age() { echo $(($(date +%s) - $(stat -c %Y "$1"))); }

# Whole or not at all: a dump that breaks off never gets its name, nor one that pg_restore cannot read. Each has a part of its own, as
# `once` may run beside the loop; parts of a process that was killed go after a day. Chained by hand: in `if dump` bash does not
# stop at errors.
dump() {
    local file part
    part=$(mktemp "$folder/.part.XXXXXX") || return 1
    file="$folder/prefect-$(date -u +%Y%m%dT%H%M%SZ).dump"
    if ! { PGPASSWORD=$(cat "$PASSWORD_FILE") pg_dump --format=custom --no-password --file="$part" &&
        pg_restore --list "$part" >/dev/null; }; then
        rm -f "$part"
        return 1
    fi
    mv "$part" "$file" &&
        echo "$file: $(stat -c %s "$file") bytes" &&
        find "$folder" -maxdepth 1 -name '.part*' -mtime +0 -delete &&
        find "$folder" -maxdepth 1 -name 'prefect-*.dump' ! -path "$file" -mtime "+$KEEP_DAYS" -print -delete
}

case ${1:-} in
check)
    file=$(newest)
    [[ -n $file ]] || { echo "there is no backup" && exit 1; }
    (($(age "$file") < 2 * EVERY_SECONDS)) || { echo "the newest backup, $file, is $(age "$file") s old" && exit 1; }
    ;;
once) dump ;;
*)
    trap '[[ -z ${!:-} ]] || kill "$!" 2>/dev/null || true; exit 0' TERM INT
    while true; do
        file=$(newest) && pause=$EVERY_SECONDS
        if [[ -n $file ]] && (($(age "$file") < EVERY_SECONDS)); then # a restart is no reason for one more
            pause=$((EVERY_SECONDS - $(age "$file")))
        elif ! dump; then
            echo "the backup failed; once more in a minute" >&2
            pause=60
        fi
        sleep "$pause" &
        wait $!
    done
    ;;
esac
