"""Install what the tests need from the operating system: PostgreSQL's server binaries, and what the examples in Java and C# are checked with.

Debian and its kin are served by apt-get when this runs as root; elsewhere the message says what to install. PostgreSQL is needed; without
the rest the tests of those examples are skipped and say so. No JDK is installed: Java's libraries are, where there is one.
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


def can_install() -> bool:
    """Say whether packages can be installed here."""
    return bool(shutil.which("apt-get")) and os.geteuid() == 0


def install(packages: list[str], *, check: bool) -> bool:
    """Install Debian's packages; without `check`, say whether that went well instead of raising."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]):
        if subprocess.run(command, check=check, env=environment).returncode:
            return False
    return True


def install_callers() -> None:
    """Install what the examples in other languages are checked with, where that can be done."""
    wanted = PROTOC | (JAVA if shutil.which("javac") else {})
    missing = [package for file, package in wanted.items() if not Path(file).exists()]
    if missing and can_install():
        print("==> installing protoc, and Java's libraries where there is a JDK, for the tests of the examples", flush=True)
        if not install(missing, check=False):
            print("could not be installed; the tests of the examples in Java and C# will be skipped", file=sys.stderr)


def main() -> int:
    """Install what is missing; give the exit status."""
    install_callers()
    if has_postgres():
        return 0
    if can_install():
        print("==> installing PostgreSQL for the tests", flush=True)
        install(["postgresql"], check=True)
        return 0 if has_postgres() else 1
    print(
        "The tests need PostgreSQL's server (Debian: sudo apt-get install postgresql). To leave those tests out: OTEO_TEST_NO_POSTGRES=1 make test",
        file=sys.stderr,
    )
    return 0 if os.environ.get("OTEO_TEST_NO_POSTGRES") == "1" else 1


if __name__ == "__main__":
    sys.exit(main())
