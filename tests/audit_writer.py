"""A process that writes the audit log from several threads until it is killed: ``python -m audit_writer HOME FIRST [LIMIT]``.

Each thread writes records with numbers of its own and prints a number once the log has taken it, as a server answers a call. With LIMIT the system lets
no file grow beyond so many bytes; a line on standard input takes the limit away.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
from pathlib import Path

from oteo_core import telemetry
from oteo_core.auditlog import AuditLog, AuditSettings, Event
from oteo_core.errors import Unavailable

THREADS = 4


def main() -> None:
    """Write."""
    home, first = Path(sys.argv[1]), int(sys.argv[2])
    limit = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    if limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    settings = AuditSettings(
        home=home, audit_instance="writer", audit_segment_bytes=1 << (20 if limit else 14), audit_head_seconds=0.02, log_level="error"
    )
    telemetry.configure_logging(settings, "writer")
    log = AuditLog(settings)
    log.start()

    def write(thread: int) -> None:
        number = first + thread
        while True:
            try:
                taken = log.append(Event("call", "test.v1.Test/Write", code="OK", used={"count": number}))
                if number % 8 == 0:
                    log.sync(taken)
            except Unavailable:
                os.write(1, b"refused\n")
                if limit:
                    return
            else:
                os.write(1, f"{number}\n".encode())
            number += THREADS

    threads = [threading.Thread(target=write, args=(number,), daemon=True) for number in range(1 if limit else THREADS)]
    for thread in threads:
        thread.start()
    if limit:
        threads[0].join()
        sys.stdin.readline()
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        log.append(Event("call", "test.v1.Test/After", code="OK"))
        log.close()
        return
    signal.pause()


if __name__ == "__main__":
    main()
