#!/bin/sh
# Make the passwords of an environment that are not there yet, a file each, with random content, and say what else is missing:
#     sudo infra/compose/secrets.sh /srv/prefect-platform/qa
# The folder is for root alone; the files can be read by the containers' users, who only see them mounted.
set -eu
folder=${1:?name the folder, such as /srv/prefect-platform/qa}
(umask 022 && mkdir -p "$(dirname "$folder")") # of several environments, with their env files: for all to enter
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
if [ -s "$folder/aws-credentials" ]; then
    echo "aws-credentials: kept"
else
    printf '# The key to the buckets; without one the workers take the machine'"'"'s role.\n# [default]\n# aws_access_key_id = \n# aws_secret_access_key = \n' >"$folder/aws-credentials"
    chmod 444 "$folder/aws-credentials"
    echo "aws-credentials: made, without a key; fill it in unless the machine has a role"
fi
for name in slack-webhook-url pagerduty-routing-key smtp-password tls-certificate tls-key; do
    [ -s "$folder/$name" ] || echo "$name: MISSING; write it, chmod 444 (the two of TLS in prod only; 'none' for a channel that you don't have)"
done
