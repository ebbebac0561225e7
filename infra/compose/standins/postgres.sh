#!/bin/sh
# As much of the official image's entrypoint as our Compose files use: the first start creates the cluster with
# POSTGRES_USER, POSTGRES_DB and POSTGRES_PASSWORD(_FILE), and runs what lies in /docker-entrypoint-initdb.d.
set -eu
if [ "$1" = postgres ]; then
    if [ "$(id -u)" = 0 ]; then
        install -d -m 700 -o postgres -g postgres "$PGDATA"
        chown -R postgres "$PGDATA"
        exec setpriv --reuid=999 --regid=999 --clear-groups "$0" "$@"
    fi
    if [ ! -s "$PGDATA/PG_VERSION" ]; then
        user=${POSTGRES_USER:-postgres}
        initdb --username="$user" --pwfile="${POSTGRES_PASSWORD_FILE:?}" --auth-host=scram-sha-256 --auth-local=trust --encoding=UTF8 >/dev/null
        echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
        pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start >/dev/null
        [ "${POSTGRES_DB:-$user}" = postgres ] || createdb --username="$user" "${POSTGRES_DB:-$user}"
        for script in /docker-entrypoint-initdb.d/*.sh; do
            [ ! -e "$script" ] || . "$script"
        done
        pg_ctl -D "$PGDATA" -m fast -w stop >/dev/null
    fi
fi
exec "$@"
