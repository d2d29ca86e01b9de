#!/bin/sh
# Copies the databases, each whole and by itself, into BACKUP_FOLDER, and removes all but the newest BACKUP_KEEP of each. A copy that is not complete is never
# there under its name.
set -eu
stamp=$(date -u +%Y%m%dT%H%M%SZ)

copy() {
    target="$BACKUP_FOLDER/$1-$stamp.dump"
    # The URL's driver, if it names one, is SQLAlchemy's affair.
    url=$(printf '%s' "$2" | sed 's#^postgresql+[a-z0-9]*://#postgresql://#')
    pg_dump --format=custom --no-owner --no-privileges --file="$target.partial" --dbname="$url"
    # A copy that cannot be listed cannot be brought back.
    pg_restore --list "$target.partial" > /dev/null
    mv "$target.partial" "$target"
    ls -1 "$BACKUP_FOLDER/$1"-*.dump | sort -r | tail -n "+$((BACKUP_KEEP + 1))" | while read -r old; do rm -f "$old"; done
    echo "$target"
}

rm -f "$BACKUP_FOLDER"/*.partial
copy oteo "$OTEO_DATABASE_URL"
if [ -n "${MLFLOW_DATABASE_URL:-}" ]; then
    copy mlflow "$MLFLOW_DATABASE_URL"
fi
