"""Install what the tests need from the operating system: PostgreSQL's server binaries, and dcmtk's reader of DICOM.

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


def has_dcmtk() -> bool:
    """Say whether ``dcmdump`` can be found."""
    return shutil.which("dcmdump") is not None


def missing() -> list[str]:
    """Give the packages of Debian that are not there."""
    there = {"postgresql": has_postgres(), "dcmtk": has_dcmtk()}
    return [package for package, found in there.items() if not found]


def main() -> int:
    """Install what is missing; give the exit status."""
    wanted = missing()
    if wanted and shutil.which("apt-get") and os.geteuid() == 0:
        print(f"==> installing {', '.join(wanted)} for the tests", flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *wanted]):
            # What comes of it is looked at below: one package may be there without the other.
            subprocess.run(["apt-get", *command], check=False, env=environment)
        wanted = missing()
    if "dcmtk" in wanted:
        print(
            "Without dcmtk (Debian: sudo apt-get install dcmtk) the test that reads de-identified files with dcmdump is skipped.",
            file=sys.stderr,
        )
    if "postgresql" not in wanted:
        return 0
    print(
        "The tests need PostgreSQL's server (Debian: sudo apt-get install postgresql). To leave those tests out: OTEO_TEST_NO_POSTGRES=1 make test",
        file=sys.stderr,
    )
    return 0 if os.environ.get("OTEO_TEST_NO_POSTGRES") == "1" else 1


if __name__ == "__main__":
    sys.exit(main())
