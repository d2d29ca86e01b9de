"""Install what the tests need from the operating system: PostgreSQL's server, dcmtk's reader of DICOM, and what checks the examples.

With ``--long`` also what the long tests alone need: what builds images, and what copies buckets. Debian and its kin are served by apt-get when this runs as root; elsewhere the message says what to install. PostgreSQL is needed; without
the rest, tests are skipped and say so. No JDK is installed: Java's libraries are, where there is one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PROTOC = {"/usr/bin/protoc": "protobuf-compiler", "/usr/include/google/protobuf/descriptor.proto": "libprotobuf-dev"}
"""Debian's packages by a file that each brings."""
JAVA = {
    "/usr/bin/grpc_java_plugin": "protobuf-compiler-grpc-java-plugin",
    "/usr/share/java/grpc-netty.jar": "libgrpc-java",
    "/usr/share/java/protobuf.jar": "libprotobuf-java",
    "/usr/share/java/netty-codec-http2.jar": "libnetty-java",
    "/usr/share/java/netty-tcnative.jar": "libnetty-tcnative-java",
    "/usr/share/java/guava.jar": "libguava-java",
    "/usr/share/java/jsr305.jar": "libjsr305-java",
    "/usr/share/java/perfmark-api.jar": "libperfmark-java",
    "/usr/share/java/geronimo-annotation-1.3-spec.jar": "libgeronimo-annotation-1.3-spec-java",
}


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


def missing_for_callers() -> list[str]:
    """Give the packages of Debian that the examples in other languages are checked with and that are not there."""
    wanted = PROTOC | (JAVA if shutil.which("javac") else {})
    return [package for file, package in wanted.items() if not Path(file).exists()]


def missing_for_long_tests() -> list[str]:
    """Give the packages of Debian that the long tests alone need and that are not there: to build container images, and to copy a bucket."""
    return [program for program in ("buildah", "debootstrap", "rclone") if shutil.which(program) is None]


def main() -> int:
    """Install what is missing, with ``--long`` for the long tests too; give the exit status."""
    for_long_tests = missing_for_long_tests if "--long" in sys.argv[1:] else list
    groups = [group for group in (missing(), for_long_tests(), missing_for_callers()) if group]
    if groups and shutil.which("apt-get") and os.geteuid() == 0:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=False, env=environment)
        # Group by group, since a package that another Debian does not have stops its whole group. What comes of it is looked at below.
        for group in groups:
            print(f"==> installing {', '.join(group)} for the tests", flush=True)
            subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *group], check=False, env=environment)
    wanted = missing()
    if callers := missing_for_callers():
        print(f"Without {' '.join(callers)} (Debian) tests of the examples in Java and C# are skipped.", file=sys.stderr)
    if absent := for_long_tests():
        print(f"Without {' '.join(absent)} (Debian) tests that build container images or copy a bucket are skipped.", file=sys.stderr)
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
