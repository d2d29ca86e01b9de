"""Several processes of one service on one port: started, watched and drained by a parent that answers no call itself.

The kernel shares new connections out among the processes (``SO_REUSEPORT``); what a connection carries stays with its process. The parent holds the port
without listening, so that nobody else takes it while a process is started again, and serves the metrics of all of them on one page.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from oteo_core import telemetry
from oteo_core.errors import Unavailable
from oteo_core.settings import CoreSettings

LOG = telemetry.logger("oteo.server")
LIFELINE = "OTEO_LIFELINE_FD"
"""Environment variable that names the descriptor whose end tells a process that its parent is gone."""

_STEADY_SECONDS = 10.0
_FIRST_PAUSE, _LAST_PAUSE = 0.2, 10.0
_LOOK_SECONDS = 0.1
_STOP_SECONDS = 15.0
_PORT_SECONDS = 15.0


def end_with_parent() -> bool:
    """Begin to drain when the parent is gone, however it went; gives whether this process is one of several that have such a parent."""
    named = os.environ.pop(LIFELINE, "")
    if not named:
        return False
    descriptor = int(named)
    os.set_inheritable(descriptor, False)

    def wait() -> None:
        # Nothing is ever written: reading ends when the parent's end is closed.
        os.read(descriptor, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
    return True


@contextlib.contextmanager
def held_port(address: str, seconds: float = _PORT_SECONDS) -> Iterator[str]:
    """Hold a port that processes started from here share; gives the address with the port, where it named port 0.

    Parameters
    ----------
    address
        ``host:port``.
    seconds
        Time to wait for processes of a parent before this one to let go of it.

    Raises
    ------
    Unavailable
        ``ADDRESS_IN_USE``.
    """
    host, _, port = address.rpartition(":")
    until = time.monotonic() + seconds
    while True:
        try:
            family, kind, protocol, _, place = socket.getaddrinfo(
                host.strip("[]") or None, int(port or 0), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            with socket.socket(family, kind, protocol) as probe:
                # Without SO_REUSEPORT: it fails where anybody listens, even one who would share.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
            holder = socket.socket(family, kind, protocol)
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind(place)
            break
        except OSError as error:
            if time.monotonic() > until:
                message = f"cannot listen on {address}: the port is taken or the address is not this machine's"
                raise Unavailable(message, reason="ADDRESS_IN_USE") from error
            time.sleep(_LOOK_SECONDS)
    with holder:
        yield f"{host}:{holder.getsockname()[1]}"


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]") or "localhost", int(port)), timeout=_LOOK_SECONDS).close()
    except OSError:
        return False
    return True


class _Child:
    """One place among the processes: who is in it, and when it is filled again."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.pause = 0.0
        self.again = 0.0


class Supervisor:
    """Keeps so many processes of a service running until it is told to stop.

    Parameters
    ----------
    settings
        The service's; the processes read the same from the environment.
    service
        Short name: ``"gateway"``.
    command
        Command line of one process.
    count
        How many.
    """

    def __init__(self, settings: CoreSettings, service: str, command: Sequence[str], count: int) -> None:
        self._settings = settings
        self._command = list(command)
        self._children = [_Child() for _ in range(count)]
        self._address = settings.listen or str(getattr(settings, f"{service}_address"))
        self._stop = threading.Event()
        self._served = False
        self._registry = CollectorRegistry()
        self._restarts = Counter("oteo_process_restarts", "Processes that ended unasked and were started again.", registry=self._registry)
        self._running = Gauge("oteo_processes", "Processes that run.", registry=self._registry)

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, or until the service turns out not to start at all; give the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        lifeline, ours = os.pipe()
        figures = tempfile.mkdtemp(prefix="oteo-metrics-")
        try:
            with held_port(self._address) as address:
                MultiProcessCollector(self._registry, path=figures)  # type: ignore[no-untyped-call]
                telemetry.serve_metrics(self._settings.metrics_port, address.rpartition(":")[0].strip("[]"), self._registry)
                LOG.info("supervising", processes=len(self._children), address=address)
                return self._watch(address, self._environment(address, lifeline, figures), lifeline, figures)
        finally:
            os.close(ours)
            os.close(lifeline)
            shutil.rmtree(figures, ignore_errors=True)

    def _environment(self, address: str, lifeline: int, figures: str) -> dict[str, str]:
        return {
            **os.environ,
            "OTEO_LISTEN": address,
            "OTEO_REUSE_PORT": "true",
            # For the part that each of them has of what is allowed of all.
            "OTEO_PROCESSES": str(len(self._children)),
            "OTEO_METRICS_PORT": "0",
            "PROMETHEUS_MULTIPROC_DIR": figures,
            LIFELINE: str(lifeline),
        }

    def _watch(self, address: str, environment: Mapping[str, str], lifeline: int, figures: str) -> int:
        status = 0
        while not self._stop.is_set():
            now = time.monotonic()
            for child in self._children:
                if child.process is None and now >= child.again:
                    child.process = subprocess.Popen(
                        self._command, env=environment, stdin=subprocess.DEVNULL, pass_fds=(lifeline,), start_new_session=True
                    )
                    child.started = now
                elif child.process is not None and (ended := child.process.poll()) is not None:
                    mark_process_dead(child.process.pid, path=figures)  # type: ignore[no-untyped-call]
                    if ended > 0 and not self._served:
                        # It does not start with these settings: whoever started the parent is to know.
                        status = ended
                        self._stop.set()
                        break
                    self._mourn(child, ended, now)
                elif child.process is not None and now - child.started > _STEADY_SECONDS:
                    child.pause = 0.0
            self._served = self._served or _listens(address)
            self._running.set(sum(child.process is not None for child in self._children))
            self._stop.wait(_LOOK_SECONDS)
        self._end()
        return status

    def _mourn(self, child: _Child, status: int, now: float) -> None:
        assert child.process is not None
        LOG.error("process_ended", pid=child.process.pid, status=status, after=round(now - child.started, 1))
        self._restarts.inc()
        child.process = None
        child.again = now + child.pause
        child.pause = min(_LAST_PAUSE, max(_FIRST_PAUSE, 2 * child.pause))

    def _end(self) -> None:
        """Have all drain at once, and kill what does not end."""
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        until = time.monotonic() + self._settings.drain_seconds + _STOP_SECONDS
        for process in running:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                LOG.warning("process_killed", pid=process.pid)
                process.kill()
                process.wait()
