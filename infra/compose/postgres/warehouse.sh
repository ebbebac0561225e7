#!/bin/sh
# Sourced by the image's entrypoint at the first start: the flows' own database, and a user that sees nothing else. It may create
# databases, because the flow `database-backup` restores each backup into one to try it.
psql --quiet --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" \
    --set=password="$(cat "$WAREHOUSE_PASSWORD_FILE")" <<'END'
CREATE ROLE warehouse LOGIN CREATEDB PASSWORD :'password';
CREATE DATABASE warehouse OWNER warehouse;
REVOKE CONNECT ON DATABASE prefect FROM PUBLIC;
END
