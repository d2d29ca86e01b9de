"""Decodes JPEG-LS streams that come on standard input, one after the other, until there are no more. Run as a file, by `apart`.

It imports nothing of Oteo, so that it is there quickly. A message is its length (8 bytes, little-endian), the processor seconds that it is given (a
float of 8 bytes) and its bytes; where they are used up, SIGPROF ends the process. Time of the processor is counted, so that a machine with much to do
ends nothing that is whole. An answer is the lengths of a line of JSON and of the pixels behind it, and both: ``{"dtype": ..., "shape": [...]}``, or
``{"error": ...}`` without pixels.
"""

from __future__ import annotations

import json
import signal
import struct
import sys

import imagecodecs
import numpy as np


def main() -> None:
    """Answer until standard input ends, as it does where the process that asks is gone."""
    asked, answered = sys.stdin.buffer, sys.stdout.buffer
    while len(head := asked.read(16)) == 16:
        size, seconds = struct.unpack("<Qd", head)
        data = asked.read(size)
        pixels = b""
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            decoded = np.ascontiguousarray(imagecodecs.jpegls_decode(data))
            words, pixels = {"dtype": decoded.dtype.str, "shape": list(decoded.shape)}, decoded.tobytes()
        except Exception as exc:  # noqa: BLE001 (whatever it is, it is the answer)
            words = {"error": f"{type(exc).__name__}: {exc}"}
        signal.setitimer(signal.ITIMER_PROF, 0)
        line = json.dumps(words).encode()
        answered.write(struct.pack("<QQ", len(line), len(pixels)) + line + pixels)
        answered.flush()


if __name__ == "__main__":
    main()
