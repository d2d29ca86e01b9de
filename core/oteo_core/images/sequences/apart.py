"""JPEG-LS decoded in a process of its own, which is ended where it does not come to an end.

CharLS (2.4) counts to two thousand million in some damaged streams, as one bit in a thousand makes them, before it says that they are damaged. That
takes ten seconds and more for a picture of a few kilobytes, in which nothing in its own process can stop it.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SECONDS = 1.0
SECONDS_OF_MEGAPIXEL = 1.0
"""Processor time that a stream is given: some twenty times what a whole one of its size takes."""
_WALL = 300.0
"""Time within which a process answers that is not ended for its processor time, seconds."""
_MOST_IDLE = 2
_PIECE = 1 << 20
_WORKER = Path(__file__).with_name("apart_worker.py")

_idle: list[_Worker] = []
_lock = threading.Lock()


def decode_jpegls(data: bytes, pixels: int) -> NDArray[Any]:
    """Decode a JPEG-LS stream.

    Parameters
    ----------
    data
        The stream.
    pixels
        Values that it declares; the time that it is given depends on them.

    Raises
    ------
    ValueError
        It is damaged, or its decoder did not come to an end, or died.
    """
    with _lock:
        worker = _idle.pop() if _idle else None
    # One that waited may have been ended from outside meanwhile.
    if worker is None or worker.process.poll() is not None:
        worker = _Worker()
    try:
        answer, content = worker.ask(data, SECONDS + SECONDS_OF_MEGAPIXEL * pixels / 1e6)
    except BaseException:
        worker.end()
        raise
    with _lock:
        kept = len(_idle) < _MOST_IDLE
        if kept:
            _idle.append(worker)
    if not kept:
        worker.end()
    if "error" in answer:
        raise ValueError(answer["error"])
    # The bytes were read for this array alone, so that it may be written to.
    return np.frombuffer(content, np.dtype(answer["dtype"])).reshape(answer["shape"])


class _Worker:
    def __init__(self) -> None:
        # Without the folder of this file on its path, whose modules have names that others have, too.
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._to, self._from = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)

    def ask(self, data: bytes, seconds: float) -> tuple[dict[str, Any], bytearray]:
        until = time.monotonic() + _WALL
        left = memoryview(struct.pack("<Qd", len(data), seconds) + data)
        while left:
            self._wait(self._to, selectors.EVENT_WRITE, until)
            left = left[os.write(self._to, left[:_PIECE]) :]
        line, pixels = struct.unpack("<QQ", self._read(16, until))
        return json.loads(self._read(line, until)), self._read(pixels, until)

    def _read(self, size: int, until: float) -> bytearray:
        found = bytearray()
        while len(found) < size:
            self._wait(self._from, selectors.EVENT_READ, until)
            piece = os.read(self._from, min(size - len(found), _PIECE))
            if not piece:
                ended = self.process.wait() == -signal.SIGPROF
                raise ValueError("its decoder does not come to an end: it is damaged" if ended else "its decoder died of it")
            found += piece
        return found

    def _wait(self, file: int, event: int, until: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(file, event)
            if not selector.select(max(0.0, until - time.monotonic())):
                raise ValueError("its decoder does not answer")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
