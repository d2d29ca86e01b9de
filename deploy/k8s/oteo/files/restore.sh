#!/bin/sh
# Brings a copy back: restore.sh FILE URL. Everything that the database holds now is replaced, or, if anything fails, nothing.
set -eu
url=$(printf '%s' "$2" | sed 's#^postgresql+[a-z0-9]*://#postgresql://#')
pg_restore --clean --if-exists --no-owner --no-privileges --exit-on-error --single-transaction --dbname="$url" "$1"
