"""What a cluster's network does for pods, on this machine: a DNS whose names are those of ready pods, and a Service that spreads connections over them."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
from collections.abc import Callable, Sequence

_HEADER = struct.Struct(">HHHHHH")
_A, _IN = 1, 1
_ANSWER, _NO_SUCH_NAME = 0x8180, 0x8183
_SECONDS_KEPT = 1


class Names:
    """A DNS server for ``dns://127.0.0.1:PORT/NAME``: the addresses of a name are those that are set, as of a headless Service."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._addresses: dict[str, list[str]] = {}
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def set(self, name: str, addresses: Sequence[str]) -> None:
        """Say which addresses a name has from now on."""
        self._addresses[name] = list(addresses)

    def close(self) -> None:
        """Answer no more."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                question, asker = self._socket.recvfrom(2048)
            except OSError:
                return
            if question:
                with contextlib.suppress(OSError):
                    self._socket.sendto(self._answer(question), asker)

    def _answer(self, message: bytes) -> bytes:
        labels, place = [], _HEADER.size
        while size := message[place]:
            labels.append(message[place + 1 : place + 1 + size].decode())
            place += 1 + size
        kind = int.from_bytes(message[place + 1 : place + 3])
        known = self._addresses.get(".".join(labels), [])
        given = known if kind == _A else []
        # The name in an answer points back to the question's.
        records = [
            b"\xc0\x0c" + struct.pack(">HHIH", _A, _IN, _SECONDS_KEPT, 4) + socket.inet_aton(address) for address in dict.fromkeys(given)
        ]
        header = _HEADER.pack(int.from_bytes(message[:2]), _ANSWER if known else _NO_SUCH_NAME, 1, len(records), 0, 0)
        return header + message[_HEADER.size : place + 5] + b"".join(records)


class Balancer:
    """A Service with one address, as kube-proxy makes it: a new connection goes to one of the ready pods, and stays there until either side ends it.

    Parameters
    ----------
    ready
        Gives the ready pods' ``(address, port)``.
    """

    def __init__(self, ready: Callable[[], Sequence[tuple[str, int]]]) -> None:
        self._ready = ready
        self._turn = itertools.count()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            pods = self._ready()
            try:
                pod = socket.create_connection(pods[next(self._turn) % len(pods)], timeout=5) if pods else None
            except OSError:
                pod = None
            if pod is None:
                caller.close()
                continue
            pod.settimeout(None)
            for source, target in ((caller, pod), (pod, caller)):
                threading.Thread(target=_copy, args=(source, target), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        # Wakes the thread of the other direction, too.
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
    for end in (source, target):
        end.close()
