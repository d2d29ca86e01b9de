#!/bin/sh
# Makes the tokens, keys and passwords of the compose file that are not there yet; what is there is kept. Run it again after an update, which may want new ones.
set -eu
umask 077
here=$(dirname "$0")
folder=$here/secrets
door=$here/access
made=
mkdir -p "$folder" "$door"
random() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }
missing() {
  [ ! -s "$folder/$1" ] || return 1
  made="$made $1"
}
# Writes standard input to a file: whole or not at all.
write() {
  cat > "$folder/.new"
  [ -s "$folder/.new" ]
  # Containers run as another user; the folder is its owner's alone.
  chmod 0644 "$folder/.new"
  mv "$folder/.new" "$folder/$1"
}

for name in token ray_token; do
  if missing $name; then random 24 | write $name; fi
done
# Of the audit log, and of the hashes that stand for DICOM's identifiers. Keep copies elsewhere, each with other people.
for name in audit_key deidentification_key; do
  if missing $name; then random 32 | write $name; fi
done

# What is derived from another file is made of it, also where that one is older.
if missing database_password; then
  random 24 | write database_password
  rm -f "$folder/database.env" "$folder/mlflow.env"
fi
password=$(cat "$folder/database_password")
if missing database.env; then printf 'OTEO_DATABASE_URL=postgresql://oteo:%s@postgresql:5432/oteo\n' "$password" | write database.env; fi
if missing mlflow.env; then printf 'MLFLOW_BACKEND_STORE_URI=postgresql+psycopg://oteo:%s@postgresql:5432/mlflow\n' "$password" | write mlflow.env; fi
if missing s3.env; then
  printf 'ROOT_ACCESS_KEY=%s\nROOT_SECRET_KEY=%s\n' "$(random 24)" "$(random 24)" | write s3.env
  rm -f "$folder/s3_credentials"
fi
if missing s3_credentials; then
  {
    echo '[default]'
    sed -e 's/^ROOT_ACCESS_KEY=/aws_access_key_id = /' -e 's/^ROOT_SECRET_KEY=/aws_secret_access_key = /' "$folder/s3.env"
  } | write s3_credentials
fi
chmod 0700 "$folder"

# What the gateway's door reads; `oteo tokens create NAME --role ROLE --file …/access/tokens.json` adds to it and leaves its mode.
if [ ! -e "$door/tokens.json" ]; then
  printf '{"tokens": []}\n' > "$door/tokens.json"
  made="$made tokens.json"
fi
if [ ! -e "$door/gateway.env" ]; then
  printf '# OTEO_OIDC_ISSUER=https://login.hospital.example/realms/hospital\n# OTEO_OIDC_AUDIENCE=oteo\n' > "$door/gateway.env"
  made="$made gateway.env"
fi
chmod 0755 "$door"
chmod 0644 "$door/tokens.json" "$door/gateway.env"
if [ -n "$made" ]; then echo "made:$made"; else echo "all of $folder is there already"; fi
