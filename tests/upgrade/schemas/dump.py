"""Dump a database as SQL text: ``python dump.py DATABASE_URL > FILE.sql``."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys


def dump(url: str) -> str:
    """Give the SQL that makes a database again, tables and rows."""
    if url.startswith("sqlite:///"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            return "\n".join(connection.iterdump()) + "\n"
    command = ["pg_dump", "--inserts", "--no-owner", "--no-privileges", f"--dbname={url}"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # Settings of the session that dumped, comments and psql's own commands: another server, or driver, need not know them.
    kept = [line for line in text.splitlines() if line and not line.startswith(("--", "SET ", "SELECT pg_catalog.set_config", "\\"))]
    return "\n".join(kept) + "\n"


if __name__ == "__main__":
    sys.stdout.write(dump(sys.argv[1]))
