#!/bin/sh
# Make the passwords of an environment that are not there yet, a file each, with random content, say what else is missing, and
# refuse what is no secret:
#     sudo infra/compose/secrets.sh /srv/prefect-platform/qa
# The folder is for root alone; the files can be read by the containers' users, who only see them mounted. So can what Compose
# mounts of this checkout, when this has run: with a umask of 077 it was its owner's alone.
set -eu
folder=${1:?name the folder, such as /srv/prefect-platform/qa}
infra="$(dirname "$0")/.."
alertmanager="$infra/monitoring/alertmanager/alertmanager.yml"
refused=0

# It is there, and holds something. What holds nothing would start, and fail only when it is needed: an alert that nobody gets.
kept() {
    [ -e "$folder/$1" ] || return 1
    case $(tr -d '[:space:]' <"$folder/$1" | tr '[:upper:]' '[:lower:]') in
    '' | none)
        echo "$folder/$1 is empty or says 'none', which is no secret. $2" >&2
        refused=1
        ;;
    *) echo "$1: kept" ;;
    esac
}

(umask 022 && mkdir -p "$(dirname "$folder")") # of several environments, with their env files: for all to enter
umask 077
mkdir -p "$folder"
for name in postgres-password warehouse-password redis-password grafana-password prefect-api-password; do
    if ! kept "$name" "Write the one that is in use, or delete the file to have a new one made."; then
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
for name in slack-webhook-url pagerduty-routing-key smtp-password; do
    if [ -e "$alertmanager" ] && ! grep -q "^[^#]*/run/secrets/$name" "$alertmanager"; then
        [ -s "$folder/$name" ] || echo unused >"$folder/$name" # Compose mounts it all the same
        chmod 444 "$folder/$name"
        echo "$name: not needed, alertmanager.yml has no such channel"
    elif ! kept "$name" "Write it, or take the channel out of infra/monitoring/alertmanager/alertmanager.yml."; then
        echo "$name: MISSING; write it, chmod 444, or take the channel out of infra/monitoring/alertmanager/alertmanager.yml"
    fi
done
for name in tls-certificate tls-key; do
    kept "$name" "Write it, or delete the file where another proxy has the certificate." ||
        echo "$name: MISSING; write it, chmod 444 (in prod only)"
done
for part in compose/backup.sh compose/nginx compose/postgres monitoring/prometheus monitoring/alertmanager monitoring/grafana; do
    # Only what cannot be read yet: whoever is not its owner has nothing to do then.
    [ ! -e "$infra/$part" ] || find "$infra/$part" \( -type d ! -perm -005 -o -type f ! -perm -004 \) -exec chmod a+rX {} +
done
exit "$refused"
