#!/usr/bin/env bash
# A dump of Prefect's database every EVERY_SECONDS, in the volume `backups`; those older than KEEP_DAYS go, the newest never.
#     backup.sh          for ever
#     backup.sh once     one dump, now
#     backup.sh check    is the newest young enough, or one on its way? (the health check)
set -euo pipefail
folder=${BACKUPS:-/backups}

newest() { find "$folder" -maxdepth 1 -name 'prefect-*.dump' | sort | tail -n 1; }

age() { echo $(($(date +%s) - $(stat -c %Y "$1"))); }

# Is a dump being written? After two days' stop, or of a large database at the first start, there is no younger one for a while.
# One that hangs (a lock, a server that is gone) has written nothing for ten minutes; one that failed is no better while it is tried again.
on_its_way() { [[ ! -e $folder/.failed && -n $(find "$folder" -maxdepth 1 -name '.part.*' -mmin -10) ]]; }

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
    ! on_its_way || exit 0
    file=$(newest)
    [[ -n $file ]] || { echo "there is no backup" && exit 1; }
    (($(age "$file") < 2 * EVERY_SECONDS)) || { echo "the newest backup, $file, is $(age "$file") s old" && exit 1; }
    ;;
once) dump ;;
*)
    rm -f "$folder/.failed" # another container's
    trap '[[ -z ${!:-} ]] || kill "$!" 2>/dev/null || true; exit 0' TERM INT
    while true; do
        file=$(newest) && pause=$EVERY_SECONDS
        if [[ -n $file ]] && (($(age "$file") < EVERY_SECONDS)); then # a restart is no reason for one more
            pause=$((EVERY_SECONDS - $(age "$file")))
        elif dump; then
            rm -f "$folder/.failed"
        else
            touch "$folder/.failed" || true # where there is no room for that either
            echo "the backup failed; once more in a minute" >&2
            pause=60
        fi
        sleep "$pause" &
        wait $!
    done
    ;;
esac
