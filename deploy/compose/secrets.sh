#!/bin/sh
# Makes the tokens and passwords of the compose file, once; what is there already is kept.
set -eu
folder=$(dirname "$0")/secrets
[ -e "$folder/token" ] && { echo "$folder is there already"; exit 0; }
umask 022
mkdir -p "$folder"
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
password=$(random)
access=$(random)
secret=$(random)
printf '%s' "$password" > "$folder/database_password"
printf 'OTEO_DATABASE_URL=postgresql://oteo:%s@postgresql:5432/oteo\n' "$password" > "$folder/database.env"
printf 'MLFLOW_BACKEND_STORE_URI=postgresql+psycopg://oteo:%s@postgresql:5432/mlflow\n' "$password" > "$folder/mlflow.env"
printf 'ROOT_ACCESS_KEY=%s\nROOT_SECRET_KEY=%s\n' "$access" "$secret" > "$folder/s3.env"
printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$access" "$secret" > "$folder/s3_credentials"
random > "$folder/ray_token"
od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$folder/audit_key"
# What the gateway's door reads; `oteo tokens create NAME --role ROLE --file …/access/tokens.json` adds to it and leaves its mode.
door=$(dirname "$0")/access
mkdir -p "$door"
[ -e "$door/tokens.json" ] || printf '{"tokens": []}\n' > "$door/tokens.json"
[ -e "$door/gateway.env" ] || printf '# OTEO_OIDC_ISSUER=https://login.hospital.example/realms/hospital\n# OTEO_OIDC_AUDIENCE=oteo\n' > "$door/gateway.env"
chmod 0644 "$door/tokens.json"
# Last: while it is missing, all of this is done again.
random > "$folder/token"
# Containers run as another user; the folder itself is its owner's alone.
chmod 0644 "$folder"/*
chmod 0711 "$folder"
