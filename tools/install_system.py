"""Install what the tests need from the operating system: PostgreSQL's server binaries.

Debian and its kin are served by apt-get when this runs as root; elsewhere the message says what to install.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


def has_postgres() -> bool:
    """Say whether ``initdb`` and ``postgres`` can be found."""
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    return bool(folders) or bool(shutil.which("initdb") and shutil.which("postgres"))


def main() -> int:
    """Install what is missing; give the exit status."""
    if has_postgres():
        return 0
    if shutil.which("apt-get") and os.geteuid() == 0:
        print("==> installing PostgreSQL for the tests", flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "postgresql"], check=True, env=environment)
        return 0 if has_postgres() else 1
    print(
        "The tests need PostgreSQL's server (Debian: sudo apt-get install postgresql). To leave those tests out: OTEO_TEST_NO_POSTGRES=1 make test",
        file=sys.stderr,
    )
    return 0 if os.environ.get("OTEO_TEST_NO_POSTGRES") == "1" else 1


if __name__ == "__main__":
    sys.exit(main())
