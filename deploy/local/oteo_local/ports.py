"""Free ports on loopback."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection

# Ray's workers take 10002-19999; the kernel hands out ephemeral ports above 32768 to every outgoing connection, so a port chosen there may be gone by the time its
# server starts. What lies between is left to servers.
FIRST, LAST = 20001, 32000


class NoFreePort(RuntimeError):
    """No port could be bound."""


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Say whether a server could listen on a port now."""
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # a server that has just gone leaves TIME_WAIT behind, which hinders no one
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(taken: Collection[int] = ()) -> int:
    """Give a port in 20001..32000 that nobody listens on and that is not in ``taken``.

    Raises
    ------
    NoFreePort
        A thousand ports drawn at random were all in use.
    """
    draw = random.SystemRandom()  # two stacks that start at once must not try the same ports in the same order
    for _ in range(1000):
        port = draw.randint(FIRST, LAST)
        if port not in taken and is_free(port) and is_free(port, "0.0.0.0"):
            return port
    raise NoFreePort(f"no free port between {FIRST} and {LAST}")


def listening(port: int, host: str = "127.0.0.1", timeout: float = 0.2) -> bool:
    """Say whether something accepts connections on a port."""
    try:
        with socket.create_connection((host, port), timeout=timeout):
            return True
    except OSError:
        return False
