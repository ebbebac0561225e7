#!/bin/sh
# Make the secrets of an environment that are not there yet, a file each, with random content:
#     sudo infra/compose/secrets.sh /etc/prefect-platform/qa
# The folder is for root alone; the files can be read by the containers' users, who only see them mounted.
# For prod put tls-certificate and tls-key (PEM) beside them.
set -eu
folder=${1:?name the folder, such as /etc/prefect-platform/qa}
umask 077
mkdir -p "$folder"
for name in postgres-password warehouse-password redis-password grafana-password prefect-api-password; do
    if [ -s "$folder/$name" ]; then
        echo "$name: kept"
    else
        od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$folder/$name"
        chmod 444 "$folder/$name"
        echo "$name: made"
    fi
done
