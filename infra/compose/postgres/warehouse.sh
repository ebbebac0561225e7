#!/bin/sh
# Sourced by the image's entrypoint at the first start: the flows' own database, and a user that sees nothing else.
psql --quiet --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" \
    --set=password="$(cat "$WAREHOUSE_PASSWORD_FILE")" <<'END'
CREATE ROLE warehouse LOGIN PASSWORD :'password';
CREATE DATABASE warehouse OWNER warehouse;
REVOKE CONNECT ON DATABASE prefect FROM PUBLIC;
END
