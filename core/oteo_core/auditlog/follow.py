"""Sends audit messages to an audit repository as they are written: syslog over TLS (RFC 5425), as IHE's ATNA profile asks for (ITI-20).

The receiver acknowledges nothing, so what was sent just before a connection breaks may be lost on the way. Therefore the place up to which all was sent is
noted some seconds late, and after a break sending begins there again: a message may come twice, which its record's chain and number show, and none is left out.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oteo_core import telemetry
from oteo_core.auditlog import atna
from oteo_core.auditlog.segments import chains_of, first_of, segments_of
from oteo_core.errors import FailedPrecondition

LOG = telemetry.logger("oteo.audit.follow")
_SETTLED_SECONDS = 5.0
_LONGEST_PAUSE = 60.0
_TIMEOUT = 20.0


@dataclass
class Place:
    """How far one chain was read: number of the last record, the file that the next one is looked for in, and its byte."""

    seq: int = -1
    segment: int = -1
    offset: int = 0


@dataclass
class Reader:
    """Reads what is new in all chains of a folder.

    Attributes
    ----------
    folder
        Folder of the chains.
    done
        By chain, number of the last record that need not be read again.
    """

    folder: Path
    done: dict[str, int]
    _places: dict[str, Place] = field(default_factory=dict)

    def restart(self, done: dict[str, int]) -> None:
        """Read again from other places."""
        self.done = dict(done)
        self._places.clear()

    def new(self) -> Iterator[dict[str, Any]]:
        """Give records that were not given yet; of a line that is not whole the next call gives the record."""
        for chain in chains_of(self.folder):
            place = self._places.setdefault(chain, Place(self.done.get(chain, -1)))
            files = segments_of(self.folder / chain)
            # The last file that begins at or before the next record; an older one holds nothing new.
            begin = max((first_of(path) for path in files if first_of(path) <= place.seq + 1), default=-1)
            for path in files:
                if first_of(path) >= max(begin, place.segment):
                    yield from self._lines(path, place)

    @staticmethod
    def _lines(path: Path, place: Place) -> Iterator[dict[str, Any]]:
        if first_of(path) != place.segment:
            place.segment, place.offset = first_of(path), 0
        with path.open("rb") as file:
            file.seek(place.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                place.offset += len(line)
                try:
                    record = json.loads(line)
                    seq = int(record["seq"])
                except (ValueError, KeyError, TypeError):
                    # What is no record is for `verify` to say.
                    continue
                if seq > place.seq:
                    place.seq = seq
                    yield record


class Follower:
    """Sends a folder's records, and notes how far it has come.

    Parameters
    ----------
    folder
        Folder of the chains.
    position
        File of what was sent; made if missing.
    connect
        Opens the connection.
    site
        ``AuditEnterpriseSiteID``; empty: none.
    clock
        Gives seconds.
    """

    def __init__(
        self,
        folder: Path,
        position: Path,
        connect: Callable[[], socket.socket],
        *,
        site: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._position = position
        self._connect = connect
        self._site = site
        self._clock = clock
        self._noted: dict[str, int] = _read_position(position)
        self._reader = Reader(folder, dict(self._noted))
        self._sent: deque[tuple[float, str, int]] = deque()
        self._connection: socket.socket | None = None

    def send_new(self) -> int:
        """Send what is new, and give how many messages that were.

        Raises
        ------
        OSError
            The connection cannot be made, or broke; the next call begins at the place noted.
        """
        count = 0
        try:
            for record in self._reader.new():
                if self._connection is None:
                    self._connection = self._connect()
                framed = atna.syslog(record, atna.message(record, self._site), socket.gethostname())
                self._connection.sendall(f"{len(framed)} ".encode() + framed)
                self._sent.append((self._clock(), str(record["chain"]), int(record["seq"])))
                count += 1
        except OSError:
            self._drop()
            self._sent.clear()
            self._reader.restart(self._noted)
            raise
        self._note(self._clock() - _SETTLED_SECONDS)
        return count

    def _note(self, until: float) -> None:
        """Note what was sent before a time."""
        changed = False
        while self._sent and self._sent[0][0] <= until:
            _, chain, seq = self._sent.popleft()
            self._noted[chain] = max(seq, self._noted.get(chain, -1))
            changed = True
        if changed:
            temporary = self._position.with_name(f".{self._position.name}.{os.getpid()}")
            temporary.write_text(json.dumps(self._noted, sort_keys=True))
            temporary.replace(self._position)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        """End the connection in order, and note all that was sent: what its end confirms has arrived.

        Raises
        ------
        OSError
            The other side did not end it in order; what was sent last will be sent again.
        """
        if self._connection is None:
            return
        try:
            if isinstance(self._connection, ssl.SSLSocket):
                # Many receivers answer our end by closing, without saying so first: they have read up to it all the same.
                with contextlib.suppress(ssl.SSLEOFError):
                    self._connection.unwrap()
            self._note(float("inf"))
        finally:
            self._drop()

    def run(self, period: float = 1.0, sleep: Callable[[float], None] = time.sleep) -> None:
        """Send for ever; a receiver that is away is tried again, less and less often."""
        pause = period
        while True:
            try:
                self.send_new()
                pause = period
            except OSError as error:
                LOG.warning("audit messages cannot be sent", error=str(error), again_in=pause)
                pause = min(_LONGEST_PAUSE, pause * 2)
            sleep(pause)


def _read_position(path: Path) -> dict[str, int]:
    try:
        return {str(chain): int(seq) for chain, seq in json.loads(path.read_text()).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, TypeError) as error:
        raise FailedPrecondition(
            f"{path} does not say what was sent; delete it to send everything again", reason="AUDIT_POSITION_INVALID"
        ) from error


def tls(address: str, *, ca: Path | None, certificate: Path | None, key: Path | None) -> Callable[[], socket.socket]:
    """Give what opens a connection to ``host:port`` over TLS 1.2 or later, checking the server's certificate and, with one of our own, showing it.

    Raises
    ------
    OSError
        A file cannot be read.
    """
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is not None:
        context.load_cert_chain(certificate, key)

    def connect() -> socket.socket:
        plain = socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT)
        try:
            return context.wrap_socket(plain, server_hostname=host.strip("[]"))
        except BaseException:
            plain.close()
            raise

    return connect
